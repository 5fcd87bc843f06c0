//! Which scheme for which layer: by name, in code, checked before anything happens.

mod calibrate;
mod pruning;
mod quantization_aware;
mod rules;

use std::{fmt, sync::Arc};

use ndarray::{ArrayBase, Data, Dimension};
pub use pruning::{AcDc, Gradual, LotteryTicket, Movement, Pruning, RigL, Sensitivity, SensitivityRow, Ticket};
pub use quantization_aware::QuantizationAware;
use rules::Rules;

use crate::{
    compressed::Compressed,
    error::{Error, Result},
    nn::Network,
    packed::Activations,
    prune::Pruner,
    quantize::{Quantizer, Uniform},
    tensor::{Checkpoint, Mask, Observed, QuantizedTensor, SparseTensor, SparseValues, Stored},
};

/// Schemes by layer name, applied to a network or to a checkpoint.
///
/// A pattern is a glob (`*` any text, `?` one character) over the names of weights, with or without their `.weight`:
/// `"*"`, `"0"`, `"encoder.*"`. Weights of linear layers, convolutions and attentions (`attn.query` to
/// `attn.output`) are what a recipe compresses; biases and normalizations stay. Where several patterns match, the last one counts; one that matches nothing is an error.
///
/// ```
/// use ndarray::Axis;
/// use tersor::{Quantizer, Recipe, nn::Network};
///
/// let network = Network::builder(1).linear(64, 32).relu().linear(32, 10).build()?;
/// let recipe = Recipe::new()
///     .quantize("*", Quantizer::uniform(4).per_group(32))
///     .quantize("2", Quantizer::uniform(8).symmetric().per_channel(Axis(0)));
/// for planned in recipe.dry_run(&network)? {
///     println!("{planned}");
/// }
/// let compressed = recipe.apply(&network)?;
/// assert!(compressed.nbytes() * 3 < network.parameter_count() * 4);
/// assert!(Recipe::new().quantize("conv*", Quantizer::uniform(8)).apply(&network).is_err()); // matches nothing
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    rules: Rules<dyn Quantizer>,
    activations: Inputs,
}

/// How quantized layers take their inputs.
#[derive(Clone, Debug, Default)]
enum Inputs {
    #[default]
    Dynamic,
    Static(Uniform),
    Float,
}

/// What a recipe would do to one weight.
#[derive(Debug)]
pub struct Planned<T: ?Sized = dyn Quantizer> {
    /// The weight's name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The scheme (or pruner); `None` if it stays as it is.
    pub scheme: Option<Arc<T>>,
}

impl<T: ?Sized> Clone for Planned<T> {
    fn clone(&self) -> Self {
        Planned { name: self.name.clone(), shape: self.shape.clone(), scheme: self.scheme.clone() }
    }
}

impl<T: fmt::Debug + ?Sized> fmt::Display for Planned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}: ", self.name, self.shape)?;
        match &self.scheme {
            Some(scheme) => write!(f, "{scheme:?}"),
            None => write!(f, "stays"),
        }
    }
}

impl Recipe {
    /// One that leaves everything as it is.
    pub fn new() -> Self {
        Recipe::default()
    }

    /// Quantizes the weights whose names match.
    pub fn quantize(mut self, pattern: impl Into<String>, scheme: impl Quantizer + 'static) -> Self {
        self.rules.push(pattern, Some(Arc::new(scheme)));
        self
    }

    /// Starts a pruning of the weights whose names match: see [`Pruning`]. Networks are pruned first and quantized by a
    /// recipe of its own afterwards, which keeps the zeros.
    pub fn prune(self, pattern: impl Into<String>, pruner: impl Pruner + 'static) -> Pruning {
        Pruning::new(self).prune(pattern, pruner)
    }

    /// Leaves the weights whose names match as they are, whatever an earlier pattern says.
    pub fn keep(mut self, pattern: impl Into<String>) -> Self {
        self.rules.push(pattern, None);
        self
    }

    /// Gives quantized layers a fixed grid for their inputs, found on the calibration data of
    /// [`apply_with`](Recipe::apply_with), instead of one a row found while running. Of the scheme, its
    /// mapping and range count; its codes have 8 bits, one scale above 0 for all, and zero among them, and the kernels
    /// round as they always do (half to even, by the reciprocal).
    pub fn static_activations(mut self, scheme: Uniform) -> Self {
        self.activations = Inputs::Static(scheme);
        self
    }

    /// Leaves the inputs of quantized layers in f32: only weights lose precision, and no layer runs on integers.
    pub fn float_activations(mut self) -> Self {
        self.activations = Inputs::Float;
        self
    }

    /// Trains a network with its weights already rounded as the recipe will round them: a callback for
    /// [`Training::train_with`](crate::nn::Training::train_with).
    pub fn while_training(self) -> QuantizationAware {
        QuantizationAware::new(self)
    }

    /// What the recipe would do to each weight of the network, in order; nothing is computed.
    ///
    /// # Errors
    /// [`Error::Pattern`] for a pattern that matches nothing.
    pub fn dry_run(&self, network: &Network) -> Result<Vec<Planned>> {
        let compressed = Compressed::new(network)?;
        self.plan(compressed.weights(), compressed.tensors())
    }

    /// Compresses a network.
    ///
    /// # Errors
    /// [`Error::Pattern`] for a pattern that matches nothing; [`Error::Layer`] with what a scheme refuses, and where;
    /// [`Error::NeedsCalibration`] if the recipe needs data.
    pub fn apply(&self, network: &Network) -> Result<Compressed> {
        self.needs_no_data()?;
        self.compress(network)
    }

