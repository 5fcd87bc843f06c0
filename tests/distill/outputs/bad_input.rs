//! Every bad input of losses on outputs is an error that names it.

use ndarray::{Array1, Array2, ArrayD, array};
use tersor::{
    Distiller, Error, Result, Signals,
    distill::{Average, Divergence, Ensemble, Loss, Schedule},
};

use super::{Scaled, every_distiller};
use crate::{common::normal, differences::Given};

/// The setting and value that an error names.
#[track_caller]
fn assert_setting(distiller: &dyn Distiller, expected: &str, bad: f64) {
    let logits = array![[0.0, 1.0]];
    match distiller.apply(&Signals::new(&logits, &logits).labels(&[0])) {
        Err(Error::Setting { setting, value, .. }) => {
            assert_eq!(setting, expected);
            assert!(value == bad || value.is_nan() && bad.is_nan(), "{value}");
        }
        other => panic!("{distiller:?}: {other:?}"),
    }
}

#[test]
fn settings_out_of_range_are_named() {
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_setting(&Distiller::soft_targets(bad), "temperature", bad);
        assert_setting(&Distiller::soft_targets(Schedule::linear(bad, 1.0)), "temperature", bad);
        assert_setting(&Distiller::soft_targets(Schedule::linear(1.0, bad)).standardized(), "temperature", bad);
        assert_setting(&Distiller::dkd().temperature(bad), "temperature", bad);
        assert_setting(&Distiller::dist().temperature(bad), "temperature", bad);
        assert_setting(&Distiller::dist().epsilon(bad), "epsilon", bad);
        assert_setting(&Distiller::logits().standardized().epsilon(bad), "epsilon", bad);
    }
    for bad in [-0.1, f64::NAN, f64::INFINITY] {
        assert_setting(&Distiller::dkd().alpha(bad), "alpha", bad);
        assert_setting(&Distiller::dkd().beta(Schedule::warm_up(bad, 0.1)), "beta", bad);
        assert_setting(&Distiller::dist().beta(bad), "beta", bad);
        assert_setting(&Distiller::dist().gamma(bad), "gamma", bad);
        assert_setting(&Distiller::mix().term(1.0, Distiller::logits()).term(bad, Distiller::logits()), "weight", bad);
    }
    for bad in [-0.1, 1.1, f64::NAN] {
        assert_setting(&Distiller::hard_labels().label_smoothing(bad), "label_smoothing", bad);
        let divergence = Divergence::JensenShannon { beta: bad };
        assert_setting(&Distiller::soft_targets(1.0).divergence(divergence), "beta", bad);
        let window = Schedule::linear(1.0, 2.0).over(bad, 1.0);
        assert_setting(&Distiller::soft_targets(window), "the window of a schedule", bad);
    }
}

