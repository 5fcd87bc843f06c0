//! Which channels go: a ranking, an amount, and where.

use std::sync::Arc;

use ndarray::{ArrayBase, ArrayD, Data, Dimension};
use wildmatch::WildMatch;

use super::{
    Selection,
    choice::{CHANNELS, Candidate, asks, choose},
    importance::{Ranking, importances},
    spaces::{Space, Spaces},
};
use crate::{
    error::{Error, Result},
    nn::Network,
    prune::{Amount, Magnitude, Score},
    tensor::Statistic,
};

/// Chooses the output channels of convolutions and the neurons of linear layers and attentions that go, and removes them.
///
/// | setting | default | range |
/// |---|---|---|
/// | amount (in the constructor) | - | a fraction below 1, a count, or [`Amount::Below`] |
/// | [`across_layers`](Channels::across_layers) | each layer for itself | |
/// | [`round_to`](Channels::round_to) | 1 | at least 1 |
/// | [`only`](Channels::only), [`keep`](Channels::keep) | all that can go | globs of layer names, `attn.output` for the attention `attn` |
/// | [`where_possible`](Channels::where_possible) | removal refuses what cannot go | |
/// | [`reduce`](Channels::reduce) | [`Reduce::Mean`] | |
/// | [`drop_biases`](Channels::drop_biases) | biases are folded | |
/// | [`with`](Channels::with) | no data | statistics by the weight's full name |
///
/// The amount is of the channels of each layer, where layers that share their channels (through residuals and depthwise
/// convolutions) are as one; at least one channel always stays. A channel matters as much as its rows of weights do on
/// average (or most), in all layers that make it. Channels whose rows are masked whole go first; between equal ones the
/// lower index does.
///
/// ```
/// use ndarray::Array4;
/// use tersor::{Channels, nn::{Conv2d, Network}};
///
/// let network = Network::builder(7)
///     .conv2d(Conv2d::new(1, 16, 3)).batch_norm2d(16).relu()
///     .residual(|branch| branch.conv2d(Conv2d::new(16, 32, 1)).relu().conv2d(Conv2d::new(32, 16, 1)))
///     .flatten().linear(16 * 6 * 6, 10).named("head")
///     .build()?;
/// let chosen = Channels::l2(0.5).select(&network)?; // which channels of which layers
/// let smaller = chosen.remove(&network)?; // or at once: Channels::l2(0.5).remove(&network)?
/// assert_eq!(smaller.parameter("0.weight")?.shape(), [8, 1, 3, 3]);
/// assert_eq!(smaller.parameter("3.0.weight")?.shape(), [16, 8, 1, 1]);
/// assert_eq!(smaller.parameter("head.weight")?.shape(), [10, 8 * 6 * 6]);
///
/// let x = Array4::from_shape_fn((2, 1, 8, 8), |(n, _, i, j)| (n + i * j) as f32 / 64.0);
/// let masked = chosen.mask(&network)?;
/// assert!((masked.forward(&x)? - smaller.forward(&x)?).iter().all(|error| error.abs() < 1e-5));
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Channels {
    ranking: Ranking,
    amount: Amount,
    across_layers: bool,
    multiple: usize,
    only: Vec<String>,
    keep: Vec<String>,
    where_possible: bool,
    reduce: Reduce,
    drop_biases: bool,
}

/// The importance of a channel that several layers make, given that of its row in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reduce {
    /// The mean.
    #[default]
    Mean,
    /// The largest.
    Max,
}

impl Channels {
    fn ranked(ranking: Ranking, amount: Amount) -> Channels {
        let (only, keep, reduce) = (Vec::new(), Vec::new(), Reduce::Mean);
        let (across_layers, multiple, where_possible, drop_biases) = (false, 1, false, false);
        Channels { ranking, amount, across_layers, multiple, only, keep, where_possible, reduce, drop_biases }
    }

    /// Those whose rows a score ranks least: any [`Score`], one's own included.
    pub fn by(score: impl Score + 'static, amount: impl Into<Amount>) -> Channels {
        Channels::ranked(Ranking::Score(Arc::new(score), Vec::new()), amount.into())
    }

    /// Those with the least sum of absolute weights (Li et al. 2017).
    pub fn l1(amount: impl Into<Amount>) -> Channels {
        Channels::norm(1.0, amount)
    }

    /// Those with the least Euclidean norm.
    pub fn l2(amount: impl Into<Amount>) -> Channels {
        Channels::norm(2.0, amount)
    }

    /// Those with the least p-norm: see [`Magnitude`], whose power mean makes rows of different lengths comparable.
    pub fn norm(p: f64, amount: impl Into<Amount>) -> Channels {
        Channels::by(Magnitude::of_norm(p), amount)
    }

    /// Any, drawn by a seed.
    pub fn random(amount: impl Into<Amount>, seed: u64) -> Channels {
        Channels::ranked(Ranking::Random(seed), amount.into())
    }

