//! Products of f32 inputs with weights that stay packed: a block of outputs is decoded, multiplied, and forgotten.

use std::{ops::Range, sync::Arc};

use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, linalg::general_mat_mul};

use crate::{kernels::parallel, tensor::QuantizedTensor};

/// Weights decoded at a time: they stay in a core's cache between decoding and multiplying.
const BLOCK: usize = 1 << 15;

/// Some rows of a quantized tensor, as they are at rest.
#[derive(Clone, Debug)]
pub(super) struct Decoded {
    weights: Arc<QuantizedTensor>,
    rows: Range<usize>,
    inputs: usize,
}

impl Decoded {
    pub(super) fn new(weights: Arc<QuantizedTensor>, rows: Range<usize>, inputs: usize) -> Self {
        Decoded { weights, rows, inputs }
    }

    pub(super) fn nbytes(&self) -> usize {
        self.weights.nbytes() * self.rows.len() / self.weights.shape()[0].max(1)
    }

    /// `y = x w^T + bias`.
    pub(super) fn matmul(&self, x: ArrayView2<'_, f32>, bias: Option<&Array1<f32>>, mut y: ArrayViewMut2<'_, f32>) {
        let outputs = self.rows.len();
        let block = (BLOCK / self.inputs.max(1)).clamp(1, outputs.max(1));
        let products = parallel::map(outputs.div_ceil(block), |index| {
            let rows = index * block..outputs.min((index + 1) * block);
            let mut weights = vec![0.0; rows.len() * self.inputs];
            self.weights.decode((self.rows.start + rows.start) * self.inputs, &mut weights);
            let mut product = Array2::zeros((x.nrows(), rows.len()));
            if let Some(bias) = bias {
                product += &bias.slice(ndarray::s![rows.clone()]);
            }
            if let Ok(weights) = ArrayView2::from_shape((rows.len(), self.inputs), &weights) {
                general_mat_mul(1.0, &x, &weights.t(), 1.0, &mut product);
            }
            product
        });
        for (mut out, product) in y.axis_chunks_iter_mut(Axis(1), block).zip(products) {
            out.assign(&product);
        }
    }
}
