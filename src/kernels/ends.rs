//! The least and the largest of some numbers, and whether all are finite, in one pass.

use super::{isa::vectorize, parallel};

/// What a pass over numbers finds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ends {
    /// The least number, infinity for none; NaN is passed over.
    pub(crate) min: f32,
    /// The largest number, minus infinity for none.
    pub(crate) max: f32,
    /// The bits of the largest magnitude; NaN is the largest of all.
    largest: i32,
}

/// Numbers that are worth a piece of their own.
const PIECE: usize = 1 << 18;

impl Ends {
    /// Of no numbers.
    pub(crate) const NONE: Ends = Ends { min: f32::INFINITY, max: f32::NEG_INFINITY, largest: 0 };

    /// Of these numbers.
    pub(crate) fn of(values: &[f32]) -> Ends {
        let pieces = values.len().div_ceil(PIECE);
        let each = parallel::map(pieces, |index| {
            let values = &values[index * PIECE..values.len().min((index + 1) * PIECE)];
            vectorize(
                #[inline(always)]
                || Ends::of_piece(values),
            )
        });
        each.into_iter().fold(Ends::NONE, Ends::join)
    }

    /// The same on this thread, to be inlined where instructions were chosen.
    #[inline(always)]
    pub(crate) fn of_piece(values: &[f32]) -> Ends {
        // Wide enough to hide latencies, or narrow enough for a short group.
        if values.len() >= 256 { in_lanes::<64>(values) } else { in_lanes::<16>(values) }
    }

    /// Of both.
    #[inline(always)]
    pub(crate) fn join(self, other: Ends) -> Ends {
        // Comparisons, since `min` and `max` look for NaN.
        Ends {
            min: if other.min < self.min { other.min } else { self.min },
            max: if other.max > self.max { other.max } else { self.max },
            largest: self.largest.max(other.largest),
        }
    }

    #[inline(always)]
    pub(crate) fn of_one(x: f32) -> Ends {
        let (min, max) = (
            if x < f32::INFINITY { x } else { f32::INFINITY },
            if x > f32::NEG_INFINITY { x } else { f32::NEG_INFINITY },
        );
        Ends { min, max, largest: (x.to_bits() & i32::MAX as u32) as i32 }
    }

    /// Whether all numbers are finite.
    #[inline(always)]
    pub(crate) fn are_finite(self) -> bool {
        self.largest < f32::INFINITY.to_bits() as i32
    }

    /// (min, max), or (0, 0) of no numbers.
    pub(crate) fn or_zero(self) -> (f32, f32) {
        if self.min > self.max { (0.0, 0.0) } else { (self.min, self.max) }
    }
}

/// The ends of every column of an array, row after row.
pub(crate) struct Columns {
    min: Vec<f32>,
    max: Vec<f32>,
    /// Of all.
    largest: i32,
}

impl Columns {
    /// Of no rows.
    pub(crate) fn new(columns: usize) -> Columns {
        Columns { min: vec![f32::INFINITY; columns], max: vec![f32::NEG_INFINITY; columns], largest: 0 }
    }

    /// Takes in a row, to be inlined where instructions were chosen.
    #[inline(always)]
    pub(crate) fn join(&mut self, row: &[f32]) {
        for ((min, max), &x) in self.min.iter_mut().zip(&mut self.max).zip(row) {
            *min = if x < *min { x } else { *min };
            *max = if x > *max { x } else { *max };
            self.largest = self.largest.max((x.to_bits() & i32::MAX as u32) as i32);
        }
    }

    /// Those of each column; all are finite, or none counts as that.
    pub(crate) fn ends(&self) -> Vec<Ends> {
        let pairs = self.min.iter().zip(&self.max);
        pairs.map(|(&min, &max)| Ends { min, max, largest: self.largest }).collect()
    }
}

#[inline(always)]
fn in_lanes<const N: usize>(values: &[f32]) -> Ends {
    let (mut min, mut max, mut largest) = ([f32::INFINITY; N], [f32::NEG_INFINITY; N], [0i32; N]);
    let (whole, rest) = values.as_chunks::<N>();
    for lanes in whole {
        for i in 0..N {
            let x = lanes[i];
            min[i] = if x < min[i] { x } else { min[i] };
            max[i] = if x > max[i] { x } else { max[i] };
            largest[i] = largest[i].max((x.to_bits() & i32::MAX as u32) as i32);
        }
    }
    // By halves, so that this is vectorized too.
    let mut width = N / 2;
    while width > 0 {
        for i in 0..width {
            min[i] = if min[i + width] < min[i] { min[i + width] } else { min[i] };
            max[i] = if max[i + width] > max[i] { max[i + width] } else { max[i] };
            largest[i] = largest[i].max(largest[i + width]);
        }
        width /= 2;
    }
    let ends = Ends { min: min[0], max: max[0], largest: largest[0] };
    rest.iter().fold(ends, |ends, x| ends.join(Ends::of_one(*x)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ends_are_those_of_a_plain_fold(values in prop::collection::vec(-9.0f32..9.0, 0..700), bad in 0usize..2000) {
            let plain = |values: &[f32], f: fn(f32, f32) -> f32| values.iter().copied().reduce(f).unwrap_or(0.0);
            let ends = Ends::of(&values);
            prop_assert!(ends.are_finite());
            prop_assert_eq!(ends.or_zero(), (plain(&values, f32::min), plain(&values, f32::max)));
            let mut values = values;
            if let Some(x) = values.get_mut(bad) {
                for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    *x = wrong;
                }
                prop_assert!(!Ends::of(&values).are_finite());
            }
        }
    }
}
