//! Takes channels out of every layer, and what they still gave into the layers that read it.
//!
//! The walk follows, channel by channel, the constant that a silenced channel gives: its bias, and what becomes of it in
//! every layer up to one that sums over channels, which takes it into its own bias.

use std::array;

use ndarray::{Array1, ArrayD, ArrayView1, Axis, Dimension, Ix2, Ix4, IxDyn};

use super::{
    cut::{Constant, Cut, Gone, kept},
    spaces::Spaces,
    view::{Layout, View},
};
use crate::{
    error::{Error, Result},
    nn::{Attention, BatchNorm2d, Conv2d, Layer, LayerNorm, Linear, Network, Residual},
    tensor::Mask,
};

/// The network without the removed channels, given it with them silenced.
pub(super) fn remove(original: &Network, silenced: &Network, spaces: &Spaces<'_>, removed: &[bool]) -> Result<Network> {
    let mut surgery = Surgery::new(original, spaces, removed);
    let (mut smaller, _) = surgery.network(silenced, "", View::unknown())?;
    if let Some(border) = surgery.borders.first() {
        return Err(border.refusal(spaces));
    }
    for (weight, mask) in surgery.masks {
        smaller.set_mask(&weight, Some(mask))?;
    }
    Ok(smaller)
}

/// The removed channels for which [`remove`] refuses.
pub(super) fn refused(
    original: &Network,
    silenced: &Network,
    spaces: &Spaces<'_>,
    removed: &[bool],
) -> Result<Vec<usize>> {
    let mut surgery = Surgery::new(original, spaces, removed);
    surgery.network(silenced, "", View::unknown())?;
    Ok(surgery.borders.iter().map(|border| border.constant.channel).collect())
}

struct Surgery<'a> {
    original: &'a Network,
    spaces: &'a Spaces<'a>,
    removed: &'a [bool],
    /// What is left of the original's masks, by the full name of the weight.
    masks: Vec<(String, Mask)>,
    borders: Vec<Border>,
}

/// A constant that a layer reads beside zeros: its output at the border differs from that inside, which no bias makes up
/// for.
struct Border {
    layer: String,
    what: &'static str,
    constant: Constant,
}

impl Border {
    fn refusal(&self, spaces: &Spaces<'_>) -> Error {
        let Border { layer, what, constant: Constant { value, channel } } = self;
        let makers = spaces.producers().filter_map(|member| {
            let index = member.channels.iter().position(|made| made == channel)?;
            Some(format!("`{}` (channel {index})", member.name))
        });
        let makers = makers.collect::<Vec<_>>().join(" and ");
        Error::Conflict {
            what: format!(
                "this {what} pads with zeros, but a channel that would go still gives it {value}: its output at the \
                 border differs from that inside, which no bias makes up for; the channel is made by {makers}"
            ),
            remedy: "take other channels of what makes it, leave that out with keep, let where_possible find what can \
                     go, or make the channel give 0 (unless a sigmoid follows) with drop_biases",
        }
        .in_layer(layer)
    }
}

impl<'a> Surgery<'a> {
    fn new(original: &'a Network, spaces: &'a Spaces<'a>, removed: &'a [bool]) -> Surgery<'a> {
        Surgery { original, spaces, removed, masks: Vec::new(), borders: Vec::new() }
    }

    fn border(&mut self, layer: &str, what: &'static str, constant: Constant) {
        self.borders.push(Border { layer: layer.to_owned(), what, constant });
    }
}

