//! Directional derivatives of the forward and of the backward pass, layer by layer (Pearlmutter 1994). A dot is the
//! derivative along the direction: `y˙` of an output, `(dy)˙` of a gradient.

use ndarray::{ArrayD, ArrayViewD};

use super::{
    Linear, Network, activation as act,
    activation::GeluForm,
    dense::{slice, zip_mut},
    inner::Inner,
    layer::{Backward, Layer, foreign_trace},
    softmax,
    trace::{Saved, Trace},
};
use crate::Result;

/// The tangents of a trace's activations.
pub(super) struct Tangent {
    input: ArrayD<f32>,
    /// Of every layer's output; a residual's branch has its own.
    steps: Vec<(ArrayD<f32>, Option<Tangent>)>,
}

/// Gradients of input and parameters of a backward pass, and their tangents.
type Both = ((ArrayD<f32>, ArrayD<f32>), Vec<(String, ArrayD<f32>)>);

impl Tangent {
    fn input_of_step(&self, index: usize) -> ArrayViewD<'_, f32> {
        if index == 0 { self.input.view() } else { self.steps[index - 1].0.view() }
    }

    /// Of the last layer's output.
    pub(super) fn output(&self) -> ArrayViewD<'_, f32> {
        self.input_of_step(self.steps.len())
    }
}

impl Network {
    /// The tangents of an evaluation's trace as the parameters move along `dot`, a network of the same layers whose
    /// parameters are the direction's, and the input along `x_dot`.
    pub(super) fn tangent(&self, dot: &Network, trace: &Trace, x_dot: ArrayD<f32>) -> Result<Tangent> {
        let mut tangent = Tangent { input: x_dot, steps: Vec::with_capacity(self.layers.len()) };
        for (index, ((_, layer), (_, dot))) in self.layers.iter().zip(&dot.layers).enumerate() {
            let step = &trace.steps[index];
            let pass = (trace.input_of_step(index), step.output.view());
            let next = match (layer, dot, &step.saved) {
                (Layer::Residual(residual), Layer::Residual(dot), Saved::Branch(branch)) => {
                    let x_dot = tangent.output();
                    let inner = residual.branch().tangent(dot.branch(), branch, x_dot.to_owned())?;
                    (&inner.output() + &x_dot, Some(inner))
                }
                _ => (layer.tangent(dot, pass, tangent.output())?, None),
            };
            tangent.steps.push(next);
        }
        Ok(tangent)
    }

    /// The tangents of the parameters' gradients, and input gradient and tangent, given those of the output's gradient.
    pub(super) fn backward_tangent(
        &self,
        dot: &Network,
        (trace, tangent): (&Trace, &Tangent),
        (mut dy, mut dy_dot): (ArrayD<f32>, ArrayD<f32>),
    ) -> Result<Both> {
        let mut found = Vec::new();
        for index in (0..self.layers.len()).rev() {
            let ((name, layer), (_, dot)) = (&self.layers[index], &dot.layers[index]);
            let step = &trace.steps[index];
            let (x, y) = (trace.input_of_step(index), step.output.view());
            let (output_dot, inner) = &tangent.steps[index];
            let own = match (layer, dot, &step.saved, inner) {
                (Layer::Residual(residual), Layer::Residual(dot), Saved::Branch(branch), Some(inner)) => {
                    let both = (dy.clone(), dy_dot.clone());
                    let ((dx, dx_dot), own) =
                        residual.branch().backward_tangent(dot.branch(), (branch, inner), both)?;
                    (dy, dy_dot) = (dy + dx, dy_dot + dx_dot);
                    own
                }
                _ => {
                    let dots = (tangent.input_of_step(index), output_dot.view());
                    let (dx_dot, own) = layer.backward_tangent(dot, (x.view(), y.view()), dots, (&dy, dy_dot))?;
                    let (dx, _) = layer.backward((x, y), &step.saved, dy, &Inner::default(), true)?;
                    (dy, dy_dot) = (dx.ok_or_else(foreign_trace)?, dx_dot.ok_or_else(foreign_trace)?);
                    own
                }
            };
            found.extend(own.into_iter().rev().map(|(own, values)| (format!("{name}.{own}"), values)));
        }
        found.reverse();
        Ok(((dy, dy_dot), found))
    }
}

