//! Several teachers.

use ndarray::{Array2, ArrayD, Axis, arr0, array};
use proptest::{collection::vec, prelude::*};
use tersor::{
    Distiller, Error, Result, Signals,
    distill::{Average, Ensemble, Loss, Reduction},
};

use super::{Scaled, assert_close, assert_same};
use crate::common::normal;

const AVERAGES: [Average; 3] = [Average::Logits, Average::Probabilities, Average::Losses];

fn student() -> Array2<f32> {
    normal(3, 4, 1)
}

fn teachers() -> [Array2<f32>; 3] {
    [2, 3, 4].map(|seed| 2.0 * normal(3, 4, seed))
}

fn softmax(logits: &[f64], temperature: f64) -> Vec<f64> {
    let sum: f64 = logits.iter().map(|z| (z / temperature).exp()).sum();
    logits.iter().map(|z| (z / temperature).exp() / sum).collect()
}

fn row(array: &Array2<f32>, row: usize) -> Vec<f64> {
    array.row(row).iter().map(|z| f64::from(*z)).collect()
}

/// The weights of a row by the formula, plainly.
fn by_entropy(row_of: usize, own: [f64; 3], temperature: f64) -> Vec<f64> {
    let doubts: Vec<f64> = teachers()
        .iter()
        .map(|teacher| {
            let p = softmax(&row(teacher, row_of), temperature);
            (-p.iter().map(|p| p * p.ln()).sum::<f64>()).exp()
        })
        .collect();
    let sum: f64 = doubts.iter().sum();
    let weights: Vec<f64> = doubts.iter().zip(own).map(|(doubt, own)| own * (1.0 - doubt / sum) / 2.0).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

#[test]
fn one_teacher_is_that_teacher_however_averaged() {
    let (student, [teacher, ..]) = (student(), teachers());
    let signals = Signals::new(&student, &teacher).labels(&[0, 1, 2]);
    for distiller in super::every_distiller() {
        let alone = distiller.apply(&signals).unwrap();
        for average in AVERAGES {
            for ensemble in [Ensemble::new(average), Ensemble::new(average).weights([3.0]).by_entropy()] {
                let loss = ensemble.apply(&*distiller, &signals, &[teacher.view()]).unwrap();
                assert_same(&loss, &alone, 1e-12);
            }
        }
    }
}

#[test]
fn averages_are_those_of_logits_probabilities_and_losses() {
    let (student, teachers, shares) = (student(), teachers(), [0.5, 0.3, 0.2]);
    let signals = Signals::new(&student, &student);
    let soft = Distiller::soft_targets(3.0);
    let ensemble = |average| Ensemble::new(average).weights([5.0, 3.0, 2.0]);

    let logits = ensemble(Average::Logits).combine(&teachers, 3.0).unwrap();
    let probabilities = ensemble(Average::Probabilities).combine(&teachers, 3.0).unwrap();
    for of_row in 0..3 {
        let rows = teachers.each_ref().map(|teacher| row(teacher, of_row));
        let combined: Vec<f64> = (0..4).map(|class| probabilities[[of_row, class]]).collect();
        for class in 0..4 {
            let mean: f64 = rows.iter().zip(shares).map(|(row, share)| share * row[class]).sum();
            assert_close(logits[[of_row, class]], mean, 1e-14);
            let mean: f64 = rows.iter().zip(shares).map(|(row, share)| share * softmax(row, 3.0)[class]).sum();
            assert_close(softmax(&combined, 3.0)[class], mean, 1e-14);
        }
    }
    let losses = teachers.each_ref().map(|teacher| soft.apply(&Signals::new(&student, teacher)).unwrap());
    let value: f64 = losses.iter().zip(shares).map(|(loss, share)| share * loss.value).sum();
    let loss = ensemble(Average::Losses).apply(&soft, &signals, &teachers).unwrap();
    assert_close(loss.value, value, 1e-14);
    // Forward soft targets are linear in the teacher's probabilities, but for what no student changes.
    let of_mean = ensemble(Average::Probabilities).apply(&soft, &signals, &teachers).unwrap();
    assert_same(&Loss::new(of_mean.value, loss.gradient.clone()), &of_mean, 1e-14);
    let among: f64 = teachers
        .each_ref()
        .map(|teacher| soft.apply(&Signals::new(&probabilities, teacher)).unwrap().value)
        .iter()
        .zip(shares)
        .map(|(loss, share)| share * loss)
        .sum();
    assert_close(loss.value, of_mean.value + among, 1e-13);
}

#[test]
fn the_surer_teacher_counts_more_row_by_row() {
    let (student, teachers, own) = (student(), teachers(), [2.0, 1.0, 0.5]);
    let ensemble = |average| Ensemble::new(average).weights(own).by_entropy();
    let logits = ensemble(Average::Logits).combine(&teachers, 2.0).unwrap();
    let probabilities = ensemble(Average::Probabilities).combine(&teachers, 2.0).unwrap();
    let mut value = 0.0;
    let sample_weights = [1.0, 0.25, 2.0];
    let soft = || Distiller::soft_targets(2.0).reduction(Reduction::Sum);
    for of_row in 0..3 {
        let weights = by_entropy(of_row, own, 2.0);
        let combined: Vec<f64> = (0..4).map(|class| probabilities[[of_row, class]]).collect();
        for class in 0..4 {
            let mean = |of: &dyn Fn(Vec<f64>) -> f64| -> f64 {
                teachers.iter().zip(&weights).map(|(teacher, weight)| weight * of(row(teacher, of_row))).sum()
            };
            assert_close(logits[[of_row, class]], mean(&|row| row[class]), 1e-13);
            assert_close(softmax(&combined, 2.0)[class], mean(&|row| softmax(&row, 2.0)[class]), 1e-13);
        }
        for (teacher, weight) in teachers.iter().zip(&weights) {
            let one = |array: &Array2<f32>| array.select(Axis(0), &[of_row]);
            let loss = soft().apply(&Signals::new(&one(&student), &one(teacher))).unwrap();
            value += sample_weights[of_row] * weight * loss.value;
        }
    }
    let signals = Signals::new(&student, &student).sample_weights(&sample_weights);
    let loss = ensemble(Average::Losses).apply(&soft(), &signals, &teachers).unwrap();
    assert_close(loss.value, value, 1e-13);

    // One that is sure against one that knows nothing, of C classes: perplexities 1 and C.
    let pair = [array![[100.0, 0.0, 0.0]], array![[0.0, 0.0, 0.0]]];
    let combined = Ensemble::new(Average::Logits).by_entropy().combine(&pair, 1.0).unwrap();
    assert_close(combined[[0, 0]], 100.0 * 3.0 / 4.0, 1e-14);
}

#[test]
fn losses_that_do_not_weigh_rows_cannot_be_averaged_row_by_row() {
    let (student, [teacher, ..]) = (student(), teachers());
    let signals = Signals::new(&student, &teacher).labels(&[0, 1, 2]);
    let by_entropy = Ensemble::new(Average::Losses).by_entropy();
    let mut all = super::every_distiller();
    all.push(Box::new(Distiller::rkd_distance()));
    all.push(Box::new(Distiller::hint().without_regressor()));
    all.push(Box::new(Distiller::soft_targets(2.0).reduction(Reduction::WeightedMean)));
    let mut refused = 0;
    for distiller in all {
        // The same teacher twice is that teacher.
        let twice = by_entropy.apply(&*distiller, &signals, &[teacher.view(), teacher.view()]);
        match twice {
            Ok(loss) => assert_same(&loss, &distiller.apply(&signals).unwrap(), 1e-12),
            Err(error) => {
                assert!(matches!(error, Error::Conflict { .. }), "{error}");
                refused += 1;
            }
        }
        assert!(by_entropy.apply(&*distiller, &signals, &[teacher.view()]).is_ok(), "{distiller:?}");
    }
    // Those three, two of correlations over samples, and three with a loss that says nothing of weights.
    assert_eq!(refused, 7);
}

#[test]
fn a_teacher_of_weight_0_is_not_heard() {
    let (student, teachers) = (student(), teachers());
    let signals = Signals::new(&student, &student);
    let soft = Distiller::soft_targets(2.0);
    for average in AVERAGES {
        let ensemble = Ensemble::new(average);
        let two = ensemble.clone().weights([1.0, 3.0]).apply(&soft, &signals, &teachers[..2]).unwrap();
        let three = ensemble.weights([1.0, 3.0, 0.0]).apply(&soft, &signals, &teachers).unwrap();
        assert_same(&three, &two, 1e-14);
    }
}

#[test]
fn losses_against_teachers_of_other_shapes_may_be_averaged() {
    /// Half the square of the distance of the sums.
    #[derive(Debug)]
    struct Sums;
    impl Distiller for Sums {
        fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
            let student = signals.student()?;
            let distance = student.sum() - signals.teacher()?.sum();
            Ok(Loss::new(distance * distance / 2.0, ArrayD::from_elem(student.raw_dim(), distance)))
        }
    }
    let student = array![1.0, 2.0];
    let teachers = [array![1.0].into_dyn(), array![[2.0, 4.0]].into_dyn()];
    let loss = Ensemble::new(Average::Losses).apply(&Sums, &Signals::new(&student, &student), &teachers).unwrap();
    // Distances 2 and -3.
    assert_eq!((loss.value, loss.gradient), (3.25, array![-0.5, -0.5].into_dyn()));
}

