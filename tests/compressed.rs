//! Recipes, compressed networks, reports and files, end to end.
#![cfg(feature = "io")]

mod common;

use std::{fs, path::PathBuf};

use common::normal;
use ndarray::{Array2, ArrayD, Axis};
use tersor::{
    Error, Pruner, Quantizer, Recipe, Report,
    compressed::Compressed,
    nn::{Attention, Conv2d, Layer, Mode, Network},
    packed::Activations,
    quantize::{Convention, Range, ZeroInRange},
    tensor::{Checkpoint, FloatType, Stored},
};

/// A file's path that no other test uses, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Scratch(std::env::temp_dir().join(format!("tersor-{}-{name}.safetensors", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok();
    }
}

fn dense() -> Network {
    Network::builder(3).linear(40, 30).relu().linear(30, 20).named("middle").relu().linear(20, 5).build().unwrap()
}

fn convolutional() -> Network {
    Network::builder(4)
        .conv2d(Conv2d::new(2, 8, 3).padding(1))
        .batch_norm2d(8)
        .relu()
        .residual(|branch| branch.conv2d(Conv2d::new(8, 8, 3).padding(1).groups(2)).gelu())
        .max_pool2d(2)
        .global_avg_pool2d()
        .flatten()
        .layer_norm(8)
        .linear(8, 3)
        .softmax()
        .build()
        .unwrap()
}

fn transformer() -> Network {
    Network::builder(5)
        .linear(6, 8)
        .residual(|branch| branch.layer_norm(8).attention(8, 2).named("attn"))
        .named("first")
        .residual(|branch| branch.layer_norm(8).linear(8, 24).gelu().linear(24, 8))
        .residual(|branch| branch.layer(Attention::new(8, 3).head_dim(4).causal().without_bias()))
        .linear(8, 3)
        .build()
        .unwrap()
}

fn sequences() -> ArrayD<f32> {
    normal(4, 5 * 6, 3).into_shape_with_order((4, 5, 6)).unwrap().into_dyn()
}

#[test]
fn a_recipe_compresses_by_name_and_the_last_match_counts() {
    let network = dense();
    let recipe = Recipe::new()
        .quantize("*", Quantizer::uniform(4).per_group(8))
        .quantize("middle", Quantizer::kmeans(3))
        .keep("4.weight");
    let plan = recipe.dry_run(&network).unwrap();
    assert_eq!(plan.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["0.weight", "middle.weight", "4.weight"]);
    assert!(plan[2].scheme.is_none() && plan[1].to_string().contains("kmeans"));
    let compressed = recipe.apply(&network).unwrap();
    assert_eq!(compressed.tensors().tensor("0.weight").unwrap().nbytes(), 40 * 30 / 2 + 30 * 5 * 5);
    assert_eq!(compressed.tensors().tensor("middle.weight").unwrap().nbytes(), 600 * 3 / 8 + 8 * 4);
    assert!(matches!(compressed.tensors().tensor("4.weight").unwrap(), Stored::Float(..)));
    let kernels = compressed.pack().unwrap().kernels();
    assert!(kernels[0].0 == "0" && kernels[0].1.starts_with("int4") && kernels[1].1.starts_with("lookup4-f32"));
}

#[test]
fn running_packed_is_close_to_running_the_decoded_floats() {
    for (network, x) in [
        (dense(), normal(9, 40, 1).into_dyn()),
        (convolutional(), normal(9, 2 * 8 * 6, 2).into_shape_with_order((9, 2, 8, 6)).unwrap().into_dyn()),
        (transformer(), sequences()),
    ] {
        let exact = network.forward(&x).unwrap();
        let recipe = Recipe::new().quantize("*", Quantizer::uniform(8).symmetric().per_channel(Axis(0)));
        let dynamic = recipe.apply(&network).unwrap();
        let fixed = recipe.clone().static_activations(Quantizer::uniform(8)).apply_with(&network, &x).unwrap();
        assert!(matches!(fixed.activations("0"), Activations::Static { .. }));
        let floating = recipe.float_activations().apply(&network).unwrap();
        assert!(floating.pack().unwrap().kernels().iter().all(|(_, kernel)| kernel.starts_with("lookup8-f32")));
        for compressed in [&dynamic, &fixed, &floating] {
            let largest = exact.iter().fold(0f32, |m, x| m.max(x.abs()));
            let packed = compressed.pack().unwrap().forward(&x).unwrap();
            let worst = (&packed - &exact).iter().fold(0f32, |m, x| m.max(x.abs()));
            assert!(worst < 0.04 * largest, "{worst} of {largest}");
            let floats = compressed.to_network().unwrap().forward(&x).unwrap();
            let worst = (&packed - &floats).iter().fold(0f32, |m, x| m.max(x.abs()));
            assert!(worst < 0.04 * largest, "{worst} of {largest}");
        }
    }
}

