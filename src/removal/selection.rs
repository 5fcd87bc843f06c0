//! A choice of channels, by layer: looked at, masked, or removed.

use std::{collections::BTreeSet, fmt};

use super::{
    spaces::{Groups, Spaces},
    surgery,
};
use crate::{
    error::{Error, Result},
    nn::{Layer, Network},
    tensor::Mask,
};

/// Which output channels (or neurons) of which layers go. Made by [`Channels::select`](super::Channels::select), or by
/// hand.
///
/// A channel goes with all that it is coupled to: on the two sides of a residual, and through depthwise convolutions. It
/// is enough to name one of them.
///
/// ```
/// use ndarray::Array2;
/// use tersor::{nn::Network, removal::Selection};
///
/// let network = Network::builder(1).linear(8, 6).relu().linear(6, 3).build()?;
/// let chosen = Selection::new().channels("0", [1, 4]);
/// assert_eq!(chosen.to_string(), "`0`: 1, 4");
/// let (masked, smaller) = (chosen.mask(&network)?, chosen.remove(&network)?);
/// assert_eq!(smaller.parameter("2.weight")?.shape(), [3, 4]);
/// let x = Array2::from_shape_fn((5, 8), |(i, j)| (i as f32 - j as f32) / 8.0);
/// assert!((masked.forward(&x)? - smaller.forward(&x)?).iter().all(|error| error.abs() < 1e-6));
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Selection {
    layers: Vec<(String, BTreeSet<usize>)>,
    drop_biases: bool,
}

impl fmt::Display for Selection {
    /// A line a layer: its name, and the channels that go.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (layer, channels)) in self.layers.iter().enumerate() {
            let channels: Vec<String> = channels.iter().map(usize::to_string).collect();
            write!(f, "{}`{layer}`: {}", if index == 0 { "" } else { "\n" }, channels.join(", "))?;
        }
        Ok(())
    }
}

impl Selection {
    /// Nothing yet.
    pub fn new() -> Selection {
        Selection::default()
    }

    /// Adds output channels, counted from 0, of the linear layer or convolution of this full name, or of the attention
    /// `attn` called `attn.output`.
    pub fn channels(mut self, layer: impl Into<String>, channels: impl IntoIterator<Item = usize>) -> Selection {
        let layer = layer.into();
        match self.layers.iter_mut().find(|(name, _)| *name == layer) {
            Some((_, chosen)) => chosen.extend(channels),
            None => self.layers.push((layer, channels.into_iter().collect())),
        }
        self
    }

    /// Takes the biases of the channels that go for zero as well: see [`Channels::drop_biases`](super::Channels::drop_biases).
    pub fn drop_biases(self) -> Selection {
        Selection { drop_biases: true, ..self }
    }

