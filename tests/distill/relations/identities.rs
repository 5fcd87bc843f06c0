//! What holds whatever the numbers.

use ndarray::{Array2, ArrayD, Axis, Ix2, arr2, s};
use tersor::{
    Distiller, Signals,
    distill::{Attentions, Compare, Relations, SimilarityPreserving},
};

use super::{apply, between_samples, near, neighbours, random, transformers};
use crate::common::normal;

/// Turned in every plane of two neighbouring features.
fn turned(array: &ArrayD<f64>) -> ArrayD<f64> {
    let width = array.shape()[1];
    let rotation = (0..width - 1).fold(Array2::<f64>::eye(width), |rotation, first| {
        let (sin, cos) = (0.7 + first as f64).sin_cos();
        let mut plane = Array2::eye(width);
        plane.slice_mut(s![first..first + 2, first..first + 2]).assign(&arr2(&[[cos, -sin], [sin, cos]]));
        rotation.dot(&plane)
    });
    array.clone().into_dimensionality::<Ix2>().unwrap().dot(&rotation).into_dyn()
}

#[test]
fn a_teacher_that_is_turned_and_scaled_teaches_nothing() {
    let student = random(&[6, 4], 1);
    let mut wider = Array2::zeros((6, 7));
    wider.slice_mut(s![.., 2..6]).assign(&(turned(&student) * 5.0));
    for (index, distiller) in between_samples().iter().enumerate() {
        let moved = if index < 2 { 3.0 } else { 0.0 }; // the relational ones let it be moved too
        for teacher in [turned(&student) * 0.3, &wider.clone().into_dyn() + moved] {
            let loss = apply(&**distiller, &student, &teacher);
            // Pkt's gradient is 0 but for its epsilon.
            let bound = if index == 3 { 1e-7 } else { 1e-14 };
            assert!(loss.value.abs() < 1e-14, "{distiller:?}: {}", loss.value);
            assert!(loss.gradient.iter().all(|slope| slope.abs() < bound), "{distiller:?}: {}", loss.gradient);
        }
    }
    assert!(apply(&SimilarityPreserving::new(), &student, &(&student + 3.0)).value > 1e-3);
}

#[test]
fn scale_is_no_matter_and_neither_overflows_nor_vanishes() {
    let (student, teacher) = (random(&[5, 4], 1), random(&[5, 3], 2));
    for distiller in between_samples() {
        let loss = apply(&*distiller, &student, &teacher);
        for power in [1000, 400, 3, -3, -400] {
            let scale = 2f64.powi(power);
            let scaled = apply(&*distiller, &(&student * scale), &(&teacher / scale.min(1e150)));
            assert!((loss.value - scaled.value).abs() <= 1e-15, "{distiller:?}");
            let back = (&scaled.gradient * scale - &loss.gradient).mapv(f64::abs);
            assert!(back.iter().all(|difference| *difference <= 1e-15), "{distiller:?}, 2^{power}: {back}");
        }
        let largest = student.mapv(|x| x.signum() * f64::MAX);
        let smallest = student.mapv(|x| x.signum() * f64::MIN_POSITIVE / 4.0);
        for student in [largest, smallest] {
            let loss = apply(&*distiller, &student, &teacher);
            assert!(loss.value.is_finite() && loss.gradient.iter().all(|slope| slope.is_finite()), "{distiller:?}");
        }
    }
}

#[test]
fn a_teacher_that_is_the_student_gives_zero_and_zero_gradient() {
    let student = random(&[4, 3, 6], 1);
    let zero = ArrayD::<f64>::zeros(student.raw_dim());
    for (index, distiller) in between_samples().iter().enumerate() {
        let loss = apply(&**distiller, &student, &student);
        assert_eq!(loss.value, 0.0, "{distiller:?}");
        if index == 3 {
            assert!(loss.gradient.iter().all(|slope| slope.abs() < 1e-7), "{distiller:?}: {}", loss.gradient);
        } else {
            assert_eq!(loss.gradient, zero, "{distiller:?}");
        }
    }
    let neighbours = apply(&neighbours(), &student, &student);
    assert_eq!((neighbours.value, neighbours.gradient), (0.0, zero.clone()));
    let relations = apply(&Relations::new(3), &(&student * 1e4), &(&student * 1e4));
    assert_eq!((relations.value, relations.gradient), (0.0, zero.clone()));
    for loss in [Attentions::new(2), Attentions::new(2).causal(), Attentions::new(2).compare(Compare::Scores)] {
        let loss = loss.apply(&Signals::new(&student, &student).and(&student, &student)).unwrap();
        assert_eq!((loss.value, loss.gradient, loss.second), (0.0, zero.clone(), Some(zero.clone())));
    }
}

