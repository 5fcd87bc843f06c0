//! Saving and loading: safetensors files that other tools open too; and a teacher's outputs, [`TeacherCache`].
//!
//! A float tensor is stored under its name. A quantized tensor `w` is stored as `w.codes` (packed bytes), `w.scale`,
//! `w.zero_point` and `w.levels`, as far as its grid has them; a sparse one as its survivors, `w.values` (f32) or the parts
//! of a quantized tensor, and where they are: `w.mask` (bits), `w.row_starts` and `w.columns` (of elements or blocks), or
//! `w.places` (within groups, packed). How parts belong together is one JSON value in the file's metadata, under `tersor`. A file is written beside its destination, synced, and renamed: whatever fails, the
//! destination holds the old contents or the new, whole.

mod atomic;
mod header;
mod network;
mod places;
mod teacher_cache;
mod teacher_header;

use std::{borrow::Cow, collections::HashMap, fs, path::Path};

use header::Header;
use ndarray::{Array2, ArrayD, IxDyn};
use places::{Columns, Places};
use safetensors::{Dtype, SafeTensors, View, tensor::TensorView};
pub use teacher_cache::TeacherCache;

use crate::{
    error::{Error, Result},
    tensor::{
        Checkpoint, Codes, FloatType, Grid, QuantizedTensor, SparseLayout, SparseTensor, SparseValues, Stored,
        elements, is_countable, matrix, place_bits,
    },
};

impl Checkpoint {
    /// Reads a safetensors file: f32, f16 and bf16 (and f64, as f32) become floats, what [`save`](Checkpoint::save)
    /// quantized is quantized again, anything else is passed on as it is.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it is truncated or its contents are not what they
    /// claim to be.
    pub fn load(path: impl AsRef<Path>) -> Result<Checkpoint> {
        Ok(read(path.as_ref())?.0)
    }

    /// Writes a safetensors file, atomically.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written, [`Error::Format`] if two tensors would share a name (a tensor called
    /// `w.scale` beside a quantized `w`).
    ///
    /// ```
    /// use tersor::{Quantizer, tensor::Checkpoint};
    ///
    /// let mut checkpoint = Checkpoint::new();
    /// checkpoint.insert("fc.weight", Quantizer::kmeans(3).apply(&ndarray::Array2::<f32>::eye(8))?);
    /// let path = std::env::temp_dir().join("tersor-checkpoint.safetensors");
    /// checkpoint.save(&path)?;
    /// assert_eq!(Checkpoint::load(&path)?, checkpoint);
    /// # std::fs::remove_file(path).ok();
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write(path.as_ref(), self, Header::default())
    }
}

/// A tensor as a file holds it.
struct Blob<'a> {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl View for Blob<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.bytes)
    }

    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

fn little_endian<const N: usize, T>(
    values: impl IntoIterator<Item = T>,
    f: impl Fn(T) -> [u8; N],
) -> Cow<'static, [u8]> {
    Cow::Owned(values.into_iter().flat_map(f).collect())
}

/// What the parts of a quantized tensor are called, after its name.
const PARTS: [&str; 4] = [".codes", ".scale", ".zero_point", ".levels"];
/// What a sparse one has besides.
const SPARSE_PARTS: [&str; 5] = [".values", ".mask", ".row_starts", ".columns", ".places"];

/// The most elements of a sparse tensor: a few bytes can claim many, and each takes a bit once it is read.
const MOST_ELEMENTS: usize = 1 << 32;

/// Writes tensors, with what `header` already tells of the whole.
pub(crate) fn write(path: &Path, checkpoint: &Checkpoint, mut header: Header) -> Result<()> {
    let format = |problem: String| Error::Format { what: path.display().to_string(), problem };
    let mut blobs = std::collections::BTreeMap::new();
    for (name, tensor) in checkpoint.iter() {
        if name == "__metadata__" {
            return Err(format(
                "a tensor cannot be named `__metadata__`, which the format keeps for itself".to_owned(),
            ));
        }
        // Also those parts that this tensor does not have: a reader would take them for its.
        let (kind, parts) = match tensor {
            Stored::Quantized(_) => ("quantized", PARTS.to_vec()),
            Stored::Sparse(_) => ("sparse", [&PARTS[..], &SPARSE_PARTS].concat()),
            _ => ("", Vec::new()),
        };
        let taken = parts.iter().map(|part| format!("{name}{part}")).find(|part| checkpoint.tensor(part).is_ok());
        if let Some(part) = taken {
            return Err(format(format!("`{part}` is the name of a part of the {kind} `{name}`; rename one")));
        }
        for (name, blob) in blobs_of(name, tensor).map_err(&format)? {
            if blobs.contains_key(&name) {
                return Err(format(format!("two tensors would be stored as `{name}`; rename one")));
            }
            blobs.insert(name, blob);
        }
        match tensor {
            Stored::Quantized(q) => header.describe(name, q),
            Stored::Sparse(sparse) => header.describe_sparse(name, sparse),
            _ => {}
        }
    }
    let json = serde_json::to_string(&header).map_err(|e| format(e.to_string()))?;
    let metadata = HashMap::from([("tersor".to_owned(), json)]);
    let bytes = safetensors::serialize(blobs, Some(metadata)).map_err(|e| format(e.to_string()))?;
    atomic::write(path, &bytes).map_err(|source| Error::Io { path: path.to_owned(), source })
}

