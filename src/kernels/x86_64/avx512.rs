//! AVX-512 with VNNI: sixteen outputs times four inputs an instruction, exact.

mod source;
mod tile;

use std::{arch::x86_64::*, hint::black_box};

use super::{Bytes4, Bytes64, ends::ends};
use crate::kernels::{
    kernel::{FloatLine, Kernel, LANES, Lanes, Quad, Stretch, Tile},
    products::{Out, Products},
    quantize::Round,
};

/// AVX-512 F, BW, DQ, VL and VNNI: Intel since Cascade Lake, AMD since Zen 4.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::kernels) struct Avx512Vnni(());

impl Avx512Vnni {
    pub(in crate::kernels) fn detect() -> Option<Avx512Vnni> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        found.then_some(Avx512Vnni(()))
    }
}

impl Kernel for Avx512Vnni {
    /// 24 accumulators, 3 weights and a broadcast fill 28 of the 32 registers.
    const ROWS: usize = 8;
    /// 12 accumulators, 12 totals, 3 weights, a mask and a broadcast fill 29.
    const GROUPED_ROWS: usize = 4;
    const LINES: usize = 3;
    /// 16 accumulators, 2 weights with their places, 2 broadcasts and what 4 shuffles make of them.
    const PICKED_LINES: usize = 2;
    const SUMS: usize = 16;
    const FUSED: bool = true;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn run<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        // SAFETY: `self` proves the features.
        unsafe { run(f) }
    }

    #[inline(always)]
    fn tile(self, tile: &Tile, stretch: &Stretch, sums: &mut [Lanes<i32>]) {
        // SAFETY: `self` proves the features.
        unsafe { tile::run(tile, tile::Store { stretch, sums }) }
    }

    #[inline(always)]
    fn finish(self, tile: &Tile, products: &mut Products<i32, f32>, out: &mut Out<f32>) {
        // SAFETY: `self` proves the features.
        unsafe { tile::run(tile, tile::Finish { products, out }) }
    }

    #[inline(always)]
    fn finish_i32(self, tile: &Tile, products: &mut Products<i32, i32>, out: &mut Out<i32>) {
        // SAFETY: `self` proves the features.
        unsafe { tile::run(tile, tile::Finish { products, out }) }
    }

    #[inline(always)]
    fn largest(self, x: &[f32]) -> u32 {
        // SAFETY: `self` proves the features.
        unsafe { largest(x) }
    }

    #[inline(always)]
    fn round(self, round: &Round, x: &[f32], codes: &mut [Quad]) -> i32 {
        // SAFETY: `self` proves the features.
        unsafe {
            match (round.zero, round.lowest) {
                (0, -127) => round_codes::<false>(round, x, codes),
                _ => round_codes::<true>(round, x, codes),
            }
        }
    }

    #[inline(always)]
    fn add_multiple(self, a: f32, x: &FloatLine, sum: &mut FloatLine) {
        // SAFETY: `self` proves the features.
        unsafe { add_multiple(a, x, sum) }
    }

    #[inline(always)]
    fn ends(self, numbers: &[Lanes<f32>]) -> (i32, i32) {
        // SAFETY: `self` proves the features.
        unsafe { ends(numbers) }
    }

    fn spin(self, rounds: usize) -> usize {
        // SAFETY: `self` proves the features.
        unsafe { spin(rounds) }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn largest(x: &[f32]) -> u32 {
    let magnitude = |x| _mm512_and_si512(x, _mm512_set1_epi32(i32::MAX));
    let mut largest = [_mm512_setzero_si512(); 4];
    let (wide, rest) = x.as_chunks::<{ 4 * LANES }>();
    for wide in wide {
        for (largest, x) in largest.iter_mut().zip(wide.as_chunks::<LANES>().0) {
            *largest = _mm512_max_epu32(*largest, magnitude(load(x)));
        }
    }
    for (largest, x) in largest.iter_mut().zip(rest.chunks(LANES)) {
        *largest = _mm512_max_epu32(*largest, magnitude(load_some(x)));
    }
    let [a, b, c, d] = largest;
    _mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_max_epu32(a, b), _mm512_max_epu32(c, d)))
}

