//! Scores against brute force and their papers' formulas. What every score has in common is in `prune`.

mod common;

use ndarray::{Array, Array1, ArrayD, Axis, array};
use proptest::prelude::*;
use tersor::{
    Mask, PrunedTensor, Pruner, Result, Weights,
    prune::{Ranked, Score},
    tensor::{Observed, Statistic},
};

use common::{normal_line as normal, observed};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn lamp_never_empties_a_tensor_before_the_others(
        lens in prop::collection::vec(1usize..30, 2..5), scales in prop::collection::vec(-8i32..8, 5), seed in any::<u64>(),
    ) {
        let tensors: Vec<_> = lens.iter().zip(&scales).enumerate()
            .map(|(i, (len, scale))| normal(*len, seed ^ i as u64) * 2f32.powi(*scale)).collect();
        let views: Vec<&dyn Weights> = tensors.iter().map(|t| t as &dyn Weights).collect();
        let all: usize = lens.iter().sum();
        // All that can go while each tensor keeps its largest.
        let pruned = Pruner::lamp(all - lens.len()).apply_together(&views).unwrap();
        prop_assert!(pruned.iter().all(|p| p.mask().kept() == 1));
    }

    #[test]
    fn lamp_is_its_formula(values in prop::collection::vec(0i8..4, 1..30)) {
        let w = Array::from_iter(values.iter().map(|v| f32::from(*v) - 1.5));
        let scores = tersor::prune::Lamp.elements(&w).unwrap();
        let square = |i: usize| f64::from(w[i]).powi(2);
        for u in 0..w.len() {
            let not_before = (0..w.len()).filter(|v| (square(*v), *v) >= (square(u), u)).map(square);
            prop_assert!((f64::from(scores[u]) - square(u) / not_before.sum::<f64>()).abs() < 1e-6);
        }
        prop_assert_eq!(scores.iter().filter(|score| **score == 1.0).count(), 1);
    }

    #[test]
    fn norms_of_any_power_rank_units_as_their_definition(
        rows in 1usize..8, columns in 1usize..8, p in prop_oneof![Just(-1.0), Just(0.5), Just(1.0), Just(2.0), Just(3.0)],
        seed in any::<u64>(),
    ) {
        let w = normal(rows * columns, seed).into_shape_with_order((rows, columns)).unwrap();
        let pruner = Pruner::magnitude(0.5).norm(p).structured(Axis(0));
        let norm = |row: usize| w.row(row).iter().map(|x| f64::from(x.abs()).powf(p)).sum::<f64>().powf(1.0 / p);
        let pruned = pruner.apply(&w).unwrap();
        let (kept, gone): (Vec<usize>, Vec<usize>) = (0..rows).partition(|row| pruned.mask().is_kept(row * columns));
        let least = kept.iter().map(|row| norm(*row)).fold(f64::INFINITY, f64::min);
        prop_assert!(gone.iter().all(|row| norm(*row) <= least * (1.0 + 1e-9)));
        // Scaled to where the powers of the numbers leave even f64, units rank alike.
        let tiny = Pruner::magnitude(0.5).norm(64.0 * p).structured(Axis(0));
        let [found, expected] = [&w * 2f32.powi(-60), w].map(|w| tiny.apply(&w).unwrap().into_parts().1);
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn filters_are_ranked_by_their_distances_to_those_left(
        rows in 2usize..8, columns in 1usize..20, axis in 0usize..2, dead in prop::collection::vec(any::<bool>(), 8),
        seed in any::<u64>(),
    ) {
        let filters = normal(rows * columns, seed).into_shape_with_order((rows, columns)).unwrap();
        let alive: Vec<usize> = (0..rows).filter(|row| !dead[*row]).collect();
        let mask = Mask::from_fn(&[rows, columns], |i| !dead[i / columns]).unwrap();
        let (w, mask) = match axis {
            0 => (filters.clone(), mask),
            _ => (filters.t().to_owned(), Mask::from_fn(&[columns, rows], |i| !dead[i % rows]).unwrap()),
        };
        let distance = |a: usize, b: usize| {
            let pairs = filters.row(a).into_iter().zip(filters.row(b));
            pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum::<f64>().sqrt()
        };
        let sum = |a: &usize| alive.iter().map(|b| distance(*a, *b)).sum::<f64>();
        let pruned = Pruner::fpgm(0.4).structured(Axis(axis)).of_remaining();
        let pruned = pruned.apply(&Observed::new(&w).masked(&mask)).unwrap();
        let kept = |row: &&usize| pruned.values().index_axis(Axis(axis), **row).iter().any(|x| *x != 0.0);
        let (kept, gone): (Vec<&usize>, Vec<&usize>) = alive.iter().partition(kept);
        prop_assert_eq!(gone.len(), (0.4 * alive.len() as f64).round_ties_even() as usize);
        let least = kept.into_iter().map(sum).fold(f64::INFINITY, f64::min);
        prop_assert!(gone.into_iter().all(|row| sum(row) <= least * (1.0 + 1e-12)));
    }

    #[test]
    fn statistics_rank_as_their_papers_say(len in 1usize..30, seed in any::<u64>()) {
        let (w, s) = (normal(len, seed), normal(len, seed ^ 9));
        let dynamic = s.clone().into_dyn();
        let first = |pruner: &dyn Pruner| {
            let pruned = pruner.apply(&observed(&w, &dynamic)).unwrap();
            (0..len).find(|i| !pruned.mask().is_kept(*i)).unwrap()
        };
        let least = |f: &dyn Fn(f32, f32) -> f32| {
            (0..len).min_by(|a, b| f(w[*a], s[*a]).total_cmp(&f(w[*b], s[*b]))).unwrap()
        };
        prop_assert_eq!(first(&Pruner::taylor(1)), least(&|w, g| (w * g).abs()));
        prop_assert_eq!(first(&Pruner::snip(1)), least(&|w, g| (w * g).abs()));
        // Without w the squared gradient norm changes by -2 w (H g); where it gains most, w goes.
        prop_assert_eq!(first(&Pruner::grasp(1)), least(&|w, hg| w * hg));
        prop_assert_eq!(first(&Pruner::synflow(1)), least(&|w, flow| (w * flow).abs()));
        prop_assert_eq!(first(&Pruner::movement(1)), least(&|_, s| s));
    }
}

