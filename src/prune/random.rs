//! No knowledge at all: what others are held against.

use std::fmt;

use ndarray::ArrayD;

use super::{Score, Units};
use crate::{
    error::Result,
    random,
    tensor::{Dense, Weights},
};

/// A random number for every element, or for every unit: all choices of the same size are equally likely.
///
/// The same seed and weights give the same numbers; unlike weights, as those of two layers, numbers that have nothing to
/// do with one another, so that one pruner may serve many.
///
/// ```
/// use tersor::Pruner;
///
/// let layers = [1.0, 2.0].map(|x| ndarray::Array2::from_elem((8, 8), x as f32));
/// let pruned = layers.each_ref().map(|weights| Pruner::random(0.5, 7).apply(weights).unwrap());
/// assert_eq!(pruned[0].mask().kept(), 32);
/// assert_eq!(pruned[0], Pruner::random(0.5, 7).apply(&layers[0])?);
/// assert_ne!(pruned[0].mask(), pruned[1].mask());
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Random {
    seed: u64,
}

impl Random {
    /// Numbers drawn from this seed.
    pub fn new(seed: u64) -> Random {
        Random { seed }
    }

    /// A stream for these weights.
    fn stream(self, dense: &Dense<'_>) -> random::Random {
        let shape = dense.shape().iter().fold(self.seed, |seed, n| random::derive(seed, *n));
        // The sign of a zero is dropped: it is the same number.
        let values = dense.values().iter().map(|w| (w + 0.0).to_bits());
        random::Random::new(values.fold(shape, |seed, bits| random::derive(seed, bits as usize)))
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "random(_, {})", self.seed)
    }
}

impl Score for Random {
    fn elements(&self, weights: &dyn Weights) -> Result<ArrayD<f32>> {
        let dense = Dense::new(weights)?;
        let mut stream = self.stream(&dense);
        Ok(ArrayD::from_shape_simple_fn(dense.shape(), || stream.uniform()))
    }

    fn units(&self, weights: &dyn Weights, units: &Units) -> Result<Vec<f64>> {
        let mut stream = self.stream(&Dense::new(weights)?);
        Ok((0..units.count()).map(|_| f64::from(stream.uniform())).collect())
    }
}
