//! Gradients, against finite differences.

use ndarray::{Array2, ArrayD, s};
use tersor::{
    Distiller,
    distill::{Attentions, Compare, Relations, RkdAngle, RkdDistance},
};

use super::{Rows, apply, between_samples, crowd, neighbours, random, transformers};
use crate::differences::{Given, check};

#[test]
fn gradients_between_samples_are_those_of_finite_differences() {
    for distiller in between_samples() {
        for (batch, scale, seed) in [(1, 1.0, 1), (2, 1.0, 2), (5, 1.0, 3), (4, 1e4, 4), (4, 1e-2, 5), (3, 1e100, 6)] {
            let (student, teacher) = (random(&[batch, 2, 3], seed) * scale, random(&[batch, 4], seed + 10));
            check(&*distiller, &Given::new(student.clone(), teacher.clone()));
            check(&*distiller, &Given::new(student.clone(), teacher * 1e9));
            check(&*distiller, &Given::new(student.clone(), ArrayD::zeros(vec![batch, 4])));
            check(&*distiller, &Given::new(student.clone(), ArrayD::ones(vec![batch, 4])));
            let mut with_zeros = student;
            with_zeros.slice_mut(s![.., 0, ..]).fill(0.0); // features that are always 0
            check(&*distiller, &Given::new(with_zeros, random(&[batch, 7], seed + 20)));
        }
        // One sample far from all others: Huber's loss leaves its parabola.
        let mut student = random(&[6, 3], 7);
        student.row_mut_of(0).mapv_inplace(|x| 100.0 * x);
        check(&*distiller, &Given::new(student.clone(), random(&[6, 3], 8)));
        let mut line = Array2::zeros((5, 2));
        line.column_mut(0).assign(&ndarray::Array1::range(1.0, 6.0, 1.0)); // all on one line
        check(&*distiller, &Given::new(random(&[5, 2], 9), line.into_dyn()));
    }
}

#[test]
fn gradients_of_neighbours_are_those_of_finite_differences() {
    for (batch, scale) in [(1, 1.0), (2, 1.0), (5, 1.0), (4, 1e4)] {
        check(&neighbours(), &Given::new(random(&[batch, 2, 3], 1) * scale, random(&[batch, 2, 3], 2) * scale));
    }
}

#[test]
fn gradients_between_positions_are_those_of_finite_differences() {
    for (batch, len, seen, scale) in [(1, 1, 1, 1.0), (2, 3, 3, 1.0), (1, 2, 4, 1.0), (2, 3, 3, 1e2), (1, 3, 3, 1e4)] {
        for heads in [1, 3] {
            let mut given = transformers(batch, len, seen, 5);
            for array in given.second.iter_mut().flatten().chain([&mut given.student, &mut given.teacher]) {
                *array *= scale;
            }
            let alone = Given::new(given.student.clone(), given.teacher.clone());
            check(&Relations::new(heads), &alone);
            check(&Relations::new(heads), &Given::new(ArrayD::zeros(vec![batch, len, 6]), given.teacher.clone()));
            check(&Relations::new(heads), &Given::new(given.student.clone(), ArrayD::zeros(vec![batch, len, 3])));
            for compare in [Compare::Distributions, Compare::Scores] {
                let loss = Attentions::new(heads).compare(compare);
                check(&loss, &given);
                if len == seen {
                    check(&loss.causal(), &given);
                }
            }
        }
    }
}

/// The derivative along a direction agrees with central differences of one of several steps.
fn check_along(distiller: &dyn Distiller, student: &ArrayD<f64>, teacher: &ArrayD<f64>, direction: &ArrayD<f64>) {
    let loss = apply(distiller, student, teacher);
    assert!(loss.gradient.iter().all(|slope| slope.is_finite()), "{distiller:?}: {loss:?}");
    let exact = (&loss.gradient * direction).sum();
    let at = |step: f64| apply(distiller, &(student + &(direction * step)), teacher).value;
    let found = [1e-3, 1e-4, 1e-5, 1e-6].map(|step| (at(step) - at(-step)) / (2.0 * step));
    let good = found.iter().any(|found| (found - exact).abs() <= 1e-6 * exact.abs() + 1e-9);
    assert!(good, "{distiller:?}: {exact} along {direction:?}, differences {found:?}");
}

#[test]
fn samples_that_coincide_have_the_gradient_of_moving_together() {
    let mut student = random(&[5, 3], 1);
    let first = student.row_mut_of(0).to_owned();
    student.row_mut_of(3).assign(&first);
    for distiller in between_samples() {
        for teacher in [random(&[5, 4], 2), student.clone() + 1.0] {
            for seed in 3..8 {
                let mut direction = random(&[5, 3], seed);
                let first = direction.row_mut_of(0).to_owned();
                direction.row_mut_of(3).assign(&first);
                check_along(&*distiller, &student, &teacher, &direction);
            }
        }
        // All of them coincide.
        let same = ArrayD::from_elem(vec![4, 3], 0.7);
        let loss = apply(&*distiller, &same, &random(&[4, 3], 9));
        assert!(loss.value.is_finite() && loss.gradient.iter().all(|slope| slope.is_finite()), "{distiller:?}");
        check_along(&*distiller, &same, &random(&[4, 3], 9), &ArrayD::ones(vec![4, 3]));
    }
}

#[test]
fn samples_of_zeros_stay_and_the_others_have_their_gradient() {
    let mut student = random(&[4, 3], 1);
    student.row_mut_of(2).fill(0.0);
    for distiller in &between_samples()[2..] {
        let teacher = random(&[4, 4], 2);
        for seed in 3..8 {
            let mut direction = random(&[4, 3], seed);
            direction.row_mut_of(2).fill(0.0);
            check_along(&**distiller, &student, &teacher, &direction);
        }
    }
    for distiller in &between_samples()[3..] {
        // Similarities preserved are also products with other samples, and would move one of zeros.
        let mut gradient = apply(&**distiller, &student, &random(&[4, 4], 2)).gradient;
        assert!(gradient.row_mut_of(2).iter().all(|slope| *slope == 0.0), "{distiller:?}");
    }
    for distiller in between_samples() {
        let loss = apply(&*distiller, &ArrayD::zeros(vec![4, 3]), &random(&[4, 4], 2));
        assert_eq!(loss.gradient, ArrayD::<f64>::zeros(vec![4, 3]), "{distiller:?}");
        assert!(loss.value > 0.0 && loss.value.is_finite(), "{distiller:?}");
    }
}

#[test]
fn samples_that_all_but_coincide_have_exact_gradients() {
    for gap in [1e-1, 3e-3, 5e-4, 1e-5, 1e-6] {
        for seed in 0..3 {
            let (student, teacher) = (crowd(gap, seed), random(&[7, 4], seed + 10));
            // The close ones are moved by as little as they are apart.
            let mut direction = random(&[7, 3], seed + 20);
            for near in [0, 2, 3, 5] {
                direction.row_mut_of(near).mapv_inplace(|x| gap * x);
            }
            check_along(&RkdAngle::new(), &student, &teacher, &direction);
            check_along(&RkdDistance::new(), &student, &teacher, &direction);
        }
    }
}
