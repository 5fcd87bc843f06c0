//! Batch normalization of images, channel by channel.

use ndarray::{Array1, ArrayD, ArrayView1, ArrayViewD};

use super::{
    dense::{array, for_each_sample, row_major, slice},
    layer::{Backward, OwnArray, OwnArrayMut, Role},
    settings::positive,
    shape::{at_least_one, elements, expect_images, expect_shape},
};
use crate::{Error, Result, kernels::parallel, tensor::expect_finite};

/// Batch normalization (Ioffe and Szegedy 2015) over (batch, channels, height, width):
/// `y = weight · (x - mean) / √(variance + eps) + bias`, channel by channel.
///
/// In training, mean and (biased) variance are those of the batch, and the running ones move towards them by
/// `momentum`, the variance by its unbiased estimate; in evaluation the running ones are used.
///
/// | setting | default | range |
/// |---|---|---|
/// | `eps` | 1e-5 | above 0 |
/// | `momentum` | 0.1 | 0 to 1 |
///
/// Initial values: weight 1, bias 0, running mean 0, running variance 1.
///
/// ```
/// use ndarray::array;
/// use tersor::nn::{BatchNorm2d, Layer};
///
/// let norm = BatchNorm2d::from_arrays(array![2.0], array![1.0], array![3.0], array![4.0])?.eps(1e-12);
/// assert_eq!(Layer::from(norm).forward(&array![[[[3.0, 5.0]]]])?, array![[[[1.0, 3.0]]]].into_dyn());
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm2d {
    /// Added to the variance.
    pub eps: f64,
    /// Share of a new batch in the running statistics.
    pub momentum: f64,
    channels: usize,
    weight: Array1<f32>,
    bias: Array1<f32>,
    running_mean: Array1<f32>,
    running_var: Array1<f32>,
}

/// Mean and biased variance of every channel of a batch.
#[derive(Clone, Debug)]
pub(super) struct Statistics {
    mean: Vec<f64>,
    variance: Vec<f64>,
    /// Values of a channel.
    count: usize,
}

impl BatchNorm2d {
    /// A normalization of so many channels; its arrays are made when the network is built.
    pub fn new(channels: usize) -> BatchNorm2d {
        let none = Array1::zeros(0);
        let (weight, bias, running_mean, running_var) = (none.clone(), none.clone(), none.clone(), none);
        BatchNorm2d { eps: 1e-5, momentum: 0.1, channels, weight, bias, running_mean, running_var }
    }

    /// A trained normalization.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::Shape`] for arrays of unequal lengths, [`Error::NotFinite`], and
    /// [`Error::Setting`] for a variance below 0.
    pub fn from_arrays(
        weight: Array1<f32>,
        bias: Array1<f32>,
        running_mean: Array1<f32>,
        running_var: Array1<f32>,
    ) -> Result<BatchNorm2d> {
        elements("weight of batch_norm2d", weight.shape())?;
        let [weight, bias, running_mean, running_var] = [weight, bias, running_mean, running_var].map(row_major);
        let arrays = [
            ("weight of batch_norm2d", &weight),
            ("bias of batch_norm2d", &bias),
            ("running_mean of batch_norm2d", &running_mean),
            ("running_var of batch_norm2d", &running_var),
        ];
        for (what, array) in arrays {
            expect_finite(what, array)?;
        }
        let norm = BatchNorm2d { weight, bias, running_mean, running_var, ..BatchNorm2d::new(0) };
        let norm = BatchNorm2d { channels: norm.weight.len(), ..norm };
        norm.check().map(|()| norm)
    }

    /// Sets what is added to the variance.
    pub fn eps(self, eps: f64) -> BatchNorm2d {
        BatchNorm2d { eps, ..self }
    }

    /// Sets the share of a new batch in the running statistics.
    pub fn momentum(self, momentum: f64) -> BatchNorm2d {
        BatchNorm2d { momentum, ..self }
    }

