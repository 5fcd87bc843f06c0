//! A quantized tensor at rest: codes, and the grid that gives them values.

use std::{fmt, ops::Range};

use ndarray::{Array2, ArrayBase, ArrayD, DataMut, Dimension, IxDyn};

use super::{
    Codes, Granularity, Groups,
    granularity::{elements, is_countable, rows},
};
use crate::{
    error::{Error, Result},
    kernels::{affine, codebook, ends::Ends, isa::vectorize, pack, parallel},
};

/// What the codes of a [`QuantizedTensor`] stand for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Grid {
    /// Evenly spaced levels: `value = scale * (code + lowest - zero_point)`.
    ///
    /// Stored codes count from 0; `lowest` is the integer that code 0 stands for (-128 for signed 8 bits, 0 for
    /// unsigned), so `code + lowest` is the integer that other toolkits show.
    Affine {
        /// One a group; finite, not zero (negative where the signed extreme fixes the scale).
        scale: Vec<f32>,
        /// One a group, in units of `code + lowest`; empty if all are 0.
        zero_point: Vec<i32>,
        /// The integer of code 0.
        lowest: i32,
        /// Which elements share a scale.
        granularity: Granularity,
    },
    /// Free levels: `value = scale * levels[code]`.
    Codebook {
        /// Shape (1, levels): one table for all; or (groups, levels): one a group. At most 2 to the power of the codes'
        /// bits levels.
        levels: Array2<f32>,
        /// One a group; empty if all are 1.
        scale: Vec<f32>,
        /// Which elements share a scale, and a table where there are several.
        granularity: Granularity,
    },
}

/// A tensor quantized by any scheme: its shape, one code an element, and the [`Grid`].
///
/// A scheme outside this crate builds one with [`QuantizedTensor::new`], and everything else (packing, saving,
/// reports) takes it like ours.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedTensor {
    shape: Vec<usize>,
    codes: Codes,
    grid: Grid,
}

/// Elements decoded at a time; a multiple of 8, so that every piece of a bit stream starts on a byte.
pub(super) const PIECE: usize = 1 << 14;

