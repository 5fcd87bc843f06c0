//! Every error.

use std::array;

use ndarray::ArrayD;
use tersor::{
    Distiller, Error, Signals,
    distill::{Attentions, Correlation, CorrelationCongruence, Relations},
};

use super::{apply, between_samples, neighbours, random, transformers};
use crate::differences::Given;

#[test]
fn bad_samples_are_errors() {
    let good = random(&[3, 4], 1);
    let mut nan = good.clone();
    nan[[1, 2]] = f64::NAN;
    let refuse = |distiller: &dyn Distiller, student: &ArrayD<f64>, teacher: &ArrayD<f64>| {
        distiller.apply(&Signals::new(student, teacher)).unwrap_err()
    };
    let all = between_samples();
    for distiller in all.iter().map(|distiller| &**distiller).chain([&neighbours() as &dyn Distiller]) {
        for (what, student, teacher) in [("the student's signal", &nan, &good), ("the teacher's signal", &good, &nan)] {
            let error = refuse(distiller, student, teacher);
            assert!(matches!(error, Error::NotFinite { what: found, index: 6, .. } if found == what), "{error}");
        }
        let empty = ArrayD::zeros(vec![0, 4]);
        assert!(matches!(refuse(distiller, &empty, &empty), Error::Empty { what: "the student's signal" }));
        let featureless = ArrayD::zeros(vec![3, 0]);
        assert!(matches!(refuse(distiller, &featureless, &good), Error::Empty { what: "the student's signal" }));
        let line = random(&[3], 1);
        let error = refuse(distiller, &line, &line);
        assert!(matches!(error, Error::Rank { what: "the student's signal", .. }), "{error}");
        let error = refuse(distiller, &good, &random(&[4, 4], 1));
        assert!(matches!(error, Error::Shape { what: "the teacher's signal", .. }), "{error}");
    }
    for distiller in &all {
        let Error::Shape { expected, found, .. } = refuse(&**distiller, &good, &random(&[2, 5, 6], 1)) else {
            panic!("another error");
        };
        assert_eq!((expected, found), (vec![3, 5, 6], vec![2, 5, 6]));
        let error = refuse(&**distiller, &good, &random(&[3], 1));
        assert!(matches!(error, Error::Rank { what: "the teacher's signal", .. }), "{error}");
    }
    assert!(matches!(refuse(&neighbours(), &good, &random(&[3, 5], 1)), Error::Shape { .. }));
    let error = refuse(&neighbours(), &(&good * 1e200), &(&good * -1e200));
    assert!(matches!(error, Error::NotFinite { what: "the loss", .. }), "{error}");
}

#[test]
fn bad_settings_of_kernels_are_errors() {
    let good = random(&[3, 4], 1);
    let refuse = |gamma, order| {
        let loss = CorrelationCongruence::new().correlation(Correlation::Gaussian { gamma, order });
        loss.apply(&Signals::new(&good, &good)).unwrap_err()
    };
    for gamma in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(refuse(gamma, 2), Error::Setting { setting: "gamma", .. }));
    }
    for order in [0, 101, usize::MAX] {
        assert!(matches!(refuse(0.4, order), Error::Setting { setting: "order", .. }));
    }
    for gamma in [1e-300, 1e3, f64::MAX] {
        let loss = CorrelationCongruence::new().correlation(Correlation::Gaussian { gamma, order: 100 });
        let loss = apply(&loss, &good, &random(&[3, 2], 2));
        assert!(loss.value.is_finite() && loss.gradient.iter().all(|slope| slope.is_finite()));
    }
}

#[test]
fn bad_positions_are_errors() {
    let good = transformers(2, 3, 3, 1);
    let refuse = |distiller: &dyn Distiller, given: &Given| distiller.apply(&given.signals()).unwrap_err();
    let all: [&dyn Distiller; 2] = [&Relations::new(2), &Attentions::new(2)];
    for distiller in all {
        let with = |student: &[usize], teacher: &[usize]| Given {
            second: good.second.clone(),
            ..Given::new(random(student, 1), random(teacher, 2))
        };
        let error = refuse(distiller, &with(&[2, 6], &[2, 3, 12]));
        assert!(matches!(error, Error::Rank { what: "the student's signal", .. }), "{error}");
        let error = refuse(distiller, &with(&[2, 3, 6], &[2, 3, 2, 6]));
        assert!(matches!(error, Error::Rank { what: "the teacher's signal", .. }), "{error}");
        for teacher in [[1, 3, 12], [2, 4, 12]] {
            let error = refuse(distiller, &with(&[2, 3, 6], &teacher));
            assert!(matches!(error, Error::Shape { what: "the teacher's signal", .. }), "{error}");
        }
        let mut nan = good.clone();
        nan.teacher[[0, 0, 1]] = f64::INFINITY;
        let error = refuse(distiller, &nan);
        assert!(matches!(error, Error::NotFinite { what: "the teacher's signal", index: 1, .. }), "{error}");
        let mut large = good.clone();
        large.student.fill(1e200);
        large.second.as_mut().unwrap()[0].fill(1e200);
        let error = refuse(distiller, &large);
        assert!(matches!(error, Error::NotFinite { what: "the loss", .. }), "{error}");
    }
    for heads in [0, 4, 5, 12, usize::MAX] {
        let all: [&dyn Distiller; 2] = [&Relations::new(heads), &Attentions::new(heads)];
        for distiller in all {
            let error = refuse(distiller, &good);
            assert!(matches!(error, Error::Setting { setting: "heads", .. }), "{error}");
        }
    }
    let ten = Given::new(random(&[2, 3, 6], 1), random(&[2, 3, 10], 1));
    assert!(matches!(refuse(&Relations::new(3), &ten), Error::Setting { setting: "heads", value: 3.0, .. }));

    let attentions = Attentions::new(2);
    let error = refuse(&attentions, &Given { second: None, ..good.clone() });
    assert!(error.to_string().contains("Signals::and"), "{error}");
    let with_keys = |shapes: [&[usize]; 2]| Given {
        second: Some(array::from_fn(|index| random(shapes[index], 3))),
        ..good.clone()
    };
    let error = refuse(&attentions, &with_keys([&[2, 18], &[2, 3, 12]]));
    assert!(matches!(error, Error::Rank { what: "the student's second signal", .. }), "{error}");
    for keys in [[1, 3, 6], [2, 3, 12]] {
        let error = refuse(&attentions, &with_keys([&keys, &[2, 3, 12]]));
        assert!(matches!(error, Error::Shape { what: "the student's second signal", .. }), "{error}");
    }
    for keys in [[1, 3, 12], [2, 4, 12], [2, 3, 6]] {
        let error = refuse(&attentions, &with_keys([&[2, 3, 6], &keys]));
        assert!(matches!(error, Error::Shape { what: "the teacher's second signal", .. }), "{error}");
    }
    let longer = with_keys([&[2, 5, 6], &[2, 5, 12]]);
    assert!(attentions.apply(&longer.signals()).is_ok()); // cross-attention
    assert!(matches!(refuse(&attentions.causal(), &longer), Error::Shape { what: "the student's second signal", .. }));
}