#[test]
fn saved_and_loaded_it_gives_the_same_bits() {
    let x = normal(9, 2 * 8 * 6, 2).into_shape_with_order((9, 2, 8, 6)).unwrap();
    let network = convolutional();
    let schemes: Vec<Box<dyn Fn(Recipe) -> Recipe>> = vec![
        Box::new(|r| r.quantize("*", Quantizer::uniform(3).per_group(7))),
        Box::new(|r| r.quantize("*", Quantizer::uniform(16))),
        Box::new(|r| r.quantize("*", Quantizer::kmeans(5).per_channel(Axis(0)))),
        Box::new(|r| r.quantize("*", Quantizer::nf4()).keep("8")),
        Box::new(|r| {
            r.quantize("*", Quantizer::uniform(8)).static_activations(Quantizer::uniform(8).range(Range::Mse))
        }),
        Box::new(|r| r),
    ];
    for (i, scheme) in schemes.iter().enumerate() {
        let file = Scratch::new(&format!("round-trip-{i}"));
        let compressed = scheme(Recipe::new()).apply_with(&network, &x).unwrap();
        compressed.save(&file.0).unwrap();
        let loaded = Compressed::load(&file.0).unwrap();
        assert_eq!(loaded, compressed);
        assert_eq!(loaded.pack().unwrap().forward(&x).unwrap(), compressed.pack().unwrap().forward(&x).unwrap());
        // The header tells names, shapes and structure; the rest of the file is what nbytes counts.
        let size = fs::metadata(&file.0).unwrap().len() as usize;
        assert!(size >= compressed.nbytes() && size < compressed.nbytes() + 6000, "{size}, {}", compressed.nbytes());
        // The same network gives the same file.
        let first = fs::read(&file.0).unwrap();
        loaded.save(&file.0).unwrap();
        assert_eq!(fs::read(&file.0).unwrap(), first);
    }
    let file = Scratch::new("network");
    network.save(&file.0).unwrap();
    assert_eq!(Network::load(&file.0).unwrap(), network);
    let mut other = Network::builder(99);
    other = other.conv2d(Conv2d::new(2, 8, 3).padding(1)).batch_norm2d(8).relu();
    let mut other = other.build().unwrap();
    other.load_arrays(&file.0).unwrap();
    assert_eq!(other.parameter("0.weight").unwrap(), network.parameter("0.weight").unwrap());
    let mut wrong = Network::builder(99).linear(3, 3).build().unwrap();
    let before = wrong.clone();
    assert!(wrong.load_arrays(&file.0).is_err());
    assert_eq!(wrong, before);
}

