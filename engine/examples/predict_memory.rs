//! Memory that a Full and a Predict step take beyond what stays between steps, by the allocator's own count.
//!
//! `cargo run --release -p foretrain-engine --example predict_memory [batch size]`: the digits CNN on the built-in
//! digits, conservative tier with the gate open.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use candle_core::Device;
use foretrain_engine::data::{self, Augmentation, DatasetSpec};
use foretrain_engine::experiment::TrialRecipe;
use foretrain_engine::hybrid::{GateRule, HybridConfig, TierPreset};
use foretrain_engine::models::ops::Precision;
use foretrain_engine::models::{ModelPreset, Network};
use foretrain_engine::session::recipe;
use foretrain_engine::unwatched;
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

fn main() -> Result<(), Box<dyn Error>> {
    let batch_size: usize = std::env::args().nth(1).map_or(Ok(512), |text| text.parse())?;
    let dataset = Arc::new(data::load(&DatasetSpec::Glyphs, &std::env::temp_dir(), unwatched!())?);
    let network = Arc::new(Network::new(&ModelPreset::MnistCnn.config(dataset.shape())?)?);
    let tier = TierPreset::named("conservative").ok_or("no such tier")?;
    let preset = recipe("glyphs-cnn")?;
    let recipe = TrialRecipe {
        hybrid: HybridConfig { gate: GateRule::Open, confidence_threshold: 0.0, ..tier.config() },
        optimizer: preset.optimizer,
        schedule: preset.schedule,
        qat: None,
        num_steps: 200,
        batch_size,
        num_micro_batches: 1,
        precision: Precision::F32,
        sequence_length: 0,
        augmentation: Augmentation::default(),
    };
    let (mut trainer, batches) = recipe.begin(&network, &dataset, 1, Device::Cpu)?;
    // Median over the steps of a phase: bytes at the peak of the step beyond those before it, and examples backward.
    let mut peaks: BTreeMap<String, Vec<(usize, u32)>> = BTreeMap::new();
    for step in 0..recipe.num_steps {
        let batch = batches.train_batch(step)?;
        let before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        let report = trainer.step(&batch)?;
        let taken = ALLOCATOR.peak_usage().saturating_sub(before);
        peaks.entry(report.phase.to_string()).or_default().push((taken, report.num_backward));
    }
    let median = |phase: &str| {
        let mut of_phase = peaks.get(phase)?.clone();
        of_phase.sort_unstable();
        of_phase.get(of_phase.len() / 2).copied()
    };
    let (full, _) = median("Full").ok_or("no Full step")?;
    println!("batch {batch_size}, {} parameters", network.num_params());
    for phase in peaks.keys() {
        let (bytes, backward) = median(phase).ok_or("no step")?;
        let (mib, ratio) = (bytes as f64 / f64::from(1 << 20), full as f64 / bytes as f64);
        println!("{phase:8} {mib:8.1} MiB ({ratio:.2}x less than Full), {backward} examples backward");
    }
    Ok(())
}