#[test]
fn bad_signals_are_named_by_every_loss() {
    let good = array![[0.0, 1.0, 2.0], [1.0, 0.0, 0.0]];
    let signals = || Signals::new(&good, &good).labels(&[0, 2]);
    let (empty, line) = (Array2::<f64>::zeros((0, 3)), Array1::<f64>::zeros(3));
    let spoiled = array![[0.0, 1.0, 2.0], [1.0, f64::NAN, 0.0]];
    for distiller in every_distiller() {
        let apply = |signals: Signals<'_>| distiller.apply(&signals);
        assert!(apply(signals()).is_ok());
        assert!(matches!(apply(Signals::new(&empty, &empty)), Err(Error::Empty { .. })), "{distiller:?}");
        let found = apply(Signals::new(&spoiled, &good).labels(&[0, 2]));
        assert!(matches!(found, Err(Error::NotFinite { index: 4, .. })), "{distiller:?}: {found:?}");
        for bad in [-0.1, 1.1, f64::NAN] {
            let found = apply(signals().progress(bad));
            assert!(matches!(found, Err(Error::Setting { setting: "progress", .. })), "{distiller:?}: {found:?}");
        }
        let found = apply(Signals::new(&line, &line).labels(&[0]));
        assert!(matches!(found, Err(Error::Rank { .. })), "{distiller:?}: {found:?}");
        let found = apply(signals().sample_weights(&[1.0]));
        assert!(matches!(found, Err(Error::Shape { what: "sample_weights", .. })), "{distiller:?}: {found:?}");
        let found = apply(signals().class_weights(&[1.0, 2.0]));
        assert!(matches!(found, Err(Error::Shape { what: "class_weights", .. })), "{distiller:?}: {found:?}");
        let found = apply(signals().sample_weights(&[1.0, -1.0]));
        assert!(matches!(found, Err(Error::Setting { setting: "sample_weights", .. })), "{distiller:?}: {found:?}");
        let found = apply(signals().class_weights(&[1.0, 1.0, f64::NAN]));
        assert!(matches!(found, Err(Error::Setting { setting: "class_weights", .. })), "{distiller:?}: {found:?}");
        let found = apply(signals().labels(&[0]));
        assert!(matches!(found, Err(Error::Shape { what: "labels", .. })), "{distiller:?}: {found:?}");
        let found = apply(signals().labels(&[0, 3]));
        assert!(matches!(found, Err(Error::Label { label: 3, index: 1, classes: 3 })), "{distiller:?}: {found:?}");
    }
}

#[test]
fn a_teacher_that_does_not_fit_is_an_error_where_it_is_read() {
    let (good, other) = (array![[0.0, 1.0]], array![[0.0, 1.0, f64::NAN]]);
    let signals = Signals::new(&good, &other).labels(&[0]);
    assert!(Distiller::hard_labels().apply(&signals).is_ok());
    for distiller in [&Distiller::dkd() as &dyn Distiller, &Distiller::dist(), &Distiller::logits().standardized()] {
        assert!(matches!(distiller.apply(&signals), Err(Error::NotFinite { index: 2, .. })));
        let wide = array![[0.0, 1.0, 2.0]];
        assert!(matches!(distiller.apply(&Signals::new(&good, &wide).labels(&[0])), Err(Error::Shape { .. })));
    }
}

#[test]
fn losses_that_read_labels_say_so() {
    let logits = array![[0.0, 1.0]];
    for distiller in [&Distiller::dkd() as &dyn Distiller, &Distiller::hard_labels(), &Distiller::dkd().standardized()]
    {
        let error = distiller.apply(&Signals::new(&logits, &logits)).unwrap_err();
        assert!(matches!(&error, Error::Conflict { remedy, .. } if remedy.contains("Signals::labels")), "{error}");
    }
}

#[test]
fn mixes_of_nothing_and_wrong_parameters_are_errors() {
    let logits = array![[0.0, 1.0]];
    let signals = Signals::new(&logits, &logits);
    assert!(matches!(Distiller::mix().apply(&signals), Err(Error::Empty { what: "the mix of losses" })));
    let one: [ArrayD<f64>; 1] = [ndarray::arr0(1.0).into_dyn()];
    let mix = Distiller::mix().term(1.0, Scaled).term(1.0, Scaled);
    for given in [&one[..], &[]] {
        assert!(matches!(mix.apply(&signals.clone().parameters(given)), Err(Error::Conflict { .. })));
    }
}

