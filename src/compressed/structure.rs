//! A network without its arrays: which layers, how set, in what order. Saved with the tensors, so that a file is enough.

use ndarray::{ArrayD, Ix1, Ix2, Ix4};

use crate::{
    error::{Error, Result},
    nn::{
        Absent, Attention, AvgPool2d, BatchNorm2d, Conv2d, Dropout, GeluForm, Layer, LayerNorm, Linear, MaxPool2d,
        Network, Residual,
    },
};

/// One layer's kind and settings; its arrays are tensors named after the layer.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "io", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub(crate) enum Kind {
    Linear {
        bias: bool,
    },
    Attention {
        heads: usize,
        bias: bool,
        causal: bool,
    },
    Conv2d {
        stride: [usize; 2],
        padding: [usize; 2],
        dilation: [usize; 2],
        groups: usize,
        bias: bool,
    },
    BatchNorm2d {
        eps: f64,
        momentum: f64,
    },
    LayerNorm {
        eps: f64,
        #[cfg_attr(feature = "io", serde(default, skip_serializing_if = "Absent::is_none"))]
        absent: Absent,
    },
    MaxPool2d {
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
    },
    AvgPool2d {
        kernel: [usize; 2],
        stride: [usize; 2],
        padding: [usize; 2],
    },
    GlobalAvgPool2d,
    Relu,
    Gelu,
    GeluTanh,
    Silu,
    Sigmoid,
    Tanh,
    Softmax {
        axis: Option<usize>,
    },
    LogSoftmax {
        axis: Option<usize>,
    },
    Flatten,
    Dropout {
        p: f64,
    },
    Residual {
        branch: Structure,
    },
}

/// The layers of a network, in order, by name.
pub(crate) type Structure = Vec<(String, Kind)>;

/// The full name of a layer, or of an array of a layer.
pub(crate) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// Takes a network's structure.
pub(crate) fn structure(network: &Network) -> Result<Structure> {
    network.layers().map(|(name, layer)| Ok((name.to_owned(), kind(layer)?))).collect()
}

fn kind(layer: &Layer) -> Result<Kind> {
    Ok(match layer {
        Layer::Linear(linear) => Kind::Linear { bias: linear.bias().is_some() },
        Layer::Attention(attention) => Kind::Attention {
            heads: attention.heads,
            bias: attention.query().bias().is_some(),
            causal: attention.causal,
        },
        Layer::Conv2d(conv) => Kind::Conv2d {
            stride: conv.stride,
            padding: conv.padding,
            dilation: conv.dilation,
            groups: conv.groups,
            bias: conv.bias().is_some(),
        },
        Layer::BatchNorm2d(norm) => Kind::BatchNorm2d { eps: norm.eps, momentum: norm.momentum },
        Layer::LayerNorm(norm) => Kind::LayerNorm { eps: norm.eps, absent: norm.absent },
        Layer::MaxPool2d(p) => Kind::MaxPool2d { kernel: p.kernel, stride: p.stride, padding: p.padding },
        Layer::AvgPool2d(p) => Kind::AvgPool2d { kernel: p.kernel, stride: p.stride, padding: p.padding },
        Layer::GlobalAvgPool2d => Kind::GlobalAvgPool2d,
        Layer::Relu => Kind::Relu,
        Layer::Gelu(GeluForm::Erf) => Kind::Gelu,
        Layer::Gelu(GeluForm::Tanh) => Kind::GeluTanh,
        Layer::Silu => Kind::Silu,
        Layer::Sigmoid => Kind::Sigmoid,
        Layer::Tanh => Kind::Tanh,
        Layer::Softmax { axis } => Kind::Softmax { axis: *axis },
        Layer::LogSoftmax { axis } => Kind::LogSoftmax { axis: *axis },
        Layer::Flatten => Kind::Flatten,
        Layer::Dropout(dropout) => Kind::Dropout { p: dropout.p },
        Layer::Residual(residual) => Kind::Residual { branch: structure(residual.branch())? },
    })
}

