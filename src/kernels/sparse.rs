//! Sparse weights times dense inputs in f32: `y = x W^T + b`.
//!
//! Rows of weights that share the places of their survivors go together in strips of 1, 2 or 4 (single rows: CSR;
//! blocks: their rows). A strip is a list of columns and, for each, a weight a row; what is not listed does not take part.
//!
//! One input is read where a column says. Several inputs are first transposed, so that a column of sixteen inputs is a
//! line: each weight is one multiplication of lines. Either way products are added to a few partial sums in turn, and
//! these at the end. On one instruction set the order of additions follows from the number of inputs, never from the
//! threads; another may cut the inputs otherwise, and rounds a product before it is added unless it has FMA.
//!
//! Every result is within `(s + 2) u (sum |w x| + |b|)` of the exact one, `s` being the columns of the row's strip and
//! `u = 2^-24`, if nothing overflows or is subnormal: the bound for sums in any order (Higham 2002, 3.1).

use std::ops::Range;

use num_traits::AsPrimitive;

use super::{
    isa::{Isa, Job},
    kernel::{FloatLine, Kernel, LANES},
    parallel,
};

/// Multiplications that are worth a piece of their own (some 30 microseconds).
const PIECE: usize = 1 << 18;

/// Rows of a tile of results, which are transposed together.
const TILE: usize = 16;

/// The lines of inputs that a strip is multiplied with at a time, widest first.
const WIDTHS: [usize; 3] = [4, 2, 1];

/// A matrix of `n` outputs by `k` inputs of which some are left.
#[derive(Clone, Debug)]
pub(crate) struct PackedSparse {
    isa: Isa,
    n: usize,
    k: usize,
    height: usize,
    starts: Starts,
    columns: Columns,
    /// `[entry][row of the strip]`; 0 for a row that the entry's column is not left in.
    values: Vec<f32>,
}

/// Where the entries of a strip start.
#[derive(Clone, Debug)]
enum Starts {
    /// Every strip has so many, as where `n` of every `m` are left.
    Every(usize),
    /// Those of strip `s` are `starts[s]..starts[s + 1]`.
    At(Vec<usize>),
}

impl Starts {
    #[inline(always)]
    fn entries(&self, strip: usize) -> Range<usize> {
        match self {
            Starts::Every(length) => strip * length..(strip + 1) * length,
            Starts::At(starts) => starts[strip]..starts[strip + 1],
        }
    }
}

/// A column for each entry, ascending in a strip.
#[derive(Clone, Debug)]
enum Columns {
    Narrow(Vec<u16>),
    Wide(Vec<u32>),
}

impl PackedSparse {
    /// The most inputs: columns are numbers of 32 bits.
    pub(crate) const MOST_INPUTS: usize = u32::MAX as usize;

    /// Packs what is left, `kept(index)`, of row-major `values` (n by k) in strips of `height` rows (1, 2 or 4).
    ///
    /// # Panics
    /// If there are not n times k values, more than [`MOST_INPUTS`](PackedSparse::MOST_INPUTS), or strips of another
    /// height.
    pub(crate) fn new(
        isa: Isa,
        values: &[f32],
        (n, k): (usize, usize),
        height: usize,
        kept: impl Fn(usize) -> bool,
    ) -> PackedSparse {
        assert!(values.len() == n * k && k <= PackedSparse::MOST_INPUTS && matches!(height, 1 | 2 | 4));
        let (mut starts, mut columns, mut packed) = (vec![0], Vec::new(), Vec::new());
        for first in (0..n).step_by(height) {
            let rows = first..n.min(first + height);
            for column in 0..k {
                if rows.clone().any(|row| kept(row * k + column)) {
                    let value = |row: usize| match rows.contains(&row) && kept(row * k + column) {
                        true => values[row * k + column],
                        false => 0.0,
                    };
                    columns.push(column as u32);
                    packed.extend((first..first + height).map(value));
                }
            }
            starts.push(columns.len());
        }
        let length = starts.get(1).copied().unwrap_or(0);
        let starts = match starts.iter().enumerate().all(|(strip, start)| *start == strip * length) {
            true => Starts::Every(length),
            false => Starts::At(starts),
        };
        let columns = match k <= 1 << 16 {
            true => Columns::Narrow(columns.into_iter().map(|column| column as u16).collect()),
            false => Columns::Wide(columns),
        };
        PackedSparse { isa, n, k, height, starts, columns, values: packed }
    }

