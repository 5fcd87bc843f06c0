//! Losses on features: against plain loops, finite differences, identities, and bad input.

use ndarray::{Array2, ArrayD, Axis, IxDyn, array};
use tersor::{
    Distiller, Error, Signals,
    distill::{Attention, ChannelWise, Cosine, Fsp, Hint, Kernel, Loss, Nst, Vid},
};

use crate::{
    common::normal,
    differences::{Given, check},
};

const KERNELS: [Kernel; 3] = [Kernel::Linear, Kernel::Polynomial, Kernel::Gaussian { variance: 0.7 }];

/// Normal numbers of this shape.
fn random(shape: &[usize], seed: u64) -> ArrayD<f64> {
    let values = normal(1, shape.iter().product(), seed).mapv(f64::from);
    values.into_shape_with_order(IxDyn(shape)).unwrap()
}

/// Losses for features of any width.
fn of_any_width() -> Vec<Box<dyn Distiller>> {
    let mut losses: Vec<Box<dyn Distiller>> = vec![
        Box::new(Hint::new()),
        Box::new(Attention::new()),
        Box::new(Attention::new().power(1)),
        Box::new(Attention::new().power(3).paper()),
        Box::new(Vid::new()),
        Box::new(Vid::new().hidden([])),
        Box::new(Cosine::new().projected()),
        Box::new(ChannelWise::new(2.0).projected()),
        Box::new(Vid::new().hidden([2]).projected()),
    ];
    losses.extend(KERNELS.map(|kernel| Box::new(Nst::new().kernel(kernel)) as Box<dyn Distiller>));
    losses
}

/// Losses that compare channel by channel.
fn of_one_width() -> Vec<Box<dyn Distiller>> {
    vec![
        Box::new(Hint::new().without_regressor()),
        Box::new(ChannelWise::new(1.0)),
        Box::new(ChannelWise::new(4.0)),
        Box::new(Cosine::new()),
    ]
}

/// The arrays, and the loss's initial parameters with them.
fn given(distiller: &dyn Distiller, student: ArrayD<f64>, teacher: ArrayD<f64>) -> Given {
    let parameters = distiller.parameters(student.shape(), teacher.shape(), 7).unwrap();
    Given { parameters: parameters.into_iter().map(|(_, array)| array).collect(), ..Given::new(student, teacher) }
}

fn apply(distiller: &dyn Distiller, student: &ArrayD<f64>, teacher: &ArrayD<f64>) -> Loss {
    distiller.apply(&given(distiller, student.clone(), teacher.clone()).signals()).unwrap()
}

fn near(found: f64, expected: f64, what: &dyn std::fmt::Debug) {
    assert!((found - expected).abs() <= 1e-12 * (1.0 + expected.abs()), "{what:?}: {found}, expected {expected}");
}

// ---- gradients

/// Student's and teacher's shapes: vectors, sequences, images; one sample, one channel, one position; other sizes.
const OF_ONE_WIDTH: [[&[usize]; 2]; 7] = [
    [&[4, 3], &[4, 3]],
    [&[1, 1], &[1, 1]],
    [&[2, 4, 3], &[2, 4, 3]],
    [&[1, 3, 2, 3], &[1, 3, 2, 3]],
    [&[2, 1, 3, 3], &[2, 1, 3, 3]],
    [&[2, 2, 5, 3], &[2, 2, 3, 3]], // the student's are larger
    [&[1, 2, 2, 5], &[1, 2, 3, 4]], // each is, in one axis
];
const OF_TWO_WIDTHS: [[&[usize]; 2]; 4] =
    [[&[3, 4], &[3, 2]], [&[2, 4, 1], &[2, 4, 3]], [&[2, 3, 2, 2], &[2, 2, 2, 2]], [&[1, 2, 5, 2], &[1, 3, 3, 3]]];

#[test]
fn gradients_are_those_of_finite_differences() {
    let check_all = |losses: &[Box<dyn Distiller>], shapes: &[[&[usize]; 2]]| {
        for (loss, (seed, [student, teacher])) in
            losses.iter().flat_map(|loss| (0..).zip(shapes).map(move |shapes| (loss, shapes)))
        {
            for scale in [1.0, 0.03, 1e4] {
                let (student, teacher) = (random(student, seed) * scale, random(teacher, 100 + seed));
                check(loss.as_ref(), &given(loss.as_ref(), student.clone(), teacher.clone()));
                check(loss.as_ref(), &given(loss.as_ref(), student, teacher * scale));
            }
        }
    };
    check_all(&of_any_width(), &OF_ONE_WIDTH);
    check_all(&of_any_width(), &OF_TWO_WIDTHS[1..]);
    // Of vectors attention compares position by position.
    let of_vectors: Vec<_> =
        of_any_width().into_iter().filter(|loss| !format!("{loss:?}").contains("Attention")).collect();
    check_all(&of_vectors, &OF_TWO_WIDTHS[..1]);
    check_all(&of_one_width(), &OF_ONE_WIDTH);
}

