//! The one error type. A message says the value first, then the bound, then the remedy.

use std::path::PathBuf;

/// `std::result::Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can be wrong with a setting, an array or a file given by the user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A bit width that the scheme does not have.
    #[error("bits = {bits}, but {scheme} takes {allowed}")]
    Bits {
        /// The bit width given.
        bits: u8,
        /// The scheme that was asked.
        scheme: &'static str,
        /// The bit widths it takes, as text (`1 to 8, or 16`).
        allowed: &'static str,
    },
    /// A group of no elements.
    #[error("group_size = {group_size}, but a group holds at least 1 element; use per_channel for whole rows")]
    GroupSize {
        /// The group size given.
        group_size: usize,
    },
    /// An axis that the array does not have.
    #[error("axis = {axis}, but the array has {rank} axes, numbered from 0")]
    Axis {
        /// The axis given.
        axis: usize,
        /// The number of axes of the array.
        rank: usize,
    },
    /// An array without elements where at least one is needed.
    #[error("there is nothing in {what}, where at least one element is needed")]
    Empty {
        /// What was empty.
        what: &'static str,
    },
    /// NaN or an infinity in an input.
    #[error(
        "element {index} of {what} is {value}; every value must be finite in the type that it is computed in, f32, or f64 \
         for losses of distillation: clean or scale the array first"
    )]
    NotFinite {
        /// The array it was found in.
        what: &'static str,
        /// Its position in logical (row-major) order.
        index: usize,
        /// NaN, inf or -inf.
        value: f64,
    },
    /// A shape that does not fit.
    #[error("{what} has shape {found:?}, but shape {expected:?} is needed")]
    Shape {
        /// The array with the wrong shape.
        what: &'static str,
        /// The shape needed.
        expected: Vec<usize>,
        /// The shape given.
        found: Vec<usize>,
    },
    /// A number of axes that does not fit.
    #[error("{what} has shape {found:?}, of rank {}, but rank {expected} is needed", found.len())]
    Rank {
        /// The array with the wrong rank.
        what: &'static str,
        /// The ranks allowed, as text (`2`, `2 or 4`).
        expected: &'static str,
        /// The shape given.
        found: Vec<usize>,
    },
    /// A number outside its bounds.
    #[error("{setting} = {value}, but it must be {bound}")]
    Setting {
        /// The name of the setting, as in the API.
        setting: &'static str,
        /// The value given.
        value: f64,
        /// The bound, as text (`above 0 and at most 100`).
        bound: &'static str,
    },
    /// More clusters than there are distinct numbers to fill them.
    #[error(
        "k = {k}, but there are {distinct} distinct values; ask for at most as many, or let Quantizer::kmeans leave \
         levels out"
    )]
    Clusters {
        /// The number of clusters asked for.
        k: usize,
        /// The distinct values that have any weight.
        distinct: usize,
    },
    /// Two settings, or a setting and an input, that exclude one another.
    #[error("{what}; {remedy}")]
    Conflict {
        /// What excludes what.
        what: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A class label that the outputs do not have.
    #[error("label {label} at position {index}, but there are {classes} classes, numbered from 0")]
    Label {
        /// The label given.
        label: usize,
        /// Its position in the batch or data set.
        index: usize,
        /// The number of classes.
        classes: usize,
    },
    /// A layer or parameter name that the network does not have.
    #[error("no layer or parameter is named `{name}`; there are: {}", known.join(", "))]
    UnknownName {
        /// The name given.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// A pattern of a recipe that no name matches.
    #[error("the pattern `{pattern}` matches nothing; there are: {}", known.join(", "))]
    Pattern {
        /// The pattern given.
        pattern: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// A scheme that must know more than the numbers, used without.
    #[error("{scheme} needs {what}")]
    NeedsCalibration {
        /// The scheme.
        scheme: &'static str,
        /// What it needs, and how to give it.
        what: &'static str,
    },
    /// A name that two layers share, or that cannot be a name.
    #[error("the layer name `{name}` is taken or not usable; names are unique, not empty and without `.`")]
    LayerName {
        /// The name given.
        name: String,
    },
    /// Something wrong inside a named layer.
    #[error("layer `{name}`: {source}")]
    Layer {
        /// The layer's name.
        name: String,
        /// What is wrong there.
        source: Box<Error>,
    },
    /// Something wrong with a term of a distillation.
    #[error("{term}: {source}")]
    Term {
        /// Which term it is and where, as text (`term 0, on the outputs`; `term 2, at 1 against 3`).
        term: String,
        /// What is wrong with it.
        source: Box<Error>,
    },
    /// An instruction set that does not exist or that this machine lacks.
    #[error(
        "TERSOR_ISA = `{name}`, but this machine has {}; name one of these or unset the variable",
        available.join(", ")
    )]
    Isa {
        /// The name given.
        name: String,
        /// The names of the sets that this machine has.
        available: Vec<&'static str>,
    },
    /// Training or calibration was cancelled by its progress callback.
    #[error("cancelled by the progress callback after {done} of {total} steps")]
    Cancelled {
        /// Steps done.
        done: usize,
        /// Steps asked for.
        total: usize,
    },
    /// The loss is no longer a finite number.
    #[error("the loss became {loss} in epoch {epoch}; lower the learning rate or check the inputs' scale")]
    Diverged {
        /// The loss seen.
        loss: f64,
        /// The epoch, counted from 0.
        epoch: usize,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file whose contents are not what they claim to be.
    #[error("{what}: {problem}")]
    Format {
        /// The file, tensor or metadata key.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    /// Names the layer in which an error arose.
    pub(crate) fn in_layer(self, name: &str) -> Error {
        Error::Layer { name: name.to_owned(), source: Box::new(self) }
    }
}
