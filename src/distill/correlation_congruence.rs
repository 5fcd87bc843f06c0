//! Correlations between samples, made congruent.

use std::f64::consts::LN_2;

use ndarray::{Array2, s};

use super::{
    Distiller, Loss, Signals,
    samples::{Samples, compare, products, products_backward, rows},
    units::Units,
};
use crate::{
    error::{Error, Result},
    nn::positive,
};

/// Correlation congruence (CC, Peng et al. 2019): the student's samples should correlate as the teacher's do,
///
/// `‖K_s - K_t‖² / n²`, `K_ij = k(f_i, f_j)`, with a kernel `k` of the samples' features, each divided by its length.
///
/// The authors' published code computes something else: the products of neighbours' differences
/// ([`Correlation::Neighbours`]). The paper's formula is the default, since it takes features of any two widths, does not
/// depend on the order of the batch, and is 0 only where the correlations are the same.
///
/// | setting | default | range |
/// |---|---|---|
/// | `correlation` | [`Correlation::Gaussian`] of γ 0.4 and order 2, as in the paper | |
///
/// Signals are (batch, ..), flattened; student and teacher may differ in all but the batch, except for `Neighbours`. The
/// authors weigh it 0.02.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals, distill::Correlation};
///
/// let (student, teacher) = (array![[1.0, 0.0], [0.0, 1.0]], array![[3.0], [3.0]]); // cosines 0 and 1
/// let signals = Signals::new(&student, &teacher);
/// let loss = Distiller::correlation_congruence().apply(&signals)?;
/// assert!((loss.value - ((-0.8_f64).exp() * (0.8 + 0.32)).powi(2) / 2.0).abs() < 1e-12);
/// assert_eq!(Distiller::correlation_congruence().correlation(Correlation::Linear).apply(&signals)?.value, 0.5);
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives [`Error::Setting`] for a γ that is not above 0 or an order outside 1 to 100, those of
/// [`Signals::student`], [`Error::Rank`] for signals of one axis, [`Error::Shape`] for another number of samples, or for
/// other shapes with `Neighbours`; [`Error::NotFinite`] for `Neighbours` so large that the loss overflows.
#[derive(Clone, Debug, Default, PartialEq)]
#[must_use]
pub struct CorrelationCongruence {
    correlation: Correlation,
}

/// What a correlation of samples is.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Correlation {
    /// The Gaussian kernel `exp(-γ |x - y|²)` of unit vectors, by its Taylor series up to `order`:
    /// `e^(-2γ) Σ_p (2γ)^p (x·y)^p / p!`. Torchdistill's `gaussian`, there without division by lengths.
    Gaussian {
        /// γ, above 0.
        gamma: f64,
        /// The last power, 1 to 100.
        order: usize,
    },
    /// The cosine `x·y`. Torchdistill's `bilinear`, there without division by lengths.
    Linear,
    /// No kernel, but the authors' code (and RepDistiller's): `Σ_ij |d_ij| |d_(i+1)j| / (n - 1)`, `d = f_s - f_t`, of
    /// embeddings of one width as they are; 0 for a batch of one. Where `d_ij` is 0 its gradient is 0.
    Neighbours,
}

impl Default for Correlation {
    fn default() -> Correlation {
        Correlation::Gaussian { gamma: 0.4, order: 2 }
    }
}

impl CorrelationCongruence {
    /// By the paper's kernel.
    pub fn new() -> CorrelationCongruence {
        CorrelationCongruence::default()
    }

    /// Sets what a correlation is.
    pub fn correlation(self, correlation: Correlation) -> CorrelationCongruence {
        CorrelationCongruence { correlation }
    }
}

impl Distiller for CorrelationCongruence {
    fn compares_channels(&self) -> bool {
        self.correlation == Correlation::Neighbours
    }

    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        match self.correlation {
            Correlation::Gaussian { gamma, order } => {
                positive("gamma", gamma)?;
                if !(1..=100).contains(&order) {
                    return Err(Error::Setting { setting: "order", value: order as f64, bound: "1 to 100" });
                }
                kernel(signals, &gaussian(gamma, order))
            }
            Correlation::Linear => kernel(signals, &[0.0, 1.0]),
            Correlation::Neighbours => neighbours(signals),
        }
    }
}

/// `e^(-2γ) (2γ)^p / p!` for every `p` up to `order`, by their logarithms: no large γ overflows.
fn gaussian(gamma: f64, order: usize) -> Vec<f64> {
    let logarithms = (1..=order).scan(-2.0 * gamma, |logarithm, p| {
        *logarithm += LN_2 + gamma.ln() - (p as f64).ln();
        Some(*logarithm)
    });
    std::iter::once(-2.0 * gamma).chain(logarithms).map(f64::exp).collect()
}

/// The kernel is a polynomial of the cosine, the constant term first.
fn kernel(signals: &Signals<'_>, coefficients: &[f64]) -> Result<Loss> {
    let samples = Samples::of(signals)?;
    let [student, teacher] = [&samples.student, &samples.teacher].map(|rows| Units::of(rows.clone()));
    let share = 1.0 / (samples.len() as f64).powi(2);
    let (value, slopes) = compare(&products(&student.rows), &products(&teacher.rows), |s, t| {
        let ((s, slope), (t, _)) = (polynomial(coefficients, s), polynomial(coefficients, t));
        ((s - t) * (s - t), 2.0 * share * (s - t) * slope)
    });
    signals.fitting(samples.loss(share * value, student.backward(products_backward(&slopes, &student.rows))))
}

/// A polynomial and its derivative (Horner).
fn polynomial(coefficients: &[f64], x: f64) -> (f64, f64) {
    coefficients.iter().rev().fold((0.0, 0.0), |(value, slope), c| (value * x + c, slope * x + value))
}

fn neighbours(signals: &Signals<'_>) -> Result<Loss> {
    let [student, teacher] = signals.alike()?;
    let shape = student.shape().to_vec();
    let differences = rows("the student's signal", student)? - rows("the teacher's signal", teacher)?;
    let sizes = differences.mapv(f64::abs);
    let share = 1.0 / (sizes.nrows().max(2) - 1) as f64;
    let (before, after) = (sizes.slice(s![..-1, ..]), sizes.slice(s![1.., ..]));
    let mut gradient = Array2::<f64>::zeros(sizes.dim());
    let mut later = gradient.slice_mut(s![1.., ..]);
    later += &before;
    let mut earlier = gradient.slice_mut(s![..-1, ..]);
    earlier += &after;
    gradient.zip_mut_with(&differences, |slope, d| *slope *= if *d == 0.0 { 0.0 } else { share * d.signum() });
    let gradient = gradient.into_dyn().into_shape_with_order(shape).expect("as many elements");
    signals.fitting(Loss::new(share * (&before * &after).sum(), gradient))
}
