//! What theory says of losses on outputs.

use ndarray::{Array2, ArrayD, Axis, array};
use proptest::prelude::*;
use tersor::{
    Distiller, Signals,
    distill::{Divergence, Loss},
};

use super::{Smooth, assert_close, assert_same, every_distiller, given};
use crate::differences::Given;

fn pair() -> (Array2<f64>, Array2<f64>) {
    (array![[1.0, 2.0, 3.0]], array![[1.0, 2.0, 4.0]])
}

/// Rows of `softmax(logits / temperature)`, plainly.
fn softmax(logits: &Array2<f64>, temperature: f64) -> Array2<f64> {
    let powers = logits.mapv(|z| (z / temperature).exp());
    let sums = powers.sum_axis(Axis(1)).insert_axis(Axis(1));
    powers / sums
}

#[test]
fn soft_targets_have_the_published_numbers() {
    let (student, teacher) = pair();
    for (temperature, expected) in [(1.0, 0.0815546794), (2.0, 0.1206669846), (4.0, 0.1241053348)] {
        let loss = Distiller::soft_targets(temperature).apply(&Signals::new(&student, &teacher)).unwrap();
        assert_close(loss.value, expected, 1e-10);
        let without = Distiller::soft_targets(temperature).without_t2();
        let without = without.apply(&Signals::new(&student, &teacher)).unwrap();
        assert_same(&without.scaled(temperature * temperature), &loss, 1e-14);
    }
}

#[test]
fn a_hot_soft_target_is_half_the_mean_square_of_centred_differences() {
    let (student, teacher) = (array![[1.0, 2.0, 3.0, -1.0]], array![[1.0, -2.0, 4.0, 0.5]]);
    let difference = &student - &teacher;
    let centred = &difference - difference.mean().unwrap();
    let limit = centred.mapv(|d| d * d).sum() / 8.0;
    for divergence in [Divergence::Forward, Divergence::Reverse] {
        let distiller = Distiller::soft_targets(1e5).divergence(divergence);
        let loss = distiller.apply(&Signals::new(&student, &teacher)).unwrap();
        assert_close(loss.value, limit, 1e-4);
        let gradient = centred.mapv(|d| d / 4.0).into_dyn();
        loss.gradient.iter().zip(&gradient).for_each(|(found, expected)| assert_close(*found, *expected, 1e-4));
    }
}

#[test]
fn reverse_is_forward_with_the_roles_exchanged() {
    let (student, teacher) = pair();
    let reverse = Distiller::soft_targets(3.0).divergence(Divergence::Reverse);
    let reverse = reverse.apply(&Signals::new(&student, &teacher)).unwrap();
    let forward = Distiller::soft_targets(3.0).apply(&Signals::new(&teacher, &student)).unwrap();
    assert_close(reverse.value, forward.value, 1e-14);
}

#[test]
fn jensen_shannon_is_symmetric_bounded_and_has_both_divergences_as_limits() {
    let jensen_shannon = |beta| Distiller::soft_targets(1.0).divergence(Divergence::JensenShannon { beta });
    let (student, teacher) = pair();
    let (there, back) = (Signals::new(&student, &teacher), Signals::new(&teacher, &student));
    for beta in [0.1, 0.5, 0.8] {
        let mirrored = jensen_shannon(1.0 - beta).apply(&back).unwrap().value;
        assert_close(jensen_shannon(beta).apply(&there).unwrap().value, mirrored, 1e-14);
    }
    // From the definition, with distributions and not their logarithms.
    let [p_s, p_t] = [&student, &teacher].map(|logits| softmax(logits, 1.0));
    let m = 0.3 * &p_t + 0.7 * &p_s;
    let kl = |p: &Array2<f64>| (p * (p / &m).mapv(f64::ln)).sum();
    assert_close(jensen_shannon(0.3).apply(&there).unwrap().value, 0.3 * kl(&p_t) + 0.7 * kl(&p_s), 1e-14);
    // Nothing in common: log 2, the most there is.
    let (one, other) = (array![[1e4, 0.0]], array![[0.0, 1e4]]);
    assert_close(jensen_shannon(0.5).apply(&Signals::new(&one, &other)).unwrap().value, 2f64.ln(), 1e-15);

    let divergence = |divergence| Distiller::soft_targets(1.0).divergence(divergence).apply(&there).unwrap();
    let small = 1e-7;
    let limit = jensen_shannon(small).apply(&there).unwrap().scaled(1.0 / small);
    assert_same(&limit, &divergence(Divergence::Forward), 1e-6);
    let limit = jensen_shannon(1.0 - small).apply(&there).unwrap().scaled(1.0 / small);
    assert_same(&limit, &divergence(Divergence::Reverse), 1e-6);
    for beta in [0.0, 1.0] {
        let loss = jensen_shannon(beta).apply(&there).unwrap();
        assert_eq!((loss.value, loss.gradient), (0.0, ArrayD::zeros(student.shape())));
    }
}

