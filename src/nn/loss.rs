//! What training makes small.

use std::fmt::Debug;

use ndarray::{ArrayD, ArrayViewD};

use super::{
    Targets,
    data::{expect_labels, no_classes},
    dense::array,
    shape::{elements, expect_shape},
};
use crate::{Error, Result};

/// A loss: one number for a batch of outputs, and its gradient.
pub trait Loss: Debug + Send + Sync {
    /// The loss of a batch, and its gradient for the outputs.
    ///
    /// # Errors
    /// What [`Loss::check`] says.
    fn evaluate(&self, outputs: ArrayViewD<'_, f32>, targets: &Targets) -> Result<(f64, ArrayD<f32>)>;

    /// Whether outputs of this shape can be held against these targets; training asks before its first step.
    ///
    /// # Errors
    /// What does not fit.
    fn check(&self, outputs: &[usize], targets: &Targets) -> Result<()>;

    /// How [`evaluate`](Loss::evaluate)'s gradient changes as the outputs move in a direction: the loss's own Hessian
    /// times it. By default a central difference of the gradient, over a step of 2⁻¹⁰ of the direction's largest element.
    ///
    /// # Errors
    /// As [`evaluate`](Loss::evaluate); [`Error::Shape`] for a direction of another shape than the outputs'.
    fn gradient_tangent(
        &self,
        outputs: ArrayViewD<'_, f32>,
        direction: ArrayViewD<'_, f32>,
        targets: &Targets,
    ) -> Result<ArrayD<f32>> {
        expect_shape("the direction", outputs.shape(), direction.shape())?;
        let largest = direction.iter().fold(0f32, |largest, x| largest.max(x.abs()));
        if largest == 0.0 {
            return Ok(direction.to_owned());
        }
        let step = 1.0 / 1024.0 / largest;
        let at =
            |step: f32| self.evaluate((&outputs + &(&direction * step)).view(), targets).map(|(_, gradient)| gradient);
        Ok((at(step)? - at(-step)?) / (2.0 * step))
    }
}

/// Softmax cross-entropy of logits (batch, classes), mean over the batch:
/// `-Σ q log softmax(logits)` with `q = (1 - ε) [class] + ε / classes` (label smoothing, Szegedy et al. 2016).
///
/// | setting | default | range |
/// |---|---|---|
/// | `label_smoothing` | 0 | 0 to 1 |
///
/// ```
/// use ndarray::array;
/// use tersor::nn::{CrossEntropy, Loss, Targets};
///
/// let logits = array![[0.0, 0.0]].into_dyn();
/// let (loss, gradient) = CrossEntropy::new().evaluate(logits.view(), &Targets::Classes(vec![1]))?;
/// assert!((loss - 2f64.ln()).abs() < 1e-7);
/// assert_eq!(gradient, array![[0.5, -0.5]].into_dyn());
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CrossEntropy {
    label_smoothing: f64,
}

impl CrossEntropy {
    /// Without label smoothing.
    pub fn new() -> CrossEntropy {
        CrossEntropy::default()
    }

    /// Sets the share ε of a target that is spread over all classes.
    pub fn label_smoothing(self, label_smoothing: f64) -> CrossEntropy {
        CrossEntropy { label_smoothing }
    }
}

impl Loss for CrossEntropy {
    fn check(&self, outputs: &[usize], targets: &Targets) -> Result<()> {
        if !(0.0..=1.0).contains(&self.label_smoothing) {
            let bound = "0 to 1";
            return Err(Error::Setting { setting: "label_smoothing", value: self.label_smoothing, bound });
        }
        let Targets::Classes(labels) = targets else { return Err(no_classes()) };
        let &[batch, classes] = outputs else {
            return Err(Error::Rank { what: "outputs", expected: "2", found: outputs.to_vec() });
        };
        elements("outputs", outputs)?;
        expect_shape("labels", &[batch], &[labels.len()])?;
        expect_labels(labels, classes)
    }

