//! What a streamed training will take.

use super::placing::Placed;
use super::{OffloadForecast, Rehearsal};
use crate::device::Watch;
use crate::models::Network;
use crate::offload::{DiskRoom, OffloadSettings, Rates, StepShape};
use crate::session::{RunConfig, SessionError};

/// What the training will take. Rates are measured only where it fits and steps are left, because that writes.
pub(super) fn forecast(
    config: &RunConfig,
    (network, settings): (&Network, &OffloadSettings),
    Placed { device, plan, why }: Placed,
    rehearsal: Rehearsal,
    watch: Watch<'_>,
) -> Result<OffloadForecast, SessionError> {
    let disk = DiskRoom::of(network, settings)?;
    let model_bytes = plan.num_params.saturating_mul(settings.precision.weight_bytes());
    let num_steps_left = config.num_steps.saturating_sub(disk.num_steps);
    let mut forecast = OffloadForecast {
        plan,
        device,
        why_there: why,
        disk,
        model_bytes,
        num_steps_left,
        rates: None,
        step_seconds: None,
        predict_seconds: None,
        costs: Vec::new(),
    };
    let fits = forecast.plan.fits() && forecast.disk.fits();
    if rehearsal == Rehearsal::OfSteps && fits && num_steps_left > 0 {
        let shape = StepShape {
            batch_size: config.batch_size,
            sequence_length: config.sequence_length,
            products: config.precision,
            precision: settings.precision,
            sampling: config.hybrid.strategy.samples().then_some(config.hybrid.slice_fraction),
        };
        let there = (settings.folder.as_path(), &device.open()?);
        let rates = Rates::measure(there, network, &config.optimizer, shape, watch)?;
        forecast.step_seconds = Some(rates.step_seconds(&forecast.plan));
        forecast.predict_seconds = rates.predict_seconds(&forecast.plan, config.batch_size);
        forecast.costs = rates.costs(&forecast.plan);
        forecast.rates = Some(rates);
    }
    Ok(forecast)
}