/// The probability of the label of the one row, softened.
fn of_label(given: &Given, temperature: f64) -> f64 {
    let label = given.labels.as_ref().unwrap()[0];
    let largest = given.teacher.iter().fold(f64::NEG_INFINITY, |largest, z| largest.max(*z));
    let powers = given.teacher.mapv(|z| ((z - largest) / temperature).exp());
    powers.as_slice().unwrap()[label] / powers.sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn soft_targets_are_both_parts_of_dkd_sample_by_sample(given in given(true), temperature in 0.5..8.0f64) {
        let classes = *given.student.shape().last().unwrap();
        let scale = given.student.iter().chain(&given.teacher).fold(1f64, |scale, z| scale.max(z.abs())) / temperature;
        for (row, label) in given.labels.as_ref().unwrap().iter().enumerate() {
            let pick = |logits: &ArrayD<f64>| {
                let row = logits.as_slice().unwrap()[row * classes..][..classes].to_vec();
                ArrayD::from_shape_vec(vec![1, classes], row).unwrap()
            };
            let one = Given {
                labels: Some(vec![*label]),
                class_weights: given.class_weights.clone(),
                ..Given::new(pick(&given.student), pick(&given.teacher))
            };
            let part = |one: &Given, alpha: f64, beta: f64| {
                let dkd = Distiller::dkd().alpha(alpha).beta(beta).temperature(temperature);
                dkd.apply(&one.signals()).unwrap()
            };
            // The others have one weight, the label another.
            let weights = one.class_weights.as_ref().unwrap();
            let alike = (0..classes).map(|class| weights[if class == *label { class } else { (label + 1) % classes }]);
            let one = Given { class_weights: Some(alike.collect()), ..one.clone() };
            let part = |alpha: f64, beta: f64| part(&one, alpha, beta);
            let (tckd, nckd) = (part(1.0, 0.0), part(0.0, 1.0));
            let other = 1.0 - of_label(&one, temperature);
            let soft = Distiller::soft_targets(temperature).apply(&one.signals()).unwrap();
            let close = |found: f64, expected: f64, scale: f64| (found - expected).abs() <= 1e-12 * scale * temperature * temperature;
            prop_assert!(close(tckd.value + other * nckd.value, soft.value, scale), "{} {} {}", tckd.value, nckd.value, soft.value);
            // The weight of NCKD is the teacher's, so gradients decompose in the same way.
            let both = &tckd.gradient + &(other * &nckd.gradient);
            for (found, expected) in both.iter().zip(&soft.gradient) {
                prop_assert!(close(*found, *expected, scale), "{found} {expected}");
            }
        }
    }

    #[test]
    fn losses_are_not_negative(given in given(false)) {
        for distiller in every_distiller() {
            let loss = distiller.apply(&given.signals()).unwrap();
            let scale = given.student.iter().chain(&given.teacher).fold(1f64, |scale, z| scale.max(z.abs()));
            prop_assert!(loss.value >= -1e-13 * scale, "{distiller:?}: {loss:?}");
        }
    }
}

#[test]
fn parts_of_dkd_under_class_weights_add_up_to_soft_targets_but_for_the_second_order() {
    let (student, teacher) = ([0.3, -1.0, 2.0, 0.5], [1.0, 0.2, -0.4, 0.9]);
    let (weights, label) = ([2.0, 0.5, 3.0, 1.0], 2);
    let [z_s, z_t] = [student, teacher].map(|z| ArrayD::from_shape_vec(vec![1, 4], z.to_vec()).unwrap());
    let signals = Signals::new(&z_s, &z_t).labels(&[2]).class_weights(&weights);
    let part =
        |alpha: f64, beta: f64| Distiller::dkd().alpha(alpha).beta(beta).temperature(1.0).apply(&signals).unwrap();
    let [s, t] = [student, teacher].map(|z| z.map(|x: f64| x.exp() / z.map(f64::exp).iter().sum::<f64>()));
    let others = [0, 1, 3].map(|class| weights[class] * (t[class] / (1.0 - t[label]) - s[class] / (1.0 - s[label])));
    let second_order = others.iter().sum::<f64>() * (t[label] - s[label]);
    let both = part(1.0, 0.0).value + (1.0 - t[label]) * part(0.0, 1.0).value;
    assert!(second_order.abs() > 1e-3);
    let soft = Distiller::soft_targets(1.0).apply(&signals).unwrap().value;
    assert!((both - soft - second_order).abs() < 1e-14, "{both}, {soft}, {second_order}");
}

