//! Milliseconds per forward pass and per training step (forward, loss, backward) of GPT-2 models: ours against the
//! same network composed of candle's operations, measured in turns in one process. Processor time (all threads,
//! where the system tells) is what to compare on a busy machine.
//!
//! `cargo run --release -p foretrain-engine --example transformer_step_bench -- [rounds] [threads]`

#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::error::Error;
use std::time::Instant;

use candle_core::{D, Device, Tensor};
use foretrain_engine::device::compute_pool;
use foretrain_engine::models::{
    DataShape, Forward, Gpt2Config, Mode, ModelConfig, ModelPreset, Network, ParamStore, Params, initial_params, ops,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let number = |index: usize, default: usize| -> Outcome<usize> {
        Ok(std::env::args().nth(index).map_or(Ok(default), |text| text.parse())?)
    };
    let rounds = number(1, 5)?.max(1);
    let pool = compute_pool(number(2, 0)?)?;
    println!("{} threads, best of {rounds} rounds, milliseconds", pool.current_num_threads());
    println!(
        "model       batch x tokens  time        ours: forward    step  candle: forward    step  ratio: forward  step"
    );
    let shapes = [(ModelPreset::Gpt2Char, 32, 256), (ModelPreset::Gpt2Char, 64, 128), (ModelPreset::Gpt2_11M, 4, 256)];
    let measured = pool.install(|| {
        let mut each = shapes.into_iter();
        each.try_for_each(|(preset, batch, tokens)| {
            measure(preset, batch, tokens, rounds).map_err(|error| error.to_string())
        })
    });
    Ok(measured?)
}

fn measure(preset: ModelPreset, batch: usize, tokens: usize, rounds: usize) -> Outcome<()> {
    let config = preset.config(DataShape::Text { vocab_size: 65 })?;
    let ModelConfig::Gpt2(gpt2) = &config else {
        return Err(format!("expected a gpt2 preset, found {}", preset.label()).into());
    };
    let network = Network::new(&config)?;
    let (weights, buffers) = initial_params(&network, 1, &Device::Cpu)?;
    let store = ParamStore::new(weights, buffers, &Device::Cpu)?;
    let ids = |salt: usize| -> Outcome<Tensor> {
        let ids: Vec<u32> = (0..batch * tokens).map(|i| ((i * 31 + salt) * (i + 7) % 65) as u32).collect();
        Ok(Tensor::from_vec(ids, (batch, tokens), &Device::Cpu)?)
    };
    let (inputs, targets) = (ids(1)?, ids(2)?.flatten_all()?);
    let ours = |params: &Params| -> Outcome<Tensor> {
        let logits = network.forward(&Forward::new(params, Mode::Train), &inputs)?;
        Ok(ops::cross_entropy(&logits.flatten_to(1)?, &targets)?.mean_all()?)
    };
    let theirs = |params: &Params| composed_loss(gpt2, params, &inputs, &targets);
    let mut best = [[f64::INFINITY; 4]; 2];
    let mut losses = [0.0_f32; 2];
    let timed = |best: &mut [[f64; 4]; 2], index: usize, work: &dyn Fn() -> Outcome<f32>| -> Outcome<f32> {
        let (clock, processor) = (Instant::now(), processor_ms());
        let value = work()?;
        best[0][index] = best[0][index].min(clock.elapsed().as_secs_f64() * 1e3);
        if let (Some(start), Some(end)) = (processor, processor_ms()) {
            best[1][index] = best[1][index].min(end - start);
        }
        Ok(value)
    };
    for _ in 0..rounds {
        for (index, loss_of) in [&ours as &dyn Fn(&Params) -> Outcome<Tensor>, &theirs].into_iter().enumerate() {
            losses[index] = timed(&mut best, 2 * index, &|| Ok(loss_of(&store.detached())?.to_scalar()?))?;
            timed(&mut best, 2 * index + 1, &|| {
                let loss = loss_of(&store.tracked())?;
                drop(loss.backward()?);
                Ok(loss.to_scalar()?)
            })?;
        }
    }
    if (losses[0] - losses[1]).abs() > 1e-3 {
        return Err(format!("the two networks disagree: loss {} and {}", losses[0], losses[1]).into());
    }
    for (time, best) in ["wall", "processor"].into_iter().zip(best).filter(|(_, best)| best[0].is_finite()) {
        println!(
            "{:10} {batch:6} x {tokens:4}   {time:9}       {:8.1} {:7.1}         {:8.1} {:7.1}          {:6.2} {:5.2}",
            preset.label(),
            best[0],
            best[1],
            best[2],
            best[3],
            best[2] / best[0],
            best[3] / best[1]
        );
    }
    Ok(())
}

