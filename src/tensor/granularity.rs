//! Which elements share a scale.

use std::{borrow::Cow, ops::Range};

use ndarray::Axis;

use crate::error::{Error, Result};

/// Which elements share one scale (and zero point, or codebook).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Granularity {
    /// The whole tensor.
    #[default]
    Tensor,
    /// Each index along this axis; `Axis(0)` is a weight's output channel.
    Channel(Axis),
    /// So many consecutive elements of the last axis; the last group of a row is shorter where the row ends.
    Group(usize),
}

impl Granularity {
    /// Resolves it for a shape.
    pub(crate) fn groups(self, shape: &[usize]) -> Result<Groups> {
        let len = elements(shape);
        let row = shape.last().copied().unwrap_or(1);
        Ok(match self {
            Granularity::Tensor => Groups { len, period: 1, run: len.max(1), row: len.max(1) },
            Granularity::Channel(Axis(axis)) => {
                let Some(&channels) = shape.get(axis) else {
                    return Err(Error::Axis { axis, rank: shape.len() });
                };
                let run = elements(&shape[axis + 1..]).max(1);
                Groups { len, period: channels, run, row: run }
            }
            Granularity::Group(0) => return Err(Error::GroupSize { group_size: 0 }),
            Granularity::Group(size) => {
                let row = row.max(1);
                Groups { len, period: len.div_ceil(row) * row.div_ceil(size), run: size.min(row), row }
            }
        })
    }
}

/// The number of elements of a shape; a shape from a file may claim more than fit in memory, so it saturates.
pub(crate) fn elements(shape: &[usize]) -> usize {
    if shape.contains(&0) { 0 } else { shape.iter().fold(1, |product, n| product.saturating_mul(*n)) }
}

/// Whether an array can have this shape: with axes of 0 left out, its elements must still be countable.
pub(crate) fn is_countable(shape: &[usize]) -> bool {
    let product = shape.iter().filter(|n| **n != 0).try_fold(1usize, |product, n| product.checked_mul(*n));
    product.is_some_and(|product| isize::try_from(product).is_ok())
}

/// The groups of a shape, in the flat row-major order of its elements.
///
/// Elements come in runs of `run`, cut short where a row of `row` elements ends; run after run belongs to group
/// 0, 1, .., `period - 1`, and again 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Groups {
    len: usize,
    period: usize,
    run: usize,
    row: usize,
}

impl Groups {
    pub(crate) fn count(&self) -> usize {
        self.period
    }

    fn runs_per_row(&self) -> usize {
        self.row.div_ceil(self.run)
    }

    fn range_of_run(&self, index: usize) -> Range<usize> {
        let (row, run) = (index / self.runs_per_row(), index % self.runs_per_row());
        let start = row * self.row + run * self.run;
        start..(start + self.run).min((row + 1) * self.row)
    }

    /// The runs of one group.
    pub(crate) fn runs(&self, group: usize) -> impl Iterator<Item = Range<usize>> + '_ {
        let count = self.len.div_ceil(self.row) * self.runs_per_row();
        (group..count).step_by(self.period.max(1)).map(|index| self.range_of_run(index))
    }

    /// The elements of one group: borrowed if they lie together.
    pub(crate) fn gather<'a>(&self, values: &'a [f32], group: usize) -> Cow<'a, [f32]> {
        let mut runs = self.runs(group);
        match (runs.next(), runs.next()) {
            (None, _) => Cow::Borrowed(&[]),
            (Some(only), None) => Cow::Borrowed(&values[only]),
            _ => Cow::Owned(self.runs(group).flat_map(|run| values[run].iter().copied()).collect()),
        }
    }

    /// Cuts a range of elements into pieces of one group each, as (group, piece).
    #[inline(always)]
    pub(crate) fn segments(&self, range: Range<usize>) -> impl Iterator<Item = (usize, Range<usize>)> + '_ {
        let (row, inside) = (range.start / self.row, range.start % self.row);
        let index = row * self.runs_per_row() + inside / self.run;
        // Counted on from here: short groups have no time for divisions.
        let (mut start, mut group) = (range.start, index % self.period.max(1));
        let mut row_end = (row + 1) * self.row;
        let mut end = (start - inside % self.run + self.run).min(row_end);
        std::iter::from_fn(move || {
            if start >= range.end {
                return None;
            }
            let piece = (group, start..end.min(range.end));
            group = if group + 1 == self.period { 0 } else { group + 1 };
            start = end;
            row_end += if start == row_end { self.row } else { 0 };
            end = (start + self.run).min(row_end);
            Some(piece)
        })
    }

    /// How many elements a group has, if all of them have as many, together.
    pub(crate) fn even(&self) -> Option<usize> {
        (self.row().is_some() && self.row.is_multiple_of(self.run)).then_some(self.run)
    }

    /// How many groups there are, if consecutive elements belong to consecutive groups and there are enough of these.
    pub(crate) fn columns(&self) -> Option<usize> {
        const ENOUGH: usize = 16;
        (self.run == 1 && self.row == 1 && self.period >= ENOUGH).then_some(self.period)
    }

    /// Where the elements of every group lie together: how many make a row that ends where a group does, and the groups
    /// of a row.
    pub(crate) fn row(&self) -> Option<(usize, usize)> {
        let per_row = self.runs_per_row();
        (self.period == self.len.div_ceil(self.row) * per_row).then_some((self.row, per_row))
    }
}

/// Cuts a range of elements at the ends of rows of so many, as (first column, piece).
#[inline(always)]
pub(crate) fn rows(range: Range<usize>, columns: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let (mut start, mut column) = (range.start, range.start % columns);
    std::iter::from_fn(move || {
        let end = (start + columns - column).min(range.end);
        let piece = (column, start..end);
        (start, column) = (end, 0);
        (!piece.1.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_short_last_group_ends_with_its_row() {
        let groups = Granularity::Group(3).groups(&[2, 5]).unwrap();
        assert_eq!(groups.count(), 4);
        assert_eq!(groups.segments(0..10).collect::<Vec<_>>(), [(0, 0..3), (1, 3..5), (2, 5..8), (3, 8..10)]);
    }

    #[test]
    fn a_channel_along_the_last_axis_takes_every_nth_element() {
        let groups = Granularity::Channel(Axis(1)).groups(&[2, 3]).unwrap();
        let values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(&*groups.gather(&values, 1), &[1.0, 4.0]);
    }

    proptest! {
        #[test]
        fn runs_and_segments_tell_the_same(
            shape in prop::collection::vec(1usize..6, 1..4),
            choice in 0usize..3,
            size in 1usize..8,
        ) {
            let granularity = match choice {
                0 => Granularity::Tensor,
                1 => Granularity::Channel(Axis(size % shape.len())),
                _ => Granularity::Group(size),
            };
            let groups = granularity.groups(&shape).unwrap();
            let len: usize = shape.iter().product();
            let mut by_runs = vec![usize::MAX; len];
            for group in 0..groups.count() {
                for i in groups.runs(group).flatten() {
                    prop_assert_eq!(by_runs[i], usize::MAX);
                    by_runs[i] = group;
                }
            }
            let mut by_segments = Vec::new();
            for (group, piece) in groups.segments(0..len) {
                prop_assert_eq!(piece.start, by_segments.len());
                by_segments.extend(piece.map(|_| group));
            }
            prop_assert_eq!(by_runs, by_segments);
        }
    }
}
