//! The label's class and the others, apart.

use super::{
    Distiller, Loss, Reduction, Schedule, Signals,
    softmax::{Softmax, divergence, log_sum_exp},
};
use crate::{
    error::Result,
    nn::{not_negative, positive},
};

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
/// Reads sample and class weights. A class's weight multiplies its terms of the sums, each of the form
/// `p log(p / q) + q - p` as of [`SoftTargets`](super::SoftTargets), and in TCKD the others have their mean weight under `q_t`.
/// So each part is at least 0, and 0 where the student is as the teacher, whatever the weights. The parts add up to soft
/// targets where all the others have one weight; where they differ, up to `Σ w (q_t - q_s) (p_t^y - p_s^y)`, which belongs to
/// neither part alone.
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
        let [student, teacher] = [&outputs.student, &outputs.teacher].map(|z| Softmax::of_rows(z, temperature));
        let loss = outputs.reduce(self.reduction, |row, _, _, gradient| {
            let (label, classes) = (labels[row], gradient.len());
            if classes == 1 {
                return 0.0; // there are no others, and nothing to be unsure of
            }
            let others = || (0..classes).filter(|class| *class != label);
            let weight = |class: usize| outputs.class_weight(class);
            let ([p_s, s], [p_t, t]) = (student.row(row), teacher.row(row));
            // Of the others together, probability and logarithm: 1 - p of the label, where that would round to 0 too.
            let [not_s, not_t] = [s, t].map(|p| {
                let log = log_sum_exp(others().map(|class| p[class]));
                [log.exp(), log]
            });

            let mut rest = 0.0; // the others' mean weight under q_t
            let (mut nckd, mut surplus) = (0.0, 0.0);
            for class in others() {
                let (weight, log_s, log_t) = (weight(class), s[class] - not_s[1], t[class] - not_t[1]);
                let (q_s, q_t) = (log_s.exp(), log_t.exp());
                rest += weight * q_t;
                surplus += weight * (q_s - q_t);
                nckd += weight * divergence([q_t, log_t], [q_s, log_s]);
                gradient[class] = weight * (q_s - q_t);
            }
            let (own_s, own_t) = ([p_s[label], s[label]], [p_t[label], t[label]]);
            let tckd = weight(label) * divergence(own_t, own_s) + rest * divergence(not_t, not_s);
            let slope = weight(label) * not_s[0] * (own_s[0] - own_t[0]) + rest * own_s[0] * (not_t[0] - not_s[0]);
            let sureness = alpha * slope / temperature;
            for class in others() {
                let q_s = (s[class] - not_s[1]).exp();
                gradient[class] = beta * (gradient[class] - q_s * surplus) / temperature - sureness * q_s;
            }
            gradient[label] = sureness;
            alpha * tckd + beta * nckd
        });
        signals.fitting(loss.scaled(temperature * temperature))
    }

    fn temperature(&self, progress: f64) -> f64 {
        self.temperature.at(progress)
    }

    fn weighs_samples(&self) -> bool {
        self.reduction.weighs_samples()
    }
}
