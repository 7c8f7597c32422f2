//! A run that never ran: the same rows in every test, from formulas, so that pictures stay the same.

use std::sync::Arc;

use egui_kittest::Harness;
use egui_kittest::kittest::Queryable;
use foretrain::app::App;
use foretrain::link::EngineLink;
use foretrain::state::{Catalog, Machine, RecipeEntry};
use foretrain::theme::ThemeChoice;
use foretrain_engine::data::DatasetSpec;
use foretrain_engine::device::{ComputeDevice, GaugeReading};
use foretrain_engine::hybrid::{
    Correction, Divergence, DivergenceKind, Explained, Forecast, ForecastBias, GateRule, GuardSignals, HybridEvent,
    Phase, Recovery, Strategy, TierPreset,
};
use foretrain_engine::memory::{MemoryPlan, PlanItem, PlanKind};
use foretrain_engine::models::ops::{Kept, Precision};
use foretrain_engine::models::{DataShape, ModelPreset};
use foretrain_engine::optim::{OptimizerConfig, OptimizerKind, Schedule, StatePlace, StatePrecision};
use foretrain_engine::session::{
    Augmentation, Command, Event, EventKind, ImageSample, JobId, LogEntry, LogKind, Operation, OperationTimes,
    RunConfig, RunSnapshot, RunStatus, Samples, Savings, StepMetrics, ValidationPoint,
};

/// The window, driven by its accessible names.
pub type Window = Harness<'static, App>;

/// Size of the window in tests.
pub const SIZE: [f32; 2] = [1480.0, 920.0];

fn explained<T>(value: T, why: &str) -> Explained<T> {
    Explained { value, why: why.to_owned() }
}

/// A tier like the balanced one.
pub fn tier(name: &str, strategy: Strategy) -> TierPreset {
    TierPreset {
        name: name.to_owned(),
        summary: "Predicts which examples are worth a backward pass, and checks itself often.".to_owned(),
        caution: String::new(),
        strategy: explained(strategy, "Saves where few examples matter."),
        gate: explained(GateRule::ByCost, "Waits until few examples carry most of the gradient."),
        max_predict_steps: explained(50, "Long enough to pay for the check at its end."),
        confidence_threshold: explained(0.9, "Below this cosine the sampled gradient points elsewhere too often."),
        correction_interval: explained(15, "A Correct step costs a full one more; one in 15 costs 7%."),
        divergence_sigma: explained(4.0, "Rarer than once in 10,000 steps when nothing is wrong."),
        check_interval: explained(3, "The largest allowed: three steps cannot ruin the weights."),
        slice_fraction: explained(0.125, "Measured: equal loss on MNIST at 49% of the cost."),
        min_slice_fraction: explained(0.0625, "A smaller slice does not fill the machine."),
        gate_cost: explained(0.9, "Less than 10% to gain is not worth the risk."),
        gate_hold_steps: explained(20, "One lucky batch does not open the gate."),
        warmup_fraction: explained(0.05, "The usual share for a learning-rate warmup."),
    }
}

/// A recipe on the built-in images.
pub fn config() -> RunConfig {
    let shape = DataShape::Images { channels: 1, height: 28, width: 28, num_classes: 10 };
    RunConfig {
        name: "glyphs-cnn".to_owned(),
        data: DatasetSpec::Glyphs,
        model: ModelPreset::MnistCnn.config(shape).unwrap(),
        start_from: None,
        tier: "balanced".to_owned(),
        hybrid: tier("balanced", Strategy::Importance).config(),
        optimizer: OptimizerConfig {
            kind: OptimizerKind::AdamW,
            learning_rate: 4e-3,
            adam_learning_rate: 4e-3,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            weight_decay: 0.01,
            momentum: 0.9,
            newton_schulz_steps: 3,
            clip_norm: Some(1.0),
            states: StatePrecision::F32,
            state_place: StatePlace::WithWeights,
        },
        schedule: Schedule::Cosine { warmup_fraction: 0.05, final_fraction: 0.1 },
        qat: None,
        num_steps: 1200,
        batch_size: 256,
        num_micro_batches: 1,
        precision: Precision::F32,
        kept: Kept::Activations,
        sequence_length: 0,
        augmentation: Augmentation { flip: false, shift_pixels: 2 },
        seed: 7,
        validation_interval: 100,
        max_validation_examples: 1000,
        checkpoint_interval: 200,
        keep_last: 2,
        num_threads: 0,
        device: ComputeDevice::Cpu,
        memory_budget_bytes: 0,
        vram_limit_bytes: 0,
        runs_folder: "/runs".into(),
    }
}

