//! Correlation instead of equality.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

use super::{
    Distiller, Loss, Schedule, Signals,
    softmax::{Softmax, softmax_backward},
};
use crate::{
    error::Result,
    nn::{not_negative, positive},
};

/// DIST (Huang et al. 2022): a student need not say the teacher's probabilities, but what goes up and down with them,
///
/// `β · mean over rows of (1 - ρ(p_s, p_t)) + γ · mean over classes of (1 - ρ(p_s, p_t))`, `p = softmax(z / T)`,
///
/// with Pearson's correlation `ρ(a, b) = a·b / (|a||b| + ε)` of centred numbers: of a row's classes (inter), and of a class
/// in all rows (intra).
///
/// | setting | default | range |
/// |---|---|---|
/// | `beta` β, of inter | 1 | at least 0; a number or a [`Schedule`] |
/// | `gamma` γ, of intra | 1 | at least 0; a number or a [`Schedule`] |
/// | `temperature` T | 1 | above 0; a number or a [`Schedule`] |
/// | `with_t2`: the authors' code multiplies by T², the paper does not | without, the paper's | |
/// | `epsilon` ε | 1e-8, the code's | above 0 |
///
/// A row or class that does not vary has correlation 0 with anything, so the loss of a teacher's own copy is only that small
/// where all vary by more than √ε. A student whose rows are constant (a last layer that begins with zeros) has a gradient of
/// the order 1 / ε.
///
/// Reads sample and class weights: a row's correlation counts by the sample's weight and weighs its classes, a class's the
/// other way round. Weights of 2 are the sample or class twice, but for the divisors, which are rows and classes. Outputs of
/// (batch, sequence, classes) are batch times sequence rows.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let (student, teacher) = (array![[0.0, 1.0, 2.0], [1.0, 0.0, 0.0]], array![[0.0, 2.0, 4.0], [3.0, 0.0, 0.0]]);
/// let loss = Distiller::dist().apply(&Signals::new(&student, &teacher))?;
/// assert!(loss.value < 0.1); // less sure, but of the same
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives [`Error::Setting`](crate::Error::Setting) for settings out of range, and those of
/// [`Signals::outputs`].
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Dist {
    beta: Schedule,
    gamma: Schedule,
    temperature: Schedule,
    t2: bool,
    epsilon: f64,
}

impl Default for Dist {
    fn default() -> Dist {
        let [beta, gamma, temperature] = [1.0; 3].map(Schedule::constant);
        Dist { beta, gamma, temperature, t2: false, epsilon: 1e-8 }
    }
}

impl Dist {
    /// The paper's settings.
    pub fn new() -> Dist {
        Dist::default()
    }

    /// Sets the weight β of correlations over classes.
    pub fn beta(self, beta: impl Into<Schedule>) -> Dist {
        Dist { beta: beta.into(), ..self }
    }

    /// Sets the weight γ of correlations over samples.
    pub fn gamma(self, gamma: impl Into<Schedule>) -> Dist {
        Dist { gamma: gamma.into(), ..self }
    }

    /// Sets the temperature.
    pub fn temperature(self, temperature: impl Into<Schedule>) -> Dist {
        Dist { temperature: temperature.into(), ..self }
    }

    /// Multiplies by T², as the authors' code.
    pub fn with_t2(self) -> Dist {
        Dist { t2: true, ..self }
    }

    /// Sets what is added to the product of norms.
    pub fn epsilon(self, epsilon: f64) -> Dist {
        Dist { epsilon, ..self }
    }
}

impl Distiller for Dist {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        self.beta.check("beta", not_negative)?;
        self.gamma.check("gamma", not_negative)?;
        self.temperature.check("temperature", positive)?;
        positive("epsilon", self.epsilon)?;
        let outputs = signals.outputs()?;
        let [beta, gamma, temperature] = [self.beta, self.gamma, self.temperature].map(|s| s.at(signals.at()));
        let (rows, classes) = outputs.student.dim();
        let probabilities = |logits: &Array2<f64>| {
            let p = Softmax::of_rows(logits, temperature).p;
            Array2::from_shape_vec((rows, classes), p).expect("as many elements")
        };
        let (student, teacher) = (probabilities(&outputs.student), probabilities(&outputs.teacher));
        let weights = |given: Option<&[f64]>, len| given.map_or(Array1::ones(len), |given| given.to_vec().into());
        let (samples, kinds) = (weights(outputs.sample_weights, rows), weights(outputs.class_weights, classes));

        let (inter, by_row) = unrelated(student.view(), teacher.view(), &samples, &kinds, self.epsilon);
        let (intra, by_class) = unrelated(student.t(), teacher.t(), &kinds, &samples, self.epsilon);
        let slopes = beta * by_row + gamma * by_class.reversed_axes();
        let mut gradient = Array2::zeros((rows, classes));
        for ((p, slopes), mut gradient) in student.rows().into_iter().zip(slopes.rows()).zip(gradient.rows_mut()) {
            let gradient = gradient.as_slice_mut().expect("made row-major");
            softmax_backward(&p.to_vec(), |class| slopes[class], temperature, gradient);
        }
        let gradient = gradient.into_shape_with_order(outputs.shape).expect("as many elements");
        let factor = if self.t2 { temperature * temperature } else { 1.0 };
        signals.fitting(Loss::new(beta * inter + gamma * intra, gradient).scaled(factor))
    }

    fn temperature(&self, progress: f64) -> f64 {
        self.temperature.at(progress)
    }

    fn weighs_samples(&self) -> bool {
        !self.gamma.ever_positive() // over samples a weight changes the mean too
    }
}

/// The mean over lines of `1 - ρ` of the student's and the teacher's line, and its gradient for the student's lines: each
/// line weighted, and within lines each place.
fn unrelated(
    student: ArrayView2<'_, f64>,
    teacher: ArrayView2<'_, f64>,
    lines: &Array1<f64>,
    places: &Array1<f64>,
    epsilon: f64,
) -> (f64, Array2<f64>) {
    let total = places.sum();
    let centred = |line: ArrayView1<'_, f64>| {
        let mean = if total > 0.0 { line.dot(places) / total } else { 0.0 };
        &line - mean
    };
    let mut value = 0.0;
    let mut gradient = Array2::zeros(student.dim());
    let pairs = student.rows().into_iter().zip(teacher.rows()).zip(gradient.rows_mut()).zip(lines);
    for (((a, b), mut gradient), weight) in pairs {
        let (a, b) = (centred(a), centred(b));
        let [weighted_a, weighted_b] = [&a, &b].map(|line| line * places);
        let [norm_a, norm_b] = [a.dot(&weighted_a).sqrt(), b.dot(&weighted_b).sqrt()];
        let (product, bound) = (a.dot(&weighted_b), norm_a * norm_b + epsilon);
        let share = weight / lines.len() as f64;
        value += share * (1.0 - product / bound);
        // The norm's own slope a / |a| is left out at 0, where the product is 0 too.
        let shrink = if norm_a > 0.0 { product * norm_b / (norm_a * bound) } else { 0.0 };
        gradient.assign(&((shrink * weighted_a - weighted_b) * (share / bound)));
    }
    (value, gradient)
}
