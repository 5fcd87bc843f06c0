//! x86-64.
//!
//! A kernel type is made by `detect` alone, so a value of it proves that the machine has its instructions.

pub(super) mod avx2;
pub(super) mod avx512;
pub(super) mod avxvnni;

use std::arch::x86_64::*;

use super::{
    kernel::{FloatLine, Lanes, Line, Quad},
    products::Products,
};

/// Some quads of `R` rows, all of one length.
#[inline(always)]
fn cut<'a, const R: usize>(rows: &[&'a [Quad]], first: usize, quads: usize) -> [&'a [Quad]; R] {
    std::array::from_fn(|row| &rows[row][first..][..quads])
}

/// A quad of a row that was [`cut`], as the 32-bit number that a broadcast takes. Not checked: a check in the loop over
/// quads would take registers from the sums.
///
/// # Safety
/// `quad < row.len()`.
#[inline(always)]
unsafe fn word(row: &[Quad], quad: usize) -> i32 {
    debug_assert!(quad < row.len());
    // SAFETY: the caller's word.
    i32::from_le_bytes(unsafe { row.get_unchecked(quad) }.map(|code| code as u8))
}

/// # Safety
/// A type of 64 bytes, none of them padding, for which any bytes are a value.
unsafe trait Bytes64 {}
// SAFETY: sixteen times four bytes.
unsafe impl Bytes64 for Line {}
// SAFETY: sixteen integers.
unsafe impl Bytes64 for Lanes<i32> {}
// SAFETY: sixteen floats.
unsafe impl Bytes64 for Lanes<f32> {}
// SAFETY: sixteen floats.
unsafe impl Bytes64 for FloatLine {}

/// Loads half a line, or eight of sixteen numbers of 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn load<T: Bytes64>(from: &T, half: usize) -> __m256i {
    let halves: *const __m256i = std::ptr::from_ref(from).cast();
    // SAFETY: `T` is two halves of 32 bytes.
    unsafe { _mm256_loadu_si256(halves.add(half & 1)) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store<T: Bytes64>(to: &mut T, half: usize, value: __m256i) {
    let halves: *mut __m256i = std::ptr::from_mut(to).cast();
    // SAFETY: `T` is two halves of 32 bytes, and any bytes are a `T`.
    unsafe { _mm256_storeu_si256(halves.add(half & 1), value) }
}

/// [`Kernel::add_scaled`](super::kernel::Kernel::add_scaled) for panels of one line.
#[inline]
#[target_feature(enable = "avx2")]
fn add_scaled(products: &Products<i32>, totals: &mut [Lanes<f32>]) {
    let Products { sums, row_sums, grid: [grid], offsets: [offset, ..] } = products else { return };
    for half in 0..2 {
        let scale = _mm256_castsi256_ps(load(&grid.scale, half));
        let (zero, offset) = (load(&grid.zero, half), load(offset, half));
        for ((sums, totals), row_sum) in sums.iter().zip(&mut *totals).zip(*row_sums) {
            let of_zero_w = _mm256_mullo_epi32(zero, _mm256_set1_epi32(*row_sum));
            let product = _mm256_sub_epi32(_mm256_sub_epi32(load(sums, half), of_zero_w), offset);
            let scaled = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(product));
            let total = _mm256_add_ps(_mm256_castsi256_ps(load(totals, half)), scaled);
            store(totals, half, _mm256_castps_si256(total));
        }
    }
}

/// [`Kernel::add_multiple`](super::kernel::Kernel::add_multiple), half a line at a time.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_multiple(a: f32, x: &FloatLine, sum: &mut FloatLine) {
    let a = _mm256_set1_ps(a);
    for half in 0..2 {
        let (x, before) = (_mm256_castsi256_ps(load(x, half)), _mm256_castsi256_ps(load(sum, half)));
        store(sum, half, _mm256_castps_si256(_mm256_fmadd_ps(a, x, before)));
    }
}
