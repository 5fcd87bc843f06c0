//! Pooling of images: the largest, or the mean, of every window; and the mean of every channel.

use std::ops::Range;

use ndarray::{ArrayD, ArrayViewD};

use super::{
    dense::{array, for_each_sample, slice},
    shape::{Size2d, at_least_one, elements, expect_images, expect_windows},
};
use crate::{Error, Result, kernels::im2col::Windows};

/// The largest value of every window of (batch, channels, height, width), channel by channel.
///
/// Padding reads -∞; of equal values the first in row-major order takes the gradient. NaN wins over any number.
///
/// | setting | default | range |
/// |---|---|---|
/// | `stride` | the kernel | at least 1 |
/// | `padding` | 0 | at most half the kernel |
///
/// ```
/// use ndarray::array;
/// use tersor::nn::{Layer, MaxPool2d};
///
/// let pool = Layer::from(MaxPool2d::new((1, 2)));
/// assert_eq!(pool.forward(&array![[[[1.0, 5.0, -2.0, -3.0]]]])?, array![[[[5.0, -2.0]]]].into_dyn());
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxPool2d {
    /// Size of a window, (height, width).
    pub kernel: [usize; 2],
    /// Steps between windows, (height, width).
    pub stride: [usize; 2],
    /// Padding on each side, (height, width).
    pub padding: [usize; 2],
}

/// The mean of every window of (batch, channels, height, width), channel by channel.
///
/// Padding reads 0 and counts: the divisor is always the size of the window (`count_include_pad` of PyTorch).
///
/// | setting | default | range |
/// |---|---|---|
/// | `stride` | the kernel | at least 1 |
/// | `padding` | 0 | at most half the kernel |
///
/// ```
/// use ndarray::array;
/// use tersor::nn::{AvgPool2d, Layer};
///
/// let pool = Layer::from(AvgPool2d::new((1, 2)));
/// assert_eq!(pool.forward(&array![[[[1.0, 5.0, -2.0, -4.0]]]])?, array![[[[3.0, -3.0]]]].into_dyn());
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvgPool2d {
    /// Size of a window, (height, width).
    pub kernel: [usize; 2],
    /// Steps between windows, (height, width).
    pub stride: [usize; 2],
    /// Padding on each side, (height, width).
    pub padding: [usize; 2],
}

macro_rules! settings {
    ($pool:ident, $name:literal) => {
        impl $pool {
            /// Windows side by side, without padding.
            pub fn new(kernel: impl Into<Size2d>) -> $pool {
                let kernel = kernel.into().0;
                $pool { kernel, stride: kernel, padding: [0, 0] }
            }

            /// Sets the steps between windows.
            pub fn stride(self, stride: impl Into<Size2d>) -> $pool {
                $pool { stride: stride.into().0, ..self }
            }

            /// Sets the padding on each side.
            pub fn padding(self, padding: impl Into<Size2d>) -> $pool {
                $pool { padding: padding.into().0, ..self }
            }

            pub(super) fn check(&self) -> Result<()> {
                for axis in 0..2 {
                    at_least_one(concat!("kernel of ", $name), self.kernel[axis])?;
                    at_least_one(concat!("stride of ", $name), self.stride[axis])?;
                    if self.padding[axis] > self.kernel[axis] / 2 {
                        let (setting, value) = (concat!("padding of ", $name), self.padding[axis] as f64);
                        return Err(Error::Setting { setting, value, bound: "at most half the kernel" });
                    }
                }
                elements(concat!("kernel of ", $name), &self.kernel).map(|_| ())
            }

            pub(super) fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
                let [batch, channels, height, width] = expect_images(concat!("input of ", $name), input)?;
                let what = concat!("padded input of ", $name, ", at least one window in size,");
                let [rows, columns] = expect_windows(what, &self.windows([height, width]))?;
                Ok(vec![batch, channels, rows, columns])
            }

            /// The windows over one channel.
            fn windows(&self, input: [usize; 2]) -> Windows {
                let (kernel, stride, padding) = (self.kernel, self.stride, self.padding);
                Windows { channels: 1, input, kernel, stride, padding, dilation: [1, 1] }
            }
        }

        impl<S: Into<Size2d>> From<S> for $pool {
            fn from(kernel: S) -> $pool {
                $pool::new(kernel)
            }
        }
    };
}

settings!(MaxPool2d, "max_pool2d");
settings!(AvgPool2d, "avg_pool2d");

impl MaxPool2d {
    pub(super) fn forward(&self, x: ArrayViewD<'_, f32>, shape: &[usize]) -> ArrayD<f32> {
        let windows = self.windows([x.shape()[2], x.shape()[3]]);
        forward(x, shape, &windows, |plane, inside| plane[largest(plane, inside)])
    }

    pub(super) fn backward(&self, x: ArrayViewD<'_, f32>, dy: ArrayD<f32>) -> ArrayD<f32> {
        let windows = self.windows([x.shape()[2], x.shape()[3]]);
        backward(x, dy, &windows, |plane, inside, dy, dx| dx[largest(plane, inside)] += dy)
    }

    /// What a tangent of the input has where the input is largest.
    pub(super) fn tangent(&self, x: ArrayViewD<'_, f32>, tangent: ArrayViewD<'_, f32>, shape: &[usize]) -> ArrayD<f32> {
        let windows = self.windows([x.shape()[2], x.shape()[3]]);
        let planes =
            slice(&x).chunks(x.shape()[2] * x.shape()[3]).zip(slice(&tangent).chunks(x.shape()[2] * x.shape()[3]));
        let mut y = vec![0.0; shape.iter().product()];
        for (y, (x, tangent)) in y.chunks_mut(shape[2] * shape[3]).zip(planes) {
            for_each_window(&windows, |position, inside| y[position] = tangent[largest(x, inside)]);
        }
        array(shape, y)
    }
}

