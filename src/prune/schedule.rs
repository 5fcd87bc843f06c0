//! Sparsity as training goes on.

use crate::error::{Error, Result};

/// How sparsity grows over a training, from an initial one to a pruner's own, in events over a window.
///
/// With `p` the progress within the window, 0 to 1, `s₀` the initial and `s₁` the final sparsity:
///
/// | constructor | sparsity at `p` |
/// |---|---|
/// | [`constant`](Schedule::constant) | `s₁` |
/// | [`linear`](Schedule::linear) | `s₁ + (s₀ - s₁)(1 - p)` |
/// | [`cubic`](Schedule::cubic) (Zhu and Gupta 2017) | `s₁ + (s₀ - s₁)(1 - p)³` |
/// | [`polynomial`](Schedule::polynomial) | `s₁ + (s₀ - s₁)(1 - p)ⁿ` |
/// | [`exponential`](Schedule::exponential) | `1 - (1 - s₀)((1 - s₁) / (1 - s₀))ᵖ`: as large a share of what is left each time |
/// | [`steps`](Schedule::steps) | `s₀ + share · (s₁ - s₀)` of the last step at or before `p`; `s₁` at 1 |
///
/// | setting | default | range |
/// |---|---|---|
/// | [`initial`](Schedule::initial) | 0 | 0 to 1 |
/// | [`over`](Schedule::over) | the first half of the training | 0 to 1, the start before the end |
/// | [`events`](Schedule::events), [`every`](Schedule::every) | 10 events | at least 1; no more than steps |
///
/// ```
/// use tersor::prune::Schedule;
///
/// let cubic = Schedule::cubic();
/// assert_eq!([0.25, 0.5, 0.75, 1.0].map(|p| (1e4 * cubic.sparsity(0.8, p)).round()), [4625.0, 7000.0, 7875.0, 8000.0]);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Schedule {
    curve: Curve,
    initial: f64,
    window: (f64, f64),
    pace: Pace,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Pace {
    Events(usize),
    Every(usize),
}

#[derive(Clone, Debug, PartialEq)]
enum Curve {
    Constant,
    Polynomial(f64),
    Exponential,
    Steps(Vec<(f64, f64)>),
}

impl Schedule {
    fn new(curve: Curve) -> Schedule {
        Schedule { curve, initial: 0.0, window: (0.0, 0.5), pace: Pace::Events(10) }
    }

    /// All at the start of the window.
    pub fn constant() -> Schedule {
        Schedule::new(Curve::Constant).events(1)
    }

    /// As much each time.
    pub fn linear() -> Schedule {
        Schedule::polynomial(1.0)
    }

    /// Much at first, ever less towards the end (Zhu and Gupta 2017).
    pub fn cubic() -> Schedule {
        Schedule::polynomial(3.0)
    }

    /// With a power of its own, above 0.
    pub fn polynomial(power: f64) -> Schedule {
        Schedule::new(Curve::Polynomial(power))
    }

    /// The same share of what is left each time.
    pub fn exponential() -> Schedule {
        Schedule::new(Curve::Exponential)
    }

    /// Steps: from progress `p` on, so large a share of the way; (p, share) ascending in both, each 0 to 1.
    pub fn steps(steps: impl IntoIterator<Item = (f64, f64)>) -> Schedule {
        let steps: Vec<_> = steps.into_iter().collect();
        let events = steps.len();
        Schedule::new(Curve::Steps(steps)).events(events)
    }

    /// Sets the sparsity from which it starts.
    pub fn initial(self, initial: f64) -> Schedule {
        Schedule { initial, ..self }
    }

    /// Sets the window, as shares of the training.
    pub fn over(self, start: f64, end: f64) -> Schedule {
        Schedule { window: (start, end), ..self }
    }

    /// Sets how often is pruned within the window.
    pub fn events(self, events: usize) -> Schedule {
        Schedule { pace: Pace::Events(events), ..self }
    }