impl QuantizedTensor {
    /// Joins codes (one an element, row-major) and a grid.
    ///
    /// # Errors
    /// [`Error::Shape`] if the number of codes, scales, zero points or tables does not fit the shape;
    /// [`Error::NotFinite`] or [`Error::Setting`] for a scale or level that is not finite or a scale of 0, and for a
    /// code beyond its table.
    ///
    /// ```
    /// use tersor::tensor::{Codes, Granularity, Grid, QuantizedTensor};
    ///
    /// let levels = ndarray::array![[-1.0, 0.0, 1.0]];
    /// let grid = Grid::Codebook { levels, scale: vec![0.5], granularity: Granularity::Tensor };
    /// let q = QuantizedTensor::new(&[2, 2], Codes::pack(2, &[0, 1, 2, 2])?, grid)?;
    /// assert_eq!(q.dequantize().into_raw_vec_and_offset().0, [-0.5, 0.0, 0.5, 0.5]);
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn new(shape: &[usize], codes: Codes, mut grid: Grid) -> Result<QuantizedTensor> {
        if let Grid::Codebook { levels, .. } = &mut grid
            && !levels.is_standard_layout()
        {
            *levels = levels.as_standard_layout().into_owned();
        }
        if !is_countable(shape) {
            let (expected, found) = (vec![codes.len()], shape.to_vec());
            return Err(Error::Shape { what: "the tensor", expected, found });
        }
        length("the codes", elements(shape), codes.len())?;
        let groups = grid.granularity().groups(shape)?.count();
        match &grid {
            Grid::Affine { scale, zero_point, lowest, .. } => {
                length("the scale", groups, scale.len())?;
                if !zero_point.is_empty() {
                    length("the zero point", groups, zero_point.len())?;
                }
                usable_scale(scale)?;
                let highest = f64::from(*lowest) + f64::from((1u32 << codes.bits()) - 1);
                let farthest = |zero: f64| (f64::from(*lowest) - zero).abs().max((highest - zero).abs());
                let least = zero_point.iter().fold(0, |least, zero| least.min(*zero));
                let largest = zero_point.iter().fold(0, |largest, zero| largest.max(*zero));
                let far = farthest(f64::from(least)).max(farthest(f64::from(largest)));
                let (low, high) = Ends::of(scale).or_zero();
                // One by one only where the farthest level might not be finite.
                if !((f64::from(high.max(-low)) * far) as f32).is_finite() {
                    for (group, scale) in scale.iter().enumerate() {
                        let zero = f64::from(zero_point.get(group).copied().unwrap_or(0));
                        finite_level(f64::from(*scale) * farthest(zero))?;
                    }
                }
                // Bounded so that sums of codes, zero points and lowest code stay in i32.
                let is_far = |zero: &&i32| zero.unsigned_abs() > 1 << 24;
                if (is_far(&lowest) || is_far(&&least) || is_far(&&largest))
                    && let Some(far) = zero_point.iter().chain([lowest]).find(is_far)
                {
                    let bound = "between -2^24 and 2^24";
                    return Err(Error::Setting { setting: "zero_point", value: f64::from(*far), bound });
                }
            }
            Grid::Codebook { levels, scale, .. } => {
                if !scale.is_empty() {
                    length("the scale", groups, scale.len())?;
                    usable_scale(scale)?;
                }
                let (tables, table) = levels.dim();
                if tables != 1 {
                    length("the codebooks", groups, tables)?;
                }
                super::weights::finite("the levels", &levels.iter().copied().collect::<Vec<_>>())?;
                if table > 1 << codes.bits() || table == 0 {
                    let bound = "at least 1 and at most 2 to the power of bits";
                    return Err(Error::Setting { setting: "levels in a codebook", value: table as f64, bound });
                }
                if table < 1 << codes.bits()
                    && let Some(code) = codes.to_vec().into_iter().find(|code| usize::from(*code) >= table)
                {
                    let bound = "below the number of levels of its codebook";
                    return Err(Error::Setting { setting: "code", value: code.into(), bound });
                }
            }
        }
        let tensor = QuantizedTensor { shape: shape.to_vec(), codes, grid };
        tensor.levels_are_finite().map(|()| tensor)
    }

    /// Checks that every level in use stays in f32; levels that no code points at may lie beyond.
    fn levels_are_finite(&self) -> Result<()> {
        let Grid::Codebook { levels, scale, .. } = &self.grid else { return Ok(()) };
        let farthest = |numbers: &mut dyn Iterator<Item = &f32>| numbers.fold(0f32, |far, x| far.max(x.abs()));
        let scale = if scale.is_empty() { 1.0 } else { farthest(&mut scale.iter()) };
        if (scale * farthest(&mut levels.iter())).is_finite() {
            return Ok(());
        }
        match self.dequantize().iter().find(|x| !x.is_finite()) {
            Some(level) => finite_level(f64::from(*level)),
            None => Ok(()),
        }
    }

    /// The shape of the tensor.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.codes.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// Bits per code, scales and tables not counted.
    pub fn bits(&self) -> u8 {
        self.codes.bits()
    }

    /// The packed codes.
    pub fn codes(&self) -> &Codes {
        &self.codes
    }

    /// The memory of the codes, for others.
    pub(crate) fn into_memory(self) -> Vec<u8> {
        self.codes.into_bytes()
    }

    /// What the codes stand for.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// The integers of an affine grid (`code + lowest`, as other toolkits show them), or the level indices of a codebook.
    pub fn integers(&self) -> ArrayD<i32> {
        let lowest = match self.grid {
            Grid::Affine { lowest, .. } => lowest,
            Grid::Codebook { .. } => 0,
        };
        let integers = self.codes.to_vec().into_iter().map(|code| i32::from(code) + lowest);
        ArrayD::from_shape_vec(IxDyn(&self.shape), integers.collect()).expect("as many codes as elements")
    }

