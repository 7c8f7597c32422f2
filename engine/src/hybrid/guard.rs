//! The divergence guard: signals, their limits, and the verdict. One file, because a verdict weighs all signals together.
//!
//! | signal | what is measured | limit |
//! | --- | --- | --- |
//! | loss | standard deviations above its forecast | the tier's |
//! | relative error | loss over its forecast, less 1 | the tier's, in calibrated standard deviations; 0.5 at least |
//! | gradient norm | over its usual size | 10, and 6 of its own standard deviations; 1/1000 below |
//! | oscillation | changes that turned back, weighted by size | 0.6 |
//! | given back | share of the progress since the start | 0.5, and what noise explains |
//! | above its start | over the first loss | 2, 1 nat more, 1 nat above an untrained network, and what noise explains |
//! | NaN, infinity | in the loss, the gradient or the weights | |
//!
//! Single batches are noisy, so each signal is a median over the last steps (of the loss 7, of the
//! gradient norm 3): one odd batch is not a divergence, a run that has left its course is one within
//! a few steps. NaN and infinity are judged at once; in the weights, which the loss may not show, at each check.
//! Better than expected is never a divergence.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::exact;
use super::forecast::{Excess, push_within};
use super::report::{Divergence, DivergenceKind, GuardSignals};

/// Steps over which a loss must lie too high.
const LOSS_STEPS: usize = 7;

/// Of these the newest, which suffice for doubt.
const WARY_STEPS: usize = 3;

/// Steps over which a gradient norm must be out of bounds.
const GRAD_STEPS: usize = 3;

/// A loss within so much of its forecast is no divergence, however sure the forecast was: as its relative error.
const MIN_RELATIVE_LIMIT: f64 = 0.5;

/// Gradient norms that make the usual size, and the fewest that do.
const NORM_WINDOW: usize = 64;
const MIN_NORMS: usize = 16;

/// An explosion is at least this many times the usual norm …
const EXPLOSION_RATIO: f64 = 10.0;

/// … and this many standard deviations, for runs whose norms scatter widely (late in image training).
const EXPLOSION_SIGMA: f64 = 6.0;

/// Below this share of the usual norm nothing is learned any more.
const VANISHING_RATIO: f64 = 1e-3;

/// Steps judged for oscillation, and earlier ones they are compared with.
const SWING_STEPS: usize = 12;
const USUAL_SWINGS: usize = 48;
const MIN_USUAL_SWINGS: usize = 24;

/// Times the usual size at which swings count in full.
const SWING_RATIO: f64 = 4.0;

/// Noise alone stays below 0.46 in 160 healthy runs of up to 250 steps; swings of any size stay below 1.
const OSCILLATION_LIMIT: f64 = 0.6;

/// Losses whose median is a level, those whose median is the present one, and progress (in ln) from which it makes sense
/// to ask how much was lost again.
const LEVEL_STEPS: usize = 32;
const PRESENT_STEPS: usize = 15;
const MIN_PROGRESS: f64 = 0.4;

/// Share of its progress that a run may give back: beyond it, what was learned is being lost, however slowly.
const GIVEN_BACK_LIMIT: f64 = 0.5;

/// Times its first loss, and nats above it and above that of an untrained network, at which a run is worse off than untrained. A rate that is too high in the first
/// steps ruins a run before anything is usual for it; then this signal alone tells.
const ABOVE_START_RATIO: f64 = 2.0;
const ABOVE_START_NATS: f64 = 1.0;

/// What a step shows the guard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Observation {
    /// Mean loss of the batch.
    pub loss: f64,
    /// Standard deviations above what was expected, when something was.
    pub surprise: Option<f64>,
    /// The same in proportion.
    pub excess: Option<Excess>,
    /// Gradient norm; `None` when there was no backward pass.
    pub grad_norm: Option<f64>,
    /// True when the gradient is a sampled one: these are larger, and compared among themselves.
    pub is_sampled: bool,
    /// False when a weight was found to be NaN or infinite.
    pub has_finite_weights: bool,
}

/// Limits of the guard that a tier sets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Standard deviations above the forecast.
    pub divergence_sigma: f64,
    /// Steps between two checks.
    pub check_interval: u32,
    /// Loss of a network that says the same of all classes, nats; 0 where that is not known.
    pub untrained_loss: f64,
}

