//! Timing in turns: what is compared runs in the same minutes, so that a slow one slows all. For benches, the report and
//! the comparison with other crates, which take this file with `#[path]`.

use std::time::{Duration, Instant};

/// Something to time.
pub(crate) struct Job<'a> {
    run: Box<dyn FnMut() + 'a>,
    /// What is done before each run, untimed; the run itself if nothing is said.
    before: Option<Box<dyn FnMut() + 'a>>,
}

impl<'a> Job<'a> {
    /// Run once untimed before each time, so that what it reads lies in the nearest cache that holds it.
    pub(crate) fn new(run: impl FnMut() + 'a) -> Job<'a> {
        Job { run: Box::new(run), before: None }
    }

    /// Run after something else, untimed, such as reading so much that the caches hold nothing else.
    #[allow(dead_code)] // not every program that takes this file has such jobs
    pub(crate) fn after(before: impl FnMut() + 'a, run: impl FnMut() + 'a) -> Job<'a> {
        Job { run: Box::new(run), before: Some(Box::new(before)) }
    }

    fn time(&mut self) -> Duration {
        self.before.as_mut().unwrap_or(&mut self.run)();
        let start = Instant::now();
        (self.run)();
        start.elapsed()
    }
}

/// The least time of a job, and the one in the middle.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) least: Duration,
    pub(crate) median: Duration,
}

impl Times {
    /// The most work done in a second, if a run does so much.
    pub(crate) fn rate(&self, work: f64) -> f64 {
        work / self.least.as_secs_f64()
    }
}

/// The fewest rounds of a comparison.
const ROUNDS: usize = 5;

/// Runs the jobs one after the other, again and again for so long.
pub(crate) fn in_turns(jobs: &mut [Job], patience: Duration) -> Vec<Times> {
    let mut times = vec![Vec::new(); jobs.len()];
    let start = Instant::now();
    for round in 0.. {
        if round >= ROUNDS && start.elapsed() > patience {
            break;
        }
        for (job, times) in jobs.iter_mut().zip(&mut times) {
            times.push(job.time());
        }
    }
    let of = |mut times: Vec<Duration>| {
        times.sort_unstable();
        Times { least: times[0], median: times[times.len() / 2] }
    };
    times.into_iter().map(of).collect()
}
