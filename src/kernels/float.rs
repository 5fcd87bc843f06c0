//! The blocked f32 product `c += a b`: the loops of BLIS (Van Zee and van de Geijn, 2015) around a tile.
//!
//! A loop of its own beside that of the integers, because the depth is cut here (a sum over all of it would round worse, and
//! its panels would leave the caches) and because both factors come as they are and are packed on the way.
//!
//! How the terms of an element are added up follows from the shapes alone: in order within a block of the depth, then block
//! by block; or, where few rows meet the rows of a transposed matrix, in the lanes of a vector. Pieces and threads only
//! decide who does it. Instruction sets differ, in lanes and in whether a product is rounded before it is added; every
//! result is within `(k + 2) u (sum |a b| + |c|)` of the exact one, `u = 2^-24` (Higham 2002, 3.1).

use std::{cell::Cell, ops::Range};

use super::{
    float_kernel::{Dots, FloatTile},
    isa::{Isa, Job},
    kernel::{Kernel, LANES},
    level_kernel::FEW_ROWS,
    levels::PackedLevels,
    parallel,
};

/// The most terms in a block of the depth: a panel and a tile of rows then lie in the first caches.
const DEPTH: usize = 512;

/// Terms in a block where rows are few and `b` is read where it lies: so many of its rows are read side by side.
const DEPTH_IN_PLACE: usize = 4;

/// Tiles of rows for which packing `b` does not pay, if its columns are neighbours; measured on Zen 5 at 2 and 8.
const TILES_IN_PLACE: usize = 8;

/// Floats over which a tile's columns of `a` may be spread before they are packed.
const ROWS_IN_PLACE: usize = 1 << 14;

/// The most rows that are multiplied as dot products with the rows of a transposed matrix.
const ROWS_OF_DOTS: usize = 8;

/// The most rows that meet packed codes as these are looked up; for more, levels are stored before they are multiplied.
const ROWS_OF_LEVELS: usize = 8;

/// Rows in a block, which lie in the second cache with a panel.
const ROWS: usize = 128;

/// Multiplications that are worth a piece of their own (some 50 microseconds), and the elements that take as long to read.
const PIECE: usize = 1 << 25;
const PIECE_READ: usize = 1 << 18;

/// How many rows ahead of a copy memory is asked for: the hardware foresees none that lie pages apart.
const SOON: usize = 12;

/// A matrix in a slice: element (row, column) is `data[row * strides[0] + column * strides[1]]`.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f32],
    shape: [usize; 2],
    strides: [usize; 2],
}

impl<'a> Matrix<'a> {
    /// Row-major.
    ///
    /// # Panics
    /// If there are not `rows` times `columns` elements.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns);
        Matrix { data, shape: [rows, columns], strides: [columns, 1] }
    }

    /// The same numbers, rows taken for columns.
    pub fn transposed(self) -> Self {
        let ([rows, columns], [down, across]) = (self.shape, self.strides);
        Matrix { shape: [columns, rows], strides: [across, down], ..self }
    }

    #[inline(always)]
    fn from(&self, row: usize, column: usize) -> &'a [f32] {
        &self.data[row * self.strides[0] + column * self.strides[1]..]
    }

    /// Writes the rows `terms` of `width` columns side by side, and behind them the next, a panel each; zeros beyond the
    /// last column. Panels are `distance` apart.
    #[inline(always)]
    fn pack<K: Kernel>(
        self,
        kernel: K,
        terms: Range<usize>,
        first: usize,
        width: usize,
        panels: &mut [f32],
        distance: usize,
    ) {
        if self.strides[1] > 1 {
            for (panel, to) in panels.chunks_mut(distance).enumerate() {
                let first = first + panel * width;
                let columns = first..self.shape[1].min(first + width);
                self.pack_across(kernel, terms.clone(), columns, &mut to[..width * terms.len()]);
            }
            return;
        }
        let end = self.shape[1].min(first + panels.len().div_ceil(distance) * width);
        for term in terms.clone() {
            if term + SOON < self.shape[0] {
                kernel.prefetch(&self.from(term + SOON, first)[..end - first]);
            }
            let from = self.from(term, first)[..end - first].chunks(width);
            for (from, panel) in from.zip(panels.chunks_mut(distance)) {
                let to = &mut panel[(term - terms.start) * width..][..width];
                // Most panels are whole, and wide by whole fours: no call for a few floats.
                let (whole, rest) = from.as_chunks::<4>();
                whole.iter().zip(to.as_chunks_mut::<4>().0).for_each(|(from, to)| *to = *from);
                if 4 * whole.len() < width {
                    let to = &mut to[4 * whole.len()..];
                    to.fill(0.0);
                    to[..rest.len()].copy_from_slice(rest);
                }
            }
        }
    }

    /// The same for one panel, by blocks that are transposed where they can be.
    #[inline(always)]
    fn pack_across<K: Kernel>(self, kernel: K, terms: Range<usize>, columns: Range<usize>, to: &mut [f32]) {
        let ([down, across], width) = (self.strides, to.len() / terms.len());
        if columns.len() < width {
            to.fill(0.0);
        }
        let blocks = if down == 1 { [columns.len() / 8 * 8, terms.len() / 8 * 8] } else { [0, 0] };
        for column in (0..blocks[0]).step_by(8) {
            for term in (0..blocks[1]).step_by(8) {
                let from = self.from(terms.start + term, columns.start + column);
                kernel.transpose_8x8(from, across, &mut to[term * width + column..], width);
            }
        }
        for column in 0..columns.len() {
            let first = if column < blocks[0] { blocks[1] } else { 0 };
            for term in first..terms.len() {
                to[term * width + column] = self.from(terms.start + term, columns.start + column)[0];
            }
        }
    }
}

