//! What is timed: each case with its work and what bounds it.

use std::hint::black_box;

use ndarray::{Array2, Array4, Axis};
use rand_xoshiro::{
    Xoshiro256PlusPlus,
    rand_core::{Rng, SeedableRng},
};
use tersor::{
    Isa, PackedWeights, Pruner, Quantizer,
    float::{Matrix, add_product},
    limits,
    nn::{Conv2d, Network},
    packed::{Activations, PackedConv2d},
    quantize::{
        Uniform,
        observe::{MinMax, Observer},
    },
    tensor::Codes,
};

use crate::shapes::{INTEGERS, Shape};

/// What no kernel can exceed: multiplications on registers, or reads of so many bytes.
#[derive(Clone, Copy)]
pub(crate) enum Limit {
    Integers,
    Floats,
    Reads(usize),
}

impl Limit {
    pub(crate) fn bytes(self) -> usize {
        if let Limit::Reads(bytes) = self { bytes } else { 0 }
    }

    pub(crate) fn unit(self) -> &'static str {
        if let Limit::Reads(_) = self { "GB/s" } else { "Gop/s" }
    }
}

/// Something to time.
pub(crate) struct Case {
    pub(crate) kernel: String,
    /// Operations, multiplications and additions, or bytes: of the arguments and results, each counted once.
    pub(crate) work: f64,
    pub(crate) limit: Limit,
    /// Whether what it reads comes from memory rather than a cache.
    pub(crate) cold: bool,
    pub(crate) run: Box<dyn FnMut()>,
}

type Prepare = Box<dyn Fn() -> tersor::Result<Case> + Send + Sync>;

/// A case that is yet to be prepared, on as many threads.
pub(crate) struct Planned {
    pub(crate) group: &'static str,
    pub(crate) case: String,
    pub(crate) threads: usize,
    prepare: Prepare,
}

impl Planned {
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.group, self.case)
    }

    pub(crate) fn prepare(&self) -> tersor::Result<Case> {
        (self.prepare)()
    }
}

/// Layers that threads share.
const SHARED: [Shape; 4] = [(1024, 1024, 1024), (128, 768, 768), (64, 64, 784), (1, 4096, 4096)];
const NM: [Shape; 5] = [(1024, 1024, 1024), (512, 512, 512), (128, 768, 768), (8, 4096, 4096), (1, 4096, 4096)];
const F32: [Shape; 5] = [(1024, 1024, 1024), (512, 512, 512), (128, 768, 768), (64, 64, 784), (37, 53, 129)];
/// Batch, channels, height and width of a convolution of 3 x 3.
const CONV: [(usize, usize, usize); 4] = [(1, 64, 56), (8, 64, 56), (8, 128, 28), (8, 256, 14)];
/// Side of the weights that passes go over.
const SIDE: usize = 4096;

