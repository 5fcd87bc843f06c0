//! The one place where f32 matrices are multiplied, and the matrix views it takes.

use ndarray::{ArrayView2, ArrayViewMut2, linalg::general_mat_mul, s};

use crate::kernels::parallel;

/// Multiply-adds in a piece: enough to pay for waking a thread, few enough to share a layer out.
const PIECE: usize = 1 << 20;

/// `c += a b` for `c` row-major; rows of `c` are shared out in pieces that depend on the shapes alone.
pub(super) fn add_product(a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, c: &mut [f32]) {
    let (k, n) = b.dim();
    // Whole multiples of a micro-kernel's rows, so that only the last piece has a ragged edge.
    let rows = (PIECE / (n * k)).max(1).next_multiple_of(32);
    parallel::for_each_chunk_mut(c, rows * n, |index, piece| {
        let (first, count) = (index * rows, piece.len() / n);
        general_mat_mul(1.0, &a.slice(s![first..first + count, ..]), &b, 1.0, &mut matrix_mut(piece, n));
    });
}

/// A row-major slice as a matrix of so many columns.
pub(super) fn matrix(data: &[f32], columns: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((data.len() / columns, columns), data).expect("whole rows")
}

fn matrix_mut(data: &mut [f32], columns: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((data.len() / columns, columns), data).expect("whole rows")
}