#[test]
fn both_gradients_of_fsp_are_those_of_finite_differences() {
    // First and second layer's shapes, of student and teacher; the last are projected.
    let same: [[&[usize]; 4]; 4] = [
        [&[3, 2], &[3, 4], &[3, 2], &[3, 4]],
        [&[2, 3, 2], &[2, 3, 1], &[2, 5, 2], &[2, 5, 1]],
        [&[2, 2, 4, 4], &[2, 3, 2, 2], &[2, 2, 3, 3], &[2, 3, 3, 3]],
        [&[1, 2, 2, 5], &[1, 1, 3, 3], &[1, 2, 2, 2], &[1, 1, 1, 1]],
    ];
    for (seed, shapes) in (0..).zip(same) {
        for scale in [1.0, 0.03, 1e4] {
            let [s1, s2, t1, t2] = shapes.map(|shape| random(shape, seed + shape.len() as u64 * 31) * scale);
            check(&Fsp::new(), &Given { second: Some([s2, t2]), ..Given::new(s1, t1) });
        }
    }
}

/// Both layers' arrays, and the loss's initial parameters with them.
fn between(distiller: &dyn Distiller, [s1, s2, t1, t2]: [&[usize]; 4]) -> Given {
    let parameters = distiller.parameters_between([s1, s2], [t1, t2], 7).unwrap();
    let second = Some([random(s2, 1), random(t2, 2)]);
    let parameters = parameters.into_iter().map(|(_, array)| array).collect();
    Given { second, parameters, ..Given::new(random(s1, 3), random(t1, 4)) }
}

#[test]
fn both_layers_are_projected_each_by_a_map_of_its_own() {
    let images: [&[usize]; 4] = [&[2, 1, 3, 3], &[2, 4, 2, 2], &[2, 2, 4, 4], &[2, 3, 4, 4]];
    let first_alone: [&[usize]; 4] = [&[2, 3], &[2, 4], &[2, 5], &[2, 4]];
    let second_alone: [&[usize]; 4] = [&[2, 3, 3], &[2, 3, 4], &[2, 3, 3], &[2, 3, 2]];
    let neither: [&[usize]; 4] = [&[2, 3], &[2, 4], &[2, 3], &[2, 4]];
    for (shapes, maps) in [(images, 2), (first_alone, 1), (second_alone, 1), (neither, 0)] {
        let (always, needed) = (Fsp::new().projected(), Fsp::new().projected().where_needed());
        for (loss, maps) in [(&always, 2), (&needed, maps)] {
            let given = between(loss, shapes);
            assert_eq!(given.parameters.len(), 2 * maps, "{shapes:?}");
            check(loss, &given);
        }
        // Projected by hand, and then compared; and as a term of a mix, beside one that reads the first layer alone.
        let given = between(&always, shapes);
        let by_hand = |signal: &ArrayD<f64>, map: usize| {
            let (own, axis) = (&given.parameters[2 * map..], if signal.ndim() == 3 { 2 } else { 1 });
            let mut signal = signal.clone();
            signal.swap_axes(axis, signal.ndim() - 1);
            let mut shape = signal.shape().to_vec();
            let rows = signal.to_shape((signal.len() / shape[shape.len() - 1], shape[shape.len() - 1])).unwrap();
            let weight = own[0].view().into_dimensionality::<ndarray::Ix2>().unwrap();
            *shape.last_mut().unwrap() = weight.nrows();
            let mut projected = (rows.dot(&weight.t()) + &own[1]).into_shape_clone(shape).unwrap().into_dyn();
            projected.swap_axes(axis, signal.ndim() - 1);
            projected
        };
        let [student, teacher] = given.second.clone().unwrap();
        let (first, second) = (by_hand(&given.student, 0), by_hand(&student, 1));
        let expected = Fsp::new().apply(&Signals::new(&first, &given.teacher).and(&second, &teacher)).unwrap();
        near(always.apply(&given.signals()).unwrap().value, expected.value, &shapes);
        let mix = Distiller::mix().term(0.5, Fsp::new()).term(2.0, Cosine::new());
        check(&mix, &between(&mix, shapes));
    }
    let attentions = Distiller::attentions(2).projected(); // of queries and keys
    let shapes: [&[usize]; 4] = [&[1, 2, 3], &[1, 4, 3], &[1, 2, 4], &[1, 4, 4]];
    check(&attentions, &between(&attentions, shapes));
    // A loss that reads the first layer alone, though there is a second.
    let cosine = Cosine::new().projected();
    check(&cosine, &between(&cosine, images));
    let names = |own: Vec<(String, ArrayD<f64>)>| own.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let mix = Distiller::mix().term(1.0, Cosine::new()).term(1.0, Fsp::new());
    let own = mix.parameters_between([&[2, 3], &[2, 4]], [&[2, 5], &[2, 6]], 0).unwrap();
    // As terms at two layers cosine sees the first alone, but has a map for each that differs.
    let maps = ["0.projection", "0.second_projection", "1.projection", "1.second_projection"];
    let expected: Vec<String> =
        maps.iter().flat_map(|map| ["weight", "bias"].map(|kind| format!("{map}.{kind}"))).collect();
    assert_eq!(names(own), expected);
}

