//! Accuracy of a pruned convolutional network over five seeds: figures to hold against those that other frameworks reach
//! with the same data, split and settings (Adam 1e-3, batch 64, 30 epochs; fine-tuned for 10 at 5e-4; weights only).
//!
//! `cargo run --release --example pruning_baselines`; with `lottery` as argument, the iterated lottery ticket besides.

#[path = "../compress/data.rs"]
mod data;
#[path = "../compress/files.rs"]
mod files;

use std::{env, ops::ControlFlow, path::Path};

use tersor::{
    Channels, Pruner, Recipe,
    nn::{Adam, Conv2d, Data, Network, Progress, Targets, Training},
    prune::Schedule,
    recipe::Pruning,
};

use data::CLASSES;

type Problem = Box<dyn std::error::Error>;

const SEEDS: u64 = 5;

fn main() -> Result<(), Problem> {
    let digits = data::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data"), 8)?;
    let (train, test) = (as_images(&digits.train)?, as_images(&digits.test)?);
    let dense = (0..SEEDS).map(|seed| trained(seed, &train)).collect::<Result<Vec<_>, Problem>>()?;
    let report = |what: &str, change: &dyn Fn(u64, &mut Network) -> Result<(), Problem>| -> Result<(), Problem> {
        let mut accuracies = Vec::new();
        for (seed, network) in (0..).zip(&dense) {
            let mut network = network.clone();
            change(seed, &mut network)?;
            accuracies.push(100.0 * network.accuracy(&test)?);
        }
        print(what, &accuracies);
        Ok(())
    };

    println!("{}, Conv(1,10,3) Conv(10,20,3) Linear(320,50) Linear(50,10)", digits.name);
    report("dense", &|_, _| Ok(()))?;
    for sparsity in [0.5, 0.7, 0.8, 0.9, 0.95] {
        let percent = 100.0 * sparsity;
        let global = || Recipe::new().prune("*", Pruner::magnitude(sparsity)).across_layers();
        report(&format!("{percent} %, global magnitude, one-shot"), &|_, network| pruned(&global(), network))?;
        report(&format!("{percent} %, layer by layer, one-shot"), &|_, network| {
            pruned(&Recipe::new().prune("*", Pruner::magnitude(sparsity)), network)
        })?;
        report(&format!("{percent} %, global, 10 epochs after"), &|seed, network| {
            pruned(&global(), network)?;
            tuned(seed, network, &train)
        })?;
        report(&format!("{percent} %, global, gradual in 10 epochs"), &|seed, network| {
            let mut gradual = global().gradually(Schedule::cubic().over(0.0, 0.5).events(10));
            fine_tuning(seed).train_with(network, &train, &mut Adam::new(5e-4), &mut gradual, &mut go_on)?;
            Ok(())
        })?;
        report(&format!("{percent} %, random, 10 epochs after"), &|seed, network| {
            pruned(&Recipe::new().prune("*", Pruner::random(sparsity, seed)).across_layers(), network)?;
            tuned(seed, network, &train)
        })?;
    }
    let pairs = || {
        let pruner = || Pruner::magnitude(0.5).n_of_m(2, 4);
        Recipe::new().prune("2", pruner()).prune("5", pruner())
    };
    report("2:4 on conv2 and the first linear, one-shot", &|_, network| pruned(&pairs(), network))?;
    report("2:4 on conv2 and the first linear, 10 epochs", &|seed, network| {
        pruned(&pairs(), network)?;
        tuned(seed, network, &train)
    })?;
    for share in [0.3, 0.5, 0.7] {
        let percent = 100.0 * share;
        for (norm, channels) in [("L2", Channels::l2(share)), ("L1", Channels::l1(share))] {
            let channels = channels.only("0").only("2");
            report(&format!("{percent} % of channels, {norm}, one-shot"), &|_, network| {
                *network = channels.remove(network)?;
                Ok(())
            })?;
            report(&format!("{percent} % of channels, {norm}, 10 epochs after"), &|seed, network| {
                *network = channels.remove(network)?;
                tuned(seed, network, &train)
            })?;
        }
    }
    if env::args().nth(1).as_deref() == Some("lottery") {
        lottery(&train, &test)?;
    }
    Ok(())
}

