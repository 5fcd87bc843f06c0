//! Where implementations disagree in ways that change bits: each axis a small named value, one default for all.

/// How a quotient becomes an integer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest, halves to the even neighbour: torch, numpy, ONNX, FBGEMM. Without bias, so the default.
    #[default]
    HalfEven,
    /// To the nearest, halves away from zero: C's `roundf`, ggml's Q8_0, TFLite.
    HalfAway,
    /// `floor(x + 0.5)`: TensorFlow's fake quantization.
    HalfUp,
}

/// How `x / scale` is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quotient {
    /// Divided, so that every number gets its nearest level: ONNX Runtime, GPTQ, AWQ. The default.
    #[default]
    Divide,
    /// Multiplied by `1 / scale` in f32: torch on CPUs, torchao, ggml. Near ties the code may differ by one.
    Reciprocal,
}

/// Whether the zero point is added to the rounded quotient or to the quotient; it matters on ties.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroPointAdded {
    /// `round(x / scale) + zero_point`: torch, ONNX, FBGEMM, GPTQ. The default.
    #[default]
    AfterRounding,
    /// `round(x / scale + zero_point)`: compressed-tensors.
    BeforeRounding,
}

/// The scale of a symmetric grid whose range is `min..=max`, with `a = max(|min|, |max|)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SymmetricScale {
    /// `a / ((highest - lowest) / 2)`: a / 127 on -127..=127 (TFLite, ONNX Runtime, SmoothQuant) and a / 127.5 on
    /// -128..=127 (torch, torchao, compressed-tensors). The default.
    #[default]
    HalfSpan,
    /// `a / highest`: a / 7 even where -8 is a code (AWQ without zero points).
    Highest,
    /// The number of largest magnitude, with its sign, falls on `lowest` exactly: `max / lowest` (negative), or
    /// `min / lowest` where `|min| >= max`. ggml's Q4_0, NNCF's int4, ONNX Runtime's MatMulNBits. Uses every code, and
    /// so leaves a fifth less squared error than `a / 7` at 4 bits.
    SignedMax,
    /// `max(min / lowest, max / highest)`: no number is clipped (torchao).
    NoClipping,
}

/// Whether the range is widened to hold 0 before an affine grid is fitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroInRange {
    /// Yes, so that 0 is a level: torch, ONNX, TFLite, GPTQ. The default: zeros of padding and pruning stay zeros.
    #[default]
    Always,
    /// No: AWQ, HQQ. Finer where all numbers lie on one side; the zero point may then lie outside the codes.
    AsFound,
}

/// The code of zero when a symmetric grid has unsigned codes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnsignedZero {
    /// `ceil((lowest + highest) / 2)`: 128 of 0..=255 (torch's quint8). The default.
    #[default]
    Upper,
    /// `floor((lowest + highest) / 2)`: 127 of 0..=255 (torch, when the code range is given explicitly).
    Lower,
}

/// One choice on every axis, `Convention::default()` unless told otherwise.
///
/// | field | default | alternatives |
/// |---|---|---|
/// | `rounding` | `HalfEven` | `HalfAway`, `HalfUp` |
/// | `quotient` | `Divide` | `Reciprocal` |
/// | `zero_point_added` | `AfterRounding` | `BeforeRounding` |
/// | `symmetric_scale` | `HalfSpan` | `Highest`, `SignedMax`, `NoClipping` |
/// | `zero_in_range` | `Always` | `AsFound` |
/// | `unsigned_zero` | `Upper` | `Lower` |
/// | `smallest_scale` | 1.17549435e-38 (the smallest normal f32) | any positive number |
///
/// ```
/// use ndarray::array;
/// use tersor::{Quantizer, quantize::Convention};
///
/// let x = array![0.273_939_94_f32, 0.547_879_86];
/// let scale = 0.002_148_548_6; // 0.27393994 / scale is just below 127.5, but its product with 1 / scale is not
/// let grid = tersor::quantize::Affine::per_tensor(scale, 0, tersor::quantize::CodeRange::unsigned(8)?)?;
/// assert_eq!(grid.apply(&x)?.integers()[0], 127);
/// assert_eq!(grid.convention(Convention::torch()).apply(&x)?.integers()[0], 128);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Convention {
    /// How a quotient becomes an integer.
    pub rounding: Rounding,
    /// How the quotient is computed.
    pub quotient: Quotient,
    /// When the zero point is added.
    pub zero_point_added: ZeroPointAdded,
    /// The scale of a symmetric grid.
    pub symmetric_scale: SymmetricScale,
    /// Whether 0 must lie in the range of an affine grid.
    pub zero_in_range: ZeroInRange,
    /// The zero of a symmetric grid with unsigned codes.
    pub unsigned_zero: UnsignedZero,
    /// A scale below this (an all-zero range, say) is raised to it.
    pub smallest_scale: f32,
}

impl Default for Convention {
    fn default() -> Self {
        Convention {
            rounding: Rounding::default(),
            quotient: Quotient::default(),
            zero_point_added: ZeroPointAdded::default(),
            symmetric_scale: SymmetricScale::default(),
            zero_in_range: ZeroInRange::default(),
            unsigned_zero: UnsignedZero::default(),
            smallest_scale: f32::MIN_POSITIVE,
        }
    }
}

impl Convention {
    /// Whether numbers become codes as by default: divided, halves to even, then the zero point.
    pub(super) fn has_default_rule(self) -> bool {
        (self.quotient, self.rounding) == (Quotient::Divide, Rounding::HalfEven)
            && self.zero_point_added == ZeroPointAdded::AfterRounding
    }

    /// torch's `quantize_per_tensor`, `fake_quantize` and observers: the reciprocal, scales of at least 2^-23.
    pub fn torch() -> Self {
        Convention { quotient: Quotient::Reciprocal, smallest_scale: f32::EPSILON, ..Convention::default() }
    }

    /// ONNX's `QuantizeLinear` as ONNX Runtime computes it: the default's arithmetic.
    pub fn onnx() -> Self {
        Convention::default()
    }

    /// compressed-tensors (llm-compressor, vLLM): the zero point joins before rounding.
    pub fn compressed_tensors() -> Self {
        Convention {
            zero_point_added: ZeroPointAdded::BeforeRounding,
            smallest_scale: f32::EPSILON,
            ..Convention::default()
        }
    }
}
