//! Softmax and its logarithm along an axis, shifted by the largest value so that nothing overflows.

use ndarray::{ArrayD, ArrayViewD};

use super::dense::{for_each_sample, slice};
use crate::{Error, Result};

/// The axis meant: the one given, or the last.
pub(super) fn axis_of(axis: Option<usize>, shape: &[usize]) -> Result<usize> {
    let rank = shape.len();
    match axis.or(rank.checked_sub(1)) {
        Some(axis) if axis < rank => Ok(axis),
        other => Err(Error::Axis { axis: other.unwrap_or(0), rank }),
    }
}

/// `exp(x) / Σ exp(x)` along `axis`.
pub(super) fn forward(x: ArrayD<f32>, axis: usize) -> ArrayD<f32> {
    along(x, axis, |_, line| {
        let largest = line.fold(f32::NEG_INFINITY, f32::max);
        line.for_each(|x| *x = (*x - largest).exp());
        let sum = line.fold(0.0, |sum, x| sum + x);
        line.for_each(|x| *x /= sum);
    })
}

/// `dx = y (dy - Σ dy y)`.
pub(super) fn backward(y: ArrayViewD<'_, f32>, dy: ArrayD<f32>, axis: usize) -> ArrayD<f32> {
    let values = slice(&y);
    along(dy, axis, |start, line| {
        let sum = line.sum_indexed(|i, dy| dy * values[start + i]);
        line.for_each_indexed(|i, dy| *dy = values[start + i] * (*dy - sum));
    })
}

/// `x - log Σ exp(x)` along `axis`.
pub(super) fn log_forward(x: ArrayViewD<'_, f32>, axis: usize) -> ArrayD<f32> {
    along(x.to_owned(), axis, |_, line| {
        let largest = line.fold(f32::NEG_INFINITY, f32::max);
        let log_sum = line.fold(0.0, |sum, x| sum + (x - largest).exp()).ln();
        line.for_each(|x| *x = *x - largest - log_sum);
    })
}

/// `dx = dy - exp(y) Σ dy`.
pub(super) fn log_backward(y: ArrayViewD<'_, f32>, dy: ArrayD<f32>, axis: usize) -> ArrayD<f32> {
    let values = slice(&y);
    along(dy, axis, |start, line| {
        let sum = line.fold(0.0, |sum, dy| sum + dy);
        line.for_each_indexed(|i, dy| *dy -= values[start + i].exp() * sum);
    })
}

/// The tangent of [`backward`]: with `s = Σ dy y`, `y˙ (dy - s) + y (dy˙ - Σ (dy˙ y + dy y˙))`. (That of [`forward`] is
/// `backward(y, ẋ)`, since the Jacobian is symmetric.)
pub(super) fn backward_tangent(
    (y, y_dot): (ArrayViewD<'_, f32>, ArrayViewD<'_, f32>),
    (dy, dy_dot): (ArrayViewD<'_, f32>, ArrayD<f32>),
    axis: usize,
) -> ArrayD<f32> {
    let (y, y_dot, dy) = (slice(&y), slice(&y_dot), slice(&dy));
    along(dy_dot, axis, |start, line| {
        let sum = line.sum_indexed(|i, _| dy[start + i] * y[start + i]);
        let sum_dot = line.sum_indexed(|i, dy_dot| dy_dot * y[start + i] + dy[start + i] * y_dot[start + i]);
        line.for_each_indexed(|i, dy_dot| {
            *dy_dot = y_dot[start + i] * (dy[start + i] - sum) + y[start + i] * (*dy_dot - sum_dot);
        });
    })
}

/// The tangent of [`log_forward`]: `ẋ - Σ exp(y) ẋ`.
pub(super) fn log_tangent(y: ArrayViewD<'_, f32>, x_dot: ArrayD<f32>, axis: usize) -> ArrayD<f32> {
    let y = slice(&y);
    along(x_dot, axis, |start, line| {
        let sum = line.sum_indexed(|i, x_dot| y[start + i].exp() * x_dot);
        line.for_each(|x_dot| *x_dot -= sum);
    })
}

/// The tangent of [`log_backward`]: `dy˙ - exp(y) (y˙ Σ dy + Σ dy˙)`.
pub(super) fn log_backward_tangent(
    (y, y_dot): (ArrayViewD<'_, f32>, ArrayViewD<'_, f32>),
    (dy, dy_dot): (ArrayViewD<'_, f32>, ArrayD<f32>),
    axis: usize,
) -> ArrayD<f32> {
    let (y, y_dot, dy) = (slice(&y), slice(&y_dot), slice(&dy));
    along(dy_dot, axis, |start, line| {
        let sum = line.sum_indexed(|i, _| dy[start + i]);
        let sum_dot = line.fold(0.0, |sum, dy_dot| sum + dy_dot);
        line.for_each_indexed(|i, dy_dot| *dy_dot -= y[start + i].exp() * (y_dot[start + i] * sum + sum_dot));
    })
}

/// The elements of one line along the axis, `step` apart.
struct Line<'a> {
    values: &'a mut [f32],
    step: usize,
}

impl Line<'_> {
    fn for_each(&mut self, f: impl FnMut(&mut f32)) {
        self.values.iter_mut().step_by(self.step).for_each(f);
    }

    /// The index counts from the start of the line in memory.
    fn for_each_indexed(&mut self, mut f: impl FnMut(usize, &mut f32)) {
        self.values.iter_mut().enumerate().step_by(self.step).for_each(|(i, x)| f(i, x));
    }

    fn fold(&self, first: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
        self.values.iter().step_by(self.step).fold(first, |sum, x| f(sum, *x))
    }

    fn sum_indexed(&self, f: impl Fn(usize, f32) -> f32) -> f32 {
        self.values.iter().enumerate().step_by(self.step).map(|(i, x)| f(i, *x)).sum()
    }
}

/// Calls `f(offset, line)` for every line along `axis` of a row-major array, and returns the array.
fn along(mut values: ArrayD<f32>, axis: usize, f: impl Fn(usize, &mut Line<'_>) + Sync + Send) -> ArrayD<f32> {
    let step: usize = values.shape()[axis + 1..].iter().product();
    let block = values.shape()[axis] * step;
    for_each_sample(values.as_slice_mut().expect("row-major"), block, block, |index, block_values| {
        for offset in 0..step {
            f(index * block + offset, &mut Line { values: &mut block_values[offset..], step });
        }
    });
    values
}