/// One recipe and two tiers.
pub fn catalog() -> Catalog {
    Catalog {
        recipes: vec![RecipeEntry {
            name: "glyphs".to_owned(),
            summary: "A small CNN on the built-in digits: two minutes on two cores.".to_owned(),
            model: ModelPreset::MnistCnn,
            config: config(),
        }],
        tiers: vec![tier("balanced", Strategy::Importance), tier("vanilla", Strategy::None)],
        targets: Vec::new(),
        problems: Vec::new(),
    }
}

fn noise(step: u64) -> f32 {
    ((step * 7919 + 104_729) % 1009) as f32 / 1009.0 - 0.5
}

fn phase_of(step: u64) -> Phase {
    match step {
        1..=60 => Phase::Warmup,
        61..=220 => Phase::Full,
        _ if (step - 220) % 66 > 50 => Phase::Full,
        _ if (step - 220).is_multiple_of(16) => Phase::Correct,
        _ => Phase::Predict,
    }
}

/// What step `step` might have measured.
pub fn row(step: u64) -> StepMetrics {
    let t = step as f32;
    let trend = 0.12 + 2.2 * (-t / 130.0).exp();
    let loss = trend * (1.0 + 0.35 * noise(step));
    let phase = phase_of(step);
    let num_backward = if phase == Phase::Predict { 32 } else { 256 };
    StepMetrics {
        step,
        phase,
        loss,
        forecast: (phase == Phase::Predict).then_some(Forecast {
            mean: trend * 1.02,
            std: 0.06 * trend,
            interval: None,
            model: None,
        }),
        grad_norm: Some(1.5 * trend + 0.4 * noise(step + 3).abs()),
        learning_rate: 4e-3,
        rho: 0.04 + 0.8 * (-t / 90.0).exp() + 0.02 * noise(step + 11),
        confidence: (step > 236).then_some(0.97),
        num_examples: 256,
        num_backward,
        correction: (phase == Phase::Correct).then_some(Correction {
            cosine: 0.97 + 0.04 * noise(step),
            predicted_loss: trend * (1.06 + 0.1 * noise(step + 5)),
            corrected_loss: trend * (1.01 + 0.04 * noise(step + 7)),
            actual_loss: trend,
            slice_fraction: 0.125,
            bias: Some(ForecastBias { count: 24, mean: -0.041, std_error: 0.011 }),
        }),
        signals: GuardSignals {
            loss_z: Some(1.0 + 1.6 * noise(step + 13)),
            loss_z_limit: 4.0,
            grad_ratio: Some(1.0 + 0.8 * noise(step + 17)),
            grad_ratio_limit: 5.0,
            oscillation: Some(0.3 + 0.2 * noise(step + 19)),
            oscillation_limit: 0.8,
            given_back: None,
            given_back_limit: 0.5,
            relative_error: Some(0.1 + 0.1 * noise(step + 29)),
            relative_error_limit: 0.5,
            above_start: Some(0.3 + 0.1 * noise(step + 31)),
            above_start_limit: 2.0,
        },
        step_ms: if phase == Phase::Predict { 21.0 } else { 44.0 } + 3.0 * noise(step + 23),
        between_ms: (step > 1).then_some(if step % 200 == 1 { 60.0 } else { 0.2 }),
        operations: (step % 20 == 11).then(|| operations(phase)),
        gate_ms: (!matches!(phase, Phase::Predict | Phase::Correct)).then_some(0.5),
        quantization: None,
        distillation: None,
    }
}

