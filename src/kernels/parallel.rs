//! Work in fixed pieces on the current rayon pool, or in order without the feature `rayon`.
//!
//! The pieces depend on the data alone, never on the number of threads, so results are the same bits on any pool.

#[cfg(feature = "rayon")]
use rayon::prelude::*;

/// Threads of the current pool.
pub(crate) fn threads() -> usize {
    #[cfg(feature = "rayon")]
    return rayon::current_num_threads();
    #[cfg(not(feature = "rayon"))]
    return 1;
}

/// Runs work in so many pieces: `halve(work, k)` parts it after the first `k` of its pieces. Nothing is allocated, and a
/// thread that is late leaves its pieces to the others.
pub(crate) fn divide<W: Send>(
    work: W,
    pieces: usize,
    halve: impl Fn(W, usize) -> (W, W) + Sync,
    run: impl Fn(W) + Sync,
) {
    fn divide<W: Send>(
        work: W,
        pieces: usize,
        halve: &(impl Fn(W, usize) -> (W, W) + Sync),
        run: &(impl Fn(W) + Sync),
    ) {
        if pieces < 2 {
            return run(work);
        }
        let (first, second) = halve(work, pieces / 2);
        let (left, right) =
            (|| divide(first, pieces / 2, halve, run), || divide(second, pieces - pieces / 2, halve, run));
        #[cfg(feature = "rayon")]
        rayon::join(left, right);
        #[cfg(not(feature = "rayon"))]
        {
            left();
            right();
        }
    }
    divide(work, pieces, &halve, &run);
}

/// Calls `f(piece index, piece)` for consecutive pieces of `size` elements; the last may be shorter.
pub(crate) fn for_each_chunk_mut<T: Send>(data: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync + Send) {
    #[cfg(feature = "rayon")]
    if data.len() > size {
        data.par_chunks_mut(size).enumerate().for_each(|(index, piece)| f(index, piece));
        return;
    }
    data.chunks_mut(size).enumerate().for_each(|(index, piece)| f(index, piece));
}

/// `f(0), .., f(count - 1)` in order.
pub(crate) fn map<R: Send>(count: usize, f: impl Fn(usize) -> R + Sync + Send) -> Vec<R> {
    #[cfg(feature = "rayon")]
    if count > 1 {
        return (0..count).into_par_iter().map(f).collect();
    }
    (0..count).map(f).collect()
}

/// Sorts ascending. Equal keys are the same bits, so their order cannot be told.
pub(crate) fn sort(keys: &mut [u64]) {
    #[cfg(feature = "rayon")]
    keys.par_sort_unstable();
    #[cfg(not(feature = "rayon"))]
    keys.sort_unstable();
}
