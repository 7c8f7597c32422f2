//! Trains a language model block by block from disk on one batch of made-up tokens, and compares plan and measurement.
//!
//! `cargo run --release -p foretrain-engine --example offload_check -- FOLDER MODEL BATCH SEQUENCE STEPS [VOCABULARY]`, such
//! as `blocks llama-1.1b 1 128 5 32000`. The same command goes on where it was left. One model per process, because
//! the kernel's peak counts the whole process.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use foretrain_engine::data::Batch;
use foretrain_engine::device::{Gauges, compute_pool};
use foretrain_engine::memory::{default_budget, format_bytes};
use foretrain_engine::models::{DataShape, ModelPreset, Network};
use foretrain_engine::offload::{OffloadInput, OffloadSettings, OffloadTrainer, Precision, Rates, plan};
use foretrain_engine::optim::{OptimizerConfig, OptimizerKind};
use foretrain_engine::unwatched;

/// Any error; the pool's threads hand it over.
type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let text = |index: usize, default: &str| arguments.get(index).cloned().unwrap_or_else(|| default.to_owned());
    let folder = PathBuf::from(text(0, "blocks"));
    let preset = ModelPreset::from_label(&text(1, "gpt2-124m")).ok_or("no such model")?;
    let (batch_size, sequence_length): (usize, usize) = (text(2, "1").parse()?, text(3, "128").parse()?);
    let (num_steps, vocab_size): (u64, usize) = (text(4, "3").parse()?, text(5, "50257").parse()?);
    let network = Arc::new(Network::new(&preset.config(DataShape::Text { vocab_size })?)?);
    let optimizer = OptimizerConfig {
        kind: OptimizerKind::AdamW,
        learning_rate: 1e-4,
        adam_learning_rate: 1e-4,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weight_decay: 0.1,
        momentum: 0.9,
        newton_schulz_steps: 5,
        clip_norm: Some(1.0),
    };
    let (budget_bytes, budget_source) = default_budget();
    let planned = plan(&OffloadInput {
        network: &network,
        precision: Precision::Compact,
        batch_size,
        sequence_length,
        num_threads: 0,
        dataset_bytes: 0,
        budget_bytes,
        budget_source,
    })
    .ok_or("expected a gpt2 or llama model")?;
    for item in &planned.memory.items {
        println!("{:<22} {:>10}  {}", item.kind.label(), format_bytes(item.bytes), item.how);
    }
    let total = planned.memory.total_bytes();
    println!("{:<22} {:>10}", "together", format_bytes(total));
    if !planned.memory.fits() {
        return Err("more than the budget; not tried".into());
    }
    compute_pool(0)?.install(|| {
        std::fs::create_dir_all(&folder)?;
        let above = folder.parent().filter(|above| above.is_dir()).map_or_else(|| PathBuf::from("."), PathBuf::from);
        let rates = Rates::measure(&above, &optimizer, Precision::Compact, batch_size * sequence_length, unwatched!())?;
        for cost in rates.costs(&planned) {
            let saved = format_bytes(cost.saved_bytes);
            println!("{}: saves {saved} of {}, costs {:+.2} s a step", cost.measure, cost.saves, cost.seconds);
        }
        println!("predicted: {:.1} s a step", rates.step_seconds(&planned));
        let settings = OffloadSettings {
            folder,
            precision: Precision::Compact,
            commit: None,
            seed: 7,
            data: format!("{batch_size} x {sequence_length} made-up tokens"),
            start: None,
        };
        let mut trainer = OffloadTrainer::open(network, &optimizer, &settings, None, unwatched!())?;
        let batch = batch(batch_size, sequence_length, vocab_size)?;
        while trainer.num_steps() < num_steps {
            let step = trainer.step(&batch, 1.0, unwatched!())?;
            let peak = Gauges::default().read().process_peak_bytes;
            println!(
                "step {}: loss {:.4}, {:.1} s, waited {:.1} s for the disk, peak {} ({:+.1} % of the plan)",
                step.step,
                step.loss,
                step.seconds,
                step.read_wait_seconds + step.write_wait_seconds,
                format_bytes(peak),
                (peak as f64 / total as f64 - 1.0) * 100.0
            );
        }
        Ok(())
    })
}

/// The same tokens every time, each followed by any other.
fn batch(n: usize, t: usize, vocab_size: usize) -> Result<Batch, Failure> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        // Any repeatable noise will do.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % vocab_size as u64) as u32
    };
    let ids: Vec<u32> = std::iter::repeat_with(next).take(n * (t + 1)).collect();
    let all = Tensor::from_vec(ids, (n, t + 1), &Device::Cpu)?;
    Ok(Batch { inputs: all.narrow(1, 0, t)?.contiguous()?, targets: all.narrow(1, 1, t)?.contiguous()? })
}
