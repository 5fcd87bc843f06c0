//! Losses between samples and between positions: against plain loops, finite differences, identities, and bad input.

use std::array;

use ndarray::{Array2, ArrayD, Axis, IxDyn, arr2, s};
use tersor::{
    Distiller, Error, Signals,
    distill::{
        Attentions, Compare, Correlation, CorrelationCongruence, Loss, Pkt, Relations, RkdAngle, RkdDistance,
        SimilarityPreserving,
    },
};

use crate::{
    common::normal,
    differences::{Given, check},
};

/// Normal numbers of this shape.
fn random(shape: &[usize], seed: u64) -> ArrayD<f64> {
    let values = normal(1, shape.iter().product(), seed).mapv(f64::from);
    values.into_shape_with_order(IxDyn(shape)).unwrap()
}

fn apply(distiller: &dyn Distiller, student: &ArrayD<f64>, teacher: &ArrayD<f64>) -> Loss {
    distiller.apply(&Signals::new(student, teacher)).unwrap()
}

fn kernels() -> [CorrelationCongruence; 3] {
    let of = |correlation| CorrelationCongruence::new().correlation(correlation);
    [CorrelationCongruence::new(), of(Correlation::Linear), of(Correlation::Gaussian { gamma: 1.5, order: 7 })]
}

fn neighbours() -> CorrelationCongruence {
    CorrelationCongruence::new().correlation(Correlation::Neighbours)
}

/// Those of which the scale of either side is no matter.
fn between_samples() -> Vec<Box<dyn Distiller>> {
    let [a, b, c] = kernels();
    vec![
        Box::new(RkdDistance::new()),
        Box::new(RkdAngle::new()),
        Box::new(SimilarityPreserving::new()),
        Box::new(Pkt::new()),
        Box::new(a),
        Box::new(b),
        Box::new(c),
    ]
}

fn near(found: f64, expected: f64, what: &dyn std::fmt::Debug) {
    assert!((found - expected).abs() <= 1e-12 * (1.0 + expected.abs()), "{what:?}: {found}, by loops {expected}");
}

// ---- values, by loops

