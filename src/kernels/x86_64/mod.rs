//! x86-64.
//!
//! A kernel type is made by `detect` alone, so a value of it proves that the machine has its instructions.

pub(super) mod avx2;
pub(super) mod avx512;
pub(super) mod avxvnni;
mod ends;
mod float;
mod levels;
mod lookup;

use std::arch::x86_64::*;

use super::{
    grid::Zeros,
    kernel::{FloatLine, LANES, Lanes, Line, Quad, Stretch, Tile},
    products::{Out, Products},
    quantize::Round,
};

/// Part of `R` rows, checked once: a check in the loop over them would take registers from the sums.
#[derive(Clone, Copy)]
struct Rows<'a, T, const R: usize> {
    items: &'a [T],
    stride: usize,
    length: usize,
}

impl<'a, T: Copy, const R: usize> Rows<'a, T, R> {
    /// The first `length` of each `stride`.
    ///
    /// # Panics
    /// If there are less.
    #[inline(always)]
    fn new(items: &'a [T], stride: usize, length: usize) -> Self {
        assert!(length <= stride && (R - 1) * stride + length <= items.len());
        Rows { items, stride, length }
    }

    /// # Safety
    /// `row < R`, and `index < length`.
    #[inline(always)]
    unsafe fn at(&self, row: usize, index: usize) -> T {
        debug_assert!(row < R && index < self.length);
        // SAFETY: at most `(R - 1) * stride + length - 1`, which `new` has checked.
        unsafe { *self.items.get_unchecked(row * self.stride + index) }
    }
}

impl<'a, const R: usize> Rows<'a, Quad, R> {
    /// The quads of a stretch.
    #[inline(always)]
    fn of(tile: &Tile<'a>, stretch: &Stretch) -> Self {
        Rows::new(&tile.quads[stretch.first..], tile.stride, stretch.quads)
    }

    /// A quad as the 32-bit number that a broadcast takes.
    ///
    /// # Safety
    /// As of [`at`](Rows::at).
    #[inline(always)]
    unsafe fn word(&self, row: usize, quad: usize) -> i32 {
        // SAFETY: the caller's.
        i32::from_le_bytes(unsafe { self.at(row, quad) }.map(|code| code as u8))
    }

    /// Two quads, likewise.
    ///
    /// # Safety
    /// `row < R`, and `quad + 1 < length`.
    #[inline(always)]
    unsafe fn two_words(&self, row: usize, quad: usize) -> i64 {
        debug_assert!(row < R && quad + 1 < self.length);
        // SAFETY: at most `(R - 1) * stride + length - 1` for the second of the two, which `new` has checked.
        i64::from_le(unsafe { self.items.as_ptr().add(row * self.stride + quad).cast::<i64>().read_unaligned() })
    }
}

/// # Safety
/// A type of 4 bytes, none of them padding, for which any bytes are a value.
unsafe trait Bytes4 {}
// SAFETY: 4 bytes.
unsafe impl Bytes4 for f32 {}
// SAFETY: 4 bytes.
unsafe impl Bytes4 for i32 {}

/// # Safety
/// A type of 64 bytes, none of them padding, for which any bytes are a value.
unsafe trait Bytes64 {}
// SAFETY: sixteen times four bytes.
unsafe impl Bytes64 for Line {}
// SAFETY: 64 bytes.
unsafe impl Bytes64 for [i8; 64] {}
// SAFETY: sixteen times four bytes.
unsafe impl<T: Bytes4> Bytes64 for Lanes<T> {}
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

/// [`Kernel::finish`](super::kernel::Kernel::finish) for panels of one line; `sum` is the tile for a group.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn finish(
    tile: &Tile,
    products: &mut Products<i32, f32>,
    sum: impl Fn(&Stretch, &mut [Lanes<i32>]),
    out: &mut Out<f32>,
) {
    products.totals.fill([0.0; LANES]);
    for group in 0..tile.groups {
        sum(&tile.stretch(group), products.sums);
        for half in 0..2 {
            add(tile, products, group, half);
        }
    }
    let mut bias = [0.0; LANES];
    let some = products.bias.len().min(LANES);
    bias[..some].copy_from_slice(&products.bias[..some]);
    for (row, out_row) in out.out.chunks_mut(out.stride).take(tile.rows).enumerate() {
        let scale = _mm256_set1_ps(products.scales[row]);
        let mut lanes = [0.0; LANES];
        for half in 0..2 {
            let total = _mm256_castsi256_ps(load(&products.totals[row], half));
            let bias = _mm256_castsi256_ps(load(&bias, half));
            store(&mut lanes, half, _mm256_castps_si256(_mm256_fmadd_ps(total, scale, bias)));
        }
        let out_row = &mut out_row[..out.columns];
        match out_row.first_chunk_mut() {
            Some(whole) => *whole = lanes,
            None => out_row.copy_from_slice(&lanes[..out_row.len()]),
        }
    }
}

/// Adds half of a group's products to the totals.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add(tile: &Tile, products: &mut Products<i32, f32>, group: usize, half: usize) {
    let grid = &products.grid;
    let scale = _mm256_castsi256_ps(load(&grid.scales[group], half));
    let zeros = match grid.zeros {
        Zeros::One(zero) => _mm256_set1_epi32(zero),
        Zeros::Bytes(zeros) => widen_half(&zeros[group], half),
        Zeros::Words(zeros) => load(&zeros[group], half),
    };
    let offset = match products.zero_a {
        0 => _mm256_setzero_si256(),
        zero_a => _mm256_mullo_epi32(load(&grid.code_sums[group], half), _mm256_set1_epi32(zero_a)),
    };
    let rows = products.sums.iter().zip(&mut *products.totals).take(tile.rows).enumerate();
    for (row, (sums, total)) in rows {
        let row_sum = _mm256_set1_epi32(products.row_sums[row * tile.groups + group]);
        let shift = _mm256_sub_epi32(_mm256_mullo_epi32(zeros, row_sum), offset);
        let product = _mm256_cvtepi32_ps(_mm256_add_epi32(load(sums, half), shift));
        let before = _mm256_castsi256_ps(load(total, half));
        store(total, half, _mm256_castps_si256(_mm256_fmadd_ps(scale, product, before)));
    }
}

/// Half of sixteen bytes, as numbers of 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn widen_half(bytes: &Lanes<u8>, half: usize) -> __m256i {
    let halves: *const __m128i = bytes.as_ptr().wrapping_add(8 * (half & 1)).cast();
    // SAFETY: eight bytes, from the first or from the ninth of sixteen.
    unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(halves)) }
}

/// The codes in the lowest bits of each byte.
#[inline]
#[target_feature(enable = "avx2")]
fn lowest<const BITS: u32>(packed: __m256i) -> __m256i {
    match BITS {
        8 => packed,
        _ => _mm256_and_si256(packed, _mm256_set1_epi8((1 << BITS) - 1)),
    }
}

/// The codes above them.
#[inline]
#[target_feature(enable = "avx2")]
fn above<const BITS: u32>(packed: __m256i) -> __m256i {
    _mm256_srl_epi32(packed, _mm_cvtsi32_si128(BITS as i32))
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
