//! Muon's iteration against the same in candle's whole products, in turns, by the fastest of many rounds: milliseconds for a
//! matrix, three iterations, and their ratio. RAYON_NUM_THREADS=1 for one thread.
//!
//! `cargo run --release -p foretrain-ops --example muon_speed`

#![allow(clippy::print_stdout, reason = "a table for the terminal")]

use std::time::Instant;

use candle_core::{Device, Result, Tensor};
use foretrain_ops::newton_schulz;

/// Weights of GPTs of 0.8, 11 and 124 million, and of a ResNet.
const SHAPES: [(usize, usize); 8] =
    [(128, 128), (128, 512), (512, 128), (384, 384), (384, 1536), (768, 768), (3072, 768), (64, 576)];
const COEFFICIENTS: [f64; 3] = [3.4445, -4.775, 2.0315];
const ITERATIONS: u32 = 3;
const ROUNDS: usize = 15;

fn main() -> Result<()> {
    println!("| rows x columns | whole products, ms | ours, ms | ratio |");
    println!("| --- | --- | --- | --- |");
    for (rows, columns) in SHAPES {
        let start = Tensor::randn(0.0_f32, 1.0 / ((rows * columns) as f32).sqrt(), (rows, columns), &Device::Cpu)?;
        let numbers = start.flatten_all()?.to_vec1::<f32>()?;
        let coefficients = COEFFICIENTS.map(|number| number as f32);
        let repeats = (20_000_000 / (rows * columns * rows.min(columns))).max(1);
        let (mut whole, mut ours) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            for _ in 0..repeats {
                composed(&start)?;
            }
            whole = whole.min(begun.elapsed().as_secs_f64() / repeats as f64);
            let begun = Instant::now();
            for _ in 0..repeats {
                newton_schulz(&mut numbers.clone(), (rows, columns), coefficients, ITERATIONS);
            }
            ours = ours.min(begun.elapsed().as_secs_f64() / repeats as f64);
        }
        println!("| {rows} x {columns} | {:.3} | {:.3} | {:.2} |", whole * 1e3, ours * 1e3, whole / ours);
    }
    Ok(())
}

fn composed(start: &Tensor) -> Result<Tensor> {
    let [a, b, c] = COEFFICIENTS;
    let (rows, columns) = start.dims2()?;
    let mut x = start.clone();
    for _ in 0..ITERATIONS {
        let gram = if rows <= columns { x.matmul(&x.t()?)? } else { x.t()?.matmul(&x)? };
        let polynomial = ((gram.matmul(&gram)? * c)? + (gram * b)?)?;
        let product = if rows <= columns { polynomial.matmul(&x)? } else { x.matmul(&polynomial)? };
        x = (product + (x * a)?)?;
    }
    Ok(x)
}
