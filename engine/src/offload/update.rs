//! AdamW on a block as it lies in memory: moments are restored, moved and coded again group by group, weights are rounded
//! stochastically, all in place. Nothing of the block's size is made.

use half::bf16;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::Rng;
use rayon::prelude::*;

use super::layout::{Layout, Slot};
use super::state::{BlockState, Moment, Weights};
use crate::device::seed::{Stream, stream};
use crate::models::TensorKind;
use crate::models::ops::adamw::adamw;
use crate::models::ops::codes::GROUP;
use crate::optim::{AdamWNumbers, OptimizerConfig, adamw_coded_chunk, groups};

/// Groups per task at least: enough to hide the cost of handing it over.
const GROUPS_PER_TASK: usize = 8;

/// What is the same for all tensors of an update.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace<'a> {
    pub(super) optimizer: &'a OptimizerConfig,
    /// From 1.
    pub(super) step: u64,
    pub(super) lr_factor: f64,
    /// Gradients are multiplied with this first (clipping).
    pub(super) scale: f32,
    pub(super) seed: u64,
    /// Number of the block, so that no two round alike.
    pub(super) block: usize,
}

/// Moves the weights of a block by the gradient of each of its tensors, in their order, and counts the step.
/// A gradient that is shorter than its tensor moves only as much.
pub(super) fn update(state: &mut BlockState, layout: &Layout, gradients: &[&[f32]], pace: Pace<'_>) {
    let mut rest = Rest::of(state);
    for (number, (slot, gradient)) in layout.slots.iter().zip(gradients).enumerate() {
        let numbers = AdamWNumbers::of(pace.optimizer, pace.step, pace.lr_factor, slot.kind);
        let rounding = Rounding::of(pace, number);
        match rest.take(slot) {
            Part::Full { weights, m, v } => full((weights, gradient, m, v), numbers, pace.scale),
            Part::Compact { weights, m, v } => compact((weights, gradient, m, v), numbers, pace.scale, &rounding),
        }
    }
    state.step = pace.step;
}

/// What of a block has not been moved yet.
enum Rest<'a> {
    Full {
        weights: &'a mut [f32],
        m: &'a mut [f32],
        v: &'a mut [f32],
    },
    Compact {
        weights: &'a mut [bf16],
        m: Coded<'a>,
        v: Coded<'a>,
    },
    /// Parts of different precision, which no reader makes.
    Mixed,
}

/// Codes and scales.
struct Coded<'a> {
    codes: &'a mut [u8],
    scales: &'a mut [f32],
}

/// One tensor of a block.
enum Part<'a> {
    Full { weights: &'a mut [f32], m: &'a mut [f32], v: &'a mut [f32] },
    Compact { weights: &'a mut [bf16], m: Coded<'a>, v: Coded<'a> },
}

impl<'a> Rest<'a> {
    fn of(state: &'a mut BlockState) -> Self {
        match (&mut state.weights, &mut state.m, &mut state.v) {
            (Weights::Full(weights), Moment::Full(m), Moment::Full(v)) => Self::Full { weights, m, v },
            (Weights::Compact(weights), Moment::Compact(m, m_scales), Moment::Compact(v, v_scales)) => Self::Compact {
                weights,
                m: Coded { codes: m, scales: m_scales },
                v: Coded { codes: v, scales: v_scales },
            },
            _ => Self::Mixed,
        }
    }

    fn take(&mut self, slot: &Slot) -> Part<'a> {
        let (count, num_scales) = (slot.count, slot.count.div_ceil(GROUP));
        match self {
            Self::Full { weights, m, v } => {
                Part::Full { weights: take(weights, count), m: take(m, count), v: take(v, count) }
            }
            Self::Compact { weights, m, v } => Part::Compact {
                weights: take(weights, count),
                m: m.take(count, num_scales),
                v: v.take(count, num_scales),
            },
            Self::Mixed => Part::Full { weights: &mut [], m: &mut [], v: &mut [] },
        }
    }
}

impl<'a> Coded<'a> {
    fn take(&mut self, count: usize, num_scales: usize) -> Self {
        Coded { codes: take(&mut self.codes, count), scales: take(&mut self.scales, num_scales) }
    }
}

/// The first `count` of `rest`, which keeps what follows.
fn take<'a, T>(rest: &mut &'a mut [T], count: usize) -> &'a mut [T] {
    let all = std::mem::take(rest);
    let (head, tail) = all.split_at_mut(count.min(all.len()));
    *rest = tail;
    head
}

