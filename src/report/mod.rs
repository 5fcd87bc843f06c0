//! What compression did: per layer and in all, as text and as JSON.

mod sparsity;

use std::fmt;

pub use sparsity::{SparseRow, Sparsity, Timing};

use crate::{
    compressed::Compressed,
    error::Result,
    nn::Network,
    tensor::{Distortion, Stored},
};

/// One tensor of a [`Report`].
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "io", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Row {
    /// The tensor's name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// The scheme that made it, in words; empty where it is as it was.
    pub scheme: String,
    /// What its codes stand for, in words; empty where it is as it was.
    pub grid: String,
    /// Bits at rest per element, scales, zero points and codebooks counted.
    pub bits_per_weight: f64,
    /// Bytes at rest.
    pub bytes: usize,
    /// Bytes as f32.
    pub bytes_f32: usize,
    /// Signal to quantization noise in dB; `None` where nothing was lost.
    pub sqnr_db: Option<f64>,
    /// The largest absolute error.
    pub largest_error: f64,
    /// The kernel that it runs on; empty where it runs in floats.
    pub kernel: String,
}

/// Sizes, errors and kernels of a compressed network, tensor by tensor. `Display` is a table.
///
/// ```
/// use tersor::{Quantizer, Recipe, Report, nn::Network};
///
/// let network = Network::builder(1).linear(64, 32).relu().linear(32, 10).build()?;
/// let report = Report::new(&network, &Recipe::new().quantize("*", Quantizer::uniform(8)).apply(&network)?)?;
/// println!("{report}");
/// assert!(report.rows[0].sqnr_db.unwrap() > 35.0 && report.ratio() > 3.5);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "io", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Report {
    /// One a tensor, in the network's order.
    pub rows: Vec<Row>,
}

impl Report {
    /// Compares a compressed network with the one that it was made from.
    ///
    /// # Errors
    /// [`Error::UnknownName`](crate::Error::UnknownName) or [`Error::Shape`](crate::Error::Shape) if the two are not of
    /// one structure; those of [`Compressed::pack`].
    pub fn new(network: &Network, compressed: &Compressed) -> Result<Report> {
        let kernels = compressed.pack()?.kernels();
        let kernel = |tensor: &str| {
            let layer = tensor.strip_suffix(".weight").unwrap_or(tensor);
            kernels.iter().find(|(name, _)| name == layer).map_or(String::new(), |(_, kernel)| (*kernel).to_owned())
        };
        let mut rows = Vec::new();
        for (name, original) in network.state() {
            let stored = compressed.tensors().tensor(&name)?;
            let quantized = compressed.quantized(&name);
            let lost = match &quantized {
                Some(q) => q.distortion(&original).map_err(|e| e.in_layer(&name))?,
                None => Distortion { mse: 0.0, sqnr_db: f64::INFINITY, largest: 0.0 },
            };
            let grid = match stored {
                Stored::Quantized(q) => q.grid().to_string(),
                Stored::Sparse(sparse) => sparse.to_string(),
                _ => String::new(),
            };
            rows.push(Row {
                shape: stored.shape().to_vec(),
                scheme: compressed.scheme(&name).unwrap_or_default().to_owned(),
                grid,
                bits_per_weight: stored.nbytes() as f64 * 8.0 / original.len().max(1) as f64,
                bytes: stored.nbytes(),
                bytes_f32: 4 * original.len(),
                sqnr_db: lost.sqnr_db.is_finite().then_some(lost.sqnr_db),
                largest_error: lost.largest,
                kernel: kernel(&name),
                name,
            });
        }
        Ok(Report { rows })
    }

    /// Bytes at rest of all tensors.
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(|row| row.bytes).sum()
    }

    /// Bytes of all tensors as f32.
    pub fn bytes_f32(&self) -> usize {
        self.rows.iter().map(|row| row.bytes_f32).sum()
    }

    /// How many times smaller than f32.
    pub fn ratio(&self) -> f64 {
        self.bytes_f32() as f64 / self.bytes().max(1) as f64
    }

    /// The report as JSON: an object with `rows`.
    #[cfg(feature = "io")]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grid = self.rows.iter().map(|row| row.grid.len()).max().unwrap_or(0).max(4);
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(6);
        writeln!(
            f,
            "{:width$}  {:>16}  {:>6}  {:>9}  {:>7}  {:>9}  {:16}  {:grid$}  scheme",
            "tensor", "shape", "bits", "bytes", "SQNR dB", "max error", "kernel", "grid"
        )?;
        for row in &self.rows {
            let shape = row.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
            let sqnr = row.sqnr_db.map_or("-".to_owned(), |db| format!("{db:.2}"));
            let kernel = if row.kernel.is_empty() { "f32" } else { &row.kernel };
            writeln!(
                f,
                "{:width$}  {shape:>16}  {:6.3}  {:9}  {sqnr:>7}  {:9.2e}  {kernel:16}  {:grid$}  {}",
                row.name, row.bits_per_weight, row.bytes, row.largest_error, row.grid, row.scheme
            )?;
        }
        writeln!(f, "{} bytes, {:.2} times smaller than {} as f32", self.bytes(), self.ratio(), self.bytes_f32())
    }
}
