//! Attention heads taken out.

use std::{collections::BTreeSet, fmt, sync::Arc};

use ndarray::{Array1, Array2, ArrayBase, Axis, Data, Dimension};

use super::{
    channels::matching,
    choice::{Candidate, HEADS, asks, choose},
    importance::{ByName, expect_weights, scored},
    spaces::Space,
};
use crate::{
    error::{Error, Result},
    nn::{Attention, Layer, Linear, Network, Residual},
    prune::{Amount, Magnitude, Pattern, Score},
    tensor::{Mask, Statistic},
};

/// Chooses the heads of attention layers that go, and removes them (Michel et al. 2019).
///
/// A head matters as much as its parts of the four weights do on average: its rows of query, key and value, its columns of
/// the output.
///
/// | setting | default | range |
/// |---|---|---|
/// | amount (in the constructor) | - | a fraction below 1, a count, or [`Amount::Below`] |
/// | [`across_layers`](Heads::across_layers) | each layer for itself | at least one head stays in any case |
/// | [`only`](Heads::only), [`keep`](Heads::keep) | all attention layers | globs of layer names |
/// | [`with`](Heads::with) | no data | statistics by the weight's full name |
///
/// ```
/// use tersor::{nn::Network, removal::Heads};
///
/// let network = Network::builder(7).residual(|b| b.layer_norm(32).attention(32, 8).named("attn")).build()?;
/// let chosen = Heads::l2(0.5).select(&network)?; // which heads of which layers
/// let smaller = chosen.remove(&network)?; // or at once: Heads::l2(0.5).remove(&network)?
/// assert_eq!(smaller.parameter("0.attn.query.weight")?.shape(), [16, 32]);
/// assert_eq!(smaller.parameter("0.attn.output.weight")?.shape(), [32, 16]);
///
/// let x = ndarray::Array3::from_shape_fn((2, 5, 32), |(n, i, j)| ((n + i * j) as f32).sin());
/// let masked = chosen.mask(&network)?;
/// assert!((masked.forward(&x)? - smaller.forward(&x)?).iter().all(|error| error.abs() < 1e-5));
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Heads {
    score: Arc<dyn Score>,
    statistics: Vec<(Statistic, ByName)>,
    amount: Amount,
    across_layers: bool,
    only: Vec<String>,
    keep: Vec<String>,
}

impl Heads {
    /// Those that a score ranks least: any [`Score`], one's own included.
    pub fn by(score: impl Score + 'static, amount: impl Into<Amount>) -> Heads {
        let (score, statistics, only, keep) = (Arc::new(score), Vec::new(), Vec::new(), Vec::new());
        Heads { score, statistics, amount: amount.into(), across_layers: false, only, keep }
    }

    /// Those with the least sum of absolute weights.
    pub fn l1(amount: impl Into<Amount>) -> Heads {
        Heads::by(Magnitude::of_norm(1.0), amount)
    }

    /// Those with the least Euclidean norm.
    pub fn l2(amount: impl Into<Amount>) -> Heads {
        Heads::by(Magnitude::of_norm(2.0), amount)
    }

    /// Takes the amount as one of all heads of the network, ranked as one.
    pub fn across_layers(self) -> Heads {
        Heads { across_layers: true, ..self }
    }

    /// Takes heads only from the layers whose names match this glob. Said again, it adds layers.
    pub fn only(mut self, pattern: impl Into<String>) -> Heads {
        self.only.push(pattern.into());
        self
    }

    /// Takes no heads from the layers whose names match this glob.
    pub fn keep(mut self, pattern: impl Into<String>) -> Heads {
        self.keep.push(pattern.into());
        self
    }