#[test]
fn a_mix_projects_each_of_its_terms_that_needs_it() {
    let (student, teacher) = (random(&[3, 4], 1), random(&[3, 2], 2));
    let mix = Distiller::mix().term(0.5, Cosine::new()).term(2.0, Nst::new()).term(1.0, Hint::new());
    let given = given(&mix, student.clone(), teacher.clone());
    assert_eq!(given.parameters.len(), 4);
    check(&mix, &given);
    let signals = |own: std::ops::Range<usize>| Signals::new(&student, &teacher).parameters(&given.parameters[own]);
    let parts = [
        0.5 * Cosine::new().projected().apply(&signals(0..2)).unwrap().value,
        2.0 * Nst::new().apply(&signals(0..0)).unwrap().value,
        Hint::new().apply(&signals(2..4)).unwrap().value,
    ];
    near(mix.apply(&given.signals()).unwrap().value, parts.iter().sum(), &mix);
    // Where widths agree none is needed.
    assert!(Distiller::mix().term(1.0, Cosine::new()).parameters(&[3, 4], &[3, 4], 0).unwrap().is_empty());
}

#[test]
fn parameters_far_from_their_beginnings_have_exact_gradients() {
    let vid = Vid::new().hidden([3]);
    for raw in [-40.0, -3.0, 0.0, 50.0] {
        let mut given = given(&vid, random(&[3, 2, 2, 2], 1), random(&[3, 2, 2, 2], 2));
        given.parameters.last_mut().unwrap().fill(raw);
        check(&vid, &given);
    }
    let mut extreme = given(&vid, random(&[3, 2], 1), random(&[3, 2], 2));
    for raw in [-1e300, 1e300] {
        extreme.parameters.last_mut().unwrap().fill(raw);
        let loss = vid.apply(&extreme.signals()).unwrap();
        assert!(loss.value.is_finite() && loss.parameters.iter().flatten().all(|g| g.is_finite()), "{loss:?}");
    }
}

#[test]
fn features_of_zeros_or_of_any_size_give_finite_losses_and_gradients() {
    let shape = [2, 3, 2, 2];
    let (some, none) = (random(&shape, 1), ArrayD::zeros(IxDyn(&shape)));
    let mut half = some.clone();
    half.index_axis_mut(Axis(0), 1).fill(0.0);
    let finite = |loss: &dyn Distiller, student: &ArrayD<f64>, teacher: &ArrayD<f64>| {
        let made = apply(loss, student, teacher);
        let gradients = made.gradient.iter().chain(made.parameters.iter().flatten());
        assert!(made.value.is_finite() && gradients.copied().all(f64::is_finite), "{loss:?}: {made:?}");
        made
    };
    for loss in of_any_width().into_iter().chain(of_one_width()) {
        for (student, teacher) in [(&none, &some), (&some, &none), (&none, &none), (&half, &some), (&some, &half)] {
            finite(&loss, student, teacher);
        }
    }
    // Where nothing jumps at zero, the gradient there is exact as well.
    let smooth: [Box<dyn Distiller>; 5] = [
        Box::new(Hint::new()),
        Box::new(Attention::new()),
        Box::new(Attention::new().power(1)),
        Box::new(ChannelWise::new(2.0)),
        Box::new(Vid::new()),
    ];
    for loss in smooth {
        check(&loss, &given(&loss, none.clone(), some.clone()));
        check(&loss, &given(&loss, none.clone(), none.clone()));
    }
    // What looks at directions takes what no square holds, and gives zeros no gradient.
    let directions: [Box<dyn Distiller>; 4] =
        [Box::new(Attention::new()), Box::new(Attention::new().paper()), Box::new(Nst::new()), Box::new(Cosine::new())];
    for loss in directions {
        let plain = apply(&loss, &some, &some.mapv(|x| x + 1.0)).value;
        for scale in [1e-45, 1e-120, 1e200, 1e307] {
            let scaled = finite(&loss, &(&some * scale), &(&some + 1.0)).value;
            near(scaled, plain, &loss);
        }
        finite(&loss, &(&some * 1e-310), &some);
        assert_eq!(apply(&loss, &none, &some).gradient, none, "{loss:?}");
        assert_eq!(apply(&loss, &half, &some).gradient.index_axis(Axis(0), 1), none.index_axis(Axis(0), 1));
    }
}