#[test]
fn parameters_are_shared_by_the_losses_against_all_teachers() {
    let student = array![[1.0, 2.0]];
    let teachers = [array![[1.0, 1.0]], array![[0.0, 2.0]]];
    let own = [arr0(2.0).into_dyn()];
    let signals = Signals::new(&student, &student).parameters(&own);
    let loss = Ensemble::new(Average::Losses).weights([1.0, 3.0]).apply(&Scaled, &signals, &teachers).unwrap();
    // Differences (-1, 0) and (1, -2): halves of squares 0.5 and 2.5, slopes of the factor 1 and 4.
    assert_eq!((loss.value, loss.gradient), (2.0, array![[0.5, -1.5]].into_dyn()));
    assert_eq!(loss.parameters, [arr0(3.25).into_dyn()]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ensembles_of_extreme_teachers_are_finite(
        logits in vec(prop_oneof![Just(1e4), Just(-1e4), -1.0..1.0f64, Just(f64::from(f32::MAX))], 24),
        weights in vec(0.0..1.0f64, 3),
        temperature in 0.01..20.0f64,
    ) {
        let logits = |index: usize| Array2::from_shape_vec((2, 3), logits[index * 6..][..6].to_vec()).unwrap();
        let (student, teachers) = (logits(0), [1, 2, 3].map(logits));
        for average in AVERAGES {
            let ensemble = Ensemble::new(average).weights(weights.clone());
            for ensemble in [ensemble.clone(), ensemble.by_entropy()] {
                let signals = Signals::new(&student, &student);
                let loss = ensemble.apply(&Distiller::soft_targets(temperature), &signals, &teachers).unwrap();
                prop_assert!(loss.value.is_finite() && loss.gradient.iter().all(|slope| slope.is_finite()), "{loss:?}");
                if average != Average::Losses {
                    let combined = ensemble.combine(&teachers, temperature).unwrap();
                    prop_assert!(combined.iter().all(|z| z.is_finite()), "{combined}");
                }
            }
        }
    }
}
