//! Two-dimensional convolution: im2col, then one matrix product a sample and group.

use ndarray::{Array1, Array4, ArrayD, ArrayView1, ArrayView4, ArrayViewD};

use super::{
    dense::{array, row_major, samples_per_piece, slice, sum_over_samples},
    layer::{Backward, OwnArray, OwnArrayMut, Role},
    product::{add_product, matrix},
    shape::{Size2d, at_least_one, elements, expect_finite, expect_images, expect_shape, expect_windows},
};
use crate::{
    Error, Result,
    kernels::{
        im2col::{Windows, col2im, im2col},
        parallel,
    },
    random::Random,
    tensor::Mask,
};

/// A convolution (cross-correlation, as everywhere in deep learning) over (batch, channels, height, width).
///
/// `y[n, o, i, j] = b[o] + Σ W[o, c, u, v] x[n, c', i·stride + u·dilation - padding, j·stride + v·dilation - padding]`
/// with `c'` counted within the group of `o`; taps in the padding read 0. The weight is (out, in / groups, kh, kw).
/// The output height is `⌊(height + 2·padding - dilation·(kh - 1) - 1) / stride⌋ + 1`, the width likewise.
///
/// | setting | default | range |
/// |---|---|---|
/// | `stride` | 1 | at least 1 |
/// | `padding` | 0 | any |
/// | `dilation` | 1 | at least 1 |
/// | `groups` | 1 | divides both channel counts |
/// | `without_bias` | has a bias | |
///
/// Initial values are those of PyTorch: weight and bias uniform in ±1/√(in / groups · kh · kw).
///
/// ```
/// use ndarray::{Array4, array};
/// use tersor::nn::{Conv2d, Layer};
///
/// let blur = Layer::from(Conv2d::from_arrays(Array4::from_elem((1, 1, 1, 3), 0.5), None)?.padding((0, 1)));
/// let image = array![[[[2.0, 4.0, 6.0]]]];
/// assert_eq!(blur.forward(&image)?, array![[[[3.0, 6.0, 5.0]]]].into_dyn());
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Conv2d {
    /// Steps between windows, (height, width).
    pub stride: [usize; 2],
    /// Zeros on each side, (height, width).
    pub padding: [usize; 2],
    /// Distance between the taps of a window, (height, width).
    pub dilation: [usize; 2],
    /// Groups of channels that do not see one another.
    pub groups: usize,
    in_channels: usize,
    out_channels: usize,
    kernel: [usize; 2],
    weight: Array4<f32>,
    bias: Option<Array1<f32>>,
    /// What of the weight is kept; the rest is zero and stays so in training.
    pub(super) mask: Option<Mask>,
}

impl Conv2d {
    /// A convolution with a bias; its arrays are drawn when the network is built.
    pub fn new(in_channels: usize, out_channels: usize, kernel: impl Into<Size2d>) -> Conv2d {
        Conv2d {
            stride: [1, 1],
            padding: [0, 0],
            dilation: [1, 1],
            groups: 1,
            in_channels,
            out_channels,
            kernel: kernel.into().0,
            weight: Array4::zeros([0; 4]),
            bias: Some(Array1::zeros(0)),
            mask: None,
        }
    }

    /// A trained convolution of one group; the setters below give it the rest, groups included.
    ///
    /// # Errors
    /// [`Error::Empty`] for a weight without elements, [`Error::Shape`] for a bias of another length than the
    /// weight's first axis, [`Error::NotFinite`].
    pub fn from_arrays(weight: Array4<f32>, bias: Option<Array1<f32>>) -> Result<Conv2d> {
        elements("weight of conv2d", weight.shape())?;
        expect_finite("weight of conv2d", &weight)?;
        if let Some(bias) = &bias {
            expect_finite("bias of conv2d", bias)?;
        }
        let (out_channels, in_channels, height, width) = weight.dim();
        let (weight, bias) = (row_major(weight), bias.map(row_major));
        let conv = Conv2d { weight, bias, ..Conv2d::new(in_channels, out_channels, (height, width)) };
        conv.check().map(|()| conv)
    }

    /// Sets the steps between windows.
    pub fn stride(self, stride: impl Into<Size2d>) -> Conv2d {
        Conv2d { stride: stride.into().0, ..self }
    }

    /// Sets the zeros on each side.
    pub fn padding(self, padding: impl Into<Size2d>) -> Conv2d {
        Conv2d { padding: padding.into().0, ..self }
    }

