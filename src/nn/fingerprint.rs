//! Numbers that tell networks and inputs apart.

use ndarray::ArrayViewD;

use super::{Data, Layer, Network};

/// FNV-1a in 64 bits (Fowler, Noll, Vo), byte by byte. Any one byte changed changes the result: each step is a bijection
/// of the state. Against accidents, not against intent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) fn new() -> Fingerprint {
        Fingerprint(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Fingerprint {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        Fingerprint(bytes.iter().fold(self.0, step))
    }

    pub(crate) fn number(self, number: u64) -> Fingerprint {
        self.bytes(&number.to_le_bytes())
    }

    /// With its length, so that what follows is not taken for a part of it.
    fn text(self, text: &str) -> Fingerprint {
        self.number(text.len() as u64).bytes(text.as_bytes())
    }

    /// Shape and bits.
    pub(crate) fn array(self, array: ArrayViewD<'_, f32>) -> Fingerprint {
        let shape = array.shape().iter().fold(self.number(array.ndim() as u64), |hash, n| hash.number(*n as u64));
        array.iter().fold(shape, |hash, value| hash.bytes(&value.to_le_bytes()))
    }

    pub(crate) fn value(self) -> u64 {
        self.0
    }
}

impl Network {
    /// A number of 64 bits that another network does not have, but by an accident of one in 2^64: of the layers with
    /// their names and what decides on their outputs, and of every array's name, shape and bits. The same on every
    /// machine and in every run.
    ///
    /// ```
    /// use tersor::nn::Network;
    ///
    /// let mut network = Network::builder(1).linear(4, 2).relu().build()?;
    /// let fingerprint = network.clone().fingerprint();
    /// assert_eq!(network.fingerprint(), fingerprint);
    /// network.parameters_mut()[1].1[[0]] += 1e-6;
    /// assert_ne!(network.fingerprint(), fingerprint);
    /// # Ok::<(), tersor::Error>(())
    /// ```
    pub fn fingerprint(&self) -> u64 {
        let layers = self
            .walk()
            .into_iter()
            .fold(Fingerprint::new(), |hash, (name, layer)| hash.text(&name).text(&kind_and_settings(layer)));
        self.state().into_iter().fold(layers, |hash, (name, array)| hash.text(&name).array(array)).value()
    }
}

impl Data {
    /// A number of the inputs' shape and bits, as [`Network::fingerprint`]. Targets do not count.
    pub fn fingerprint(&self) -> u64 {
        Fingerprint::new().array(self.inputs.view()).value()
    }
}

/// The layer without its arrays, and without what matters in training only.
fn kind_and_settings(layer: &Layer) -> String {
    match layer {
        Layer::Linear(_) => "linear".into(),
        Layer::Attention(a) => format!("attention {} {} {}", a.heads, a.head_dim, a.causal),
        Layer::Conv2d(c) => format!("conv2d {:?} {:?} {:?} {}", c.stride, c.padding, c.dilation, c.groups),
        Layer::BatchNorm2d(norm) => format!("batch_norm2d {}", norm.eps),
        Layer::LayerNorm(norm) => format!("layer_norm {} {:?}", norm.eps, norm.absent),
        Layer::MaxPool2d(p) => format!("max_pool2d {:?} {:?} {:?}", p.kernel, p.stride, p.padding),
        Layer::AvgPool2d(p) => format!("avg_pool2d {:?} {:?} {:?}", p.kernel, p.stride, p.padding),
        Layer::GlobalAvgPool2d => "global_avg_pool2d".into(),
        Layer::Relu => "relu".into(),
        Layer::Gelu(form) => format!("gelu {form:?}"),
        Layer::Silu => "silu".into(),
        Layer::Sigmoid => "sigmoid".into(),
        Layer::Tanh => "tanh".into(),
        Layer::Softmax { axis } => format!("softmax {axis:?}"),
        Layer::LogSoftmax { axis } => format!("log_softmax {axis:?}"),
        Layer::Flatten => "flatten".into(),
        Layer::Dropout(_) => "dropout".into(),
        Layer::Residual(_) => "residual".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use ndarray::{Array2, array};

    use super::*;
    use crate::nn::{Conv2d, GeluForm};

    #[test]
    fn the_hash_is_fnv_1a() {
        // Of the authors' list of test vectors.
        let of = |text: &str| Fingerprint::new().bytes(text.as_bytes()).value();
        assert_eq!(of(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(of("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(of("foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn networks_that_differ_in_anything_are_told_apart() {
        let image = |conv: Conv2d| Network::builder(1).conv2d(conv).build().unwrap();
        let mut bias = Network::builder(1).linear(4, 4).build().unwrap();
        bias.set_parameter("0.bias", &array![0.0, 0.0, 0.0, 1.0]).unwrap();
        let mut negative = bias.clone();
        negative.set_parameter("0.bias", &array![-0.0, 0.0, 0.0, 1.0]).unwrap();
        let networks = [
            Network::builder(1).linear(4, 4).build().unwrap(),
            Network::builder(2).linear(4, 4).build().unwrap(),
            Network::builder(1).linear(4, 4).named("a").build().unwrap(),
            Network::builder(1).linear_without_bias(4, 4).build().unwrap(),
            Network::builder(1).linear(4, 4).relu().build().unwrap(),
            Network::builder(1).linear(4, 4).tanh().build().unwrap(),
            Network::builder(1).residual(|b| b.linear(4, 4)).build().unwrap(),
            bias,
            negative,
            image(Conv2d::new(1, 2, 3)),
            image(Conv2d::new(1, 2, 3).stride(2)),
            image(Conv2d::new(1, 2, 3).padding(1)),
            image(Conv2d::new(1, 2, 3).dilation(2)),
        ];
        let all: HashSet<u64> = networks.iter().map(Network::fingerprint).collect();
        assert_eq!(all.len(), networks.len());
        let forms = [GeluForm::Erf, GeluForm::Tanh].map(|form| kind_and_settings(&Layer::Gelu(form)));
        assert_ne!(forms[0], forms[1]);
    }

    #[test]
    fn inputs_that_differ_in_bits_or_shape_are_told_apart() {
        let of = |inputs: Array2<f32>| {
            let samples = inputs.nrows();
            Data::classes(inputs, vec![0; samples]).unwrap().fingerprint()
        };
        let inputs = [
            Array2::zeros((2, 6)),
            Array2::zeros((3, 4)),
            Array2::from_elem((2, 6), -0.0),
            Array2::from_shape_fn((2, 6), |(i, j)| (i * 6 + j) as f32),
            Array2::from_shape_fn((2, 6), |(i, j)| (i + 2 * j) as f32),
        ];
        assert_eq!(inputs.clone().map(of).into_iter().collect::<HashSet<_>>().len(), inputs.len());
        let relabelled = Data::classes(inputs[3].clone(), [1, 0]).unwrap();
        assert_eq!(relabelled.fingerprint(), of(inputs[3].clone()), "targets do not count");
    }
}
