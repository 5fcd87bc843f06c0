//! Synaptic flow.

use std::fmt;

use ndarray::ArrayD;

use super::{Ranked, Score, score::product};
use crate::{
    error::Result,
    tensor::{Statistic, Weights},
};

/// SynFlow (Tanaka et al. 2020): `|w| dR/d|w|`, the share of the flow `R = 1ᵀ Π |W| 1` that runs through a weight. It
/// needs no data, and is meant for one ranking over all layers, in many rounds with the flow found anew in each: then no
/// layer is emptied while another can still give.
///
/// | setting | default | range |
/// |---|---|---|
/// | [`rounds`](Ranked::<SynFlow>::rounds) | 100 | at least 1 |
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SynFlow {
    rounds: usize,
}

impl Default for SynFlow {
    fn default() -> SynFlow {
        SynFlow { rounds: 100 }
    }
}

impl fmt::Debug for SynFlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rounds == 100 { write!(f, "synflow") } else { write!(f, "synflow(_).rounds({})", self.rounds) }
    }
}

impl Ranked<SynFlow> {
    /// Sets the rounds in which a network is brought to its sparsity.
    pub fn rounds(mut self, rounds: usize) -> Ranked<SynFlow> {
        self.score.rounds = rounds;
        self
    }
}

impl Score for SynFlow {
    fn elements(&self, weights: &dyn Weights) -> Result<ArrayD<f32>> {
        product(weights, Statistic::SynapticFlow, "Pruner::synflow", |w, flow| (w * flow).abs())
    }

    fn needs(&self) -> Option<Statistic> {
        Some(Statistic::SynapticFlow)
    }

    fn rounds(&self) -> usize {
        self.rounds
    }
}
