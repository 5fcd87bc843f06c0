//! Pruned f32 weights, packed as the crate chooses, against ndarray's dense product of the same matrix, on one thread.
//!
//! After criterion's figures, all are run again in turns, so that their ratio comes from the same minutes.

#[path = "one_thread.rs"]
mod one_thread;

use std::{
    error::Error,
    hint::black_box,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion};
use ndarray::{
    Array2,
    linalg::{general_mat_mul, general_mat_vec_mul},
};
use rand_xoshiro::{
    Xoshiro256PlusPlus,
    rand_core::{Rng, SeedableRng},
};
use tersor::{Isa, PackedWeights, Pruner};

use one_thread::on_one_thread;

/// Outputs and inputs.
const SHAPES: [(usize, usize); 3] = [(1024, 1024), (4096, 4096), (50, 320)];
/// Rows of the inputs.
const BATCHES: [usize; 3] = [1, 32, 256];
/// How long a shape is run in turns, and the least rounds.
const TURNS: Duration = Duration::from_millis(1500);
const ROUNDS: usize = 7;

/// The ways to prune that are compared.
fn pruners() -> Vec<(&'static str, Box<dyn Pruner>)> {
    vec![
        ("50 %", Box::new(Pruner::magnitude(0.5))),
        ("70 %", Box::new(Pruner::magnitude(0.7))),
        ("80 %", Box::new(Pruner::magnitude(0.8))),
        ("90 %", Box::new(Pruner::magnitude(0.9))),
        ("95 %", Box::new(Pruner::magnitude(0.95))),
        ("2:4", Box::new(Pruner::magnitude(0.5).n_of_m(2, 4))),
        ("1:8", Box::new(Pruner::magnitude(0.875).n_of_m(1, 8))),
        ("blocks of 4 x 4, 50 %", Box::new(Pruner::magnitude(0.5).block(4, 4))),
        ("blocks of 4 x 4, 75 %", Box::new(Pruner::magnitude(0.75).block(4, 4))),
        ("blocks of 4 x 4, 90 %", Box::new(Pruner::magnitude(0.9).block(4, 4))),
    ]
}

/// One weight, dense and pruned, and inputs for it.
struct Layer {
    name: String,
    x: Array2<f32>,
    w: Array2<f32>,
    y: Array2<f32>,
    pruned: Vec<(&'static str, PackedWeights)>,
}

impl Layer {
    fn new((n, k): (usize, usize), m: usize) -> tersor::Result<Layer> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut unit = || (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        let mut matrix = |rows, columns| Array2::from_shape_simple_fn((rows, columns), &mut unit);
        let (x, w) = (matrix(m, k), matrix(n, k));
        let pack = |(name, pruner): (_, Box<dyn Pruner>)| Ok((name, PackedWeights::new(&pruner.apply(&w)?)?));
        let pruned = pruners().into_iter().map(pack).collect::<tersor::Result<_>>()?;
        Ok(Layer { name: format!("{m}x{n}x{k}"), y: Array2::zeros((m, n)), x, w, pruned })
    }

    /// ndarray's product: of two matrices, or, for a single row, of a matrix and a vector, which is faster.
    fn dense(&mut self) {
        match self.x.nrows() {
            1 => general_mat_vec_mul(1.0, &self.w, &self.x.row(0), 0.0, &mut self.y.row_mut(0)),
            _ => general_mat_mul(1.0, &self.x, &self.w.t(), 0.0, &mut self.y),
        }
        black_box(&mut self.y);
    }

    fn sparse(&mut self, index: usize) {
        self.pruned[index].1.matmul_into(&self.x, &mut self.y).expect("inputs of the right shape");
        black_box(&mut self.y);
    }
}

/// The least time of the dense product, and of each sparse one, run in turns.
fn in_turns(layer: &mut Layer) -> (Duration, Vec<Duration>) {
    let mut dense = Duration::MAX;
    let mut least = vec![Duration::MAX; layer.pruned.len()];
    let start = Instant::now();
    for round in 0.. {
        if round >= ROUNDS && start.elapsed() > TURNS {
            break;
        }
        let time = Instant::now();
        layer.dense();
        dense = time.elapsed().min(dense);
        for (index, least) in least.iter_mut().enumerate() {
            let time = Instant::now();
            layer.sparse(index);
            *least = time.elapsed().min(*least);
        }
    }
    (dense, least)
}

fn run() -> tersor::Result<()> {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300))
        .configure_from_args();
    let shapes = || SHAPES.into_iter().flat_map(|shape| BATCHES.map(|batch| (shape, batch)));
    for (shape, batch) in shapes() {
        let mut layer = Layer::new(shape, batch)?;
        let mut group = criterion.benchmark_group(&layer.name);
        group.bench_function(BenchmarkId::from_parameter("dense"), |bencher| bencher.iter(|| layer.dense()));
        for index in 0..layer.pruned.len() {
            let name = BenchmarkId::from_parameter(layer.pruned[index].0);
            group.bench_function(name, |bencher| bencher.iter(|| layer.sparse(index)));
        }
    }
    criterion.final_summary();

    println!("in turns, least times, one thread, {}:", Isa::detect()?);
    for (shape, batch) in shapes() {
        let mut layer = Layer::new(shape, batch)?;
        let (dense, least) = in_turns(&mut layer);
        println!("{:<14} {:<22} {:<20} {dense:>10.1?}", layer.name, "dense", "ndarray");
        for ((name, packed), time) in layer.pruned.iter().zip(least) {
            let ratio = dense.as_secs_f64() / time.as_secs_f64();
            let (shape, kernel) = (&layer.name, packed.kernel());
            println!("{shape:<14} {name:<22} {kernel:<20} {time:>10.1?} {ratio:>6.2} x dense");
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    on_one_thread(run)
}
