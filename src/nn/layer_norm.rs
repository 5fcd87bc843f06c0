//! Layer normalization over the last axes.

use ndarray::{ArrayD, ArrayViewD, IxDyn};

use super::{
    dense::{array, row_major, slice, sum_over_samples},
    layer::{Backward, OwnArray, OwnArrayMut, Role},
    settings::positive,
    shape::{at_least_one, elements, expect_shape},
};
use crate::{Error, Result, tensor::expect_finite};

/// Layer normalization (Ba, Kiros and Hinton 2016): `y = weight · (x - mean) / √(variance + eps) + bias`, with mean and
/// (biased) variance of each sample over its last axes.
///
/// | setting | default | range |
/// |---|---|---|
/// | `eps` | 1e-5 | above 0 |
/// | `absent` | none | finite moments |
///
/// Initial values: weight 1, bias 0.
///
/// Where features were [removed](crate::removal) that had become constants, mean and variance still count those
/// constants, so that the features left are normalized as before: see [`Absent`].
#[derive(Clone, Debug, PartialEq)]
pub struct LayerNorm {
    /// Added to the variance.
    pub eps: f64,
    /// Constant features that the statistics count though the input no longer has them.
    pub absent: Absent,
    shape: Vec<usize>,
    weight: ArrayD<f32>,
    bias: ArrayD<f32>,
}

/// Features that an input no longer has, each of which was a constant: their number and moments are all that a
/// normalization needs of them.
///
/// ```
/// use ndarray::array;
/// use tersor::nn::{Absent, Layer, LayerNorm};
///
/// let norm = |features| LayerNorm::from_arrays(ndarray::ArrayD::ones(vec![features]), ndarray::ArrayD::zeros(vec![features]));
/// let whole = Layer::from(norm(4)?).forward(&array![[1.0, 5.0, 0.5, -2.0]])?;
/// let rest = Layer::from(norm(2)?.absent(Absent::default().with(5.0).with(-2.0))).forward(&array![[1.0, 0.5]])?;
/// assert!((whole[[0, 0]] - rest[[0, 0]]).abs() < 1e-6 && (whole[[0, 2]] - rest[[0, 1]]).abs() < 1e-6);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "io", derive(serde::Serialize, serde::Deserialize))]
pub struct Absent {
    /// How many.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// The sum of their squared deviations from that mean.
    pub squares: f64,
}

impl Absent {
    /// One more, of this value (Welford 1962).
    pub fn with(self, constant: f32) -> Absent {
        let (count, deviation) = (self.count + 1, f64::from(constant) - self.mean);
        let mean = self.mean + deviation / count as f64;
        Absent { count, mean, squares: self.squares + deviation * (f64::from(constant) - mean) }
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.count == 0
    }

    fn check(&self) -> Result<()> {
        let setting = |setting, value, bound| Err(Error::Setting { setting, value, bound });
        if self.is_none() && *self != Absent::default() {
            return setting("count of absent features", 0.0, "at least 1 where their mean or squares is not 0");
        }
        if !self.mean.is_finite() {
            return setting("mean of absent features", self.mean, "finite");
        }
        if !(self.squares >= 0.0 && self.squares.is_finite()) {
            return setting("squares of absent features", self.squares, "at least 0 and finite");
        }
        Ok(())
    }
}

impl LayerNorm {
    /// A normalization over the last axis, of `features` elements; its arrays are made when the network is built.
    pub fn new(features: usize) -> LayerNorm {
        LayerNorm::over(&[features])
    }

    /// A normalization over the last axes, of this shape.
    pub fn over(shape: &[usize]) -> LayerNorm {
        let none = ArrayD::zeros(IxDyn(&[0]));
        LayerNorm { eps: 1e-5, absent: Absent::default(), shape: shape.to_vec(), weight: none.clone(), bias: none }
    }

