//! Data at rest: portable, comparable, savable. Algorithms choose the numbers, `packed` runs them.

mod checkpoint;
mod codes;
mod distortion;
mod finite;
mod granularity;
mod mask;
mod pruned;
mod quantized;
mod sparse;
mod sparse_layout;
mod statistic;
mod weights;

pub use checkpoint::{Checkpoint, FloatType, Stored};
pub use codes::Codes;
pub use distortion::Distortion;
pub(crate) use finite::expect_finite;
pub use granularity::Granularity;
pub(crate) use granularity::{Groups, rows};
#[cfg(feature = "io")]
pub(crate) use granularity::{elements, is_countable};
pub use mask::Mask;
pub use pruned::PrunedTensor;
pub use quantized::{Grid, QuantizedTensor};
pub use sparse::{SparseTensor, SparseValues};
pub use sparse_layout::SparseLayout;
pub(crate) use sparse_layout::matrix;
#[cfg(feature = "io")]
pub(crate) use sparse_layout::{block_firsts, groups, place_bits};
pub use statistic::{Observed, Statistic};
pub(crate) use weights::{Dense, Survivors};
pub use weights::{Element, Halves, Weighted, Weights};
