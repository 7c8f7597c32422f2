//! Plans against sums by hand, refusals, and remedies that keep their word.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::layers::example;
use super::planner::Case;
use super::scratch::Scratch;
use super::{MemoryPlan, MemorySettings, Place, PlanInput, PlanKind, format_bytes, plan, plan_beside_gpu};
use crate::models::ops::{Kept, Precision};
use crate::models::{DataShape, ModelPreset, Network};
use crate::optim::{OptimizerConfig, OptimizerKind, Schedule, StatePlace, StatePrecision};

const DIGITS: DataShape = DataShape::Images { channels: 1, height: 28, width: 28, num_classes: 10 };
const PHOTOS: DataShape = DataShape::Images { channels: 3, height: 32, width: 32, num_classes: 10 };
const CHARACTERS: DataShape = DataShape::Text { vocab_size: 65 };
const COSINE: Schedule = Schedule::Cosine { warmup_fraction: 0.05, final_fraction: 0.0 };
const EMA: Schedule = Schedule::ConstantEma { warmup_fraction: 0.05, ema_decay: 0.99 };
const GIB: u64 = 1 << 30;

fn optimizer(kind: OptimizerKind) -> OptimizerConfig {
    OptimizerConfig {
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
    }
}

fn planned(
    preset: ModelPreset,
    data: DataShape,
    budget_bytes: u64,
    vary: impl FnOnce(&mut PlanInput<'_>),
) -> MemoryPlan {
    planned_by(OptimizerKind::AdamW, preset, data, budget_bytes, vary)
}

fn planned_by(
    kind: OptimizerKind,
    preset: ModelPreset,
    data: DataShape,
    budget_bytes: u64,
    vary: impl FnOnce(&mut PlanInput<'_>),
) -> MemoryPlan {
    planned_for(&Network::new(&preset.config(data).unwrap()).unwrap(), kind, budget_bytes, vary)
}

fn planned_for(
    network: &Network,
    kind: OptimizerKind,
    budget_bytes: u64,
    vary: impl FnOnce(&mut PlanInput<'_>),
) -> MemoryPlan {
    planned_with(network, &optimizer(kind), budget_bytes, vary)
}

fn planned_with(
    network: &Network,
    optimizer: &OptimizerConfig,
    budget_bytes: u64,
    vary: impl FnOnce(&mut PlanInput<'_>),
) -> MemoryPlan {
    let mut input = PlanInput {
        place: Place::Processor,
        network,
        optimizer,
        schedule: &COSINE,
        predict: false,
        qat: false,
        has_teacher: false,
        precision: Precision::F32,
        batch_size: 64,
        num_micro_batches: 1,
        sequence_length: 256,
        num_threads: 2,
        dataset_bytes: 0,
        budget_bytes,
        budget_source: "a test".to_owned(),
        beside_budget_bytes: u64::MAX,
    };
    vary(&mut input);
    plan(&input)
}

fn bytes(plan: &MemoryPlan, kind: PlanKind) -> u64 {
    plan.items.iter().filter(|item| item.kind == kind).map(|item| item.bytes).sum()
}

#[test]
fn an_mlp_is_the_sum_by_hand() {
    let plan = planned(ModelPreset::Mlp, DIGITS, GIB, |_| {});
    let params = 784 * 256 + 256 + 256 * 128 + 128 + 1280 + 10;
    assert_eq!(bytes(&plan, PlanKind::Weights), 4 * params);
    assert_eq!(bytes(&plan, PlanKind::Optimizer), 8 * params);
    assert_eq!(bytes(&plan, PlanKind::Gradients), 4 * (params + 2 * 784 * 256));
    assert_eq!(bytes(&plan, PlanKind::RollbackSnapshot), 12 * params);
    let (input, kept, back) = (784 + 1, 3 * (256 + 128) + 2 * 10, 2 * 256 + 3 * 784);
    assert_eq!(bytes(&plan, PlanKind::Activations), 4 * 64 * (input + kept + back));
    assert_eq!(bytes(&plan, PlanKind::Logits), 12 * 64 * 10);
    assert_eq!(bytes(&plan, PlanKind::Evaluation), 0, "a step takes more");
    // Cut into single images, the whole batch is still there.
    let one_by_one = planned(ModelPreset::Mlp, DIGITS, GIB, |input| input.num_micro_batches = 64);
    assert_eq!(bytes(&one_by_one, PlanKind::Activations), 4 * (64 * input + kept + back));
    assert!(plan.fits() && plan.remedies.is_empty());
    assert!(plan.items.is_sorted_by(|a, b| a.bytes >= b.bytes), "largest first");
    let weights = plan.items.iter().find(|item| item.kind == PlanKind::Weights).unwrap();
    assert_eq!(weights.how, "235,146 parameters x 4 bytes");
}

#[test]
fn what_is_switched_on_is_counted() {
    let plain = planned(ModelPreset::MnistCnn, DIGITS, GIB, |_| {});
    let weights = bytes(&plain, PlanKind::Weights);
    let averaged = planned(ModelPreset::MnistCnn, DIGITS, GIB, |input| input.schedule = &EMA);
    assert_eq!(bytes(&averaged, PlanKind::WeightAverage), weights);
    assert_eq!(bytes(&averaged, PlanKind::RollbackSnapshot), bytes(&plain, PlanKind::RollbackSnapshot) + weights);
    let predicting = planned(ModelPreset::MnistCnn, DIGITS, GIB, |input| input.predict = true);
    assert_eq!(bytes(&predicting, PlanKind::Gradients), bytes(&plain, PlanKind::Gradients) + weights);
    let aware = planned(ModelPreset::MnistCnn, DIGITS, GIB, |input| input.qat = true);
    assert_eq!(bytes(&aware, PlanKind::QuantizedWeights), weights);
    assert_eq!(aware.total_bytes(), plain.total_bytes() + weights, "one copy, as long as a step is the peak");
    let taught = planned(ModelPreset::MnistCnn, DIGITS, GIB, |input| (input.qat, input.has_teacher) = (true, true));
    assert_eq!(bytes(&taught, PlanKind::QuantizedWeights), 2 * weights);
    assert_eq!(bytes(&taught, PlanKind::Logits), 5 * bytes(&plain, PlanKind::Logits));
    let activations = |num_micro_batches| {
        let plan = planned(ModelPreset::MnistCnn, DIGITS, GIB, |input| input.num_micro_batches = num_micro_batches);
        bytes(&plan, PlanKind::Activations)
    };
    assert_eq!(activations(1) - activations(2), 2 * (activations(2) - activations(4)));
    let with_threads = |num_threads| {
        let plan = planned(ModelPreset::MnistCnn, DIGITS, GIB, |input| input.num_threads = num_threads);
        bytes(&plan, PlanKind::Activations)
    };
    // Three buffers of 192K numbers for each thread.
    assert_eq!(with_threads(3) - with_threads(1), 4 * 2 * 3 * 192 * 1024);
    let num_cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(with_threads(0), with_threads(num_cores), "0 means all cores");
    let muon = planned_by(OptimizerKind::Muon, ModelPreset::MnistCnn, DIGITS, GIB, |_| {});
    assert!(bytes(&muon, PlanKind::RollbackSnapshot) < bytes(&plain, PlanKind::RollbackSnapshot));
    let data = planned(ModelPreset::MnistCnn, DIGITS, GIB, |input| input.dataset_bytes = 12345);
    assert_eq!(bytes(&data, PlanKind::Dataset), 12345);
}

#[test]
fn running_statistics_are_weights_without_gradients() {
    let plan = planned(ModelPreset::ResNet20, PHOTOS, GIB, |_| {});
    let network = Network::new(&ModelPreset::ResNet20.config(PHOTOS).unwrap()).unwrap();
    let all: usize = network.specs().iter().map(|spec| spec.num_elements()).sum();
    assert!(all > network.num_params());
    assert_eq!(bytes(&plan, PlanKind::Weights), 4 * all as u64);
    assert_eq!(bytes(&plan, PlanKind::Optimizer), 8 * network.num_params() as u64);
    let averaged = planned(ModelPreset::ResNet20, PHOTOS, GIB, |input| input.schedule = &EMA);
    assert_eq!(bytes(&averaged, PlanKind::WeightAverage), 4 * all as u64, "averaged like the weights");
}

#[test]
fn saving_comes_on_top_of_what_operations_keep_for_later() {
    let plan = planned(ModelPreset::Gpt2Char, CHARACTERS, GIB, |input| {
        (input.batch_size, input.sequence_length, input.schedule) = (1, 32, &EMA);
    });
    let step: u64 =
        [PlanKind::Gradients, PlanKind::Activations, PlanKind::Logits].map(|kind| bytes(&plan, kind)).iter().sum();
    let (state, average) = (bytes(&plan, PlanKind::RollbackSnapshot), bytes(&plan, PlanKind::WeightAverage));
    let config = ModelPreset::Gpt2Char.config(CHARACTERS).unwrap();
    let logits = bytes(&plan, PlanKind::Logits);
    assert_eq!(logits, 4 * 32 * 65);
    let shelved = logits + 4 * example(&config, Kept::Activations, 32).scratch.shelved(1, 2);
    assert!(shelved > logits && state > step);
    assert_eq!(bytes(&plan, PlanKind::Runtime), (48 << 20) + state + average + shelved - step);
}

#[test]
fn packed_weights_are_there_where_sequences_share_them() {
    let plan = |precision, batch_size| {
        let vary = |input: &mut PlanInput<'_>| {
            (input.precision, input.batch_size, input.num_threads) = (precision, batch_size, 4);
        };
        let text = DataShape::Text { vocab_size: 65 };
        bytes(&planned(ModelPreset::Gpt2Char, text, 64 * GIB, vary), PlanKind::Activations)
    };
    let bytes = |precision, batch_size| plan(precision, batch_size) as i64;
    let more = |batch_size| bytes(Precision::Bf16, batch_size) - bytes(Precision::F32, batch_size);
    let config = ModelPreset::Gpt2Char.config(DataShape::Text { vocab_size: 65 }).unwrap();
    let Scratch::Sequences(layer) = example(&config, Kept::Activations, 256).scratch else {
        panic!("a language model")
    };
    // Two bytes a weight in bf16, and six in f32 where it is multiplied by parts; a thread that reads them once packs them
    // block by block.
    let packed = (2 - Precision::F32.packed_bytes() as i64) * layer.weights as i64;
    assert_eq!([more(1), more(7), more(8), more(64)], [0, 0, packed, packed]);
}

#[test]
fn an_evaluation_counts_where_it_takes_more_than_a_step() {
    let network = Network::new(&ModelPreset::MnistCnn.config(DIGITS).unwrap()).unwrap();
    let case = Case::of(&PlanInput {
        place: Place::Processor,
        network: &network,
        optimizer: &optimizer(OptimizerKind::AdamW),
        schedule: &COSINE,
        predict: false,
        qat: false,
        has_teacher: false,
        precision: Precision::F32,
        batch_size: 64,
        num_micro_batches: 2,
        sequence_length: 0,
        num_threads: 2,
        dataset_bytes: 0,
        budget_bytes: GIB,
        budget_source: "a test".to_owned(),
        beside_budget_bytes: u64::MAX,
    });
    let example = example(network.config(), Kept::Activations, 0);
    // The second convolution: what goes in, what comes out, the pooling's codes.
    let layer = 16 * 14 * 14 + 32 * 7 * 7 + 32 * 7 * 7 / 4;
    let needed = 1000 + 4 * 32 * (28 * 28 + 1 + 10 + layer);
    let item = case.evaluation(&example, 1000, 100);
    assert_eq!((item.kind, item.bytes), (PlanKind::Evaluation, needed - 100));
    assert!(item.how.contains(&format_bytes(needed)) && item.how.contains("32 examples"), "{}", item.how);
    assert_eq!(case.evaluation(&example, 1000, needed).bytes, 0);
}

/// The first number of a remedy after `before`.
fn number_after(text: &str, before: &str) -> usize {
    let tail = text.split(before).nth(1).unwrap_or_else(|| panic!("{before:?} is not in {text:?}"));
    let digits: String = tail.chars().take_while(|c| c.is_ascii_digit() || *c == ',').collect();
    digits.replace(',', "").parse().unwrap()
}

#[test]
fn remedies_fit_when_tried() {
    let budget = 700 << 20;
    let plan = planned(ModelPreset::ResNet18, PHOTOS, budget, |input| input.batch_size = 512);
    assert!(!plan.fits());
    let parts = number_after(&plan.remedies[0].what, "(");
    let tried = planned(ModelPreset::ResNet18, PHOTOS, budget, |input| {
        (input.batch_size, input.num_micro_batches) = (512, parts);
    });
    assert!(tried.fits(), "{:?}", plan.remedies);
    assert!(plan.remedies[0].what.contains(&format_bytes(tried.total_bytes())), "{:?}", plan.remedies);
    let coarser = planned(ModelPreset::ResNet18, PHOTOS, budget, |input| {
        (input.batch_size, input.num_micro_batches) = (512, parts / 2);
    });
    assert!(!coarser.fits(), "fewer parts would have done: {:?}", plan.remedies);
    let batch = plan.remedies.iter().find(|remedy| remedy.what.starts_with("batches of")).unwrap();
    let batch = number_after(&batch.what, "batches of ");
    assert!(planned(ModelPreset::ResNet18, PHOTOS, budget, |input| input.batch_size = batch).fits());
    assert!(plan.remedies.iter().any(|remedy| remedy.what.contains("resnet-20")), "{:?}", plan.remedies);
    assert!(plan.remedies.last().unwrap().what.contains(&format_bytes(plan.total_bytes())));
}

#[test]
fn checkpointing_is_proposed_where_micro_batches_are_not_enough() {
    let config = ModelPreset::Gpt2_11M.config(CHARACTERS).unwrap();
    let tried = |kept: Kept, num_micro_batches: usize, budget_bytes: u64| {
        let network = Network::keeping(&config, kept).unwrap();
        planned_for(&network, OptimizerKind::AdamW, budget_bytes, |input| {
            (input.batch_size, input.num_micro_batches) = (8, num_micro_batches);
        })
    };
    let proposes =
        |plan: &MemoryPlan| plan.remedies.iter().find(|remedy| remedy.what.contains("checkpointing")).cloned();
    let (single, recomputed) = (tried(Kept::Activations, 8, GIB), tried(Kept::Input, 8, GIB));
    assert!(recomputed.total_bytes() < single.total_bytes());
    // Single sequences fit: the milder way.
    assert_eq!(proposes(&tried(Kept::Activations, 1, single.total_bytes())), None);
    let tight = tried(Kept::Activations, 1, single.total_bytes() - 1);
    let proposed = proposes(&tight).unwrap_or_else(|| panic!("{:?}", tight.remedies));
    let size = number_after(&proposed.what, "micro-batches of ");
    let fitting = tried(Kept::Input, 8 / size, single.total_bytes() - 1);
    assert!(fitting.fits() && proposed.what.contains(&format_bytes(fitting.total_bytes())), "{proposed}");
}

#[test]
fn settings_that_are_proposed_fit_when_taken() {
    let config = ModelPreset::Gpt2_11M.config(CHARACTERS).unwrap();
    let plan_with = |settings: MemorySettings, budget_bytes: u64| {
        let network = Network::keeping(&config, settings.kept).unwrap();
        let optimizer = OptimizerConfig { states: settings.states, ..optimizer(OptimizerKind::AdamW) };
        planned_with(&network, &optimizer, budget_bytes, |input| {
            (input.batch_size, input.num_micro_batches) = (8, settings.num_micro_batches);
        })
    };
    let plain = PLAIN;
    let least = MemorySettings { num_micro_batches: 8, kept: Kept::Input, ..plain };
    let coded = MemorySettings { states: StatePrecision::EightBit, ..least };
    let bytes = |settings| plan_with(settings, GIB).total_bytes();
    assert!(bytes(coded) < bytes(least) && bytes(least) < bytes(plain));
    let proposed = |budget: u64| plan_with(plain, budget).remedies.first().and_then(|remedy| remedy.settings);
    // From what fits as it is, down to what no setting reaches.
    let mut seen = Vec::new();
    for budget in (bytes(coded)..bytes(plain)).step_by(1 << 20) {
        let settings = proposed(budget).unwrap_or_else(|| panic!("nothing for {budget}"));
        assert!(plan_with(settings, budget).fits(), "{settings:?} for {budget}");
        seen.push((settings.kept, settings.states));
    }
    seen.dedup();
    let (again, eight_bits) = (Kept::Input, StatePrecision::EightBit);
    let mildest_last = [(again, eight_bits), (again, StatePrecision::F32), (Kept::Activations, StatePrecision::F32)];
    assert!(seen.ends_with(&mildest_last[1..]) && seen.contains(&mildest_last[0]), "{seen:?}");
    assert_eq!(proposed(bytes(coded) - 1), None);
    let told = plan_with(plain, bytes(coded)).remedies[0].to_string();
    assert!(told.contains("8-bit optimizer states") && told.contains("rounded"), "{told}");
}

#[test]
fn parts_of_a_batch_are_equal() {
    let total = |batch_size, num_micro_batches| {
        let plan = planned(ModelPreset::Gpt2Char, CHARACTERS, GIB, |input| {
            (input.batch_size, input.num_micro_batches) = (batch_size, num_micro_batches);
        });
        plan.total_bytes()
    };
    // A run takes 100 sequences in 5 parts but not in 8.
    for parts in [2, 4, 5, 10, 20, 25, 50, 100] {
        let budget = total(100, parts);
        let plan = planned(ModelPreset::Gpt2Char, CHARACTERS, budget, |input| input.batch_size = 100);
        assert_eq!(number_after(&plan.remedies[0].what, "("), parts, "{:?}", plan.remedies);
        assert!(plan.remedies[0].what.contains("the same result"), "{:?}", plan.remedies);
    }
    // Half of it cannot be cut into 4 parts: 2 are named.
    let budget = total(50, 2);
    let plan = planned(ModelPreset::Gpt2Char, CHARACTERS, budget, |input| {
        (input.batch_size, input.num_micro_batches) = (100, 4);
    });
    assert!(
        plan.remedies.iter().any(|remedy| remedy.what.starts_with("batches of 50 in 2 parts")),
        "{:?}",
        plan.remedies
    );
}

#[test]
fn batch_norm_is_not_starved() {
    let with_parts = |budget: u64, num_micro_batches: usize| {
        planned(ModelPreset::ResNet20, PHOTOS, budget, |input| {
            (input.batch_size, input.num_micro_batches) = (64, num_micro_batches);
        })
    };
    let budget = with_parts(GIB, 4).total_bytes();
    let offered = with_parts(budget, 1).remedies;
    assert!(offered[0].what.starts_with("micro-batches of 16 (4 parts)"), "{offered:?}");
    assert!(offered[0].what.contains("batch norm") && !offered[0].what.contains("the same result"), "{offered:?}");
    let budget = with_parts(GIB, 8).total_bytes();
    let offered = with_parts(budget, 1).remedies;
    assert!(!offered.iter().any(|remedy| remedy.what.starts_with("micro-batches")), "{offered:?}");
}

#[test]
fn a_hopeless_budget_still_gets_an_answer() {
    let plan = planned(ModelPreset::Mlp, DIGITS, 1024, |_| {});
    let [thrifty, as_it_is] = plan.remedies.as_slice() else { panic!("{:?}", plan.remedies) };
    assert!(
        thrifty.what.contains("micro-batches of 1 (64 parts), 8-bit optimizer states") && thrifty.settings.is_none()
    );
    assert!([thrifty, as_it_is].iter().all(|remedy| remedy.what.starts_with("a memory budget of")));
}

#[test]
fn absurd_batches_do_not_overflow() {
    let plan = planned(ModelPreset::MnistCnn, DIGITS, GIB, |input| {
        (input.batch_size, input.dataset_bytes) = (usize::MAX, u64::MAX);
    });
    assert_eq!(plan.total_bytes(), u64::MAX);
    assert!(!plan.fits());
    let nothing = planned(ModelPreset::MnistCnn, DIGITS, GIB, |input| {
        (input.batch_size, input.num_micro_batches) = (0, 0);
    });
    assert!(nothing.fits());
}

#[test]
fn seven_billion_parameters_are_refused_by_numbers() {
    let text = DataShape::Text { vocab_size: 32_000 };
    let budget = 24 * GIB / 5 * 4;
    let plan = planned(ModelPreset::Llama7B, text, budget, |input| input.batch_size = 8);
    assert!(!plan.fits());
    // 6,738,415,616 parameters: the published size of Llama 2 7B. Weights, gradients, two moments, and copies.
    assert_eq!(bytes(&plan, PlanKind::Weights), 4 * 6_738_415_616);
    assert!(plan.total_bytes() > 7 * 4 * 6_738_415_616);
    assert!(plan.remedies.iter().any(|remedy| remedy.what.starts_with("a smaller model: llama-110m")), "{plan:?}");
    assert!(
        !plan.remedies.iter().any(|remedy| remedy.what.starts_with("micro-batches")),
        "nothing else fits: {plan:?}"
    );
}

#[test]
fn language_models_that_train_on_a_desktop_fit_it() {
    let bpe = DataShape::Text { vocab_size: 50_257 };
    let budget = 24 * GIB / 5 * 4;
    for preset in [ModelPreset::Gpt2Char, ModelPreset::Gpt2_11M, ModelPreset::Gpt2_124M, ModelPreset::Llama110M] {
        let plan = planned(preset, bpe, budget, |input| input.batch_size = 8);
        assert!(plan.fits(), "{preset:?}: {plan:?}");
    }
    let plan = planned(ModelPreset::Gpt2_124M, bpe, 6 * GIB, |input| {
        (input.batch_size, input.sequence_length) = (32, 1024);
    });
    assert!(plan.remedies[0].what.starts_with("micro-batches of "), "{:?}", plan.remedies);
}

/// A recipe on a GPU whose machine has `beside` bytes for it.
fn on_gpu(settings: MemorySettings, (gpu_bytes, beside): (u64, u64)) -> [MemoryPlan; 2] {
    let config = ModelPreset::Gpt2_11M.config(CHARACTERS).unwrap();
    let network = Network::keeping(&config, settings.kept).unwrap();
    let MemorySettings { num_micro_batches, states, state_place, .. } = settings;
    let optimizer = OptimizerConfig { states, state_place, ..optimizer(OptimizerKind::AdamW) };
    let mut plans = Vec::new();
    let plan = planned_with(&network, &optimizer, gpu_bytes, |input| {
        (input.place, input.batch_size, input.num_micro_batches) = (Place::Gpu, 8, num_micro_batches);
        (input.beside_budget_bytes, input.dataset_bytes) = (beside, 12_345);
        plans.push(plan_beside_gpu(input, (beside, "a test".to_owned())));
    });
    plans.insert(0, plan);
    plans.try_into().unwrap()
}

const PLAIN: MemorySettings = MemorySettings {
    num_micro_batches: 1,
    kept: Kept::Activations,
    states: StatePrecision::F32,
    state_place: StatePlace::WithWeights,
};

#[test]
fn states_in_host_memory_are_counted_there() {
    let offloaded = MemorySettings { state_place: StatePlace::HostMemory, ..PLAIN };
    let ample = (1 << 50, 1 << 50);
    let ([gpu, beside], [gpu_offloaded, beside_offloaded]) = (on_gpu(PLAIN, ample), on_gpu(offloaded, ample));
    let config = ModelPreset::Gpt2_11M.config(CHARACTERS).unwrap();
    let specs = Network::new(&config).unwrap().specs();
    let params: u64 = specs.iter().map(|spec| spec.num_elements() as u64).sum();
    let largest = specs.iter().map(|spec| spec.num_elements() as u64).max().unwrap();
    assert_eq!(bytes(&gpu, PlanKind::Optimizer), 8 * params);
    assert_eq!(bytes(&gpu_offloaded, PlanKind::Optimizer), 4 * largest);
    assert_eq!(gpu.total_bytes() - gpu_offloaded.total_bytes(), 8 * params - 4 * largest, "and nothing else");
    assert_eq!(bytes(&beside, PlanKind::Optimizer), 0);
    assert_eq!(bytes(&beside_offloaded, PlanKind::Optimizer), 8 * params + 8 * largest);
    // What a recovery goes back to is there either way, and a copy of it while another is made.
    for (gpu, beside) in [(&gpu, &beside), (&gpu_offloaded, &beside_offloaded)] {
        assert_eq!(bytes(gpu, PlanKind::RollbackSnapshot), 0);
        assert_eq!(bytes(beside, PlanKind::RollbackSnapshot), 12 * params);
        assert_eq!(bytes(beside, PlanKind::Runtime), (48 << 20) + (512 << 20) + 12 * params);
        assert_eq!(bytes(beside, PlanKind::Dataset), 12_345);
    }
    let coded = MemorySettings { states: StatePrecision::EightBit, ..offloaded };
    let [_, beside_coded] = on_gpu(coded, ample);
    assert!(bytes(&beside_coded, PlanKind::Optimizer) < bytes(&beside_offloaded, PlanKind::Optimizer) / 2);
}

/// A table of 50,257 rows is moved in more room than a short sequence's graph took.
#[test]
fn adamw_moves_the_largest_tensor_in_room_of_its_own_on_a_gpu() {
    let words = DataShape::Text { vocab_size: 50_257 };
    let network = Network::new(&ModelPreset::Gpt2_124M.config(words).unwrap()).unwrap();
    let planned = |state_place, sequence_length| {
        let optimizer = OptimizerConfig { state_place, ..optimizer(OptimizerKind::AdamW) };
        planned_with(&network, &optimizer, 1 << 50, |input| {
            (input.place, input.batch_size, input.sequence_length) = (Place::Gpu, 1, sequence_length);
        })
    };
    let (state, largest) = (optimizer(OptimizerKind::AdamW).state_bytes(&network.specs()), 50_257 * 768);
    let (short, long) = (planned(StatePlace::WithWeights, 16), planned(StatePlace::WithWeights, 1024));
    let graph = bytes(&short, PlanKind::Activations) + bytes(&short, PlanKind::Logits);
    // Two of the five were there while gradients were added up.
    assert_eq!(bytes(&short, PlanKind::Optimizer), state + 3 * 4 * largest - graph);
    assert_eq!(bytes(&long, PlanKind::Optimizer), state, "the graph took more");
    assert_eq!(bytes(&planned(StatePlace::HostMemory, 16), PlanKind::Optimizer), 4 * largest);
}

#[test]
fn muon_orthogonalizes_on_the_gpu_with_its_momentum_elsewhere() {
    let network = Network::new(&ModelPreset::Gpt2_11M.config(CHARACTERS).unwrap()).unwrap();
    let muon = optimizer(OptimizerKind::Muon);
    let planned = |state_place, (batch_size, sequence_length): (usize, usize)| {
        let optimizer = OptimizerConfig { state_place, ..muon.clone() };
        planned_with(&network, &optimizer, GIB, |input| {
            (input.place, input.batch_size, input.sequence_length) = (Place::Gpu, batch_size, sequence_length);
        })
    };
    let specs = network.specs();
    let (state, one_by_one) = (muon.state_bytes(&specs), muon.workspace_bytes(&specs, 1));
    let largest = specs.iter().map(|spec| spec.num_elements() as u64).max().unwrap();
    let (few, many) = ((1, 1), (64, 256));
    for (place, kept) in [(StatePlace::WithWeights, state), (StatePlace::HostMemory, 4 * largest)] {
        let plan = planned(place, few);
        // Of a graph and of gradients that are added up.
        let given_back = bytes(&plan, PlanKind::Activations) + bytes(&plan, PlanKind::Logits) + 8 * largest;
        assert!(given_back < one_by_one);
        let workspace = match place {
            StatePlace::WithWeights => one_by_one.max(20 * largest),
            StatePlace::HostMemory => one_by_one,
        };
        assert_eq!(bytes(&plan, PlanKind::Optimizer), kept + workspace - given_back);
        assert_eq!(bytes(&planned(place, many), PlanKind::Optimizer), kept, "a graph took more");
    }
    assert!(one_by_one > 0 && one_by_one < muon.workspace_bytes(&specs, 2));
}

#[test]
fn a_gpu_s_settings_fit_when_taken_the_mildest_first() {
    let machine = 1 << 50;
    let proposed = |budget: (u64, u64)| on_gpu(PLAIN, budget)[0].remedies.first().and_then(|remedy| remedy.settings);
    let one_by_one = MemorySettings { num_micro_batches: 8, ..PLAIN };
    let offloaded = MemorySettings { state_place: StatePlace::HostMemory, ..PLAIN };
    let least = MemorySettings { state_place: StatePlace::HostMemory, ..one_by_one };
    let bytes = |settings| on_gpu(settings, (1 << 50, machine))[0].total_bytes();
    // Smaller parts of a batch are milder than states elsewhere; states elsewhere alone would do, too.
    assert!(bytes(offloaded) < bytes(PLAIN) && bytes(least) < bytes(one_by_one));
    let milder = proposed((bytes(one_by_one), machine)).unwrap();
    assert_eq!((milder.num_micro_batches, milder.state_place), (8, StatePlace::WithWeights));
    let next = (bytes(one_by_one) - 1, machine);
    let settings = proposed(next).unwrap();
    assert_eq!((settings.state_place, settings.states), (StatePlace::HostMemory, StatePrecision::F32));
    assert!(on_gpu(settings, next)[0].fits());
    let told = on_gpu(PLAIN, next)[0].remedies[0].to_string();
    assert!(told.contains("optimizer states in the machine's memory") && told.contains("12 bytes a weight"), "{told}");
    assert!(told.contains("not measured on a GPU") && !told.contains("threads"), "{told}");
    // The machine has no room for states of f32: 8 bits. For neither: nothing.
    let beside = |settings| on_gpu(settings, (1 << 50, machine))[1].total_bytes();
    let coded = MemorySettings { states: StatePrecision::EightBit, ..least };
    let narrow = (bytes(least), beside(least) - 1);
    assert_eq!(proposed(narrow), Some(MemorySettings { num_micro_batches: 8, ..coded }));
    let told = on_gpu(PLAIN, narrow)[0].remedies[0].to_string();
    assert!(told.contains("8-bit optimizer states") && told.contains("rounded"), "{told}");
    assert_eq!(proposed((bytes(least), beside(coded) - 1)), None);
}

#[test]
fn a_machine_without_room_beside_the_gpu_is_told_what_would_fit() {
    let offloaded = MemorySettings { state_place: StatePlace::HostMemory, ..PLAIN };
    let [gpu, beside] = on_gpu(offloaded, (1 << 50, 1 << 50));
    let tight = beside.total_bytes() - 1;
    // The GPU has no room either: 8 bits are left, which fit when taken.
    let [_, refused] = on_gpu(offloaded, (gpu.total_bytes(), tight));
    assert!(!refused.fits());
    let settings = refused.remedies[0].settings.unwrap();
    assert_eq!((settings.states, settings.state_place), (StatePrecision::EightBit, StatePlace::HostMemory));
    assert!(on_gpu(settings, (gpu.total_bytes(), tight)).iter().all(MemoryPlan::fits));
    // It has: back with the weights.
    let [_, refused] = on_gpu(offloaded, (1 << 50, tight));
    assert_eq!(refused.remedies[0].settings.unwrap().state_place, StatePlace::WithWeights);
    assert!(refused.remedies[0].to_string().contains("on the GPU"), "{}", refused.remedies[0]);
    let [_, hopeless] = on_gpu(PLAIN, (1 << 50, 1));
    let [as_it_is] = hopeless.remedies.as_slice() else { panic!("{:?}", hopeless.remedies) };
    assert!(as_it_is.settings.is_none() && as_it_is.what.contains("beside the GPU"), "{as_it_is}");
}
