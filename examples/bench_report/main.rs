//! A short run of all kernels against what the machine can do, in under three minutes: a table in Markdown. `--help` lists
//! the options; `cargo bench` takes longer and has more cases.

mod cases;
#[path = "../../benches/shapes.rs"]
mod shapes;
#[path = "../../benches/turns.rs"]
mod turns;

use std::{error::Error, fmt, fs, hint::black_box, path::PathBuf, time::Duration};

use lexopt::{Arg, Parser, ValueExt};
use tersor::{Isa, limits};

use cases::{Limit, Planned, cases};
use turns::{Job, in_turns};

const HELP: &str = "\
Times the kernels beside the limits of this machine, in turns, and prints the ratios as a Markdown table.

usage: cargo run --release --example bench_report -- [OPTIONS]

  --json FILE   write the rows to FILE as well: an array of objects
  --only TEXT   only the cases in whose group and name TEXT occurs, e.g. int8/
  --help        this text

TERSOR_ISA=scalar|avx2|avxvnni|avx512vnni pins the instruction set.";

/// How long a case and its limit are run in turns.
const PATIENCE: Duration = Duration::from_millis(600);

/// Rounds of multiplications on registers that are timed at once, and the bytes that push all else from the caches.
const SPINS: usize = 1 << 11;
const FLUSH: usize = 1 << 27;

/// Bytes that a last cache may hold.
const CACHED: usize = 1 << 25;

/// What a case came to.
struct Row {
    group: &'static str,
    case: String,
    threads: usize,
    kernel: String,
    min_s: f64,
    median_s: f64,
    /// In `unit`s.
    rate: f64,
    unit: &'static str,
    limit: f64,
}

impl Row {
    fn of(planned: &Planned, isa: Isa) -> tersor::Result<Row> {
        let mut case = planned.prepare()?;
        // Of a cache no more than a part, which leaves room for what the case reads.
        let bytes = match case.limit.bytes() {
            bytes if bytes < CACHED && !case.cold => bytes.min(CACHED / 8),
            bytes => bytes,
        };
        let (threads, read) = (planned.threads, vec![1u8; bytes]);
        let flush = vec![1u8; if case.cold { FLUSH } else { 0 }];
        let cool = || _ = limits::read(isa, black_box(&flush));
        // All threads at once, since they may slow one another.
        let spin = |limit: fn(Isa, usize) -> usize| move || _ = rayon::broadcast(|_| limit(isa, SPINS));
        let limit: Box<dyn FnMut()> = match case.limit {
            Limit::Integers => Box::new(spin(limits::multiply)),
            Limit::Floats => Box::new(spin(limits::multiply_f32)),
            Limit::Reads(_) => Box::new(|| _ = limits::read(isa, black_box(&read))),
        };
        let limited = match case.limit {
            Limit::Integers => limits::multiply(isa, SPINS) * threads,
            Limit::Floats => limits::multiply_f32(isa, SPINS) * threads,
            Limit::Reads(_) => bytes,
        };
        let run = &mut case.run;
        let mut jobs = match case.cold {
            true => [Job::after(cool, limit), Job::after(cool, run)],
            false => [Job::new(limit), Job::new(run)],
        };
        let [limit, times] = in_turns(&mut jobs, PATIENCE)[..] else { unreachable!("a result for each job") };
        drop(jobs);
        Ok(Row {
            group: planned.group,
            case: planned.case.clone(),
            threads,
            kernel: case.kernel,
            min_s: times.least.as_secs_f64(),
            median_s: times.median.as_secs_f64(),
            rate: times.rate(case.work) / 1e9,
            unit: case.limit.unit(),
            limit: limit.rate(limited as f64) / 1e9,
        })
    }

    fn ratio(&self) -> f64 {
        self.rate / self.limit
    }

    fn json(&self) -> serde_json::Value {
        let Row { group, case, threads, kernel, min_s, median_s, rate, unit, limit } = self;
        serde_json::json!({
            "group": group, "case": case, "threads": threads, "kernel": kernel, "min_s": min_s, "median_s": median_s,
            "rate": rate, "unit": unit, "limit": limit, "ratio": self.ratio(),
        })
    }
}

/// A row of the table.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row { group, case, threads, kernel, min_s, median_s, rate, unit, limit } = self;
        let [min, median] = [min_s, median_s].map(|seconds| format!("{:.1?}", Duration::from_secs_f64(*seconds)));
        write!(f, "| {group} | {case} | {threads} | {kernel} | {min} | {median} | {rate:.1} {unit} | {limit:.1} | ")?;
        write!(f, "{:.3} |", self.ratio())
    }
}

#[derive(Default)]
struct Options {
    json: Option<PathBuf>,
    only: String,
}

impl Options {
    fn parse() -> Result<Option<Options>, lexopt::Error> {
        let (mut options, mut parser) = (Options::default(), Parser::from_env());
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Long("json") => options.json = Some(parser.value()?.into()),
                Arg::Long("only") => options.only = parser.value()?.string()?,
                Arg::Long("help") | Arg::Short('h') => {
                    println!("{HELP}");
                    return Ok(None);
                }
                other => return Err(other.unexpected()),
            }
        }
        Ok(Some(options))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(options) = Options::parse()? else { return Ok(()) };
    let isa = Isa::detect()?;
    println!("{}, {isa}, least of the times in turns:\n", processor());
    println!("| group | case | threads | kernel | least | median | rate | limit | ratio |");
    println!("|---|---|---|---|---|---|---|---|---|");
    let mut rows = Vec::new();
    let all = std::thread::available_parallelism()?.get();
    for planned in cases(isa, all).iter().filter(|planned| planned.name().contains(&options.only)) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(planned.threads).build()?;
        let row = pool.install(|| Row::of(planned, isa))?;
        println!("{row}");
        rows.push(row);
    }
    if let Some(file) = options.json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        // Beside the file first, so that none is ever half written.
        let beside = file.with_extension("part");
        fs::write(&beside, serde_json::to_string_pretty(&rows)?)?;
        fs::rename(&beside, &file)?;
    }
    Ok(())
}

/// What the system calls the processor.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name"));
    model.map_or(std::env::consts::ARCH.into(), |model| model.trim_start_matches([' ', '\t', ':']).into())
}
