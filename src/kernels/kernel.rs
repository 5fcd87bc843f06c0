//! What an instruction set brings to the products: the integer product's tile, and a few constants.

use super::{
    float_kernel::FloatKernel,
    products::{Ending, Out, Products},
    quantize::Round,
};

/// Outputs in a [`Line`].
pub(super) const LANES: usize = 16;

/// Four consecutive activations of a row.
pub(super) type Quad = [i8; 4];

/// The weights of sixteen outputs for four consecutive inputs: a cache line, and a full register.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Line(pub(super) [[u8; 4]; LANES]);

/// Sixteen floats: a cache line, and a full register.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub(super) struct FloatLine(pub(super) [f32; LANES]);

/// One number for each of sixteen outputs.
pub(super) type Lanes<T> = [T; LANES];

/// The most rows, and lines of sums (`ROWS * LINES`), that a tile may have.
pub(super) const MAX_ROWS: usize = 8;
pub(super) const MAX_LINES: usize = 24;

/// What a tile multiplies.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    /// From the first quad of the first row on: 1 to [`Kernel::ROWS`] rows, `stride` quads apart.
    pub(super) quads: &'a [Quad],
    pub(super) stride: usize,
    pub(super) rows: usize,
    /// For each quad of a row, 1 to [`Kernel::LINES`] lines; at most [`EXACT_QUADS`] quads.
    pub(super) panel: &'a [Line],
    pub(super) lines: usize,
}

/// Inputs (in quads) whose products surely fit an `i32`: 255 * 128 * 4 * 16384 < 2^31.
pub(super) const EXACT_QUADS: usize = 1 << 14;

/// The innermost part of the products on one instruction set.
///
/// A value can be made only where the machine was found to have the instructions.
pub(super) trait Kernel: FloatKernel + Copy + Send + Sync {
    /// Rows of activations in a tile ("mr").
    const ROWS: usize;
    /// The most lines of weights in a tile and in a panel ("nr" is sixteen times that).
    const LINES: usize;

    /// Lines of f32 sums that find registers beside what is added to them.
    const SUMS: usize;
    /// Whether it multiplies floats and adds with one rounding.
    const FUSED: bool;

    /// Runs `f` compiled for this instruction set, provided that it is inlined: mark what it calls `inline(always)`.
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R;

    /// `sums[row][line][lane]` = sum over the quads and their four places of activation times weight; as many lines for
    /// each row as the panel has, all overwritten.
    fn tile(self, tile: &Tile, sums: &mut [Lanes<i32>]);

    /// The tile, its products added to the totals of the groups before. `products.sums` are room that need not be used,
    /// here and below.
    #[inline(always)]
    fn add(self, tile: &Tile, products: &mut Products<i32>, totals: &mut [Lanes<f32>]) {
        self.tile(tile, products.sums);
        products.add(totals);
    }

    /// The tile, its products added as those of the last group, and `out = total * scale_a + bias`.
    #[inline(always)]
    fn finish(self, tile: &Tile, products: &mut Products<i32>, ending: &Ending<f32>, out: &mut Out<f32>) {
        self.tile(tile, products.sums);
        products.finish(ending, out);
    }

    /// The tile, and its products with the totals and the bias, in integers that wrap.
    #[inline(always)]
    fn finish_i32(self, tile: &Tile, products: &mut Products<i32>, ending: &Ending<i32>, out: &mut Out<i32>) {
        self.tile(tile, products.sums);
        products.finish(ending, out);
    }

    /// The bits of the largest magnitude: as integers, magnitudes are in order, and NaN and infinity above all finite ones.
    fn largest(self, x: &[f32]) -> u32;

    /// Writes a code for each number, and 0 for each place beyond, of which there are less than four; the sum of codes.
    fn round(self, round: &Round, x: &[f32], codes: &mut [Quad]) -> i32;

    /// `sum += a * x`, rounded once if [`Kernel::FUSED`].
    fn add_multiple(self, a: f32, x: &FloatLine, sum: &mut FloatLine);

    /// The least and the largest key of a group of numbers; see [`Ends`](super::ends::Ends).
    #[inline(always)]
    fn ends(self, numbers: &[Lanes<f32>]) -> (i32, i32) {
        super::ends::keys(numbers.as_flattened())
    }

    /// So many rounds of the multiplications that the tile is made of, on registers alone: the limit of any product.
    /// Returns the operations, multiplications and additions.
    fn spin(self, rounds: usize) -> usize;
}
