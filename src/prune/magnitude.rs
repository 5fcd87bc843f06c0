//! The size of the numbers.

use std::fmt;

use ndarray::ArrayD;

use super::{Ranked, Score, Units};
use crate::{
    error::{Error, Result},
    tensor::{Dense, Weights},
};

/// Magnitude: `|w|` of an element, the p-norm of a unit (Han et al. 2015; Li et al. 2017).
///
/// A unit's norm is taken as the power mean `(Σ |w|ᵖ / members)^(1/p)`, which ranks the rows of a tensor as the p-norm
/// does and makes rows of several tensors, and blocks cut short, comparable.
///
/// | setting | default | range |
/// |---|---|---|
/// | [`norm`](Ranked::<Magnitude>::norm) | 2 | any number but 0, infinities included |
#[derive(Clone, Copy, PartialEq)]
pub struct Magnitude {
    p: f64,
}

impl Default for Magnitude {
    fn default() -> Magnitude {
        Magnitude { p: 2.0 }
    }
}

impl fmt::Debug for Magnitude {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.p == 2.0 { write!(f, "magnitude(_)") } else { write!(f, "magnitude(_).norm({:?})", self.p) }
    }
}

impl Magnitude {
    /// Units by their p-norm: see [`Ranked::<Magnitude>::norm`].
    pub fn of_norm(p: f64) -> Magnitude {
        Magnitude { p }
    }
}

impl Ranked<Magnitude> {
    /// Sets the `p` of the norm of rows and blocks: 1, 2, `f64::INFINITY` (the largest), `f64::NEG_INFINITY` (the least).
    pub fn norm(mut self, p: f64) -> Ranked<Magnitude> {
        self.score.p = p;
        self
    }
}

impl Score for Magnitude {
    fn elements(&self, weights: &dyn Weights) -> Result<ArrayD<f32>> {
        Ok(weights.values().mapv(f32::abs))
    }

    fn units(&self, weights: &dyn Weights, units: &Units) -> Result<Vec<f64>> {
        let dense = Dense::new(weights)?;
        let size = |element: usize| f64::from(dense.values()[element].abs());
        Ok(match self.p {
            p if p.is_nan() || p == 0.0 => {
                return Err(Error::Setting { setting: "p of the norm", value: p, bound: "a number other than 0" });
            }
            f64::INFINITY => units.fold(0.0, |largest: &mut f64, element| *largest = largest.max(size(element))),
            f64::NEG_INFINITY => {
                units.fold(f64::INFINITY, |least: &mut f64, element| *least = least.min(size(element)))
            }
            1.0 => units.mean(size),
            p => units.mean(|element| size(element).powf(p)).into_iter().map(|mean| mean.powf(1.0 / p)).collect(),
        })
    }
}
