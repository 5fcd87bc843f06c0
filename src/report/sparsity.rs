//! What pruning left: per weight and in all.

use std::{fmt, time::Instant};

use ndarray::{ArrayBase, ArrayViewD, Axis, Data, Dimension};

use crate::{
    compressed::Compressed,
    error::{Error, Result},
    nn::Network,
};

/// One weight of a [`Sparsity`] report.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "io", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SparseRow {
    /// The weight's name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements.
    pub elements: usize,
    /// The elements that are kept: by its mask, or that are not zero if it has none.
    pub kept: usize,
    /// The least, mean and largest sparsity of an output (an index of the first axis).
    pub outputs_sparsity: [f64; 3],
    /// The sparsity of each output: a row of a linear layer's weight, an output channel of a convolution's.
    pub sparsity_of_outputs: Vec<f64>,
    /// The sparsity of each input (an index of the second axis).
    pub sparsity_of_inputs: Vec<f64>,
    /// Outputs of which nothing is left.
    pub empty_outputs: usize,
    /// Inputs (indices of the second axis) of which nothing is left.
    pub empty_inputs: usize,
    /// Bytes as dense f32.
    pub bytes_dense: usize,
    /// Bytes as dense f32 and a mask of a bit an element.
    pub bytes_masked: usize,
    /// Bytes as [`Compressed`] stores it.
    pub bytes_stored: usize,
    /// Multiplications of a forward pass with all weights; 0 if no input shape was given.
    pub multiplications: usize,
    /// Multiplications with the elements that are kept.
    pub multiplications_kept: usize,
}

impl SparseRow {
    /// The share removed.
    pub fn sparsity(&self) -> f64 {
        1.0 - self.kept as f64 / self.elements.max(1) as f64
    }
}

/// Milliseconds of a forward pass, the least of several in turns.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "io", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Timing {
    /// The network as it is, zeros multiplied as any number.
    pub dense_ms: f64,
    /// Packed: on kernels that leave the zeros out where that pays.
    pub packed_ms: f64,
}

/// Sparsity, bytes and multiplications of a network's weights. `Display` is a table.
///
/// ```
/// use tersor::{Pruner, Recipe, nn::Network, report::Sparsity};
///
/// let mut network = Network::builder(1).linear(64, 32).relu().linear(32, 10).build()?;
/// Recipe::new().prune("*", Pruner::magnitude(0.75)).apply(&mut network)?;
/// let report = Sparsity::new(&network, &[1, 64])?;
/// println!("{report}");
/// assert_eq!(report.sparsity(), 0.75);
/// assert_eq!(report.rows[0].multiplications_kept, 64 * 32 / 4);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "io", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Sparsity {
    /// One a weight that can be pruned, in the network's order.
    pub rows: Vec<SparseRow>,
    /// Times, once they are measured by [`timed`](Sparsity::timed).
    pub timing: Option<Timing>,
}

impl Sparsity {
    /// Looks at a network, for a batch of this shape.
    ///
    /// # Errors
    /// [`Error::Layer`](crate::Error::Layer) for a shape that a layer does not take.
    pub fn new(network: &Network, input_shape: &[usize]) -> Result<Sparsity> {
        let mut report = Sparsity::of_weights(network)?;
        for (row, count) in report.rows.iter_mut().zip(network.multiplications(input_shape)?) {
            (row.multiplications, row.multiplications_kept) = (count.dense, count.kept);
        }
        Ok(report)
    }

    /// Looks at the weights alone: no multiplications.
    pub(crate) fn of_weights(network: &Network) -> Result<Sparsity> {
        let stored = Compressed::new(network)?;
        let row = |name: String| {
            let weights = network.parameter(&name)?;
            let kept: ndarray::ArrayD<bool> = match network.mask(&name)? {
                Some(mask) => mask.to_array(),
                None => weights.mapv(|w| w != 0.0),
            };
            let outputs: Vec<f64> = sparsities(kept.view(), 0);
            let ends = outputs.iter().fold([1.0, 0.0], |[least, most]: [f64; 2], s| [least.min(*s), most.max(*s)]);
            let inputs = sparsities(kept.view(), 1);
            let empty = |sparsities: &[f64]| sparsities.iter().filter(|sparsity| **sparsity == 1.0).count();
            let elements = weights.len();
            Ok(SparseRow {
                shape: weights.shape().to_vec(),
                elements,
                kept: kept.iter().filter(|kept| **kept).count(),
                outputs_sparsity: [ends[0], outputs.iter().sum::<f64>() / outputs.len().max(1) as f64, ends[1]],
                empty_outputs: empty(&outputs),
                empty_inputs: empty(&inputs),
                sparsity_of_outputs: outputs,
                sparsity_of_inputs: inputs,
                bytes_dense: 4 * elements,
                bytes_masked: 4 * elements + elements.div_ceil(8),
                bytes_stored: stored.tensors().tensor(&name)?.nbytes(),
                multiplications: 0,
                multiplications_kept: 0,
                name,
            })
        };
        let rows = network.maskable().into_iter().map(row).collect::<Result<_>>()?;
        Ok(Sparsity { rows, timing: None })
    }

