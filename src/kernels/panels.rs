//! Weights of 8-bit codes, packed for the kernel that will run them.

use std::ops::Range;

use super::{
    depth::Depth,
    isa::{Isa, Job},
    kernel::{Kernel, LANES, Line},
    parallel,
    products::GridLine,
};

/// A matrix of `n` outputs by `k` inputs in panels: `weight = scale * (code - zero)`, codes 0 to 255.
///
/// A panel holds the codes of as many outputs as a tile is wide, quad after quad, so that the kernel reads memory in
/// order; the last panel is as many lines narrower as it can. Outputs beyond `n` have code 0 and scale 0.
#[derive(Clone, Debug)]
pub(crate) struct PackedInt8 {
    isa: Isa,
    n: usize,
    depth: Depth,
    /// Lines in a panel's width, but for the last; `Kernel::LINES`.
    width: usize,
    /// `[panel][quad][line]`
    lines: Vec<Line>,
    /// `[panel][group][line]`
    grid: Vec<GridLine>,
    /// The zero point, if there is but one.
    zero: Option<i32>,
    reach: u32,
}

impl PackedInt8 {
    /// Packs row-major `codes` (n by k) whose scale and zero point are `grid(output, group)`.
    ///
    /// # Panics
    /// If there are not n times k codes.
    pub(crate) fn new(
        isa: Isa,
        codes: &[u8],
        n: usize,
        depth: Depth,
        grid: impl Fn(usize, usize) -> (f32, i32),
    ) -> PackedInt8 {
        assert_eq!(codes.len(), n * depth.k());
        let width = isa.run(Width);
        let in_panel = width * LANES;
        let all_lines = n.div_ceil(LANES);
        let row = |output: usize| &codes[output * depth.k()..(output + 1) * depth.k()];

        let mut lines = vec![Line([[0; 4]; LANES]); all_lines * depth.quads()];
        parallel::for_each_chunk_mut(&mut lines, (depth.quads() * width).max(1), |panel, lines| {
            let width = lines.len() / depth.quads();
            for (place, output) in (panel * in_panel..n).take(in_panel).enumerate() {
                for group in 0..depth.groups() {
                    let (inputs, quads) = depth.group(group);
                    let quads = lines.chunks_exact_mut(width).skip(quads.start);
                    for (codes, quad) in row(output)[inputs].chunks(4).zip(quads) {
                        quad[place / LANES].0[place % LANES][..codes.len()].copy_from_slice(codes);
                    }
                }
            }
        });

        let mut grid_lines = vec![GridLine::default(); all_lines * depth.groups()];
        let mut reach = 255;
        let mut zeros = None;
        for output in 0..n {
            let (panel, place) = (output / in_panel, output % in_panel);
            let lines = width.min(all_lines - panel * width);
            for group in 0..depth.groups() {
                let line = &mut grid_lines[panel * depth.groups() * width + group * lines + place / LANES];
                let (scale, zero) = grid(output, group);
                let code_sum = row(output)[depth.group(group).0].iter().map(|code| i32::from(*code)).sum();
                let lane = place % LANES;
                (line.scale[lane], line.zero[lane], line.code_sum[lane]) = (scale, zero, code_sum);
                let (least, most) = zeros.unwrap_or((zero, zero));
                zeros = Some((zero.min(least), zero.max(most)));
                reach = reach.max(zero.unsigned_abs()).max(255i32.abs_diff(zero));
            }
        }
        let zero = zeros.filter(|(least, most)| least == most).map(|(zero, _)| zero);
        PackedInt8 { isa, n, depth, width, lines, grid: grid_lines, zero, reach }
    }

    /// The instruction set that the weights are packed for.
    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }

    /// The number of outputs.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// The inputs and their groups; activations must have the same.
    pub(crate) fn depth(&self) -> Depth {
        self.depth
    }

    /// Bytes in memory, padding included.
    pub(crate) fn nbytes(&self) -> usize {
        size_of_val(&*self.lines) + size_of_val(&*self.grid)
    }

    /// The zero point, if all outputs and groups have the same.
    pub(super) fn zero(&self) -> Option<i32> {
        self.zero
    }

    /// The largest `|code - zero|` that the zero points allow.
    pub(super) fn reach(&self) -> u32 {
        self.reach
    }

    /// The number of panels.
    pub(super) fn panels(&self) -> usize {
        self.n.div_ceil(self.width * LANES)
    }

    /// The lines in a panel's width.
    #[inline(always)]
    pub(super) fn width(&self, panel: usize) -> usize {
        self.width.min(self.n.div_ceil(LANES) - panel * self.width)
    }

    /// The codes of some quads of a panel.
    #[inline(always)]
    pub(super) fn lines(&self, panel: usize, quads: Range<usize>) -> &[Line] {
        let (first, width) = (panel * self.depth.quads() * self.width, self.width(panel));
        &self.lines[first + quads.start * width..first + quads.end * width]
    }

    /// The grid of one group of a panel.
    #[inline(always)]
    pub(super) fn grid(&self, panel: usize, group: usize) -> &[GridLine] {
        let (first, width) = (panel * self.depth.groups() * self.width, self.width(panel));
        &self.grid[first + group * width..][..width]
    }
}

/// Asks for the width of a kernel's panels, in lines.
struct Width;

impl Job for Width {
    type Output = usize;

    fn run<K: Kernel>(self, _: K) -> usize {
        K::LINES
    }
}
