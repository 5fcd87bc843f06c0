//! Multi-head self-attention: four products, and the scaled dot product between them.

use ndarray::{Array1, Array2, ArrayBase, ArrayD, ArrayViewD, Data, Dimension};

use super::{
    inner::Inner,
    layer::{Backward, OwnArray, OwnArrayMut, foreign_trace},
    linear::Linear,
    scaled_dot_product::{ScaledDotProduct, expect_sequences},
    shape::{at_least_one, elements, expect_shape},
    tangent::{linear_backward_tangent, linear_tangent},
};
use crate::{Error, Result, random::Random, tensor::Mask};

/// Multi-head self-attention (Vaswani et al. 2017) of inputs of shape (batch, sequence, features):
///
/// `q, k, v = x W_qᵀ + b_q, x W_kᵀ + b_k, x W_vᵀ + b_v`, each of `heads · head_dim` features, `head_dim` neighbours a
/// head; `y = [softmax(q_h k_hᵀ / √head_dim) v_h for every head h] W_oᵀ + b_o`, the softmax over keys.
///
/// | setting | default | range |
/// |---|---|---|
/// | `heads` | | a divisor of `features`, or any with `head_dim` |
/// | `head_dim` | `features / heads` | at least 1 |
/// | `causal`: a position sees itself and those before it | all | |
/// | `without_bias` | four biases | |
///
/// Arrays: `query.weight`, `key.weight`, `value.weight` (heads · head_dim, features), `output.weight` (features, heads ·
/// head_dim), each with its `bias`. Initial values are those of PyTorch's `MultiheadAttention`: query, key and value
/// uniform in ±√(6 / (features + 3 · heads · head_dim)) (Glorot and Bengio 2010, of the three as one), output uniform in
/// ±1/√(heads · head_dim), biases 0. There is no dropout inside.
///
/// A pass holds sequence² numbers for each head being computed and keeps none of them: a trace has query, key, value and
/// the heads' outputs, and backward computes the rest again.
///
/// ```
/// use tersor::nn::{Attention, Network};
///
/// let network = Network::builder(7)
///     .residual(|branch| branch.layer_norm(64).attention(64, 8).named("attn"))
///     .residual(|branch| branch.layer_norm(64).layer(Attention::new(64, 3).head_dim(16).causal()))
///     .build()?;
/// assert_eq!(network.output_shape(&[2, 10, 64])?, [2, 10, 64]);
/// assert_eq!(network.parameter("0.attn.query.weight")?.shape(), [64, 64]);
/// assert_eq!(network.parameter("1.1.output.weight")?.shape(), [64, 48]);
/// # Ok::<(), tersor::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Attention {
    /// The number of heads.
    pub heads: usize,
    /// Features of a head's query, key and value.
    pub head_dim: usize,
    /// Whether a position sees itself and those before it alone.
    pub causal: bool,
    in_features: usize,
    out_features: usize,
    /// Query, key, value, output.
    parts: Box<[Linear; 4]>,
}

/// Names of the weight and the bias of each of [`Attention::PARTS`].
const NAMES: [[&str; 2]; 4] = [
    ["query.weight", "query.bias"],
    ["key.weight", "key.bias"],
    ["value.weight", "value.bias"],
    ["output.weight", "output.bias"],
];

/// What backward needs besides the input: query, key, value, and the heads' outputs side by side.
#[derive(Clone, Debug)]
pub(super) struct Projections([ArrayD<f32>; 4]);

impl Projections {
    /// What the query, the key or the value made.
    pub(super) fn part(&self, name: &str) -> Option<ArrayViewD<'_, f32>> {
        let index = Attention::PROJECTIONS.iter().position(|part| *part == name)?;
        Some(self.0[index].view())
    }
}

impl Attention {
    /// The products, in order.
    pub(crate) const PARTS: [&str; 4] = ["query", "key", "value", "output"];

    /// Those of the input.
    pub(super) const PROJECTIONS: [&str; 3] = ["query", "key", "value"];