/// Remembers what is usual.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Guard {
    #[serde(with = "exact")]
    surprises: VecDeque<f64>,
    /// ln of the last losses over their forecasts, and the standard deviations that their intervals stand for.
    #[serde(default, with = "exact")]
    excesses: VecDeque<f64>,
    #[serde(default, with = "exact")]
    excess_sigmas: VecDeque<f64>,
    #[serde(with = "exact")]
    full_norms: VecDeque<f64>,
    #[serde(with = "exact")]
    sampled_norms: VecDeque<f64>,
    /// ln of the last norms over their usual size.
    #[serde(with = "exact")]
    norm_ratios: VecDeque<f64>,
    #[serde(with = "exact")]
    losses: VecDeque<f64>,
    #[serde(default)]
    progress: Option<Progress>,
    /// First loss, nats. States from before it was kept have none.
    #[serde(default, with = "exact")]
    start: Option<f64>,
    steps_unchecked: u32,
    signals: GuardSignals,
}

/// How far the loss has come; all in ln(nats).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Progress {
    /// Level of the first steps.
    #[serde(with = "exact")]
    first: f64,
    /// Lowest level since.
    #[serde(with = "exact")]
    lowest: f64,
    /// Scatter of single losses around it.
    #[serde(with = "exact")]
    scatter: f64,
}

impl Progress {
    /// Takes in the last losses (ln).
    fn after(now: Option<Self>, recent: &[f64]) -> Option<Self> {
        let level = median(recent.iter().copied()).filter(|_| recent.len() >= LEVEL_STEPS);
        let Some(level) = level else { return now };
        let scatter = 1.4826 * median(recent.iter().map(|ln_loss| (ln_loss - level).abs())).unwrap_or(0.0);
        match now {
            None => Some(Self { first: level, lowest: level, scatter }),
            Some(now) if level < now.lowest => Some(Self { lowest: level, scatter, ..now }),
            Some(now) => Some(now),
        }
    }

    /// Share of the progress that the last losses (ln) have given back, and its limit, wide enough for the scatter that
    /// was usual; `None` while there is little progress.
    fn given_back(&self, recent: &[f64], sigma: f64) -> Option<(f64, f64)> {
        let progress = self.first - self.lowest;
        let now =
            median(recent.iter().copied()).filter(|_| recent.len() >= PRESENT_STEPS && progress >= MIN_PROGRESS)?;
        Some(((now - self.lowest) / progress, GIVEN_BACK_LIMIT.max(1.5 * sigma * self.scatter / progress)))
    }
}

impl Guard {
    /// Takes in a step. At every `check_interval`th, and always for NaN and infinity, gives its verdict.
    pub(super) fn judge(&mut self, seen: &Observation, limits: &Limits) -> Option<Divergence> {
        if !seen.has_finite_weights {
            let kind = DivergenceKind::WeightsNotFinite;
            return Some(Divergence { kind, value: f32::NAN, limit: f32::MAX });
        }
        let not_finite = [Some(seen.loss), seen.grad_norm].into_iter().flatten().find(|value| !value.is_finite());
        if let Some(value) = not_finite {
            return Some(Divergence { kind: DivergenceKind::NotFinite, value: value as f32, limit: f32::MAX });
        }
        let explosion_limit = self.remember(seen);
        self.steps_unchecked += 1;
        if self.steps_unchecked < limits.check_interval {
            return None;
        }
        self.steps_unchecked = 0;
        self.check(explosion_limit, limits)
    }

    /// True when the next step ends with a check.
    pub(super) fn is_check_due(&self, limits: &Limits) -> bool {
        self.steps_unchecked + 1 >= limits.check_interval
    }

    /// True while the last losses lie as high as a divergence would, though too few of them for a verdict, or one far
    /// higher: what was learned from them is not to be gone back to.
    pub(super) fn is_wary(&self, limits: &Limits) -> bool {
        let newest = || self.surprises.iter().rev().copied();
        newest().next().is_some_and(|surprise| surprise > 2.0 * limits.divergence_sigma)
            || median(newest().take(WARY_STEPS)).is_some_and(|surprise| surprise > limits.divergence_sigma)
            || self.above_start(limits, 1).is_some_and(|(ratio, limit)| ratio > limit)
    }

    /// Signals of the last check.
    pub(super) fn signals(&self) -> GuardSignals {
        self.signals
    }

