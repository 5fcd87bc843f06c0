//! What a forward pass leaves behind for the backward pass.

use ndarray::{ArrayD, ArrayViewD};

use super::{attention::Projections, batch_norm2d::Statistics};
use crate::{Error, Result, random::derive};

/// What a forward pass is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Running statistics in batch normalization, no dropout.
    Evaluation,
    /// Batch statistics in batch normalization; dropout masks drawn from this seed, the position of the layer and the
    /// position of the sample in the batch.
    Training {
        /// Give every step its own.
        seed: u64,
    },
}

impl Mode {
    /// The mode of the layer at this position.
    pub(super) fn of_layer(self, index: usize) -> Mode {
        match self {
            Mode::Evaluation => Mode::Evaluation,
            Mode::Training { seed } => Mode::Training { seed: derive(seed, index) },
        }
    }
}

/// The activations of a forward pass, layer by layer, and what backward needs besides.
///
/// ```
/// use tersor::nn::{Mode, Network};
///
/// let network = Network::builder(0).linear(3, 2).relu().build()?;
/// let trace = network.trace(&ndarray::array![[0.1, 0.2, 0.3]], Mode::Evaluation)?;
/// assert_eq!(trace.output_of("0")?, trace.input_of("1")?);
/// assert_eq!(trace.output_of("0")?.mapv(|x| x.max(0.0)), trace.output());
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Trace {
    pub(super) input: ArrayD<f32>,
    pub(super) steps: Vec<Step>,
}

/// One layer's part of a trace.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) output: ArrayD<f32>,
    pub(super) saved: Saved,
}

/// What a layer's gradient needs besides its input and output.
#[derive(Clone, Debug)]
pub(super) enum Saved {
    Nothing,
    /// Batch normalization in training.
    Batch(Statistics),
    /// Dropout in training.
    Seed(u64),
    /// Attention.
    Projections(Box<Projections>),
    /// A residual layer.
    Branch(Trace),
}

/// The gradients of a loss.
#[derive(Clone, Debug)]
pub struct Gradients {
    /// Of every parameter, named and ordered as [`Network::parameters`](super::Network::parameters).
    pub parameters: Vec<(String, ArrayD<f32>)>,
    /// Of the network's input.
    pub input: ArrayD<f32>,
}

impl Trace {
    /// What went in.
    pub fn input(&self) -> ArrayViewD<'_, f32> {
        self.input.view()
    }

    /// What came out of the last layer.
    pub fn output(&self) -> ArrayViewD<'_, f32> {
        self.input_of_step(self.steps.len())
    }

    /// What went into the layer of this full name (`3.0` is layer `0` in the residual layer `3`).
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    pub fn input_of(&self, layer: &str) -> Result<ArrayViewD<'_, f32>> {
        let (trace, index) = self.find(layer).ok_or_else(|| self.unknown(layer))?;
        Ok(trace.input_of_step(index))
    }

    /// What came out of the layer of this full name.
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    pub fn output_of(&self, layer: &str) -> Result<ArrayViewD<'_, f32>> {
        let (trace, index) = self.find(layer).ok_or_else(|| self.unknown(layer))?;
        Ok(trace.input_of_step(index + 1))
    }

    pub(super) fn input_of_step(&self, index: usize) -> ArrayViewD<'_, f32> {
        if index == 0 { self.input.view() } else { self.steps[index - 1].output.view() }
    }

    fn find(&self, layer: &str) -> Option<(&Trace, usize)> {
        let (head, rest) = layer.split_once('.').map_or((layer, None), |(head, rest)| (head, Some(rest)));
        let index = self.steps.iter().position(|step| step.name == head)?;
        match (rest, &self.steps[index].saved) {
            (None, _) => Some((self, index)),
            (Some(rest), Saved::Branch(branch)) => branch.find(rest),
            _ => None,
        }
    }

    fn unknown(&self, layer: &str) -> Error {
        Error::UnknownName { name: layer.to_owned(), known: self.names() }
    }

    fn names(&self) -> Vec<String> {
        let of_step = |step: &Step| {
            let inner = if let Saved::Branch(branch) = &step.saved { branch.names() } else { vec![] };
            let inner = inner.into_iter().map(|name| format!("{}.{name}", step.name)).collect::<Vec<_>>();
            std::iter::once(step.name.clone()).chain(inner)
        };
        self.steps.iter().flat_map(of_step).collect()
    }
}