    /// Compresses a network with calibration data: inputs as the network takes them, the batch axis first.
    ///
    /// # Errors
    /// As [`apply`](Recipe::apply), and those of a forward pass.
    pub fn apply_with<S, D>(&self, network: &Network, inputs: &ArrayBase<S, D>) -> Result<Compressed>
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        let mut compressed = self.compress(network)?;
        if let Inputs::Static(scheme) = &self.activations {
            calibrate::set_input_grids(&mut compressed, network, inputs.view().into_dyn(), scheme)?;
        }
        Ok(compressed)
    }

    fn needs_no_data(&self) -> Result<()> {
        match self.activations {
            Inputs::Static(_) => Err(Error::NeedsCalibration {
                scheme: "static_activations",
                what: "calibration data; give it some with apply_with",
            }),
            Inputs::Dynamic | Inputs::Float => Ok(()),
        }
    }

    fn compress(&self, network: &Network) -> Result<Compressed> {
        let mut compressed = Compressed::new(network)?;
        for (name, scheme) in self.chosen(compressed.weights(), compressed.tensors())? {
            let quantized = quantized(compressed.tensors(), &name, &*scheme);
            let (tensor, words) = quantized.map_err(|error| error.in_layer(&name))?;
            compressed.replace(&name, tensor, words)?;
            if let (Inputs::Float, Some(layer)) = (&self.activations, name.strip_suffix(".weight")) {
                compressed.set_activations(layer, Activations::Float)?;
            }
        }
        Ok(compressed)
    }

    /// Compresses the float tensors (sparse ones included) of a checkpoint that have at least two axes and a matching name;
    /// the others stay. A sparse tensor keeps its mask. A dense one more than half of which is zero is taken as pruned, if
    /// the scheme has a level at zero and what is left takes fewer bytes than all: its zeros stay zeros, and it is stored
    /// sparse.
    ///
    /// # Errors
    /// As [`apply`](Recipe::apply).
    ///
    /// ```no_run
    /// # #[cfg(feature = "io")] {
    /// use tersor::{Quantizer, Recipe, tensor::Checkpoint};
    ///
    /// let checkpoint = Checkpoint::load("model.safetensors")?;
    /// let recipe = Recipe::new().quantize("*", Quantizer::uniform(4).per_group(128)).keep("lm_head");
    /// recipe.apply_to_checkpoint(&checkpoint)?.save("small.safetensors")?;
    /// # }
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn apply_to_checkpoint(&self, checkpoint: &Checkpoint) -> Result<Checkpoint> {
        self.needs_no_data()?;
        let mut compressed = checkpoint.clone();
        for (name, scheme) in self.chosen(float_matrices(checkpoint), checkpoint)? {
            let stored = quantized_at_rest(checkpoint, &name, &*scheme);
            compressed.insert(name.clone(), stored.map_err(|error| error.in_layer(&name))?);
        }
        Ok(compressed)
    }

    /// The weights that a scheme is for.
    fn chosen(&self, names: Vec<String>, tensors: &Checkpoint) -> Result<Vec<(String, Arc<dyn Quantizer>)>> {
        let planned = self.plan(names, tensors)?.into_iter();
        Ok(planned.filter_map(|Planned { name, scheme, .. }| Some((name, scheme?))).collect())
    }

    fn plan(&self, names: Vec<String>, tensors: &Checkpoint) -> Result<Vec<Planned>> {
        let planned = self.rules.choose(names)?.into_iter().map(|(name, scheme)| {
            let shape = tensors.tensor(&name)?.shape().to_vec();
            Ok(Planned { name, shape, scheme })
        });
        planned.collect()
    }
}

/// The names of a checkpoint's float tensors, sparse or not, of at least two axes: what a recipe may compress.
fn float_matrices(checkpoint: &Checkpoint) -> Vec<String> {
    let has_floats = |tensor: &Stored| match tensor {
        Stored::Float(..) => true,
        Stored::Sparse(sparse) => matches!(sparse.values(), SparseValues::Floats(_)),
        _ => false,
    };
    let matrices = checkpoint.iter().filter(|(_, tensor)| has_floats(tensor) && tensor.shape().len() >= 2);
    matrices.map(|(name, _)| name.to_owned()).collect()
}

/// A tensor by a scheme, and the scheme in words.
fn quantized(tensors: &Checkpoint, name: &str, scheme: &dyn Quantizer) -> Result<(QuantizedTensor, String)> {
    match tensors.tensor(name)? {
        Stored::Sparse(sparse) => scheme.apply_described(&sparse.to_pruned()),
        _ => scheme.apply_described(&tensors.floats(name)?),
    }
}

/// A tensor by a scheme, as it is stored: sparse if it was, or if it holds so many zeros that this takes fewer bytes.
fn quantized_at_rest(tensors: &Checkpoint, name: &str, scheme: &dyn Quantizer) -> Result<Stored> {
    let stored = tensors.tensor(name)?;
    if let Stored::Float(values, _) = stored {
        let mask = Mask::of_nonzeros(values);
        // What a scheme finds wrong with the zeros is no matter: nobody said that they are to stay.
        if mask.sparsity() > 0.5
            && let Ok(tensor) = scheme.apply(&Observed::new(values).masked(&mask))
        {
            let sparse = SparseTensor::from_quantized(&tensor, &mask)?;
            if sparse.nbytes() < tensor.nbytes() {
                return Ok(sparse.into());
            }
        }
    }
    stored.to_quantized(quantized(tensors, name, scheme)?.0)
}
