//! What an instruction set brings to the products: the integer product's tile, and a few constants.

use super::{
    float_kernel::FloatKernel,
    level_kernel::LevelKernel,
    nm,
    products::{Out, Products},
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

/// What begins with a cache line.
#[repr(align(64))]
pub(super) struct Aligned<T>(pub(super) T);

/// The most lines of sums (`ROWS * LINES`) that a tile may have.
pub(super) const MAX_LINES: usize = 24;

/// How wide packed codes are: the byte of a [`Line`] holds those of `8 / bits` quads, the first one's lowest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bits {
    Two,
    Four,
    Eight,
    /// Eight, of two inputs of each four; see [`nm`](super::nm).
    Picked,
}

impl Bits {
    /// The narrowest for codes of so many bits.
    pub(crate) fn of(bits: u8) -> Bits {
        match bits {
            0..=2 => Bits::Two,
            3..=4 => Bits::Four,
            _ => Bits::Eight,
        }
    }

    pub(crate) const fn count(self) -> u32 {
        match self {
            Bits::Two => 2,
            Bits::Four => 4,
            Bits::Eight | Bits::Picked => 8,
        }
    }

    /// The largest code.
    pub(super) fn highest(self) -> u8 {
        u8::MAX >> (8 - self.count())
    }

    /// Lines that belong together, for one line of a panel's width, and the quads that they hold.
    #[inline(always)]
    pub(super) const fn chunk(self) -> (usize, usize) {
        match self {
            Bits::Picked => (1 + nm::STEPS, 2 * nm::STEPS),
            _ => (1, 8 / self.count() as usize),
        }
    }

    /// Lines for so many quads from the start of a group on, for one line of a panel's width.
    #[inline(always)]
    pub(super) const fn lines(self, quads: usize) -> usize {
        match self {
            Bits::Picked => quads.div_ceil(2 * nm::STEPS) + quads.div_ceil(2),
            _ => quads.div_ceil(self.chunk().1),
        }
    }
}

/// What a tile multiplies.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    /// 1 to [`Kernel::ROWS`] rows of `stride` quads.
    pub(super) quads: &'a [Quad],
    pub(super) stride: usize,
    pub(super) rows: usize,
    /// The groups, and the quads of each but the last.
    pub(super) groups: usize,
    pub(super) group: usize,
    /// For each line that [`Bits::lines`] counts for a group, 1 to [`Kernel::LINES`] or [`Kernel::PICKED_LINES`] lines.
    pub(super) panel: &'a [Line],
    pub(super) lines: usize,
    pub(super) bits: Bits,
    /// Whether the panel is read for the first time since others were.
    pub(super) fresh: bool,
}

/// A part of the depth within a group: at most [`EXACT_QUADS`] quads for [`Kernel::tile`].
#[derive(Clone, Copy)]
pub(super) struct Stretch {
    /// The first quad of a row.
    pub(super) first: usize,
    pub(super) quads: usize,
    /// Where in the panel its lines are, counted in widths of it.
    pub(super) place: usize,
}

impl Tile<'_> {
    /// The whole of a group.
    #[inline(always)]
    pub(super) fn stretch(&self, group: usize) -> Stretch {
        let first = group * self.group;
        let quads = self.group.min(self.stride - first);
        Stretch { first, quads, place: group * self.bits.lines(self.group) }
    }

    /// The lines of a stretch, for panels of one line.
    #[inline(always)]
    pub(super) fn lines_of(&self, stretch: &Stretch) -> &[Line] {
        &self.panel[stretch.place..][..self.bits.lines(stretch.quads)]
    }
}

/// Inputs (in quads) whose products surely fit an `i32`: 255 * 128 * 4 * 16384 < 2^31.
pub(super) const EXACT_QUADS: usize = 1 << 14;

/// The innermost part of the products on one instruction set.
///
/// A value can be made only where the machine was found to have the instructions.
pub(super) trait Kernel: FloatKernel + LevelKernel + Copy + Send + Sync {
    /// Rows of activations in a tile ("mr").
    const ROWS: usize;
    /// Rows where the depth has several groups, so that totals find registers beside the sums.
    const GROUPED_ROWS: usize;
    /// The most lines of weights in a tile and in a panel ("nr" is sixteen times that).
    const LINES: usize;
    /// The same where inputs are picked.
    const PICKED_ROWS: usize = Self::ROWS;
    const PICKED_LINES: usize = 1;

    /// Lines of f32 sums that find registers beside what is added to them.
    const SUMS: usize;
    /// Whether it multiplies floats and adds with one rounding.
    const FUSED: bool;

    /// Runs `f` compiled for this instruction set, provided that it is inlined: mark what it calls `inline(always)`.
    fn vectorize<R>(self, f: impl FnOnce() -> R) -> R;

    /// `sums[row][line][lane]` = sum over the quads of a stretch and their four places of activation times weight; as many
    /// lines for each row as the panel has, all overwritten.
    fn tile(self, tile: &Tile, stretch: &Stretch, sums: &mut [Lanes<i32>]);

    /// `out = (sum over groups of scale_w * product) * scale_a + bias`.
    #[inline(always)]
    fn finish(self, tile: &Tile, products: &mut Products<i32, f32>, out: &mut Out<f32>) {
        products.finish(tile, |stretch, sums| self.tile(tile, stretch, sums), out);
    }

    /// `out = sum over groups of product + bias`, in integers that wrap.
    #[inline(always)]
    fn finish_i32(self, tile: &Tile, products: &mut Products<i32, i32>, out: &mut Out<i32>) {
        products.finish(tile, |stretch, sums| self.tile(tile, stretch, sums), out);
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
