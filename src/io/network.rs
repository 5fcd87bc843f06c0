//! Networks in files: structure in the metadata, arrays as tensors.

use std::path::Path;

use super::{
    header::{Header, InputGrid, NetworkHeader},
    read, write,
};
use crate::{
    compressed::Compressed,
    error::{Error, Result},
    nn::Network,
    packed::Activations,
};

impl Compressed {
    /// Writes a safetensors file, atomically; [`load`](Compressed::load) needs nothing else.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    ///
    /// ```
    /// use tersor::{Quantizer, Recipe, compressed::Compressed, nn::Network};
    ///
    /// let network = Network::builder(1).linear(16, 8).relu().linear(8, 4).build()?;
    /// let compressed = Recipe::new().quantize("*", Quantizer::uniform(4).per_group(8)).apply(&network)?;
    /// let path = std::env::temp_dir().join("tersor-network.safetensors");
    /// compressed.save(&path)?;
    /// assert_eq!(Compressed::load(&path)?, compressed);
    /// # std::fs::remove_file(path).ok();
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let (layers, schemes, activations) = self.parts();
        let activations = activations.iter().filter_map(|(layer, activations)| {
            let grid = match activations {
                Activations::Dynamic => return None,
                Activations::Float => InputGrid::Float,
                Activations::Static { scale, zero_point } => {
                    InputGrid::Static { scale: *scale, zero_point: *zero_point }
                }
            };
            Some((layer.clone(), grid))
        });
        let network =
            NetworkHeader { layers: layers.clone(), schemes: schemes.clone(), activations: activations.collect() };
        write(path.as_ref(), self.tensors(), Header::of_network(network))
    }

    /// Reads what [`save`](Compressed::save) wrote.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Format`] if it is truncated, its contents are not what they
    /// claim to be, or it holds no network.
    pub fn load(path: impl AsRef<Path>) -> Result<Compressed> {
        let path = path.as_ref();
        let format = |problem: String| Error::Format { what: path.display().to_string(), problem };
        let (tensors, header) = read(path)?;
        let network = header
            .network
            .ok_or_else(|| format("it holds tensors, but no network; Checkpoint::load reads it".to_owned()))?;
        let activations = network.activations.into_iter().map(|(layer, grid)| {
            let grid = match grid {
                InputGrid::Float => Activations::Float,
                InputGrid::Static { scale, zero_point } => Activations::Static { scale, zero_point },
            };
            (layer, grid)
        });
        Compressed::from_parts(network.layers, tensors, network.schemes, activations.collect())
            .map_err(|e| format(e.to_string()))
    }
}

impl Network {
    /// Writes a safetensors file, atomically: every array under its name, and the structure.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        Compressed::new(self)?.save(path)
    }

    /// Reads a network that [`save`](Network::save) wrote, or a compressed one in floats.
    ///
    /// Arrays trained elsewhere have no structure: build the network, then [`load_arrays`](Network::load_arrays).
    ///
    /// # Errors
    /// As [`Compressed::load`].
    pub fn load(path: impl AsRef<Path>) -> Result<Network> {
        Compressed::load(path)?.to_network()
    }

    /// Takes every parameter and buffer from a safetensors file, by name; the file may hold more.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Format`]; [`Error::UnknownName`] for a name that the file lacks, [`Error::Shape`] for an
    /// array that does not fit. The network is unchanged then.
    pub fn load_arrays(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let (tensors, _) = read(path.as_ref())?;
        let mut loaded = self.clone();
        let names: Vec<String> = self.state().into_iter().map(|(name, _)| name).collect();
        for name in names {
            loaded.set_parameter(&name, &tensors.floats(&name)?)?;
        }
        *self = loaded;
        Ok(())
    }
}