    fn evaluate(&self, outputs: ArrayViewD<'_, f32>, targets: &Targets) -> Result<(f64, ArrayD<f32>)> {
        self.check(outputs.shape(), targets)?;
        let Targets::Classes(labels) = targets else { return Err(no_classes()) };
        let (batch, classes) = (labels.len() as f64, outputs.shape()[1]);
        let spread = self.label_smoothing / classes as f64;
        let mut loss = 0.0;
        let mut gradient = Vec::with_capacity(outputs.len());
        for (logits, label) in outputs.rows().into_iter().zip(labels) {
            let largest = logits.fold(f64::NEG_INFINITY, |largest, z| largest.max(f64::from(*z)));
            let log_sum = logits.iter().map(|z| (f64::from(*z) - largest).exp()).sum::<f64>().ln() + largest;
            for (class, z) in logits.iter().enumerate() {
                let log_probability = f64::from(*z) - log_sum;
                let target = spread + if class == *label { 1.0 - self.label_smoothing } else { 0.0 };
                if target > 0.0 {
                    loss -= target * log_probability / batch;
                }
                gradient.push(((log_probability.exp() - target) / batch) as f32);
            }
        }
        Ok((loss, array(outputs.shape(), gradient)))
    }

    /// With `p` the softmax: `p (ż - Σ p ż) / batch`; the targets do not matter.
    fn gradient_tangent(
        &self,
        outputs: ArrayViewD<'_, f32>,
        direction: ArrayViewD<'_, f32>,
        targets: &Targets,
    ) -> Result<ArrayD<f32>> {
        self.check(outputs.shape(), targets)?;
        expect_shape("the direction", outputs.shape(), direction.shape())?;
        let batch = outputs.shape()[0] as f64;
        let mut tangent = Vec::with_capacity(outputs.len());
        for (logits, direction) in outputs.rows().into_iter().zip(direction.rows()) {
            let largest = logits.fold(f64::NEG_INFINITY, |largest, z| largest.max(f64::from(*z)));
            let exponentials: Vec<f64> = logits.iter().map(|z| (f64::from(*z) - largest).exp()).collect();
            let sum = exponentials.iter().sum::<f64>();
            let mean = exponentials.iter().zip(direction).map(|(e, d)| e / sum * f64::from(*d)).sum::<f64>();
            let pairs = exponentials.iter().zip(direction);
            tangent.extend(pairs.map(|(e, d)| (e / sum * (f64::from(*d) - mean) / batch) as f32));
        }
        Ok(array(outputs.shape(), tangent))
    }
}

/// `(output - target)²`, mean over all elements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeanSquaredError;

impl Loss for MeanSquaredError {
    fn check(&self, outputs: &[usize], targets: &Targets) -> Result<()> {
        elements("outputs", outputs)?;
        expect_shape("targets", outputs, values(targets)?.shape())
    }

    fn evaluate(&self, outputs: ArrayViewD<'_, f32>, targets: &Targets) -> Result<(f64, ArrayD<f32>)> {
        self.check(outputs.shape(), targets)?;
        let (count, targets) = (outputs.len() as f64, values(targets)?);
        let mut loss = 0.0;
        let mut gradient = Vec::with_capacity(outputs.len());
        for (output, target) in outputs.iter().zip(targets) {
            let error = f64::from(*output) - f64::from(*target);
            loss += error * error / count;
            gradient.push((2.0 * error / count) as f32);
        }
        Ok((loss, array(outputs.shape(), gradient)))
    }

