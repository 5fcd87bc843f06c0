//! Every gradient of every layer against central differences (five points, so the error is of fourth order in the
//! step), on random shapes and settings.

use ndarray::{ArrayD, IxDyn};
use proptest::prelude::*;

use super::{Absent, Attention, AvgPool2d, Builder, Conv2d, Layer, LayerNorm, MaxPool2d, Mode, Network};
use crate::random::{Random, derive};

/// Distance between the points; a power of two, so that moving a value there and back is exact enough.
const STEP: f32 = 1.0 / 128.0;

/// Random values, no two of a sample closer than `8 STEP` and none closer than `4 STEP` to 0: further than any point
/// of a difference reaches, so that no kink lies in between.
fn spread(shape: &[usize], random: &mut Random) -> ArrayD<f32> {
    let mut values = ArrayD::zeros(IxDyn(shape));
    let sample = values.len() / shape[0];
    for sample in values.as_slice_mut().unwrap().chunks_mut(sample) {
        let mut ranks: Vec<usize> = (0..sample.len()).collect();
        random.shuffle(&mut ranks);
        // Symmetric around 0 and off it by half a gap: (rank + 1/2 - count / 2) gaps, for an even count.
        let count = ranks.len().next_multiple_of(2) as f32;
        sample.iter_mut().zip(ranks).for_each(|(x, rank)| *x = (rank as f32 + 0.5 - count / 2.0) * 8.0 * STEP);
    }
    values
}

/// `Σ r y` in f64: a loss whose gradient for the output is `r`.
fn loss(network: &Network, x: &ArrayD<f32>, r: &ArrayD<f32>, mode: Mode) -> f64 {
    let trace = network.trace(x, mode).unwrap();
    trace.output().iter().zip(r).map(|(y, r)| f64::from(*y) * f64::from(*r)).sum()
}

/// Checks the gradient of the input and of every parameter, element by element.
fn check(network: &Network, x: &ArrayD<f32>, mode: Mode, random: &mut Random) -> Result<(), TestCaseError> {
    let trace = network.trace(x, mode).unwrap();
    let r = trace.output().mapv(|_| random.within(1.0));
    let gradients = network.backward(&trace, &r).unwrap();
    let names: Vec<_> = network.parameters().into_iter().map(|(name, _)| name).collect();
    let found: Vec<_> = gradients.parameters.iter().map(|(name, _)| name.clone()).collect();
    prop_assert_eq!(&names, &found);
    let (none, alone) = network.propagate(&trace, r.clone(), false).unwrap();
    prop_assert!(none.is_none() && alone == gradients.parameters, "parameters' gradients alone are the same");

    let all = std::iter::once((None, &gradients.input));
    for (name, gradient) in all.chain(gradients.parameters.iter().map(|(name, gradient)| (Some(name), gradient))) {
        let moved_loss = |index: usize, by: f32| {
            let mut moved = name.map_or(x.clone(), |name| network.parameter(name).unwrap().to_owned());
            moved.as_slice_mut().unwrap()[index] += by;
            match name {
                None => loss(network, &moved, &r, mode),
                Some(name) => {
                    let mut network = network.clone();
                    network.set_parameter(name, &moved).unwrap();
                    loss(&network, x, &r, mode)
                }
            }
        };
        let largest = gradient.iter().fold(1.0f64, |largest, g| largest.max(f64::from(g.abs())));
        for (index, slope) in gradient.iter().enumerate() {
            let difference = |by: f32| moved_loss(index, by) - moved_loss(index, -by);
            let quotient = |step: f32| (8.0 * difference(step) - difference(2.0 * step)) / f64::from(12.0 * step);
            // Where the loss bends sharply (a normalization of numbers that hardly differ), a finer step is needed; a
            // wrong gradient agrees with none.
            let agrees = |step: f32| (quotient(step) - f64::from(*slope)).abs() <= 2e-3 * largest;
            let steps = [STEP, STEP / 4.0, STEP / 16.0];
            prop_assert!(
                steps.into_iter().any(agrees),
                "{name:?}[{index}] of {:?}: {slope}, quotients {:?}",
                network.layers().collect::<Vec<_>>(),
                steps.map(quotient)
            );
        }
    }
    Ok(())
}

/// Builds the network, draws an input, perturbs the parameters (so that none is 0 or 1), and checks in both modes.
fn holds(seed: u64, shape: &[usize], build: impl FnOnce(Builder) -> Builder) -> Result<(), TestCaseError> {
    let mut network = build(Network::builder(seed)).build().unwrap();
    prop_assume!(network.output_shape(shape).is_ok());
    let mut random = Random::new(derive(seed, 99));
    for (_, _, mut array) in network.arrays_mut() {
        array.mapv_inplace(|value| value + 0.5 * random.uniform());
    }
    let x = spread(shape, &mut random);
    check(&network, &x, Mode::Evaluation, &mut random)?;
    check(&network, &x, Mode::Training { seed }, &mut random)
}

