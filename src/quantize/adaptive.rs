//! The scheme that fits the weights best.

use std::{fmt, sync::Arc};

use ndarray::Axis;

use super::{
    AdditivePowerOfTwo, Binary, KMeans, Nf4, Piecewise, PowerOfTwo, Quantile, Quantizer, Range, Ternary, Uniform,
};
use crate::{
    error::{Error, Result},
    tensor::{Dense, Granularity, QuantizedTensor, Weights},
};

/// Measures the schemes, clips and granularities that the bits can pay for, and takes the one of least squared error.
///
/// Candidates are [`Uniform`] in each mapping with the ranges min-max and least squares, [`KMeans`], [`Quantile`],
/// [`Piecewise`], [`PowerOfTwo`] and [`AdditivePowerOfTwo`], and at their own bits [`Binary`], [`Ternary`] and [`Nf4`];
/// each per tensor, per channel of axis 0, and in groups of 256, 128, 64 and 32, as far as the budget goes. That is some
/// twenty to fifty fits: seconds for millions of weights. One that refuses the weights is passed over, as [`Binary`] for
/// pruned ones, which it could not keep at zero.
///
/// What counts as the cost is everything at rest: codes, scales, zero points and codebooks. A candidate may cost
/// [`budget`](Adaptive::budget) bits a weight; where nothing does (a tensor of few weights), the cheapest is taken.
/// [`choose`](Adaptive::choose) says what was measured, and why the choice fell.
///
/// | setting | default | range |
/// |---|---|---|
/// | `bits` (in the constructor) | - | 1 to 8 |
/// | `budget`, bits per weight at rest | `bits` + 0.5, what groups of 64 with f32 scales cost (NF4, ggml's Q4_0) | at least `bits` |
///
/// ```
/// use ndarray::Array2;
/// use tersor::Quantizer;
///
/// // One row a hundred times larger than the others: one scale for all would leave the others nothing.
/// let w = Array2::from_shape_fn((64, 256), |(i, j)| ((i * 256 + j) as f32).sin() * if i == 5 { 100.0 } else { 1.0 });
/// let choice = Quantizer::adaptive(4).choose(&w)?;
/// println!("{choice}");
/// assert!(choice.tensor().nbytes() * 8 <= w.len() * 9 / 2);
/// assert!(choice.tensor().distortion(&w)?.mse < Quantizer::uniform(4).apply(&w)?.distortion(&w)?.mse / 3.0);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Adaptive {
    bits: u8,
    budget: Option<f64>,
}

impl fmt::Debug for Adaptive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "adaptive({})", self.bits)?;
        self.budget.map_or(Ok(()), |budget| write!(f, ".budget({budget})"))
    }
}

/// One scheme that [`Adaptive`] measured.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The scheme, with its settings.
    pub scheme: Arc<dyn Quantizer>,
    /// Mean squared error, weighed by importance where there is one.
    pub mse: f64,
    /// Bits at rest per weight, all counted.
    pub bits_per_weight: f64,
}

/// What [`Adaptive`] chose, out of what, and why; shown as text by `Display`.
#[derive(Clone, Debug)]
pub struct Choice {
    tensor: QuantizedTensor,
    candidates: Vec<Candidate>,
    reason: String,
}

impl Choice {
    /// The weights, quantized by the scheme chosen.
    pub fn tensor(&self) -> &QuantizedTensor {
        &self.tensor
    }

    /// The scheme chosen.
    pub fn scheme(&self) -> &Arc<dyn Quantizer> {
        &self.candidates[0].scheme
    }

    /// All that was measured, the chosen one first, then by growing error.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// The distribution, the choice and its lead, in words.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.reason)?;
        self.candidates.iter().try_for_each(|candidate| {
            let Candidate { scheme, mse, bits_per_weight } = candidate;
            writeln!(f, "  mse {mse:9.3e} at {bits_per_weight:6.3} bits per weight: {scheme:?}")
        })
    }
}

/// A choice less than this share better is no better: the fewer bits win.
const TIE: f64 = 1e-5;

impl Adaptive {
    /// With half a bit a weight for scales and codebooks.
    pub fn new(bits: u8) -> Self {
        Adaptive { bits, budget: None }
    }

    /// Sets the most bits at rest a weight may cost, all counted.
    pub fn budget(mut self, bits_per_weight: f64) -> Self {
        self.budget = Some(bits_per_weight);
        self
    }

    /// Measures the candidates and says which is best.
    ///
    /// # Errors
    /// As [`apply`](Quantizer::apply): [`Error::Bits`], [`Error::Setting`] for a budget below the bits,
    /// [`Error::Empty`], [`Error::NotFinite`].
    pub fn choose(&self, weights: &dyn Weights) -> Result<Choice> {
        let budget = self.validate()?;
        let dense = Dense::new(weights)?;
        let (mut measured, mut refused) = (Vec::new(), None);
        let (affordable, others): (Vec<_>, Vec<_>) = self
            .schemes(dense.shape())
            .into_iter()
            .partition(|(overhead, _)| f64::from(self.bits) + overhead / dense.values().len() as f64 <= budget);
        // Of those too dear by their scales alone, the first (one scale for the tensor) stays as the last resort.
        let fallback = others.into_iter().take(usize::from(affordable.is_empty()));
        for (_, scheme) in affordable.into_iter().chain(fallback) {
            let tensor = match scheme.apply(weights) {
                Ok(tensor) => tensor,
                Err(error) => {
                    refused = Some(error);
                    continue;
                }
            };
            let mse = tensor.distortion(weights)?.mse;
            measured.push((Candidate { scheme, mse, bits_per_weight: tensor.bits_per_weight() }, tensor));
        }
        if let (true, Some(error)) = (measured.is_empty(), refused) {
            return Err(error);
        }
        measured.sort_by(|(a, _), (b, _)| a.mse.total_cmp(&b.mse));
        let within = |candidate: &Candidate| candidate.bits_per_weight <= budget;
        let least = measured.iter().find(|(candidate, _)| within(candidate)).map(|(candidate, _)| candidate.mse);
        let cheapest = (0..measured.len())
            .filter(|i| least.is_none_or(|least| within(&measured[*i].0) && measured[*i].0.mse <= least * (1.0 + TIE)))
            .min_by(|a, b| measured[*a].0.bits_per_weight.total_cmp(&measured[*b].0.bits_per_weight));
        let chosen = measured.remove(cheapest.unwrap_or(0));
        let tensor = chosen.1;
        let candidates: Vec<_> = std::iter::once(chosen.0).chain(measured.into_iter().map(|(c, _)| c)).collect();
        let all = Granularity::Tensor.groups(dense.shape())?;
        let reason = reason(&dense.survivors(&all, 0).values, &candidates, budget);
        Ok(Choice { tensor, candidates, reason })
    }