    /// Tells a score what it [needs](Score::needs): a statistic of every weight, by its full name, as
    /// [`Network::gradient`] gives it.
    pub fn with<S, D>(mut self, which: Statistic, by_name: &[(String, ArrayBase<S, D>)]) -> Heads
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        let owned = by_name.iter().map(|(name, values)| (name.clone(), values.to_owned().into_dyn()));
        self.statistics.push((which, owned.collect()));
        self
    }

    /// Chooses.
    ///
    /// # Errors
    /// [`Error::Conflict`] for a network without attention, and if all of it is kept; [`Error::Setting`] for an amount that leaves nothing;
    /// [`Error::Pattern`] for a glob that matches no attention layer; [`Error::Layer`] around what a score finds wrong.
    pub fn select(&self, network: &Network) -> Result<HeadSelection> {
        let found = attentions(network)?;
        if found.is_empty() {
            return Err(Error::Conflict {
                what: "the network has no attention layer, whose heads could go".into(),
                remedy: "remove channels with Channels",
            });
        }
        let names: Vec<String> = found.iter().map(|(name, _)| name.clone()).collect();
        let (only, keep) = (matching(&self.only, &names)?, matching(&self.keep, &names)?);
        let open = (0..names.len()).filter(|i| (self.only.is_empty() || only[*i]) && !keep[*i]);
        let open: Vec<&(String, &Attention)> = open.map(|i| &found[i]).collect();
        if open.is_empty() && asks(self.amount) {
            let what = "keep leaves out every attention layer".into();
            return Err(Error::Conflict { what, remedy: "keep fewer layers" });
        }
        expect_weights(&self.statistics, network)?;
        let mut spaces: Vec<Space> = Vec::new();
        for (_, attention) in &open {
            let start = spaces.last().map_or(0, |space| space.channels.end);
            spaces.push(Space { channels: start..start + attention.heads, cells: 1, pin: None });
        }
        let candidates = spaces.iter().zip(&open).map(|(space, (name, attention))| {
            let importance = self.importance(network, name, attention).map_err(|error| error.in_layer(name))?;
            Ok(Candidate::new(space, importance))
        });
        let gone = choose(&candidates.collect::<Result<Vec<_>>>()?, self.amount, self.across_layers, 1, &HEADS)?;
        let mut selection = HeadSelection::new();
        for (space, (name, _)) in spaces.iter().zip(&open) {
            let own = gone.iter().filter(|head| space.channels.contains(head)).map(|head| head - space.channels.start);
            selection = selection.heads(name.clone(), own);
        }
        Ok(selection)
    }

    /// Chooses and removes: [`select`](Heads::select), then [`HeadSelection::remove`].
    ///
    /// # Errors
    /// Those of the two.
    pub fn remove(&self, network: &Network) -> Result<Network> {
        self.select(network)?.remove(network)
    }

    /// The mean over the four weights of what the score gives each head's part.
    fn importance(&self, network: &Network, name: &str, attention: &Attention) -> Result<Vec<f64>> {
        let mut sum = vec![0.0; attention.heads];
        for part in Attention::PARTS {
            let full = format!("{name}.{part}.weight");
            let weight = network.parameter(&full)?;
            let (rows, columns) = (weight.shape()[0], weight.shape()[1]);
            let block = match part {
                "output" => Pattern::Block { rows, columns: attention.head_dim },
                _ => Pattern::Block { rows: attention.head_dim, columns },
            };
            let scores = scored(&*self.score, &self.statistics, network, &full, block)?;
            sum.iter_mut().zip(scores).for_each(|(sum, score)| *sum += score / 4.0);
        }
        Ok(sum)
    }
}

/// Which heads of which attention layers go. Made by [`Heads::select`], or by hand.
///
/// ```
/// use tersor::{nn::Network, removal::HeadSelection};
///
/// let network = Network::builder(7).attention(12, 4).named("attn").build()?;
/// let smaller = HeadSelection::new().heads("attn", [0, 3]).remove(&network)?;
/// assert_eq!(smaller.parameter("attn.value.weight")?.shape(), [6, 12]);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct HeadSelection {
    layers: Vec<(String, BTreeSet<usize>)>,
}

