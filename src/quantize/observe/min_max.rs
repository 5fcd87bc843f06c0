//! The ends of all that was seen.

use ndarray::Axis;

use super::{Ends, Observer};
use crate::{
    error::Result,
    quantize::{Affine, Uniform},
    tensor::Weights,
};

/// Keeps the least and the largest number ever seen, of the whole or of each channel.
///
/// One outlier widens it for ever; [`MovingAverage`](super::MovingAverage) and [`Histogram`](super::Histogram) forgive.
///
/// ```
/// use ndarray::array;
/// use tersor::{Quantizer, quantize::observe::{MinMax, Observer}};
///
/// let (mut one, mut other) = (MinMax::new(), MinMax::new());
/// one.observe(&array![0.0_f32, 0.5])?;
/// other.observe(&array![-1.0_f32, 1.55])?;
/// one.merge(&other)?;
/// assert_eq!(one.ends(), [(-1.0, 1.55)]);
/// let grid = one.fit(&Quantizer::uniform(8))?;
/// assert_eq!((grid.scale(), grid.zero_point()), (&[0.01][..], &[100][..]));
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MinMax {
    ends: Ends,
}

impl MinMax {
    /// One range for whole batches.
    #[allow(clippy::new_without_default)] // an observer is not a neutral value: its granularity is a choice
    pub fn new() -> Self {
        MinMax { ends: Ends::new(None) }
    }

    /// One range for each index along `axis`.
    pub fn per_channel(axis: Axis) -> Self {
        MinMax { ends: Ends::new(Some(axis)) }
    }

    /// The (least, largest) numbers, one pair a channel; empty before the first batch.
    pub fn ends(&self) -> &[(f32, f32)] {
        &self.ends.ends
    }

    /// Takes in what another saw; the order does not matter.
    ///
    /// # Errors
    /// [`Error::Conflict`](crate::Error::Conflict) if the other sees another axis, [`Error::Shape`](crate::Error::Shape)
    /// if it has a different number of channels.
    pub fn merge(&mut self, other: &MinMax) -> Result<()> {
        self.ends.mergeable(&other.ends)?;
        self.widen(other.ends());
        Ok(())
    }

    fn widen(&mut self, ends: &[(f32, f32)]) {
        if self.ends.ends.is_empty() {
            self.ends.ends = ends.to_vec();
            return;
        }
        for (own, new) in self.ends.ends.iter_mut().zip(ends) {
            *own = (own.0.min(new.0), own.1.max(new.1));
        }
    }
}

impl Observer for MinMax {
    fn observe(&mut self, batch: &dyn Weights) -> Result<()> {
        let ends = self.ends.of(batch)?;
        self.widen(&ends);
        Ok(())
    }

    fn fit(&self, scheme: &Uniform) -> Result<Affine> {
        self.ends.fit(scheme)
    }
}
