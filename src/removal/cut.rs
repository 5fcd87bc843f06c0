//! A weight without the rows and columns that go, and the bias that makes up for the columns.

use std::ops::Range;

use ndarray::{Array, Array1, ArrayD, ArrayView, ArrayView1, Dimension, IxDyn};

use crate::{error::Result, tensor::Mask};

/// What a channel gives that goes; `None` for one that stays.
pub(super) type Gone = Option<Constant>;

/// The constant that a silenced channel gives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Constant {
    pub(super) value: f32,
    /// Its number among all channels of the network.
    pub(super) channel: usize,
}

/// The positions of what stays.
pub(super) fn kept(channels: &[Gone]) -> Vec<usize> {
    (0..channels.len()).filter(|index| channels[*index].is_none()).collect()
}

/// A weight (out, in / groups, ..), and which of its inputs and outputs go.
pub(super) struct Cut<'a, D> {
    pub(super) weight: ArrayView<'a, f32, D>,
    pub(super) groups: usize,
    pub(super) inputs: &'a [Gone],
    pub(super) outputs: &'a [Gone],
}

/// An output that stays, an input that it reads, and the positions of the weights in between.
struct Pair {
    output: usize,
    input: Gone,
    taps: Range<usize>,
}

impl<D: Dimension> Cut<'_, D> {
    pub(super) fn is_nothing(&self) -> bool {
        self.inputs.iter().chain(self.outputs).all(Option::is_none)
    }

    /// Groups of which something stays.
    pub(super) fn groups_left(&self) -> usize {
        self.outputs.chunks(self.outputs.len() / self.groups).filter(|group| group.contains(&None)).count()
    }

    pub(super) fn smaller_weight(&self) -> Array<f32, D> {
        let (values, shape) = (self.values(), IxDyn(&self.smaller_shape()));
        let values = self.positions().map(|position| values[position]).collect();
        let smaller = ArrayD::from_shape_vec(shape, values).expect("as many inputs of every output");
        smaller.into_dimensionality().expect("as many axes")
    }

    pub(super) fn smaller_mask(&self, mask: &Mask) -> Result<Mask> {
        let mut positions = self.positions();
        Mask::from_fn(&self.smaller_shape(), |_| positions.next().is_some_and(|position| mask.is_kept(position)))
    }

    /// `b + Σ W constant` over the inputs that go; none if there was none and nothing is to be added.
    pub(super) fn smaller_bias(&self, bias: Option<ArrayView1<'_, f32>>) -> Option<Array1<f32>> {
        let values = self.values();
        let mut added = vec![0.0; self.outputs.len()];
        for Pair { output, input, taps } in self.pairs() {
            let sum = |constant: Constant| {
                values[taps].iter().map(|w| f64::from(*w)).sum::<f64>() * f64::from(constant.value)
            };
            added[output] += input.map_or(0.0, sum);
        }
        let stay = kept(self.outputs);
        let needed = bias.is_some() || stay.iter().any(|output| added[*output] != 0.0);
        let before = |output: usize| bias.map_or(0.0, |bias| f64::from(bias[output]));
        needed.then(|| stay.iter().map(|output| (before(*output) + added[*output]) as f32).collect())
    }

    /// The constants other than zero that outputs read, each once.
    pub(super) fn constants_read(&self) -> Vec<Constant> {
        let values = self.values();
        let reads = |taps: Range<usize>| values[taps].iter().any(|w| *w != 0.0);
        let mut found: Vec<Constant> = Vec::new();
        for Pair { input, taps, .. } in self.pairs() {
            let Some(constant) = input.filter(|constant| constant.value != 0.0) else { continue };
            if !found.iter().any(|before| before.channel == constant.channel) && reads(taps) {
                found.push(constant);
            }
        }
        found
    }

    fn values(&self) -> &[f32] {
        self.weight.as_slice().expect("row-major")
    }

    fn smaller_shape(&self) -> Vec<usize> {
        let sizes = [kept(self.outputs).len(), kept(self.inputs).len() / self.groups_left()];
        [&sizes, &self.weight.shape()[2..]].concat()
    }

    fn pairs(&self) -> impl Iterator<Item = Pair> {
        let [inputs, outputs] = [self.inputs.len(), self.outputs.len()].map(|channels| channels / self.groups);
        let size: usize = self.weight.shape()[2..].iter().product();
        kept(self.outputs).into_iter().flat_map(move |output| {
            let read = output / outputs * inputs..(output / outputs + 1) * inputs;
            self.inputs[read].iter().enumerate().map(move |(index, input)| {
                let start = (output * inputs + index) * size;
                Pair { output, input: *input, taps: start..start + size }
            })
        })
    }

    /// Positions of the weights that stay, in order.
    fn positions(&self) -> impl Iterator<Item = usize> {
        self.pairs().filter(|pair| pair.input.is_none()).flat_map(|pair| pair.taps)
    }
}
