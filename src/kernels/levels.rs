//! Weights of codes of 8 bits or less for products with floats: what codes stand for is looked up as they are multiplied.

use super::{
    Depth,
    isa::Isa,
    kernel::Bits,
    level_kernel::{LevelPanel, Levels},
    panels::PackedInt8,
};

/// A matrix of `n` outputs by `k` inputs: `weight = scale * level`, packed as [`PackedInt8`] is.
#[derive(Clone, Debug)]
pub(crate) struct PackedLevels {
    codes: PackedInt8,
    /// Sixteen levels or 256; none if they are codes of 8 bits less a zero point.
    table: Vec<f32>,
}

impl PackedLevels {
    /// Levels are `code - zero`, for row-major `codes` (n by k) of so many bits, whose scale and zero point are
    /// `grid(output, group)`.
    ///
    /// # Panics
    /// If there are not n times k codes.
    pub(crate) fn affine(
        isa: Isa,
        bits: Bits,
        codes: &[u8],
        n: usize,
        depth: Depth,
        grid: impl Fn(usize, usize) -> (f32, i32),
    ) -> PackedLevels {
        let codes = PackedInt8::new(isa, bits, codes, n, depth, grid);
        let zero = codes.zero().unwrap_or(0) as f32;
        let level = |code: usize| (code & usize::from(bits.highest())) as f32 - zero;
        let table = if bits == Bits::Eight { Vec::new() } else { (0..16).map(level).collect() };
        PackedLevels { codes, table }
    }

    /// Levels are `table[code]`, scales `scale(output, group)`.
    ///
    /// # Panics
    /// If there are not n times k codes, or no levels.
    pub(crate) fn codebook(
        isa: Isa,
        bits: Bits,
        codes: &[u8],
        n: usize,
        depth: Depth,
        table: &[f32],
        scale: impl Fn(usize, usize) -> f32,
    ) -> PackedLevels {
        let codes = PackedInt8::new(isa, bits, codes, n, depth, |output, group| (scale(output, group), 0));
        let level = |code: usize| table[(code & usize::from(bits.highest())).min(table.len() - 1)];
        let table = (0..if bits == Bits::Eight { 256 } else { 16 }).map(level).collect();
        PackedLevels { codes, table }
    }

    /// The instruction set that the weights are packed for.
    pub(crate) fn isa(&self) -> Isa {
        self.codes.isa()
    }

    pub(crate) fn bits(&self) -> Bits {
        self.codes.bits()
    }

    /// The number of outputs.
    pub(super) fn n(&self) -> usize {
        self.codes.n()
    }

    /// The number of inputs.
    pub(super) fn k(&self) -> usize {
        self.codes.depth().k()
    }

    /// Bytes in memory, padding included.
    pub(crate) fn nbytes(&self) -> usize {
        self.codes.nbytes() + size_of_val(&*self.table)
    }

    /// One of the panels, which are as wide as the kernel's.
    #[inline(always)]
    pub(super) fn panel(&self, panel: usize) -> LevelPanel<'_> {
        let (codes, grid) = (&self.codes, self.codes.grid(panel));
        LevelPanel {
            lines: codes.lines(panel),
            width: codes.width(panel),
            bits: codes.bits(),
            depth: codes.depth(),
            grid,
            levels: Levels::of(&self.table, &grid.zeros),
            columns: codes.columns(panel),
        }
    }
}
