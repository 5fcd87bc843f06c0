//! The least and the largest of some numbers, and whether all are finite, in one pass.

use super::{
    isa::{Isa, Job, vectorize},
    kernel::Kernel,
    parallel,
};

/// What a pass over numbers finds: the least and the largest of their keys.
///
/// Floats become integers of the same order, infinities beyond all finite numbers and NaN beyond these. So two
/// instructions that every reduction vectorizes to find the ends, and the ends tell whether all are finite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ends {
    low: i32,
    high: i32,
}

/// Numbers that are worth a piece of their own.
const PIECE: usize = 1 << 18;

/// Lines of a group that has no time for a loop made for long ones.
const SHORT: usize = 4;

/// The bits of a positive number, or those of a negative one with all but the sign inverted. Its own inverse.
#[inline(always)]
fn key(bits: i32) -> i32 {
    bits ^ ((bits >> 31) & i32::MAX)
}

#[inline(always)]
fn key_of(x: f32) -> i32 {
    key(x.to_bits().cast_signed())
}

#[inline(always)]
fn number(key_of_it: i32) -> f32 {
    f32::from_bits(key(key_of_it).cast_unsigned())
}

/// The least and the largest key.
#[inline(always)]
pub(super) fn keys(values: &[f32]) -> (i32, i32) {
    let Ends { mut low, mut high } = Ends::NONE;
    for x in values {
        (low, high) = (low.min(key_of(*x)), high.max(key_of(*x)));
    }
    (low, high)
}

impl Ends {
    /// Of no numbers.
    pub(crate) const NONE: Ends = Ends { low: i32::MAX, high: i32::MIN };

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
        let (low, high) = keys(values);
        Ends { low, high }
    }

    /// Of every `size` numbers.
    pub(crate) fn of_each(values: &[f32], size: usize, ends: &mut [Ends]) {
        struct OfEach<'a> {
            values: &'a [f32],
            size: usize,
            ends: &'a mut [Ends],
        }
        impl Job for OfEach<'_> {
            type Output = ();

            #[inline(always)]
            fn run<K: Kernel>(self, kernel: K) {
                kernel.vectorize(
                    #[inline(always)]
                    || {
                        for (group, ends) in self.values.chunks(self.size).zip(self.ends) {
                            *ends = match group.as_chunks() {
                                (whole, []) if whole.len() <= SHORT => {
                                    let (low, high) = kernel.ends(whole);
                                    Ends { low, high }
                                }
                                _ => Ends::of_piece(group),
                            };
                        }
                    },
                );
            }
        }
        Isa::usable().run(OfEach { values, size, ends });
    }

    /// Of both.
    #[inline(always)]
    pub(crate) fn join(self, other: Ends) -> Ends {
        Ends { low: self.low.min(other.low), high: self.high.max(other.high) }
    }

    #[inline(always)]
    pub(crate) fn of_one(x: f32) -> Ends {
        Ends { low: key_of(x), high: key_of(x) }
    }

    /// Whether all numbers are finite.
    #[inline(always)]
    pub(crate) fn are_finite(self) -> bool {
        (self.low > key_of(f32::NEG_INFINITY)) & (self.high < key_of(f32::INFINITY))
    }

    /// (min, max), or (0, 0) of no numbers.
    #[inline(always)]
    pub(crate) fn or_zero(self) -> (f32, f32) {
        if self.low > self.high { (0.0, 0.0) } else { (number(self.low), number(self.high)) }
    }
}

/// The ends of every column of an array, row after row.
pub(crate) struct Columns(Vec<Ends>);

impl Columns {
    /// Of no rows.
    pub(crate) fn new(columns: usize) -> Columns {
        Columns(vec![Ends::NONE; columns])
    }

    /// Takes in rows, to be inlined where instructions were chosen.
    #[inline(always)]
    pub(crate) fn join(&mut self, rows: &[f32]) {
        let columns = self.0.len();
        // A few rows together, for fewer visits to the ends so far.
        let mut fours = rows.chunks_exact(4 * columns);
        for rows in &mut fours {
            let (a, b) = rows.split_at(2 * columns);
            let ((a, b), (c, d)) = (a.split_at(columns), b.split_at(columns));
            self.join_rows([a, b, c, d]);
        }
        fours.remainder().chunks(columns).for_each(|row| self.join_rows([row]));
    }

    #[inline(always)]
    fn join_rows<const N: usize>(&mut self, rows: [&[f32]; N]) {
        let columns = self.0.len();
        let (ends, rows) = (&mut self.0[..columns], rows.map(|row| &row[..columns]));
        for i in 0..columns {
            let mut column = ends[i];
            for row in rows {
                column = column.join(Ends::of_one(row[i]));
            }
            ends[i] = column;
        }
    }

    /// Those of each column.
    pub(crate) fn ends(self) -> Vec<Ends> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ends_of_each_group_are_those_of_the_group(
            values in prop::collection::vec(-9.0f32..9.0, 1..3000),
            size in prop::sample::select(vec![1usize, 7, 16, 32, 48, 64, 128, 144]),
            whole in any::<bool>(),
            bad in 0usize..9000,
        ) {
            let mut values = values;
            if whole && values.len() > size {
                values.truncate(values.len() / size * size);
            }
            if let Some(x) = values.get_mut(bad) {
                *x = f32::NAN;
            }
            let mut ends = vec![Ends::NONE; values.len().div_ceil(size)];
            Ends::of_each(&values, size, &mut ends);
            for (ends, group) in ends.into_iter().zip(values.chunks(size)) {
                prop_assert_eq!(ends, Ends::of_piece(group));
                prop_assert_eq!(ends.are_finite(), group.iter().all(|x| x.is_finite()));
            }
        }

        #[test]
        fn ends_of_columns_are_those_of_the_column(
            values in prop::collection::vec(-9.0f32..9.0, 20..700),
            count in 1usize..20,
        ) {
            let values = &values[..values.len() / count * count];
            let mut columns = Columns::new(count);
            columns.join(values);
            for (index, ends) in columns.ends().into_iter().enumerate() {
                let column: Vec<f32> = values.iter().skip(index).step_by(count).copied().collect();
                prop_assert_eq!(ends.or_zero(), Ends::of(&column).or_zero());
                prop_assert!(ends.are_finite());
            }
        }

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
