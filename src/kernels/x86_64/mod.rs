//! x86-64.
//!
//! A kernel type is made by `detect` alone, so a value of it proves that the machine has its instructions.

pub(super) mod avx2;
pub(super) mod avx512;
pub(super) mod avxvnni;
mod ends;
mod float;

use std::arch::x86_64::*;

use super::{
    kernel::{FloatLine, LANES, Lanes, Line, Quad, Tile},
    products::{Ending, Out, Products, Shift},
    quantize::Round,
};

/// The quads of a tile of `R` rows, checked once: a check in the loop over them would take registers from the sums.
#[derive(Clone, Copy)]
struct Rows<'a, const R: usize> {
    quads: &'a [Quad],
    stride: usize,
    length: usize,
}

impl<'a, const R: usize> Rows<'a, R> {
    /// The first `length` quads of each row.
    ///
    /// # Panics
    /// If the tile has less.
    #[inline(always)]
    fn new(tile: &Tile<'a>, length: usize) -> Self {
        assert!(length <= tile.stride && (R - 1) * tile.stride + length <= tile.quads.len());
        Rows { quads: tile.quads, stride: tile.stride, length }
    }

    /// A quad as the 32-bit number that a broadcast takes.
    ///
    /// # Safety
    /// `row < R`, and `quad < length`.
    #[inline(always)]
    unsafe fn word(&self, row: usize, quad: usize) -> i32 {
        debug_assert!(row < R && quad < self.length);
        // SAFETY: at most `(R - 1) * stride + length - 1`, which `new` has checked.
        i32::from_le_bytes(unsafe { self.quads.get_unchecked(row * self.stride + quad) }.map(|code| code as u8))
    }
}

/// # Safety
/// A type of 64 bytes, none of them padding, for which any bytes are a value.
unsafe trait Bytes64 {}
// SAFETY: sixteen times four bytes.
unsafe impl Bytes64 for Line {}
// SAFETY: 64 bytes.
unsafe impl Bytes64 for [i8; 64] {}
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

/// Half the total of a row, with its product, for panels of one line.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn total(products: &Products<i32>, row: usize, half: usize, before: __m256) -> __m256 {
    let grid = &products.grid[0];
    let shift = match products.shift {
        Shift::Rows(shifts) => _mm256_set1_epi32(shifts[row]),
        Shift::Lanes(row_sums, offsets) => {
            let of_zero_w = _mm256_mullo_epi32(load(&grid.zero, half), _mm256_set1_epi32(row_sums[row]));
            _mm256_add_epi32(of_zero_w, load(&offsets[0], half))
        }
    };
    let product = _mm256_cvtepi32_ps(_mm256_sub_epi32(load(&products.sums[row], half), shift));
    _mm256_fmadd_ps(_mm256_castsi256_ps(load(&grid.scale, half)), product, before)
}

/// [`Kernel::add`](super::kernel::Kernel::add), when the sums are there.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add(products: &Products<i32>, totals: &mut [Lanes<f32>]) {
    for half in 0..2 {
        for (row, totals) in totals.iter_mut().enumerate() {
            let before = _mm256_castsi256_ps(load(totals, half));
            store(totals, half, _mm256_castps_si256(total(products, row, half, before)));
        }
    }
}

/// [`Kernel::finish`](super::kernel::Kernel::finish), when the sums are there.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn finish(products: &Products<i32>, ending: &Ending<f32>, out: &mut Out<f32>) {
    let mut bias = [0.0; LANES];
    let some = ending.bias.len().min(LANES);
    bias[..some].copy_from_slice(&ending.bias[..some]);
    for (row, out_row) in out.out.chunks_mut(out.stride).take(products.sums.len()).enumerate() {
        let scale = _mm256_set1_ps(ending.scales[row]);
        let mut lanes = [0.0; LANES];
        for half in 0..2 {
            let before = match ending.totals {
                Some(totals) => _mm256_castsi256_ps(load(&totals[row], half)),
                None => _mm256_setzero_ps(),
            };
            let bias = _mm256_castsi256_ps(load(&bias, half));
            let ended = _mm256_fmadd_ps(total(products, row, half, before), scale, bias);
            store(&mut lanes, half, _mm256_castps_si256(ended));
        }
        let out_row = &mut out_row[..out.columns];
        match out_row.first_chunk_mut() {
            Some(whole) => *whole = lanes,
            None => out_row.copy_from_slice(&lanes[..out_row.len()]),
        }
    }
}

/// [`Kernel::round`](super::kernel::Kernel::round).
#[inline]
#[target_feature(enable = "avx2")]
fn round_codes(round: &Round, x: &[f32], codes: &mut [Quad]) -> i32 {
    let (low, high) = round.bounds();
    let (low, high) = (_mm256_set1_ps(low), _mm256_set1_ps(high));
    let (factor, zero) = (_mm256_set1_ps(round.factor), _mm256_set1_epi32(round.zero));
    let (lines, rest) = x.as_chunks::<{ 2 * LANES }>();
    let (line_codes, rest_codes) = codes.split_at_mut(8 * lines.len());
    // Packing goes by halves of registers; this sorts them.
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let mut sums = _mm256_setzero_si256();
    for (x, codes) in lines.iter().zip(line_codes.as_chunks_mut::<8>().0) {
        let mut four = [_mm256_setzero_si256(); 4];
        for (i, four) in four.iter_mut().enumerate() {
            let x = load(&x.as_chunks::<LANES>().0[i / 2], i % 2);
            let scaled = _mm256_mul_ps(_mm256_castsi256_ps(x), factor);
            // To the nearest, halves to even, as any program has it that did not say otherwise.
            *four = _mm256_add_epi32(_mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(scaled, low), high)), zero);
        }
        let [a, b, c, d] = four;
        let (ab, cd) = (_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_add_epi16(ab, cd), _mm256_set1_epi16(1)));
        let bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(ab, cd), order);
        // SAFETY: eight quads are 32 bytes.
        unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), bytes) };
    }
    let mut lanes = [0; LANES];
    store(&mut lanes, 0, sums);
    lanes.iter().sum::<i32>() + round.round(rest, rest_codes)
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
