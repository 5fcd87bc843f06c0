//! Networks whose weights are compressed: at rest ([`Compressed`]), and running ([`PackedNetwork`]).

mod packed_network;
mod structure;

pub use packed_network::PackedNetwork;
pub(crate) use structure::{Structure, join};

use std::{borrow::Cow, collections::BTreeMap};

use ndarray::{ArrayD, ArrayViewD};

use structure::Kind;

use crate::{
    error::{Error, Result},
    nn::{Attention, Network},
    packed::{Activations, AtRest},
    tensor::{Checkpoint, Mask, PrunedTensor, QuantizedTensor, Stored},
};

/// What a mask removes is zero.
fn expect_zeros(values: &ArrayViewD<'_, f32>, mask: &Mask) -> Result<()> {
    let mut lost = values.iter().zip(mask.iter()).enumerate().filter(|(_, (x, kept))| !kept && **x != 0.0);
    match lost.next() {
        Some((index, (value, _))) => Err(Error::Conflict {
            what: format!("element {index} is removed by its mask, but {value}"),
            remedy: "call Network::apply_masks, or take the mask away with set_mask",
        }),
        None => Ok(()),
    }
}

/// `branch + input` of a residual, which must be of one shape: nothing is broadcast.
pub(crate) fn add_residual(branch: ArrayD<f32>, input: &ArrayD<f32>) -> Result<ArrayD<f32>> {
    if branch.shape() != input.shape() {
        let (expected, found) = (input.shape().to_vec(), branch.shape().to_vec());
        return Err(Error::Shape { what: "output of a residual branch", expected, found });
    }
    Ok(branch + input)
}

/// A network at rest: its structure and its tensors, some of them compressed. Saved and loaded whole.
///
/// A [`Recipe`](crate::Recipe) makes one; [`pack`](Compressed::pack) makes it run on int8 and other kernels,
/// [`to_network`](Compressed::to_network) gives floats again.
///
/// ```
/// use tersor::{Quantizer, compressed::Compressed, nn::Network};
///
/// let network = Network::builder(1).linear(16, 32).relu().linear(32, 4).build()?;
/// let mut compressed = Compressed::new(&network)?;
/// compressed.replace("0.weight", Quantizer::kmeans(4).apply(&compressed.tensors().floats("0.weight")?)?, "k-means")?;
/// assert_eq!(compressed.nbytes(), 4 * network.parameter_count() - 16 * 32 * 4 + 16 * 32 / 2 + 16 * 4);
/// let x = ndarray::Array2::ones((3, 16));
/// assert_eq!(compressed.pack()?.forward(&x)?.shape(), [3, 4]);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Compressed {
    structure: Structure,
    tensors: Checkpoint,
    /// The scheme that made each compressed tensor, in words.
    schemes: BTreeMap<String, String>,
    /// How each layer takes its inputs, where not dynamically.
    activations: BTreeMap<String, Activations>,
}

impl Compressed {
    /// The network as it is; of a weight that has a mask, what is left, in the smallest layout.
    ///
    /// # Errors
    /// [`Error::Layer`] around [`Error::Conflict`] for a weight that is not zero where its mask removes it, as
    /// [`parameters_mut`](Network::parameters_mut) may leave it.
    pub fn new(network: &Network) -> Result<Compressed> {
        let mut tensors = Checkpoint::new();
        for (name, values) in network.state() {
            match network.mask(&name).unwrap_or(None) {
                Some(mask) => {
                    expect_zeros(&values, mask).map_err(|error| error.in_layer(&name))?;
                    tensors.insert(name, PrunedTensor::new(values.to_owned(), mask.clone())?.to_sparse()?)
                }
                None => tensors.insert(name, values.to_owned()),
            };
        }
        Ok(Compressed {
            structure: structure::structure(network)?,
            tensors,
            schemes: BTreeMap::new(),
            activations: BTreeMap::new(),
        })
    }

    /// All tensors, by name.
    pub fn tensors(&self) -> &Checkpoint {
        &self.tensors
    }

