//! AVX2: exact through 16 bits, since the 8-bit `vpmaddubsw` saturates.

use std::arch::x86_64::*;

use super::{store, word};
use crate::kernels::kernel::{Kernel, Lanes, Line, Quad};

/// AVX2: Intel since Haswell, AMD since Excavator.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::kernels) struct Avx2(());

impl Avx2 {
    pub(in crate::kernels) fn detect() -> Option<Avx2> {
        is_x86_feature_detected!("avx2").then_some(Avx2(()))
    }
}

impl Kernel for Avx2 {
    /// Four accumulators a row (two partial sums an output): 12 of the 16 registers.
    const ROWS: usize = 3;
    const LINES: usize = 1;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2")]
        fn run<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        // SAFETY: `self` proves the feature.
        unsafe { run(f) }
    }

    #[inline(always)]
    fn tile(self, rows: &[&[Quad]], panel: &[Line], sums: &mut [Lanes<i32>]) {
        // SAFETY: `self` proves the feature.
        unsafe {
            match rows.len() {
                1 => tile::<1>(rows, panel, sums),
                2 => tile::<2>(rows, panel, sums),
                _ => tile::<3>(rows, panel, sums),
            }
        }
    }
}

#[target_feature(enable = "avx2")]
fn tile<const R: usize>(rows: &[&[Quad]], panel: &[Line], sums: &mut [Lanes<i32>]) {
    let rows: [&[Quad]; R] = std::array::from_fn(|row| &rows[row][..panel.len()]);
    let mut acc = [[_mm256_setzero_si256(); 4]; R];
    for (quad, line) in panel.iter().enumerate() {
        // Four times the same four activations, in 16 bits.
        let a = rows.map(|row| _mm256_cvtepi8_epi16(_mm_set1_epi32(word(row[quad]))));
        for (part, weights) in load(line).into_iter().enumerate() {
            let weights = _mm256_cvtepu8_epi16(weights);
            for (acc, a) in acc.iter_mut().zip(a) {
                acc[part] = _mm256_add_epi32(acc[part], _mm256_madd_epi16(weights, a));
            }
        }
    }
    for (sums, acc) in sums.iter_mut().zip(acc) {
        // Adding neighbours leaves the outputs 0 1 4 5 2 3 6 7; the permutation sorts them.
        let pair = |i| _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(acc[i], acc[i + 1]));
        store(sums, [pair(0), pair(2)]);
    }
}

/// Four times four outputs.
#[inline]
#[target_feature(enable = "avx2")]
fn load(line: &Line) -> [__m128i; 4] {
    let quarters = line.0.as_ptr().cast::<__m128i>();
    // SAFETY: a line is 64 bytes, aligned to 64.
    std::array::from_fn(|i| unsafe { _mm_load_si128(quarters.add(i)) })
}