/// `c += a b`, `c` row-major.
///
/// # Panics
/// If the shapes do not fit.
pub fn add_product(isa: Isa, a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32]) {
    let ([m, k], [depth, n]) = (a.shape, b.shape);
    assert!(k == depth && c.len() == m * n);
    if c.is_empty() || k == 0 {
    } else if n == 1 && m > 1 {
        // A column is a row.
        add_product(isa, b.transposed(), a.transposed(), c);
    } else {
        isa.run(Product { a, b: Factor::Matrix(b), c });
    }
}

/// `c += a w^T`, `a` and `c` row-major, for `w` of packed codes.
///
/// # Panics
/// If the shapes do not fit.
pub(crate) fn add_product_of_levels(a: &[f32], w: &PackedLevels, c: &mut [f32]) {
    if !c.is_empty() && w.k() > 0 {
        let a = Matrix::new(a, a.len() / w.k(), w.k());
        assert!(c.len() == a.shape[0] * w.n());
        w.isa().run(Product { a, b: Factor::Levels(w), c });
    }
}

/// The second factor, which is packed block by block or decoded panel by panel.
#[derive(Clone, Copy)]
enum Factor<'a> {
    Matrix(Matrix<'a>),
    Levels(&'a PackedLevels),
}

impl Factor<'_> {
    fn columns(self) -> usize {
        match self {
            Factor::Matrix(b) => b.shape[1],
            Factor::Levels(w) => w.n(),
        }
    }
}

struct Product<'a> {
    a: Matrix<'a>,
    b: Factor<'a>,
    c: &'a mut [f32],
}

impl Job for Product<'_> {
    type Output = ();

    fn run<K: Kernel>(self, kernel: K) {
        let Product { a, b, c } = self;
        let (m, n) = (a.shape[0], b.columns());
        let plan = Plan::new::<K>(a, b);
        // Few rows take the second factor as it lies.
        type Few<'a, K> = &'a (dyn Fn(K, &mut Piece) + Sync);
        let in_dots = |b: Matrix| m <= ROWS_OF_DOTS && a.strides[1] == 1 && b.strides[0] == 1;
        let (unit, few): (_, Option<Few<K>>) = match b {
            Factor::Matrix(b) if in_dots(b) => (OUTPUTS, Some(&move |kernel, piece| piece.dots(kernel, a, b))),
            Factor::Levels(w) if m <= ROWS_OF_LEVELS => {
                (plan.width, Some(&move |kernel, piece| piece.levels(kernel, a, w)))
            }
            _ => (0, None),
        };
        // Pieces of the output: a block of rows meets a block of columns.
        let (rows, columns) = match few {
            Some(_) => (m, (PIECE_READ / a.shape[1]).max(1).next_multiple_of(unit)),
            None => (plan.rows, plan.columns),
        };
        let mut pieces: Vec<Piece> = Vec::new();
        for (block, c) in c.chunks_mut(rows * n).enumerate() {
            let first = pieces.len();
            let starts = (0..n).step_by(columns);
            pieces.extend(starts.map(|column| Piece { row: block * rows, column, out: Vec::with_capacity(rows) }));
            for row in c.chunks_mut(n) {
                pieces[first..].iter_mut().zip(row.chunks_mut(columns)).for_each(|(piece, part)| piece.out.push(part));
            }
        }
        if let Some(few) = few {
            return parallel::for_each_chunk_mut(&mut pieces, 1, |_, pieces| {
                pieces.iter_mut().for_each(|piece| few(kernel, piece));
            });
        }
        let (mut room_a, mut room_b) = (Room::take(0), Room::take(1));
        for start in (0..a.shape[1]).step_by(plan.depth) {
            let terms = start..a.shape[1].min(start + plan.depth);
            let a = Panels::new(kernel, a.transposed(), plan.rows_in_place, plan.height, terms.clone(), &mut room_a);
            let b = match b {
                Factor::Matrix(b) => {
                    Columns::Panels(Panels::new(kernel, b, plan.columns_in_place, plan.width, terms, &mut room_b))
                }
                Factor::Levels(w) => Columns::Levels { w, width: plan.width, terms },
            };
            parallel::for_each_chunk_mut(&mut pieces, 1, |_, pieces| {
                let mut room = Room::take(2);
                for piece in pieces {
                    kernel.vectorize(
                        #[inline(always)]
                        || piece.tiles(kernel, &a, &b, &mut room),
                    );
                }
            });
        }
    }
}