/// All cases, in the order of the table.
pub(crate) fn cases(isa: Isa, all_threads: usize) -> Vec<Planned> {
    let mut list = Vec::new();
    let mut plan = |group: &'static str, case: String, threads: usize, prepare: Prepare| {
        list.push(Planned { group, case, threads, prepare });
    };
    for (name, limit) in [
        ("integer multiplications", Limit::Integers),
        ("float multiplications", Limit::Floats),
        ("reads of L1", Limit::Reads(1 << 14)),
        ("reads of L2", Limit::Reads(1 << 19)),
        ("reads of L3", Limit::Reads(1 << 24)),
        ("reads of DRAM", Limit::Reads(1 << 29)),
    ] {
        plan("limits", name.into(), 1, Box::new(move || Ok(bound(isa, limit))));
    }
    let int8 = || Quantizer::uniform(8).symmetric().per_channel(Axis(0));
    for shape in INTEGERS {
        plan("int8", text(shape), 1, Box::new(move || layer(shape, &int8(), Activations::Dynamic)));
    }
    let shape = (1, 4096, 4096);
    let cold = move || Ok(Case { cold: true, ..layer(shape, &int8(), Activations::Dynamic)? });
    plan("int8", text(shape) + " cold", 1, Box::new(cold));
    for shape in SHARED {
        plan("int8", text(shape), all_threads, Box::new(move || layer(shape, &int8(), Activations::Dynamic)));
    }
    let int4 = |group: usize| Quantizer::uniform(4).per_group(group);
    for shape in [1, 32, 128].map(|rows| (rows, 4096, 4096)) {
        for group in [32, 64, 128] {
            let prepare = move || layer(shape, &int4(group), Activations::Dynamic);
            plan("int4", format!("{}, groups of {group}", text(shape)), 1, Box::new(prepare));
        }
        let floats = move || layer(shape, &int4(64), Activations::Float);
        plan("int4", text(shape) + ", f32 inputs", 1, Box::new(floats));
        let nf4 = move || layer(shape, &Quantizer::nf4(), Activations::Float);
        plan("int4", text(shape) + ", NF4 groups of 64", 1, Box::new(nf4));
    }
    for (side, rows) in [1024, 4096].into_iter().flat_map(|side| [1, 32, 128].map(|rows| (side, rows))) {
        for zeros in [70, 90] {
            let shape = (rows, side, side);
            plan("sparse", format!("{}, {zeros} % zeros", text(shape)), 1, Box::new(move || sparse(shape, zeros)));
        }
    }
    for shape in NM {
        plan("nm", text(shape) + ", 2:4", 1, Box::new(move || two_of_four(shape)));
    }
    for shape in F32 {
        for (what, turned) in [("x w^T", [false, true]), ("g^T x", [true, false]), ("g w", [false, false])] {
            plan("f32", format!("{} {what}", text(shape)), 1, Box::new(move || Ok(float(isa, shape, turned))));
        }
    }
    for shape @ (batch, channels, side) in CONV {
        for (kind, int8) in [("f32", false), ("int8", true)] {
            let name = format!("{kind} 3x3, {batch} x {channels} x {side} x {side}");
            plan("conv", name, 1, Box::new(move || conv(shape, int8)));
        }
    }
    let uniform = || Quantizer::uniform(8);
    let mut passes = |name: &str, prepare: Prepare| plan("passes", format!("{name}, {SIDE}x{SIDE}"), 1, prepare);
    passes("quantize, per channel", Box::new(move || quantize(uniform().per_channel(Axis(0)))));
    passes("quantize, groups of 128", Box::new(move || quantize(uniform().per_group(128))));
    passes("dequantize, per channel", Box::new(dequantize));
    passes("least and largest", Box::new(least_and_largest));
    passes("pack 4 bits", Box::new(pack));
    passes("mask, magnitude, 50 %", Box::new(mask));
    passes("mask.apply", Box::new(apply_mask));
    list
}

fn text((m, n, k): Shape) -> String {
    format!("{m}x{n}x{k}")
}

