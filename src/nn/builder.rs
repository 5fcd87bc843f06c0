//! Builds a network layer by layer; everything is checked at the end.

use super::{
    Attention, AvgPool2d, BatchNorm2d, Conv2d, Dropout, GeluForm, Layer, LayerNorm, Linear, MaxPool2d, Network,
    Residual,
};
use crate::{Error, Result};

/// Collects layers. Nothing fails before [`Builder::build`], which names the layer at fault.
///
/// ```
/// use tersor::nn::Network;
///
/// let network = Network::builder(7).linear(784, 64).relu().linear(64, 10).named("head").build()?;
/// let names: Vec<_> = network.parameters().into_iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["0.weight", "0.bias", "head.weight", "head.bias"]);
///
/// let error = Network::builder(7).linear(784, 64).linear(65, 10).build().unwrap_err();
/// assert!(error.to_string().starts_with("layer `1`: input features of a linear layer"));
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    seed: u64,
    layers: Vec<(String, Layer)>,
    /// The first name given to no layer.
    nameless: Option<String>,
}

impl Builder {
    pub(super) fn new(seed: u64) -> Builder {
        Builder { seed, layers: Vec::new(), nameless: None }
    }

    /// Appends any layer. One made by `from_arrays` keeps its arrays.
    pub fn layer(mut self, layer: impl Into<Layer>) -> Builder {
        self.layers.push((self.layers.len().to_string(), layer.into()));
        self
    }

    /// Appends a [`Linear`] layer.
    pub fn linear(self, in_features: usize, out_features: usize) -> Builder {
        self.layer(Linear::new(in_features, out_features))
    }

    /// Appends a [`Linear`] layer without a bias.
    pub fn linear_without_bias(self, in_features: usize, out_features: usize) -> Builder {
        self.layer(Linear::new(in_features, out_features).without_bias())
    }

    /// Appends an [`Attention`] of so many heads of `features / heads` features.
    pub fn attention(self, features: usize, heads: usize) -> Builder {
        self.layer(Attention::new(features, heads))
    }

    /// Appends a [`Conv2d`].
    pub fn conv2d(self, conv: Conv2d) -> Builder {
        self.layer(conv)
    }

    /// Appends a [`BatchNorm2d`] of so many channels.
    pub fn batch_norm2d(self, channels: usize) -> Builder {
        self.layer(BatchNorm2d::new(channels))
    }

    /// Appends a [`LayerNorm`] over the last axis.
    pub fn layer_norm(self, features: usize) -> Builder {
        self.layer(LayerNorm::new(features))
    }

    /// Appends a [`MaxPool2d`], given whole or as the size of its window.
    pub fn max_pool2d(self, pool: impl Into<MaxPool2d>) -> Builder {
        self.layer(pool.into())
    }

    /// Appends an [`AvgPool2d`], given whole or as the size of its window.
    pub fn avg_pool2d(self, pool: impl Into<AvgPool2d>) -> Builder {
        self.layer(pool.into())
    }

    /// Appends [`Layer::GlobalAvgPool2d`].
    pub fn global_avg_pool2d(self) -> Builder {
        self.layer(Layer::GlobalAvgPool2d)
    }

    /// Appends [`Layer::Relu`].
    pub fn relu(self) -> Builder {
        self.layer(Layer::Relu)
    }

    /// Appends [`Layer::Gelu`] with the error function.
    pub fn gelu(self) -> Builder {
        self.layer(Layer::Gelu(GeluForm::Erf))
    }

    /// Appends [`Layer::Gelu`] with the hyperbolic tangent.
    pub fn gelu_tanh(self) -> Builder {
        self.layer(Layer::Gelu(GeluForm::Tanh))
    }

    /// Appends [`Layer::Silu`].
    pub fn silu(self) -> Builder {
        self.layer(Layer::Silu)
    }

    /// Appends [`Layer::Sigmoid`].
    pub fn sigmoid(self) -> Builder {
        self.layer(Layer::Sigmoid)
    }

    /// Appends [`Layer::Tanh`].
    pub fn tanh(self) -> Builder {
        self.layer(Layer::Tanh)
    }

    /// Appends [`Layer::Softmax`] over the last axis.
    pub fn softmax(self) -> Builder {
        self.layer(Layer::Softmax { axis: None })
    }

    /// Appends [`Layer::LogSoftmax`] over the last axis.
    pub fn log_softmax(self) -> Builder {
        self.layer(Layer::LogSoftmax { axis: None })
    }

    /// Appends [`Layer::Flatten`].
    pub fn flatten(self) -> Builder {
        self.layer(Layer::Flatten)
    }

    /// Appends a [`Dropout`] with probability `p`.
    pub fn dropout(self, p: f64) -> Builder {
        self.layer(Dropout::new(p))
    }

    /// Appends a [`Residual`], whose branch is what `branch` makes of an empty builder.
    pub fn residual(mut self, branch: impl FnOnce(Builder) -> Builder) -> Builder {
        let branch = branch(Builder::new(self.seed));
        self.nameless = self.nameless.or(branch.nameless);
        self.layer(Residual::new(Network { layers: branch.layers }))
    }

    /// Names the last layer; others are named by their position.
    pub fn named(mut self, name: impl Into<String>) -> Builder {
        match self.layers.last_mut() {
            Some(last) => last.0 = name.into(),
            None => self.nameless = self.nameless.or_else(|| Some(name.into())),
        }
        self
    }

    /// Checks everything and draws the initial weights.
    ///
    /// # Errors
    /// [`Error::Empty`] without layers; [`Error::LayerName`] for a name that is empty, has a `.`, comes twice, or was
    /// given before the first layer; [`Error::Layer`] around [`Error::Setting`], or around [`Error::Shape`] for
    /// neighbours whose features do not match.
    pub fn build(self) -> Result<Network> {
        if let Some(name) = self.nameless {
            return Err(Error::LayerName { name });
        }
        let mut network = Network { layers: self.layers };
        network.initialize(self.seed)?;
        Network::from_layers(network.layers)
    }
}