    /// Bytes in memory.
    pub(crate) fn nbytes(&self) -> usize {
        let columns = match &self.columns {
            Columns::Narrow(columns) => size_of_val(&**columns),
            Columns::Wide(columns) => size_of_val(&**columns),
        };
        let starts = match &self.starts {
            Starts::Every(_) => 0,
            Starts::At(starts) => size_of_val(&**starts),
        };
        starts + columns + size_of_val(&*self.values)
    }

    /// `out = x * weights^T + bias`, `x` being row-major, m by k, and `out` m by n.
    ///
    /// # Panics
    /// If `x`, `bias` or `out` have the wrong length.
    pub(crate) fn matmul(&self, x: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
        assert!(bias.is_none_or(|bias| bias.len() == self.n));
        if out.is_empty() {
            return;
        }
        let m = out.len() / self.n;
        assert!(out.len() == m * self.n && x.len() == m * self.k);
        match &self.columns {
            Columns::Narrow(columns) => self.isa.run(Product { weights: self, columns, x, m, bias, out }),
            Columns::Wide(columns) => self.isa.run(Product { weights: self, columns, x, m, bias, out }),
        }
    }
}

struct Product<'a, I> {
    weights: &'a PackedSparse,
    columns: &'a [I],
    x: &'a [f32],
    m: usize,
    bias: Option<&'a [f32]>,
    out: &'a mut [f32],
}

impl<I: AsPrimitive<usize> + Sync> Job for Product<'_, I> {
    type Output = ();

    fn run<K: Kernel>(self, kernel: K) {
        match self.weights.height {
            1 => self.strips::<K, 1>(kernel),
            2 => self.strips::<K, 2>(kernel),
            _ => self.strips::<K, 4>(kernel),
        }
    }
}

impl<I: AsPrimitive<usize> + Sync> Product<'_, I> {
    fn strips<K: Kernel, const H: usize>(self, kernel: K) {
        let Product { weights, columns, x, m, bias, out } = self;
        let (n, k) = (weights.n, weights.k);
        let strips = Strips::<I, H> { starts: &weights.starts, columns, values: weights.values.as_chunks().0, bias };
        // Pieces of whole tiles, whose work does not depend on which rows the survivors are in.
        let rows = (PIECE * n)
            .div_ceil((weights.values.len() * m).max(1))
            .next_multiple_of(TILE)
            .min(n.next_multiple_of(TILE));
        if m == 1 {
            return parallel::for_each_chunk_mut(out, rows, |piece, out| {
                kernel.vectorize(
                    #[inline(always)]
                    || strips.times_one::<K>(x, piece * rows, out),
                );
            });
        }
        let panels = panels::<K, H>(x, m, k);
        // A slice of each row of the output for each piece.
        let mut pieces: Vec<Vec<&mut [f32]>> = (0..n.div_ceil(rows)).map(|_| Vec::with_capacity(m)).collect();
        for row in out.chunks_mut(n) {
            pieces.iter_mut().zip(row.chunks_mut(rows)).for_each(|(piece, part)| piece.push(part));
        }
        parallel::for_each_chunk_mut(&mut pieces, 1, |piece, pieces| {
            let mut outs = &mut *pieces[0];
            for panel in &panels {
                let (out, rest) = outs.split_at_mut(outs.len().min(panel.width * LANES));
                outs = rest;
                kernel.vectorize(
                    #[inline(always)]
                    || match panel.width {
                        1 => strips.times_panel::<K, 1, 4>(kernel, &panel.lines, piece * rows, out),
                        2 => strips.times_panel::<K, 2, 2>(kernel, &panel.lines, piece * rows, out),
                        _ => strips.times_panel::<K, 4, 1>(kernel, &panel.lines, piece * rows, out),
                    },
                );
            }
        });
    }
}

/// Inputs, transposed: `[column][line]`, lanes being inputs; what is missing of the last line is 0.
struct Panel {
    width: usize,
    lines: Vec<FloatLine>,
}