// ---- identities

#[test]
fn a_student_with_the_teachers_features_has_nothing_to_learn() {
    let features = random(&[3, 4, 2, 3], 5);
    let mut losses = of_one_width();
    losses.extend([Box::new(Attention::new()) as Box<dyn Distiller>, Box::new(Attention::new().paper())]);
    losses.extend(KERNELS.map(|kernel| Box::new(Nst::new().kernel(kernel)) as Box<dyn Distiller>));
    for loss in losses {
        let made = apply(&loss, &features, &features);
        assert!(made.value.abs() < 1e-14, "{loss:?}: {}", made.value);
        assert!(made.gradient.iter().all(|g| g.abs() < 1e-14), "{loss:?}: {}", made.gradient);
    }
    let second = random(&[3, 2, 2, 3], 6);
    let made = Fsp::new().apply(&Signals::new(&features, &features).and(&second, &second)).unwrap();
    let zero = |gradient: &ArrayD<f64>| gradient.iter().all(|g| *g == 0.0);
    assert!(made.value == 0.0 && zero(&made.gradient) && zero(&made.second.unwrap()));
}

#[test]
fn what_looks_at_directions_is_unchanged_by_scaling() {
    let (student, teacher) = (random(&[3, 4, 2, 2], 5), random(&[3, 4, 2, 2], 6));
    let losses: [Box<dyn Distiller>; 4] = [
        Box::new(Attention::new()),
        Box::new(Attention::new().power(4).paper()),
        Box::new(Nst::new()),
        Box::new(Cosine::new()),
    ];
    for loss in losses {
        let [plain, scaled] = [1.0, 1e-9].map(|factor| apply(&loss, &(&student * factor), &teacher));
        near(scaled.value, plain.value, &loss);
        near((scaled.gradient * 1e-9).sum(), plain.gradient.sum(), &loss);
        // Euler: along the features themselves nothing changes.
        near((&plain.gradient * &student).sum(), 0.0, &loss);
    }
}

#[test]
fn nst_sees_channels_as_a_set() {
    let (student, teacher) = (random(&[2, 3, 2, 2], 5), random(&[2, 5, 2, 2], 6));
    for kernel in KERNELS {
        let loss = Nst::new().kernel(kernel);
        let value = apply(&loss, &student, &teacher).value;
        assert!(value > 0.0, "{kernel:?}: a squared distance of different sets");
        near(apply(&loss, &student, &teacher.select(Axis(1), &[3, 0, 4, 2, 1])).value, value, &kernel);
        near(apply(&loss, &student, &teacher.select(Axis(1), &[0, 1, 2, 3, 4, 0, 1, 2, 3, 4])).value, value, &kernel);
        near(apply(&loss, &student, &student.select(Axis(1), &[2, 0, 1])).value, 0.0, &kernel);
    }
}

#[test]
fn the_best_variance_of_vid_is_the_mean_squared_error() {
    let vid = Vid::new();
    let mut given = given(&vid, random(&[6, 3], 1), random(&[6, 2], 2));
    // μ by the formula, samples as columns.
    let mean = |given: &Given| -> Array2<f64> {
        let relu = |x: f64| x.max(0.0);
        let own: Vec<Array2<f64>> = given.parameters[..6]
            .iter()
            .map(|array| array.to_shape((array.shape()[0], array.len() / array.shape()[0])).unwrap().into_owned())
            .collect();
        let x = given.student.view().into_dimensionality::<ndarray::Ix2>().unwrap();
        let first = (own[0].dot(&x.t()) + &own[1]).mapv(relu);
        let second = (own[2].dot(&first) + &own[3]).mapv(relu);
        (own[4].dot(&second) + &own[5]).reversed_axes()
    };
    let errors = mean(&given) - given.teacher.view().into_dimensionality::<ndarray::Ix2>().unwrap();
    let best = errors.mapv(|e| e * e).mean_axis(Axis(0)).unwrap();
    near(
        vid.apply(&given.signals()).unwrap().value,
        errors.mapv(|e| 0.5 * (e * e / 5.0 + 5f64.ln())).mean().unwrap(),
        &vid,
    );
    *given.parameters.last_mut().unwrap() = best.mapv(|v| (v - 1e-5).exp_m1().ln()).into_dyn();
    let made = vid.apply(&given.signals()).unwrap();
    near(made.value, best.mapv(|v| 0.5 * (1.0 + v.ln())).mean().unwrap(), &vid);
    assert!(made.parameters[6].iter().all(|g| g.abs() < 1e-12), "{}", made.parameters[6]);
}

