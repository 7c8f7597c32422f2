#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use candle_core::Device;

use super::super::literal;
use super::super::trial::{Exam, Trial};
use super::*;
use crate::device::{CancelFlag, Lanes};
use crate::hybrid::HybridEvent;
use crate::models::{DataShape, Network};
use crate::optim::Schedule;

/// A text of a few words, and a network of this many blocks for it.
fn ground(num_blocks: usize) -> Ground {
    let dataset = literal::text();
    let DataShape::Text { vocab_size } = dataset.shape() else { panic!("text") };
    let network = Arc::new(Network::new(&literal::gpt2(vocab_size, num_blocks)).unwrap());
    Ground { network, dataset, device: Device::Cpu, lanes: Arc::new(Lanes::new(1, 1).unwrap()) }
}

fn plan(ground: &Ground) -> GrowthPlan {
    literal::growth_plan(ground.network.config().clone())
}

fn watched<T>(work: impl FnOnce((Watch<'_>, OnRace<'_>)) -> T) -> T {
    let cancel = CancelFlag::default();
    work((Watch::new(&cancel, &|_| {}), &|_| {}))
}

/// Trains `contender` to its end.
fn trained(ground: &Ground, contender: &Contender) -> TrialResult {
    watched(|(watch, _)| {
        let mut trial = Trial::begin(contender, ground, 3, watch).unwrap();
        while !trial.is_done() {
            trial.advance(watch).unwrap();
        }
        trial.finish(Exam::VALIDATION, watch).unwrap()
    })
}

#[test]
fn until_it_grows_it_is_the_shallow_training_and_then_another() {
    let ground = ground(4);
    let plan = plan(&ground);
    let half = plan.half().unwrap();
    let begins = |grows| Some(Beginning { model: half.clone(), grows });
    let shallow = trained(&ground, &plan.contender("half", "", 40, begins(None)));
    let mut ends = Vec::new();
    for new_blocks in [NewBlocks::Copied, NewBlocks::Random] {
        for order in BlockOrder::ALL {
            let grows = Some((26, Growth { order, new_blocks }));
            let grown = trained(&ground, &plan.contender("grown", "", 40, begins(grows)));
            let losses = |result: &TrialResult| result.curve.iter().map(|point| point.loss).collect::<Vec<_>>();
            let (grown_losses, shallow_losses) = (losses(&grown), losses(&shallow));
            assert_eq!((grown_losses.len(), grown.num_steps), (40, 40));
            assert_eq!(grown_losses[..26], shallow_losses[..26]);
            assert_ne!(grown_losses[26], shallow_losses[26]);
            assert!(grown.validation.loss.is_finite() && !grown.has_diverged);
            // Costs count by depth, as operations do.
            let contender = plan.contender("grown", "", 40, begins(grows));
            let cost = plan.flops(&contender, 40) / plan.full_step_flops();
            assert!((grown.curve[39].cost / cost - 1.0).abs() < 1e-9, "{} and {cost}", grown.curve[39].cost);
            let growths: Vec<_> = grown.events.iter().filter(|(_, why)| why.contains("grew")).collect();
            assert_eq!(growths, [&(26, "grew from 2 to 4 blocks".to_owned())]);
            ends.push(grown.validation.loss.to_bits());
        }
    }
    ends.sort_unstable();
    ends.dedup();
    assert_eq!(ends.len(), 4, "orders and contents of new blocks make different networks");
}

