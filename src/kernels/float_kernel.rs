//! What an instruction set brings to the products of floats: a tile, dot products and a transpose.

use super::scalar::Scalar;

/// What a tile multiplies: `rows` rows of `a` by `columns` columns of `b`, over `depth` terms.
#[derive(Clone, Copy, Debug)]
pub(super) struct FloatTile<'a> {
    /// Element (row, term) is `a[row * strides[0] + term * strides[1]]`; 1 to [`FloatKernel::TILE_ROWS`] rows.
    pub(super) a: &'a [f32],
    pub(super) strides: [usize; 2],
    /// Element (term, column) is `b[term * stride + column]`, and there are whole vectors of columns.
    pub(super) b: &'a [f32],
    pub(super) stride: usize,
    pub(super) depth: usize,
    /// 1 to [`FloatKernel::VECTORS`] vectors' worth.
    pub(super) columns: usize,
}

/// Rows that are multiplied with one another, element by element.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dots<'a> {
    /// `R` rows of `depth` elements, so far apart.
    pub(super) a: &'a [f32],
    pub(super) a_stride: usize,
    /// `C` rows of `depth` elements, so far apart.
    pub(super) b: &'a [f32],
    pub(super) b_stride: usize,
    pub(super) depth: usize,
}

/// The innermost part of the f32 products on one instruction set. The order of additions in an element is that of the
/// terms, so a tile's shape cannot be told from its results; nor can that of dot products, which add in lanes.
pub(super) trait FloatKernel: Copy + Send + Sync {
    /// Rows of a tile ("mr").
    const TILE_ROWS: usize;
    /// Floats in a vector, and the most vectors in a tile's row ("nr" is the product).
    const FLOATS: usize;
    const VECTORS: usize;

    /// `out[row][column] += sum over terms of a * b`, for the rows of `out` from the column `first` on.
    ///
    /// # Panics
    /// If `a`, `b` or a row of `out` is too short.
    fn tile_f32(self, tile: &FloatTile, out: &mut [&mut [f32]], first: usize);

    /// The sums of products of `R` rows with `C` rows.
    ///
    /// # Panics
    /// If `a` or `b` is too short.
    fn dots<const R: usize, const C: usize>(self, dots: &Dots) -> [[f32; C]; R];

    /// Asks for what will be read soon.
    #[inline(always)]
    fn prefetch(self, _soon: &[f32]) {}

    /// `to[column * to_stride + row] = from[row * from_stride + column]` for eight rows and columns.
    ///
    /// # Panics
    /// If one of them is too short.
    #[inline(always)]
    fn transpose_8x8(self, from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize) {
        for (i, row) in from.chunks(from_stride).take(8).enumerate() {
            row[..8].iter().enumerate().for_each(|(j, x)| to[j * to_stride + i] = *x);
        }
    }
}

impl FloatKernel for Scalar {
    const TILE_ROWS: usize = 4;
    const FLOATS: usize = 4;
    const VECTORS: usize = 2;

    fn tile_f32(self, tile: &FloatTile, out: &mut [&mut [f32]], first: usize) {
        let mut sums = [[0.0; 8]; 4];
        let width = tile.columns.next_multiple_of(Self::FLOATS);
        for term in 0..tile.depth {
            let b = &tile.b[term * tile.stride..][..width];
            for (row, sums) in sums[..out.len()].iter_mut().enumerate() {
                let a = tile.a[row * tile.strides[0] + term * tile.strides[1]];
                sums.iter_mut().zip(b).for_each(|(sum, b)| *sum += a * b);
            }
        }
        for (out, sums) in out.iter_mut().zip(sums) {
            out[first..][..tile.columns].iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
        }
    }

    fn dots<const R: usize, const C: usize>(self, dots: &Dots) -> [[f32; C]; R] {
        std::array::from_fn(|r| {
            let a = &dots.a[r * dots.a_stride..][..dots.depth];
            std::array::from_fn(|c| {
                let b = &dots.b[c * dots.b_stride..][..dots.depth];
                let (a, a_rest) = a.as_chunks::<8>();
                let (b, b_rest) = b.as_chunks::<8>();
                let mut sums = [0.0; 8];
                for (a, b) in a.iter().zip(b) {
                    sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
                }
                let rest = a_rest.iter().zip(b_rest).map(|(a, b)| a * b);
                sums.into_iter().chain(rest).sum()
            })
        })
    }
}
