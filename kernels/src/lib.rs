//! The arithmetic of an LSTM: products with weights that are laid out for this machine's vectors, and the gates.
//!
//! A crate of its own for one reason: builds for tests optimise dependencies, not the crate itself, and these loops are
//! a hundred times slower unoptimised. Used by `backend::tract` of inferq alone; knows neither tract nor ONNX.

pub use self::gates::{GATE_ERROR, GATES};
pub use self::recurrence::{Projection, Recurrence, Summation};
pub use self::weights::{Aligned, OnnxWeights, Weights, levels};
pub use fearless_simd::Level;

mod gates;
mod recurrence;
mod weights;
