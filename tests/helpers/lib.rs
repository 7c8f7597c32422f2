//! What several tests need: a small dataset on disk, a small recipe, an engine with a deadline.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a helper that fails should fail its test")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foretrain_engine::data::{Augmentation, DatasetSpec};
use foretrain_engine::device::ComputeDevice;
use foretrain_engine::hybrid::{GateRule, HybridConfig, Strategy};
use foretrain_engine::models::ops::{Kept, Precision};
use foretrain_engine::models::{Activation, MlpConfig, ModelConfig};
use foretrain_engine::optim::{OptimizerConfig, OptimizerKind, Schedule, StatePlace, StatePrecision};
use foretrain_engine::session::{Command, Engine, Event, EventKind, JobId, RunConfig, StopReason};

/// No test waits longer for one event.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Writes an IDX dataset of 8x8 images: each of 10 classes is a fixed pattern, under noise.
pub fn write_idx(folder: &Path, num_train: u32, num_test: u32) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        // xorshift64: any repeatable noise will do.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for (part, count) in [("train", num_train), ("t10k", num_test)] {
        let mut images = Vec::new();
        let mut labels = Vec::new();
        images.extend(0x0803_u32.to_be_bytes());
        labels.extend(0x0801_u32.to_be_bytes());
        images.extend(count.to_be_bytes());
        labels.extend(count.to_be_bytes());
        images.extend(8_u32.to_be_bytes());
        images.extend(8_u32.to_be_bytes());
        for number in 0..count {
            let class = number % 10;
            labels.push(class as u8);
            for pixel in 0..64_u32 {
                let is_on = (pixel * 7 + class * 13) % 10 < 3;
                let noise = (next() % 160) as u8;
                images.push(if is_on { 95 + noise } else { noise });
            }
        }
        std::fs::File::create(folder.join(format!("{part}-images-idx3-ubyte"))).unwrap().write_all(&images).unwrap();
        std::fs::File::create(folder.join(format!("{part}-labels-idx1-ubyte"))).unwrap().write_all(&labels).unwrap();
    }
}

/// A recipe that trains a small MLP on [`write_idx`]'s data in a second or two.
#[must_use]
pub fn small_config(data: &Path, runs: &Path) -> RunConfig {
    RunConfig {
        name: "small test".to_owned(),
        data: DatasetSpec::Idx { path: data.to_owned() },
        model: ModelConfig::Mlp(MlpConfig {
            in_channels: 1,
            image_size: (8, 8),
            hidden_sizes: vec![32],
            num_classes: 10,
            activation: Activation::Relu,
        }),
        start_from: None,
        tier: "conservative".to_owned(),
        hybrid: HybridConfig {
            strategy: Strategy::Importance,
            gate: GateRule::ByCost,
            max_predict_steps: 20,
            confidence_threshold: 0.2,
            correction_interval: 5,
            divergence_sigma: 4.0,
            check_interval: 2,
            slice_fraction: 0.25,
            min_slice_fraction: 0.0625,
            gate_cost: 0.95,
            gate_hold_steps: 5,
            warmup_fraction: 0.05,
        },
        optimizer: OptimizerConfig {
            kind: OptimizerKind::AdamW,
            learning_rate: 3e-3,
            adam_learning_rate: 3e-3,
            beta1: 0.9,
            beta2: 0.99,
            epsilon: 1e-8,
            weight_decay: 0.01,
            momentum: 0.9,
            newton_schulz_steps: 3,
            clip_norm: Some(5.0),
            states: StatePrecision::F32,
            state_place: StatePlace::WithWeights,
        },
        schedule: Schedule::ConstantEma { warmup_fraction: 0.05, ema_decay: 0.98 },
        qat: None,
        num_steps: 120,
        batch_size: 64,
        num_micro_batches: 1,
        precision: Precision::F32,
        kept: Kept::Activations,
        sequence_length: 0,
        augmentation: Augmentation::default(),
        seed: 7,
        validation_interval: 30,
        max_validation_examples: 500,
        checkpoint_interval: 25,
        keep_last: 2,
        num_threads: 0,
        device: ComputeDevice::Cpu,
        memory_budget_bytes: 0,
        vram_limit_bytes: 0,
        runs_folder: runs.to_owned(),
    }
}

/// An engine with folders of its own.
#[derive(Debug)]
pub struct TestEngine {
    /// Everything the test writes.
    pub folder: tempfile::TempDir,
    /// The engine.
    pub engine: Engine,
    next_job: u64,
}

impl Default for TestEngine {
    fn default() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::spawn(Arc::new(|| {}), folder.path().join("cache")).unwrap();
        Self { folder, engine, next_job: 0 }
    }
}

impl TestEngine {
    /// A folder below the test's own, made.
    #[must_use]
    pub fn sub(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// Sends the command made for a new job.
    pub fn send(&mut self, make: impl FnOnce(JobId) -> Command) -> JobId {
        self.next_job += 1;
        let job = JobId(self.next_job);
        self.engine.try_send(make(job)).expect("the queue has room");
        job
    }

    /// The first event of `job` that `pick` takes; panics past the deadline.
    pub fn wait<T>(&self, job: JobId, mut pick: impl FnMut(EventKind) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.engine.wait_event(left);
            let Some(Event { job: from, kind }) = event else { panic!("no such event of {job:?} in {DEADLINE:?}") };
            if from == job {
                let shown = format!("{kind:?}");
                if let Some(found) = pick(kind) {
                    return found;
                }
                assert!(!shown.starts_with("Rejected"), "{shown}");
            }
        }
    }

    /// Trains to the end; returns the run's folder.
    pub fn train(&mut self, config: RunConfig) -> PathBuf {
        let job = self.send(|job| Command::Start(job, Box::new(config)));
        let reason = self.wait(job, |kind| if let EventKind::Ended(reason) = kind { Some(reason) } else { None });
        assert_eq!(reason, StopReason::Finished);
        self.engine.snapshot().unwrap().folder.clone().unwrap()
    }
}
