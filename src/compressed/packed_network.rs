//! A network that runs on packed weights.

use ndarray::{Array1, ArrayBase, ArrayD, Data as Elements, Dimension, Ix1};

use super::{
    Compressed, Structure, add_residual, join,
    structure::{self, Kind},
};
use crate::{
    error::Result,
    nn::{Attention, Data, Layer, ScaledDotProduct, expect_sequences},
    packed::{AtRest, PackedConv2d, PackedWeights},
    tensor::SparseValues,
};

/// A network that runs: compressed weights on packed kernels, the other layers in floats. Made by
/// [`Compressed::pack`]; never saved.
///
/// ```
/// use tersor::{Quantizer, Recipe, nn::Network};
///
/// let network = Network::builder(1).linear(64, 32).relu().linear(32, 10).build()?;
/// let packed = Recipe::new().quantize("0", Quantizer::uniform(8)).apply(&network)?.pack()?;
/// assert_eq!(packed.forward(&ndarray::Array2::<f32>::ones((5, 64)))?.shape(), [5, 10]);
/// let kernels = packed.kernels(); // of the layers that are compressed
/// assert!(kernels.len() == 1 && kernels[0].0 == "0" && kernels[0].1.starts_with("int8-"));
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PackedNetwork {
    layers: Vec<(String, Step)>,
}

#[derive(Clone, Debug)]
enum Step {
    Linear(Box<PackedWeights>),
    Conv2d(Box<PackedConv2d>),
    Float(Box<Layer>),
    /// Its four products, each a step of its own, and what it does between them.
    Attention(Box<[Step; 4]>, ScaledDotProduct),
    Residual(PackedNetwork),
}

impl PackedNetwork {
    pub(super) fn new(compressed: &Compressed) -> Result<PackedNetwork> {
        PackedNetwork::of(compressed, &compressed.structure, "")
    }

    fn of(compressed: &Compressed, structure: &Structure, prefix: &str) -> Result<PackedNetwork> {
        let layers = structure.iter().map(|(own, kind)| {
            let name = join(prefix, own);
            let step = Step::new(compressed, kind, &name).map_err(|e| e.in_layer(&name))?;
            Ok((own.clone(), step))
        });
        Ok(PackedNetwork { layers: layers.collect::<Result<_>>()? })
    }

    /// The output of a batch, as [`Network::forward`](crate::nn::Network::forward).
    ///
    /// # Errors
    /// [`Error::Layer`](crate::Error::Layer), naming the layer that the input does not fit.
    pub fn forward<S, D>(&self, x: &ArrayBase<S, D>) -> Result<ArrayD<f32>>
    where
        S: Elements<Elem = f32>,
        D: Dimension,
    {
        self.run(x.to_owned().into_dyn())
    }

    fn run(&self, mut x: ArrayD<f32>) -> Result<ArrayD<f32>> {
        for (name, step) in &self.layers {
            x = step.forward(&x).map_err(|e| e.in_layer(name))?;
        }
        Ok(x)
    }

    /// The share of samples whose largest output is at their label.
    ///
    /// # Errors
    /// As [`forward`](PackedNetwork::forward), and those of data without class labels.
    pub fn accuracy(&self, data: &Data) -> Result<f64> {
        data.accuracy_of(&self.forward(data.inputs())?)
    }

    /// The kernel that each packed layer runs on, by the layer's full name; of an attention, each of its products.
    pub fn kernels(&self) -> Vec<(String, &'static str)> {
        let mut kernels = Vec::new();
        for (name, step) in &self.layers {
            step.kernels(name, &mut kernels);
        }
        kernels
    }
}

impl Step {
    /// The layer of this kind and full name.
    fn new(compressed: &Compressed, kind: &Kind, name: &str) -> Result<Step> {
        let bias = |has: bool| -> Result<Option<Array1<f32>>> {
            let bias = has.then(|| compressed.tensors.floats(&join(name, "bias"))).transpose()?;
            Ok(bias.and_then(|bias| bias.into_dimensionality::<Ix1>().ok()))
        };
        let float = || -> Result<Step> {
            Ok(Step::Float(Box::new(structure::layer(kind, name, &|tensor| compressed.tensors.floats(tensor))?)))
        };
        Ok(match (kind, compressed.packable(&join(name, "weight"))) {
            (Kind::Linear { bias: has }, Some(weight)) => {
                let packed = PackedWeights::with(weight, compressed.activations(name))?;
                Step::Linear(Box::new(packed.with_bias(bias(*has)?)?))
            }
            (Kind::Conv2d { stride, padding, dilation, groups, bias: has }, Some(weight)) => {
                let packed = PackedConv2d::new(weight, *groups, compressed.activations(name))?;
                if let (AtRest::Sparse(sparse), false) = (weight, packed.leaves_zeros_out_faster())
                    && let SparseValues::Floats(_) = sparse.values()
                {
                    return float();
                }
                let packed = packed.stride(*stride).padding(*padding).dilation(*dilation);
                Step::Conv2d(Box::new(packed.with_bias(bias(*has)?)?))
            }
            (Kind::Attention { heads, bias, causal }, _) => {
                let part = |part| Step::new(compressed, &Kind::Linear { bias: *bias }, &join(name, part));
                let [q, k, v, o] = Attention::PARTS.map(part);
                let inner = compressed.tensors.tensor(&join(name, "query.weight"))?.shape()[0];
                let product = ScaledDotProduct::new(inner, *heads, *causal)?;
                Step::Attention(Box::new([q?, k?, v?, o?]), product)
            }
            (Kind::Residual { branch }, _) => Step::Residual(PackedNetwork::of(compressed, branch, name)?),
            _ => float()?,
        })
    }

    fn forward(&self, x: &ArrayD<f32>) -> Result<ArrayD<f32>> {
        match self {
            Step::Linear(packed) => packed.matmul_last_axis(x),
            Step::Conv2d(packed) => packed.forward(x),
            Step::Float(layer) => layer.forward(x),
            Step::Attention(parts, product) => {
                expect_sequences("input of attention", x.shape())?;
                let [query, key, value, output] = parts.as_ref();
                let [q, k, v] = [query.forward(x)?, key.forward(x)?, value.forward(x)?];
                output.forward(&product.forward([q.view(), k.view(), v.view()])?)
            }
            Step::Residual(branch) => branch.run(x.clone()).and_then(|y| add_residual(y, x)),
        }
    }

    fn kernels(&self, name: &str, found: &mut Vec<(String, &'static str)>) {
        match self {
            Step::Linear(packed) => found.push((name.to_owned(), packed.kernel())),
            Step::Conv2d(packed) => found.push((name.to_owned(), packed.kernel())),
            Step::Float(_) => {}
            Step::Attention(parts, _) => {
                parts.iter().zip(Attention::PARTS).for_each(|(step, part)| step.kernels(&join(name, part), found));
            }
            Step::Residual(branch) => {
                found.extend(branch.kernels().into_iter().map(|(inner, kernel)| (join(name, &inner), kernel)));
            }
        }
    }
}
