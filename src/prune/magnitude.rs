//! The size of the numbers.

use std::fmt;

use ndarray::{ArrayD, IxDyn};

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
/// Of the scales of a batch normalization, a vector, it is `|γ|`: the score of network slimming (Liu et al. 2017).
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
        let dense = Dense::new(weights)?;
        let sizes = dense.values().iter().map(|w| w.abs()).collect();
        Ok(ArrayD::from_shape_vec(IxDyn(dense.shape()), sizes).expect("a score an element"))
    }

    fn is_magnitude(&self) -> bool {
        // Whatever the norm, it is that of one number; one that does not exist is found by `units`.
        !(self.p.is_nan() || self.p == 0.0)
    }

    fn units(&self, weights: &dyn Weights, units: &Units) -> Result<Vec<f64>> {
        let dense = Dense::new(weights)?;
        let size = |element: usize| f64::from(dense.values()[element].abs());
        let largest = || units.fold(0.0, |largest: &mut f64, element| *largest = largest.max(size(element)));
        let least = || units.fold(f64::INFINITY, |least: &mut f64, element| *least = least.min(size(element)));
        Ok(match self.p {
            p if p.is_nan() || p == 0.0 => {
                return Err(Error::Setting { setting: "p of the norm", value: p, bound: "a number other than 0" });
            }
            f64::INFINITY => largest(),
            f64::NEG_INFINITY => least(),
            1.0 => units.mean(size),
            2.0 => units.mean(|element| size(element).powi(2)).into_iter().map(f64::sqrt).collect(),
            p => {
                // In units of the end that a high power is ruled by, so that no power overflows, nor all vanish.
                let ends = if p > 0.0 { largest() } else { least() };
                let shares = units.mean(|element| match ends[units.unit_of(element)] {
                    0.0 => 0.0,
                    end => (size(element) / end).powf(p),
                });
                let norm = |(end, share): (f64, f64)| if end == 0.0 { 0.0 } else { end * share.powf(1.0 / p) };
                ends.into_iter().zip(shares).map(norm).collect()
            }
        })
    }
}
