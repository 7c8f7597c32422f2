//! A GPT-2 layer's forward pass, its whole step (forward and backward) and a language model's head with its loss: the fastest of
//! many rounds, in milliseconds, and GFLOP/s of their matrix products. RAYON_NUM_THREADS says on how many threads.
//!
//! `cargo run --release -p foretrain-ops --example layer_speed [-- MODEL]`

#![allow(clippy::print_stdout, reason = "a table for the terminal")]

use std::time::Instant;

use candle_core::{Device, Result, Tensor, Var};
use foretrain_ops::{
    Activations, Gpt2LayerShape, Gpt2LayerWeights, HeadTargets, Kept, Precision, backward, gpt2_layer, head_loss,
    keep_freed_pages, share_freed_pages,
};

/// Sequences, tokens of each, width, heads and vocabulary, as `foretrain bench train` has them.
const MODELS: [(&str, [usize; 5]); 3] =
    [("gpt2-char", [16, 128, 128, 4, 65]), ("gpt2-11m", [8, 256, 384, 6, 65]), ("gpt2-124m", [2, 256, 768, 12, 50257])];
const ROUNDS: usize = 25;

fn main() -> Result<()> {
    share_freed_pages();
    keep_freed_pages();
    println!("| model | forward, ms | GFLOP/s | step, ms | GFLOP/s | head with its loss, ms | GFLOP/s |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let only = std::env::args().nth(1);
    for (name, [n, t, c, num_heads, vocabulary]) in MODELS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let vars = [
            vec![n, t, c],
            vec![c],
            vec![c],
            vec![c, 3 * c],
            vec![3 * c],
            vec![c, c],
            vec![c],
            vec![c],
            vec![c],
            vec![c, 4 * c],
            vec![4 * c],
            vec![4 * c, c],
            vec![c],
        ]
        .map(|shape| Var::randn(0.0_f32, 0.02, shape, &Device::Cpu));
        let vars = vars.into_iter().collect::<Result<Vec<_>>>()?;
        let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let fixed: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().detach()).collect();
        let shape = Gpt2LayerShape {
            num_heads,
            eps: 1e-5,
            activations: Activations::Floats,
            precision: Precision::F32,
            kept: Kept::Activations,
        };
        let forward = fastest(&|| gpt2_layer(&fixed[0], &weights(&fixed), shape).map(drop))?;
        let step = fastest(&|| backward(&gpt2_layer(&tracked[0], &weights(&tracked), shape)?).map(drop))?;

        let head = Var::randn(0.0_f32, 0.02, (vocabulary, c), &Device::Cpu)?;
        let targets = Tensor::from_iter((0..n * t).map(|row| (row % 61) as u32), &Device::Cpu)?;
        let counted = vec![1.0 / (n * t) as f32; n * t];
        let goal = HeadTargets { targets: &targets, weights: &counted, error_norms: None, max_logits: 16 << 20 };
        let head_step = fastest(&|| backward(&head_loss(&tracked[0], &head, &goal, Precision::F32)?.total).map(drop))?;
        // Of matrices with weights alone.
        let (layer_flops, head_flops) = ((2 * n * t * 12 * c * c) as f64, (2 * n * t * vocabulary * c) as f64);
        let columns = [(forward, layer_flops), (step, 3.0 * layer_flops), (head_step, 3.0 * head_flops)]
            .map(|(seconds, flops)| format!("{:.2} | {:.0}", seconds * 1e3, flops / seconds / 1e9));
        println!("| {name} | {} |", columns.join(" | "));
    }
    Ok(())
}

fn weights(x: &[Tensor]) -> Gpt2LayerWeights<'_> {
    Gpt2LayerWeights {
        ln_1_weight: &x[1],
        ln_1_bias: &x[2],
        c_attn_weight: &x[3],
        c_attn_bias: &x[4],
        attn_c_proj_weight: &x[5],
        attn_c_proj_bias: &x[6],
        ln_2_weight: &x[7],
        ln_2_bias: &x[8],
        c_fc_weight: &x[9],
        c_fc_bias: &x[10],
        mlp_c_proj_weight: &x[11],
        mlp_c_proj_bias: &x[12],
    }
}

/// Seconds of the fastest round, after one that does not count.
fn fastest(work: &dyn Fn() -> Result<()>) -> Result<f64> {
    work()?;
    let mut least = f64::INFINITY;
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        work()?;
        least = least.min(begun.elapsed().as_secs_f64());
    }
    Ok(least)
}
