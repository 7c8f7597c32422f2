//! How fast this machine computes, moves weights and writes, measured in seconds, so that a plan can say what it costs.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::files::write_error;
use super::layout::{Layout, Precision, Slot};
use super::state::BlockState;
use super::update::{Pace, update};
use super::{OffloadError, OffloadPlan, ScratchFolder, StepShape, rehearsal};
use crate::device::atomic_file::WriteError;
use crate::device::{Watch, free_disk_bytes, is_on_disk};
use crate::hybrid::StepCosts;
use crate::models::{Network, TensorKind, ops};
use crate::optim::OptimizerConfig;

/// Bytes that are written to learn the disk's pace, or a quarter of what is free.
const PROBE_BYTES: u64 = 64 << 20;
/// Weights that are moved to learn the update's.
const PROBE_WEIGHTS: usize = 4 << 20;
/// Width of the matrices that are multiplied, and how many there are: 64 MiB, more than a core's own cache.
const PROBE_WIDTH: usize = 2048;
const NUM_PROBES: usize = 4;
/// Most tokens that they are multiplied with.
const MAX_PROBE_ROWS: usize = 1024;

/// What this machine does in a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Floating-point operations of a matrix product with as many rows as a step has tokens (at most 1024), where the passes
    /// are computed.
    pub flops: f64,
    /// Bytes that the disk takes for good. Reading is assumed to be as fast: measured, it would show the system's cache.
    pub disk_bytes: f64,
    /// Weights that AdamW moves, in the precision asked for.
    pub moved_weights: f64,
    /// Weights that it moves in full precision.
    pub moved_full_weights: f64,
    /// Weights that a whole step takes forward, back and to disk, in a rehearsal with the first layers; `None` where the disk
    /// has no room for one.
    pub streamed_weights: Option<f64>,
    /// What a Predict step costs, by the same rehearsal; `None` where no step samples.
    #[serde(default)]
    pub step_costs: Option<StepCosts>,
}

/// One way to save memory or disk, and its price in a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The way, in words.
    pub measure: String,
    /// What it saves: "memory", "GPU memory" or "disk".
    pub saves: String,
    /// How many bytes of it.
    pub saved_bytes: u64,
    /// Seconds that it adds to a step; negative where it makes one shorter.
    pub seconds: f64,
}

impl Rates {
    /// Measures: files in a scratch folder in `folder`, or above it while it is not there, which goes again; a second of
    /// computing on `device`; and two steps of a small part of `network`. Errors: [`OffloadError::Unwritable`] where files
    /// cannot be made.
    pub fn measure(
        (folder, device): (&Path, &Device),
        network: &Network,
        optimizer: &OptimizerConfig,
        shape: StepShape,
        watch: Watch<'_>,
    ) -> Result<Self, OffloadError> {
        let measured = ScratchFolder::new(folder).and_then(|place| {
            let rates = Self::measure_in((place.path(), device), network, optimizer, shape, watch);
            // A step begins with what is left after it, not with what measuring took.
            ops::release_scratch();
            ops::trim_pages();
            rates
        });
        measured.map_err(|error| match error {
            // Names of scratch files are nobody's, and there are no blocks yet to tell of.
            OffloadError::Write { source: WriteError { source, .. }, .. } | OffloadError::Unwritable { source, .. } => {
                OffloadError::Unwritable { path: folder.to_owned(), source }
            }
            OffloadError::Tensor(error) if !ops::has_kernels(device) => untouched(error.to_string()),
            OffloadError::Gpu { found, .. } => untouched(found),
            error => error,
        })
    }

    fn measure_in(
        (place, device): (&Path, &Device),
        network: &Network,
        optimizer: &OptimizerConfig,
        shape: StepShape,
        watch: Watch<'_>,
    ) -> Result<Self, OffloadError> {
        watch.step("measuring the disk", 0, Some(4))?;
        let disk_bytes = disk_rate(place)?;
        watch.step("measuring matrix products", 1, Some(4))?;
        let flops = flop_rate(device, shape.products, shape.batch_size.saturating_mul(shape.sequence_length))?;
        watch.step("measuring updates", 2, Some(4))?;
        let moved_full_weights = update_rate(optimizer, Precision::Full);
        let moved_weights = match shape.precision {
            Precision::Full => moved_full_weights,
            Precision::Compact => update_rate(optimizer, Precision::Compact),
        };
        watch.step("rehearsing a step with a few layers", 3, Some(4))?;
        let rehearsed = rehearsal::rehearse((place, device), network.config(), optimizer, shape, watch)?;
        let streamed_weights = rehearsed.map(|rehearsed| rehearsed.weights_per_second);
        let step_costs = rehearsed.and_then(|rehearsed| rehearsed.step_costs);
        Ok(Self { flops, disk_bytes, moved_weights, moved_full_weights, streamed_weights, step_costs })
    }

    /// Seconds of a step: what its work takes by the rehearsal, or what the disk takes for as many bytes, whichever is more.
    /// Without a rehearsal at least what computing takes.
    #[must_use]
    pub fn step_seconds(&self, plan: &OffloadPlan) -> f64 {
        let work = self.streamed_weights.map(|rate| plan.num_params as f64 / rate);
        work.unwrap_or_else(|| self.compute_seconds(plan)).max(self.disk_seconds(plan))
    }

    /// Seconds of a Predict step: by the rehearsal, as a share of a full step. `None` where no step samples, or none was
    /// rehearsed.
    #[must_use]
    pub fn predict_seconds(&self, plan: &OffloadPlan, batch_size: usize) -> Option<f64> {
        let share = plan.predict?.num_sequences as f64 / batch_size as f64;
        Some(self.step_seconds(plan) * self.step_costs?.of_slice(share))
    }