    /// Forgets the evidence that led to a verdict (what is usual stays): the answer to it gets time to work.
    pub(super) fn forgive(&mut self) {
        self.surprises.clear();
        self.excesses.clear();
        self.excess_sigmas.clear();
        self.norm_ratios.clear();
        let kept = self.losses.len().saturating_sub(SWING_STEPS);
        self.losses.truncate(kept);
        self.signals =
            GuardSignals { loss_z: None, grad_ratio: None, oscillation: None, relative_error: None, ..self.signals };
    }

    /// Stores the step; returns the explosion limit for norms of its kind.
    fn remember(&mut self, seen: &Observation) -> f64 {
        if let Some(surprise) = seen.surprise {
            push_within(&mut self.surprises, surprise, LOSS_STEPS);
        }
        if let Some(excess) = seen.excess {
            push_within(&mut self.excesses, excess.ln_ratio, LOSS_STEPS);
            push_within(&mut self.excess_sigmas, excess.sigma, LOSS_STEPS);
        }
        if self.losses.is_empty() && self.progress.is_none() {
            self.start.get_or_insert(seen.loss);
        }
        push_within(&mut self.losses, seen.loss, SWING_STEPS + USUAL_SWINGS);
        let norms = if seen.is_sampled { &mut self.sampled_norms } else { &mut self.full_norms };
        let usual = Usual::of(norms);
        if let Some(norm) = seen.grad_norm {
            // A norm of exactly 0 is as far below the usual as one can write down.
            let ln_norm = norm.max(f64::MIN_POSITIVE).ln();
            if let Some(usual) = &usual {
                push_within(&mut self.norm_ratios, ln_norm - usual.center, GRAD_STEPS);
            }
            // What is out of bounds does not become usual.
            let is_usual = usual.as_ref().is_none_or(|usual| (ln_norm - usual.center) < usual.explosion_limit().ln());
            if is_usual {
                push_within(norms, ln_norm, NORM_WINDOW);
            }
        }
        usual.map_or(EXPLOSION_RATIO, |usual| usual.explosion_limit())
    }

    fn check(&mut self, explosion_limit: f64, limits: &Limits) -> Option<Divergence> {
        let divergence_sigma = limits.divergence_sigma;
        let loss_z = full_median(&self.surprises, LOSS_STEPS);
        let relative_error = full_median(&self.excesses, LOSS_STEPS).map(f64::exp_m1);
        // As far in the tail of a calibrated forecast as the tier allows in that of the forecast's own.
        let excess_sigma = median(self.excess_sigmas.iter().copied()).unwrap_or(0.0);
        let relative_error_limit = (divergence_sigma * excess_sigma).min(60.0).exp_m1().max(MIN_RELATIVE_LIMIT);
        let grad_ratio = full_median(&self.norm_ratios, GRAD_STEPS).map(f64::exp);
        // As a loss falls, its swings shrink in nats but often grow in proportion; a rare hard batch is the other
        // way round. Only what swings wider than usual in both is out of control.
        let ln_losses: VecDeque<f64> = self.losses.iter().map(|loss| loss.max(1e-8).ln()).collect();
        let last = |count: usize| -> Vec<f64> { ln_losses.iter().rev().take(count).copied().collect() };
        let given_back = self.progress.and_then(|progress| progress.given_back(&last(PRESENT_STEPS), divergence_sigma));
        self.progress = Progress::after(self.progress, &last(LEVEL_STEPS));
        let above_start = self.above_start(limits, LOSS_STEPS);
        let oscillation = oscillation(&self.losses).zip(oscillation(&ln_losses)).map(|(a, b)| a.min(b));
        self.signals = GuardSignals {
            loss_z: loss_z.map(|z| z as f32),
            loss_z_limit: divergence_sigma as f32,
            grad_ratio: grad_ratio.map(|ratio| ratio as f32),
            grad_ratio_limit: explosion_limit as f32,
            oscillation: oscillation.map(|share| share as f32),
            oscillation_limit: OSCILLATION_LIMIT as f32,
            given_back: given_back.map(|(share, _)| share as f32),
            given_back_limit: given_back.map_or(GIVEN_BACK_LIMIT, |(_, limit)| limit) as f32,
            relative_error: relative_error.map(|error| error as f32),
            relative_error_limit: relative_error_limit as f32,
            above_start: above_start.map(|(ratio, _)| ratio as f32),
            above_start_limit: above_start.map_or(ABOVE_START_RATIO, |(_, limit)| limit) as f32,
        };
        let found = |kind, value: f64, limit: f64| Divergence { kind, value: value as f32, limit: limit as f32 };
        let above = |kind, value: Option<f64>, limit: f64| {
            value.filter(|&value| value > limit).map(|value| found(kind, value, limit))
        };
        above(DivergenceKind::LossSpike, loss_z, divergence_sigma)
            .or_else(|| above(DivergenceKind::RelativeError, relative_error, relative_error_limit))
            .or_else(|| above(DivergenceKind::GradientExplosion, grad_ratio, explosion_limit))
            .or_else(|| {
                let vanished = grad_ratio.filter(|&ratio| ratio < VANISHING_RATIO && !self.has_fallen());
                vanished.map(|ratio| found(DivergenceKind::GradientVanishing, ratio, VANISHING_RATIO))
            })
            .or_else(|| above(DivergenceKind::Oscillation, oscillation, OSCILLATION_LIMIT))
            .or_else(|| given_back.and_then(|(share, limit)| above(DivergenceKind::Regression, Some(share), limit)))
            .or_else(|| above_start.and_then(|(ratio, limit)| above(DivergenceKind::AboveStart, Some(ratio), limit)))
    }

