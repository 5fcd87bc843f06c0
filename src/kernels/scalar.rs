//! Every operation, plainly: the specification of the others, and what runs where there is nothing better.

use std::hint::black_box;

use super::{
    kernel::{Bits, FloatLine, Kernel, LANES, Lanes, Quad, Stretch, Tile},
    nm,
    quantize::{self, Round},
};

/// The kernel that every machine has. The compiler makes of it what the target allows.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Scalar;

impl Kernel for Scalar {
    const ROWS: usize = 4;
    const GROUPED_ROWS: usize = 4;
    const LINES: usize = 1;
    const SUMS: usize = 2;
    const FUSED: bool = false;

    #[inline(always)]
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R {
        f()
    }

    fn tile(self, tile: &Tile, stretch: &Stretch, sums: &mut [Lanes<i32>]) {
        match tile.bits {
            Bits::Two => sum::<2>(tile, stretch, sums),
            Bits::Four => sum::<4>(tile, stretch, sums),
            Bits::Eight => sum::<8>(tile, stretch, sums),
            Bits::Picked => nm::tile(tile, stretch, sums),
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

/// For panels of one line.
fn sum<const BITS: u32>(tile: &Tile, stretch: &Stretch, sums: &mut [Lanes<i32>]) {
    let (in_line, mask) = (8 / BITS as usize, u8::MAX >> (8 - BITS));
    for (row, sums) in tile.quads.chunks(tile.stride).zip(sums) {
        *sums = [0; LANES];
        for (quads, line) in row[stretch.first..][..stretch.quads].chunks(in_line).zip(tile.lines_of(stretch)) {
            for (part, a) in quads.iter().enumerate() {
                for (sum, w) in sums.iter_mut().zip(line.0) {
                    let code = |i: usize| i32::from(w[i] >> (part as u32 * BITS) & mask);
                    *sum += (0..4).map(|i| i32::from(a[i]) * code(i)).sum::<i32>();
                }
            }
        }
    }
}
