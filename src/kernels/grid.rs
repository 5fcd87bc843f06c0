//! The scales and zero points of packed weights, in the order in which a panel's groups are multiplied.

use super::{
    depth::Depth,
    kernel::{FloatLine, LANES, Lanes},
};

/// Scales and zero points of `n` outputs, `[panel][group][line]`; of outputs beyond `n`, scales are 0.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    pub(super) scales: Vec<FloatLine>,
    pub(super) zeros: Zeros<Vec<Lanes<u8>>, Vec<Lanes<i32>>>,
    /// Of each group's codes; empty where activations have no zero point.
    pub(super) code_sums: Vec<Lanes<i32>>,
}

/// The grid of one panel, `[group][line]`.
#[derive(Clone, Copy)]
pub(super) struct PanelGrid<'a> {
    pub(super) scales: &'a [FloatLine],
    pub(super) zeros: Zeros<&'a [Lanes<u8>], &'a [Lanes<i32>]>,
    pub(super) code_sums: &'a [Lanes<i32>],
}

/// Zero points, no wider than they have to be: in groups of 32 they weigh as much as a bit or two of each code.
#[derive(Clone, Copy, Debug)]
pub(super) enum Zeros<B, W> {
    /// The same for all.
    One(i32),
    Bytes(B),
    Words(W),
}

impl Grid {
    /// Of `n` outputs in panels of so many lines, whose scale and zero point are `at(output, group)`; and the least and
    /// the largest zero point.
    pub(super) fn new(
        n: usize,
        depth: Depth,
        width: usize,
        at: impl Fn(usize, usize) -> (f32, i32),
    ) -> (Grid, (i32, i32)) {
        let pairs = || (0..n).flat_map(|output| (0..depth.groups()).map(move |group| (output, group)));
        let mut zeros = pairs().map(|(output, group)| at(output, group).1);
        let first = zeros.next().unwrap_or(0);
        let ends = zeros.fold((first, first), |(least, most), zero| (zero.min(least), zero.max(most)));

        let count = n.div_ceil(LANES) * depth.groups();
        let place = |(output, group): (usize, usize)| {
            let (panel, line) = (output / (width * LANES), output / LANES % width);
            let lines = width.min(n.div_ceil(LANES) - panel * width);
            (panel * depth.groups() * width + group * lines + line, output % LANES)
        };
        let mut scales = vec![FloatLine::default(); count];
        let mut zeros = match ends {
            (least, most) if least == most => Zeros::One(least),
            (0.., ..=255) => Zeros::Bytes(vec![[0; LANES]; count]),
            _ => Zeros::Words(vec![[0; LANES]; count]),
        };
        for pair in pairs() {
            let ((scale, zero), (line, lane)) = (at(pair.0, pair.1), place(pair));
            scales[line].0[lane] = scale;
            match &mut zeros {
                Zeros::One(_) => (),
                Zeros::Bytes(bytes) => bytes[line][lane] = zero as u8,
                Zeros::Words(words) => words[line][lane] = zero,
            }
        }
        (Grid { scales, zeros, code_sums: Vec::new() }, ends)
    }

    /// Bytes in memory.
    pub(super) fn nbytes(&self) -> usize {
        let zeros = match &self.zeros {
            Zeros::One(_) => 0,
            Zeros::Bytes(bytes) => size_of_val(&**bytes),
            Zeros::Words(words) => size_of_val(&**words),
        };
        size_of_val(&*self.scales) + zeros + size_of_val(&*self.code_sums)
    }

    /// What lies in some lines.
    #[inline(always)]
    pub(super) fn lines(&self, lines: std::ops::Range<usize>) -> PanelGrid<'_> {
        let zeros = match &self.zeros {
            Zeros::One(zero) => Zeros::One(*zero),
            Zeros::Bytes(bytes) => Zeros::Bytes(&bytes[lines.clone()]),
            Zeros::Words(words) => Zeros::Words(&words[lines.clone()]),
        };
        let code_sums = self.code_sums.get(lines.clone()).unwrap_or_default();
        PanelGrid { scales: &self.scales[lines], zeros, code_sums }
    }
}

impl PanelGrid<'_> {
    /// The zero points of a line.
    #[inline(always)]
    pub(super) fn zeros(&self, line: usize) -> Lanes<i32> {
        match self.zeros {
            Zeros::One(zero) => [zero; LANES],
            Zeros::Bytes(bytes) => bytes[line].map(i32::from),
            Zeros::Words(words) => words[line],
        }
    }
}
