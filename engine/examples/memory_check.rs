//! Compares the memory plan with what a run really takes: some steps and two rollback snapshots on made-up data.
//!
//! `cargo run --release -p foretrain-engine --example memory_check -- MODEL BATCH [SEQUENCE [PARTS [OPTIMIZER [PRECISION [KEPT [PLACE]]]]]]`,
//! such as `gpt2-char 32 256 1 muon bf16 input`, where transformer layers keep their input alone. PLACE `gpu` plans a GPU's
//! share, and composes all of candle's operations as there, on the processor. One model per process, because the kernel's
//! peak counts the whole process.

#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::error::Error;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use foretrain_engine::data::Batch;
use foretrain_engine::device::Gauges;
use foretrain_engine::hybrid::{HybridTrainer, TierPreset, TrainerSetup};
use foretrain_engine::memory::{
    MemoryPlan, Place, PlanInput, PlanKind, default_budget, format_bytes, plan, plan_beside_gpu,
};
use foretrain_engine::models::ops::{Kept, Precision, without_kernels};
use foretrain_engine::models::{DataShape, ModelPreset, Network, ParamStore, initial_params};
use foretrain_engine::optim::{OptimizerConfig, OptimizerKind, Schedule, StatePlace, StatePrecision};

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(8).as_deref() == Some("gpu") {
        without_kernels(|| check(Place::Gpu))
    } else {
        check(Place::Processor)
    }
}

fn check(place: Place) -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let text = |index: usize, default: &str| arguments.get(index).cloned().unwrap_or_else(|| default.to_owned());
    let preset = ModelPreset::from_label(&text(0, "mnist-cnn")).ok_or("no such model")?;
    let (batch_size, sequence_length): (usize, usize) = (text(1, "64").parse()?, text(2, "256").parse()?);
    let num_micro_batches: usize = text(3, "1").parse()?;
    let precision = text(5, "f32");
    let precision = Precision::ALL.into_iter().find(|one| one.label() == precision).ok_or("no such precision")?;
    let kept = if text(6, "activations") == "input" { Kept::Input } else { Kept::Activations };
    let kind = if text(4, "adamw") == "muon" { OptimizerKind::Muon } else { OptimizerKind::AdamW };

    let data = match preset {
        ModelPreset::Mlp | ModelPreset::MnistCnn => {
            DataShape::Images { channels: 1, height: 28, width: 28, num_classes: 10 }
        }
        preset if preset.reads_images() => DataShape::Images { channels: 3, height: 32, width: 32, num_classes: 10 },
        ModelPreset::Gpt2Char => DataShape::Text { vocab_size: 65 },
        _ => DataShape::Text { vocab_size: 50_257 },
    };
    let network = Arc::new(Network::keeping(&preset.config(data)?, kept)?);
    let optimizer = OptimizerConfig {
        kind,
        learning_rate: 1e-3,
        adam_learning_rate: 1e-3,
        beta1: 0.9,
        beta2: 0.99,
        epsilon: 1e-8,
        weight_decay: 0.1,
        momentum: 0.9,
        newton_schulz_steps: 5,
        clip_norm: Some(1.0),
        states: StatePrecision::F32,
        state_place: StatePlace::WithWeights,
    };
    let schedule = Schedule::ConstantEma { warmup_fraction: 0.05, ema_decay: 0.99 };
    let tier = TierPreset::named("vanilla").ok_or("no such tier")?;
    let (budget_bytes, budget_source) = default_budget();
    let input = PlanInput {
        place,
        network: &network,
        optimizer: &optimizer,
        schedule: &schedule,
        predict: tier.strategy.value.predicts(),
        qat: false,
        has_teacher: false,
        precision,
        batch_size,
        num_micro_batches,
        sequence_length,
        num_threads: 0,
        dataset_bytes: 0,
        budget_bytes,
        budget_source,
        beside_budget_bytes: 0,
    };
    let planned = plan(&input);
    let beside = plan_beside_gpu(&input, default_budget());
    for item in &planned.items {
        println!("{:<22} {:>10}  {}", item.kind.label(), format_bytes(item.bytes), item.how);
    }
    for remedy in &planned.remedies {
        println!("would fit: {remedy}");
    }
    if !planned.fits() {
        return Err("more than the budget; not tried".into());
    }

    let batch = match data {
        DataShape::Images { channels, height, width, .. } => Batch {
            inputs: Tensor::ones((batch_size, channels, height, width), candle_core::DType::F32, &Device::Cpu)?,
            targets: Tensor::zeros(batch_size, candle_core::DType::U32, &Device::Cpu)?,
        },
        DataShape::Text { .. } => {
            let tokens = Tensor::zeros((batch_size, sequence_length), candle_core::DType::U32, &Device::Cpu)?;
            Batch { inputs: tokens.clone(), targets: tokens }
        }
    };
    let mut gauges = Gauges::default();
    let before = gauges.read().process_peak_bytes;
    let (weights, buffers) = initial_params(&network, 1, &Device::Cpu)?;
    let store = ParamStore::new(weights, buffers, &Device::Cpu)?;
    let setup = TrainerSetup {
        network,
        store,
        hybrid: tier.config(),
        optimizer,
        schedule,
        qat: None,
        num_steps: 100,
        num_micro_batches,
        precision,
        seed: 1,
    };
    let mut trainer = HybridTrainer::new(setup)?;
    for _ in 0..3 {
        trainer.step(&batch)?;
    }
    // The second one is made beside the first.
    for _ in 0..2 {
        trainer.mark_good()?;
        trainer.step(&batch)?;
    }
    let peak = gauges.read().process_peak_bytes;
    let (planned, measured, what) = match place {
        Place::Processor => (planned.total_bytes(), peak, "the whole process"),
        // CUDA is not there, and the program is not on the GPU; what a recovery goes back to is beside it.
        Place::Gpu => {
            let of = |plan: &MemoryPlan, kind| -> u64 {
                plan.items.iter().filter(|item| item.kind == kind).map(|item| item.bytes).sum()
            };
            let snapshot = of(&beside, PlanKind::RollbackSnapshot);
            let bytes = planned.total_bytes() - of(&planned, PlanKind::Runtime) + snapshot;
            (bytes, peak - before, "tensors alone, with the snapshot beside the GPU")
        }
    };
    println!(
        "{what}: planned {}, measured peak {} ({} before the model): plan / measured = {:.2}",
        format_bytes(planned),
        format_bytes(measured),
        format_bytes(before),
        planned as f64 / measured as f64
    );
    Ok(())
}
