//! Pruning: torch.nn.utils.prune, torch.ao.pruning and the N:M rule of Wanda's authors. Masks are equal element by
//! element, but for random ones (whose count is) and for ties (where torch leaves the choice open).

use ndarray::{Array2, ArrayD, Axis};
use tersor::{
    Mask, PrunedTensor, Pruner,
    nn::{Linear, Mode, Network, Sgd},
    prune::{Amount, Magnitude, Ranked},
    tensor::Observed,
};

use crate::case::{Case, family};

/// The amount of a case: a count if it was an integer.
fn amount(case: &Case) -> Amount {
    let amount = case.number("amount").unwrap();
    if case.params["amount"].is_u64() { Amount::Count(amount as usize) } else { Amount::Fraction(amount) }
}

fn norm(case: &Case) -> f64 {
    match case.text("n") {
        "inf" => f64::INFINITY,
        "-inf" => f64::NEG_INFINITY,
        n => n.parse().unwrap(),
    }
}

fn numbers(mask: &Mask) -> ArrayD<f64> {
    mask.to_array().mapv(f64::from)
}

/// As many are kept, and none of them is smaller than one that is not.
fn is_as_good(case: &Case, pruned: &PrunedTensor, weights: &ArrayD<f32>) {
    assert_eq!(pruned.mask().kept() as f64, case.output("mask").sum(), "{}", case.id);
    let pairs = || weights.iter().zip(pruned.mask().iter());
    let smallest = pairs().filter(|(_, kept)| *kept).fold(f32::INFINITY, |least, (w, _)| least.min(w.abs()));
    assert!(pairs().all(|(w, kept)| kept || w.abs() <= smallest), "{}", case.id);
}

fn magnitude(amount: impl Into<Amount>) -> Ranked<Magnitude> {
    Pruner::magnitude(amount)
}

#[test]
fn every_case_is_as_the_references_have_it() {
    let cases = family("prune");
    assert_eq!(cases.len(), 90);
    for case in cases {
        let prune = |pruner: Ranked<Magnitude>| pruner.apply(&case.input("w")).unwrap();
        match case.op.as_str() {
            "prune_l1_unstructured" => {
                let pruned = prune(magnitude(amount(&case)));
                if case.id.contains("ties") {
                    is_as_good(&case, &pruned, &case.input("w"));
                } else if case.has_output("mask") {
                    case.check("mask", &numbers(pruned.mask()));
                } else {
                    let count = pruned.mask().len() - pruned.mask().kept();
                    assert_eq!(count as f64, case.output("pruned_count").sum(), "{}", case.id);
                }
                if case.has_output("pruned") && !case.id.contains("ties") {
                    case.check("pruned", &pruned.values().mapv(f64::from));
                }
            }
            "prune_ln_structured" => {
                let axis = Axis(case.number("dim").unwrap() as usize);
                let pruned = prune(magnitude(amount(&case)).norm(norm(&case)).structured(axis));
                case.check("mask", &numbers(pruned.mask()));
            }
            "prune_random_unstructured" => {
                let mask = Pruner::random(amount(&case), 3).apply(&case.input("w")).unwrap().into_parts().1;
                assert_eq!((mask.len() - mask.kept()) as f64, case.output("pruned_count").sum(), "{}", case.id);
            }
            "prune_random_structured" => {
                let axis = Axis(case.number("dim").unwrap() as usize);
                let pruned = Pruner::random(amount(&case), 3).structured(axis).apply(&case.input("w")).unwrap();
                let gone = pruned.values().axis_iter(axis).filter(|row| row.iter().all(|x| *x == 0.0)).count();
                assert_eq!(gone as f64, case.output("pruned_channels").sum(), "{}", case.id);
            }
            "prune_global_l1" => {
                let tensors = ["w0", "w1", "w2"].map(|role| case.input(role));
                let pruned = magnitude(amount(&case)).apply_together(&[&tensors[0], &tensors[1], &tensors[2]]);
                for (role, pruned) in ["mask0", "mask1", "mask2"].into_iter().zip(pruned.unwrap()) {
                    case.check(role, &numbers(pruned.mask()));
                }
            }
            "prune_container" => iterated(&case),
            "masked_linear" => masked_linear(&case),
            "prune_n_m" => {
                let (n, m) = (case.number("keep").unwrap(), case.number("of").unwrap());
                let pruned = prune(magnitude(1.0 - n / m).n_of_m(n as usize, m as usize));
                case.check("mask", &numbers(pruned.mask()));
            }
            "weight_norm_sparsifier" => {
                // The least blocks lose their least elements; the others stay whole.
                let (block, zeros) =
                    (case.params["block"][1].as_u64().unwrap() as usize, case.number("zeros_per_block"));
                let zeros = zeros.unwrap() as usize;
                let chosen = prune(magnitude(case.number("sparsity_level").unwrap()).block(1, block));
                let within = prune(magnitude(zeros as f64 / block as f64).n_of_m(block - zeros, block));
                case.check("mask", &numbers(&chosen.mask().or(within.mask()).unwrap()));
            }
            other => panic!("{}: nothing runs {other}", case.id),
        }
    }
}

/// Amounts of what is left, one pruning after the other.
fn iterated(case: &Case) {
    let weights = case.input("w");
    if case.has_input("custom_mask") {
        let custom = case.input("custom_mask");
        let custom = Mask::from_fn(custom.shape(), |i| custom.as_slice().unwrap()[i] != 0.0).unwrap();
        let observed = Observed::new(&weights).masked(&custom);
        let pruned = magnitude(0.2).of_remaining().apply(&observed).unwrap();
        case.check("mask", &numbers(pruned.mask()));
        return case.check("pruned", &pruned.values().mapv(f64::from));
    }
    let halved = magnitude(0.5).of_remaining().apply(&weights).unwrap();
    case.check("mask_1", &numbers(halved.mask()));
    let quartered = magnitude(0.5).of_remaining().apply(&halved).unwrap();
    case.check("mask_2", &numbers(quartered.mask()));
    let rows = magnitude(0.34).structured(Axis(0)).of_remaining().apply(&quartered).unwrap();
    case.check("mask_3", &numbers(rows.mask()));
}

/// A masked layer's output, and what a step of gradient descent makes of its weight.
fn masked_linear(case: &Case) {
    let matrix = |role: &str| -> Array2<f32> { case.input(role).into_dimensionality().unwrap() };
    let (w, x) = (matrix("w"), matrix("x"));
    let mut network =
        Network::from_layers(vec![("0".into(), Linear::from_arrays(w.clone(), None).unwrap().into())]).unwrap();
    let pruned = magnitude(0.5).apply(&w).unwrap();
    case.check("mask", &numbers(pruned.mask()));
    network.set_mask("0.weight", Some(pruned.mask().clone())).unwrap();
    case.check("y", &network.forward(&x).unwrap().mapv(f64::from));

    let trace = network.trace(&x, Mode::Evaluation).unwrap();
    let gradients = network.backward(&trace, &matrix("grad_out")).unwrap().parameters;
    let before = network.parameter("0.weight").unwrap().to_owned();
    network.update(&mut Sgd::new(1.0), 1.0, &gradients).unwrap();
    let step = &before - &network.parameter("0.weight").unwrap();
    case.check("grad_w", &step.mapv(f64::from));
}
