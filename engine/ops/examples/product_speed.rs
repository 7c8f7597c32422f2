//! Matrix products in full precision as training computes them against candle's, in turns, by the fastest of many short rounds, on
//! one thread (RAYON_NUM_THREADS=1): GFLOP/s of both,
//! their ratio, and how far both are from sums in f64.
//!
//! `cargo run --release -p foretrain-ops --example product_speed`

#![allow(clippy::print_stdout, reason = "a table for the terminal")]

use std::time::Instant;

use candle_core::{DType, Device, Result, Tensor};
use foretrain_ops::{Precision, linear};

/// Rows, outputs and inputs: layers of GPTs of 0.8, 11 and 124 million weights, and what attention and convolutions multiply.
const SIZES: [(usize, usize, usize); 14] = [
    (64, 64, 32),
    (128, 128, 32),
    (256, 256, 64),
    (32, 1024, 1024),
    (64, 64, 256),
    (128, 64, 64),
    (256, 128, 128),
    (256, 384, 128),
    (256, 128, 512),
    (256, 384, 384),
    (256, 1536, 384),
    (256, 768, 768),
    (256, 3072, 768),
    (1024, 3072, 768),
];
const ROUNDS: usize = 40;

fn main() -> Result<()> {
    println!("kernel: {}", Precision::F32.kernel().unwrap_or("f32 as such"));
    println!("| rows x outputs x inputs | candle, GFLOP/s | ours | ratio | candle's error, 1e-7 | ours |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for (m, n, k) in SIZES {
        let x = Tensor::randn(0.0_f32, 1.0, (m, k), &Device::Cpu)?;
        let w = Tensor::randn(0.0_f32, 1.0, (n, k), &Device::Cpu)?;
        let candle = || x.matmul(&w.t()?);
        let ours = || linear(&x, &w, Precision::F32);
        let exact = x.to_dtype(DType::F64)?.matmul(&w.t()?.to_dtype(DType::F64)?)?;
        let size = x.abs()?.to_dtype(DType::F64)?.matmul(&w.t()?.abs()?.to_dtype(DType::F64)?)?;
        // The largest error of a sum, as a share of the sum of its terms' magnitudes.
        let error = |y: Tensor| {
            (y.to_dtype(DType::F64)? - &exact)?.abs()?.div(&size)?.flatten_all()?.max(0)?.to_scalar::<f64>()
        };
        let repeats = (25_000_000 / (m * n * k)).max(1);
        let rate = |product: &dyn Fn() -> Result<Tensor>| -> Result<f64> {
            let start = Instant::now();
            for _ in 0..repeats {
                product()?;
            }
            Ok((2 * m * n * k * repeats) as f64 / (start.elapsed().as_secs_f64()) / 1e9)
        };
        rate(&candle)?;
        rate(&ours)?;
        let (mut theirs, mut own) = (0.0_f64, 0.0_f64);
        for _ in 0..ROUNDS {
            theirs = theirs.max(rate(&candle)?);
            own = own.max(rate(&ours)?);
        }
        let (candle_error, our_error) = (error(candle()?)? * 1e7, error(ours()?)? * 1e7);
        println!(
            "| {m} x {n} x {k} | {theirs:.0} | {own:.0} | {:.2} | {candle_error:.2} | {our_error:.2} |",
            own / theirs
        );
    }
    Ok(())
}
