//! Values, against plain nested loops.

use ndarray::{ArrayD, Axis};
use tersor::{
    Distiller,
    distill::{
        Attentions, Compare, Correlation, CorrelationCongruence, Pkt, Relations, RkdAngle, RkdDistance,
        SimilarityPreserving,
    },
};

use super::{apply, crowd, kernels, near, neighbours, random, transformers};
use crate::differences::Given;

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
        let distance = |a: &Vec<f64>, b: &Vec<f64>| dot(&minus(a, b), &minus(a, b)).sqrt();
        let of = |a| rows.iter().map(|b| distance(a, b)).collect();
        let all: Vec<Vec<f64>> = rows.iter().map(of).collect();
        let positive: Vec<f64> = all.iter().flatten().copied().filter(|d| *d > 0.0).collect();
        let mean = if positive.is_empty() { 1.0 } else { positive.iter().sum::<f64>() / positive.len() as f64 };
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
fn samples_that_all_but_coincide_and_samples_far_from_the_origin_are_those_of_plain_loops() {
    for seed in 0..4 {
        for gap in [1e-1, 3e-3, 5e-4, 1e-6, 1e-9, 1e-12] {
            let (student, teacher) = (crowd(gap, seed), random(&[7, 4], seed + 10));
            for (a, b) in [(&student, &teacher), (&teacher, &student), (&student, &(&teacher + 1e6))] {
                let far = if b[[0, 0]] > 1e5 { 1e-8 } else { 1e-9 }; // what the offset leaves of the digits
                for (loss, by_loops) in [
                    (&RkdAngle::new() as &dyn Distiller, rkd_angle(a, b)),
                    (&RkdDistance::new() as &dyn Distiller, rkd_distance(a, b)),
                ] {
                    let found = apply(loss, a, b).value;
                    assert!((found - by_loops).abs() < far, "{loss:?}, {gap}: {found}, by loops {by_loops}");
                }
            }
        }
    }
}