/// Processor time of this process so far, on Linux: user and system ticks of 10 ms.
fn processor_ms() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the program's name in parentheses; user and system time are the 14th and 15th.
    let ticks = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
    Some(ticks.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() * 10.0)
}

/// The loss of GPT-2 as one writes it with candle alone.
fn composed_loss(config: &Gpt2Config, params: &Params, inputs: &Tensor, targets: &Tensor) -> Outcome<Tensor> {
    let get = |name: String| params.get(&format!("transformer.{name}"));
    let (batch, tokens) = inputs.dims2()?;
    let (width, heads) = (config.n_embd, config.n_head);
    let eps = config.layer_norm_epsilon as f32;
    let affine = |x: &Tensor, name: String| -> Outcome<Tensor> {
        let (weight, bias) = (get(format!("{name}.weight"))?, get(format!("{name}.bias"))?);
        Ok(x.matmul(weight)?.broadcast_add(bias)?)
    };
    let norm = |x: &Tensor, name: String| -> Outcome<Tensor> {
        let (weight, bias) = (get(format!("{name}.weight"))?, get(format!("{name}.bias"))?);
        Ok(candle_nn::ops::layer_norm_slow(x, weight, bias, eps)?)
    };
    let hidden: Vec<f32> =
        (0..tokens * tokens).map(|i| if i % tokens > i / tokens { f32::NEG_INFINITY } else { 0.0 }).collect();
    let hidden = Tensor::from_vec(hidden, (tokens, tokens), &Device::Cpu)?;
    let wte = get("wte.weight".to_owned())?;
    let x = wte.index_select(&inputs.flatten_all()?, 0)?.reshape((batch, tokens, width))?;
    let x = x.broadcast_add(&get("wpe.weight".to_owned())?.narrow(0, 0, tokens)?)?;
    // All linear maps see (batch · tokens, width).
    let mut x = x.reshape((batch * tokens, width))?;
    for layer in 0..config.n_layer {
        let h = norm(&x, format!("h.{layer}.ln_1"))?;
        let qkv = affine(&h, format!("h.{layer}.attn.c_attn"))?.reshape((batch, tokens, 3, heads, width / heads))?;
        let part = |index: usize| qkv.narrow(2, index, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
        let scores = (part(0)?.matmul(&part(1)?.t()?)? * (1.0 / ((width / heads) as f64).sqrt()))?;
        let p = candle_nn::ops::softmax(&scores.broadcast_add(&hidden)?, D::Minus1)?;
        let h = p.matmul(&part(2)?)?.transpose(1, 2)?.reshape((batch * tokens, width))?;
        x = (x + affine(&h, format!("h.{layer}.attn.c_proj"))?)?;
        let h = norm(&x, format!("h.{layer}.ln_2"))?;
        let h = affine(&h, format!("h.{layer}.mlp.c_fc"))?.gelu()?;
        x = (x + affine(&h, format!("h.{layer}.mlp.c_proj"))?)?;
    }
    let logits = norm(&x, "ln_f".to_owned())?.matmul(&wte.t()?)?;
    Ok(candle_nn::loss::cross_entropy(&logits, targets)?)
}