#[test]
fn a_projection_by_the_identity_changes_nothing() {
    for shape in [&[3, 4][..], &[2, 5, 4], &[2, 4, 3, 2]] {
        let (student, teacher) = (random(shape, 1), random(shape, 2));
        let own = [Array2::eye(4).into_dyn(), ArrayD::zeros(vec![4])];
        for loss in of_one_width() {
            let plain = apply(&loss, &student, &teacher);
            let projected = loss.projected();
            let made = projected.apply(&Signals::new(&student, &teacher).parameters(&own)).unwrap();
            near(made.value, plain.value, &projected);
            assert!((made.gradient - plain.gradient).iter().all(|d| d.abs() < 1e-12), "{projected:?}");
        }
    }
}

#[test]
fn projections_come_where_widths_differ_and_must_not() {
    for loss in of_any_width() {
        assert!(!loss.compares_channels(), "{loss:?}");
    }
    let own = |loss: &dyn Distiller, student: usize| loss.parameters(&[2, student], &[2, 3], 1).unwrap();
    for loss in of_one_width() {
        assert!(loss.compares_channels(), "{loss:?}");
        let loss = loss.projected().where_needed();
        assert!(!loss.compares_channels(), "{loss:?}");
        assert_eq!((own(&loss, 3).len(), own(&loss, 4).len()), (0, 2), "{loss:?}");
        for student in [3, 4] {
            check(&loss, &given(&loss, random(&[2, student], 1), random(&[2, 3], 2)));
        }
    }
    let (hint, plain) = (Hint::new(), Hint::new().without_regressor());
    assert_eq!(own(&hint, 4), own(&plain.clone().projected(), 4));
    let names: Vec<String> = own(&Vid::new().hidden([5]).projected(), 4).into_iter().map(|(name, _)| name).collect();
    let [layer, variance] = ["regressor", "variance"];
    let layers = [0, 1].map(|index| ["weight", "bias"].map(|kind| format!("{layer}.{index}.{kind}"))).concat();
    let all = [vec!["projection.weight".into(), "projection.bias".into()], layers, vec![variance.into()]].concat();
    assert_eq!(names, all);
}

#[test]
fn parameters_begin_as_the_documentation_says() {
    let own = |seed| Hint::new().parameters(&[2, 16, 3, 3], &[2, 400, 3, 3], seed).unwrap();
    let [(weight, w), (bias, b)] = own(1).try_into().unwrap();
    assert_eq!((weight.as_str(), bias.as_str()), ("projection.weight", "projection.bias"));
    assert_eq!((w.shape(), b.shape()), (&[400, 16][..], &[400][..]));
    for (array, what) in [(&w, "weight"), (&b, "bias")] {
        let largest = array.iter().fold(0f64, |largest, x| largest.max(x.abs()));
        assert!(largest <= 0.25 && largest > 0.24, "{what}: {largest} of 1/√16");
        // The mean of a uniform law, within five standard errors.
        let error = 0.25 / 3f64.sqrt() / (array.len() as f64).sqrt();
        assert!(array.mean().unwrap().abs() < 5.0 * error, "{what}: {}", array.mean().unwrap());
    }
    assert!(own(1)[0].1 == w && own(2)[0].1 != w, "a seed is a seed");
    let vid = Vid::new().parameters(&[2, 5], &[2, 3], 1).unwrap();
    let shapes: Vec<&[usize]> = vid.iter().map(|(_, array)| array.shape()).collect();
    assert_eq!(shapes, [&[6, 5][..], &[6], &[6, 6], &[6], &[3, 6], &[3], &[3]]);
}

// ---- values, by loops

