//! Terse tensors: trained neural networks made smaller and faster.
//!
//! Quantize any `ndarray` array by the scheme that suits it, and multiply by the result on int8 CPU kernels:
//!
//! ```
//! use ndarray::{Array2, Axis};
//! use tersor::{PackedWeights, Quantizer};
//!
//! # let weights = Array2::from_shape_fn((64, 128), |(i, j)| ((i * 128 + j) as f32).sin());
//! # let x = Array2::from_shape_fn((8, 128), |(i, j)| ((i + 3 * j) as f32).cos());
//! let q = Quantizer::uniform(8).symmetric().per_channel(Axis(0)).apply(&weights)?; // a QuantizedTensor
//! assert!(q.nbytes() < 4 * weights.len() / 3);
//! let y = PackedWeights::new(&q)?.matmul(&x)?; // close to x.dot(&weights.t())
//! # assert!((y - x.dot(&weights.t())).iter().all(|e| e.abs() < 0.5));
//! # Ok::<(), tersor::Error>(())
//! ```
//!
//! Prune by any score in any pattern, and multiply by what is left:
//!
//! ```
//! use tersor::{PackedWeights, Pruner};
//!
//! # let weights = ndarray::Array2::from_shape_fn((64, 128), |(i, j)| ((i * 128 + j) as f32).sin());
//! # let x = ndarray::Array2::from_shape_fn((8, 128), |(i, j)| ((i + 3 * j) as f32).cos());
//! let pruned = Pruner::magnitude(0.9).apply(&weights)?; // a PrunedTensor: values and mask
//! let y = PackedWeights::new(&pruned)?.matmul(&x)?; // x.dot(&pruned.values().t()), without the zeros
//! # assert_eq!(y.dim(), (8, 64));
//! # Ok::<(), tersor::Error>(())
//! ```
//!
//! or compress a whole network by the names of its layers:
//!
//! ```
//! use tersor::{Quantizer, Recipe, Report, nn::Network};
//!
//! # let network = Network::builder(7).linear(784, 64).relu().linear(64, 32).relu().linear(32, 10).build()?;
//! # let images = ndarray::Array2::<f32>::zeros((3, 784));
//! let compressed = Recipe::new()
//!     .quantize("*", Quantizer::adaptive(4)) // every layer
//!     .quantize("4", Quantizer::uniform(8)) // but the last one so
//!     .apply(&network)?;
//! println!("{}", Report::new(&network, &compressed)?);
//! # #[cfg(feature = "io")] {
//! # let path = std::env::temp_dir().join("tersor-front-page.safetensors");
//! compressed.save(&path)?; // safetensors; Compressed::load reads it back
//! # std::fs::remove_file(path).ok();
//! # }
//! let logits = compressed.pack()?.forward(&images)?; // on int8 kernels
//! # assert_eq!(logits.shape(), [3, 10]);
//! # Ok::<(), tersor::Error>(())
//! ```
//!
//! Teach a smaller network what a larger one knows:
//!
//! ```
//! use tersor::{Distillation, Distiller, nn::{Adam, Data, Network}};
//!
//! # let data = Data::classes(ndarray::Array2::<f32>::eye(4), [0, 1, 0, 1])?;
//! # let teacher = Network::builder(1).linear(4, 16).relu().linear(16, 2).build()?;
//! # let mut student = Network::builder(2).linear(4, 2).build()?;
//! let distillation = Distillation::from(&teacher).term(0.9, Distiller::soft_targets(4.0)).hard_labels(0.1);
//! distillation.train(&mut student, &data, &mut Adam::new(1e-3), 40, &mut |_| std::ops::ControlFlow::Continue(()))?;
//! # Ok::<(), tersor::Error>(())
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`quantize`] | schemes behind the trait [`Quantizer`], ranges, conventions, observers, fake quantization |
//! | [`tensor`] | data at rest: [`QuantizedTensor`], [`PrunedTensor`], [`Mask`], sparse tensors, checkpoints |
//! | [`prune`] | scores behind the trait [`Pruner`], patterns, amounts, schedules |
//! | [`packed`] | weights that multiply: [`PackedWeights`], convolutions |
//! | [`nn`] | a small trainable network |
//! | [`distill`] | losses behind the trait [`Distiller`], teachers, and the training by them: [`Distillation`] |
//! | [`removal`] | channels and neurons taken out of a network for real: [`Channels`] |
//! | [`compressed`], [`recipe`], [`report`] | whole networks: compressed at rest, running, described |
#![cfg_attr(feature = "io", doc = "| [`io`] | safetensors files |")]
//!
//! | feature | default | what it adds |
//! |---|---|---|
//! | `rayon` | yes | products, fits and training on the current rayon pool; the same bits without it |
//! | `io` | yes | safetensors files, reports as JSON |
//!
//! Every bad input gets an [`Error`] that names the value, the bound and the remedy. int8 results are the same bits on
//! every instruction set and number of threads; `TERSOR_ISA=scalar|avx2|avxvnni|avx512vnni` pins one ([`Isa`]).

pub mod compressed;
pub mod distill;
mod error;
#[cfg(feature = "io")]
pub mod io;
#[allow(unsafe_code)] // the only room with any; the rest of the crate has none
mod kernels;
pub mod nn;
pub mod packed;
pub mod prune;
pub mod quantize;
mod random;
pub mod recipe;
pub mod removal;
pub mod report;
#[doc(hidden)]
pub mod sealed;
pub mod tensor;

pub use distill::{Distillation, Distiller, Signals};
pub use error::{Error, Result};
pub use kernels::isa::Isa;
#[doc(hidden)]
pub use kernels::{float, limits};
pub use packed::PackedWeights;
pub use prune::Pruner;
pub use quantize::Quantizer;
pub use recipe::Recipe;
pub use removal::Channels;
pub use report::Report;
pub use tensor::{Mask, PrunedTensor, QuantizedTensor, Weights};

#[cfg(all(doctest, feature = "io"))]
#[doc = include_str!("../README.md")]
struct Readme;
