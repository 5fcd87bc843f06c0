//! What a distillation went through.

use crate::nn::History;

/// What a distillation went through.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Distilled {
    /// The whole loss, epoch by epoch.
    pub history: History,
    /// Its parts: the labels if they have a weight, then the terms in order.
    pub parts: Vec<Part>,
}

/// One part of the loss.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Part {
    /// Which it is and where: `labels`; `term 0, on the outputs`; `term 1, at 2 against 1`.
    pub name: String,
    /// Its mean over the samples of every epoch for which it had a weight, before it is weighed; NaN if there were none.
    pub losses: Vec<f64>,
    /// The factor it was weighed with at the end of every epoch.
    pub factors: Vec<f64>,
}