/// How a product is cut up.
struct Plan {
    /// Terms of a block of the depth.
    depth: usize,
    /// Rows of a tile, columns of a panel.
    height: usize,
    width: usize,
    /// Rows and columns of a piece.
    rows: usize,
    columns: usize,
    /// Rows and columns that are read where they lie, and not packed.
    rows_in_place: usize,
    columns_in_place: usize,
}

impl Plan {
    fn new<K: Kernel>(a: Matrix, b: Factor) -> Plan {
        // As many parts of equal size as there must be, of whole units.
        let parts =
            |whole: usize, most: usize, unit: usize| whole.div_ceil(whole.div_ceil(most)).next_multiple_of(unit);
        let ([m, k], n) = (a.shape, b.columns());
        let height = parts(m, K::TILE_ROWS, 1);
        let (width, in_place) = match b {
            Factor::Matrix(b) => {
                let in_place = b.strides[1] == 1 && m <= TILES_IN_PLACE * K::TILE_ROWS;
                (parts(n, K::VECTORS * K::FLOATS, K::FLOATS), in_place)
            }
            Factor::Levels(_) => (K::LINES * LANES, false),
        };
        let depth = parts(k, if in_place && m < K::TILE_ROWS { DEPTH_IN_PLACE } else { DEPTH }, 1);
        let pack_rows = n > 4 * width && a.strides[1] > 1 && a.strides[1] * depth > ROWS_IN_PLACE;
        let (rows_in_place, columns_in_place) =
            (if pack_rows { 0 } else { m }, if in_place { n / width * width } else { 0 });
        let rows = parts(m, ROWS, height);
        let columns = parts(n, (PIECE / (rows.max(K::TILE_ROWS) * depth)).max(width), width);
        Plan { depth, height, width, rows, columns, rows_in_place, columns_in_place }
    }
}

/// Some rows of a matrix, the terms, in panels of `width` columns.
struct Panels<'a> {
    matrix: Matrix<'a>,
    terms: Range<usize>,
    /// The columns that are read from the matrix itself.
    in_place: usize,
    width: usize,
    packed: &'a [f32],
    /// From panel to panel: a line more than they take, since whole pages would fight for the same lines of the cache.
    distance: usize,
}

impl<'a> Panels<'a> {
    /// Packs all columns but the first `in_place`.
    fn new<K: Kernel>(
        kernel: K,
        matrix: Matrix<'a>,
        in_place: usize,
        width: usize,
        terms: Range<usize>,
        room: &'a mut Room,
    ) -> Self {
        let (distance, count) = (width * terms.len() + LINE, (matrix.shape[1] - in_place).div_ceil(width));
        let packed = room.floats(count * distance);
        let lot = (PIECE_READ / distance).max(1);
        parallel::for_each_chunk_mut(packed, lot * distance, |index, panels| {
            kernel.vectorize(
                #[inline(always)]
                || matrix.pack(kernel, terms.clone(), in_place + index * lot * width, width, panels, distance),
            );
        });
        Panels { matrix, terms, in_place, width, packed, distance }
    }

