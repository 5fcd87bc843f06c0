//! Products of f32 inputs with f32 weights, zeros included.

use ndarray::{Array2, ArrayView2};

use crate::{
    Isa,
    kernels::float::{Matrix, add_product},
};

/// `y = x w^T + bias`, row-major.
pub(super) fn matmul(weights: &Array2<f32>, x: ArrayView2<'_, f32>, bias: Option<&[f32]>, y: &mut [f32]) {
    let (outputs, inputs) = weights.dim();
    begin(bias, y);
    let (rows, x, weights) = (x.nrows(), x.as_standard_layout(), weights.as_standard_layout());
    if let (Some(x), Some(weights)) = (x.as_slice(), weights.as_slice()) {
        let weights = Matrix::new(weights, outputs, inputs).transposed();
        add_product(Isa::usable(), Matrix::new(x, rows, inputs), weights, y);
    }
}

/// What products are added to.
pub(super) fn begin(bias: Option<&[f32]>, y: &mut [f32]) {
    match bias {
        Some(bias) => y.chunks_exact_mut(bias.len().max(1)).for_each(|y| y.copy_from_slice(bias)),
        None => y.fill(0.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_make_the_whole_product() {
        // One piece and several, of outputs and of inputs; nothing of either. Small integers add up exactly.
        for (m, n, k) in [(1, 3, 5), (1, 2500, 1000), (70, 300, 200), (3, 0, 5), (0, 3, 5), (2, 3, 0), (1, 3, 0)] {
            let weights = Array2::from_shape_fn((n, k), |(i, j)| ((i * 7 + j * 3) % 5) as f32 - 2.0);
            let x = Array2::from_shape_fn((m, k), |(i, j)| ((i + j * 5) % 7) as f32 - 3.0);
            let bias: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let mut y = vec![f32::NAN; m * n];
            matmul(&weights, x.view(), Some(&bias), &mut y);
            for (i, y) in y.iter().enumerate() {
                let (row, output) = (i / n, i % n);
                let (w, x) = (weights.row(output), x.row(row));
                assert_eq!(*y, w.dot(&x) + bias[output], "{m} x {n} x {k}");
            }
        }
    }
}
