//! No knowledge at all: what others are held against.

use std::fmt;

use ndarray::ArrayD;

use super::{Score, Units};
use crate::{
    error::Result,
    random,
    tensor::{Dense, Weights},
};

/// A random number for every element, or for every unit: all choices of the same size are equally likely. The same seed
/// and shape give the same numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Random {
    seed: u64,
}

impl Random {
    /// Numbers drawn from this seed.
    pub fn new(seed: u64) -> Random {
        Random { seed }
    }

    /// Tensors of unlike shapes get unlike numbers, so that one pruner may serve many.
    fn draw(self, shape: &[usize]) -> impl FnMut() -> f32 {
        let mut stream = random::Random::new(shape.iter().fold(self.seed, |seed, n| random::derive(seed, *n)));
        move || stream.uniform()
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
        let mut draw = self.draw(dense.shape());
        Ok(ArrayD::from_shape_simple_fn(dense.shape(), &mut draw))
    }

    fn units(&self, weights: &dyn Weights, units: &Units) -> Result<Vec<f64>> {
        let dense = Dense::new(weights)?;
        let mut draw = self.draw(dense.shape());
        Ok((0..units.count()).map(|_| f64::from(draw())).collect())
    }
}
