//! Training with rounded weights: against plain loops, and with pruning, cancellation and what does not fit.

mod common;

use std::ops::ControlFlow;

use common::normal;
use ndarray::{Array1, ArrayD, Axis};
use tersor::{
    Error, Pruner, Quantizer, Recipe, Result,
    nn::{
        Adam, BestEpoch, Callback, CrossEntropy, Data, Loss, MeanSquaredError, Mode, Network, Optimizer, Progress, Sgd,
        Training,
    },
    prune::Schedule,
    quantize::{Affine, Range, Uniform},
    recipe::Movement,
};

fn go_on(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn network(seed: u64) -> Network {
    Network::builder(seed).linear(12, 40).relu().linear(40, 40).relu().linear(40, 4).named("head").build().unwrap()
}

/// Four classes by the largest of four random linear maps: learnable, and not by a few levels at once.
fn data(samples: usize, seed: u64) -> Data {
    let (x, maps) = (normal(samples, 12, seed), normal(12, 4, 99));
    let largest = |row: ndarray::ArrayView1<'_, f32>| {
        let row: Array1<f32> = row.dot(&maps);
        (0..4).fold(0, |best, i| if row[i] > row[best] { i } else { best })
    };
    let labels: Vec<usize> = x.outer_iter().map(largest).collect();
    Data::classes(x, labels).unwrap()
}

fn uniform(bits: u8) -> Uniform {
    Quantizer::uniform(bits).symmetric().per_channel(Axis(0))
}

fn train(network: &mut Network, optimizer: &mut dyn Optimizer, epochs: usize, callback: &mut dyn Callback) {
    let training = Training::new(epochs).batch_size(50).seed(3);
    training.train_with(network, &data(400, 1), optimizer, &mut [callback][..], &mut go_on).unwrap();
}

fn rounded(recipe: &Recipe, network: &Network) -> Network {
    recipe.apply(network).unwrap().to_network().unwrap()
}

/// The largest difference of two networks' weights.
fn distance(a: &Network, b: &Network) -> f32 {
    let pairs = a.parameters().into_iter().zip(b.parameters());
    pairs.flat_map(|((_, a), (_, b))| (&a - &b).into_iter()).fold(0.0, |largest: f32, x| largest.max(x.abs()))
}

#[test]
fn every_step_goes_to_the_latent_weights_by_the_gradient_at_the_rounded_ones() {
    // Ranges that clip, so that the straight-through gradient has its zeros.
    let schemes: [(Box<dyn Fn() -> Uniform>, bool); 3] = [
        (Box::new(|| uniform(2)), false),
        (Box::new(|| Quantizer::uniform(3).range(Range::Percentile(80.0))), true),
        (Box::new(|| Quantizer::uniform(2).per_group(5).range(Range::Mse)), true),
    ];
    for (scheme, clips) in schemes {
        let data = data(100, 1);
        let mut by_hand = network(2);
        let (mut sgd, mut losses, mut clipped) = (Sgd::new(0.1).momentum(0.9), Vec::new(), 0);
        let names = ["0.weight", "2.weight"];
        for _ in 0..6 {
            let latent = by_hand.clone();
            for name in names {
                let rounded = scheme().apply(&latent.parameter(name).unwrap()).unwrap().dequantize();
                by_hand.set_parameter(name, &rounded).unwrap();
            }
            let trace = by_hand.trace(data.inputs(), Mode::Evaluation).unwrap();
            let (loss, gradient) = CrossEntropy::new().evaluate(trace.output(), data.targets()).unwrap();
            let mut gradients = by_hand.backward(&trace, &gradient).unwrap().parameters;
            by_hand = latent;
            for (name, gradient) in gradients.iter_mut().filter(|(name, _)| names.contains(&name.as_str())) {
                let values = by_hand.parameter(name).unwrap();
                let q = scheme().apply(&values).unwrap();
                let before = gradient.iter().filter(|g| **g == 0.0).count();
                *gradient = Affine::of(&q).unwrap().straight_through(&values, gradient).unwrap();
                clipped += gradient.iter().filter(|g| **g == 0.0).count() - before;
            }
            by_hand.update(&mut sgd, 0.1, &gradients).unwrap();
            losses.push(loss);
        }
        assert_eq!(clipped > 0, clips, "{clipped}");

        let mut trained = network(2);
        let mut aware = Recipe::new().quantize("*", scheme()).keep("head").while_training();
        let training = Training::new(6).batch_size(100).seed(3);
        let history =
            training.train_with(&mut trained, &data, &mut Sgd::new(0.1).momentum(0.9), &mut aware, &mut go_on).unwrap();
        // Of a shuffled batch, so that sums are in another order.
        assert!(history.losses.iter().zip(&losses).all(|(a, b)| (a - b).abs() < 1e-5), "{history:?} {losses:?}");
        let latent: Vec<(&str, ArrayD<f32>)> = aware.latent().map(|(name, values)| (name, values.to_owned())).collect();
        assert_eq!(latent.iter().map(|(name, _)| *name).collect::<Vec<_>>(), names);
        for (name, values) in latent {
            let errors = &values - &by_hand.parameter(name).unwrap();
            assert!(errors.iter().all(|error| error.abs() < 1e-4), "{name}");
            assert_eq!(trained.parameter(name).unwrap(), scheme().apply(&values).unwrap().dequantize());
        }
        let bias = &trained.parameter("head.weight").unwrap() - &by_hand.parameter("head.weight").unwrap();
        assert!(bias.iter().all(|error| error.abs() < 1e-4), "what is kept is trained as ever");
    }
}

