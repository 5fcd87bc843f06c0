//! What an instruction set brings to products of floats with packed codes: levels looked up in registers.

use std::ops::Range;

use super::{
    depth::Depth,
    grid::{PanelGrid, Zeros},
    kernel::{Bits, LANES, Lanes, Line},
    scalar::Scalar,
};

/// The most rows that are multiplied with levels as these are looked up.
pub(super) const FEW_ROWS: usize = 4;

/// What the codes of a panel stand for, before their scale.
#[derive(Clone, Copy, Debug)]
pub(super) enum Levels<'a> {
    /// By codes of 4 bits, or of 2, for which four levels are there four times. `shifted`: less the group's zero point.
    Few { table: &'a [f32; 16], shifted: bool },
    /// By codes of 8 bits.
    Many(&'a [f32; 256]),
    /// Codes of 8 bits, less the group's zero point.
    Codes,
}

/// The codes of some outputs, and what they stand for.
#[derive(Clone, Copy)]
pub(super) struct LevelPanel<'a> {
    /// For each chunk of a group ([`Bits::chunk`]) the panel's width of them.
    pub(super) lines: &'a [Line],
    pub(super) width: usize,
    pub(super) bits: Bits,
    pub(super) depth: Depth,
    pub(super) grid: PanelGrid<'a>,
    pub(super) levels: Levels<'a>,
    /// Outputs that there are; the others have scale 0.
    pub(super) columns: usize,
}

impl LevelPanel<'_> {
    /// Inputs in a line.
    #[inline(always)]
    pub(super) fn in_line(&self) -> usize {
        4 * self.bits.chunk().1
    }

    /// Where the lines of a group begin.
    #[inline(always)]
    pub(super) fn place(&self, group: usize) -> usize {
        group * self.depth.group_size().div_ceil(self.in_line()) * self.width
    }

    /// The groups that meet some inputs, and which of their own inputs they are.
    #[inline(always)]
    pub(super) fn groups(&self, inputs: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> {
        let size = self.depth.group_size();
        (inputs.start / size..inputs.end.div_ceil(size)).map(move |group| {
            let first = group * size;
            (group, inputs.start.max(first) - first..inputs.end.min(first + size) - first)
        })
    }
}

/// How far an input's code is shifted in its 32 bits of a line.
#[inline(always)]
pub(super) fn shift(input: usize, bits: usize) -> usize {
    input % 4 * 8 + input / 4 * bits
}

/// Products of floats with packed codes, on one instruction set.
pub(super) trait LevelKernel: Copy {
    /// `to[(input - inputs.start) * 16 * width + output]` = scale times level.
    ///
    /// # Panics
    /// If the panel has no such inputs, or `to` is too short.
    fn decode(self, panel: &LevelPanel, inputs: Range<usize>, to: &mut [f32]);

    /// `out[row][first + output] += sum over groups of scale * (sum of x * level)`, for 1 to [`FEW_ROWS`] rows of `x`, which
    /// are `stride` apart.
    ///
    /// # Panics
    /// If `x` or a row of `out` is too short.
    fn multiply_levels(self, panel: &LevelPanel, x: &[f32], stride: usize, out: &mut [&mut [f32]], first: usize);
}

impl LevelKernel for Scalar {
    fn decode(self, panel: &LevelPanel, inputs: Range<usize>, to: &mut [f32]) {
        let mut to = to.chunks_exact_mut(LANES * panel.width);
        for (group, inputs) in panel.groups(inputs) {
            for (input, to) in inputs.zip(&mut to) {
                for (line, to) in to.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                    let scales = panel.grid.scales[group * panel.width + line].0;
                    let levels = levels(panel, group, line, input);
                    to.iter_mut().zip(scales.iter().zip(levels)).for_each(|(to, (scale, level))| *to = scale * level);
                }
            }
        }
    }

    fn multiply_levels(self, panel: &LevelPanel, x: &[f32], stride: usize, out: &mut [&mut [f32]], first: usize) {
        for line in 0..panel.columns.div_ceil(LANES) {
            let mut totals = [[0f32; LANES]; FEW_ROWS];
            for (group, inputs) in panel.groups(0..panel.depth.k()) {
                let mut sums = [[0f32; LANES]; FEW_ROWS];
                for input in inputs {
                    let levels = levels(panel, group, line, input);
                    for (row, sums) in sums[..out.len()].iter_mut().enumerate() {
                        let x = x[row * stride + group * panel.depth.group_size() + input];
                        sums.iter_mut().zip(levels).for_each(|(sum, level)| *sum += x * level);
                    }
                }
                let scales = panel.grid.scales[group * panel.width + line].0;
                for (totals, sums) in totals.iter_mut().zip(sums) {
                    totals
                        .iter_mut()
                        .zip(sums.iter().zip(scales))
                        .for_each(|(total, (sum, scale))| *total += scale * sum);
                }
            }
            let columns = line * LANES..panel.columns.min((line + 1) * LANES);
            for (out, totals) in out.iter_mut().zip(totals) {
                let out = &mut out[first..][columns.clone()];
                out.iter_mut().zip(totals).for_each(|(out, total)| *out += total);
            }
        }
    }
}

/// The levels of sixteen outputs for one input of a group.
fn levels(panel: &LevelPanel, group: usize, line: usize, input: usize) -> Lanes<f32> {
    let bits = panel.bits.count() as usize;
    let (place, within) = (input / panel.in_line(), input % panel.in_line());
    let Line(codes) = &panel.lines[panel.place(group) + place * panel.width + line];
    let code = |lane: usize| u32::from_le_bytes(codes[lane]) >> shift(within, bits) & u32::from(panel.bits.highest());
    match panel.levels {
        Levels::Few { table, shifted: false } => std::array::from_fn(|lane| table[code(lane) as usize]),
        Levels::Many(table) => std::array::from_fn(|lane| table[code(lane) as usize]),
        Levels::Few { shifted: true, .. } | Levels::Codes => {
            let zeros = panel.grid.zeros(group * panel.width + line);
            std::array::from_fn(|lane| code(lane) as f32 - zeros[lane] as f32)
        }
    }
}

impl<'a> Levels<'a> {
    /// Of a table as [`PackedLevels`](super::levels::PackedLevels) keeps it.
    #[inline(always)]
    pub(super) fn of(table: &'a [f32], zeros: &Zeros<&[Lanes<u8>], &[Lanes<i32>]>) -> Self {
        match (table.first_chunk(), table.first_chunk()) {
            (Some(table), _) => Levels::Many(table),
            (None, Some(table)) => Levels::Few { table, shifted: !matches!(zeros, Zeros::One(_)) },
            (None, None) => Levels::Codes,
        }
    }
}
