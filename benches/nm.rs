//! A dynamic int8 layer with 2:4 weights, zeros left out, beside the same with all its weights, on one thread, and beside
//! its limits: multiplications on registers, or, for a single row, reads of as many bytes.
//!
//! Everything runs in turns, so that ratios come from the same minutes. A single row of 4096 by 4096 runs warm, from the
//! third-level cache, and cold, from memory. An argument runs only the shapes with it in their name.

#[path = "one_thread.rs"]
mod one_thread;

use std::{
    error::Error,
    hint::black_box,
    time::{Duration, Instant},
};

use ndarray::{Array2, Axis};
use rand_xoshiro::{
    Xoshiro256PlusPlus,
    rand_core::{Rng, SeedableRng},
};
use tersor::{Isa, PackedWeights, Pruner, Quantizer, limits};

use one_thread::on_one_thread;

/// Rows, outputs, inputs, and whether the weights are read from memory each time.
const SHAPES: [(usize, usize, usize, bool); 10] = [
    (2048, 2048, 2048, false),
    (1024, 1024, 1024, false),
    (512, 512, 512, false),
    (128, 3072, 768, false),
    (128, 768, 768, false),
    (32, 1024, 1024, false),
    (8, 4096, 4096, false),
    (1, 4096, 4096, false),
    (1, 4096, 4096, true),
    (1, 1024, 1024, false),
];

/// How long a shape is run in turns, and the least rounds.
const TURNS: Duration = Duration::from_millis(1500);
const ROUNDS: usize = 10;

/// Rounds of multiplications on registers that are timed at once, and the bytes that push all else from the caches.
const SPINS: usize = 1 << 12;
const FLUSH: usize = 1 << 27;

/// One layer, with all weights and with two of four.
struct Layer {
    isa: Isa,
    x: Array2<f32>,
    y: Array2<f32>,
    weights: [PackedWeights; 2],
    /// As many as the weights of each.
    bytes: [Vec<u8>; 2],
    flush: Vec<u8>,
}

impl Layer {
    fn new((m, n, k, cold): (usize, usize, usize, bool)) -> tersor::Result<Layer> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut unit = || (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        let mut matrix = |rows, columns| Array2::from_shape_simple_fn((rows, columns), &mut unit);
        let (x, w) = (matrix(m, k), matrix(n, k));
        let scheme = Quantizer::uniform(8).symmetric().per_channel(Axis(0));
        let pruned = Pruner::magnitude(0.5).n_of_m(2, 4).apply(&w)?;
        let weights = [PackedWeights::new(&scheme.apply(&w)?)?, PackedWeights::new(&scheme.apply(&pruned)?)?];
        let bytes = [0, 1].map(|i| vec![1; weights[i].nbytes()]);
        let flush = vec![1; if cold { FLUSH } else { 0 }];
        Ok(Layer { isa: Isa::detect()?, y: Array2::zeros((m, n)), x, weights, bytes, flush })
    }

    fn product(&mut self, which: usize) -> Duration {
        self.weights[which].matmul_into(&self.x, &mut self.y).expect("finite inputs of the right shape");
        self.cool();
        let start = Instant::now();
        self.weights[which].matmul_into(&self.x, &mut self.y).expect("finite inputs of the right shape");
        black_box(&mut self.y);
        start.elapsed()
    }

    /// The least time in which this machine could do it, as of now, with all weights multiplied, or those bytes read.
    fn limit(&self, which: usize) -> Duration {
        let read = || limits::read(self.isa, black_box(&self.bytes[which]));
        if self.x.nrows() == 1 {
            read();
            self.cool();
            let start = Instant::now();
            read();
            return start.elapsed();
        }
        let start = Instant::now();
        let operations = limits::multiply(self.isa, SPINS);
        start.elapsed().mul_f64((2 * self.x.len() * self.y.ncols()) as f64 / operations as f64)
    }

    /// Pushes the weights out of the caches, if they shall be cold.
    fn cool(&self) {
        limits::read(self.isa, black_box(&self.flush));
    }
}

fn run() -> tersor::Result<()> {
    println!("in turns, least times, one thread, {}:", Isa::detect()?);
    let only = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    for shape in SHAPES {
        let (m, n, k, cold) = shape;
        let name = format!("{m}x{n}x{k}{}", if cold { " cold" } else { "" });
        if !name.contains(&only) {
            continue;
        }
        let mut layer = Layer::new(shape)?;
        let (mut least, mut limits) = ([Duration::MAX; 2], [Duration::MAX; 2]);
        let start = Instant::now();
        for round in 0.. {
            if round >= ROUNDS && start.elapsed() > TURNS {
                break;
            }
            for which in [0, 1] {
                limits[which] = layer.limit(which).min(limits[which]);
                least[which] = layer.product(which).min(least[which]);
            }
        }
        for which in [0, 1] {
            let kernel = layer.weights[which].kernel();
            let ratio = least[0].as_secs_f64() / least[which].as_secs_f64();
            let of_limit = limits[which].as_secs_f64() / least[which].as_secs_f64();
            let time = least[which];
            println!("{name:<20} {kernel:<20} {time:>10.1?} {ratio:>6.2} x int8 {of_limit:>6.3} of its limit");
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    on_one_thread(run)
}
