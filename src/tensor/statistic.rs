//! What data told about weights, number by number.

use ndarray::{ArrayBase, ArrayViewD, CowArray, Data, Dimension, IxDyn};

use super::{Mask, Weights};

/// A quantity gathered from data for every weight, which some pruning scores read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Statistic {
    /// `g = dL/dw`, the gradient of the mean loss of the calibration data.
    Gradient,
    /// `H g`: the Hessian of the mean loss times its gradient.
    HessianGradient,
    /// `dR/d|w|`, the synaptic flow `R` of a network of absolute weights for an input of ones; it needs no data.
    SynapticFlow,
    /// `-Σ g w` over the steps of a training: positive where a weight moved away from zero.
    Movement,
}

impl Statistic {
    /// What a scheme that reads it needs, and how to give it.
    pub(crate) fn needed(self) -> &'static str {
        match self {
            Statistic::Gradient => {
                "the gradient of every weight: give calibration data with apply_with, or the numbers with \
                 Observed::with(Statistic::Gradient, ..)"
            }
            Statistic::HessianGradient => {
                "the Hessian times the gradient of every weight: give calibration data with apply_with, or the numbers \
                 with Observed::with(Statistic::HessianGradient, ..)"
            }
            Statistic::SynapticFlow => {
                "the synaptic flow of every weight: prune a network by a recipe, or give the numbers with \
                 Observed::with(Statistic::SynapticFlow, ..)"
            }
            Statistic::Movement => {
                "the movement of every weight in a training: give the numbers with \
                 Observed::with(Statistic::Movement, ..)"
            }
        }
    }

    /// As [`needed`](Statistic::needed), where all weights of a network are told at once.
    pub(crate) fn needed_by_name(self) -> &'static str {
        match self {
            Statistic::Gradient => {
                "the gradient of every weight: give it by name, as Network::gradient finds it, with \
                 `with(Statistic::Gradient, ..)`"
            }
            Statistic::HessianGradient => {
                "the Hessian times the gradient of every weight: give it by name, as Network::hessian_vector finds it, \
                 with `with(Statistic::HessianGradient, ..)`"
            }
            Statistic::SynapticFlow => {
                "the synaptic flow of every weight: give it by name, as Network::synaptic_flow finds it, with \
                 `with(Statistic::SynapticFlow, ..)`"
            }
            Statistic::Movement => {
                "the movement of every weight in a training: give it by name with `with(Statistic::Movement, ..)`"
            }
        }
    }

    /// Its name in errors.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Statistic::Gradient => "the gradient",
            Statistic::HessianGradient => "the Hessian-gradient product",
            Statistic::SynapticFlow => "the synaptic flow",
            Statistic::Movement => "the movement",
        }
    }
}

/// Weights with what data told about them.
///
/// ```
/// use ndarray::array;
/// use tersor::{Pruner, tensor::{Observed, Statistic}};
///
/// let weights = array![[0.9_f32, -0.1, 0.5]];
/// let gradients = array![[0.01_f32, 2.0, -0.1]];
/// let pruned = Pruner::taylor(1).apply(&Observed::new(&weights).with(Statistic::Gradient, &gradients))?;
/// assert_eq!(pruned.values(), array![[0.0, -0.1, 0.5]].into_dyn()); // |g w|: 0.009, 0.2, 0.05
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone)]
pub struct Observed<'a> {
    weights: &'a dyn Weights,
    mask: Option<&'a Mask>,
    statistics: Vec<(Statistic, ArrayViewD<'a, f32>)>,
}

impl std::fmt::Debug for Observed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let statistics: Vec<_> = self.statistics.iter().map(|(which, _)| which).collect();
        f.debug_struct("Observed").field("mask", &self.mask()).field("statistics", &statistics).finish_non_exhaustive()
    }
}

impl<'a> Observed<'a> {
    /// Nothing told yet.
    pub fn new(weights: &'a dyn Weights) -> Observed<'a> {
        Observed { weights, mask: None, statistics: Vec::new() }
    }

    /// Adds a statistic, of the weights' shape; a pruner that reads it checks it.
    pub fn with<S, D>(mut self, which: Statistic, values: &'a ArrayBase<S, D>) -> Observed<'a>
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        self.statistics.push((which, values.view().into_dyn()));
        self
    }

    /// Says what was removed before, in the weights' shape.
    pub fn masked(self, mask: &'a Mask) -> Observed<'a> {
        Observed { mask: Some(mask), ..self }
    }
}

impl Weights for Observed<'_> {
    fn values(&self) -> CowArray<'_, f32, IxDyn> {
        self.weights.values()
    }

    fn importance(&self) -> Option<ArrayViewD<'_, f32>> {
        self.weights.importance()
    }

    fn mask(&self) -> Option<&Mask> {
        self.mask.or_else(|| self.weights.mask())
    }

    fn statistic(&self, which: Statistic) -> Option<ArrayViewD<'_, f32>> {
        let own = self.statistics.iter().rev().find(|(kind, _)| *kind == which);
        own.map(|(_, values)| values.view()).or_else(|| self.weights.statistic(which))
    }
}
