//! A bench on one thread, with a pool of threads or without. For benches, which take this file with `#[path]`.

use std::error::Error;

/// Runs the bench.
pub(crate) fn on_one_thread(run: impl FnOnce() -> tersor::Result<()> + Send) -> Result<(), Box<dyn Error>> {
    #[cfg(feature = "rayon")]
    return Ok(rayon::ThreadPoolBuilder::new().num_threads(1).build()?.install(run)?);
    #[cfg(not(feature = "rayon"))]
    Ok(run()?)
}
