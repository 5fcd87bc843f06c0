//! The layers that are timed. For benches, the report and the comparison with other crates, which take this file with
//! `#[path]`.
#![allow(dead_code)] // not every program that takes this file has both

/// Rows, outputs, inputs.
pub(crate) type Shape = (usize, usize, usize);

/// Of integers: squares, a transformer's projections, a few tokens, small layers, one token.
pub(crate) const INTEGERS: [Shape; 11] = [
    (2048, 2048, 2048),
    (1024, 1024, 1024),
    (512, 512, 512),
    (128, 3072, 768),
    (128, 768, 768),
    (32, 1024, 1024),
    (8, 4096, 4096),
    (64, 64, 784),
    (37, 53, 129),
    (1, 4096, 4096),
    (1, 1024, 1024),
];

/// Of floats: squares, layers in training, one token.
pub(crate) const FLOATS: [Shape; 8] = [
    (2048, 2048, 2048),
    (1024, 1024, 1024),
    (512, 512, 512),
    (128, 768, 768),
    (256, 784, 128),
    (64, 64, 784),
    (37, 53, 129),
    (1, 4096, 4096),
];