#[test]
fn the_recipe_finds_the_levels_again() {
    let quantizers: [fn() -> Recipe; 18] = [
        || Recipe::new().quantize("*", uniform(2)),
        || Recipe::new().quantize("*", uniform(8)),
        || Recipe::new().quantize("*", Quantizer::uniform(4)),
        || Recipe::new().quantize("*", Quantizer::uniform(3).per_group(10)),
        || Recipe::new().quantize("*", Quantizer::uniform(4).range(Range::Mse)),
        || Recipe::new().quantize("*", Quantizer::uniform(4).range(Range::Aciq)),
        || Recipe::new().quantize("*", Quantizer::uniform(4).range(Range::Percentile(90.0))),
        || Recipe::new().quantize("*", Quantizer::kmeans(3)),
        || Recipe::new().quantize("*", Quantizer::quantile(3)),
        || Recipe::new().quantize("*", Quantizer::quantile(3).median()),
        || Recipe::new().quantize("*", Quantizer::ternary()),
        || Recipe::new().quantize("*", Quantizer::binary()),
        || Recipe::new().quantize("*", Quantizer::nf4()),
        || Recipe::new().quantize("*", Quantizer::power_of_two(4)),
        || Recipe::new().quantize("*", Quantizer::power_of_two(3).float_scale()),
        || Recipe::new().quantize("*", Quantizer::additive_power_of_two(4)),
        || Recipe::new().quantize("*", Quantizer::piecewise(4)),
        || Recipe::new().quantize("*", Quantizer::adaptive(4)),
    ];
    for recipe in quantizers {
        for seed in 1..=3 {
            let mut network = network(seed);
            train(&mut network, &mut Adam::new(1e-3), 1, &mut recipe().while_training());
            let distance = distance(&rounded(&recipe(), &network), &network);
            assert!(distance < 1e-6, "{:?}: {distance}", recipe());
        }
    }
}

#[test]
fn latent_weights_move_though_rounded_ones_do_not() {
    let recipe = || Recipe::new().quantize("0", uniform(2)).while_training();
    let (mut network, mut aware) = (network(1), recipe());
    aware.start(&mut network, 1).unwrap();
    let (before, first) = (network.clone(), aware.latent().next().unwrap().1.to_owned());
    // A rate so low that no code changes.
    let training = Training::new(1).batch_size(400).seed(3);
    let mut again = self::network(1);
    training.train_with(&mut again, &data(400, 1), &mut Sgd::new(1e-6), &mut aware, &mut go_on).unwrap();
    let moved = aware.latent().next().unwrap().1.to_owned();
    assert_ne!(moved, first);
    let scale = |network: &Network| network.parameter("0.weight").unwrap().mapv(f32::signum);
    assert_eq!(scale(&again), scale(&before));
    // And many such steps change codes in the end, which single steps on rounded weights never would.
    let mut far = self::network(1);
    let training = Training::new(300).batch_size(400);
    training.train_with(&mut far, &data(400, 1), &mut Sgd::new(1e-2), &mut recipe(), &mut go_on).unwrap();
    assert_ne!(scale(&far), scale(&before));
}

