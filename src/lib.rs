//! Terse tensors.

pub mod compressed;
mod error;
#[cfg(feature = "io")]
pub mod io;
#[allow(unsafe_code)]
mod kernels;
pub mod nn;
pub mod packed;
pub mod quantize;
pub mod recipe;
pub mod report;
#[doc(hidden)]
pub mod sealed;
pub mod tensor;

pub use error::{Error, Result};
pub use kernels::isa::Isa;
pub use packed::PackedWeights;
pub use quantize::Quantizer;
pub use recipe::Recipe;
pub use report::Report;
pub use tensor::{QuantizedTensor, Weights};