#[test]
fn the_four_products_of_an_attention_are_compressed_one_by_one() {
    let (network, x, file) = (transformer(), sequences(), Scratch::new("attention"));
    let names = |attention: &str| ["query", "key", "value", "output"].map(|part| format!("{attention}.{part}.weight"));
    let untouched = Compressed::new(&network).unwrap();
    let weights = untouched.weights();
    assert_eq!(weights[1..5], names("first.1").map(|name| name.replace(".1.", ".attn.")));
    assert_eq!(weights[7..11], names("3.0"));
    assert_eq!(untouched.pack().unwrap().forward(&x).unwrap(), network.forward(&x).unwrap(), "nothing is compressed");
    assert!(untouched.pack().unwrap().kernels().is_empty());

    let recipe = Recipe::new()
        .quantize("first.attn.query", Quantizer::uniform(8).symmetric())
        .quantize("first.attn.value.weight", Quantizer::nf4())
        .quantize("3.0.output", Quantizer::uniform(8).per_channel(Axis(0)))
        .static_activations(Quantizer::uniform(8).range(Range::MinMax));
    let mut compressed = recipe.apply_with(&network, &x).unwrap();
    let kernels = compressed.pack().unwrap().kernels();
    let ran: Vec<_> = kernels.iter().map(|(name, kernel)| (name.as_str(), &kernel[..4])).collect();
    assert_eq!(ran, [("first.attn.query", "int8"), ("first.attn.value", "look"), ("3.0.output", "int8")]);
    let report = Report::new(&network, &compressed).unwrap();
    let of = |name: &str| report.rows.iter().find(|row| row.name == name).unwrap().kernel.clone();
    assert!(of("first.attn.query.weight").starts_with("int8") && of("first.attn.query.bias").is_empty());
    assert!(of("first.attn.key.weight").is_empty() && of("3.0.output.weight").starts_with("int8"));

    // Each product's grid covers what goes into it: normalized inputs, and the heads' outputs.
    let trace = network.trace(&x, Mode::Evaluation).unwrap();
    let Layer::Attention(attention) = network.layer("3.0").unwrap() else { panic!("attention") };
    let heads = attention.head_outputs(&trace.input_of("3.0").unwrap()).unwrap();
    for (product, seen) in [("first.attn.query", trace.input_of("first.attn").unwrap()), ("3.0.output", heads.view())] {
        let Activations::Static { scale, .. } = compressed.activations(product) else { panic!("a grid for {product}") };
        let (low, high) = seen.iter().fold((0f32, 0f32), |(low, high), x| (low.min(*x), high.max(*x)));
        assert!((scale * 255.0 / (high - low) - 1.0).abs() < 0.01, "{product}: {scale}, {low} to {high}");
    }

    compressed.set_activations("first.attn.query", Activations::Float).unwrap();
    let error = compressed.set_activations("first.attn", Activations::Float).unwrap_err();
    assert!(error.to_string().contains("first.attn.query"), "{error}");
    compressed.save(&file.0).unwrap();
    let loaded = Compressed::load(&file.0).unwrap();
    assert_eq!(loaded, compressed);
    let packed = loaded.pack().unwrap();
    assert_eq!(packed.forward(&x).unwrap(), compressed.pack().unwrap().forward(&x).unwrap());
    for bad in [&[4, 6][..], &[1, 2, 5, 6], &[2, 0, 6], &[2, 5, 7]] {
        assert!(matches!(packed.forward(&ArrayD::<f32>::zeros(bad)), Err(Error::Layer { .. })), "{bad:?}");
    }
    // A file whose heads do not fit its arrays.
    network.save(&file.0).unwrap();
    let good = fs::read(&file.0).unwrap();
    for heads in ["0", "3", "9"] {
        let mut bad = good.clone();
        let text = br#"\"heads\":2"#;
        let start = bad.windows(text.len()).position(|found| found == text).unwrap() + text.len() - 1;
        bad[start] = heads.as_bytes()[0];
        fs::write(&file.0, &bad).unwrap();
        assert!(matches!(Compressed::load(&file.0), Err(Error::Format { .. })), "{heads} heads");
    }
    // An attention that was never built cannot run, packed or not.
    let mut unbuilt = network.clone();
    *unbuilt.layers_mut().next().unwrap().1 = Attention::new(6, 0).into();
    assert!(unbuilt.forward(&x).is_err() && Compressed::new(&unbuilt).unwrap().pack().is_err());
}

