//! Prunes the convolutional network of the field's tutorials in several ways, and measures what is left.

use std::ops::ControlFlow;

use tersor::{
    Channels, Pruner, Recipe,
    compressed::Compressed,
    nn::{Adam, Callback, Conv2d, CrossEntropy, Data, Network, Targets, Training},
    prune::Schedule,
    recipe::{Pruning, Sensitivity},
};

use crate::{
    Problem, SIDE,
    compare::{Measured, Running},
    data::{self, CLASSES, Dataset},
    options::Options,
    progress,
    table::Row,
};

/// The sparsities that are compared.
const SPARSITIES: [f64; 4] = [0.5, 0.8, 0.9, 0.95];
/// Epochs of fine-tuning.
const EPOCHS: usize = 10;

/// Trains a network a seed, prunes it in every way, and returns a row for each way and sparsity, and what each layer of the
/// first network is worth.
pub(crate) fn compare(options: &Options) -> Result<(Vec<Row>, Option<Sensitivity>), Problem> {
    // Small images as they are, larger ones as the dense network sees them.
    let data = data::load(&options.data, 8).or_else(|_| data::load(&options.data, SIDE))?;
    let data = images(data)?;
    let epochs = options.epochs.unwrap_or(30);
    let bar = progress::bar("pruning", options.seeds.saturating_mul(2 + 2 * SPARSITIES.len()));
    let (mut rows, mut scan): (Vec<Measured>, _) = (Vec::new(), None);
    for seed in 0..options.seeds as u64 {
        let mut dense = network(seed, &data)?;
        train(&mut dense, seed, epochs, 1e-3, &mut (), &data)?;
        bar.inc(1);
        if scan.is_none() {
            scan = Some(sensitivity(&dense, &data)?);
        }
        let mut place = 0;
        // Rows come in the same order for every seed.
        let mut add = |technique: &'static str, running: Running, network: &Network| -> Result<(), Problem> {
            if rows.len() == place {
                rows.push(Measured::new(format!("{} CNN", data.name), technique, 32));
            }
            rows[place].add(&Compressed::new(network)?, running, &dense, &data)?;
            place += 1;
            Ok(())
        };
        add("dense", Running::Floats(dense.clone()), &dense)?;
        for sparsity in SPARSITIES {
            let pruning = || Recipe::new().prune("*", Pruner::magnitude(sparsity)).across_layers();
            let mut once = dense.clone();
            pruning().apply(&mut once)?;
            add("one-shot", packed(&once)?, &once)?;

            let gradual = gradually(pruning(), &dense, seed, &data)?;
            add("gradual, masked", Running::Floats(gradual.clone()), &gradual)?;
            add("gradual, sparse", packed(&gradual)?, &gradual)?;
            bar.inc(1);
        }
        let pairs = || Pruner::magnitude(0.5).n_of_m(2, 4);
        let pairs = gradually(Recipe::new().prune("*", pairs()).keep(CONVOLUTIONS[0]), &dense, seed, &data)?;
        add("2:4 but for the first", packed(&pairs)?, &pairs)?;
        bar.inc(1);
        for sparsity in SPARSITIES {
            // Channels of the convolutions: silenced, fine-tuned, then removed for real.
            let chosen = Channels::l2(sparsity).only(CONVOLUTIONS[0]).only(CONVOLUTIONS[1]).select(&dense)?;
            let mut masked = chosen.mask(&dense)?;
            train(&mut masked, seed + 1000, EPOCHS, 5e-4, &mut (), &data)?;
            let removed = chosen.remove(&masked)?;
            add("channels, masked", Running::Floats(masked.clone()), &masked)?;
            add("channels, removed", Running::Floats(removed.clone()), &removed)?;
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok((rows.into_iter().filter_map(Measured::row).collect(), scan))
}

/// The names of the convolutions.
const CONVOLUTIONS: [&str; 2] = ["conv1", "conv2"];

/// Conv(1,10,3) ReLU Conv(10,20,3) ReLU Flatten Linear(320,50) ReLU Linear(50,10) on 8x8 pixels; larger images are pooled
/// after each convolution.
fn network(seed: u64, data: &Dataset) -> Result<Network, Problem> {
    let large = data.train.inputs().shape()[2] > 8;
    let mut network = Network::builder(seed);
    for ((inputs, outputs), name) in [(1, 10), (10, 20)].into_iter().zip(CONVOLUTIONS) {
        network = network.conv2d(Conv2d::new(inputs, outputs, 3)).named(name).relu();
        network = if large { network.max_pool2d(2) } else { network };
    }
    let shape = network.clone().build()?.output_shape(data.train.inputs().shape())?;
    let features = shape[1..].iter().product();
    Ok(network.flatten().linear(features, 50).relu().linear(50, CLASSES).build()?)
}

/// Fine-tunes while pruning step by step.
fn gradually(pruning: Pruning, dense: &Network, seed: u64, data: &Dataset) -> Result<Network, Problem> {
    let mut network = dense.clone();
    let mut gradual = pruning.gradually(Schedule::cubic().over(0.0, 0.5).events(10));
    train(&mut network, seed + 1000, EPOCHS, 5e-4, &mut gradual, data)?;
    Ok(network)
}

/// The accuracy with the smallest weights of each layer alone removed.
fn sensitivity(dense: &Network, data: &Dataset) -> Result<Sensitivity, Problem> {
    let pruner = |sparsity: f64| Box::new(Pruner::magnitude(sparsity)) as Box<dyn Pruner>;
    let sparsities = [0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0];
    let go_on = &mut |_: usize, _: usize| ControlFlow::Continue(());
    Ok(Sensitivity::scan(dense, &data.test, &CrossEntropy::new(), &sparsities, &pruner, go_on)?)
}

fn train(
    network: &mut Network,
    seed: u64,
    epochs: usize,
    rate: f64,
    callback: &mut dyn Callback,
    data: &Dataset,
) -> Result<(), Problem> {
    let training = Training::new(epochs).batch_size(64).seed(seed);
    let go_on = &mut |_: &_| ControlFlow::Continue(());
    training.train_with(network, &data.train, &mut Adam::new(rate), callback, go_on)?;
    Ok(())
}

fn packed(network: &Network) -> Result<Running, Problem> {
    Ok(Running::Packed(Compressed::new(network)?.pack()?))
}

/// (samples, pixels) to (samples, 1, side, side).
fn images(data: Dataset) -> Result<Dataset, Problem> {
    let square = |data: &Data| -> Result<Data, Problem> {
        let Targets::Classes(labels) = data.targets() else { return Err("labels are needed".into()) };
        let side = (data.inputs().shape()[1] as f64).sqrt() as usize;
        let images = data.inputs().to_shape((data.len(), 1, side, side))?.to_owned();
        Ok(Data::classes(images, labels.iter().copied())?)
    };
    Ok(Dataset { train: square(&data.train)?, test: square(&data.test)?, name: data.name })
}