fn blobs_of<'a>(name: &str, tensor: &'a Stored) -> Result<Vec<(String, Blob<'a>)>, String> {
    let one = |suffix: &str, dtype, shape: &[usize], bytes| {
        (format!("{name}{suffix}"), Blob { dtype, shape: shape.to_vec(), bytes })
    };
    Ok(match tensor {
        Stored::Float(values, float) => {
            let narrow = |x: &f32| match float {
                FloatType::F32 => *x,
                FloatType::F16 => half::f16::from_f32(*x).to_f32(),
                FloatType::BF16 => half::bf16::from_f32(*x).to_f32(),
            };
            if let Some(x) = values.iter().find(|x| x.is_finite() && !narrow(x).is_finite()) {
                return Err(format!("{x} in `{name}` is beyond {float:?}; store it as F32"));
            }
            let (dtype, bytes) = match float {
                FloatType::F32 => (Dtype::F32, little_endian(values, |x| x.to_le_bytes())),
                FloatType::F16 => (Dtype::F16, little_endian(values, |x| half::f16::from_f32(*x).to_le_bytes())),
                FloatType::BF16 => (Dtype::BF16, little_endian(values, |x| half::bf16::from_f32(*x).to_le_bytes())),
            };
            vec![one("", dtype, values.shape(), bytes)]
        }
        Stored::Raw { dtype, shape, bytes } => {
            let dtype = serde_json::from_value(dtype.clone().into()).map_err(|e| format!("`{name}`: {e}"))?;
            vec![one("", dtype, shape, Cow::Borrowed(bytes))]
        }
        Stored::Quantized(q) => coded(&one, q.codes(), q.grid()),
        Stored::Sparse(sparse) if sparse.mask().len() > MOST_ELEMENTS => {
            return Err(format!("`{name}` has more than 2^32 elements; store it dense"));
        }
        Stored::Sparse(sparse) => {
            let mut parts = match sparse.values() {
                SparseValues::Floats(values) => {
                    vec![one(".values", Dtype::F32, &[values.len()], little_endian(values, |x| x.to_le_bytes()))]
                }
                SparseValues::Codes { codes, grid } => coded(&one, codes, grid),
            };
            match places::places(sparse.layout(), sparse.mask()).map_err(|e| e.to_string())? {
                Places::Bits(bits) => parts.push(one(".mask", Dtype::U8, &[bits.len()], Cow::Owned(bits))),
                Places::Groups(codes) => {
                    let bytes = codes.as_bytes().to_vec();
                    parts.push(one(".places", Dtype::U8, &[bytes.len()], Cow::Owned(bytes)));
                }
                Places::Rows { starts, columns } => {
                    let bytes = little_endian(&starts, |x| x.to_le_bytes());
                    parts.push(one(".row_starts", Dtype::U32, &[starts.len()], bytes));
                    let (dtype, len, bytes) = match columns {
                        Columns::Narrow(c) => (Dtype::U16, c.len(), little_endian(c, |x| x.to_le_bytes())),
                        Columns::Wide(c) => (Dtype::U32, c.len(), little_endian(c, |x| x.to_le_bytes())),
                    };
                    parts.push(one(".columns", dtype, &[len], bytes));
                }
            }
            parts
        }
    })
}