    /// Attention with biases, `features / heads` features a head; its arrays are drawn when the network is built.
    pub fn new(features: usize, heads: usize) -> Attention {
        let head_dim = if heads > 0 && features.is_multiple_of(heads) { features / heads } else { 0 };
        Attention {
            heads,
            head_dim,
            causal: false,
            in_features: features,
            out_features: features,
            parts: Box::new(std::array::from_fn(|_| Linear::new(0, 0))),
        }
    }

    /// Sets the features of a head, of an attention whose arrays are yet to be drawn.
    pub fn head_dim(self, head_dim: usize) -> Attention {
        Attention { head_dim, ..self }
    }

    /// Lets every position see itself and those before it alone.
    pub fn causal(self) -> Attention {
        Attention { causal: true, ..self }
    }

    /// Takes the four biases away.
    pub fn without_bias(self) -> Attention {
        Attention { parts: Box::new(self.parts.map(Linear::without_bias)), ..self }
    }

    /// A trained attention of so many heads, from the weights and biases of query, key, value and output, in this order.
    /// The output may have other features than the input.
    ///
    /// # Errors
    /// [`Error::Setting`] for heads that do not divide the rows of the query's weight,
    /// [`Error::Empty`] for a weight without elements, [`Error::Shape`] for
    /// arrays that do not fit one another, [`Error::NotFinite`].
    pub fn from_arrays(heads: usize, weights: [Array2<f32>; 4], biases: Option<[Array1<f32>; 4]>) -> Result<Attention> {
        let (in_features, out_features) = (weights[0].ncols(), weights[3].nrows());
        let ScaledDotProduct { head_dim, causal, .. } = ScaledDotProduct::new(weights[0].nrows(), heads, false)?;
        let mut biases = biases.map_or([const { None }; 4], |biases| biases.map(Some)).into_iter();
        let mut part = |weight| Linear::from_arrays(weight, biases.next().flatten());
        let [query, key, value, output] = weights;
        let parts = Box::new([part(query)?, part(key)?, part(value)?, part(output)?]);
        let attention = Attention { heads, head_dim, causal, in_features, out_features, parts };
        attention.check().map(|()| attention)
    }

    /// Features of an input.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Features of an output.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// The product that makes queries.
    pub fn query(&self) -> &Linear {
        &self.parts[0]
    }

    /// The product that makes keys.
    pub fn key(&self) -> &Linear {
        &self.parts[1]
    }

    /// The product that makes values.
    pub fn value(&self) -> &Linear {
        &self.parts[2]
    }

    /// The product that the heads' outputs, side by side, go into.
    pub fn output(&self) -> &Linear {
        &self.parts[3]
    }

    /// What goes into the output's product: the heads' outputs side by side, (batch, sequence, heads · head_dim).
    ///
    /// # Errors
    /// [`Error::Rank`], [`Error::Shape`] for inputs that do not fit.
    pub fn head_outputs<S, D>(&self, x: &ArrayBase<S, D>) -> Result<ArrayD<f32>>
    where
        S: Data<Elem = f32>,
        D: Dimension,
    {
        self.check()?;
        self.output_shape(x.shape())?;
        let x = x.as_standard_layout();
        self.project(x.view().into_dyn()).map(|Projections([_, _, _, heads])| heads)
    }

    fn product(&self) -> ScaledDotProduct {
        ScaledDotProduct { heads: self.heads, head_dim: self.head_dim, causal: self.causal }
    }

    /// Inputs and outputs of each part.
    fn sizes(&self) -> [(usize, usize); 4] {
        let (inner, input) = (self.product().inner(), self.in_features);
        [(input, inner), (input, inner), (input, inner), (inner, self.out_features)]
    }

