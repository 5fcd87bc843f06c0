//! Channels and neurons taken out of a network for real, through everything that reads them: a smaller network with new
//! shapes and fewer multiplications.
//!
//! [`Channels`] chooses, a [`Selection`] is what was chosen, and both [`remove`](Channels::remove). What goes together
//! is found by a walk through the network: a linear layer or convolution makes channels; batch and layer normalization,
//! activations, pooling, dropout, flattening and depthwise convolution keep them apart; the two sides of a
//! [`Residual`](crate::nn::Residual) share theirs, however nested; the groups of a convolution keep equally many. The
//! channels of the network's input and output stay, as do those that a softmax relates.
//!
//! [`Heads`] takes heads out of attention layers in the same way. The channels that attention reads and makes are channels
//! like others: it makes them as its `output`.
//!
//! A removed channel is one whose rows of weights are taken for zero. It still gives a constant, its bias, which becomes
//! another one in every normalization and activation; that is added exactly to the biases of the layers that read it. So
//! the smaller network computes, in evaluation and to rounding, what the [masked](Selection::mask) one does. Where a
//! convolution pads with zeros beside such a constant, no bias could: this is an error, and
//! [`drop_biases`](Channels::drop_biases) the remedy.

mod channels;
mod choice;
mod cut;
mod heads;
mod importance;
mod selection;
mod spaces;
mod surgery;
mod view;

pub use channels::{Channels, Reduce};
pub use heads::{HeadSelection, Heads};
pub use selection::Selection;
