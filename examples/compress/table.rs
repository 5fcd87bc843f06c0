//! What came out, as a table for people and as JSON for programs.

use std::{
    fmt,
    fs::{self, File},
    io::Write,
    path::Path,
};

use serde::Serialize;

use crate::Problem;

/// One compressed network.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) network: String,
    pub(crate) technique: String,
    pub(crate) bits: u8,
    /// The share of weights that are zero or gone.
    pub(crate) sparsity: f64,
    /// Percent of the test set, mean over the seeds.
    pub(crate) accuracy: f64,
    /// Sample standard deviation over the seeds; 0 for a single one.
    pub(crate) accuracy_sd: f64,
    /// At rest, scales, codebooks and biases counted.
    pub(crate) bytes: usize,
    /// How many times smaller than f32.
    pub(crate) ratio: f64,
    pub(crate) kernel: String,
    /// Milliseconds for a batch.
    pub(crate) ms: f64,
    /// The same batch in f32, measured in turns.
    pub ms_f32: f64,
}

/// Rows, one below the other, with a gap where the bits change.
pub(crate) struct Table<'a>(pub(crate) &'a [Row]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |text: fn(&Row) -> usize, least: usize| self.0.iter().map(text).fold(least, usize::max);
        let network = width(|row| row.network.chars().count(), 7);
        let technique = width(|row| row.technique.len(), 9);
        let kernel = width(|row| row.kernel.len(), 6);
        writeln!(
            f,
            "{:network$}  {:technique$}  bits  zeros, %  accuracy, %   {:>7}  ratio  {:kernel$}  {:>6}  {:>6}",
            "network", "technique", "bytes", "kernel", "ms", "f32 ms"
        )?;
        let mut bits = None;
        for row in self.0 {
            if bits.replace(row.bits).is_some_and(|last| last != row.bits) {
                writeln!(f)?;
            }
            let Row { accuracy, accuracy_sd, bytes, ratio, ms, ms_f32, .. } = row;
            writeln!(
                f,
                "{:network$}  {:technique$}  {:4}  {:8.1}  {accuracy:5.2} ± {accuracy_sd:<5.2}  {bytes:7}  {ratio:5.2}  {:kernel$}  {ms:6.3}  {ms_f32:6.3}",
                row.network,
                row.technique,
                row.bits,
                100.0 * row.sparsity,
                row.kernel
            )?;
        }
        Ok(())
    }
}

/// Writes the rows as an array of objects; the file is old or new, never in between.
pub(crate) fn write_json(rows: &[Row], path: &Path) -> Result<(), Problem> {
    let json = serde_json::to_string_pretty(rows)? + "\n";
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}.tmp", std::process::id()));
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(json.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|e| {
        fs::remove_file(&temporary).ok();
        format!("{}: {e}", path.display()).into()
    })
}
