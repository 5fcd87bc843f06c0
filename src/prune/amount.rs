//! How much a pruner removes.

use std::fmt;

use crate::error::{Error, Result};

/// How much goes: of elements, rows or blocks, whatever the [`Pattern`](super::Pattern) removes whole.
///
/// A fraction of `n` is `round(fraction · n)`, half to even, as in PyTorch: half of 5 is 2, half of 7 is 4. An `f32` is
/// taken for the shortest decimal that it prints as, so that `0.9_f32` means 0.9.
///
/// ```
/// use tersor::prune::Amount;
///
/// assert_eq!(Amount::from(0.9_f32), Amount::from(0.9_f64));
/// assert_eq!(Amount::from(7), Amount::Count(7));
/// ```
#[derive(Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Amount {
    /// A share, 0 to 1.
    Fraction(f64),
    /// So many.
    Count(usize),
    /// Whatever scores below this, strictly: what equals it stays. Of elements that is `|w|` for a magnitude; rows and
    /// blocks are held against their own score, a mean over their elements. How much goes is for the numbers to say, so
    /// [`of_remaining`](super::Ranked::of_remaining) changes nothing, and [`n_of_m`](super::Ranked::n_of_m), which fixes
    /// the amount itself, refuses it.
    Below(f64),
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Amount::Fraction(fraction) => write!(f, "{fraction:?}"),
            Amount::Count(count) => write!(f, "{count:?}"),
            Amount::Below(score) => write!(f, "Amount::Below({score:?})"),
        }
    }
}

impl From<f64> for Amount {
    fn from(fraction: f64) -> Amount {
        Amount::Fraction(fraction)
    }
}

impl From<f32> for Amount {
    fn from(fraction: f32) -> Amount {
        Amount::Fraction(fraction.to_string().parse().unwrap_or_else(|_| f64::from(fraction)))
    }
}

impl From<usize> for Amount {
    fn from(count: usize) -> Amount {
        Amount::Count(count)
    }
}

impl Amount {
    /// A fraction between 0 and 1; a threshold that is a number.
    pub(crate) fn validate(self) -> Result<()> {
        match self {
            Amount::Fraction(value) if !(0.0..=1.0).contains(&value) => {
                Err(Error::Setting { setting: "sparsity", value, bound: "at least 0 and at most 1" })
            }
            Amount::Below(value) if value.is_nan() => {
                Err(Error::Setting { setting: "threshold", value, bound: "a number" })
            }
            _ => Ok(()),
        }
    }

    /// How many of `n` go; `None` where scores decide.
    pub(crate) fn of(self, n: usize) -> Result<Option<usize>> {
        self.validate()?;
        match self {
            Amount::Fraction(fraction) => Ok(Some(((fraction * n as f64).round_ties_even() as usize).min(n))),
            Amount::Count(count) if count > n => Err(Error::Setting {
                setting: "the count to remove",
                value: count as f64,
                bound: "at most as many as there are to remove from",
            }),
            Amount::Count(count) => Ok(Some(count)),
            Amount::Below(_) => Ok(None),
        }
    }
}
