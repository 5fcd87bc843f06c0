//! Products of f32 inputs with weights that stay packed: a block of outputs is decoded, multiplied, and forgotten.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, linalg::general_mat_mul};

use crate::{kernels::parallel, tensor::QuantizedTensor};

/// Weights decoded at a time: they stay in a core's cache between decoding and multiplying.
const BLOCK: usize = 1 << 16;

/// `y = x w^T`, the rows of `w` being the outputs.
pub(super) fn matmul(x: ArrayView2<'_, f32>, w: &QuantizedTensor, outputs: usize, mut y: ArrayViewMut2<'_, f32>) {
    let inputs = x.ncols();
    let block = (BLOCK / inputs.max(1)).clamp(1, outputs.max(1));
    let products = parallel::map(outputs.div_ceil(block), |index| {
        let first = index * block;
        let rows = block.min(outputs - first);
        let mut weights = Array2::zeros((rows, inputs));
        if let Some(weights) = weights.as_slice_mut() {
            w.decode(first * inputs, weights);
        }
        let mut product = Array2::zeros((x.nrows(), rows));
        general_mat_mul(1.0, &x, &weights.t(), 0.0, &mut product);
        product
    });
    let blocks = y.axis_chunks_iter_mut(Axis(1), block);
    blocks.into_iter().zip(products).for_each(|(mut out, product)| out.assign(&product));
}
