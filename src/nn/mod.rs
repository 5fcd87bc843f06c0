//! A small trainable network over `ndarray`: layers, losses, optimizers, and the loop that puts them together.
//!
//! A [`Network`] is built by [`Network::builder`] or from trained arrays, and trained by a [`Training`]. Conventions are
//! PyTorch's throughout: shapes of weights, initial values, defaults, and the order of the arithmetic.
//!
//! A forward pass that is to be followed by a backward one keeps every activation in a [`Trace`], and each layer computes
//! its gradients from its own input and output. There is no graph and no tape: a network is a tree of layers.

mod activation;
mod adam;
mod attention;
mod batch_norm2d;
mod best_epoch;
mod builder;
mod callback;
mod conv2d;
mod curvature;
mod data;
mod dense;
mod descent;
mod dropout;
mod fingerprint;
#[cfg(test)]
mod finite_differences;
mod flow;
mod inner;
mod known;
mod layer;
mod layer_norm;
mod linear;
mod loss;
mod masks;
mod multiplications;
mod network;
mod optimizer;
mod pool;
mod product;
mod residual;
mod scale_l1;
mod scaled_dot_product;
mod schedule;
#[cfg(test)]
mod second_differences;
mod settings;
mod sgd;
mod shape;
mod softmax;
mod state;
mod tangent;
mod trace;
mod training;
mod watch;

pub use activation::GeluForm;
pub use adam::{Adam, AdamW};
pub use attention::Attention;
pub use batch_norm2d::BatchNorm2d;
pub use best_epoch::BestEpoch;
pub use builder::Builder;
pub use callback::Callback;
pub use conv2d::Conv2d;
pub(crate) use data::expect_labels;
pub use data::{Data, Targets};
pub(crate) use descent::{Batch, Moment, Objective, Pass, Slopes, Trainee};
pub use dropout::Dropout;
pub(crate) use fingerprint::Fingerprint;
pub use layer::Layer;
pub use layer_norm::{Absent, LayerNorm};
pub use linear::Linear;
pub use loss::{CrossEntropy, Loss, MeanSquaredError};
pub use multiplications::Multiplications;
pub use network::Network;
pub use optimizer::{Optimizer, Update};
pub use pool::{AvgPool2d, MaxPool2d};
pub use residual::Residual;
pub use scale_l1::ScaleL1;
pub(crate) use scaled_dot_product::{ScaledDotProduct, expect_sequences};
pub use schedule::Schedule;
pub(crate) use settings::{not_negative, positive, share};
pub use sgd::Sgd;
pub use shape::Size2d;
pub(crate) use shape::expect_shape;
pub use trace::{Gradients, Mode, Trace};
pub use training::{History, Progress, Training};
