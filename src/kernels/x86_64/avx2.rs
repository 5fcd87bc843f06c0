//! AVX2: exact through 16 bits, since the 8-bit `vpmaddubsw` saturates.

use std::{arch::x86_64::*, hint::black_box};

use super::{Rows, above, add_multiple, finish, load, lowest, round_codes, store};
use crate::kernels::{
    kernel::{Bits, FloatLine, Kernel, Lanes, Quad, Stretch, Tile},
    nm,
    products::{Out, Products},
    quantize::{self, Round},
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
    const GROUPED_ROWS: usize = 6;
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
#[target_feature(enable = "avx2,fma")]
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

/// Half a line at a time: what a whole one takes would not fit the registers.
#[target_feature(enable = "avx2,fma")]
fn tile_of<const R: usize, const BITS: u32>(tile: &Tile, stretch: &Stretch, sums: &mut [Lanes<i32>]) {
    let rows = Rows::<_, R>::of(tile, stretch);
    for half in 0..2 {
        let mut acc = [[_mm256_setzero_si256(); 2]; R];
        let mut quads = 0..rows.length;
        for line in tile.lines_of(stretch) {
            let mut packed = load(line, half);
            for quad in quads.by_ref().take(8 / BITS as usize) {
                let weights = widen(lowest::<BITS>(packed));
                for (row, acc) in acc.iter_mut().enumerate() {
                    // Four times the same four activations, in 16 bits.
                    // SAFETY: a row of the tile, and a quad that the rows have.
                    let a = _mm256_cvtepi8_epi16(_mm_set1_epi32(unsafe { rows.word(row, quad) }));
                    for (acc, weights) in acc.iter_mut().zip(weights) {
                        *acc = _mm256_add_epi32(*acc, _mm256_madd_epi16(weights, a));
                    }
                }
                packed = above::<BITS>(packed);
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

#[target_feature(enable = "avx2")]
fn spin(rounds: usize) -> usize {
    let (mut sums, factor) = ([_mm256_setzero_si256(); 12], black_box(_mm256_set1_epi8(1)));
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(*sum, factor));
        }
    }
    black_box(sums);
    32 * 12 * rounds
}
