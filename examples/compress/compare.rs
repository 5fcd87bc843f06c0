//! Compresses trained networks in turn, runs the results, and measures them.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use ndarray::{ArrayD, Axis, Slice};
use tersor::{Recipe, compressed::PackedNetwork, nn::Network};

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
    let inputs = data.test.inputs();
    let batch = inputs.slice_axis(Axis(0), Slice::from(..BATCH.min(data.test.len())));
    let mut rows = Vec::new();
    for (technique, bits, recipe) in techniques {
        let (mut accuracies, mut bytes, mut ratios, mut first) = (Vec::new(), Vec::new(), Vec::new(), None);
        for network in networks {
            let compressed = recipe.apply_with(network, data.train.inputs())?;
            let packed = compressed.pack()?;
            accuracies.push(100.0 * packed.accuracy(&data.test)?);
            bytes.push(compressed.nbytes() as f64);
            ratios.push(compressed.tensors().nbytes_f32() as f64 / compressed.nbytes() as f64);
            first.get_or_insert((network, packed));
            bar.inc(1);
        }
        let Some((network, packed)) = first else { continue };
        let (accuracy, accuracy_sd) = mean_and_sd(&accuracies);
        let (ms, ms_f32) = race(|| packed.forward(&batch), || network.forward(&batch))?;
        rows.push(Row {
            network: format!("{} 784-64-32-10", data.name),
            technique,
            bits: *bits,
            sparsity: 0.0,
            accuracy,
            accuracy_sd,
            bytes: mean_and_sd(&bytes).0.round() as usize,
            ratio: mean_and_sd(&ratios).0,
            kernel: kernels(&packed),
            ms,
            ms_f32,
        });
    }
    bar.finish_and_clear();
    Ok(rows)
}

/// What the columns mean.
pub(crate) fn note(data: &Dataset) -> String {
    let batch = BATCH.min(data.test.len());
    format!(
        "accuracy: mean ± sample standard deviation over the networks\n\
         bytes: at rest; scales, zero points, codebooks and biases counted\n\
         kernel: int8 rounds the inputs to 8 bits and adds up integers; decoded-f32 keeps them, and decodes the weights\n\
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