#[test]
fn one_sample_compares_with_nothing() {
    for distiller in between_samples().iter().map(|distiller| &**distiller).chain([&neighbours() as &dyn Distiller]) {
        let loss = apply(distiller, &random(&[1, 4], 1), &random(&[1, 4], 2));
        assert!(loss.value.abs() < 1e-15, "{distiller:?}: {}", loss.value);
        assert!(loss.gradient.iter().all(|slope| slope.abs() < 1e-15), "{distiller:?}: {}", loss.gradient);
    }
}

#[test]
fn the_order_of_the_batch_matters_to_neighbours_alone() {
    let (student, teacher) = (random(&[5, 4], 1), random(&[5, 4], 2));
    let order = [3, 0, 4, 1, 2];
    let [turned_student, turned_teacher] = [&student, &teacher].map(|array| array.select(Axis(0), &order));
    for distiller in between_samples() {
        let (loss, other) =
            (apply(&*distiller, &student, &teacher), apply(&*distiller, &turned_student, &turned_teacher));
        near(other.value, loss.value, &distiller);
        let expected = loss.gradient.select(Axis(0), &order);
        assert!((other.gradient - expected).iter().all(|difference| difference.abs() < 1e-14), "{distiller:?}");
    }
    let [one, other] =
        [apply(&neighbours(), &student, &teacher), apply(&neighbours(), &turned_student, &turned_teacher)];
    assert!((one.value - other.value).abs() > 1e-3);
}

#[test]
fn layouts_and_element_types_are_no_matter() {
    let (student, teacher) = (normal(4, 6, 1), normal(4, 3, 2));
    let (wide_student, wide_teacher) = (student.mapv(f64::from).into_dyn(), teacher.mapv(f64::from).into_dyn());
    let by_columns = student.t().as_standard_layout().to_owned();
    for distiller in between_samples() {
        let expected = apply(&*distiller, &wide_student, &wide_teacher);
        assert_eq!(distiller.apply(&Signals::new(&student, &teacher)).unwrap(), expected);
        assert_eq!(distiller.apply(&Signals::new(&by_columns.t(), &teacher)).unwrap(), expected);
    }
}

#[test]
fn relations_are_attentions_of_queries_that_are_keys() {
    let (student, teacher) = (random(&[2, 3, 4], 1), random(&[2, 3, 8], 2));
    let signals = Signals::new(&student, &teacher).and(&student, &teacher);
    let (attentions, relations) =
        (Attentions::new(2).apply(&signals).unwrap(), apply(&Relations::new(2), &student, &teacher));
    assert_eq!(attentions.value, relations.value);
    assert_eq!(attentions.gradient + attentions.second.unwrap(), relations.gradient);
}

#[test]
fn a_causal_position_hears_nothing_of_later_ones() {
    let mut given = transformers(1, 4, 4, 1);
    let loss = Attentions::new(2).causal();
    let before = loss.apply(&given.signals()).unwrap();
    assert!(before.gradient.slice(s![0, 0, ..]).iter().all(|slope| *slope == 0.0)); // sees one key, for certain
    let plain = Attentions::new(2).apply(&given.signals()).unwrap();
    assert!((before.value - plain.value).abs() > 1e-3);
    given.second.as_mut().unwrap()[0].slice_mut(s![0, 3, ..]).fill(7.0);
    let after = loss.apply(&given.signals()).unwrap();
    assert_eq!(before.gradient.slice(s![0, ..3, ..]), after.gradient.slice(s![0, ..3, ..]));
    assert_ne!(before.gradient.slice(s![0, 3, ..]), after.gradient.slice(s![0, 3, ..]));
}
