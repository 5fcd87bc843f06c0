//! Accuracy of distilled students over five seeds: figures to hold against those that other frameworks reach with the same
//! data, split and settings (Adam, batch 64, last epoch; the controls beside every gain).
//!
//! `cargo run --release --example distillation_baselines` takes the digits at their own 8x8 pixels; `-- --data DIR` takes
//! what `compress --data` takes, at 28x28; `--seeds N` trains so many of each.

#[path = "../compress/data.rs"]
mod data;
#[path = "../compress/files.rs"]
mod files;

use std::{ops::ControlFlow, path::Path};

use lexopt::{Arg, Parser, ValueExt};
use tersor::{
    Distillation, Distiller,
    nn::{Adam, CrossEntropy, Data, Network, Progress, Training},
};

use data::CLASSES;

type Problem = Box<dyn std::error::Error>;

/// The data, and how long and by how many labels is learned from them.
struct Setting {
    train: Data,
    test: Data,
    epochs: usize,
    /// Of the big teacher: longer, and its logits are too sure of themselves to teach a student on few inputs.
    teacher_epochs: usize,
    few: Data,
    pixels: usize,
    seeds: u64,
}

impl Setting {
    fn networks(&self, train: impl Fn(u64) -> Result<Network, Problem>) -> Result<Vec<Network>, Problem> {
        (0..self.seeds).map(train).collect()
    }
}

fn main() -> Result<(), Problem> {
    let (mut folder, mut seeds) = (None, 5);
    let mut arguments = Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            Arg::Long("data") => folder = Some(arguments.value()?),
            Arg::Long("seeds") => seeds = arguments.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    let (data, epochs, teacher_epochs, labels) = match folder {
        None => (data::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("data"), 8)?, 60, 20, 100),
        Some(folder) => (data::load(Path::new(&folder), 28)?, 40, 40, 300),
    };
    let few = data.train.select(&(0..labels.min(data.train.len())).collect::<Vec<_>>())?;
    let pixels = data.train.inputs().shape()[1];
    let setting = Setting { train: data.train, test: data.test, epochs, teacher_epochs, few, pixels, seeds };
    println!("{}, {pixels} pixels, {epochs} epochs", data.name);
    equal_terms(&setting)?;
    few_labels(&setting)
}

/// A small teacher, a smaller student, all labels, as many epochs: distillation does not pay.
fn equal_terms(setting: &Setting) -> Result<(), Problem> {
    let Setting { train, epochs, pixels, .. } = setting;
    let teachers = setting.networks(|seed| {
        let network = Network::builder(seed).linear(*pixels, 64).relu().linear(64, 32).relu().linear(32, CLASSES);
        alone(network.build()?, seed, train, *epochs, 1e-3, CrossEntropy::new())
    })?;
    print(&format!("teacher {pixels}-64-32-10"), &teachers, setting)?;
    let student = |seed| student(*pixels, seed);
    let alone = setting.networks(|seed| alone(student(seed)?, seed, train, *epochs, 1e-3, CrossEntropy::new()))?;
    print(&format!("student {pixels}-32-10 alone"), &alone, setting)?;
    let distilled = |how: &dyn Fn(&Network) -> Distillation<'_>| {
        setting.networks(|seed| distil(how(&teachers[seed as usize]), student(seed)?, seed, train, *epochs, 1e-3))
    };
    print("logits alone", &distilled(&|teacher| Distillation::from(teacher).term(1.0, Distiller::logits()))?, setting)?;
    print("soft targets, T 4, a 0.9", &distilled(&soft)?, setting)
}