    /// The layers, and the channels of each that go, ascending.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = (&str, Vec<usize>)> {
        self.layers.iter().map(|(name, channels)| (name.as_str(), channels.iter().copied().collect()))
    }

    /// Whether no channel goes.
    pub fn is_empty(&self) -> bool {
        self.layers.iter().all(|(_, channels)| channels.is_empty())
    }

    /// The network with these channels silenced, its shapes as they were: their rows of weights are zero and recorded as
    /// [masks](Network::masks), so that they stay zero in training; where they are layer-normalized, so is that weight.
    /// Biases stay: a silenced channel gives a constant.
    ///
    /// # Errors
    /// [`Error::UnknownName`] for a name that is none of those; [`Error::Layer`] around
    /// [`Error::Setting`] for a channel that it does not have, and around [`Error::Conflict`] for channels that cannot
    /// go: those of the network's output, all of a layer, a number that differs between the groups of a convolution.
    pub fn mask(&self, network: &Network) -> Result<Network> {
        let spaces = Spaces::of(network)?;
        let removed = self.resolve(&spaces)?;
        self.masked(network, &spaces, &removed)
    }

    /// The network without these channels: smaller arrays, in what makes them and in all that reads them.
    ///
    /// In evaluation it computes what [`mask`](Selection::mask) of the same choice computes, to rounding: the constants
    /// that silenced channels give are taken through what follows and added to the biases of the layers that read them
    /// (which get one if they had none), and remembered by layer normalizations
    /// ([`Absent`](crate::nn::Absent)). Names stay, and what earlier masks say of the rest.
    ///
    /// # Errors
    /// As [`mask`](Selection::mask); [`Error::Layer`] around [`Error::Conflict`] for a convolution or mean pooling that
    /// pads with zeros beside a constant that is not zero: no bias makes up for that at the border.
    pub fn remove(&self, network: &Network) -> Result<Network> {
        let spaces = Spaces::of(network)?;
        let removed = self.resolve(&spaces)?;
        surgery::remove(network, &self.masked(network, &spaces, &removed)?, &spaces, &removed)
    }

    /// The channels, of those that `removed` says go, for which [`remove`](Selection::remove) refuses.
    pub(super) fn refused(&self, network: &Network, spaces: &Spaces<'_>, removed: &[bool]) -> Result<Vec<usize>> {
        surgery::refused(network, &self.masked(network, spaces, removed)?, spaces, removed)
    }

    /// Those of a network's channels for which `removed` holds.
    pub(super) fn of(spaces: &Spaces<'_>, removed: &[bool], drop_biases: bool) -> Selection {
        let chosen = spaces.producers().map(|member| {
            let gone = |index: &usize| removed[member.channels[*index]];
            (member.name.clone(), (0..member.channels.len()).filter(gone).collect::<BTreeSet<usize>>())
        });
        Selection { layers: chosen.filter(|(_, channels)| !channels.is_empty()).collect(), drop_biases }
    }

    /// Which channels go, checked.
    fn resolve(&self, spaces: &Spaces<'_>) -> Result<Vec<bool>> {
        let mut removed = vec![false; spaces.count()];
        for (name, indices) in &self.layers {
            let member = spaces.producer(name)?;
            let space = &spaces.spaces[spaces.space_of(member.channels[0])];
            if let (Some(reason), false) = (&space.pin, indices.is_empty()) {
                let (what, remedy) = (reason.clone(), "choose channels of other layers");
                return Err(Error::Conflict { what, remedy }.in_layer(name));
            }
            for index in indices {
                let Some(channel) = member.channels.get(*index) else {
                    let bound = "below the layer's number of outputs";
                    return Err(Error::Setting { setting: "channel", value: *index as f64, bound }.in_layer(name));
                };
                removed[*channel] = true;
            }
            if removed[space.channels.clone()].iter().all(|gone| *gone) {
                let what = format!("all of its {} channels would go", space.channels.len());
                return Err(Error::Conflict { what, remedy: "leave at least one" }.in_layer(name));
            }
        }
        spaces.groups.iter().try_for_each(|groups| balanced(groups, &removed))?;
        Ok(removed)
    }

    fn masked(&self, network: &Network, spaces: &Spaces<'_>, removed: &[bool]) -> Result<Network> {
        let mut masked = network.clone();
        for member in &spaces.members {
            let gone: Vec<bool> = member.channels.iter().map(|channel| removed[*channel]).collect();
            if !gone.contains(&true) {
                continue;
            }
            let [weight, bias] = ["weight", "bias"].map(|own| format!("{}.{own}", member.name));
            if member.is_producer() {
                let shape = network.parameter(&weight)?.shape().to_vec();
                let (row, before) = (shape[1..].iter().product::<usize>(), network.mask(&weight)?);
                let keep = |i: usize| !gone[i / row] && before.is_none_or(|before| before.is_kept(i));
                masked.set_mask(&weight, Some(Mask::from_fn(&shape, keep)?))?;
            }
            let silent = Mask::from_fn(&[gone.len()], |index| !gone[index])?;
            let layer_norm = matches!(member.layer, Layer::LayerNorm(_));
            let batch_norm = matches!(member.layer, Layer::BatchNorm2d(_));
            for (name, zero) in [(weight, layer_norm || batch_norm && self.drop_biases), (bias, self.drop_biases)] {
                if let (true, Ok(values)) = (zero, network.parameter(&name)) {
                    let mut values = values.to_owned();
                    silent.apply(&mut values)?;
                    masked.set_parameter(&name, &values)?;
                }
            }
        }
        Ok(masked)
    }
}

/// Every group keeps as many of its channels.
fn balanced(groups: &Groups, removed: &[bool]) -> Result<()> {
    let kept = |group: &[usize]| group.iter().filter(|channel| !removed[**channel]).count();
    let kept: Vec<usize> = groups.channels.chunks(groups.channels.len() / groups.count).map(kept).collect();
    if kept.iter().all(|count| *count == kept[0] && *count > 0) {
        return Ok(());
    }
    Err(Error::Conflict {
        what: format!("its groups would keep {kept:?} channels"),
        remedy: "choose equally many in each group, and leave at least one",
    }
    .in_layer(&groups.layer))
}
