//! Tiles, dot products and transposes of floats, once for vectors of eight and of sixteen.

use std::arch::x86_64::*;

use super::{avx2::Avx2, avx512::Avx512Vnni, avxvnni::AvxVnni};
use crate::kernels::{
    float_kernel::{Dots, FloatKernel, FloatTile},
    kernel::Kernel,
};

/// A register of floats.
///
/// # Safety
/// Every call needs the type's instructions; pointers must be good for as many floats as are said to move.
pub(super) trait Vector: Copy {
    const LANES: usize;

    unsafe fn zero() -> Self;
    unsafe fn all(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// The first `count < LANES`, then zeros.
    unsafe fn load_some(from: *const f32, count: usize) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn store_some(self, to: *mut f32, count: usize);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    /// `self + a * b`, rounded once.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;
    /// The sum of the lanes, halves by halves.
    unsafe fn sum(self) -> f32;
}

impl Vector for __m256 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's.
        unsafe { _mm256_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn all(x: f32) -> Self {
        // SAFETY: the caller's.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller's; nothing is read beyond the mask.
        unsafe { _mm256_maskload_ps(from, first_of_eight(count)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { _mm256_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn store_some(self, to: *mut f32, count: usize) {
        // SAFETY: the caller's; nothing is written beyond the mask.
        unsafe { _mm256_maskstore_ps(to, first_of_eight(count), self) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { _mm256_add_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { _mm256_mul_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { _mm256_fmadd_ps(a, b, self) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the caller's.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }
}

impl Vector for __m512 {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller's.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn all(x: f32) -> Self {
        // SAFETY: the caller's.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller's; nothing is read beyond the mask.
        unsafe { _mm512_maskz_loadu_ps(((1u32 << count) - 1) as u16, from) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { _mm512_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn store_some(self, to: *mut f32, count: usize) {
        // SAFETY: the caller's; nothing is written beyond the mask.
        unsafe { _mm512_mask_storeu_ps(to, ((1u32 << count) - 1) as u16, self) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { _mm512_add_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { _mm512_mul_ps(self, other) }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { _mm512_fmadd_ps(a, b, self) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: the caller's.
        unsafe { _mm256_add_ps(_mm512_castps512_ps256(self), _mm512_extractf32x8_ps::<1>(self)).sum() }
    }
}

/// A mask for the first of eight.
#[inline]
#[target_feature(enable = "avx2")]
fn first_of_eight(count: usize) -> __m256i {
    _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// How many terms before the end a tile asks for the sums that it will add to: late enough that they are still near.
const AHEAD: usize = 48;

/// [`FloatKernel::tile_f32`] for `R` rows of `V` vectors.
///
/// # Safety
/// The machine has the vector's instructions.
#[inline(always)]
unsafe fn tile<T: Vector, const R: usize, const V: usize>(tile: &FloatTile, out: &mut [&mut [f32]], first: usize) {
    let FloatTile { strides: [across, down], stride, depth, columns, .. } = *tile;
    assert!(out.len() == R && columns.div_ceil(T::LANES) == V && depth > 0);
    assert!((R - 1) * across + (depth - 1) * down < tile.a.len());
    assert!((depth - 1) * stride + V * T::LANES <= tile.b.len());
    let (mut a, mut b) = (tile.a.as_ptr(), tile.b.as_ptr());
    // SAFETY: the caller's.
    let mut sums = [[unsafe { T::zero() }; V]; R];
    for term in 0..depth {
        if term == depth.saturating_sub(AHEAD) {
            for row in &*out {
                for vector in 0..V {
                    let place = row.as_ptr().wrapping_add(first + vector * T::LANES);
                    // SAFETY: a prefetch may go anywhere.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(place.cast()) };
                }
            }
        }
        // SAFETY: the greatest indices of `a` and `b` were checked, for the last term.
        unsafe {
            let mut line = [T::zero(); V];
            for (vector, line) in line.iter_mut().enumerate() {
                *line = T::load(b.add(vector * T::LANES));
            }
            for (row, sums) in sums.iter_mut().enumerate() {
                let a = T::all(*a.add(row * across));
                for (sum, line) in sums.iter_mut().zip(line) {
                    *sum = sum.add_product(a, line);
                }
            }
        }
        (a, b) = (a.wrapping_add(down), b.wrapping_add(stride));
    }
    let whole = columns / T::LANES;
    for (out, sums) in out.iter_mut().zip(sums) {
        let out = out[first..][..columns].as_mut_ptr();
        for (vector, sum) in sums.into_iter().enumerate() {
            let (to, rest) = (out.wrapping_add(vector * T::LANES), columns - whole * T::LANES);
            // SAFETY: whole vectors within the columns, then as many floats as are left of them.
            unsafe {
                match vector < whole {
                    true => T::load(to).add(sum).store(to),
                    false => T::load_some(to, rest).add(sum).store_some(to, rest),
                }
            }
        }
    }
}

/// [`FloatKernel::dots`].
///
/// # Safety
/// The machine has the vector's instructions.
#[inline(always)]
unsafe fn dots<T: Vector, const R: usize, const C: usize>(dots: &Dots) -> [[f32; C]; R] {
    let Dots { a_stride, b_stride, depth, .. } = *dots;
    assert!((R - 1) * a_stride + depth <= dots.a.len() && (C - 1) * b_stride + depth <= dots.b.len());
    let (whole, rest) = (depth - depth % T::LANES, depth % T::LANES);
    // SAFETY: rows of `depth` elements, checked above, of which a vector or the rest are read.
    unsafe {
        let mut sums = [[T::zero(); C]; R];
        for term in (0..whole).step_by(T::LANES) {
            add_dots(dots, term, T::LANES, &mut sums);
        }
        if rest > 0 {
            add_dots(dots, whole, rest, &mut sums);
        }
        let mut found = [[0.0; C]; R];
        for (found, sums) in found.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
            *found = sums.sum();
        }
        found
    }
}

/// Adds the products of `count` terms; a function, since closures are inlined only as long as the compiler likes.
///
/// # Safety
/// The machine has the vector's instructions, and rows have so many elements from `term` on.
#[inline(always)]
unsafe fn add_dots<T: Vector, const R: usize, const C: usize>(
    dots: &Dots,
    term: usize,
    count: usize,
    sums: &mut [[T; C]; R],
) {
    // SAFETY: the caller's.
    unsafe {
        let mut b = [T::zero(); C];
        for (row, b) in b.iter_mut().enumerate() {
            *b = load(dots.b.as_ptr().add(row * dots.b_stride + term), count);
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            let a = load(dots.a.as_ptr().add(row * dots.a_stride + term), count);
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = sum.add_product(a, b);
            }
        }
    }
}

/// A vector, or less of it.
///
/// # Safety
/// The caller's are the instructions, and so many floats.
#[inline(always)]
pub(super) unsafe fn load<T: Vector>(from: *const f32, count: usize) -> T {
    // SAFETY: the caller's.
    unsafe {
        match count == T::LANES {
            true => T::load(from),
            false => T::load_some(from, count),
        }
    }
}

/// [`FloatKernel::transpose_8x8`].
#[inline]
#[target_feature(enable = "avx2")]
fn transpose_8x8(from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize) {
    assert!(7 * from_stride + 8 <= from.len() && 7 * to_stride + 8 <= to.len());
    // Quarters of rows `i` and `i + 4` side by side; then four by four in each half.
    // SAFETY: eight rows of eight elements, checked above, of which four are read from the places 0 or 4.
    let pair = |i: usize, quarter: usize| unsafe {
        let row = from.as_ptr().add(i * from_stride + 4 * quarter);
        let low = _mm256_castps128_ps256(_mm_loadu_ps(row));
        _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(row.add(4 * from_stride)))
    };
    for quarter in 0..2 {
        let [a, b, c, d] = [pair(0, quarter), pair(1, quarter), pair(2, quarter), pair(3, quarter)];
        let (ab, cd) = (_mm256_unpacklo_ps(a, b), _mm256_unpacklo_ps(c, d));
        let (ab_high, cd_high) = (_mm256_unpackhi_ps(a, b), _mm256_unpackhi_ps(c, d));
        let columns = [
            _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd),
            _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd),
            _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
            _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
        ];
        for (i, column) in columns.into_iter().enumerate() {
            // SAFETY: eight rows of eight elements, checked above.
            unsafe { _mm256_storeu_ps(to.as_mut_ptr().add((4 * quarter + i) * to_stride), column) };
        }
    }
}

/// Calls the tile of as many rows and vectors as there are.
macro_rules! dispatch {
    ($vector:ty, $tile:expr, $out:expr, $first:expr, [$($rows:literal)*], $vectors:tt) => {
        match $out.len() {
            $($rows => dispatch!(@ $vector, $rows, $tile, $out, $first, $vectors),)*
            rows => unreachable!("a tile of {rows} rows"),
        }
    };
    (@ $vector:ty, $rows:literal, $tile:expr, $out:expr, $first:expr, [$($vectors:literal)*]) => {
        match $tile.columns.div_ceil(<$vector>::LANES) {
            $($vectors => tile::<$vector, $rows, $vectors>($tile, $out, $first),)*
            vectors => unreachable!("a tile of {vectors} vectors"),
        }
    };
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile_of_sixteens(tile_: &FloatTile, out: &mut [&mut [f32]], first: usize) {
    // SAFETY: the features.
    unsafe { dispatch!(__m512, tile_, out, first, [1 2 3 4 5 6 7 8], [1 2 3]) }
}

#[target_feature(enable = "avx2,fma")]
fn tile_of_eights(tile_: &FloatTile, out: &mut [&mut [f32]], first: usize) {
    // SAFETY: the features.
    unsafe { dispatch!(__m256, tile_, out, first, [1 2 3 4 5 6], [1 2]) }
}

macro_rules! float_kernel {
    ($kernel:ty, $vector:ty, $tile:ident, $rows:literal, $vectors:literal) => {
        impl FloatKernel for $kernel {
            const TILE_ROWS: usize = $rows;
            const FLOATS: usize = <$vector>::LANES;
            const VECTORS: usize = $vectors;

            #[inline(always)]
            fn tile_f32(self, tile: &FloatTile, out: &mut [&mut [f32]], first: usize) {
                // SAFETY: `self` proves the features.
                unsafe { $tile(tile, out, first) }
            }

            #[inline(always)]
            fn dots<const R: usize, const C: usize>(self, of: &Dots) -> [[f32; C]; R] {
                self.vectorize(
                    #[inline(always)]
                    // SAFETY: `self` proves the features.
                    || unsafe { dots::<$vector, R, C>(of) },
                )
            }

            #[inline(always)]
            fn prefetch(self, soon: &[f32]) {
                for line in soon.chunks(16) {
                    // SAFETY: a prefetch may go anywhere.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
                }
            }

            #[inline(always)]
            fn transpose_8x8(self, from: &[f32], from_stride: usize, to: &mut [f32], to_stride: usize) {
                // SAFETY: `self` proves the features.
                unsafe { transpose_8x8(from, from_stride, to, to_stride) }
            }
        }
    };
}

// 24 sums, 3 factors and a broadcast fill 28 of 32 registers; 12, 2 and one 15 of 16.
float_kernel!(Avx512Vnni, __m512, tile_of_sixteens, 8, 3);
float_kernel!(AvxVnni, __m256, tile_of_eights, 6, 2);
float_kernel!(Avx2, __m256, tile_of_eights, 6, 2);
