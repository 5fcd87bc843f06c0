//! AVX-512 with VNNI: sixteen outputs times four inputs an instruction, exact.

use std::arch::x86_64::*;

use super::{Bytes64, cut, word};
use crate::kernels::{
    kernel::{FloatLine, Kernel, Lanes, Line, Quad},
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

impl Kernel for Avx512Vnni {
    /// 24 accumulators, 3 weights and a broadcast fill 28 of the 32 registers.
    const ROWS: usize = 8;
    const LINES: usize = 3;
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
    fn tile(self, rows: &[&[Quad]], first: usize, panel: &[Line], sums: &mut [Lanes<i32>]) {
        // SAFETY: `self` proves the features.
        unsafe {
            match sums.len() / rows.len() {
                1 => any_rows::<1>(rows, first, panel, sums),
                2 => any_rows::<2>(rows, first, panel, sums),
                _ => any_rows::<3>(rows, first, panel, sums),
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

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn any_rows<const L: usize>(rows: &[&[Quad]], first: usize, panel: &[Line], sums: &mut [Lanes<i32>]) {
    match rows.len() {
        1 => tile::<1, L>(rows, first, panel, sums),
        2 => tile::<2, L>(rows, first, panel, sums),
        3 => tile::<3, L>(rows, first, panel, sums),
        4 => tile::<4, L>(rows, first, panel, sums),
        5 => tile::<5, L>(rows, first, panel, sums),
        6 => tile::<6, L>(rows, first, panel, sums),
        7 => tile::<7, L>(rows, first, panel, sums),
        _ => tile::<8, L>(rows, first, panel, sums),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn tile<const R: usize, const L: usize>(rows: &[&[Quad]], first: usize, panel: &[Line], sums: &mut [Lanes<i32>]) {
    let panel = panel.as_chunks::<L>().0;
    let rows: [_; R] = cut(rows, first, panel.len());
    let mut acc = [[_mm512_setzero_si512(); L]; R];
    for quad in 0..panel.len() {
        let weights: [_; L] = std::array::from_fn(|line| load(&panel[quad][line]));
        for (acc, row) in acc.iter_mut().zip(rows) {
            // SAFETY: rows are cut to as many quads as the panel has.
            let a = _mm512_set1_epi32(unsafe { word(row, quad) });
            for (acc, weights) in acc.iter_mut().zip(weights) {
                *acc = _mm512_dpbusd_epi32(*acc, weights, a);
            }
        }
    }
    for (sums, acc) in sums[..R * L].iter_mut().zip(acc.as_flattened()) {
        store(sums, *acc);
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add_scaled(products: &Products<i32>, totals: &mut [Lanes<f32>]) {
    let Products { sums, row_sums, grid, offsets } = products;
    let lines = grid.len();
    for (line, (grid, offset)) in grid.iter().zip(*offsets).enumerate() {
        let (scale, zero, offset) = (_mm512_castsi512_ps(load(&grid.scale)), load(&grid.zero), load(offset));
        let rows = sums.chunks_exact(lines).zip(totals.chunks_exact_mut(lines));
        for ((sums, totals), row_sum) in rows.zip(*row_sums) {
            let of_zero_w = _mm512_mullo_epi32(zero, _mm512_set1_epi32(*row_sum));
            let product = _mm512_sub_epi32(_mm512_sub_epi32(load(&sums[line]), of_zero_w), offset);
            let scaled = _mm512_mul_ps(scale, _mm512_cvtepi32_ps(product));
            let total = _mm512_add_ps(_mm512_castsi512_ps(load(&totals[line])), scaled);
            store(&mut totals[line], _mm512_castps_si512(total));
        }
    }
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
