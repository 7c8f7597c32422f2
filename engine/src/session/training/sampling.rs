//! Which steps are looked into, and what is seen there. No result depends on it.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use crate::experiment::Stopwatch;
use crate::hybrid::{Mark, StepPart};
use crate::models::ops::profile::{Kind, Ledger, Recording};
use crate::session::operation_times::{Operation, OperationTimes};

/// One step of so many.
const INTERVAL: u64 = 20;
/// From the sampled step of one interval to that of the next, beside the interval: prime to it, so that phases that take
/// turns do not fall into step with it.
const DRIFT: u64 = 7;
/// The first sampled step, counted from 0: after those that find buffers and caches cold.
const FIRST: u64 = 10;

/// True for the steps to look into; `step` counts from 0.
pub(super) fn is_sampled(step: u64) -> bool {
    step % INTERVAL == (step / INTERVAL * DRIFT + FIRST) % INTERVAL
}

/// A step that is looked into.
pub(super) struct StepSample<'a> {
    ledger: &'a Ledger,
    began: Instant,
    /// Making the batch.
    data: Cell<Duration>,
    /// While operations count for themselves.
    recording: RefCell<Option<Recording<'a>>>,
    update: Stopwatch,
    decisions: Stopwatch,
}

impl<'a> StepSample<'a> {
    /// Begins with the step.
    pub(super) fn begin(ledger: &'a Ledger) -> Self {
        // What others may have left.
        let _ = ledger.take();
        Self {
            ledger,
            began: Instant::now(),
            data: Cell::default(),
            recording: RefCell::default(),
            update: Stopwatch::new(StepPart::Update),
            decisions: Stopwatch::new(StepPart::Decisions),
        }
    }

    /// The batch is there: operations begin.
    pub(super) fn has_batch(&self) {
        self.data.set(self.began.elapsed());
        self.record(true);
    }

    /// Takes a mark of the trainer's.
    pub(super) fn mark(&self, mark: Mark) {
        // What the optimizer multiplies is the optimizer's.
        match mark {
            Mark::Begins(StepPart::Update) => self.record(false),
            Mark::Ends(StepPart::Update) => self.record(true),
            Mark::Begins(_) | Mark::Ends(_) => {}
        }
        self.update.mark(mark);
        self.decisions.mark(mark);
    }

    fn record(&self, is_wanted: bool) {
        let mut recording = self.recording.borrow_mut();
        *recording = None;
        *recording = is_wanted.then(|| self.ledger.record());
    }

    /// What the step's `num_threads` were busy with; `None` where none of our kernels ran, as on a GPU.
    pub(super) fn end(self, num_threads: usize) -> Option<OperationTimes> {
        let elapsed = self.began.elapsed();
        self.record(false);
        let of_kernels = self.ledger.take();
        if of_kernels.iter().all(Duration::is_zero) {
            return None;
        }
        let ms = |time: Duration| (time.as_secs_f64() * 1e3) as f32;
        let of_all_threads = |time: Duration| ms(time) * num_threads as f32;
        let mut times: OperationTimes =
            Kind::ALL.into_iter().zip(of_kernels).map(|(kind, time)| (Operation::from(kind), ms(time))).collect();
        times.add(Operation::Data, of_all_threads(self.data.get()));
        times.add(Operation::Optimizer, of_all_threads(self.update.total().unwrap_or_default()));
        times.add(Operation::Decisions, of_all_threads(self.decisions.total().unwrap_or_default()));
        times.add(Operation::Other, (of_all_threads(elapsed) - times.total_ms()).max(0.0));
        Some(times)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use candle_core::{Device, Tensor};

    use super::*;
    use crate::data::Batch;
    use crate::device::observed_pool;
    use crate::hybrid::{HybridTrainer, TrainerSetup};
    use crate::models::ops::Precision;
    use crate::models::{Gpt2Config, ModelConfig, Network, ParamStore, initial_params};
    use crate::session::{recipe, tier};

    #[test]
    fn one_step_of_twenty_and_each_place_of_a_cycle_in_turn() {
        let sampled: Vec<u64> = (0..400).filter(|&step| is_sampled(step)).collect();
        assert_eq!((sampled.len(), sampled[0]), (20, 10));
        let mut places: Vec<u64> = sampled.iter().map(|step| step % 20).collect();
        places.sort_unstable();
        assert_eq!(places, (0..20).collect::<Vec<_>>());
        let mut in_cycle_of_ten = [0; 10];
        sampled.iter().for_each(|step| in_cycle_of_ten[(step % 10) as usize] += 1);
        assert_eq!(in_cycle_of_ten, [2; 10]);
    }

    /// Losses of twelve steps of a small GPT-2, as bits, and what was seen in those that were looked into.
    fn train(is_watched: bool, num_threads: usize) -> (Vec<u32>, Vec<OperationTimes>) {
        let model = ModelConfig::Gpt2(Gpt2Config {
            vocab_size: 11,
            n_positions: 16,
            n_embd: 16,
            n_layer: 2,
            n_head: 2,
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
        });
        let network = Network::new(&model).unwrap();
        let (weights, buffers) = initial_params(&network, 3, &Device::Cpu).unwrap();
        let store = ParamStore::new(weights, buffers, &Device::Cpu).unwrap();
        let recipe = recipe("shakespeare-gpt2-char").unwrap();
        let setup = TrainerSetup {
            network: Arc::new(network),
            store,
            hybrid: tier("balanced").unwrap().config(),
            optimizer: recipe.optimizer,
            schedule: recipe.schedule,
            qat: None,
            num_steps: 100,
            num_micro_batches: 1,
            precision: Precision::F32,
            seed: 3,
        };
        let mut trainer = HybridTrainer::new(setup).unwrap();
        let ledger = Ledger::default();
        let mut seen = Vec::new();
        let losses = observed_pool(num_threads, &ledger).unwrap().install(|| {
            let step = |number: u32| {
                let began = Instant::now();
                let sample = is_watched.then(|| StepSample::begin(&ledger));
                let tokens: Vec<u32> = (0..4 * 16).map(|index| (index * index + number) % 11).collect();
                let inputs = Tensor::from_vec(tokens, (4, 16), &Device::Cpu).unwrap();
                let batch = Batch { targets: inputs.clone(), inputs };
                if let Some(sample) = &sample {
                    sample.has_batch();
                }
                let mark = |mark| sample.iter().for_each(|sample| sample.mark(mark));
                let loss = trainer.step_marked(&batch, &mark).unwrap().loss;
                if let Some(times) = sample.and_then(|sample| sample.end(num_threads)) {
                    let most = num_threads as f32 * began.elapsed().as_secs_f32() * 1e3;
                    assert!(times.total_ms() <= 1.01 * most, "{times:?} in {most} ms of all threads");
                    seen.push(times);
                }
                loss.to_bits()
            };
            (0..12).map(step).collect()
        });
        (losses, seen)
    }

    #[test]
    fn looking_into_steps_changes_no_bit_of_them() {
        for num_threads in [1, 2] {
            let (losses, seen) = train(false, num_threads);
            assert!(seen.is_empty());
            let (watched, seen) = train(true, num_threads);
            assert_eq!(watched, losses);
            assert_eq!(seen.len(), 12);
            for times in seen {
                for (operation, ms) in times.iter() {
                    let is_in_it =
                        !matches!(operation, Operation::Convolutions | Operation::Pooling | Operation::Other);
                    assert!(ms >= 0.0 && (operation == Operation::Other || (ms > 0.0) == is_in_it), "{times:?}");
                }
            }
        }
    }
}
