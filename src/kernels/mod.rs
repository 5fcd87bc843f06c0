//! Slices and numbers in, slices out: the only room with `unsafe`, and it knows nothing of `ndarray`.

pub(crate) mod affine;
pub(crate) mod bits;
pub(crate) mod codebook;
mod depth;
pub(crate) mod ends;
pub mod float;
mod float_kernel;
mod gemm;
mod grid;
pub(crate) mod histogram;
pub(crate) mod im2col;
pub(crate) mod isa;
mod kernel;
pub(crate) mod least;
mod level_kernel;
mod levels;
pub mod limits;
mod nm;
pub(crate) mod numbers;
pub(crate) mod pack;
mod panels;
pub(crate) mod parallel;
mod products;
mod quantize;
pub(crate) mod scalar;
mod sparse;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(test)]
mod battery;

pub(crate) use depth::Depth;
pub(crate) use kernel::Bits;
pub(crate) use levels::PackedLevels;
pub(crate) use panels::PackedInt8;
pub(crate) use quantize::{Activations, Fixed};
pub(crate) use sparse::PackedSparse;
