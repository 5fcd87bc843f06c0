//! Weights of codes of 8 bits or less, packed for the kernel that will run them.

use super::{
    depth::Depth,
    grid::{Grid, PanelGrid, Zeros},
    isa::{Isa, Job},
    kernel::{Bits, Kernel, LANES, Line},
    nm, parallel,
};

/// A matrix of `n` outputs by `k` inputs in panels: `weight = scale * (code - zero)`, codes of at most 8 bits.
///
/// A panel holds the codes of as many outputs as a tile is wide, quad after quad, so that the kernel reads memory in
/// order; the last panel is as many lines narrower as it can. Codes of 4 or 2 bits lie two or four quads to a line, a
/// group starting a new one; picked ones as [`nm`] says. Outputs beyond `n`, and quads beyond a group, have code 0.
#[derive(Clone, Debug)]
pub(crate) struct PackedInt8 {
    isa: Isa,
    bits: Bits,
    n: usize,
    depth: Depth,
    /// Lines in a panel's width, but for the last; `Kernel::LINES` or `Kernel::PICKED_LINES`.
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
    /// If there are not n times k codes; [`Bits::Picked`] may be but what [`PackedInt8::can_pick`].
    pub(crate) fn new(
        isa: Isa,
        bits: Bits,
        codes: &[u8],
        n: usize,
        depth: Depth,
        grid: impl Fn(usize, usize) -> (f32, i32) + Sync,
    ) -> PackedInt8 {
        assert_eq!(codes.len(), n * depth.k());
        let width = isa.run(Width { bits });
        let in_panel = width * LANES;
        let (together, quads) = bits.chunk();
        let places = |group: usize| bits.lines(depth.group(group).1.len());
        let length = (0..depth.groups()).map(places).sum::<usize>();
        let row = |output: usize| &codes[output * depth.k()..(output + 1) * depth.k()];

        let mut lines = vec![Line([[0; 4]; LANES]); n.div_ceil(LANES) * length];
        parallel::for_each_chunk_mut(&mut lines, (length * width).max(1), |panel, lines| {
            let width = lines.len() / length;
            for (place, output) in (panel * in_panel..n).take(in_panel).enumerate() {
                let (line, lane) = (place / LANES, place % LANES);
                for group in 0..depth.groups() {
                    let lines = lines[group * places(0) * width..].chunks_mut(together * width);
                    for (codes, lines) in row(output)[depth.group(group).0].chunks(4 * quads).zip(lines) {
                        let at = |index: usize| index * width + line;
                        if bits == Bits::Picked {
                            let zero = grid(output, group).1;
                            for (step, codes) in codes.chunks(8).enumerate() {
                                let (weights, places) = nm::pick(codes, zero);
                                lines[at(1 + step)].0[lane] = weights.map(i8::cast_unsigned);
                                let picks = lines[at(0)].0[lane].iter_mut().zip(places);
                                picks.for_each(|(picks, place)| *picks |= place << (2 * step));
                            }
                            continue;
                        }
                        let bytes = &mut lines[at(0)].0[lane];
                        for (input, code) in codes.iter().enumerate() {
                            bytes[input % 4] |= code << (input / 4 * bits.count() as usize);
                        }
                    }
                }
            }
        });

        let (mut grid, (least, most)) = Grid::new(n, depth, width, grid);
        let highest = i32::from(bits.highest());
        let reach = |zero: i32| zero.unsigned_abs().max(highest.abs_diff(zero));
        let reach = reach(least).max(reach(most)).max(bits.highest().into());
        if bits == Bits::Picked {
            grid.zeros = Zeros::One(0); // codes are distances from them
        }
        let packed = PackedInt8 { isa, bits, n, depth, width, length, lines, grid, reach };
        if packed.picks() { packed.with_code_sums() } else { packed }
    }

    /// Adds what activations with a zero point ask for.
    pub(crate) fn with_code_sums(mut self) -> PackedInt8 {
        if self.has_code_sums() {
            return self;
        }
        let (count, mask) = (self.bits.count(), self.bits.highest());
        let code_sum = |bytes: &[u8; 4]| -> i32 {
            if self.picks() {
                return bytes.iter().map(|code| i32::from(code.cast_signed())).sum();
            }
            let codes = |byte: &u8| (0..8 / count).map(|i| i32::from(byte >> (i * count) & mask)).sum::<i32>();
            bytes.iter().map(codes).sum()
        };
        let mut sums = Vec::with_capacity(self.grid.scales.len());
        for panel in 0..self.panels() {
            let width = self.width(panel);
            let in_group = self.bits.lines(self.depth.group_size().div_ceil(4));
            for group in self.lines(panel).chunks(in_group * width) {
                for line in 0..width {
                    let mut sum = [0; LANES];
                    for (index, Line(codes)) in group[line..].iter().step_by(width).enumerate() {
                        if self.picks() && index.is_multiple_of(self.bits.chunk().0) {
                            continue; // says what is picked
                        }
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

    /// Whether inputs are picked.
    #[inline(always)]
    pub(crate) fn picks(&self) -> bool {
        self.bits == Bits::Picked
    }

    /// The outputs of a panel, but for the last.
    #[inline(always)]
    pub(super) fn in_panel(&self) -> usize {
        self.width * LANES
    }

    /// The number of panels.
    pub(super) fn panels(&self) -> usize {
        self.n.div_ceil(self.in_panel())
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
        self.in_panel().min(self.n - panel * self.in_panel())
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
struct Width {
    bits: Bits,
}

impl Job for Width {
    type Output = usize;

    fn run<K: Kernel>(self, _: K) -> usize {
        if self.bits == Bits::Picked { K::PICKED_LINES } else { K::LINES }
    }
}
