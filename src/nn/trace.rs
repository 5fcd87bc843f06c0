//! What a forward pass leaves behind for the backward pass.

use ndarray::{ArrayD, ArrayViewD};

use super::{
    attention::{Attention, Projections},
    batch_norm2d::Statistics,
};
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

    /// What went into the layer of this full name (`3.0` is layer `0` in the residual layer `3`), or into a product of an
    /// attention (`3.0.query`, `3.0.key`, `3.0.value`).
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    pub fn input_of(&self, layer: &str) -> Result<ArrayViewD<'_, f32>> {
        self.find(layer).map(|(input, _)| input).ok_or_else(|| self.unknown(layer))
    }

    /// What came out of the layer of this full name, or of a product of an attention: its queries `3.0.query`, keys
    /// `3.0.key` or values `3.0.value`, of shape (batch, sequence, heads · head_dim).
    ///
    /// ```
    /// use ndarray::Array3;
    /// use tersor::nn::{Mode, Network};
    ///
    /// let network = Network::builder(0).residual(|branch| branch.layer_norm(8).attention(8, 2).named("attn")).build()?;
    /// let trace = network.trace(&Array3::zeros((1, 5, 8)), Mode::Evaluation)?;
    /// assert_eq!(trace.output_of("0.attn.query")?.shape(), [1, 5, 8]);
    /// # Ok::<(), tersor::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownName`].
    pub fn output_of(&self, layer: &str) -> Result<ArrayViewD<'_, f32>> {
        self.find(layer).map(|(_, output)| output).ok_or_else(|| self.unknown(layer))
    }

    /// Whether every layer's output is finite.
    pub(super) fn is_finite(&self) -> bool {
        self.steps.iter().all(|step| step.output.iter().all(|x| x.is_finite()))
    }

    pub(super) fn input_of_step(&self, index: usize) -> ArrayViewD<'_, f32> {
        if index == 0 { self.input.view() } else { self.steps[index - 1].output.view() }
    }

    /// What went in and what came out.
    fn find(&self, name: &str) -> Option<(ArrayViewD<'_, f32>, ArrayViewD<'_, f32>)> {
        let (head, rest) = name.split_once('.').map_or((name, None), |(head, rest)| (head, Some(rest)));
        let index = self.steps.iter().position(|step| step.name == head)?;
        let (input, step) = (self.input_of_step(index), &self.steps[index]);
        match (rest, &step.saved) {
            (None, _) => Some((input, step.output.view())),
            (Some(rest), Saved::Branch(branch)) => branch.find(rest),
            (Some(part), Saved::Projections(projections)) => Some((input, projections.part(part)?)),
            _ => None,
        }
    }

    fn unknown(&self, layer: &str) -> Error {
        Error::UnknownName { name: layer.to_owned(), known: self.names() }
    }

    fn names(&self) -> Vec<String> {
        let of_step = |step: &Step| {
            let inner = match &step.saved {
                Saved::Branch(branch) => branch.names(),
                Saved::Projections(_) => Attention::PROJECTIONS.map(str::to_owned).to_vec(),
                _ => vec![],
            };
            let inner = inner.into_iter().map(|name| format!("{}.{name}", step.name)).collect::<Vec<_>>();
            std::iter::once(step.name.clone()).chain(inner)
        };
        self.steps.iter().flat_map(of_step).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Ix2};

    use super::*;
    use crate::nn::Network;

    #[test]
    fn queries_keys_and_values_go_by_the_names_of_their_products() {
        let network = Network::builder(3)
            .residual(|branch| branch.layer_norm(6).attention(6, 2).named("attn"))
            .attention(6, 3)
            .build()
            .unwrap();
        let x = Array3::from_shape_fn((2, 4, 6), |(i, j, k)| ((i * 24 + j * 6 + k) as f32).sin());
        let trace = network.trace(&x, Mode::Evaluation).unwrap();
        for layer in ["0.attn", "1"] {
            let input = trace.input_of(layer).unwrap();
            let rows = input.to_shape((8, 6)).unwrap();
            for part in ["query", "key", "value"] {
                let name = format!("{layer}.{part}");
                let weight = network.parameter(&format!("{name}.weight")).unwrap();
                let expected = rows.dot(&weight.into_dimensionality::<Ix2>().unwrap().t());
                let found = trace.output_of(&name).unwrap();
                assert_eq!(found.shape(), [2, 4, 6]);
                let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst < 1e-6, "{name}: off by {worst}");
                assert_eq!(trace.input_of(&name).unwrap(), input);
            }
        }
        assert_eq!(trace.output_of("1").unwrap(), trace.output());
    }

    #[test]
    fn names_that_a_trace_does_not_have_are_answered_with_those_it_has() {
        let network =
            Network::builder(3).residual(|branch| branch.attention(4, 2).named("attn")).gelu().build().unwrap();
        let trace = network.trace(&Array3::zeros((1, 2, 4)), Mode::Evaluation).unwrap();
        for name in ["0.attn.output", "0.attn.query.weight", "0.attn.", "attn.query", "0.query", "1.query", ""] {
            for found in [trace.output_of(name), trace.input_of(name)] {
                let Err(Error::UnknownName { name: found, known }) = found else { panic!("{name}: an error") };
                assert_eq!(found, name);
                assert_eq!(known, ["0", "0.attn", "0.attn.query", "0.attn.key", "0.attn.value", "1"]);
            }
        }
    }
}
