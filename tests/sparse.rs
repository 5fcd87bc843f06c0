//! Sparse tensors: every layout there and back, true bytes, files, products, and networks that keep their masks.
#![cfg(feature = "io")]

mod common;

use common::normal;
use ndarray::{Array1, Array2, ArrayD, Axis, Ix2, IxDyn};
use proptest::prelude::*;
use tersor::{
    Error, Mask, PackedWeights, PrunedTensor, Pruner, Quantizer, Recipe,
    compressed::Compressed,
    nn::{Attention, Conv2d, Network},
    packed::{Activations, PackedConv2d},
    tensor::{Checkpoint, Codes, Granularity, Grid, SparseLayout, SparseTensor, SparseValues, Stored},
};

fn pruned(shape: &[usize], seed: u64, keep: impl FnMut(usize) -> bool) -> PrunedTensor {
    let count = shape.iter().product();
    let mut values = normal(1, count, seed).into_shape_with_order(IxDyn(shape)).unwrap();
    // Some survivors are zero, and stay survivors.
    values.iter_mut().step_by(7).for_each(|x| *x = 0.0);
    PrunedTensor::new(values, Mask::from_fn(shape, keep).unwrap()).unwrap()
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        prop::collection::vec(1usize..70, 1..=1),
        prop::collection::vec(1usize..20, 2..=2),
        prop::collection::vec(1usize..5, 4..=4),
    ]
}

/// (rows, columns) of a tensor taken as a matrix.
fn matrix(shape: &[usize]) -> (usize, usize) {
    if shape.len() == 1 { (1, shape[0]) } else { (shape[0], shape[1..].iter().product()) }
}

/// A mask that suits the layout, by numbers drawn.
fn mask_for(layout: SparseLayout, shape: &[usize], random: &[f32], share: f32) -> Vec<bool> {
    let (height, width) = matrix(shape);
    let mut keep = vec![false; height * width];
    for row in 0..height {
        for column in 0..width {
            keep[row * width + column] = match layout {
                SparseLayout::Block { rows, columns } => random[row / rows * width + column / columns] < share,
                SparseLayout::NOfM { n, m } => {
                    // The n least numbers of the group.
                    let start = column / m * m;
                    let group = start..width.min(start + m);
                    let own = (random[row * width + column], column);
                    group.filter(|other| (random[row * width + other], *other) < own).count() < n
                }
                _ => random[row * width + column] < share,
            };
        }
    }
    keep
}

fn layouts() -> impl Strategy<Value = SparseLayout> {
    prop_oneof![
        Just(SparseLayout::Bitmask),
        Just(SparseLayout::Csr),
        (1usize..10).prop_flat_map(|m| (0..=m, Just(m))).prop_map(|(n, m)| SparseLayout::NOfM { n, m }),
        (1usize..6, 1usize..6).prop_map(|(rows, columns)| SparseLayout::Block { rows, columns }),
    ]
}

