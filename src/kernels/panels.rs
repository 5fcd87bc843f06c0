//! Weights of codes of 8 bits or less, packed for the kernel that will run them.

use super::{
    depth::Depth,
    grid::{Grid, PanelGrid, Zeros},
    isa::{Isa, Job},
    kernel::{Bits, Kernel, LANES, Line},
    parallel,
};

/// A matrix of `n` outputs by `k` inputs in panels: `weight = scale * (code - zero)`, codes of at most 8 bits.
///
/// A panel holds the codes of as many outputs as a tile is wide, quad after quad, so that the kernel reads memory in
/// order; the last panel is as many lines narrower as it can. Codes of 4 or 2 bits lie two or four quads to a line, a
/// group starting a new one. Outputs beyond `n`, and quads beyond a group, have code 0.
#[derive(Clone, Debug)]
pub(crate) struct PackedInt8 {
    isa: Isa,
    bits: Bits,
    n: usize,
    depth: Depth,
    /// Lines in a panel's width, but for the last; `Kernel::LINES`.
    width: usize,
    /// Lines that one lane takes for all inputs.
    length: usize,
    /// `[panel][place in the depth][line]`
    lines: Vec<Line>,
    grid: Grid,
    reach: u32,
}

impl PackedInt8 {
    /// Packs row-major `codes` (n by k) of so many bits, whose scale and zero point are `grid(output, group)`.
    ///
    /// # Panics
    /// If there are not n times k codes.
    pub(crate) fn new(
        isa: Isa,
        bits: Bits,
        codes: &[u8],
        n: usize,
        depth: Depth,
        grid: impl Fn(usize, usize) -> (f32, i32),
    ) -> PackedInt8 {
        assert_eq!(codes.len(), n * depth.k());
        let width = isa.run(Width);
        let in_panel = width * LANES;
        let in_line = bits.quads();
        let places = |group: usize| depth.group(group).1.len().div_ceil(in_line);
        let length = (0..depth.groups()).map(places).sum::<usize>();
        let row = |output: usize| &codes[output * depth.k()..(output + 1) * depth.k()];

        let mut lines = vec![Line([[0; 4]; LANES]); n.div_ceil(LANES) * length];
        parallel::for_each_chunk_mut(&mut lines, (length * width).max(1), |panel, lines| {
            let width = lines.len() / length;
            for (place, output) in (panel * in_panel..n).take(in_panel).enumerate() {
                let (line, lane) = (place / LANES, place % LANES);
                for group in 0..depth.groups() {
                    let lines = lines.chunks_exact_mut(width).skip(group * places(0));
                    for (codes, lines) in row(output)[depth.group(group).0].chunks(4 * in_line).zip(lines) {
                        let bytes = &mut lines[line].0[lane];
                        for (input, code) in codes.iter().enumerate() {
                            bytes[input % 4] |= code << (input / 4 * bits.count() as usize);
                        }
                    }
                }
            }
        });

        let (grid, (least, most)) = Grid::new(n, depth, width, grid);
        let highest = i32::from(bits.highest());
        let reach = |zero: i32| zero.unsigned_abs().max(highest.abs_diff(zero));
        let reach = reach(least).max(reach(most)).max(bits.highest().into());
        PackedInt8 { isa, bits, n, depth, width, length, lines, grid, reach }
    }

    /// Adds what activations with a zero point ask for.
    pub(crate) fn with_code_sums(mut self) -> PackedInt8 {
        let (count, mask) = (self.bits.count(), self.bits.highest());
        let code_sum = |bytes: &[u8; 4]| -> i32 {
            let codes = |byte: &u8| (0..8 / count).map(|i| i32::from(byte >> (i * count) & mask)).sum::<i32>();
            bytes.iter().map(codes).sum()
        };
        let mut sums = Vec::with_capacity(self.grid.scales.len());
        for panel in 0..self.panels() {
            let width = self.width(panel);
            let in_group = self.depth.group_size().div_ceil(4).div_ceil(self.bits.quads());
            for group in self.lines(panel).chunks(in_group * width) {
                for line in 0..width {
                    let mut sum = [0; LANES];
                    for Line(codes) in group[line..].iter().step_by(width) {
                        sum.iter_mut().zip(codes).for_each(|(sum, codes)| *sum += code_sum(codes));
                    }
                    sums.push(sum);
                }
            }
        }
        self.grid.code_sums = sums;
        self
    }

    /// Whether activations may have a zero point.
    pub(super) fn has_code_sums(&self) -> bool {
        self.grid.code_sums.len() == self.grid.scales.len()
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
        size_of_val(&*self.lines) + self.grid.nbytes()
    }

    /// How wide the codes are.
    pub(crate) fn bits(&self) -> Bits {
        self.bits
    }

    /// The largest `|code - zero|` that the zero points allow.
    pub(super) fn reach(&self) -> u32 {
        self.reach
    }

    /// The number of panels.
    pub(super) fn panels(&self) -> usize {
        self.n.div_ceil(self.width * LANES)
    }

    /// The zero point of all codes, if there is one.
    pub(super) fn zero(&self) -> Option<i32> {
        match self.grid.zeros {
            Zeros::One(zero) => Some(zero),
            _ => None,
        }
    }

    /// The outputs of a panel.
    #[inline(always)]
    pub(super) fn columns(&self, panel: usize) -> usize {
        let in_panel = self.width * LANES;
        in_panel.min(self.n - panel * in_panel)
    }

    /// The lines in a panel's width.
    #[inline(always)]
    pub(super) fn width(&self, panel: usize) -> usize {
        self.width.min(self.n.div_ceil(LANES) - panel * self.width)
    }

    /// The codes of a panel.
    #[inline(always)]
    pub(super) fn lines(&self, panel: usize) -> &[Line] {
        &self.lines[panel * self.length * self.width..][..self.length * self.width(panel)]
    }

    /// The grid of a panel.
    #[inline(always)]
    pub(super) fn grid(&self, panel: usize) -> PanelGrid<'_> {
        let (first, lines) = (panel * self.depth.groups() * self.width, self.depth.groups() * self.width(panel));
        self.grid.lines(first..first + lines)
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
