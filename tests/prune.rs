//! Pruning of single tensors: every score with every pattern does what the pattern promises, energies are those of theory,
//! bad input is named. Scores one by one are in `scores`, the reference implementations' own numbers in `golden`, what
//! quantization makes of the zeros in `pruned_quantized`.

mod common;

use approx::assert_relative_eq;
use common::{normal_line as normal, observed};
use half::{bf16, f16};
use ndarray::{Array, Array1, Array2, ArrayD, Axis, IxDyn, array};
use proptest::prelude::*;
use tersor::{
    Error, Mask, PrunedTensor, Pruner, Result, Weights,
    prune::{Amount, Magnitude, Pattern, Ranked, Score},
    tensor::{Observed, Statistic},
};

/// Every built-in score with this amount and pattern; FPGM only where it can be.
fn every_pruner(amount: Amount, pattern: Pattern) -> Vec<Box<dyn Pruner>> {
    let mut pruners: Vec<Box<dyn Pruner>> = vec![
        Box::new(Pruner::magnitude(amount).pattern(pattern)),
        Box::new(Pruner::magnitude(amount).norm(1.0).pattern(pattern)),
        Box::new(Pruner::random(amount, 4).pattern(pattern)),
        Box::new(Pruner::lamp(amount).pattern(pattern)),
        Box::new(Pruner::taylor(amount).pattern(pattern)),
        Box::new(Pruner::snip(amount).pattern(pattern)),
        Box::new(Pruner::grasp(amount).pattern(pattern)),
        Box::new(Pruner::synflow(amount).pattern(pattern)),
        Box::new(Pruner::movement(amount).pattern(pattern)),
        Box::new(Ranked::new(Position, amount).pattern(pattern)),
    ];
    if let Pattern::Structured(_) = pattern {
        pruners.push(Box::new(Pruner::fpgm(amount).pattern(pattern)));
    }
    pruners
}

/// A score written outside the crate: what comes first goes first.
#[derive(Debug)]
struct Position;

impl Score for Position {
    fn elements(&self, weights: &dyn Weights) -> Result<ArrayD<f32>> {
        let shape = weights.values().shape().to_vec();
        let count = shape.iter().product::<usize>();
        Ok(ArrayD::from_shape_vec(shape, (0..count).map(|i| i as f32).collect()).unwrap())
    }
}

/// Rows and columns of a tensor taken as a matrix.
fn matrix(shape: &[usize]) -> (usize, usize) {
    if shape.len() == 1 { (1, shape[0]) } else { (shape[0], shape[1..].iter().product()) }
}

fn half_even(x: f64) -> usize {
    x.round_ties_even() as usize
}

