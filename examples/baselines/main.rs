//! Accuracy of plain networks and of their round-to-nearest weights over five seeds: figures to hold against those that
//! other frameworks reach with the same data, split and settings (Adam 1e-3, batch 64, no augmentation, last epoch).
//!
//! `cargo run --release --example baselines` takes the digits at their own 8x8 pixels; a folder as argument takes what
//! `compress --data` takes, at 28x28.

#[path = "../compress/data.rs"]
mod data;
#[path = "../compress/files.rs"]
mod files;

use std::{env, ops::ControlFlow, path::Path};

use ndarray::Axis;
use tersor::{
    Quantizer, Recipe,
    nn::{Adam, Builder, Conv2d, Data, Network, Targets, Training},
};

use data::CLASSES;

type Problem = Box<dyn std::error::Error>;

const SEEDS: u64 = 5;

fn main() -> Result<(), Problem> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    match env::args_os().nth(1) {
        None => {
            let digits = data::load(&shipped, 8)?;
            dense("digits 64-64-32-10, 60 epochs", &digits.train, &digits.test, 60)?;
            convolutional("digits CNN, 30 epochs", &as_images(&digits.train)?, &as_images(&digits.test)?, 30)
        }
        Some(folder) => {
            let data = data::load(Path::new(&folder), 28)?;
            dense(&format!("{} 784-64-32-10, 40 epochs", data.name), &data.train, &data.test, 40)
        }
    }
}

fn dense(title: &str, train: &Data, test: &Data, epochs: usize) -> Result<(), Problem> {
    let inputs = train.inputs().len() / train.len();
    let build = |network: Builder| network.linear(inputs, 64).relu().linear(64, 32).relu().linear(32, CLASSES);
    let networks = trained(build, train, epochs)?;
    let row = |bits| Quantizer::uniform(bits).per_channel(Axis(0));
    let group = |bits| Quantizer::uniform(bits).per_group(32);
    let tensor = Quantizer::uniform(8).symmetric();
    println!("{title}");
    report("f32", &networks, &Recipe::new(), test)?;
    report("int8 dynamic, per tensor", &networks, &Recipe::new().quantize("*", tensor), test)?;
    report("int8 dynamic, per channel", &networks, &Recipe::new().quantize("*", row(8).symmetric()), test)?;
    for bits in [4, 3, 2] {
        report(&format!("w{bits} groups of 32"), &networks, &Recipe::new().quantize("*", group(bits)), test)?;
        report(&format!("w{bits} rows"), &networks, &Recipe::new().quantize("*", row(bits)), test)?;
    }
    Ok(())
}

fn convolutional(title: &str, train: &Data, test: &Data, epochs: usize) -> Result<(), Problem> {
    let build = |network: Builder| {
        let network = network.conv2d(Conv2d::new(1, 10, 3)).relu().conv2d(Conv2d::new(10, 20, 3)).relu();
        network.flatten().linear(320, 50).relu().linear(50, CLASSES)
    };
    let networks = trained(build, train, epochs)?;
    println!("{title}");
    report("f32", &networks, &Recipe::new(), test)?;
    let int8 = Quantizer::uniform(8).symmetric().per_channel(Axis(0));
    report("int8 dynamic, per channel", &networks, &Recipe::new().quantize("*", int8), test)
}

fn trained(build: impl Fn(Builder) -> Builder, train: &Data, epochs: usize) -> Result<Vec<Network>, Problem> {
    let networks = (0..SEEDS).map(|seed| {
        let mut network = build(Network::builder(seed)).build()?;
        let training = Training::new(epochs).batch_size(64).seed(seed);
        training.train(&mut network, train, &mut Adam::new(1e-3), &mut |_| ControlFlow::Continue(()))?;
        Ok(network)
    });
    networks.collect()
}

/// Weights rounded, activations in floats unless the technique is int8: what "simulated" quantization measures elsewhere.
fn report(technique: &str, networks: &[Network], recipe: &Recipe, test: &Data) -> Result<(), Problem> {
    let accuracies = networks.iter().map(|network| {
        let compressed = recipe.apply(network)?;
        let accuracy = match technique.starts_with("int8") {
            true => compressed.pack()?.accuracy(test)?,
            false => compressed.to_network()?.accuracy(test)?,
        };
        Ok(100.0 * accuracy)
    });
    let accuracies = accuracies.collect::<Result<Vec<_>, Problem>>()?;
    let mean = accuracies.iter().sum::<f64>() / SEEDS as f64;
    let variance = accuracies.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (SEEDS - 1) as f64;
    println!("  {technique:26} {mean:6.2} ± {:.2}", variance.sqrt());
    Ok(())
}

/// (batch, 64) to (batch, 1, 8, 8).
fn as_images(data: &Data) -> Result<Data, Problem> {
    let Targets::Classes(labels) = data.targets() else { return Err("labels are needed".into()) };
    let images = data.inputs().to_shape((data.len(), 1, 8, 8))?.to_owned();
    Ok(Data::classes(images, labels.iter().copied())?)
}
