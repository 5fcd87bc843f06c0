//! Hessian-vector products of every layer against central differences of the gradient, and against what is true of them.

use ndarray::{ArrayD, IxDyn};
use proptest::prelude::*;

use super::{
    Absent, Attention, Builder, Conv2d, CrossEntropy, Data, Layer, LayerNorm, Loss, MaxPool2d, MeanSquaredError,
    Network,
};
use crate::{
    Error,
    random::{Random, derive},
};

type Named = Vec<(String, ArrayD<f32>)>;

fn drawn(network: &Network, random: &mut Random) -> Named {
    network.parameters().into_iter().map(|(name, array)| (name, array.mapv(|_| random.within(1.0)))).collect()
}

fn moved(network: &Network, along: &Named, by: f32) -> Network {
    let mut moved = network.clone();
    for ((_, mut array), (_, along)) in moved.parameters_mut().into_iter().zip(along) {
        array.scaled_add(by, along);
    }
    moved
}

fn dot(a: &Named, b: &Named) -> f64 {
    let products = a.iter().zip(b).flat_map(|((_, a), (_, b))| a.iter().zip(b));
    products.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Checks `H v` element by element, that `H` is symmetric, and that it is linear.
fn check(network: &Network, data: &Data, loss: &dyn Loss, random: &mut Random) -> Result<(), TestCaseError> {
    let (v, u) = (drawn(network, random), drawn(network, random));
    let product = network.hessian_vector(data, loss, &v).unwrap();
    let gradient_at = |by: f32| network_gradient(&moved(network, &v, by), data, loss);
    let difference = |step: f32| -> Vec<f32> {
        let [a, b, c, d] = [step, -step, 2.0 * step, -2.0 * step].map(gradient_at);
        let each = a.iter().zip(&b).zip(c.iter().zip(&d));
        each.map(|((a, b), (c, d))| (8.0 * (a - b) - (c - d)) / (12.0 * step)).collect()
    };
    let (coarse, fine) = (difference(1.0 / 64.0), difference(1.0 / 256.0));
    let flat: Vec<f32> = product.iter().flat_map(|(_, array)| array.iter().copied()).collect();
    let largest = flat.iter().fold(0.1f32, |largest, x| largest.max(x.abs()));
    // A kink (of ReLU, of the largest of a window) within a difference's reach spoils it: the two then disagree.
    prop_assume!(coarse.iter().zip(&fine).all(|(a, b)| (a - b).abs() < 2e-2 * largest));
    for (i, (found, expected)) in flat.iter().zip(&fine).enumerate() {
        prop_assert!(
            (found - expected).abs() < 2e-2 * largest,
            "[{i}] of {:?}: {found}, differences {expected} and {}",
            network.layers().collect::<Vec<_>>(),
            coarse[i]
        );
    }
    let scale = f64::from(largest) * (1.0 + flat.len() as f64);
    let across = dot(&u, &product) - dot(&v, &network.hessian_vector(data, loss, &u).unwrap());
    prop_assert!(across.abs() < 1e-4 * scale, "not symmetric by {across}");
    let doubled: Named = v.iter().map(|(name, array)| (name.clone(), array * 2.0)).collect();
    let doubled = network.hessian_vector(data, loss, &doubled).unwrap();
    let off = doubled.iter().zip(&product).flat_map(|((_, a), (_, b))| (a - &(b * 2.0)).into_iter());
    prop_assert!(off.fold(0f32, |off, x| off.max(x.abs())) < 1e-4 * largest, "not linear");
    Ok(())
}

fn network_gradient(network: &Network, data: &Data, loss: &dyn Loss) -> Vec<f32> {
    network.gradient(data, loss).unwrap().into_iter().flat_map(|(_, array)| array.into_iter()).collect()
}

/// Builds the network, moves its parameters off 0 and 1, and checks it under both losses.
fn holds(seed: u64, shape: &[usize], build: impl FnOnce(Builder) -> Builder) -> Result<(), TestCaseError> {
    let mut network = build(Network::builder(seed)).build().unwrap();
    let mut random = Random::new(derive(seed, 99));
    for (_, _, mut array) in network.arrays_mut() {
        array.mapv_inplace(|value| value + 0.5 * random.uniform());
    }
    let x = ArrayD::from_shape_simple_fn(IxDyn(shape), || random.within(1.0));
    let output = network.output_shape(shape).unwrap();
    let targets = ArrayD::from_shape_simple_fn(IxDyn(&output), || random.within(1.0));
    check(&network, &Data::values(x.clone(), targets).unwrap(), &MeanSquaredError, &mut random)?;
    if let [batch, classes] = output[..] {
        let data = Data::classes(x, (0..batch).map(|i| i % classes)).unwrap();
        check(&network, &data, &CrossEntropy::new().label_smoothing(0.1), &mut random)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn every_activation_between_linear_layers(seed in any::<u64>(), batch in 1usize..4, middle in 1usize..6) {
        for activation in [Builder::relu, Builder::gelu, Builder::gelu_tanh, Builder::silu, Builder::sigmoid, Builder::tanh] {
            holds(seed, &[batch, 3], |b| activation(b.linear(3, middle)).linear(middle, 4))?;
        }
        for layer in [Layer::Softmax { axis: Some(1) }, Layer::LogSoftmax { axis: Some(1) }] {
            holds(seed, &[batch, 3], |b| b.linear(3, middle).layer(layer).linear_without_bias(middle, 2).dropout(0.5))?;
        }
        holds(seed, &[batch, 3], |b| b.linear(3, middle + 1).layer(LayerNorm::new(middle + 1).eps(0.1).absent(Absent::default().with(0.5))).linear(middle + 1, 2))?;
    }

    #[test]
    fn images(seed in any::<u64>(), batch in 1usize..3, groups in 1usize..3, stride in 1usize..3) {
        let conv = || Conv2d::new(2, 2 * groups, 3).padding(1).stride(stride).groups(groups);
        holds(seed, &[batch, 2, 5, 5], |b| {
            b.conv2d(conv()).batch_norm2d(2 * groups).silu().avg_pool2d(2).flatten()
                .linear(2 * groups * if stride == 1 { 4 } else { 1 }, 3)
        })?;
        holds(seed, &[batch, 2, 4, 4], |b| {
            b.conv2d(Conv2d::new(2, 3, 3)).max_pool2d(MaxPool2d::new(2)).tanh().global_avg_pool2d().flatten().linear(3, 2)
        })?;
    }

    #[test]
    fn attention(seed in any::<u64>(), batch in 1usize..3, sequence in 1usize..4, causal in any::<bool>()) {
        let heads = || Attention::new(4, 2).head_dim(3);
        holds(seed, &[batch, sequence, 4], |b| {
            b.residual(|b| b.layer_norm(4).layer(if causal { heads().causal() } else { heads() })).linear(4, 2)
        })?;
        holds(seed, &[batch, sequence, 3], |b| b.layer(Attention::new(3, 1).without_bias()).flatten().linear(3 * sequence, 2))?;
    }

    #[test]
    fn a_tree_of_residuals(seed in any::<u64>(), batch in 1usize..3) {
        holds(seed, &[batch, 4], |b| {
            b.residual(|b| b.linear(4, 3).tanh().residual(|b| b.linear(3, 3).gelu()).linear(3, 4)).layer_norm(4).linear(4, 3)
        })?;
    }
}

#[test]
fn a_loss_without_a_tangent_of_its_own_is_differenced() {
    #[derive(Debug)]
    struct Plain(CrossEntropy);
    impl Loss for Plain {
        fn evaluate(
            &self,
            outputs: ndarray::ArrayViewD<'_, f32>,
            targets: &super::Targets,
        ) -> crate::Result<(f64, ArrayD<f32>)> {
            self.0.evaluate(outputs, targets)
        }
        fn check(&self, outputs: &[usize], targets: &super::Targets) -> crate::Result<()> {
            self.0.check(outputs, targets)
        }
    }
    let network = Network::builder(4).linear(3, 4).tanh().linear(4, 3).build().unwrap();
    let mut random = Random::new(1);
    let data =
        Data::classes(ArrayD::from_shape_simple_fn(IxDyn(&[5, 3]), || random.within(1.0)), [0, 1, 2, 0, 1]).unwrap();
    let v = drawn(&network, &mut random);
    let exact = network.hessian_vector(&data, &CrossEntropy::new(), &v).unwrap();
    let differenced = network.hessian_vector(&data, &Plain(CrossEntropy::new()), &v).unwrap();
    for ((_, exact), (_, found)) in exact.iter().zip(&differenced) {
        assert!((exact - found).iter().all(|e| e.abs() < 1e-3), "{exact} {found}");
    }
    assert!(matches!(network.hessian_vector(&data, &CrossEntropy::new(), &v[1..]), Err(Error::Shape { .. })));
    let renamed: Named = v.iter().map(|(name, array)| (format!("x{name}"), array.clone())).collect();
    assert!(matches!(network.hessian_vector(&data, &CrossEntropy::new(), &renamed), Err(Error::UnknownName { .. })));
    let spoiled: Named = v.iter().map(|(name, array)| (name.clone(), array.mapv(|_| f32::NAN))).collect();
    assert!(matches!(network.hessian_vector(&data, &CrossEntropy::new(), &spoiled), Err(Error::NotFinite { .. })));
}