/// The units of a pattern, each as its elements' positions: by its definition, without the crate.
fn units(shape: &[usize], pattern: Pattern) -> Vec<Vec<usize>> {
    let len = shape.iter().product::<usize>();
    let positions = || ndarray::indices(IxDyn(shape)).into_iter();
    match pattern {
        Pattern::Structured(axis) => {
            let in_row = |row| positions().enumerate().filter(move |(_, at)| at[axis.index()] == row).map(|(i, _)| i);
            (0..shape[axis.index()]).map(|row| in_row(row).collect()).collect()
        }
        Pattern::Block { rows, columns } => {
            let (height, width) = matrix(shape);
            let mut blocks = vec![];
            for top in (0..height).step_by(rows) {
                for left in (0..width).step_by(columns) {
                    let bottom = height.min(top + rows);
                    let row = |row| (left..width.min(left + columns)).map(move |column| row * width + column);
                    blocks.push((top..bottom).flat_map(row).collect());
                }
            }
            blocks
        }
        _ => (0..len).map(|i| vec![i]).collect(),
    }
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        prop::collection::vec(1usize..40, 1..=1),
        prop::collection::vec(1usize..12, 2..=2),
        prop::collection::vec(1usize..6, 4..=4),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_score_removes_what_the_pattern_and_amount_say(
        shape in shapes(), kind in 0usize..3, a in 1usize..5, b in 1usize..5, fraction in 0.0f64..=1.0, seed in any::<u64>(),
    ) {
        let pattern = match kind {
            0 => Pattern::Element,
            1 => Pattern::Structured(Axis(a % shape.len())),
            _ => Pattern::Block { rows: a, columns: b },
        };
        let weights = normal(shape.iter().product(), seed).into_shape_with_order(shape.clone()).unwrap();
        let statistic = normal(weights.len(), seed ^ 1).into_shape_with_order(shape.clone()).unwrap();
        let units = units(&shape, pattern);
        let goes = half_even(fraction * units.len() as f64);
        for pruner in every_pruner(Amount::Fraction(fraction), pattern) {
            let pruned = pruner.apply(&observed(&weights, &statistic)).unwrap();
            let gone = units.iter().filter(|unit| unit.iter().all(|i| !pruned.mask().is_kept(*i))).count();
            let whole = units.iter().filter(|unit| unit.iter().all(|i| pruned.mask().is_kept(*i))).count();
            prop_assert_eq!((gone, whole), (goes, units.len() - goes), "{:?}", pruner);
            let values = weights.iter().zip(pruned.values()).zip(pruned.mask().iter());
            for ((w, value), kept) in values {
                prop_assert_eq!(*value, if kept { *w } else { 0.0 });
            }
            // What was removed stays removed, and counts.
            let again = pruner.apply(&observed(&pruned, &statistic)).unwrap();
            prop_assert_eq!(again.mask(), pruned.mask(), "{:?}", pruner);
            for second in every_pruner(Amount::Fraction(1.0 - fraction), Pattern::Element) {
                let both = second.apply(&observed(&pruned, &statistic)).unwrap();
                prop_assert_eq!(&both.mask().and(pruned.mask()).unwrap(), both.mask(), "{:?}: nothing comes back", second);
            }
        }
    }

    #[test]
    fn tensors_together_are_one_tensor(
        lens in prop::collection::vec(1usize..20, 1..4), fraction in 0.0f64..=1.0, seed in any::<u64>(),
    ) {
        // Whole numbers, so that there are ties, in one tensor and between two.
        let all = normal(lens.iter().sum(), seed).mapv(|x| (2.0 * x).round());
        let mut start = 0;
        let tensors: Vec<Array1<f32>> = lens.iter().map(|len| {
            start += len;
            all.slice(ndarray::s![start - len..start]).to_owned()
        }).collect();
        let tensors: Vec<&dyn Weights> = tensors.iter().map(|tensor| tensor as &dyn Weights).collect();
        let pruned = Pruner::magnitude(fraction).apply_together(&tensors).unwrap();
        let together: Vec<bool> = pruned.iter().flat_map(|pruned| pruned.mask().iter().collect::<Vec<_>>()).collect();
        let alone = Pruner::magnitude(fraction).apply(&all).unwrap();
        prop_assert_eq!(together, alone.mask().iter().collect::<Vec<_>>());
    }

    #[test]
    fn n_of_m_keeps_the_best_of_every_group(
        shape in shapes(), m in 1usize..9, n_share in 0.0f64..=1.0, seed in any::<u64>(),
    ) {
        let n = half_even(n_share * m as f64);
        let weights = normal(shape.iter().product(), seed).into_shape_with_order(shape.clone()).unwrap();
        let statistic = normal(weights.len(), seed ^ 1).into_shape_with_order(shape.clone()).unwrap();
        let (_, columns) = matrix(&shape);
        for pruner in every_pruner(Amount::Fraction(1.0 - n as f64 / m as f64), Pattern::NOfM { n, m }) {
            let pruned = pruner.apply(&observed(&weights, &statistic)).unwrap();
            let kept: Vec<bool> = pruned.mask().iter().collect();
            let groups = kept.chunks(columns).flat_map(|row| row.chunks(m));
            for group in groups {
                prop_assert_eq!(group.iter().filter(|kept| **kept).count(), n.min(group.len()), "{:?}", pruner);
            }
            // Of what is left of a tensor pruned before, no more than n stay, and as many as can.
            let before = Mask::from_fn(&shape, |i| !(i as u64 ^ seed).is_multiple_of(3)).unwrap();
            let after = pruner.apply(&observed(&weights, &statistic).masked(&before)).unwrap();
            let (before, after): (Vec<bool>, Vec<bool>) = (before.iter().collect(), after.mask().iter().collect());
            for (before, after) in before.chunks(columns).zip(after.chunks(columns)) {
                for (before, after) in before.chunks(m).zip(after.chunks(m)) {
                    let left = before.iter().filter(|kept| **kept).count();
                    prop_assert_eq!(after.iter().filter(|kept| **kept).count(), n.min(left), "{:?}", pruner);
                    prop_assert!(before.iter().zip(after).all(|(before, after)| *before || !after));
                }
            }
        }
        let pruned = Pruner::magnitude(1.0 - n as f64 / m as f64).n_of_m(n, m).apply(&weights).unwrap();
        let (weights, kept): (Vec<f32>, Vec<bool>) = (weights.iter().map(|w| w.abs()).collect(), pruned.mask().iter().collect());
        for (row, kept) in weights.chunks(columns).zip(kept.chunks(columns)) {
            for (group, kept) in row.chunks(m).zip(kept.chunks(m)) {
                let worst = group.iter().zip(kept).filter(|(_, kept)| **kept).fold(f32::INFINITY, |w, (x, _)| w.min(*x));
                prop_assert!(group.iter().zip(kept).all(|(x, kept)| *kept || *x <= worst));
            }
        }
    }

    #[test]
    fn amounts_of_what_is_left_multiply(fraction in 0.0f64..=1.0, rounds in 1usize..5, len in 1usize..60, seed in any::<u64>()) {
        let weights = normal(len, seed);
        let pruner = Pruner::magnitude(fraction).of_remaining();
        let mut left = len;
        let mut pruned = PrunedTensor::new(weights.into_dyn(), Mask::ones(&[len]).unwrap()).unwrap();
        for _ in 0..rounds {
            left -= half_even(fraction * left as f64);
            let next = pruner.apply(&pruned).unwrap();
            prop_assert_eq!(next.mask().kept(), left);
            prop_assert_eq!(next.mask().and(pruned.mask()).unwrap(), next.mask().clone(), "nothing comes back");
            pruned = next;
        }
    }

    #[test]
    fn of_equal_scores_the_lower_index_goes_first(values in prop::collection::vec(0u8..3, 1..80), fraction in 0.0f64..=1.0) {
        let weights = Array::from_iter(values.iter().map(|v| f32::from(*v)));
        let pruned = Pruner::magnitude(fraction).apply(&weights).unwrap();
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by_key(|i| (values[*i], *i));
        let removed = half_even(fraction * values.len() as f64);
        prop_assert!(order[..removed].iter().all(|i| !pruned.mask().is_kept(*i)));
        prop_assert!(order[removed..].iter().all(|i| pruned.mask().is_kept(*i)));
    }
}

