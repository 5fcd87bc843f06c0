//! Terse tensors.

mod error;
#[allow(unsafe_code)]
mod kernels;
pub mod nn;
mod sealed;

pub use error::{Error, Result};
