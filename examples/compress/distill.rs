//! Teaches a smaller network what the trained ones know, with the controls beside it; then prunes, distils and quantizes
//! one network, step by step.

use std::{env, fs, ops::ControlFlow};

use ndarray::Axis;
use tersor::{
    Distillation, Distiller, Pruner, Quantizer, Recipe,
    compressed::Compressed,
    distill::Teacher,
    nn::{Adam, Callback, CrossEntropy, Data, Network, Training},
    prune::Schedule,
};

use crate::{
    Problem, SIDE,
    compare::{Measured, Running},
    data::{CLASSES, Dataset},
    options::Options,
    progress,
    table::Row,
};

/// Epochs on few inputs.
const FEW_EPOCHS: usize = 200;
/// Epochs of fine-tuning.
const TUNING: usize = 10;

/// Who teaches, and from what.
struct School<'a> {
    teachers: &'a [Network],
    all: &'a Data,
    few: Data,
    unlabelled: Data,
    epochs: usize,
}

/// Trains a student of each network, a seed, in every way.
pub(crate) fn compare(teachers: &[Network], data: &Dataset, options: &Options) -> Result<Vec<Row>, Problem> {
    let labels = if data.name == "digits" { 100 } else { 300 };
    let few = data.train.select(&Vec::from_iter(0..labels.min(data.train.len())))?;
    let unlabelled = Data::unlabelled(data.train.inputs().view())?;
    let school = School { teachers, all: &data.train, few, unlabelled, epochs: options.epochs(data) };
    let lessons = lessons(labels);
    let bar = progress::bar("distilling", lessons.len() * teachers.len());
    let mut rows = Vec::new();
    for (technique, lesson) in lessons {
        let mut measured = Measured::new(format!("{} 784-32-10", data.name), technique, 32);
        for (seed, teacher) in teachers.iter().enumerate() {
            let mut student =
                Network::builder(seed as u64 + 100).linear(SIDE * SIDE, 32).relu().linear(32, CLASSES).build()?;
            lesson(&school, seed, &mut student)?;
            measured.add(&Compressed::new(&student)?, Running::Floats(student), teacher, data)?;
            bar.inc(1);
        }
        rows.extend(measured.row());
    }
    bar.finish_and_clear();
    Ok(rows)
}

type Lesson = Box<dyn Fn(&School<'_>, usize, &mut Network) -> Result<(), Problem>>;

/// The ways to train a student.
fn lessons(labels: usize) -> Vec<(String, Lesson)> {
    let mut lessons: Vec<(String, Lesson)> = Vec::new();
    let mut add = |name: &str, lesson: Lesson| lessons.push((name.to_owned(), lesson));
    add("student alone", alone(0.0, |school| (school.all, school.epochs)));
    add("label smoothing", alone(0.1, |school| (school.all, school.epochs)));
    add("logits", by(|teacher| Distillation::from(teacher).term(1.0, Distiller::logits())));
    add("soft targets", by(soft));
    add("  and attention", by(|teacher| soft(teacher).term_at("1", "3", 100.0, Distiller::attention())));
    add("  and hints", by(|teacher| soft(teacher).term_at("1", "3", 1.0, Distiller::hint())));
    add(
        "  of all teachers",
        Box::new(|school, seed, student| {
            let others = school.teachers.iter().enumerate().filter(|(index, _)| *index != seed);
            let all = others.fold(soft(&school.teachers[seed]), |all, (_, teacher)| all.teacher(teacher));
            distil(&all, seed, student, school.all, school.epochs)
        }),
    );
    add(&format!("{labels} labels, alone"), alone(0.0, |school| (&school.few, FEW_EPOCHS)));
    add(&format!("{labels} labels, smoothed"), alone(0.1, |school| (&school.few, FEW_EPOCHS)));
    add(
        &format!("{labels} labels, soft targets"),
        Box::new(|school, seed, student| distil(&soft(&school.teachers[seed]), seed, student, &school.few, FEW_EPOCHS)),
    );
    add(
        "no labels, soft targets",
        Box::new(|school, seed, student| {
            let softly = Distillation::from(&school.teachers[seed]).term(1.0, Distiller::soft_targets(4.0));
            distil(&softly, seed, student, &school.unlabelled, school.epochs)
        }),
    );
    lessons
}

fn soft(teacher: &dyn Teacher) -> Distillation<'_> {
    Distillation::from(teacher).term(0.9, Distiller::soft_targets(4.0)).hard_labels(0.1)
}