#[test]
fn bad_ensembles_are_errors() {
    let student = array![[0.0, 1.0], [1.0, 0.0]];
    let signals = Signals::new(&student, &student);
    let soft = Distiller::soft_targets(1.0);
    for average in [Average::Logits, Average::Probabilities, Average::Losses] {
        let apply = |ensemble: &Ensemble, teachers: &[ArrayD<f64>]| ensemble.apply(&soft, &signals, teachers);
        let ensemble = Ensemble::new(average);
        let teacher = student.clone().into_dyn();
        assert!(matches!(apply(&ensemble, &[]), Err(Error::Empty { .. })));
        let none = ArrayD::zeros(vec![0, 2]);
        assert!(matches!(apply(&ensemble, &[teacher.clone(), none]), Err(Error::Empty { .. })));
        let spoiled = array![[0.0, 1.0], [f64::INFINITY, 0.0]].into_dyn();
        assert!(matches!(apply(&ensemble, &[teacher.clone(), spoiled]), Err(Error::NotFinite { index: 2, .. })));
        let wide = array![[0.0, 1.0, 2.0], [1.0, 0.0, 0.0]].into_dyn();
        assert!(matches!(apply(&ensemble, &[teacher.clone(), wide.clone()]), Err(Error::Shape { .. })));
        assert!(matches!(apply(&ensemble, &[wide.clone(), wide]), Err(Error::Shape { .. })));
        let long = array![[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]].into_dyn();
        assert!(matches!(apply(&ensemble.clone().by_entropy(), &[long.clone(), long]), Err(Error::Shape { .. })));
        let scalar = ndarray::arr0(1.0).into_dyn();
        assert!(matches!(apply(&ensemble.clone().by_entropy(), &[scalar]), Err(Error::Rank { .. })));

        let two = [teacher.clone(), teacher];
        for weights in [vec![], vec![1.0], vec![1.0; 3]] {
            let found = apply(&ensemble.clone().weights(weights), &two);
            assert!(matches!(found, Err(Error::Shape { what: "weights", .. })), "{found:?}");
        }
        for weights in [[1.0, -1.0], [f64::NAN, 1.0], [f64::INFINITY, 1.0], [0.0, 0.0], [f64::MAX, f64::MAX]] {
            for ensemble in [ensemble.clone(), ensemble.clone().by_entropy()] {
                let found = apply(&ensemble.weights(weights), &two);
                assert!(matches!(found, Err(Error::Setting { .. })), "{found:?}");
            }
        }
        let found = ensemble.apply(&Distiller::soft_targets(0.0), &signals, &two);
        assert!(matches!(found, Err(Error::Setting { setting: "temperature", .. })), "{found:?}");
        let short = signals.clone().sample_weights(&[1.0]);
        for ensemble in [ensemble.clone(), ensemble.clone().by_entropy()] {
            assert!(matches!(ensemble.apply(&soft, &short, &two), Err(Error::Shape { what: "sample_weights", .. })));
        }
        if average == Average::Losses {
            assert!(matches!(ensemble.combine(&two, 1.0), Err(Error::Conflict { .. })));
        } else {
            let found = ensemble.combine(&two, -1.0);
            assert!(matches!(found, Err(Error::Setting { setting: "temperature", value: -1.0, .. })));
        }
    }
}

/// A loss that gives something else than its gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    First,
    Second,
    Parameter,
    NoParameter,
    TwoParameters,
    Value,
    Slope,
}

impl Distiller for Wrong {
    fn apply(&self, signals: &Signals<'_>) -> Result<Loss> {
        let [right, wrong] = [ArrayD::zeros(signals.student()?.raw_dim()), ArrayD::zeros(vec![4])];
        let one = || ArrayD::zeros(vec![1]);
        let loss = Loss::new(if *self == Wrong::Value { f64::NAN } else { 0.0 }, right.clone());
        Ok(match self {
            Wrong::First => Loss::new(0.0, wrong).with_parameters(vec![one()]),
            Wrong::Second => loss.with_second(wrong).with_parameters(vec![one()]),
            Wrong::Parameter => loss.with_parameters(vec![wrong]),
            Wrong::NoParameter => loss,
            Wrong::TwoParameters => loss.with_parameters(vec![one(), one()]),
            Wrong::Value => loss.with_parameters(vec![one()]),
            Wrong::Slope => Loss::new(0.0, right / 0.0).with_parameters(vec![one()]),
        })
    }