impl Layer {
    /// `y˙`, given the pass and the tangents of parameters (in `dot`) and input.
    fn tangent(
        &self,
        dot: &Layer,
        (x, y): (ArrayViewD<'_, f32>, ArrayViewD<'_, f32>),
        x_dot: ArrayViewD<'_, f32>,
    ) -> Result<ArrayD<f32>> {
        Ok(match (self, dot) {
            // Affine in the input and linear in the parameters: the parameters' tangents at the input, and what is linear
            // in the input of its tangent.
            (Layer::Linear(_) | Layer::Conv2d(_) | Layer::BatchNorm2d(_), _) => {
                let zero = ArrayD::zeros(x.raw_dim());
                dot.evaluate(x)? + self.evaluate(x_dot)? - self.evaluate(zero.view())?
            }
            (Layer::Attention(attention), Layer::Attention(dot)) => attention.tangent(dot, x, x_dot)?,
            (Layer::LayerNorm(norm), Layer::LayerNorm(dot)) => norm.tangent(dot, x, x_dot),
            (Layer::MaxPool2d(pool), _) => pool.tangent(x, x_dot, y.shape()),
            (Layer::Softmax { axis }, _) => {
                softmax::backward(y.view(), x_dot.to_owned(), softmax::axis_of(*axis, y.shape())?)
            }
            (Layer::LogSoftmax { axis }, _) => {
                softmax::log_tangent(y.view(), x_dot.to_owned(), softmax::axis_of(*axis, y.shape())?)
            }
            // Linear without parameters: the layer itself.
            (Layer::AvgPool2d(_) | Layer::GlobalAvgPool2d | Layer::Flatten | Layer::Dropout(_), _) => {
                self.evaluate(x_dot)?
            }
            _ => match self.derivatives() {
                Some((at, slope, _)) => times(x_dot.to_owned(), at.of(&x, &y), slope),
                None => return Err(foreign_trace()),
            },
        })
    }

