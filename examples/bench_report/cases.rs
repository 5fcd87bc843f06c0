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
    quantize::observe::{MinMax, Observer},
    tensor::Codes,
};

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
    pub(crate) group: &'static str,
    pub(crate) name: String,
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
    group: &'static str,
    name: String,
    pub(crate) threads: usize,
    prepare: Prepare,
}

impl Planned {
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.group, self.name)
    }

    pub(crate) fn prepare(&self) -> tersor::Result<Case> {
        (self.prepare)()
    }
}

type Shape = (usize, usize, usize);

/// Rows, outputs, inputs.
const INT8: [Shape; 11] = [
    (2048, 2048, 2048),
    (1024, 1024, 1024),
    (512, 512, 512),
    (128, 3072, 768),
    (128, 768, 768),
    (32, 1024, 1024),
    (8, 4096, 4096),
    (64, 64, 784),
    (37, 53, 129),
    (1, 4096, 4096),
    (1, 1024, 1024),
];
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
    let mut plan = |group: &'static str, name: String, threads: usize, prepare: Prepare| {
        list.push(Planned { group, name, threads, prepare });
    };
    for (name, limit) in [
        ("integer multiplications", Limit::Integers),
        ("float multiplications", Limit::Floats),
        ("reads of L1", Limit::Reads(1 << 14)),
        ("reads of L2", Limit::Reads(1 << 19)),
        ("reads of L3", Limit::Reads(1 << 24)),
        ("reads of DRAM", Limit::Reads(1 << 29)),
    ] {
        plan("limits", name.into(), 1, Box::new(move || Ok(bound(isa, name, limit))));
    }
    let int8 = || Quantizer::uniform(8).symmetric().per_channel(Axis(0));
    for shape in INT8 {
        plan("int8", text(shape), 1, Box::new(move || layer("int8", shape, &int8(), "", Activations::Dynamic)));
    }
    let shape = (1, 4096, 4096);
    let cold = move || Ok(Case { cold: true, ..layer("int8", shape, &int8(), " cold", Activations::Dynamic)? });
    plan("int8", text(shape) + " cold", 1, Box::new(cold));
    for shape in SHARED {
        let prepare = move || layer("int8", shape, &int8(), "", Activations::Dynamic);
        plan("int8", text(shape), all_threads, Box::new(prepare));
    }
    let uniform = |group: usize| Quantizer::uniform(4).per_group(group);
    for rows in [1, 32, 128] {
        let shape = (rows, 4096, 4096);
        for group in [32, 64, 128] {
            let what = format!(", groups of {group}");
            let prepare = {
                let what = what.clone();
                move || layer("int4", shape, &uniform(group), &what, Activations::Dynamic)
            };
            plan("int4", text(shape) + &what, 1, Box::new(prepare));
        }
        for (what, scheme) in [(", f32 inputs", true), (", NF4 groups of 64", false)] {
            let prepare = move || match scheme {
                true => layer("int4", shape, &uniform(64), what, Activations::Float),
                false => layer("int4", shape, &Quantizer::nf4(), what, Activations::Float),
            };
            plan("int4", text(shape) + what, 1, Box::new(prepare));
        }
    }
    for (side, rows) in [1024, 4096].into_iter().flat_map(|side| [1, 32, 128].map(|rows| (side, rows))) {
        for zeros in [70, 90] {
            let shape = (rows, side, side);
            let name = format!("{}, {zeros} % zeros", text(shape));
            plan("sparse", name, 1, Box::new(move || sparse(shape, zeros)));
        }
    }
    for shape in NM {
        plan("nm", text(shape) + ", 2:4", 1, Box::new(move || two_of_four(shape)));
    }
    for shape in F32 {
        for (what, turned) in [("x w^T", [false, true]), ("g^T x", [true, false]), ("g w", [false, false])] {
            plan("f32", format!("{} {what}", text(shape)), 1, Box::new(move || Ok(float(isa, shape, what, turned))));
        }
    }
    for shape in CONV {
        for int8 in [false, true] {
            plan("conv", conv_text(shape, int8), 1, Box::new(move || conv(shape, int8)));
        }
    }
    for (name, pass) in PASSES {
        plan("passes", name.into(), 1, Box::new(move || pass(name)));
    }
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
fn bound(isa: Isa, name: &str, limit: Limit) -> Case {
    let rounds = 1 << 12;
    let bytes = vec![1u8; limit.bytes()];
    let (work, run): (usize, Box<dyn FnMut()>) = match limit {
        Limit::Integers => (limits::multiply(isa, rounds), Box::new(move || _ = limits::multiply(isa, rounds))),
        Limit::Floats => (limits::multiply_f32(isa, rounds), Box::new(move || _ = limits::multiply_f32(isa, rounds))),
        Limit::Reads(size) => (size, Box::new(move || _ = limits::read(isa, black_box(&bytes)))),
    };
    Case { group: "limits", name: name.into(), kernel: isa.to_string(), work: work as f64, limit, cold: false, run }
}

/// A product with packed weights: bound by multiplications, or for a single row by reads of the weights.
fn product(group: &'static str, shape: Shape, what: &str, weights: PackedWeights, limit: Limit, share: f64) -> Case {
    let (m, n, k) = shape;
    let (x, mut y) = (matrix(m, k), Array2::zeros((m, n)));
    let (work, limit) = match m {
        1 => (weights.nbytes() as f64, Limit::Reads(weights.nbytes())),
        _ => ((2 * m * n * k) as f64 * share, limit),
    };
    let (name, kernel) = (text(shape) + what, weights.kernel().into());
    let run = move || {
        weights.matmul_into(&x, &mut y).expect("finite inputs of the right shape");
        black_box(&mut y);
    };
    Case { group, name, kernel, work, limit, cold: false, run: Box::new(run) }
}