/// Cuts `m` inputs into panels as wide as the sums of a strip find registers.
fn panels<K: Kernel, const H: usize>(x: &[f32], m: usize, k: usize) -> Vec<Panel> {
    let mut lines = m.div_ceil(LANES);
    let mut cuts = Vec::new();
    for width in WIDTHS.into_iter().filter(|width| *width == 1 || width * H <= K::SUMS) {
        while lines >= width {
            cuts.push((cuts.last().map_or(0, |(first, width)| first + width), width));
            lines -= width;
        }
    }
    parallel::map(cuts.len(), |index| {
        let (first, width) = cuts[index];
        let mut lines = vec![FloatLine::default(); k * width];
        let inputs = x.chunks(k.max(1)).skip(first * LANES).take(width * LANES);
        // A tile of columns at a time, so that its lines stay in the cache until all inputs are in them.
        for (tile, lines) in lines.chunks_mut(TILE * width).enumerate() {
            for (lane, input) in inputs.clone().enumerate() {
                for (column, x) in lines.chunks_exact_mut(width).zip(&input[tile * TILE..]) {
                    column[lane / LANES].0[lane % LANES] = *x;
                }
            }
        }
        Panel { width, lines }
    })
}

/// The weights in strips of `H` rows.
struct Strips<'a, I, const H: usize> {
    starts: &'a Starts,
    columns: &'a [I],
    values: &'a [[f32; H]],
    bias: Option<&'a [f32]>,
}

impl<I: AsPrimitive<usize>, const H: usize> Strips<'_, I, H> {
    #[inline(always)]
    fn bias(&self, row: usize) -> f32 {
        self.bias.and_then(|bias| bias.get(row)).copied().unwrap_or(0.0)
    }

    #[inline(always)]
    fn strip(&self, strip: usize) -> (&[I], &[[f32; H]]) {
        let entries = self.starts.entries(strip);
        (&self.columns[entries.clone()], &self.values[entries])
    }

    /// Some outputs, from row `first` on, of one input.
    #[inline(always)]
    fn times_one<K: Kernel>(&self, x: &[f32], first: usize, out: &mut [f32]) {
        // Eight chains of additions, as many as cover the latency of one.
        let add_multiple = |a: f32, x: &f32, sum: &mut f32| *sum = multiply_add::<K>(a, *x, *sum);
        for (strip, out) in (first / H..).zip(out.chunks_mut(H)) {
            let (columns, values) = self.strip(strip);
            let sums = match H {
                1 => sums::<I, f32, H, 8>(columns, values, x, 0.0, add_multiple),
                2 => sums::<I, f32, H, 4>(columns, values, x, 0.0, add_multiple),
                _ => sums::<I, f32, H, 2>(columns, values, x, 0.0, add_multiple),
            };
            for ((row, out), sum) in (strip * H..).zip(out).zip(sums) {
                *out = sum + self.bias(row);
            }
        }
    }

    /// Some outputs, from row `first` on, of the inputs of a panel; `outs` has a slice for each input.
    #[inline(always)]
    fn times_panel<K: Kernel, const L: usize, const U: usize>(
        &self,
        kernel: K,
        lines: &[FloatLine],
        first: usize,
        outs: &mut [&mut [f32]],
    ) {
        let lines = lines.as_chunks::<L>().0;
        let rows = outs.first().map_or(0, |out| out.len());
        let add_multiple = |a: f32, x: &[FloatLine; L], sums: &mut [FloatLine; L]| {
            for (x, sum) in x.iter().zip(sums) {
                kernel.add_multiple(a, x, sum);
            }
        };
        let mut tile = [[FloatLine::default(); L]; TILE];
        for start in (0..rows).step_by(TILE) {
            let end = rows.min(start + TILE);
            for (strip, tile) in ((first + start) / H..(first + end).div_ceil(H)).zip(tile.chunks_exact_mut(H)) {
                let (columns, values) = self.strip(strip);
                let zero = [FloatLine::default(); L];
                tile.copy_from_slice(&sums::<I, _, H, U>(columns, values, lines, zero, add_multiple));
            }
            for (row, tile) in (first + start..first + end).zip(&mut tile) {
                let bias = self.bias(row);
                tile.iter_mut().flat_map(|line| &mut line.0).for_each(|y| *y += bias);
            }
            for (lane, out) in outs.iter_mut().enumerate() {
                for (out, tile) in out[start..end].iter_mut().zip(&tile) {
                    *out = tile[lane / LANES].0[lane % LANES];
                }
            }
        }
    }
}