    /// Those with the least `|weight|` in the [`BatchNorm2d`](crate::nn::BatchNorm2d) that follows (network slimming, Liu
    /// et al. 2017). Layers that none follows keep their channels.
    pub fn slimming(amount: impl Into<Amount>) -> Channels {
        Channels::ranked(Ranking::Slimming, amount.into())
    }

    /// Those that are zero already, by pruning or by training: every row of weights, and every weight of a layer
    /// normalization. The network then computes what it did, to rounding.
    ///
    /// [`remove`](Channels::remove) repeats this until none is left, since a row may read nothing but zero channels.
    ///
    /// ```
    /// use ndarray::Axis;
    /// use tersor::{Channels, Pruner, nn::Network};
    ///
    /// let mut network = Network::builder(1).linear(8, 6).relu().linear(6, 3).build()?;
    /// let pruned = Pruner::magnitude(0.5).structured(Axis(0)).apply(&network.parameter("0.weight")?)?;
    /// network.set_mask("0.weight", Some(pruned.mask().clone()))?;
    /// let smaller = Channels::zeros().remove(&network)?;
    /// assert_eq!(smaller.parameter("2.weight")?.shape(), [3, 3]);
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn zeros() -> Channels {
        Channels::ranked(Ranking::Zeros, Amount::Below(f64::MIN_POSITIVE))
    }

    /// Takes the amount as one of all channels of the network, ranked as one; no layer is emptied.
    pub fn across_layers(self) -> Channels {
        Channels { across_layers: true, ..self }
    }

    /// Rounds the number of channels that stay up to a multiple (of 8 or 16, as kernels like it), or to all.
    pub fn round_to(self, multiple: usize) -> Channels {
        Channels { multiple, ..self }
    }

    /// Takes channels only from the layers whose names match this glob (`*` any text, `?` one character), and from those
    /// that share channels with them. Said again, it adds layers.
    pub fn only(mut self, pattern: impl Into<String>) -> Channels {
        self.only.push(pattern.into());
        self
    }

    /// Takes no channels from the layers whose names match this glob, nor from those that share channels with them.
    pub fn keep(mut self, pattern: impl Into<String>) -> Channels {
        self.keep.push(pattern.into());
        self
    }

    /// Leaves alone the channels that removal would refuse, since a convolution or mean pooling that pads with zeros reads
    /// the constant that they give: others of their layer go in their place, as far as there are any.
    ///
    /// ```
    /// use ndarray::array;
    /// use tersor::{Channels, Mask, nn::{Conv2d, Network}};
    ///
    /// let mut network = Network::builder(1).conv2d(Conv2d::new(1, 4, 3)).conv2d(Conv2d::new(4, 2, 3).padding(1)).build()?;
    /// network.set_mask("0.weight", Some(Mask::from_fn(&[4, 1, 3, 3], |i| i < 18)?))?; // of channels 2 and 3 nothing is left
    /// network.set_parameter("0.bias", &array![0.1, 0.1, 0.1, 0.0])?; // but for a constant
    /// assert!(Channels::zeros().remove(&network).is_err());
    /// let smaller = Channels::zeros().where_possible().remove(&network)?;
    /// assert_eq!(smaller.parameter("0.weight")?.shape(), [3, 1, 3, 3]);
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn where_possible(self) -> Channels {
        Channels { where_possible: true, ..self }
    }

    /// Sets what a channel counts that several layers make.
    pub fn reduce(self, reduce: Reduce) -> Channels {
        Channels { reduce, ..self }
    }

    /// Takes the biases of removed channels for zero as well, and their weights and biases in normalizations: they give
    /// 0, unless a sigmoid follows. This changes what the network computes more than need be, but lets channels go that
    /// a convolution with padding reads.
    pub fn drop_biases(self) -> Channels {
        Channels { drop_biases: true, ..self }
    }

