//! Options of quantization-aware training.

use foretrain_engine::models::ops::Activations;
use foretrain_engine::quant::{Distillation, QatConfig, QuantScheme};
use foretrain_engine::session::RunConfig;

use super::{CliError, number_arg};

/// Whether, when and how quickly training turns to quantized weights.
#[derive(Debug, clap::Args)]
pub struct QatArgs {
    /// Train for weights quantized like this: ternary, int4 or int8. Each validation measures them beside full precision.
    #[arg(long, value_name = "SCHEME", value_parser = parse_scheme)]
    pub qat: Option<QuantScheme>,
    /// Share of the run in full precision before the switch; 0 quantizes from the first step. When left out 0 with --from,
    /// else 0.2 for ternary and 0.3 for the others.
    #[arg(long, value_name = "SHARE", value_parser = number_arg::parse_share, requires = "qat")]
    pub qat_start: Option<f64>,
    /// Share of the run over which quantization sets in after that; 0 switches at once. When left out 0.3 for ternary
    /// without --from, else 0.
    #[arg(long, value_name = "SHARE", value_parser = number_arg::parse_share, requires = "qat")]
    pub qat_ramp: Option<f64>,
    /// What matrices of integers read from the switch on: int8, rounded as foretrain-edge does it, or f32. int8 when left
    /// out.
    #[arg(long, value_name = "TYPE", value_parser = parse_activations, requires = "qat")]
    pub qat_activations: Option<Activations>,
    /// What the learning rate is multiplied by once quantization is complete; it gets there along the ramp. When left out 3
    /// for ternary without --from, else 1.
    #[arg(long, value_name = "NUMBER", value_parser = number_arg::parse_above_zero, requires = "qat")]
    pub qat_rate: Option<f64>,
    /// Share of a teacher in what is learned from the switch on: the full-precision weights of just before it, whose
    /// answers are matched. 0 to 1; none when left out. Costs a forward pass more for each example that learns.
    #[arg(long, value_name = "SHARE", value_parser = number_arg::parse_share, requires = "qat")]
    pub qat_teacher: Option<f64>,
    /// Temperature of its answers; 2 when left out.
    #[arg(long, value_name = "NUMBER", value_parser = number_arg::parse_above_zero, requires = "qat_teacher")]
    pub qat_temperature: Option<f64>,
}

impl QatArgs {
    /// Takes what was asked for into `config`. Errors: usage, for shares that do not go together.
    pub(super) fn put_into(&self, config: &mut RunConfig) -> Result<(), CliError> {
        let Some(scheme) = self.qat else { return Ok(()) };
        let default = if config.start_from.is_some() { QatConfig::fine_tuning(scheme) } else { QatConfig::new(scheme) };
        let qat = QatConfig {
            scheme,
            activations: self.qat_activations.unwrap_or(default.activations),
            learning_rate_factor: self.qat_rate.unwrap_or(default.learning_rate_factor),
            distillation: self.qat_teacher.filter(|weight| *weight > 0.0).map(|weight| Distillation {
                weight,
                temperature: self.qat_temperature.unwrap_or(Distillation::DEFAULT.temperature),
            }),
            ..default.with_times(self.qat_start, self.qat_ramp)
        };
        qat.check().map_err(|error| CliError::Usage(error.to_string()))?;
        config.qat = Some(qat);
        Ok(())
    }
}

pub(super) fn parse_scheme(label: &str) -> Result<QuantScheme, String> {
    let known = QatConfig::SCHEMES;
    QuantScheme::from_label(label)
        .filter(|scheme| known.contains(scheme))
        .ok_or_else(|| format!("expected one of {}, found {label:?}", known.map(QuantScheme::label).join(", ")))
}

/// What matrices read, by its name.
pub(super) fn parse_activations(label: &str) -> Result<Activations, String> {
    let known = Activations::ALL.map(Activations::label).join(" or ");
    Activations::from_label(label).ok_or_else(|| format!("expected {known}"))
}