    /// A trained normalization over the last axes, of the shape of `weight`.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Rank`] for arrays without an axis, [`Error::Shape`] for a bias of another shape,
    /// [`Error::NotFinite`].
    pub fn from_arrays(weight: ArrayD<f32>, bias: ArrayD<f32>) -> Result<LayerNorm> {
        elements("weight of layer_norm", weight.shape())?;
        expect_finite("weight of layer_norm", &weight)?;
        expect_finite("bias of layer_norm", &bias)?;
        let shape = weight.shape().to_vec();
        let norm = LayerNorm { weight: row_major(weight), bias: row_major(bias), ..LayerNorm::over(&shape) };
        norm.check().map(|()| norm)
    }

    /// Sets what is added to the variance.
    pub fn eps(self, eps: f64) -> LayerNorm {
        LayerNorm { eps, ..self }
    }

    /// Sets the constant features that the statistics count though the input does not have them.
    pub fn absent(self, absent: Absent) -> LayerNorm {
        LayerNorm { absent, ..self }
    }

    /// The shape of the normalized axes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The factor of each element.
    pub fn weight(&self) -> ArrayViewD<'_, f32> {
        self.weight.view()
    }

    /// The term of each element.
    pub fn bias(&self) -> ArrayViewD<'_, f32> {
        self.bias.view()
    }

    fn check_settings(&self) -> Result<()> {
        positive("eps of layer_norm", self.eps)?;
        self.absent.check()?;
        if self.shape.is_empty() {
            return Err(Error::Rank { what: "weight of layer_norm", expected: "1 or more", found: vec![] });
        }
        for size in &self.shape {
            at_least_one("features of layer_norm", *size)?;
        }
        elements("weight of layer_norm", &self.shape).map(|_| ())
    }

    pub(super) fn initialize(&mut self) -> Result<()> {
        self.check_settings()?;
        if self.weight.is_empty() {
            self.weight = ArrayD::ones(IxDyn(&self.shape));
            self.bias = ArrayD::zeros(IxDyn(&self.shape));
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<()> {
        self.check_settings()?;
        expect_shape("weight of layer_norm", &self.shape, self.weight.shape())?;
        expect_shape("bias of layer_norm", &self.shape, self.bias.shape())
    }

    pub(super) fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let what = "input of layer_norm";
        let Some(batch) = input.len().checked_sub(self.shape.len()).filter(|batch| *batch > 0) else {
            let expected = "more than that of the normalized shape";
            return Err(Error::Rank { what, expected, found: input.to_vec() });
        };
        if input[batch..] != self.shape {
            let expected = [&input[..batch], &self.shape].concat();
            return Err(Error::Shape { what, expected, found: input.to_vec() });
        }
        Ok(input.to_vec())
    }

    pub(super) fn forward(&self, x: ArrayViewD<'_, f32>) -> ArrayD<f32> {
        let (values, features) = (slice(&x), self.weight.len());
        let (weight, bias) = self.slices();
        let (y, []) = sum_over_samples(values.len() / features, features, |samples| {
            let mut y = values[samples.start * features..samples.end * features].to_vec();
            for row in y.chunks_mut(features) {
                let (mean, inverse_deviation) = self.moments(row);
                for ((y, weight), bias) in row.iter_mut().zip(weight).zip(bias) {
                    let normalized = (f64::from(*y) - mean) * inverse_deviation;
                    *y = (normalized * f64::from(*weight) + f64::from(*bias)) as f32;
                }
            }
            (y, [])
        });
        array(x.shape(), y)
    }

    /// With `x̂` the normalized input and `g = weight · dy`: `dweight = Σ dy x̂`, `dbias = Σ dy` over samples,
    /// `dx = (g - mean(g) - x̂ mean(g x̂)) / √(variance + eps)`; absent features count in the means, and have `g = 0`.
    pub(super) fn backward(&self, x: ArrayViewD<'_, f32>, dy: ArrayD<f32>) -> Backward {
        let (values, features, dy) = (slice(&x), self.weight.len(), dy.view());
        let (dy, (weight, _)) = (slice(&dy), self.slices());
        let (dx, [dw, db]) = sum_over_samples(values.len() / features, features, |samples| {
            let mut dx = Vec::with_capacity(samples.len() * features);
            let (mut dw, mut db) = (vec![0.0; features], vec![0.0; features]);
            let count = self.count();
            for sample in samples {
                let (x, dy) = (&values[sample * features..][..features], &dy[sample * features..][..features]);
                let (mean, inverse_deviation) = self.moments(x);
                let normalized = |i: usize| (f64::from(x[i]) - mean) * inverse_deviation;
                let scaled = |i: usize| f64::from(dy[i]) * f64::from(weight[i]);
                let (mut g_mean, mut g_slope) = (0.0, 0.0);
                for i in 0..features {
                    dw[i] += (f64::from(dy[i]) * normalized(i)) as f32;
                    db[i] += dy[i];
                    g_mean += scaled(i) / count;
                    g_slope += scaled(i) * normalized(i) / count;
                }
                let slope = |i: usize| inverse_deviation * (scaled(i) - g_mean - normalized(i) * g_slope);
                dx.extend((0..features).map(|i| slope(i) as f32));
            }
            (dx, [dw, db])
        });
        let parameter = |name: &str, values| (name.to_owned(), array(&self.shape, values));
        (Some(array(x.shape(), dx)), vec![parameter("weight", dw), parameter("bias", db)])
    }

    /// The tangent of `x̂`: `(ẋ - mean(ẋ) - x̂ mean(x̂ ẋ)) / √(variance + eps)`.
    fn normalized_tangent(&self, x: &[f32], x_dot: &[f32]) -> (Vec<f64>, Vec<f64>, f64, f64) {
        let (mean, inverse) = self.moments(x);
        let count = self.count();
        let hat: Vec<f64> = x.iter().map(|x| (f64::from(*x) - mean) * inverse).collect();
        let dot_mean = x_dot.iter().map(|x| f64::from(*x)).sum::<f64>() / count;
        let dot_slope = hat.iter().zip(x_dot).map(|(hat, x)| hat * f64::from(*x)).sum::<f64>() / count;
        let hat_dot = hat.iter().zip(x_dot).map(|(hat, x)| inverse * (f64::from(*x) - dot_mean - hat * dot_slope));
        let hat_dot = hat_dot.collect();
        (hat, hat_dot, inverse, dot_slope)
    }

    /// The tangent of the output, for tangents of the input and (in `dot`) of weight and bias.
    pub(super) fn tangent(&self, dot: &LayerNorm, x: ArrayViewD<'_, f32>, x_dot: ArrayViewD<'_, f32>) -> ArrayD<f32> {
        let features = self.weight.len();
        let ((weight, _), (weight_dot, bias_dot)) = (self.slices(), dot.slices());
        let mut y_dot = Vec::with_capacity(x.len());
        for (x_row, x_dot) in slice(&x).chunks(features).zip(slice(&x_dot).chunks(features)) {
            let (hat, hat_dot, ..) = self.normalized_tangent(x_row, x_dot);
            y_dot.extend((0..features).map(|i| {
                (f64::from(weight_dot[i]) * hat[i] + f64::from(weight[i]) * hat_dot[i] + f64::from(bias_dot[i])) as f32
            }));
        }
        array(x.shape(), y_dot)
    }

    /// The tangent of [`backward`](LayerNorm::backward): with `g = weight · dy`, `k = mean(g x̂)`, `m = mean(x̂ ẋ)`,
    /// `(dx)˙ = (ġ - mean(ġ) - x̂˙ k - x̂ mean(ġ x̂ + g x̂˙)) / √(variance + eps) - dx m / √(variance + eps)`.
    pub(super) fn backward_tangent(
        &self,
        dot: &LayerNorm,
        (x, x_dot): (ArrayViewD<'_, f32>, ArrayViewD<'_, f32>),
        (dy, dy_dot): (ArrayViewD<'_, f32>, ArrayViewD<'_, f32>),
    ) -> Backward {
        let features = self.weight.len();
        let ((weight, _), (weight_dot, _)) = (self.slices(), dot.slices());
        let (mut dw, mut db) = (vec![0f64; features], vec![0f64; features]);
        let mut dx_dot = Vec::with_capacity(x.len());
        let rows = |array: &ArrayViewD<'_, f32>| array.as_slice().expect("row-major").to_vec();
        let (values, x_dots, dys, dy_dots) = (rows(&x), rows(&x_dot), rows(&dy), rows(&dy_dot));
        for start in (0..values.len()).step_by(features) {
            let row = start..start + features;
            let (dy, dy_dot) = (&dys[row.clone()], &dy_dots[row.clone()]);
            let (hat, hat_dot, inverse, m) = self.normalized_tangent(&values[row.clone()], &x_dots[row]);
            let of = |x: f32| f64::from(x);
            let g: Vec<f64> = (0..features).map(|i| of(weight[i]) * of(dy[i])).collect();
            let g_dot: Vec<f64> =
                (0..features).map(|i| of(weight_dot[i]) * of(dy[i]) + of(weight[i]) * of(dy_dot[i])).collect();
            let mean = |f: &dyn Fn(usize) -> f64| (0..features).map(f).sum::<f64>() / self.count();
            let (g_mean, k) = (mean(&|i| g[i]), mean(&|i| g[i] * hat[i]));
            let (g_dot_mean, k_dot) = (mean(&|i| g_dot[i]), mean(&|i| g_dot[i] * hat[i] + g[i] * hat_dot[i]));
            for i in 0..features {
                let dx = inverse * (g[i] - g_mean - hat[i] * k);
                let moved = g_dot[i] - g_dot_mean - hat_dot[i] * k - hat[i] * k_dot;
                dx_dot.push((inverse * (moved - dx * m)) as f32);
                dw[i] += of(dy_dot[i]) * hat[i] + of(dy[i]) * hat_dot[i];
                db[i] += of(dy_dot[i]);
            }
        }
        let parameter = |name: &str, values: Vec<f64>| {
            (name.to_owned(), array(&self.shape, values.into_iter().map(|x| x as f32).collect()))
        };
        (Some(array(x.shape(), dx_dot)), vec![parameter("weight", dw), parameter("bias", db)])
    }

    fn slices(&self) -> (&[f32], &[f32]) {
        (self.weight.as_slice().expect("row-major"), self.bias.as_slice().expect("row-major"))
    }

    /// Features, absent ones included.
    fn count(&self) -> f64 {
        self.weight.len() as f64 + self.absent.count as f64
    }

    /// Mean, and 1 over the deviation.
    fn moments(&self, row: &[f32]) -> (f64, f64) {
        let Absent { count, mean: constant, squares } = self.absent;
        let sum = row.iter().map(|x| f64::from(*x)).sum::<f64>() + count as f64 * constant;
        let mean = sum / self.count();
        let square = |x: f64| (x - mean) * (x - mean);
        let absent = squares + count as f64 * square(constant);
        let variance = (row.iter().map(|x| square(f64::from(*x))).sum::<f64>() + absent) / self.count();
        (mean, 1.0 / (variance + self.eps).sqrt())
    }

    pub(super) fn arrays(&self) -> Vec<OwnArray<'_>> {
        vec![("weight", Role::Parameter, self.weight.view()), ("bias", Role::Parameter, self.bias.view())]
    }

    pub(super) fn arrays_mut(&mut self) -> Vec<OwnArrayMut<'_>> {
        vec![("weight", Role::Parameter, self.weight.view_mut()), ("bias", Role::Parameter, self.bias.view_mut())]
    }
}