/// The sums of a strip: `sum[row] = sum of value[row] * x[column]`, added to `U` partial sums in turn, and these in order.
#[inline(always)]
fn sums<I: AsPrimitive<usize>, X: Copy, const H: usize, const U: usize>(
    columns: &[I],
    values: &[[f32; H]],
    x: &[X],
    zero: X,
    add_multiple: impl Fn(f32, &X, &mut X),
) -> [X; H] {
    let mut sums = [[zero; H]; U];
    let add = |column: &I, values: &[f32; H], sums: &mut [X; H]| {
        let x = &x[column.as_()];
        values.iter().zip(sums).for_each(|(value, sum)| add_multiple(*value, x, sum));
    };
    let ((columns, last_columns), (values, last_values)) = (columns.as_chunks::<U>(), values.as_chunks::<U>());
    for (columns, values) in columns.iter().zip(values) {
        for u in 0..U {
            add(&columns[u], &values[u], &mut sums[u]);
        }
    }
    // All to one sum: an index that is not constant would keep the sums from registers.
    for (column, values) in last_columns.iter().zip(last_values) {
        add(column, values, &mut sums[0]);
    }
    let mut total = sums[0];
    for sums in &sums[1..] {
        total.iter_mut().zip(sums).for_each(|(total, sum)| add_multiple(1.0, sum, total));
    }
    total
}

/// `sum + a * x`, rounded once or twice as the instruction set has it.
#[inline(always)]
fn multiply_add<K: Kernel>(a: f32, x: f32, sum: f32) -> f32 {
    if K::FUSED { a.mul_add(x, sum) } else { a * x + sum }
}

#[cfg(test)]
mod tests {
    use super::{super::battery::Random, *};

    /// Around a tile (16), a panel (16, 32, 64 inputs), primes, and nothing.
    const INPUTS: [usize; 14] = [0, 1, 2, 5, 8, 15, 16, 17, 31, 33, 63, 64, 65, 131];
    const OUTPUTS: [usize; 12] = [0, 1, 2, 3, 5, 15, 16, 17, 31, 33, 47, 101];
    const COLUMNS: [usize; 11] = [0, 1, 2, 3, 7, 8, 9, 16, 31, 101, 257];

    struct Case {
        n: usize,
        k: usize,
        weights: Vec<f32>,
        kept: Vec<bool>,
        bias: Option<Vec<f32>>,
    }

    impl Case {
        /// All kept, all removed, some rows empty, `n` of every `m`, or at random.
        fn random(random: &mut Random, n: usize, k: usize) -> Case {
            let (pattern, percent) = (random.below(6), random.below(101));
            let empty: Vec<bool> = (0..n).map(|_| random.below(2) == 0).collect();
            let mut keep = |i: usize| match pattern {
                0 => true,
                1 => false,
                2 => !empty[i / k] && random.below(100) < percent,
                3 => i % k % 4 < 2,
                _ => random.below(100) < percent,
            };
            let kept = (0..n * k).map(&mut keep).collect();
            let weights = (0..n * k).map(|_| random.unit()).collect();
            let bias = (random.below(2) == 0).then(|| (0..n).map(|_| random.unit()).collect());
            Case { n, k, weights, kept, bias }
        }

        fn packed(&self, isa: Isa, height: usize) -> PackedSparse {
            PackedSparse::new(isa, &self.weights, (self.n, self.k), height, |i| self.kept[i])
        }