/// A big teacher that saw all labels, students that see few: distillation pays, most of all on inputs without labels.
fn few_labels(setting: &Setting) -> Result<(), Problem> {
    let Setting { train, teacher_epochs, few, pixels, .. } = setting;
    let (rate, plain) = (2e-3, CrossEntropy::new);
    let (on_few, on_all) = (200, 60);
    println!("  {} labels", few.len());
    let big = |seed, data: &Data, epochs| {
        let network =
            Network::builder(seed).linear(*pixels, 512).relu().dropout(0.5).linear(512, 256).relu().dropout(0.5);
        alone(network.linear(256, CLASSES).build()?, seed, data, epochs, rate, plain())
    };
    let teachers = setting.networks(|seed| big(seed, train, *teacher_epochs))?;
    print("big teacher, all labels", &teachers, setting)?;
    let student = |seed| student(*pixels, seed);
    let few_alone = setting.networks(|seed| alone(student(seed)?, seed, few, on_few, rate, plain()))?;
    print("student alone, few labels", &few_alone, setting)?;
    let smooth = || plain().label_smoothing(0.1);
    let few_smooth = setting.networks(|seed| alone(student(seed)?, seed, few, on_few, rate, smooth()))?;
    print("student alone, few labels, label smoothing 0.1", &few_smooth, setting)?;
    let by = |teachers: &[Network], how: &dyn Fn(&Network) -> Distillation<'_>, data: &Data, epochs| {
        setting.networks(|seed| distil(how(&teachers[seed as usize]), student(seed)?, seed, data, epochs, rate))
    };
    print("soft targets, T 4, a 0.9, few inputs", &by(&teachers, &soft, few, on_few)?, setting)?;
    print("soft targets, T 4, a 0.9, all inputs", &by(&teachers, &soft, train, on_all)?, setting)?;
    let unlabelled = Data::unlabelled(train.inputs().view())?;
    print("soft targets alone, all inputs, no label", &by(&teachers, &softly, &unlabelled, on_all)?, setting)?;
    let ignorant = setting.networks(|seed| big(seed, few, 60))?;
    print("big teacher, few labels", &ignorant, setting)?;
    print("soft targets alone of that one, all inputs", &by(&ignorant, &softly, &unlabelled, on_all)?, setting)?;
    let all = setting.networks(|seed| alone(student(seed)?, seed, train, on_all, rate, plain()))?;
    print("student alone, all labels", &all, setting)
}

fn soft(teacher: &Network) -> Distillation<'_> {
    Distillation::from(teacher).term(0.9, Distiller::soft_targets(4.0)).hard_labels(0.1)
}

fn softly(teacher: &Network) -> Distillation<'_> {
    Distillation::from(teacher).term(1.0, Distiller::soft_targets(4.0))
}

fn student(pixels: usize, seed: u64) -> Result<Network, Problem> {
    Ok(Network::builder(seed + 100).linear(pixels, 32).relu().linear(32, CLASSES).build()?)
}

fn alone(
    mut network: Network,
    seed: u64,
    data: &Data,
    epochs: usize,
    rate: f64,
    loss: CrossEntropy,
) -> Result<Network, Problem> {
    let training = Training::new(epochs).batch_size(64).seed(seed).loss(loss);
    training.train(&mut network, data, &mut Adam::new(rate), &mut go_on)?;
    Ok(network)
}

fn distil(
    distillation: Distillation<'_>,
    mut student: Network,
    seed: u64,
    data: &Data,
    epochs: usize,
    rate: f64,
) -> Result<Network, Problem> {
    let training = Training::new(epochs).batch_size(64).seed(seed);
    distillation.train_with(&training, &mut student, data, &mut Adam::new(rate), &mut (), &mut go_on)?;
    Ok(student)
}

/// Mean and sample standard deviation.
fn print(what: &str, networks: &[Network], setting: &Setting) -> Result<(), Problem> {
    let accuracies = networks.iter().map(|network| Ok(100.0 * network.accuracy(&setting.test)?));
    let accuracies = accuracies.collect::<Result<Vec<f64>, Problem>>()?;
    let count = accuracies.len() as f64;
    let mean = accuracies.iter().sum::<f64>() / count;
    let variance = accuracies.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    println!("  {what:48} {mean:6.2} ± {:.2}", variance.sqrt());
    Ok(())
}

fn go_on(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}