    /// Prunes before every so many of the window's steps, from its first on.
    pub fn every(self, steps: usize) -> Schedule {
        Schedule { pace: Pace::Every(steps), ..self }
    }

    /// The sparsity at progress `p` within the window, on the way to `end`.
    pub fn sparsity(&self, end: f64, p: f64) -> f64 {
        let (start, p) = (self.initial.min(end), p.clamp(0.0, 1.0));
        match &self.curve {
            Curve::Constant => end,
            Curve::Polynomial(power) => end + (start - end) * (1.0 - p).powf(*power),
            _ if p == 1.0 => end,
            Curve::Exponential if start >= 1.0 => end,
            Curve::Exponential => 1.0 - (1.0 - start) * ((1.0 - end) / (1.0 - start)).powf(p),
            Curve::Steps(steps) => {
                let share = steps.iter().rev().find(|(from, _)| *from <= p).map_or(0.0, |(_, share)| *share);
                start + share * (end - start)
            }
        }
    }

    /// The events of a training of so many steps: (the step before which to prune, the progress to prune to). The last
    /// one's progress is 1. Events that would meet in one step are one.
    pub(crate) fn plan(&self, steps: usize) -> Result<Vec<(usize, f64)>> {
        self.validate()?;
        let (start, end) = self.window;
        let at = |share: f64| ((start + (end - start) * share) * steps as f64).floor() as usize;
        let mut plan: Vec<(usize, f64)> = match &self.curve {
            // A step's event is where it starts; the way's end is one, if no step leads there.
            Curve::Steps(jumps) => {
                let end = jumps.last().filter(|(_, share)| *share < 1.0).map(|_| 1.0);
                jumps.iter().map(|(from, _)| *from).chain(end).map(|from| (at(from), from)).collect()
            }
            _ => {
                let (first, window) = (at(0.0), at(1.0) - at(0.0));
                // There is no more than one event a step.
                let events = match self.pace {
                    Pace::Events(events) => events.min(steps),
                    Pace::Every(every) => window.div_ceil(every),
                };
                let events = events.max(1);
                let step = |event: usize| match self.pace {
                    Pace::Events(_) => at(event as f64 / events as f64),
                    Pace::Every(every) => first + event * every,
                };
                (0..events).map(|event| (step(event), (event + 1) as f64 / events as f64)).collect()
            }
        };
        if let Some(last) = plan.last_mut() {
            last.1 = 1.0;
        }
        let last = steps.saturating_sub(1);
        plan.iter_mut().for_each(|(step, _)| *step = (*step).min(last));
        plan.reverse();
        plan.dedup_by_key(|(step, _)| *step); // of several, the one that goes furthest
        plan.reverse();
        Ok(plan)
    }

