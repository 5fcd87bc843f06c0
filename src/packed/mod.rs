//! From a tensor at rest to something that runs: decide which kernel, pack for it, multiply. Never saved.

mod activations;
mod at_rest;
mod choose;
mod conv2d;
mod decoded;
mod dense;
mod weights;

pub use activations::Activations;
pub use at_rest::AtRest;
pub use conv2d::PackedConv2d;
pub use weights::PackedWeights;
