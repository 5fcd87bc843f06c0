//! What a file's metadata tell: one JSON value, versioned.

use std::collections::BTreeMap;

use ndarray::Axis;
use serde::{Deserialize, Serialize};

use crate::{
    compressed::Structure,
    tensor::{self, Grid, QuantizedTensor, SparseLayout, SparseTensor, SparseValues},
};

/// The version of files with sparse tensors; others are still written as version 1. All stay readable.
const VERSION: u32 = 2;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    version: u32,
    /// Quantized tensors by name.
    #[serde(default)]
    tensors: BTreeMap<String, Quantized>,
    /// Sparse tensors by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    sparse: BTreeMap<String, Sparse>,
    /// The network that the tensors belong to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) network: Option<NetworkHeader>,
}

/// What a file tells of a network, beside its tensors.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct NetworkHeader {
    pub(super) layers: Structure,
    /// The scheme that made each compressed tensor, in words.
    #[serde(default)]
    pub(super) schemes: BTreeMap<String, String>,
    /// Fixed grids of inputs, by layer: scale and zero point.
    #[serde(default)]
    pub(super) activations: BTreeMap<String, InputGrid>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum InputGrid {
    Float,
    Static { scale: f32, zero_point: i32 },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Quantized {
    pub(super) shape: Vec<usize>,
    pub(super) bits: u8,
    #[serde(flatten)]
    pub(super) grid: GridKind,
    pub(super) granularity: Granularity,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Sparse {
    pub(super) shape: Vec<usize>,
    pub(super) layout: Layout,
    /// What the survivors' codes stand for, where they are not floats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) codes: Option<SparseCodes>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SparseCodes {
    pub(super) bits: u8,
    #[serde(flatten)]
    pub(super) grid: GridKind,
    pub(super) granularity: Granularity,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Layout {
    Bitmask,
    Csr,
    NOfM { n: usize, m: usize },
    Block { rows: usize, columns: usize },
}

impl From<Layout> for SparseLayout {
    fn from(layout: Layout) -> SparseLayout {
        match layout {
            Layout::Bitmask => SparseLayout::Bitmask,
            Layout::Csr => SparseLayout::Csr,
            Layout::NOfM { n, m } => SparseLayout::NOfM { n, m },
            Layout::Block { rows, columns } => SparseLayout::Block { rows, columns },
        }
    }
}

impl From<SparseLayout> for Layout {
    fn from(layout: SparseLayout) -> Layout {
        match layout {
            SparseLayout::Bitmask => Layout::Bitmask,
            SparseLayout::Csr => Layout::Csr,
            SparseLayout::NOfM { n, m } => Layout::NOfM { n, m },
            SparseLayout::Block { rows, columns } => Layout::Block { rows, columns },
        }
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(tag = "grid", rename_all = "snake_case")]
pub(super) enum GridKind {
    Affine { lowest: i32 },
    Codebook,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Granularity {
    Tensor,
    Channel(usize),
    Group(usize),
}

impl From<Granularity> for tensor::Granularity {
    fn from(granularity: Granularity) -> Self {
        match granularity {
            Granularity::Tensor => tensor::Granularity::Tensor,
            Granularity::Channel(axis) => tensor::Granularity::Channel(Axis(axis)),
            Granularity::Group(size) => tensor::Granularity::Group(size),
        }
    }
}

impl From<tensor::Granularity> for Granularity {
    fn from(granularity: tensor::Granularity) -> Self {
        match granularity {
            tensor::Granularity::Tensor => Granularity::Tensor,
            tensor::Granularity::Channel(Axis(axis)) => Granularity::Channel(axis),
            tensor::Granularity::Group(size) => Granularity::Group(size),
        }
    }
}

impl From<&Grid> for GridKind {
    fn from(grid: &Grid) -> GridKind {
        match grid {
            Grid::Affine { lowest, .. } => GridKind::Affine { lowest: *lowest },
            Grid::Codebook { .. } => GridKind::Codebook,
        }
    }
}

impl Default for Header {
    fn default() -> Self {
        Header { version: 1, tensors: BTreeMap::new(), sparse: BTreeMap::new(), network: None }
    }
}

impl Header {
    pub(super) fn of_network(network: NetworkHeader) -> Header {
        Header { network: Some(network), ..Header::default() }
    }

    pub(super) fn parse(json: &str) -> Result<Header, String> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Version { version } = serde_json::from_str(json).map_err(|e| format!("its `tersor` metadata: {e}"))?;
        if !(1..=VERSION).contains(&version) {
            return Err(format!(
                "its `tersor` metadata are of version {version}; this crate reads versions 1 to {VERSION}"
            ));
        }
        serde_json::from_str(json).map_err(|e| format!("its `tersor` metadata: {e}"))
    }

    pub(super) fn describe(&mut self, name: &str, q: &QuantizedTensor) {
        let (grid, granularity) = (q.grid().into(), q.grid().granularity().into());
        let described = Quantized { shape: q.shape().to_vec(), bits: q.bits(), grid, granularity };
        self.tensors.insert(name.to_owned(), described);
    }

    pub(super) fn describe_sparse(&mut self, name: &str, sparse: &SparseTensor) {
        let codes = match sparse.values() {
            SparseValues::Floats(_) => None,
            SparseValues::Codes { codes, grid } => {
                let granularity = grid.granularity().into();
                Some(SparseCodes { bits: codes.bits(), grid: grid.into(), granularity })
            }
        };
        let described = Sparse { shape: sparse.shape().to_vec(), layout: sparse.layout().into(), codes };
        self.sparse.insert(name.to_owned(), described);
        self.version = VERSION;
    }

    pub(super) fn sparse(&self) -> impl Iterator<Item = (&str, &Sparse)> {
        self.sparse.iter().map(|(name, sparse)| (name.as_str(), sparse))
    }

    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, &Quantized)> {
        self.tensors.iter().map(|(name, quantized)| (name.as_str(), quantized))
    }
}
