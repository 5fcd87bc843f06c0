//! The f32 products of a linear layer (forward, gradient of the weights, gradient of the inputs) against ndarray's, on one
//! thread, and against their limit: multiplications with additions on registers, or, for a single row, reads of the weights.
//!
//! After criterion's figures, all are run again in turns, so that their ratios come from the same minutes.

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
use ndarray::{ArrayView2, ArrayViewMut2, linalg::general_mat_mul};
use rand_xoshiro::{
    Xoshiro256PlusPlus,
    rand_core::{Rng, SeedableRng},
};
use tersor::{
    Isa,
    float::{Matrix, add_product},
    limits,
};

use one_thread::on_one_thread;
use shapes::{FLOATS, Shape};

/// How long a product is run in turns, and the least rounds.
const TURNS: Duration = Duration::from_millis(800);
const ROUNDS: usize = 10;

/// Rounds of multiplications on registers that are timed at once.
const SPINS: usize = 1 << 12;

/// One product: `c += a b`, factors as they are or transposed in memory.
struct Product {
    name: String,
    isa: Isa,
    shape: [usize; 3],
    a: (Vec<f32>, bool),
    b: (Vec<f32>, bool),
    c: Vec<f32>,
    /// As many as `b` has, for a single row.
    bytes: Vec<u8>,
}

impl Product {
    /// The three of a layer: `x w^T`, `g^T x`, `g w`.
    fn of_layer((m, n, k): Shape) -> [Product; 3] {
        let products =
            [("x w^T", [m, n, k], [false, true]), ("g^T x", [n, k, m], [true, false]), ("g w", [m, k, n], [false; 2])];
        products.map(|(what, shape, turned)| {
            let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
            let mut numbers = |count| -> Vec<f32> {
                (0..count).map(|_| (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
            };
            let [rows, columns, terms] = shape;
            Product {
                name: format!("{m}x{n}x{k} {what}"),
                isa: Isa::detect().expect("a usable TERSOR_ISA"),
                shape,
                a: (numbers(rows * terms), turned[0]),
                b: (numbers(terms * columns), turned[1]),
                c: vec![0.0; rows * columns],
                bytes: vec![1; if m == 1 { 4 * n * k } else { 0 }],
            }
        })
    }

    fn operations(&self) -> u64 {
        2 * self.shape.iter().product::<usize>() as u64
    }

    fn ours(&mut self) {
        fn matrix((data, turned): &(Vec<f32>, bool), rows: usize, columns: usize) -> Matrix<'_> {
            match turned {
                false => Matrix::new(data, rows, columns),
                true => Matrix::new(data, columns, rows).transposed(),
            }
        }
        let [rows, columns, terms] = self.shape;
        let (a, b) = (matrix(&self.a, rows, terms), matrix(&self.b, terms, columns));
        add_product(self.isa, a, b, &mut self.c);
        black_box(&mut self.c);
    }

    fn ndarray(&mut self) {
        fn matrix((data, turned): &(Vec<f32>, bool), rows: usize, columns: usize) -> ArrayView2<'_, f32> {
            let shape = if *turned { (columns, rows) } else { (rows, columns) };
            let matrix = ArrayView2::from_shape(shape, data).expect("as many as the shape says");
            if *turned { matrix.reversed_axes() } else { matrix }
        }
        let [rows, columns, terms] = self.shape;
        let (a, b) = (matrix(&self.a, rows, terms), matrix(&self.b, terms, columns));
        let mut c = ArrayViewMut2::from_shape((rows, columns), &mut self.c).expect("as many as the shape says");
        general_mat_mul(1.0, &a, &b, 1.0, &mut c);
        black_box(&mut self.c);
    }

    /// The least time in which this machine could do it, as of now.
    fn limit(&self) -> Duration {
        let start = Instant::now();
        if !self.bytes.is_empty() {
            limits::read(self.isa, black_box(&self.bytes));
            return start.elapsed();
        }
        let operations = limits::multiply_f32(self.isa, SPINS);
        start.elapsed().mul_f64(self.operations() as f64 / operations as f64)
    }
}

type Run = fn(&mut Product);

/// What is compared, the first being the measure of the other.
const RUNS: [(&str, Run); 2] = [("ndarray", Product::ndarray), ("ours", Product::ours)];

/// The least time of each run and of the limit, in turns.
fn in_turns(product: &mut Product) -> ([Duration; RUNS.len()], Duration) {
    let (mut least, mut limit) = ([Duration::MAX; RUNS.len()], Duration::MAX);
    let start = Instant::now();
    for round in 0.. {
        if round >= ROUNDS && start.elapsed() > TURNS {
            break;
        }
        product.limit();
        limit = limit.min(product.limit());
        for (least, (_, run)) in least.iter_mut().zip(RUNS) {
            // Once untimed: what the other read is in the caches now.
            run(product);
            let start = Instant::now();
            run(product);
            *least = start.elapsed().min(*least);
        }
    }
    (least, limit)
}

fn run() -> tersor::Result<()> {
    let mut products: Vec<Product> = FLOATS.into_iter().flat_map(Product::of_layer).collect();
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .configure_from_args();
    let mut group = criterion.benchmark_group("f32");
    for product in &mut products {
        group.throughput(Throughput::Elements(product.operations()));
        for (name, run) in RUNS {
            let name = BenchmarkId::new(name, &product.name);
            group.bench_function(name, |bencher| bencher.iter(|| run(product)));
        }
    }
    group.finish();
    criterion.final_summary();

    println!("in turns, least times, one thread, {}:", Isa::detect()?);
    for product in &mut products {
        let (least, limit) = in_turns(product);
        for ((name, _), time) in RUNS.iter().zip(least) {
            let rate = product.operations() as f64 / time.as_secs_f64() / 1e9;
            let ratio = least[0].as_secs_f64() / time.as_secs_f64();
            let of_limit = limit.as_secs_f64() / time.as_secs_f64();
            let name = format!("{:<22} {name:<8}", product.name);
            println!("{name} {time:>10.1?} {rate:>7.1} Gop/s {ratio:>6.2} x ndarray {of_limit:>6.3} of the limit");
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    on_one_thread(run)
}