/// Iterated global magnitude, a fifth of what is left a round, rewound to the start; with the two controls of the paper.
fn lottery(train: &Data, test: &Data) -> Result<(), Problem> {
    const ROUNDS: usize = 13;
    println!("lottery ticket: kept, ticket, the same masks on new weights, random masks");
    let mut found = vec![[const { Vec::new() }; 3]; ROUNDS + 1];
    for seed in 0..SEEDS {
        let (start, training) = (built(seed)?, Training::new(30).batch_size(64).seed(seed));
        let search = Recipe::new().prune("*", Pruner::magnitude(0.2).of_remaining()).across_layers();
        let adam = || Adam::new(1e-3);
        let tickets =
            search.lottery_ticket(ROUNDS).run(&start, &training, train, &mut || Box::new(adam()), &mut go_on)?;
        for (ticket, found) in tickets.iter().zip(&mut found).filter(|(ticket, _)| ticket.kept() < 4000) {
            found[0].push(100.0 * ticket.trained.accuracy(test)?);
            let controls = [ticket.on(&built(seed + 100)?)?, ticket.shuffled(&start, seed)?];
            for (control, found) in controls.into_iter().zip(&mut found[1..]) {
                let mut control = control;
                training.train(&mut control, train, &mut adam(), &mut go_on)?;
                found.push(100.0 * control.accuracy(test)?);
            }
        }
    }
    for (round, found) in found.iter().enumerate().filter(|(_, found)| !found[0].is_empty()) {
        for (what, accuracies) in ["ticket", "the same masks, new weights", "random masks"].into_iter().zip(found) {
            print(&format!("{:.1} % kept, {what}", 100.0 * 0.8f64.powi(round as i32)), accuracies);
        }
    }
    Ok(())
}

/// Mean and sample standard deviation.
fn print(what: &str, accuracies: &[f64]) {
    let mean = accuracies.iter().sum::<f64>() / SEEDS as f64;
    let variance = accuracies.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (SEEDS - 1) as f64;
    println!("  {what:44} {mean:6.2} ± {:.2}", variance.sqrt());
}

fn built(seed: u64) -> Result<Network, Problem> {
    let network = Network::builder(seed).conv2d(Conv2d::new(1, 10, 3)).relu().conv2d(Conv2d::new(10, 20, 3)).relu();
    Ok(network.flatten().linear(320, 50).relu().linear(50, CLASSES).build()?)
}

fn trained(seed: u64, train: &Data) -> Result<Network, Problem> {
    let mut network = built(seed)?;
    Training::new(30).batch_size(64).seed(seed).train(&mut network, train, &mut Adam::new(1e-3), &mut go_on)?;
    Ok(network)
}

fn pruned(pruning: &Pruning, network: &mut Network) -> Result<(), Problem> {
    pruning.apply(network)?;
    Ok(())
}

fn fine_tuning(seed: u64) -> Training {
    Training::new(10).batch_size(64).seed(seed + 1000)
}

/// Ten epochs more; masked weights stay zero.
fn tuned(seed: u64, network: &mut Network, train: &Data) -> Result<(), Problem> {
    fine_tuning(seed).train(network, train, &mut Adam::new(5e-4), &mut go_on)?;
    Ok(())
}

fn go_on(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// (batch, 64) to (batch, 1, 8, 8).
fn as_images(data: &Data) -> Result<Data, Problem> {
    let Targets::Classes(labels) = data.targets() else { return Err("labels are needed".into()) };
    let images = data.inputs().to_shape((data.len(), 1, 8, 8))?.to_owned();
    Ok(Data::classes(images, labels.iter().copied())?)
}
