//! Dynamic sparse training.

use std::f64::consts::PI;

use ndarray::ArrayD;

use crate::{
    error::{Error, Result},
    nn::{Callback, Network, Progress},
    random::{Random, derive},
    recipe::rules::Rules,
    tensor::Mask,
};

/// RigL (Evci et al. 2020): trains a network that is sparse from the start. Every so many steps, the smallest weights of
/// each layer go, and as many of those that are not there grow (from zero) where the gradient is largest; the share that is
/// exchanged, `α/2 (1 + cos(π t / T))`, falls to nothing at the step `T` where it ends. A weight that has a mask already
/// starts from that one and keeps its number, so that a training can be gone on with, or begin where another pruner ended.
///
/// | setting | default | range |
/// |---|---|---|
/// | [`every`](RigL::every) | 100 steps | at least 1 |
/// | [`alpha`](RigL::alpha) | 0.3 | 0 to 1 |
/// | [`until`](RigL::until) | 0.75 of the training | 0 to 1 |
/// | [`erdos_renyi`](RigL::erdos_renyi) | uniform: each layer has the sparsity | the larger a layer, the sparser |
/// | [`random_growth`](RigL::random_growth) | by gradient | SET (Mocanu et al. 2018): anywhere |
/// | [`seed`](RigL::seed) | 0 | of the first masks, and of random growth |
///
/// ```
/// use ndarray::Array2;
/// use tersor::{nn::{Adam, Data, Network, Training}, recipe::RigL};
///
/// let mut network = Network::builder(1).linear(8, 32).relu().linear(32, 2).build()?;
/// let data = Data::classes(Array2::from_shape_fn((64, 8), |(i, j)| ((i * j) as f32).sin()), (0..64).map(|i| i % 2))?;
/// let mut rigl = RigL::new("*", 0.75).every(2);
/// Training::new(10).train_with(&mut network, &data, &mut Adam::new(1e-3), &mut rigl, &mut |_| {
///     std::ops::ControlFlow::Continue(())
/// })?;
/// assert_eq!(network.mask("0.weight")?.unwrap().kept(), 64);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RigL {
    rules: Rules<()>,
    sparsity: f64,
    every: usize,
    alpha: f64,
    until: f64,
    erdos_renyi: bool,
    random_growth: bool,
    seed: u64,
    /// The weights that take part.
    names: Vec<String>,
    last_step: f64,
}

impl RigL {
    /// Trains the weights whose names match at this sparsity; patterns as in [`Recipe`](crate::Recipe).
    pub fn new(pattern: impl Into<String>, sparsity: f64) -> RigL {
        let mut rules = Rules::default();
        rules.push(pattern, Some(std::sync::Arc::new(())));
        let (names, last_step) = (Vec::new(), 0.0);
        let (every, alpha, until, seed) = (100, 0.3, 0.75, 0);
        RigL { rules, sparsity, every, alpha, until, erdos_renyi: false, random_growth: false, seed, names, last_step }
    }

    /// Leaves the weights whose names match dense.
    pub fn keep(mut self, pattern: impl Into<String>) -> RigL {
        self.rules.push(pattern, None);
        self
    }

    /// Sets the steps between exchanges.
    pub fn every(self, steps: usize) -> RigL {
        RigL { every: steps, ..self }
    }

    /// Sets the share of a layer's weights that the first exchange moves.
    pub fn alpha(self, alpha: f64) -> RigL {
        RigL { alpha, ..self }
    }

    /// Sets the share of the training after which nothing is exchanged.
    pub fn until(self, share: f64) -> RigL {
        RigL { until: share, ..self }
    }

    /// Gives layers of many weights for their size fewer: the density of (out, in, kh, kw) is in proportion to
    /// `(out + in + kh + kw) / (out · in · kh · kw)`, as large as the sparsity over all allows, at most 1
    /// (Erdős-Rényi-kernel).
    pub fn erdos_renyi(self) -> RigL {
        RigL { erdos_renyi: true, ..self }
    }

    /// Grows anywhere, whatever the gradient.
    pub fn random_growth(self) -> RigL {
        RigL { random_growth: true, ..self }
    }

    /// Sets what is drawn from.
    pub fn seed(self, seed: u64) -> RigL {
        RigL { seed, ..self }
    }

