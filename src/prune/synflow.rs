//! Synaptic flow.

use std::fmt;

use ndarray::ArrayD;

use super::{Ranked, Score, score::product};
use crate::{
    error::{Error, Result},
    tensor::{Statistic, Weights},
};

/// SynFlow (Tanaka et al. 2020): `|w| dR/d|w|`, the share of the flow `R = 1ᵀ Π |W| 1` that runs through a weight. It
/// needs no data, and is meant for one ranking over all layers, in many rounds with the flow found anew in each: then no
/// layer is emptied while another can still give. Applied to a tensor, it cuts once, by the flow that it is given.
///
/// | setting | default | range |
/// |---|---|---|
/// | [`rounds`](Ranked::<SynFlow>::rounds) | 100 | at least 1 |
///
/// ```
/// use ndarray::array;
/// use tersor::{Pruner, tensor::{Observed, Statistic}};
///
/// let weights = array![[0.9_f32, -0.1, 0.5]];
/// let flow = array![[0.1_f32, 8.0, 0.1]]; // the second leads to large weights
/// let pruned = Pruner::synflow(1).apply(&Observed::new(&weights).with(Statistic::SynapticFlow, &flow))?;
/// assert_eq!(pruned.values(), array![[0.9, -0.1, 0.0]].into_dyn()); // |w| dR/d|w|: 0.09, 0.8, 0.05
/// # Ok::<(), tersor::Error>(())
/// ```
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
        if self.rounds == 0 {
            return Err(Error::Setting { setting: "rounds", value: 0.0, bound: "at least 1" });
        }
        product(weights, Statistic::SynapticFlow, "Pruner::synflow", |w, flow| (w * flow).abs())
    }

    fn needs(&self) -> Option<Statistic> {
        Some(Statistic::SynapticFlow)
    }

    fn rounds(&self) -> usize {
        self.rounds.max(1) // of which the first refuses 0
    }
}