fn full((w, g, m, v): (&mut [f32], &[f32], &mut [f32], &mut [f32]), numbers: AdamWNumbers, scale: f32) {
    let moments = m.par_chunks_mut(GROUP).zip(v.par_chunks_mut(GROUP));
    let groups = w.par_chunks_mut(GROUP).zip(g.par_chunks(GROUP)).zip(moments).with_min_len(GROUPS_PER_TASK);
    groups.for_each(|((w, g), (m, v))| {
        if scale == 1.0 {
            return adamw(w, g, m, v, numbers.step());
        }
        let mut scaled = [0.0; GROUP];
        scaled.iter_mut().zip(g).for_each(|(scaled, g)| *scaled = g * scale);
        adamw(w, &scaled, m, v, numbers.step());
    });
}

fn compact(
    (w, g, m, v): (&mut [bf16], &[f32], Coded<'_>, Coded<'_>),
    numbers: AdamWNumbers,
    scale: f32,
    rounding: &Rounding,
) {
    let all = w
        .par_chunks_mut(GROUP)
        .zip(g.par_chunks(GROUP))
        .zip(groups(m.codes, m.scales).zip(groups(v.codes, v.scales)))
        .enumerate();
    all.with_min_len(GROUPS_PER_TASK).for_each(|(group, ((w, g), (m, v)))| {
        let mut room = [[0.0_f32; GROUP]; 2];
        let [weights, gradients] = room.each_mut().map(|numbers| &mut numbers[..w.len()]);
        weights.iter_mut().zip(w.iter()).for_each(|(weight, w)| *weight = w.to_f32());
        gradients.iter_mut().zip(g).for_each(|(gradient, g)| *gradient = g * scale);
        adamw_coded_chunk(weights, gradients, m, v, numbers);
        rounding.round(group, weights, w);
    });
}

/// Draws for one tensor in one step.
struct Rounding(ChaCha8Rng);

impl Rounding {
    fn of(pace: Pace<'_>, tensor: usize) -> Self {
        let mut key = stream(pace.seed, Stream::Rounding, pace.step);
        // A place in the step's stream for each block, tensor and group.
        key.set_stream(((pace.block as u64) << 32) | tensor as u64);
        Self(key)
    }

    /// Rounds up to [`GROUP`] finite numbers to one of their two neighbors in bf16, the nearer the likelier, so that the
    /// mean is the number itself. Source: Gupta et al. 2015, arXiv 1502.02551, section 3.1.
    fn round(&self, group: usize, numbers: &[f32], out: &mut [bf16]) {
        let mut rng = self.0.clone();
        // A group takes GROUP / 2 words of 32 bits.
        rng.set_word_pos((group * (GROUP / 2)) as u128);
        let mut random = [0_u8; 2 * GROUP];
        rng.fill_bytes(&mut random[..2 * numbers.len()]);
        for ((out, x), draw) in out.iter_mut().zip(numbers).zip(random.as_chunks::<2>().0) {
            let added = x.to_bits().wrapping_add(u32::from(u16::from_le_bytes(*draw)));
            *out = bf16::from_bits((added >> 16) as u16);
        }
    }
}

