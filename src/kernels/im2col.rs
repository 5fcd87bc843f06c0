//! Where the windows of a convolution lie, and im2col, which lays each window out as one column of a matrix.
//!
//! A column is a window in (channel, y, x) order: the order of a convolution's weights, so the convolution is
//! `weights (out, channels * kh * kw)` times `columns (channels * kh * kw, positions)`. The positions of several images
//! stand side by side, so that small ones make a product worth its start. Where the inputs of a product must be its rows,
//! [`im2row`] lays windows out as these.

use std::ops::Range;

/// Windows over one image of shape (channels, height, width); pairs are (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    pub(crate) channels: usize,
    pub(crate) input: [usize; 2],
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: [usize; 2],
    pub(crate) padding: [usize; 2],
    pub(crate) dilation: [usize; 2],
}

impl Windows {
    /// Distance from the first to the last tap, plus one; `None` on overflow or an empty kernel.
    pub(crate) fn span(&self) -> Option<[usize; 2]> {
        let along = |axis: usize| self.kernel[axis].checked_sub(1)?.checked_mul(self.dilation[axis])?.checked_add(1);
        Some([along(0)?, along(1)?])
    }

    /// The input with its padding; `None` on overflow.
    pub(crate) fn padded(&self) -> Option<[usize; 2]> {
        let along = |axis: usize| self.padding[axis].checked_mul(2)?.checked_add(self.input[axis]);
        Some([along(0)?, along(1)?])
    }

    /// How many windows fit: `(padded - span) / stride + 1`, rounded down; `None` if none does.
    pub(crate) fn output(&self) -> Option<[usize; 2]> {
        let (padded, span) = (self.padded()?, self.span()?);
        let along = |axis: usize| Some(padded[axis].checked_sub(span[axis])?.checked_div(self.stride[axis])? + 1);
        Some([along(0)?, along(1)?])
    }

    /// Elements of a row.
    pub(crate) fn row_len(&self) -> usize {
        self.channels * self.kernel[0] * self.kernel[1]
    }

    /// The taps of window `window` that lie inside the image, along one axis.
    pub(crate) fn taps(&self, axis: usize, window: usize) -> Range<usize> {
        let (start, pad) = (window * self.stride[axis], self.padding[axis]);
        let first_at = |bound: usize| bound.saturating_sub(start).div_ceil(self.dilation[axis]).min(self.kernel[axis]);
        let first = first_at(pad);
        first..first_at(pad + self.input[axis]).max(first)
    }

    /// The image index that an inside tap reads, along one axis.
    pub(crate) fn source(&self, axis: usize, window: usize, tap: usize) -> usize {
        window * self.stride[axis] + tap * self.dilation[axis] - self.padding[axis]
    }

    /// The windows whose tap `tap` lies inside the image, along one axis.
    fn windows_with(&self, axis: usize, tap: usize, windows: usize) -> Range<usize> {
        let (tap, pad, stride) = (tap * self.dilation[axis], self.padding[axis], self.stride[axis]);
        let first_at = |bound: usize| bound.saturating_sub(tap).div_ceil(stride).min(windows);
        let first = first_at(pad);
        first..first_at(pad + self.input[axis]).max(first)
    }

    /// Calls `f(row offset, image offset, taps)` for every horizontal run of taps inside the image, where offsets
    /// count from the start of the matrix and of the image.
    fn for_each_run_of_taps(&self, mut f: impl FnMut(usize, usize, usize)) {
        let [height, width] = self.input;
        let [kh, kw] = self.kernel;
        let Some([rows, columns]) = self.output() else { return };
        for y in 0..rows {
            let ys = self.taps(0, y);
            for x in 0..columns {
                let xs = self.taps(1, x);
                if xs.is_empty() {
                    continue;
                }
                let row = (y * columns + x) * self.row_len() + xs.start;
                let left = self.source(1, x, xs.start);
                for channel in 0..self.channels {
                    for tap in ys.clone() {
                        let line = channel * height + self.source(0, y, tap);
                        f(row + (channel * kh + tap) * kw, line * width + left, xs.len());
                    }
                }
            }
        }
    }

    /// Calls `f(row of the matrix, position, image offset, count)` for every horizontal run of windows that read a tap
    /// inside the image; the next window reads `stride[1]` elements on.
    fn for_each_run(&self, mut f: impl FnMut(usize, usize, usize, usize)) {
        let [height, width] = self.input;
        let [kh, kw] = self.kernel;
        let Some([rows, columns]) = self.output() else { return };
        for tap_y in 0..kh {
            let ys = self.windows_with(0, tap_y, rows);
            for tap_x in 0..kw {
                let xs = self.windows_with(1, tap_x, columns);
                if ys.is_empty() || xs.is_empty() {
                    continue;
                }
                let (top, left) = (self.source(0, ys.start, tap_y), self.source(1, xs.start, tap_x));
                for channel in 0..self.channels {
                    let row = (channel * kh + tap_y) * kw + tap_x;
                    let mut position = ys.start * columns + xs.start;
                    let mut source = (channel * height + top) * width + left;
                    for _ in ys.clone() {
                        f(row, position, source, xs.len());
                        position += columns;
                        source += self.stride[0] * width;
                    }
                }
            }
        }
    }
}

/// Writes every window of `image` as a row of `rows`, row-major over positions; taps in the padding read `pad`.
pub(crate) fn im2row<T: Copy>(image: &[T], windows: &Windows, pad: T, rows: &mut [T]) {
    if windows.padding != [0, 0] {
        rows.fill(pad);
    }
    let step = windows.dilation[1];
    windows.for_each_run_of_taps(|row, source, taps| {
        let row = &mut rows[row..row + taps];
        if step == 1 {
            row.iter_mut().zip(&image[source..source + taps]).for_each(|(to, from)| *to = *from);
        } else {
            row.iter_mut().zip(image[source..].iter().step_by(step)).for_each(|(to, from)| *to = *from);
        }
    });
}

