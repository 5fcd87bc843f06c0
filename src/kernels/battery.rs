//! One battery over every instruction set of this machine: each operation equals the naive oracle below, to the bit,
//! for shapes that are awkward on purpose.

use rand_xoshiro::{
    Xoshiro256PlusPlus,
    rand_core::{Rng, SeedableRng},
};

use super::{Activations, Bits, Depth, PackedInt8, isa::Isa, quantize::Fixed};

/// Around the tiles (1, 3, 4, 6, 8 rows; 16, 48 outputs; quads), primes, and nothing.
const ROWS: [usize; 12] = [0, 1, 2, 3, 5, 6, 7, 8, 9, 12, 17, 31];
const OUTPUTS: [usize; 12] = [0, 1, 2, 15, 16, 17, 31, 47, 48, 49, 97, 113];
const INPUTS: [usize; 14] = [0, 1, 2, 3, 4, 5, 7, 8, 13, 31, 32, 64, 101, 257];
const GROUPS: [usize; 9] = [1, 2, 3, 4, 5, 8, 31, 32, usize::MAX];

pub(super) struct Random(Xoshiro256PlusPlus);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(Xoshiro256PlusPlus::seed_from_u64(seed))
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// From -1 to 1.
    pub(super) fn unit(&mut self) -> f32 {
        (self.0.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// A product in plain integers: what is multiplied, and the definition of the result.
#[derive(Debug)]
struct Case {
    m: usize,
    n: usize,
    depth: Depth,
    bits: Bits,
    weights: Vec<u8>,
    activations: Vec<i8>,
    /// For each (output, group).
    scale_w: Vec<f32>,
    zero_w: Vec<i32>,
    activations_grid: Fixed,
    bias: Vec<f32>,
}

impl Case {
    fn random(random: &mut Random, m: usize, n: usize, depth: Depth) -> Case {
        let extreme = random.below(4) == 0;
        let bits = random.pick(&[Bits::Two, Bits::Four, Bits::Eight]);
        let highest = bits.highest();
        let weight =
            |r: &mut Random| if extreme { r.pick(&[0, highest]) } else { r.below(1 + usize::from(highest)) as u8 };
        let activation = |r: &mut Random| if extreme { r.pick(&[-128, 127]) } else { r.below(256) as u8 as i8 };
        let zeros: &[i32] = match random.below(5) {
            0 => &[0],
            1 => &[128],
            2 => &[0, 7, 8, 15, 255],
            3 => &[0, 7, 127, 128, 255, -300],
            _ => &[i32::MIN, i32::MAX, -1, 70_000, 3],
        };
        let activations_grid =
            Fixed { scale: random.pick(&[1.0, 0.013, 1e-30, 1e20]), zero: random.pick(&[0, 1, -128, 127]) };
        Case {
            m,
            n,
            depth,
            bits,
            weights: (0..n * depth.k()).map(|_| weight(random)).collect(),
            activations: (0..m * depth.k()).map(|_| activation(random)).collect(),
            scale_w: (0..n * depth.groups()).map(|_| random.unit()).collect(),
            zero_w: (0..n * depth.groups()).map(|_| random.pick(zeros)).collect(),
            activations_grid,
            bias: (0..n).map(|_| random.unit()).collect(),
        }
    }

    /// At most two of four inputs of a group left, as near to the zero point as a signed byte reaches.
    fn pruned(mut self, random: &mut Random) -> Case {
        let (k, depth) = (self.depth.k(), self.depth);
        let zeros: &[i32] = match random.below(4) {
            0 => &[128],
            1 => &[90],
            2 => &[0, 127, 128, 255],
            _ => &[-3, 128, 300],
        };
        self.bits = Bits::Eight;
        self.zero_w.iter_mut().for_each(|zero| *zero = random.pick(zeros));
        for output in 0..self.n {
            for group in 0..depth.groups() {
                let zero = self.zero_w[output * depth.groups() + group];
                let codes = &mut self.weights[output * k..(output + 1) * k][depth.group(group).0];
                for four in codes.chunks_mut(4) {
                    let kept = random.pick(&[[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]);
                    for (place, code) in four.iter_mut().enumerate() {
                        let any = random.pick(&[i32::from(*code), zero - 128, zero + 127]);
                        let near = any.clamp((zero - 128).max(0), (zero + 127).min(255));
                        *code = if kept.contains(&place) || !(0..256).contains(&zero) { near } else { zero } as u8;
                    }
                }
            }
        }
        self
    }

    fn grid(&self) -> impl Fn(usize, usize) -> (f32, i32) + Sync {
        let at = |output, group| output * self.depth.groups() + group;
        move |output, group| (self.scale_w[at(output, group)], self.zero_w[at(output, group)])
    }

    fn can_be_picked(&self) -> bool {
        PackedInt8::can_pick(&self.weights, self.depth, self.grid())
    }

    /// With all inputs, and with those alone that differ from the zero point, where that is possible.
    fn packed(&self, isa: Isa) -> impl Iterator<Item = PackedInt8> {
        let pack = move |bits| {
            let packed = PackedInt8::new(isa, bits, &self.weights, self.n, self.depth, self.grid());
            if self.activations_grid.zero == 0 { packed } else { packed.with_code_sums() }
        };
        [self.bits].into_iter().chain(self.can_be_picked().then_some(Bits::Picked)).map(pack)
    }

    /// Activations that quantize to the codes wanted.
    fn quantized(&self, isa: Isa) -> Activations {
        let value =
            |code: &i8| (f32::from(*code) - f32::from(self.activations_grid.zero)) * self.activations_grid.scale;
        let x: Vec<f32> = self.activations.iter().map(value).collect();
        Activations::fixed(isa, &x, self.m, self.depth, self.activations_grid).unwrap()
    }

    /// The integer product of one row, output and group.
    fn oracle_integer(&self, row: usize, output: usize, group: usize) -> i64 {
        let zero_w = i64::from(self.zero_w[output * self.depth.groups() + group]);
        let (inputs, k) = (self.depth.group(group).0, self.depth.k());
        let product = |i| {
            let (w, a) = (i64::from(self.weights[output * k + i]), i64::from(self.activations[row * k + i]));
            (w - zero_w) * (a - i64::from(self.activations_grid.zero))
        };
        inputs.map(product).sum()
    }

    fn oracle(&self) -> Vec<f32> {
        let mut out = Vec::new();
        for row in 0..self.m {
            for output in 0..self.n {
                let scale = |group| self.scale_w[output * self.depth.groups() + group];
                let groups = 0..self.depth.groups();
                let total =
                    groups.fold(0.0, |total, g| scale(g).mul_add(self.oracle_integer(row, output, g) as f32, total));
                out.push(total.mul_add(self.activations_grid.scale, self.bias[output]));
            }
        }
        out
    }

    fn agrees_on(&self, isa: Isa, expected: &[f32]) {
        self.packed(isa).for_each(|packed| self.agrees_packed(&packed, expected));
    }

    fn agrees_packed(&self, packed: &PackedInt8, expected: &[f32]) {
        let isa = packed.isa();
        let activations = packed.suit(self.quantized(isa));
        let mut out = vec![f32::NAN; self.m * self.n];
        packed.matmul(&activations, Some(&self.bias), &mut out);
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert!(bits(&out) == bits(expected), "{isa}: {out:?} instead of {expected:?} for {self:?}");

        let mut integers = vec![-1; self.m * self.n];
        if self.depth.groups() == 1 && packed.matmul_i32(&activations, &mut integers).is_ok() {
            let expected = |i: usize| self.oracle_integer(i / self.n, i % self.n, 0);
            let wrong = (0..integers.len()).find(|i| i64::from(integers[*i]) != expected(*i));
            assert!(wrong.is_none(), "{isa}: integer {wrong:?} of {integers:?} for {self:?}");
        }
    }
}

#[test]
fn every_isa_and_width_of_codes_equals_the_oracle_on_thousands_of_shapes() {
    let mut random = Random::new(1);
    for round in 0..6000 {
        // Small shapes often, larger ones now and then.
        let (m, n, k) = match round % 10 {
            0 => (random.pick(&ROWS), random.pick(&OUTPUTS), random.pick(&INPUTS)),
            1 => (random.below(4), random.below(120), random.below(70)),
            _ => (random.below(20), random.below(52), random.below(40)),
        };
        let depth = Depth::new(k, random.pick(&GROUPS)).unwrap();
        let case = Case::random(&mut random, m, n, depth);
        let expected = case.oracle();
        Isa::available().into_iter().for_each(|isa| case.agrees_on(isa, &expected));
    }
}

#[test]
fn every_isa_picks_inputs_like_the_oracle() {
    let mut random = Random::new(5);
    let mut picked = 0;
    for round in 0..4000 {
        let (m, n, k) = match round % 10 {
            0 => (random.pick(&ROWS), random.pick(&OUTPUTS), random.pick(&[4, 5, 6, 7, 8, 16, 31, 64, 104, 256, 1000])),
            _ => (random.below(35), random.below(52), 8 * random.below(9) + 8 - random.below(4)),
        };
        let depth = Depth::new(k, random.pick(&[7, 8, 16, 24, 32, 64, usize::MAX, usize::MAX])).unwrap();
        let case = Case::random(&mut random, m, n, depth).pruned(&mut random);
        picked += usize::from(case.can_be_picked());
        let expected = case.oracle();
        Isa::available().into_iter().for_each(|isa| case.agrees_on(isa, &expected));
    }
    assert!(picked > 1500, "{picked}");
}

#[test]
fn only_two_of_four_near_the_zero_point_can_be_picked() {
    let can = |codes: &[u8], group_size, zero| {
        PackedInt8::can_pick(codes, Depth::new(codes.len(), group_size).unwrap(), |_, _| (1.0, zero))
    };
    assert!(can(&[5, 9, 5, 5, 5, 5, 0, 132], 8, 5));
    assert!(can(&[5, 9, 5, 5, 0, 132, 5], 8, 5));
    assert!(!can(&[5, 9, 5, 5], 8, 5), "an odd number of quads");
    assert!(!can(&[5, 9, 5, 5, 5, 5, 0, 132], 4, 5), "an odd number of quads in a group");
    assert!(!can(&[5, 9, 5, 5, 5, 5, 0, 133], 8, 5), "too far from the zero point");
    assert!(!can(&[5, 9, 5, 5, 5, 6, 0, 132], 8, 5), "three of four");
    assert!(!can(&[5, 9, 5, 5, 5, 5, 0, 132], 8, i32::MIN));
    assert!(!can(&[], 8, 5));
    assert!(can(&[128; 1 << 16], usize::MAX, 128));
}

#[test]
fn every_isa_is_exact_where_sums_leave_32_bits() {
    let mut random = Random::new(2);
    // Around the depth that one accumulator may hold, and the largest; all extreme, and the signs all one way.
    for k in [33_025, 65_535, 65_536, 65_537, 65_793, 65_794, 131_072] {
        for (weight, activation) in [(255, -128), (255, 127), (0, -128)] {
            for zero_w in [0, 128, i32::MIN] {
                let depth = Depth::new(k, random.pick(&[usize::MAX, 66_000, 32_768])).unwrap();
                let mut case = Case::random(&mut random, 2, 3, depth);
                case.bits = Bits::Eight;
                case.weights.fill(weight);
                case.activations.fill(activation);
                case.zero_w.fill(zero_w);
                let expected = case.oracle();
                Isa::available().into_iter().for_each(|isa| case.agrees_on(isa, &expected));
            }
            // Of eights alone inputs are picked: two of four as far from the zero point as may be.
            let (zero, depth) = (128, Depth::new(k / 8 * 8, usize::MAX).unwrap());
            let mut case = Case::random(&mut random, 2, 3, depth);
            case.bits = Bits::Eight;
            case.weights.iter_mut().enumerate().for_each(|(i, code)| *code = if i % 4 < 2 { weight } else { zero });
            case.activations.fill(activation);
            case.zero_w.fill(zero.into());
            let expected = case.oracle();
            assert!(case.can_be_picked());
            Isa::available().into_iter().for_each(|isa| case.agrees_on(isa, &expected));
        }
    }
}

#[test]
fn rows_longer_than_a_block_of_the_cache_are_multiplied() {
    let mut random = Random::new(5);
    let depth = Depth::new((1 << 18) + 5, random.pick(&[usize::MAX, 4096])).unwrap();
    let case = Case::random(&mut random, 9, 2, depth);
    let expected = case.oracle();
    Isa::available().into_iter().for_each(|isa| case.agrees_on(isa, &expected));
}

#[test]
fn integers_that_may_not_fit_are_refused() {
    let depth = Depth::new(65_536, usize::MAX).unwrap();
    for isa in Isa::available() {
        let activations = Activations::dynamic(isa, &vec![1.0; 65_536], 1, depth).unwrap();
        for (zero, fits) in [(0, true), (255, true), (256, false)] {
            let packed = PackedInt8::new(isa, Bits::Eight, &vec![255; 65_536], 1, depth, |_, _| (1.0, zero));
            let mut out = [0];
            assert_eq!(packed.matmul_i32(&activations, &mut out).is_ok(), fits, "{isa}, zero = {zero}");
        }
    }
}

/// `quantize`, one number at a time, with the operations of the standard library.
fn quantize_oracle(x: &[f32], grid: Option<Fixed>) -> (f32, Vec<i32>) {
    let largest = x.iter().fold(0f32, |largest, x| largest.max(x.abs()));
    let scale = grid.map_or((largest / 127.0).max(f32::MIN_POSITIVE), |grid| grid.scale);
    let (zero, lowest) = grid.map_or((0.0, -127.0), |grid| (f32::from(grid.zero), -128.0));
    let code = |x: &f32| ((x * (1.0 / scale)).round_ties_even() + zero).clamp(lowest, 127.0) as i32;
    (scale, x.iter().map(code).collect())
}

#[test]
fn every_isa_quantizes_like_the_oracle() {
    let mut random = Random::new(3);
    for _ in 0..2000 {
        let (m, k) = (random.below(5), random.pick(&INPUTS));
        let depth = Depth::new(k, random.pick(&GROUPS)).unwrap();
        let grid = match random.below(2) {
            0 => None,
            _ => Some(Fixed { scale: random.pick(&[0.01, 1.0, 3e38]), zero: random.pick(&[0, 5, -128, 127]) }),
        };
        let size = random.pick(&[0.0, 1e-45, 1e-40, 1e-20, 1.0, 3e38]);
        let number = |r: &mut Random| match r.below(4) {
            0 => r.pick(&[0.0, -0.0, 0.5, 1.5, -2.5, 127.5, f32::MAX, f32::MIN_POSITIVE]),
            _ => r.unit() * size,
        };
        let x: Vec<f32> = (0..m * k).map(|_| number(&mut random)).collect();
        for isa in Isa::available() {
            let activations = match grid {
                None => Activations::dynamic(isa, &x, m, depth).unwrap(),
                Some(grid) => Activations::fixed(isa, &x, m, depth, grid).unwrap(),
            };
            for row in 0..if k == 0 { 0 } else { m } {
                let (scale, codes) = quantize_oracle(&x[row * k..(row + 1) * k], grid);
                assert_eq!(activations.scales(row..row + 1), [scale]);
                for group in 0..depth.groups() {
                    let (inputs, quads) = depth.group(group);
                    let found =
                        activations.quads(row..row + 1)[quads].as_flattened().iter().map(|code| i32::from(*code));
                    let padding = (4 - inputs.len() % 4) % 4;
                    let expected = codes[inputs.clone()].iter().copied().chain(vec![0; padding]);
                    assert!(found.eq(expected), "{isa}, {x:?}, {grid:?}");
                    let zero = grid.map_or(0, |grid| i32::from(grid.zero));
                    let sum = codes[inputs].iter().map(|code| zero - code).sum::<i32>();
                    assert_eq!(activations.sums(row..row + 1)[group], sum, "{isa}");
                }
            }
        }
    }
}

#[test]
fn the_first_number_that_is_not_finite_is_named() {
    let depth = Depth::new(100, 32).unwrap();
    for isa in Isa::available() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0; 2000 * 100];
            x[199_999] = bad;
            x[150_003] = bad;
            for found in [
                Activations::dynamic(isa, &x, 2000, depth),
                Activations::fixed(isa, &x, 2000, depth, Fixed { scale: 1.0, zero: 3 }),
            ] {
                let found = found.unwrap_err().to_string();
                assert!(found.starts_with("element 150003 of the input is "), "{isa}: {found}");
            }
        }
    }
}

