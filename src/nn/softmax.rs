//! Softmax and its logarithm along an axis, shifted by the largest value so that nothing overflows.

use ndarray::{ArrayD, ArrayViewD};

use super::dense::{array, slice};
use crate::{Error, Result, kernels::parallel};

/// Lines in a piece.
const PIECE: usize = 256;

/// The axis meant: the one given, or the last.
pub(super) fn axis_of(axis: Option<usize>, shape: &[usize]) -> Result<usize> {
    let rank = shape.len();
    match axis.or(rank.checked_sub(1)) {
        Some(axis) if axis < rank => Ok(axis),
        other => Err(Error::Axis { axis: other.unwrap_or(0), rank }),
    }
}

/// `exp(x) / Σ exp(x)` along `axis`.
pub(super) fn forward(x: ArrayViewD<'_, f32>, axis: usize) -> ArrayD<f32> {
    along(x.shape(), axis, slice(&x).to_vec(), |_, line| {
        let largest = line.fold(f32::NEG_INFINITY, f32::max);
        line.for_each(|x| *x = (*x - largest).exp());
        let sum = line.fold(0.0, |sum, x| sum + x);
        line.for_each(|x| *x /= sum);
    })
}

/// `dx = y (dy - Σ dy y)`.
pub(super) fn backward(y: ArrayViewD<'_, f32>, dy: ArrayD<f32>, axis: usize) -> ArrayD<f32> {
    let values = slice(&y);
    along(y.shape(), axis, dy.into_raw_vec_and_offset().0, |start, line| {
        let sum = line.sum_indexed(|i, dy| dy * values[start + i]);
        line.for_each_indexed(|i, dy| *dy = values[start + i] * (*dy - sum));
    })
}

/// `x - log Σ exp(x)` along `axis`.
pub(super) fn log_forward(x: ArrayViewD<'_, f32>, axis: usize) -> ArrayD<f32> {
    along(x.shape(), axis, slice(&x).to_vec(), |_, line| {
        let largest = line.fold(f32::NEG_INFINITY, f32::max);
        let log_sum = line.fold(0.0, |sum, x| sum + (x - largest).exp()).ln();
        line.for_each(|x| *x = *x - largest - log_sum);
    })
}

/// `dx = dy - exp(y) Σ dy`.
pub(super) fn log_backward(y: ArrayViewD<'_, f32>, dy: ArrayD<f32>, axis: usize) -> ArrayD<f32> {
    let values = slice(&y);
    along(y.shape(), axis, dy.into_raw_vec_and_offset().0, |start, line| {
        let sum = line.fold(0.0, |sum, dy| sum + dy);
        line.for_each_indexed(|i, dy| *dy -= values[start + i].exp() * sum);
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

/// Calls `f(offset, line)` for every line along `axis` of row-major `values`, and returns them as an array.
fn along(shape: &[usize], axis: usize, mut values: Vec<f32>, f: impl Fn(usize, &mut Line<'_>) + Sync) -> ArrayD<f32> {
    let step: usize = shape[axis + 1..].iter().product();
    let block = shape[axis] * step;
    let blocks = (PIECE / step).max(1);
    parallel::for_each_chunk_mut(&mut values, block * blocks, |index, piece| {
        for (i, block_values) in piece.chunks_mut(block).enumerate() {
            let start = (index * blocks + i) * block;
            for offset in 0..step {
                f(start + offset, &mut Line { values: &mut block_values[offset..], step });
            }
        }
    });
    array(shape, values)
}