#[test]
fn dkd_of_one_class_is_nothing_and_of_two_has_no_others() {
    let (student, teacher) = (array![[3.0], [-1e4]], array![[1.0], [1e4]]);
    let loss = Distiller::dkd().apply(&Signals::new(&student, &teacher).labels(&[0, 0])).unwrap();
    assert_eq!(loss, Loss::new(0.0, ArrayD::zeros(vec![2, 1])));
    let (student, teacher) = (array![[3.0, 1.0], [-1e4, 0.0]], array![[1.0, 1.0], [1e4, 1e4]]);
    let loss = Distiller::dkd().alpha(0.0).apply(&Signals::new(&student, &teacher).labels(&[0, 1])).unwrap();
    assert_eq!(loss, Loss::new(0.0, ArrayD::zeros(vec![2, 2])));
}

#[test]
fn a_uniform_teacher_is_label_smoothing() {
    let student = array![[1.0, -2.0, 0.5, 4.0], [0.0, 1.0, 2.0, -3.0]];
    let uniform = Array2::from_elem((2, 4), 7.0);
    let signals = Signals::new(&student, &uniform).labels(&[3, 0]);
    let smoothing = 0.2;
    let mixed = Distiller::mix()
        .term(1.0 - smoothing, Distiller::hard_labels())
        .term(smoothing, Distiller::soft_targets(1.0))
        .apply(&signals)
        .unwrap();
    let mut smoothed = Distiller::hard_labels().label_smoothing(smoothing).apply(&signals).unwrap();
    smoothed.value -= smoothing * 4f64.ln(); // the uniform distribution's entropy, which no student changes
    assert_same(&mixed, &smoothed, 1e-14);
}

#[test]
fn a_student_that_says_what_the_teacher_does_has_no_loss_and_no_gradient() {
    let logits = array![[1.0, -2.0, 0.5], [3e3, 1e4, -1e4], [0.3, 0.3, 0.3]];
    let signals = Signals::new(&logits, &logits).labels(&[0, 1, 2]);
    let mut all: Vec<Box<dyn Distiller>> = super::DIVERGENCES
        .map(|divergence| Box::new(Distiller::soft_targets(2.0).divergence(divergence)) as Box<dyn Distiller>)
        .into();
    all.push(Box::new(Distiller::logits()));
    all.push(Box::new(Distiller::dkd()));
    all.push(Box::new(Smooth));
    let standardized = all.len();
    all.push(Box::new(Distiller::dkd().standardized()));
    all.push(Box::new(Distiller::soft_targets(2.0).standardized()));
    for (index, distiller) in all.iter().enumerate() {
        let loss = distiller.apply(&signals).unwrap();
        assert!(loss.value.abs() < 1e-15, "{distiller:?}: {}", loss.value);
        // Rounding of softmax, over ε of the row that does not vary.
        let most = if index < standardized { 1e-15 } else { 1e-7 };
        assert!(loss.gradient.iter().all(|slope| slope.abs() < most), "{distiller:?}: {:?}", loss.gradient);
    }
    // Correlations have their own guard: 1 - ρ is ε / (|p|² + ε).
    let varied = array![[1.0, -2.0, 0.5], [0.0, 1.0, 2.0], [2.0, 0.0, 0.0]];
    let loss = Distiller::dist().apply(&Signals::new(&varied, &varied)).unwrap();
    assert!(loss.value < 1e-6 && loss.gradient.iter().all(|slope| slope.abs() < 1e-6), "{loss:?}");
}