    /// Channels of an input and an output.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// The factor of each channel.
    pub fn weight(&self) -> ArrayView1<'_, f32> {
        self.weight.view()
    }

    /// The term of each channel.
    pub fn bias(&self) -> ArrayView1<'_, f32> {
        self.bias.view()
    }

    /// The mean used in evaluation.
    pub fn running_mean(&self) -> ArrayView1<'_, f32> {
        self.running_mean.view()
    }

    /// The variance used in evaluation.
    pub fn running_var(&self) -> ArrayView1<'_, f32> {
        self.running_var.view()
    }

    pub(super) fn initialize(&mut self) -> Result<()> {
        at_least_one("channels of batch_norm2d", self.channels)?;
        elements("weight of batch_norm2d", &[self.channels])?;
        if self.weight.is_empty() {
            self.weight = Array1::ones(self.channels);
            self.bias = Array1::zeros(self.channels);
            self.running_mean = Array1::zeros(self.channels);
            self.running_var = Array1::ones(self.channels);
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<()> {
        positive("eps of batch_norm2d", self.eps)?;
        if !(0.0..=1.0).contains(&self.momentum) {
            let (setting, bound) = ("momentum of batch_norm2d", "0 to 1");
            return Err(Error::Setting { setting, value: self.momentum, bound });
        }
        at_least_one("channels of batch_norm2d", self.channels)?;
        expect_shape("weight of batch_norm2d", &[self.channels], self.weight.shape())?;
        expect_shape("bias of batch_norm2d", &[self.channels], self.bias.shape())?;
        expect_shape("running_mean of batch_norm2d", &[self.channels], self.running_mean.shape())?;
        expect_shape("running_var of batch_norm2d", &[self.channels], self.running_var.shape())?;
        match self.running_var.iter().find(|variance| **variance < 0.0) {
            Some(variance) => Err(Error::Setting {
                setting: "running_var of batch_norm2d",
                value: f64::from(*variance),
                bound: "at least 0",
            }),
            None => Ok(()),
        }
    }

    pub(super) fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let [batch, channels, height, width] = expect_images("input of batch_norm2d", input)?;
        if channels != self.channels {
            let expected = vec![batch, self.channels, height, width];
            return Err(Error::Shape { what: "input of batch_norm2d", expected, found: input.to_vec() });
        }
        Ok(input.to_vec())
    }

    /// With the running statistics.
    pub(super) fn forward(&self, x: ArrayViewD<'_, f32>) -> ArrayD<f32> {
        self.normalize(x, &self.running())
    }

    /// With the batch's own statistics.
    pub(super) fn forward_training(&self, x: ArrayViewD<'_, f32>) -> Result<(ArrayD<f32>, Statistics)> {
        let count = x.len() / self.channels;
        if count < 2 {
            return Err(Error::Conflict {
                what: "batch_norm2d cannot learn from one value a channel".into(),
                remedy: "train on batches of two samples or more",
            });
        }
        let sums = |f: &(dyn Fn(usize, f64) -> f64 + Sync)| per_channel(&x, |channel, x| f(channel, x) / count as f64);
        let mean = sums(&|_, x| x);
        let variance = sums(&|channel, x| (x - mean[channel]) * (x - mean[channel]));
        let statistics = Statistics { mean, variance, count };
        Ok((self.normalize(x, &statistics), statistics))
    }

    fn running(&self) -> Statistics {
        let double = |values: &Array1<f32>| values.iter().map(|value| f64::from(*value)).collect();
        Statistics { mean: double(&self.running_mean), variance: double(&self.running_var), count: 0 }
    }

    fn normalize(&self, x: ArrayViewD<'_, f32>, statistics: &Statistics) -> ArrayD<f32> {
        let mut y = slice(&x).to_vec();
        self.for_each_plane(&x, &mut y, |_, channel, plane| {
            let factor = f64::from(self.weight[channel]) * statistics.inverse_deviation(channel, self.eps);
            let term = f64::from(self.bias[channel]) - statistics.mean[channel] * factor;
            plane.iter_mut().for_each(|x| *x = (f64::from(*x) * factor + term) as f32);
        });
        array(x.shape(), y)
    }

    /// With `x̂` the normalized input and `s = weight / √(variance + eps)`: `dweight = Σ dy x̂`, `dbias = Σ dy`,
    /// `dx = s dy`, and if the statistics are the batch's own, `dx = s (dy - mean(dy) - x̂ mean(dy x̂))`.
    pub(super) fn backward(
        &self,
        x: ArrayViewD<'_, f32>,
        batch: Option<&Statistics>,
        mut dy: ArrayD<f32>,
        wants_input: bool,
    ) -> Backward {
        let running = self.running();
        let statistics = batch.unwrap_or(&running);
        let (values, planes) = (slice(&x), Planes::of(&x));
        let normalized = |channel: usize, x: f32| {
            (f64::from(x) - statistics.mean[channel]) * statistics.inverse_deviation(channel, self.eps)
        };
        let dy_values = dy.as_slice().expect("row-major");
        let sums: Vec<[f64; 2]> = parallel::map(self.channels, |channel| {
            let mut sums = [0.0; 2];
            for plane in planes.of_channel(channel) {
                for (dy, x) in dy_values[plane.clone()].iter().zip(&values[plane]) {
                    sums[0] += f64::from(*dy);
                    sums[1] += f64::from(*dy) * normalized(channel, *x);
                }
            }
            sums
        });
        let column = |i: usize| Array1::from_iter(sums.iter().map(|sums| sums[i] as f32)).into_dyn();
        let parameters = vec![("weight".into(), column(1)), ("bias".into(), column(0))];
        if !wants_input {
            return (None, parameters);
        }
        self.for_each_plane(&x, dy.as_slice_mut().expect("row-major"), |start, channel, plane| {
            let factor = f64::from(self.weight[channel]) * statistics.inverse_deviation(channel, self.eps);
            let [mean, slope] = match batch {
                Some(batch) => sums[channel].map(|sum| sum / batch.count as f64),
                None => [0.0; 2],
            };
            for (dy, x) in plane.iter_mut().zip(&values[start..]) {
                *dy = (factor * (f64::from(*dy) - mean - normalized(channel, *x) * slope)) as f32;
            }
        });
        (Some(dy), parameters)
    }

    /// Moves the running statistics towards the batch's.
    pub(super) fn update_statistics(&mut self, batch: &Statistics) {
        let unbiased = batch.count as f64 / (batch.count as f64 - 1.0);
        let towards = |running: &mut f32, new: f64| {
            *running = ((1.0 - self.momentum) * f64::from(*running) + self.momentum * new) as f32;
        };
        self.running_mean.iter_mut().zip(&batch.mean).for_each(|(running, mean)| towards(running, *mean));
        let variances = self.running_var.iter_mut().zip(&batch.variance);
        variances.for_each(|(running, variance)| towards(running, unbiased * variance));
    }

    /// `f(offset, channel, plane)` for every plane of `values`, which is laid out as `x`.
    fn for_each_plane(
        &self,
        x: &ArrayViewD<'_, f32>,
        values: &mut [f32],
        f: impl Fn(usize, usize, &mut [f32]) + Sync + Send,
    ) {
        let Planes { channels, plane, .. } = Planes::of(x);
        for_each_sample(values, channels * plane, channels * plane, |sample, values| {
            for (channel, values) in values.chunks_mut(plane).enumerate() {
                f((sample * channels + channel) * plane, channel, values);
            }
        });
    }

    pub(super) fn arrays(&self) -> Vec<OwnArray<'_>> {
        vec![
            ("weight", Role::Parameter, self.weight.view().into_dyn()),
            ("bias", Role::Parameter, self.bias.view().into_dyn()),
            ("running_mean", Role::Buffer, self.running_mean.view().into_dyn()),
            ("running_var", Role::Buffer, self.running_var.view().into_dyn()),
        ]
    }

    pub(super) fn arrays_mut(&mut self) -> Vec<OwnArrayMut<'_>> {
        vec![
            ("weight", Role::Parameter, self.weight.view_mut().into_dyn()),
            ("bias", Role::Parameter, self.bias.view_mut().into_dyn()),
            ("running_mean", Role::Buffer, self.running_mean.view_mut().into_dyn()),
            ("running_var", Role::Buffer, self.running_var.view_mut().into_dyn()),
        ]
    }
}