    /// The columns from `column` on, and their distances from term to term and from one to the next.
    #[inline(always)]
    fn panel(&self, column: usize) -> (&[f32], [usize; 2]) {
        match column < self.in_place {
            true => (self.matrix.from(self.terms.start, column), self.matrix.strides),
            false => (&self.packed[(column - self.in_place) / self.width * self.distance..], [self.width, 1]),
        }
    }
}

/// Panels of the second factor.
enum Columns<'a> {
    Panels(Panels<'a>),
    /// Decoded where they are needed.
    Levels {
        w: &'a PackedLevels,
        width: usize,
        terms: Range<usize>,
    },
}

impl Columns<'_> {
    #[inline(always)]
    fn width(&self) -> usize {
        match self {
            Columns::Panels(panels) => panels.width,
            Columns::Levels { width, .. } => *width,
        }
    }

    /// The columns from `column` on, and their distance from term to term.
    #[inline(always)]
    fn panel<'a, K: Kernel>(&'a self, kernel: K, column: usize, room: &'a mut Room) -> (&'a [f32], usize) {
        match self {
            Columns::Panels(panels) => {
                let (panel, [stride, _]) = panels.panel(column);
                (panel, stride)
            }
            Columns::Levels { w, width, terms } => {
                let panel = w.panel(column / width);
                let stride = panel.width * LANES;
                let to = room.floats(terms.len() * stride);
                kernel.decode(&panel, terms.clone(), to);
                (to, stride)
            }
        }
    }
}

/// Outputs that are multiplied with one row, or with up to four, at a time.
const OUTPUTS: usize = 4;

/// The part of the output where a block of rows meets a block of columns.
struct Piece<'a> {
    row: usize,
    column: usize,
    /// A slice for each row.
    out: Vec<&'a mut [f32]>,
}

impl Piece<'_> {
    #[inline(always)]
    fn tiles<K: Kernel>(&mut self, kernel: K, rows: &Panels, columns: &Columns, room: &mut Room) {
        let end = self.out[0].len();
        for panel in (0..end).step_by(columns.width()) {
            let (b, stride) = columns.panel(kernel, self.column + panel, room);
            // A panel of codes may be several tiles wide.
            for first in (panel..end.min(panel + columns.width())).step_by(K::VECTORS * K::FLOATS) {
                let (b, columns) =
                    (&b[first - panel..], end.min(panel + columns.width()).min(first + K::VECTORS * K::FLOATS) - first);
                for (tile, out) in self.out.chunks_mut(rows.width).enumerate() {
                    let (a, [down, across]) = rows.panel(self.row + tile * rows.width);
                    let tile = FloatTile { a, strides: [across, down], b, stride, depth: rows.terms.len(), columns };
                    kernel.tile_f32(&tile, out, first);
                }
            }
        }
    }

    fn levels<K: Kernel>(&mut self, kernel: K, a: Matrix, w: &PackedLevels) {
        let (width, columns) = (K::LINES * LANES, self.out[0].len());
        for first in (0..columns).step_by(width) {
            let panel = w.panel((self.column + first) / width);
            for (rows, out) in self.out.chunks_mut(FEW_ROWS).enumerate() {
                kernel.multiply_levels(&panel, a.from(rows * FEW_ROWS, 0), a.strides[0], out, first);
            }
        }
    }

    fn dots<K: Kernel>(&mut self, kernel: K, a: Matrix, b: Matrix) {
        let columns = self.out[0].len();
        for column in (0..columns).step_by(OUTPUTS) {
            for (rows, out) in self.out.chunks_mut(4).enumerate() {
                let row = self.row + 4 * rows;
                let dots = Dots {
                    a: a.from(row, 0),
                    a_stride: a.strides[0],
                    b: b.from(0, self.column + column),
                    b_stride: b.strides[1],
                    depth: a.shape[1],
                };
                match columns - column {
                    1 => dots_of::<K, 1>(kernel, &dots, out, column),
                    2 => dots_of::<K, 2>(kernel, &dots, out, column),
                    3 => dots_of::<K, 3>(kernel, &dots, out, column),
                    _ => dots_of::<K, OUTPUTS>(kernel, &dots, out, column),
                }
            }
        }
    }
}

#[inline(always)]
fn dots_of<K: Kernel, const C: usize>(kernel: K, dots: &Dots, out: &mut [&mut [f32]], column: usize) {
    match out.len() {
        1 => add(kernel.dots::<1, C>(dots), out, column),
        2 => add(kernel.dots::<2, C>(dots), out, column),
        3 => add(kernel.dots::<3, C>(dots), out, column),
        _ => add(kernel.dots::<4, C>(dots), out, column),
    }
}