fn numbers() -> impl FnMut() -> f32 {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
    // Bell-shaped, as trained weights are.
    move || (0..3).map(|_| (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).sum()
}

fn matrix(rows: usize, columns: usize) -> Array2<f32> {
    Array2::from_shape_simple_fn((rows, columns), numbers())
}

/// A limit itself.
fn bound(isa: Isa, limit: Limit) -> Case {
    let rounds = 1 << 12;
    let bytes = vec![1u8; limit.bytes()];
    let (work, run): (usize, Box<dyn FnMut()>) = match limit {
        Limit::Integers => (limits::multiply(isa, rounds), Box::new(move || _ = limits::multiply(isa, rounds))),
        Limit::Floats => (limits::multiply_f32(isa, rounds), Box::new(move || _ = limits::multiply_f32(isa, rounds))),
        Limit::Reads(size) => (size, Box::new(move || _ = limits::read(isa, black_box(&bytes)))),
    };
    Case { kernel: isa.to_string(), work: work as f64, limit, cold: false, run }
}

/// A product with packed weights, so much of which is work: bound by multiplications, or for a single row by reads of the
/// weights.
fn product(shape: Shape, weights: PackedWeights, limit: Limit, share: f64) -> Case {
    let (m, n, k) = shape;
    let (x, mut y) = (matrix(m, k), Array2::zeros((m, n)));
    let (work, limit) = match m {
        1 => (weights.nbytes() as f64, Limit::Reads(weights.nbytes())),
        _ => ((2 * m * n * k) as f64 * share, limit),
    };
    let kernel = weights.kernel().into();
    let run = move || {
        weights.matmul_into(&x, &mut y).expect("finite inputs of the right shape");
        black_box(&mut y);
    };
    Case { kernel, work, limit, cold: false, run: Box::new(run) }
}

fn layer(shape: Shape, scheme: &dyn Quantizer, activations: Activations) -> tersor::Result<Case> {
    let limit = if activations == Activations::Float { Limit::Floats } else { Limit::Integers };
    let weights = PackedWeights::with(&scheme.apply(&matrix(shape.1, shape.2))?, activations)?;
    Ok(product(shape, weights, limit, 1.0))
}

/// Its work is that of the weights that are left.
fn sparse(shape: Shape, zeros: usize) -> tersor::Result<Case> {
    let share = zeros as f64 / 100.0;
    let weights = PackedWeights::new(&Pruner::magnitude(share).apply(&matrix(shape.1, shape.2))?)?;
    Ok(product(shape, weights, Limit::Floats, 1.0 - share))
}

/// Likewise: half of the dense product's.
fn two_of_four(shape: Shape) -> tersor::Result<Case> {
    let pruned = Pruner::magnitude(0.5).n_of_m(2, 4).apply(&matrix(shape.1, shape.2))?;
    let scheme = Quantizer::uniform(8).symmetric().per_channel(Axis(0));
    Ok(product(shape, PackedWeights::new(&scheme.apply(&pruned.values())?)?, Limit::Integers, 0.5))
}

/// One of the three products of a linear layer.
fn float(isa: Isa, (m, n, k): Shape, turned: [bool; 2]) -> Case {
    let [rows, columns, terms] = match turned {
        [false, true] => [m, n, k],
        [true, false] => [n, k, m],
        _ => [m, k, n],
    };
    let [a, b] = [rows * terms, terms * columns].map(|count| matrix(1, count).into_raw_vec_and_offset().0);
    let mut c = vec![0.0; rows * columns];
    let run = move || {
        let of = |data, rows, columns, turned| match turned {
            true => Matrix::new(data, columns, rows).transposed(),
            false => Matrix::new(data, rows, columns),
        };
        add_product(isa, of(&a, rows, terms, turned[0]), of(&b, terms, columns, turned[1]), &mut c);
        black_box(&mut c);
    };
    Case {
        kernel: format!("f32-{isa}"),
        work: (2 * m * n * k) as f64,
        limit: Limit::Floats,
        cold: false,
        run: Box::new(run),
    }
}

/// A convolution that keeps channels, height and width.
fn conv((batch, channels, side): (usize, usize, usize), int8: bool) -> tersor::Result<Case> {
    let x = Array4::from_shape_simple_fn((batch, channels, side, side), numbers());
    let w = Array4::from_shape_simple_fn((channels, channels, 3, 3), numbers());
    let (kernel, run): (_, Box<dyn FnMut()>) = if int8 {
        let weight = Quantizer::uniform(8).symmetric().per_channel(Axis(0)).apply(&w)?;
        let packed = PackedConv2d::new(&weight, 1, Activations::Dynamic)?.padding([1, 1]);
        let kernel = packed.kernel().to_string();
        (kernel, Box::new(move || drop(black_box(packed.forward(&x).expect("finite inputs of the right shape")))))
    } else {
        let network = Network::builder(1).conv2d(Conv2d::from_arrays(w, None)?.padding(1)).build()?;
        let run = move || drop(black_box(network.forward(&x).expect("finite inputs of the right shape")));
        ("f32".into(), Box::new(run))
    };
    Ok(Case {
        kernel,
        work: (2 * batch * side * side * channels * channels * 9) as f64,
        limit: if int8 { Limit::Integers } else { Limit::Floats },
        cold: false,
        run,
    })
}

/// A pass over the weights, of so many bytes for each of them; results go where earlier ones were.
fn pass(bytes_each: f64, run: impl FnMut() + 'static) -> Case {
    let elements = SIDE * SIDE;
    let (work, limit) = (bytes_each * elements as f64, Limit::Reads(4 * elements));
    Case { kernel: "pass".into(), work, limit, cold: false, run: Box::new(run) }
}

fn quantize(scheme: Uniform) -> tersor::Result<Case> {
    let w = matrix(SIDE, SIDE);
    let mut memory = Some(scheme.apply(&w)?);
    Ok(pass(5.0, move || memory = memory.take().and_then(|memory| scheme.apply_reusing(&w, memory).ok())))
}

fn dequantize() -> tersor::Result<Case> {
    let mut w = matrix(SIDE, SIDE);
    let q = Quantizer::uniform(8).per_channel(Axis(0)).apply(&w)?;
    Ok(pass(5.0, move || drop(black_box(q.dequantize_into(&mut w)))))
}

fn least_and_largest() -> tersor::Result<Case> {
    let w = matrix(SIDE, SIDE);
    Ok(pass(4.0, move || drop(black_box(MinMax::new().observe(&w)))))
}

fn pack() -> tersor::Result<Case> {
    let codes = vec![7u8; SIDE * SIDE];
    Ok(pass(1.5, move || drop(black_box(Codes::pack(4, &codes)))))
}

fn mask() -> tersor::Result<Case> {
    let (w, pruner) = (matrix(SIDE, SIDE), Pruner::magnitude(0.5));
    let run = move || {
        let (score, ranking) = pruner.ranking().expect("a pruner by magnitude ranks");
        drop(black_box(ranking.mask(score, &w)));
    };
    Ok(pass(4.125, run))
}

fn apply_mask() -> tersor::Result<Case> {
    let mut w = matrix(SIDE, SIDE);
    let mask = Pruner::magnitude(0.5).apply(&w)?.into_parts().1;
    Ok(pass(8.125, move || drop(black_box(mask.apply(&mut w)))))
}