impl Statistics {
    fn inverse_deviation(&self, channel: usize, eps: f64) -> f64 {
        1.0 / (self.variance[channel] + eps).sqrt()
    }
}

/// Where the planes of an image batch lie.
#[derive(Clone, Copy)]
struct Planes {
    batch: usize,
    channels: usize,
    plane: usize,
}

impl Planes {
    fn of(x: &ArrayViewD<'_, f32>) -> Planes {
        let shape = x.shape();
        Planes { batch: shape[0], channels: shape[1], plane: shape[2] * shape[3] }
    }

    fn of_channel(self, channel: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        let start = move |sample: usize| (sample * self.channels + channel) * self.plane;
        (0..self.batch).map(move |sample| start(sample)..start(sample) + self.plane)
    }
}

/// The sum of `f` over every channel, in f64 and in order.
fn per_channel(x: &ArrayViewD<'_, f32>, f: impl Fn(usize, f64) -> f64 + Sync) -> Vec<f64> {
    let (values, planes) = (slice(x), Planes::of(x));
    parallel::map(planes.channels, |channel| {
        let plane_sum =
            |plane: std::ops::Range<usize>| values[plane].iter().map(|x| f(channel, f64::from(*x))).sum::<f64>();
        planes.of_channel(channel).map(plane_sum).sum()
    })
}
