//! Pruning while training: against plain implementations, by the papers' phases, and with what does not fit.

mod common;

use std::ops::ControlFlow;

use common::normal;
use ndarray::{Array2, ArrayD};
use tersor::{
    Error, Mask, Pruner, Quantizer, Recipe, Result,
    nn::{Callback, Conv2d, Data, MeanSquaredError, Network, Progress, Sgd, Training},
    prune::Schedule,
    recipe::{Movement, Pruning, RigL},
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

fn magnitude(sparsity: f64) -> Pruning {
    Recipe::new().prune("*", Pruner::magnitude(sparsity)).across_layers()
}

fn kept(network: &Network) -> Vec<usize> {
    network.masks().iter().map(|(_, mask)| mask.kept()).collect()
}

/// The masks of the first weight before every step.
#[derive(Debug, Default)]
struct Watch(Vec<Option<Mask>>);

impl Callback for Watch {
    fn before_step(&mut self, _: &Progress, network: &mut Network, _: &mut [(String, ArrayD<f32>)]) -> Result<()> {
        self.0.push(network.mask("0.weight")?.cloned());
        Ok(())
    }
}

#[test]
fn movement_is_its_plain_implementation() {
    // One linear layer, whole batches and plain gradient descent: small enough to write down.
    let (x, goal) = (normal(20, 5, 1), normal(20, 3, 2));
    let whole = Network::builder(4).linear_without_bias(5, 3).build().unwrap();
    let (rate, score_rate, steps, sparsity) = (0.3, 0.7, 20, 0.6);
    let schedule = Schedule::cubic().over(0.1, 0.7).every(1);

    let mut w: Array2<f64> = whole.parameter("0.weight").unwrap().mapv(f64::from).into_dimensionality().unwrap();
    let (x64, goal64) = (x.mapv(f64::from), goal.mapv(f64::from));
    let (mut scores, mut mask) = (Array2::<f64>::zeros((3, 5)), Array2::<f64>::ones((3, 5)));
    let (mut masks, mut came_back) = (Vec::new(), false);
    for step in 0..steps {
        masks.push(mask.clone());
        let error = x64.dot(&(&w * &mask).t()) - &goal64;
        let gradient = error.t().dot(&x64) * (2.0 / error.len() as f64);
        scores = scores - score_rate * &gradient * &w; // straight through the mask
        w = w - rate * &gradient * &mask; // a masked weight keeps its value
        if (2..14).contains(&(step + 1)) {
            let x = (step as f64) / 12.0; // the event before step s + 2 is number s + 1 of 12
            let sparsity = sparsity - sparsity * (1.0 - x).powi(3);
            let mut order: Vec<usize> = (0..15).collect();
            order.sort_by(|a, b| scores.as_slice().unwrap()[*a].total_cmp(&scores.as_slice().unwrap()[*b]));
            let mut next = Array2::<f64>::ones((3, 5));
            let removed = (15.0 * sparsity).round_ties_even() as usize;
            order[..removed].iter().for_each(|i| next.as_slice_mut().unwrap()[*i] = 0.0);
            came_back |= next.iter().zip(&mask).any(|(next, before)| next > before);
            mask = next;
        }
    }
    assert!(came_back, "the example shows that weights come back");

    let mut network = whole;
    let mut movement = Movement::new("*", sparsity).schedule(schedule).learning_rate(score_rate);
    let mut watch = Watch::default();
    let mut both: [&mut dyn Callback; 2] = [&mut movement, &mut watch];
    let training = Training::new(steps).batch_size(20).loss(MeanSquaredError);
    let data = Data::values(x, goal).unwrap();
    training.train_with(&mut network, &data, &mut Sgd::new(rate), &mut both[..], &mut go_on).unwrap();
    for (step, (found, expected)) in watch.0.iter().zip(&masks).enumerate() {
        let found =
            found.as_ref().map_or(vec![1.0; 15], |mask| mask.iter().map(|kept| f64::from(u8::from(kept))).collect());
        assert_eq!(found, expected.as_slice().unwrap(), "before step {step}");
    }
    let errors = (&w * &mask).into_dyn() - network.parameter("0.weight").unwrap().mapv(f64::from);
    assert!(errors.iter().all(|error| error.abs() < 1e-5), "{errors}");
}

#[test]
fn movement_removes_nothing_before_anything_has_moved() {
    let mut watch = Watch::default();
    let mut movement = Movement::new("*", 0.5).schedule(Schedule::cubic());
    let mut both: [&mut dyn Callback; 2] = [&mut movement, &mut watch];
    let mut network = network(1);
    let training = Training::new(10).batch_size(50);
    training.train_with(&mut network, &data(), &mut Sgd::new(0.1), &mut both[..], &mut go_on).unwrap();
    assert!(watch.0[0].is_none() && watch.0[1].is_some());
    assert_eq!(kept(&network), [240, 800, 80]);
}

#[test]
fn alternating_phases_are_the_papers() {
    let mut watch = Watch::default();
    let mut ac_dc = magnitude(0.5).alternating();
    let mut both: [&mut dyn Callback; 2] = [&mut ac_dc, &mut watch];
    let training = Training::new(100).batch_size(100);
    training.train_with(&mut network(1), &data(), &mut Sgd::new(0.0), &mut both[..], &mut go_on).unwrap();
    // Of 100: 10 to warm up, 5 pruned and 5 dense in turn, but 10 dense before the 15 at the end.
    let dense = |step: usize| step < 10 || (step < 75 && (step / 5) % 2 == 1) || (75..85).contains(&step);
    let found: Vec<usize> = (0..100).filter(|step| watch.0[*step].is_none()).collect();
    assert_eq!(found, (0..100).filter(|step| dense(*step)).collect::<Vec<_>>());
}

#[test]
fn erdos_renyi_has_the_sparsity_over_all_exactly() {
    for sparsity in [0.0, 0.1, 0.5, 0.7, 0.83, 0.9, 0.99, 1.0] {
        let images = Network::builder(1)
            .conv2d(Conv2d::new(1, 10, 3))
            .relu()
            .conv2d(Conv2d::new(10, 20, 3))
            .relu()
            .flatten()
            .linear(320, 50)
            .relu()
            .linear(50, 10);
        let mut network = images.build().unwrap();
        RigL::new("*", sparsity).erdos_renyi().start(&mut network, 100).unwrap();
        let expected = 18390 - (sparsity * 18390.0).round_ties_even() as usize;
        assert_eq!(kept(&network).iter().sum::<usize>(), expected, "{sparsity}");
        // The kernel's density is (1 + 10 + 3 + 3) / 90 against (320 + 50) / 16000, as long as neither is full.
        let density = |name: &str| 1.0 - network.mask(name).unwrap().unwrap().sparsity();
        if sparsity == 0.9 {
            let ratio = density("2.weight") / density("5.weight");
            assert!((ratio / (36.0 / 1800.0 / (370.0 / 16000.0)) - 1.0).abs() < 0.02, "{ratio}");
        }
    }
}

#[test]
fn a_cancelled_training_leaves_a_network_that_is_pruned_as_its_masks_say() {
    let callbacks: [Box<dyn Callback>; 4] = [
        Box::new(magnitude(0.8).gradually(Schedule::cubic().over(0.0, 1.0))),
        Box::new(magnitude(0.8).alternating().warm_up(0.0).phase(0.2)),
        Box::new(Movement::new("*", 0.8).schedule(Schedule::linear().over(0.0, 1.0))),
        Box::new(RigL::new("*", 0.8).every(2)),
    ];
    for mut callback in callbacks {
        let mut network = network(1);
        let stop = &mut |at: &Progress| if at.step() == 6 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let training = Training::new(10).batch_size(50);
        let result = training.train_with(&mut network, &data(), &mut Sgd::new(0.1), &mut *callback, stop);
        assert!(matches!(result, Err(Error::Cancelled { done: 7, total: 20 })), "{result:?}");
        for (name, mask) in network.masks() {
            let values = network.parameter(&name).unwrap();
            assert!(mask.iter().zip(values).all(|(kept, w)| kept || *w == 0.0), "{callback:?} {name}");
        }
        // And can be trained by the same callback from the beginning.
        let whole = &mut self::network(1);
        training.train_with(whole, &data(), &mut Sgd::new(0.1), &mut *callback, &mut go_on).unwrap();
        let left: usize = kept(whole).iter().sum();
        assert!(left.abs_diff(448) <= 1, "{left} of 2240, a fifth"); // RigL and movement round each weight
    }
}

#[test]
fn what_would_go_wrong_later_goes_wrong_before_the_first_step() {
    let late = || Schedule::linear().over(0.5, 1.0);
    let refused: [(Box<dyn Callback>, &str); 6] = [
        (Box::new(Recipe::new().prune("*", Pruner::snip(0.5)).gradually(late())), "Pruner::snip"),
        (Box::new(Recipe::new().prune("*", Pruner::threshold(0.1)).gradually(late())), "steps"),
        (Box::new(magnitude(1.75).gradually(late())), "1.75"),
        (Box::new(Recipe::new().prune("*", Pruner::magnitude(5000)).gradually(late())), "5000"),
        (Box::new(Recipe::new().prune("*", Pruner::snip(0.5)).alternating()), "Pruner::snip"),
        (Box::new(Recipe::new().prune("*", Pruner::movement(0.5)).alternating()), "recipe::Movement"),
    ];
    for (mut callback, text) in refused {
        let (mut network, whole, mut steps) = (network(1), network(1), 0);
        let count = &mut |_: &Progress| {
            steps += 1;
            ControlFlow::Continue(())
        };
        let training = Training::new(2).batch_size(25);
        let error = training.train_with(&mut network, &data(), &mut Sgd::new(0.1), &mut *callback, count).unwrap_err();
        assert!(error.to_string().contains(text), "{error} should say {text}");
        assert_eq!((network, steps), (whole, 0), "{text}");
    }
    let search = Recipe::new().prune("*", Pruner::magnitude(0.2).of_remaining()).lottery_ticket(1).rewind_to(3);
    let run = search.run(
        &network(1),
        &Training::new(1).batch_size(50),
        &data(),
        &mut || Box::new(Sgd::new(0.1)),
        &mut |_| panic!("two steps are fewer than three, which is seen before the first"),
    );
    assert!(matches!(run, Err(Error::Setting { value: 3.0, .. })), "{run:?}");
}

#[test]
fn recipes_that_keep_or_quantize_are_told_apart() {
    let mut network = network(1);
    Recipe::new().keep("0").prune("head", Pruner::magnitude(0.5)).apply(&mut network).unwrap();
    assert_eq!(kept(&network), [80]);
    assert!(matches!(
        Recipe::new().keep("nothing").prune("head", Pruner::magnitude(0.5)).apply(&mut network),
        Err(Error::Pattern { .. })
    ));
    for quantizing in [
        Recipe::new().quantize("0", Quantizer::uniform(8)),
        Recipe::new().static_activations(Quantizer::uniform(8)),
        Recipe::new().float_activations(),
    ] {
        let refused = quantizing.prune("head", Pruner::magnitude(0.5)).apply(&mut network);
        assert!(matches!(refused, Err(Error::Conflict { .. })), "{refused:?}");
    }
}

#[test]
fn a_report_that_cannot_be_made_changes_nothing_and_one_that_can_counts_one_sample() {
    let (mut network, whole) = (network(1), network(1));
    assert!(magnitude(0.5).input_shape(&[1, 13]).apply(&mut network).is_err());
    assert!(magnitude(0.5).input_shape(&[1, 13]).apply_with(&mut network, &data()).is_err());
    assert_eq!(network, whole);
    let report = magnitude(0.5).apply_with(&mut network, &data()).unwrap();
    assert_eq!(report.multiplications(), (2240, 1120));
    let report = magnitude(0.5).input_shape(&[64, 12]).apply(&mut network).unwrap();
    assert_eq!(report.multiplications(), (2240, 1120));
    assert_eq!(magnitude(0.5).apply(&mut network).unwrap().multiplications(), (0, 0));
    #[cfg(feature = "io")]
    {
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(json["rows"][0]["shape"], serde_json::json!([40, 12]));
    }
}

#[test]
fn random_masks_of_layers_alike_are_not_alike() {
    let network = Network::builder(1).linear(20, 20).relu().linear(20, 20).build().unwrap();
    let data = Data::classes(normal(40, 20, 1), (0..40).map(|i| i % 20)).unwrap();
    let search = Recipe::new().prune("*", Pruner::magnitude(0.5).of_remaining()).lottery_ticket(1);
    let tickets = search.run(&network, &Training::new(1), &data, &mut || Box::new(Sgd::new(0.1)), &mut go_on).unwrap();
    let shuffled = tickets[1].shuffled(&network, 1).unwrap();
    assert_eq!(kept(&shuffled), [200, 200]);
    assert_ne!(shuffled.masks()[0].1, shuffled.masks()[1].1);
    assert_eq!(shuffled, tickets[1].shuffled(&network, 1).unwrap());
}