#[test]
fn a_pruned_attention_keeps_its_masks_at_rest_and_runs_on_sparse_kernels() {
    let (mut network, x, file) = (transformer(), sequences(), Scratch::new("pruned-attention"));
    Recipe::new().prune("first.attn.*", Pruner::magnitude(0.9)).apply(&mut network).unwrap();
    assert_eq!(network.masks().len(), 4);
    network.save(&file.0).unwrap();
    assert_eq!(Network::load(&file.0).unwrap(), network);
    let packed = Compressed::load(&file.0).unwrap().pack().unwrap();
    let kernels = packed.kernels();
    assert_eq!(
        kernels.iter().map(|(name, _)| name.rsplit('.').next().unwrap()).collect::<Vec<_>>(),
        ["query", "key", "value", "output"]
    );
    assert!(kernels.iter().all(|(name, _)| name.starts_with("first.attn.")));
    let error = &packed.forward(&x).unwrap() - &network.forward(&x).unwrap();
    assert!(error.iter().all(|e| e.abs() < 1e-5));
}

#[test]
fn a_checkpoint_from_elsewhere_is_compressed_and_the_rest_passes_through() {
    let file = Scratch::new("elsewhere");
    let mut checkpoint = Checkpoint::new();
    checkpoint.insert(
        "h.0.weight",
        Stored::Float(normal(8, 64, 1).mapv(|x| half::bf16::from_f32(x).to_f32()).into_dyn(), FloatType::BF16),
    );
    checkpoint.insert("h.0.bias", Stored::Float(ndarray::Array1::zeros(8).into_dyn(), FloatType::F16));
    checkpoint.insert("lm_head.weight", normal(4, 8, 2));
    checkpoint.insert("ids", Stored::Raw { dtype: "I64".into(), shape: vec![1], bytes: vec![7, 0, 0, 0, 0, 0, 0, 0] });
    checkpoint.save(&file.0).unwrap();
    let loaded = Checkpoint::load(&file.0).unwrap();
    assert_eq!(loaded, checkpoint);
    let recipe = Recipe::new().quantize("*", Quantizer::uniform(4).per_group(32)).keep("lm_head");
    let compressed = recipe.apply_to_checkpoint(&loaded).unwrap();
    compressed.save(&file.0).unwrap();
    let again = Checkpoint::load(&file.0).unwrap();
    assert_eq!(again, compressed);
    assert!(matches!(again.tensor("h.0.weight").unwrap(), Stored::Quantized(_)));
    assert_eq!(again.tensor("ids").unwrap(), checkpoint.tensor("ids").unwrap());
    assert!(matches!(recipe.clone().quantize("nothing.*", Quantizer::uniform(8)).apply_to_checkpoint(&loaded),
        Err(Error::Pattern { pattern, .. }) if pattern == "nothing.*"));
    assert!(matches!(Compressed::load(&file.0), Err(Error::Format { .. })));
}

#[test]
fn the_report_counts_bytes_and_errors() {
    let network = dense();
    let compressed = Recipe::new().quantize("*", Quantizer::uniform(8)).keep("4").apply(&network).unwrap();
    let report = Report::new(&network, &compressed).unwrap();
    assert_eq!(report.bytes(), compressed.nbytes());
    assert_eq!(report.bytes_f32(), 4 * network.parameter_count());
    let row = &report.rows[0];
    assert!(row.sqnr_db.unwrap() > 40.0 && row.kernel.starts_with("int8") && row.bits_per_weight < 8.1, "{row:?}");
    assert!(report.rows.iter().find(|row| row.name == "4.weight").unwrap().sqnr_db.is_none());
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!(json["rows"].as_array().unwrap().len(), 6);
    assert!(report.to_string().contains("middle.weight"));
    let adaptive = Recipe::new().quantize("*", Quantizer::adaptive(4)).apply(&network).unwrap();
    let row = &Report::new(&network, &adaptive).unwrap().rows[0];
    assert!(row.scheme.starts_with("adaptive(4): ") && row.scheme.len() > 20, "{}", row.scheme);
    assert!(Report::new(&convolutional(), &compressed).is_err());
}

