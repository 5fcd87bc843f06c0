//! AVX2: exact through 16 bits, since the 8-bit `vpmaddubsw` saturates.

use std::arch::x86_64::*;

use super::{add_multiple, add_scaled, cut, load, store, word};
use crate::kernels::{
    kernel::{FloatLine, Kernel, Lanes, Line, Quad},
    products::Products,
};

/// AVX2: Intel since Haswell, AMD since Excavator.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::kernels) struct Avx2(());

impl Avx2 {
    pub(in crate::kernels) fn detect() -> Option<Avx2> {
        let found = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        found.then_some(Avx2(()))
    }
}

impl Kernel for Avx2 {
    /// 12 accumulators (two partial sums an output), 2 weights, a broadcast and a product fill the 16 registers.
    const ROWS: usize = 6;
    const LINES: usize = 1;
    const SUMS: usize = 4;
    const FUSED: bool = true;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2,fma")]
        fn run<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        // SAFETY: `self` proves the features.
        unsafe { run(f) }
    }

    #[inline(always)]
    fn tile(self, rows: &[&[Quad]], first: usize, panel: &[Line], sums: &mut [Lanes<i32>]) {
        // SAFETY: `self` proves the features.
        unsafe {
            match rows.len() {
                1 => tile::<1>(rows, first, panel, sums),
                2 => tile::<2>(rows, first, panel, sums),
                3 => tile::<3>(rows, first, panel, sums),
                4 => tile::<4>(rows, first, panel, sums),
                5 => tile::<5>(rows, first, panel, sums),
                _ => tile::<6>(rows, first, panel, sums),
            }
        }
    }

    #[inline(always)]
    fn add_scaled(self, products: &Products<i32>, totals: &mut [Lanes<f32>]) {
        // SAFETY: `self` proves the features.
        unsafe { add_scaled(products, totals) }
    }

    #[inline(always)]
    fn add_multiple(self, a: f32, x: &FloatLine, sum: &mut FloatLine) {
        // SAFETY: `self` proves the features.
        unsafe { add_multiple(a, x, sum) }
    }
}

/// Half a line at a time: what a whole one takes would not fit the registers.
#[target_feature(enable = "avx2,fma")]
fn tile<const R: usize>(rows: &[&[Quad]], first: usize, panel: &[Line], sums: &mut [Lanes<i32>]) {
    let rows: [_; R] = cut(rows, first, panel.len());
    for half in 0..2 {
        let mut acc = [[_mm256_setzero_si256(); 2]; R];
        for quad in 0..panel.len() {
            let weights = widen(load(&panel[quad], half));
            for (acc, row) in acc.iter_mut().zip(rows) {
                // Four times the same four activations, in 16 bits.
                // SAFETY: rows are cut to as many quads as the panel has.
                let a = _mm256_cvtepi8_epi16(_mm_set1_epi32(unsafe { word(row, quad) }));
                for (acc, weights) in acc.iter_mut().zip(weights) {
                    *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(weights, a));
                }
            }
        }
        for (sums, [low, high]) in sums[..R].iter_mut().zip(acc) {
            // Adding neighbours leaves the outputs 0 1 4 5 2 3 6 7; the permutation sorts them.
            let eight = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(low, high));
            store(sums, half, eight);
        }
    }
}

/// Two times four outputs, from a half line to 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn widen(codes: __m256i) -> [__m256i; 2] {
    let high = _mm256_extracti128_si256::<1>(codes);
    [_mm256_cvtepu8_epi16(_mm256_castsi256_si128(codes)), _mm256_cvtepu8_epi16(high)]
}