    /// Tells a score what it [needs](Score::needs): a statistic of every weight, by its full name, as gradients come from
    /// [`Network::backward`]. Scores of the numbers alone do not ask.
    ///
    /// ```
    /// use tersor::{Channels, nn::{Mode, Network}, prune::Taylor, tensor::Statistic};
    ///
    /// let network = Network::builder(1).linear(3, 8).relu().linear(8, 2).build()?;
    /// let trace = network.trace(&ndarray::array![[0.1, 0.2, 0.3]], Mode::Evaluation)?;
    /// let gradients = network.backward(&trace, &ndarray::array![[1.0, -1.0]])?;
    /// let chosen = Channels::by(Taylor, 0.5).with(Statistic::Gradient, &gradients.parameters);
    /// assert_eq!(chosen.remove(&network)?.parameter("2.weight")?.shape(), [2, 4]);
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn with<S, D>(mut self, which: Statistic, by_name: &[(String, ArrayBase<S, D>)]) -> Channels
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        if let Ranking::Score(_, statistics) = &mut self.ranking {
            let owned = |(name, values): &(String, ArrayBase<S, D>)| -> (String, ArrayD<f32>) {
                (name.clone(), values.to_owned().into_dyn())
            };
            statistics.push((which, by_name.iter().map(owned).collect()));
        }
        self
    }

    /// Chooses.
    ///
    /// # Errors
    /// [`Error::Setting`] for an amount that leaves nothing, a multiple of 0, and one beyond every layer; [`Error::Pattern`]
    /// for a glob that matches no layer; [`Error::Layer`] around [`Error::Conflict`] for an [`only`](Channels::only) that
    /// matches none whose channels can go, [`Error::Conflict`] for a fraction or count of a network that has no such layer
    /// or keeps all, and for [`slimming`](Channels::slimming) one without batch normalization; [`Error::UnknownName`] for a
    /// statistic of something else; [`Error::Layer`] around what a score finds wrong with the weights.
    pub fn select(&self, network: &Network) -> Result<Selection> {
        let spaces = Spaces::of(network)?;
        let names: Vec<String> = spaces.producers().map(|member| member.name.clone()).collect();
        let [only, keep] = [&self.only, &self.keep].map(|patterns| matching(patterns, &names));
        let (only, keep) = (only?, keep?);
        let has = |space: &Space, matched: &[bool]| {
            let mut of_space = spaces.producers().zip(matched);
            of_space.any(|(member, matched)| *matched && space.channels.contains(&member.channels[0]))
        };
        for pattern in &self.only {
            let matched = matching(std::slice::from_ref(pattern), &names)?;
            some_can_go(&spaces, &matched).map_err(|(name, what)| {
                Error::Conflict { what, remedy: "choose channels of other layers" }.in_layer(&name)
            })?;
        }
        let open: Vec<&Space> = spaces
            .spaces
            .iter()
            .filter(|space| space.pin.is_none() && (self.only.is_empty() || has(space, &only)) && !has(space, &keep))
            .collect();
        if open.is_empty() && asks(self.amount) {
            let why = some_can_go(&spaces, &vec![true; names.len()]).err();
            return Err(Error::Conflict {
                what: match why {
                    Some((name, reason)) => format!("no channel of any layer can go (those of `{name}`: {reason})"),
                    None if names.is_empty() => "no channel of any layer can go: none makes channels".into(),
                    None => "keep leaves out every layer whose channels can go".into(),
                },
                remedy: "prune its weights instead, or keep fewer layers",
            });
        }
        let importances = importances(&self.ranking, network, &spaces, &open, self.reduce)?;
        let mut candidates: Vec<Candidate<'_>> = open
            .into_iter()
            .zip(importances)
            .filter_map(|(space, importance)| Some(Candidate::new(space, importance?)))
            .collect();
        loop {
            let mut removed = vec![false; spaces.count()];
            for channel in choose(&candidates, self.amount, self.across_layers, self.multiple, &CHANNELS)? {
                removed[channel] = true;
            }
            let chosen = Selection::of(&spaces, &removed, self.drop_biases);
            if !self.where_possible || chosen.is_empty() {
                return Ok(chosen);
            }
            let refused = chosen.refused(network, &spaces, &removed)?;
            if refused.is_empty() {
                return Ok(chosen);
            }
            candidates.iter_mut().for_each(|candidate| candidate.keep(&refused));
        }
    }

    /// Chooses and removes: [`select`](Channels::select), then [`Selection::remove`].
    ///
    /// # Errors
    /// Those of the two.
    pub fn remove(&self, network: &Network) -> Result<Network> {
        let mut smaller = network.clone();
        loop {
            let chosen = self.select(&smaller)?;
            smaller = chosen.remove(&smaller)?;
            if chosen.is_empty() || !matches!(self.ranking, Ranking::Zeros) {
                return Ok(smaller);
            }
        }
    }
}

/// Whether one of the layers at least has channels that can go; if not, the first of them, and why its own stay.
fn some_can_go(spaces: &Spaces<'_>, matched: &[bool]) -> Result<(), (String, String)> {
    let pins = spaces.producers().zip(matched).filter(|(_, matched)| **matched).map(|(member, _)| {
        let pin = spaces.spaces[spaces.space_of(member.channels[0])].pin.clone();
        pin.map(|reason| (member.name.clone(), reason))
    });
    let pins: Option<Vec<(String, String)>> = pins.collect();
    pins.and_then(|pins| pins.into_iter().next()).map_or(Ok(()), Err)
}

/// Which names match any of the patterns, each of which matches one at least; with or without `.weight`, as in a
/// [`Recipe`](crate::Recipe).
pub(super) fn matching(patterns: &[String], names: &[String]) -> Result<Vec<bool>> {
    let mut matched = vec![false; names.len()];
    for pattern in patterns {
        let glob = WildMatch::new(pattern);
        let matches = |name: &str| glob.matches(name) || glob.matches(&format!("{name}.weight"));
        let hits: Vec<usize> = (0..names.len()).filter(|index| matches(&names[*index])).collect();
        if hits.is_empty() {
            return Err(Error::Pattern { pattern: pattern.clone(), known: names.to_vec() });
        }
        hits.into_iter().for_each(|index| matched[index] = true);
    }
    Ok(matched)
}
