// ‖δ‖ of a row of delta [rows, width]. All invocations must call it and all get the result.
fn row_norm(lane: u32, row: u32) -> f32 {
  let start = row * p.width;
  var sum = 0.0;
  for (var c = lane; c < p.width; c += WG) { sum += delta[start + c] * delta[start + c]; }
  return sqrt(reduce_sum(lane, sum));
}