    /// `2 ẏ / count`.
    fn gradient_tangent(
        &self,
        outputs: ArrayViewD<'_, f32>,
        direction: ArrayViewD<'_, f32>,
        targets: &Targets,
    ) -> Result<ArrayD<f32>> {
        self.check(outputs.shape(), targets)?;
        expect_shape("the direction", outputs.shape(), direction.shape())?;
        Ok(direction.mapv(|x| (2.0 * f64::from(x) / outputs.len() as f64) as f32))
    }
}

fn values(targets: &Targets) -> Result<ArrayViewD<'_, f32>> {
    match targets {
        Targets::Values(values) => Ok(values.view()),
        Targets::Classes(_) | Targets::Unlabelled => Err(Error::Conflict {
            what: "the targets are no values, but values are needed".into(),
            remedy: "make the data with Data::values, or train with CrossEntropy",
        }),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;
    use proptest::prelude::*;

    use super::*;

    /// The gradient of every element is the central difference quotient of the value.
    fn holds_to_its_quotient(loss: &dyn Loss, outputs: &ArrayD<f32>, targets: &Targets) {
        let (_, gradient) = loss.evaluate(outputs.view(), targets).unwrap();
        for (i, slope) in gradient.iter().enumerate() {
            let at = |h: f32| {
                let mut moved = outputs.clone();
                moved.as_slice_mut().unwrap()[i] += h;
                loss.evaluate(moved.view(), targets).unwrap().0
            };
            let quotient = (at(1.0 / 256.0) - at(-1.0 / 256.0)) * 128.0;
            assert!((quotient - f64::from(*slope)).abs() < 1e-4, "{loss:?}[{i}]: {slope}, quotient {quotient}");
        }
    }

    proptest! {
        #[test]
        fn every_gradient_is_the_difference_quotient(
            (classes, rows) in (1usize..5).prop_flat_map(|classes| {
                let row = (prop::collection::vec(-3.0f32..3.0, classes), 0..classes, -2.0f32..2.0);
                (Just(classes), prop::collection::vec(row, 1..5))
            }),
            smoothing in 0.0..1.0,
        ) {
            let flat = rows.iter().flat_map(|(row, ..)| row.clone()).collect();
            let outputs = array(&[rows.len(), classes], flat);
            let labels = Targets::Classes(rows.iter().map(|(_, label, _)| *label).collect());
            let values = Targets::Values(array(&[rows.len(), classes], rows.iter().flat_map(|(.., v)| vec![*v; classes]).collect()));
            holds_to_its_quotient(&CrossEntropy::new(), &outputs, &labels);
            holds_to_its_quotient(&CrossEntropy::new().label_smoothing(smoothing), &outputs, &labels);
            holds_to_its_quotient(&MeanSquaredError, &outputs, &values);
        }
    }

    #[test]
    fn cross_entropy_is_exact_on_extreme_logits() {
        let logits = array![[1e4, -1e4], [-1e4, 1e4]].into_dyn();
        let (loss, gradient) = CrossEntropy::new().evaluate(logits.view(), &Targets::Classes(vec![0, 0])).unwrap();
        assert_eq!(loss, 1e4);
        assert_eq!(gradient, array![[0.0, 0.0], [-0.5, 0.5]].into_dyn());
    }

    #[test]
    fn label_smoothing_spreads_over_all_classes() {
        // By hand: log-softmax of (0, ln 2, ln 5) is (-ln 8, ln 2 - ln 8, ln 5 - ln 8).
        let logits = array![[0.0, 2f32.ln(), 5f32.ln()]].into_dyn();
        let (loss, _) =
            CrossEntropy::new().label_smoothing(0.3).evaluate(logits.view(), &Targets::Classes(vec![1])).unwrap();
        let (p, q, r) = (8f64.ln(), 4f64.ln(), 1.6f64.ln());
        assert!((loss - (0.1 * p + 0.8 * q + 0.1 * r)).abs() < 1e-6);
    }

    #[test]
    fn targets_that_do_not_fit_are_named() {
        let outputs = array![[0.0, 0.0], [0.0, 0.0]].into_dyn();
        let (labels, values) = (Targets::Classes(vec![0, 2]), Targets::Values(ArrayD::zeros(vec![2, 3])));
        let entropy = CrossEntropy::new();
        assert!(matches!(
            entropy.evaluate(outputs.view(), &labels),
            Err(Error::Label { label: 2, index: 1, classes: 2 })
        ));
        assert!(matches!(entropy.evaluate(outputs.view(), &values), Err(Error::Conflict { .. })));
        assert!(matches!(entropy.evaluate(outputs.view(), &Targets::Classes(vec![0])), Err(Error::Shape { .. })));
        assert!(matches!(entropy.check(&[2], &labels), Err(Error::Rank { .. })));
        assert!(matches!(entropy.check(&[0, 2], &labels), Err(Error::Empty { .. })));
        let smooth = CrossEntropy::new().label_smoothing(1.5);
        assert!(matches!(smooth.evaluate(outputs.view(), &labels), Err(Error::Setting { .. })));
        assert!(matches!(MeanSquaredError.evaluate(outputs.view(), &values), Err(Error::Shape { .. })));
        assert!(matches!(MeanSquaredError.evaluate(outputs.view(), &labels), Err(Error::Conflict { .. })));
    }
}