    fn check_settings(&self) -> Result<()> {
        at_least_one("features of attention", self.in_features)?;
        at_least_one("heads of attention", self.heads)?;
        if self.head_dim == 0 {
            let bound = "a divisor of the features, or given a head_dim of at least 1";
            return Err(Error::Setting { setting: "heads of attention", value: self.heads as f64, bound });
        }
        Ok(())
    }

    pub(super) fn initialize(&mut self, random: &mut Random) -> Result<()> {
        self.check_settings()?;
        let inner = self.product().inner();
        let sizes = self.sizes();
        for (input, output) in sizes {
            elements("weight of attention", &[output, input])?;
        }
        if self.query().weight().is_empty() {
            let packed = (6.0 / (self.in_features as f32 + 3.0 * inner as f32)).sqrt();
            let bounds = [packed, packed, packed, 1.0 / (inner as f32).sqrt()];
            for ((part, (input, output)), bound) in self.parts.iter_mut().zip(sizes).zip(bounds) {
                let bias = part.bias().map(|_| Array1::zeros(output));
                let weight = Array2::from_shape_simple_fn((output, input), || random.within(bound));
                *part = Linear::from_arrays(weight, bias)?;
            }
        }
        Ok(())
    }

    pub(super) fn check(&self) -> Result<()> {
        self.check_settings()?;
        for ((part, (input, output)), [weight, bias]) in self.parts.iter().zip(self.sizes()).zip(NAMES) {
            expect_shape(weight, &[output, input], part.weight().shape())?;
            part.bias().map_or(Ok(()), |values| expect_shape(bias, &[output], values.shape()))?;
        }
        Ok(())
    }

    pub(super) fn output_shape(&self, input: &[usize]) -> Result<Vec<usize>> {
        let what = "input of attention";
        let [batch, sequence, _] = expect_sequences(what, input)?;
        expect_shape(what, &[batch, sequence, self.in_features], input)?;
        elements("scores of attention", &[sequence, sequence])?;
        elements("query of attention", &[batch, sequence, self.product().inner()])?;
        Ok(vec![batch, sequence, self.out_features])
    }

    fn project(&self, x: ArrayViewD<'_, f32>) -> Result<Projections> {
        let shape = [x.shape()[0], x.shape()[1], self.product().inner()];
        let [q, k, v] = [0, 1, 2].map(|part: usize| self.parts[part].forward(x.view(), &shape));
        let heads = self.product().forward([q.view(), k.view(), v.view()])?;
        Ok(Projections([q, k, v, heads]))
    }

    /// The output and what backward needs, of an input whose shape was checked.
    pub(super) fn trace(&self, x: ArrayViewD<'_, f32>, shape: &[usize]) -> Result<(ArrayD<f32>, Projections)> {
        let projections = self.project(x)?;
        Ok((self.output().forward(projections.0[3].view(), shape), projections))
    }

    /// The tangent of the output, for tangents of the arrays (in `dot`) and the input.
    pub(super) fn tangent(
        &self,
        dot: &Attention,
        x: ArrayViewD<'_, f32>,
        x_dot: ArrayViewD<'_, f32>,
    ) -> Result<ArrayD<f32>> {
        let (Projections([q, k, v, heads]), dots) = (self.project(x.view())?, self.project_tangents(dot, x, x_dot)?);
        let heads_dot = self.product().tangent([q.view(), k.view(), v.view()], dots.each_ref().map(|dot| dot.view()));
        linear_tangent(self.output(), dot.output(), heads.view(), heads_dot.view())
    }

