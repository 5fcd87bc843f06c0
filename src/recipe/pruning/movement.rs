//! Movement pruning: masks learned while fine-tuning.

use std::sync::Arc;

use ndarray::ArrayD;

use super::due;
use crate::{
    error::{Error, Result},
    nn::{Callback, Network, Progress},
    prune::{self, Amount, Pattern, Ranking, Schedule},
    recipe::rules::Rules,
    tensor::{Mask, Observed, Statistic, Weights},
};

/// Movement pruning (Sanh et al. 2020): while a network is fine-tuned, each weight gathers `S = -η Σ (dL/dw) w`, positive
/// where it moves away from zero, and those with the least `S` are masked, more of them as a [`Schedule`] says. A masked
/// weight keeps its value and goes on gathering (the gradient passes the mask straight through), so it may come back;
/// what was removed before the training may not.
///
/// | setting | default | range |
/// |---|---|---|
/// | [`schedule`](Movement::schedule) | cubic over 0.1 to 0.7 of the training, 100 events | |
/// | [`pattern`](Movement::pattern) | single elements | rows, blocks, `N:M` |
/// | [`across_layers`](Movement::across_layers) | each weight for itself | |
/// | [`learning_rate`](Movement::learning_rate) | 0.01, the `η` of the scores | above 0 |
/// | [`soft`](Movement::soft) | hard: the sparsity given is reached | a threshold and a penalty instead |
///
/// ```
/// use ndarray::Array2;
/// use tersor::{nn::{Adam, Data, Network, Training}, recipe::Movement};
///
/// let mut network = Network::builder(1).linear(8, 32).relu().linear(32, 2).build()?;
/// let data = Data::classes(Array2::from_shape_fn((64, 8), |(i, j)| ((i * j) as f32).sin()), (0..64).map(|i| i % 2))?;
/// let mut movement = Movement::new("*", 0.75);
/// Training::new(10).train_with(&mut network, &data, &mut Adam::new(1e-3), &mut movement, &mut |_| {
///     std::ops::ControlFlow::Continue(())
/// })?;
/// assert_eq!(network.mask("0.weight")?.unwrap().kept(), 64);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Movement {
    rules: Rules<()>,
    sparsity: f64,
    pattern: Pattern,
    schedule: Schedule,
    across_layers: bool,
    learning_rate: f64,
    soft: Option<Soft>,
    weights: Vec<Moving>,
    plan: Vec<(usize, f64)>,
}

/// A mask by a threshold: kept is what has `σ(S)` above it.
#[derive(Clone, Copy, Debug)]
struct Soft {
    threshold: f64,
    lambda: f64,
}

/// A weight under way.
#[derive(Clone, Debug)]
struct Moving {
    name: String,
    /// What was removed before, and never comes back.
    before: Option<Mask>,
    /// Its values, masked or not.
    shadow: ArrayD<f32>,
    scores: ArrayD<f32>,
}

impl Movement {
    /// Prunes the weights whose names match to this sparsity; patterns as in [`Recipe`](crate::Recipe).
    pub fn new(pattern: impl Into<String>, sparsity: f64) -> Movement {
        let mut rules = Rules::default();
        rules.push(pattern, Some(Arc::new(())));
        let schedule = Schedule::cubic().over(0.1, 0.7).events(100);
        Movement {
            rules,
            sparsity,
            pattern: Pattern::Element,
            schedule,
            across_layers: false,
            learning_rate: 0.01,
            soft: None,
            weights: Vec::new(),
            plan: Vec::new(),
        }
    }

    /// Leaves the weights whose names match as they are.
    pub fn keep(mut self, pattern: impl Into<String>) -> Movement {
        self.rules.push(pattern, None);
        self
    }

    /// Sets what is removed whole: units go by the mean score of their elements. `N:M` fixes the sparsity, which is reached
    /// at the first event.
    pub fn pattern(self, pattern: Pattern) -> Movement {
        Movement { pattern, ..self }
    }

    /// Sets how the sparsity grows.
    pub fn schedule(self, schedule: Schedule) -> Movement {
        Movement { schedule, ..self }
    }

    /// Ranks all weights as one.
    pub fn across_layers(self) -> Movement {
        Movement { across_layers: true, ..self }
    }

    /// Sets the learning rate of the scores.
    pub fn learning_rate(self, learning_rate: f64) -> Movement {
        Movement { learning_rate, ..self }
    }

    /// Soft movement: instead of a sparsity, a threshold (0 to 1, exclusive) on `σ(S)`, and a penalty
    /// `lambda Σ σ(S) / count` that draws the scores down. What sparsity comes of it, training decides; masks are renewed
    /// at the schedule's events.
    pub fn soft(self, threshold: f64, lambda: f64) -> Movement {
        Movement { soft: Some(Soft { threshold, lambda }), ..self }
    }