    fn parameters(&self, _: &[usize], _: &[usize], _: u64) -> Result<Vec<(String, ArrayD<f64>)>> {
        Ok(vec![("own".into(), ArrayD::zeros(vec![1]))])
    }
}

/// What becomes of it in all that stands around a loss.
fn around(wrong: Wrong, signals: &Signals<'_>, teacher: &ArrayD<f64>) -> Vec<Result<Loss>> {
    let mix = Distiller::mix().term(1.0, wrong).term(1.0, Distiller::logits());
    let mut found = vec![mix.apply(signals), wrong.standardized().apply(signals)];
    found.push(wrong.projected().where_needed().apply(signals));
    for average in [Average::Logits, Average::Probabilities, Average::Losses] {
        found.push(Ensemble::new(average).apply(&wrong, signals, &[teacher.view(), teacher.view()]));
    }
    found
}

#[test]
fn gradients_of_another_shape_or_number_are_an_error_whatever_stands_around_the_loss() {
    let (logits, own) = (array![[0.0, 1.0]].into_dyn(), [ArrayD::zeros(vec![1])]);
    let one = Signals::new(&logits, &logits).parameters(&own);
    let two = one.clone().and(&logits, &logits);
    for found in [(Wrong::First, &one), (Wrong::Second, &two), (Wrong::Parameter, &one)]
        .into_iter()
        .flat_map(|(wrong, signals)| around(wrong, signals, &logits))
    {
        assert!(matches!(found, Err(Error::Shape { what: "a gradient that the loss gave", .. })), "{found:?}");
    }
    // A second gradient without a second signal, and other numbers of those for parameters.
    for wrong in [Wrong::Second, Wrong::NoParameter, Wrong::TwoParameters] {
        for found in around(wrong, &one, &logits) {
            assert!(matches!(found, Err(Error::Conflict { .. })), "{wrong:?}: {found:?}");
        }
    }
    for found in [Wrong::Value, Wrong::Slope].into_iter().flat_map(|wrong| around(wrong, &one, &logits)) {
        assert!(matches!(found, Err(Error::NotFinite { .. })), "{found:?}");
    }
}

#[test]
fn signals_of_two_layers_want_a_loss_that_reads_both() {
    let logits = array![[0.0, 1.0]].into_dyn();
    let signals = Signals::new(&logits, &logits).and(&logits, &logits);
    let found = Ensemble::new(Average::Logits).apply(&Distiller::logits(), &signals, &[logits.view()]);
    assert!(matches!(&found, Err(Error::Conflict { what, .. }) if what.contains("two layers")), "{found:?}");
    let mix = Distiller::mix().term(1.0, Distiller::logits()).term(1.0, Distiller::fsp());
    assert!(Ensemble::new(Average::Logits).apply(&mix, &signals, &[logits.view()]).is_ok()); // as a whole it does
}

/// Every built-in loss, with signals that it takes.
fn every_loss() -> Vec<(Box<dyn Distiller>, Given)> {
    let array = |shape: &[usize], seed| normal(1, shape.iter().product(), seed).mapv(f64::from).into_shape_clone(shape);
    let array = |shape: &[usize], seed| array(shape, seed).unwrap();
    let logits = || Given { labels: Some(vec![0, 1]), ..Given::new(array(&[2, 3], 1), array(&[2, 3], 2)) };
    let sequences = || Given::new(array(&[2, 3, 4], 3), array(&[2, 3, 4], 4));
    let layers = || Given { second: Some([array(&[2, 3, 4], 5), array(&[2, 3, 4], 6)]), ..sequences() };
    let mut all = vec![];
    for distiller in every_distiller() {
        all.push((distiller, logits()));
    }
    let features: Vec<Box<dyn Distiller>> = vec![
        Box::new(Distiller::hint()),
        Box::new(Distiller::hint().without_regressor()),
        Box::new(Distiller::attention()),
        Box::new(Distiller::nst()),
        Box::new(Distiller::channel_wise(2.0)),
        Box::new(Distiller::vid()),
        Box::new(Distiller::cosine()),
        Box::new(Distiller::rkd_distance()),
        Box::new(Distiller::rkd_angle()),
        Box::new(Distiller::similarity_preserving()),
        Box::new(Distiller::correlation_congruence()),
        Box::new(Distiller::pkt()),
        Box::new(Distiller::relations(2)),
    ];
    all.extend(features.into_iter().map(|distiller| (distiller, sequences())));
    all.push((Box::new(Distiller::fsp()), layers()));
    all.push((Box::new(Distiller::attentions(2)), layers()));
    for (distiller, given) in &mut all {
        let own = distiller.parameters(given.student.shape(), given.teacher.shape(), 0).unwrap();
        given.parameters = own.into_iter().map(|(_, array)| array).collect();
    }
    all
}