fn saved_bytes(checkpoint: &Checkpoint, name: &str) -> (usize, Checkpoint) {
    let path = std::env::temp_dir().join(format!("tersor-sparse-{}-{name}.safetensors", std::process::id()));
    checkpoint.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let loaded = Checkpoint::load(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    (bytes.len() - 8 - header, loaded)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_layout_goes_there_and_back(
        shape in shapes(), layout in layouts(), share in 0.0f32..=1.0, seed in any::<u64>(), bits in 2u8..=8,
    ) {
        let (height, width) = matrix(&shape);
        let random: Vec<f32> = normal(1, height * width, seed ^ 5).iter().map(|x| (x.abs() * 37.7).fract()).collect();
        let keep = mask_for(layout, &shape, &random, share);
        let pruned = pruned(&shape, seed, |i| keep[i]);
        let sparse = pruned.to_sparse_as(layout).unwrap();
        prop_assert_eq!(&sparse.to_pruned(), &pruned);
        prop_assert_eq!(sparse.to_dense(), pruned.values());

        // The smallest of all is no larger than any that fits.
        let smallest = pruned.to_sparse().unwrap();
        for other in [layout, SparseLayout::Bitmask, SparseLayout::Csr] {
            // A layout that no search thinks of may be smaller still.
            let searched = matches!(other, SparseLayout::Bitmask | SparseLayout::Csr);
            prop_assert!(smallest.nbytes() <= pruned.to_sparse_as(other).unwrap().nbytes() || !searched);
        }

        // Quantized, the zeros cost nothing and come back.
        let q = Quantizer::uniform(bits).per_group(5).apply(&pruned).unwrap();
        let coded = SparseTensor::from_quantized(&q, pruned.mask()).unwrap();
        prop_assert_eq!(coded.to_quantized().unwrap().dequantize(), q.dequantize());
        let coded = SparseTensor::new(coded.mask().clone(), layout, coded.values().clone()).unwrap();
        let levels = Quantizer::kmeans(bits.min(4)).apply(&pruned).unwrap();
        let levels = SparseTensor::from_quantized(&levels, pruned.mask()).unwrap();

        // Files hold as many bytes as are counted, and the same tensors.
        let mut checkpoint = Checkpoint::new();
        let name = format!("{seed}-{bits}-{height}");
        for (index, tensor) in [sparse, smallest, coded, levels].into_iter().enumerate() {
            checkpoint.insert(format!("w{index}"), tensor);
        }
        let (bytes, loaded) = saved_bytes(&checkpoint, &name);
        prop_assert_eq!(bytes, checkpoint.nbytes());
        prop_assert_eq!(loaded, checkpoint);
    }

    #[test]
    fn pruned_weights_multiply_like_the_numbers_they_stand_for(
        outputs in 1usize..40, inputs in 1usize..80, rows in 0usize..40, layout in layouts(), share in 0.0f32..=1.0,
        seed in any::<u64>(), biased in any::<bool>(),
    ) {
        let shape = [outputs, inputs];
        let random: Vec<f32> = normal(1, outputs * inputs, seed ^ 5).iter().map(|x| (x.abs() * 37.7).fract()).collect();
        let keep = mask_for(layout, &shape, &random, share);
        let pruned = pruned(&shape, seed, |i| keep[i]);
        let w = pruned.values().to_owned().into_dimensionality::<Ix2>().unwrap().mapv(f64::from);
        let (x, bias) = (normal(rows, inputs, seed ^ 2), normal(1, outputs, seed ^ 3).into_shape_with_order(outputs).unwrap());
        let bias = biased.then_some(bias);
        let mut expected = x.mapv(f64::from).dot(&w.t());
        let mut bound = x.mapv(|x| f64::from(x.abs())).dot(&w.t().mapv(f64::abs));
        if let Some(bias) = &bias {
            expected += &bias.mapv(f64::from);
            bound += &bias.mapv(|b| f64::from(b.abs()));
        }
        let sparse = pruned.to_sparse().unwrap();
        for packed in [PackedWeights::new(&pruned).unwrap(), PackedWeights::new(&sparse).unwrap()] {
            let packed = packed.with_bias(bias.clone()).unwrap();
            let y = packed.matmul(&x).unwrap();
            for ((y, expected), bound) in y.iter().zip(&expected).zip(&bound) {
                let slack = (inputs + 2) as f64 * 2f64.powi(-24) * bound + 1e-37;
                prop_assert!((f64::from(*y) - expected).abs() <= slack, "{y} {expected} with {}", packed.kernel());
            }
            // Into an array of other strides.
            let mut across = Array2::zeros((outputs, rows));
            packed.matmul_into(&x, &mut across.view_mut().reversed_axes()).unwrap();
            prop_assert!((&across.t() - &y).iter().all(|e| e.abs() <= 1e-4), "{}", packed.kernel());
        }
    }
}

#[test]
fn the_layout_follows_the_mask() {
    let of = |pruned: PrunedTensor| pruned.to_sparse().unwrap().layout();
    let w = normal(64, 64, 1);
    assert_eq!(of(Pruner::magnitude(0.5).apply(&w).unwrap()), SparseLayout::Bitmask);
    assert_eq!(of(Pruner::magnitude(0.99).apply(&w).unwrap()), SparseLayout::Csr);
    assert_eq!(
        of(Pruner::magnitude(0.5).n_of_m(2, 4).apply(&w).unwrap()),
        SparseLayout::Bitmask,
        "2 bits of every 4, either way"
    );
    assert_eq!(of(Pruner::magnitude(0.875).n_of_m(1, 8).apply(&w).unwrap()), SparseLayout::NOfM { n: 1, m: 8 });
    let block = of(Pruner::magnitude(0.75).block(4, 4).apply(&w).unwrap());
    assert!(matches!(block, SparseLayout::Block { rows: 4, columns: 4 }), "{block}");
    let rows = of(Pruner::magnitude(0.5).structured(Axis(0)).apply(&w).unwrap());
    assert!(matches!(rows, SparseLayout::Block { columns: 64, .. }), "{rows}");
    let columns = of(Pruner::magnitude(0.5).structured(Axis(1)).apply(&w).unwrap());
    assert!(matches!(columns, SparseLayout::Block { rows: 64, columns: 1 }), "{columns}");
}

#[test]
fn kernels_follow_the_sparsity() {
    let w = normal(96, 320, 8);
    let kernel = |pruner: &dyn Pruner| PackedWeights::new(&pruner.apply(&w).unwrap()).unwrap().kernel();
    assert!(kernel(&Pruner::magnitude(0.95)).starts_with("csr-f32-"));
    assert_eq!(kernel(&Pruner::magnitude(0.1)), "dense-f32");
    assert!(kernel(&Pruner::magnitude(0.875).n_of_m(1, 8)).starts_with("nm-f32-"));
    assert!(kernel(&Pruner::magnitude(0.75).block(4, 4)).starts_with("block-f32-"));
    // Quantized as well, zeros run on integers.
    let pruned = Pruner::magnitude(0.9).apply(&w).unwrap();
    let q = Quantizer::uniform(8).per_channel(Axis(0)).apply(&pruned).unwrap();
    let both = SparseTensor::from_quantized(&q, pruned.mask()).unwrap();
    let (sparse, dense) = (PackedWeights::new(&both).unwrap(), PackedWeights::new(&q).unwrap());
    let x = normal(5, 320, 2);
    assert!(sparse.kernel().starts_with("int8-"));
    assert_eq!(sparse.matmul(&x).unwrap(), dense.matmul(&x).unwrap());
    // What is removed is not looked at.
    let mut spoiled = x.clone();
    let unread = (0..320).find(|column| (0..96).all(|row| !pruned.mask().is_kept(row * 320 + column)));
    if let Some(column) = unread {
        spoiled[[0, column]] = f32::NAN;
    }
    assert!(PackedWeights::new(&pruned).unwrap().matmul(&spoiled).unwrap().iter().all(|y| y.is_finite()));
    let error = PackedWeights::new(&pruned).unwrap().matmul(&normal(2, 319, 1)).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }));
    assert!(PackedWeights::new(&pruned).unwrap().matmul_i32(&x).is_err());
    let vector = Pruner::magnitude(0.5).apply(&Array1::<f32>::ones(4)).unwrap();
    assert!(matches!(PackedWeights::new(&vector), Err(Error::Rank { .. })));
}

