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
        grid: impl Fn(usize, usize) -> (f32, i32) + Sync,
    ) -> PackedLevels {
        let codes = PackedInt8::new(isa, bits, codes, n, depth, grid);
        // Where zero points differ, the rest of them is a matter of the group.
        let zero = codes.zero().unwrap_or(1 << (bits.count() - 1)) as f32;
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
        scale: impl Fn(usize, usize) -> f32 + Sync,
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

#[cfg(test)]
mod tests {
    use super::{
        super::{battery::Random, float::add_product_of_levels},
        *,
    };

    /// A product in plain numbers.
    #[derive(Debug)]
    struct Case {
        m: usize,
        n: usize,
        depth: Depth,
        bits: Bits,
        /// Of a codebook; none for affine codes.
        table: Option<Vec<f32>>,
        codes: Vec<u8>,
        /// For each (output, group).
        grid: Vec<(f32, i32)>,
        x: Vec<f32>,
        c: Vec<f32>,
    }

    impl Case {
        fn random(random: &mut Random, (m, n, k): (usize, usize, usize)) -> Case {
            let depth = Depth::new(k, random.pick(&[1, 3, 4, 8, 31, 32, 64, 100, 700, usize::MAX])).unwrap();
            let bits = random.pick(&[Bits::Two, Bits::Four, Bits::Eight]);
            let levels = 1 + random.below(1 + usize::from(bits.highest()));
            let zeros: &[i32] = random.pick(&[&[0], &[7], &[0, 3, 15], &[0, 255, 1], &[-300, 70_000, 2]]);
            Case {
                m,
                n,
                depth,
                bits,
                table: (random.below(2) == 0).then(|| (0..levels).map(|_| random.unit()).collect()),
                codes: (0..n * k).map(|_| random.below(levels) as u8).collect(),
                grid: (0..n * depth.groups()).map(|_| (random.unit(), random.pick(zeros))).collect(),
                x: (0..m * k).map(|_| random.unit()).collect(),
                c: (0..m * n).map(|_| random.unit()).collect(),
            }
        }

        fn packed(&self, isa: Isa) -> PackedLevels {
            let at = |output, group| self.grid[output * self.depth.groups() + group];
            let (bits, codes, n, depth) = (self.bits, &self.codes, self.n, self.depth);
            match &self.table {
                None => PackedLevels::affine(isa, bits, codes, n, depth, at),
                Some(table) => {
                    PackedLevels::codebook(isa, bits, codes, n, depth, table, |output, group| at(output, group).0)
                }
            }
        }

        /// A code with its scale and zero point.
        fn at(&self, output: usize, input: usize) -> (u8, f64, i32) {
            let (scale, zero) = self.grid[output * self.depth.groups() + input / self.depth.group_size()];
            (self.codes[output * self.depth.k() + input], scale.into(), zero)
        }

        fn weight(&self, output: usize, input: usize) -> f64 {
            let (code, scale, zero) = self.at(output, input);
            match &self.table {
                None => scale * f64::from(i32::from(code) - zero),
                Some(table) => scale * f64::from(table[usize::from(code)]),
            }
        }

        /// Whether zero points are not all alike.
        fn zeros_differ(&self) -> bool {
            self.grid.iter().any(|grid| grid.1 != self.grid[0].1)
        }

        /// The magnitude of all that is added up for a weight: zero points of few bits that differ are parted in the middle
        /// of the codes.
        fn size(&self, zeros_differ: bool, output: usize, input: usize) -> f64 {
            let (code, scale, zero) = self.at(output, input);
            let center = 1 << (self.bits.count() - 1);
            match self.table.is_none() && self.bits != Bits::Eight && zeros_differ {
                true => scale.abs() * f64::from((i32::from(code) - center).abs() + (zero - center).abs()),
                false => self.weight(output, input).abs(),
            }
        }

        fn run(&self, isa: Isa) -> Vec<f32> {
            let mut found = self.c.clone();
            add_product_of_levels(&self.x, &self.packed(isa), &mut found);
            found
        }

        fn is_close_on_every_isa(&self) {
            let (k, zeros_differ) = (self.depth.k(), self.zeros_differ());
            let exact: Vec<(f64, f64)> = (0..self.m * self.n)
                .map(|i| {
                    let c = f64::from(self.c[i]);
                    let terms = (0..k).map(|t| self.weight(i % self.n, t) * f64::from(self.x[i / self.n * k + t]));
                    let size = (0..k)
                        .map(|t| self.size(zeros_differ, i % self.n, t) * f64::from(self.x[i / self.n * k + t].abs()));
                    (c + terms.sum::<f64>(), c.abs() + size.sum::<f64>())
                })
                .collect();
            for isa in Isa::available() {
                for (i, (found, (sum, size))) in self.run(isa).iter().zip(&exact).enumerate() {
                    let bound = (k + 5) as f64 * 2f64.powi(-24) * size;
                    assert!((f64::from(*found) - sum).abs() <= bound, "{isa}, {i}: {found} for {sum}, {self:?}");
                }
            }
        }
    }

    #[test]
    fn every_isa_and_width_of_codes_is_within_the_bound_of_the_exact_product() {
        let mut random = Random::new(21);
        for round in 0..1500 {
            let shape = match round % 50 {
                0 => (random.below(100), random.below(150), random.below(1400)),
                1 => (random.below(10), random.below(600), random.below(70)),
                _ => (random.below(20), random.below(110), random.below(90)),
            };
            Case::random(&mut random, shape).is_close_on_every_isa();
        }
    }

    #[test]
    fn weights_that_are_zero_count_for_nothing_if_zero_points_are_alike() {
        let mut random = Random::new(22);
        for m in [1, 4, 9] {
            let mut case = Case::random(&mut random, (m, 50, 70));
            (case.table, case.bits) = (None, Bits::Four);
            case.codes.fill(3);
            case.grid.fill((0.1, 3));
            Isa::available().into_iter().for_each(|isa| assert!(case.run(isa) == case.c, "{isa}"));
        }
    }

    #[cfg(feature = "rayon")]
    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let mut random = Random::new(23);
        for shape in [(1, 3000, 1000), (5, 2000, 600), (40, 700, 1300), (300, 100, 600)] {
            let case = Case::random(&mut random, shape);
            for isa in Isa::available() {
                let run = |threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| case.run(isa))
                };
                let one = run(1);
                for threads in [2, 3, 4, 7] {
                    assert!(run(threads) == one, "{isa}, {shape:?}, {threads} threads");
                }
            }
        }
    }
}