impl Surgery<'_> {
    fn network(&mut self, network: &Network, prefix: &str, mut view: View<Gone>) -> Result<(Network, View<Gone>)> {
        let mut layers = Vec::new();
        for (own, layer) in network.layers() {
            let name = format!("{prefix}{own}");
            let (layer, after) = match layer {
                Layer::Residual(residual) => {
                    let (branch, after) = self.network(residual.branch(), &format!("{name}."), view.clone())?;
                    (Residual::new(branch).into(), sum(view, after))
                }
                layer => self.layer(layer, &name, view).map_err(|error| error.in_layer(&name))?,
            };
            layers.push((own.to_owned(), layer));
            view = after;
        }
        Ok((Network::from_layers(layers)?, view))
    }

    fn layer(&mut self, layer: &Layer, name: &str, view: View<Gone>) -> Result<(Layer, View<Gone>)> {
        let any = view.channels.iter().any(Option::is_some);
        Ok(match layer {
            Layer::Linear(linear) => {
                let inputs = view.by_feature(linear.in_features()).unwrap_or(vec![None; linear.in_features()]);
                let outputs = self.outputs(name, linear.bias());
                let cut = Cut { weight: linear.weight(), groups: 1, inputs: &inputs, outputs: &outputs };
                let smaller = self.linear(linear, name, &cut)?;
                (smaller, if view.layout == Layout::Images { view } else { View::features(outputs) })
            }
            Layer::Conv2d(conv) => {
                let nothing = vec![None; conv.in_channels()];
                let inputs = view.by_image_channel(conv.in_channels()).unwrap_or(&nothing);
                let outputs = self.outputs(name, conv.bias());
                let cut = Cut { weight: conv.weight(), groups: conv.groups, inputs, outputs: &outputs };
                let smaller = self.conv2d(conv, name, &cut)?;
                (smaller, View::images(outputs))
            }
            Layer::Attention(attention) => {
                let features = attention.in_features();
                let inputs = view.by_feature(features).unwrap_or(vec![None; features]);
                let outputs = self.outputs(&format!("{name}.output"), attention.output().bias());
                let smaller = self.attention(attention, name, &inputs, &outputs)?;
                (smaller, View::features(outputs))
            }
            Layer::BatchNorm2d(norm) if any => {
                (batch_norm(norm, &view)?, through(layer, &view, &[1, norm.channels(), 1, 1])?)
            }
            Layer::LayerNorm(norm) if any => layer_norm(norm, &view)?,
            Layer::AvgPool2d(pool) => {
                if pool.padding != [0, 0] {
                    let constants = view.channels.iter().flatten().filter(|constant| constant.value != 0.0);
                    constants.for_each(|constant| self.border(name, "mean pooling", *constant));
                }
                (layer.clone(), view)
            }
            Layer::Relu | Layer::Gelu(_) | Layer::Silu | Layer::Sigmoid | Layer::Tanh if any => {
                (layer.clone(), through(layer, &view, &[1, view.channels.len()])?)
            }
            Layer::Flatten => (Layer::Flatten, view.flat()),
            // The largest and the mean of equal numbers are that number; none is dropped in evaluation.
            layer => (layer.clone(), view),
        })
    }

    /// Which outputs of a layer go, and the biases that they give.
    fn outputs(&self, name: &str, bias: Option<ArrayView1<'_, f32>>) -> Vec<Gone> {
        let member = self.spaces.members.iter().find(|member| member.name == name);
        let value = |index: usize| bias.map_or(0.0, |bias| bias[index]);
        let gone = |(index, channel): (usize, &usize)| {
            self.removed[*channel].then(|| Constant { value: value(index), channel: *channel })
        };
        member.into_iter().flat_map(|member| member.channels.iter().enumerate().map(gone)).collect()
    }

    fn linear(&mut self, linear: &Linear, name: &str, cut: &Cut<'_, Ix2>) -> Result<Layer> {
        if cut.is_nothing() {
            return Ok(linear.clone().into());
        }
        self.keep_mask(name, cut)?;
        Ok(Linear::from_arrays(cut.smaller_weight(), cut.smaller_bias(linear.bias()))?.into())
    }

    /// Inputs go from query, key and value, outputs from the output; with a bias for one of the four, all have one.
    fn attention(&mut self, attention: &Attention, name: &str, inputs: &[Gone], outputs: &[Gone]) -> Result<Layer> {
        let inner = vec![None; attention.heads * attention.head_dim];
        let parts = [attention.query(), attention.key(), attention.value(), attention.output()];
        let ends = [(inputs, &*inner), (inputs, &*inner), (inputs, &*inner), (&*inner, outputs)];
        let cuts: [Cut<'_, Ix2>; 4] = array::from_fn(|part| {
            let (inputs, outputs) = ends[part];
            Cut { weight: parts[part].weight(), groups: 1, inputs, outputs }
        });
        if cuts.iter().all(Cut::is_nothing) {
            return Ok(attention.clone().into());
        }
        for (cut, part) in cuts.iter().zip(Attention::PARTS) {
            self.keep_mask(&format!("{name}.{part}"), cut)?;
        }
        let weights = cuts.each_ref().map(Cut::smaller_weight);
        let biases: [_; 4] = array::from_fn(|part| cuts[part].smaller_bias(parts[part].bias()));
        let biases = biases.iter().any(Option::is_some).then(|| {
            array::from_fn(|part| biases[part].clone().unwrap_or_else(|| Array1::zeros(weights[part].nrows())))
        });
        let mut smaller = Attention::from_arrays(attention.heads, weights, biases)?;
        smaller.causal = attention.causal;
        Ok(smaller.into())
    }

    fn conv2d(&mut self, conv: &Conv2d, name: &str, cut: &Cut<'_, Ix4>) -> Result<Layer> {
        if cut.is_nothing() {
            return Ok(conv.clone().into());
        }
        if conv.padding != [0, 0] {
            cut.constants_read().into_iter().for_each(|constant| self.border(name, "convolution", constant));
        }
        self.keep_mask(name, cut)?;
        let smaller = Conv2d::from_arrays(cut.smaller_weight(), cut.smaller_bias(conv.bias()))?;
        let smaller = smaller.groups(cut.groups_left()).stride(conv.stride);
        Ok(smaller.padding(conv.padding).dilation(conv.dilation).into())
    }

    /// Notes what is left of the original's mask of a weight; one that keeps everything is none.
    fn keep_mask<D: Dimension>(&mut self, name: &str, cut: &Cut<'_, D>) -> Result<()> {
        let weight = format!("{name}.weight");
        let left = self.original.mask(&weight)?.map(|mask| cut.smaller_mask(mask)).transpose()?;
        self.masks.extend(left.filter(|mask| mask.kept() < mask.len()).map(|mask| (weight, mask)));
        Ok(())
    }
}