/// Without a teacher.
fn alone(smoothing: f64, data: for<'a> fn(&'a School<'_>) -> (&'a Data, usize)) -> Lesson {
    Box::new(move |school, seed, student| {
        let (data, epochs) = data(school);
        let loss = CrossEntropy::new().label_smoothing(smoothing);
        let go_on = &mut |_: &_| ControlFlow::Continue(());
        training(seed, epochs).loss(loss).train(student, data, &mut Adam::new(1e-3), go_on)?;
        Ok(())
    })
}

/// By the teacher of the same seed, on all data.
fn by(distillation: for<'a> fn(&'a dyn Teacher) -> Distillation<'a>) -> Lesson {
    Box::new(move |school, seed, student| {
        distil(&distillation(&school.teachers[seed]), seed, student, school.all, school.epochs)
    })
}

fn distil(
    distillation: &Distillation<'_>,
    seed: usize,
    student: &mut Network,
    data: &Data,
    epochs: usize,
) -> Result<(), Problem> {
    distil_with(distillation, training(seed, epochs), student, data, &mut ())
}

fn distil_with(
    distillation: &Distillation<'_>,
    training: Training,
    student: &mut Network,
    data: &Data,
    callback: &mut dyn Callback,
) -> Result<(), Problem> {
    let go_on = &mut |_: &_| ControlFlow::Continue(());
    distillation.train_with(&training, student, data, &mut Adam::new(1e-3), callback, go_on)?;
    Ok(())
}

fn training(seed: usize, epochs: usize) -> Training {
    Training::new(epochs).batch_size(64).seed(seed as u64)
}

/// One network after another technique each: pruned, distilled from what it was while it is pruned further, quantized,
/// saved, loaded, run on integers.
pub(crate) fn all_three(networks: &[Network], data: &Dataset) -> Result<Vec<Row>, Problem> {
    let steps =
        ["dense", "80 % pruned at once", "pruned while distilled", "and quantized to 4 bits", "saved and loaded"];
    let name = format!("{} 784-64-32-10", data.name);
    let mut rows: Vec<Measured> =
        steps.iter().zip([32, 32, 32, 4, 4]).map(|(step, bits)| Measured::new(name.clone(), *step, bits)).collect();
    let pruning = || Recipe::new().prune("*", Pruner::magnitude(0.8)).across_layers();
    for (seed, dense) in networks.iter().enumerate() {
        let mut add = |step: usize, compressed: &Compressed| -> Result<(), Problem> {
            rows[step].add(compressed, Running::Packed(compressed.pack()?), dense, data)
        };
        add(0, &Compressed::new(dense)?)?;
        let mut once = dense.clone();
        pruning().apply(&mut once)?;
        add(1, &Compressed::new(&once)?)?;

        let mut network = dense.clone();
        let mut gradual = pruning().gradually(Schedule::cubic().over(0.0, 0.5).events(TUNING));
        distil_with(&soft(dense), training(seed + 1000, TUNING), &mut network, &data.train, &mut gradual)?;
        add(2, &Compressed::new(&network)?)?;
        let int4 = Quantizer::uniform(4).symmetric().per_channel(Axis(0));
        let quantized = Recipe::new().quantize("*", int4).apply(&network)?;
        add(3, &quantized)?;
        let file = env::temp_dir().join(format!("tersor-three-{}.safetensors", std::process::id()));
        quantized.save(&file)?;
        let loaded = Compressed::load(&file);
        fs::remove_file(&file)?;
        add(4, &loaded?)?;
    }
    Ok(rows.into_iter().filter_map(Measured::row).collect())
}
