//! A network that runs on packed weights.

use ndarray::{Array1, ArrayBase, ArrayD, Data as Elements, Dimension, Ix1};

use super::{
    Compressed, Structure, add_residual, join,
    structure::{self, Kind},
};
use crate::{
    error::Result,
    nn::{Data, Layer},
    packed::{PackedConv2d, PackedWeights},
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
    Residual(PackedNetwork),
}

impl PackedNetwork {
    pub(super) fn new(compressed: &Compressed) -> Result<PackedNetwork> {
        PackedNetwork::of(compressed, &compressed.structure, "")
    }

    fn of(compressed: &Compressed, structure: &Structure, prefix: &str) -> Result<PackedNetwork> {
        let step = |name: &str, kind: &Kind| -> Result<Step> {
            let bias = |has: bool| -> Result<Option<Array1<f32>>> {
                let bias = has.then(|| compressed.tensors.floats(&join(name, "bias"))).transpose()?;
                Ok(bias.and_then(|bias| bias.into_dimensionality::<Ix1>().ok()))
            };
            Ok(match (kind, compressed.quantized(&join(name, "weight"))) {
                (Kind::Linear { bias: has }, Some(q)) => {
                    let packed = PackedWeights::with(q, compressed.activations(name))?;
                    Step::Linear(Box::new(packed.with_bias(bias(*has)?)?))
                }
                (Kind::Conv2d { stride, padding, dilation, groups, bias: has }, Some(q)) => {
                    let packed = PackedConv2d::new(q, *groups, compressed.activations(name))?;
                    let packed = packed.stride(*stride).padding(*padding).dilation(*dilation);
                    Step::Conv2d(Box::new(packed.with_bias(bias(*has)?)?))
                }
                (Kind::Residual { branch }, _) => Step::Residual(PackedNetwork::of(compressed, branch, name)?),
                _ => Step::Float(Box::new(structure::layer(kind, name, &|tensor| compressed.tensors.floats(tensor))?)),
            })
        };
        let layers = structure.iter().map(|(own, kind)| {
            let name = join(prefix, own);
            let step = step(&name, kind).map_err(|e| e.in_layer(&name))?;
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
            let y = match step {
                Step::Linear(packed) => packed.matmul_last_axis(&x),
                Step::Conv2d(packed) => packed.forward(&x),
                Step::Float(layer) => layer.forward(&x),
                Step::Residual(branch) => branch.run(x.clone()).and_then(|y| add_residual(y, &x)),
            };
            x = y.map_err(|e| e.in_layer(name))?;
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

    /// The kernel that each packed layer runs on, by the layer's full name.
    pub fn kernels(&self) -> Vec<(String, &'static str)> {
        let mut kernels = Vec::new();
        for (name, step) in &self.layers {
            match step {
                Step::Linear(packed) => kernels.push((name.clone(), packed.kernel())),
                Step::Conv2d(packed) => kernels.push((name.clone(), packed.kernel())),
                Step::Float(_) => {}
                Step::Residual(branch) => {
                    kernels.extend(branch.kernels().into_iter().map(|(inner, kernel)| (join(name, &inner), kernel)));
                }
            }
        }
        kernels
    }
}