#[test]
fn dist_is_the_correlation_of_rows_and_of_classes() {
    let student = array![[1.0, -2.0, 0.5, 0.0], [0.0, 1.0, 2.0, -1.0], [2.0, 0.0, 0.0, 1.0]];
    let teacher = array![[0.0, -1.0, 2.5, 0.3], [0.5, 1.0, -2.0, 1.0], [1.0, 0.2, 0.0, 3.0]];
    let [p_s, p_t] = [&student, &teacher].map(|logits| softmax(logits, 2.0));
    // By Σxy - Σx Σy / n, which centres nothing.
    let correlation = |axis: usize, line: usize| {
        let (x, y) = (p_s.index_axis(Axis(axis), line), p_t.index_axis(Axis(axis), line));
        let n = x.len() as f64;
        let product =
            |a: &ndarray::ArrayView1<'_, f64>, b: &ndarray::ArrayView1<'_, f64>| a.dot(b) - a.sum() * b.sum() / n;
        product(&x, &y) / (product(&x, &x) * product(&y, &y)).sqrt()
    };
    let inter = 1.0 - (0..3).map(|row| correlation(0, row)).sum::<f64>() / 3.0;
    let intra = 1.0 - (0..4).map(|class| correlation(1, class)).sum::<f64>() / 4.0;
    let dist = || Distiller::dist().temperature(2.0).epsilon(1e-300);
    let value = |distiller: &dyn Distiller| distiller.apply(&Signals::new(&student, &teacher)).unwrap().value;
    assert_close(value(&dist()), inter + intra, 1e-13);
    assert_close(value(&dist().gamma(0.0)), inter, 1e-13);
    assert_close(value(&dist().beta(0.0)), intra, 1e-13);
    assert_close(value(&dist().beta(0.5).gamma(3.0).with_t2()), 4.0 * (0.5 * inter + 3.0 * intra), 1e-13);
    // A guard of the authors' size is not seen here.
    assert_close(value(&Distiller::dist().temperature(2.0)), inter + intra, 1e-5);
}

#[test]
fn dist_of_what_does_not_vary_is_one_and_one() {
    let (student, teacher) = (Array2::from_elem((2, 3), 1.0), array![[0.0, 1.0, 2.0], [2.0, 0.0, 1.0]]);
    let loss = Distiller::dist().apply(&Signals::new(&student, &teacher)).unwrap();
    assert_close(loss.value, 2.0, 1e-7);
    let single = array![[5.0]];
    let loss = Distiller::dist().apply(&Signals::new(&single, &single)).unwrap();
    assert_eq!(loss, Loss::new(2.0, ArrayD::zeros(vec![1, 1])));
}

#[test]
fn standardized_losses_do_not_see_scale_and_shift() {
    let (student, teacher) = (array![[1.0, -2.0, 0.5], [0.0, 1.0, 2.0]], array![[0.4, -1.0, 0.5], [0.0, 3.0, 2.0]]);
    let moved = &teacher * 1e3 - 50.0;
    for temperature in [2.0, 0.5] {
        let distiller = Distiller::soft_targets(temperature).standardized();
        let loss = distiller.apply(&Signals::new(&student, &teacher)).unwrap();
        assert_same(&distiller.apply(&Signals::new(&student, &moved)).unwrap(), &loss, 1e-6);
        let grown = distiller.apply(&Signals::new(&(&student * 1e3), &teacher)).unwrap();
        assert_same(&Loss::new(grown.value, grown.gradient * 1e3), &loss, 1e-6);
        // No gradient along what changes nothing: a shift and a scale.
        assert!(loss.gradient.sum().abs() < 1e-14 && (&loss.gradient * &student).sum().abs() < 1e-6);
        assert_eq!(distiller.temperature(0.5), temperature);
    }
    // By hand: (0, 1, 2) has mean 1 and unbiased deviation 1.
    let plain = array![[0.0, 1.0, 2.0]];
    let zeros = Array2::<f64>::zeros((1, 3));
    let loss = Distiller::logits().standardized().epsilon(1e-12).apply(&Signals::new(&plain, &zeros)).unwrap();
    assert_close(loss.value, 2.0 / 3.0, 1e-11);
}

#[test]
fn standardized_logits_of_one_class_or_all_the_same_are_zeros() {
    for logits in [array![[5.0], [-3.0]], array![[0.1, 0.1, 0.1], [1e4, 1e4, 1e4]]] {
        let (zeros, other) = (Array2::zeros(logits.dim()), &logits + 1.0);
        let loss = Distiller::logits().standardized().apply(&Signals::new(&logits, &other)).unwrap();
        assert_eq!(loss, Loss::new(0.0, zeros.clone().into_dyn()));
    }
    // At equal logits the gradient is the centred one of the loss, over ε.
    let (student, teacher) = (array![[0.1, 0.1]], array![[0.0, 2.0]]);
    let loss = Distiller::logits().standardized().apply(&Signals::new(&student, &teacher)).unwrap();
    let slope = 0.5f64.sqrt() / 1e-7; // (2 z / 2) / ε with z = ±√½
    assert_close(loss.gradient[[0, 0]] / slope, 1.0, 1e-6);
    assert_close(loss.gradient[[0, 1]] / slope, -1.0, 1e-6);
}