    /// The last losses over the first one, and the limit, wide enough for their scatter: the first is a single one.
    fn above_start(&self, limits: &Limits, num_steps: usize) -> Option<(f64, f64)> {
        // Of a run that was begun before the first loss was kept, the level of its first steps.
        let start = self.start.or(self.progress.map(|progress| progress.first.exp())).filter(|start| *start > 0.0)?;
        let newest: VecDeque<f64> = self.losses.iter().rev().take(num_steps).copied().collect();
        let level = full_median(&newest, num_steps)?;
        let recent = || self.losses.iter().rev().take(LEVEL_STEPS).map(|loss| loss.max(1e-8).ln());
        let center = median(recent())?;
        let scatter = 1.4826 * median(recent().map(|ln_loss| (ln_loss - center).abs()))?;
        // A loss that explodes scatters, too: noise explains no more than a factor of 20.
        let by_noise = (1.5 * limits.divergence_sigma * scatter).min(3.0).exp();
        let worse_than_nothing = start.max(limits.untrained_loss) + ABOVE_START_NATS;
        Some((level / start, ABOVE_START_RATIO.max(worse_than_nothing / start).max(by_noise)))
    }

    /// True when the last losses lie below their forecast: a gradient that vanishes with them means a task
    /// learned, not a gradient lost.
    fn has_fallen(&self) -> bool {
        median(self.surprises.iter().rev().take(GRAD_STEPS).copied()).is_some_and(|surprise| surprise < -1.0)
    }
}

/// Usual size of ln(norm) and its scatter.
struct Usual {
    center: f64,
    scatter: f64,
}

impl Usual {
    fn of(ln_norms: &VecDeque<f64>) -> Option<Self> {
        if ln_norms.len() < MIN_NORMS {
            return None;
        }
        let center = median(ln_norms.iter().copied())?;
        let scatter = 1.4826 * median(ln_norms.iter().map(|ln| (ln - center).abs()))?;
        Some(Self { center, scatter })
    }

    fn explosion_limit(&self) -> f64 {
        EXPLOSION_RATIO.max((EXPLOSION_SIGMA * self.scatter).min(60.0).exp())
    }
}

/// Share of the last changes that turned back, weighted by size, and scaled down while swings are no larger than usual.
/// `None` until enough losses tell what is usual.
fn oscillation(losses: &VecDeque<f64>) -> Option<f64> {
    let changes: Vec<f64> = losses.iter().zip(losses.iter().skip(1)).map(|(a, b)| b - a).collect();
    if changes.len() < SWING_STEPS + MIN_USUAL_SWINGS {
        return None;
    }
    let (earlier, recent) = changes.split_at(changes.len() - SWING_STEPS);
    let mut sizes: Vec<f64> = earlier.iter().map(|change| change.abs()).collect();
    sizes.sort_unstable_by(f64::total_cmp);
    let mean = sizes.iter().sum::<f64>() / sizes.len() as f64;
    // A dozen batches, hard and easy in turn, swing by what one change in five does, and no more than that.
    let usual = sizes.get(sizes.len() * 4 / 5).copied().unwrap_or(mean).max(mean);
    if usual <= 0.0 {
        return Some(0.0);
    }
    // One odd batch makes two large changes; limiting their size keeps it from counting as swinging.
    let size = |change: f64| change.abs().min(SWING_RATIO * usual);
    let total: f64 = recent.iter().map(|&change| size(change)).sum();
    let turned: f64 = recent.windows(2).filter(|pair| pair[0] * pair[1] < 0.0).map(|pair| size(pair[1])).sum();
    if total <= 0.0 {
        return Some(0.0);
    }
    let swing = total / SWING_STEPS as f64;
    Some((turned / total) * (swing / (SWING_RATIO * usual)).min(1.0))
}

