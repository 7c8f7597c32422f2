#![allow(clippy::unwrap_used, reason = "tests")]

use candle_core::Tensor;

use super::*;
use crate::models::{Forward, GateActivation, Gpt2Config, LlamaConfig, MlpConfig, Mode};

fn gpt2(n_layer: usize) -> ModelConfig {
    ModelConfig::Gpt2(Gpt2Config {
        vocab_size: 11,
        n_positions: 12,
        n_embd: 16,
        n_layer,
        n_head: 2,
        layer_norm_epsilon: 1e-5,
        initializer_range: 0.2,
    })
}

fn llama(num_hidden_layers: usize, tie_word_embeddings: bool) -> ModelConfig {
    ModelConfig::Llama(LlamaConfig {
        vocab_size: 11,
        max_position_embeddings: 12,
        hidden_size: 16,
        intermediate_size: 40,
        num_hidden_layers,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        rms_norm_eps: 1e-5,
        rope_theta: 100.0,
        tie_word_embeddings,
        initializer_range: 0.2,
        hidden_act: GateActivation::Silu,
        sub_norms: false,
    })
}

/// Shallow and deep.
fn families() -> [(ModelConfig, ModelConfig); 3] {
    [(gpt2(2), gpt2(4)), (llama(2, false), llama(4, false)), (llama(1, true), llama(2, true))]
}

fn weights(network: &Network, seed: u64) -> Params {
    initial_params(network, seed, &Device::Cpu).unwrap().0
}