    fn validate(&self) -> Result<()> {
        let shares = [("sparsity", self.sparsity), ("alpha of RigL", self.alpha), ("until of RigL", self.until)];
        for (setting, value) in shares {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::Setting { setting, value, bound: "at least 0 and at most 1" });
            }
        }
        match self.every {
            0 => Err(Error::Setting { setting: "every of RigL", value: 0.0, bound: "at least 1" }),
            _ => Ok(()),
        }
    }

    /// How many weights of each shape are kept.
    fn kept(&self, shapes: &[Vec<usize>]) -> Vec<usize> {
        let sizes: Vec<f64> = shapes.iter().map(|shape| shape.iter().product::<usize>() as f64).collect();
        let mut densities = vec![1.0 - self.sparsity; shapes.len()];
        if self.erdos_renyi {
            let raw: Vec<f64> = shapes.iter().zip(&sizes).map(|(s, n)| s.iter().sum::<usize>() as f64 / n).collect();
            let mut dense = vec![false; shapes.len()];
            // Layers that would need a density above 1 are dense; the others share what is left.
            loop {
                let budget = (1.0 - self.sparsity) * sizes.iter().sum::<f64>();
                let taken: f64 = sizes.iter().zip(&dense).filter(|(_, dense)| **dense).map(|(n, _)| n).sum();
                let rest = sizes.iter().zip(&raw).zip(&dense).filter(|(_, dense)| !**dense);
                let factor = (budget - taken).max(0.0) / rest.map(|((n, raw), _)| n * raw).sum::<f64>();
                let density = |i: usize| if dense[i] { 1.0 } else { factor * raw[i] };
                densities = (0..shapes.len()).map(density).collect();
                let Some(over) = (0..shapes.len()).find(|i| !dense[*i] && densities[*i] > 1.0) else { break };
                dense[over] = true;
            }
        }
        let shares: Vec<f64> = sizes.iter().zip(densities).map(|(n, density)| n * density).collect();
        if !self.erdos_renyi {
            return shares.into_iter().map(|share| share.round_ties_even() as usize).collect();
        }
        // As many in all as the sparsity says: what rounding down leaves goes to the largest remainders.
        let mut kept: Vec<usize> = shares.iter().map(|share| *share as usize).collect();
        let all = ((1.0 - self.sparsity) * sizes.iter().sum::<f64>()).round_ties_even() as usize;
        let mut order: Vec<usize> = (0..kept.len()).filter(|i| (kept[*i] as f64) < sizes[*i]).collect();
        order.sort_by(|a, b| shares[*b].fract().total_cmp(&shares[*a].fract()));
        let missing = all.saturating_sub(kept.iter().sum());
        order.into_iter().take(missing).for_each(|i| kept[i] += 1);
        kept
    }

    /// Exchanges a share of a layer's weights.
    fn exchange(&self, mask: &Mask, values: &[f32], gradient: &[f32], share: f64, random: &mut Random) -> Mask {
        let kept = mask.kept();
        let moved = ((share * kept as f64) as usize).min(mask.len() - kept);
        let by = |key: &dyn Fn(usize) -> f32, mut candidates: Vec<usize>| {
            candidates.sort_by(|a, b| key(*b).total_cmp(&key(*a)).then(a.cmp(b)));
            candidates
        };
        let mut stays: Vec<usize> = by(&|i| values[i].abs(), mask.positions().collect());
        stays.truncate(kept - moved);
        let mut next = vec![false; mask.len()];
        stays.iter().for_each(|i| next[*i] = true);
        let absent: Vec<usize> = (0..mask.len()).filter(|i| !next[*i]).collect();
        let drawn: Vec<f32> =
            if self.random_growth { values.iter().map(|_| random.uniform()).collect() } else { vec![] };
        let grows = if self.random_growth { by(&|i| drawn[i], absent) } else { by(&|i| gradient[i].abs(), absent) };
        grows.iter().take(moved).for_each(|i| next[*i] = true);
        Mask::build(mask.shape(), |i| next[i])
    }
}

impl Callback for RigL {
    fn start(&mut self, network: &mut Network, steps: usize) -> Result<()> {
        self.validate()?;
        let chosen = self.rules.choose(network.maskable())?;
        self.names = chosen.into_iter().filter_map(|(name, chosen)| chosen.map(|_| name)).collect();
        self.last_step = self.until * steps as f64;
        let whole = |name: &&String| matches!(network.mask(name), Ok(None));
        let names: Vec<&String> = self.names.iter().filter(whole).collect();
        let shapes: Vec<Vec<usize>> =
            names.iter().map(|name| Ok(network.parameter(name)?.shape().to_vec())).collect::<Result<_>>()?;
        for (index, ((name, shape), kept)) in names.into_iter().zip(&shapes).zip(self.kept(&shapes)).enumerate() {
            let mut order: Vec<usize> = (0..shape.iter().product()).collect();
            Random::new(derive(self.seed, index)).shuffle(&mut order);
            let mut keeps = vec![false; order.len()];
            order[..kept].iter().for_each(|i| keeps[*i] = true);
            network.set_mask(name, Some(Mask::build(shape, |i| keeps[i])))?;
        }
        Ok(())
    }

    fn before_step(
        &mut self,
        at: &Progress,
        network: &mut Network,
        gradients: &mut [(String, ArrayD<f32>)],
    ) -> Result<()> {
        let step = at.step();
        if step == 0 || !step.is_multiple_of(self.every) || step as f64 >= self.last_step {
            return Ok(());
        }
        let share = self.alpha / 2.0 * (1.0 + (PI * step as f64 / self.last_step).cos());
        for (index, name) in self.names.iter().enumerate() {
            let Some((_, gradient)) = gradients.iter().find(|(own, _)| own == name) else { continue };
            let Some(mask) = network.mask(name)?.cloned() else { continue };
            let (values, gradient) = (network.parameter(name)?.to_owned(), gradient.as_standard_layout());
            let mut random = Random::new(derive(derive(self.seed, index), step));
            let (values, gradient) = (values.as_slice().unwrap_or_default(), gradient.as_slice().unwrap_or_default());
            let next = self.exchange(&mask, values, gradient, share, &mut random);
            network.set_mask(name, Some(next))?;
        }
        Ok(())
    }
}
