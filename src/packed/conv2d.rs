//! A convolution ready to run, through im2col.

use ndarray::{Array1, ArrayBase, ArrayD, ArrayView2, Axis, Data, Dimension, IxDyn, s};

use super::{Activations, AtRest, PackedWeights, at_rest::Whole};
use crate::{
    error::{Error, Result},
    kernels::{
        im2col::{Windows, im2row},
        parallel,
    },
};

/// A compressed convolution weight (out, in / groups, kh, kw), packed: every window of the input becomes a row, and the
/// rows are multiplied by a [`PackedWeights`] a group.
///
/// | setting | default | range |
/// |---|---|---|
/// | `stride`, `dilation` (height, width) | 1, 1 | at least 1 |
/// | `padding` (height, width), zeros on each side | 0, 0 | any |
///
/// ```
/// use ndarray::Array4;
/// use tersor::{Quantizer, packed::{Activations, PackedConv2d}};
///
/// let w = Array4::from_shape_fn((8, 3, 3, 3), |(o, i, y, x)| ((o * 27 + i * 9 + y * 3 + x) as f32).sin());
/// let q = Quantizer::uniform(8).symmetric().apply(&w)?;
/// let conv = PackedConv2d::new(&q, 1, Activations::Dynamic)?.stride([2, 2]).padding([1, 1]);
/// assert_eq!(conv.forward(&Array4::ones((2, 3, 9, 9)))?.shape(), [2, 8, 5, 5]);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PackedConv2d {
    groups: Vec<PackedWeights>,
    /// Input channels of a group.
    channels: usize,
    kernel: [usize; 2],
    stride: [usize; 2],
    padding: [usize; 2],
    dilation: [usize; 2],
}

/// Elements of windows laid out at a time, unless a single sample has more.
const PIECE: usize = 1 << 18;

/// Outputs of a group from which sparse products make up for laying windows out in rows; measured on Zen 5 with 10 to 256
/// channels, where 32 outputs broke even and 64 won from 70 % zeros on.
const SPARSE_OUTPUTS: usize = 48;

/// The most elements of an array that is made on the way.
const MOST_ELEMENTS: usize = 1 << 31;

