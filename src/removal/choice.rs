//! How many channels of each space go, and which: the least important, the same number of every cell.

use super::spaces::{Space, lcm};
use crate::{
    error::{Error, Result},
    prune::Amount,
};

/// A space that may lose channels, and how much each of them matters.
pub(super) struct Candidate<'a> {
    pub(super) space: &'a Space,
    pub(super) importance: Vec<f64>,
}

/// Channels that go together so that every cell loses one.
struct Step {
    importance: f64,
    channels: Vec<usize>,
}

impl Candidate<'_> {
    fn count(&self) -> usize {
        self.space.channels.len()
    }

    /// The steps in which the space shrinks, the least important first, down to one channel a cell.
    fn steps(&self) -> Vec<Step> {
        let cell = self.count() / self.space.cells;
        let orders: Vec<Vec<usize>> = (0..self.space.cells)
            .map(|index| {
                let mut order: Vec<usize> = (index * cell..(index + 1) * cell).collect();
                order.sort_by(|a, b| self.importance[*a].total_cmp(&self.importance[*b]));
                order
            })
            .collect();
        let step = |rank: usize| {
            let members = orders.iter().map(|order| order[rank]);
            Step {
                importance: members.clone().map(|index| self.importance[index]).sum::<f64>() / self.space.cells as f64,
                channels: members.map(|index| self.space.channels.start + index).collect(),
            }
        };
        (0..cell - 1).map(step).collect()
    }

    /// At most so many steps, so that a multiple stays, or all.
    fn rounded(&self, steps: usize, multiple: usize) -> usize {
        let multiple = lcm(self.space.cells, multiple);
        let stay = (self.count() - steps * self.space.cells).checked_next_multiple_of(multiple);
        (self.count() - stay.unwrap_or(self.count()).min(self.count())) / self.space.cells
    }
}

/// The channels that go.
pub(super) fn choose(
    candidates: &[Candidate<'_>],
    amount: Amount,
    across_layers: bool,
    multiple: usize,
) -> Result<Vec<usize>> {
    amount.validate()?;
    if let Amount::Fraction(1.0) = amount {
        let bound = "below 1: at least one channel of a layer stays";
        return Err(Error::Setting { setting: "the share of channels to remove", value: 1.0, bound });
    }
    if multiple == 0 {
        return Err(Error::Setting { setting: "round_to", value: 0.0, bound: "at least 1" });
    }
    let steps: Vec<Vec<Step>> = candidates.iter().map(Candidate::steps).collect();
    let counts = if across_layers { together(candidates, &steps, amount)? } else { each(candidates, &steps, amount)? };
    let chosen = candidates.iter().zip(steps).zip(counts).flat_map(|((candidate, steps), count)| {
        steps.into_iter().take(candidate.rounded(count, multiple)).flat_map(|step| step.channels)
    });
    Ok(chosen.collect())
}

/// The number of steps of each candidate, for an amount of each.
fn each(candidates: &[Candidate<'_>], steps: &[Vec<Step>], amount: Amount) -> Result<Vec<usize>> {
    let count = |(candidate, steps): (&Candidate<'_>, &Vec<Step>)| {
        let count = candidate.count();
        match (amount, amount.of(count)) {
            (Amount::Count(asked), _) if asked >= count => Err(too_many(asked)),
            (_, of) => Ok(match of? {
                Some(channels) => (channels / candidate.space.cells).min(steps.len()),
                None => below(steps, amount),
            }),
        }
    };
    candidates.iter().zip(steps).map(count).collect()
}

/// The number of steps of each candidate, for an amount of all together.
fn together(candidates: &[Candidate<'_>], steps: &[Vec<Step>], amount: Amount) -> Result<Vec<usize>> {
    let all = candidates.iter().map(Candidate::count).sum::<usize>();
    let most = steps.iter().flatten().map(|step| step.channels.len()).sum::<usize>();
    let mut left = match (amount, amount.of(all)) {
        (Amount::Count(asked), _) if asked > most => return Err(too_many(asked)),
        (_, of) => match of? {
            Some(channels) => channels,
            None => return Ok(steps.iter().map(|steps| below(steps, amount)).collect()),
        },
    };
    let mut ranked: Vec<(f64, usize)> = Vec::new();
    for (index, steps) in steps.iter().enumerate() {
        ranked.extend(steps.iter().map(|step| (step.importance, index)));
    }
    ranked.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut counts = vec![0; candidates.len()];
    for (_, index) in ranked {
        let cells = candidates[index].space.cells;
        if cells <= left {
            left -= cells;
            counts[index] += 1;
        }
    }
    Ok(counts)
}

/// The steps of less importance than a threshold.
fn below(steps: &[Step], amount: Amount) -> usize {
    let Amount::Below(threshold) = amount else { return 0 };
    steps.iter().take_while(|step| step.importance < threshold).count()
}

fn too_many(asked: usize) -> Error {
    let bound = "so few that a channel of every layer stays; keep leaves layers out";
    Error::Setting { setting: "the count of channels to remove", value: asked as f64, bound }
}
