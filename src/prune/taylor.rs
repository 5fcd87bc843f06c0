//! First-order Taylor expansion of the loss.

use std::fmt;

use ndarray::ArrayD;

use super::{Score, Units, score::product};
use crate::{
    error::Result,
    tensor::{Statistic, Weights},
};

/// How much the loss would change to first order: `|g w|` of an element, `|Σ g w| / members` of a unit (Molchanov et al.
/// 2019, who square it, which ranks alike). `g` is the gradient of the mean loss of the calibration data.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Taylor;

impl fmt::Debug for Taylor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "taylor")
    }
}

impl Taylor {
    fn change(weights: &dyn Weights) -> Result<ArrayD<f32>> {
        product(weights, Statistic::Gradient, "Pruner::taylor", |w, g| w * g)
    }
}

impl Score for Taylor {
    fn elements(&self, weights: &dyn Weights) -> Result<ArrayD<f32>> {
        Ok(Taylor::change(weights)?.mapv_into(f32::abs))
    }

    fn units(&self, weights: &dyn Weights, units: &Units) -> Result<Vec<f64>> {
        let changes = Taylor::change(weights)?.into_raw_vec_and_offset().0;
        Ok(units.mean(|element| f64::from(changes[element])).into_iter().map(f64::abs).collect())
    }

    fn needs(&self) -> Option<Statistic> {
        Some(Statistic::Gradient)
    }
}