    /// Measures a forward pass of these inputs, as it is and packed: the least of `rounds`, in turns.
    ///
    /// # Errors
    /// Those of a forward pass and of packing; [`Error::Setting`] for no rounds.
    pub fn timed<S, D>(mut self, network: &Network, inputs: &ArrayBase<S, D>, rounds: usize) -> Result<Sparsity>
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        if rounds == 0 {
            return Err(Error::Setting { setting: "rounds", value: 0.0, bound: "at least 1" });
        }
        let packed = Compressed::new(network)?.pack()?;
        let mut timing = Timing { dense_ms: f64::INFINITY, packed_ms: f64::INFINITY };
        for _ in 0..rounds {
            let start = Instant::now();
            std::hint::black_box(network.forward(inputs)?);
            timing.dense_ms = timing.dense_ms.min(start.elapsed().as_secs_f64() * 1e3);
            let start = Instant::now();
            std::hint::black_box(packed.forward(inputs)?);
            timing.packed_ms = timing.packed_ms.min(start.elapsed().as_secs_f64() * 1e3);
        }
        self.timing = Some(timing);
        Ok(self)
    }

    /// The report as JSON: an object with `rows` and `timing`.
    #[cfg(feature = "io")]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).unwrap_or_default()
    }

    fn sum(&self, of: impl Fn(&SparseRow) -> usize) -> usize {
        self.rows.iter().map(of).sum()
    }

    /// The share of all weights that is removed.
    pub fn sparsity(&self) -> f64 {
        1.0 - self.sum(|row| row.kept) as f64 / self.sum(|row| row.elements).max(1) as f64
    }

    /// Multiplications with all weights, and with those that are kept.
    pub fn multiplications(&self) -> (usize, usize) {
        (self.sum(|row| row.multiplications), self.sum(|row| row.multiplications_kept))
    }

    /// Bytes of all weights as dense f32, and as [`Compressed`] stores them.
    pub fn bytes(&self) -> (usize, usize) {
        (self.sum(|row| row.bytes_dense), self.sum(|row| row.bytes_stored))
    }
}

/// The sparsity of every index of an axis; none where there is no such axis.
fn sparsities(kept: ArrayViewD<'_, bool>, axis: usize) -> Vec<f64> {
    if axis >= kept.ndim() {
        return Vec::new();
    }
    let sparsity =
        |part: ArrayViewD<'_, bool>| 1.0 - part.iter().filter(|kept| **kept).count() as f64 / part.len().max(1) as f64;
    kept.axis_iter(Axis(axis)).map(sparsity).collect()
}

impl fmt::Display for Sparsity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.len()).fold(6, usize::max);
        writeln!(
            f,
            "{:width$}  {:>9}  {:>9}  sparsity  outputs least/most  {:>9}  {:>9}  {:>12}  {:>12}",
            "weight", "elements", "kept", "bytes", "stored", "multiplied", "of"
        )?;
        for row in &self.rows {
            let [least, _, most] = row.outputs_sparsity.map(|sparsity| 100.0 * sparsity);
            let sparsity = 100.0 * row.sparsity();
            writeln!(
                f,
                "{:width$}  {:9}  {:9}  {sparsity:6.2} %  {least:6.1} % /{most:6.1} %  {:9}  {:9}  {:12}  {:12}",
                row.name,
                row.elements,
                row.kept,
                row.bytes_dense,
                row.bytes_stored,
                row.multiplications_kept,
                row.multiplications
            )?;
        }
        let ((dense, stored), (all, kept), sparsity) = (self.bytes(), self.multiplications(), 100.0 * self.sparsity());
        let (elements, left) = (self.sum(|row| row.elements), self.sum(|row| row.kept));
        write!(
            f,
            "{:width$}  {elements:9}  {left:9}  {sparsity:6.2} %  {:18}  {dense:9}  {stored:9}  {kept:12}  {all:12}",
            "all", ""
        )?;
        match self.timing {
            Some(Timing { dense_ms, packed_ms }) => write!(f, "\n{dense_ms:.3} ms dense, {packed_ms:.3} ms packed"),
            None => Ok(()),
        }
    }
}