#[test]
fn what_a_recipe_cannot_do_is_an_error() {
    let network = dense();
    let none = Recipe::new().quantize("conv*", Quantizer::uniform(8));
    assert!(matches!(none.apply(&network), Err(Error::Pattern { .. })));
    assert!(matches!(none.dry_run(&network), Err(Error::Pattern { .. })));
    let bad = Recipe::new().quantize("*", Quantizer::uniform(9));
    assert!(matches!(bad.apply(&network), Err(Error::Layer { name, .. }) if name == "0.weight"));
    let uncalibrated = Recipe::new().quantize("*", Quantizer::uniform(8)).static_activations(Quantizer::uniform(8));
    let error = uncalibrated.apply(&network).unwrap_err();
    assert!(error.to_string().contains("calibration"), "{error}");
    let wrong = uncalibrated.clone().apply_with(&network, &normal(3, 7, 1)).unwrap_err();
    assert!(matches!(wrong, Error::Layer { .. }), "{wrong}");
    assert!(uncalibrated.apply_with(&network, &Array2::from_elem((2, 40), f32::NAN)).is_err());
    let four = Recipe::new().quantize("*", Quantizer::uniform(8)).static_activations(Quantizer::uniform(4));
    assert!(matches!(four.apply_with(&network, &normal(3, 40, 1)), Err(Error::Bits { bits: 4, .. })));
    let as_found = Convention { zero_in_range: ZeroInRange::AsFound, ..Convention::default() };
    for scheme in [
        Quantizer::uniform(8).signed_max(),
        Quantizer::uniform(8).per_channel(Axis(0)),
        Quantizer::uniform(8).convention(as_found),
    ] {
        let recipe = Recipe::new().quantize("*", Quantizer::uniform(8)).static_activations(scheme);
        assert!(matches!(recipe.apply_with(&network, &normal(3, 40, 1)), Err(Error::Conflict { .. })));
    }
    let mut compressed = Compressed::new(&network).unwrap();
    let q = Quantizer::uniform(8).apply(&normal(3, 3, 1)).unwrap();
    assert!(matches!(compressed.replace("0.weight", q.clone(), ""), Err(Error::Shape { .. })));
    assert!(matches!(compressed.replace("0.bias", q, ""), Err(Error::UnknownName { .. })));
    let bad = Activations::Static { scale: 0.0, zero_point: 0 };
    assert!(compressed.set_activations("0", bad).is_err());
    assert!(matches!(compressed.set_activations("9", Activations::Float), Err(Error::UnknownName { .. })));
}

#[test]
fn truncated_and_lying_files_are_errors_and_a_failed_write_leaves_the_old_file() {
    let file = Scratch::new("lies");
    let compressed = Recipe::new().quantize("*", Quantizer::kmeans(3)).apply(&dense()).unwrap();
    compressed.save(&file.0).unwrap();
    let good = fs::read(&file.0).unwrap();
    // Truncated anywhere.
    for length in (0..good.len()).step_by(good.len() / 60).chain([0, 1, 7, 8, 9, good.len() - 1]) {
        fs::write(&file.0, &good[..length]).unwrap();
        assert!(matches!(Compressed::load(&file.0), Err(Error::Format { .. })), "cut at {length}");
        assert!(Checkpoint::load(&file.0).is_err());
    }
    // Header bytes changed one at a time: an error, or something valid; never a panic.
    let header = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    for position in 0..8 + header {
        for byte in [b'0', b'9', b'"', 0xff] {
            let mut bad = good.clone();
            bad[position] = byte;
            fs::write(&file.0, &bad).unwrap();
            if let Ok(loaded) = Compressed::load(&file.0) {
                loaded.pack().ok();
            }
        }
    }
    // Claims that the tensors do not bear out.
    let text = String::from_utf8(good[8..8 + header].to_vec()).unwrap();
    for (from, to) in [
        ("\\\"bits\\\":3", "\\\"bits\\\":2"),
        ("\\\"bits\\\":3", "\\\"bits\\\":9"),
        ("\\\"shape\\\":[30,40]", "\\\"shape\\\":[30,41]"),
        ("\\\"shape\\\":[30,40]", "\\\"shape\\\":[0,9223372036854775807,2]"),
        ("\\\"version\\\":1", "\\\"version\\\":7"),
        ("\\\"linear\\\"", "\\\"conv2d\\\""),
        ("\\\"bias\\\":true", "\\\"bias\\\":1234"),
    ] {
        assert!(text.contains(from), "the header no longer says {from}: {text}");
        let lie = text.replacen(from, to, 1);
        let mut bad = (lie.len() as u64).to_le_bytes().to_vec();
        bad.extend(lie.bytes());
        bad.extend(&good[8 + header..]);
        fs::write(&file.0, &bad).unwrap();
        let error = Compressed::load(&file.0).expect_err(to).to_string();
        assert!(error.contains("tersor-"), "{error}");
    }
    assert!(matches!(Compressed::load("/nowhere/at/all"), Err(Error::Io { .. })));
    assert!(matches!(compressed.save("/nowhere/at/all"), Err(Error::Io { .. })));
    assert!(compressed.save("/").is_err());
    // A folder in the way: nothing is written, and nothing is left behind.
    let folder = std::env::temp_dir().join(format!("tersor-{}-folder", std::process::id()));
    fs::create_dir_all(folder.join("taken")).unwrap();
    assert!(compressed.save(folder.join("taken")).is_err());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_tensor_that_is_there_twice_is_an_error_and_a_link_stays_a_link() {
    let (file, link) = (Scratch::new("twice"), Scratch::new("link"));
    let mut checkpoint = Checkpoint::new();
    checkpoint.insert("w", Quantizer::uniform(8).apply(&normal(4, 8, 1)).unwrap());
    checkpoint.insert("v", normal(4, 8, 2));
    checkpoint.save(&file.0).unwrap();
    let good = fs::read(&file.0).unwrap();
    let header = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let text = String::from_utf8(good[8..8 + header].to_vec()).unwrap().replacen("\"v\":", "\"w\":", 1);
    let mut bad = good[..8].to_vec();
    bad.extend(text.bytes());
    bad.extend(&good[8 + header..]);
    fs::write(&file.0, &bad).unwrap();
    let error = Checkpoint::load(&file.0).unwrap_err().to_string();
    assert!(error.contains("twice"), "{error}");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&file.0, &link.0).unwrap();
        checkpoint.save(&link.0).unwrap();
        assert!(fs::symlink_metadata(&link.0).unwrap().is_symlink());
        assert_eq!(fs::read(&file.0).unwrap(), good);
    }
}

