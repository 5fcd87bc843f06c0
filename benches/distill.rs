//! What a distillation costs: an epoch of it against the teacher's forward passes and the student's own epoch, on one
//! thread. After criterion's figures all are run again in turns, so that their ratio comes from the same minutes. The first
//! line is the time that `training_and_torch.py`, beside this file, holds against PyTorch's.

#[path = "one_thread.rs"]
mod one_thread;

use std::{
    error::Error,
    hint::black_box,
    ops::ControlFlow,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion};
use ndarray::{Array2, Array4, ArrayD, Axis};
use tersor::{
    Distillation, Distiller,
    nn::{Adam, Conv2d, Data, Network, Progress, Training},
};

use one_thread::on_one_thread;

/// As many as there are digits to train on.
const SAMPLES: usize = 1437;
const BATCH: usize = 64;
/// How long the parts of a case are run in turns.
const TURNS: Duration = Duration::from_millis(3000);

/// A teacher, a student, and what one learns from the other.
struct Case {
    name: &'static str,
    teacher: Network,
    student: Network,
    data: Data,
    terms: for<'a> fn(Distillation<'a>) -> Distillation<'a>,
}

fn cases() -> tersor::Result<Vec<Case>> {
    let labels = || (0..SAMPLES).map(|i| i % 10);
    let pixel = |i: usize, j: usize| ((i * 7919 + j * 104_729) % 1009) as f32 / 1009.0;
    let flat = Data::classes(Array2::from_shape_fn((SAMPLES, 784), |(i, j)| pixel(i, j)), labels())?;
    let images =
        Data::classes(Array4::from_shape_fn((SAMPLES, 1, 8, 8), |(n, _, i, j)| pixel(n, 8 * i + j)), labels())?;
    let dense = |name, terms| -> tersor::Result<Case> {
        let teacher = Network::builder(1).linear(784, 64).relu().linear(64, 32).relu().linear(32, 10).build()?;
        let student = Network::builder(2).linear(784, 32).relu().linear(32, 10).build()?;
        Ok(Case { name, teacher, student, data: flat.clone(), terms })
    };
    let convolutional = |name, terms| -> tersor::Result<Case> {
        let build = |seed, width, hidden| {
            let network = Network::builder(seed).conv2d(Conv2d::new(1, width, 3)).relu();
            let network = network.conv2d(Conv2d::new(width, 2 * width, 3)).relu().flatten();
            network.linear(32 * width, hidden).relu().linear(hidden, 10).build()
        };
        Ok(Case { name, teacher: build(1, 10, 50)?, student: build(2, 5, 25)?, data: images.clone(), terms })
    };
    Ok(vec![
        dense("dense, soft targets and labels", |d| d.term(0.9, Distiller::soft_targets(4.0)).hard_labels(0.1))?,
        dense("dense, hints besides", |d| {
            d.term(0.9, Distiller::soft_targets(4.0)).hard_labels(0.1).term_at("1", "1", 1.0, Distiller::hint())
        })?,
        convolutional("convolutional, soft targets and labels", |d| {
            d.term(0.9, Distiller::soft_targets(4.0)).hard_labels(0.1)
        })?,
        convolutional("convolutional, attention besides", |d| {
            d.term(0.9, Distiller::soft_targets(4.0)).hard_labels(0.1).term_at("3", "3", 1e3, Distiller::attention())
        })?,
    ])
}

impl Case {
    /// The passes of the teacher, batch by batch.
    fn forward(&self) -> tersor::Result<Vec<ArrayD<f32>>> {
        self.data.inputs().axis_chunks_iter(Axis(0), BATCH).map(|batch| self.teacher.forward(&batch)).collect()
    }

    fn train(&self, network: &Network) -> tersor::Result<Network> {
        let mut network = network.clone();
        training().train(&mut network, &self.data, &mut Adam::new(1e-3), &mut go_on)?;
        Ok(network)
    }

    fn distil(&self) -> tersor::Result<Network> {
        let mut student = self.student.clone();
        let distillation = (self.terms)(Distillation::from(&self.teacher));
        distillation.train_with(&training(), &mut student, &self.data, &mut Adam::new(1e-3), &mut (), &mut go_on)?;
        Ok(student)
    }
}

fn training() -> Training {
    Training::new(1).batch_size(BATCH)
}

fn go_on(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// The least times of the parts, run in turns.
fn in_turns<const N: usize>(parts: [&dyn Fn() -> tersor::Result<()>; N]) -> tersor::Result<[Duration; N]> {
    let mut least = [Duration::MAX; N];
    let start = Instant::now();
    while start.elapsed() < TURNS {
        for (part, least) in parts.iter().zip(&mut least) {
            let time = Instant::now();
            part()?;
            *least = time.elapsed().min(*least);
        }
    }
    Ok(least)
}

fn run() -> tersor::Result<()> {
    let cases = cases()?;
    let [epoch] = in_turns([&|| cases[0].train(&cases[0].teacher).map(|network| drop(black_box(network)))])?;
    println!("an epoch of 784-64-32-10, {SAMPLES} samples, batches of {BATCH}: {:.3} ms", 1e3 * epoch.as_secs_f64());
    if std::env::args().any(|argument| argument == "epoch") {
        return Ok(());
    }
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500))
        .configure_from_args();
    for case in &cases {
        let mut group = criterion.benchmark_group(case.name);
        let id = BenchmarkId::from_parameter;
        group.bench_function(id("the teacher's passes"), |bencher| bencher.iter(|| case.forward()));
        group.bench_function(id("the student's epoch"), |bencher| bencher.iter(|| case.train(&case.student)));
        group.bench_function(id("distillation"), |bencher| bencher.iter(|| case.distil()));
    }
    criterion.final_summary();
    println!("in turns, least times, one thread:");
    for case in &cases {
        let [teacher, student, distilled] = in_turns([
            &|| case.forward().map(|outputs| drop(black_box(outputs))),
            &|| case.train(&case.student).map(|network| drop(black_box(network))),
            &|| case.distil().map(|network| drop(black_box(network))),
        ])?;
        let ratio = distilled.as_secs_f64() / (teacher + student).as_secs_f64();
        println!(
            "{:<40} teacher {teacher:>9.1?}  student {student:>9.1?}  distillation {distilled:>9.1?}  {ratio:.2} x both",
            case.name
        );
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    on_one_thread(run)
}