/// Builds a layer from its kind and its arrays, which `tensor` gives by full name.
pub(crate) fn layer(kind: &Kind, name: &str, tensor: &dyn Fn(&str) -> Result<ArrayD<f32>>) -> Result<Layer> {
    let array = |own: &str| tensor(&join(name, own));
    let bias = |has: bool| if has { Ok(Some(of_rank::<Ix1>("a bias", "1", array("bias")?)?)) } else { Ok(None) };
    let vector = |own: &str| of_rank::<Ix1>("a vector of channels", "1", array(own)?);
    let layer = match kind {
        Kind::Linear { bias: has } => {
            let weight = of_rank::<Ix2>("a linear weight", "2", array("weight")?)?;
            Layer::Linear(Linear::from_arrays(weight, bias(*has)?).map_err(|e| e.in_layer(name))?)
        }
        Kind::Attention { heads, bias: has, causal } => {
            let each = |own: &str| Attention::PARTS.map(|part| array(&join(part, own)));
            let [q, k, v, o] = each("weight").map(|weight| of_rank::<Ix2>("an attention weight", "2", weight?));
            let weights = [q?, k?, v?, o?];
            let biases = if *has {
                let [q, k, v, o] = each("bias").map(|bias| of_rank::<Ix1>("an attention bias", "1", bias?));
                Some([q?, k?, v?, o?])
            } else {
                None
            };
            let mut attention = Attention::from_arrays(*heads, weights, biases).map_err(|e| e.in_layer(name))?;
            attention.causal = *causal;
            Layer::Attention(attention)
        }
        Kind::Conv2d { stride, padding, dilation, groups, bias: has } => {
            let weight = of_rank::<Ix4>("a convolution weight", "4", array("weight")?)?;
            let mut conv = Conv2d::from_arrays(weight, bias(*has)?).map_err(|e| e.in_layer(name))?.groups(*groups);
            (conv.stride, conv.padding, conv.dilation) = (*stride, *padding, *dilation);
            Layer::Conv2d(conv)
        }
        Kind::BatchNorm2d { eps, momentum } => {
            let norm = BatchNorm2d::from_arrays(
                vector("weight")?,
                vector("bias")?,
                vector("running_mean")?,
                vector("running_var")?,
            );
            Layer::BatchNorm2d(norm.map_err(|e| e.in_layer(name))?.eps(*eps).momentum(*momentum))
        }
        Kind::LayerNorm { eps, absent } => {
            let norm = LayerNorm::from_arrays(array("weight")?, array("bias")?);
            Layer::LayerNorm(norm.map_err(|e| e.in_layer(name))?.eps(*eps).absent(*absent))
        }
        Kind::MaxPool2d { kernel, stride, padding } => {
            let mut pool = MaxPool2d::new((kernel[0], kernel[1]));
            (pool.stride, pool.padding) = (*stride, *padding);
            Layer::MaxPool2d(pool)
        }
        Kind::AvgPool2d { kernel, stride, padding } => {
            let mut pool = AvgPool2d::new((kernel[0], kernel[1]));
            (pool.stride, pool.padding) = (*stride, *padding);
            Layer::AvgPool2d(pool)
        }
        Kind::GlobalAvgPool2d => Layer::GlobalAvgPool2d,
        Kind::Relu => Layer::Relu,
        Kind::Gelu => Layer::Gelu(GeluForm::Erf),
        Kind::GeluTanh => Layer::Gelu(GeluForm::Tanh),
        Kind::Silu => Layer::Silu,
        Kind::Sigmoid => Layer::Sigmoid,
        Kind::Tanh => Layer::Tanh,
        Kind::Softmax { axis } => Layer::Softmax { axis: *axis },
        Kind::LogSoftmax { axis } => Layer::LogSoftmax { axis: *axis },
        Kind::Flatten => Layer::Flatten,
        Kind::Dropout { p } => Layer::Dropout(Dropout::new(*p)),
        Kind::Residual { branch } => Layer::Residual(Residual::new(network(branch, name, tensor)?)),
    };
    Ok(layer)
}

/// Builds a network from its structure and its arrays.
pub(crate) fn network(
    structure: &Structure,
    prefix: &str,
    tensor: &dyn Fn(&str) -> Result<ArrayD<f32>>,
) -> Result<Network> {
    let layers = structure.iter().map(|(name, kind)| Ok((name.clone(), layer(kind, &join(prefix, name), tensor)?)));
    Network::from_layers(layers.collect::<Result<Vec<_>>>()?)
}

fn of_rank<D: ndarray::Dimension>(
    what: &'static str,
    expected: &'static str,
    array: ArrayD<f32>,
) -> Result<ndarray::Array<f32, D>> {
    let found = array.shape().to_vec();
    array.into_dimensionality().map_err(|_| Error::Rank { what, expected, found })
}