#[test]
fn the_learning_rate_goes_on_and_a_recovery_goes_back_to_the_grown_network() {
    let ground = ground(2);
    let plan = plan(&ground);
    let shallow = Arc::new(Network::new(&plan.half().unwrap()).unwrap());
    let (mut trainer, batches) = plan.recipe.begin(&shallow, &ground.dataset, 3, Device::Cpu).unwrap();
    for step in 0..20 {
        trainer.step(&batches.train_batch(step).unwrap()).unwrap();
    }
    let growth = Growth { order: BlockOrder::Stacked, new_blocks: NewBlocks::Copied };
    // Only into twice as many blocks; what fails changes nothing.
    trainer.grow(Arc::clone(&shallow), growth).unwrap_err();
    trainer.grow(Arc::clone(&ground.network), growth).unwrap();
    assert_eq!((trainer.num_steps_done(), trainer.good_step()), (20, 20));
    assert_eq!(trainer.store().vars().count(), ground.network.specs().len());
    let report = trainer.step(&batches.train_batch(20).unwrap()).unwrap();
    let Schedule::Cosine { .. } = plan.recipe.schedule else { panic!("a schedule that moves") };
    let expected = plan.recipe.optimizer.learning_rate * plan.recipe.schedule.factor(21, 40);
    assert_eq!((report.step, report.learning_rate), (21, expected as f32));
    // What a recovery brings back is the grown network as it began.
    let (_, var) = trainer.store().vars().next().unwrap();
    var.set(&(var.as_detached_tensor() * f64::NAN).unwrap()).unwrap();
    let report = trainer.step(&batches.train_batch(21).unwrap()).unwrap();
    let restored = report.events.iter().find_map(|event| match event {
        HybridEvent::Diverged { restored_step, .. } => *restored_step,
        HybridEvent::Phase { .. } | HybridEvent::Note(_) => None,
    });
    assert_eq!(restored, Some(20), "{report:?}");
    assert!(trainer.store().is_finite().unwrap());
    assert!(trainer.step(&batches.train_batch(22).unwrap()).unwrap().loss.is_finite());
}

#[test]
fn the_same_time_is_that_of_growing() {
    let ground = ground(2);
    let plan = GrowthPlan { seeds: vec![1], rate_factors: vec![1.0], ..plan(&ground) };
    let result = watched(|eyes| growth(&ground, &plan, eyes)).unwrap();
    let steps: Vec<u64> = result.tuned.iter().map(|tuned| tuned.contender.recipe.num_steps).collect();
    let seconds = 26.0 * result.pace.half_step_seconds + 14.0 * result.pace.full_step_seconds;
    let expected = |step_seconds: f64| (seconds / step_seconds).round() as u64;
    let Pace { full_step_seconds, half_step_seconds } = result.pace;
    assert_eq!(steps, [40, 40, expected(full_step_seconds), expected(half_step_seconds), 40]);
    // A single block's copy stands behind it in either order.
    assert!(result.tuned.iter().all(|tuned| tuned.tried.len() == 1), "{:?}", result.tuned);
    assert!(result.results.iter().all(|results| results.len() == 1));
    let [grown, full, .., random] = result.flops.as_slice() else { panic!("{:?}", result.flops) };
    assert!(grown < full && grown == random, "{:?}", result.flops);
    assert!(result.verdict().ends_with("nothing follows."));
}

#[test]
fn operations_are_counted_by_depth() {
    let ground = ground(4);
    let plan = plan(&ground);
    let half = plan.half().unwrap();
    let full = plan.contender("full", "", 40, None);
    let shallow = plan.contender("half", "", 40, Some(Beginning { model: half.clone(), grows: None }));
    let growth = Growth { order: BlockOrder::Stacked, new_blocks: NewBlocks::Copied };
    let grown = plan.contender("grown", "", 40, Some(Beginning { model: half, grows: Some((26, growth)) }));
    assert_eq!(plan.flops(&full, 1), plan.full_step_flops());
    assert_eq!(plan.flops(&grown, 26), plan.flops(&shallow, 26));
    assert_eq!(plan.flops(&grown, 40), plan.flops(&shallow, 26) + plan.flops(&full, 14));
    // 2 sequences of 8 tokens, 3 passes, a block's 12 x 16² weights at least.
    let blocks = 3.0 * 2.0 * 8.0 * 2.0 * (2.0 * 12.0 * 256.0);
    assert!(plan.flops(&full, 1) - plan.flops(&shallow, 1) >= blocks);
}

#[test]
fn a_plan_that_cannot_be_is_refused() {
    let plan = literal::growth().plan;
    plan.check().unwrap();
    for broken in [
        GrowthPlan { model: literal::gpt2(30, 3), ..plan.clone() },
        GrowthPlan { share: 1.0, ..plan.clone() },
        GrowthPlan { share: 0.001, ..plan.clone() },
        GrowthPlan { orders: Vec::new(), ..plan.clone() },
        GrowthPlan { rate_factors: vec![-1.0], ..plan.clone() },
        GrowthPlan { tuning_seed: 1, ..plan.clone() },
        GrowthPlan { recipe: literal::recipe(), ..plan.clone() },
    ] {
        assert!(matches!(broken.check(), Err(ExperimentError::Plan { .. })), "{broken:?}");
    }
    let other = ground(2);
    watched(|eyes| growth(&other, &plan, eyes)).unwrap_err();
}
