//! The closed set of layers, and the verbs that each of them has.

use ndarray::{ArrayBase, ArrayD, ArrayViewD, ArrayViewMutD, Data, Dimension};

use super::{
    activation::{self, GeluForm},
    attention::Attention,
    batch_norm2d::BatchNorm2d,
    conv2d::Conv2d,
    dense::{array, map, slice, zip_mut},
    dropout::Dropout,
    inner::Inner,
    layer_norm::LayerNorm,
    linear::Linear,
    pool::{self, AvgPool2d, MaxPool2d},
    residual::Residual,
    softmax,
    trace::{Mode, Saved},
};
use crate::{Error, Result, nn::shape::elements, random::Random};

/// A layer of a network. Inputs are batches: their first axis counts samples.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Layer {
    /// Fully connected.
    Linear(Linear),
    /// Multi-head self-attention.
    Attention(Attention),
    /// Convolution of images.
    Conv2d(Conv2d),
    /// Normalization of each channel over batch, height and width.
    BatchNorm2d(BatchNorm2d),
    /// Normalization of each sample over the last axes.
    LayerNorm(LayerNorm),
    /// The largest value of every window.
    MaxPool2d(MaxPool2d),
    /// The mean of every window.
    AvgPool2d(AvgPool2d),
    /// The mean of every channel: (batch, channels, height, width) to (batch, channels, 1, 1).
    GlobalAvgPool2d,
    /// `max(x, 0)`.
    Relu,
    /// `x Φ(x)` (Hendrycks and Gimpel 2016).
    Gelu(GeluForm),
    /// `x σ(x)`.
    Silu,
    /// `1 / (1 + e⁻ˣ)`.
    Sigmoid,
    /// Hyperbolic tangent.
    Tanh,
    /// `exp(x) / Σ exp(x)` along an axis.
    Softmax {
        /// The axis, counted from the batch axis 0; `None` is the last.
        axis: Option<usize>,
    },
    /// `x - log Σ exp(x)` along an axis.
    LogSoftmax {
        /// The axis, counted from the batch axis 0; `None` is the last.
        axis: Option<usize>,
    },
    /// (batch, ..) to (batch, features).
    Flatten,
    /// Random zeros in training.
    Dropout(Dropout),
    /// A branch added to its input.
    Residual(Residual),
}

/// Gradients of the input, if wanted, and of the layer's parameters by name, in order.
pub(super) type Backward = (Option<ArrayD<f32>>, Vec<(String, ArrayD<f32>)>);

/// A layer's own array: its name, what it is, its values.
pub(super) type OwnArray<'a> = (&'static str, Role, ArrayViewD<'a, f32>);

/// An [`OwnArray`] to be changed.
pub(super) type OwnArrayMut<'a> = (&'static str, Role, ArrayViewMutD<'a, f32>);

/// What an array of a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Learned by gradient.
    Parameter,
    /// Learned otherwise: running statistics.
    Buffer,
}

