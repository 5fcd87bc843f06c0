//! The passes over 4096 x 4096 weights, against the bandwidth of plain reads and copies in the same run.
//!
//! Bytes are those of the arguments and results, each counted once, whatever a pass really moves. New memory takes longer
//! to get than to fill: passes are listed with a fresh result (`new`) and with one that was in use before. Times are the least of
//! a few rounds in which all passes take turns. `passes NAME` runs those whose names contain NAME.

use std::{
    error::Error,
    hint::black_box,
    time::{Duration, Instant},
};

use half::{bf16, f16};
use ndarray::{Array2, Axis};
use rand_xoshiro::{
    Xoshiro256PlusPlus,
    rand_core::{Rng, SeedableRng},
};
use tersor::{
    Isa, Pruner, Quantizer,
    quantize::observe::{Histogram, MinMax, Observer},
    tensor::{Codes, Mask},
};

const SIDE: usize = 4096;
const ELEMENTS: usize = SIDE * SIDE;
const ROUNDS: usize = 5;
/// A pass that takes longer than this is not repeated as often.
const PATIENCE: Duration = Duration::from_millis(1500);

struct Pass<'a> {
    name: String,
    bytes: usize,
    run: Box<dyn FnMut() + 'a>,
}

struct Passes<'a> {
    wanted: &'a str,
    list: Vec<Pass<'a>>,
}

impl<'a> Passes<'a> {
    fn add(&mut self, name: &str, bytes_per_element: f64, run: Box<dyn FnMut() + 'a>) {
        if name.contains(self.wanted) || name.starts_with("limit") {
            let bytes = (bytes_per_element * ELEMENTS as f64) as usize;
            self.list.push(Pass { name: name.into(), bytes, run });
        }
    }
}

/// Bell-shaped numbers, as trained weights are, nearly all of them distinct.
fn weights(seed: u64) -> Array2<f32> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut unit = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64 - 0.5;
    Array2::from_shape_simple_fn((SIDE, SIDE), || (0.1 * (unit() + unit() + unit())) as f32)
}

/// The sum of all bits: what reading cannot do without.
fn read(x: &[f32]) -> u32 {
    let mut sums = [0u32; 64];
    for chunk in x.as_chunks::<64>().0 {
        sums.iter_mut().zip(chunk).for_each(|(sum, x)| *sum = sum.wrapping_add(x.to_bits()));
    }
    sums.iter().fold(0, |total, sum| total.wrapping_add(*sum))
}

fn in_parts<T: Send, R: Send>(threads: usize, parts: impl Iterator<Item = T>, f: impl Fn(T) -> R + Sync) {
    let f = &f;
    match threads {
        1 => parts.for_each(|part| drop(f(part))),
        _ => std::thread::scope(|scope| parts.for_each(|part| drop(scope.spawn(move || drop(f(part)))))),
    }
}

