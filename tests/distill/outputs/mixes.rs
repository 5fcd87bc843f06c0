//! Weighted sums of losses.

use ndarray::{Array2, ArrayD, arr0, array};
use tersor::{
    Distiller, Signals,
    distill::{Loss, Schedule},
};

use super::{Scaled, Smooth, assert_same};
use crate::differences::{Given, check};

fn pair() -> (Array2<f64>, Array2<f64>) {
    (array![[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]], array![[1.0, 2.0, 4.0], [1.0, 0.0, 0.0]])
}

#[test]
fn a_mix_is_the_sum_of_its_terms_weighted_as_scheduled() {
    let (student, teacher) = pair();
    let terms: [Box<dyn Distiller>; 2] = [Box::new(Distiller::soft_targets(4.0)), Box::new(Smooth)];
    let mix = Distiller::mix().term(Schedule::linear(1.0, 3.0), Distiller::soft_targets(4.0)).term(0.5, Smooth);
    for (progress, weight) in [(0.0, 1.0), (0.25, 1.5), (1.0, 3.0)] {
        let signals = Signals::new(&student, &teacher).progress(progress);
        let [soft, smooth] = terms.each_ref().map(|term| term.apply(&signals).unwrap());
        let sum = Loss::new(weight * soft.value + 0.5 * smooth.value, weight * soft.gradient + 0.5 * smooth.gradient);
        assert_same(&mix.apply(&signals).unwrap(), &sum, 1e-15);
    }
}

#[test]
fn a_mix_has_the_first_temperature_of_its_terms_that_softens() {
    let mix = || Distiller::mix().term(1.0, Distiller::soft_targets(Schedule::linear(4.0, 2.0)));
    assert_eq!(mix().temperature(0.5), 3.0);
    assert_eq!(Distiller::mix().term(1.0, Distiller::logits()).temperature(0.0), 1.0);
    assert_eq!(Distiller::mix().term(1.0, Distiller::hard_labels()).term(1.0, mix()).temperature(0.0), 4.0);
    let dkd: &dyn Distiller = &Distiller::dkd().temperature(5.0).standardized();
    assert_eq!(dkd.temperature(0.0), 5.0);
}

#[test]
fn a_mix_hands_each_term_its_own_parameters() {
    let (student, teacher) = pair();
    let mix = Distiller::mix().term(2.0, Smooth).term(3.0, Scaled).term(0.5, Scaled.standardized().epsilon(0.5));
    let parameters = |seed| mix.parameters(&[2, 3], &[2, 3], seed).unwrap();
    let (first, again, other) = (parameters(1), parameters(1), parameters(2));
    assert_eq!(first.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["1.factor", "2.factor"]);
    assert!(first == again && first != other && first[0].1 != first[1].1);

    let own: Vec<ArrayD<f64>> = vec![arr0(2.0).into_dyn(), arr0(-0.5).into_dyn()];
    let signals = Signals::new(&student, &teacher).parameters(&own);
    let one = Scaled.apply(&Signals::new(&student, &teacher).parameters(&own[..1])).unwrap();
    assert_eq!(mix.apply(&signals).unwrap().parameters[0], 3.0 * &one.parameters[0]);
    check(&mix, &Given { parameters: own, ..Given::new(student.into_dyn(), teacher.into_dyn()) });
}

#[test]
fn a_mix_adds_gradients_for_second_signals() {
    /// The first signals' product with the second.
    #[derive(Debug)]
    struct Product;
    impl Distiller for Product {
        fn apply(&self, signals: &Signals<'_>) -> tersor::Result<Loss> {
            let (student, [second, _]) = (signals.student()?, signals.second()?);
            let gradients = (second.to_owned(), student.to_owned());
            Ok(Loss::new((&student * &second).sum(), gradients.0).with_second(gradients.1))
        }
    }
    let (student, teacher) = pair();
    let second = [teacher.clone(), student.clone()].map(Array2::into_dyn);
    let given = Given { second: Some(second), ..Given::new(student.into_dyn(), teacher.into_dyn()) };
    let mix = Distiller::mix().term(1.0, Smooth).term(2.0, Product).term(0.5, Product.standardized().epsilon(1.0));
    check(&mix, &given);
    let twice = Distiller::mix().term(2.0, Product).apply(&given.signals()).unwrap();
    assert_eq!(twice.second.unwrap(), 2.0 * &given.student);
}
