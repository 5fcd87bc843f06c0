//! How the places of survivors are stored.

use std::fmt;

use super::{Mask, granularity::elements};
use crate::error::{Error, Result};

/// How a [`SparseTensor`](super::SparseTensor) says where its survivors are. A tensor is taken as a matrix: its first axis
/// counts rows, all others together are the columns; a vector is one row.
///
/// | layout | bytes of `r` rows, `c` columns, `k` survivors |
/// |---|---|
/// | [`Bitmask`](SparseLayout::Bitmask) | `r c / 8` |
/// | [`Csr`](SparseLayout::Csr) | `4 (r + 1) + 2 k`; `4 k` beyond 65536 columns |
/// | [`NOfM`](SparseLayout::NOfM) | `⌈log2 m⌉ k / 8` |
/// | [`Block`](SparseLayout::Block) | as CSR, of blocks for elements |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SparseLayout {
    /// A bit an element.
    Bitmask,
    /// The column of each survivor, and where each row starts.
    Csr,
    /// The place of each survivor within its `m` columns, of which `n` are left; of the last `t < m` of a row
    /// `min(n, t)`. `m` is 1 to 256.
    NOfM {
        /// Columns left.
        n: usize,
        /// Columns of a group.
        m: usize,
    },
    /// Whole blocks of `rows` by `columns`, cut short at the matrix's end.
    Block {
        /// Rows of a block.
        rows: usize,
        /// Columns of a block.
        columns: usize,
    },
}

impl fmt::Display for SparseLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SparseLayout::Bitmask => write!(f, "bitmask"),
            SparseLayout::Csr => write!(f, "csr"),
            SparseLayout::NOfM { n, m } => write!(f, "{n}:{m}"),
            SparseLayout::Block { rows, columns } => write!(f, "blocks of {rows} x {columns}"),
        }
    }
}

/// (rows, columns) of a tensor taken as a matrix; without elements there are neither, however long its other axes.
pub(crate) fn matrix(shape: &[usize]) -> (usize, usize) {
    match shape {
        _ if shape.contains(&0) => (0, 0),
        [] => (1, 1),
        [columns] => (1, *columns),
        [rows, rest @ ..] => (*rows, elements(rest)),
    }
}

/// Bytes of a column's number among so many.
fn column_width(columns: usize) -> usize {
    if columns <= 1 << 16 { 2 } else { 4 }
}

/// Bits of a place within `m` columns.
pub(crate) fn place_bits(m: usize) -> u8 {
    (usize::BITS - m.saturating_sub(1).leading_zeros()).max(1) as u8
}

impl SparseLayout {
    /// The layout of fewest bytes that fits a mask; of equal ones the first of bitmask, CSR, N:M (for `m` of 2 to 16) and
    /// blocks (of 2 to 16 rows or columns, whole rows, or whole columns).
    pub fn smallest(mask: &Mask) -> SparseLayout {
        let (height, width) = matrix(mask.shape());
        let mut candidates = vec![SparseLayout::Bitmask, SparseLayout::Csr];
        candidates.extend(SparseLayout::n_of_m(mask));
        let mut sides = vec![1, 2, 4, 8, 16];
        sides.retain(|side| *side == 1 || *side <= height.max(width));
        for rows in sides.iter().copied().chain([height]) {
            for columns in sides.iter().copied().chain([width]).filter(|columns| rows * columns > 1) {
                candidates.push(SparseLayout::Block { rows, columns });
            }
        }
        let cost = |layout: &SparseLayout| layout.nbytes(mask);
        let fits = candidates.into_iter().filter(|layout| layout.validate(mask).is_ok());
        fits.min_by_key(cost).unwrap_or(SparseLayout::Bitmask)
    }