#[test]
fn normal_weights_lose_the_energy_that_theory_says() {
    const N: usize = 1 << 20;
    let w = normal(N, 5).into_shape_with_order((N / 64, 64)).unwrap();
    let lost = |pruned: PrunedTensor| {
        let error = (&w.view().into_dyn() - &pruned.values()).mapv(|x| f64::from(x).powi(2));
        error.sum() / N as f64
    };
    for (sparsity, energy) in [
        (0.5, 0.071326),
        (0.6, 0.128756),
        (0.7, 0.216693),
        (0.75, 0.276393),
        (0.8, 0.350180),
        (0.9, 0.560714),
        (0.95, 0.720900),
    ] {
        assert_relative_eq!(lost(Pruner::magnitude(sparsity).apply(&w).unwrap()), energy, max_relative = 6e-3);
    }
    // (removed of every m, m, energy)
    for (removed, m, energy) in [
        (2, 4, 0.132447),
        (4, 8, 0.103307),
        (8, 16, 0.087633),
        (1, 4, 0.030176),
        (3, 4, 0.382447),
        (1, 2, 0.5 - std::f64::consts::FRAC_1_PI),
    ] {
        let pruner = Pruner::magnitude(removed as f64 / m as f64).n_of_m(m - removed, m);
        assert_relative_eq!(lost(pruner.apply(&w).unwrap()), energy, max_relative = 8e-3);
    }
}

