//! Networks that were pruned before: what was removed stays so, whatever comes next.

mod common;

use std::ops::ControlFlow;

use common::normal;
use ndarray::{Array1, Axis};
use tersor::{
    Error, Mask, PrunedTensor, Pruner, Quantizer, Recipe, Result, Weights,
    compressed::Compressed,
    nn::{Adam, Callback, CrossEntropy, Data, Network, Progress, Sgd, Training},
    prune::Schedule,
    recipe::{Movement, RigL},
};

fn go_on(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn network(seed: u64) -> Network {
    Network::builder(seed).linear(12, 40).relu().linear(40, 40).relu().linear(40, 4).named("head").build().unwrap()
}

fn data() -> Data {
    Data::classes(normal(100, 12, 1), (0..100).map(|i| i % 4)).unwrap()
}

/// Half of every weight at random, so that no score agrees with it.
fn halved() -> Network {
    let mut network = network(2);
    Recipe::new().prune("*", Pruner::random(0.5, 3)).apply(&mut network).unwrap();
    network
}

fn masks(network: &Network) -> Vec<Mask> {
    network.masks().into_iter().map(|(_, mask)| mask.clone()).collect()
}

fn assert_within(network: &Network, before: &[Mask], sparsity: f64) {
    for ((name, mask), before) in network.masks().iter().zip(before) {
        assert_eq!(mask.and(before).unwrap(), **mask, "{name}");
        let removed = (sparsity * mask.len() as f64).round_ties_even() as usize;
        assert_eq!(mask.kept(), mask.len() - removed, "{name}");
        let values = network.parameter(name).unwrap();
        assert!(mask.iter().zip(values).all(|(kept, w)| kept || *w == 0.0), "{name}");
    }
}

/// A pruner that forgets what was removed before.
#[derive(Debug)]
struct Forgetful;

impl Pruner for Forgetful {
    fn apply(&self, weights: &dyn Weights) -> Result<PrunedTensor> {
        let values = weights.values().mapv(|w| w + 1.0);
        Pruner::magnitude(0.25).apply(&values)
    }
}

#[test]
fn no_training_brings_back_what_was_removed_before_it() {
    let callbacks: [Box<dyn Callback>; 3] = [
        Box::new(Recipe::new().prune("*", Pruner::magnitude(0.7)).gradually(Schedule::cubic().every(2))),
        Box::new(Recipe::new().prune("*", Pruner::magnitude(0.7)).alternating()),
        Box::new(Movement::new("*", 0.7)),
    ];
    for mut callback in callbacks {
        let mut network = halved();
        let before = masks(&network);
        let training = Training::new(5).batch_size(25);
        training.train_with(&mut network, &data(), &mut Adam::new(1e-2), &mut *callback, &mut go_on).unwrap();
        assert_within(&network, &before, 0.7);
    }
}

#[test]
fn a_dense_phase_is_as_dense_as_the_network_was() {
    #[derive(Debug)]
    struct Watch(Vec<Mask>, usize);
    impl Callback for Watch {
        fn after_step(&mut self, _: &Progress, network: &mut Network) -> Result<()> {
            self.1 += usize::from(masks(network) == self.0);
            Ok(())
        }
    }
    let mut network = halved();
    let mut watch = Watch(masks(&network), 0);
    let mut ac_dc = Recipe::new().prune("*", Pruner::magnitude(0.7)).alternating();
    let mut both: [&mut dyn Callback; 2] = [&mut ac_dc, &mut watch];
    let training = Training::new(20).batch_size(100);
    training.train_with(&mut network, &data(), &mut Sgd::new(0.1), &mut both[..], &mut go_on).unwrap();
    // Of 20 steps 2 warm up, 7 pairs of phases have one step each, and the last dense one has two. The watch looks after
    // the turn that follows a step.
    assert_eq!(watch.1, 1 + 7 + 1);
}

#[test]
fn a_pruner_that_forgets_masks_brings_nothing_back() {
    let mut network = halved();
    let before = masks(&network);
    Recipe::new().prune("*", Forgetful).apply(&mut network).unwrap();
    for ((name, mask), before) in network.masks().iter().zip(&before) {
        assert_eq!(mask.and(before).unwrap(), **mask, "{name}");
        let values = network.parameter(name).unwrap();
        assert!(mask.iter().zip(values).all(|(kept, w)| kept || *w == 0.0), "{name}");
    }
}

#[test]
fn rigl_goes_on_from_the_masks_that_there_are() {
    let mut network = network(2);
    let training = Training::new(2).batch_size(25);
    training.train_with(&mut network, &data(), &mut Adam::new(1e-2), &mut RigL::new("*", 0.5), &mut go_on).unwrap();
    let before = network.clone();
    let mut still = RigL::new("*", 0.9).seed(5).alpha(0.0);
    training.train_with(&mut network, &data(), &mut Sgd::new(0.0), &mut still, &mut go_on).unwrap();
    assert_eq!(network, before);
    let mut moving = RigL::new("*", 0.9).every(2);
    training.train_with(&mut network, &data(), &mut Sgd::new(0.1), &mut moving, &mut go_on).unwrap();
    assert_ne!(masks(&network), masks(&before));
    let kept = |network: &Network| masks(network).iter().map(Mask::kept).collect::<Vec<_>>();
    assert_eq!(kept(&network), kept(&before));
}

#[test]
fn grasp_looks_at_the_gradients_of_what_is_left() {
    let (network, data) = (halved(), data());
    let mut gradient = network.gradient(&data, &CrossEntropy::new()).unwrap();
    for (name, mask) in network.masks() {
        mask.apply(&mut gradient.iter_mut().find(|(own, _)| *own == name).unwrap().1).unwrap();
    }
    let curvature = network.hessian_vector(&data, &CrossEntropy::new(), &gradient).unwrap();
    let scores = &network.parameter("0.weight").unwrap() * &curvature[0].1;
    let scores: Array1<f32> = scores.iter().copied().collect();
    let mut left: Vec<usize> = network.mask("0.weight").unwrap().unwrap().positions().collect();
    left.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    let mut pruned = network.clone();
    Recipe::new().prune("0", Pruner::grasp(0.75)).apply_with(&mut pruned, &data).unwrap();
    let mask = pruned.mask("0.weight").unwrap().unwrap();
    assert!(mask.kept() == 120 && left[120..].iter().all(|i| mask.is_kept(*i)));
}

#[test]
fn quantizing_keeps_the_masks_whatever_the_bits() {
    for sparsity in [0.02, 0.3, 0.5, 0.9] {
        let mut network = network(1);
        Recipe::new().prune("*", Pruner::magnitude(sparsity)).apply(&mut network).unwrap();
        let mut recipes = vec![Recipe::new().quantize("*", Quantizer::uniform(3).per_channel(Axis(0)))];
        for bits in 1..=8 {
            recipes.push(Recipe::new().quantize("*", Quantizer::uniform(bits)));
            recipes.push(Recipe::new().quantize("*", Quantizer::kmeans(bits)));
            recipes.push(Recipe::new().quantize("*", Quantizer::quantile(bits)));
        }
        for recipe in recipes {
            let quantized = recipe.apply(&network).unwrap();
            let floats = quantized.to_network().unwrap();
            assert_eq!(floats.masks(), network.masks(), "{sparsity} {recipe:?}");
            // The mask costs a bit a weight at most, and what rounds a row or a tensor up to bytes.
            for (name, mask) in network.masks() {
                let dense = quantized.quantized(&name).unwrap().nbytes();
                assert!(quantized.tensors().tensor(&name).unwrap().nbytes() <= dense + mask.nbytes() + 1, "{name}");
            }
        }
    }
    // A mask that removes nothing costs nothing.
    let mut network = network(1);
    network.set_mask("0.weight", Some(Mask::ones(&[40, 12]).unwrap())).unwrap();
    let quantized = Recipe::new().quantize("*", Quantizer::uniform(8)).apply(&network).unwrap();
    assert!(quantized.to_network().unwrap().masks().is_empty());
}

#[test]
fn what_is_written_past_a_mask_is_refused_or_removed_but_never_lost() {
    let mut network = halved();
    network.parameters_mut().into_iter().for_each(|(_, mut values)| values.fill(1.0));
    #[cfg(feature = "io")]
    assert!(network.save(std::env::temp_dir().join("tersor-past-a-mask.safetensors")).is_err());
    match Compressed::new(&network) {
        Err(Error::Layer { name, source }) => {
            assert!(name == "0.weight" && source.to_string().contains("apply_masks"), "{source}");
        }
        other => panic!("{other:?}"),
    }
    network.apply_masks();
    let x = normal(3, 12, 2);
    let packed = Compressed::new(&network).unwrap().pack().unwrap().forward(&x).unwrap();
    assert!((packed - network.forward(&x).unwrap()).iter().all(|error| error.abs() < 1e-2));
}

#[test]
fn what_was_pruned_and_quantized_stays_removed_when_it_is_trained_on() {
    let mut network = network(1);
    Recipe::new().prune("*", Pruner::magnitude(0.5)).apply(&mut network).unwrap();
    let before = masks(&network);
    let mut again = Recipe::new().quantize("*", Quantizer::uniform(2)).apply(&network).unwrap().to_network().unwrap();
    Training::new(1).train(&mut again, &data(), &mut Sgd::new(0.1), &mut go_on).unwrap();
    assert_eq!(masks(&again), before);
    for (name, mask) in again.masks() {
        assert!(again.parameter(&name).unwrap().iter().zip(mask.iter()).all(|(w, kept)| kept || *w == 0.0));
    }
}
