//! What a file's metadata tell: one JSON value, versioned.

use std::collections::BTreeMap;

use ndarray::Axis;
use serde::{Deserialize, Serialize};

use crate::{
    compressed::Structure,
    tensor::{self, Grid, QuantizedTensor},
};

/// The version written; older ones stay readable.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    version: u32,
    /// Quantized tensors by name.
    #[serde(default)]
    tensors: BTreeMap<String, Quantized>,
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

impl Default for Header {
    fn default() -> Self {
        Header { version: VERSION, tensors: BTreeMap::new(), network: None }
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
        if version != VERSION {
            return Err(format!("its `tersor` metadata are of version {version}; this crate reads version {VERSION}"));
        }
        serde_json::from_str(json).map_err(|e| format!("its `tersor` metadata: {e}"))
    }

    pub(super) fn describe(&mut self, name: &str, q: &QuantizedTensor) {
        let grid = match q.grid() {
            Grid::Affine { lowest, .. } => GridKind::Affine { lowest: *lowest },
            Grid::Codebook { .. } => GridKind::Codebook,
        };
        let granularity = q.grid().granularity().into();
        let described = Quantized { shape: q.shape().to_vec(), bits: q.bits(), grid, granularity };
        self.tensors.insert(name.to_owned(), described);
    }

    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, &Quantized)> {
        self.tensors.iter().map(|(name, quantized)| (name.as_str(), quantized))
    }
}
