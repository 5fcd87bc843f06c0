//! The one place where f32 matrices are multiplied, and the matrix views it takes.

use ndarray::ArrayView2;

use crate::kernels::{float, isa::Isa};

/// `c += a b` for `c` row-major.
pub(super) fn add_product(a: ArrayView2<'_, f32>, b: ArrayView2<'_, f32>, c: &mut [f32]) {
    float::add_product(Isa::usable(), flat(&a), flat(&b), c);
}

/// A matrix whose rows, or columns, lie one behind the other.
fn flat<'a>(x: &ArrayView2<'a, f32>) -> float::Matrix<'a> {
    let (rows, columns) = x.dim();
    if let Some(data) = x.to_slice() {
        return float::Matrix::new(data, rows, columns);
    }
    let data = x.reversed_axes().to_slice().expect("rows or columns one behind the other");
    float::Matrix::new(data, columns, rows).transposed()
}

/// A row-major slice as a matrix of so many columns.
pub(super) fn matrix(data: &[f32], columns: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((data.len() / columns, columns), data).expect("whole rows")
}