fn layer(
    group: &'static str,
    shape: Shape,
    scheme: &dyn Quantizer,
    what: &str,
    activations: Activations,
) -> tersor::Result<Case> {
    let limit = if activations == Activations::Float { Limit::Floats } else { Limit::Integers };
    let weights = PackedWeights::with(&scheme.apply(&matrix(shape.1, shape.2))?, activations)?;
    Ok(product(group, shape, what, weights, limit, 1.0))
}

/// Its work is that of the weights that are left.
fn sparse(shape: Shape, zeros: usize) -> tersor::Result<Case> {
    let share = zeros as f64 / 100.0;
    let weights = PackedWeights::new(&Pruner::magnitude(share).apply(&matrix(shape.1, shape.2))?)?;
    Ok(product("sparse", shape, &format!(", {zeros} % zeros"), weights, Limit::Floats, 1.0 - share))
}

/// Likewise: half of the dense product's.
fn two_of_four(shape: Shape) -> tersor::Result<Case> {
    let pruned = Pruner::magnitude(0.5).n_of_m(2, 4).apply(&matrix(shape.1, shape.2))?;
    let scheme = Quantizer::uniform(8).symmetric().per_channel(Axis(0));
    let weights = PackedWeights::new(&scheme.apply(&pruned.values())?)?;
    Ok(product("nm", shape, ", 2:4", weights, Limit::Integers, 0.5))
}

/// One of the three products of a linear layer.
fn float(isa: Isa, (m, n, k): Shape, what: &str, turned: [bool; 2]) -> Case {
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
        group: "f32",
        name: format!("{} {what}", text((m, n, k))),
        kernel: format!("f32-{isa}"),
        work: (2 * m * n * k) as f64,
        limit: Limit::Floats,
        cold: false,
        run: Box::new(run),
    }
}

fn conv_text((batch, channels, side): (usize, usize, usize), int8: bool) -> String {
    let kind = if int8 { "int8" } else { "f32" };
    format!("{kind} 3x3, {batch} x {channels} x {side} x {side}")
}

/// A convolution that keeps channels, height and width.
fn conv(shape: (usize, usize, usize), int8: bool) -> tersor::Result<Case> {
    let (batch, channels, side) = shape;
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
        group: "conv",
        name: conv_text(shape, int8),
        kernel,
        work: (2 * batch * side * side * channels * channels * 9) as f64,
        limit: if int8 { Limit::Integers } else { Limit::Floats },
        cold: false,
        run,
    })
}

type Pass = fn(&'static str) -> tersor::Result<Case>;

/// Passes over the weights; results go where earlier ones were.
const PASSES: [(&str, Pass); 7] = [
    ("quantize, per channel", |name| {
        let (w, scheme) = (matrix(SIDE, SIDE), Quantizer::uniform(8).per_channel(Axis(0)));
        let mut memory = Some(scheme.apply(&w)?);
        Ok(pass(name, 5.0, move || memory = memory.take().and_then(|memory| scheme.apply_reusing(&w, memory).ok())))
    }),
    ("quantize, groups of 128", |name| {
        let (w, scheme) = (matrix(SIDE, SIDE), Quantizer::uniform(8).per_group(128));
        let mut memory = Some(scheme.apply(&w)?);
        Ok(pass(name, 5.0, move || memory = memory.take().and_then(|memory| scheme.apply_reusing(&w, memory).ok())))
    }),
    ("dequantize, per channel", |name| {
        let mut w = matrix(SIDE, SIDE);
        let q = Quantizer::uniform(8).per_channel(Axis(0)).apply(&w)?;
        Ok(pass(name, 5.0, move || drop(black_box(q.dequantize_into(&mut w)))))
    }),
    ("least and largest", |name| {
        let w = matrix(SIDE, SIDE);
        Ok(pass(name, 4.0, move || drop(black_box(MinMax::new().observe(&w)))))
    }),
    ("pack 4 bits", |name| {
        let codes = vec![7u8; SIDE * SIDE];
        Ok(pass(name, 1.5, move || drop(black_box(Codes::pack(4, &codes)))))
    }),
    ("mask, magnitude, 50 %", |name| {
        let (w, pruner) = (matrix(SIDE, SIDE), Pruner::magnitude(0.5));
        let run = move || {
            let (score, ranking) = pruner.ranking().expect("a pruner by magnitude ranks");
            drop(black_box(ranking.mask(score, &w)));
        };
        Ok(pass(name, 4.125, run))
    }),
    ("mask.apply", |name| {
        let mut w = matrix(SIDE, SIDE);
        let mask = Pruner::magnitude(0.5).apply(&w)?.into_parts().1;
        Ok(pass(name, 8.125, move || drop(black_box(mask.apply(&mut w)))))
    }),
];

fn pass(name: &str, bytes_each: f64, run: impl FnMut() + 'static) -> Case {
    let elements = SIDE * SIDE;
    Case {
        group: "passes",
        name: format!("{name}, {SIDE}x{SIDE}"),
        kernel: String::from("pass"),
        work: bytes_each * elements as f64,
        limit: Limit::Reads(4 * elements),
        cold: false,
        run: Box::new(run),
    }
}