#[test]
fn every_array_is_taken_alike() {
    // Few digits, so that every type holds them.
    let w = normal(60, 3).into_shape_with_order((6, 10)).unwrap().mapv(|x| (16.0 * x).round() / 16.0);
    let statistic = normal(60, 4).into_shape_with_order((6, 10)).unwrap();
    let (transposed, dynamic) = (w.t().as_standard_layout().into_owned(), statistic.clone().into_dyn());
    let (wide, columns_first) = (Array2::from_shape_fn((12, 10), |(i, j)| w[[i / 2, j]]), statistic.t().to_owned());
    for pattern in [Pattern::Element, Pattern::Structured(Axis(1)), Pattern::Block { rows: 4, columns: 3 }] {
        for pruner in every_pruner(Amount::Fraction(0.7), pattern) {
            let expected = pruner.apply(&observed(&w, &dynamic)).unwrap();
            let of = |weights: &dyn Weights| pruner.apply(&observed(weights, &dynamic)).unwrap();
            assert_eq!(of(&w.view()), expected);
            assert_eq!(of(&w.mapv(f64::from)), expected);
            assert_eq!(of(&w.mapv(bf16::from_f32)), expected);
            assert_eq!(of(&w.mapv(f16::from_f32)), expected);
            assert_eq!(of(&transposed.t()), expected);
            assert_eq!(of(&wide.slice(ndarray::s![..;2, ..])), expected);
            let strided = columns_first.t().into_dyn().to_owned();
            assert_eq!(pruner.apply(&observed(&w, &strided)).unwrap(), expected);
        }
    }
    assert_eq!(Pruner::magnitude(1).apply(&ndarray::arr0(3.0_f32)).unwrap().mask().kept(), 0);
}

#[test]
fn pruners_are_shown_as_the_code_that_makes_them() {
    let shown: [(Box<dyn Pruner>, &str); 13] = [
        (Box::new(Pruner::magnitude(0.9)), "magnitude(0.9)"),
        (Box::new(Pruner::magnitude(0.5_f32).n_of_m(2, 4)), "magnitude(0.5).n_of_m(2, 4)"),
        (Box::new(Pruner::magnitude(7).norm(1.0).structured(Axis(0))), "magnitude(7).norm(1.0).structured(Axis(0))"),
        (Box::new(Pruner::random(0.25, 7).block(2, 8).of_remaining()), "random(0.25, 7).block(2, 8).of_remaining()"),
        (Box::new(Pruner::synflow(0.5).rounds(10)), "synflow(0.5).rounds(10)"),
        (Box::new(Pruner::synflow(0.5).of_remaining()), "synflow(0.5).of_remaining()"),
        (Box::new(Pruner::lamp(0.5)), "lamp(0.5)"),
        (Box::new(Pruner::fpgm(3).structured(Axis(1))), "fpgm(3).structured(Axis(1))"),
        (Box::new(Pruner::taylor(0.5)), "taylor(0.5)"),
        (Box::new(Pruner::snip(0.5)), "snip(0.5)"),
        (Box::new(Pruner::grasp(0.5)), "grasp(0.5)"),
        (Box::new(Pruner::movement(Amount::Below(1.5))), "movement(Amount::Below(1.5))"),
        (Box::new(Pruner::threshold(0.01)), "magnitude(Amount::Below(0.01))"),
    ];
    for (pruner, text) in shown {
        assert_eq!(format!("{pruner:?}"), text);
    }
}

