//! Which channels of a network go only together, and which cannot go at all.
//!
//! A walk through the tree gives every output of a linear layer, convolution or attention an *atom* and follows the atoms through
//! the layers that keep channels apart. The two sides of a residual join their atoms; joined atoms are one *channel*, and
//! channels that some activation has side by side form a *space*.

use std::{collections::BTreeMap, ops::Range};

use super::view::{Layout, View, is_depthwise};
use crate::{
    error::{Error, Result},
    nn::{Layer, Network},
};

/// The channels of a network, numbered space by space.
#[derive(Debug)]
pub(super) struct Spaces<'a> {
    pub(super) spaces: Vec<Space>,
    /// The layers whose parameters have an index a channel, in the network's order.
    pub(super) members: Vec<Member<'a>>,
    /// Groups that must stay equally large.
    pub(super) groups: Vec<Groups>,
}

/// Channels that are side by side somewhere.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) channels: Range<usize>,
    /// Consecutive parts, of equal size, that must keep equally many channels.
    pub(super) cells: usize,
    /// Why none of them can go.
    pub(super) pin: Option<String>,
}

/// A layer whose parameters' first axis counts channels; of attention, its output's product.
#[derive(Debug)]
pub(super) struct Member<'a> {
    pub(super) name: String,
    pub(super) layer: &'a Layer,
    /// The channel of every index of that axis.
    pub(super) channels: Vec<usize>,
}

/// The inputs or outputs of a convolution with groups.
#[derive(Debug)]
pub(super) struct Groups {
    pub(super) layer: String,
    pub(super) count: usize,
    /// The channel of every input or output.
    pub(super) channels: Vec<usize>,
}

impl Member<'_> {
    /// Whether the layer makes its channels: it is a linear layer, a convolution or attention, not a normalization.
    pub(super) fn is_producer(&self) -> bool {
        matches!(self.layer, Layer::Linear(_) | Layer::Conv2d(_) | Layer::Attention(_))
    }
}

impl<'a> Spaces<'a> {
    pub(super) fn of(network: &'a Network) -> Result<Spaces<'a>> {
        network.validate()?;
        let mut walk = Walk::default();
        let output = walk.network(network, "", View::unknown());
        walk.pin(&output, || "its channels are the network's outputs".into());
        Ok(walk.resolve())
    }

    /// Channels in all.
    pub(super) fn count(&self) -> usize {
        self.spaces.last().map_or(0, |space| space.channels.end)
    }

    pub(super) fn producers(&self) -> impl Iterator<Item = &Member<'a>> {
        self.members.iter().filter(|member| member.is_producer())
    }

    /// The layer of this name, if it makes channels.
    pub(super) fn producer(&self, name: &str) -> Result<&Member<'a>> {
        self.producers().find(|member| member.name == name).ok_or_else(|| Error::UnknownName {
            name: name.to_owned(),
            known: self.producers().map(|member| member.name.clone()).collect(),
        })
    }

    /// The space of a channel.
    pub(super) fn space_of(&self, channel: usize) -> usize {
        self.spaces.partition_point(|space| space.channels.end <= channel)
    }
}

/// The walk so far.
#[derive(Default)]
struct Walk<'a> {
    /// Joined atoms.
    atoms: Sets,
    /// The block in which each atom was made: the outputs of one layer. Blocks are joined whole, so that the least of
    /// joined atoms, which names them, lies in the first of their blocks.
    block_of: Vec<usize>,
    /// With atoms for channels, as are the groups.
    members: Vec<Member<'a>>,
    groups: Vec<Groups>,
    /// An atom, and why its space stays.
    pins: Vec<(usize, String)>,
}

impl<'a> Walk<'a> {
    fn network(&mut self, network: &'a Network, prefix: &str, input: View<usize>) -> View<usize> {
        network.layers().fold(input, |view, (name, layer)| self.layer(layer, format!("{prefix}{name}"), view))
    }