/// That pruned weights are zero whenever a step begins or ends.
#[derive(Debug)]
struct ZerosAreKept(usize);

impl ZerosAreKept {
    fn expect(&mut self, network: &Network) -> Result<()> {
        for (name, mask) in network.masks() {
            let values = network.parameter(&name)?;
            assert!(mask.iter().zip(values).all(|(kept, value)| kept || *value == 0.0), "{name}");
            self.0 += 1;
        }
        Ok(())
    }
}

impl Callback for ZerosAreKept {
    fn before_step(&mut self, _: &Progress, network: &mut Network, _: &mut [(String, ArrayD<f32>)]) -> Result<()> {
        self.expect(network)
    }

    fn after_step(&mut self, _: &Progress, network: &mut Network) -> Result<()> {
        self.expect(network)
    }
}

#[test]
fn a_network_is_pruned_and_quantized_in_one_training() {
    let recipe = || Recipe::new().quantize("*", uniform(4));
    let gradual = || {
        let pruning = Recipe::new().prune("*", Pruner::magnitude(0.75)).across_layers();
        Box::new(pruning.gradually(Schedule::cubic().over(0.0, 0.6))) as Box<dyn Callback>
    };
    let movement = || Box::new(Movement::new("*", 0.75).across_layers()) as Box<dyn Callback>;
    let held_out = data(500, 2);
    for pruning in [gradual, movement] {
        for prune_first in [true, false] {
            let mut network = network(1);
            train(&mut network, &mut Adam::new(3e-3), 20, &mut ());
            let (mut pruning, mut aware, mut zeros) = (pruning(), recipe().while_training(), ZerosAreKept(0));
            let mut all: [&mut dyn Callback; 3] = match prune_first {
                true => [&mut *pruning, &mut aware, &mut zeros],
                false => [&mut aware, &mut *pruning, &mut zeros],
            };
            let training = Training::new(20).batch_size(50);
            training.train_with(&mut network, &data(400, 1), &mut Adam::new(1e-3), &mut all[..], &mut go_on).unwrap();
            assert!(zeros.0 > 100);
            assert_eq!(network.masks().iter().map(|(_, mask)| mask.kept()).sum::<usize>(), 560, "a quarter of 2240");
            let again = rounded(&recipe(), &network);
            assert!(distance(&again, &network) < 1e-5, "{}", distance(&again, &network));
            let accuracy = again.accuracy(&held_out).unwrap();
            assert!(accuracy > 0.7, "{accuracy}");
        }
    }
}