    fn validate(&self) -> Result<f64> {
        if !(1..=8).contains(&self.bits) {
            return Err(Error::Bits { bits: self.bits, scheme: "Quantizer::adaptive", allowed: "1 to 8" });
        }
        let budget = self.budget.unwrap_or(f64::from(self.bits) + 0.5);
        if budget.is_nan() || budget < f64::from(self.bits) {
            let bound = "at least the bits of a code";
            return Err(Error::Setting { setting: "budget", value: budget, bound });
        }
        Ok(budget)
    }

    /// The candidates, and the bits that each takes beside its codes.
    fn schemes(&self, shape: &[usize]) -> Vec<(f64, Arc<dyn Quantizer>)> {
        let bits = self.bits;
        let mut granularities = vec![Granularity::Tensor];
        if shape.len() > 1 {
            granularities.push(Granularity::Channel(Axis(0)));
        }
        granularities.extend([256, 128, 64, 32].map(Granularity::Group));
        let groups = |granularity: Granularity| granularity.groups(shape).map_or(1.0, |groups| groups.count() as f64);
        let mut schemes: Vec<(f64, Arc<dyn Quantizer>)> = Vec::new();
        for granularity in granularities {
            let scale = 32.0 * groups(granularity);
            let table = 32.0 * 2f64.powi(bits.into());
            for range in [Range::MinMax, Range::Mse] {
                let uniform = Uniform::new(bits).granularity(granularity).range(range);
                schemes.push((scale * 1.25, Arc::new(uniform.clone())));
                if bits > 1 {
                    schemes.push((scale, Arc::new(uniform.clone().symmetric())));
                    schemes.push((scale, Arc::new(uniform.full_range())));
                    schemes
                        .push((scale, Arc::new(Uniform::new(bits).granularity(granularity).range(range).signed_max())));
                }
            }
            schemes.push((table * groups(granularity), Arc::new(KMeans::new(bits).granularity(granularity))));
            schemes.push((table * groups(granularity), Arc::new(Quantile::new(bits).granularity(granularity))));
            if bits > 1 {
                schemes.push((table * groups(granularity), Arc::new(Piecewise::new(bits).granularity(granularity))));
                schemes.push((table + scale, Arc::new(AdditivePowerOfTwo::new(bits).granularity(granularity))));
                schemes.push((table + scale, Arc::new(PowerOfTwo::new(bits).granularity(granularity))));
            }
            match bits {
                1 => schemes.push((scale, Arc::new(Binary::new().granularity(granularity)))),
                2 => schemes.push((scale, Arc::new(Ternary::new().granularity(granularity)))),
                4 => schemes.push((table + scale, Arc::new(Nf4::new().granularity(granularity)))),
                _ => {}
            }
        }
        schemes
    }
}

impl Quantizer for Adaptive {
    fn apply(&self, weights: &dyn Weights) -> Result<QuantizedTensor> {
        Ok(self.choose(weights)?.tensor)
    }

    fn apply_described(&self, weights: &dyn Weights) -> Result<(QuantizedTensor, String)> {
        let choice = self.choose(weights)?;
        let words = format!("{self:?}: {:?}", choice.scheme());
        Ok((choice.tensor, words))
    }
}

fn reason(values: &[f32], candidates: &[Candidate], budget: f64) -> String {
    let n = values.len() as f64;
    let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let moment = |power: i32| values.iter().map(|x| (f64::from(*x) - mean).powi(power)).sum::<f64>() / n;
    let sigma = moment(2).sqrt();
    let shape = if sigma > 0.0 {
        let excess = moment(4) / sigma.powi(4) - 3.0;
        let farthest = values.iter().fold(0.0, |far: f64, x| far.max((f64::from(*x) - mean).abs())) / sigma;
        let tails = match excess {
            e if e < -0.5 => "flat",
            e if e < 1.0 => "close to normal",
            e if e < 4.0 => "peaked, as a Laplacian",
            _ => "heavy-tailed",
        };
        format!("{tails} (excess kurtosis {excess:.2}, largest {farthest:.1} sigma)")
    } else {
        "all alike".to_owned()
    };
    let [best, rest @ ..] = candidates else { return String::new() };
    let lead = match rest.iter().find(|other| other.bits_per_weight <= budget) {
        Some(next) if best.mse > 0.0 => {
            format!("; the next, {:?}, leaves {:.2} times its error", next.scheme, next.mse / best.mse)
        }
        _ => String::new(),
    };
    let within = match best.bits_per_weight <= budget {
        true => format!("the least error within {budget} bits per weight"),
        false => format!("the cheapest, since nothing stays within {budget} bits per weight"),
    };
    format!("the weights are {shape}; {:?} is {within}{lead}", best.scheme)
}