#[test]
fn sparse_products_are_the_same_bits_for_any_number_of_threads() {
    let w = normal(300, 700, 8);
    let packed = PackedWeights::new(&Pruner::magnitude(0.9).apply(&w).unwrap()).unwrap();
    for rows in [1, 5, 33, 200] {
        let x = normal(rows, 700, 3);
        let expected = packed.matmul(&x).unwrap();
        #[cfg(feature = "rayon")]
        for threads in [1, 2, 3, 7] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| packed.matmul(&x)).unwrap(), expected, "{threads} threads");
        }
        assert_eq!(packed.matmul(&x).unwrap(), expected);
    }
}

#[test]
fn convolutions_leave_zeros_out() {
    let w = normal(1, 8 * 3 * 9, 4).into_shape_with_order((8, 3, 3, 3)).unwrap();
    for (sparsity, groups) in [(0.9, 1), (0.9, 2), (0.1, 1)] {
        let pruned = Pruner::magnitude(sparsity).apply(&w).unwrap();
        let conv = PackedConv2d::new(&pruned, groups, Activations::Dynamic).unwrap().padding([1, 1]);
        let weight = pruned.values().to_owned().into_dimensionality().unwrap();
        let float = tersor::nn::Layer::from(Conv2d::from_arrays(weight, None).unwrap().groups(groups).padding(1));
        let x = normal(1, 2 * 3 * groups * 36, 5).into_shape_with_order((2, 3 * groups, 6, 6)).unwrap();
        let error = conv.forward(&x).unwrap() - float.forward(&x).unwrap();
        assert!(error.iter().all(|e| e.abs() < 1e-4), "{}", conv.kernel());
        assert_eq!(conv.kernel() == "dense-f32", sparsity < 0.5);
    }
}

