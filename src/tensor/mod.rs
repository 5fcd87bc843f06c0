//! Data at rest: portable, comparable, savable. Algorithms choose the numbers, `packed` runs them.

mod codes;
mod granularity;
mod quantized;
mod weights;

pub use codes::Codes;
pub use granularity::Granularity;
pub(crate) use granularity::Groups;
pub use quantized::{Grid, QuantizedTensor};
pub(crate) use weights::Dense;
pub use weights::{Element, Weighted, Weights};
