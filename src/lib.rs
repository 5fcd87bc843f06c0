//! Terse tensors.

mod error;
#[cfg(feature = "io")]
pub mod io;
#[allow(unsafe_code)]
mod kernels;
pub mod nn;
pub mod quantize;
#[doc(hidden)]
pub mod sealed;
pub mod tensor;

pub use error::{Error, Result};
pub use quantize::Quantizer;
pub use tensor::{QuantizedTensor, Weights};
pub use kernels::isa::Isa;