/// Kinds of tensors that AdamW moves; a network of language has no others.
pub(super) fn is_trained(kind: TensorKind) -> bool {
    match kind {
        TensorKind::Matrix | TensorKind::Embedding | TensorKind::Head | TensorKind::Vector => true,
        TensorKind::Buffer => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::layout::Precision;
    use super::*;
    use crate::optim::{OptimizerKind, StatePlace, StatePrecision};

    fn optimizer() -> OptimizerConfig {
        OptimizerConfig {
            kind: OptimizerKind::AdamW,
            learning_rate: 1e-3,
            adam_learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.95,
            epsilon: 1e-8,
            weight_decay: 0.1,
            momentum: 0.9,
            newton_schulz_steps: 5,
            clip_norm: None,
            states: StatePrecision::F32,
            state_place: StatePlace::WithWeights,
        }
    }

    fn layout(precision: Precision, counts: &[usize]) -> Layout {
        let slot = |(number, &count): (usize, &usize)| Slot {
            name: format!("t{number}"),
            shape: vec![count],
            kind: TensorKind::Matrix,
            count,
        };
        Layout { block: "b".to_owned(), slots: counts.iter().enumerate().map(slot).collect(), precision }
    }

    fn wave(count: usize, shift: f32) -> Vec<f32> {
        (0..count).map(|i| ((i as f32 + shift) * 0.37).sin() * (1.0 + (i % 7) as f32)).collect()
    }

    fn pace(optimizer: &OptimizerConfig, step: u64) -> Pace<'_> {
        Pace { optimizer, step, lr_factor: 1.0, scale: 1.0, seed: 3, block: 1 }
    }

    /// Weights after ten updates.
    fn trained(precision: Precision, counts: &[usize]) -> Vec<f32> {
        let (layout, optimizer) = (layout(precision, counts), optimizer());
        let mut state = BlockState::zeros(&layout);
        let all: usize = counts.iter().sum();
        state.weights.set(0, &wave(all, 0.0));
        for step in 1..=10 {
            let gradients: Vec<Vec<f32>> = counts.iter().map(|&count| wave(count, 0.1 * step as f32)).collect();
            let gradients: Vec<&[f32]> = gradients.iter().map(Vec::as_slice).collect();
            update(&mut state, &layout, &gradients, pace(&optimizer, step));
        }
        assert_eq!(state.step, 10);
        state.weights.numbers(0, all)
    }

    #[test]
    fn compact_weights_follow_full_ones() {
        let counts = [1, 5000, GROUP, 3];
        let (full, compact) = (trained(Precision::Full, &counts), trained(Precision::Compact, &counts));
        let start = wave(counts.iter().sum(), 0.0);
        let mut moved = 0.0;
        for ((full, compact), start) in full.iter().zip(&compact).zip(&start) {
            // A weight of up to 7 is rounded by up to 1/32 a step, and not in the same direction each time.
            assert!((full - compact).abs() < 0.15, "{full} {compact}");
            moved += f64::from((full - start).abs());
        }
        assert!(moved > 10.0, "{moved}");
        // What rounding does to single weights it does not do to their mean.
        let mean = |all: &[f32]| all.iter().map(|&x| f64::from(x)).sum::<f64>() / all.len() as f64;
        assert!((mean(&full) - mean(&compact)).abs() < 1e-3, "{} {}", mean(&full), mean(&compact));
    }

    #[test]
    fn threads_and_repetitions_change_no_bit() {
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| trained(Precision::Compact, &[70_000, 11]))
        };
        assert_eq!(on(1), on(3));
    }

    #[test]
    fn rounding_keeps_the_mean_and_numbers_that_need_none() {
        let optimizer = optimizer();
        let numbers = vec![1.002_f32; GROUP];
        let mut sum = 0.0;
        for step in 1..=200 {
            let mut out = vec![bf16::ZERO; GROUP];
            Rounding::of(pace(&optimizer, step), 0).round(0, &numbers, &mut out);
            sum += out.iter().map(|x| x.to_f64()).sum::<f64>() / GROUP as f64;
            assert!(out.iter().all(|x| [1.0, 1.007_812_5].contains(&x.to_f32())));
        }
        // 400K draws of a standard deviation of 0.0034.
        assert!((sum / 200.0 - 1.002).abs() < 5.0 * 0.0034 / 640.0, "{}", sum / 200.0);
        let exact = vec![-1.5_f32; 4];
        let mut out = vec![bf16::ZERO; 4];
        Rounding::of(pace(&optimizer, 1), 0).round(3, &exact, &mut out);
        assert!(out.iter().all(|x| x.to_f32() == -1.5));
    }

    #[test]
    fn groups_draw_numbers_of_their_own() {
        let optimizer = optimizer();
        let rounding = Rounding::of(pace(&optimizer, 1), 0);
        let numbers = vec![1.002_f32; GROUP];
        let of = |group: usize| {
            let mut out = vec![bf16::ZERO; GROUP];
            rounding.round(group, &numbers, &mut out);
            out
        };
        assert!(of(0) != of(1) && of(0) == of(0));
    }

    #[test]
    fn clipping_scales_the_gradient() {
        for precision in [Precision::Full, Precision::Compact] {
            let (layout, optimizer) = (layout(precision, &[100]), optimizer());
            let moved = |gradient: Vec<f32>, scale: f32| {
                let mut state = BlockState::zeros(&layout);
                update(&mut state, &layout, &[&gradient], Pace { scale, ..pace(&optimizer, 1) });
                state
            };
            let gradient = wave(100, 0.0);
            let halved = gradient.iter().map(|g| g * 0.5).collect();
            assert_eq!(moved(gradient, 0.5), moved(halved, 1.0));
        }
    }
}
