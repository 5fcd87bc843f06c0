//! The channels that attention reads and makes: masked and removed transformers agree.

use ndarray::{Array3, ArrayD, array};
use proptest::prelude::*;
use tersor::{
    Channels, Mask,
    nn::{Attention, Builder, Layer, Linear, Network},
    removal::{Heads, Selection},
};

use crate::{relative_error, shape};

/// How a transformer is built.
#[derive(Clone, Copy, Debug)]
struct Plan {
    seed: u64,
    width: usize,
    heads: usize,
    head_dim: usize,
    blocks: usize,
    normalized: bool,
    causal: bool,
    biased: bool,
}

fn plans() -> impl Strategy<Value = Plan> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (any::<u64>(), 2usize..7, 1usize..4, 1usize..4, 1usize..4, flags).prop_map(
        |(seed, width, heads, head_dim, blocks, (normalized, causal, biased))| Plan {
            seed,
            width,
            heads,
            head_dim,
            blocks,
            normalized,
            causal,
            biased,
        },
    )
}

impl Plan {
    fn attention(&self) -> Attention {
        let attention = Attention::new(self.width, self.heads).head_dim(self.head_dim);
        let attention = if self.causal { attention.causal() } else { attention };
        if self.biased { attention } else { attention.without_bias() }
    }

    /// Embedding, blocks of attention and two layers each, and a head; no parameter is 0 or 1.
    fn build(&self) -> Network {
        let norm = |b: Builder| if self.normalized { b.layer_norm(self.width) } else { b.tanh() };
        let mut b = Network::builder(self.seed).linear(3, self.width).named("embedding");
        for _ in 0..self.blocks {
            b = b.residual(|b| norm(b).layer(self.attention()).named("attn"));
            b = b.residual(|b| norm(b).linear(self.width, 5).gelu().linear(5, self.width));
        }
        let mut network = b.gelu().linear(self.width, 2).named("head").build().unwrap();
        for (name, mut values) in network.parameters_mut() {
            let shift = name.len() as f32;
            values.iter_mut().enumerate().for_each(|(i, x)| *x += 0.3 * (i as f32 * 1.7 + shift).sin());
        }
        network
    }
}

fn inputs() -> ArrayD<f32> {
    Array3::from_shape_fn((2, 4, 3), |(n, i, j)| ((n * 31 + i * 7 + j * 3) as f32).sin()).into_dyn()
}

proptest! {
    #[test]
    fn masked_and_removed_transformers_agree(
        plan in plans(), amount in 0.2..0.8, heads in 0usize..3, drop_biases in any::<bool>(),
    ) {
        let (network, x) = (plan.build(), inputs());
        let channels = Channels::random(amount, plan.seed);
        let channels = if drop_biases { channels.drop_biases() } else { channels };
        let chosen = channels.select(&network).unwrap();
        let smaller = chosen.remove(&network).unwrap();
        let expected = chosen.mask(&network).unwrap().forward(&x).unwrap();
        prop_assert!(relative_error(&expected, &smaller.forward(&x).unwrap()) < 1e-4, "{} of {:?}", chosen, plan);

        // All that reads or makes the stream of the residuals does so in one width.
        let stream = shape(&smaller, "embedding.weight")[0];
        let inner = plan.heads * plan.head_dim;
        for block in 0..plan.blocks {
            let attention = format!("{}.attn", 1 + 2 * block);
            for part in ["query", "key", "value"] {
                prop_assert_eq!(shape(&smaller, &format!("{attention}.{part}.weight")), [inner, stream]);
            }
            prop_assert_eq!(shape(&smaller, &format!("{attention}.output.weight")), [stream, inner]);
        }
        prop_assert_eq!(shape(&smaller, "head.weight")[1], stream);

        // Heads first, then the channels.
        let heads = Heads::l2(heads.min(plan.heads - 1)).select(&network).unwrap();
        let masked = chosen.mask(&heads.mask(&network).unwrap()).unwrap();
        let smaller = chosen.remove(&heads.remove(&network).unwrap()).unwrap();
        prop_assert!(relative_error(&masked.forward(&x).unwrap(), &smaller.forward(&x).unwrap()) < 1e-4);
    }
}

