//! Compresses trained networks in turn, runs the results, and measures them.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use ndarray::{ArrayD, ArrayViewD, Axis, Slice};
use tersor::{
    Recipe,
    compressed::{Compressed, PackedNetwork},
    nn::{Data, Network},
};

use crate::{Problem, data::Dataset, progress, table::Row};

/// Samples that are timed at once.
const BATCH: usize = 256;
/// Times that each batch is run.
const ROUNDS: usize = 15;

/// A row for each technique. Accuracy and bytes are means over the networks; times are those of the first.
pub(crate) fn compare(
    techniques: &[(&'static str, u8, Recipe)],
    networks: &[Network],
    data: &Dataset,
) -> Result<Vec<Row>, Problem> {
    let bar = progress::bar("compressing", techniques.len() * networks.len());
    let mut rows = Vec::new();
    for (technique, bits, recipe) in techniques {
        let mut measured = Measured::new(format!("{} 784-64-32-10", data.name), *technique, *bits);
        for network in networks {
            let compressed = recipe.apply_with(network, data.train.inputs())?;
            measured.add(&compressed, Running::Packed(compressed.pack()?), network, data)?;
            bar.inc(1);
        }
        rows.extend(measured.row());
    }
    bar.finish_and_clear();
    Ok(rows)
}

/// A network made smaller, as it runs.
pub(crate) enum Running {
    /// On the kernels that suit its weights.
    Packed(PackedNetwork),
    /// In floats, zeros multiplied as any number.
    Floats(Network),
}

impl Running {
    fn forward(&self, x: &ArrayViewD<'_, f32>) -> Output {
        match self {
            Running::Packed(packed) => packed.forward(x),
            Running::Floats(network) => network.forward(x),
        }
    }

    fn accuracy(&self, data: &Data) -> tersor::Result<f64> {
        match self {
            Running::Packed(packed) => packed.accuracy(data),
            Running::Floats(network) => network.accuracy(data),
        }
    }

    fn kernels(&self) -> String {
        match self {
            Running::Packed(packed) => kernels(packed),
            Running::Floats(_) => "f32".to_owned(),
        }
    }
}

/// One technique over several networks, on the way to a row.
pub(crate) struct Measured {
    network: String,
    technique: String,
    bits: u8,
    accuracies: Vec<f64>,
    bytes: Vec<f64>,
    ratios: Vec<f64>,
    sparsities: Vec<f64>,
    /// Kernels and times of the first network.
    first: Option<(String, f64, f64)>,
}

impl Measured {
    pub(crate) fn new(network: String, technique: impl Into<String>, bits: u8) -> Measured {
        let technique = technique.into();
        let (accuracies, bytes, ratios, sparsities) = Default::default();
        Measured { network, technique, bits, accuracies, bytes, ratios, sparsities, first: None }
    }

    /// Takes in what became of one network, against what it was.
    pub(crate) fn add(
        &mut self,
        compressed: &Compressed,
        running: Running,
        original: &Network,
        data: &Dataset,
    ) -> Result<(), Problem> {
        self.accuracies.push(100.0 * running.accuracy(&data.test)?);
        self.bytes.push(compressed.nbytes() as f64);
        self.ratios.push(4.0 * original.parameter_count() as f64 / compressed.nbytes() as f64);
        self.sparsities.push(sparsity(compressed, original)?);
        if self.first.is_none() {
            let batch = data.test.inputs().slice_axis(Axis(0), Slice::from(..BATCH.min(data.test.len())));
            let (ms, ms_f32) = race(|| running.forward(&batch), || original.forward(&batch))?;
            self.first = Some((running.kernels(), ms, ms_f32));
        }
        Ok(())
    }

    /// Means and spread; none if there was no network.
    pub(crate) fn row(self) -> Option<Row> {
        let (kernel, ms, ms_f32) = self.first?;
        let (accuracy, accuracy_sd) = mean_and_sd(&self.accuracies);
        Some(Row {
            network: self.network,
            technique: self.technique,
            bits: self.bits,
            sparsity: mean_and_sd(&self.sparsities).0,
            accuracy,
            accuracy_sd,
            bytes: mean_and_sd(&self.bytes).0.round() as usize,
            ratio: mean_and_sd(&self.ratios).0,
            kernel,
            ms,
            ms_f32,
        })
    }
}

/// The share of the original's weights that are zero or gone; 0 of a network with other layers.
fn sparsity(compressed: &Compressed, original: &Network) -> Result<f64, Problem> {
    let (mut nonzero, mut all) = (0, 0);
    for name in original.maskable() {
        let Ok(weights) = compressed.tensors().floats(&name) else { return Ok(0.0) };
        nonzero += weights.iter().filter(|w| **w != 0.0).count();
        all += original.parameter(&name)?.len();
    }
    Ok(1.0 - nonzero as f64 / all as f64)
}

/// What the columns mean.
pub(crate) fn note(data: &Dataset) -> String {
    let batch = BATCH.min(data.test.len());
    format!(
        "accuracy: mean ± sample standard deviation over the networks\n\
         bytes: at rest; scales, zero points, codebooks and biases counted\n\
         kernel: int8 rounds the inputs to 8 bits and adds up integers; decoded-f32 keeps them, and decodes the weights;\n\
         csr, nm and block leave zeros out; f32 and dense-f32 multiply them as any number\n\
         ms: a batch of {batch}, the fastest of {ROUNDS} runs, in turns with f32"
    )
}

/// The kernels that the layers run on, each named once.
fn kernels(packed: &PackedNetwork) -> String {
    let kernels: BTreeSet<_> = packed.kernels().into_iter().map(|(_, kernel)| kernel).collect();
    if kernels.is_empty() { "f32".to_owned() } else { kernels.into_iter().collect::<Vec<_>>().join(" + ") }
}

/// Mean and sample standard deviation (0 for a single number).
fn mean_and_sd(numbers: &[f64]) -> (f64, f64) {
    let n = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / n;
    let squares = numbers.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    (mean, (squares / (n - 1.0).max(1.0)).sqrt())
}

/// Milliseconds of the fastest run of each, run in turns so that both meet the same machine.
fn race(one: impl Fn() -> Output, other: impl Fn() -> Output) -> Result<(f64, f64), Problem> {
    let time = |run: &dyn Fn() -> Output| -> Result<Duration, Problem> {
        let start = Instant::now();
        std::hint::black_box(run()?);
        Ok(start.elapsed())
    };
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        best = (best.0.min(time(&one)?), best.1.min(time(&other)?));
    }
    Ok((best.0.as_secs_f64() * 1e3, best.1.as_secs_f64() * 1e3))
}

type Output = tersor::Result<ArrayD<f32>>;
