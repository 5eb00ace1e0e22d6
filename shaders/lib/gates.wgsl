// The functions of an LSTM's gates, by exponentials of bounded numbers: the driver's tanh is inaccurate near 0.
fn sigmoid(x: f32) -> f32 { return 1.0 / (1.0 + exp(-clamp(x, -80.0, 80.0))); }
fn hyperbolic(x: f32) -> f32 { return 2.0 * sigmoid(2.0 * x) - 1.0; }
