//! AVX-VNNI: eight outputs times four inputs an instruction, exact, in 256-bit registers.

use std::{arch::x86_64::*, hint::black_box};

use super::{Rows, above, add_multiple, finish, load, lowest, round_codes, store};
use crate::kernels::{
    kernel::{Bits, FloatLine, Kernel, Lanes, Quad, Stretch, Tile},
    nm,
    products::{Out, Products},
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
    const GROUPED_ROWS: usize = 6;
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
    fn tile(self, tile: &Tile, stretch: &Stretch, sums: &mut [Lanes<i32>]) {
        // SAFETY: `self` proves the features.
        unsafe {
            match tile.bits {
                Bits::Two => any_rows::<2>(tile, stretch, sums),
                Bits::Four => any_rows::<4>(tile, stretch, sums),
                Bits::Eight => any_rows::<8>(tile, stretch, sums),
                Bits::Picked => nm::tile(tile, stretch, sums),
            }
        }
    }

    #[inline(always)]
    fn finish(self, tile: &Tile, products: &mut Products<i32, f32>, out: &mut Out<f32>) {
        // SAFETY: `self` proves the features.
        unsafe { finish(tile, products, |stretch, sums| self.tile(tile, stretch, sums), out) }
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

#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn any_rows<const BITS: u32>(tile: &Tile, stretch: &Stretch, sums: &mut [Lanes<i32>]) {
    match tile.rows {
        1 => tile_of::<1, BITS>(tile, stretch, sums),
        2 => tile_of::<2, BITS>(tile, stretch, sums),
        3 => tile_of::<3, BITS>(tile, stretch, sums),
        4 => tile_of::<4, BITS>(tile, stretch, sums),
        5 => tile_of::<5, BITS>(tile, stretch, sums),
        _ => tile_of::<6, BITS>(tile, stretch, sums),
    }
}

#[target_feature(enable = "avx2,fma,avxvnni")]
fn tile_of<const R: usize, const BITS: u32>(tile: &Tile, stretch: &Stretch, sums: &mut [Lanes<i32>]) {
    let rows = Rows::<_, R>::of(tile, stretch);
    let mut acc = [[_mm256_setzero_si256(); 2]; R];
    let mut quads = 0..rows.length;
    for line in tile.lines_of(stretch) {
        let mut packed = [load(line, 0), load(line, 1)];
        for quad in quads.by_ref().take(8 / BITS as usize) {
            let weights = packed.map(|packed| lowest::<BITS>(packed));
            for (row, acc) in acc.iter_mut().enumerate() {
                // SAFETY: a row of the tile, and a quad that the rows have.
                let a = _mm256_set1_epi32(unsafe { rows.word(row, quad) });
                for (acc, weights) in acc.iter_mut().zip(weights) {
                    *acc = _mm256_dpbusd_avx_epi32(*acc, weights, a);
                }
            }
            packed = packed.map(|packed| above::<BITS>(packed));
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
