//! Variational information distillation: the teacher's features as the student would guess them.

use ndarray::{ArrayD, Zip};

use super::{
    Distiller, Loss, Signals,
    maps::{Maps, widths},
    pointwise::Pointwise,
};
use crate::{
    error::{Error, Result},
    random::Random,
};

/// Variational information distillation (Ahn et al. 2019): a bound on the information that the student's features hold about
/// the teacher's, as the likelihood of a Gaussian with a learned mean and, for each of the teacher's channels, a learned
/// variance. The mean over all elements of
///
/// `½ ((μ(f_s) - f_t)² / v + log v)`, `v = softplus(raw) + 1e-5`.
///
/// μ is a stack of 1x1 convolutions with ReLU between: by default two hidden layers of twice the teacher's width, as in the
/// paper (whose batch norm is left out; RepDistiller's are as wide as the teacher). Images of different size are
/// [pooled](super#features), the student's before μ.
///
/// | setting | default | range |
/// |---|---|---|
/// | `hidden`: widths of the hidden layers | two of twice the teacher's | each at least 1; none for a linear μ |
///
/// | parameter | shape | initial value |
/// |---|---|---|
/// | `regressor.0.weight`, `regressor.1.weight`, .. | (outputs, inputs) | uniform in ±1/√inputs, as torch's `Conv2d` |
/// | `regressor.0.bias`, .. after each weight | (outputs) | the same |
/// | `variance` raw | (teacher's channels) | log(e^(5 - 1e-5) - 1), so that v = 5 |
///
/// The loss may be negative: with v < 1 its logarithm is.
///
/// ```
/// use ndarray::array;
/// use tersor::{Distiller, Signals};
///
/// let (student, teacher) = (array![[1.0, 2.0]], array![[3.0]]);
/// let loss = Distiller::vid().hidden([]);
/// let own: Vec<_> = loss.parameters(&[1, 2], &[1, 1], 0)?.into_iter().map(|(_, array)| array).collect();
/// let mean = own[0][[0, 0]] + 2.0 * own[0][[0, 1]] + own[1][0];
/// let made = loss.apply(&Signals::new(&student, &teacher).parameters(&own))?;
/// assert!((made.value - 0.5 * ((mean - 3.0_f64).powi(2) / 5.0 + 5_f64.ln())).abs() < 1e-12);
/// # Ok::<(), tersor::Error>(())
/// ```
///
/// # Errors
/// [`apply`](Distiller::apply) gives [`Error::Setting`] for a hidden width of 0, [`Error::Rank`] for features of rank other
/// than 2, 3 or 4, [`Error::Conflict`] for features of two kinds, [`Error::Shape`] for batches or sequences of different
/// length, and those of [`Signals::own`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Vid {
    hidden: Option<Vec<usize>>,
}

/// What every variance is larger than.
const LEAST: f64 = 1e-5;
/// What it is at first.
const INITIAL: f64 = 5.0;

impl Vid {
    /// With two hidden layers of twice the teacher's width.
    pub fn new() -> Vid {
        Vid::default()
    }

    /// Sets the widths of the hidden layers, from the student's side.
    pub fn hidden(self, widths: impl Into<Vec<usize>>) -> Vid {
        Vid { hidden: Some(widths.into()) }
    }

    /// Inputs and outputs of each layer of μ.
    fn layers(&self, student: usize, teacher: usize) -> Vec<[usize; 2]> {
        let hidden = self.hidden.clone().unwrap_or_else(|| vec![teacher.saturating_mul(2); 2]);
        let widths: Vec<usize> = [vec![student], hidden, vec![teacher]].concat();
        widths.windows(2).map(|ends| [ends[0], ends[1]]).collect()
    }

    fn check(&self) -> Result<()> {
        match &self.hidden {
            Some(hidden) if hidden.contains(&0) => {
                Err(Error::Setting { setting: "hidden", value: 0.0, bound: "widths of at least 1" })
            }
            _ => Ok(()),
        }
    }
}

impl Distiller for Vid {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        self.check()?;
        let [student, teacher] = Maps::of(signals)?;
        let channels = teacher.values.dim().1;
        let layers = self.layers(student.values.dim().1, channels);
        let shapes = layers.iter().flat_map(|&[inputs, outputs]| Pointwise::shapes(inputs, outputs));
        let shapes: Vec<Vec<usize>> = shapes.chain([vec![channels]]).collect();
        let (raw, regressor) = signals.own_all(&shapes)?.split_last().expect("the variance at least");

        let layers: Vec<Pointwise<'_>> = regressor.chunks_exact(2).map(Pointwise::new).collect();
        let mut inputs = vec![student.rows()]; // of each layer
        let mut mean = layers[0].forward(inputs[0].view());
        for layer in &layers[1..] {
            let hidden = mean.mapv_into(|x| x.max(0.0));
            mean = layer.forward(hidden.view());
            inputs.push(hidden.into());
        }

        let mut gradient = mean - &teacher.rows();
        let count = gradient.len() as f64;
        let (mut value, mut to_raw) = (0.0, ArrayD::zeros(raw.raw_dim()));
        for ((mut differences, raw), to_raw) in gradient.columns_mut().into_iter().zip(raw).zip(&mut to_raw) {
            let variance = softplus(*raw) + LEAST;
            let (rows, squares) = (differences.len() as f64, differences.dot(&differences));
            value += 0.5 * (squares / variance + rows * variance.ln()) / count;
            *to_raw = 0.5 * (rows - squares / variance) / variance / count * sigmoid(*raw);
            differences /= variance * count;
        }

        let mut parameters = vec![to_raw];
        for (index, layer) in layers.iter().enumerate().rev() {
            let (to_inputs, own) = layer.backward(inputs[index].view(), gradient.view());
            parameters.splice(0..0, own);
            gradient = to_inputs;
            if index > 0 {
                Zip::from(&mut gradient).and(&inputs[index]).for_each(|g, x| *g = if *x > 0.0 { *g } else { 0.0 });
            }
        }
        signals.fitting(Loss::new(value, student.rows_to_signal(gradient)).with_parameters(parameters))
    }

    fn parameters(&self, student: &[usize], teacher: &[usize], seed: u64) -> Result<Vec<(String, ArrayD<f64>)>> {
        self.check()?;
        let [student, teacher] = widths(student, teacher)?;
        let mut random = Random::new(seed);
        let mut parameters = vec![];
        for (index, [inputs, outputs]) in self.layers(student, teacher).into_iter().enumerate() {
            let [weight, bias] = Pointwise::initial(inputs, outputs, &mut random)?;
            parameters.push((format!("regressor.{index}.weight"), weight));
            parameters.push((format!("regressor.{index}.bias"), bias));
        }
        let raw = (INITIAL - LEAST).exp_m1().ln();
        parameters.push(("variance".into(), ArrayD::from_elem(vec![teacher], raw)));
        Ok(parameters)
    }
}

/// `log(1 + eˣ)`.
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

/// The slope of [`softplus`].
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
