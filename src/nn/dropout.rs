//! Dropout, whose masks depend on the seed and the sample's place in the batch, never on how work is shared out.

use ndarray::ArrayD;

use super::dense::for_each_sample;
use crate::{
    Error, Result,
    random::{Random, derive},
};

/// Dropout (Srivastava et al. 2014): in training every element is 0 with probability `p`, and `1 / (1 - p)` times
/// itself otherwise; in evaluation nothing happens.
///
/// ```
/// use ndarray::Array2;
/// use tersor::nn::{Mode, Network};
///
/// let network = Network::builder(0).dropout(0.5).build()?;
/// let x = Array2::<f32>::ones((1, 1000));
/// assert_eq!(network.forward(&x)?, x.clone().into_dyn());
/// let dropped = network.trace(&x, Mode::Training { seed: 1 })?;
/// assert!(dropped.output().iter().all(|y| *y == 0.0 || *y == 2.0));
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dropout {
    /// The probability of dropping an element: at least 0, below 1.
    pub p: f64,
}

impl Dropout {
    /// Dropout with probability `p`.
    pub fn new(p: f64) -> Dropout {
        Dropout { p }
    }

    pub(super) fn check(&self) -> Result<()> {
        if (0.0..1.0).contains(&self.p) {
            return Ok(());
        }
        Err(Error::Setting { setting: "p of dropout", value: self.p, bound: "at least 0 and below 1" })
    }

    /// Masks and scales a batch, or the gradient of one: the two passes are the same.
    pub(super) fn apply(&self, mut x: ArrayD<f32>, seed: u64) -> ArrayD<f32> {
        let sample = x.len() / x.shape()[0];
        let factor = (1.0 / (1.0 - self.p)) as f32;
        for_each_sample(x.as_slice_mut().expect("row-major"), sample, sample, |index, sample| {
            let mut random = Random::new(derive(seed, index));
            for x in sample {
                *x = if f64::from(random.uniform()) < self.p { 0.0 } else { *x * factor };
            }
        });
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_p_is_dropped_and_the_mean_is_kept() {
        for p in [0.0, 0.25, 0.8] {
            let x = Dropout::new(p).apply(ArrayD::ones(vec![100, 1000]), 3);
            let dropped = x.iter().filter(|x| **x == 0.0).count() as f64 / 1e5;
            // Five standard errors of 1e5 draws.
            assert!((dropped - p).abs() <= 5.0 * (p * (1.0 - p) / 1e5).sqrt(), "{p}: {dropped}");
            assert!((f64::from(x.sum()) / 1e5 - 1.0).abs() < 0.04);
        }
    }

    #[test]
    fn the_mask_of_a_sample_does_not_depend_on_the_batch() {
        let few = Dropout::new(0.5).apply(ArrayD::ones(vec![2, 9]), 1);
        let many = Dropout::new(0.5).apply(ArrayD::ones(vec![5, 9]), 1);
        assert_eq!(few.as_slice().unwrap(), &many.as_slice().unwrap()[..18]);
        assert_ne!(few, Dropout::new(0.5).apply(ArrayD::ones(vec![2, 9]), 2));
    }
}