    /// The `N:M` that fit a mask, for `m` of 2 to 16.
    pub(crate) fn n_of_m(mask: &Mask) -> impl Iterator<Item = SparseLayout> + '_ {
        let (_, width) = matrix(mask.shape());
        // What the first group keeps is what all must keep.
        let layout = move |m: usize| SparseLayout::NOfM { n: mask.kept_in(0..m.min(width)), m };
        [2, 4, 8, 16].into_iter().map(layout).filter(|layout| layout.validate(mask).is_ok())
    }

    /// Whether a mask can be stored so.
    pub(crate) fn validate(self, mask: &Mask) -> Result<()> {
        let (height, width) = matrix(mask.shape());
        let misfit = |why: String| Error::Conflict {
            what: format!("{self} cannot store this mask: {why}"),
            remedy: "take PrunedTensor::to_sparse, which finds the smallest layout that can",
        };
        match self {
            SparseLayout::Bitmask => Ok(()),
            SparseLayout::Csr if mask.kept() > u32::MAX as usize || width > u32::MAX as usize => {
                Err(misfit("its numbers have 32 bits".into()))
            }
            SparseLayout::Csr => Ok(()),
            SparseLayout::NOfM { m, .. } if m == 0 || m > 256 => {
                Err(Error::Setting { setting: "m of a sparse layout", value: m as f64, bound: "1 to 256" })
            }
            SparseLayout::NOfM { n, m } => {
                for start in groups(height, width, m) {
                    let end = (start + m).min(start - start % width.max(1) + width);
                    let kept = mask.kept_in(start..end);
                    if kept != n.min(end - start) {
                        return Err(misfit(format!("{kept} of the {} elements from {start} on are left", end - start)));
                    }
                }
                Ok(())
            }
            SparseLayout::Block { rows, columns } => {
                if rows == 0 || columns == 0 {
                    return Err(Error::Setting { setting: "side of a sparse block", value: 0.0, bound: "at least 1" });
                }
                for (row, column, first) in block_firsts((height, width), (rows, columns)) {
                    // All of a block is as its first element.
                    let length = columns.min(width - column * columns);
                    let expected = if mask.is_kept(first) { length } else { 0 };
                    let mut starts = (0..rows.min(height - row * rows)).map(|row| first + row * width);
                    if starts.any(|start| mask.kept_in(start..start + length) != expected) {
                        return Err(misfit(format!("of the block of element {first} only a part is left")));
                    }
                }
                Ok(())
            }
        }
    }

    /// Bytes of the places, as saved.
    pub(crate) fn nbytes(self, mask: &Mask) -> usize {
        let (height, width) = matrix(mask.shape());
        match self {
            SparseLayout::Bitmask => mask.nbytes(),
            SparseLayout::Csr => 4 * (height + 1) + column_width(width) * mask.kept(),
            SparseLayout::NOfM { m, .. } => (mask.kept() * usize::from(place_bits(m))).div_ceil(8),
            SparseLayout::Block { rows, columns } => {
                let (tall, wide) = (height.div_ceil(rows.max(1)), width.div_ceil(columns.max(1)));
                let blocks = block_firsts((height, width), (rows.max(1), columns.max(1)));
                4 * (tall + 1) + column_width(wide) * blocks.filter(|(_, _, first)| mask.is_kept(*first)).count()
            }
        }
    }
}

/// Where the groups of `m` columns start.
pub(crate) fn groups(height: usize, width: usize, m: usize) -> impl Iterator<Item = usize> {
    (0..height).flat_map(move |row| (0..width).step_by(m.max(1)).map(move |column| row * width + column))
}

/// Row and column of each block, and its first element.
pub(crate) fn block_firsts(
    (height, width): (usize, usize),
    (rows, columns): (usize, usize),
) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..height.div_ceil(rows)).flat_map(move |row| {
        (0..width.div_ceil(columns)).map(move |column| (row, column, row * rows * width + column * columns))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn long_axes_without_elements_take_no_time() {
        for shape in [[1 << 40, 0], [0, 1 << 40], [1 << 62, 0]] {
            let mask = Mask::ones(&shape).unwrap();
            assert_eq!(SparseLayout::smallest(&mask), SparseLayout::Bitmask);
            for layout in
                [SparseLayout::Csr, SparseLayout::NOfM { n: 1, m: 2 }, SparseLayout::Block { rows: 2, columns: 2 }]
            {
                assert!(layout.validate(&mask).is_ok() && layout.nbytes(&mask) <= 4);
            }
        }
    }

    proptest! {
        /// Against the definitions, element by element.
        #[test]
        fn a_layout_fits_where_its_definition_says(
            height in 1usize..9, width in 1usize..80, n in 0usize..6, m in 1usize..9, rows in 1usize..5, columns in 1usize..70,
            as_block in any::<bool>(), seed in any::<u64>(), flip in any::<Option<prop::sample::Index>>(),
        ) {
            let hash = |i: usize| (i as u64 ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 63 == 0;
            let len = height * width;
            let flip = flip.map(|flip| flip.index(len));
            let mask = Mask::build(&[height, width], |i| {
                let (row, column) = (i / width, i % width);
                let kept = if as_block { hash(row / rows * 100 + column / columns) } else { column % m < n };
                kept != (flip == Some(i))
            });
            let kept = |row: usize, column: usize| mask.is_kept(row * width + column);
            let blocks = (0..len).all(|i| {
                let (row, column) = (i / width, i % width);
                kept(row, column) == kept(row / rows * rows, column / columns * columns)
            });
            prop_assert_eq!(SparseLayout::Block { rows, columns }.validate(&mask).is_ok(), blocks);
            let groups = (0..height).all(|row| (0..width).step_by(m).all(|start| {
                let group = start..width.min(start + m);
                group.clone().filter(|column| kept(row, *column)).count() == n.min(group.len())
            }));
            prop_assert_eq!(SparseLayout::NOfM { n, m }.validate(&mask).is_ok(), groups);
        }
    }
}
