//! Timing in turns: what is compared runs in the same minutes, so that a slow one slows all. For the benches, the report
//! and the comparison with other crates, which take this file with `#[path]`.

use std::time::{Duration, Instant};

/// Something to time.
pub struct Job<'a> {
    pub name: String,
    pub run: Box<dyn FnMut() + 'a>,
}

impl<'a> Job<'a> {
    pub fn new(name: impl Into<String>, run: impl FnMut() + 'a) -> Job<'a> {
        Job { name: name.into(), run: Box::new(run) }
    }
}

/// The least time of a job, and the one in the middle.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    pub least: Duration,
    pub median: Duration,
}

impl Times {
    /// Of so much work in a run: the most done in a second.
    pub fn rate(&self, work: f64) -> f64 {
        work / self.least.as_secs_f64()
    }
}

/// The fewest rounds of a comparison.
const ROUNDS: usize = 5;

/// Runs the jobs one after the other, for so long; each once untimed before, so that what it reads lies where it should.
pub fn in_turns(jobs: &mut [Job], patience: Duration) -> Vec<Times> {
    let mut times = vec![Vec::new(); jobs.len()];
    let start = Instant::now();
    while times.iter().any(|times: &Vec<Duration>| times.len() < ROUNDS) || start.elapsed() < patience {
        for (job, times) in jobs.iter_mut().zip(&mut times) {
            (job.run)();
            let start = Instant::now();
            (job.run)();
            times.push(start.elapsed());
        }
    }
    let of = |mut times: Vec<Duration>| {
        times.sort_unstable();
        Times { least: times[0], median: times[times.len() / 2] }
    };
    times.into_iter().map(of).collect()
}