    fn layer(&mut self, layer: &'a Layer, name: String, view: View<usize>) -> View<usize> {
        match layer {
            Layer::Linear(linear) => {
                let outputs = self.outputs(name.clone(), layer, linear.out_features());
                if view.layout == Layout::Images {
                    self.pin(&view, || format!("`{name}` is a linear layer along the width of its images"));
                    self.pin(&outputs, || "its outputs are the width of images".into());
                    return view;
                }
                if view.by_feature(linear.in_features()).is_none() {
                    self.pin(&view, || format!("the inputs of `{name}` cannot be told apart by channel"));
                }
                View::features(outputs.channels)
            }
            Layer::Conv2d(conv) if is_depthwise(conv) => {
                let repeat = conv.out_channels() / conv.in_channels();
                let Some(inputs) = view.by_image_channel(conv.in_channels()) else {
                    self.pin(&view, || format!("`{name}` convolves over them"));
                    let outputs = self.outputs(name, layer, conv.out_channels());
                    self.pin(&outputs, || "each of its channels comes of one that stays".into());
                    return outputs;
                };
                let channels: Vec<usize> = inputs.iter().flat_map(|atom| std::iter::repeat_n(*atom, repeat)).collect();
                self.members.push(Member { name, layer, channels: channels.clone() });
                View::images(channels)
            }
            Layer::Conv2d(conv) => {
                let outputs = self.outputs(name.clone(), layer, conv.out_channels());
                match view.by_image_channel(conv.in_channels()) {
                    Some(inputs) => self.group(&name, conv.groups, inputs),
                    None => self.pin(&view, || format!("`{name}` convolves over them")),
                }
                self.group(&name, conv.groups, &outputs.channels);
                View::images(outputs.channels)
            }
            Layer::BatchNorm2d(norm) => {
                match view.by_image_channel(norm.channels()) {
                    Some(channels) => self.members.push(Member { name, layer, channels: channels.to_vec() }),
                    None => self.pin(&view, || format!("`{name}` normalizes over them")),
                }
                view
            }
            Layer::LayerNorm(norm) => match (norm.shape(), view.by_feature(norm.shape()[0])) {
                ([_], Some(channels)) => {
                    self.members.push(Member { name, layer, channels: channels.clone() });
                    View::features(channels)
                }
                _ => {
                    self.pin(&view, || format!("`{name}` normalizes more than the channels of a sample"));
                    view
                }
            },
            Layer::MaxPool2d(_) | Layer::AvgPool2d(_) | Layer::GlobalAvgPool2d => {
                if view.layout != Layout::Images {
                    self.pin(&view, || format!("`{name}` pools over them"));
                }
                view
            }
            Layer::Softmax { .. } | Layer::LogSoftmax { .. } => {
                self.pin(&view, || format!("the softmax `{name}` relates them to one another"));
                view
            }
            Layer::Attention(attention) => {
                let outputs = self.outputs(format!("{name}.output"), layer, attention.out_features());
                if view.by_feature(attention.in_features()).is_none() {
                    self.pin(&view, || format!("the inputs of `{name}` cannot be told apart by channel"));
                }
                View::features(outputs.channels)
            }
            Layer::Flatten => view.flat(),
            Layer::Residual(residual) => {
                let branch = self.network(residual.branch(), &format!("{name}."), view.clone());
                self.join(&name, view, branch)
            }
            Layer::Relu | Layer::Gelu(_) | Layer::Silu | Layer::Sigmoid | Layer::Tanh | Layer::Dropout(_) => view,
        }
    }

    /// New atoms for the outputs of a layer.
    fn outputs(&mut self, name: String, layer: &'a Layer, count: usize) -> View<usize> {
        let block = self.atoms.len();
        let channels: Vec<usize> = (0..count).map(|_| self.atoms.add()).collect();
        self.block_of.resize(self.atoms.len(), block);
        self.members.push(Member { name, layer, channels: channels.clone() });
        View::images(channels)
    }

    fn group(&mut self, layer: &str, count: usize, channels: &[usize]) {
        if count > 1 {
            self.groups.push(Groups { layer: layer.to_owned(), count, channels: channels.to_vec() });
        }
    }

