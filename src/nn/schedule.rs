//! How the learning rate changes from epoch to epoch.

use super::{
    settings::{not_negative, positive},
    shape::at_least_one,
};
use crate::{Error, Result};

/// The learning rate of each epoch `t`, counted from 0, given the optimizer's own rate `r`: PyTorch's closed forms.
///
/// ```
/// use tersor::nn::Schedule;
///
/// let schedule = Schedule::Cosine { epochs: 10, minimum: 0.0 }.warm_up(5, 0.2);
/// assert_eq!(schedule.learning_rate(0.1, 0), 0.1 * 0.2);
/// assert_eq!(schedule.learning_rate(0.1, 5), 0.1);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Schedule {
    /// `r`.
    #[default]
    Constant,
    /// `r · factor^⌊t / every⌋`.
    Step {
        /// Epochs between steps, at least 1.
        every: usize,
        /// The factor of each step, above 0.
        factor: f64,
    },
    /// `r · factor^t`.
    Exponential {
        /// The factor of each epoch, above 0.
        factor: f64,
    },
    /// `minimum + (r - minimum) (1 + cos(π t / epochs)) / 2` (Loshchilov and Hutter 2017); beyond `epochs` it rises again.
    Cosine {
        /// Epochs down to the minimum, at least 1.
        epochs: usize,
        /// The least rate, at least 0.
        minimum: f64,
    },
    /// `r (start + (1 - start) t / epochs)` up to `epochs`, then another schedule from its beginning.
    WarmUp {
        /// Epochs up to the full rate, at least 1.
        epochs: usize,
        /// The first share of the rate, above 0 and at most 1.
        start: f64,
        /// What follows.
        then: Box<Schedule>,
    },
}

impl Schedule {
    /// Puts a linear warm-up before this schedule.
    pub fn warm_up(self, epochs: usize, start: f64) -> Schedule {
        Schedule::WarmUp { epochs, start, then: Box::new(self) }
    }

    /// The learning rate of an epoch, counted from 0, for an optimizer made with `initial`.
    pub fn learning_rate(&self, initial: f64, epoch: usize) -> f64 {
        match self {
            Schedule::Constant => initial,
            Schedule::Step { every, factor } => initial * factor.powf((epoch / (*every).max(1)) as f64),
            Schedule::Exponential { factor } => initial * factor.powf(epoch as f64),
            Schedule::Cosine { epochs, minimum } => {
                let angle = std::f64::consts::PI * epoch as f64 / (*epochs).max(1) as f64;
                minimum + (initial - minimum) * (1.0 + angle.cos()) / 2.0
            }
            Schedule::WarmUp { epochs, start, .. } if epoch < *epochs => {
                initial * (start + (1.0 - start) * epoch as f64 / *epochs as f64)
            }
            Schedule::WarmUp { epochs, then, .. } => then.learning_rate(initial, epoch - epochs),
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        match self {
            Schedule::Constant => Ok(()),
            Schedule::Step { every, factor } => {
                at_least_one("every", *every)?;
                positive("factor", *factor)
            }
            Schedule::Exponential { factor } => positive("factor", *factor),
            Schedule::Cosine { epochs, minimum } => {
                at_least_one("epochs of the schedule", *epochs)?;
                not_negative("minimum", *minimum)
            }
            Schedule::WarmUp { epochs, start, then } => {
                at_least_one("epochs of the schedule", *epochs)?;
                if !(*start > 0.0 && *start <= 1.0) {
                    return Err(Error::Setting { setting: "start", value: *start, bound: "above 0 and at most 1" });
                }
                then.check()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warm_up_is_linear_and_then_the_schedule_begins() {
        let schedule = Schedule::Step { every: 2, factor: 0.5 }.warm_up(4, 0.25);
        let rates: Vec<f64> = (0..8).map(|epoch| schedule.learning_rate(16.0, epoch)).collect();
        assert_eq!(rates, [4.0, 7.0, 10.0, 13.0, 16.0, 16.0, 8.0, 8.0]);
    }
}
