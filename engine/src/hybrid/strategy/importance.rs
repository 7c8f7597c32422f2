//! Importance sampling: an unbiased estimate of the gradient from the examples predicted to matter.
//!
//! A forward pass over the whole batch gives each example's predicted gradient norm; a sample drawn by it goes forward
//! and backward with weights that undo the choice. Source: Katharopoulos and Fleuret 2018, arXiv 1803.00942.

use super::{PredictStep, Scene, Update, Work};
use crate::data::Batch;
use crate::hybrid::passes::{Errors, Seen};
use crate::hybrid::{HybridError, sampler};

/// Has no memory: each batch is judged by itself.
#[derive(Debug)]
pub(super) struct Importance;

impl PredictStep for Importance {
    /// Everything forward, a sample forward and backward.
    fn predict(&mut self, scene: &Scene<'_>, batch: &Batch) -> Result<Work, HybridError> {
        if scene.slice_fraction >= 1.0 {
            return Work::full(scene, batch, Errors::Measure);
        }
        let seen = scene.passes.look(batch)?;
        let sample = draw_sample(scene, &seen, sampler::draw);
        let gradient = scene.passes.sampled(batch, &seen.stats, &sample)?;
        // An empty sample: the batch norm statistics are all there is to learn.
        let update = gradient.map_or(Update::Statistics, Update::Gradient);
        let units_backward = sample.indices.len();
        let units_forward = seen.losses.len() + units_backward + scene.passes.teacher_passes(units_backward);
        Ok(Work { seen, update, cosine: None, units_forward, units_backward, exhausted: None })
    }

    /// Everything forward and backward, and the sample again as Predict would have done it, to compare.
    fn correct(&mut self, scene: &Scene<'_>, batch: &Batch) -> Result<Work, HybridError> {
        let (seen, gradient) = scene.passes.full(batch, Errors::Measure)?;
        let sample = draw_sample(scene, &seen, sampler::draw_to_compare);
        let sampled = scene.passes.sampled(batch, &seen.stats, &sample)?;
        let cosine = sampled.map(|sampled| sampled.cosine(&gradient)).transpose()?;
        let units_backward = seen.losses.len() + sample.indices.len();
        let units_forward = units_backward + scene.passes.teacher_passes(units_backward);
        let update = Update::Gradient(gradient);
        Ok(Work { seen, update, cosine, units_forward, units_backward, exhausted: None })
    }
}

fn draw_sample(scene: &Scene<'_>, seen: &Seen, draw: sampler::Draw) -> sampler::Sample {
    // A poisoned batch is not worth a backward pass; the guard will see its loss.
    if !seen.mean_loss().is_finite() {
        return sampler::Sample::default();
    }
    sampler::of_step(&seen.errors, scene.slice_fraction, (scene.seed, scene.step), draw)
}