#[test]
fn a_structures_taylor_score_lets_gains_and_losses_cancel() {
    let (w, g) = (array![[3.0_f32, 3.0], [1.0, 1.0]], array![[1.0_f32, -1.0], [1.0, 1.0]]);
    let observed = Observed::new(&w).with(Statistic::Gradient, &g);
    let rows = |pruned: PrunedTensor| pruned.mask().is_kept(0);
    assert!(!rows(Pruner::taylor(1).structured(Axis(0)).apply(&observed).unwrap()), "3 - 3 changes nothing");
    assert!(rows(Pruner::snip(1).structured(Axis(0)).apply(&observed).unwrap()), "its mean is the larger");
}

#[test]
fn every_choice_of_a_random_pruner_is_as_likely() {
    const SEEDS: u64 = 6000;
    let w = array![[1.0_f32, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]];
    let mut counts = std::collections::BTreeMap::new();
    for seed in 0..SEEDS {
        let pruned = Pruner::random(2, seed).structured(Axis(0)).apply(&w).unwrap();
        *counts.entry(pruned.mask().positions().collect::<Vec<_>>()).or_insert(0u64) += 1;
    }
    // 6 pairs of 4 rows, 1000 expected of each, standard deviation 29.
    assert!(counts.len() == 6 && counts.values().all(|count| count.abs_diff(1000) < 145), "{counts:?}");
    // Layers of one shape under one seed: half of what one keeps, another does.
    let (one, other) = (normal(10_000, 1), normal(10_000, 2));
    let [one, other] = [&one, &other].map(|w| Pruner::random(0.5, 9).apply(w).unwrap());
    let both = one.mask().and(other.mask()).unwrap().kept();
    assert!(both.abs_diff(2500) < 220, "{both}, expected 2500 with a standard deviation of 43");
}

#[test]
fn what_is_gone_adds_nothing_to_its_units_score() {
    #[derive(Debug)]
    struct Signed;
    impl Score for Signed {
        fn elements(&self, weights: &dyn Weights) -> Result<ArrayD<f32>> {
            Ok(weights.values().into_owned())
        }
    }
    let w = array![[9.0_f32, 1.0], [2.0, 1.0]];
    let mask = Mask::from_fn(&[2, 2], |i| i != 0).unwrap();
    let rows = |pruned: PrunedTensor| [0, 2].map(|i| pruned.mask().is_kept(i + 1));
    let observed = Observed::new(&w).masked(&mask);
    assert_eq!(rows(Ranked::new(Signed, 1).structured(Axis(0)).apply(&observed).unwrap()), [false, true]);
    assert_eq!(rows(Pruner::magnitude(1).structured(Axis(0)).apply(&observed).unwrap()), [false, true]);
    let movement = array![[9.0_f32, 1.0], [2.0, 1.0]];
    let observed = observed.with(Statistic::Movement, &movement);
    assert_eq!(rows(Pruner::movement(1).structured(Axis(0)).apply(&observed).unwrap()), [false, true]);
}

#[test]
fn lamp_keeps_one_of_zeros() {
    let (zeros, w) = (Array1::<f32>::zeros(5), normal(5, 1));
    let pruned = Pruner::lamp(8).apply_together(&[&zeros, &w]).unwrap();
    assert!(pruned.iter().all(|pruned| pruned.mask().kept() == 1));
}

#[test]
fn a_threshold_removes_what_is_below_it() {
    let w = array![0.1_f32, -0.5, 0.5, -2.0];
    assert_eq!(Pruner::threshold(0.5).apply(&w).unwrap().values(), array![0.0, -0.5, 0.5, -2.0].into_dyn());
    let rows = Pruner::threshold(1.0).structured(Axis(0)).apply(&array![[0.1_f32, 0.2], [3.0, 0.0]]).unwrap();
    assert_eq!(rows.values(), array![[0.0, 0.0], [3.0, 0.0]].into_dyn());
}
