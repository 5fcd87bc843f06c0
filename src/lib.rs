//! Terse tensors.

mod error;
#[allow(unsafe_code)]
mod kernels;
pub mod nn;
#[doc(hidden)]
pub mod sealed;

pub use error::{Error, Result};
pub use kernels::isa::Isa;
