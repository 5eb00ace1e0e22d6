// How much of a moment Adafactor keeps in step t = 1, 2, …: 1 − t^−decay, nothing in the first.
fn kept_moment(t: u32, decay: f32) -> f32 {
  return select(1.0 - pow(f32(t), -decay), 0.0, t <= 1u);
}
