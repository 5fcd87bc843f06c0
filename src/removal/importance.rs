//! How much each channel matters.

use std::sync::Arc;

use ndarray::{ArrayD, Axis};

use super::{
    Reduce,
    spaces::{Member, Space, Spaces},
};
use crate::{
    error::{Error, Result},
    nn::{Layer, Network},
    prune::{Pattern, Score, checked_units},
    random::{Random, derive},
    tensor::{Observed, Statistic},
};

/// Arrays by the full names of weights.
pub(super) type ByName = Vec<(String, ArrayD<f32>)>;

/// What the importance is of.
#[derive(Clone, Debug)]
pub(super) enum Ranking {
    /// Rows of weights, with what data told about them.
    Score(Arc<dyn Score>, Vec<(Statistic, ByName)>),
    /// Nothing: numbers from a seed.
    Random(u64),
    /// Weights of batch normalizations.
    Slimming,
    /// 0 where all weights are, infinity elsewhere.
    Zeros,
}

/// The importance of every channel of each space; `None` for a space that the ranking says nothing of.
pub(super) fn importances(
    ranking: &Ranking,
    network: &Network,
    spaces: &Spaces<'_>,
    open: &[&Space],
    reduce: Reduce,
) -> Result<Vec<Option<Vec<f64>>>> {
    if let Ranking::Score(_, statistics) = ranking {
        expect_weights(statistics, network)?;
    }
    let reduce = if let Ranking::Zeros = ranking { Reduce::Max } else { reduce };
    let found = open.iter().map(|space| {
        let mut votes = vec![Vec::new(); space.channels.len()];
        if let Ranking::Random(seed) = ranking {
            let mut random = Random::new(derive(*seed, space.channels.start));
            votes.iter_mut().for_each(|votes| votes.push(f64::from(random.uniform())));
        }
        // A channel may be masked whole and yet not be zero, for a layer normalization's sake.
        let mut alive = vec![matches!(ranking, Ranking::Zeros); space.channels.len()];
        for member in spaces.members.iter().filter(|member| space.channels.contains(&member.channels[0])) {
            let vote = votes_of(ranking, network, member).map_err(|error| error.in_layer(&member.name))?;
            let living = living_rows(network, member)?;
            for (row, channel) in member.channels.iter().enumerate() {
                votes[channel - space.channels.start].extend(vote.as_ref().map(|vote| vote[row]));
                alive[channel - space.channels.start] |= living[row];
            }
        }
        let importance = |(votes, alive): (&Vec<f64>, &bool)| match (alive, reduce) {
            (false, _) => f64::NEG_INFINITY,
            (true, Reduce::Mean) => votes.iter().sum::<f64>() / votes.len() as f64,
            (true, Reduce::Max) => votes.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        };
        let told = votes.iter().all(|votes| !votes.is_empty());
        Ok(told.then(|| votes.iter().zip(&alive).map(importance).collect()))
    });
    let found: Vec<Option<Vec<f64>>> = found.collect::<Result<_>>()?;
    if matches!(ranking, Ranking::Slimming) && found.iter().all(Option::is_none) {
        return Err(Error::Conflict {
            what: "slimming ranks channels by the batch_norm2d that follows, but none follows channels that can go"
                .into(),
            remedy: "rank by the weights, as l2 does",
        });
    }
    Ok(found)
}

/// The importance of every row of a member, if the ranking is of such layers.
fn votes_of(ranking: &Ranking, network: &Network, member: &Member<'_>) -> Result<Option<Vec<f64>>> {
    let nonzero = |zero: bool| if zero { 0.0 } else { f64::INFINITY };
    let weight = format!("{}.weight", member.name);
    Ok(match (ranking, member.layer) {
        (Ranking::Score(score, statistics), _) if member.is_producer() => {
            Some(scored(&**score, statistics, network, &weight, Pattern::Structured(Axis(0)))?)
        }
        (Ranking::Slimming, Layer::BatchNorm2d(norm)) => {
            Some(norm.weight().iter().map(|weight| f64::from(weight.abs())).collect())
        }
        (Ranking::Zeros, Layer::Linear(_) | Layer::Conv2d(_) | Layer::Attention(_) | Layer::LayerNorm(_)) => {
            let values = network.parameter(&weight)?;
            Some(values.outer_iter().map(|row| nonzero(row.iter().all(|x| *x == 0.0))).collect())
        }
        _ => None,
    })
}

/// What a score makes of the units of a weight, given what data told about it.
pub(super) fn scored(
    score: &dyn Score,
    statistics: &[(Statistic, ByName)],
    network: &Network,
    weight: &str,
    pattern: Pattern,
) -> Result<Vec<f64>> {
    let values = network.parameter(weight)?;
    let mut observed = Observed::new(&values);
    for (which, by_name) in statistics {
        if let Some((_, told)) = by_name.iter().find(|(name, _)| name == weight) {
            observed = observed.with(*which, told);
        }
    }
    if let Some(mask) = network.mask(weight)? {
        observed = observed.masked(mask);
    }
    checked_units(score, &observed, &pattern.units(values.shape())?).map_err(|error| match (error, score.needs()) {
        (Error::NeedsCalibration { scheme, .. }, Some(which)) => {
            Error::NeedsCalibration { scheme, what: which.needed_by_name() }
        }
        (error, _) => error,
    })
}

/// Statistics are of the network's parameters.
pub(super) fn expect_weights(statistics: &[(Statistic, ByName)], network: &Network) -> Result<()> {
    let known: Vec<String> = network.parameters().into_iter().map(|(name, _)| name).collect();
    let mut named = statistics.iter().flat_map(|(_, by_name)| by_name).map(|(name, _)| name);
    match named.find(|name| !known.contains(name)) {
        Some(name) => Err(Error::UnknownName { name: name.clone(), known }),
        None => Ok(()),
    }
}

/// Whether anything of each row is left by the mask; rows of normalizations have none, and make no channel.
fn living_rows(network: &Network, member: &Member<'_>) -> Result<Vec<bool>> {
    let rows = member.channels.len();
    if !member.is_producer() {
        return Ok(vec![false; rows]);
    }
    Ok(match network.mask(&format!("{}.weight", member.name))? {
        None => vec![true; rows],
        Some(mask) => {
            let row = mask.len() / rows;
            (0..rows).map(|index| (index * row..(index + 1) * row).any(|i| mask.is_kept(i))).collect()
        }
    })
}