        /// A result and what it may be off by, in f64; rows of a strip count each other's columns.
        fn exact(&self, x: &[f32], row: usize, height: usize) -> (f64, f64) {
            let left = |row: usize, column: usize| row < self.n && self.kept[row * self.k + column];
            let strip = row / height * height..(row / height + 1) * height;
            let columns = (0..self.k).filter(|column| strip.clone().any(|row| left(row, *column))).count();
            let bias = self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[row]));
            let product = |i: usize| f64::from(self.weights[row * self.k + i]) * f64::from(x[i]);
            let products = (0..self.k).filter(|i| left(row, *i)).map(product);
            let (sum, size) = products.fold((bias, bias.abs()), |(sum, size), p| (sum + p, size + p.abs()));
            (sum, 1.001 * (columns + 2) as f64 * 2f64.powi(-24) * size)
        }
    }

    #[test]
    fn every_isa_is_within_the_bound_on_thousands_of_shapes() {
        let mut random = Random::new(11);
        for round in 0..1500 {
            let (m, n, k) = match round % 4 {
                0 => (random.pick(&INPUTS), random.pick(&OUTPUTS), random.pick(&COLUMNS)),
                _ => (random.below(40), random.below(40), random.below(40)),
            };
            let case = Case::random(&mut random, n, k);
            let x: Vec<f32> = (0..m * k).map(|_| random.unit()).collect();
            for (isa, height) in Isa::available().into_iter().flat_map(|isa| [1, 2, 4].map(|height| (isa, height))) {
                let mut out = vec![f32::NAN; m * n];
                case.packed(isa, height).matmul(&x, case.bias.as_deref(), &mut out);
                for (i, y) in out.iter().enumerate() {
                    let (exact, bound) = case.exact(&x[i / n * k..][..k], i % n, height);
                    let error = (f64::from(*y) - exact).abs();
                    assert!(error <= bound, "{isa}, strips of {height}, {m} x {n} x {k}: {y} at {i}, exactly {exact}");
                }
            }
        }
    }

    #[test]
    fn what_is_removed_does_not_take_part() {
        // A row apart from the strip of the others: where there is no entry, not even NaN gets through.
        let mut case = Case::random(&mut Random::new(12), 3, 9);
        case.kept.fill(true);
        (0..3).for_each(|row| case.kept[row * 9 + 4] = false);
        for (isa, m) in Isa::available().into_iter().flat_map(|isa| [1, 2, 70].map(|m| (isa, m))) {
            let mut x = vec![1.0; m * 9];
            x.iter_mut().skip(4).step_by(9).for_each(|x| *x = f32::NAN);
            let mut out = vec![f32::NAN; m * 3];
            case.packed(isa, 1).matmul(&x, None, &mut out);
            assert!(out.iter().all(|y| y.is_finite()), "{isa}");
            x[0] = f32::INFINITY;
            case.packed(isa, 1).matmul(&x, None, &mut out);
            assert!(out[..3].iter().all(|y| y.is_infinite()) && out[3..].iter().all(|y| y.is_finite()), "{isa}");
        }
    }

    #[test]
    fn many_columns_take_wide_numbers() {
        let k = (1 << 16) + 3;
        let weights: Vec<f32> = (0..2 * k).map(|i| (i % 7) as f32).collect();
        let kept = |i: usize| i % k >= 1 << 16 || i.is_multiple_of(1000);
        let x: Vec<f32> = (0..3 * k).map(|i| (i % 5) as f32).collect();
        for isa in Isa::available() {
            let packed = PackedSparse::new(isa, &weights, (2, k), 1, kept);
            assert!(matches!(packed.columns, Columns::Wide(_)));
            let mut out = [0.0; 6];
            packed.matmul(&x, None, &mut out);
            let exact = |i: usize| {
                let (row, output) = (i / 2, i % 2);
                let kept = (0..k).filter(|c| kept(output * k + c));
                kept.map(|c| weights[output * k + c] * x[row * k + c]).sum::<f32>()
            };
            assert_eq!(out, std::array::from_fn(exact), "{isa}: integers add up exactly");
        }
    }

    #[test]
    fn rows_of_one_length_need_no_starts() {
        let random = |pattern: usize| {
            let mut case = Case::random(&mut Random::new(13), 8, 32);
            (0..8 * 32).for_each(|i| case.kept[i] = i % 4 < 2 || pattern == 0 && i == 3);
            case.packed(Isa::available()[0], 1)
        };
        assert!(matches!(random(1).starts, Starts::Every(16)) && random(1).nbytes() == 8 * 16 * (4 + 2));
        assert!(matches!(random(0).starts, Starts::At(_)) && random(0).nbytes() == (8 * 16 + 1) * (4 + 2) + 9 * 8);
    }

    #[cfg(feature = "rayon")]
    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let mut random = Random::new(14);
        for (m, n, k) in [(1, 3000, 1000), (7, 900, 900), (300, 200, 300)] {
            let mut case = Case::random(&mut random, n, k);
            case.kept.fill_with(|| random.below(3) == 0);
            let x: Vec<f32> = (0..m * k).map(|_| random.unit()).collect();
            for (isa, height) in Isa::available().into_iter().flat_map(|isa| [1, 4].map(|height| (isa, height))) {
                let packed = case.packed(isa, height);
                let run = |threads| {
                    let mut out = vec![f32::NAN; m * n];
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                    pool.install(|| packed.matmul(&x, case.bias.as_deref(), &mut out));
                    out
                };
                let one = run(1);
                assert!(one.iter().all(|y| y.is_finite()));
                assert!([2, 3, 7].iter().all(|threads| run(*threads) == one), "{isa}");
            }
        }
    }
}
