//! One step over blocks on disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::OffloadError;
use super::layout::{Precision, Slot};
use super::passes;
use super::step::{Done, Pass, owner};
use super::store::{BlockStore, Blocks, Commit, FirstWeights, OffloadSettings};
use super::streams::{Traffic, stream};
use super::update::is_trained;
use crate::data::Batch;
use crate::device::{Watch, panic_text};
use crate::hybrid::{Backward, Seen, StepOrder, StepReport, nullable};
use crate::models::{MAX_LOGITS, ModelConfig, ModelError, Network, Params, ops};
use crate::optim::{OptimizerConfig, OptimizerKind};

/// What a step did and what it cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamedStep {
    /// From 1.
    pub step: u64,
    /// Mean loss of a token before the update, nats; NaN where a block was not finite.
    #[serde(with = "nullable")]
    pub loss: f64,
    /// Length of the gradient of all blocks together, before clipping; `None` where nothing moved.
    pub grad_norm: Option<f64>,
    /// Blocks whose own gradient was longer than the limit and was scaled down to it.
    pub num_clipped: usize,
    /// Blocks that a broken step had moved already.
    pub num_kept: usize,
    /// The whole step, until the disk has it.
    pub seconds: f64,
    /// Time of it that computing waited for a block to be read.
    pub read_wait_seconds: f64,
    /// Time of it that computing waited for a block to be written.
    pub write_wait_seconds: f64,
    /// Time that reading took beside computing, checksums included.
    pub reading_seconds: f64,
    /// Time that writing took beside computing, until the disk had it.
    pub writing_seconds: f64,
    /// Time of it that only prediction asks for: predicted gradient norms, which the gate watches.
    #[serde(default)]
    pub gate_seconds: f64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// What led the step, as its pilot saw it; `None` for a plain step.
    #[serde(default)]
    pub hybrid: Option<StepReport>,
}

impl Traffic {
    /// A step of which nothing but this is known yet.
    fn step(&self, taken: Duration) -> StreamedStep {
        StreamedStep {
            step: 0,
            loss: f64::NAN,
            grad_norm: None,
            num_clipped: 0,
            num_kept: 0,
            seconds: taken.as_secs_f64(),
            read_wait_seconds: self.read_wait.as_secs_f64(),
            write_wait_seconds: self.write_wait.as_secs_f64(),
            reading_seconds: self.reading.as_secs_f64(),
            writing_seconds: self.writing.as_secs_f64(),
            gate_seconds: 0.0,
            read_bytes: self.read_bytes,
            written_bytes: self.written_bytes,
            hybrid: None,
        }
    }
}

/// A tensor as it lies on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Name, as in a checkpoint.
    pub name: String,
    /// Shape.
    pub shape: Vec<usize>,
    /// Bytes of its numbers, moments aside.
    pub num_bytes: usize,
}

/// What is to be told and saved of a step.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// As its pilot saw it.
    pub(super) report: Option<StepReport>,
    /// What leads the next one.
    pub(super) pilot: Option<String>,
    /// Whether the blocks of the snapshot are put back.
    pub(super) goes_back: bool,
}

/// Trains a language model whose blocks lie on disk.
#[derive(Debug)]
pub struct OffloadTrainer {
    pub(super) network: Arc<Network>,
    pub(super) optimizer: OptimizerConfig,
    pub(super) seed: u64,
    pub(super) store: BlockStore,
    pub(super) products: ops::Precision,
    pub(super) max_logits: usize,
    /// Computes the passes; updates are the processor's.
    pub(super) device: Device,
    /// Of the last step, also of one that failed.
    traffic: Traffic,
}

impl OffloadTrainer {
    /// Opens the store of this training, or makes one: with the weights that `first` hands over, or with drawn ones.
    /// Errors: [`OffloadError::Setting`] for a model that is no gpt2 or llama, or another optimizer than AdamW; everything
    /// that can be wrong with a folder or a disk.
    pub fn open(
        network: Arc<Network>,
        optimizer: &OptimizerConfig,
        settings: &OffloadSettings,
        first: Option<&mut FirstWeights<'_>>,
        watch: Watch<'_>,
    ) -> Result<Self, OffloadError> {
        check_streamable(&network, optimizer)?;
        let store = BlockStore::open_or_create(&network, settings, first, watch)?;
        let (optimizer, products) = (optimizer.clone(), ops::Precision::F32);
        Ok(Self {
            network,
            optimizer,
            seed: settings.seed,
            store,
            products,
            max_logits: MAX_LOGITS,
            device: Device::Cpu,
            traffic: Traffic::default(),
        })
    }

    /// The same trainer, with matrix products of this precision from here on, where a new one's are in f32. How numbers lie
    /// on disk is another matter.
    #[must_use]
    pub fn with_products(self, products: ops::Precision) -> Self {
        Self { products, ..self }
    }