#[test]
fn a_constant_that_attention_reads_goes_into_the_biases_of_query_key_and_value() {
    let embedding = Linear::from_arrays(array![[1.0, 2.0], [3.0, 4.0]], Some(array![0.5, 7.0])).unwrap();
    let weights = [
        array![[1.0, 2.0], [0.5, -1.0]],
        array![[0.0, 3.0], [1.0, 1.0]],
        array![[2.0, -2.0], [1.0, 0.0]],
        array![[1.0, 1.0], [2.0, -1.0], [0.0, 3.0]],
    ];
    let attention = Attention::from_arrays(2, weights, None).unwrap();
    let layers: Vec<(String, Layer)> = vec![("embedding".into(), embedding.into()), ("attn".into(), attention.into())];
    let network = Network::from_layers(layers).unwrap();
    let smaller = Selection::new().channels("embedding", [1]).remove(&network).unwrap();
    let of = |name: &str| smaller.parameter(&format!("attn.{name}")).unwrap().into_iter().copied().collect::<Vec<_>>();
    assert_eq!((of("query.weight"), of("query.bias")), (vec![1.0, 0.5], vec![14.0, -7.0]));
    assert_eq!((of("key.weight"), of("key.bias")), (vec![0.0, 1.0], vec![21.0, 7.0]));
    assert_eq!((of("value.weight"), of("value.bias")), (vec![2.0, 1.0], vec![-14.0, 0.0]));
    assert_eq!((of("output.weight").len(), of("output.bias")), (6, vec![0.0; 3]));
}

#[test]
fn the_outputs_of_attention_are_named_by_their_product() {
    let mut network = Network::builder(1).attention(4, 2).named("attn").gelu().linear(4, 2).build().unwrap();
    network.set_parameter("attn.output.bias", &array![1.0, 2.0, 3.0, 4.0]).unwrap();
    network.set_mask("attn.output.weight", Some(Mask::from_fn(&[4, 4], |i| i != 3 && i / 4 != 2).unwrap())).unwrap();
    let chosen = Channels::zeros().select(&network).unwrap();
    assert_eq!(chosen.to_string(), "`attn.output`: 2");
    assert_eq!(Channels::l2(1).keep("2").only("attn.*").select(&network).unwrap().to_string(), "`attn.output`: 2");
    let smaller = chosen.remove(&network).unwrap();
    assert_eq!(
        (shape(&smaller, "attn.output.weight"), shape(&smaller, "attn.query.weight")),
        (&[3, 4][..], &[4, 4][..])
    );
    let mask = smaller.mask("attn.output.weight").unwrap().unwrap();
    assert!(!mask.is_kept(3) && mask.kept() == 11, "what is left of the mask");
    let x = Array3::from_shape_fn((2, 3, 4), |(n, i, j)| ((n * 5 + i * 3 + j) as f32).sin());
    let expected = network.forward(&x).unwrap();
    assert!(relative_error(&expected, &smaller.forward(&x).unwrap()) < 1e-5);

    let refused = Selection::new().channels("attn", [0]).remove(&network).unwrap_err().to_string();
    assert!(refused.contains("attn.output"), "{refused}");
    let last = Network::builder(1).attention(4, 2).named("attn").build().unwrap();
    let refused = Selection::new().channels("attn.output", [0]).remove(&last).unwrap_err().to_string();
    assert!(refused.contains("`attn.output`") && refused.contains("outputs"), "{refused}");
    // Summed with the network's input, whose channels nothing makes.
    let open = Network::builder(1).residual(|b| b.attention(4, 2)).linear(4, 2).build().unwrap();
    assert!(Channels::l2(1).select(&open).unwrap_err().to_string().contains("`0.0.output`"));
}