    fn validate(&self) -> Result<()> {
        let share = |setting, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(Error::Setting { setting, value, bound: "at least 0 and at most 1" }),
        };
        share("initial sparsity", self.initial)?;
        share("start of the schedule's window", self.window.0)?;
        share("end of the schedule's window", self.window.1)?;
        if self.window.0 > self.window.1 {
            let bound = "at most the end of the window";
            return Err(Error::Setting { setting: "start of the schedule's window", value: self.window.0, bound });
        }
        let (setting, count) = match self.pace {
            Pace::Events(events) => ("events of the schedule", events),
            Pace::Every(every) => ("steps between events of the schedule", every),
        };
        if count == 0 {
            return Err(Error::Setting { setting, value: 0.0, bound: "at least 1" });
        }
        match &self.curve {
            Curve::Polynomial(power) if !(power.is_finite() && *power > 0.0) => {
                Err(Error::Setting { setting: "power of the schedule", value: *power, bound: "above 0 and finite" })
            }
            Curve::Steps(steps) => {
                for (p, reached) in steps {
                    share("progress of a step of the schedule", *p)?;
                    share("share of a step of the schedule", *reached)?;
                }
                match steps.windows(2).find(|pair| pair[0].0 >= pair[1].0 || pair[0].1 > pair[1].1) {
                    Some(pair) => Err(Error::Setting {
                        setting: "progress of a step of the schedule",
                        value: pair[1].0,
                        bound: "beyond the step before it, and its share at least as large",
                    }),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_starts_at_the_initial_and_ends_at_the_final_sparsity() {
        let curves = [Schedule::linear(), Schedule::cubic(), Schedule::polynomial(0.5), Schedule::exponential()];
        for curve in curves.map(|curve| curve.initial(0.2)) {
            assert!((curve.sparsity(0.9, 0.0) - 0.2).abs() < 1e-12 && curve.sparsity(0.9, 1.0) == 0.9, "{curve:?}");
            let along: Vec<f64> = (0..=20).map(|p| curve.sparsity(0.9, f64::from(p) / 20.0)).collect();
            assert!(along.windows(2).all(|pair| pair[0] < pair[1]), "{curve:?}");
        }
        // As large a share of what is left: 0.1^(1/4) stays each quarter.
        let kept = |p| 1.0 - Schedule::exponential().sparsity(0.9, p);
        assert!((kept(0.5) / kept(0.25) - 0.1f64.powf(0.25)).abs() < 1e-12);
        let steps = Schedule::steps([(0.0, 0.5), (0.6, 1.0)]);
        assert_eq!([0.0, 0.59, 0.6, 1.0].map(|p| steps.sparsity(0.8, p)), [0.4, 0.4, 0.8, 0.8]);
    }

    #[test]
    fn a_plan_spreads_its_events_and_ends_at_one() {
        assert_eq!(
            Schedule::linear().events(4).over(0.0, 1.0).plan(8).unwrap(),
            [(0, 0.25), (2, 0.5), (4, 0.75), (6, 1.0)]
        );
        assert_eq!(Schedule::cubic().events(10).over(0.5, 0.5).plan(8).unwrap(), [(4, 1.0)]);
        assert_eq!(Schedule::constant().over(1.0, 1.0).plan(3).unwrap(), [(2, 1.0)]);
        assert_eq!(Schedule::steps([(0.0, 0.5), (0.5, 1.0)]).over(0.0, 1.0).plan(10).unwrap(), [(0, 0.0), (5, 1.0)]);
        // Steps that do not lead all the way are followed by one that does.
        let half = Schedule::steps([(0.25, 0.2), (0.5, 0.5)]).over(0.0, 0.8).plan(10).unwrap();
        assert_eq!(half, [(2, 0.25), (4, 0.5), (8, 1.0)]);
        let every = Schedule::linear().every(3).over(0.2, 0.9).plan(10).unwrap();
        assert_eq!(every, [(2, 1.0 / 3.0), (5, 2.0 / 3.0), (8, 1.0)]);
        assert_eq!(Schedule::linear().every(9).over(0.5, 0.5).plan(10).unwrap(), [(5, 1.0)]);
        assert_eq!(Schedule::linear().events(usize::MAX).over(0.0, 1.0).plan(2).unwrap(), [(0, 0.5), (1, 1.0)]);
        assert_eq!(Schedule::linear().every(usize::MAX).over(0.0, 1.0).plan(2).unwrap(), [(0, 1.0)]);
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let wrong = [
            (Schedule::linear().initial(1.5), "1.5"),
            (Schedule::linear().over(0.5, 0.25), "0.5"),
            (Schedule::linear().over(-0.5, 0.25), "-0.5"),
            (Schedule::linear().over(0.0, f64::NAN), "NaN"),
            (Schedule::linear().events(0), "events"),
            (Schedule::linear().every(0), "steps between"),
            (Schedule::polynomial(0.0), "power"),
            (Schedule::steps([(0.5, 0.5), (0.25, 1.0)]), "0.25"),
            (Schedule::steps([(0.5, 0.5), (0.75, 2.0)]), "2"),
            (Schedule::steps([]), "events"),
        ];
        for (schedule, text) in wrong {
            let error = schedule.plan(10).unwrap_err().to_string();
            assert!(error.contains(text), "{schedule:?}: {error}");
        }
    }
}