fn grow(growth: Growth, (shallow, deep): (&Network, &Network), weights: &Params) -> Params {
    growth.grown((shallow, deep), weights, (99, &Device::Cpu)).unwrap()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

fn tokens() -> Tensor {
    let ids: Vec<u32> = (0..24).map(|i| (i * 7 + i / 12) % 11).collect();
    Tensor::from_vec(ids, (2, 12), &Device::Cpu).unwrap()
}

/// Logits of `network`'s blocks applied in this order.
fn logits_through(network: &Network, order: &[usize], params: &Params) -> Vec<f32> {
    let pass = Forward::new(params, Mode::Eval);
    let x = order.iter().fold(tokens(), |x, &index| network.blocks()[index].forward(&pass, &x).unwrap());
    numbers(&x)
}

fn logits(network: &Network, params: &Params) -> Vec<f32> {
    let all: Vec<usize> = (0..network.blocks().len()).collect();
    logits_through(network, &all, params)
}

#[test]
fn names_and_shapes_are_those_of_the_deep_network() {
    for (shallow, deep) in families() {
        let (shallow, deep) = (Network::new(&shallow).unwrap(), Network::new(&deep).unwrap());
        for order in BlockOrder::ALL {
            for new_blocks in [NewBlocks::Copied, NewBlocks::Random] {
                let grown = grow(Growth { order, new_blocks }, (&shallow, &deep), &weights(&shallow, 5));
                let specs = deep.specs();
                assert_eq!(grown.len(), specs.len());
                for spec in specs {
                    assert_eq!(grown.get(&spec.name).unwrap().dims(), spec.shape, "{}", spec.name);
                }
            }
        }
    }
}

/// The deep network computes what the shallow one computes when its blocks are applied again, in either order.
#[test]
fn copies_apply_the_shallow_blocks_twice() {
    for (shallow, deep) in families() {
        let (shallow, deep) = (Network::new(&shallow).unwrap(), Network::new(&deep).unwrap());
        let learned = weights(&shallow, 5);
        let n = shallow.config().num_blocks().unwrap();
        for order in BlockOrder::ALL {
            let grown = grow(Growth { order, new_blocks: NewBlocks::Copied }, (&shallow, &deep), &learned);
            let layers: Vec<usize> = match order {
                BlockOrder::Stacked => (1..=n).chain(1..=n).collect(),
                BlockOrder::Interleaved => (1..=n).flat_map(|layer| [layer, layer]).collect(),
            };
            let twice: Vec<usize> = [0].into_iter().chain(layers).chain([n + 1]).collect();
            assert_eq!(logits(&deep, &grown), logits_through(&shallow, &twice, &learned), "{}", order.label());
            assert_ne!(logits(&deep, &grown), logits(&shallow, &learned), "{}", order.label());
        }
    }
}

/// New random blocks whose outputs are silenced leave the shallow network's function as it was, so all else is in place.
#[test]
fn random_blocks_leave_the_others_in_place() {
    for (shallow, deep) in families() {
        let (shallow, deep) = (Network::new(&shallow).unwrap(), Network::new(&deep).unwrap());
        let learned = weights(&shallow, 5);
        let n = shallow.config().num_blocks().unwrap();
        for order in BlockOrder::ALL {
            let grown = grow(Growth { order, new_blocks: NewBlocks::Random }, (&shallow, &deep), &learned);
            let copied = grow(Growth { order, new_blocks: NewBlocks::Copied }, (&shallow, &deep), &learned);
            let is_new = |index: usize| match order {
                BlockOrder::Stacked => index >= n,
                BlockOrder::Interleaved => index % 2 == 1,
            };
            let new: Vec<&str> =
                (0..2 * n).filter(|&index| is_new(index)).map(|i| deep.blocks()[i + 1].name()).collect();
            let writes = ["attn.c_proj.weight", "mlp.c_proj.weight", "self_attn.o_proj.weight", "mlp.down_proj.weight"];
            let silenced = grown.map(|name, tensor| {
                let is_output = writes.iter().any(|part| name.ends_with(part));
                let in_new = new.iter().any(|block| part_of(name, block).is_some());
                if is_output && in_new { tensor.zeros_like() } else { Ok(tensor.clone()) }
            });
            assert_eq!(logits(&deep, &silenced.unwrap()), logits(&shallow, &learned), "{}", order.label());
            for (name, tensor) in grown.iter().filter(|(name, _)| writes.iter().any(|part| name.ends_with(part))) {
                let in_new = new.iter().any(|block| part_of(name, block).is_some());
                let is_copy = numbers(tensor) == numbers(copied.get(name).unwrap());
                assert_eq!(is_copy, !in_new, "{name}");
            }
        }
    }
}

/// A grown network's weights are its own: training it moves nothing in the shallow one.
#[test]
fn copies_share_no_memory() {
    let (shallow, deep) = (Network::new(&gpt2(1)).unwrap(), Network::new(&gpt2(2)).unwrap());
    let learned = weights(&shallow, 5);
    let before = numbers(learned.get("transformer.h.0.mlp.c_fc.weight").unwrap());
    let growth = Growth { order: BlockOrder::Stacked, new_blocks: NewBlocks::Copied };
    let grown = grow(growth, (&shallow, &deep), &learned);
    let store = crate::models::ParamStore::new(grown.clone(), Params::default(), &Device::Cpu).unwrap();
    for (_, var) in store.vars() {
        var.set(&var.zeros_like().unwrap()).unwrap();
    }
    assert_eq!(numbers(learned.get("transformer.h.0.mlp.c_fc.weight").unwrap()), before);
    assert_eq!(numbers(grown.get("transformer.h.1.mlp.c_fc.weight").unwrap()), before);
}

#[test]
fn only_half_and_whole_can_grow() {
    let network = |config: &ModelConfig| Network::new(config).unwrap();
    let growth = Growth { order: BlockOrder::Stacked, new_blocks: NewBlocks::Copied };
    let mlp = ModelConfig::Mlp(MlpConfig {
        in_channels: 1,
        image_size: (3, 3),
        hidden_sizes: vec![4],
        num_classes: 2,
        activation: crate::models::Activation::Relu,
    });
    for (shallow, deep) in [(gpt2(2), gpt2(3)), (gpt2(2), llama(4, false)), (mlp.clone(), mlp)] {
        let (shallow, deep) = (network(&shallow), network(&deep));
        growth.grown((&shallow, &deep), &weights(&shallow, 1), (1, &Device::Cpu)).unwrap_err();
    }
    // Weights of another network.
    let (shallow, deep, other) = (network(&gpt2(1)), network(&gpt2(2)), network(&llama(1, true)));
    growth.grown((&shallow, &deep), &weights(&other, 1), (1, &Device::Cpu)).unwrap_err();
    assert_eq!(BlockOrder::from_label("interleaved"), Some(BlockOrder::Interleaved));
    assert_eq!(BlockOrder::from_label("upside-down"), None);
}

#[test]
fn depth_and_width_change_nothing_else() {
    let ModelConfig::Llama(wide) = llama(2, false).with_width(32, 4).unwrap() else { panic!("another family") };
    assert_eq!((wide.hidden_size, wide.intermediate_size), (32, 80));
    assert_eq!((wide.num_attention_heads, wide.num_key_value_heads, wide.num_hidden_layers), (4, 4, 2));
    assert_eq!(llama(2, false).with_width(16, 4).unwrap().with_num_blocks(4).unwrap().num_blocks(), Some(4));
    assert_eq!(gpt2(2).with_width(16, 2).as_ref(), Some(&gpt2(2)));
    assert_eq!(gpt2(2).with_num_blocks(3), Some(gpt2(3)));
}