#[test]
fn no_loss_takes_more_parameters_than_it_has() {
    for (distiller, mut given) in every_loss() {
        distiller.apply(&given.signals()).unwrap_or_else(|error| panic!("{distiller:?}: {error}"));
        given.parameters.push(ArrayD::zeros(vec![3]));
        let found = distiller.apply(&given.signals());
        assert!(matches!(found, Err(Error::Conflict { .. })), "{distiller:?}: {found:?}");
    }
}

#[test]
fn no_loss_is_told_that_is_not_finite() {
    for (distiller, given) in every_loss() {
        for scale in [1e154, 1e200, 1e300] {
            let [student, teacher] = [&given.student * scale, &given.teacher * -scale];
            let second = given.second.clone().map(|second| second.map(|array| array * scale));
            match distiller.apply(&Given { student, teacher, second, ..given.clone() }.signals()) {
                Ok(loss) => {
                    let gradients = [&loss.gradient].into_iter().chain(&loss.second).chain(&loss.parameters);
                    let finite = loss.value.is_finite() && gradients.flatten().all(|slope| slope.is_finite());
                    assert!(finite, "{distiller:?}, {scale:e}: {loss:?}");
                }
                Err(error) => assert!(matches!(error, Error::NotFinite { .. }), "{distiller:?}, {scale:e}: {error}"),
            }
        }
    }
    let logits = array![[1.0, 2.0]];
    let found = Distiller::soft_targets(1e155).apply(&Signals::new(&logits, &logits)); // whose square is inf
    assert!(matches!(found, Err(Error::NotFinite { .. })), "{found:?}");
}

#[test]
fn weights_whose_sum_overflows_are_errors() {
    let logits = array![[1.0, 2.0], [0.0, 3.0]];
    let huge = [1e308; 2];
    let signals = || Signals::new(&logits, &logits);
    for reduction in super::REDUCTIONS {
        for signals in [signals().sample_weights(&huge), signals().class_weights(&huge)] {
            let found = Distiller::logits().reduction(reduction).apply(&signals);
            assert!(matches!(found, Err(Error::Setting { value: f64::INFINITY, .. })), "{found:?}");
        }
    }
}

#[test]
fn errors_speak_of_what_was_given() {
    let wide = Given::new(ArrayD::ones(vec![2, 8]), ArrayD::ones(vec![2, 64]));
    let error = Distiller::attention().apply(&wide.signals()).unwrap_err().to_string();
    assert_eq!(error, "the teacher's signal has shape [2, 64], but shape [2, 8] is needed");
    let spoiled = array![[0.0, f64::NAN]];
    let error = Distiller::logits().apply(&Signals::new(&spoiled, &spoiled)).unwrap_err().to_string();
    assert!(error.starts_with("element 1 of the student's signal is NaN;"), "{error}");
    let large = array![[1e200, 0.0]];
    let error = Distiller::logits().apply(&Signals::new(&large, &-&large)).unwrap_err().to_string();
    assert!(error.starts_with("element 0 of the loss is inf;"), "{error}");
}
