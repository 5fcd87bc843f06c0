//! Losses on outputs.

mod bad_input;
mod ensembles;
mod gradients;
mod identities;
mod mixes;
mod weights;

use ndarray::{ArrayD, IxDyn, arr0};
use proptest::{collection::vec, prelude::*};
use tersor::{
    Distiller, Result, Signals,
    distill::{Divergence, Loss, Reduction, Schedule},
};

use crate::differences::Given;

const REDUCTIONS: [Reduction; 5] =
    [Reduction::BatchMean, Reduction::RowMean, Reduction::Mean, Reduction::Sum, Reduction::WeightedMean];

const DIVERGENCES: [Divergence; 6] = [
    Divergence::Forward,
    Divergence::Reverse,
    Divergence::JensenShannon { beta: 0.5 },
    Divergence::JensenShannon { beta: 0.1 },
    Divergence::JensenShannon { beta: 0.0 },
    Divergence::JensenShannon { beta: 1.0 },
];

/// A distiller written outside the crate: the mean absolute difference, smoothed.
#[derive(Debug)]
struct Smooth;

impl Distiller for Smooth {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        let [student, teacher] = signals.alike()?;
        let (difference, count) = (&student - &teacher, student.len() as f64);
        let root = difference.mapv(|d| (d * d + 0.01).sqrt());
        Ok(Loss::new((&root - 0.1).sum() / count, difference / root / count))
    }
}

/// Another, with a parameter of its own: half the squares of `student - factor · teacher`.
#[derive(Debug)]
struct Scaled;

impl Distiller for Scaled {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        let [student, teacher] = signals.alike()?;
        let [factor] = signals.own([&[]])?;
        let difference = &student - factor.sum() * &teacher;
        let slope = arr0(-(&difference * &teacher).sum()).into_dyn();
        Ok(Loss::new(difference.mapv(|d| d * d).sum() / 2.0, difference).with_parameters(vec![slope]))
    }

    fn parameters(&self, _: &[usize], _: &[usize], seed: u64) -> Result<Vec<(String, ArrayD<f64>)>> {
        Ok(vec![("factor".into(), arr0(seed as f64).into_dyn())])
    }
}

/// Every loss with a [`Reduction`].
fn reduced(reduction: Reduction) -> Vec<Box<dyn Distiller>> {
    let mut all: Vec<Box<dyn Distiller>> = vec![
        Box::new(Distiller::logits().reduction(reduction)),
        Box::new(Distiller::hard_labels().reduction(reduction)),
        Box::new(Distiller::hard_labels().label_smoothing(0.3).reduction(reduction)),
        Box::new(Distiller::dkd().reduction(reduction)),
        Box::new(Distiller::dkd().alpha(0.5).beta(Schedule::warm_up(2.0, 0.8)).temperature(1.5).reduction(reduction)),
    ];
    for divergence in DIVERGENCES {
        all.push(Box::new(Distiller::soft_targets(2.0).divergence(divergence).reduction(reduction)));
    }
    all
}

/// Every loss on outputs, alone and built of others.
fn every_distiller() -> Vec<Box<dyn Distiller>> {
    let mut all = reduced(Reduction::BatchMean);
    let soft = || Distiller::soft_targets(3.0);
    all.extend([
        Box::new(soft().without_t2()) as Box<dyn Distiller>,
        Box::new(Distiller::soft_targets(Schedule::linear(5.0, 1.0))),
        Box::new(Distiller::dist().epsilon(0.1)),
        Box::new(Distiller::dist().beta(0.5).gamma(2.0).temperature(3.0).with_t2().epsilon(0.1)),
        Box::new(soft().standardized().epsilon(2.0)),
        Box::new(Distiller::dkd().standardized().epsilon(2.0)),
        Box::new(Smooth.standardized().epsilon(2.0)),
        Box::new(Distiller::mix().term(0.9, soft()).term(0.1, Distiller::hard_labels()).term(0.5, Smooth)),
        Box::new(
            Distiller::mix()
                .term(Schedule::cosine(1.0, 0.0), Distiller::mix().term(2.0, soft().standardized().epsilon(2.0)))
                .standardized()
                .epsilon(2.0),
        ),
    ]);
    all
}

/// Logits of a student and a teacher with labels: of some rows and classes, normal-sized or up to ±1e4, some of them the same.
fn given(weighted: bool) -> impl Strategy<Value = Given> {
    let sizes = (1usize..4, 1usize..3, 1usize..5, 0usize..4, any::<bool>());
    let drawn = sizes.prop_flat_map(|(batch, sequence, classes, kind, in_sequence)| {
        let rows = if in_sequence { batch * sequence } else { batch };
        let scale = [1.0, 5.0, 1e2, 1e4][kind];
        let logit = prop_oneof![4 => -scale..scale, 1 => Just(scale), 1 => Just(0.0)];
        let logits = vec(logit, rows * classes);
        let weights = |len| vec(prop_oneof![3 => 0.1..2.0f64, 1 => Just(0.0)], len);
        let shape = if in_sequence { vec![batch, sequence, classes] } else { vec![batch, classes] };
        let labels = vec(0..classes, rows);
        (Just(shape), logits.clone(), logits, labels, weights(rows), weights(classes), 0.0..1.0)
    });
    drawn.prop_map(move |(shape, student, teacher, labels, sample_weights, class_weights, progress)| {
        let array = |logits| ArrayD::from_shape_vec(IxDyn(&shape), logits).unwrap();
        let mut given = Given::new(array(student), array(teacher));
        given.labels = Some(labels);
        given.progress = progress;
        if weighted {
            given.sample_weights = Some(sample_weights);
            given.class_weights = Some(class_weights);
        }
        given
    })
}

#[track_caller]
fn assert_close(found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance * expected.abs().max(1.0), "{found}, expected {expected}");
}

#[track_caller]
fn assert_same(found: &Loss, expected: &Loss, tolerance: f64) {
    assert_close(found.value, expected.value, tolerance);
    assert_eq!(found.gradient.shape(), expected.gradient.shape());
    found
        .gradient
        .iter()
        .zip(&expected.gradient)
        .for_each(|(found, expected)| assert_close(*found, *expected, tolerance));
}
