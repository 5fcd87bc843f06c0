//! Prototype.
mod data; mod files; mod options; mod measure; mod pictures; mod table;
use std::{ops::ControlFlow, process::ExitCode, time::Instant};
use tersor::{Quantizer, nn::*};
use ndarray::Axis;
type Problem = Box<dyn std::error::Error>;
fn main() -> ExitCode { match run() { Ok(()) => ExitCode::SUCCESS, Err(e) => { eprintln!("error: {e}"); ExitCode::FAILURE } } }
fn run() -> Result<(), Problem> {
    let Some(options) = options::Options::parse()? else { return Ok(()) };
    let t = Instant::now();
    let data = data::load(&options.data)?;
    println!("{} {} {} in {:?}", data.name, data.train.len(), data.test.len(), t.elapsed());
    let mut nets = vec![];
    for seed in 0..options.seeds as u64 {
        let t = Instant::now();
        let mut network = Network::builder(seed).linear(784, 64).relu().linear(64, 32).relu().linear(32, 10).build()?;
        Training::new(options.epochs.unwrap_or(if data.name == "digits" { 60 } else { 40 })).batch_size(64).seed(seed)
            .train(&mut network, &data.train, &mut Adam::new(1e-3), &mut |_| ControlFlow::Continue(()))?;
        println!("seed {seed}: {:.2} in {:?}", 100.0 * network.accuracy(&data.test)?, t.elapsed());
        nets.push(network);
    }
    let mut rows = vec![];
    for bits in [8, 4, 3, 2] {
        let all: Vec<(&'static str, Box<dyn Quantizer>)> = vec![
            ("uniform", Box::new(Quantizer::uniform(bits))),
            ("uniform, symmetric", Box::new(Quantizer::uniform(bits).symmetric())),
            ("uniform, per channel", Box::new(Quantizer::uniform(bits).per_channel(Axis(0)))),
            ("uniform, per group", Box::new(Quantizer::uniform(bits).per_group(32))),
            ("piecewise", Box::new(Quantizer::piecewise(bits))),
            ("k-means", Box::new(Quantizer::kmeans(bits))),
            ("quantile", Box::new(Quantizer::quantile(bits))),
            ("power of two", Box::new(Quantizer::power_of_two(bits))),
            ("adaptive", Box::new(Quantizer::adaptive(bits))),
        ];
        for (name, q) in all {
            let t = Instant::now();
            let mut acc = vec![]; let mut bytes = 0;
            for n in &nets {
                let mut n2 = n.clone(); bytes = 4 * (64 + 32 + 10);
                for w in ["0.weight", "2.weight", "4.weight"] {
                    let qt = q.apply(&n.parameter(w)?)?; bytes += qt.nbytes();
                    n2.set_parameter(w, &qt.dequantize())?;
                }
                acc.push(100.0 * n2.accuracy(&data.test)?);
            }
            let (accuracy, accuracy_sd) = measure::mean_and_sd(&acc);
            println!("{name} {bits} {:?}", t.elapsed());
            rows.push(table::Row { network: format!("{} 784-64-32-10", data.name), technique: name, bits, sparsity: 0.0, accuracy, accuracy_sd, bytes, ratio: 210600.0 / bytes as f64, kernel: "f32".into(), ms: 0.0, ms_f32: 0.0 });
        }
    }
    println!("{}", table::Table(&rows));
    rows.insert(0, table::Row { network: rows[0].network.clone(), technique: "f32", bits: 32, sparsity: 0.0, accuracy: rows[0].accuracy, accuracy_sd: 0.3, bytes: 210600, ratio: 1.0, kernel: "f32".into(), ms: 0.0, ms_f32: 0.0 });
    std::fs::create_dir_all(&options.pictures)?;
    svg::save(options.pictures.join("accuracy.svg"), &pictures::accuracy_against_bytes(&rows))?;
    let w = nets[0].parameter("0.weight")?;
    let bits = 3;
    let schemes: Vec<(&'static str, _)> = vec![
            ("uniform", Quantizer::uniform(bits).apply(&w)?),
            ("uniform, symmetric", (Quantizer::uniform(bits).symmetric()).apply(&w)?),
            ("uniform, per channel", (Quantizer::uniform(bits).per_channel(Axis(0))).apply(&w)?),
            ("uniform, per group", (Quantizer::uniform(bits).per_group(32)).apply(&w)?),
            ("piecewise", (Quantizer::piecewise(bits)).apply(&w)?),
            ("k-means", (Quantizer::kmeans(bits)).apply(&w)?),
            ("quantile", (Quantizer::quantile(bits)).apply(&w)?),
            ("power of two", (Quantizer::power_of_two(bits)).apply(&w)?),
            ("adaptive", (Quantizer::adaptive(bits)).apply(&w)?),
    ];
    svg::save(options.pictures.join("levels.svg"), &pictures::weights_and_levels("The first layer's 50176 weights, and the levels that schemes chose for them at 3 bits", w, &schemes))?;
    if let Some(p) = options.json { table::write_json(&rows, &p)?; }
    Ok(())
}
