//! Signals seen as maps, channels at positions; and two of them brought to the same positions.

use ndarray::{
    Array2, Array3, Array4, ArrayD, ArrayView, ArrayViewD, Axis, CowArray, Dim, Dimension, IntoDimension, Ix2, Ix3,
    Slice,
};

use super::Signals;
use crate::{
    error::{Error, Result},
    nn::expect_shape,
};

pub(super) const STUDENT: &str = "the student's signal";
pub(super) const TEACHER: &str = "the teacher's signal";

/// A signal as (batch, channels, positions), at its own positions or pooled to fewer; the
/// [module](crate::distill#features) says how. Copied only where a view cannot have that form.
#[derive(Debug)]
pub(super) struct Maps<'a> {
    /// (batch, channels, positions).
    pub(super) values: CowArray<'a, f64, Ix3>,
    /// The signal's own shape.
    shape: Vec<usize>,
    /// The height and width of which `positions` is the product.
    size: [usize; 2],
}

impl<'a> Maps<'a> {
    /// A signal at its own positions.
    pub(super) fn new(what: &'static str, signal: &ArrayViewD<'a, f64>) -> Result<Maps<'a>> {
        check(what, signal.shape())?;
        Ok(Maps::at(signal, size(signal.shape())))
    }

    /// The student's and the teacher's signal at the same positions.
    pub(super) fn of(signals: &'a Signals<'_>) -> Result<[Maps<'a>; 2]> {
        Maps::pair([STUDENT, TEACHER], [signals.student()?, signals.teacher()?])
    }

    /// The same, of as many channels each.
    pub(super) fn alike(signals: &'a Signals<'_>) -> Result<[Maps<'a>; 2]> {
        let pair = Maps::of(signals)?;
        let [student, teacher] = pair.each_ref().map(|maps| maps.values.dim().1);
        if student == teacher {
            return Ok(pair);
        }
        let what = format!("the student's signal has {student} channels and the teacher's {teacher}");
        Err(Error::Conflict { what, remedy: "the loss compares them one by one: use its Distiller::projected" })
    }

    /// Two signals of one kind and batch, at the same positions: of each axis the shorter, to which the longer is pooled.
    pub(super) fn pair(names: [&'static str; 2], signals: [ArrayViewD<'a, f64>; 2]) -> Result<[Maps<'a>; 2]> {
        let [first, second] = signals.each_ref().map(|signal| signal.shape());
        check(names[0], first)?;
        check(names[1], second)?;
        if first.len() != second.len() {
            let what = format!("{} has shape {first:?}, {} {second:?}: other axes", names[0], names[1]);
            return Err(Error::Conflict { what, remedy: "compare layers of one kind: vectors, sequences or images" });
        }
        // What cannot be resized: the batch, and the length of a sequence.
        let mut expected = second.to_vec();
        expected[0] = first[0];
        if first.len() == 3 {
            expected[1] = first[1];
        }
        expect_shape(names[1], &expected, second)?;
        let (first, second) = (size(first), size(second));
        let size = [first[0].min(second[0]), first[1].min(second[1])];
        Ok(signals.each_ref().map(|signal| Maps::at(signal, size)))
    }

    fn at(signal: &ArrayViewD<'a, f64>, size: [usize; 2]) -> Maps<'a> {
        let shape = signal.shape().to_vec();
        let values = if size == self::size(&shape) { unpooled(signal.clone()) } else { pooled(signal, size).into() };
        Maps { values, shape, size }
    }

    /// From (batch, channels, positions) back to the signal's form: gradients for these maps become the gradient for the
    /// signal, other channels at a signal's own positions a signal of as many.
    pub(super) fn to_signal(&self, maps: Array3<f64>) -> ArrayD<f64> {
        let (batch, channels, _) = maps.dim();
        let [height, width] = self.size;
        let mut values = maps.into_shape_clone((batch, channels, height, width)).expect("as many elements");
        for (axis, len) in [2, 3].into_iter().zip(size(&self.shape)) {
            values = pool_backward(values, Axis(axis), len);
        }
        if self.shape.len() == 3 {
            values.swap_axes(1, 2);
        }
        values.into_shape_clone(with_width(&self.shape, channels)).expect("as many elements")
    }

    /// (batch * positions, channels): a row a position.
    pub(super) fn rows(&self) -> CowArray<'_, f64, Ix2> {
        let (batch, channels, positions) = self.values.dim();
        reshaped(self.values.view().permuted_axes([0, 2, 1]), [batch * positions, channels])
    }

    /// (batch * channels, positions): a row a channel of a sample.
    pub(super) fn channel_rows(&self) -> CowArray<'_, f64, Ix2> {
        let (batch, channels, positions) = self.values.dim();
        reshaped(self.values.view(), [batch * channels, positions])
    }

    /// [`to_signal`](Maps::to_signal) of rows, one a channel of a sample.
    pub(super) fn channel_rows_to_signal(&self, rows: Array2<f64>) -> ArrayD<f64> {
        self.to_signal(rows.into_shape_clone(self.values.dim()).expect("as many elements"))
    }

    /// [`to_signal`](Maps::to_signal) of rows, one a position.
    pub(super) fn rows_to_signal(&self, rows: Array2<f64>) -> ArrayD<f64> {
        let (batch, _, positions) = self.values.dim();
        let channels = rows.ncols();
        let maps = rows.into_shape_clone((batch, positions, channels)).expect("as many elements");
        self.to_signal(maps.permuted_axes([0, 2, 1]))
    }
}