/// What two threads are busy with in a step, milliseconds; backward passes have the larger part of convolutions.
fn operations(phase: Phase) -> OperationTimes {
    let backward = if phase == Phase::Predict { 0.3 } else { 1.0 };
    let times = [
        (Operation::Convolutions, 14.0 + 30.0 * backward),
        (Operation::Pooling, 3.0 + 4.0 * backward),
        (Operation::MatrixProducts, 2.0 + 4.0 * backward),
        (Operation::Loss, 0.6),
        (Operation::Optimizer, 5.0),
        (Operation::Data, 1.6),
        (Operation::Decisions, 0.4),
        (Operation::Other, 4.0 + 9.0 * backward),
    ];
    times.into_iter().collect()
}

/// A digit-like picture.
fn picture(label: u32, index: u64) -> Arc<[u8]> {
    let pixels = (0..28 * 28).map(|at| {
        let (x, y) = ((at % 28) as f32 - 13.5, (at / 28) as f32 - 13.5);
        let radius = (x * x + y * y * (0.6 + label as f32 * 0.08)).sqrt();
        let ring = (-(radius - 6.0 - (index % 3) as f32).powi(2) / 3.0).exp();
        let bar = if label.is_multiple_of(2) { 0.0 } else { (-(x + y * 0.2).powi(2) / 3.0).exp() };
        (255.0 * ring.max(bar)) as u8
    });
    pixels.collect()
}

fn samples(step: u64) -> Arc<Samples> {
    let images = (0..32)
        .map(|index| {
            let label = (index * 3 % 10) as u32;
            let predicted = if index % 11 == 5 { (label + 5) % 10 } else { label };
            ImageSample { pixels: picture(label, index), label, predicted, probability: 0.93 }
        })
        .collect();
    let classes = (0..10).map(|digit| digit.to_string()).collect();
    Arc::new(Samples::Images { step, shape: (1, 28, 28), classes, images })
}

/// Memory planned.
pub fn plan() -> MemoryPlan {
    let item = |kind, bytes, how: &str| PlanItem { kind, bytes, how: how.to_owned() };
    MemoryPlan {
        items: vec![
            item(PlanKind::Runtime, 96 << 20, "measured at rest"),
            item(PlanKind::Activations, 61 << 20, "256 images x 62,720 numbers x 4 bytes"),
            item(PlanKind::Dataset, 19 << 20, "24,000 images of 784 bytes"),
            item(PlanKind::Optimizer, 847 << 10, "2 x 105,866 parameters x 4 bytes"),
            item(PlanKind::Weights, 424 << 10, "105,866 parameters x 4 bytes"),
            item(PlanKind::Gradients, 424 << 10, "105,866 parameters x 4 bytes"),
        ],
        budget_bytes: 18 << 30,
        budget_source: "80% of this machine's 23.4 GiB".to_owned(),
        remedies: Vec::new(),
    }
}

fn log(last: u64) -> Arc<[LogEntry]> {
    let mut entries = vec![LogEntry { step: 0, unix_ms: 36_000_000, kind: LogKind::Started { step: 0 } }];
    for step in 2..=last {
        let (from, to) = (phase_of(step - 1), phase_of(step));
        let unix_ms = 36_000_000 + step * 32;
        if from != to {
            let why = match to {
                Phase::Warmup => "the run began",
                Phase::Full => "the horizon of 50 steps is reached",
                Phase::Predict => "the gate was open for 20 steps (ρ 0.06) and the forecaster is confident (0.97)",
                Phase::Correct => "15 steps were predicted",
            };
            let kind = LogKind::Hybrid(HybridEvent::Phase { from, to, why: why.to_owned() });
            entries.push(LogEntry { step, unix_ms, kind });
        }
        if step % 200 == 0 {
            let kind = LogKind::Saved(format!("/runs/glyphs-cnn/checkpoints/step-{step:08}").into());
            entries.push(LogEntry { step, unix_ms, kind });
        }
        if step == 610 {
            let divergence = Divergence { kind: DivergenceKind::LossSpike, value: 4.6, limit: 4.0 };
            let recovery = Recovery::BackToFull;
            let kind = LogKind::Hybrid(HybridEvent::Diverged { divergence, recovery, restored_step: None });
            entries.push(LogEntry { step, unix_ms, kind });
        }
    }
    entries.into()
}