#[inline(always)]
fn add<const R: usize, const C: usize>(sums: [[f32; C]; R], out: &mut [&mut [f32]], column: usize) {
    for (out, sums) in out.iter_mut().zip(sums) {
        out[column..][..C].iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
    }
}

/// Memory of a thread that is used from product to product.
struct Room(Vec<f32>, usize);

/// What a thread keeps at most: 16 MB.
const KEPT: usize = 1 << 22;

/// Floats of a cache line; a vector that is read across two takes twice as long.
const LINE: usize = 16;

thread_local! {
    static ROOMS: [Cell<Vec<f32>>; 3] = const { [const { Cell::new(Vec::new()) }; 3] };
}

impl Room {
    /// Taken, not borrowed: a thread that waits may start another product.
    fn take(place: usize) -> Room {
        Room(ROOMS.with(|rooms| rooms[place].take()), place)
    }

    /// So many floats of any value, from the start of a cache line on.
    fn floats(&mut self, len: usize) -> &mut [f32] {
        if self.0.len() < len + LINE {
            self.0.resize(len + LINE, 0.0);
        }
        let start = self.0.as_ptr().align_offset(4 * LINE).min(LINE);
        &mut self.0[start..start + len]
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.0.len() <= KEPT {
            ROOMS.with(|rooms| rooms[self.1].set(std::mem::take(&mut self.0)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::battery::Random, *};

    /// `a` (m by k) and `b` (k by n), each as it is or transposed in memory.
    fn factors<'a>(a: &'a [f32], b: &'a [f32], (m, n, k): (usize, usize, usize), turned: usize) -> [Matrix<'a>; 2] {
        let matrix = |data, rows, columns, turned| match turned {
            false => Matrix::new(data, rows, columns),
            true => Matrix::new(data, columns, rows).transposed(),
        };
        [matrix(a, m, k, turned & 1 > 0), matrix(b, k, n, turned & 2 > 0)]
    }

    #[test]
    fn every_isa_is_within_the_bound_of_the_exact_product() {
        let mut random = Random::new(11);
        for round in 0..3000 {
            let shape = match round % 50 {
                0 => (random.below(300), random.below(150), random.below(1200)),
                1 => (random.below(10), random.below(600), random.below(70)),
                2 => (random.below(600), 1, random.below(70)),
                _ => (random.below(30), random.below(110), random.below(50)),
            };
            let (m, n, k) = shape;
            let mut numbers = |count| (0..count).map(|_| random.unit()).collect::<Vec<_>>();
            let (a, b, c) = (numbers(m * k), numbers(k * n), numbers(m * n));
            let turned = random.below(4);
            let [a, b] = factors(&a, &b, shape, turned);
            for isa in Isa::available() {
                let mut found = c.clone();
                add_product(isa, a, b, &mut found);
                for (i, (found, c)) in found.iter().zip(&c).enumerate() {
                    let terms = (0..k).map(|t| f64::from(a.from(i / n, t)[0]) * f64::from(b.from(t, i % n)[0]));
                    let (sum, size) = terms.fold((f64::from(*c), f64::from(c.abs())), |s, x| (s.0 + x, s.1 + x.abs()));
                    let bound = (k + 2) as f64 * 2f64.powi(-24) * size;
                    assert!((f64::from(*found) - sum).abs() <= bound, "{isa}, {shape:?}, {turned}: {i}");
                }
            }
        }
    }

    #[cfg(feature = "rayon")]
    #[test]
    fn any_number_of_threads_gives_the_same_bits() {
        let mut random = Random::new(12);
        for shape in [(700, 300, 1000), (20, 3000, 600), (1, 3000, 1000), (5, 4000, 300), (3000, 1, 100), (300, 48, 9)]
        {
            let (m, n, k) = shape;
            let mut numbers = |count| (0..count).map(|_| random.unit()).collect::<Vec<_>>();
            let (a, b, c) = (numbers(m * k), numbers(k * n), numbers(m * n));
            for turned in 0..4 {
                let [a, b] = factors(&a, &b, shape, turned);
                for isa in Isa::available() {
                    let run = |threads| {
                        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                        let mut c = c.clone();
                        pool.install(|| add_product(isa, a, b, &mut c));
                        c
                    };
                    let one = run(1);
                    for threads in [2, 3, 4, 7] {
                        assert!(run(threads) == one, "{isa}, {shape:?}, {turned}, {threads} threads");
                    }
                }
            }
        }
    }
}