/// Where no scaled number can leave the range, there is no need to `CLAMP`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn round_codes<const CLAMP: bool>(round: &Round, x: &[f32], codes: &mut [Quad]) -> i32 {
    let (low, high) = round.bounds();
    let (low, high) = (_mm512_set1_ps(low), _mm512_set1_ps(high));
    let (factor, zero) = (_mm512_set1_ps(round.factor), _mm512_set1_epi32(round.zero));
    let integers = |x| {
        let scaled = _mm512_mul_ps(x, factor);
        // To the nearest, halves to even, as any program has it that did not say otherwise.
        match CLAMP {
            true => _mm512_add_epi32(_mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(scaled, low), high)), zero),
            false => _mm512_cvtps_epi32(scaled),
        }
    };
    let (wide, rest) = x.as_chunks::<{ 4 * LANES }>();
    let (wide_codes, rest_codes) = codes.as_flattened_mut().split_at_mut(4 * LANES * wide.len());
    // Packing goes by quarters of registers; this sorts them.
    let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    let mut sums = _mm512_setzero_si512();
    for (x, codes) in wide.iter().zip(wide_codes.as_chunks_mut::<{ 4 * LANES }>().0) {
        let mut four = [_mm512_setzero_si512(); 4];
        for (four, x) in four.iter_mut().zip(x.as_chunks::<LANES>().0) {
            *four = integers(_mm512_castsi512_ps(load(x)));
        }
        let [a, b, c, d] = four;
        let bytes = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
        sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), bytes);
        store(codes, _mm512_permutexvar_epi32(order, bytes));
    }
    for (x, codes) in rest.chunks(LANES).zip(rest_codes.chunks_mut(LANES)) {
        let integers = _mm512_maskz_mov_epi32(first_of(x.len()), integers(_mm512_castsi512_ps(load_some(x))));
        sums = _mm512_add_epi32(sums, integers);
        // SAFETY: no more bytes than there are codes.
        unsafe { _mm_mask_storeu_epi8(codes.as_mut_ptr(), first_of(codes.len()), _mm512_cvtepi32_epi8(integers)) };
    }
    _mm512_reduce_add_epi32(sums)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_multiple(a: f32, x: &FloatLine, sum: &mut FloatLine) {
    let (x, before) = (_mm512_castsi512_ps(load(x)), _mm512_castsi512_ps(load(sum)));
    store(sum, _mm512_castps_si512(_mm512_fmadd_ps(_mm512_set1_ps(a), x, before)));
}

/// Loads a line, or sixteen numbers of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load<T: Bytes64>(from: &T) -> __m512i {
    // SAFETY: `T` is 64 bytes.
    unsafe { _mm512_loadu_si512(std::ptr::from_ref(from).cast()) }
}

/// Sixteen bytes as numbers of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn widen(bytes: &Lanes<u8>) -> __m512i {
    // SAFETY: sixteen bytes.
    _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store<T: Bytes64>(to: &mut T, value: __m512i) {
    // SAFETY: `T` is 64 bytes, and any bytes are a `T`.
    unsafe { _mm512_storeu_si512(std::ptr::from_mut(to).cast(), value) }
}

/// A mask for the first of sixteen.
#[inline(always)]
fn first_of(count: usize) -> __mmask16 {
    ((1u32 << count.min(LANES)) - 1) as u16
}

/// The first sixteen, zeros for what is not there.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_some<T: Bytes4>(from: &[T]) -> __m512i {
    if from.is_empty() {
        return _mm512_setzero_si512(); // a masked load from nowhere is allowed, but takes hundreds of cycles
    }
    // SAFETY: no more than there are.
    unsafe { _mm512_maskz_loadu_epi32(first_of(from.len()), from.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn spin(rounds: usize) -> usize {
    let (mut sums, factor) = ([_mm512_setzero_si512(); 16], black_box(_mm512_set1_epi8(1)));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, factor, factor);
        }
    }
    black_box(sums);
    128 * 16 * rounds
}
