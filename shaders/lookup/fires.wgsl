// Whether row r goes another way: its sequence's choice is an entry (TABLE, or where `which` is none), or entry
// `which`, and the row is in one of the places that are asked for.
fn fires(r: u32) -> bool {
  let chosen = choice[sequence[r]];
  let meant = select(chosen == p.which, chosen != 0xffffffffu, TABLE || p.which == 0xffffffffu);
  return meant && (place[r] & p.places) != 0u;
}