#[test]
fn a_long_file_name_is_a_file_name() {
    let file = Scratch(std::env::temp_dir().join("t".repeat(255)));
    Checkpoint::new().save(&file.0).unwrap();
    assert!(Checkpoint::load(&file.0).unwrap().is_empty());
}

#[test]
fn a_residual_whose_branch_does_not_fit_is_an_error_however_it_runs() {
    let x = normal(1, 32, 1).into_shape_with_order((1, 2, 4, 4)).unwrap();
    for kernel in [3, 4] {
        let network = Network::builder(1).residual(|b| b.conv2d(Conv2d::new(2, 2, kernel))).build().unwrap();
        assert!(network.forward(&x).is_err());
        let recipe = Recipe::new().quantize("*", Quantizer::uniform(8));
        let packed = recipe.apply(&network).unwrap().pack().unwrap();
        assert!(matches!(packed.forward(&x), Err(Error::Layer { .. })));
        let fixed = recipe.static_activations(Quantizer::uniform(8)).apply_with(&network, &x);
        assert!(matches!(fixed, Err(Error::Layer { .. })));
    }
}

#[test]
fn what_could_not_be_read_back_is_not_written() {
    let file = Scratch::new("unreadable");
    let mut good = Checkpoint::new();
    good.insert("w", Quantizer::uniform(8).symmetric().apply(&normal(2, 3, 1)).unwrap());
    good.save(&file.0).unwrap();
    for (name, tensor) in [
        ("__metadata__", Stored::from(normal(1, 2, 1))),
        ("w.levels", Stored::from(normal(1, 2, 1))),
        ("w.zero_point", Stored::from(normal(1, 2, 1))),
        ("w.codes", Stored::from(normal(1, 2, 1))),
        ("far", Stored::Float(ndarray::arr1(&[1e6f32]).into_dyn(), FloatType::F16)),
    ] {
        let mut bad = good.clone();
        bad.insert(name, tensor);
        assert!(matches!(bad.save(&file.0), Err(Error::Format { .. })), "{name}");
        assert_eq!(Checkpoint::load(&file.0).unwrap(), good, "{name}");
    }
}