fn full_median(values: &VecDeque<f64>, needed: usize) -> Option<f64> {
    if values.len() < needed { None } else { median(values.iter().copied()) }
}

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { divergence_sigma: 2.2, check_interval: 1, untrained_loss: 0.0 };

    fn calm(step: u32) -> Observation {
        let wave = f64::from(step * 7 % 11) / 11.0 - 0.5;
        Observation {
            loss: 1.0 + 0.1 * wave,
            surprise: Some(wave),
            excess: Some(Excess { ln_ratio: 0.1 * wave, sigma: 0.1 }),
            grad_norm: Some(1.0 + wave),
            is_sampled: false,
            has_finite_weights: true,
        }
    }

    /// 80 calm steps, then `strange` ones: the first verdict and after how many strange steps it came.
    fn verdict(strange: impl Fn(u32) -> Observation, num_strange: u32) -> Option<(DivergenceKind, u32)> {
        let mut guard = Guard::default();
        for step in 0..80 {
            assert_eq!(guard.judge(&calm(step), &LIMITS), None, "calm step {step}");
        }
        (1..=num_strange).find_map(|count| guard.judge(&strange(count), &LIMITS).map(|found| (found.kind, count)))
    }

    #[test]
    fn nan_is_judged_at_once() {
        let nan = |step| Observation { loss: f64::NAN, ..calm(step) };
        assert_eq!(verdict(nan, 5), Some((DivergenceKind::NotFinite, 1)));
        let infinite = |step| Observation { grad_norm: Some(f64::INFINITY), ..calm(step) };
        assert_eq!(verdict(infinite, 5), Some((DivergenceKind::NotFinite, 1)));
        // A rectifier makes 0 of NaN: such a weight does not show in the loss.
        let hidden = |step| Observation { has_finite_weights: false, ..calm(step) };
        assert_eq!(verdict(hidden, 5), Some((DivergenceKind::WeightsNotFinite, 1)));
    }

    #[test]
    fn one_odd_batch_is_forgiven_a_new_level_is_not() {
        let spike = |step| if step == 1 { Observation { surprise: Some(40.0), ..calm(step) } } else { calm(step) };
        assert_eq!(verdict(spike, 30), None);
        let level = |step| Observation { surprise: Some(6.0), ..calm(step) };
        assert_eq!(verdict(level, 30), Some((DivergenceKind::LossSpike, 4)));
    }

    #[test]
    fn a_relative_error_beyond_what_calibrated_forecasts_allow_is_a_divergence() {
        // By its own wide deviation the forecast is not surprised; the calibrated one is narrower.
        let missed = |ln_ratio, sigma| {
            move |step| Observation { surprise: Some(1.0), excess: Some(Excess { ln_ratio, sigma }), ..calm(step) }
        };
        let found = Some((DivergenceKind::RelativeError, 4));
        assert_eq!(verdict(missed(0.6, 0.2), 30), found, "e^0.6 - 1 = 0.82 against e^(2.2 x 0.2) - 1 = 0.55");
        assert_eq!(verdict(missed(0.6, 0.3), 30), None, "against 0.93");
        assert_eq!(verdict(missed(0.3, 0.01), 30), None, "0.35 is below the least limit");
        assert_eq!(verdict(missed(-3.0, 0.01), 30), None, "better than forecast");
        let mut guard = Guard::default();
        let signals = |guard: &mut Guard, seen: &Observation| {
            guard.judge(seen, &LIMITS);
            (guard.signals().relative_error, guard.signals().relative_error_limit)
        };
        (1..LOSS_STEPS).for_each(|_| assert_eq!(signals(&mut guard, &missed(0.25, 0.3)(1)).0, None));
        let (error, limit) = signals(&mut guard, &missed(0.25, 0.3)(1));
        assert!(error.is_some_and(|error| (error - 0.2840).abs() < 1e-3) && (limit - 0.9348).abs() < 1e-3);
        guard.forgive();
        assert_eq!(guard.signals().relative_error, None);
    }

    #[test]
    fn high_losses_are_doubted_before_there_is_a_verdict() {
        let doubted_after = |surprises: &[f64]| {
            let mut guard = Guard::default();
            for step in 0..80 {
                guard.judge(&calm(step), &LIMITS);
            }
            assert!(!guard.is_wary(&LIMITS), "a calm run is trusted");
            let seen = |surprise| Observation { surprise: Some(surprise), ..calm(0) };
            surprises.iter().for_each(|&surprise| assert_eq!(guard.judge(&seen(surprise), &LIMITS), None));
            guard.is_wary(&LIMITS)
        };
        assert!(doubted_after(&[4.5]) && doubted_after(&[2.3, 2.3]));
        assert!(!doubted_after(&[2.3]) && !doubted_after(&[4.5, 0.0]) && !doubted_after(&[-9.0, -9.0]));
    }

    #[test]
    fn gradients_explode_and_vanish() {
        let explode = |step| Observation { grad_norm: Some(200.0), ..calm(step) };
        assert_eq!(verdict(explode, 30), Some((DivergenceKind::GradientExplosion, 2)));
        let vanish = |step| Observation { grad_norm: Some(1e-6), ..calm(step) };
        assert_eq!(verdict(vanish, 30), Some((DivergenceKind::GradientVanishing, 2)));
        let learned = |step| Observation { grad_norm: Some(1e-6), surprise: Some(-3.0), ..calm(step) };
        assert_eq!(verdict(learned, 30), None, "the loss fell as well: nothing is left to learn");
    }

    #[test]
    fn swings_without_falling() {
        let swing = |step: u32| {
            let loss = if step.is_multiple_of(2) { 3.0 } else { 0.4 };
            Observation { loss, surprise: Some(0.0), grad_norm: Some(1.0), ..calm(step) }
        };
        let found = verdict(swing, 30);
        assert!(matches!(found, Some((DivergenceKind::Oscillation, 6..=12))), "{found:?}");
    }

    /// Losses of a healthy run on digits whose batches 41 to 57 happen to be hard and easy in turn.
    const HEALTHY: [f64; 60] = [
        2.52, 2.55, 2.54, 2.58, 2.47, 2.57, 2.38, 2.54, 2.4, 2.4, 2.19, 2.23, 2.34, 2.1, 2.23, 2.11, 2.09, 2.1, 1.89,
        1.93, 2.06, 1.99, 1.94, 1.97, 1.89, 1.8, 1.8, 1.95, 2.0, 1.69, 1.74, 1.75, 1.73, 1.45, 1.53, 1.61, 1.46, 1.32,
        1.39, 1.37, 1.36, 1.45, 1.26, 1.46, 1.21, 1.41, 1.09, 1.65, 1.27, 1.39, 1.09, 1.45, 1.14, 1.31, 1.11, 1.39,
        1.42, 1.25, 1.27, 0.92,
    ];

    #[test]
    fn hard_and_easy_batches_in_turn_are_no_oscillation() {
        let mut guard = Guard::default();
        let swings = HEALTHY.iter().filter_map(|&loss| {
            let seen = Observation { loss, surprise: Some(0.0), ..calm(0) };
            assert_eq!(guard.judge(&seen, &LIMITS), None);
            guard.signals().oscillation
        });
        let most = swings.fold(0.0, f32::max);
        assert!((0.4..0.46).contains(&most), "{most}");
    }

    #[test]
    fn what_was_learned_must_not_be_lost_slowly_either() {
        let mut guard = Guard::default();
        // Falls from 2.3 to 0.1, then climbs so slowly that every loss is foreseen.
        let loss = |step: u32| {
            if step < 200 { 2.3 * (-0.0157 * f64::from(step)).exp() } else { 0.1 * 1.01_f64.powi(step as i32 - 200) }
        };
        let found = (0..600).find_map(|step| {
            let wave = 1.0 + 0.2 * f64::sin(f64::from(step) * 1.7);
            let seen = Observation { loss: loss(step) * wave, ..calm(step) };
            guard.judge(&seen, &LIMITS).map(|found| (step, found))
        });
        let (step, found) = found.expect("a climb to 5 nats is seen");
        assert_eq!(found.kind, DivergenceKind::Regression);
        assert!((0.3..0.8).contains(&loss(step)), "step {step}: {}", loss(step));
    }

    #[test]
    fn a_run_that_is_worse_off_than_untrained_is_no_usual_one() {
        // Nothing is known of it when the loss jumps, and it stays where it has jumped to.
        let unknown = Observation { surprise: None, excess: None, grad_norm: None, ..calm(0) };
        let found_with = |losses: &[f64], limits: Limits| {
            let mut guard = Guard::default();
            losses.iter().enumerate().find_map(|(step, &loss)| {
                guard.judge(&Observation { loss, ..unknown }, &limits).map(|found| (step, found.kind, found.limit))
            })
        };
        let found = |losses: &[f64]| found_with(losses, LIMITS);
        let jump = |first, then| [vec![first], vec![then; 20]].concat();
        assert_eq!(found(&jump(4.2, 38_000.0)), Some((6, DivergenceKind::AboveStart, 2.0)));
        assert_eq!(found(&jump(4.2, 8.0)), None, "an overshoot in the first steps, as with a full rate from the first");
        // Weights that know their task: what counts is what is lost in nats.
        assert_eq!(found(&jump(0.05, 0.9)), None);
        assert_eq!(found(&jump(0.05, 1.2)), Some((6, DivergenceKind::AboveStart, 21.0)));
        assert_eq!(found(&[vec![4.2], vec![9.0; 3], vec![4.0; 20]].concat()), None, "a spike that is over");
        // A first text that was easy is no reason to stop: nothing is worse off than a network that knows nothing.
        let of_vocabulary = Limits { untrained_loss: 10.0, ..LIMITS };
        assert_eq!(found_with(&jump(0.5, 3.0), LIMITS).map(|found| found.1), Some(DivergenceKind::AboveStart));
        assert_eq!(found_with(&jump(0.5, 3.0), of_vocabulary), None);
        assert!(found_with(&jump(0.5, 12.0), of_vocabulary).is_some());
        // What was learned by then is nothing to go back to, long before there is a verdict.
        let mut guard = Guard::default();
        guard.judge(&Observation { loss: 4.2, ..unknown }, &LIMITS);
        assert!(!guard.is_wary(&LIMITS));
        guard.judge(&Observation { loss: 240.0, ..unknown }, &LIMITS);
        assert!(guard.is_wary(&LIMITS));
        // Growing on and on is no noise.
        let growing: Vec<f64> = (0..12).map(|step| 4.2 * 3.0_f64.powi(step)).collect();
        assert!(matches!(found(&growing), Some((6..=9, DivergenceKind::AboveStart, _))), "{:?}", found(&growing));
        // A run that was begun before the first loss was kept has no other one.
        let mut old = Guard { losses: VecDeque::from([1.0]), ..Guard::default() };
        (0..20).for_each(|_| assert_eq!(old.judge(&Observation { loss: 9.0, ..unknown }, &LIMITS), None));
    }

    #[test]
    fn signals_are_absent_until_they_are_measured_and_after_an_answer() {
        let mut guard = Guard::default();
        let mut first = [None; 3];
        for step in 0..80 {
            guard.judge(&calm(step), &LIMITS);
            let signals = guard.signals();
            for (first, signal) in first.iter_mut().zip([signals.loss_z, signals.grad_ratio, signals.oscillation]) {
                *first = first.or(signal.map(|_| step + 1));
            }
        }
        let (losses, swings) = (LOSS_STEPS as u32, (SWING_STEPS + MIN_USUAL_SWINGS) as u32);
        assert_eq!(first, [Some(losses), Some((MIN_NORMS + GRAD_STEPS) as u32), Some(swings + 1)]);
        guard.forgive();
        let signals = guard.signals();
        assert_eq!((signals.loss_z, signals.grad_ratio, signals.oscillation), (None, None, None));
        assert!(signals.loss_z_limit > 0.0, "limits stay");
    }

    #[test]
    fn checks_come_at_their_interval() {
        let limits = Limits { check_interval: 3, ..LIMITS };
        let mut guard = Guard::default();
        let verdicts: Vec<bool> = (0..30)
            .map(|step| guard.judge(&Observation { surprise: Some(9.0), ..calm(step) }, &limits).is_some())
            .collect();
        let expected: Vec<bool> = (1..=30).map(|step| step % 3 == 0 && step >= LOSS_STEPS).collect();
        assert_eq!(verdicts, expected);
    }
}
