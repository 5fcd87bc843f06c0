//! A product into an array that is there allocates nothing once it has run.

use ndarray::{Array2, Axis};
use tersor::{PackedWeights, Quantizer, packed::Activations};

/// Allocations by this thread in some more products of a shape, the first being done.
fn allocations(scheme: &dyn Quantizer, activations: Activations, (m, n, k): (usize, usize, usize)) -> usize {
    let number = |(i, j): (usize, usize)| ((i * 31 + j * 17) % 64) as f32 / 32.0 - 1.0;
    let (w, x) = (Array2::from_shape_fn((n, k), number), Array2::from_shape_fn((m, k), number));
    let packed = PackedWeights::with(&scheme.apply(&w).unwrap(), activations).unwrap();
    let mut y = Array2::zeros((m, n));
    (0..3).for_each(|_| packed.matmul_into(&x, &mut y).unwrap());
    let more = || (0..5).for_each(|_| packed.matmul_into(&x, &mut y).unwrap());
    allocation_counter::measure(more).count_total as usize
}

/// Whole rows a thread, panels in room of the thread's, a single row, and what stays on one thread.
const SHAPES: [(usize, usize, usize); 5] = [(300, 500, 700), (5, 3000, 3000), (1, 3000, 2000), (7, 20, 33), (0, 5, 5)];

fn check() {
    for shape in SHAPES {
        let channel = Quantizer::uniform(8).symmetric().per_channel(Axis(0));
        assert_eq!(allocations(&channel, Activations::Dynamic, shape), 0, "{shape:?}, a scale an output");
        let fixed = Activations::Static { scale: 0.01, zero_point: 3 };
        assert_eq!(allocations(&Quantizer::uniform(8), fixed, shape), 0, "{shape:?}, one scale, static");
        assert_eq!(
            allocations(&Quantizer::uniform(4).per_group(32), Activations::Dynamic, shape),
            0,
            "{shape:?}, 4 bits"
        );
    }
}

#[test]
fn a_repeated_product_allocates_nothing() {
    #[cfg(not(feature = "rayon"))]
    check();
    #[cfg(feature = "rayon")]
    for threads in [1, 2, 3] {
        // Inside the pool, as a program's own parallel loop would call it: entering a pool from outside may allocate.
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(check);
    }
}