/// The numbers of channels of a student's and a teacher's signal of these shapes.
pub(super) fn widths(student: &[usize], teacher: &[usize]) -> Result<[usize; 2]> {
    check(STUDENT, student)?;
    check(TEACHER, teacher)?;
    Ok([student, teacher].map(|shape| shape[channel_axis(shape)]))
}

/// The shape with another number of channels.
pub(super) fn with_width(shape: &[usize], width: usize) -> Vec<usize> {
    let mut shape = shape.to_vec();
    let axis = channel_axis(&shape);
    shape[axis] = width;
    shape
}

fn channel_axis(shape: &[usize]) -> usize {
    if shape.len() == 3 { 2 } else { 1 }
}

/// Height and width; a sequence is as high as long.
fn size(shape: &[usize]) -> [usize; 2] {
    match *shape {
        [_, _, height, width] => [height, width],
        [_, length, _] => [length, 1],
        _ => [1, 1],
    }
}

fn check(what: &'static str, shape: &[usize]) -> Result<()> {
    if !(2..=4).contains(&shape.len()) {
        return Err(Error::Rank { what, expected: "2, 3 or 4", found: shape.to_vec() });
    }
    if shape.contains(&0) { Err(Error::Empty { what }) } else { Ok(()) }
}

/// A signal as (batch, channels, positions).
fn unpooled(signal: ArrayViewD<'_, f64>) -> CowArray<'_, f64, Ix3> {
    let maps = match *signal.shape() {
        [batch, channels, height, width] => return reshaped(signal, [batch, channels, height * width]),
        [_, _, _] => signal.permuted_axes(vec![0, 2, 1]),
        _ => signal.insert_axis(Axis(2)),
    };
    maps.into_dimensionality().expect("three axes").into()
}

/// The same of images, pooled to this height and width.
fn pooled(images: &ArrayViewD<'_, f64>, size: [usize; 2]) -> Array3<f64> {
    let mut values = images.to_owned().into_dimensionality().expect("only images are pooled");
    for (axis, len) in [2, 3].into_iter().zip(size) {
        values = pool(values, Axis(axis), len);
    }
    let (batch, channels, height, width) = values.dim();
    values.into_shape_clone([batch, channels, height * width]).expect("as many elements")
}

/// The same elements in row-major order, copied only where their layout is another.
fn reshaped<D: Dimension, const N: usize>(
    array: ArrayView<'_, f64, D>,
    shape: [usize; N],
) -> CowArray<'_, f64, Dim<[usize; N]>>
where
    [usize; N]: IntoDimension<Dim = Dim<[usize; N]>>,
    Dim<[usize; N]>: Dimension,
{
    match array.clone().into_shape_with_order(shape) {
        Ok(view) => view.into(),
        Err(_) => array.to_shape(shape).expect("as many elements").into_owned().into(),
    }
}

/// Adaptive average pooling of one axis to a length: entry i is the mean of its window.
fn pool(maps: Array4<f64>, axis: Axis, len: usize) -> Array4<f64> {
    let from = maps.len_of(axis);
    if from == len {
        return maps;
    }
    let mut shape = maps.raw_dim();
    shape[axis.0] = len;
    let mut pooled = Array4::zeros(shape);
    for (index, mut entry) in pooled.axis_iter_mut(axis).enumerate() {
        entry.assign(&maps.slice_axis(axis, window(index, from, len)).mean_axis(axis).expect("windows are not empty"));
    }
    pooled
}

/// The gradient for what was [pooled](pool) from a length: each entry's, shared evenly by its window.
fn pool_backward(gradient: Array4<f64>, axis: Axis, from: usize) -> Array4<f64> {
    let len = gradient.len_of(axis);
    if from == len {
        return gradient;
    }
    let mut shape = gradient.raw_dim();
    shape[axis.0] = from;
    let mut spread = Array4::zeros(shape);
    for (index, entry) in gradient.axis_iter(axis).enumerate() {
        let mut window = spread.slice_axis_mut(axis, window(index, from, len));
        let share = &entry / window.len_of(axis) as f64;
        window.axis_iter_mut(axis).for_each(|mut part| part += &share);
    }
    spread
}

/// The entries `floor(i from / to)` up to, not including, `ceil((i + 1) from / to)`.
fn window(index: usize, from: usize, to: usize) -> Slice {
    Slice::from(index * from / to..((index + 1) * from).div_ceil(to))
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, array};

    use super::*;

    #[test]
    fn pooling_takes_the_windows_of_adaptive_average_pooling() {
        // torch.nn.functional.adaptive_avg_pool2d(torch.arange(15.).view(1, 1, 3, 5), (2, 3)), by the index rule by hand.
        let maps = Array::range(0.0, 15.0, 1.0).into_shape_with_order((1, 1, 3, 5)).unwrap();
        let pooled = pool(pool(maps, Axis(2), 2), Axis(3), 3);
        assert_eq!(pooled, array![[[[3.0, 4.5, 6.0], [8.0, 9.5, 11.0]]]]);
    }

    #[test]
    fn the_way_back_from_pooling_is_its_transpose() {
        // <pool(x), y> = <x, pool_backward(y)> for unit vectors x, y: the same matrix.
        for (from, to) in [(5, 3), (7, 1), (4, 4), (9, 8)] {
            for (i, o) in (0..from).flat_map(|i| (0..to).map(move |o| (i, o))) {
                let unit = |n, at| Array4::from_shape_fn((1, 1, n, 1), |index| f64::from(u8::from(index.2 == at)));
                let there = pool(unit(from, i), Axis(2), to)[[0, 0, o, 0]];
                let back = pool_backward(unit(to, o), Axis(2), from)[[0, 0, i, 0]];
                assert_eq!(there, back, "{from} to {to}: {i}, {o}");
            }
        }
    }

    #[test]
    fn every_kind_of_signal_goes_to_maps_and_back() {
        for shape in [&[2, 3][..], &[2, 5, 3], &[2, 3, 4, 5]] {
            let signal = Array::range(0.0, shape.iter().product::<usize>() as f64, 1.0).into_shape_with_order(shape);
            let signal = signal.unwrap();
            let maps = Maps::new("it", &signal.view()).unwrap();
            assert_eq!(maps.values.dim().1, 3, "{shape:?}");
            assert_eq!(maps.to_signal(maps.values.to_owned()), signal, "{shape:?}");
            assert_eq!(maps.rows_to_signal(maps.rows().into_owned()), signal, "{shape:?}");
        }
    }
}