impl fmt::Display for HeadSelection {
    /// A line a layer: its name, and the heads that go.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (layer, heads)) in self.layers.iter().enumerate() {
            let heads: Vec<String> = heads.iter().map(usize::to_string).collect();
            write!(f, "{}`{layer}`: {}", if index == 0 { "" } else { "\n" }, heads.join(", "))?;
        }
        Ok(())
    }
}

impl HeadSelection {
    /// Nothing yet.
    pub fn new() -> HeadSelection {
        HeadSelection::default()
    }

    /// Adds heads, counted from 0, of the attention layer of this full name.
    pub fn heads(mut self, layer: impl Into<String>, heads: impl IntoIterator<Item = usize>) -> HeadSelection {
        let layer = layer.into();
        match self.layers.iter_mut().find(|(name, _)| *name == layer) {
            Some((_, chosen)) => chosen.extend(heads),
            None => self.layers.push((layer, heads.into_iter().collect())),
        }
        self
    }

    /// The layers, and the heads of each that go, ascending.
    pub fn layers(&self) -> impl ExactSizeIterator<Item = (&str, Vec<usize>)> {
        self.layers.iter().map(|(name, heads)| (name.as_str(), heads.iter().copied().collect()))
    }

    /// Whether no head goes.
    pub fn is_empty(&self) -> bool {
        self.layers.iter().all(|(_, heads)| heads.is_empty())
    }

    /// The network with these heads silenced: their rows of query, key and value and their columns of the output are zero
    /// but for what their values' biases give, which stays in the output's. Recorded as [masks](Network::masks).
    ///
    /// # Errors
    /// [`Error::UnknownName`] for a name that is no attention layer; [`Error::Layer`] around [`Error::Setting`] for a head
    /// that it does not have, and around [`Error::Conflict`] for all of its heads.
    pub fn mask(&self, network: &Network) -> Result<Network> {
        let mut masked = network.clone();
        for (name, attention, gone) in self.resolve(network)? {
            if let Some(bias) = folded(attention, &gone) {
                masked.set_parameter(&format!("{name}.output.bias"), &bias)?;
            }
            for part in Attention::PARTS {
                let full = format!("{name}.{part}.weight");
                let shape = network.parameter(&full)?.shape().to_vec();
                let head = |i: usize| if part == "output" { i % shape[1] } else { i / shape[1] } / attention.head_dim;
                let before = network.mask(&full)?;
                let keep = |i: usize| !gone.contains(&head(i)) && before.is_none_or(|before| before.is_kept(i));
                masked.set_mask(&full, Some(Mask::from_fn(&shape, keep)?))?;
            }
        }
        Ok(masked)
    }

    /// The network without these heads: smaller weights in their layers, all else as it was. It computes what
    /// [`mask`](HeadSelection::mask) of the same choice does, to rounding: since attention weights sum to 1, a silenced head
    /// gives its values' bias, whatever the input, and that is added to the output's bias.
    ///
    /// # Errors
    /// As [`mask`](HeadSelection::mask).
    pub fn remove(&self, network: &Network) -> Result<Network> {
        let resolved = self.resolve(network)?;
        let mut masks = Vec::new();
        let mut smaller = rebuilt(network, "", &mut |name, attention| {
            let Some((_, _, gone)) = resolved.iter().find(|(own, ..)| own == name) else {
                return Ok(attention.clone());
            };
            let kept: Vec<usize> = (0..attention.heads).filter(|head| !gone.contains(head)).collect();
            let kept: Vec<usize> =
                kept.iter().flat_map(|head| head * attention.head_dim..(head + 1) * attention.head_dim).collect();
            for part in Attention::PARTS {
                let full = format!("{name}.{part}.weight");
                let axis = Axis(usize::from(part == "output"));
                if let Some(mask) = network.mask(&full)? {
                    let left = mask.to_array().select(axis, &kept);
                    let mut each = left.iter();
                    masks.push((full, Mask::from_fn(left.shape(), |_| each.next().is_some_and(|kept| *kept))?));
                }
            }
            without(attention, gone, &kept)
        })?;
        for (name, mask) in masks {
            smaller.set_mask(&name, Some(mask))?;
        }
        Ok(smaller)
    }

