//! A whole dynamic int8 linear layer (inputs rounded, multiplied, scaled) against ndarray's f32 product, on one thread.
//!
//! After criterion's figures, both are run again in turns, so that their ratio comes from the same minutes.

use std::{
    error::Error,
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput};
use ndarray::{
    Array2, Axis,
    linalg::{general_mat_mul, general_mat_vec_mul},
};
use rand_xoshiro::{
    Xoshiro256PlusPlus,
    rand_core::{Rng, SeedableRng},
};
use tersor::{Isa, PackedWeights, Quantizer};

/// Rows, outputs, inputs: a large square, a transformer's projection, one token, a small layer.
const SHAPES: [(usize, usize, usize); 4] = [(1024, 1024, 1024), (128, 768, 768), (1, 4096, 4096), (64, 64, 784)];

/// How long a shape is run in turns, and the least rounds.
const TURNS: Duration = Duration::from_secs(3);
const ROUNDS: usize = 10;

/// One linear layer, in f32 and in integers.
struct Layer {
    name: String,
    operations: u64,
    x: Array2<f32>,
    w: Array2<f32>,
    y: Array2<f32>,
    /// Weights of 8 bits with a scale an output, and of 4 bits with a scale for 32 inputs.
    per_channel: PackedWeights,
    per_group: PackedWeights,
}

impl Layer {
    fn new((m, n, k): (usize, usize, usize)) -> tersor::Result<Layer> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut unit = || (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        let mut matrix = |rows, columns| Array2::from_shape_simple_fn((rows, columns), &mut unit);
        let (x, w) = (matrix(m, k), matrix(n, k));
        let pack = |scheme: &dyn Quantizer| PackedWeights::new(&scheme.apply(&w)?);
        let per_channel = pack(&Quantizer::uniform(8).symmetric().per_channel(Axis(0)))?;
        let per_group = pack(&Quantizer::uniform(4).per_group(32))?;
        let (name, operations) = (format!("{m}x{n}x{k}"), 2 * (m * n * k) as u64);
        Ok(Layer { name, operations, y: Array2::zeros((m, n)), x, w, per_channel, per_group })
    }

    /// ndarray's product: of two matrices, or, for a single row, of a matrix and a vector, which is faster.
    fn f32(&mut self) {
        match self.x.nrows() {
            1 => general_mat_vec_mul(1.0, &self.w, &self.x.row(0), 0.0, &mut self.y.row_mut(0)),
            _ => general_mat_mul(1.0, &self.x, &self.w.t(), 0.0, &mut self.y),
        }
        black_box(&mut self.y);
    }

    fn int8(&mut self) {
        self.per_channel.matmul_into(&self.x, &mut self.y).expect("finite inputs of the right shape");
        black_box(&mut self.y);
    }

    fn int4(&mut self) {
        self.per_group.matmul_into(&self.x, &mut self.y).expect("finite inputs of the right shape");
        black_box(&mut self.y);
    }
}

type Product = fn(&mut Layer);

/// What is compared, the first being the measure of the others.
const PRODUCTS: [(&str, Product); 3] =
    [("f32", Layer::f32), ("int8 per channel", Layer::int8), ("int4 groups of 32", Layer::int4)];

/// The least time of each product, run in turns.
fn in_turns(layer: &mut Layer) -> [Duration; PRODUCTS.len()] {
    let mut least = [Duration::MAX; PRODUCTS.len()];
    let start = Instant::now();
    for round in 0.. {
        if round >= ROUNDS && start.elapsed() > TURNS {
            break;
        }
        for (least, (_, product)) in least.iter_mut().zip(PRODUCTS) {
            let start = Instant::now();
            product(layer);
            *least = start.elapsed().min(*least);
        }
    }
    least
}

fn run() -> tersor::Result<()> {
    let mut layers = SHAPES.map(Layer::new).into_iter().collect::<tersor::Result<Vec<_>>>()?;
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for layer in &mut layers {
        let mut group = criterion.benchmark_group(&layer.name);
        group.throughput(Throughput::Elements(layer.operations));
        for (name, product) in PRODUCTS {
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter(|| product(layer)));
        }
    }
    criterion.final_summary();

    println!("in turns, least times, one thread, {}:", Isa::detect()?);
    for layer in &mut layers {
        let least = in_turns(layer);
        for ((name, _), time) in PRODUCTS.iter().zip(least) {
            let rate = layer.operations as f64 / time.as_secs_f64() / 1e9;
            let ratio = least[0].as_secs_f64() / time.as_secs_f64();
            println!("{:<16} {name:<18} {time:>10.1?} {rate:>8.1} Gop/s {ratio:>6.2} x f32", layer.name);
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    #[cfg(feature = "rayon")]
    return Ok(rayon::ThreadPoolBuilder::new().num_threads(1).build()?.install(run)?);
    #[cfg(not(feature = "rayon"))]
    Ok(run()?)
}