    fn pin(&mut self, view: &View<usize>, reason: impl FnOnce() -> String) {
        self.pins.extend(view.channels.first().map(|atom| (*atom, reason())));
    }

    /// The sum of the two sides of a residual.
    fn join(&mut self, name: &str, input: View<usize>, branch: View<usize>) -> View<usize> {
        let joined = input.sum(&branch, |a, b| self.atoms.join(*a, *b));
        joined.unwrap_or_else(|| {
            for view in [&input, &branch] {
                self.pin(view, || match input.layout {
                    Layout::Unknown => format!("residual `{name}` adds its channels to the network's input"),
                    _ => format!("the two sides of residual `{name}` cannot be told apart by channel"),
                });
            }
            if input.layout == Layout::Unknown { branch } else { input }
        })
    }

    /// Joined atoms become channels, those of one block a space.
    fn resolve(self) -> Spaces<'a> {
        let Walk { atoms, block_of, members, groups, pins } = self;
        let space_at = |atom: usize| block_of[atoms.root(atom)];
        let mut roots: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        (0..atoms.len()).filter(|atom| atoms.root(*atom) == *atom).for_each(|atom| {
            roots.entry(space_at(atom)).or_default().push(atom);
        });
        let mut number = vec![0; atoms.len()];
        let (mut spaces, mut next) = (Vec::new(), 0);
        for (space, roots) in roots {
            let pin = pins.iter().find(|(atom, _)| space_at(*atom) == space).map(|(_, reason)| reason.clone());
            spaces.push(Space { channels: next..next + roots.len(), cells: 1, pin });
            for root in roots {
                number[root] = next;
                next += 1;
            }
        }
        let numbers = |atoms_of: Vec<usize>| atoms_of.into_iter().map(|atom| number[atoms.root(atom)]).collect();
        let members =
            members.into_iter().map(|member| Member { channels: numbers(member.channels), ..member }).collect();
        let groups = groups.into_iter().map(|groups| Groups { channels: numbers(groups.channels), ..groups }).collect();
        let mut found = Spaces { spaces, members, groups };
        found.divide();
        found
    }
}

impl Spaces<'_> {
    /// Divides the spaces into the cells that their groups ask for.
    fn divide(&mut self) {
        for groups in &self.groups {
            let index = self.space_of(groups.channels[0]);
            let space = &mut self.spaces[index];
            if !groups.are_cells_of(&space.channels) {
                let reason = || format!("the groups of `{}` cut through channels that go only together", groups.layer);
                space.pin.get_or_insert_with(reason);
            }
            // Both divide the number of channels, and so does this.
            space.cells = lcm(space.cells, groups.count);
        }
    }
}

impl Groups {
    /// Whether the groups are as many consecutive, equal parts of the channels, each channel there equally often.
    fn are_cells_of(&self, channels: &Range<usize>) -> bool {
        let (count, positions) = (channels.len(), self.channels.len());
        let mut often = vec![0; count];
        count.is_multiple_of(self.count)
            && self.channels.iter().enumerate().all(|(position, channel)| {
                let index = channel - channels.start;
                often[index] += 1;
                index / (count / self.count) == position / (positions / self.count)
            })
            && often.iter().all(|times| *times == positions / count)
    }
}

/// The least common multiple, of numbers above 0; the largest number if it is none.
pub(super) fn lcm(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a / x).saturating_mul(b)
}

/// Sets of numbers that grow together, each named by its least.
#[derive(Default)]
struct Sets(Vec<usize>);

impl Sets {
    fn len(&self) -> usize {
        self.0.len()
    }

    /// A new set of one.
    fn add(&mut self) -> usize {
        self.0.push(self.0.len());
        self.0.len() - 1
    }

    fn root(&self, mut of: usize) -> usize {
        while self.0[of] != of {
            of = self.0[of];
        }
        of
    }

    /// Joins two sets and returns the name of the joined one.
    fn join(&mut self, a: usize, b: usize) -> usize {
        let (a, b) = (self.root(a), self.root(b));
        let (least, other) = (a.min(b), a.max(b));
        self.0[other] = least;
        least
    }
}
