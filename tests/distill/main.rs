//! Losses of distillation as a user of the crate sees them: exact gradients, identities, limits, bad input.

#[path = "../common/mod.rs"]
mod common;
mod differences;
mod features;
mod outputs;
mod relations;
