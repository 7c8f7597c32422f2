#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use candle_core::Device;

use super::super::literal;
use super::*;
use crate::device::{CancelFlag, Lanes};
use crate::hybrid::TierPreset;
use crate::models::{DataShape, Gpt2Config, ModelConfig};

fn ground() -> Ground {
    let dataset = literal::text();
    let DataShape::Text { vocab_size } = dataset.shape() else { panic!("text") };
    let ModelConfig::Gpt2(config) = literal::gpt2(vocab_size, 2) else { panic!("a GPT-2") };
    // Wide enough for states of 8 bits.
    let config = ModelConfig::Gpt2(Gpt2Config { n_embd: 64, ..config });
    let network = Arc::new(Network::new(&config).unwrap());
    Ground { network, dataset, device: Device::Cpu, lanes: Arc::new(Lanes::new(1, 1).unwrap()) }
}

fn plan(features: Vec<MemoryFeature>) -> FeaturesPlan {
    let mut recipe = literal::recipe();
    recipe.hybrid = TierPreset::named("vanilla").unwrap().config();
    FeaturesPlan::new(recipe, features, vec![3, 4], usize::MAX)
}

fn measured(plan: &FeaturesPlan) -> Result<FeaturesResult, ExperimentError> {
    let folder = tempfile::tempdir().unwrap();
    let cancel = CancelFlag::default();
    let planned_bytes = vec![1; plan.features.len() + 1];
    let on_race: OnRace<'_> = &|_| {};
    let eyes = (Watch::new(&cancel, &|_| {}), on_race);
    let result = features(&ground(), plan, (&planned_bytes, folder.path()), eyes);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "blocks are removed");
    result
}

#[test]
fn exact_features_end_with_the_same_bits_and_others_near() {
    let features = MemoryFeature::ALL.into_iter().filter(|feature| feature.missing().is_none()).collect();
    let result = measured(&plan(features)).unwrap();
    let figures = result.figures();
    assert_eq!(figures.len(), result.plan.features.len() + 1);
    for figures in &figures {
        assert_eq!(figures.num_equal == 2, figures.must_be_equal, "{figures:?}");
        let ratio = figures.loss_ratio.unwrap().mean;
        // Fifteen times as near as training itself takes the loss.
        assert!((ratio - 1.0).abs() < 0.02, "{figures:?}");
        assert!(figures.step_seconds.unwrap().mean > 0.0);
    }
    let plain = &result.results[0].runs[0];
    assert_eq!(plain.curve.len(), 40);
    assert!(plain.curve[39].loss < 0.8 * plain.curve[0].loss, "{:?}", plain.curve);
    let verdict = result.verdict();
    assert!(verdict.contains("streamed-full ends with plain training's weights, bit for bit"), "{verdict}");
    assert!(verdict.contains("With streamed-compact the loss is") && verdict.contains("seeds scatter by"), "{verdict}");
}

#[test]
fn a_training_that_diverges_is_a_result() {
    let mut plan = plan(vec![MemoryFeature::StreamedFull, MemoryFeature::EightBitStates]);
    plan.recipe.optimizer.learning_rate = 1e30;
    plan.seeds.truncate(1);
    let result = measured(&plan).unwrap();
    assert!(result.results.iter().all(|result| result.runs[0].loss.is_nan()), "{:?}", result.figures());
    assert!(result.figures().iter().all(|figures| figures.loss.is_none()));
}

#[test]
fn plans_that_cannot_be_are_refused() {
    let network = ground().network;
    let good = plan(vec![MemoryFeature::StreamedFull]);
    good.check(&network).unwrap();
    assert_eq!(good.recipe.optimizer.clip_norm, None);
    let refused = |change: fn(&mut FeaturesPlan)| {
        let mut plan = good.clone();
        change(&mut plan);
        plan.check(&network).unwrap_err().to_string()
    };
    assert!(refused(|plan| plan.features.clear()).contains("at least one feature"));
    assert!(refused(|plan| plan.recipe.hybrid = literal::recipe().hybrid).contains("predicts"));
    assert!(refused(|plan| plan.recipe.optimizer.kind = OptimizerKind::Muon).contains("found Muon"));
    let averaged = crate::optim::Schedule::ConstantEma { warmup_fraction: 0.1, ema_decay: 0.9 };
    let mut with_average = good.clone();
    with_average.recipe.schedule = averaged;
    assert!(with_average.check(&network).unwrap_err().to_string().contains("weight average"));
    let images = DataShape::Images { channels: 1, height: 28, width: 28, num_classes: 10 };
    let mlp = Network::new(&crate::models::ModelPreset::Mlp.config(images).unwrap()).unwrap();
    assert!(good.check(&mlp).unwrap_err().to_string().contains("found one of images"));
}

#[test]
fn a_feature_that_breaks_its_promise_is_told() {
    let mut result = literal::features();
    assert!(result.verdict().starts_with("activation-checkpointing ends with plain training's weights, bit for bit"));
    result.results[1].runs[1].has_plain_weights = false;
    let verdict = result.verdict();
    assert!(verdict.starts_with("activation-checkpointing changes no arithmetic, yet"), "{verdict}");
    assert!(verdict.contains("with 1 of 2 seeds"), "{verdict}");
    result.results[2].runs[0].loss = f64::NAN;
    assert!(result.verdict().contains("With 8bit-states a training diverged."), "{}", result.verdict());
}
