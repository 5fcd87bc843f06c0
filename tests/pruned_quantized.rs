//! Sparse and quantized together: what was removed comes back as zero, or the scheme says that it cannot.

mod common;

use common::normal;
use ndarray::{Array2, ArrayD, Axis};
use tersor::{
    Error, Mask, PrunedTensor, Pruner, Quantizer, Weights,
    quantize::{Affine, CodeRange, Convention, Range, ZeroInRange, kmeans_1d},
    tensor::{Granularity, Grid, Observed, Weighted},
};

/// Every scheme of the trait, and whether it has a zero.
fn every_scheme(granularity: Granularity) -> Vec<(bool, Box<dyn Quantizer>)> {
    let as_found = Convention { zero_in_range: ZeroInRange::AsFound, ..Convention::default() };
    let ranges = [Range::MinMax, Range::Percentile(90.0), Range::Mse, Range::Entropy, Range::Aciq];
    let mut schemes: Vec<(bool, Box<dyn Quantizer>)> = vec![
        (false, Box::new(Quantizer::binary().granularity(granularity))),
        (false, Box::new(Quantizer::binary().centered().granularity(granularity))),
        (true, Box::new(Quantizer::ternary().granularity(granularity))),
        (true, Box::new(Quantizer::ternary().twn().granularity(granularity))),
        (true, Box::new(Quantizer::nf4().granularity(granularity))),
        (true, Box::new(Quantizer::uniform(16).granularity(granularity))),
    ];
    for bits in 1..=8 {
        let mut add = |scheme: Box<dyn Quantizer>| schemes.push((true, scheme));
        let uniform = Quantizer::uniform(bits).granularity(granularity);
        add(Box::new(Quantizer::kmeans(bits).granularity(granularity)));
        add(Box::new(Quantizer::quantile(bits).granularity(granularity)));
        add(Box::new(Quantizer::quantile(bits).median().granularity(granularity)));
        for range in ranges {
            if bits > 1 || range != Range::Aciq {
                add(Box::new(uniform.clone().range(range)));
                add(Box::new(uniform.clone().range(range).convention(as_found)));
            }
            if bits > 1 {
                add(Box::new(uniform.clone().range(range).symmetric()));
                add(Box::new(uniform.clone().range(range).full_range()));
                add(Box::new(uniform.clone().range(range).signed_max()));
            }
        }
        if bits > 1 {
            add(Box::new(Quantizer::piecewise(bits).granularity(granularity)));
            add(Box::new(Quantizer::piecewise(bits).absmax().granularity(granularity)));
            add(Box::new(Quantizer::piecewise(bits).normal_breakpoint().granularity(granularity)));
            add(Box::new(Quantizer::power_of_two(bits).granularity(granularity)));
            add(Box::new(Quantizer::power_of_two(bits).float_scale().granularity(granularity)));
            add(Box::new(Quantizer::additive_power_of_two(bits).granularity(granularity)));
            add(Box::new(Quantizer::additive_power_of_two(bits).absmax().granularity(granularity)));
        }
    }
    schemes
}

const GRANULARITIES: [Granularity; 4] =
    [Granularity::Tensor, Granularity::Channel(Axis(0)), Granularity::Channel(Axis(1)), Granularity::Group(10)];

fn zeros_are_kept(dequantized: &ArrayD<f32>, mask: &Mask) -> bool {
    dequantized.iter().zip(mask.iter()).all(|(x, kept)| kept || *x == 0.0)
}

fn expect_zeros(keeps: bool, scheme: &dyn Quantizer, weights: &dyn Weights) {
    let mask = weights.mask().unwrap();
    match scheme.apply(weights) {
        Ok(q) => assert!(zeros_are_kept(&q.dequantize(), mask), "{scheme:?}"),
        Err(error) => {
            assert!(!keeps && matches!(error, Error::Conflict { .. }), "{scheme:?}: {error}");
            assert!(error.to_string().contains("was removed"), "{error}");
        }
    }
}

