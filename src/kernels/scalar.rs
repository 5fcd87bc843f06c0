//! Every operation, plainly: the specification of the others, and what runs where there is nothing better.

use std::hint::black_box;

use super::{
    kernel::{FloatLine, Kernel, LANES, Lanes, Quad, Tile},
    quantize::{self, Round},
};

/// The kernel that every machine has. The compiler makes of it what the target allows.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Scalar;

impl Kernel for Scalar {
    const ROWS: usize = 4;
    const LINES: usize = 1;
    const SUMS: usize = 2;
    const FUSED: bool = false;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }

    fn tile(self, tile: &Tile, sums: &mut [Lanes<i32>]) {
        for (row, sums) in tile.quads.chunks(tile.stride).zip(sums) {
            *sums = [0; LANES];
            for (a, line) in row.iter().zip(tile.panel) {
                for (sum, w) in sums.iter_mut().zip(line.0) {
                    *sum += (0..4).map(|i| i32::from(a[i]) * i32::from(w[i])).sum::<i32>();
                }
            }
        }
    }

    fn largest(self, x: &[f32]) -> u32 {
        quantize::largest(x)
    }

    fn round(self, round: &Round, x: &[f32], codes: &mut [Quad]) -> i32 {
        round.round(x, codes)
    }

    #[inline(always)]
    fn add_multiple(self, a: f32, x: &FloatLine, sum: &mut FloatLine) {
        x.0.iter().zip(&mut sum.0).for_each(|(x, sum)| *sum += a * x);
    }

    fn spin(self, rounds: usize) -> usize {
        // As many lanes as registers may hold, with 32-bit factors: what the compiler makes of `tile`.
        let (mut sums, w) = ([0i32; LANES], black_box([3i32; LANES]));
        for a in 0..rounds as i32 {
            sums.iter_mut().zip(w).for_each(|(sum, w)| *sum = sum.wrapping_add(w.wrapping_mul(black_box(a))));
        }
        black_box(sums);
        2 * LANES * rounds
    }
}
