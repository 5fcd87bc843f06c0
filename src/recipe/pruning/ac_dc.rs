//! Alternating compressed and decompressed training.

use super::Pruning;
use crate::{
    error::{Error, Result},
    nn::{Callback, Data, Network, Progress},
    tensor::Mask,
};

/// AC/DC (Peste et al. 2021): training alternates between dense phases and pruned ones, so that what was removed can come
/// back from zero; it ends pruned. The dense phase before the last, pruned one takes up what is left over. What was
/// removed before the training stays so. Made by [`Pruning::alternating`].
///
/// The defaults are the paper's, of 100 epochs: 10 dense ones, then 5 pruned and 5 dense in turn, at last 10 dense and 15
/// pruned.
///
/// | setting | default | range |
/// |---|---|---|
/// | [`warm_up`](AcDc::warm_up) | 0.1 of the training, dense | 0 to 1 |
/// | [`phase`](AcDc::phase) | 0.05 of it, each | above 0 |
/// | [`last`](AcDc::last) | 0.15 of it, pruned | 0 to 1; with the warm-up at most 1 |
#[derive(Clone, Debug)]
#[must_use]
pub struct AcDc {
    pruning: Pruning,
    warm_up: f64,
    phase: f64,
    last: f64,
    data: Option<Data>,
    /// After how many steps the network is pruned (true), or gets its weights back.
    turns: Vec<(usize, bool)>,
    /// The masks that weights had before.
    before: Vec<(String, Option<Mask>)>,
}

impl AcDc {
    pub(super) fn new(pruning: Pruning) -> AcDc {
        AcDc { pruning, warm_up: 0.1, phase: 0.05, last: 0.15, data: None, turns: vec![], before: vec![] }
    }

    /// Sets the share of the training before the first pruned phase.
    pub fn warm_up(self, share: f64) -> AcDc {
        AcDc { warm_up: share, ..self }
    }

    /// Sets the share of each phase.
    pub fn phase(self, share: f64) -> AcDc {
        AcDc { phase: share, ..self }
    }

    /// Sets the share of the last, pruned phase.
    pub fn last(self, share: f64) -> AcDc {
        AcDc { last: share, ..self }
    }

    /// Gives the data on which scores gather what they read.
    pub fn data(self, data: &Data) -> AcDc {
        AcDc { data: Some(data.clone()), ..self }
    }

    fn turns(&self, steps: usize) -> Vec<(usize, bool)> {
        let at = |share: f64| (share * steps as f64).round() as usize;
        let end = 1.0 - self.last;
        // Pairs of phases that fit, none shorter than a step; a hair more, for sums of shares that are not exact.
        let phase = self.phase.max(1.0 / steps.max(1) as f64);
        let pairs = ((end - self.warm_up) / (2.0 * phase) + 1e-9) as usize;
        let alternating = (0..2 * pairs).map(|turn| (at(self.warm_up + turn as f64 * phase), turn % 2 == 0));
        alternating.chain([(at(end), true)]).collect()
    }

    fn turn(&self, done: usize, network: &mut Network) -> Result<()> {
        let Some((_, compress)) = self.turns.iter().rfind(|(step, _)| *step == done) else { return Ok(()) };
        let mut turned = network.clone();
        self.before.iter().try_for_each(|(name, mask)| turned.set_mask(name, mask.clone()))?;
        if *compress {
            self.pruning.prune_to(&mut turned, self.data.as_ref(), None)?;
        }
        *network = turned;
        Ok(())
    }
}

impl Callback for AcDc {
    fn start(&mut self, network: &mut Network, steps: usize) -> Result<()> {
        for (setting, value) in [("warm_up of AC/DC", self.warm_up), ("last of AC/DC", self.last)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::Setting { setting, value, bound: "at least 0 and at most 1" });
            }
        }
        if !(self.phase > 0.0 && self.phase <= 1.0) {
            return Err(Error::Setting {
                setting: "phase of AC/DC",
                value: self.phase,
                bound: "above 0 and at most 1",
            });
        }
        if self.warm_up + self.last > 1.0 {
            let (setting, value) = ("last of AC/DC", self.last);
            return Err(Error::Setting { setting, value, bound: "at most what the warm-up leaves" });
        }
        // What would go wrong at a turn goes wrong before the first step.
        self.pruning.prune_to(&mut network.clone(), self.data.as_ref(), None)?;
        let planned = self.pruning.dry_run(network)?.into_iter().filter(|planned| planned.scheme.is_some());
        let mask = |name: String| network.mask(&name).map(|mask| (name.clone(), mask.cloned()));
        self.before = planned.map(|planned| mask(planned.name)).collect::<Result<_>>()?;
        self.turns = self.turns(steps);
        self.turn(0, network)
    }

    fn after_step(&mut self, at: &Progress, network: &mut Network) -> Result<()> {
        self.turn(at.step() + 1, network)
    }
}