impl Layer {
    /// The output of a batch in evaluation mode.
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Shape`], [`Error::Axis`] for inputs that do not fit; [`Error::Setting`] and
    /// [`Error::Shape`] for a layer whose settings or arrays do not fit one another.
    pub fn forward<S, D>(&self, x: &ArrayBase<S, D>) -> Result<ArrayD<f32>>
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        self.evaluate(x.as_standard_layout().view().into_dyn())
    }

    /// The shape of the output for an input of this shape, batch axis included.
    ///
    /// # Errors
    /// As [`Layer::forward`].
    pub fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        self.check()?;
        elements("input of a layer", input)?;
        let output = match self {
            Layer::Linear(linear) => linear.output_shape(input)?,
            Layer::Attention(attention) => attention.output_shape(input)?,
            Layer::Conv2d(conv) => conv.output_shape(input)?,
            Layer::BatchNorm2d(norm) => norm.output_shape(input)?,
            Layer::LayerNorm(norm) => norm.output_shape(input)?,
            Layer::MaxPool2d(pool) => pool.output_shape(input)?,
            Layer::AvgPool2d(pool) => pool.output_shape(input)?,
            Layer::GlobalAvgPool2d => pool::global_output_shape(input)?,
            Layer::Softmax { axis } | Layer::LogSoftmax { axis } => {
                softmax::axis_of(*axis, input).map(|_| input.to_vec())?
            }
            Layer::Flatten => flat_shape(input)?,
            Layer::Residual(residual) => residual.output_shape(input)?,
            Layer::Relu | Layer::Gelu(_) | Layer::Silu | Layer::Sigmoid | Layer::Tanh => input.to_vec(),
            Layer::Dropout(_) if input.is_empty() => {
                return Err(Error::Rank { what: "input of dropout", expected: "1 or more", found: vec![] });
            }
            Layer::Dropout(_) => input.to_vec(),
        };
        elements("output of a layer", &output).map(|_| output)
    }

    /// As [`Layer::forward`], of a row-major view.
    pub(super) fn evaluate(&self, x: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
        let shape = self.output_shape(x.shape())?;
        Ok(match self {
            Layer::Linear(linear) => linear.forward(x, &shape),
            Layer::Attention(attention) => attention.trace(x, &shape)?.0,
            Layer::Conv2d(conv) => conv.forward(x, &shape),
            Layer::BatchNorm2d(norm) => norm.forward(x),
            Layer::LayerNorm(norm) => norm.forward(x),
            Layer::MaxPool2d(pool) => pool.forward(x, &shape),
            Layer::AvgPool2d(pool) => pool.forward(x, &shape),
            Layer::GlobalAvgPool2d => pool::global_forward(x, &shape),
            Layer::Softmax { axis } => softmax::forward(x.to_owned(), softmax::axis_of(*axis, &shape)?),
            Layer::LogSoftmax { axis } => softmax::log_forward(x, softmax::axis_of(*axis, &shape)?),
            Layer::Residual(residual) => residual.forward(x)?,
            Layer::Flatten | Layer::Dropout(_) => array(&shape, slice(&x).to_vec()),
            Layer::Relu => elementwise(x, activation::relu),
            Layer::Gelu(GeluForm::Erf) => elementwise(x, activation::gelu_erf),
            Layer::Gelu(GeluForm::Tanh) => elementwise(x, activation::gelu_tanh),
            Layer::Silu => elementwise(x, activation::silu),
            Layer::Sigmoid => elementwise(x, activation::sigmoid),
            Layer::Tanh => elementwise(x, activation::tanh),
        })
    }

    /// The output of a batch in either mode, with what backward needs.
    pub(super) fn trace(&self, x: ArrayViewD<'_, f32>, mode: Mode) -> Result<(ArrayD<f32>, Saved)> {
        match (self, mode) {
            (Layer::BatchNorm2d(norm), Mode::Training { .. }) => {
                self.output_shape(x.shape())?;
                norm.forward_training(x).map(|(y, statistics)| (y, Saved::Batch(statistics)))
            }
            (Layer::Dropout(dropout), Mode::Training { seed }) => {
                self.output_shape(x.shape())?;
                Ok((dropout.apply(x.to_owned(), seed), Saved::Seed(seed)))
            }
            (Layer::Attention(attention), _) => {
                let shape = self.output_shape(x.shape())?;
                attention.trace(x, &shape).map(|(y, projections)| (y, Saved::Projections(Box::new(projections))))
            }
            (Layer::Residual(residual), _) => {
                self.output_shape(x.shape())?;
                residual.trace(x, mode).map(|(y, trace)| (y, Saved::Branch(trace)))
            }
            _ => Ok((self.evaluate(x)?, Saved::Nothing)),
        }
    }

    /// The gradients, given a pass's input and output, whose shapes were checked, the output's gradient, and those for what
    /// is within.
    pub(super) fn backward(
        &self,
        (x, y): (ArrayViewD<'_, f32>, ArrayViewD<'_, f32>),
        saved: &Saved,
        dy: ArrayD<f32>,
        inner: &Inner<'_>,
        wants_input: bool,
    ) -> Result<Backward> {
        let dx = match self {
            Layer::Linear(linear) => return Ok(linear.backward(x, dy, wants_input)),
            Layer::Attention(attention) => match saved {
                Saved::Projections(projections) => return attention.backward(x, projections, dy, inner, wants_input),
                _ => return Err(foreign_trace()),
            },
            Layer::Conv2d(conv) => return Ok(conv.backward(x, dy, wants_input)),
            Layer::LayerNorm(norm) => return Ok(norm.backward(x, dy)),
            Layer::BatchNorm2d(norm) => {
                let batch = if let Saved::Batch(statistics) = saved { Some(statistics) } else { None };
                return Ok(norm.backward(x, batch, dy, wants_input));
            }
            Layer::Residual(residual) => match saved {
                Saved::Branch(trace) => return residual.backward(trace, dy, inner, wants_input),
                _ => return Err(foreign_trace()),
            },
            Layer::MaxPool2d(pool) => pool.backward(x, dy),
            Layer::AvgPool2d(pool) => pool.backward(x, dy),
            Layer::GlobalAvgPool2d => pool::global_backward(x, dy),
            Layer::Softmax { axis } => {
                let axis = softmax::axis_of(*axis, y.shape())?;
                softmax::backward(y, dy, axis)
            }
            Layer::LogSoftmax { axis } => {
                let axis = softmax::axis_of(*axis, y.shape())?;
                softmax::log_backward(y, dy, axis)
            }
            Layer::Flatten => dy.into_shape_with_order(x.shape()).expect("as many elements"),
            Layer::Dropout(dropout) => match saved {
                Saved::Seed(seed) => dropout.apply(dy, *seed),
                _ => dy,
            },
            Layer::Relu => chain(dy, y, activation::relu_slope_at_output),
            Layer::Gelu(GeluForm::Erf) => chain(dy, x, activation::gelu_erf_slope),
            Layer::Gelu(GeluForm::Tanh) => chain(dy, x, activation::gelu_tanh_slope),
            Layer::Silu => chain(dy, x, activation::silu_slope),
            Layer::Sigmoid => chain(dy, y, activation::sigmoid_slope_at_output),
            Layer::Tanh => chain(dy, y, activation::tanh_slope_at_output),
        };
        Ok((Some(dx), vec![]))
    }
}

impl Layer {
    /// Settings and arrays fit one another.
    pub(super) fn check(&self) -> Result<()> {
        match self {
            Layer::Linear(linear) => linear.check(),
            Layer::Attention(attention) => attention.check(),
            Layer::Conv2d(conv) => conv.check(),
            Layer::BatchNorm2d(norm) => norm.check(),
            Layer::LayerNorm(norm) => norm.check(),
            Layer::MaxPool2d(pool) => pool.check(),
            Layer::AvgPool2d(pool) => pool.check(),
            Layer::Dropout(dropout) => dropout.check(),
            Layer::Residual(residual) => residual.branch().check(),
            Layer::GlobalAvgPool2d
            | Layer::Relu
            | Layer::Gelu(_)
            | Layer::Silu
            | Layer::Sigmoid
            | Layer::Tanh
            | Layer::Softmax { .. }
            | Layer::LogSoftmax { .. }
            | Layer::Flatten => Ok(()),
        }
    }

    /// Draws the arrays that are not there yet.
    pub(super) fn initialize(&mut self, seed: u64) -> Result<()> {
        match self {
            Layer::Linear(linear) => linear.initialize(&mut Random::new(seed)),
            Layer::Attention(attention) => attention.initialize(&mut Random::new(seed)),
            Layer::Conv2d(conv) => conv.initialize(&mut Random::new(seed)),
            Layer::BatchNorm2d(norm) => norm.initialize(),
            Layer::LayerNorm(norm) => norm.initialize(),
            Layer::Residual(residual) => residual.branch_mut().initialize(seed),
            _ => Ok(()),
        }
    }

    /// The layer's own arrays; those of a residual branch belong to its layers.
    pub(super) fn arrays(&self) -> Vec<OwnArray<'_>> {
        match self {
            Layer::Linear(linear) => linear.arrays(),
            Layer::Attention(attention) => attention.arrays(),
            Layer::Conv2d(conv) => conv.arrays(),
            Layer::BatchNorm2d(norm) => norm.arrays(),
            Layer::LayerNorm(norm) => norm.arrays(),
            _ => vec![],
        }
    }

    /// [`Layer::arrays`], to be changed.
    pub(super) fn arrays_mut(&mut self) -> Vec<OwnArrayMut<'_>> {
        match self {
            Layer::Linear(linear) => linear.arrays_mut(),
            Layer::Attention(attention) => attention.arrays_mut(),
            Layer::Conv2d(conv) => conv.arrays_mut(),
            Layer::BatchNorm2d(norm) => norm.arrays_mut(),
            Layer::LayerNorm(norm) => norm.arrays_mut(),
            _ => vec![],
        }
    }
}

/// The error for a trace that another network made.
pub(super) fn foreign_trace() -> Error {
    Error::Conflict {
        what: "the trace was made by another network, or by this one before it was changed".into(),
        remedy: "trace the batch again",
    }
}

/// (batch, ..) to (batch, features).
fn flat_shape(input: &[usize]) -> Result<Vec<usize>> {
    let Some((batch, features)) = input.split_first() else {
        return Err(Error::Rank { what: "input of flatten", expected: "1 or more", found: vec![] });
    };
    Ok(vec![*batch, features.iter().product()])
}

fn elementwise(x: ArrayViewD<'_, f32>, f: impl Fn(f32) -> f32 + Sync + Send) -> ArrayD<f32> {
    array(x.shape(), map(slice(&x), f))
}

/// The chain rule: `dy` times the slope at each element of the input or the output.
fn chain(mut dy: ArrayD<f32>, at: ArrayViewD<'_, f32>, slope: impl Fn(f32) -> f32 + Sync + Send) -> ArrayD<f32> {
    zip_mut(dy.as_slice_mut().expect("row-major"), slice(&at), |dy, at| dy * slope(at));
    dy
}

macro_rules! from_settings {
    ($($layer:ident),*) => {$(
        impl From<$layer> for Layer {
            fn from(layer: $layer) -> Layer {
                Layer::$layer(layer)
            }
        }
    )*};
}

from_settings!(Linear, Attention, Conv2d, BatchNorm2d, LayerNorm, MaxPool2d, AvgPool2d, Dropout, Residual);