#[test]
fn scales_of_activations_must_be_usable() {
    let depth = Depth::new(1, 1).unwrap();
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40] {
        let isa = Isa::available()[0];
        let found = Activations::fixed(isa, &[1.0], 1, depth, Fixed { scale, zero: 0 });
        assert!(found.unwrap_err().to_string().starts_with("activation scale = "));
    }
}

#[cfg(feature = "rayon")]
#[test]
fn any_number_of_threads_and_rows_gives_the_same_bits() {
    let mut random = Random::new(4);
    // Several row blocks and several blocks of panels; many groups.
    for (m, n, k, group_size, bits) in [
        (700, 100, 1000, 32, Bits::Four),
        (3, 3000, 1000, usize::MAX, Bits::Eight),
        (9000, 50, 64, 7, Bits::Two),
        (700, 100, 1000, 32, Bits::Picked),
        (3, 3000, 1000, usize::MAX, Bits::Picked),
    ] {
        let depth = Depth::new(k, group_size).unwrap();
        let x: Vec<f32> = (0..m * k).map(|_| random.unit()).collect();
        let code = |i: usize| match bits {
            Bits::Picked if i % 4 > 1 => 100,
            Bits::Picked => random.below(228) as u8,
            _ => random.below(256) as u8 & bits.highest(),
        };
        let codes: Vec<u8> = (0..n * k).map(code).collect();
        let bias: Vec<f32> = (0..n).map(|_| random.unit()).collect();
        for isa in Isa::available() {
            let product = |packed: &PackedInt8, x: &[f32]| {
                let m = x.len() / k;
                let mut out = vec![f32::NAN; m * n];
                let activations = packed.suit(Activations::dynamic(isa, x, m, depth).unwrap());
                packed.matmul(&activations, Some(&bias), &mut out);
                out
            };
            let pack = || PackedInt8::new(isa, bits, &codes, n, depth, |n, g| (0.01 * (n + g) as f32, 100));
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| product(&pack(), &x))
            };
            let packed = pack();
            let one = run(1);
            assert!(one.iter().all(|y| y.is_finite()));
            for _ in 0..30 {
                let row = random.below(m);
                assert!(product(&packed, &x[row * k..][..k])[..] == one[row * n..][..n], "{isa}, row {row} alone");
            }
            for threads in [2, 3, 7] {
                assert!(run(threads) == one, "{isa}, {threads} threads");
            }
        }
    }
}
