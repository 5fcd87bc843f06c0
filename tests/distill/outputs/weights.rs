//! Weights of samples and classes, and what a sum is divided by.

use ndarray::{Array2, Array3, Axis, array, concatenate};
use proptest::prelude::*;
use tersor::{
    Distiller, Signals,
    distill::{Loss, Reduction},
};

use super::{REDUCTIONS, assert_close, assert_same, given, reduced};
use crate::{common::normal, differences::Given};

#[test]
fn every_reduction_divides_by_what_it_says() {
    // Two samples of three positions of four classes.
    let logits = |seed| {
        let flat = normal(6, 4, seed).mapv(f64::from);
        flat.into_shape_with_order((2, 3, 4)).unwrap()
    };
    let (student, teacher) = (logits(1), logits(2));
    let labels = [0, 1, 2, 3, 0, 1];
    let weights = [1.0, 2.0, 0.0, 0.5, 1.0, 1.0];
    let signals = Signals::new(&student, &teacher).labels(&labels).sample_weights(&weights);
    let divisors = [
        (Reduction::BatchMean, 2.0),
        (Reduction::RowMean, 6.0),
        (Reduction::Mean, 24.0),
        (Reduction::Sum, 1.0),
        (Reduction::WeightedMean, 5.5),
    ];
    let sums = reduced(Reduction::Sum);
    for (reduction, divisor) in divisors {
        for (distiller, sum) in reduced(reduction).iter().zip(&sums) {
            let expected = sum.apply(&signals).unwrap().scaled(1.0 / divisor);
            assert_same(&distiller.apply(&signals).unwrap(), &expected, 1e-14);
        }
    }
    // Rows one by one, and a batch of them.
    let flat = |array: &Array3<f64>| array.clone().into_shape_with_order((6, 4)).unwrap();
    let (rows_s, rows_t) = (flat(&student), flat(&teacher));
    for sum in &sums {
        let value: f64 = (0..6)
            .map(|row| {
                let (s, t) = (rows_s.select(Axis(0), &[row]), rows_t.select(Axis(0), &[row]));
                weights[row] * sum.apply(&Signals::new(&s, &t).labels(&labels[row..=row])).unwrap().value
            })
            .sum();
        assert_close(sum.apply(&signals).unwrap().value, value, 1e-14);
    }
    // A mean does not see a batch twice.
    let twice = |rows: &Array2<f64>| concatenate![Axis(0), rows.view(), rows.view()];
    let mean = Distiller::soft_targets(2.0);
    let once = mean.apply(&Signals::new(&rows_s, &rows_t)).unwrap();
    assert_close(mean.apply(&Signals::new(&twice(&rows_s), &twice(&rows_t))).unwrap().value, once.value, 1e-14);
}

/// The rows of an array chosen by position.
fn select(given: &Given, rows: &[usize]) -> Given {
    let pick = |weights: &Option<Vec<f64>>| weights.as_ref().map(|all| rows.iter().map(|row| all[*row]).collect());
    let labels = given.labels.as_ref().map(|all| rows.iter().map(|row| all[*row]).collect());
    let (student, teacher) = (given.student.select(Axis(0), rows), given.teacher.select(Axis(0), rows));
    let sample_weights = pick(&given.sample_weights);
    Given { labels, sample_weights, class_weights: given.class_weights.clone(), ..Given::new(student, teacher) }
}

fn rows(seed: u64) -> Given {
    let [student, teacher] = [seed, seed + 1].map(|seed| normal(3, 4, seed).mapv(f64::from).into_dyn());
    Given { labels: Some(vec![3, 0, 2]), ..Given::new(student, teacher) }
}

#[test]
fn whole_weights_are_samples_so_many_times() {
    let weighted = Given { sample_weights: Some(vec![2.0, 0.0, 1.0]), ..rows(5) };
    let repeated = select(&rows(5), &[0, 0, 2]);
    let mut all = reduced(Reduction::Sum);
    all.extend(reduced(Reduction::WeightedMean));
    all.extend(reduced(Reduction::BatchMean));
    all.push(Box::new(Distiller::dist()));
    all.push(Box::new(Distiller::soft_targets(2.0).standardized()));
    for distiller in all {
        let (found, expected) = [&weighted, &repeated].map(|given| distiller.apply(&given.signals()).unwrap()).into();
        assert_close(found.value, expected.value, 1e-14);
        let [first, second, last] = [0, 1, 2].map(|row| expected.gradient.index_axis(Axis(0), row));
        let by_weight = [&first + &second, 0.0 * &first, last.to_owned()];
        for (found, expected) in found.gradient.outer_iter().zip(by_weight) {
            found.iter().zip(&expected).for_each(|(found, expected)| assert_close(*found, *expected, 1e-14));
        }
    }
}

#[test]
fn class_weights_multiply_terms_of_the_sum() {
    let only = |class: usize| (0..4).map(|c| f64::from(u8::from(c == class))).collect::<Vec<f64>>();
    for distiller in reduced(Reduction::RowMean) {
        // Losses are linear in class weights, so that single classes add up to all of them.
        let of = |weights: Option<Vec<f64>>| {
            let given = Given { class_weights: weights, ..rows(7) };
            distiller.apply(&given.signals()).unwrap()
        };
        let parts: Vec<Loss> = (0..4).map(|class| of(Some(only(class)))).collect();
        for (weights, factors) in [(None, [1.0; 4]), (Some(vec![0.5, 2.0, 0.0, 3.0]), [0.5, 2.0, 0.0, 3.0])] {
            let mut sum = Loss::new(0.0, ndarray::ArrayD::zeros(vec![3, 4]));
            for (part, factor) in parts.iter().zip(factors) {
                sum.value += factor * part.value;
                sum.gradient += &(factor * &part.gradient);
            }
            assert_same(&of(weights), &sum, 1e-13);
        }
    }
}