    /// The numbers that the codes stand for, in the tensor's shape.
    pub fn dequantize(&self) -> ArrayD<f32> {
        let mut values = vec![0.0; self.len()];
        self.decode_all(&mut values);
        ArrayD::from_shape_vec(IxDyn(&self.shape), values).expect("as many codes as elements")
    }

    /// As [`dequantize`](QuantizedTensor::dequantize), into an array of the caller's: where that was in use before, it
    /// costs no new memory, which takes longer to get than to fill.
    ///
    /// # Errors
    /// [`Error::Shape`] for an array of another shape.
    ///
    /// ```
    /// use ndarray::{Array2, array};
    /// use tersor::Quantizer;
    ///
    /// let q = Quantizer::ternary().apply(&array![[-1.0_f32, 0.0], [1.0, 1.0]])?;
    /// let mut out = Array2::zeros((2, 2));
    /// q.dequantize_into(&mut out)?;
    /// assert_eq!(out, array![[-1.0, 0.0], [1.0, 1.0]]);
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn dequantize_into<S: DataMut<Elem = f32>, D: Dimension>(&self, out: &mut ArrayBase<S, D>) -> Result<()> {
        if out.shape() != self.shape {
            let (expected, found) = (self.shape.clone(), out.shape().to_vec());
            return Err(Error::Shape { what: "the array for the numbers", expected, found });
        }
        match out.as_slice_mut() {
            Some(out) => self.decode_all(out),
            None => out.iter_mut().zip(self.dequantize()).for_each(|(out, x)| *out = x),
        }
        Ok(())
    }

    fn decode_all(&self, out: &mut [f32]) {
        parallel::for_each_chunk_mut(out, PIECE, |index, piece| self.decode(index * PIECE, piece));
    }

    /// Decodes `out.len()` elements from element `start` on.
    pub(crate) fn decode(&self, start: usize, out: &mut [f32]) {
        /// Codes unpacked at a time.
        const SOME: usize = 1 << 12;
        let groups = self.groups();
        let (is_wide, most) = (self.bits() == 16, out.len().min(SOME));
        let (mut wide, mut narrow) = (vec![0u16; if is_wide { most } else { 0 }], vec![0u8; most]);
        for (index, out) in out.chunks_mut(SOME).enumerate() {
            let start = start + index * SOME;
            if is_wide {
                let codes = &mut wide[..out.len()];
                self.codes.unpack16(start, codes);
                vectorize(
                    #[inline(always)]
                    || self.decode_codes(codes, &groups, start, out),
                );
            } else {
                let codes = &mut narrow[..out.len()];
                vectorize(
                    #[inline(always)]
                    || {
                        pack::unpack_from(self.codes.as_bytes(), self.bits(), start, codes);
                        self.decode_codes(codes, &groups, start, out);
                    },
                );
            }
        }
    }

    #[inline(always)]
    fn decode_codes<C: Copy + Into<i32> + Into<usize>>(
        &self,
        codes: &[C],
        groups: &Groups,
        start: usize,
        out: &mut [f32],
    ) {
        let range = start..start + out.len();
        let inside = |piece: Range<usize>| piece.start - start..piece.end - start;
        match (&self.grid, groups.columns()) {
            (Grid::Affine { scale, zero_point, lowest, .. }, Some(columns)) => {
                for (first, piece) in rows(range, columns) {
                    let piece = inside(piece);
                    let zero = zero_point.get(first..).unwrap_or_default();
                    affine::dequantize_each(&codes[piece.clone()], (&scale[first..], zero), *lowest, &mut out[piece]);
                }
            }
            (Grid::Affine { scale, zero_point, lowest, .. }, None) => {
                for (group, piece) in groups.segments(range) {
                    let piece = inside(piece);
                    let zero = zero_point.get(group).copied().unwrap_or(0);
                    affine::dequantize(&codes[piece.clone()], scale[group], lowest - zero, &mut out[piece]);
                }
            }
            (Grid::Codebook { levels, scale, .. }, _) => {
                let (tables, width) = (levels.as_slice().unwrap_or_default(), levels.ncols());
                for (group, piece) in groups.segments(range) {
                    let piece = inside(piece);
                    let table = if levels.nrows() == 1 { tables } else { &tables[group * width..(group + 1) * width] };
                    let scale = scale.get(group).copied().unwrap_or(1.0);
                    codebook::lookup(&codes[piece.clone()], scale, table, &mut out[piece]);
                }
            }
        }
    }