    /// The tangents of [`backward`](Attention::backward)'s results.
    pub(super) fn backward_tangent(
        &self,
        dot: &Attention,
        (x, x_dot): (ArrayViewD<'_, f32>, ArrayViewD<'_, f32>),
        (dy, dy_dot): (&ArrayD<f32>, ArrayD<f32>),
    ) -> Result<Backward> {
        let dots = self.project_tangents(dot, x.view(), x_dot.view())?;
        let Projections([q, k, v, heads]) = self.project(x.view())?;
        let (qkv, dots) = ([q.view(), k.view(), v.view()], dots.each_ref().map(|dot| dot.view()));
        let heads_dot = self.product().tangent(qkv.clone(), dots.clone());
        let back = |part: usize, (x, x_dot): (ArrayViewD<'_, f32>, ArrayViewD<'_, f32>), dy: &ArrayD<f32>, dy_dot| {
            linear_backward_tangent(&self.parts[part], &dot.parts[part], (x, x_dot), (dy, dy_dot))
        };
        let (dheads, _) = self.output().backward(heads.view(), dy.clone(), true);
        let (dheads_dot, of_output) = back(3, (heads.view(), heads_dot.view()), dy, dy_dot)?;
        let (dheads, dheads_dot) = (dheads.ok_or_else(foreign_trace)?, dheads_dot.ok_or_else(foreign_trace)?);
        let slopes = self.product().backward(qkv.clone(), dheads.view());
        let slopes_dot = self.product().backward_tangent(qkv, dots, [dheads.view(), dheads_dot.view()]);
        let (mut dx_dot, mut parameters): (Option<ArrayD<f32>>, _) = (None, Vec::new());
        for (part, (slope, slope_dot)) in slopes.iter().zip(slopes_dot).enumerate() {
            let (own, of_part) = back(part, (x.view(), x_dot.view()), slope, slope_dot)?;
            parameters.push(of_part);
            dx_dot = dx_dot.into_iter().chain(own).reduce(|sum, own| sum + own);
        }
        parameters.push(of_output);
        Ok((dx_dot, named(parameters)))
    }

    /// The tangents of query, key and value.
    fn project_tangents(
        &self,
        dot: &Attention,
        x: ArrayViewD<'_, f32>,
        x_dot: ArrayViewD<'_, f32>,
    ) -> Result<[ArrayD<f32>; 3]> {
        let part = |part: usize| linear_tangent(&self.parts[part], &dot.parts[part], x.view(), x_dot.view());
        Ok([part(0)?, part(1)?, part(2)?])
    }

    /// Back through the output, the scaled dot product, and the three products that made its arguments, whose `dx` add up.
    pub(super) fn backward(
        &self,
        x: ArrayViewD<'_, f32>,
        Projections(saved): &Projections,
        dy: ArrayD<f32>,
        inner: &Inner<'_>,
        wants_input: bool,
    ) -> Result<Backward> {
        let shape = [x.shape()[0], x.shape()[1], self.product().inner()];
        if saved.iter().any(|saved| saved.shape() != shape) {
            return Err(foreign_trace());
        }
        let [q, k, v, heads] = saved.each_ref().map(|saved| saved.view());
        let (dheads, of_output) = self.output().backward(heads, dy, true);
        let mut slopes = self.product().backward([q, k, v], dheads.ok_or_else(foreign_trace)?.view());
        for (part, slope) in Attention::PARTS.iter().zip(&mut slopes) {
            inner.add_to(part, slope);
        }
        let (mut dx, mut parameters): (Option<ArrayD<f32>>, _) = (None, Vec::new());
        for (part, slope) in self.parts.iter().zip(slopes) {
            let (own, of_part) = part.backward(x.view(), slope, wants_input);
            parameters.push(of_part);
            dx = dx.into_iter().chain(own).reduce(|sum, own| sum + own);
        }
        parameters.push(of_output);
        Ok((dx, named(parameters)))
    }

    pub(super) fn arrays(&self) -> Vec<OwnArray<'_>> {
        let mut arrays = Vec::new();
        for (part, names) in self.parts.iter().zip(NAMES) {
            arrays.extend(part.arrays().into_iter().zip(names).map(|((_, role, array), name)| (name, role, array)));
        }
        arrays
    }

    pub(super) fn arrays_mut(&mut self) -> Vec<OwnArrayMut<'_>> {
        let mut arrays = Vec::new();
        for (part, names) in self.parts.iter_mut().zip(NAMES) {
            arrays.extend(part.arrays_mut().into_iter().zip(names).map(|((_, role, array), name)| (name, role, array)));
        }
        arrays
    }

    pub(super) fn mask_slots(&self) -> Vec<(&'static str, &Option<Mask>)> {
        self.parts.iter().zip(NAMES).map(|(part, [weight, _])| (weight, &part.mask)).collect()
    }

    pub(super) fn mask_slots_mut(&mut self) -> Vec<(&'static str, &mut Option<Mask>)> {
        self.parts.iter_mut().zip(NAMES).map(|(part, [weight, _])| (weight, &mut part.mask)).collect()
    }
}