/// A run that has done `last` steps.
pub fn snapshot(last: u64, status: RunStatus) -> RunSnapshot {
    let rows: Vec<StepMetrics> = (1..=last).map(row).collect();
    let savings = Savings {
        backward_examples: rows.iter().map(|row| u64::from(row.num_backward)).sum(),
        vanilla_examples: last * 256,
        vanilla_step_ms: Some(41.0),
        vanilla_ms: Some(41.0 * last as f64),
        measured_ms: rows.iter().map(|row| f64::from(row.step_ms)).sum(),
        num_steps: last,
    };
    let validations: Vec<ValidationPoint> = (1..=last / 100)
        .map(|index| {
            let step = index * 100;
            let loss = f64::from(0.14 + 2.2 * (-(step as f32) / 125.0).exp());
            ValidationPoint {
                step,
                loss,
                accuracy: Some(1.0 - loss / 8.0),
                num_examples: 1000,
                seconds: 0.4,
                whole: None,
                quantized: None,
            }
        })
        .collect();
    RunSnapshot {
        job: JobId(1),
        folder: Some("/runs/20260101-000000-glyphs-cnn".into()),
        config: Arc::new(config()),
        num_params: 105_866,
        status,
        phase: phase_of(last.max(1)),
        step: last,
        in_step: None,
        disk: None,
        history: rows.into_iter().collect(),
        validations: validations.into(),
        log: log(last),
        samples: (last >= 100).then(|| samples(last)),
        savings,
        plan: Some(Arc::new(plan())),
        gpu_plan: None,
        memory_before_bytes: Some(150 << 20),
        gauges: Some(GaugeReading {
            process_bytes: 214 << 20,
            process_peak_bytes: 233 << 20,
            system_used_bytes: 6 << 30,
            system_total_bytes: 23 << 30,
            cpu_load: 0.93,
            gpus: Vec::new(),
        }),
        seconds_left: Some(17.0),
    }
}

/// The window in `theme`, without an engine.
pub fn window(theme: ThemeChoice) -> Window {
    window_of(SIZE, theme)
}

/// A window of `size` points.
pub fn window_of(size: [f32; 2], theme: ThemeChoice) -> Window {
    Harness::builder().with_size(size).with_max_steps(12).build_eframe(move |creation| {
        let app = App::new(&creation.egui_ctx, None, EngineLink::detached(), catalog());
        // Two threads on any machine, and UTC.
        let mut app = app.with_machine(Machine { num_threads: 2, ..Machine::default() });
        app.saved_mut().settings.theme = theme;
        app.saved_mut().settings.runs_folder = "/runs".to_owned();
        app
    })
}

/// The window with a run in it.
pub fn window_with(run: RunSnapshot, theme: ThemeChoice) -> Window {
    let mut harness = window(theme);
    harness.state_mut().show_snapshot(Arc::new(run));
    harness.run();
    harness
}

/// Commands but those that a screen asks by itself.
pub fn commands(harness: &mut Window) -> Vec<Command> {
    let pending = harness.state_mut().take_pending();
    let is_asked =
        |command: &Command| !matches!(command, Command::ListRuns(..) | Command::Plan(..) | Command::Cancel(_));
    pending.into_iter().filter(is_asked).collect()
}

/// Shows `run` from the next frame on.
pub fn show(harness: &mut Window, run: RunSnapshot) {
    harness.state_mut().show_snapshot(Arc::new(run));
}

/// The window with a run in it that has done `step` steps and goes on.
pub fn training(step: u64) -> Window {
    window_with(snapshot(step, RunStatus::Training), ThemeChoice::Dark)
}

/// A run whose end could not be written.
pub fn unsaved(step: u64) -> RunSnapshot {
    let why = "the disk is full".to_owned();
    let mut run = snapshot(step, RunStatus::Unsaved { why: why.clone() });
    let warning = LogEntry { step, unix_ms: 36_000_000, kind: LogKind::Warning(why) };
    run.log = run.log.iter().cloned().chain([warning]).collect();
    run
}

/// Takes an answer as if it came from the engine.
pub fn tell(harness: &mut Window, job: JobId, kind: EventKind) {
    harness.state_mut().apply_event(&Event { job, kind });
}

/// Clicks. Not `run` afterwards: a spinner never comes to rest.
pub fn click(harness: &mut Window, label: &str) {
    harness.get_by_label(label).click();
    harness.run_steps(3);
}
