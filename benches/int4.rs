//! Linear layers with weights of 4 bits, in groups of several sizes, against one with weights of 8 bits, on one thread, and
//! against their limits: multiplications on registers (of floats where inputs are), or, for a single row, reads of as many
//! bytes as the weights take, from the cache and (`cold`) from memory. Codebooks and inputs that are kept in f32 are looked
//! up in registers; the dense f32 layer stands beside them.
//!
//! After criterion's figures, all are run again in turns, so that their ratios come from the same minutes.

#[path = "one_thread.rs"]
mod one_thread;

use std::{
    error::Error,
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use ndarray::{Array2, Axis};
use rand_xoshiro::{
    Xoshiro256PlusPlus,
    rand_core::{Rng, SeedableRng},
};
use tersor::{Isa, PackedWeights, Pruner, Quantizer, limits, packed::Activations};

use one_thread::on_one_thread;

/// Outputs and inputs.
const SIZE: usize = 4096;

/// Rows, and whether the weights come from memory.
const BATCHES: [(usize, bool); 5] = [(1, false), (1, true), (8, false), (32, false), (128, false)];

/// How long a batch is run in turns, the least rounds, and how often each is run in its turn.
const TURNS: Duration = Duration::from_secs(3);
const ROUNDS: usize = 5;
const REPEATS: usize = 3;

/// Rounds of multiplications on registers that are timed at once, and the bytes that push all else from the caches.
const SPINS: usize = 1 << 12;
const FLUSH: usize = 1 << 27;

type Packed = (&'static str, PackedWeights);

/// The layers, the first being the measure of the others.
fn layers(random: &mut impl FnMut() -> f32) -> tersor::Result<Vec<Packed>> {
    let w = Array2::from_shape_simple_fn((SIZE, SIZE), random);
    let pack = |name, scheme: &dyn Quantizer| Ok((name, PackedWeights::new(&scheme.apply(&w)?)?));
    let float = |name, scheme: &dyn Quantizer| Ok((name, PackedWeights::with(&scheme.apply(&w)?, Activations::Float)?));
    let uniform = Quantizer::uniform;
    vec![
        pack("int8 per channel", &uniform(8).symmetric().per_channel(Axis(0))),
        pack("int4 per channel", &uniform(4).symmetric().per_channel(Axis(0))),
        pack("int4 groups of 32", &uniform(4).per_group(32)),
        pack("int4 groups of 64", &uniform(4).per_group(64)),
        pack("int4 groups of 128", &uniform(4).per_group(128)),
        pack("int4 32 symmetric", &uniform(4).symmetric().per_group(32)),
        pack("int2 groups of 64", &uniform(2).per_group(64)),
        pack("nf4 groups of 64", &Quantizer::nf4().per_group(64)),
        pack("power of two 4 bits", &Quantizer::power_of_two(4).per_group(64)),
        float("int4 64, f32", &uniform(4).per_group(64)),
        float("int4 64 symmetric, f32", &uniform(4).symmetric().per_group(64)),
        float("int2 64, f32", &uniform(2).per_group(64)),
        Ok(("dense f32", PackedWeights::new(&Pruner::magnitude(0.0).apply(&w)?)?)),
    ]
    .into_iter()
    .collect()
}

/// The inputs and outputs of a batch, and what its limits read.
struct Batch {
    isa: Isa,
    x: Array2<f32>,
    y: Array2<f32>,
    bytes: Vec<u8>,
    flush: Vec<u8>,
}

impl Batch {
    fn run(&mut self, weights: &PackedWeights) {
        weights.matmul_into(&self.x, &mut self.y).expect("finite inputs of the right shape");
        black_box(&mut self.y);
    }

    fn read(&self, weights: &PackedWeights) {
        limits::read(self.isa, black_box(&self.bytes[..weights.nbytes()]));
    }

    /// The least time of `f` when the weights lie where they should.
    fn time(&mut self, f: impl Fn(&mut Batch)) -> Duration {
        f(self);
        let once = |_| {
            limits::read(self.isa, black_box(&self.flush));
            let start = Instant::now();
            f(self);
            start.elapsed()
        };
        (0..REPEATS).map(once).min().unwrap_or_default()
    }

    /// The least time in which this machine could do it, as of now.
    fn limit(&mut self, weights: &PackedWeights) -> Duration {
        if self.x.nrows() == 1 {
            return self.time(|batch| batch.read(weights));
        }
        let start = Instant::now();
        let multiply = if weights.kernel().contains("f32") { limits::multiply_f32 } else { limits::multiply };
        let operations = multiply(self.isa, SPINS);
        start.elapsed().mul_f64((2 * self.x.nrows() * SIZE * SIZE) as f64 / operations as f64)
    }
}

/// The least time of each layer and of its limit, run in turns.
fn in_turns(batch: &mut Batch, layers: &[Packed]) -> Vec<(Duration, Duration)> {
    let mut least = vec![(Duration::MAX, Duration::MAX); layers.len()];
    let start = Instant::now();
    for round in 0.. {
        if round >= ROUNDS && start.elapsed() > TURNS {
            break;
        }
        for ((time, limit), (_, weights)) in least.iter_mut().zip(layers) {
            *limit = batch.limit(weights).min(*limit);
            *time = batch.time(|batch| batch.run(weights)).min(*time);
        }
    }
    least
}

fn run() -> tersor::Result<()> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
    let mut unit = || (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
    let layers = layers(&mut unit)?;
    let most = layers.iter().map(|(_, weights)| weights.nbytes()).max().unwrap_or(0);
    let isa = Isa::detect()?;
    let mut batches = BATCHES.map(|(rows, cold)| Batch {
        isa,
        x: Array2::from_shape_simple_fn((rows, SIZE), &mut unit),
        y: Array2::zeros((rows, SIZE)),
        bytes: vec![1; most],
        flush: vec![1; if cold { FLUSH } else { 0 }],
    });
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for (batch, (rows, _)) in batches.iter_mut().zip(BATCHES).filter(|(_, (_, cold))| !cold) {
        let mut group = criterion.benchmark_group(format!("int4/{rows}x{SIZE}x{SIZE}"));
        group.throughput(Throughput::Elements((2 * rows * SIZE * SIZE) as u64));
        for (name, weights) in &layers {
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter(|| batch.run(weights)));
        }
    }
    criterion.final_summary();

    println!("in turns, least times, one thread:");
    for (batch, (rows, cold)) in batches.iter_mut().zip(BATCHES) {
        let least = in_turns(batch, &layers);
        for ((name, weights), (time, limit)) in layers.iter().zip(&least) {
            let limited = if rows == 1 { "reads" } else { "multiplications" };
            println!(
                "{rows:>4} x {SIZE} x {SIZE}{} {name:<22} {:<24} {time:>10.1?} {:>6.2} x int8 {:>6.3} of {limited}",
                if cold { " cold" } else { "     " },
                weights.kernel(),
                least[0].0.as_secs_f64() / time.as_secs_f64(),
                limit.as_secs_f64() / time.as_secs_f64(),
            );
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    on_one_thread(run)
}
