//! Exact gradients against finite differences, on random and extreme logits.

use ndarray::{ArrayD, IxDyn, array};
use proptest::prelude::*;
use tersor::{
    Distiller, Result, Signals,
    distill::{Divergence, Loss},
};

use super::{every_distiller, given};
use crate::differences::{Given, check};

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_gradient_is_that_of_finite_differences(given in given(false)) {
        every_distiller().iter().for_each(|distiller| check(&**distiller, &given));
    }

    #[test]
    fn every_weighted_gradient_is_that_of_finite_differences(given in given(true)) {
        every_distiller().iter().for_each(|distiller| check(&**distiller, &given));
    }
}

#[test]
fn gradients_are_exact_where_students_and_teachers_are_the_same_or_constant() {
    let constant = || ArrayD::from_elem(IxDyn(&[2, 3]), 0.7);
    let varied = || array![[1.0, -2.0, 0.5], [3.0, 0.0, -1.0]].into_dyn();
    for (student, teacher) in
        [(varied(), varied()), (constant(), varied()), (varied(), constant()), (constant(), constant())]
    {
        let given = Given { labels: Some(vec![2, 0]), ..Given::new(student, teacher) };
        every_distiller().iter().for_each(|distiller| check(&**distiller, &given));
    }
}

#[test]
fn default_guards_are_too_small_to_be_seen_where_rows_vary() {
    let given = Given::new(
        array![[1.0, -2.0, 0.5], [3.0, 0.0, -1.0], [0.1, 0.2, 0.9]].into_dyn(),
        array![[0.0, -1.0, 0.5], [2.0, 0.5, -1.0], [0.4, 0.1, 0.3]].into_dyn(),
    );
    check(&Distiller::soft_targets(2.0).standardized(), &given);
    check(&Distiller::dist(), &given);
}

#[test]
fn logits_of_any_size_give_finite_losses() {
    let huge = f64::from(f32::MAX);
    for cold in [1.0, 1e-30] {
        let all: Vec<Box<dyn Distiller>> = vec![
            Box::new(Distiller::soft_targets(cold)),
            Box::new(Distiller::soft_targets(cold).divergence(Divergence::Reverse)),
            Box::new(Distiller::soft_targets(cold).standardized()),
            Box::new(Distiller::logits()),
            Box::new(Distiller::hard_labels()),
            Box::new(Distiller::dkd().temperature(cold)),
            Box::new(Distiller::dist().temperature(cold)),
        ];
        let rows = array![[huge, -huge, 0.0], [-huge, huge, huge], [0.0, 0.0, 0.0], [1e4, -1e4, 1e4]].into_dyn();
        for label in 0..3 {
            for teacher in [rows.clone(), -&rows, &rows * 1e-30] {
                let given = Given { labels: Some(vec![label; 4]), ..Given::new(rows.clone(), teacher) };
                for distiller in &all {
                    let loss = distiller.apply(&given.signals()).unwrap();
                    let finite = loss.value.is_finite() && loss.gradient.iter().all(|slope| slope.is_finite());
                    assert!(finite, "{distiller:?}: {loss:?} for {given:?}");
                }
            }
        }
    }
    let most = array![[f64::MAX, f64::MIN, 0.0]].into_dyn();
    let given = Given { labels: Some(vec![1]), ..Given::new(most.clone(), -most) };
    for distiller in [&Distiller::soft_targets(4.0) as &dyn Distiller, &Distiller::hard_labels(), &Distiller::dkd()] {
        let loss = distiller.apply(&given.signals()).unwrap();
        assert!(
            loss.value.is_finite() && loss.gradient.iter().all(|slope| slope.is_finite()),
            "{distiller:?}: {loss:?}"
        );
    }
}

#[test]
#[should_panic(expected = "for element 0 of Student")]
fn a_gradient_that_is_wrong_in_the_fifth_digit_is_noticed() {
    #[derive(Debug)]
    struct Wrong;
    impl Distiller for Wrong {
        fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
            let loss = Distiller::soft_targets(2.0).apply(signals)?;
            Ok(Loss::new(loss.value, loss.gradient * (1.0 + 1e-5)))
        }
    }
    check(&Wrong, &Given::new(array![[1.0, -2.0, 0.5]].into_dyn(), array![[0.0, 1.0, 0.0]].into_dyn()));
}
