// For kernels with one workgroup of WG invocations a row of [p.rows, p.width]; an invocation takes every WG-th
// element. Needs reduce.wgsl.
struct Workgroup {
  @builtin(workgroup_id) id: vec3<u32>,
  @builtin(num_workgroups) grid: vec3<u32>,
}

// The row of this workgroup; p.rows or more past the end of a grid that was folded into x and y.
fn row_of(wg: Workgroup) -> u32 { return wg.id.y * wg.grid.x + wg.id.x; }

// The mean over the row, from each invocation's sum. All invocations must call it and all get the result.
fn row_mean(lane: u32, sum: f32) -> f32 { return reduce_sum(lane, sum) * (1.0 / f32(p.width)); }
