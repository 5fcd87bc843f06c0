//! tersor's products beside those of other crates, in turns of one run: Markdown tables of the least and the median time,
//! and of theirs over ours by the least.
//!
//! `cargo run --release [-- [--threads N] [PART OF A NAME]..]`; a name is such as `int8 128x768x768`, rows x outputs x inputs.
//! Every peer is used as its documentation advises for speed: weights packed or quantized before, where it can, and as
//! many threads as ours (1, unless said). Before it is timed, its result is compared with ours.

mod f32;
mod int4;
mod int8;
#[path = "../../shapes.rs"]
mod shapes;
mod tract;
#[path = "../../turns.rs"]
mod turns;

use std::{error, iter, time::Duration};

use rand_xoshiro::{
    Xoshiro256PlusPlus,
    rand_core::{Rng, SeedableRng},
};
use rten_tensor::NdTensorView;
use shapes::Shape;
use turns::{Job, Times, in_turns};

pub type Result<T> = std::result::Result<T, Box<dyn error::Error + Send + Sync>>;

/// How long a case runs.
const PATIENCE: Duration = Duration::from_millis(1200);

/// One product by several crates, the first being ours.
pub(crate) struct Case {
    pub name: String,
    pub shape: Shape,
    /// The largest distance of a result from ours, over the length of ours.
    pub tolerance: f64,
    /// Makes them when their turn comes: all cases at once would fill the memory.
    pub contenders: Box<dyn FnOnce() -> Result<Vec<Contender>>>,
}

/// A product; if asked to, it says what came out.
type Product = Box<dyn FnMut(Option<&mut Vec<f32>>)>;

/// A product of one crate, again and again.
pub struct Contender {
    name: String,
    run: Product,
}

impl Contender {
    pub fn new(name: impl Into<String>, run: impl FnMut(Option<&mut Vec<f32>>) + 'static) -> Contender {
        Contender { name: name.into(), run: Box::new(run) }
    }

    fn result(&mut self) -> Vec<f32> {
        let mut result = Vec::new();
        (self.run)(Some(&mut result));
        result
    }
}

/// Numbers in [-1, 1), the same in every run.
pub fn numbers(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    iter::repeat_with(|| (random.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).take(count).collect()
}

/// The transpose of `n` rows of `k`, as rten takes it.
pub fn transposed<T>(w: &[T], n: usize, k: usize) -> NdTensorView<'_, T, 2> {
    NdTensorView::from_data([n, k], w).transposed()
}

/// |a - b| / |b|, in the sense of Euclid.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let length = |terms: &mut dyn Iterator<Item = f32>| terms.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    length(&mut a.iter().zip(b).map(|(a, b)| a - b)) / length(&mut b.iter().copied())
}

/// Compares results, then times; prints the rows of a table.
fn compare(case: Case) -> Result<Vec<(String, f64)>> {
    let mut contenders = (case.contenders)()?;
    let ours = contenders[0].result();
    for contender in contenders.iter_mut().skip(1) {
        let distance = distance(&contender.result(), &ours);
        // Not the other way round: NaN is far from everything.
        if !matches!(distance, 0.0.. if distance <= case.tolerance) {
            let (name, case) = (&contender.name, &case.name);
            return Err(format!("{case}: the result of {name} is {distance:.2e} from ours").into());
        }
    }
    let mut jobs: Vec<Job> = contenders.iter_mut().map(|contender| Job::new(|| (contender.run)(None))).collect();
    let times = in_turns(&mut jobs, PATIENCE);
    drop(jobs);
    let (m, n, k) = case.shape;
    let ratio = |time: &Times| time.least.as_secs_f64() / times[0].least.as_secs_f64();
    for (Contender { name, .. }, time) in contenders.iter().zip(&times) {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        println!(
            "| {} | {} | {:.1} | {:.1} | {:.1} | {:.2} |",
            case.name,
            name,
            micros(time.least),
            micros(time.median),
            time.rate(2e-9 * (m * n * k) as f64),
            ratio(time),
        );
    }
    let named = |contender: &Contender| format!("{}: {}", case.name, contender.name);
    Ok(contenders.iter().zip(&times).map(|(contender, time)| (named(contender), ratio(time))).collect())
}

fn run(threads: usize, parts: &[String]) -> Result<()> {
    let mut behind = Vec::new();
    for (title, cases) in [
        ("f32: a layer's product and its two gradients", f32::cases()),
        ("int8: the whole layer of ours, the bare product of theirs", int8::cases()),
        ("4 bits: the whole layer", int4::cases()),
    ] {
        let wanted = |case: &Case| parts.is_empty() || parts.iter().any(|part| case.name.contains(part.as_str()));
        let mut cases = cases.into_iter().filter(wanted).peekable();
        if cases.peek().is_none() {
            continue;
        }
        println!("\n**{title}, {threads} thread{}**\n", if threads == 1 { "" } else { "s" });
        println!("| product | by | least, us | median, us | Gop/s | theirs / ours |");
        println!("|---|---|--:|--:|--:|--:|");
        for case in cases {
            behind.extend(compare(case)?.into_iter().skip(1).filter(|(name, ratio)| {
                // The second way of ours is no peer.
                *ratio < 1.0 && !name.contains("tersor")
            }));
        }
    }
    println!("\nAhead of ours: {}", if behind.is_empty() { "none." } else { "" });
    behind.iter().for_each(|(name, ratio)| println!("- {name} ({ratio:.2})"));
    Ok(())
}

fn main() -> Result<()> {
    let (mut threads, mut parts) = (1, Vec::new());
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Long("threads") => threads = lexopt::ValueExt::parse(&arguments.value()?)?,
            lexopt::Arg::Value(part) => parts.push(part.to_string_lossy().into_owned()),
            other => return Err(other.unexpected().into()),
        }
    }
    for variable in ["RAYON_NUM_THREADS", "MATMUL_NUM_THREADS"] {
        // SAFETY: no other thread has been started.
        unsafe { std::env::set_var(variable, threads.to_string()) };
    }
    if threads > 1 {
        tract_linalg::multithread::set_default_executor(tract_linalg::multithread::Executor::multithread(threads));
    }
    // Within the pool, no product pays for waking it.
    rayon::ThreadPoolBuilder::new().num_threads(threads).build()?.install(|| run(threads, &parts))
}