fn pair(range: std::ops::Range<usize>) -> impl Strategy<Value = (usize, usize)> {
    (range.clone(), range)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn linear((seed, batch, inputs, outputs, middle) in (any::<u64>(), 1usize..5, 1usize..7, 1usize..6, 1usize..3)) {
        holds(seed, &[batch, inputs], |b| b.linear(inputs, outputs))?;
        holds(seed, &[batch, middle, inputs], |b| b.linear_without_bias(inputs, outputs))?;
    }

    #[test]
    fn attention(
        seed in any::<u64>(), batch in 1usize..3, sequence in 1usize..5, heads in 1usize..4, head_dim in 1usize..4,
        features in 1usize..5, causal in any::<bool>(), biased in any::<bool>(),
    ) {
        let attention = Attention::new(features, heads).head_dim(head_dim);
        let attention = if causal { attention.causal() } else { attention };
        let attention = if biased { attention } else { attention.without_bias() };
        holds(seed, &[batch, sequence, features], |b| b.layer(attention.clone()))?;
        holds(seed, &[batch, sequence, features], |b| {
            b.residual(|b| b.layer_norm(features).layer(attention)).linear(features, 2).tanh()
        })?;
    }

    #[test]
    fn conv2d(
        seed in any::<u64>(), batch in 1usize..4, groups in 1usize..4, (ins, outs) in pair(1..3), size in pair(3..7),
        kernel in pair(1..4), stride in pair(1..4), padding in pair(0..4), dilation in pair(1..3), biased in any::<bool>(),
    ) {
        let conv = Conv2d::new(ins * groups, outs * groups, kernel).groups(groups);
        let conv = conv.stride(stride).padding(padding).dilation(dilation);
        let conv = if biased { conv } else { conv.without_bias() };
        holds(seed, &[batch, ins * groups, size.0, size.1], |b| b.conv2d(conv))?;
    }

    #[test]
    fn normalizations((seed, batch, channels) in (any::<u64>(), 2usize..5, 1usize..4), size in pair(1..4)) {
        holds(seed, &[batch, channels, size.0, size.1 + 1], |b| b.batch_norm2d(channels))?;
        holds(seed, &[batch, channels, 4], |b| b.layer_norm(4))?;
        holds(seed, &[batch, channels, 3, size.1], |b| b.layer(LayerNorm::over(&[3, size.1]).eps(0.1)))?;
        let absent = Absent::default().with(-0.75).with(2.0).with(0.5);
        holds(seed, &[batch, channels, 3], |b| b.layer(LayerNorm::new(3).eps(0.1).absent(absent)))?;
    }

    #[test]
    fn pools(
        seed in any::<u64>(), batch in 1usize..3, channels in 1usize..3, size in pair(2..7),
        kernel in pair(1..4), stride in pair(1..4), padded in any::<bool>(),
    ) {
        let padding = if padded { (kernel.0 / 2, kernel.1 / 2) } else { (0, 0) };
        let shape = [batch, channels, size.0, size.1];
        holds(seed, &shape, |b| b.max_pool2d(MaxPool2d::new(kernel).stride(stride).padding(padding)))?;
        holds(seed, &shape, |b| b.avg_pool2d(AvgPool2d::new(kernel).stride(stride).padding(padding)))?;
        holds(seed, &shape, |b| b.global_avg_pool2d())?;
    }

    #[test]
    fn elementwise_layers_and_softmaxes(
        seed in any::<u64>(), shape in [1usize..4, 1..4, 1..4], axis in 0usize..3, p in 0.0..0.9,
    ) {
        for activation in [Builder::relu, Builder::gelu, Builder::gelu_tanh, Builder::silu, Builder::sigmoid, Builder::tanh] {
            holds(seed, &shape, activation)?;
        }
        for layer in [Layer::Softmax { axis: Some(axis) }, Layer::LogSoftmax { axis: Some(axis) }] {
            holds(seed, &shape, |b| b.layer(layer))?;
        }
        holds(seed, &shape, |b| b.softmax().flatten().dropout(p))?;
    }

    #[test]
    fn a_tree_of_residuals((seed, batch, channels) in (any::<u64>(), 2usize..4, 1usize..4), size in pair(2..5)) {
        // Smooth throughout: a kink deep inside cannot be kept away from.
        holds(seed, &[batch, channels, size.0, size.1], |b| {
            b.residual(|b| {
                b.conv2d(Conv2d::new(channels, 4, 3).padding(1))
                    .batch_norm2d(4)
                    .silu()
                    .residual(|b| b.conv2d(Conv2d::new(4, 4, 3).padding(1).groups(2)).tanh().dropout(0.3))
                    .conv2d(Conv2d::new(4, channels, 1).without_bias())
            })
            .avg_pool2d(2)
            .flatten()
            .gelu()
            .linear(channels * (size.0 / 2) * (size.1 / 2), 5)
            .layer_norm(5)
            .log_softmax()
        })?;
    }
}