#[test]
fn zeros_stay_zeros_through_every_scheme_that_has_a_zero() {
    // About 0, and on one side of it.
    for shift in [0.0, 3.5] {
        let w = normal(24, 30, 8) + shift;
        for pruned in [
            Pruner::magnitude(0.7).apply(&w),
            Pruner::magnitude(0.5).n_of_m(2, 4).apply(&w),
            Pruner::magnitude(0.5).structured(Axis(0)).apply(&w),
            Pruner::random(1.0, 1).apply(&w),
        ] {
            let pruned = pruned.unwrap();
            for (keeps, scheme) in GRANULARITIES.into_iter().flat_map(every_scheme) {
                expect_zeros(keeps, &*scheme, &pruned);
            }
        }
    }
}

#[test]
fn adaptive_takes_only_what_keeps_the_zeros() {
    let pruned = Pruner::magnitude(0.6).apply(&(normal(24, 64, 3) + 1.0)).unwrap();
    for bits in 1..=8 {
        expect_zeros(true, &Quantizer::adaptive(bits), &pruned);
        let choice = Quantizer::adaptive(bits).choose(&pruned).unwrap();
        let binary = |text: String| text.contains("binary");
        assert!(!choice.candidates().iter().any(|candidate| binary(format!("{:?}", candidate.scheme))));
    }
}

#[test]
fn importance_and_values_below_a_mask_change_nothing() {
    let w = normal(24, 30, 8) + 0.5;
    let mask = Pruner::random(0.6, 2).apply(&w).unwrap().into_parts().1;
    let pruned = PrunedTensor::new(w.clone().into_dyn(), mask.clone()).unwrap();
    // What was removed may even not be finite, and may be what matters most.
    let mut spoiled = w.clone().into_dyn();
    spoiled.iter_mut().zip(mask.iter()).filter(|(_, kept)| !kept).for_each(|(x, _)| *x = f32::NAN);
    let importance = ArrayD::from_shape_fn(w.shape(), |at| (1 + at[0] % 3) as f32);
    let mut skewed = importance.clone();
    skewed.iter_mut().zip(mask.iter()).filter(|(_, kept)| !kept).for_each(|(x, _)| *x = 1e6);
    for (keeps, scheme) in GRANULARITIES.into_iter().flat_map(every_scheme) {
        let weighted = Weighted { weights: &pruned, importance: &importance };
        expect_zeros(keeps, &*scheme, &weighted);
        if keeps {
            let expected = scheme.apply(&pruned).unwrap();
            assert_eq!(scheme.apply(&Observed::new(&spoiled).masked(&mask)).unwrap(), expected, "{scheme:?}");
            let expected = scheme.apply(&weighted).unwrap();
            let found = scheme.apply(&Weighted { weights: &pruned, importance: &skewed }).unwrap();
            assert_eq!(found, expected, "{scheme:?}");
        }
    }
}

#[test]
fn a_mask_that_removes_nothing_changes_nothing() {
    let w = normal(24, 30, 8);
    let whole = PrunedTensor::new(w.clone().into_dyn(), Mask::ones(&[24, 30]).unwrap()).unwrap();
    for (_, scheme) in GRANULARITIES.into_iter().flat_map(every_scheme) {
        assert_eq!(scheme.apply(&whole).unwrap(), scheme.apply(&w).unwrap(), "{scheme:?}");
    }
}