impl PackedConv2d {
    /// Packs a weight for so many groups of channels that do not see one another.
    ///
    /// # Errors
    /// [`Error::Rank`] unless the weight has four axes; [`Error::Setting`] if the groups do not divide the outputs; those
    /// of [`PackedWeights::with`].
    pub fn new<'a>(weight: impl Into<AtRest<'a>>, groups: usize, activations: Activations) -> Result<Self> {
        let weight = Whole::of(weight.into());
        let &[outputs, channels, height, width] = weight.shape() else {
            let found = weight.shape().to_vec();
            return Err(Error::Rank { what: "a convolution weight", expected: "4", found });
        };
        if groups == 0 || !outputs.is_multiple_of(groups) {
            let bound = "at least 1 and a divisor of the output channels";
            return Err(Error::Setting { setting: "groups", value: groups as f64, bound });
        }
        let each = outputs / groups;
        let packed = (0..groups).map(|g| PackedWeights::rows(&weight, g * each..(g + 1) * each, activations.clone()));
        Ok(PackedConv2d {
            groups: packed.collect::<Result<_>>()?,
            channels,
            kernel: [height, width],
            stride: [1, 1],
            padding: [0, 0],
            dilation: [1, 1],
        })
    }

    /// Sets the steps between windows.
    pub fn stride(self, stride: [usize; 2]) -> Self {
        PackedConv2d { stride, ..self }
    }

    /// Sets the zeros on each side.
    pub fn padding(self, padding: [usize; 2]) -> Self {
        PackedConv2d { padding, ..self }
    }

    /// Sets the distance between the taps of a window.
    pub fn dilation(self, dilation: [usize; 2]) -> Self {
        PackedConv2d { dilation, ..self }
    }

    /// Adds a bias to every output channel; `None` takes it away.
    ///
    /// # Errors
    /// [`Error::Shape`] unless it has one number a channel, [`Error::NotFinite`].
    pub fn with_bias(mut self, bias: impl Into<Option<Array1<f32>>>) -> Result<Self> {
        let bias = bias.into();
        let each = self.groups[0].outputs();
        if let Some(bias) = bias.as_ref().filter(|bias| bias.len() != each * self.groups.len()) {
            let (expected, found) = (vec![each * self.groups.len()], vec![bias.len()]);
            return Err(Error::Shape { what: "the bias", expected, found });
        }
        let part = |g: usize| bias.as_ref().map(|bias| bias.slice(s![g * each..(g + 1) * each]).to_owned());
        let groups = self.groups.into_iter().enumerate().map(|(g, packed)| packed.with_bias(part(g)));
        self.groups = groups.collect::<Result<_>>()?;
        Ok(self)
    }

    /// The kernel that runs, as [`PackedWeights::kernel`].
    pub fn kernel(&self) -> &'static str {
        self.groups[0].kernel()
    }

    /// Whether a pruned f32 weight runs faster so than as a plain convolution.
    pub(crate) fn leaves_zeros_out_faster(&self) -> bool {
        self.groups[0].is_sparse() && self.groups[0].outputs() >= SPARSE_OUTPUTS
    }

    /// Bytes in memory while running.
    pub fn nbytes(&self) -> usize {
        self.groups.iter().map(PackedWeights::nbytes).sum()
    }

    /// The convolution of a batch of shape (batch, channels, height, width).
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Shape`] or [`Error::Setting`] for an input in which no window fits, or with other
    /// channels; those of [`PackedWeights::matmul`].
    pub fn forward<S, D>(&self, x: &ArrayBase<S, D>) -> Result<ArrayD<f32>>
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        let &[batch, channels, height, width] = x.shape() else {
            let found = x.shape().to_vec();
            return Err(Error::Rank { what: "the input of a convolution", expected: "4", found });
        };
        let expected = self.channels * self.groups.len();
        if channels != expected {
            let (expected, found) = (vec![batch, expected, height, width], x.shape().to_vec());
            return Err(Error::Shape { what: "the input of a convolution", expected, found });
        }
        if let Some(value) = self.stride.iter().chain(&self.dilation).find(|n| **n == 0) {
            let value = *value as f64;
            return Err(Error::Setting { setting: "stride or dilation", value, bound: "at least 1" });
        }
        if batch > 0 && x.is_empty() {
            return Err(Error::Empty { what: "the input of a convolution" });
        }
        let windows = Windows {
            channels: self.channels,
            input: [height, width],
            kernel: self.kernel,
            stride: self.stride,
            padding: self.padding,
            dilation: self.dilation,
        };
        let Some([rows, columns]) = windows.output() else {
            let bound = "at least 1, and such that a window fits into the padded input";
            return Err(Error::Setting { setting: "kernel height", value: self.kernel[0] as f64, bound });
        };
        let elements = |sizes: &[usize]| sizes.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        let (windows_of_sample, of_batch) =
            (elements(&[rows, columns, windows.row_len()]), elements(&[batch, self.outputs(), rows, columns]));
        if windows_of_sample.is_none_or(|n| n > MOST_ELEMENTS) || of_batch.is_none_or(|n| n > MOST_ELEMENTS) {
            let value = self.padding[0].max(self.padding[1]) as f64;
            let bound = "so small that the windows of a sample, and the output, have at most 2^31 elements";
            return Err(Error::Setting { setting: "padding", value, bound });
        }
        let (inputs, outputs) = (channels * height * width, self.outputs() * rows * columns);
        let x = x.as_standard_layout();
        let mut y = vec![0.0; batch * outputs];
        let samples = (PIECE / (rows * columns * windows.row_len()).max(1)).max(1);
        let pieces = x.as_slice().unwrap_or_default().chunks((samples * inputs).max(1));
        for (x, y) in pieces.zip(y.chunks_mut((samples * outputs).max(1))) {
            for group in 0..self.groups.len() {
                self.run_group(group, &windows, rows * columns, (x, inputs), (y, outputs))?;
            }
        }
        ArrayD::from_shape_vec(IxDyn(&[batch, self.outputs(), rows, columns]), y)
            .map_err(|_| Error::Empty { what: "the input of a convolution" })
    }

    fn outputs(&self) -> usize {
        self.groups[0].outputs() * self.groups.len()
    }

    /// One group of some samples, each of so many numbers in `x` and in `y`.
    fn run_group(
        &self,
        group: usize,
        windows: &Windows,
        positions: usize,
        (x, inputs): (&[f32], usize),
        (y, outputs): (&mut [f32], usize),
    ) -> Result<()> {
        let (packed, row) = (&self.groups[group], windows.row_len());
        let mut matrix = vec![0.0; x.len() / inputs * positions * row];
        parallel::for_each_chunk_mut(&mut matrix, positions * row, |sample, matrix| {
            let channels = inputs / self.groups.len();
            let image = &x[sample * inputs + group * channels..][..channels];
            im2row(image, windows, 0.0, matrix);
        });
        let matrix = ArrayView2::from_shape((matrix.len() / row, row), &matrix)
            .map_err(|_| Error::Empty { what: "the input of a convolution" })?;
        let product = packed.matmul(&matrix)?;
        // (positions, channels) of each sample to (channels, positions).
        for (y, product) in y.chunks_mut(outputs).zip(product.axis_chunks_iter(Axis(0), positions)) {
            let channels = y.chunks_mut(positions).skip(group * packed.outputs());
            for (y, product) in channels.zip(product.columns()) {
                y.iter_mut().zip(product).for_each(|(y, product)| *y = *product);
            }
        }
        Ok(())
    }
}