#[test]
fn bad_input_is_named() {
    let w = normal(12, 1).into_shape_with_order((3, 4)).unwrap();
    type Fits = fn(&Error) -> bool;
    let setting: Fits = |e| matches!(e, Error::Setting { .. });
    let needs: Fits = |e| matches!(e, Error::NeedsCalibration { .. });
    let cases: Vec<(Box<dyn Pruner>, Fits, &str)> = vec![
        (Box::new(Pruner::magnitude(1.5)), setting, "1.5"),
        (Box::new(Pruner::magnitude(-0.25)), setting, "-0.25"),
        (Box::new(Pruner::magnitude(f64::NAN)), setting, "NaN"),
        (Box::new(Pruner::magnitude(f32::INFINITY)), setting, "inf"),
        (Box::new(Pruner::magnitude(13)), setting, "13"),
        (Box::new(Pruner::magnitude(4).structured(Axis(0))), setting, "4"),
        (Box::new(Pruner::threshold(f64::NAN)), setting, "NaN"),
        (Box::new(Pruner::magnitude(0.5).norm(0.0).structured(Axis(0))), setting, "0"),
        (Box::new(Pruner::magnitude(0.5).norm(f64::NAN).block(1, 2)), setting, "NaN"),
        (Box::new(Pruner::magnitude(0.5).block(0, 2)), setting, "rows"),
        (Box::new(Pruner::magnitude(0.5).block(2, 0)), setting, "columns"),
        (Box::new(Pruner::magnitude(0.5).n_of_m(5, 4)), setting, "5"),
        (Box::new(Pruner::magnitude(0.5).n_of_m(0, 0)), setting, "0"),
        (Box::new(Pruner::magnitude(0.6).n_of_m(2, 4)), |e| matches!(e, Error::Conflict { .. }), "0.6"),
        (Box::new(Pruner::magnitude(5).n_of_m(2, 4)), |e| matches!(e, Error::Conflict { .. }), "5"),
        (Box::new(Pruner::magnitude(0.5).n_of_m(2, 4).of_remaining()), |e| matches!(e, Error::Conflict { .. }), "left"),
        (Box::new(Pruner::magnitude(0.5).structured(Axis(2))), |e| matches!(e, Error::Axis { axis: 2, rank: 2 }), "2"),
        (Box::new(Pruner::fpgm(0.5)), |e| matches!(e, Error::Conflict { .. }), "structured"),
        (Box::new(Pruner::fpgm(0.5).block(1, 2)), |e| matches!(e, Error::Conflict { .. }), "structured"),
        (Box::new(Pruner::taylor(0.5)), needs, "Pruner::taylor needs the gradient"),
        (Box::new(Pruner::snip(0.5)), needs, "Pruner::snip needs the gradient"),
        (Box::new(Pruner::grasp(0.5)), needs, "Observed::with(Statistic::HessianGradient"),
        (Box::new(Pruner::synflow(0.5)), needs, "Pruner::synflow needs the synaptic flow"),
        (Box::new(Pruner::movement(0.5)), needs, "Observed::with(Statistic::Movement"),
        (Box::new(Pruner::synflow(0.5).rounds(0)), setting, "rounds = 0"),
    ];
    for (pruner, fits, text) in cases {
        let error = pruner.apply(&w).unwrap_err();
        assert!(fits(&error) && error.to_string().contains(text), "{pruner:?}: {error}");
    }
    let statistic = w.clone().into_dyn();
    for (amount, text) in [(Amount::Fraction(1.01), "1.01"), (f64::NAN.into(), "NaN"), (99.into(), "99")] {
        for pattern in [Pattern::Element, Pattern::Structured(Axis(0)), Pattern::Block { rows: 2, columns: 3 }] {
            for pruner in every_pruner(amount, pattern) {
                let error = pruner.apply(&observed(&w, &statistic)).unwrap_err();
                assert!(setting(&error) && error.to_string().contains(text), "{pruner:?}: {error}");
            }
        }
    }
    for pruner in every_pruner(Amount::Fraction(0.5), Pattern::Structured(Axis(1))) {
        let of = |weights: &dyn Weights, statistic: &ArrayD<f32>| pruner.apply(&observed(weights, statistic));
        let mut spoiled = w.clone();
        spoiled[[1, 1]] = f32::NEG_INFINITY;
        let error = of(&spoiled, &statistic).unwrap_err();
        assert!(matches!(error, Error::NotFinite { index: 5, .. }) && error.to_string().contains("-inf"), "{error}");
        assert!(matches!(of(&Array2::<f32>::zeros((3, 0)), &statistic), Err(Error::Empty { .. })));
        if pruner.ranking().unwrap().0.needs().is_some() {
            assert!(matches!(of(&w, &spoiled.into_dyn()), Err(Error::NotFinite { .. })), "{pruner:?}");
            assert!(matches!(of(&w, &w.t().to_owned().into_dyn()), Err(Error::Shape { .. })), "{pruner:?}");
        }
    }
    let pruner = Pruner::magnitude(0.5);
    assert!(matches!(pruner.apply(&Array2::<f32>::zeros((0, 3))), Err(Error::Empty { .. })));
    assert!(matches!(pruner.apply(&array![1.0_f32, f32::NAN]), Err(Error::NotFinite { index: 1, .. })));
    let (narrow, spoiled) = (Array2::<f32>::ones((3, 3)), w.mapv(|_| f32::INFINITY));
    let with = |s| Pruner::snip(0.5).apply(&Observed::new(&w).with(Statistic::Gradient, s));
    assert!(matches!(with(&narrow), Err(Error::Shape { what: "the gradient", .. })));
    assert!(matches!(with(&spoiled), Err(Error::NotFinite { what: "the gradient", .. })));
    let empty = pruner.apply(&Array2::<f32>::zeros((0, 3))).unwrap_err().to_string();
    assert_eq!(empty, "there is nothing in the weights, where at least one element is needed");
    assert!(with(&spoiled).unwrap_err().to_string().starts_with("element 0 of the gradient is inf"));
    let mask = Mask::ones(&[4, 3]).unwrap();
    assert!(matches!(pruner.apply(&Observed::new(&w).masked(&mask)), Err(Error::Shape { .. })));
    assert!(PrunedTensor::new(w.clone().into_dyn(), mask).is_err());
    let pairs = Pruner::magnitude(0.5).n_of_m(2, 4);
    assert!(matches!(pairs.apply_together(&[&w, &w]), Err(Error::Conflict { .. })));

    #[derive(Debug)]
    struct Broken(ArrayD<f32>);
    impl Score for Broken {
        fn elements(&self, _: &dyn Weights) -> Result<ArrayD<f32>> {
            Ok(self.0.clone())
        }
    }
    let broken = |scores: ArrayD<f32>| Ranked::new(Broken(scores), 0.5).apply(&w);
    // As many numbers in another shape are ranked wrongly, so they are not ranked at all.
    for shape in [vec![5], vec![12], vec![4, 3]] {
        match broken(ArrayD::zeros(shape.clone())) {
            Err(Error::Shape { what: "the scores", expected, found }) => assert!(expected == [3, 4] && found == shape),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(broken(w.mapv(|_| f32::NAN).into_dyn()), Err(Error::NotFinite { .. })));
}

#[test]
fn boxed_pruners_are_pruners() {
    let kept: Vec<Box<dyn Pruner>> = vec![Box::new(Pruner::magnitude(0.75)), Box::new(Pruner::random(0.75, 1))];
    assert!(kept.iter().all(|p| p.apply(&normal(128, 2)).unwrap().mask().kept() == 32 && p.ranking().is_some()));
    let same: Ranked<Magnitude> = Pruner::magnitude(0.5);
    assert_eq!(same, Pruner::magnitude(0.5));
}