/// Makes a part of its suffix, type, shape and bytes.
type Part<'a, 'b> = &'b dyn Fn(&str, Dtype, &[usize], Cow<'a, [u8]>) -> (String, Blob<'a>);

/// Codes and what they stand for.
fn coded<'a>(one: Part<'a, '_>, codes: &'a Codes, grid: &'a Grid) -> Vec<(String, Blob<'a>)> {
    let (bytes, bits) = (codes.as_bytes(), codes.bits());
    let mut parts = vec![one(".codes", Dtype::U8, &[bytes.len()], Cow::Borrowed(bytes))];
    let scale = match grid {
        Grid::Affine { scale, zero_point, lowest, .. } => {
            if !zero_point.is_empty() {
                let (dtype, bytes) = match (grid.zero_point_width(bits), *lowest < 0) {
                    (1, true) => (Dtype::I8, little_endian(zero_point, |z| (*z as i8).to_le_bytes())),
                    (1, false) => (Dtype::U8, little_endian(zero_point, |z| (*z as u8).to_le_bytes())),
                    (2, true) => (Dtype::I16, little_endian(zero_point, |z| (*z as i16).to_le_bytes())),
                    (2, false) => (Dtype::U16, little_endian(zero_point, |z| (*z as u16).to_le_bytes())),
                    _ => (Dtype::I32, little_endian(zero_point, |z| z.to_le_bytes())),
                };
                parts.push(one(".zero_point", dtype, &[zero_point.len()], bytes));
            }
            scale
        }
        Grid::Codebook { levels, scale, .. } => {
            let bytes = little_endian(levels, |x| x.to_le_bytes());
            parts.push(one(".levels", Dtype::F32, levels.shape(), bytes));
            scale
        }
    };
    if !scale.is_empty() {
        parts.push(one(".scale", Dtype::F32, &[scale.len()], little_endian(scale, |x| x.to_le_bytes())));
    }
    parts
}

/// Reads tensors, and what the file tells of the whole.
pub(crate) fn read(path: &Path) -> Result<(Checkpoint, Header)> {
    let bytes = fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let format = |problem: String| Error::Format { what: path.display().to_string(), problem };
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|e| format(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| format(e.to_string()))?;
    let header = match metadata.metadata().as_ref().and_then(|metadata| metadata.get("tersor")) {
        Some(json) => Header::parse(json).map_err(&format)?,
        None => Header::default(),
    };
    let mut parts: HashMap<&str, TensorView<'_>> = file.iter().collect();
    let mut checkpoint = Checkpoint::new();
    for (name, described) in header.tensors() {
        let mut part = |suffix: &str| parts.remove(format!("{name}{suffix}").as_str());
        let parts = PARTS.map(&mut part);
        let q = quantized(described, parts).map_err(|problem| format(format!("tensor `{name}`: {problem}")))?;
        checkpoint.insert(name, q);
    }
    for (name, described) in header.sparse() {
        let mut part = |suffix: &str| parts.remove(format!("{name}{suffix}").as_str());
        let (coded, places) = (PARTS.map(&mut part), SPARSE_PARTS.map(&mut part));
        let found =
            sparse(described, coded, places).map_err(|problem| format(format!("tensor `{name}`: {problem}")))?;
        if checkpoint.insert(name, found).is_some() {
            return Err(format(format!("tensor `{name}` is there twice, quantized and sparse")));
        }
    }
    for (name, view) in parts {
        if checkpoint.tensor(name).is_ok() {
            return Err(format(format!("tensor `{name}` is there twice, compressed and not")));
        }
        checkpoint.insert(name, plain(&view).map_err(|problem| format(format!("tensor `{name}`: {problem}")))?);
    }
    Ok((checkpoint, header))
}

fn numbers<const N: usize, T>(view: &TensorView<'_>, f: impl Fn([u8; N]) -> T) -> Vec<T> {
    view.data().as_chunks::<N>().0.iter().map(|bytes| f(*bytes)).collect()
}

fn plain(view: &TensorView<'_>) -> Result<Stored, String> {
    let (values, float) = match view.dtype() {
        Dtype::F32 => (numbers(view, f32::from_le_bytes), FloatType::F32),
        Dtype::F64 => (numbers(view, |b| f64::from_le_bytes(b) as f32), FloatType::F32),
        Dtype::F16 => (numbers(view, |b| half::f16::from_le_bytes(b).to_f32()), FloatType::F16),
        Dtype::BF16 => (numbers(view, |b| half::bf16::from_le_bytes(b).to_f32()), FloatType::BF16),
        other => {
            let (dtype, shape) = (other.to_string(), view.shape().to_vec());
            return Ok(Stored::Raw { dtype, shape, bytes: view.data().to_vec() });
        }
    };
    Ok(Stored::Float(array(view.shape(), values)?, float))
}

fn array(shape: &[usize], values: Vec<f32>) -> Result<ArrayD<f32>, String> {
    ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|e| e.to_string())
}

fn of_type(view: &TensorView<'_>, part: &str, allowed: &[Dtype]) -> Result<(), String> {
    match allowed.contains(&view.dtype()) {
        true => Ok(()),
        false => Err(format!("its {part} are of type {}, which is none of {allowed:?}", view.dtype())),
    }
}