#[test]
fn the_best_epoch_is_one_of_rounded_weights_whatever_the_order() {
    let held_out = data(200, 2);
    let recipe = || Recipe::new().quantize("*", uniform(2));
    for best_last in [true, false] {
        let (mut aware, mut best, mut network) = (recipe().while_training(), BestEpoch::new(&held_out), network(1));
        let mut both: [&mut dyn Callback; 2] =
            if best_last { [&mut aware, &mut best] } else { [&mut best, &mut aware] };
        let training = Training::new(12).batch_size(50);
        training.train_with(&mut network, &data(400, 1), &mut Adam::new(1e-2), &mut both[..], &mut go_on).unwrap();
        assert!(distance(&rounded(&recipe(), &network), &network) < 1e-6);
        if best_last {
            assert_eq!(network.accuracy(&held_out).unwrap(), best.best().unwrap().1);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_bits() {
    let train = || {
        let (mut network, mut aware) = (network(1), Recipe::new().quantize("*", uniform(3)).while_training());
        train(&mut network, &mut Adam::new(1e-3), 3, &mut aware);
        let latent: Vec<u32> = aware.latent().flat_map(|(_, values)| values.mapv(f32::to_bits)).collect();
        (network, latent)
    };
    assert_eq!(train(), train());
}

#[test]
fn a_cancelled_training_goes_on_from_its_latent_weights() {
    let (recipe, data) = (|| Recipe::new().quantize("*", uniform(2)).while_training(), data(100, 1));
    let training = |epochs| Training::new(epochs).batch_size(100);
    let (mut whole, mut aware) = (network(1), recipe());
    training(6).train_with(&mut whole, &data, &mut Sgd::new(0.1), &mut aware, &mut go_on).unwrap();

    let (mut halves, mut first, mut second) = (network(1), recipe(), recipe());
    let stop = &mut |at: &Progress| if at.step() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let cancelled = training(6).train_with(&mut halves, &data, &mut Sgd::new(0.1), &mut first, stop);
    assert!(matches!(cancelled, Err(Error::Cancelled { done: 3, total: 6 })));
    for (name, values) in first.latent() {
        assert_eq!(halves.parameter(name).unwrap(), uniform(2).apply(&values).unwrap().dequantize(), "left rounded");
        halves.set_parameter(name, &values).unwrap();
    }
    training(3).train_with(&mut halves, &data, &mut Sgd::new(0.1), &mut second, &mut go_on).unwrap();
    // Batches of all samples, in another order: the same but for rounding.
    let errors = aware.latent().zip(second.latent()).flat_map(|((_, a), (_, b))| &a - &b);
    assert!(errors.into_iter().all(|error| error.abs() < 1e-5));
}

#[test]
fn a_diverged_training_goes_back_to_rounded_weights_of_a_finite_loss() {
    let data = Data::values(normal(20, 3, 1), normal(20, 2, 2)).unwrap();
    for (epochs, rate) in [(3, 5e37), (1, 1e300), (30, 50.0)] {
        let mut network = Network::builder(1).linear(3, 2).build().unwrap();
        let mut aware = Recipe::new().quantize("*", uniform(4)).while_training();
        let training = Training::new(epochs).batch_size(20).loss(MeanSquaredError);
        let result = training.train_with(&mut network, &data, &mut Sgd::new(rate), &mut aware, &mut go_on);
        assert!(matches!(result, Err(Error::Diverged { .. })), "{result:?}");
        assert!(network.state().iter().all(|(_, values)| values.iter().all(|value| value.is_finite())));
        assert!(aware.latent().all(|(_, values)| values.iter().all(|value| value.is_finite())));
    }
}

#[test]
fn what_does_not_fit_is_an_error_before_the_first_step() {
    let cases: [(Recipe, &str); 4] = [
        (Recipe::new().quantize("nothing", uniform(4)), "nothing"),
        (Recipe::new().quantize("*", uniform(4)).quantize("head", Quantizer::kmeans(9)), "head.weight"),
        (Recipe::new().quantize("2", uniform(0)), "2.weight"),
        (Recipe::new().quantize("*", Quantizer::binary()), "0.weight"),
    ];
    for (recipe, text) in cases {
        let mut pruned = network(1);
        Recipe::new().prune("0", Pruner::magnitude(0.5)).apply(&mut pruned).unwrap();
        let before = pruned.clone();
        let training = Training::new(1).batch_size(50);
        let never = &mut |_: &Progress| panic!("a step was taken");
        let mut aware = recipe.while_training();
        let result = training.train_with(&mut pruned, &data(50, 1), &mut Sgd::new(0.1), &mut aware, never);
        let error = result.unwrap_err().to_string();
        assert!(error.contains(text) && pruned == before, "{error} should say {text}");
    }
    // A recipe that quantizes nothing trains as ever.
    let (mut plain, mut aware) = (network(1), network(1));
    train(&mut plain, &mut Sgd::new(0.1), 2, &mut ());
    train(&mut aware, &mut Sgd::new(0.1), 2, &mut Recipe::new().while_training());
    assert_eq!(plain, aware);
}
