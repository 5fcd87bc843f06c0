//! Products of f32 inputs with weights for which there is no kernel: a block of outputs is decoded, multiplied, and forgotten.

use std::{ops::Range, sync::Arc};

use super::dense::begin;
use crate::{
    Isa,
    kernels::{
        float::{Matrix, add_product},
        parallel,
    },
    tensor::QuantizedTensor,
};

/// Weights decoded at a time: they stay in a core's cache between decoding and multiplying.
const BLOCK: usize = 1 << 15;

/// Outputs that are worth a product of their own.
const LEAST_OUTPUTS: usize = 48;

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

    /// `y = x w^T + bias`, for row-major `x` and `y`.
    pub(super) fn matmul(&self, x: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
        let (outputs, inputs) = (self.rows.len(), self.inputs);
        let rows = y.len() / outputs.max(1);
        let block = (BLOCK / inputs.max(1)).max(LEAST_OUTPUTS).clamp(1, outputs.max(1));
        let products = parallel::map(outputs.div_ceil(block), |index| {
            let some = index * block..outputs.min((index + 1) * block);
            let mut weights = vec![0.0; some.len() * inputs];
            self.weights.decode((self.rows.start + some.start) * inputs, &mut weights);
            let mut product = vec![0.0; rows * some.len()];
            begin(bias.map(|bias| &bias[some.clone()]), &mut product);
            let weights = Matrix::new(&weights, some.len(), inputs).transposed();
            add_product(Isa::usable(), Matrix::new(x, rows, inputs), weights, &mut product);
            product
        });
        for (index, product) in products.into_iter().enumerate() {
            let width = product.len() / rows.max(1);
            for (y, product) in y.chunks_exact_mut(outputs).zip(product.chunks_exact(width.max(1))) {
                y[index * block..][..width].copy_from_slice(product);
            }
        }
    }
}
