//! Products of f32 inputs with f32 weights, zeros included.

use ndarray::{
    Array2, ArrayView2, ArrayViewMut1, ArrayViewMut2,
    linalg::{general_mat_mul, general_mat_vec_mul},
    s,
};

use crate::kernels::parallel;

/// Multiplications in a piece: enough to pay for waking a thread, few enough to share a layer out.
const PIECE: usize = 1 << 20;

/// `y = x w^T + bias`, row-major; shared out in pieces that depend on the shapes alone, of the outputs of one input or of
/// the inputs.
pub(super) fn matmul(weights: &Array2<f32>, x: ArrayView2<'_, f32>, bias: Option<&[f32]>, y: &mut [f32]) {
    let (outputs, inputs) = weights.dim();
    match bias {
        Some(bias) => y.chunks_exact_mut(outputs.max(1)).for_each(|y| y.copy_from_slice(bias)),
        None => y.fill(0.0),
    }
    if x.nrows() == 1 {
        let rows = (PIECE / inputs.max(1)).max(1);
        return parallel::for_each_chunk_mut(y, rows, |piece, y| {
            let weights = weights.slice(s![piece * rows..piece * rows + y.len(), ..]);
            general_mat_vec_mul(1.0, &weights, &x.row(0), 1.0, &mut ArrayViewMut1::from(y));
        });
    }
    // Whole multiples of a micro-kernel's rows, so that only the last piece has a ragged edge.
    let rows = (PIECE / (outputs * inputs).max(1)).max(1).next_multiple_of(32);
    parallel::for_each_chunk_mut(y, (rows * outputs).max(1), |piece, y| {
        let count = y.len() / outputs;
        let x = x.slice(s![piece * rows..piece * rows + count, ..]);
        if let Ok(mut y) = ArrayViewMut2::from_shape((count, outputs), y) {
            general_mat_mul(1.0, &x, &weights.t(), 1.0, &mut y);
        }
    });
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
