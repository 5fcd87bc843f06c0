//! Alternating compressed and decompressed training.

use super::Pruning;
use crate::{
    error::{Error, Result},
    nn::{Callback, Data, Network, Progress},
};

/// AC/DC (Peste et al. 2021): training alternates between dense phases and pruned ones, so that what was removed can come
/// back from zero; it ends pruned. Made by [`Pruning::alternating`].
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
    steps: usize,
    compressed: bool,
}

impl AcDc {
    pub(super) fn new(pruning: Pruning) -> AcDc {
        AcDc { pruning, warm_up: 0.1, phase: 0.05, last: 0.15, data: None, steps: 0, compressed: false }
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

    /// Whether the network is pruned in this step.
    fn is_compressed(&self, step: usize) -> bool {
        let progress = step as f64 / self.steps.max(1) as f64;
        if progress < self.warm_up {
            return false;
        }
        progress >= 1.0 - self.last || (((progress - self.warm_up) / self.phase) as usize).is_multiple_of(2)
    }

    fn turn(&mut self, step: usize, network: &mut Network) -> Result<()> {
        let compressed = self.is_compressed(step);
        if compressed && !self.compressed {
            let mut pruned = network.clone();
            self.pruning.prune_to(&mut pruned, self.data.as_ref(), None)?;
            *network = pruned;
        }
        if !compressed && self.compressed {
            for planned in self.pruning.dry_run(network)?.into_iter().filter(|planned| planned.scheme.is_some()) {
                network.set_mask(&planned.name, None)?;
            }
        }
        self.compressed = compressed;
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
        self.pruning.dry_run(network)?;
        (self.steps, self.compressed) = (steps, false);
        self.turn(0, network)
    }

    fn after_step(&mut self, at: &Progress, network: &mut Network) -> Result<()> {
        // After the last step the network stays in the phase that ended it.
        if at.step() + 1 < self.steps { self.turn(at.step() + 1, network) } else { Ok(()) }
    }

    fn finish(&mut self, network: &mut Network) -> Result<()> {
        self.compressed = self.is_compressed(self.steps.saturating_sub(1));
        if !self.compressed {
            // A training of too few steps for a last phase ends pruned all the same.
            self.pruning.prune_to(network, self.data.as_ref(), None)?;
        }
        Ok(())
    }
}