#[test]
fn groups_without_a_removed_element_keep_all_their_levels() {
    let w = normal(4, 200, 5);
    let mask = Mask::from_fn(&[4, 200], |i| i >= 200 || i % 2 == 0).unwrap();
    let pruned = PrunedTensor::new(w.clone().into_dyn(), mask).unwrap();
    let (dense, sparse) = (Quantizer::kmeans(2).per_channel(Axis(0)), Quantizer::kmeans(2).per_channel(Axis(0)));
    let (dense, sparse) = (dense.apply(&w).unwrap().dequantize(), sparse.apply(&pruned).unwrap().dequantize());
    for row in 1..4 {
        assert_eq!(dense.index_axis(Axis(0), row), sparse.index_axis(Axis(0), row));
    }
    assert!(Quantizer::binary().per_channel(Axis(0)).apply(&pruned).is_err(), "one row is enough");
}

#[test]
fn free_levels_are_the_optimum_of_the_survivors_and_zero() {
    let pruned = Pruner::magnitude(0.8).apply(&(normal(40, 50, 9) + 0.2)).unwrap();
    let survivors: Vec<f32> = pruned.mask().positions().map(|i| pruned.values().as_slice().unwrap()[i]).collect();
    for bits in 1..=6 {
        let mut expected: Vec<f32> =
            kmeans_1d(&survivors, None, (1 << bits) - 1).unwrap().centroids.iter().map(|c| *c as f32).collect();
        expected.push(0.0);
        expected.sort_by(f32::total_cmp);
        let q = Quantizer::kmeans(bits).apply(&pruned).unwrap();
        let Grid::Codebook { levels, .. } = q.grid() else { panic!("a codebook") };
        assert_eq!(levels.iter().copied().collect::<Vec<_>>(), expected);
    }
}

#[test]
fn ranges_are_those_of_the_survivors() {
    let pruned = Pruner::magnitude(0.9).apply(&normal(100, 100, 4)).unwrap();
    let values = pruned.values();
    let survivors =
        Array2::from_shape_vec((1, 1000), pruned.mask().positions().map(|i| values.as_slice().unwrap()[i]).collect());
    for range in [Range::MinMax, Range::Percentile(95.0), Range::Mse, Range::Aciq] {
        for scheme in [Quantizer::uniform(4).range(range), Quantizer::uniform(4).symmetric().range(range)] {
            let (found, expected) = (scheme.fit(&pruned).unwrap(), scheme.fit(survivors.as_ref().unwrap()).unwrap());
            assert_eq!(found, expected, "{scheme:?}");
        }
    }
}

#[test]
fn survivors_are_no_worse_off_for_the_zeros() {
    let w = normal(200, 100, 6);
    let pruned = Pruner::magnitude(0.8).apply(&w).unwrap();
    let values = pruned.values().to_owned();
    let energy = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64;
    for (_, scheme) in every_scheme(Granularity::Tensor).into_iter().filter(|(keeps, _)| *keeps) {
        let error = |q: tersor::QuantizedTensor| q.distortion(&values).unwrap().mse;
        // The same numbers without the promise of exact zeros.
        let (kept, free) = (error(scheme.apply(&pruned).unwrap()), error(scheme.apply(&values).unwrap()));
        if scheme.apply(&pruned).unwrap().bits() > 2 {
            assert!(kept <= 1.02 * free, "{kept} {free} {scheme:?}");
        } else {
            assert!(kept <= energy, "{kept} {energy} {scheme:?}: worse than nothing");
        }
    }
}

#[test]
fn a_grid_given_from_outside_is_held_to_the_zeros() {
    let pruned = Pruner::magnitude(0.5).apply(&(normal(6, 8, 1).mapv(f32::abs) + 1.0)).unwrap();
    let codes = CodeRange::unsigned(4).unwrap();
    expect_zeros(true, &Affine::per_tensor(0.3, 3, codes).unwrap(), &pruned);
    // 0 is two steps below the lowest code: clamped to it, it would come back as 0.6.
    expect_zeros(false, &Affine::per_tensor(0.3, -2, codes).unwrap(), &pruned);
    let error = Affine::per_tensor(0.3, -2, codes).unwrap().apply(&pruned).unwrap_err().to_string();
    assert!(error.contains("0.6") && error.contains("uniform"), "{error}");
}