impl AvgPool2d {
    fn share(&self) -> f32 {
        1.0 / (self.kernel[0] * self.kernel[1]) as f32
    }

    pub(super) fn forward(&self, x: ArrayViewD<'_, f32>, shape: &[usize]) -> ArrayD<f32> {
        let windows = self.windows([x.shape()[2], x.shape()[3]]);
        forward(x, shape, &windows, |plane, inside| inside.map(|i| plane[i]).sum::<f32>() * self.share())
    }

    pub(super) fn backward(&self, x: ArrayViewD<'_, f32>, dy: ArrayD<f32>) -> ArrayD<f32> {
        let windows = self.windows([x.shape()[2], x.shape()[3]]);
        backward(x, dy, &windows, |_, inside, dy, dx| inside.for_each(|i| dx[i] += dy * self.share()))
    }
}

/// (batch, channels, height, width) to (batch, channels, 1, 1).
pub(super) fn global_output_shape(input: &[usize]) -> Result<Vec<usize>> {
    let [batch, channels, ..] = expect_images("input of global_avg_pool2d", input)?;
    Ok(vec![batch, channels, 1, 1])
}

/// The mean of every channel.
pub(super) fn global_forward(x: ArrayViewD<'_, f32>, shape: &[usize]) -> ArrayD<f32> {
    let plane = x.shape()[2] * x.shape()[3];
    let means = slice(&x).chunks(plane).map(|x| (x.iter().map(|x| f64::from(*x)).sum::<f64>() / plane as f64) as f32);
    array(shape, means.collect())
}

/// Every element of a channel has an equal share of its gradient.
pub(super) fn global_backward(x: ArrayViewD<'_, f32>, dy: ArrayD<f32>) -> ArrayD<f32> {
    let plane = x.shape()[2] * x.shape()[3];
    let shares = dy.iter().flat_map(|dy| std::iter::repeat_n(*dy / plane as f32, plane));
    array(x.shape(), shares.collect())
}

/// Image indices of a window's taps, row by row.
#[derive(Clone)]
struct Inside {
    rows: Range<usize>,
    columns: Range<usize>,
    width: usize,
}

impl Inside {
    fn map<R>(self, f: impl Fn(usize) -> R) -> impl Iterator<Item = R> {
        let Inside { rows, columns, width } = self;
        let index = move |row: usize| columns.clone().map(move |column| row * width + column);
        rows.flat_map(index).map(f)
    }

    fn for_each(self, f: impl FnMut(usize)) {
        self.map(|i| i).for_each(f);
    }
}

/// Calls `f(position, taps inside the image)` for every window over a plane.
fn for_each_window(windows: &Windows, mut f: impl FnMut(usize, Inside)) {
    let Some([rows, columns]) = windows.output() else { return };
    let along = |axis: usize, window: usize| {
        let taps = windows.taps(axis, window);
        let first = windows.source(axis, window, taps.start);
        first..first + taps.len()
    };
    for row in 0..rows {
        for column in 0..columns {
            let inside = Inside { rows: along(0, row), columns: along(1, column), width: windows.input[1] };
            f(row * columns + column, inside);
        }
    }
}

/// The index of the largest value; the padding's bound leaves every window at least one.
fn largest(plane: &[f32], inside: Inside) -> usize {
    let first = inside.rows.start * inside.width + inside.columns.start;
    let better = |best: usize, i: usize| if plane[i] > plane[best] || plane[i].is_nan() { i } else { best };
    inside.map(|i| i).fold(first, better)
}

/// `y = f(plane, window)` for every window of every plane.
fn forward(
    x: ArrayViewD<'_, f32>,
    shape: &[usize],
    windows: &Windows,
    f: impl Fn(&[f32], Inside) -> f32 + Sync + Send,
) -> ArrayD<f32> {
    let (input, output) = (windows.input[0] * windows.input[1], shape[2] * shape[3]);
    let (x, channels) = (slice(&x), shape[1]);
    let mut y = vec![0.0; shape.iter().product()];
    let work = channels * output * windows.row_len();
    for_each_sample(&mut y, channels * output, work, |sample, y| {
        for (y, x) in y.chunks_mut(output).zip(x[sample * channels * input..].chunks(input)) {
            for_each_window(windows, |position, inside| y[position] = f(x, inside));
        }
    });
    array(shape, y)
}

/// `f(plane, window, dy, dx plane)` for every window of every plane.
fn backward(
    x: ArrayViewD<'_, f32>,
    dy: ArrayD<f32>,
    windows: &Windows,
    f: impl Fn(&[f32], Inside, f32, &mut [f32]) + Sync + Send,
) -> ArrayD<f32> {
    let (shape, channels) = (x.shape().to_vec(), x.shape()[1]);
    let (input, output) = (shape[2] * shape[3], dy.shape()[2] * dy.shape()[3]);
    let (x, dy) = (slice(&x), dy.as_slice().expect("row-major"));
    let mut dx = vec![0.0; x.len()];
    let work = channels * output * windows.row_len();
    for_each_sample(&mut dx, channels * input, work, |sample, dx| {
        let planes = x[sample * channels * input..].chunks(input).zip(dy[sample * channels * output..].chunks(output));
        for (dx, (x, dy)) in dx.chunks_mut(input).zip(planes) {
            for_each_window(windows, |position, inside| f(x, inside, dy[position], dx));
        }
    });
    array(&shape, dx)
}
