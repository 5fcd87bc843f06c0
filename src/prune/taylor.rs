//! First-order Taylor expansion of the loss.

use std::fmt;

use ndarray::{ArrayD, IxDyn};

use super::{Score, Units, score::statistic};
use crate::{
    error::Result,
    tensor::{Dense, Statistic, Weights},
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

impl Score for Taylor {
    fn elements(&self, weights: &dyn Weights) -> Result<ArrayD<f32>> {
        let (dense, gradient) = (Dense::new(weights)?, statistic(weights, Statistic::Gradient, "Pruner::taylor")?);
        let scores = dense.values().iter().zip(&gradient).map(|(w, g)| (w * g).abs()).collect();
        Ok(ArrayD::from_shape_vec(IxDyn(dense.shape()), scores).expect("a score an element"))
    }

    fn units(&self, weights: &dyn Weights, units: &Units) -> Result<Vec<f64>> {
        let (dense, gradient) = (Dense::new(weights)?, statistic(weights, Statistic::Gradient, "Pruner::taylor")?);
        let change = |element: usize| f64::from(dense.values()[element]) * f64::from(gradient[element]);
        Ok(units.mean(change).into_iter().map(f64::abs).collect())
    }

    fn needs(&self) -> Option<Statistic> {
        Some(Statistic::Gradient)
    }
}