    /// Seconds of passes and updates alone, were nothing copied, read or written.
    #[must_use]
    pub fn compute_seconds(&self, plan: &OffloadPlan) -> f64 {
        plan.flops as f64 / self.flops + plan.num_params as f64 / self.moved_weights
    }

    /// Seconds of reading and writing; they share the disk.
    #[must_use]
    pub fn disk_seconds(&self, plan: &OffloadPlan) -> f64 {
        (plan.read_bytes as f64 + plan.written_bytes as f64) / self.disk_bytes
    }

    /// What each way to save costs.
    #[must_use]
    pub fn costs(&self, plan: &OffloadPlan) -> Vec<Cost> {
        let cost = |measure: &str, saves: &str, saved_bytes: u64, seconds: f64| Cost {
            measure: measure.to_owned(),
            saves: saves.to_owned(),
            saved_bytes,
            seconds,
        };
        let mut costs = vec![
            cost(
                "blocks on disk, three in memory",
                "memory",
                plan.streaming_saves_bytes,
                (self.step_seconds(plan) - self.compute_seconds(plan)).max(0.0),
            ),
            cost(
                "each block computed again on the way back",
                // What a block keeps lies where it is computed.
                if plan.gpu.is_some() { "GPU memory" } else { "memory" },
                plan.recomputation_saves_bytes,
                plan.recomputed_flops as f64 / self.flops,
            ),
            cost("each block moved at once", "memory", plan.fusion_saves_bytes, 0.0),
        ];
        if plan.compact_saves_bytes > 0 {
            let updates = plan.num_params as f64 * (1.0 / self.moved_weights - 1.0 / self.moved_full_weights);
            costs.push(cost("bf16 weights, 8-bit moments", "disk", plan.compact_saves_bytes, updates));
        }
        costs
    }
}

/// A GPU that failed before the training itself began.
fn untouched(found: String) -> OffloadError {
    let (what, state) = ("rehearsing a step".to_owned(), "Nothing of the training has moved".to_owned());
    OffloadError::Gpu { what, found, state }
}

/// Bytes that the products of [`Rates::measure`] take where they are computed, with so many tokens in a batch.
pub(super) fn product_probe_bytes(num_tokens: usize) -> u64 {
    let (rows, width) = (num_tokens.clamp(1, MAX_PROBE_ROWS), PROBE_WIDTH);
    4 * ((NUM_PROBES + 1) * width * width + 2 * rows * width) as u64
}

/// Bytes that its updates take: weights, two moments and a gradient.
pub(super) fn update_probe_bytes() -> u64 {
    4 * 4 * PROBE_WEIGHTS as u64
}

fn disk_rate(folder: &Path) -> Result<f64, OffloadError> {
    let path = folder.join("pace");
    let free = free_disk_bytes(folder).filter(|_| is_on_disk(folder)).unwrap_or(u64::MAX);
    let piece = vec![0x5A_u8; 64 << 10];
    let num_pieces = (PROBE_BYTES.min(free / 4) / piece.len() as u64).max(1);
    let started = Instant::now();
    let written = std::fs::File::create(&path).and_then(|mut file| {
        (0..num_pieces).try_for_each(|_| file.write_all(&piece))?;
        file.sync_all()
    });
    let seconds = started.elapsed().as_secs_f64();
    let _ = std::fs::remove_file(&path);
    written.map_err(|source| write_error(WriteError::new("writing", &path, source)))?;
    Ok((num_pieces * piece.len() as u64) as f64 / seconds)
}

fn flop_rate(device: &Device, products: ops::Precision, num_tokens: usize) -> Result<f64, OffloadError> {
    let rows = num_tokens.clamp(1, MAX_PROBE_ROWS);
    let a = Tensor::ones((rows, PROBE_WIDTH), DType::F32, device)?;
    // Not one again and again: a step meets each weight once on its way.
    let weights = (0..NUM_PROBES)
        .map(|_| Tensor::ones((PROBE_WIDTH, PROBE_WIDTH), DType::F32, device))
        .collect::<Result<Vec<_>, _>>()?;
    ops::linear(&a, &Tensor::ones((PROBE_WIDTH, PROBE_WIDTH), DType::F32, device)?, products)?;
    // A GPU has only been told to begin.
    device.synchronize()?;
    let started = Instant::now();
    for b in &weights {
        ops::linear(&a, b, products)?;
    }
    device.synchronize()?;
    let flops = 2.0 * (NUM_PROBES * rows * PROBE_WIDTH * PROBE_WIDTH) as f64;
    Ok(flops / started.elapsed().as_secs_f64())
}

fn update_rate(optimizer: &OptimizerConfig, precision: Precision) -> f64 {
    let slot =
        Slot { name: "probe".to_owned(), shape: vec![PROBE_WEIGHTS], kind: TensorKind::Matrix, count: PROBE_WEIGHTS };
    let layout = Layout { block: "probe".to_owned(), slots: vec![slot], precision };
    let mut state = BlockState::zeros(&layout);
    let gradient: Vec<f32> = (0..PROBE_WEIGHTS).map(|i| (i % 1013) as f32 - 506.0).collect();
    let mut best = f64::INFINITY;
    for step in 1..=3 {
        let started = Instant::now();
        let pace = Pace { optimizer, step, lr_factor: 1.0, scale: 1.0, seed: 0, block: 0 };
        update(&mut state, &layout, &[&gradient], pace);
        best = best.min(started.elapsed().as_secs_f64());
    }
    PROBE_WEIGHTS as f64 / best
}