/// The sum of the two sides of a residual: what goes on one goes on the other.
fn sum(input: View<Gone>, branch: View<Gone>) -> View<Gone> {
    let sum = input.sum(&branch, |a, b| Some(Constant { value: (*a)?.value + (*b)?.value, ..(*a)? }));
    sum.unwrap_or(if input.layout == Layout::Unknown { branch } else { input })
}

/// What a layer makes of constants, which it takes in this shape.
fn through(layer: &Layer, view: &View<Gone>, shape: &[usize]) -> Result<View<Gone>> {
    let constants = view.channels.iter().map(|gone| gone.map_or(0.0, |constant| constant.value)).collect();
    let constants = ArrayD::from_shape_vec(IxDyn(shape), constants).expect("a constant a channel");
    let after = layer.forward(&constants)?;
    let channels =
        view.channels.iter().zip(&after).map(|(gone, value)| gone.map(|gone| Constant { value: *value, ..gone }));
    let channels = channels.collect();
    Ok(View { layout: view.layout, channels })
}

fn batch_norm(norm: &BatchNorm2d, view: &View<Gone>) -> Result<Layer> {
    let stay = kept(&view.channels);
    let [weight, bias, mean, variance] =
        [norm.weight(), norm.bias(), norm.running_mean(), norm.running_var()].map(|array| array.select(Axis(0), &stay));
    let smaller = BatchNorm2d::from_arrays(weight, bias, mean, variance)?;
    Ok(smaller.eps(norm.eps).momentum(norm.momentum).into())
}

/// The normalization of what stays, and its biases: silenced, a feature has no other output.
fn layer_norm(norm: &LayerNorm, view: &View<Gone>) -> Result<(Layer, View<Gone>)> {
    let Some(features) = view.by_feature(norm.weight().len()) else { return Ok((norm.clone().into(), view.clone())) };
    let stay = kept(&features);
    let [weight, bias] = [norm.weight(), norm.bias()].map(|array| array.select(Axis(0), &stay));
    let absent = features.iter().flatten().fold(norm.absent, |absent, constant| absent.with(constant.value));
    let smaller = Layer::from(LayerNorm::from_arrays(weight, bias)?.eps(norm.eps).absent(absent));
    smaller.output_shape(&[1, stay.len()])?;
    let after = features
        .iter()
        .zip(norm.bias())
        .map(|(gone, bias)| gone.map(|gone| Constant { value: *bias, ..gone }))
        .collect();
    Ok((smaller, View::features(after)))
}
