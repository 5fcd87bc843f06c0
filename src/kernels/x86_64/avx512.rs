//! AVX-512 with VNNI: sixteen outputs times four inputs an instruction, exact.

use std::arch::x86_64::*;

use super::{Bytes64, word};
use crate::kernels::{
    kernel::{Kernel, Lanes, Line, Quad},
    products::Products,
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

/// Three lines of 48 outputs: 24 accumulators, 3 weights and a broadcast fill 28 of the 32 registers.
const LINES: usize = 3;

impl Kernel for Avx512Vnni {
    const ROWS: usize = 8;
    const LINES: usize = LINES;

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
    fn tile(self, rows: &[&[Quad]], panel: &[Line], sums: &mut [Lanes<i32>]) {
        // SAFETY: `self` proves the features.
        unsafe {
            match *rows {
                [] => {}
                [a] => tile([a], panel, sums),
                [a, b] => tile([a, b], panel, sums),
                [a, b, c] => tile([a, b, c], panel, sums),
                [a, b, c, d] => tile([a, b, c, d], panel, sums),
                [a, b, c, d, e] => tile([a, b, c, d, e], panel, sums),
                [a, b, c, d, e, f] => tile([a, b, c, d, e, f], panel, sums),
                [a, b, c, d, e, f, g] => tile([a, b, c, d, e, f, g], panel, sums),
                [a, b, c, d, e, f, g, h, ..] => tile([a, b, c, d, e, f, g, h], panel, sums),
            }
        }
    }

    #[inline(always)]
    fn add_scaled(self, products: &Products<i32>, totals: &mut Lanes<f32>) {
        // SAFETY: `self` proves the features.
        unsafe { add_scaled(products, totals) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile<const R: usize>(rows: [&[Quad]; R], panel: &[Line], sums: &mut [Lanes<i32>]) {
    let quads = panel.len() / LINES;
    let mut rows = rows;
    rows.iter_mut().for_each(|row| *row = &row[..quads]);
    let mut acc = [[_mm512_setzero_si512(); LINES]; R];
    for (quad, lines) in panel.chunks_exact(LINES).enumerate() {
        let weights: [_; LINES] = std::array::from_fn(|line| load(&lines[line]));
        for (acc, row) in acc.iter_mut().zip(rows) {
            let a = _mm512_set1_epi32(word(row[quad]));
            for (acc, weights) in acc.iter_mut().zip(weights) {
                *acc = _mm512_dpbusd_epi32(*acc, weights, a);
            }
        }
    }
    let (sums, _) = sums.as_chunks_mut::<LINES>();
    let sums: &mut [_; R] = sums.first_chunk_mut().expect("sums for each row");
    for (sums, acc) in sums.as_flattened_mut().iter_mut().zip(acc.as_flattened()) {
        store(sums, *acc);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_scaled(products: &Products<i32>, totals: &mut Lanes<f32>) {
    let Products { sums, row_sum, grid, offset } = products;
    let of_zero_w = _mm512_mullo_epi32(load(&grid.zero), _mm512_set1_epi32(*row_sum));
    let product = _mm512_sub_epi32(_mm512_sub_epi32(load(*sums), of_zero_w), load(*offset));
    let scaled = _mm512_mul_ps(_mm512_castsi512_ps(load(&grid.scale)), _mm512_cvtepi32_ps(product));
    let total = _mm512_add_ps(_mm512_castsi512_ps(load(totals)), scaled);
    store(totals, _mm512_castps_si512(total));
}

/// Loads a line, or sixteen numbers of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn load<T: Bytes64>(from: &T) -> __m512i {
    // SAFETY: `T` is 64 bytes.
    unsafe { _mm512_loadu_si512(std::ptr::from_ref(from).cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store<T: Bytes64>(to: &mut T, value: __m512i) {
    // SAFETY: `T` is 64 bytes, and any bytes are a `T`.
    unsafe { _mm512_storeu_si512(std::ptr::from_mut(to).cast(), value) }
}
