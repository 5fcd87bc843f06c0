//! What can be said of the features between layers before any input is seen.

use super::{layer::Layer, shape::expect_shape};
use crate::Result;

/// What is known of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Nothing,
    /// The last axis.
    Features(usize),
    /// The channels of images.
    Channels(usize),
    /// The channels of images of 1 x 1.
    Pooled(usize),
}

impl Layer {
    /// What is known of the output, or the error if the input is known not to fit.
    pub(super) fn known_after(&self, before: Known) -> Result<Known> {
        Ok(match self {
            Layer::Linear(linear) => {
                expect_last("input features of a linear layer", linear.in_features(), before)?;
                Known::Features(linear.out_features())
            }
            Layer::Attention(attention) => {
                expect_last("input features of attention", attention.in_features(), before)?;
                Known::Features(attention.out_features())
            }
            Layer::Conv2d(conv) => {
                expect_channels("input channels of conv2d", conv.in_channels(), before)?;
                Known::Channels(conv.out_channels())
            }
            Layer::BatchNorm2d(norm) => {
                expect_channels("input channels of batch_norm2d", norm.channels(), before)?;
                if before == Known::Nothing { Known::Channels(norm.channels()) } else { before }
            }
            Layer::LayerNorm(norm) => {
                let features = norm.shape()[norm.shape().len() - 1];
                expect_last("input features of layer_norm", features, before)?;
                if before == Known::Nothing { Known::Features(features) } else { before }
            }
            Layer::MaxPool2d(_) | Layer::AvgPool2d(_) => match before {
                Known::Channels(channels) | Known::Pooled(channels) => Known::Channels(channels),
                _ => Known::Nothing,
            },
            Layer::GlobalAvgPool2d => match before {
                Known::Channels(channels) | Known::Pooled(channels) => Known::Pooled(channels),
                _ => Known::Nothing,
            },
            Layer::Flatten => match before {
                Known::Pooled(channels) => Known::Features(channels),
                _ => Known::Nothing,
            },
            Layer::Residual(residual) => {
                let after = residual.branch().known_after(before)?;
                match (before, after) {
                    (Known::Features(input), Known::Features(output))
                    | (Known::Channels(input), Known::Channels(output)) => {
                        expect_shape("output features of a residual branch", &[input], &[output])?;
                        after
                    }
                    _ => before,
                }
            }
            Layer::Relu
            | Layer::Gelu(_)
            | Layer::Silu
            | Layer::Sigmoid
            | Layer::Tanh
            | Layer::Softmax { .. }
            | Layer::LogSoftmax { .. }
            | Layer::Dropout(_) => before,
        })
    }
}

fn expect_last(what: &'static str, expected: usize, before: Known) -> Result<()> {
    match before {
        Known::Features(found) => expect_shape(what, &[expected], &[found]),
        Known::Pooled(_) => expect_shape(what, &[expected], &[1]),
        Known::Channels(_) | Known::Nothing => Ok(()),
    }
}

fn expect_channels(what: &'static str, expected: usize, before: Known) -> Result<()> {
    match before {
        Known::Channels(found) | Known::Pooled(found) => expect_shape(what, &[expected], &[found]),
        Known::Features(_) | Known::Nothing => Ok(()),
    }
}
