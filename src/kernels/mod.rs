//! Slices and numbers in, slices out: the only room with `unsafe`, and it knows nothing of `ndarray`.

pub(crate) mod affine;
pub(crate) mod codebook;
pub(crate) mod im2col;
pub(crate) mod pack;
pub(crate) mod parallel;
