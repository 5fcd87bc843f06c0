//! A whole dynamic int8 linear layer (inputs rounded, multiplied, scaled) against ndarray's f32 product, on one thread,
//! and against its limit: multiplications on registers, or, for a single row, reads of the weights.
//!
//! After criterion's figures, all are run again in turns, so that their ratios come from the same minutes. `TERSOR_COLD`
//! set, a single row's weights are read from memory and not from a cache.

#[path = "one_thread.rs"]
mod one_thread;
#[path = "shapes.rs"]
mod shapes;

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
use tersor::{Isa, PackedWeights, Quantizer, limits};

use one_thread::on_one_thread;
use shapes::{INTEGERS, Shape};

/// How long a shape is run in turns, and the least rounds.
const TURNS: Duration = Duration::from_secs(2);
const ROUNDS: usize = 10;

/// Rounds of multiplications on registers that are timed at once, and the bytes that push all else from the caches.
const SPINS: usize = 1 << 12;
const FLUSH: usize = 1 << 27;

/// One linear layer, in f32 and in integers.
struct Layer {
    name: String,
    isa: Isa,
    operations: u64,
    /// As many as there are weights, and enough to push them out of the caches where they shall be cold.
    bytes: Vec<u8>,
    flush: Vec<u8>,
    x: Array2<f32>,
    w: Array2<f32>,
    y: Array2<f32>,
    /// Weights of 8 bits with a scale an output, and of 4 bits with a scale for 32 inputs.
    per_channel: PackedWeights,
    per_group: PackedWeights,
}

impl Layer {
    fn new((m, n, k): Shape) -> tersor::Result<Layer> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut unit = || (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        let mut matrix = |rows, columns| Array2::from_shape_simple_fn((rows, columns), &mut unit);
        let (x, w) = (matrix(m, k), matrix(n, k));
        let pack = |scheme: &dyn Quantizer| PackedWeights::new(&scheme.apply(&w)?);
        let per_channel = pack(&Quantizer::uniform(8).symmetric().per_channel(Axis(0)))?;
        let per_group = pack(&Quantizer::uniform(4).per_group(32))?;
        let (name, operations) = (format!("{m}x{n}x{k}"), 2 * (m * n * k) as u64);
        let cold = m == 1 && std::env::var_os("TERSOR_COLD").is_some();
        let (bytes, flush) = (vec![1; n * k], vec![1; if cold { FLUSH } else { 0 }]);
        Ok(Layer {
            name,
            isa: Isa::detect()?,
            operations,
            bytes,
            flush,
            y: Array2::zeros((m, n)),
            x,
            w,
            per_channel,
            per_group,
        })
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

    /// The least time in which this machine could do the integer layer, as of now.
    fn limit(&self) -> Duration {
        let start = Instant::now();
        if self.x.nrows() == 1 {
            limits::read(self.isa, black_box(&self.bytes));
            return start.elapsed();
        }
        let operations = limits::multiply(self.isa, SPINS);
        start.elapsed().mul_f64(self.operations as f64 / operations as f64)
    }

    /// Pushes the weights out of the caches, if they shall be cold.
    fn cool(&self) {
        limits::read(self.isa, black_box(&self.flush));
    }
}

type Product = fn(&mut Layer);

/// What is compared, the first being the measure of the others.
const PRODUCTS: [(&str, Product); 3] =
    [("f32", Layer::f32), ("int8 per channel", Layer::int8), ("int4 groups of 32", Layer::int4)];

/// The least time of each product and of the limit, run in turns.
fn in_turns(layer: &mut Layer) -> ([Duration; PRODUCTS.len()], Duration) {
    let (mut least, mut limit) = ([Duration::MAX; PRODUCTS.len()], Duration::MAX);
    let start = Instant::now();
    for round in 0.. {
        if round >= ROUNDS && start.elapsed() > TURNS {
            break;
        }
        layer.limit();
        layer.cool();
        limit = limit.min(layer.limit());
        for (least, (_, product)) in least.iter_mut().zip(PRODUCTS) {
            // What the others read is in the caches now: once untimed, so that the weights lie where they should.
            product(layer);
            layer.cool();
            let start = Instant::now();
            product(layer);
            *least = start.elapsed().min(*least);
        }
    }
    (least, limit)
}

fn run() -> tersor::Result<()> {
    let mut layers = INTEGERS.map(Layer::new).into_iter().collect::<tersor::Result<Vec<_>>>()?;
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
        let (least, limit) = in_turns(layer);
        for ((name, _), time) in PRODUCTS.iter().zip(least) {
            let rate = layer.operations as f64 / time.as_secs_f64() / 1e9;
            let ratio = least[0].as_secs_f64() / time.as_secs_f64();
            let of_limit = limit.as_secs_f64() / time.as_secs_f64();
            let name = format!("{:<16} {name:<18}", layer.name);
            println!("{name} {time:>10.1?} {rate:>8.1} Gop/s {ratio:>6.2} x f32 {of_limit:>6.3} of the int8 limit");
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    on_one_thread(run)
}
