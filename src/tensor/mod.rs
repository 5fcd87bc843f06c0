//! Data at rest: portable, comparable, savable. Algorithms choose the numbers, `packed` runs them.

mod checkpoint;
mod codes;
mod distortion;
mod granularity;
mod mask;
mod pruned;
mod quantized;
mod statistic;
mod weights;

pub use checkpoint::{Checkpoint, FloatType, Stored};
pub use codes::Codes;
pub use distortion::Distortion;
pub use granularity::Granularity;
pub(crate) use granularity::Groups;
#[cfg(feature = "io")]
pub(crate) use granularity::elements;
pub use mask::Mask;
pub use pruned::PrunedTensor;
pub use quantized::{Grid, QuantizedTensor};
pub use statistic::{Observed, Statistic};
pub(crate) use weights::{Dense, Survivors};
pub use weights::{Element, Weighted, Weights};
