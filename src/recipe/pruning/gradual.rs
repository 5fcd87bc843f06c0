//! Pruning step by step while training.

use super::{Pruning, due};
use crate::{
    error::Result,
    nn::{Callback, Data, Network, Progress},
    prune::Schedule,
};

/// Prunes ever more while a network trains, as a [`Schedule`] says (Zhu and Gupta 2017). What is removed stays so. Made by
/// [`Pruning::gradually`].
///
/// ```
/// use ndarray::Array2;
/// use tersor::{Pruner, Recipe, nn::{Adam, Data, Network, Training}, prune::Schedule};
///
/// let mut network = Network::builder(1).linear(8, 32).relu().linear(32, 2).build()?;
/// let data = Data::classes(Array2::from_shape_fn((64, 8), |(i, j)| ((i * j) as f32).sin()), (0..64).map(|i| i % 2))?;
/// let pruning = Recipe::new().prune("*", Pruner::magnitude(0.9)).across_layers();
/// let mut gradual = pruning.gradually(Schedule::cubic().over(0.0, 0.5).events(10));
/// Training::new(10).train_with(&mut network, &data, &mut Adam::new(1e-3), &mut gradual, &mut |_| {
///     std::ops::ControlFlow::Continue(())
/// })?;
/// assert_eq!(network.masks().iter().map(|(_, mask)| mask.kept()).sum::<usize>(), 32); // a tenth of 320
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Gradual {
    pruning: Pruning,
    schedule: Schedule,
    data: Option<Data>,
    /// The events of the training under way.
    plan: Vec<(usize, f64)>,
}

impl Gradual {
    pub(super) fn new(pruning: Pruning, schedule: Schedule) -> Gradual {
        Gradual { pruning, schedule, data: None, plan: Vec::new() }
    }

    /// Gives the data on which scores gather what they read.
    pub fn data(self, data: &Data) -> Gradual {
        Gradual { data: Some(data.clone()), ..self }
    }

    /// Does what is due before this step.
    fn prune_before(&self, step: usize, network: &mut Network) -> Result<()> {
        for (_, p) in due(&self.plan, step) {
            *network = self.pruned(network, *p)?;
        }
        Ok(())
    }

    fn pruned(&self, network: &Network, p: f64) -> Result<Network> {
        let on_the_way = |end: f64| self.schedule.sparsity(end, p);
        let mut pruned = network.clone();
        self.pruning.prune_to(&mut pruned, self.data.as_ref(), if p < 1.0 { Some(&on_the_way) } else { None })?;
        Ok(pruned)
    }
}

impl Callback for Gradual {
    fn start(&mut self, network: &mut Network, steps: usize) -> Result<()> {
        self.plan = self.schedule.plan(steps)?;
        // What would go wrong at an event goes wrong before the first step.
        self.plan.first().map_or(Ok(()), |(_, p)| self.pruned(network, *p).map(|_| ()))?;
        self.prune_before(0, network)
    }

    fn after_step(&mut self, at: &Progress, network: &mut Network) -> Result<()> {
        self.prune_before(at.step() + 1, network)
    }
}