    /// Sets the distance between taps.
    pub fn dilation(self, dilation: impl Into<Size2d>) -> Conv2d {
        Conv2d { dilation: dilation.into().0, ..self }
    }

    /// Sets the number of groups. A trained weight is (out, in / groups, ..), so this decides its input channels.
    pub fn groups(mut self, groups: usize) -> Conv2d {
        if !self.weight.is_empty() {
            self.in_channels = self.weight.dim().1.saturating_mul(groups);
        }
        Conv2d { groups, ..self }
    }

    /// Takes the bias away.
    pub fn without_bias(self) -> Conv2d {
        Conv2d { bias: None, ..self }
    }

    /// Channels of an input.
    pub fn in_channels(&self) -> usize {
        self.in_channels
    }

    /// Channels of an output.
    pub fn out_channels(&self) -> usize {
        self.out_channels
    }

    /// Taps of a window, (height, width).
    pub fn kernel(&self) -> [usize; 2] {
        self.kernel
    }

    /// The weight, (out, in / groups, kh, kw).
    pub fn weight(&self) -> ArrayView4<'_, f32> {
        self.weight.view()
    }

    /// The bias, (out).
    pub fn bias(&self) -> Option<ArrayView1<'_, f32>> {
        self.bias.as_ref().map(|bias| bias.view())
    }

    fn weight_shape(&self) -> [usize; 4] {
        [self.out_channels, self.in_channels / self.groups, self.kernel[0], self.kernel[1]]
    }

    fn check_settings(&self) -> Result<()> {
        at_least_one("in_channels of conv2d", self.in_channels)?;
        at_least_one("out_channels of conv2d", self.out_channels)?;
        at_least_one("groups of conv2d", self.groups)?;
        for axis in 0..2 {
            at_least_one("kernel of conv2d", self.kernel[axis])?;
            at_least_one("stride of conv2d", self.stride[axis])?;
            at_least_one("dilation of conv2d", self.dilation[axis])?;
        }
        if ![self.in_channels, self.out_channels].iter().all(|channels| channels.is_multiple_of(self.groups)) {
            let bound = "a divisor of in_channels and of out_channels";
            return Err(Error::Setting { setting: "groups of conv2d", value: self.groups as f64, bound });
        }
        elements("weight of conv2d", &self.weight_shape()).map(|_| ())
    }

    pub(super) fn initialize(&mut self, random: &mut Random) -> Result<()> {
        self.check_settings()?;
        if self.weight.is_empty() {
            let [out, group, height, width] = self.weight_shape();
            let bound = 1.0 / ((group * height * width) as f32).sqrt();
            self.weight = Array4::from_shape_simple_fn(self.weight_shape(), || random.within(bound));
            self.bias = self.bias.take().map(|_| Array1::from_shape_simple_fn(out, || random.within(bound)));
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<()> {
        self.check_settings()?;
        expect_shape("weight of conv2d", &self.weight_shape(), self.weight.shape())?;
        match &self.bias {
            Some(bias) => expect_shape("bias of conv2d", &[self.out_channels], bias.shape()),
            None => Ok(()),
        }
    }

    /// The windows of one group over an image of this height and width.
    fn windows(&self, input: [usize; 2]) -> Windows {
        Windows {
            channels: self.in_channels / self.groups,
            input,
            kernel: self.kernel,
            stride: self.stride,
            padding: self.padding,
            dilation: self.dilation,
        }
    }

    pub(super) fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let [batch, channels, height, width] = expect_images("input of conv2d", input)?;
        if channels != self.in_channels {
            let expected = vec![batch, self.in_channels, height, width];
            return Err(Error::Shape { what: "input of conv2d", expected, found: input.to_vec() });
        }
        let windows = self.windows([height, width]);
        let [rows, columns] = expect_windows("padded input of conv2d, at least one window in size,", &windows)?;
        elements("windows of conv2d", &[rows, columns, windows.row_len()])?;
        Ok(vec![batch, self.out_channels, rows, columns])
    }

    pub(super) fn forward(&self, x: ArrayViewD<'_, f32>, shape: &[usize]) -> ArrayD<f32> {
        let sizes = Sizes::new(self, x.shape());
        let (x, weight) = (slice(&x), self.weight.as_slice().expect("row-major"));
        let samples = samples_per_piece(shape[0], sizes.output * sizes.row);
        let mut y = vec![0.0; shape.iter().product()];
        parallel::for_each_chunk_mut(&mut y, samples * sizes.output, |index, piece| {
            let mut rows = vec![0.0; sizes.positions * sizes.row];
            for (y, x) in piece.chunks_mut(sizes.output).zip(x.chunks(sizes.input).skip(index * samples)) {
                if let Some(bias) = &self.bias {
                    y.chunks_mut(sizes.positions).zip(bias).for_each(|(y, bias)| y.fill(*bias));
                }
                let groups = y.chunks_mut(sizes.output / self.groups).zip(x.chunks(sizes.input / self.groups));
                for ((y, x), weight) in groups.zip(weight.chunks(weight.len() / self.groups)) {
                    im2col(x, &sizes.windows, 0.0, &mut rows);
                    add_product(matrix(weight, sizes.row), matrix(&rows, sizes.row).reversed_axes(), y);
                }
            }
        });
        array(shape, y)
    }

    /// With `R` the im2col rows of a sample: `dW = Σ dy R`, `db = Σ dy`, `dx = col2im(dyᵀ W)`.
    pub(super) fn backward(&self, x: ArrayViewD<'_, f32>, dy: ArrayD<f32>, wants_input: bool) -> Backward {
        let (shape, dy) = (x.shape().to_vec(), dy.view());
        let sizes = Sizes::new(self, &shape);
        let (x, dy, weight) = (slice(&x), slice(&dy), self.weight.as_slice().expect("row-major"));
        let (dx, [dw, db]) = sum_over_samples(shape[0], sizes.output * sizes.row, |samples| {
            let mut rows = vec![0.0; sizes.positions * sizes.row];
            let mut dx = vec![0.0; if wants_input { samples.len() * sizes.input } else { 0 }];
            let (mut dw, mut db) = (vec![0.0; weight.len()], vec![0.0; self.out_channels]);
            for (i, sample) in samples.enumerate() {
                let dy = &dy[sample * sizes.output..][..sizes.output];
                for (db, dy) in db.iter_mut().zip(dy.chunks(sizes.positions)) {
                    *db += dy.iter().map(|dy| f64::from(*dy)).sum::<f64>() as f32;
                }
                for group in 0..self.groups {
                    let part = |len: usize| group * (len / self.groups)..(group + 1) * (len / self.groups);
                    let dy = matrix(&dy[part(sizes.output)], sizes.positions);
                    im2col(&x[sample * sizes.input..][part(sizes.input)], &sizes.windows, 0.0, &mut rows);
                    add_product(dy, matrix(&rows, sizes.row), &mut dw[part(weight.len())]);
                    if wants_input {
                        rows.fill(0.0);
                        add_product(dy.reversed_axes(), matrix(&weight[part(weight.len())], sizes.row), &mut rows);
                        col2im(&rows, &sizes.windows, &mut dx[i * sizes.input..][part(sizes.input)]);
                    }
                }
            }
            (dx, [dw, db])
        });
        let mut parameters = vec![("weight".into(), array(self.weight.shape(), dw))];
        if self.bias.is_some() {
            parameters.push(("bias".into(), array(&[self.out_channels], db)));
        }
        (wants_input.then(|| array(&shape, dx)), parameters)
    }

    pub(super) fn arrays(&self) -> Vec<OwnArray<'_>> {
        let weight = ("weight", Role::Parameter, self.weight.view().into_dyn());
        let bias = self.bias.as_ref().map(|bias| ("bias", Role::Parameter, bias.view().into_dyn()));
        [Some(weight), bias].into_iter().flatten().collect()
    }

    pub(super) fn arrays_mut(&mut self) -> Vec<OwnArrayMut<'_>> {
        let weight = ("weight", Role::Parameter, self.weight.view_mut().into_dyn());
        let bias = self.bias.as_mut().map(|bias| ("bias", Role::Parameter, bias.view_mut().into_dyn()));
        [Some(weight), bias].into_iter().flatten().collect()
    }
}

/// Lengths within the slices of one pass.
struct Sizes {
    windows: Windows,
    /// Elements of an im2col row.
    row: usize,
    /// Windows of an image.
    positions: usize,
    /// Elements of an input sample.
    input: usize,
    /// Elements of an output sample.
    output: usize,
}

impl Sizes {
    /// For an input whose shape was checked.
    fn new(conv: &Conv2d, input: &[usize]) -> Sizes {
        let windows = conv.windows([input[2], input[3]]);
        let positions = windows.output().map_or(0, |[rows, columns]| rows * columns);
        Sizes {
            windows,
            row: windows.row_len(),
            positions,
            input: input[1..].iter().product(),
            output: conv.out_channels * positions,
        }
    }
}
