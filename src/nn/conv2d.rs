//! Two-dimensional convolution: im2col of a lot of samples, then one matrix product a group.

use ndarray::{Array1, Array4, ArrayD, ArrayView1, ArrayView2, ArrayView4, ArrayViewD};

use super::{
    dense::{array, row_major, samples_per_piece, slice, sum_over_samples},
    layer::{Backward, OwnArray, OwnArrayMut, Role},
    product::{add_product, matrix},
    shape::{Size2d, at_least_one, elements, expect_images, expect_shape, expect_windows},
};
use crate::{
    Error, Result,
    kernels::{
        im2col::{Windows, col2im, im2col},
        parallel,
    },
    random::Random,
    tensor::{Mask, expect_finite},
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
            let mut room = Room::default();
            let own = piece.len() / sizes.output * sizes.input;
            let lots = x[index * samples * sizes.input..][..own].chunks(sizes.lot * sizes.input);
            for (y, x) in piece.chunks_mut(sizes.lot * sizes.output).zip(lots) {
                let width = y.len() / sizes.output * sizes.positions;
                for group in 0..self.groups {
                    let part = |len: usize| group * (len / self.groups)..(group + 1) * (len / self.groups);
                    let columns = sizes.columns(x, width, (group, self.groups), &mut room.columns);
                    let products = room.products.start(self.out_channels / self.groups * width);
                    if let Some(bias) = &self.bias {
                        let own = bias.iter().skip(part(self.out_channels).start);
                        products.chunks_mut(width).zip(own).for_each(|(row, bias)| row.fill(*bias));
                    }
                    add_product(matrix(&weight[part(weight.len())], sizes.row), columns, products);
                    for (sample, y) in y.chunks_mut(sizes.output).enumerate() {
                        let rows = y[part(sizes.output)].chunks_mut(sizes.positions).zip(products.chunks(width));
                        rows.for_each(|(y, row)| y.copy_from_slice(&row[sample * sizes.positions..][..y.len()]));
                    }
                }
            }
        });
        array(shape, y)
    }

    /// With `C` the im2col columns of a lot of samples: `dW = dy Cᵀ`, `db = Σ dy`, `dx = col2im(Wᵀ dy)`.
    pub(super) fn backward(&self, x: ArrayViewD<'_, f32>, dy: ArrayD<f32>, wants_input: bool) -> Backward {
        let (shape, dy) = (x.shape().to_vec(), dy.view());
        let sizes = Sizes::new(self, &shape);
        let (x, dy, weight) = (slice(&x), slice(&dy), self.weight.as_slice().expect("row-major"));
        let (dx, [dw, db]) = sum_over_samples(shape[0], sizes.output * sizes.row, |samples| {
            let mut room = Room::default();
            let mut dx = vec![0.0; if wants_input { samples.len() * sizes.input } else { 0 }];
            let (mut dw, mut db) = (vec![0.0; weight.len()], vec![0.0; self.out_channels]);
            for first in samples.clone().step_by(sizes.lot) {
                let lot = sizes.lot.min(samples.end - first);
                let width = lot * sizes.positions;
                let x = &x[first * sizes.input..][..lot * sizes.input];
                let dy = &dy[first * sizes.output..][..lot * sizes.output];
                for dy in dy.chunks(sizes.output) {
                    for (db, dy) in db.iter_mut().zip(dy.chunks(sizes.positions)) {
                        *db += dy.iter().map(|dy| f64::from(*dy)).sum::<f64>() as f32;
                    }
                }
                for group in 0..self.groups {
                    let part = |len: usize| group * (len / self.groups)..(group + 1) * (len / self.groups);
                    let columns = sizes.columns(x, width, (group, self.groups), &mut room.columns);
                    let slopes = room.products.start(self.out_channels / self.groups * width);
                    for (sample, dy) in dy.chunks(sizes.output).enumerate() {
                        let rows = slopes.chunks_mut(width).zip(dy[part(sizes.output)].chunks(sizes.positions));
                        rows.for_each(|(row, dy)| row[sample * sizes.positions..][..dy.len()].copy_from_slice(dy));
                    }
                    let slopes = matrix(slopes, width);
                    add_product(slopes, columns.reversed_axes(), &mut dw[part(weight.len())]);
                    if wants_input {
                        let back = room.back.start(sizes.row * width);
                        add_product(matrix(&weight[part(weight.len())], sizes.row).reversed_axes(), slopes, back);
                        let dx = dx[(first - samples.start) * sizes.input..].chunks_mut(sizes.input).take(lot);
                        for (sample, dx) in dx.enumerate() {
                            let own = &mut dx[part(sizes.input)];
                            col2im(back, width, sample * sizes.positions, &sizes.windows, own);
                        }
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
    /// Elements of an im2col column: of a row of weights.
    row: usize,
    /// Windows of an image.
    positions: usize,
    /// Elements of an input sample.
    input: usize,
    /// Elements of an output sample.
    output: usize,
    /// Samples that are multiplied at once.
    lot: usize,
}

/// Elements of a lot's im2col columns: what a second-level cache holds beside the rest.
const LOT: usize = 1 << 16;

/// Memory of a pass, used again from lot to lot.
#[derive(Default)]
struct Room {
    columns: Buffer,
    products: Buffer,
    back: Buffer,
}

#[derive(Default)]
struct Buffer(Vec<f32>);

impl Buffer {
    /// So many zeros.
    fn start(&mut self, len: usize) -> &mut [f32] {
        self.0.clear();
        self.0.resize(len, 0.0);
        &mut self.0
    }
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
            lot: (LOT / (windows.row_len() * positions).max(1)).max(1),
        }
    }

    /// The im2col columns of a lot of samples, side by side, of one group of so many.
    fn columns<'a>(
        &self,
        x: &[f32],
        width: usize,
        (group, groups): (usize, usize),
        columns: &'a mut Buffer,
    ) -> ArrayView2<'a, f32> {
        let columns = columns.start(self.row * width); // zeros, as the padding is
        let part = self.input / groups;
        for (sample, x) in x.chunks(self.input).enumerate() {
            im2col(&x[group * part..][..part], &self.windows, columns, width, sample * self.positions);
        }
        matrix(columns, width)
    }
}
