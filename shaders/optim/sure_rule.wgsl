// PMET's rule for targets that are said already, decided on the device as stop_rule is: an edit is sure when its
// wanted token is the likeliest at every one of its rows.
//   best, wanted, edit [p.rows]: a row's likeliest token, its wanted one and whose it is
//   terms [E, p.parts]: the terms of each loss; part 1 is the KL
//   factor [E]: what the NLL is multiplied with in the next step, p.factor where an edit is sure and 1 elsewhere
//   active [E]: 0 from now on where an edit is sure and its KL is at most p.kl
// One invocation an edit, which reads all rows: they are few.
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let e = id.x;
  if (e >= p.edits || active_[e] == 0u) { return; }
  var sure = true;
  for (var r = 0u; r < p.rows; r++) { sure = sure && (edit[r] != e || best[r] == wanted[r]); }
  factor[e] = select(1.0, p.factor, sure);
  if (sure && terms[e * p.parts + 1u] <= p.kl) { active_[e] = 0u; }
}