    fn resolve<'a>(&self, network: &'a Network) -> Result<Vec<(String, &'a Attention, BTreeSet<usize>)>> {
        let found = attentions(network)?;
        let resolve = |(name, gone): &(String, BTreeSet<usize>)| {
            let Some((_, attention)) = found.iter().find(|(own, _)| own == name) else {
                let known = found.iter().map(|(name, _)| name.clone()).collect();
                return Err(Error::UnknownName { name: name.clone(), known });
            };
            if let Some(head) = gone.iter().find(|head| **head >= attention.heads) {
                let bound = "below the layer's number of heads";
                return Err(Error::Setting { setting: "head", value: *head as f64, bound }.in_layer(name));
            }
            if gone.len() == attention.heads {
                let what = format!("all of its {} heads would go", attention.heads);
                return Err(Error::Conflict { what, remedy: "leave at least one" }.in_layer(name));
            }
            Ok((name.clone(), *attention, gone.clone()))
        };
        self.layers.iter().map(resolve).collect()
    }
}

/// The attention layers of the tree, by full name.
fn attentions(network: &Network) -> Result<Vec<(String, &Attention)>> {
    network.validate()?;
    let mut found = Vec::new();
    for (name, layer) in network.walk() {
        if let Layer::Attention(attention) = layer {
            found.push((name, attention));
        }
    }
    Ok(found)
}

/// The network with every attention layer as `f` makes it.
fn rebuilt(
    network: &Network,
    prefix: &str,
    f: &mut dyn FnMut(&str, &Attention) -> Result<Attention>,
) -> Result<Network> {
    let layers = network.layers().map(|(own, layer)| {
        let name = format!("{prefix}{own}");
        let layer: Layer = match layer {
            Layer::Attention(attention) => f(&name, attention)?.into(),
            Layer::Residual(residual) => Residual::new(rebuilt(residual.branch(), &format!("{name}."), f)?).into(),
            layer => layer.clone(),
        };
        Ok((own.to_owned(), layer))
    });
    let mut smaller = Network::from_layers(layers.collect::<Result<Vec<_>>>()?)?;
    for (name, mask) in network.masks() {
        if smaller.parameter(&name).is_ok_and(|weight| weight.shape() == mask.shape()) {
            smaller.set_mask(&name, Some(mask.clone()))?;
        }
    }
    Ok(smaller)
}

/// The output's bias with what the heads that go still give; none without biases.
fn folded(attention: &Attention, gone: &BTreeSet<usize>) -> Option<Array1<f32>> {
    let (values, output) = (attention.value().bias()?, attention.output());
    let weight = output.weight();
    let mut bias = output.bias()?.mapv(f64::from);
    for head in gone {
        for feature in head * attention.head_dim..(head + 1) * attention.head_dim {
            bias.scaled_add(f64::from(values[feature]), &weight.column(feature).mapv(f64::from));
        }
    }
    Some(bias.mapv(|bias| bias as f32))
}

/// The attention of the kept features of its heads.
fn without(attention: &Attention, gone: &BTreeSet<usize>, kept: &[usize]) -> Result<Attention> {
    let rows = |part: &Linear| part.weight().select(Axis(0), kept);
    let weights: [Array2<f32>; 4] = [
        rows(attention.query()),
        rows(attention.key()),
        rows(attention.value()),
        attention.output().weight().select(Axis(1), kept),
    ];
    let bias = |part: &Linear| part.bias().map(|bias| bias.select(Axis(0), kept));
    let biases =
        match (bias(attention.query()), bias(attention.key()), bias(attention.value()), folded(attention, gone)) {
            (Some(query), Some(key), Some(value), Some(output)) => Some([query, key, value, output]),
            _ => None,
        };
    let smaller = Attention::from_arrays(attention.heads - gone.len(), weights, biases)?;
    Ok(if attention.causal { smaller.causal() } else { smaller })
}
