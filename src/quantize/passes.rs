//! The passes over memory that even levels take: for the ends of every group, and for the codes. Where groups are short
//! and lie together, both are made while a piece is in the cache.

use super::{
    Convention,
    affine::{CodeRange, Step},
    fit::Fit,
};
use crate::{
    error::Result,
    kernels::{
        affine::{self, Code},
        ends::{Columns, Ends},
        isa::vectorize,
        numbers::Numbers,
        pack::packed_len,
        parallel,
    },
    tensor::{Groups, rows},
};

/// Elements encoded at a time, a multiple of 8 so that every piece of a bit stream starts on a byte.
const PIECE: usize = 1 << 14;

/// Elements whose codes are packed at a time.
const SOME: usize = 1 << 12;

/// Rows of more elements than stay in a cache are read twice, and by several threads.
const LONGEST_ROW: usize = 1 << 17;

/// A scale and a zero point for each group from group `first` on.
#[derive(Clone, Copy)]
pub(super) struct Steps<'a> {
    pub(super) first: usize,
    pub(super) scale: &'a [f32],
    pub(super) zero: &'a [i32],
    pub(super) codes: CodeRange,
    pub(super) convention: Convention,
}

impl Steps<'_> {
    fn bits(&self) -> u8 {
        self.codes.bits()
    }

    /// Writes the codes of all numbers.
    pub(super) fn encode(&self, numbers: &Numbers<'_>, groups: &Groups, bytes: &mut [u8]) {
        parallel::for_each_chunk_mut(bytes, packed_len(PIECE, self.bits()), |index, bytes| {
            let start = index * PIECE;
            let mut room = Vec::new();
            let values = numbers.read(start..numbers.len().min(start + PIECE), &mut room);
            self.encode_piece(values, start, groups, bytes);
        });
    }

    /// Writes the codes of the numbers from element `start` on.
    fn encode_piece(&self, values: &[f32], start: usize, groups: &Groups, bytes: &mut [u8]) {
        match self.bits() {
            16 => self.encode_as::<u16>(values, start, groups, bytes),
            8 => vectorize(
                #[inline(always)]
                || self.encode_some(values, start, groups, bytes),
            ),
            _ => self.encode_as::<u8>(values, start, groups, bytes),
        }
    }

    fn encode_as<T: Code>(&self, values: &[f32], start: usize, groups: &Groups, bytes: &mut [u8]) {
        let mut codes = Vec::new();
        codes.resize(values.len().min(SOME), T::default());
        let bytes = bytes.chunks_mut(packed_len(SOME, self.bits()));
        for ((index, values), bytes) in values.chunks(SOME).enumerate().zip(bytes) {
            let (start, codes) = (start + index * SOME, &mut codes[..values.len()]);
            vectorize(
                #[inline(always)]
                || {
                    self.encode_some(values, start, groups, codes);
                    T::store(codes, self.bits(), bytes);
                },
            );
        }
    }

    #[inline(always)]
    fn encode_some<T: Code>(&self, values: &[f32], start: usize, groups: &Groups, codes: &mut [T]) {
        let range = start..start + values.len();
        let bounds = (self.codes.lowest(), self.codes.highest());
        match groups.columns() {
            Some(columns) if self.convention.has_default_rule() => {
                for (first, piece) in rows(range, columns) {
                    let inside = piece.start - start..piece.end - start;
                    let grids = (&self.scale[first..], &self.zero[first..]);
                    affine::encode_each(&values[inside.clone()], grids, bounds, &mut codes[inside]);
                }
            }
            _ => {
                for (group, piece) in groups.segments(range) {
                    let inside = piece.start - start..piece.end - start;
                    let group = group - self.first;
                    let step = Step::new(self.scale[group], self.zero[group], self.codes, self.convention);
                    step.encode(&values[inside.clone()], &mut codes[inside]);
                }
            }
        }
    }
}

/// A scale and a zero point for each group.
pub(super) type Grids = (Vec<f32>, Vec<i32>);