    /// Bytes at rest: packed codes, scales, zero points and codebooks, as saved.
    pub fn nbytes(&self) -> usize {
        self.codes.as_bytes().len() + self.grid.nbytes(self.bits())
    }

    /// Bits at rest per element, all counted.
    pub fn bits_per_weight(&self) -> f64 {
        self.nbytes() as f64 * 8.0 / self.len().max(1) as f64
    }

    pub(crate) fn groups(&self) -> Groups {
        self.grid.granularity().groups(&self.shape).expect("checked when the tensor was made")
    }
}

impl Grid {
    /// Which elements share a scale or a table.
    pub fn granularity(&self) -> Granularity {
        match self {
            Grid::Affine { granularity, .. } | Grid::Codebook { granularity, .. } => *granularity,
        }
    }

    /// Bytes at rest beside codes of so many bits.
    pub(crate) fn nbytes(&self, bits: u8) -> usize {
        match self {
            Grid::Affine { scale, zero_point, .. } => 4 * scale.len() + self.zero_point_width(bits) * zero_point.len(),
            Grid::Codebook { levels, scale, .. } => 4 * (levels.len() + scale.len()),
        }
    }

    /// Bytes that a zero point takes: those of a code where all lie among the codes' integers, else 4.
    pub(crate) fn zero_point_width(&self, bits: u8) -> usize {
        let Grid::Affine { zero_point, lowest, .. } = self else { return 0 };
        let highest = lowest + ((1i32 << bits) - 1);
        match zero_point.iter().all(|zero| (*lowest..=highest).contains(zero)) {
            true if bits <= 8 => 1,
            true => 2,
            false => 4,
        }
    }

    /// The code that stands for 0 in a group, if there is one.
    pub(crate) fn code_of_zero(&self, group: usize, bits: u8) -> Option<u16> {
        match self {
            Grid::Affine { zero_point, lowest, .. } => {
                let code = zero_point.get(group).copied().unwrap_or(0).checked_sub(*lowest)?;
                u16::try_from(code).ok().filter(|code| u32::from(*code) < 1 << bits)
            }
            Grid::Codebook { levels, .. } => {
                let table = if levels.nrows() == 1 { 0 } else { group };
                let code = levels.rows().into_iter().nth(table)?.iter().position(|level| *level == 0.0)?;
                u16::try_from(code).ok()
            }
        }
    }
}

impl fmt::Display for Grid {
    /// In words: `affine, groups of 32`, `codebook of 16 levels, per tensor`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grid::Affine { .. } => write!(f, "affine, ")?,
            Grid::Codebook { levels, .. } => write!(f, "codebook of {} levels, ", levels.ncols())?,
        }
        match self.granularity() {
            Granularity::Tensor => write!(f, "per tensor"),
            Granularity::Channel(axis) => write!(f, "per channel of axis {}", axis.index()),
            Granularity::Group(size) => write!(f, "groups of {size}"),
        }
    }
}

fn length(what: &'static str, expected: usize, found: usize) -> Result<()> {
    if expected == found {
        return Ok(());
    }
    Err(Error::Shape { what, expected: vec![expected], found: vec![found] })
}

/// A level must stay in f32.
fn finite_level(level: f64) -> Result<()> {
    if (level as f32).is_finite() {
        return Ok(());
    }
    Err(Error::Setting { setting: "level", value: level, bound: "within f32; lower the scale" })
}

fn usable_scale(scale: &[f32]) -> Result<()> {
    super::weights::finite("the scale", scale)?;
    if scale.contains(&0.0) {
        return Err(Error::Setting { setting: "scale", value: 0.0, bound: "different from 0" });
    }
    Ok(())
}
