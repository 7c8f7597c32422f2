//! Options of quantization-aware training.

use foretrain_engine::quant::{QatConfig, QuantScheme};
use foretrain_engine::session::RunConfig;

use super::{CliError, number_arg};

/// Whether, when and how quickly training turns to quantized weights.
#[derive(Debug, clap::Args)]
pub struct QatArgs {
    /// Train for weights quantized like this: ternary, int4 or int8. Each validation measures them beside full precision.
    #[arg(long, value_name = "SCHEME", value_parser = parse_scheme)]
    pub qat: Option<QuantScheme>,
    /// Share of the run in full precision before the switch; 0 quantizes from the first step. 0 with --from, else 0.3.
    #[arg(long, value_name = "SHARE", value_parser = number_arg::parse_share, requires = "qat")]
    pub qat_start: Option<f64>,
    /// Share of the run over which quantization sets in after that; 0 when left out, which switches at once.
    #[arg(long, value_name = "SHARE", value_parser = number_arg::parse_share, requires = "qat")]
    pub qat_ramp: Option<f64>,
}

impl QatArgs {
    /// Takes what was asked for into `config`. Errors: usage, for shares that do not go together.
    pub(super) fn put_into(&self, config: &mut RunConfig) -> Result<(), CliError> {
        let Some(scheme) = self.qat else { return Ok(()) };
        let default = if config.start_from.is_some() { QatConfig::fine_tuning(scheme) } else { QatConfig::new(scheme) };
        let qat = QatConfig {
            scheme,
            start_fraction: self.qat_start.unwrap_or(default.start_fraction),
            ramp_fraction: self.qat_ramp.unwrap_or(default.ramp_fraction),
        };
        qat.check().map_err(|error| CliError::Usage(error.to_string()))?;
        config.qat = Some(qat);
        Ok(())
    }
}

fn parse_scheme(label: &str) -> Result<QuantScheme, String> {
    let known = QatConfig::SCHEMES;
    QuantScheme::from_label(label)
        .filter(|scheme| known.contains(scheme))
        .ok_or_else(|| format!("expected one of {}, found {label:?}", known.map(QuantScheme::label).join(", ")))
}
