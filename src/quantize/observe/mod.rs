//! Observers: what range do activations have? Streaming (a batch at a time, nothing stored) and mergeable.

mod histogram;
mod min_max;
mod moving_average;

pub use histogram::Histogram;
pub use min_max::MinMax;
pub use moving_average::MovingAverage;

use ndarray::Axis;

use super::{Affine, Range, Uniform, passes};
use crate::{
    error::{Error, Result},
    kernels::numbers::Numbers,
    tensor::{Dense, Granularity, Weights},
};

/// Watches batches of activations and fits a grid to what it saw.
///
/// ```
/// use ndarray::Array2;
/// use tersor::{Quantizer, quantize::{Range, observe::{Histogram, Observer}}};
///
/// let mut seen = Histogram::new();
/// for batch in 0..4 {
///     seen.observe(&Array2::from_shape_fn((8, 32), |(i, j)| ((batch * 256 + i * 32 + j) as f32).sin()))?;
/// }
/// let grid = seen.fit(&Quantizer::uniform(8).range(Range::Mse))?;
/// assert!((grid.scale()[0] - 2.0 / 255.0).abs() < 2e-4);
/// # Ok::<(), tersor::Error>(())
/// ```
pub trait Observer: std::fmt::Debug + Send + Sync {
    /// Takes in one batch, of any shape.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::NotFinite`]; for observers per channel [`Error::Axis`], and [`Error::Shape`] if the
    /// number of channels changes. A batch that fails leaves the observer as it was.
    fn observe(&mut self, batch: &dyn Weights) -> Result<()>;

    /// The grid that `scheme` fits to what was seen: its bits, mapping, range and convention count; its granularity is
    /// the observer's own.
    ///
    /// # Errors
    /// [`Error::Empty`] if nothing was seen yet; [`Error::Conflict`] if the scheme's range needs more than the observer
    /// keeps; the scheme's own.
    fn fit(&self, scheme: &Uniform) -> Result<Affine>;
}

/// The least and the largest number of each channel, or of all.
#[derive(Clone, Debug, PartialEq)]
struct Ends {
    granularity: Granularity,
    ends: Vec<(f32, f32)>,
}

impl Ends {
    fn new(axis: Option<Axis>) -> Self {
        Ends { granularity: axis.map_or(Granularity::Tensor, Granularity::Channel), ends: Vec::new() }
    }

    /// The ends of one batch, checked against those seen before.
    fn of(&self, batch: &dyn Weights) -> Result<Vec<(f32, f32)>> {
        let batch = Dense::unchecked("the batch", batch)?;
        let groups = self.granularity.groups(batch.shape())?;
        let Some(ends) = passes::ends(&Numbers::F32(batch.values()), &groups) else {
            return batch.check_finite().map(|()| Vec::new());
        };
        self.same_channels(groups.count())?;
        Ok(ends.into_iter().map(|ends| ends.or_zero()).collect())
    }

    fn same_channels(&self, found: usize) -> Result<()> {
        if self.ends.is_empty() || self.ends.len() == found {
            return Ok(());
        }
        Err(Error::Shape { what: "the channels of a batch", expected: vec![self.ends.len()], found: vec![found] })
    }

    /// Checks that another observer's ends are of the same channels.
    fn mergeable(&self, other: &Ends) -> Result<()> {
        if self.granularity != other.granularity {
            return Err(Error::Conflict {
                what: format!("one observer sees {:?}, the other {:?}", self.granularity, other.granularity),
                remedy: "merge observers of one granularity",
            });
        }
        if other.ends.is_empty() { Ok(()) } else { self.same_channels(other.ends.len()) }
    }

    fn fit(&self, scheme: &Uniform) -> Result<Affine> {
        let rule = scheme.rule()?;
        if self.ends.is_empty() {
            return Err(Error::Empty { what: "the observer" });
        }
        if scheme.range_chooser() != Range::MinMax {
            return Err(Error::Conflict {
                what: format!(
                    "{:?} needs the distribution, but this observer keeps only its ends",
                    scheme.range_chooser()
                ),
                remedy: "observe with a Histogram",
            });
        }
        let steps = self.ends.iter().map(|(min, max)| rule.step(*min, *max).map(|step| (step.scale, step.zero)));
        let (scale, zero_point) = steps.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok(Affine::new(scale, zero_point, self.granularity, rule.codes)?.convention(rule.convention))
    }
}
