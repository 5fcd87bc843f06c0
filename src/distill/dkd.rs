//! The label's class and the others, apart.

use super::{
    Distiller, Loss, Reduction, Schedule, Signals,
    settings::{not_negative, positive},
    softmax::{log_softmax, log_sum_exp},
};
use crate::error::Result;

/// Decoupled knowledge distillation (Zhao et al. 2022): the divergence of soft targets in its two parts,
///
/// `T² / N · Σ (α TCKD + β NCKD)`, `N` as the [`Reduction`] says (the batch), where per row with the label's class y
///
/// - `TCKD = KL((p_t^y, 1 - p_t^y) ‖ (p_s^y, 1 - p_s^y))` of `p = softmax(z / T)`: how sure of the label;
/// - `NCKD = KL(q_t ‖ q_s)`, `q` the softmax over all classes but the label's: what is known of the others.
///
/// Soft targets are `TCKD + (1 - p_t^y) NCKD`: there a teacher that is sure of the label hides what it knows of the others.
///
/// | setting | default | range |
/// |---|---|---|
/// | `alpha` α | 1 | at least 0; a number or a [`Schedule`] |
/// | `beta` β | 8 | at least 0; a number or a [`Schedule`] |
/// | `temperature` T | 4 | above 0; a number or a [`Schedule`] |
/// | `reduction` | [`Reduction::BatchMean`] | |
///
/// The authors' warm-up is of the whole term: [`Schedule::warm_up`] as its weight. Unlike theirs, which takes logarithms of
/// probabilities and subtracts 1000 from the label's logit, it is finite for logits of any size. Of one class NCKD is 0.
///
/// Reads sample and class weights; a class's weight multiplies its terms of the sums, and in TCKD the others have their mean
/// weight under `q_t`, so that the parts still add up to soft targets.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let (student, teacher) = (array![[2.0, 1.0, 0.0]], array![[2.0, 0.0, 1.0]]);
/// let signals = Signals::new(&student, &teacher).labels(&[0]);
/// let loss = Distiller::dkd().apply(&signals)?; // as sure of the label, but wrong about the others
/// assert!((loss.value - Distiller::dkd().alpha(0.0).apply(&signals)?.value).abs() < 1e-12);
/// assert!(loss.gradient[[0, 1]] > 0.0 && loss.gradient[[0, 2]] < 0.0);
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives [`Error::Setting`](crate::Error::Setting) for settings out of range,
/// [`Error::Conflict`](crate::Error::Conflict) for signals without labels, and those of [`Signals::outputs`].
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Dkd {
    alpha: Schedule,
    beta: Schedule,
    temperature: Schedule,
    reduction: Reduction,
}

impl Default for Dkd {
    fn default() -> Dkd {
        let [alpha, beta, temperature] = [1.0, 8.0, 4.0].map(Schedule::constant);
        Dkd { alpha, beta, temperature, reduction: Reduction::default() }
    }
}

impl Dkd {
    /// The paper's settings.
    pub fn new() -> Dkd {
        Dkd::default()
    }

    /// Sets the weight α of the label's class against the rest.
    pub fn alpha(self, alpha: impl Into<Schedule>) -> Dkd {
        Dkd { alpha: alpha.into(), ..self }
    }

    /// Sets the weight β of the other classes among themselves.
    pub fn beta(self, beta: impl Into<Schedule>) -> Dkd {
        Dkd { beta: beta.into(), ..self }
    }

    /// Sets the temperature.
    pub fn temperature(self, temperature: impl Into<Schedule>) -> Dkd {
        Dkd { temperature: temperature.into(), ..self }
    }

    /// Sets what the sum is divided by.
    pub fn reduction(self, reduction: Reduction) -> Dkd {
        Dkd { reduction, ..self }
    }
}

impl Distiller for Dkd {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        self.alpha.check("alpha", not_negative)?;
        self.beta.check("beta", not_negative)?;
        self.temperature.check("temperature", positive)?;
        let outputs = signals.outputs()?;
        let labels = outputs.labels()?;
        let [alpha, beta, temperature] = [self.alpha, self.beta, self.temperature].map(|s| s.at(signals.at()));
        let loss = outputs.reduce(self.reduction, |row, student, teacher, gradient| {
            let (label, classes) = (labels[row], gradient.len());
            if classes == 1 {
                return 0.0; // there are no others, and nothing to be unsure of
            }
            let others = || (0..classes).filter(|class| *class != label);
            let weight = |class: usize| outputs.class_weight(class);
            let [s, t] = [student, teacher].map(|logits| log_softmax(logits, temperature));
            let [not_s, not_t] = [&s, &t].map(|p| log_sum_exp(others().map(|class| p[class]))); // log(1 - p of the label)

            let rest: f64 = others().map(|class| weight(class) * (t[class] - not_t).exp()).sum();
            let (own, other) = (weight(label) * t[label].exp(), rest * not_t.exp());
            let tckd = own * (t[label] - s[label]) + other * (not_t - not_s);
            let sureness = alpha * (other * s[label].exp() - own * not_s.exp()) / temperature;
            gradient[label] = sureness;

            let mut nckd = 0.0;
            for class in others() {
                let (q_s, q_t) = (s[class] - not_s, t[class] - not_t); // logarithms
                let taught = weight(class) * q_t.exp();
                nckd += taught * (q_t - q_s);
                gradient[class] = (beta * (rest * q_s.exp() - taught) / temperature) - sureness * q_s.exp();
            }
            alpha * tckd + beta * nckd
        });
        Ok(loss.scaled(temperature * temperature))
    }

    fn temperature(&self, progress: f64) -> f64 {
        self.temperature.at(progress)
    }
}