fn least_times(passes: &mut [Pass<'_>]) -> Vec<Duration> {
    let mut least = vec![Duration::MAX; passes.len()];
    let mut spent = vec![Duration::ZERO; passes.len()];
    for _ in 0..ROUNDS {
        for (index, pass) in passes.iter_mut().enumerate() {
            if spent[index] < PATIENCE {
                let start = Instant::now();
                (pass.run)();
                let time = start.elapsed();
                least[index] = least[index].min(time);
                spent[index] += time;
            }
        }
    }
    least
}

fn run(threads: usize, wanted: &str) -> tersor::Result<()> {
    let w = weights(7);
    let part = ELEMENTS / threads;
    let (halves, brains) = (w.mapv(f16::from_f32), w.mapv(bf16::from_f32));
    let (mut copied, mut masked) = (vec![0f32; ELEMENTS], w.clone());
    let flat = w.as_slice().unwrap_or_default();
    let mask = &Pruner::magnitude(0.5).apply(&w)?.into_parts().1;
    let codes: Vec<u8> = flat.iter().map(|x| x.to_bits() as u8).collect();
    let few = w.slice(ndarray::s![..1024, ..]);

    let uniform = || Quantizer::uniform(8);
    let grids = [
        ("per tensor", uniform()),
        ("per channel 0", uniform().per_channel(Axis(0))),
        ("per channel 1", uniform().per_channel(Axis(1))),
        ("groups of 32", uniform().per_group(32)),
        ("groups of 128", uniform().per_group(128)),
        ("4 bits, groups of 32", Quantizer::uniform(4).symmetric().per_group(32)),
        ("3 bits, per channel 0", Quantizer::uniform(3).per_channel(Axis(0))),
    ];

    let magnitude = Pruner::magnitude(0.5);
    let two_of_four = Pruner::magnitude(0.5).n_of_m(2, 4);

    let mut passes = Passes { wanted, list: Vec::new() };
    let mut add = |name: &str, bytes: f64, run| passes.add(name, bytes, run);
    let w = &w;
    add("limit: read", 4.0, Box::new(|| in_parts(threads, flat.chunks(part), |x| black_box(read(x)))));
    add("limit: copy", 8.0, {
        let copied = &mut copied;
        Box::new(move || {
            in_parts(threads, flat.chunks(part).zip(copied.chunks_mut(part)), |(x, y)| y.copy_from_slice(x))
        })
    });
    add(
        "limit: copy to new memory",
        8.0,
        Box::new(|| {
            let mut fresh: Vec<f32> = vec![0.0; ELEMENTS];
            in_parts(threads, flat.chunks(part).zip(fresh.chunks_mut(part)), |(x, y)| y.copy_from_slice(x));
            drop(black_box(fresh));
        }),
    );

    for (name, scheme) in &grids {
        let q = scheme.apply(w)?;
        let bytes = q.nbytes() as f64 / ELEMENTS as f64;
        let mut memory = Some(q.clone());
        add(&format!("quantize f32 new, {name}"), 4.0 + bytes, Box::new(|| drop(black_box(scheme.apply(w)))));
        let again = move || memory = memory.take().and_then(|memory| scheme.apply_reusing(w, memory).ok());
        add(&format!("quantize f32, {name}"), 4.0 + bytes, Box::new(again));
        let (mut out, other) = (Array2::<f32>::ones((SIDE, SIDE)), q.clone());
        add(&format!("dequantize new, {name}"), 4.0 + bytes, Box::new(move || drop(black_box(other.dequantize()))));
        let again = move || drop(black_box(q.dequantize_into(&mut out)));
        add(&format!("dequantize, {name}"), 4.0 + bytes, Box::new(again));
    }
    for (name, scheme) in [&grids[0], &grids[1], &grids[3]] {
        for (kind, source) in [("f16", &halves as &dyn tersor::Weights), ("bf16", &brains)] {
            let mut memory = Some(scheme.apply(source)?);
            add(&format!("quantize {kind} new, {name}"), 3.0, Box::new(|| drop(black_box(scheme.apply(source)))));
            let again = move || memory = memory.take().and_then(|memory| scheme.apply_reusing(source, memory).ok());
            add(&format!("quantize {kind}, {name}"), 3.0, Box::new(again));
        }
    }
    add("min and max", 4.0, Box::new(|| drop(black_box(MinMax::new().observe(w)))));
    add("min and max, per channel 1", 4.0, Box::new(|| drop(black_box(MinMax::per_channel(Axis(1)).observe(w)))));
    add("histogram", 4.0, Box::new(|| drop(black_box(Histogram::new().observe(w)))));
    for bits in 1..=8 {
        let codes: Vec<u8> = codes.iter().map(|code| code >> (8 - bits)).collect();
        let packed = Codes::pack(bits, &codes)?;
        let bytes = 1.0 + f64::from(bits) / 8.0;
        let (mut out, other) = (codes.clone(), packed.clone());
        add(&format!("pack {bits} bits new"), bytes, Box::new(move || drop(black_box(Codes::pack(bits, &codes)))));
        add(&format!("unpack {bits} bits"), bytes, Box::new(move || drop(black_box(packed.unpack_into(&mut out)))));
        add(&format!("unpack {bits} bits to u16 new"), bytes + 1.0, Box::new(move || drop(black_box(other.to_vec()))));
    }
    let pruned = 8.0 + 1.0 / 8.0;
    for (name, pruner) in [("magnitude 0.5", &magnitude), ("magnitude 2:4", &two_of_four)] {
        if let Some((score, ranking)) = pruner.ranking() {
            let run = move || drop(black_box(ranking.mask(score, w)));
            add(&format!("mask, {name}"), 4.0 + 1.0 / 8.0, Box::new(run));
        }
    }
    for amount in [0.5, 0.9] {
        let name = format!("prune, magnitude {amount}");
        add(&name, pruned, Box::new(move || drop(black_box(Pruner::magnitude(amount).apply(w)))));
    }
    add("prune, magnitude 2:4", pruned, Box::new(|| drop(black_box(Pruner::magnitude(0.5).n_of_m(2, 4).apply(w)))));
    add("prune, threshold", pruned, Box::new(|| drop(black_box(Pruner::threshold(0.05).apply(w)))));
    add("mask of nonzeros", 4.0 + 1.0 / 8.0, Box::new(|| drop(black_box(Mask::of_nonzeros(w)))));
    let masked = &mut masked;
    add("mask.apply", pruned, Box::new(move || drop(black_box(mask.apply(masked)))));
    add("k-means, 4 bits, 4M", 1.0 + 1.0 / 8.0, Box::new(|| drop(black_box(Quantizer::kmeans(4).apply(&few)))));
    add(
        "exact k-means, 4 bits, 4M",
        1.0 + 1.0 / 8.0,
        Box::new(|| drop(black_box(Quantizer::kmeans(4).exact().apply(&few)))),
    );

    let mut passes = passes.list;
    let least = least_times(&mut passes);
    let rate = |index: usize| passes[index].bytes as f64 / least[index].as_secs_f64() / 1e9;
    println!(
        "\n{threads} thread(s), {}; ratio to the rate of reading, of copying, of copying to new memory",
        Isa::detect()?
    );
    for (index, pass) in passes.iter().enumerate() {
        let ratios = [0, 1, 2].map(|limit| rate(index) / rate(limit));
        let [read, copy, fresh] = ratios;
        let (name, ms) = (&pass.name, least[index].as_secs_f64() * 1e3);
        println!("{name:<42} {ms:>9.2} ms {:>7.2} GB/s {read:>6.2} {copy:>6.2} {fresh:>6.2}", rate(index));
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    #[cfg(feature = "rayon")]
    for threads in [1, std::thread::available_parallelism()?.get()] {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build()?.install(|| run(threads, &wanted))?;
    }
    #[cfg(not(feature = "rayon"))]
    run(1, &wanted)?;
    Ok(())
}