#[test]
fn class_weights_of_labels_are_those_of_torch() {
    let student = array![[1.0, -2.0, 0.5], [0.0, 1.0, 2.0]];
    let signals = Signals::new(&student, &student).labels(&[0, 2]).class_weights(&[0.5, 1.0, 3.0]);
    let loss = Distiller::hard_labels().reduction(Reduction::Sum).apply(&signals).unwrap();
    let cross_entropy = |row: [f64; 3], label: usize| row.iter().map(|z| z.exp()).sum::<f64>().ln() - row[label];
    let expected = 0.5 * cross_entropy([1.0, -2.0, 0.5], 0) + 3.0 * cross_entropy([0.0, 1.0, 2.0], 2);
    assert_close(loss.value, expected, 1e-14);
}

#[test]
fn weights_that_are_all_zero_give_nothing() {
    let given = Given { sample_weights: Some(vec![0.0; 3]), class_weights: Some(vec![0.0; 4]), ..rows(9) };
    for reduction in REDUCTIONS {
        for distiller in reduced(reduction) {
            let loss = distiller.apply(&given.signals()).unwrap();
            assert!(loss.value == 0.0 && loss.gradient.iter().all(|slope| *slope == 0.0), "{distiller:?}: {loss:?}");
        }
    }
}

/// Whatever the weights of classes, a loss is at least 0, and nothing moves a student that is as the teacher.
#[test]
fn class_weights_leave_the_optimum_where_it_is() {
    let teacher = normal(3, 5, 1).mapv(f64::from).into_dyn();
    let distances = |reduction| {
        let mut all = reduced(reduction);
        all.retain(|distiller| !format!("{distiller:?}").starts_with("HardLabels"));
        all.push(Box::new(Distiller::dkd().alpha(1.0).beta(0.0)));
        all.push(Box::new(Distiller::dkd().alpha(0.0).beta(1.0)));
        all
    };
    for class_weights in [[5.0, 1.0, 1.0, 1.0, 1.0], [0.0, 3.0, 0.5, 100.0, 1.0], [1.0; 5]] {
        let same = Given {
            labels: Some(vec![0, 3, 4]),
            class_weights: Some(class_weights.to_vec()),
            ..Given::new(teacher.clone(), teacher.clone())
        };
        for distiller in distances(Reduction::BatchMean) {
            let loss = distiller.apply(&same.signals()).unwrap();
            assert!(loss.value.abs() < 1e-14, "{distiller:?}: {}", loss.value);
            assert!(loss.gradient.iter().all(|slope| slope.abs() < 1e-13), "{distiller:?}: {}", loss.gradient);
            for seed in 2..40 {
                let student = normal(3, 5, seed).mapv(|x| f64::from(x) * 3.0).into_dyn();
                let loss = distiller.apply(&Given { student, ..same.clone() }.signals()).unwrap();
                assert!(loss.value >= -1e-12, "{distiller:?}, {class_weights:?}: {}", loss.value);
            }
        }
    }
}

#[test]
fn a_reduction_is_said_to_weigh_samples_where_two_halves_of_each_are_the_whole() {
    let mut all: Vec<Box<dyn Distiller>> = REDUCTIONS.into_iter().flat_map(reduced).collect();
    all.push(Box::new(Distiller::dist()));
    all.push(Box::new(Distiller::dist().gamma(0.0)));
    all.push(Box::new(Distiller::mix().term(1.0, Distiller::logits()).term(1.0, Distiller::rkd_distance())));
    all.push(Box::new(Distiller::mix().term(1.0, Distiller::logits())));
    all.push(Box::new(Distiller::logits().standardized()));
    all.push(Box::new(Distiller::rkd_angle()));
    all.push(Box::new(Distiller::cosine().projected().where_needed()));
    let whole = rows(5);
    for distiller in all {
        let [some, others] = [[0.25, 0.5, 1.0], [0.75, 0.5, 0.0]].map(|weights| {
            let given = Given { sample_weights: Some(weights.to_vec()), ..whole.clone() };
            distiller.apply(&given.signals()).unwrap()
        });
        let (sum, loss) = (some.value + others.value, distiller.apply(&whole.signals()).unwrap());
        if loss.value == 0.0 {
            continue; // Jensen's and Shannon's at the ends
        }
        assert_eq!((sum - loss.value).abs() < 1e-12, distiller.weighs_samples(), "{distiller:?}: {sum}, {loss:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_zero_weight_leaves_a_row_out(given in given(true), row in 0usize..4) {
        let mut given = given;
        let weights = given.sample_weights.as_mut().unwrap();
        let row = row % weights.len();
        weights[row] = 0.0;
        let classes = *given.student.shape().last().unwrap();
        for distiller in reduced(Reduction::BatchMean) {
            let loss = distiller.apply(&given.signals()).unwrap();
            let of_row = &loss.gradient.as_slice().unwrap()[row * classes..][..classes];
            prop_assert!(of_row.iter().all(|slope| *slope == 0.0));
            let mut other = given.clone();
            other.student.as_slice_mut().unwrap()[row * classes] += 1.0;
            prop_assert_eq!(distiller.apply(&other.signals()).unwrap().value, loss.value);
        }
    }
}
