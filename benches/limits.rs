//! What this machine can do at most, on one core: multiplications on registers, reads of each level of the memory.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use tersor::{Isa, limits};

/// Rounds of multiplications in an iteration: some 50 microseconds.
const ROUNDS: usize = 1 << 13;

type Multiply = fn(Isa, usize) -> usize;

const MULTIPLICATIONS: [(&str, Multiply); 2] = [("int8", limits::multiply), ("f32", limits::multiply_f32)];

/// Bytes that lie in a cache of the first, second and third level, and in none.
const READS: [(&str, usize); 4] = [("L1", 1 << 14), ("L2", 1 << 19), ("L3", 1 << 24), ("DRAM", 1 << 29)];

fn main() -> tersor::Result<()> {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for isa in Isa::available() {
        let mut group = criterion.benchmark_group(format!("limits/{isa}"));
        for (name, multiply) in MULTIPLICATIONS {
            group.throughput(Throughput::Elements(multiply(isa, ROUNDS) as u64));
            group.bench_function(BenchmarkId::from_parameter(name), |bencher| bencher.iter(|| multiply(isa, ROUNDS)));
        }
    }
    let isa = Isa::detect()?;
    let bytes = vec![1; 1 << 29];
    let mut group = criterion.benchmark_group("limits/reads");
    for (level, size) in READS {
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::from_parameter(level), |bencher| {
            bencher.iter(|| limits::read(isa, &bytes[..size]));
        });
    }
    group.finish();
    criterion.final_summary();
    Ok(())
}