    /// The same trainer, whose passes `device` computes from here on, where the processor does those of a new one. Blocks go
    /// there one at a time and their gradients come back: weights and moments stay in the machine's memory and on disk, so that
    /// a folder goes on on any device.
    #[must_use]
    pub fn computing_on(self, device: Device) -> Self {
        Self { device, ..self }
    }

    /// Steps done.
    #[must_use]
    pub fn num_steps(&self) -> u64 {
        self.store.step()
    }

    /// What of a broken step counts.
    #[must_use]
    pub fn commit(&self) -> Commit {
        self.store.commit
    }

    /// The last step, also of an earlier process; `None` before the first, and where a process ended just before it had all
    /// of it.
    #[must_use]
    pub fn last_step(&self) -> Option<&StreamedStep> {
        self.store.last_step()
    }

    /// Whether earlier blocks are kept to go back to: where the disk has room for them, and the file system knows hard links.
    #[must_use]
    pub fn keeps_snapshots(&self) -> bool {
        self.store.keeps_snapshots()
    }

    /// What is on disk, in words: "Step 3 is saved".
    #[must_use]
    pub fn describe(&self) -> String {
        self.store.describe()
    }

    /// How numbers lie on disk.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.store.precision
    }

    /// All tensors, block by block.
    #[must_use]
    pub fn tensors(&self) -> Vec<StoredTensor> {
        let bytes = self.store.precision.weight_bytes() as usize;
        let slots = self.store.files.layouts.iter().flat_map(|layout| &layout.slots);
        let stored = |slot: &Slot| StoredTensor {
            name: slot.name.clone(),
            shape: slot.shape.clone(),
            num_bytes: slot.count * bytes,
        };
        slots.map(stored).collect()
    }

    /// The numbers of one tensor as they lie on disk, bf16 or f32, little-endian. Reads its block's weights.
    /// Errors: there is no such tensor; whatever a disk can do.
    pub fn tensor_bytes(&self, name: &str) -> Result<Vec<u8>, OffloadError> {
        for (block, layout) in self.store.files.layouts.iter().enumerate() {
            let mut start = 0;
            for slot in &layout.slots {
                if slot.name == name {
                    let weights = self.store.files.read_weights(block)?;
                    return Ok(weights.bytes(start, slot.count).to_vec());
                }
                start += slot.count;
            }
        }
        Err(ModelError::MissingTensor { name: name.to_owned() }.into())
    }

    /// All weights in f32, in memory: for a model that fits it.
    pub fn params(&self) -> Result<Params, OffloadError> {
        let mut all = Params::default();
        for (block, layout) in self.store.files.layouts.iter().enumerate() {
            let weights = self.store.files.read_weights(block)?;
            for (name, tensor) in passes::detached(layout, &weights, &Device::Cpu)? {
                all.insert(name, tensor);
            }
        }
        Ok(all)
    }

    /// One update of every weight by the gradient of the batch's mean loss, at `lr_factor` times the peak learning rate: a
    /// plain step, which no pilot leads.
    ///
    /// Tokens (n, t) and targets (n, t) of the batch are on the device that computes.
    /// Gradients are clipped block by block: that of all blocks is known only after most have moved.
    /// Errors: [`OffloadError::NotFinite`] names the block; [`OffloadError::Gpu`] for a device that fails; whatever a disk can
    /// do. What was saved stays whole in any case.
    pub fn step(&mut self, batch: &Batch, lr_factor: f64, watch: Watch<'_>) -> Result<StreamedStep, OffloadError> {
        let order = StepOrder { learning_rate_factor: lr_factor, measures_errors: false, looks_first: false };
        self.streamed(batch, order, &|_| Backward::All, watch, |_, _| Ok(Ended::default()))
    }

    /// Streams a step; `end` makes what is to be told and saved of it, before it counts.
    pub(super) fn streamed(
        &mut self,
        batch: &Batch,
        order: StepOrder,
        choose: &dyn Fn(&Seen) -> Backward,
        watch: Watch<'_>,
        end: impl FnOnce(&Done, &Seen) -> Result<Ended, OffloadError>,
    ) -> Result<StreamedStep, OffloadError> {
        self.store.settle()?;
        let started = Instant::now();
        let pass = Pass {
            blocks: self.network.blocks(),
            trainer: self,
            batch,
            order,
            choose,
            watch,
            owner: owner(&self.network, &self.store.files.layouts),
            done: Done::default(),
        };
        let num_kept = self.store.num_ahead();
        let wanted = pass.wanted();
        let (done, traffic) = stream(&self.store.files, &wanted, self.store.version(), |streams| {
            // Within the threads that read and write, so that what they wrote is known also then.
            self.computed(&format!("computing step {}", self.store.step() + 1), || pass.run(streams))
        });
        self.store.note_written(&traffic.written);
        self.traffic = traffic;
        let ended = done.and_then(|(seen, done)| {
            let Ended { report: hybrid, pilot, goes_back } = end(&done, &seen)?;
            let blocks = match (goes_back, done.moved) {
                (true, _) => Blocks::GoBack,
                (false, true) => Blocks::Moved,
                (false, false) => Blocks::Stayed,
            };
            let step = StreamedStep {
                step: self.store.step() + 1,
                loss: seen.mean_loss(),
                grad_norm: done.grad_norm(),
                num_clipped: done.num_clipped,
                num_kept,
                gate_seconds: done.gate_seconds,
                hybrid,
                ..self.traffic.step(started.elapsed())
            };
            self.store.advance(blocks, pilot, Some(Box::new(step.clone())))?;
            Ok(StreamedStep { seconds: started.elapsed().as_secs_f64(), ..step })
        });
        ended.map_err(|error| self.explained(error))
    }

    /// Ends a step whose blocks are not finite, and which counts for nothing but what `ended` says of it.
    pub(super) fn end_without_numbers(&mut self, ended: Ended, taken: Duration) -> Result<StreamedStep, OffloadError> {
        let Ended { report: hybrid, pilot, goes_back } = ended;
        let (started, num_kept) = (Instant::now(), self.store.num_ahead());
        if num_kept > 0 && !goes_back {
            return Err(OffloadError::Thread { what: "writes" });
        }
        let blocks = if goes_back { Blocks::GoBack } else { Blocks::Stayed };
        let step = StreamedStep { step: self.store.step() + 1, num_kept, hybrid, ..self.traffic.step(taken) };
        self.store.advance(blocks, pilot, Some(Box::new(step.clone())))?;
        Ok(StreamedStep { seconds: (taken + started.elapsed()).as_secs_f64(), ..step })
    }

    /// `work` of the device that computes, for `what`. A GPU that fails is told as such; where it vanishes, CUDA's bindings may
    /// say so by a panic.
    pub(super) fn computed<T>(
        &self,
        what: &str,
        work: impl FnOnce() -> Result<T, OffloadError>,
    ) -> Result<T, OffloadError> {
        if ops::has_kernels(&self.device) {
            return work();
        }
        let failed = |found: String| OffloadError::Gpu { what: what.to_owned(), found, state: self.store.describe() };
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Err(OffloadError::Tensor(error) | OffloadError::Model(ModelError::Tensor(error)))) => {
                Err(failed(error.to_string()))
            }
            Ok(done) => done,
            Err(panic) => Err(failed(panic_text(panic.as_ref()).unwrap_or("it stopped without a message").to_owned())),
        }
    }

    /// Says of an error what is on disk now.
    fn explained(&self, error: OffloadError) -> OffloadError {
        match error {
            OffloadError::Write { source, .. } => OffloadError::Write { source, state: self.store.describe() },
            OffloadError::NotFinite { step, what, block, .. } => {
                OffloadError::NotFinite { step, what, block, state: self.store.describe() }
            }
            OffloadError::Gpu { what, found, .. } => OffloadError::Gpu { what, found, state: self.store.describe() },
            error => error,
        }
    }

    #[cfg(test)]
    pub(super) fn set_max_logits(&mut self, max_logits: usize) {
        self.max_logits = max_logits;
    }

    pub(super) fn peak_learning_rate(&self) -> f64 {
        self.optimizer.learning_rate
    }
}

/// Refuses what cannot be trained block by block.
/// Errors: [`OffloadError::Setting`].
pub(crate) fn check_streamable(network: &Network, optimizer: &OptimizerConfig) -> Result<(), OffloadError> {
    optimizer.check()?;
    match network.config() {
        ModelConfig::Gpt2(_) | ModelConfig::Llama(_) => {}
        ModelConfig::Mlp(_) | ModelConfig::Cnn(_) | ModelConfig::ResNet(_) => {
            return Err(OffloadError::Setting {
                expected: "a gpt2 or llama model",
                found: "a model of images".to_owned(),
                hint: "Models of images fit into memory: train without streaming",
            });
        }
    }
    if optimizer.kind != OptimizerKind::AdamW {
        return Err(OffloadError::Setting {
            expected: "adamw",
            found: "muon".to_owned(),
            hint: "Muon's matrices would have to be read whole; choose AdamW (--optimizer adamw)",
        });
    }
    let specs = network.specs();
    match specs.iter().find(|spec| !is_trained(spec.kind)) {
        Some(spec) => Err(OffloadError::Setting {
            expected: "tensors that a gradient moves",
            found: spec.name.clone(),
            hint: "Train without streaming",
        }),
        None => Ok(()),
    }
}