fn rows(array: &ArrayD<f64>) -> Vec<Vec<f64>> {
    array.axis_iter(Axis(0)).map(|row| row.iter().copied().collect()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// Of the angle between two vectors; 0 if one has no direction.
fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

fn huber(x: f64) -> f64 {
    if x.abs() < 1.0 { 0.5 * x * x } else { x.abs() - 0.5 }
}

/// The mean of `of(pair, student, teacher)` over all pairs of samples.
fn mean_over_pairs(student: &ArrayD<f64>, of: impl Fn(usize, usize) -> f64) -> f64 {
    let n = student.shape()[0];
    let mut sum = 0.0;
    for i in 0..n {
        for j in 0..n {
            sum += of(i, j);
        }
    }
    sum / (n * n) as f64
}

fn rkd_distance(student: &ArrayD<f64>, teacher: &ArrayD<f64>) -> f64 {
    let relative = |array: &ArrayD<f64>| {
        let rows = rows(array);
        let of = |i: usize, j: usize| dot(&minus(&rows[i], &rows[j]), &minus(&rows[i], &rows[j])).sqrt();
        let mut all = vec![vec![0.0; rows.len()]; rows.len()];
        let (mut sum, mut count) = (0.0, 0.0);
        for i in 0..rows.len() {
            for j in 0..rows.len() {
                all[i][j] = of(i, j);
                if all[i][j] > 0.0 {
                    sum += all[i][j];
                    count += 1.0;
                }
            }
        }
        let mean = if count > 0.0 { sum / count } else { 1.0 };
        all.into_iter().map(|row| row.into_iter().map(|d| d / mean).collect()).collect::<Vec<Vec<f64>>>()
    };
    let (s, t) = (relative(student), relative(teacher));
    mean_over_pairs(student, |i, j| huber(s[i][j] - t[i][j]))
}

fn rkd_angle(student: &ArrayD<f64>, teacher: &ArrayD<f64>) -> f64 {
    let (s, t) = (rows(student), rows(teacher));
    let angle = |rows: &[Vec<f64>], i: usize, j: usize, k: usize| {
        cosine(&minus(&rows[i], &rows[j]), &minus(&rows[k], &rows[j]))
    };
    let n = s.len();
    let of = |i, k| (0..n).map(|j| huber(angle(&s, i, j, k) - angle(&t, i, j, k))).sum::<f64>() / n as f64;
    mean_over_pairs(student, of)
}

fn similarity_preserving(student: &ArrayD<f64>, teacher: &ArrayD<f64>) -> f64 {
    let similar = |array: &ArrayD<f64>| {
        let rows = rows(array);
        let gram = |row: &Vec<f64>| rows.iter().map(|other| dot(row, other)).collect::<Vec<f64>>();
        let grams = rows.iter().map(gram);
        let unit = |row: Vec<f64>| {
            let length = dot(&row, &row).sqrt();
            row.into_iter().map(|g| if length > 0.0 { g / length } else { 0.0 }).collect::<Vec<f64>>()
        };
        grams.map(unit).collect::<Vec<_>>()
    };
    let (s, t) = (similar(student), similar(teacher));
    mean_over_pairs(student, |i, j| (s[i][j] - t[i][j]).powi(2))
}

fn pkt(student: &ArrayD<f64>, teacher: &ArrayD<f64>) -> f64 {
    let probability = |rows: &[Vec<f64>], i: usize, j: usize| {
        let kernel = |j: usize| 0.5 * (cosine(&rows[i], &rows[j]) + 1.0);
        kernel(j) / (0..rows.len()).map(kernel).sum::<f64>()
    };
    let (s, t) = (rows(student), rows(teacher));
    mean_over_pairs(student, |i, j| {
        let (s, t) = (probability(&s, i, j), probability(&t, i, j));
        t * ((t + 1e-7) / (s + 1e-7)).ln()
    })
}

fn congruence(kernel: impl Fn(f64) -> f64, student: &ArrayD<f64>, teacher: &ArrayD<f64>) -> f64 {
    let (s, t) = (rows(student), rows(teacher));
    mean_over_pairs(student, |i, j| (kernel(cosine(&s[i], &s[j])) - kernel(cosine(&t[i], &t[j]))).powi(2))
}

/// `e^(-2γ) Σ (2γ)^p x^p / p!`, factorial by factorial.
fn taylor(gamma: f64, order: i32, x: f64) -> f64 {
    let factorial = |p: i32| (1..=p).map(f64::from).product::<f64>();
    (-2.0 * gamma).exp() * (0..=order).map(|p| (2.0 * gamma * x).powi(p) / factorial(p)).sum::<f64>()
}

fn neighbours_by_loops(student: &ArrayD<f64>, teacher: &ArrayD<f64>) -> f64 {
    let (s, t) = (rows(student), rows(teacher));
    let mut sum = 0.0;
    for i in 1..s.len() {
        for j in 0..s[i].len() {
            sum += (s[i - 1][j] - t[i - 1][j]).abs() * (s[i][j] - t[i][j]).abs();
        }
    }
    sum / (s.len() as f64 - 1.0).max(1.0)
}

#[test]
fn values_between_samples_are_those_of_plain_loops() {
    let zeroed = |mut array: ArrayD<f64>| {
        array.index_axis_mut(Axis(0), 0).fill(0.0); // a sample of zeros
        let last = array.shape()[0] - 1;
        let first = array.index_axis(Axis(0), 1.min(last)).to_owned();
        array.index_axis_mut(Axis(0), last).assign(&first); // and two that coincide
        array
    };
    for (batch, seed) in [(1, 1), (2, 2), (5, 3), (9, 4)] {
        let (student, teacher) = (random(&[batch, 2, 3], seed), random(&[batch, 5], seed + 10) * 3.0);
        for (student, teacher) in [
            (student.clone(), teacher.clone()),
            (zeroed(student.clone()), teacher.clone()),
            (student, zeroed(teacher.clone())),
        ] {
            let [taylor_2, linear, taylor_7] = kernels();
            let by_loops: [(&dyn Distiller, f64); 7] = [
                (&RkdDistance::new(), rkd_distance(&student, &teacher)),
                (&RkdAngle::new(), rkd_angle(&student, &teacher)),
                (&SimilarityPreserving::new(), similarity_preserving(&student, &teacher)),
                (&Pkt::new(), pkt(&student, &teacher)),
                (&taylor_2, congruence(|x| taylor(0.4, 2, x), &student, &teacher)),
                (&linear, congruence(|x| x, &student, &teacher)),
                (&taylor_7, congruence(|x| taylor(1.5, 7, x), &student, &teacher)),
            ];
            for (distiller, expected) in by_loops {
                near(apply(distiller, &student, &teacher).value, expected, &(distiller, batch));
            }
            let teacher = random(student.shape(), seed + 20);
            near(
                apply(&neighbours(), &student, &teacher).value,
                neighbours_by_loops(&student, &teacher),
                &"neighbours",
            );
        }
    }
}

#[test]
fn the_taylor_series_comes_to_the_gaussian() {
    let (student, teacher) = (random(&[6, 3], 1), random(&[6, 4], 2));
    let gaussian = |x: f64| (-0.4 * (2.0 - 2.0 * x)).exp();
    let loss = CorrelationCongruence::new().correlation(Correlation::Gaussian { gamma: 0.4, order: 30 });
    near(apply(&loss, &student, &teacher).value, congruence(gaussian, &student, &teacher), &"order 30");
}

/// A position's scores of one head, of every position that it sees.
fn scores(q: &ArrayD<f64>, k: &ArrayD<f64>, heads: usize, causal: bool, at: [usize; 3]) -> Vec<f64> {
    let [sample, head, position] = at;
    let width = q.shape()[2] / heads;
    let seen = if causal { position + 1 } else { k.shape()[1] };
    let score = |other: usize| {
        let features = head * width..(head + 1) * width;
        features.map(|f| q[[sample, position, f]] * k[[sample, other, f]]).sum::<f64>() / (width as f64).sqrt()
    };
    (0..seen).map(score).collect()
}

fn attentions(given: &Given, heads: usize, compare: Compare, causal: bool) -> f64 {
    let [k_s, k_t] = given.second.as_ref().unwrap();
    let (mut sum, mut count) = (0.0, 0.0);
    for sample in 0..given.student.shape()[0] {
        for head in 0..heads {
            for position in 0..given.student.shape()[1] {
                let at = [sample, head, position];
                let s = scores(&given.student, k_s, heads, causal, at);
                let t = scores(&given.teacher, k_t, heads, causal, at);
                if compare == Compare::Scores {
                    sum += s.iter().zip(&t).map(|(s, t)| (s - t).powi(2)).sum::<f64>();
                    count += s.len() as f64;
                    continue;
                }
                let total = |scores: &[f64]| scores.iter().map(|score| score.exp()).sum::<f64>();
                let (of_s, of_t) = (total(&s), total(&t));
                let divergence = |(s, t): (&f64, &f64)| {
                    let (s, t) = (s.exp() / of_s, t.exp() / of_t);
                    t * (t / s).ln()
                };
                sum += s.iter().zip(&t).map(divergence).sum::<f64>();
                count += 1.0;
            }
        }
    }
    sum / count
}

/// Queries (batch, len, ..) and keys (batch, seen, ..), 6 features for the student and 12 for the teacher.
fn transformers(batch: usize, len: usize, seen: usize, seed: u64) -> Given {
    let of = |len, features, seed| random(&[batch, len, features], seed);
    let second = Some([of(seen, 6, seed + 1), of(seen, 12, seed + 2)]);
    Given { second, ..Given::new(of(len, 6, seed + 3), of(len, 12, seed + 4)) }
}

#[test]
fn values_between_positions_are_those_of_plain_loops() {
    for (batch, len, seen) in [(1, 1, 1), (2, 4, 4), (3, 2, 5)] {
        for heads in [1, 2, 3, 6] {
            for compare in [Compare::Distributions, Compare::Scores] {
                for causal in [false, true] {
                    let given = transformers(batch, len, if causal { len } else { seen }, heads as u64);
                    let loss = Attentions::new(heads).compare(compare);
                    let loss = if causal { loss.causal() } else { loss };
                    let expected = attentions(&given, heads, compare, causal);
                    near(loss.apply(&given.signals()).unwrap().value, expected, &loss);
                }
            }
            let given = transformers(batch, len, seen, 9);
            let of_itself = Given { second: Some([given.student.clone(), given.teacher.clone()]), ..given.clone() };
            let expected = attentions(&of_itself, heads, Compare::Distributions, false);
            near(apply(&Relations::new(heads), &given.student, &given.teacher).value, expected, &heads);
        }
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

// ---- gradients, by finite differences

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
        assert!(apply(&**distiller, &student, &teacher).gradient.row_mut_of(2).iter().all(|slope| *slope == 0.0));
    }
    for distiller in between_samples() {
        let loss = apply(&*distiller, &ArrayD::zeros(vec![4, 3]), &random(&[4, 4], 2));
        assert_eq!(loss.gradient, ArrayD::<f64>::zeros(vec![4, 3]), "{distiller:?}");
        assert!(loss.value > 0.0 && loss.value.is_finite(), "{distiller:?}");
    }
}

trait Rows {
    fn row_mut_of(&mut self, row: usize) -> ndarray::ArrayViewMutD<'_, f64>;
}

impl Rows for ArrayD<f64> {
    fn row_mut_of(&mut self, row: usize) -> ndarray::ArrayViewMutD<'_, f64> {
        self.index_axis_mut(Axis(0), row)
    }
}

// ---- identities

/// Turned in every plane of two neighbouring features.
fn turned(array: &ArrayD<f64>) -> ArrayD<f64> {
    let width = array.shape()[1];
    let rotation = (0..width - 1).fold(Array2::<f64>::eye(width), |rotation, first| {
        let (sin, cos) = (0.7 + first as f64).sin_cos();
        let mut plane = Array2::eye(width);
        plane.slice_mut(s![first..first + 2, first..first + 2]).assign(&arr2(&[[cos, -sin], [sin, cos]]));
        rotation.dot(&plane)
    });
    array.clone().into_dimensionality::<ndarray::Ix2>().unwrap().dot(&rotation).into_dyn()
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

// ---- bad input

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
    assert!(matches!(error, Error::NotFinite { what: "the loss of signals so large", .. }), "{error}");
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
        assert!(matches!(error, Error::NotFinite { what: "the loss of signals so large", .. }), "{error}");
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