    /// The tensor of that name, if it is quantized; of a sparse one, with its zeros.
    pub fn quantized(&self, name: &str) -> Option<Cow<'_, QuantizedTensor>> {
        match self.tensors.tensor(name) {
            Ok(Stored::Quantized(q)) => Some(Cow::Borrowed(q)),
            Ok(Stored::Sparse(sparse)) => sparse.to_quantized().map(Cow::Owned),
            _ => None,
        }
    }

    /// The tensor of that name, if it is compressed in a way that kernels take.
    fn packable(&self, name: &str) -> Option<AtRest<'_>> {
        match self.tensors.tensor(name) {
            Ok(Stored::Quantized(q)) => Some(q.into()),
            Ok(Stored::Sparse(sparse)) => Some(sparse.into()),
            _ => None,
        }
    }

    /// Bytes at rest of all tensors.
    pub fn nbytes(&self) -> usize {
        self.tensors.nbytes()
    }

    /// The scheme that made the tensor of that name, in words; `None` where it is as it was.
    pub fn scheme(&self, name: &str) -> Option<&str> {
        self.schemes.get(name).map(String::as_str)
    }

    /// How the layer of that name takes its inputs when it runs on int8.
    pub fn activations(&self, layer: &str) -> Activations {
        self.activations.get(layer).cloned().unwrap_or_default()
    }

    /// The names of the weights that a layer multiplies by: those of linear layers and convolutions, and
    /// the four of an attention.
    pub fn weights(&self) -> Vec<String> {
        fn collect(structure: &Structure, prefix: &str, names: &mut Vec<String>) {
            for (name, kind) in structure {
                let name = join(prefix, name);
                match kind {
                    Kind::Linear { .. } | Kind::Conv2d { .. } => names.push(join(&name, "weight")),
                    Kind::Attention { .. } => {
                        names.extend(Attention::PARTS.map(|part| join(&join(&name, part), "weight")));
                    }
                    Kind::Residual { branch } => collect(branch, &name, names),
                    _ => {}
                }
            }
        }
        let mut names = Vec::new();
        collect(&self.structure, "", &mut names);
        names
    }

    /// Puts a quantized tensor in the place of the one of that name; `scheme` says in words what made it. In the place of a
    /// sparse one, what is left of it is stored, and where: it keeps its mask, which takes a bit a weight at most.
    ///
    /// # Errors
    /// [`Error::UnknownName`] unless it is one of [`weights`](Compressed::weights); [`Error::Shape`] if the shape
    /// differs.
    pub fn replace(&mut self, name: &str, tensor: QuantizedTensor, scheme: impl Into<String>) -> Result<()> {
        let known = self.weights();
        if !known.iter().any(|weight| weight == name) {
            return Err(Error::UnknownName { name: name.to_owned(), known });
        }
        let expected = self.tensors.tensor(name)?.shape();
        if expected != tensor.shape() {
            let (expected, found) = (expected.to_vec(), tensor.shape().to_vec());
            return Err(Error::Shape { what: "the quantized weight", expected, found });
        }
        let stored = self.tensors.tensor(name)?.to_quantized(tensor)?;
        self.tensors.insert(name, stored);
        self.schemes.insert(name.to_owned(), scheme.into());
        Ok(())
    }

    /// Sets how the layer of that name takes its inputs when it runs on int8. The four products of an attention take theirs
    /// by their own names, `attn.query` to `attn.output`.
    ///
    /// # Errors
    /// [`Error::UnknownName`] unless its weight is one of [`weights`](Compressed::weights); what is wrong with a static grid.
    pub fn set_activations(&mut self, layer: &str, activations: Activations) -> Result<()> {
        activations.validate()?;
        let known: Vec<String> =
            self.weights().iter().filter_map(|w| w.strip_suffix(".weight").map(str::to_owned)).collect();
        if !known.iter().any(|name| name == layer) {
            return Err(Error::UnknownName { name: layer.to_owned(), known });
        }
        self.activations.insert(layer.to_owned(), activations);
        Ok(())
    }

    /// The network in floats, each compressed weight replaced by the numbers it stands for; sparse ones have their masks.
    ///
    /// # Errors
    /// Those of a file whose tensors do not fit its structure.
    pub fn to_network(&self) -> Result<Network> {
        let mut network = structure::network(&self.structure, "", &|name| self.tensors.floats(name))?;
        for (name, tensor) in self.tensors.iter() {
            if let Stored::Sparse(sparse) = tensor {
                network.set_mask(name, Some(sparse.mask().clone()))?;
            }
        }
        Ok(network)
    }

    /// Makes it run: compressed weights on the kernel that suits them, everything else in floats.
    ///
    /// # Errors
    /// Those of a file whose tensors do not fit its structure; [`Error::Isa`] if `TERSOR_ISA` asks for instructions that
    /// the machine lacks.
    pub fn pack(&self) -> Result<PackedNetwork> {
        PackedNetwork::new(self)
    }

    /// Structure, schemes and activations: what a file holds beside the tensors.
    #[cfg(feature = "io")]
    #[allow(clippy::type_complexity)] // three of the fields, as they are
    pub(crate) fn parts(&self) -> (&Structure, &BTreeMap<String, String>, &BTreeMap<String, Activations>) {
        (&self.structure, &self.schemes, &self.activations)
    }

    /// Joins what a file held, and checks that the tensors fit the structure.
    #[cfg(feature = "io")]
    pub(crate) fn from_parts(
        structure: Structure,
        tensors: Checkpoint,
        schemes: BTreeMap<String, String>,
        activations: BTreeMap<String, Activations>,
    ) -> Result<Compressed> {
        let mut compressed = Compressed { structure, tensors, schemes, activations: BTreeMap::new() };
        for (layer, activations) in activations {
            compressed.set_activations(&layer, activations)?;
        }
        compressed.to_network()?;
        Ok(compressed)
    }
}