fn network() -> Network {
    let network = Network::builder(3).residual(|b| b.layer_norm(16).layer(Attention::new(16, 2)).named("attn"));
    network.flatten().linear(64, 40).relu().linear(40, 5).build().unwrap()
}

#[test]
fn networks_keep_their_masks_in_files_and_run_without_the_zeros() {
    let mut network = network();
    Recipe::new().prune("*", Pruner::magnitude(0.9)).keep("4").apply(&mut network).unwrap();
    let path = std::env::temp_dir().join(format!("tersor-masked-{}.safetensors", std::process::id()));
    network.save(&path).unwrap();
    assert_eq!(Network::load(&path).unwrap(), network);
    let loaded = Compressed::load(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let compressed = Compressed::new(&network).unwrap();
    assert_eq!(loaded, compressed);
    assert!(matches!(compressed.tensors().tensor("2.weight").unwrap(), Stored::Sparse(_)));
    assert!(compressed.nbytes() < network.parameter_count() * 4 / 3);

    let packed = compressed.pack().unwrap();
    let kernels = packed.kernels();
    assert!(kernels.iter().any(|(name, kernel)| name == "2" && kernel.starts_with("csr-f32-")), "{kernels:?}");
    let x = normal(3, 64, 1).into_shape_with_order((3, 4, 16)).unwrap();
    let error = packed.forward(&x).unwrap() - network.forward(&x).unwrap();
    assert!(error.iter().all(|e| e.abs() < 1e-5));

    // Quantized after pruning: zeros stay, and are not stored.
    let both = Recipe::new().quantize("*", Quantizer::uniform(8).symmetric()).apply(&network).unwrap();
    assert!(matches!(both.tensors().tensor("2.weight").unwrap(), Stored::Sparse(_)));
    assert!(both.nbytes() < compressed.nbytes());
    let again = both.to_network().unwrap();
    for (name, mask) in network.masks() {
        assert_eq!(again.mask(&name).unwrap(), Some(mask), "{name}");
    }
    both.save(&path).unwrap();
    assert_eq!(Compressed::load(&path).unwrap(), both);
    std::fs::remove_file(&path).unwrap();
    assert!(both.pack().unwrap().kernels().iter().any(|(_, kernel)| kernel.starts_with("int8-")));
    let refused = Recipe::new().quantize("2", Quantizer::binary()).apply(&network).unwrap_err();
    assert!(matches!(refused, Error::Layer { .. }), "{refused}");
}

#[test]
fn checkpoints_of_sparse_tensors_are_quantized_too() {
    let pruned = Pruner::magnitude(0.9).apply(&normal(32, 64, 1)).unwrap();
    let mut checkpoint = Checkpoint::new();
    checkpoint.insert("w", pruned.to_sparse().unwrap());
    checkpoint.insert("v", normal(4, 4, 2));
    let small = Recipe::new().quantize("*", Quantizer::kmeans(4)).apply_to_checkpoint(&checkpoint).unwrap();
    let Stored::Sparse(w) = small.tensor("w").unwrap() else { panic!("sparse") };
    assert!(matches!(w.values(), SparseValues::Codes { .. }));
    assert_eq!(w.mask(), pruned.mask());
    assert!(matches!(small.tensor("v").unwrap(), Stored::Quantized(_)));
}

#[test]
fn a_checkpoint_that_arrives_full_of_zeros_keeps_them_and_is_stored_sparse() {
    let pruned = Pruner::magnitude(0.95).apply(&normal(32, 64, 1)).unwrap();
    let few = Pruner::magnitude(0.4).apply(&normal(32, 64, 2)).unwrap();
    let mut arrived = Checkpoint::new();
    arrived.insert("w", pruned.values().to_owned());
    arrived.insert("v", few.values().to_owned());
    let mut told = arrived.clone();
    told.insert("w", pruned.to_sparse().unwrap());
    let recipes = [
        Recipe::new().quantize("*", Quantizer::uniform(2)),
        Recipe::new().quantize("*", Quantizer::kmeans(4)),
        Recipe::new().quantize("*", Quantizer::quantile(3)),
    ];
    for recipe in recipes {
        let small = recipe.apply_to_checkpoint(&arrived).unwrap();
        assert_eq!(small, recipe.apply_to_checkpoint(&told).unwrap(), "as if it had come with its mask");
        assert!(matches!(small.tensor("v").unwrap(), Stored::Quantized(_)), "fewer zeros than other numbers");
    }
    // Nobody said that the zeros are to stay: a scheme without a zero takes them for numbers.
    let binary = Recipe::new().quantize("*", Quantizer::binary());
    assert!(matches!(binary.apply_to_checkpoint(&arrived).unwrap().tensor("w").unwrap(), Stored::Quantized(_)));
    assert!(binary.apply_to_checkpoint(&told).is_err(), "a mask says so");
}

#[test]
fn bad_input_is_named() {
    let full = pruned(&[4, 8], 1, |_| true);
    let half = pruned(&[4, 8], 1, |i| i % 3 == 0);
    let refuses = |pruned: &PrunedTensor, layout: SparseLayout, text: &str| {
        let error = pruned.to_sparse_as(layout).unwrap_err().to_string();
        assert!(error.contains(text), "{error} should say {text}");
    };
    refuses(&half, SparseLayout::NOfM { n: 2, m: 4 }, "2:4");
    refuses(&half, SparseLayout::NOfM { n: 2, m: 0 }, "0");
    refuses(&half, SparseLayout::NOfM { n: 2, m: 300 }, "300");
    refuses(&half, SparseLayout::Block { rows: 2, columns: 2 }, "blocks of 2 x 2");
    refuses(&full, SparseLayout::Block { rows: 0, columns: 2 }, "0");
    let mask = half.mask().clone();
    let new = |values| SparseTensor::new(mask.clone(), SparseLayout::Csr, values);
    assert!(matches!(new(SparseValues::Floats(vec![0.0; 3])), Err(Error::Shape { .. })));
    assert!(matches!(new(SparseValues::Floats(vec![f32::NAN; mask.kept()])), Err(Error::NotFinite { .. })));
    // A grid without a zero cannot say what is removed.
    let codes = Codes::pack(1, &vec![0; mask.kept()]).unwrap();
    let levels = ndarray::array![[-1.0, 1.0]];
    let grid = Grid::Codebook { levels, scale: vec![], granularity: Granularity::Tensor };
    assert!(matches!(new(SparseValues::Codes { codes, grid }), Err(Error::Conflict { .. })));
    let q = Quantizer::uniform(8).apply(&full).unwrap();
    assert!(matches!(SparseTensor::from_quantized(&q, &mask), Err(Error::Conflict { .. })));
    assert!(matches!(SparseTensor::from_quantized(&q, &Mask::ones(&[8, 4]).unwrap()), Err(Error::Shape { .. })));

    let mut checkpoint = Checkpoint::new();
    checkpoint.insert("w", half.to_sparse().unwrap());
    checkpoint.insert("w.mask", ArrayD::zeros(IxDyn(&[2])));
    let path = std::env::temp_dir().join(format!("tersor-clash-{}.safetensors", std::process::id()));
    assert!(checkpoint.save(&path).unwrap_err().to_string().contains("w.mask"));
}

/// Every byte of a file changed in turn: an error or another tensor, never a panic.
#[test]
fn spoiled_files_are_refused_or_read_as_something_else() {
    let path = std::env::temp_dir().join(format!("tersor-spoiled-{}.safetensors", std::process::id()));
    for layout in [
        SparseLayout::Bitmask,
        SparseLayout::Csr,
        SparseLayout::NOfM { n: 1, m: 4 },
        SparseLayout::Block { rows: 2, columns: 4 },
    ] {
        let random: Vec<f32> = normal(1, 64, 7).iter().map(|x| (x.abs() * 37.7).fract()).collect();
        let keep = mask_for(layout, &[4, 16], &random, 0.4);
        let pruned = pruned(&[4, 16], 3, |i| keep[i]);
        let values = pruned.to_sparse_as(layout).unwrap();
        let q = Quantizer::uniform(4).apply(&pruned).unwrap();
        let coded = SparseTensor::from_quantized(&q, pruned.mask()).unwrap();
        let coded = SparseTensor::new(coded.mask().clone(), layout, coded.values().clone()).unwrap();
        let mut checkpoint = Checkpoint::new();
        checkpoint.insert("a", values);
        checkpoint.insert("b", coded);
        checkpoint.save(&path).unwrap();
        let good = std::fs::read(&path).unwrap();
        for cut in (0..good.len()).step_by(9) {
            std::fs::write(&path, &good[..cut]).unwrap();
            assert!(Checkpoint::load(&path).is_err(), "cut at {cut}");
        }
        for (index, flip) in (0..good.len()).flat_map(|index| [1u8, 0x80].map(|flip| (index, flip))) {
            let mut bad = good.clone();
            bad[index] ^= flip;
            std::fs::write(&path, &bad).unwrap();
            if let Ok(loaded) = Checkpoint::load(&path) {
                // Whatever it is now, it is sound.
                loaded.iter().for_each(|(_, tensor)| drop(tensor.to_floats()));
            }
        }
        let shape = "\\\"shape\\\":[4,16]";
        assert_eq!(String::from_utf8_lossy(&good).matches(shape).count(), 2);
        for lie in ["[4611686018427387904,16]", "[4294967296,4294967296]", "[4]", "[]", "[16,4,2]"] {
            std::fs::write(&path, replaced(&good, shape, &shape.replace("[4,16]", lie))).unwrap();
            assert!(matches!(Checkpoint::load(&path), Err(Error::Format { .. })), "{lie}");
        }
    }
    std::fs::remove_file(&path).unwrap();
}

/// A file with text in its header replaced, and the header's length made right.
fn replaced(file: &[u8], from: &str, to: &str) -> Vec<u8> {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let mut header = String::from_utf8(file[8..8 + length].to_vec()).unwrap().replace(from, to);
    while !header.len().is_multiple_of(8) {
        header.push(' ');
    }
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &file[8 + length..]].concat()
}
