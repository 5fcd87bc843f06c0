//! Trains a small network on real images, compresses it in every way that the crate has, runs the results, and prints
//! what each costs in accuracy, bytes and time. `--help` lists the options.

mod compare;
mod data;
mod distill;
mod files;
mod options;
mod pictures;
mod progress;
mod prune;
mod table;

use std::{env, fs, ops::ControlFlow, process::ExitCode};

use ndarray::Axis;
use tersor::{
    Quantizer, Recipe, Report,
    compressed::Compressed,
    nn::{Adam, Data, Network, Training},
    quantize::Range,
};

use data::{CLASSES, Dataset};
use options::Options;
use progress::say;
use table::Table;

/// The network sees 28x28 pixels.
const SIDE: usize = 28;

/// What went wrong, in words for the user.
type Problem = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Problem> {
    let Some(options) = Options::parse()? else { return Ok(()) };
    let data = data::load(&options.data, SIDE)?;
    let networks = train(&data, &options)?;
    let mut rows = compare::compare(&techniques(), &networks, &data)?;
    say(format_args!("{}\n", Table(&rows)));
    let (pruned, scan) = prune::compare(&options)?;
    say(format_args!(
        "{}
",
        Table(&pruned)
    ));
    if let (Some(scan), Some(row)) = (scan, pruned.first()) {
        say(format_args!(
            "each layer of the first {} pruned alone:
{scan}
",
            row.network
        ));
        let picture = pictures::accuracy_against_sparsity_of_each_layer(&row.network, &scan);
        pictures::save(&options.pictures.join("sensitivity.svg"), &picture)?;
    }
    let distilled = distill::compare(&networks, &data, &options)?;
    say(format_args!(
        "{}
",
        Table(&distilled)
    ));
    let together = distill::all_three(&networks, &data)?;
    say(format_args!(
        "{}
{}
",
        Table(&together),
        compare::note(&data)
    ));

    let compressed = explain(&networks[0])?;
    save_and_load(&compressed, &data.test)?;
    draw(&rows, &networks[0], &options)?;
    pictures::save(&options.pictures.join("sparsity.svg"), &pictures::accuracy_against_sparsity(&pruned))?;
    rows.extend(pruned.into_iter().chain(distilled).chain(together));
    if let Some(file) = &options.json {
        table::write_json(&rows, file)?;
    }
    Ok(())
}

/// Trains one network a seed.
fn train(data: &Dataset, options: &Options) -> Result<Vec<Network>, Problem> {
    let epochs = options.epochs(data);
    let bar = progress::bar("training", options.seeds.saturating_mul(epochs));
    let networks = (0..options.seeds as u64).map(|seed| {
        let mut network =
            Network::builder(seed).linear(SIDE * SIDE, 64).relu().linear(64, 32).relu().linear(32, CLASSES).build()?;
        let training = Training::new(epochs).batch_size(64).seed(seed);
        training.train(&mut network, &data.train, &mut Adam::new(1e-3), &mut |step| {
            if step.batch + 1 == step.batches {
                bar.inc(1);
            }
            ControlFlow::Continue(())
        })?;
        Ok(network)
    });
    let networks = networks.collect::<Result<Vec<_>, Problem>>()?;
    bar.finish_and_clear();
    let (train, test, seeds) = (data.train.len(), data.test.len(), options.seeds);
    say(format_args!(
        "{}: {train} images to train on, {test} to test; {seeds} networks, {epochs} epochs each\n",
        data.name
    ));
    Ok(networks)
}

/// The ways to compress that are compared: name, bits of a weight, and the recipe.
fn techniques() -> Vec<(&'static str, u8, Recipe)> {
    let int8 = Quantizer::uniform(8).symmetric().per_channel(Axis(0));
    let fixed = Quantizer::uniform(8).range(Range::Mse);
    let mut techniques = vec![
        ("f32", 32, Recipe::new()),
        ("int8 dynamic", 8, weights(int8.clone())),
        ("int8 static", 8, weights(int8).static_activations(fixed)),
    ];
    for bits in [8, 4, 3, 2] {
        techniques.extend([
            ("uniform", bits, weights(Quantizer::uniform(bits))),
            ("uniform, symmetric", bits, weights(Quantizer::uniform(bits).symmetric())),
            ("uniform, per channel", bits, weights(Quantizer::uniform(bits).per_channel(Axis(0)))),
            ("uniform, groups of 32", bits, weights(Quantizer::uniform(bits).per_group(32))),
            ("piecewise", bits, weights(Quantizer::piecewise(bits))),
            ("k-means", bits, weights(Quantizer::kmeans(bits))),
            ("quantile", bits, weights(Quantizer::quantile(bits))),
            ("power of two", bits, weights(Quantizer::power_of_two(bits))),
            ("adaptive", bits, weights(Quantizer::adaptive(bits))),
        ]);
    }
    techniques
}

/// One scheme for the weights of every layer; biases stay in f32.
fn weights(scheme: impl Quantizer + 'static) -> Recipe {
    Recipe::new().quantize("*", scheme)
}

/// Compresses a network adaptively, and says what was done to each layer and why.
fn explain(network: &Network) -> Result<Compressed, Problem> {
    let scheme = Quantizer::adaptive(4);
    let compressed = weights(scheme.clone()).apply(network)?;
    say(format_args!("adaptive at 4 bits, layer by layer:\n{}", Report::new(network, &compressed)?));
    say(format_args!("why for 0.weight: {}\n", scheme.choose(&network.parameter("0.weight")?)?.reason()));
    Ok(compressed)
}

/// Saves a compressed network, loads it, and checks that it is the same to the last bit.
fn save_and_load(compressed: &Compressed, test: &Data) -> Result<(), Problem> {
    let file = env::temp_dir().join(format!("tersor-{}.safetensors", std::process::id()));
    compressed.save(&file)?;
    let (loaded, on_disk) = (Compressed::load(&file), fs::metadata(&file));
    fs::remove_file(&file)?;

    let bits = |network: &Compressed| -> Result<Vec<u32>, Problem> {
        Ok(network.pack()?.forward(test.inputs())?.iter().map(|output| output.to_bits()).collect())
    };
    if bits(compressed)? != bits(&loaded?)? {
        return Err("the loaded network answers differently from the saved one".into());
    }
    let (at_rest, on_disk, samples) = (compressed.nbytes(), on_disk?.len(), test.len());
    say(format_args!("saved as safetensors: {on_disk} bytes on disk for {at_rest} bytes of tensors"));
    say(format_args!("loaded again: the same bits in all outputs of {samples} test images\n"));
    Ok(())
}

/// Draws accuracy against bytes, and the levels that 3 bits got in the first layer.
fn draw(rows: &[table::Row], network: &Network, options: &Options) -> Result<(), Problem> {
    let layer = "0.weight";
    let mut quantized = Vec::new();
    for (name, _, recipe) in techniques().into_iter().filter(|(_, bits, _)| *bits == 3) {
        if let Some(tensor) = recipe.apply(network)?.quantized(layer) {
            quantized.push((name, tensor.into_owned()));
        }
    }
    let levels = pictures::weights_and_levels(layer, network.parameter(layer)?, &quantized);
    pictures::save(&options.pictures.join("accuracy.svg"), &pictures::accuracy_against_bytes(rows))?;
    pictures::save(&options.pictures.join("levels.svg"), &levels)
}