/// Fits a grid to all numbers of each group, and writes the codes on it; nothing if some number is not finite.
pub(super) fn fit_and_encode(
    fit: Fit,
    numbers: &Numbers<'_>,
    groups: &Groups,
    bytes: &mut [u8],
) -> Result<Option<Grids>> {
    let (mut scale, mut zero) = (vec![0.0; groups.count()], vec![0; groups.count()]);
    let Some((row, per_row)) = groups.row().filter(|(row, _)| *row <= LONGEST_ROW) else {
        let Some(ends) = ends(numbers, groups) else { return Ok(None) };
        fit_each(fit, &ends, &mut scale, &mut zero)?;
        let steps = Steps { first: 0, scale: &scale, zero: &zero, codes: fit.codes, convention: fit.convention };
        steps.encode(numbers, groups, bytes);
        return Ok(Some((scale, zero)));
    };
    // As many rows as make a piece, and whole bytes at any width.
    let rows = PIECE.div_ceil(row).next_multiple_of(8 >> row.trailing_zeros().min(3));
    let places = scale.chunks_mut(rows * per_row).zip(zero.chunks_mut(rows * per_row));
    let places = places.zip(bytes.chunks_mut(packed_len(rows * row, fit.codes.bits())));
    let mut pieces: Vec<_> = places.map(|((scale, zero), bytes)| (scale, zero, bytes, Ok(true))).collect();
    parallel::for_each_chunk_mut(&mut pieces, 1, |index, pieces| {
        for (scale, zero, bytes, outcome) in pieces {
            let (first, start) = (index * rows * per_row, index * rows * row);
            let mut room = Vec::new();
            let values = numbers.read(start..numbers.len().min(start + rows * row), &mut room);
            let mut ends = vec![Ends::NONE; scale.len()];
            match groups.even() {
                Some(size) => Ends::of_each(values, size, &mut ends),
                None => vectorize(
                    #[inline(always)]
                    || {
                        let segments = groups.segments(start..start + values.len());
                        for (ends, (_, piece)) in ends.iter_mut().zip(segments) {
                            *ends = Ends::of_piece(&values[piece.start - start..piece.end - start]);
                        }
                    },
                ),
            }
            if !ends.iter().fold(Ends::NONE, |all, ends| all.join(*ends)).are_finite() {
                *outcome = Ok(false);
                continue;
            }
            if let Err(error) = fit_each(fit, &ends, scale, zero) {
                *outcome = Err(error);
                continue;
            }
            let steps = Steps { first, scale, zero, codes: fit.codes, convention: fit.convention };
            steps.encode_piece(values, start, groups, bytes);
        }
    });
    let mut finite = true;
    let mut refused = None;
    for (.., outcome) in pieces {
        match outcome {
            Ok(is) => finite &= is,
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    match refused {
        _ if !finite => Ok(None),
        Some(error) => Err(error),
        None => Ok(Some((scale, zero))),
    }
}

/// A grid for each pair of ends.
fn fit_each(fit: Fit, ends: &[Ends], scale: &mut [f32], zero: &mut [i32]) -> Result<()> {
    // What is usual is a loop of its own, without the choices.
    let usual = fit.usual();
    let fitted = vectorize(
        #[inline(always)]
        || match usual {
            Some(true) => fit_all(fit.with_usual(true), ends, scale, zero),
            Some(false) => fit_all(fit.with_usual(false), ends, scale, zero),
            None => fit_all(fit, ends, scale, zero),
        },
    );
    if fitted {
        return Ok(());
    }
    ends.iter().map(|ends| ends.or_zero()).try_for_each(|(min, max)| fit.step(min, max).map(drop))
}

#[inline(always)]
fn fit_all(fit: Fit, ends: &[Ends], scale: &mut [f32], zero: &mut [i32]) -> bool {
    let mut fitted = true;
    for ((ends, scale), zero) in ends.iter().zip(scale).zip(zero) {
        let (min, max) = ends.or_zero();
        (*scale, *zero) = fit.grid(min, max);
        fitted &= fit.has_finite_levels(*scale, *zero);
    }
    fitted
}

/// The ends of every group; nothing if some number is not finite.
pub(super) fn ends(numbers: &Numbers<'_>, groups: &Groups) -> Option<Vec<Ends>> {
    /// Elements to a piece at least, and pieces of a whole at most.
    const LEAST: usize = 1 << 18;
    const MOST: usize = 1 << 6;
    let (len, columns) = (numbers.len(), groups.columns());
    let size = len.div_ceil(MOST).max(LEAST).next_multiple_of(columns.unwrap_or(1));
    let pieces = parallel::map(len.div_ceil(size), |index| {
        let range = index * size..len.min((index + 1) * size);
        let first = groups.row().and_then(|_| groups.segments(range.clone()).next()).map_or(0, |(group, _)| group);
        let mut found: Vec<Ends> = Vec::new();
        let mut room = Vec::new();
        let mut by_columns = Columns::new(columns.unwrap_or(0));
        let some = if columns.is_some() { PIECE.next_multiple_of(columns.unwrap_or(1)) } else { PIECE };
        for start in range.clone().step_by(some) {
            let range = start..range.end.min(start + some);
            let values = numbers.read(range.clone(), &mut room);
            vectorize(
                #[inline(always)]
                || match columns {
                    Some(_) => by_columns.join(values),
                    None => {
                        for (group, piece) in groups.segments(range) {
                            let place = group - first;
                            if place >= found.len() {
                                found.resize(place + 1, Ends::NONE);
                            }
                            found[place] =
                                found[place].join(Ends::of_piece(&values[piece.start - start..piece.end - start]));
                        }
                    }
                },
            );
        }
        (first, if columns.is_some() { by_columns.ends() } else { found })
    });
    let mut joined = vec![Ends::NONE; groups.count()];
    for (first, piece) in pieces {
        joined[first..].iter_mut().zip(piece).for_each(|(all, ends)| *all = all.join(ends));
    }
    joined.iter().all(|ends| ends.are_finite()).then_some(joined)
}
