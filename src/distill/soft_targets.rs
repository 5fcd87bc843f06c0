//! Soft targets: the teacher's whole distribution, softened.

use super::{
    Distiller, Loss, Reduction, Schedule, Signals,
    softmax::{Softmax, divergence, log_sum_exp, softmax_backward},
};
use crate::{
    error::Result,
    nn::{positive, share},
};

/// Knowledge distillation (Hinton, Vinyals, Dean 2015): the Kullback-Leibler divergence of softened outputs,
///
/// `T² / N · Σ p_t log(p_t / p_s)`, `p = softmax(z / T)` over classes, `N` as the [`Reduction`] says (the batch).
///
/// Its gradient for the student's logits is `T / N · (p_s - p_t)`: the factor T² keeps it as large at any temperature. With
/// T → ∞ the loss becomes half the mean squared difference of the centred logits, over the classes.
///
/// | setting | default | range |
/// |---|---|---|
/// | `temperature` T | | above 0; a number or a [`Schedule`] |
/// | `divergence` | [`Divergence::Forward`] | |
/// | `without_t2`: leaves the factor T² out | with it | |
/// | `reduction` | [`Reduction::BatchMean`] | |
///
/// Reads sample and class weights. A class's weight w multiplies its term of the sum, which is then
/// `w (p_t log(p_t / p_s) + p_s - p_t)`: what is added to the terms comes to 0 over all classes, and makes each of them at
/// least 0, so that whatever the weights the loss is least, 0, where the student is as the teacher. `Reverse` likewise; the
/// terms of Jensen and Shannon are so already.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals, distill::Divergence};
///
/// let (student, teacher) = (array![[1.0, 2.0, 3.0]], array![[1.0, 2.0, 4.0]]);
/// let signals = Signals::new(&student, &teacher);
/// assert!((Distiller::soft_targets(4.0).apply(&signals)?.value - 0.1241053348).abs() < 1e-9);
/// let reverse = Distiller::soft_targets(1.0).divergence(Divergence::Reverse); // as MiniLLM
/// assert!(reverse.apply(&signals)?.value > 0.08);
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives [`Error::Setting`](crate::Error::Setting) for a temperature that is not above 0 or a
/// share β that is none, and those of [`Signals::outputs`].
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct SoftTargets {
    temperature: Schedule,
    divergence: Divergence,
    t2: bool,
    reduction: Reduction,
}

/// How far the student's distribution `p_s` is from the teacher's `p_t`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Divergence {
    /// `KL(p_t ‖ p_s)`: the student covers all that the teacher does.
    #[default]
    Forward,
    /// `KL(p_s ‖ p_t)`: the student stays where the teacher is sure (MiniLLM, Gu et al. 2023).
    Reverse,
    /// `β KL(p_t ‖ m) + (1 - β) KL(p_s ‖ m)`, `m = β p_t + (1 - β) p_s`: with β = 0.5 the Jensen-Shannon divergence (GKD,
    /// Agarwal et al. 2023).
    JensenShannon {
        /// The share β of the teacher in `m`, 0 to 1. At both ends the loss is 0 as the formula says; TRL's trainer has
        /// `Forward` at 0 and `Reverse` at 1, which are the limits of the loss over β and over 1 - β.
        beta: f64,
    },
}

impl SoftTargets {
    /// Softens by this temperature.
    pub fn new(temperature: impl Into<Schedule>) -> SoftTargets {
        let (divergence, reduction) = (Divergence::default(), Reduction::default());
        SoftTargets { temperature: temperature.into(), divergence, t2: true, reduction }
    }

    /// Sets the divergence.
    pub fn divergence(self, divergence: Divergence) -> SoftTargets {
        SoftTargets { divergence, ..self }
    }

    /// Leaves the factor T² out: the gradient then shrinks as 1/T.
    pub fn without_t2(self) -> SoftTargets {
        SoftTargets { t2: false, ..self }
    }

    /// Sets what the sum is divided by.
    pub fn reduction(self, reduction: Reduction) -> SoftTargets {
        SoftTargets { reduction, ..self }
    }
}

impl Distiller for SoftTargets {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        self.temperature.check("temperature", positive)?;
        if let Divergence::JensenShannon { beta } = self.divergence {
            share("beta", beta)?;
        }
        let outputs = signals.outputs()?;
        let temperature = self.temperature.at(signals.at());
        let factor = if self.t2 { temperature * temperature } else { 1.0 };
        let [student, teacher] =
            [&outputs.student, &outputs.teacher].map(|logits| Softmax::of_rows(logits, temperature));
        let loss = outputs.reduce(self.reduction, |row, _, _, gradient| {
            let ([p, s], [q, t]) = (student.row(row), teacher.row(row));
            let weight = |class: usize| outputs.class_weight(class);
            let sum = |part: &dyn Fn(usize) -> f64| (0..p.len()).map(|class| weight(class) * part(class)).sum::<f64>();
            // The gradient for p_s first, of which softmax_backward takes what does not change the sum out again.
            match self.divergence {
                Divergence::Forward => {
                    let surplus = sum(&|class| p[class] - q[class]);
                    for (class, gradient) in gradient.iter_mut().enumerate() {
                        *gradient = (weight(class) * (p[class] - q[class]) - p[class] * surplus) / temperature;
                    }
                    sum(&|class| divergence([q[class], t[class]], [p[class], s[class]]))
                }
                Divergence::Reverse => {
                    softmax_backward(p, |class| weight(class) * (s[class] - t[class]), temperature, gradient);
                    sum(&|class| divergence([p[class], s[class]], [q[class], t[class]]))
                }
                Divergence::JensenShannon { beta } => {
                    let log_m = |(s, t): (&f64, &f64)| log_sum_exp([(1.0 - beta).ln() + s, beta.ln() + t].into_iter());
                    let m: Vec<f64> = s.iter().zip(t).map(log_m).collect();
                    let slope = |class: usize| weight(class) * (1.0 - beta) * (s[class] - m[class]);
                    softmax_backward(p, slope, temperature, gradient);
                    sum(&|class| {
                        beta * q[class] * (t[class] - m[class]) + (1.0 - beta) * p[class] * (s[class] - m[class])
                    })
                }
            }
        });
        signals.fitting(loss.scaled(factor))
    }

    fn temperature(&self, progress: f64) -> f64 {
        self.temperature.at(progress)
    }

    fn weighs_samples(&self) -> bool {
        self.reduction.weighs_samples()
    }
}