fn quantized(described: &header::Quantized, parts: [Option<TensorView<'_>>; 4]) -> Result<QuantizedTensor, String> {
    let (len, granularity) = (elements(&described.shape), described.granularity);
    let (codes, grid) = codes_and_grid(described.bits, len, described.grid, granularity, parts)?;
    QuantizedTensor::new(&described.shape, codes, grid).map_err(|e| e.to_string())
}

/// So many codes of so many bits, and what they stand for.
fn codes_and_grid(
    bits: u8,
    len: usize,
    kind: header::GridKind,
    granularity: header::Granularity,
    [codes, scale, zero_point, levels]: [Option<TensorView<'_>>; 4],
) -> Result<(Codes, Grid), String> {
    let codes = codes.ok_or("its codes are missing")?;
    of_type(&codes, "codes", &[Dtype::U8])?;
    let scale = match scale {
        Some(view) => {
            of_type(&view, "scales", &[Dtype::F32])?;
            numbers(&view, f32::from_le_bytes)
        }
        None => Vec::new(),
    };
    let zero_point = match zero_point {
        None => Vec::new(),
        Some(view) => match view.dtype() {
            Dtype::I8 => numbers(&view, |b| i32::from(i8::from_le_bytes(b))),
            Dtype::U8 => numbers(&view, |b| i32::from(u8::from_le_bytes(b))),
            Dtype::I16 => numbers(&view, |b| i32::from(i16::from_le_bytes(b))),
            Dtype::U16 => numbers(&view, |b| i32::from(u16::from_le_bytes(b))),
            Dtype::I32 => numbers(&view, i32::from_le_bytes),
            other => return Err(format!("its zero points are of type {other}")),
        },
    };
    let granularity = granularity.into();
    let grid = match kind {
        header::GridKind::Affine { lowest } => Grid::Affine { scale, zero_point, lowest, granularity },
        header::GridKind::Codebook => {
            let view = levels.ok_or("its levels are missing")?;
            of_type(&view, "levels", &[Dtype::F32])?;
            let &[tables, table] = view.shape() else { return Err("its levels are not of rank 2".to_owned()) };
            let levels = Array2::from_shape_vec((tables, table), numbers(&view, f32::from_le_bytes));
            Grid::Codebook { levels: levels.map_err(|e| e.to_string())?, scale, granularity }
        }
    };
    Ok((Codes::from_bytes(bits, len, codes.data().to_vec()).map_err(|e| e.to_string())?, grid))
}

fn sparse(
    described: &header::Sparse,
    coded: [Option<TensorView<'_>>; 4],
    [values, mask, row_starts, columns, in_groups]: [Option<TensorView<'_>>; 5],
) -> Result<SparseTensor, String> {
    // Nothing is made of a shape before it is known to be that of an array, and of no more elements than bits can hold.
    if !is_countable(&described.shape) || elements(&described.shape) > MOST_ELEMENTS {
        return Err(format!("its shape {:?} is that of no array", described.shape));
    }
    let layout = SparseLayout::from(described.layout);
    let places = match (mask, row_starts, columns, in_groups) {
        (Some(bits), None, None, None) => {
            of_type(&bits, "mask bits", &[Dtype::U8])?;
            Places::Bits(bits.data().to_vec())
        }
        (None, Some(starts), Some(columns), None) => {
            of_type(&starts, "row starts", &[Dtype::U32])?;
            of_type(&columns, "columns", &[Dtype::U16, Dtype::U32])?;
            let columns = match columns.dtype() {
                Dtype::U16 => Columns::Narrow(numbers(&columns, u16::from_le_bytes)),
                _ => Columns::Wide(numbers(&columns, u32::from_le_bytes)),
            };
            Places::Rows { starts: numbers(&starts, u32::from_le_bytes), columns }
        }
        (None, None, None, Some(packed)) => {
            of_type(&packed, "places", &[Dtype::U8])?;
            let SparseLayout::NOfM { n, m } = layout else {
                return Err(format!("its places are not those of {layout}"));
            };
            let (height, width) = matrix(&described.shape);
            let kept =
                height.saturating_mul((width / m.max(1)).saturating_mul(n).saturating_add(n.min(width % m.max(1))));
            Places::Groups(Codes::from_bytes(place_bits(m), kept, packed.data().to_vec()).map_err(|e| e.to_string())?)
        }
        _ => return Err(format!("its parts are not those of {layout}")),
    };
    let mask = places::mask(layout, &described.shape, &places)?;
    let values = match (values, &described.codes) {
        (Some(values), None) => {
            of_type(&values, "values", &[Dtype::F32])?;
            SparseValues::Floats(numbers(&values, f32::from_le_bytes))
        }
        (None, Some(described)) => {
            let (bits, granularity) = (described.bits, described.granularity);
            let (codes, grid) = codes_and_grid(bits, mask.kept(), described.grid, granularity, coded)?;
            SparseValues::Codes { codes, grid }
        }
        _ => return Err("its values are neither floats nor codes".to_owned()),
    };
    SparseTensor::new(mask, layout, values).map_err(|e| e.to_string())
}
