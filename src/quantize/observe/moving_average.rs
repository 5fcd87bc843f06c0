//! Ends that forget.

use ndarray::Axis;

use super::{Ends, Observer};
use crate::{
    error::{Error, Result},
    quantize::{Affine, Uniform},
    tensor::Weights,
};

/// Ends that move towards each batch's own: `m += c * (batch - m)`, starting at the first batch's.
///
/// | setting | default | range |
/// |---|---|---|
/// | `c`, the averaging constant | 0.01 (torch) | above 0, at most 1 |
///
/// ```
/// use ndarray::array;
/// use tersor::quantize::observe::{MovingAverage, Observer};
///
/// let mut seen = MovingAverage::new(0.5);
/// seen.observe(&array![0.0_f32, 1.0])?;
/// seen.observe(&array![-1.0_f32, 3.0])?;
/// assert_eq!(seen.ends(), [(-0.5, 2.0)]);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct MovingAverage {
    constant: f64,
    ends: Ends,
    /// The first batch's ends and the number of batches: with them, streams can be joined exactly.
    first: Vec<(f32, f32)>,
    batches: i32,
}

impl MovingAverage {
    /// One range for whole batches.
    pub fn new(constant: f64) -> Self {
        MovingAverage { constant, ends: Ends::new(None), first: Vec::new(), batches: 0 }
    }

    /// One range for each index along `axis`.
    pub fn per_channel(constant: f64, axis: Axis) -> Self {
        MovingAverage { ends: Ends::new(Some(axis)), ..MovingAverage::new(constant) }
    }

    /// The averaged (least, largest) numbers, one pair a channel; empty before the first batch.
    pub fn ends(&self) -> &[(f32, f32)] {
        &self.ends.ends
    }

    /// Takes in what another saw, as if its batches had followed this one's.
    ///
    /// The average is linear in its start: after `n` batches a start moved from `f` to `m` has moved the average by
    /// `(1 - c)^n (m - f)`, so the other's first batch is all that joining needs.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the other sees another axis, [`Error::Shape`] if the number of channels differs,
    /// [`Error::Setting`] if the constant does.
    pub fn merge(&mut self, other: &MovingAverage) -> Result<()> {
        self.ends.mergeable(&other.ends)?;
        if other.constant != self.constant {
            let (value, bound) = (other.constant, "the same in both observers");
            return Err(Error::Setting { setting: "averaging constant", value, bound });
        }
        if other.batches == 0 {
            return Ok(());
        }
        if self.batches == 0 {
            self.clone_from(other);
            return Ok(());
        }
        let kept = (1.0 - self.constant).powi(other.batches);
        let joined =
            |own: f32, other: f32, first: f32| (f64::from(other) + kept * (f64::from(own) - f64::from(first))) as f32;
        for ((own, other), first) in self.ends.ends.iter_mut().zip(other.ends()).zip(&other.first) {
            *own = (joined(own.0, other.0, first.0), joined(own.1, other.1, first.1));
        }
        self.batches += other.batches;
        Ok(())
    }
}

impl Observer for MovingAverage {
    fn observe(&mut self, batch: &dyn Weights) -> Result<()> {
        self.valid()?;
        let new = self.ends.of(batch)?;
        if self.batches == 0 {
            (self.first, self.ends.ends) = (new.clone(), new);
        } else {
            // In f64, since two numbers may lie further apart than f32 is high.
            let towards =
                |own: f32, new: f32| (f64::from(own) + self.constant * (f64::from(new) - f64::from(own))) as f32;
            for (own, new) in self.ends.ends.iter_mut().zip(new) {
                *own = (towards(own.0, new.0), towards(own.1, new.1));
            }
        }
        self.batches += 1;
        Ok(())
    }

    fn fit(&self, scheme: &Uniform) -> Result<Affine> {
        self.valid()?;
        self.ends.fit(scheme)
    }
}

impl MovingAverage {
    fn valid(&self) -> Result<()> {
        if self.constant > 0.0 && self.constant <= 1.0 {
            return Ok(());
        }
        let bound = "above 0 and at most 1";
        Err(Error::Setting { setting: "averaging constant", value: self.constant, bound })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::arr1;

    #[test]
    fn merging_equals_seeing_both_streams() {
        let batches = [[-1.0f32, 2.0], [-3.0, 1.0], [0.5, 7.0], [-2.0, 0.0], [-9.0, 4.0]];
        for cut in 0..=batches.len() {
            let (mut all, mut head, mut tail) =
                (MovingAverage::new(0.3), MovingAverage::new(0.3), MovingAverage::new(0.3));
            for (i, batch) in batches.iter().enumerate() {
                all.observe(&arr1(batch)).unwrap();
                if i < cut { head.observe(&arr1(batch)).unwrap() } else { tail.observe(&arr1(batch)).unwrap() }
            }
            head.merge(&tail).unwrap();
            let ((a, b), (c, d)) = (head.ends()[0], all.ends()[0]);
            assert!((a - c).abs() < 1e-5 && (b - d).abs() < 1e-5, "cut at {cut}: {a} {b}, not {c} {d}");
        }
    }
}
