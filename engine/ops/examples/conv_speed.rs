//! Residual blocks as ResNet-20 and ResNet-18 have them: the forward pass and the whole step (forward and backward), the
//! fastest of many rounds, in milliseconds, and GFLOP/s of their convolutions. RAYON_NUM_THREADS says on how many threads.
//!
//! `cargo run --release -p foretrain-ops --example conv_speed`

#![allow(clippy::print_stdout, reason = "a table for the terminal")]

use std::time::Instant;

use candle_core::{Device, Result, Tensor, Var};
use foretrain_ops::batch_norm::{ConvNorm, ResidualBlock, Statistics};
use foretrain_ops::{backward, keep_freed_pages, residual_block, share_freed_pages};

/// Images, channels in and out, side of the input, step of the first convolution.
const BLOCKS: [(&str, [usize; 5]); 7] = [
    ("16, 32 x 32", [64, 16, 16, 32, 1]),
    ("16 to 32, 32 x 32", [64, 16, 32, 32, 2]),
    ("32, 16 x 16", [64, 32, 32, 16, 1]),
    ("32 to 64, 16 x 16", [64, 32, 64, 16, 2]),
    ("64, 8 x 8", [64, 64, 64, 8, 1]),
    ("64, 32 x 32", [32, 64, 64, 32, 1]),
    ("256, 8 x 8", [32, 256, 256, 8, 1]),
];
const ROUNDS: usize = 25;

fn main() -> Result<()> {
    share_freed_pages();
    keep_freed_pages();
    println!("| channels, pixels | images | forward, ms | GFLOP/s | step, ms | GFLOP/s |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for (name, [n, inputs, outputs, side, stride]) in BLOCKS {
        let changes = inputs != outputs || stride != 1;
        let mut vars = vec![random(&[n, inputs, side, side])?];
        for (from, kernel) in [(inputs, 3), (outputs, 3), (inputs, 1)] {
            vars.extend([random(&[outputs, from, kernel, kernel])?, random(&[outputs])?, random(&[outputs])?]);
        }
        let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
        let fixed: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().detach()).collect();
        let forward = fastest(&|| residual_block(&fixed[0], block(&fixed, stride, changes)).map(drop))?;
        let step = fastest(&|| backward(&residual_block(&tracked[0], block(&tracked, stride, changes))?.0).map(drop))?;
        let pixels = (side / stride) * (side / stride);
        let products = 9 * inputs * outputs + 9 * outputs * outputs + if changes { inputs * outputs } else { 0 };
        let flops = (2 * n * pixels * products) as f64;
        let columns = [(forward, flops), (step, 3.0 * flops)]
            .map(|(seconds, flops)| format!("{:.2} | {:.0}", seconds * 1e3, flops / seconds / 1e9));
        println!("| {name} | {n} | {} |", columns.join(" | "));
    }
    Ok(())
}

fn random(shape: &[usize]) -> Result<Var> {
    Var::randn(0.0_f32, 0.1, shape, &Device::Cpu)
}

fn block(x: &[Tensor], stride: usize, changes: bool) -> ResidualBlock<'_> {
    let layer = |first: usize, stride: usize, padding: usize| ConvNorm {
        weight: &x[first],
        scale: &x[first + 1],
        shift: &x[first + 2],
        stride,
        padding,
        eps: 1e-5,
        statistics: Statistics::Batch,
    };
    ResidualBlock { first: layer(1, stride, 1), second: layer(4, 1, 1), shortcut: changes.then(|| layer(7, stride, 0)) }
}

/// Seconds of the fastest call.
fn fastest(work: &dyn Fn() -> Result<()>) -> Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        work()?;
        best = best.min(start.elapsed().as_secs_f64());
    }
    Ok(best)
}