/// Writes every window of `image` as a column of a row-major matrix of `width` columns, from the column `first` on. What
/// lies in the padding is not written.
pub(crate) fn im2col(image: &[f32], windows: &Windows, matrix: &mut [f32], width: usize, first: usize) {
    let step = windows.stride[1];
    windows.for_each_run(|row, position, source, count| {
        let to = &mut matrix[row * width + first + position..][..count];
        if step == 1 {
            to.iter_mut().zip(&image[source..source + count]).for_each(|(to, from)| *to = *from);
        } else {
            to.iter_mut().zip(image[source..].iter().step_by(step)).for_each(|(to, from)| *to = *from);
        }
    });
}

/// The transpose of [`im2col`]: adds every element of the columns to the image element it was read from.
pub(crate) fn col2im(matrix: &[f32], width: usize, first: usize, windows: &Windows, image: &mut [f32]) {
    let step = windows.stride[1];
    windows.for_each_run(|row, position, target, count| {
        let from = &matrix[row * width + first + position..][..count];
        if step == 1 {
            image[target..target + count].iter_mut().zip(from).for_each(|(to, from)| *to += *from);
        } else {
            image[target..].iter_mut().step_by(step).zip(from).for_each(|(to, from)| *to += *from);
        }
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, tap by tap.
    fn element(image: &[f32], w: &Windows, position: usize, column: usize, pad: f32) -> f32 {
        let [_, columns] = w.output().unwrap();
        let [kh, kw] = w.kernel;
        let (channel, tap) = (column / (kh * kw), [column / kw % kh, column % kw]);
        let at = |axis: usize, window: usize| {
            (window * w.stride[axis] + tap[axis] * w.dilation[axis]) as isize - w.padding[axis] as isize
        };
        let (y, x) = (at(0, position / columns), at(1, position % columns));
        let inside = (0..w.input[0] as isize).contains(&y) && (0..w.input[1] as isize).contains(&x);
        if inside { image[(channel * w.input[0] + y as usize) * w.input[1] + x as usize] } else { pad }
    }

    fn pair(range: Range<usize>) -> impl Strategy<Value = [usize; 2]> {
        [range.clone(), range]
    }

    prop_compose! {
        fn windows()(
            channels in 1usize..4, input in pair(1..8), kernel in pair(1..4),
            stride in pair(1..4), padding in pair(0..5), dilation in pair(1..4),
        ) -> Windows {
            Windows { channels, input, kernel, stride, padding, dilation }
        }
    }

    proptest! {
        #[test]
        fn rows_hold_every_tap_of_every_window(w in windows()) {
            prop_assume!(w.output().is_some());
            let [rows, columns] = w.output().unwrap();
            let image: Vec<f32> = (0..w.channels * w.input[0] * w.input[1]).map(|i| i as f32).collect();
            let mut found = vec![0.0; rows * columns * w.row_len()];
            im2row(&image, &w, -7.0, &mut found);
            for (i, value) in found.iter().enumerate() {
                prop_assert_eq!(*value, element(&image, &w, i / w.row_len(), i % w.row_len(), -7.0));
            }
        }

        #[test]
        fn columns_hold_every_tap_of_every_window(w in windows(), first in 0usize..3, after in 0usize..3) {
            prop_assume!(w.output().is_some());
            let positions: usize = w.output().unwrap().iter().product();
            let image: Vec<f32> = (0..w.channels * w.input[0] * w.input[1]).map(|i| i as f32).collect();
            let width = first + positions + after;
            let mut found = vec![-7.0; w.row_len() * width];
            im2col(&image, &w, &mut found, width, first);
            for (i, value) in found.iter().enumerate() {
                let (row, column) = (i / width, i % width);
                let inside = (first..first + positions).contains(&column);
                let expected = if inside { element(&image, &w, column - first, row, -7.0) } else { -7.0 };
                prop_assert_eq!(*value, expected);
            }
        }

        #[test]
        fn col2im_is_the_transpose_of_im2col(w in windows(), first in 0usize..3) {
            prop_assume!(w.output().is_some());
            let width = first + w.output().unwrap().iter().product::<usize>();
            // Small integers: the sums are exact, so <im2col(x), r> = <x, col2im(r)> holds to the bit.
            let x: Vec<f32> = (0..w.channels * w.input[0] * w.input[1]).map(|i| (i % 7) as f32 - 3.0).collect();
            let r: Vec<f32> = (0..w.row_len() * width).map(|i| (i % 5) as f32 - 2.0).collect();
            let mut laid_out = vec![0.0; r.len()];
            im2col(&x, &w, &mut laid_out, width, first);
            let mut back = vec![0.0; x.len()];
            col2im(&r, width, first, &w, &mut back);
            let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
            prop_assert_eq!(dot(&laid_out, &r), dot(&x, &back));
        }
    }

    #[test]
    fn windows_that_do_not_fit_or_overflow_have_no_output() {
        let fits =
            Windows { channels: 1, input: [4, 5], kernel: [3, 3], stride: [1, 2], padding: [0, 1], dilation: [1, 1] };
        assert_eq!(fits.output(), Some([2, 3]));
        assert_eq!(Windows { kernel: [5, 3], ..fits }.output(), None);
        assert_eq!(Windows { kernel: [0, 3], ..fits }.output(), None);
        assert_eq!(Windows { stride: [0, 1], ..fits }.output(), None);
        assert_eq!(Windows { padding: [usize::MAX, 0], ..fits }.output(), None);
        assert_eq!(Windows { dilation: [usize::MAX, 1], ..fits }.output(), None);
    }
}