    /// `(dx)˙` and the tangents of the parameters' gradients.
    fn backward_tangent(
        &self,
        dot: &Layer,
        (x, y): (ArrayViewD<'_, f32>, ArrayViewD<'_, f32>),
        (x_dot, y_dot): (ArrayViewD<'_, f32>, ArrayViewD<'_, f32>),
        (dy, dy_dot): (&ArrayD<f32>, ArrayD<f32>),
    ) -> Result<Backward> {
        let plainly =
            |dy_dot: ArrayD<f32>| self.backward((x.view(), y.view()), &Saved::Nothing, dy_dot, &Inner::default(), true);
        let dx_dot = match (self, dot) {
            (Layer::Linear(_) | Layer::Conv2d(_) | Layer::BatchNorm2d(_), _) => {
                let zero = ArrayD::zeros(x.raw_dim());
                let at = |layer: &Layer, x: ArrayViewD<'_, f32>| {
                    layer.backward((x, y.view()), &Saved::Nothing, dy.clone(), &Inner::default(), true)
                };
                let (dx, mut parameters) = plainly(dy_dot)?;
                let (dx_of_dot, _) = at(dot, x.view())?;
                let (moved, still) = (at(self, x_dot)?.1, at(self, zero.view())?.1);
                for ((parameter, moved), still) in parameters.iter_mut().zip(moved).zip(still) {
                    parameter.1 += &(moved.1 - still.1);
                }
                let dx = dx.zip(dx_of_dot).map(|(dx, of_dot)| dx + of_dot);
                return Ok((dx, parameters));
            }
            (Layer::Attention(attention), Layer::Attention(dot)) => {
                return attention.backward_tangent(dot, (x, x_dot), (dy, dy_dot));
            }
            (Layer::LayerNorm(norm), Layer::LayerNorm(dot)) => {
                return Ok(norm.backward_tangent(dot, (x, x_dot), (dy.view(), dy_dot.view())));
            }
            (Layer::Softmax { axis }, _) => {
                let axis = softmax::axis_of(*axis, y.shape())?;
                softmax::backward_tangent((y, y_dot), (dy.view(), dy_dot), axis)
            }
            (Layer::LogSoftmax { axis }, _) => {
                let axis = softmax::axis_of(*axis, y.shape())?;
                softmax::log_backward_tangent((y, y_dot), (dy.view(), dy_dot), axis)
            }
            _ => match self.derivatives() {
                // The chain rule of dy f'(x).
                Some((at, slope, bend)) => {
                    let along = times(times(x_dot.to_owned(), at.of(&x, &y), bend), slice(&dy.view()), |dy| dy);
                    times(dy_dot, at.of(&x, &y), slope) + along
                }
                None => return plainly(dy_dot),
            },
        };
        Ok((Some(dx_dot), vec![]))
    }

    /// Of an elementwise layer: where its derivatives are taken, the first, and the second.
    fn derivatives(&self) -> Option<(At, Function, Function)> {
        match self {
            Layer::Relu => Some((At::Output, act::relu_slope_at_output, |_| 0.0)),
            Layer::Gelu(GeluForm::Erf) => Some((At::Input, act::gelu_erf_slope, act::gelu_erf_bend)),
            Layer::Gelu(GeluForm::Tanh) => Some((At::Input, act::gelu_tanh_slope, act::gelu_tanh_bend)),
            Layer::Silu => Some((At::Input, act::silu_slope, act::silu_bend)),
            Layer::Sigmoid => Some((At::Output, act::sigmoid_slope_at_output, act::sigmoid_bend_at_output)),
            Layer::Tanh => Some((At::Output, act::tanh_slope_at_output, act::tanh_bend_at_output)),
            Layer::Linear(_)
            | Layer::Conv2d(_)
            | Layer::Attention(_)
            | Layer::BatchNorm2d(_)
            | Layer::LayerNorm(_)
            | Layer::MaxPool2d(_)
            | Layer::AvgPool2d(_)
            | Layer::GlobalAvgPool2d
            | Layer::Softmax { .. }
            | Layer::LogSoftmax { .. }
            | Layer::Flatten
            | Layer::Dropout(_)
            | Layer::Residual(_) => None,
        }
    }
}

/// The tangent of a linear layer's output, inside a layer that has some.
pub(super) fn linear_tangent(
    linear: &Linear,
    dot: &Linear,
    x: ArrayViewD<'_, f32>,
    x_dot: ArrayViewD<'_, f32>,
) -> Result<ArrayD<f32>> {
    Layer::from(linear.clone()).tangent(&dot.clone().into(), (x.clone(), x), x_dot)
}

/// The tangents of a linear layer's gradients, inside a layer that has some.
pub(super) fn linear_backward_tangent(
    linear: &Linear,
    dot: &Linear,
    (x, x_dot): (ArrayViewD<'_, f32>, ArrayViewD<'_, f32>),
    both: (&ArrayD<f32>, ArrayD<f32>),
) -> Result<Backward> {
    Layer::from(linear.clone()).backward_tangent(&dot.clone().into(), (x.clone(), x), (x_dot.clone(), x_dot), both)
}

type Function = fn(f32) -> f32;

/// Where an activation's derivative is taken.
#[derive(Clone, Copy)]
enum At {
    Input,
    Output,
}

impl At {
    fn of<'a>(self, x: &ArrayViewD<'a, f32>, y: &ArrayViewD<'a, f32>) -> &'a [f32] {
        match self {
            At::Input => slice(x),
            At::Output => slice(y),
        }
    }
}

/// Each element times `f` of the other's.
fn times(mut a: ArrayD<f32>, at: &[f32], f: impl Fn(f32) -> f32 + Sync + Send) -> ArrayD<f32> {
    zip_mut(a.as_slice_mut().expect("row-major"), at, |a, at| a * f(at));
    a
}
