//! Row-major arrays: their slices, elementwise passes, and sums over samples, all in pieces that the data fixes.

use std::ops::Range;

use ndarray::{Array, ArrayD, ArrayViewD, Dimension, IxDyn};

use crate::kernels::parallel;

/// Elementary operations in a piece: enough to pay for waking a thread.
const PIECE: usize = 1 << 14;

/// Pieces of a batch at most.
const PIECES: usize = 16;

/// The elements of a row-major view.
pub(super) fn slice<'a>(x: &ArrayViewD<'a, f32>) -> &'a [f32] {
    x.to_slice().expect("row-major")
}

/// An array from row-major elements.
pub(super) fn array(shape: &[usize], values: Vec<f32>) -> ArrayD<f32> {
    ArrayD::from_shape_vec(IxDyn(shape), values).expect("as many elements as the shape says")
}

/// The same array, row-major.
pub(super) fn row_major<D: Dimension>(array: Array<f32, D>) -> Array<f32, D> {
    if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() }
}

/// `f` of every element.
pub(super) fn map(x: &[f32], f: impl Fn(f32) -> f32 + Sync + Send) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    zip_mut(&mut y, x, |_, x| f(x));
    y
}

/// `a = f(a, b)`, element by element.
pub(super) fn zip_mut(a: &mut [f32], b: &[f32], f: impl Fn(f32, f32) -> f32 + Sync + Send) {
    parallel::for_each_chunk_mut(a, PIECE, |index, piece| {
        let b = &b[index * PIECE..][..piece.len()];
        piece.iter_mut().zip(b).for_each(|(a, b)| *a = f(*a, *b));
    });
}

/// Samples in a piece of a batch, given the operations that a sample takes.
pub(super) fn samples_per_piece(batch: usize, work: usize) -> usize {
    batch.div_ceil(PIECES).max(PIECE.div_ceil(work.max(1))).min(batch)
}

/// Calls `f(index, sample)` for consecutive samples of `len` elements that take `work` operations each.
pub(super) fn for_each_sample(
    values: &mut [f32],
    len: usize,
    work: usize,
    f: impl Fn(usize, &mut [f32]) + Sync + Send,
) {
    let samples = samples_per_piece(values.len() / len, work);
    parallel::for_each_chunk_mut(values, samples * len, |index, piece| {
        piece.chunks_mut(len).enumerate().for_each(|(i, sample)| f(index * samples + i, sample));
    });
}

/// Runs `f` on ranges of samples that take `work` operations each, joins the first results and adds up the others, both in order.
pub(super) fn sum_over_samples<const N: usize>(
    batch: usize,
    work: usize,
    f: impl Fn(Range<usize>) -> (Vec<f32>, [Vec<f32>; N]) + Sync + Send,
) -> (Vec<f32>, [Vec<f32>; N]) {
    let step = samples_per_piece(batch, work);
    let pieces = parallel::map(batch.div_ceil(step), |index| f(index * step..batch.min((index + 1) * step)));
    let mut pieces = pieces.into_iter();
    let (mut joined, mut sums) = pieces.next().expect("a batch has samples");
    for (part, terms) in pieces {
        joined.extend(part);
        for (sum, term) in sums.iter_mut().zip(&terms) {
            sum.iter_mut().zip(term).for_each(|(sum, term)| *sum += *term);
        }
    }
    (joined, sums)
}
