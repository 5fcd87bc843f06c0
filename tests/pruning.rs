//! Pruning of networks: rankings against brute force, and what every way of pruning while training promises.

mod common;

use std::ops::ControlFlow;

use common::normal;
use ndarray::{Array2, ArrayD};
use tersor::{
    Error, Mask, PrunedTensor, Pruner, Quantizer, Recipe, Result, Weights,
    compressed::Compressed,
    nn::{Adam, Callback, Conv2d, CrossEntropy, Data, Loss, Network, Optimizer, Progress, Sgd, Training},
    prune::{Amount, Pattern, Schedule},
    recipe::{Movement, Pruning, RigL, Sensitivity},
    report::Sparsity,
    tensor::{FloatType, SparseLayout, Stored},
};

fn go_on(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn network(seed: u64) -> Network {
    let network = Network::builder(seed).linear(12, 40).relu().residual(|b| b.linear(40, 40).relu()).named("block");
    network.linear(40, 4).named("head").build().unwrap()
}

/// Classes that a linear map of the inputs decides.
fn data() -> Data {
    let (x, w) = (normal(96, 12, 1), normal(4, 12, 2));
    let logits = x.dot(&w.t());
    let largest = |row: ndarray::ArrayView1<'_, f32>| (0..4).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
    let labels: Vec<usize> = logits.rows().into_iter().map(largest).collect();
    Data::classes(x, labels).unwrap()
}

fn magnitude(amount: impl Into<Amount>) -> Pruning {
    Recipe::new().prune("*", Pruner::magnitude(amount)).across_layers()
}

fn kept(network: &Network) -> usize {
    network.masks().iter().map(|(_, mask)| mask.kept()).sum()
}

fn all(network: &Network) -> usize {
    network.maskable().iter().map(|name| network.parameter(name).unwrap().len()).sum()
}

/// The masks of one ranking of the whole network, by sorting.
fn ranked(network: &Network, remove: usize, score: impl Fn(&str, usize) -> f32) -> Vec<(String, Vec<bool>)> {
    let sizes: Vec<_> = network.maskable().into_iter().map(|n| (network.parameter(&n).unwrap().len(), n)).collect();
    let mut order: Vec<(f32, usize, usize)> = Vec::new();
    for (tensor, (len, name)) in sizes.iter().enumerate() {
        order.extend((0..*len).map(|i| (score(name, i), tensor, i)));
    }
    order.sort_by(|a, b| a.partial_cmp(b).unwrap());
    let mut masks: Vec<_> = sizes.into_iter().map(|(len, name)| (name, vec![true; len])).collect();
    order[..remove].iter().for_each(|(_, tensor, i)| masks[*tensor].1[*i] = false);
    masks
}

fn assert_masks(network: &Network, expected: &[(String, Vec<bool>)]) {
    for (name, expected) in expected {
        let mask = network.mask(name).unwrap().unwrap();
        assert_eq!(mask.iter().collect::<Vec<_>>(), *expected, "{name}");
        assert!(mask.iter().zip(network.parameter(name).unwrap()).all(|(kept, w)| kept || *w == 0.0));
    }
}

#[test]
fn rankings_across_layers_are_those_of_a_sort() {
    let (data, whole) = (data(), network(3));
    let value = |name: &str, i: usize| whole.parameter(name).unwrap().as_slice().unwrap()[i];
    let gradient = whole.gradient(&data, &CrossEntropy::new()).unwrap();
    let curvature = whole.hessian_vector(&data, &CrossEntropy::new(), &gradient).unwrap();
    let of = |arrays: &[(String, ArrayD<f32>)], name: &str, i: usize| {
        arrays.iter().find(|(own, _)| own == name).unwrap().1.as_slice().unwrap()[i]
    };
    let remove = (0.7 * all(&whole) as f64).round_ties_even() as usize;
    type Score<'a> = Box<dyn Fn(&str, usize) -> f32 + 'a>;
    let cases: [(Pruning, Score<'_>); 4] = [
        (magnitude(0.7), Box::new(|name, i| value(name, i).abs())),
        (
            Recipe::new().prune("*", Pruner::taylor(0.7)).across_layers(),
            Box::new(|n, i| (value(n, i) * of(&gradient, n, i)).abs()),
        ),
        (
            Recipe::new().prune("*", Pruner::snip(0.7)).across_layers(),
            Box::new(|n, i| (value(n, i) * of(&gradient, n, i)).abs()),
        ),
        (
            Recipe::new().prune("*", Pruner::grasp(0.7)).across_layers(),
            Box::new(|n, i| value(n, i) * of(&curvature, n, i)),
        ),
    ];
    for (pruning, score) in cases {
        let mut pruned = whole.clone();
        let report = pruning.apply_with(&mut pruned, &data).unwrap();
        assert_masks(&pruned, &ranked(&whole, remove, score));
        assert_eq!(report, Sparsity::new(&pruned, &[1, 12]).unwrap());
    }
}

#[test]
fn weights_have_their_own_rules_and_the_last_that_matches_counts() {
    let mut pruned = network(1);
    let pruning =
        Recipe::new().prune("*", Pruner::magnitude(0.5)).prune("head", Pruner::magnitude(0.75)).keep("block.*");
    pruning.apply(&mut pruned).unwrap();
    let sparsity = |name: &str| pruned.mask(name).unwrap().map(Mask::sparsity);
    assert_eq!(
        (sparsity("0.weight"), sparsity("block.0.weight"), sparsity("head.weight")),
        (Some(0.5), None, Some(0.75))
    );
    let shown: Vec<_> = pruning.dry_run(&pruned).unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(shown[1], "block.0.weight [40, 40]: stays");
    assert_eq!(shown[2], "head.weight [4, 40]: magnitude(0.75)");
}

#[test]
fn pruning_again_goes_on_from_what_is_left() {
    let mut pruned = network(1);
    magnitude(0.5).apply(&mut pruned).unwrap();
    let first: Vec<_> = pruned.masks().into_iter().map(|(_, mask)| mask.clone()).collect();
    magnitude(0.8).apply(&mut pruned).unwrap();
    assert_eq!(kept(&pruned), all(&pruned) - (0.8 * all(&pruned) as f64).round_ties_even() as usize);
    for ((_, mask), before) in pruned.masks().iter().zip(&first) {
        assert_eq!(&mask.and(before).unwrap(), *mask);
    }
}

#[test]
fn synaptic_flow_in_rounds_empties_no_layer_that_magnitude_would() {
    // A layer of tiny weights: one ranking by magnitude takes all of them.
    let mut whole = network(2);
    let tiny = whole.parameter("head.weight").unwrap().mapv(|w| w * 1e-4);
    whole.set_parameter("head.weight", &tiny).unwrap();
    let mut by_magnitude = whole.clone();
    magnitude(0.95).apply(&mut by_magnitude).unwrap();
    assert_eq!(by_magnitude.mask("head.weight").unwrap().unwrap().kept(), 0);
    for amount in [Amount::Fraction(0.95), Amount::Count((0.95 * all(&whole) as f64) as usize)] {
        let mut by_flow = whole.clone();
        let pruning = Recipe::new().prune("*", Pruner::synflow(amount)).across_layers().input_shape(&[1, 12]);
        pruning.apply(&mut by_flow).unwrap();
        assert!(by_flow.masks().iter().all(|(_, mask)| mask.kept() > 0));
        assert!((kept(&by_flow) as f64 / all(&whole) as f64 - 0.05).abs() < 1e-3);
        // The flow that is left still runs through every layer alike.
        let flow = by_flow.synaptic_flow(&[1, 12]).unwrap();
        assert!(flow.iter().all(|(_, flow)| flow.iter().any(|x| *x > 0.0)));
    }
    let missing = Recipe::new().prune("*", Pruner::synflow(0.5)).apply(&mut whole.clone());
    assert!(missing.unwrap_err().to_string().contains("input_shape"));
}

#[test]
fn synaptic_flow_empties_no_layer_of_networks_whose_flow_is_below_f32() {
    for (layers, width, size) in [(60, 32, 0.01), (24, 64, 5e-4), (12, 16, 1e-5)] {
        let mut network = Network::builder(3);
        for _ in 0..layers {
            network = network.linear(width, width).relu();
        }
        let mut network = network.build().unwrap();
        for (_, mut array) in network.parameters_mut() {
            array.mapv_inplace(|w| w * size * (width as f32).sqrt());
        }
        let pruning = Recipe::new().prune("*", Pruner::synflow(0.9).rounds(5)).across_layers();
        pruning.input_shape(&[1, width]).apply(&mut network).unwrap();
        for (name, mask) in network.masks() {
            assert!((0.02..0.3).contains(&(1.0 - mask.sparsity())), "{layers} layers: {name} keeps {}", mask.kept());
        }
    }
}

#[test]
fn a_checkpoint_is_pruned_as_the_network_that_it_holds() {
    let mut whole = network(3);
    whole.set_mask("0.weight", Some(Mask::from_fn(&[40, 12], |i| i % 5 != 0).unwrap())).unwrap();
    let mut checkpoint = Compressed::new(&whole).unwrap().tensors().clone();
    checkpoint.insert("half", Stored::Float(Array2::from_elem((8, 8), 0.5).into_dyn(), FloatType::BF16));
    let prunings = [
        || magnitude(0.9),
        || Recipe::new().prune("*", Pruner::magnitude(0.5).of_remaining()),
        || Recipe::new().prune("*", Pruner::lamp(0.7)).across_layers(),
        || Recipe::new().prune("*", Pruner::magnitude(0.5).n_of_m(2, 4)),
        || Recipe::new().prune("*", Pruner::random(0.5, 7).structured(ndarray::Axis(0))).keep("head"),
    ];
    for pruning in prunings {
        let mut network = whole.clone();
        pruning().apply(&mut network).unwrap();
        let pruned = pruning().keep("half").apply_to_checkpoint(&checkpoint).unwrap();
        assert_eq!(pruned.len(), checkpoint.len());
        for name in network.maskable() {
            assert_eq!(pruned.floats(&name).unwrap(), network.parameter(&name).unwrap(), "{name}");
            if let (Stored::Sparse(sparse), Some(mask)) = (pruned.tensor(&name).unwrap(), network.mask(&name).unwrap())
            {
                assert_eq!(sparse.mask(), mask);
            }
        }
        assert_eq!(pruned.tensor("half").unwrap(), checkpoint.tensor("half").unwrap());
        assert_eq!(pruned.tensor("head.bias").unwrap(), checkpoint.tensor("head.bias").unwrap());
    }
    // 16-bit floats are stored sparse only where that is smaller: a survivor takes 32 bits.
    let half = |sparsity| {
        let pruned = Recipe::new().prune("half", Pruner::magnitude(sparsity)).apply_to_checkpoint(&checkpoint).unwrap();
        pruned.tensor("half").unwrap().clone()
    };
    let Stored::Float(values, FloatType::BF16) = half(0.25) else { panic!("as it was") };
    assert_eq!(values.iter().filter(|x| **x == 0.0).count(), 16);
    assert!(matches!(half(0.75), Stored::Sparse(_)));
    let refuses = |pruning: Pruning, text: &str| {
        let error = pruning.apply_to_checkpoint(&checkpoint).unwrap_err().to_string();
        assert!(error.contains(text), "{error} should say {text}");
    };
    refuses(Recipe::new().prune("*", Pruner::taylor(0.5)), "gradient");
    refuses(Recipe::new().prune("*", Pruner::synflow(0.5)), "synaptic flow");
    refuses(Recipe::new().prune("head.bias", Pruner::magnitude(0.5)), "head.bias");
    refuses(Recipe::new().prune("0", Pruner::magnitude(1.5)), "0.weight");
    refuses(Recipe::new().quantize("*", Quantizer::uniform(8)).prune("*", Pruner::magnitude(0.5)), "quantizes");
}

#[test]
fn synaptic_flow_takes_amounts_of_what_is_left() {
    let prune = |network: &mut Network, amount| {
        let pruning = Recipe::new().prune("*", Pruner::synflow(amount).rounds(7).of_remaining()).across_layers();
        pruning.input_shape(&[1, 12]).apply(network).unwrap();
    };
    let mut pruned = network(2);
    let mut left = all(&pruned);
    for _ in 0..4 {
        prune(&mut pruned, Amount::Fraction(0.3));
        left -= (0.3 * left as f64).round_ties_even() as usize;
        assert_eq!(kept(&pruned), left);
    }
    prune(&mut pruned, Amount::Count(5));
    assert_eq!(kept(&pruned), left - 5);
    // So there are lottery tickets by it.
    let search = Recipe::new().prune("*", Pruner::synflow(0.3).of_remaining().rounds(3)).across_layers();
    let training = Training::new(1).batch_size(48);
    let mut optimizer = || Box::new(Adam::new(1e-2)) as Box<dyn Optimizer>;
    let tickets = search.lottery_ticket(3).run(&network(5), &training, &data(), &mut optimizer, &mut go_on).unwrap();
    assert!((tickets[3].kept() as f64 / all(&network(5)) as f64 - 0.343).abs() < 1e-2);
}

/// Records how many weights are kept before each step.
#[derive(Debug, Default)]
struct Watch(Vec<usize>);

impl Callback for Watch {
    fn before_step(&mut self, _: &Progress, network: &mut Network, _: &mut [(String, ArrayD<f32>)]) -> Result<()> {
        let kept =
            |name: &String| network.mask(name).unwrap().map_or(network.parameter(name).unwrap().len(), Mask::kept);
        self.0.push(network.maskable().iter().map(kept).sum());
        Ok(())
    }
}

fn watched(callback: &mut dyn Callback, epochs: usize) -> (Network, Vec<usize>) {
    let (mut network, mut watch) = (network(4), Watch::default());
    let mut both: [&mut dyn Callback; 2] = [callback, &mut watch];
    // 96 samples in batches of 24: four steps an epoch.
    let training = Training::new(epochs).batch_size(24);
    training.train_with(&mut network, &data(), &mut Adam::new(1e-2), &mut both[..], &mut go_on).unwrap();
    for (name, mask) in network.masks() {
        assert!(mask.iter().zip(network.parameter(&name).unwrap()).all(|(kept, w)| kept || *w == 0.0), "{name}");
    }
    (network, watch.0)
}

#[test]
fn gradual_pruning_follows_its_schedule_and_holds() {
    let all = all(&network(4)) as f64;
    let left = |sparsity: f64| all as usize - (sparsity * all).round_ties_even() as usize;
    let mut gradual = magnitude(0.8).gradually(Schedule::cubic().over(0.25, 0.75).events(4));
    let (trained, kept) = watched(&mut gradual, 4);
    // 16 steps, events at 4, 6, 8 and 10.
    let expected: Vec<usize> = (0..16usize)
        .map(|step| match step {
            0..4 => left(0.0),
            4..6 => left(0.4625),
            6..8 => left(0.7),
            8..10 => left(0.7875),
            _ => left(0.8),
        })
        .collect();
    assert_eq!(kept, expected);
    let accuracy = trained.accuracy(&data()).unwrap();
    assert!(accuracy > 0.5, "{accuracy}: twice as good as chance after 16 steps");
    // Data-driven scores look at the data they were given; N:M prunes at the first event.
    let mut gradual =
        Recipe::new().prune("*", Pruner::taylor(0.5)).across_layers().gradually(Schedule::linear()).data(&data());
    assert_eq!(*watched(&mut gradual, 3).1.last().unwrap(), left(0.5));
    let pairs = Recipe::new().prune("*", Pruner::magnitude(0.5).n_of_m(2, 4)).gradually(Schedule::linear().events(2));
    assert!(watched(&mut pairs.clone(), 2).1.iter().all(|kept| *kept == left(0.5)));
}

#[test]
fn alternating_training_is_dense_between_and_ends_pruned() {
    let whole = all(&network(4));
    let mut ac_dc = magnitude(0.75).alternating().warm_up(0.25).phase(0.125).last(0.25);
    let (trained, kept) = watched(&mut ac_dc, 4);
    let pattern: Vec<bool> = kept.iter().map(|kept| *kept < whole).collect();
    let expected: Vec<bool> = (0..16).map(|step| matches!(step, 4 | 5 | 8 | 9 | 12..)).collect();
    assert_eq!(pattern, expected);
    assert_eq!(trained.masks().iter().map(|(_, mask)| mask.kept()).sum::<usize>(), whole / 4);
    // A training too short for the phases ends pruned all the same.
    let mut short = magnitude(0.75).alternating().last(0.0).warm_up(1.0);
    assert_eq!(self::kept(&watched(&mut short, 1).0), whole / 4);
}

#[test]
fn rigl_exchanges_weights_and_keeps_their_number() {
    let whole = all(&network(4));
    for rigl in [RigL::new("*", 0.8), RigL::new("*", 0.8).random_growth(), RigL::new("*", 0.8).erdos_renyi()] {
        let (trained, kept) = watched(&mut rigl.clone().every(3), 8);
        assert!(kept.iter().all(|now| *now == kept[0]), "{kept:?}");
        assert!((kept[0] as f64 - 0.2 * whole as f64).abs() <= 3.0, "{}", kept[0]);
        let start = watched(&mut rigl.clone().alpha(0.0).every(3), 8).0;
        let moved = |name: &str| trained.mask(name).unwrap() != start.mask(name).unwrap();
        assert!(moved("0.weight") && moved("block.0.weight"), "masks moved");
        assert_eq!(watched(&mut rigl.clone().every(3), 8).0, trained, "the same seed, the same bits");
    }
    // Small layers are denser: (out + in) / (out in), in one proportion.
    let trained = watched(&mut RigL::new("*", 0.9).erdos_renyi(), 1).0;
    let density = |name: &str| 1.0 - trained.mask(name).unwrap().unwrap().sparsity();
    let raw = |out: f64, inputs: f64| (out + inputs) / (out * inputs);
    assert!((density("0.weight") / density("block.0.weight") - raw(40.0, 12.0) / raw(40.0, 40.0)).abs() < 0.05);
    assert!((density("head.weight") / density("block.0.weight") - raw(4.0, 40.0) / raw(40.0, 40.0)).abs() < 0.1);
}

#[test]
fn rigl_drops_the_smallest_and_grows_where_the_gradient_is_largest() {
    let data = Data::classes(normal(8, 6, 3), [0, 1, 0, 1, 0, 1, 0, 1]).unwrap();
    let mut network = Network::builder(1).linear_without_bias(6, 2).build().unwrap();
    let mut rigl = RigL::new("*", 0.5).every(1).alpha(1.0);
    rigl.start(&mut network, 100).unwrap();
    let (mask, values) =
        (network.mask("0.weight").unwrap().unwrap().clone(), network.parameter("0.weight").unwrap().to_owned());
    let mut gradients = network.gradient(&data, &CrossEntropy::new()).unwrap();
    let gradient = gradients[0].1.clone();
    let mut at = None;
    let mut steps = |p: &Progress| {
        if p.step() == 25 {
            at = Some(*p);
        }
        ControlFlow::Continue(())
    };
    Training::new(100).train(&mut network.clone(), &data, &mut Sgd::new(0.0), &mut steps).unwrap();
    rigl.before_step(&at.unwrap(), &mut network, &mut gradients).unwrap();
    // alpha/2 (1 + cos(pi 25/75)) = 3/4 of the six that are kept, rounded down.
    let (values, gradient) = (values.as_slice().unwrap(), gradient.as_slice().unwrap());
    let mut order: Vec<usize> = mask.positions().collect();
    order.sort_by(|a, b| values[*b].abs().total_cmp(&values[*a].abs()));
    let stay = &order[..2];
    let mut rest: Vec<usize> = (0..12).filter(|i| !stay.contains(i)).collect();
    rest.sort_by(|a, b| gradient[*b].abs().total_cmp(&gradient[*a].abs()));
    let next = network.mask("0.weight").unwrap().unwrap();
    assert!(stay.iter().chain(&rest[..4]).all(|i| next.is_kept(*i)) && next.kept() == 6);
}

#[test]
fn movement_reaches_its_sparsity_and_lets_weights_come_back() {
    let whole = all(&network(4)) as f64;
    let (trained, kept) = watched(&mut Movement::new("*", 0.7).schedule(Schedule::cubic().over(0.1, 0.7).events(8)), 8);
    assert!(kept.windows(2).all(|pair| pair[0] >= pair[1]));
    let left: usize =
        trained.masks().iter().map(|(_, mask)| mask.len() - (0.7 * mask.len() as f64).round_ties_even() as usize).sum();
    assert_eq!(*kept.last().unwrap(), left);
    assert!(trained.accuracy(&data()).unwrap() > 0.7, "{}", trained.accuracy(&data()).unwrap());
    let across = watched(&mut Movement::new("*", 0.7).across_layers(), 8).0;
    assert_eq!(self::kept(&across), (0.3 * whole).round() as usize);

    // Soft: a penalty draws scores below the threshold; none at all keeps what moved away from zero.
    let soft = |lambda: f64| self::kept(&watched(&mut Movement::new("*", 0.0).soft(0.5, lambda), 4).0);
    assert!(soft(1e6) == 0 && soft(0.0) > whole as usize / 10, "{} {}", soft(1e6), soft(0.0));
}

#[test]
fn movement_gathers_what_its_formula_says() {
    // One step of gradient descent: S = -eta g w; half with the least S goes.
    let data = Data::classes(normal(8, 6, 3), [0, 1, 0, 1, 0, 1, 0, 1]).unwrap();
    let mut network = Network::builder(1).linear_without_bias(6, 2).build().unwrap();
    let (g, w) = (
        network.gradient(&data, &CrossEntropy::new()).unwrap().remove(0).1,
        network.parameter("0.weight").unwrap().to_owned(),
    );
    let mut movement = Movement::new("*", 0.5).schedule(Schedule::constant().over(0.5, 0.5));
    let training = Training::new(2).batch_size(8);
    training.train_with(&mut network, &data, &mut Sgd::new(0.0), &mut movement, &mut go_on).unwrap();
    let scores: Vec<f32> = g.iter().zip(&w).map(|(g, w)| -g * w).collect();
    let mut order: Vec<usize> = (0..12).collect();
    order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
    let mask = network.mask("0.weight").unwrap().unwrap();
    assert!(order[..6].iter().all(|i| !mask.is_kept(*i)) && order[6..].iter().all(|i| mask.is_kept(*i)));
}

#[test]
fn lottery_tickets_keep_their_share_and_start_where_they_started() {
    let (whole, data, training) = (network(5), data(), Training::new(1).batch_size(48));
    let search = Recipe::new().prune("*", Pruner::magnitude(0.2).of_remaining()).across_layers().lottery_ticket(10);
    let mut optimizer = || Box::new(Adam::new(1e-2)) as Box<dyn Optimizer>;
    let tickets = search.run(&whole, &training, &data, &mut optimizer, &mut go_on).unwrap();
    let mut left = all(&whole);
    for (round, ticket) in tickets.iter().enumerate() {
        assert_eq!(ticket.kept(), left, "round {round}");
        left -= (0.2 * left as f64).round_ties_even() as usize;
        for (name, mask) in ticket.initial.masks() {
            let (ticket, start) = (ticket.initial.parameter(&name).unwrap(), whole.parameter(&name).unwrap());
            assert!(
                ticket
                    .iter()
                    .zip(start)
                    .zip(mask.iter())
                    .all(|((w, start), kept)| *w == if kept { *start } else { 0.0 })
            );
        }
    }
    // 0.8^10 = 10.74 %, but for the rounding of ten counts.
    assert!((tickets[10].kept() as f64 / all(&whole) as f64 - 0.8f64.powi(10)).abs() < 1e-3);
    // The next mask is within the one before, and picked from what was trained.
    let masks = |n: usize| tickets[n].initial.masks().into_iter().map(|(_, mask)| mask.clone()).collect::<Vec<_>>();
    assert!(masks(3).iter().zip(masks(2)).all(|(next, before)| next.and(&before).unwrap() == *next));

    // Controls: the same masks elsewhere, and as many weights anywhere.
    let other = tickets[4].on(&network(6)).unwrap();
    assert_eq!(other.masks(), tickets[4].initial.masks());
    let shuffled = tickets[4].shuffled(&whole, 1).unwrap();
    for ((_, a), (_, b)) in shuffled.masks().iter().zip(tickets[4].initial.masks()) {
        assert!(a.kept() == b.kept() && *a != b);
    }

    // Rewound to the weights after the first step.
    let rewound = search.clone().rewind_to(1).run(&whole, &training, &data, &mut optimizer, &mut go_on).unwrap();
    let mut early = whole.clone();
    let stop = training.train(&mut early, &data, &mut Adam::new(1e-2), &mut |_| ControlFlow::Break(()));
    assert!(matches!(stop, Err(Error::Cancelled { done: 1, .. })));
    assert_eq!(rewound[3].initial.parameter("block.0.bias").unwrap(), early.parameter("block.0.bias").unwrap());
    assert!(search.rewind_to(3).run(&whole, &training, &data, &mut optimizer, &mut go_on).is_err(), "two steps in all");
}

#[test]
fn a_scan_measures_each_weight_alone() {
    let (whole, data) = (network(3), data());
    let pruner = |sparsity: f64| Box::new(Pruner::magnitude(sparsity)) as Box<dyn Pruner>;
    let mut calls = 0;
    let scan = Sensitivity::scan(&whole, &data, &CrossEntropy::new(), &[0.5, 1.0], &pruner, &mut |done, total| {
        calls += 1;
        assert_eq!((done, total), (calls, 6));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(scan.accuracy, Some(whole.accuracy(&data).unwrap()));
    let mut by_hand = whole.clone();
    Recipe::new().prune("block.0", Pruner::magnitude(0.5)).apply(&mut by_hand).unwrap();
    let row = scan.rows.iter().find(|row| row.name == "block.0.weight").unwrap();
    assert_eq!((row.sparsity, row.loss), (0.5, by_hand.loss(&data, &CrossEntropy::new()).unwrap()));
    // Without the head's weights all inputs get the same answer.
    let constant = scan.rows.last().unwrap();
    let head = whole.parameter("head.bias").unwrap().to_owned().insert_axis(ndarray::Axis(0));
    let (expected, _) = CrossEntropy::new()
        .evaluate(head.broadcast(vec![96, 4]).unwrap().to_owned().into_dyn().view(), data.targets())
        .unwrap();
    assert!((constant.loss - expected).abs() < 1e-6);
    assert_eq!(scan.to_string().lines().count(), 8);
    let stopped =
        Sensitivity::scan(&whole, &data, &CrossEntropy::new(), &[0.5], &pruner, &mut |_, _| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(Error::Cancelled { done: 1, total: 3 })));
}

#[test]
fn a_report_counts_what_is_left() {
    let mut network = Network::builder(1)
        .conv2d(Conv2d::new(1, 10, 3))
        .relu()
        .conv2d(Conv2d::new(10, 20, 3))
        .relu()
        .flatten()
        .linear(320, 50)
        .relu()
        .linear(50, 10)
        .build()
        .unwrap();
    let pruning = Recipe::new()
        .prune("2", Pruner::magnitude(0.5).structured(ndarray::Axis(0)))
        .prune("7", Pruner::magnitude(0.9));
    pruning.apply(&mut network).unwrap();
    let report = Sparsity::new(&network, &[1, 1, 8, 8]).unwrap();
    let conv = &report.rows[1];
    assert_eq!((conv.name.as_str(), conv.kept, conv.empty_outputs, conv.empty_inputs), ("2.weight", 900, 10, 0));
    assert_eq!(conv.outputs_sparsity, [0.0, 0.5, 1.0]);
    let gone = network.mask("2.weight").unwrap().unwrap().to_array();
    let gone: Vec<f64> = gone.outer_iter().map(|row| if row.iter().any(|kept| *kept) { 0.0 } else { 1.0 }).collect();
    assert_eq!(conv.sparsity_of_outputs, gone);
    assert_eq!(conv.sparsity_of_inputs, [0.5; 10]);
    #[cfg(feature = "io")]
    assert!(report.to_json().contains("sparsity_of_outputs"));
    assert_eq!((conv.bytes_dense, conv.bytes_masked), (7200, 7200 + 225));
    assert_eq!((conv.multiplications, conv.multiplications_kept), (16 * 1800, 16 * 900));
    assert_eq!(report.multiplications(), (36 * 90 + 28800 + 16000 + 500, 36 * 90 + 14400 + 16000 + 50));
    assert_eq!(report.to_string().lines().count(), 6);
    let timed = report.timed(&network, &ndarray::Array4::<f32>::zeros((2, 1, 8, 8)), 2).unwrap();
    assert!(timed.timing.unwrap().dense_ms > 0.0 && timed.to_string().contains("ms packed"));
    assert!(Sparsity::new(&network, &[1, 2, 8, 8]).is_err());
}

#[test]
fn zeros_count_as_removed_whether_a_mask_says_so_or_not() {
    let mut network = Network::builder(1).linear(8, 4).build().unwrap();
    let pruned = Pruner::magnitude(0.5).apply(&network.parameter("0.weight").unwrap()).unwrap();
    network.set_parameter("0.weight", &pruned.values()).unwrap();
    let row = |network: &Network| Sparsity::new(network, &[1, 8]).unwrap().rows.remove(0);
    assert_eq!((row(&network).kept, row(&network).multiplications_kept, row(&network).multiplications), (16, 16, 32));
    network.set_mask("0.weight", Some(pruned.mask().clone())).unwrap();
    assert_eq!((row(&network).kept, row(&network).multiplications_kept), (16, 16));
}

#[test]
fn movement_removes_in_patterns() {
    let patterns =
        [Pattern::Structured(ndarray::Axis(0)), Pattern::Block { rows: 2, columns: 4 }, Pattern::NOfM { n: 2, m: 4 }];
    for pattern in patterns {
        let mut network = network(4);
        let mut movement =
            Movement::new("*", 0.5).pattern(pattern).schedule(Schedule::cubic().over(0.0, 0.5).events(4));
        let training = Training::new(3).batch_size(24);
        training.train_with(&mut network, &data(), &mut Adam::new(1e-2), &mut movement, &mut go_on).unwrap();
        for (name, mask) in network.masks() {
            assert!((mask.sparsity() - 0.5).abs() < 1e-9, "{name} {pattern:?}");
            let whole = match pattern {
                // Survivors fill whole rows or blocks: no other amount of units has their number.
                Pattern::Structured(_) => {
                    mask.to_array().outer_iter().all(|row| row.iter().all(|kept| *kept == row[0]))
                }
                _ => {
                    let layout = match pattern {
                        Pattern::NOfM { n, m } => SparseLayout::NOfM { n, m },
                        _ => SparseLayout::Block { rows: 2, columns: 4 },
                    };
                    let values = network.parameter(&name).unwrap().to_owned();
                    PrunedTensor::new(values, mask.clone()).unwrap().to_sparse_as(layout).is_ok()
                }
            };
            assert!(whole, "{name} {pattern:?}");
        }
    }
}

#[test]
fn a_search_for_tickets_that_finds_the_same_one_again_is_refused_and_a_cancelled_one_keeps_what_it_found() {
    let (whole, data, training) = (network(5), data(), Training::new(1).batch_size(48));
    let mut optimizer = || Box::new(Adam::new(1e-2)) as Box<dyn Optimizer>;
    let same = magnitude(0.3).lottery_ticket(2).run(&whole, &training, &data, &mut optimizer, &mut go_on);
    let error = same.unwrap_err().to_string();
    assert!(error.contains("magnitude(0.3)") && error.contains("of_remaining"), "{error}");
    assert!(magnitude(0.3).lottery_ticket(1).run(&whole, &training, &data, &mut optimizer, &mut go_on).is_ok());
    let below = Recipe::new().prune("*", Pruner::threshold(0.01)).lottery_ticket(2);
    assert!(below.run(&whole, &training, &data, &mut optimizer, &mut go_on).is_ok(), "more may fall below it");

    // Two steps a training: the sixth is the last of the third.
    let search = Recipe::new().prune("*", Pruner::magnitude(0.2).of_remaining()).across_layers().lottery_ticket(3);
    let all = search.run(&whole, &training, &data, &mut optimizer, &mut go_on).unwrap();
    let mut stop_after = |steps: usize| {
        let mut taken = 0;
        let mut stop = |_: &Progress| {
            taken += 1;
            if taken == steps { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        search.run(&whole, &training, &data, &mut optimizer, &mut stop)
    };
    assert!(matches!(stop_after(1), Err(Error::Cancelled { done: 1, total: 8 })));
    let found = stop_after(5).unwrap();
    assert!(found.len() == 2 && found.iter().zip(&all).all(|(found, all)| found.trained == all.trained));
}

#[test]
fn pruned_networks_are_the_same_bits_for_any_number_of_threads() {
    let prune = || {
        let mut network = network(7);
        Recipe::new().prune("*", Pruner::grasp(0.5)).across_layers().apply_with(&mut network, &data()).unwrap();
        let mut rigl = RigL::new("*", 0.6).every(2);
        Training::new(3).train_with(&mut network, &data(), &mut Adam::new(1e-2), &mut rigl, &mut go_on).unwrap();
        network
    };
    let expected = prune();
    #[cfg(feature = "rayon")]
    for threads in [1, 2, 3, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(prune), expected, "{threads} threads");
    }
    assert_eq!(prune(), expected);
}

#[test]
fn bad_input_is_named_and_changes_nothing() {
    #[derive(Debug)]
    struct Plain;
    impl Pruner for Plain {
        fn apply(&self, weights: &dyn Weights) -> Result<PrunedTensor> {
            Pruner::magnitude(0.5).apply(weights)
        }
    }
    let whole = network(1);
    let refuses = |pruning: Pruning, text: &str| {
        let mut network = whole.clone();
        let error = pruning.apply(&mut network).unwrap_err().to_string();
        assert!(error.contains(text), "{error} should say {text}");
        assert_eq!(network, whole);
    };
    refuses(Recipe::new().prune("conv*", Pruner::magnitude(0.5)), "conv*");
    refuses(Recipe::new().prune("*", Pruner::magnitude(1.5)), "1.5");
    refuses(magnitude(1.5), "1.5");
    refuses(Recipe::new().prune("*", Pruner::taylor(0.5)), "Pruner::taylor");
    refuses(Recipe::new().prune("*", Pruner::grasp(0.5)), "Pruner::grasp");
    refuses(Recipe::new().prune("*", Pruner::movement(0.5)), "Pruner::movement");
    refuses(Recipe::new().prune("*", Pruner::synflow(0.5).rounds(0)).input_shape(&[1, 12]), "rounds");
    refuses(Recipe::new().prune("*", Pruner::synflow(0.5)).input_shape(&[1, 13]), "13");
    refuses(Recipe::new().prune("*", Plain).across_layers(), "Plain");
    refuses(Recipe::new().prune("*", Pruner::magnitude(0.5).n_of_m(2, 4)).across_layers(), "n_of_m");
    refuses(
        Recipe::new().prune("0", Pruner::magnitude(0.5)).prune("head", Pruner::magnitude(0.6).n_of_m(2, 4)),
        "head.weight",
    );
    refuses(Recipe::new().quantize("*", Quantizer::uniform(8)).prune("*", Pruner::magnitude(0.5)), "quantizes");
    let mut pruned = whole.clone();
    Recipe::new().prune("*", Plain).apply(&mut pruned).unwrap();
    assert_eq!(kept(&pruned), all(&whole) / 2);

    let start = |callback: &mut dyn Callback, text: &str| {
        let mut network = whole.clone();
        let training = Training::new(1).batch_size(4);
        let result = training.train_with(&mut network, &data(), &mut Sgd::new(0.1), callback, &mut go_on);
        let error = result.unwrap_err().to_string();
        assert!(error.contains(text), "{error} should say {text}");
        assert_eq!(network, whole);
    };
    start(&mut magnitude(0.5).gradually(Schedule::cubic().events(0)), "events");
    start(&mut Recipe::new().prune("x", Pruner::magnitude(0.5)).gradually(Schedule::cubic()), "`x`");
    start(&mut Recipe::new().prune("*", Pruner::threshold(0.5)).gradually(Schedule::cubic()), "a threshold");
    start(
        &mut Recipe::new().prune("*", Pruner::magnitude(0.5).of_remaining()).gradually(Schedule::cubic()),
        "an amount of what is left (0.5)",
    );
    start(
        &mut Recipe::new().prune("*", Pruner::snip(0.5)).gradually(Schedule::constant().over(0.0, 0.5)),
        "Pruner::snip",
    );
    start(&mut magnitude(0.5).alternating().phase(0.0), "phase");
    start(&mut magnitude(0.5).alternating().warm_up(0.9).last(0.5), "0.5");
    start(&mut magnitude(0.5).alternating().warm_up(f64::NAN), "NaN");
    start(&mut RigL::new("*", 1.5), "1.5");
    start(&mut RigL::new("*", 0.5).every(0), "every");
    start(&mut RigL::new("y", 0.5), "`y`");
    // More than the first layer has, and the layer named as in one shot.
    let count = || Recipe::new().prune("*", Pruner::magnitude(500));
    start(&mut count().gradually(Schedule::cubic()), "`0.weight`");
    refuses(count(), "`0.weight`");
    start(&mut Movement::new("*", 0.6).pattern(Pattern::NOfM { n: 2, m: 4 }), "2 of 4");
    start(&mut Movement::new("*", 0.5).pattern(Pattern::Structured(ndarray::Axis(2))), "`0.weight`");
    start(&mut Movement::new("*", -0.5), "-0.5");
    start(&mut Movement::new("*", 0.5).learning_rate(0.0), "learning_rate");
    start(&mut Movement::new("*", 0.5).soft(1.0, 0.1), "threshold");
    start(&mut Movement::new("*", 0.5).soft(0.5, f64::INFINITY), "lambda");
}
