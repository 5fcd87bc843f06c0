//! A weight ready to multiply.

use ndarray::{Array1, Array2, ArrayBase, ArrayD, ArrayView2, ArrayViewMut2, Axis, Data, DataMut, Ix2, IxDyn};

use super::{
    Activations,
    choose::{Choice, choose},
    decoded,
};
use crate::{
    error::{Error, Result},
    kernels::isa::Isa,
    tensor::QuantizedTensor,
};

/// A quantized weight packed for the kernel that suits it: `y = x W^T + b`.
///
/// | weight | kernel | inputs |
/// |---|---|---|
/// | affine, 1 to 8 bits, a scale per tensor, output channel or group of inputs | int8 | rounded to 8 bits, [`Activations`] |
/// | codebooks, 16 bits, a scale per input | decoded | f32 |
///
/// int8 sums are exact integers: the result is the same bits on every instruction set and any number of threads.
///
/// ```
/// use ndarray::{Array2, Axis};
/// use tersor::{PackedWeights, Quantizer};
///
/// let w = Array2::from_shape_fn((48, 100), |(i, j)| ((i * 100 + j) as f32).sin());
/// let x = Array2::from_shape_fn((5, 100), |(i, j)| ((i + j * 7) as f32).cos());
/// let packed = PackedWeights::new(&Quantizer::uniform(8).symmetric().per_channel(Axis(0)).apply(&w)?)?;
/// let error = (packed.matmul(&x)? - x.dot(&w.t())).mapv(f32::abs);
/// assert!(error.iter().all(|e| *e < 0.3));
/// println!("{}", packed.kernel()); // such as int8-avx512vnni
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PackedWeights {
    outputs: usize,
    inputs: usize,
    bias: Option<Array1<f32>>,
    packed: Packed,
}