/// Maps (channel, position) of one sample of images.
fn sample(array: &ArrayD<f64>, at: usize) -> Vec<Vec<f64>> {
    array.index_axis(Axis(0), at).outer_iter().map(|channel| channel.iter().copied().collect()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn mean(outer: usize, inner: usize, of: impl Fn(usize, usize) -> f64) -> f64 {
    let mut sum = 0.0;
    for i in 0..outer {
        for j in 0..inner {
            sum += of(i, j);
        }
    }
    sum / (outer * inner) as f64
}

#[test]
fn nst_is_the_sum_over_pairs_of_channels() {
    let (student, teacher) = (random(&[2, 3, 2, 3], 1), random(&[2, 5, 2, 3], 2));
    for kernel in KERNELS {
        let k = |x: &[f64], y: &[f64]| {
            let (nx, ny) = (dot(x, x).sqrt(), dot(y, y).sqrt());
            let squares = |(x, y): (&f64, &f64)| (x / nx - y / ny).powi(2);
            match kernel {
                Kernel::Linear => dot(x, y) / nx / ny,
                Kernel::Polynomial => (dot(x, y) / nx / ny).powi(2),
                Kernel::Gaussian { variance } => (-x.iter().zip(y).map(squares).sum::<f64>() / 2.0 / variance).exp(),
                other => panic!("{other:?} is new"),
            }
        };
        let of_sample = |at: usize, _: usize| {
            let (s, t) = (sample(&student, at), sample(&teacher, at));
            mean(3, 3, |i, j| k(&s[i], &s[j])) + mean(5, 5, |i, j| k(&t[i], &t[j]))
                - 2.0 * mean(3, 5, |i, j| k(&s[i], &t[j]))
        };
        near(apply(&Nst::new().kernel(kernel), &student, &teacher).value, mean(2, 1, of_sample), &kernel);
    }
}

#[test]
fn fsp_is_the_mean_product_over_positions() {
    let [s1, s2, t1, t2] = [[2, 3, 2, 3], [2, 4, 2, 3], [2, 3, 1, 4], [2, 4, 1, 4]];
    let [s1, s2, t1, t2] = [random(&s1, 1), random(&s2, 2), random(&t1, 3), random(&t2, 4)];
    let flow = |first: &ArrayD<f64>, second: &ArrayD<f64>, at, i: usize, j: usize| {
        let (first, second) = (sample(first, at), sample(second, at));
        dot(&first[i], &second[j]) / first[i].len() as f64
    };
    let of_sample =
        |at: usize, _: usize| mean(3, 4, |i, j| (flow(&s1, &s2, at, i, j) - flow(&t1, &t2, at, i, j)).powi(2));
    let found = Fsp::new().apply(&Signals::new(&s1, &t1).and(&s2, &t2)).unwrap().value;
    near(found, mean(2, 1, of_sample), &"fsp");
}

#[test]
fn channel_wise_attention_and_cosine_are_their_formulas() {
    let (student, teacher) = (random(&[2, 3, 2, 3], 1), random(&[2, 3, 2, 3], 2));
    let t = 3.0;
    let divergence = |at: usize, channel: usize| {
        let softmax = |map: &[f64]| -> Vec<f64> {
            let sum: f64 = map.iter().map(|f| (f / t).exp()).sum();
            map.iter().map(|f| (f / t).exp() / sum).collect()
        };
        let (s, t) = (softmax(&sample(&student, at)[channel]), softmax(&sample(&teacher, at)[channel]));
        t.iter().zip(&s).map(|(t, s)| t * (t / s).ln()).sum::<f64>()
    };
    near(apply(&ChannelWise::new(t), &student, &teacher).value, t * t * mean(2, 3, divergence), &"channel-wise");

    for power in [1, 2, 3] {
        let squared = |at: usize| -> f64 {
            let map = |maps: Vec<Vec<f64>>| -> Vec<f64> {
                let sums = (0..6).map(|p| maps.iter().map(|map| map[p].abs().powi(power)).sum::<f64>());
                let sums: Vec<f64> = sums.collect();
                sums.iter().map(|sum| sum / dot(&sums, &sums).sqrt()).collect()
            };
            let (s, t) = (map(sample(&student, at)), map(sample(&teacher, at)));
            s.iter().zip(t).map(|(s, t)| (s - t).powi(2)).sum()
        };
        let attention = Attention::new().power(power as u32);
        near(apply(&attention, &student, &teacher).value, mean(2, 1, |at, _| squared(at) / 6.0), &attention);
        near(apply(&attention.paper(), &student, &teacher).value, mean(2, 1, |at, _| squared(at).sqrt()), &"paper");
    }

    let cosine = |at: usize, position: usize| {
        let vector = |array| -> Vec<f64> { sample(array, at).iter().map(|map| map[position]).collect() };
        let (s, t) = (vector(&student), vector(&teacher));
        1.0 - dot(&s, &t) / (dot(&s, &s) * dot(&t, &t)).sqrt()
    };
    near(apply(&Cosine::new(), &student, &teacher).value, mean(2, 6, cosine), &"cosine");
}

#[test]
fn images_of_two_sizes_are_compared_at_the_smaller() {
    let small = random(&[2, 3, 2, 3], 1);
    // Every entry twice in each axis: pooled, it is the small one again.
    let large = small.select(Axis(2), &[0, 0, 1, 1]).select(Axis(3), &[0, 0, 1, 1, 2, 2]);
    let other = random(&[2, 3, 2, 3], 2);
    for loss in of_any_width().into_iter().chain(of_one_width()) {
        let plain = apply(&loss, &small, &other);
        let pooled = apply(&loss, &large, &other);
        near(pooled.value, plain.value, &loss);
        near(apply(&loss, &other, &large).value, apply(&loss, &other, &small).value, &loss);
        let shares = pooled.gradient.select(Axis(2), &[0, 2]).select(Axis(3), &[1, 3, 5]) * 4.0;
        assert!((shares - plain.gradient).iter().all(|d| d.abs() < 1e-12), "{loss:?}");
    }
}

#[test]
fn axes_say_where_channels_are() {
    // (batch, sequence, features) and the same as images of one row.
    let (student, teacher) = (random(&[2, 4, 3], 1), random(&[2, 4, 3], 2));
    let image = |array: &ArrayD<f64>| array.view().permuted_axes(vec![0, 2, 1]).insert_axis(Axis(2)).into_owned();
    for loss in of_any_width().into_iter().chain(of_one_width()) {
        let sequence = apply(&loss, &student, &teacher);
        let images = apply(&loss, &image(&student), &image(&teacher));
        near(sequence.value, images.value, &loss);
        assert!((image(&sequence.gradient) - images.gradient).iter().all(|d| d.abs() < 1e-12), "{loss:?}");
    }
}

#[test]
fn arrays_of_any_layout_and_float_type_are_read() {
    let (student, teacher) = (random(&[3, 4, 2, 2], 1), random(&[3, 4, 2, 2], 2));
    let turned = |array: &ArrayD<f64>| array.t().as_standard_layout().into_owned();
    for loss in of_any_width().into_iter().chain(of_one_width()) {
        let own = given(&loss, student.clone(), teacher.clone()).parameters;
        let plain = loss.apply(&Signals::new(&student, &teacher).parameters(&own)).unwrap();
        let (s, t) = (turned(&student), turned(&teacher));
        let views = loss.apply(&Signals::new(&s.t(), &t.t()).parameters(&own)).unwrap();
        near(views.value, plain.value, &loss);
        assert!((&views.gradient - &plain.gradient).iter().all(|d| d.abs() < 1e-12), "{loss:?}");
        let (s, t) = (student.mapv(|x| x as f32), teacher.mapv(|x| x as f32)); // numbers of 24 bits
        let single = loss.apply(&Signals::new(&s, &t).parameters(&own)).unwrap();
        assert_eq!((single.value, single.gradient), (plain.value, plain.gradient), "{loss:?}");
    }
}

// ---- bad input

#[test]
fn bad_features_get_errors() {
    let features = random(&[2, 3, 4, 4], 1);
    for loss in of_any_width().into_iter().chain(of_one_width()) {
        let refused = |student: &ArrayD<f64>, teacher: &ArrayD<f64>| {
            let own = loss.parameters(student.shape(), teacher.shape(), 0).unwrap_or_default();
            let own: Vec<_> = own.into_iter().map(|(_, array)| array).collect();
            loss.apply(&Signals::new(student, teacher).parameters(&own)).unwrap_err()
        };
        let of = |shape: &[usize]| random(shape, 2);
        assert!(matches!(refused(&of(&[3]), &of(&[3])), Error::Rank { .. }), "{loss:?}");
        assert!(matches!(refused(&of(&[1; 5]), &of(&[1; 5])), Error::Rank { .. }), "{loss:?}");
        assert!(matches!(refused(&of(&[2, 3]), &features), Error::Conflict { .. }), "{loss:?}");
        assert!(matches!(refused(&of(&[3, 3, 4, 4]), &features), Error::Shape { .. }), "{loss:?}");
        assert!(matches!(refused(&of(&[2, 4, 3]), &of(&[2, 5, 3])), Error::Shape { .. }), "{loss:?}");
        assert!(matches!(refused(&of(&[2, 0, 4, 4]), &features), Error::Empty { .. }), "{loss:?}");
        assert!(matches!(refused(&features, &(&features / 0.0)), Error::NotFinite { .. }), "{loss:?}");
    }
    for loss in of_one_width() {
        let error = loss.apply(&Signals::new(&features, &random(&[2, 5, 4, 4], 2))).unwrap_err();
        assert!(error.to_string().contains("projected"), "{loss:?}: {error}");
    }
}

#[test]
fn bad_settings_get_errors() {
    let features = random(&[2, 3], 1);
    let refused = |loss: &dyn Distiller| loss.apply(&Signals::new(&features, &features)).unwrap_err();
    let gaussian = |variance| Nst::new().kernel(Kernel::Gaussian { variance });
    let losses: [Box<dyn Distiller>; 9] = [
        Box::new(Attention::new().power(0)),
        Box::new(Attention::new().power(101)),
        Box::new(ChannelWise::new(0.0)),
        Box::new(ChannelWise::new(f64::NAN)),
        Box::new(gaussian(0.0)),
        Box::new(gaussian(f64::INFINITY)),
        Box::new(gaussian(f64::NAN)),
        Box::new(Vid::new().hidden([3, 0])),
        Box::new(Vid::new().hidden([0])),
    ];
    for loss in losses {
        assert!(matches!(refused(&loss), Error::Setting { .. }), "{loss:?}");
    }
    assert!(matches!(Vid::new().hidden([0]).parameters(&[2, 3], &[2, 3], 0), Err(Error::Setting { .. })));
}

#[test]
fn bad_parameters_get_errors() {
    let (student, teacher) = (random(&[2, 3], 1), random(&[2, 4], 2));
    for loss in [Box::new(Hint::new()) as Box<dyn Distiller>, Box::new(Vid::new()), Box::new(Cosine::new().projected())]
    {
        assert!(matches!(loss.parameters(&[3], &[2, 3], 0), Err(Error::Rank { .. })), "{loss:?}");
        assert!(matches!(loss.parameters(&[2, 3], &[2, 0], 0), Err(Error::Empty { .. })), "{loss:?}");
        let good = given(&loss, student.clone(), teacher.clone()).parameters;
        let refused = |own: &[ArrayD<f64>]| loss.apply(&Signals::new(&student, &teacher).parameters(own)).unwrap_err();
        let more = [good.clone(), vec![good[0].clone()]].concat();
        for own in [&good[..1], &[], &more] {
            assert!(matches!(refused(own), Error::Conflict { .. }), "{loss:?}");
        }
        let mut turned = good.clone();
        turned[0].swap_axes(0, 1);
        assert!(matches!(refused(&turned), Error::Shape { .. }), "{loss:?}");
        let mut broken = good.clone();
        broken[1].fill(f64::NAN);
        assert!(matches!(refused(&broken), Error::NotFinite { .. }), "{loss:?}");
    }
    let too_wide = [&[2, usize::MAX][..], &[2, 3, usize::MAX / 2]];
    for shape in too_wide {
        assert!(matches!(Hint::new().parameters(shape, &[2, 3], 0), Err(Error::Conflict { .. })), "{shape:?}");
        assert!(matches!(Vid::new().parameters(&[2, 3], shape, 0), Err(Error::Conflict { .. })), "{shape:?}");
    }
    assert!(Vid::new().hidden([usize::MAX]).parameters(&[2, 3], &[2, 3], 0).is_err());
    // One that is no parameter of anything.
    let one = [array![1.0].into_dyn()];
    let loss = Cosine::new().projected().where_needed();
    assert!(matches!(loss.apply(&Signals::new(&student, &teacher).parameters(&one)), Err(Error::Conflict { .. })));
}

#[test]
fn bad_layers_of_fsp_get_errors() {
    let of = |shape: &[usize]| random(shape, 1);
    let refused = |shapes: [&[usize]; 4]| {
        let [s1, s2, t1, t2] = shapes.map(of);
        Fsp::new().apply(&Signals::new(&s1, &t1).and(&s2, &t2)).unwrap_err()
    };
    let one = of(&[2, 3]);
    assert!(matches!(Fsp::new().apply(&Signals::new(&one, &one)), Err(Error::Conflict { .. })));
    assert!(matches!(refused([&[2, 3], &[2, 4], &[2, 3], &[2, 5]]), Error::Conflict { .. }));
    assert!(matches!(refused([&[2, 3], &[2, 4], &[1, 3], &[1, 4]]), Error::Conflict { .. }));
    assert!(matches!(refused([&[2, 3], &[3, 4], &[2, 3], &[2, 4]]), Error::Shape { .. }));
    assert!(matches!(refused([&[2, 3], &[2, 4, 4], &[2, 3], &[2, 4]]), Error::Conflict { .. }));
    assert!(matches!(refused([&[2, 3], &[2], &[2, 3], &[2, 4]]), Error::Rank { .. }));
}

/// A loss whose gradient is not its signal's.
#[derive(Debug)]
struct Misshapen;

impl Distiller for Misshapen {
    fn apply(&self, _: &Signals<'_>) -> tersor::Result<Loss> {
        Ok(Loss::new(1.0, ArrayD::zeros(vec![5])))
    }
}

#[test]
fn a_gradient_of_the_wrong_shape_is_an_error_of_the_projection() {
    let loss = Misshapen.projected();
    let given = given(&loss, random(&[2, 3], 1), random(&[2, 4], 2));
    assert!(matches!(loss.apply(&given.signals()), Err(Error::Shape { .. })));
}
