//! Weights and temperatures that change while training.

use crate::error::{Error, Result};

/// A number that follows the share `t` of the training that is over, from 0 at the first step to 1 after the last: the
/// weight of a term, or a temperature. A plain number is one that stays.
///
/// | schedule | value at `t` |
/// |---|---|
/// | [`constant`](Schedule::constant) | `to` |
/// | [`linear`](Schedule::linear) | `from + (to - from) u` |
/// | [`cosine`](Schedule::cosine) | `to + (from - to)(1 + cos πu) / 2` |
/// | [`warm_up`](Schedule::warm_up) | linear from 0 over the first share, then `to` |
///
/// where `u` is `t` within the window given by [`over`](Schedule::over), 0 before it and 1 after.
///
/// ```
/// use tersor::distill::Schedule;
///
/// assert_eq!(Schedule::from(4.0).at(0.3), 4.0);
/// assert_eq!(Schedule::linear(8.0, 2.0).at(0.5), 5.0);
/// assert_eq!(Schedule::cosine(1.0, 0.0).over(0.5, 1.0).at(0.25), 1.0);
/// assert_eq!(Schedule::warm_up(3.0, 0.2).at(0.1), 1.5);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct Schedule {
    from: f64,
    to: f64,
    window: (f64, f64),
    cosine: bool,
}

impl Schedule {
    /// Always the same.
    pub fn constant(value: f64) -> Schedule {
        Schedule::linear(value, value)
    }

    /// Evenly from one number to another.
    pub fn linear(from: f64, to: f64) -> Schedule {
        Schedule { from, to, window: (0.0, 1.0), cosine: false }
    }

    /// Slowly away from one number and slowly towards another.
    pub fn cosine(from: f64, to: f64) -> Schedule {
        Schedule { cosine: true, ..Schedule::linear(from, to) }
    }

    /// Evenly from 0 over this first share of the training, then the same.
    pub fn warm_up(to: f64, share: f64) -> Schedule {
        Schedule::linear(0.0, to).over(0.0, share)
    }

    /// Sets the shares of the training, 0 to 1, between which the number changes. Where both are the same it jumps.
    pub fn over(self, start: f64, end: f64) -> Schedule {
        Schedule { window: (start, end), ..self }
    }

    /// The value when this share of the training is over.
    pub fn at(&self, share: f64) -> f64 {
        let (start, end) = self.window;
        let u = if share >= end { 1.0 } else { ((share - start) / (end - start)).clamp(0.0, 1.0) };
        match u {
            0.0 => self.from, // exactly, at both ends
            1.0 => self.to,
            u if self.cosine => self.to + (self.from - self.to) * (1.0 + (std::f64::consts::PI * u).cos()) / 2.0,
            u => self.from + (self.to - self.from) * u,
        }
    }

    /// Whether it is ever above 0.
    pub(super) fn ever_positive(&self) -> bool {
        self.from > 0.0 || self.to > 0.0
    }

    /// Both ends hold to a check, as then does all between; the window lies in the training.
    pub(super) fn check(&self, setting: &'static str, check: fn(&'static str, f64) -> Result<()>) -> Result<()> {
        check(setting, self.from)?;
        check(setting, self.to)?;
        let (start, end) = self.window;
        let bound = "between 0 and 1, the start no later than the end";
        for value in [start, end] {
            if !(0.0..=1.0).contains(&value) || start > end {
                return Err(Error::Setting { setting: "the window of a schedule", value, bound });
            }
        }
        Ok(())
    }
}

impl From<f64> for Schedule {
    fn from(value: f64) -> Schedule {
        Schedule::constant(value)
    }
}