    fn validate(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.sparsity) {
            let bound = "at least 0 and at most 1";
            return Err(Error::Setting { setting: "sparsity", value: self.sparsity, bound });
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            let (setting, value) = ("learning_rate of the scores", self.learning_rate);
            return Err(Error::Setting { setting, value, bound: "above 0 and finite" });
        }
        match self.soft {
            Some(Soft { threshold, .. }) if !(threshold > 0.0 && threshold < 1.0) => Err(Error::Setting {
                setting: "threshold of soft movement",
                value: threshold,
                bound: "between 0 and 1",
            }),
            Some(Soft { lambda, .. }) if !(lambda >= 0.0 && lambda.is_finite()) => Err(Error::Setting {
                setting: "lambda of soft movement",
                value: lambda,
                bound: "at least 0 and finite",
            }),
            _ => Ok(()),
        }
    }

    /// The masks at this progress of the schedule.
    fn masks(&self, p: f64) -> Result<Vec<Mask>> {
        let amount = match (self.soft, self.pattern) {
            (Some(Soft { threshold, .. }), _) => Amount::Below((threshold / (1.0 - threshold)).ln()),
            (None, Pattern::NOfM { .. }) => Amount::Fraction(self.sparsity),
            (None, _) => Amount::Fraction(self.schedule.sparsity(self.sparsity, p)),
        };
        let ranking = Ranking { pattern: self.pattern, amount, of_remaining: false };
        let observed = self.weights.iter().map(|weight| {
            let observed = Observed::new(&weight.shadow).with(Statistic::Movement, &weight.scores);
            weight.before.iter().fold(observed, Observed::masked)
        });
        let observed: Vec<Observed<'_>> = observed.collect();
        if self.across_layers {
            let tensors: Vec<&dyn Weights> = observed.iter().map(|observed| observed as _).collect();
            return ranking.masks(&prune::Movement, &tensors);
        }
        let mask = |(weight, observed): (&Moving, &Observed<'_>)| {
            ranking.mask(&prune::Movement, observed).map_err(|error| error.in_layer(&weight.name))
        };
        self.weights.iter().zip(&observed).map(mask).collect()
    }

    fn prune_before(&mut self, step: usize, network: &mut Network) -> Result<()> {
        for (_, p) in due(&self.plan, step) {
            for (weight, mask) in self.weights.iter().zip(self.masks(*p)?) {
                network.set_mask(&weight.name, None)?;
                network.set_parameter(&weight.name, &weight.shadow)?;
                network.set_mask(&weight.name, Some(mask))?;
            }
        }
        Ok(())
    }
}

impl Callback for Movement {
    fn start(&mut self, network: &mut Network, steps: usize) -> Result<()> {
        self.validate()?;
        let chosen = self.rules.choose(network.maskable())?;
        self.plan = self.schedule.plan(steps)?;
        // Before the first step nothing has moved.
        self.plan.iter_mut().for_each(|(at, _)| *at = (*at).max(1));
        let moving = |name: String| {
            let (shadow, before) = (network.parameter(&name)?.to_owned(), network.mask(&name)?.cloned());
            Ok(Moving { scores: ArrayD::zeros(shadow.raw_dim()), before, shadow, name })
        };
        let names = chosen.into_iter().filter_map(|(name, chosen)| chosen.map(|_| name));
        self.weights = names.map(moving).collect::<Result<_>>()?;
        // What would go wrong at an event goes wrong before the first step.
        self.plan.first().map_or(Ok(()), |(_, p)| self.masks(*p).map(|_| ()))
    }

    fn before_step(&mut self, _: &Progress, _: &mut Network, gradients: &mut [(String, ArrayD<f32>)]) -> Result<()> {
        let rate = self.learning_rate as f32;
        for weight in &mut self.weights {
            let Some((_, gradient)) = gradients.iter().find(|(name, _)| *name == weight.name) else { continue };
            let penalty = self.soft.map_or(0.0, |soft| (soft.lambda / weight.shadow.len().max(1) as f64) as f32);
            ndarray::Zip::from(&mut weight.scores).and(gradient).and(&weight.shadow).for_each(|score, g, w| {
                let sigmoid = 1.0 / (1.0 + (-*score).exp());
                *score -= rate * (g * w + penalty * sigmoid * (1.0 - sigmoid));
            });
        }
        Ok(())
    }

    fn after_step(&mut self, at: &Progress, network: &mut Network) -> Result<()> {
        for weight in &mut self.weights {
            // Masked weights keep their values; the others are where the step took them.
            let values = network.parameter(&weight.name)?;
            match network.mask(&weight.name)? {
                Some(mask) => {
                    let kept = weight.shadow.iter_mut().zip(values).zip(mask.iter()).filter(|(_, kept)| *kept);
                    kept.for_each(|((shadow, value), _)| *shadow = *value);
                }
                None => weight.shadow.assign(&values),
            }
        }
        self.prune_before(at.step() + 1, network)
    }
}