/// What the parts call weight and bias, under their names here.
fn named(parameters: Vec<Vec<(String, ArrayD<f32>)>>) -> Vec<(String, ArrayD<f32>)> {
    let of_part = |(of_part, names): (Vec<(String, ArrayD<f32>)>, [&'static str; 2])| {
        of_part.into_iter().zip(names).map(|((_, values), name)| (name.to_owned(), values))
    };
    parameters.into_iter().zip(NAMES).flat_map(of_part).collect()
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Axis, array, s};

    use super::*;
    use crate::nn::{Layer, Mode, Network};

    fn network(attention: Attention) -> Network {
        Network::builder(5).layer(attention).named("attn").build().unwrap()
    }

    fn sequences(batch: usize, sequence: usize, features: usize) -> Array3<f32> {
        let mut random = Random::new(3);
        Array3::from_shape_simple_fn((batch, sequence, features), || random.within(1.0))
    }

    #[test]
    fn initial_values_have_torchs_law() {
        let network = network(Attention::new(96, 8));
        let state = network.state();
        let names: Vec<_> = state.iter().map(|(name, _)| name.strip_prefix("attn.").unwrap()).collect();
        assert_eq!(names, NAMES.concat());
        for (name, values) in state {
            let bound = match name.as_str() {
                name if name.ends_with("bias") => 0.0,
                "attn.output.weight" => 1.0 / 96f32.sqrt(),
                _ => (6.0 / (4.0 * 96f32)).sqrt(),
            };
            assert!(values.iter().all(|value| value.abs() <= bound), "{name}");
            // Variance bound² / 3; the sample's is within five standard errors, √(4/5/n) of itself each.
            let variance = values.iter().map(|value| value * value).sum::<f32>() / values.len() as f32;
            let slack = 5.0 * (0.8 / values.len() as f32).sqrt();
            assert!((variance - bound * bound / 3.0).abs() <= slack * bound * bound / 3.0, "{name}: {variance}");
        }
    }

    #[test]
    fn arrays_are_set_and_masked_by_their_dotted_names() {
        let mut network = Network::builder(1).residual(|b| b.attention(4, 2).named("attn")).build().unwrap();
        network.set_parameter("0.attn.value.bias", &array![1.0, 2.0, 3.0, 4.0]).unwrap();
        let Layer::Attention(attention) = network.layer("0.attn").unwrap() else { panic!("attention") };
        assert_eq!(attention.value().bias().unwrap(), array![1.0, 2.0, 3.0, 4.0]);
        assert_eq!(network.maskable(), ["query", "key", "value", "output"].map(|part| format!("0.attn.{part}.weight")));
        network.set_mask("0.attn.key.weight", Some(Mask::from_fn(&[4, 4], |i| i >= 4).unwrap())).unwrap();
        assert_eq!(network.masks()[0].0, "0.attn.key.weight");
        let key = network.parameter("0.attn.key.weight").unwrap();
        assert!(key.index_axis(Axis(0), 0).iter().all(|x| *x == 0.0) && key.iter().skip(4).all(|x| *x != 0.0));
    }

    #[test]
    fn a_query_of_zero_looks_everywhere_alike() {
        let x = sequences(2, 5, 6);
        for (causal, attention) in [(false, Attention::new(6, 3)), (true, Attention::new(6, 3).causal())] {
            let mut network = network(attention);
            network.set_parameter("attn.query.weight", &Array2::zeros((6, 6))).unwrap();
            let Layer::Attention(attention) = network.layer("attn").unwrap() else { panic!("attention") };
            let values = Layer::from(attention.value().clone()).forward(&x).unwrap();
            let heads = attention.head_outputs(&x).unwrap();
            for position in 0..5 {
                let seen = if causal { position + 1 } else { 5 };
                let mean = values.slice(s![.., ..seen, ..]).mean_axis(Axis(1)).unwrap();
                let error = &heads.slice(s![.., position, ..]) - &mean;
                assert!(error.iter().all(|e| e.abs() < 1e-6), "causal {causal}, position {position}");
            }
        }
    }

    #[test]
    fn positions_are_alike_unless_causal_and_then_the_past_is_deaf_to_the_future() {
        let x = sequences(2, 6, 8);
        let turned = x.slice(s![.., ..;-1, ..]);
        let (all, causal) = (network(Attention::new(8, 2)), network(Attention::new(8, 2).causal()));
        let (straight, back) = (all.forward(&x).unwrap(), all.forward(&turned).unwrap());
        let error = &straight.slice(s![.., ..;-1, ..]) - &back;
        assert!(error.iter().all(|e| e.abs() < 1e-5), "a permutation of positions goes through");
        let early = causal.forward(&x.slice(s![.., ..4, ..])).unwrap();
        let error = &causal.forward(&x).unwrap().slice(s![.., ..4, ..]) - &early;
        assert!(error.iter().all(|e| e.abs() < 1e-6));
        assert_ne!(straight.slice(s![.., ..4, ..]).into_dyn(), early.view());
    }

    #[test]
    fn large_scores_are_stable() {
        // Scores of ±1e4 between positions: each looks at those of its own sign, and no gradient overflows.
        let one = || array![[1.0f32]];
        let attention = Attention::from_arrays(1, [one(), one(), one(), one()], None).unwrap();
        let network = network(attention);
        let x = array![[[100.0f32], [-100.0], [100.0]]];
        let trace = network.trace(&x, Mode::Evaluation).unwrap();
        assert_eq!(trace.output(), x.clone().into_dyn());
        let gradients = network.backward(&trace, &Array3::ones((1, 3, 1))).unwrap();
        assert!(gradients.input.iter().all(|x| x.is_finite()));
        assert!(gradients.parameters.iter().all(|(_, values)| values.iter().all(|x| x.is_finite())));
    }

    #[test]
    fn a_trace_from_before_the_heads_changed_is_refused() {
        let mut network = network(Attention::new(8, 2));
        let x = sequences(1, 3, 8);
        let trace = network.trace(&x, Mode::Evaluation).unwrap();
        *network.layers_mut().next().unwrap().1 =
            self::network(Attention::new(8, 2).head_dim(3)).layer("attn").unwrap().clone();
        assert!(matches!(network.backward(&trace, &x), Err(Error::Conflict { .. })));
        *network.layers_mut().next().unwrap().1 = Layer::Relu;
        let other = network.trace(&x, Mode::Evaluation).unwrap();
        *network.layers_mut().next().unwrap().1 = self::network(Attention::new(8, 2)).layer("attn").unwrap().clone();
        assert!(matches!(network.backward(&other, &x), Err(Error::Conflict { .. })));
    }

    #[test]
    #[cfg(feature = "rayon")]
    fn any_number_of_threads_gives_the_same_bits() {
        let (network, x) = (network(Attention::new(32, 4).causal()), sequences(3, 70, 32));
        let with = |threads| {
            rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(|| {
                let trace = network.trace(&x, Mode::Evaluation).unwrap();
                let gradients = network.backward(&trace, &x).unwrap();
                (trace.output().to_owned(), gradients.input, gradients.parameters)
            })
        };
        let one = with(1);
        assert!([2, 3, 7].into_iter().all(|threads| with(threads) == one));
    }
}
