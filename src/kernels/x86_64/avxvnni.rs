//! AVX-VNNI: eight outputs times four inputs an instruction, exact, in 256-bit registers.

use std::{arch::x86_64::*, hint::black_box};

use super::{Rows, add, add_multiple, finish, load, round_codes, store};
use crate::kernels::{
    kernel::{FloatLine, Kernel, Lanes, Quad, Tile},
    products::{Ending, Out, Products},
    quantize::{self, Round},
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
    fn tile(self, tile: &Tile, sums: &mut [Lanes<i32>]) {
        // SAFETY: `self` proves the features.
        unsafe {
            match tile.rows {
                1 => tile_of::<1>(tile, sums),
                2 => tile_of::<2>(tile, sums),
                3 => tile_of::<3>(tile, sums),
                4 => tile_of::<4>(tile, sums),
                5 => tile_of::<5>(tile, sums),
                _ => tile_of::<6>(tile, sums),
            }
        }
    }

    #[inline(always)]
    fn add(self, tile: &Tile, products: &mut Products<i32>, totals: &mut [Lanes<f32>]) {
        self.tile(tile, products.sums);
        // SAFETY: `self` proves the features.
        unsafe { add(products, totals) }
    }

    #[inline(always)]
    fn finish(self, tile: &Tile, products: &mut Products<i32>, ending: &Ending<f32>, out: &mut Out<f32>) {
        self.tile(tile, products.sums);
        // SAFETY: `self` proves the features.
        unsafe { finish(products, ending, out) }
    }

    #[inline(always)]
    fn largest(self, x: &[f32]) -> u32 {
        quantize::largest(x)
    }

    #[inline(always)]
    fn round(self, round: &Round, x: &[f32], codes: &mut [Quad]) -> i32 {
        // SAFETY: `self` proves the features.
        unsafe { round_codes(round, x, codes) }
    }

    #[inline(always)]
    fn add_multiple(self, a: f32, x: &FloatLine, sum: &mut FloatLine) {
        // SAFETY: `self` proves the features.
        unsafe { add_multiple(a, x, sum) }
    }

    fn spin(self, rounds: usize) -> usize {
        // SAFETY: `self` proves the features.
        unsafe { spin(rounds) }
    }
}

#[target_feature(enable = "avx2,fma,avxvnni")]
fn tile_of<const R: usize>(tile: &Tile, sums: &mut [Lanes<i32>]) {
    let (panel, rows) = (tile.panel, Rows::<R>::new(tile, tile.panel.len()));
    let mut acc = [[_mm256_setzero_si256(); 2]; R];
    for (quad, line) in panel.iter().enumerate() {
        let weights = [load(line, 0), load(line, 1)];
        for (row, acc) in acc.iter_mut().enumerate() {
            // SAFETY: a row of the tile, and as many quads as the rows were made with.
            let a = _mm256_set1_epi32(unsafe { rows.word(row, quad) });
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

#[target_feature(enable = "avx2,avxvnni")]
fn spin(rounds: usize) -> usize {
    let (mut sums, factor) = ([_mm256_setzero_si256(); 12], black_box(_mm256_set1_epi8(1)));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_dpbusd_avx_epi32(*sum, factor, factor);
        }
    }
    black_box(sums);
    64 * 12 * rounds
}
