//! How fast weights become packed trits: GB/s of f32 read, the best of several passes, in this program's own code path.
//!
//! `cargo run --release -p foretrain-engine --example quantize_speed [THREADS] [MILLIONS OF WEIGHTS]`
#![allow(clippy::print_stdout, reason = "an example prints")]

use std::hint::black_box;
use std::time::Instant;

use foretrain_engine::quant::{TernaryRule, TernaryScales, pack_ternary};
use foretrain_ternary::{Packing, Ternary, absmean_scale};

/// Passes of which the best counts: a busy machine only ever slows one down.
const NUM_PASSES: usize = 15;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let threads: usize = arguments.next().map_or(Ok(2), |text| text.parse())?;
    let millions: usize = arguments.next().map_or(Ok(64), |text| text.parse())?;
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let row_len = 4096;
    let num_rows = (millions << 20).div_ceil(row_len);
    // A cheap wave with large and small numbers of both signs; its values do not change the time.
    let weights: Vec<f32> = (0..num_rows * row_len).map(|i| ((i % 8191) as f32 - 4095.0) * 2.5e-5).collect();
    println!("{} x {row_len} weights, {:.2} GB of f32, {threads} threads", num_rows, gigabytes(&weights));
    let expected = pack_ternary(&weights, row_len, (TernaryScales::Tensor, TernaryRule::AbsMean), Packing::Tq2_0)?;
    let one_by_one = measure(&weights, || in_two_steps(&weights))?;
    println!("{:<46} {one_by_one:6.2} GB/s", "trit by trit, then packed (one thread)");
    for rule in [TernaryRule::AbsMean, TernaryRule::Threshold] {
        for scales in TernaryScales::ALL {
            let speed = measure(&weights, || Ok(pack_ternary(&weights, row_len, (scales, rule), Packing::Tq2_0)?))?;
            println!("{:<46} {speed:6.2} GB/s", format!("{rule:?}, a scale per {}", scales.label()));
        }
    }
    if in_two_steps(&weights)? != expected {
        return Err("the two ways differ".into());
    }
    Ok(())
}

/// The plain way: a vector of trits by division and rounding, then the packer.
fn in_two_steps(weights: &[f32]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let scale = absmean_scale(weights)?;
    let trits = weights.iter().map(|w| (w / scale).round().clamp(-1.0, 1.0) as i8).collect();
    let ternary = Ternary { trits, scale };
    Ok(Packing::Tq2_0.pack(&ternary.trits, ternary.scale)?)
}

/// GB/s of the fastest pass.
fn measure(
    weights: &[f32],
    mut pass: impl FnMut() -> Result<Vec<u8>, Box<dyn std::error::Error>>,
) -> Result<f64, Box<dyn std::error::Error>> {
    let mut best = f64::INFINITY;
    for _ in 0..NUM_PASSES {
        let started = Instant::now();
        black_box(pass()?);
        best = best.min(started.elapsed().as_secs_f64());
    }
    Ok(gigabytes(weights) / best)
}

fn gigabytes(weights: &[f32]) -> f64 {
    size_of_val(weights) as f64 / 1e9
}
