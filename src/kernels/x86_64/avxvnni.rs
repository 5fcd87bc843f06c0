//! AVX-VNNI: eight outputs times four inputs an instruction, exact, in 256-bit registers.

use std::arch::x86_64::*;

use super::{add_multiple, add_scaled, cut, load, store, word};
use crate::kernels::{
    kernel::{FloatLine, Kernel, Lanes, Line, Quad},
    products::Products,
};

/// AVX2 with VEX-encoded VNNI: Intel since Alder Lake, AMD since Zen 5.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::kernels) struct AvxVnni(());

impl AvxVnni {
    pub(in crate::kernels) fn detect() -> Option<AvxVnni> {
        let found =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("avxvnni");
        found.then_some(AvxVnni(()))
    }
}

impl Kernel for AvxVnni {
    /// 12 accumulators, 2 weights and a broadcast fill 15 of the 16 registers.
    const ROWS: usize = 6;
    const LINES: usize = 1;
    const SUMS: usize = 4;
    const FUSED: bool = true;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2,fma,avxvnni")]
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

#[target_feature(enable = "avx2,fma,avxvnni")]
fn tile<const R: usize>(rows: &[&[Quad]], first: usize, panel: &[Line], sums: &mut [Lanes<i32>]) {
    let rows: [_; R] = cut(rows, first, panel.len());
    let mut acc = [[_mm256_setzero_si256(); 2]; R];
    for quad in 0..panel.len() {
        let weights = [load(&panel[quad], 0), load(&panel[quad], 1)];
        for (acc, row) in acc.iter_mut().zip(rows) {
            // SAFETY: rows are cut to as many quads as the panel has.
            let a = _mm256_set1_epi32(unsafe { word(row, quad) });
            for (acc, weights) in acc.iter_mut().zip(weights) {
                *acc = _mm256_dpbusd_avx_epi32(*acc, weights, a);
            }
        }
    }
    for (sums, acc) in sums[..R].iter_mut().zip(acc) {
        store(sums, 0, acc[0]);
        store(sums, 1, acc[1]);
    }
}
