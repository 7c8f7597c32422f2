//! Options of post-training quantization, shared by `quantize` and `export`.

use foretrain_engine::quant::{
    PostTraining, Rounding, Sparsity, StrayTables, TableType, Tables, TernaryRule, TernaryScales,
};

use super::number_arg;

/// How weights are quantized, beside the scheme.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Quantization")]
pub struct QuantArgs {
    /// nearest: each weight by itself. gptq: later columns make up for the errors of earlier ones, by what the layers
    /// read of the training data.
    #[arg(long, default_value = "nearest", value_parser = parse_rounding)]
    pub method: Rounding,
    /// Training images or sequences to calibrate on, where something is.
    #[arg(long, value_name = "COUNT", default_value_t = PostTraining::DEFAULT_SAMPLES)]
    #[arg(value_parser = number_arg::parse_count::<usize>)]
    pub calibration_samples: usize,
    /// Scale channels against each other first, without changing what the network computes.
    #[arg(long)]
    pub equalize: bool,
    /// Give each tensor its own storage, within --budget-bits: the most sensitive ones get more than the scheme.
    #[arg(long, requires = "budget_bits")]
    pub mixed: bool,
    /// Bits per weight of the whole file, embeddings and scales counted.
    #[arg(long, value_name = "BITS", requires = "mixed")]
    pub budget_bits: Option<f64>,
    /// Ternary weights that share a scale: tensor, row or 256. Rows that fill no blocks of 256 keep one for the tensor.
    #[arg(long, value_name = "WEIGHTS", default_value = "tensor", value_parser = parse_scales)]
    pub ternary_scales: TernaryScales,
    /// How weights become trits when each is rounded by itself: absmean, or threshold (0.7 of the mean magnitude, and the
    /// least-squares scale).
    #[arg(long, value_name = "RULE", default_value = "absmean", value_parser = parse_rule)]
    pub ternary_rule: TernaryRule,
    /// Set weights of quantized matrices to zero, those that matter least: 2:4 (two of every four neighbors), or a share
    /// such as 0.5.
    #[arg(long, value_name = "PATTERN", value_parser = parse_sparsity)]
    pub sparsity: Option<Sparsity>,
    /// How the token embedding of a language model is stored: int3-k, int4-k, int8 or f16. When left out, a ternary model
    /// gets the smallest with which perplexity, as measured, grows by at most 1%; other integers keep f16.
    #[arg(long, value_name = "TYPE", value_parser = parse_table)]
    pub embedding_type: Option<TableType>,
    /// How its head is stored, likewise; other integers keep int8. A model whose token embedding is its head has none.
    #[arg(long, value_name = "TYPE", value_parser = parse_table)]
    pub head_type: Option<TableType>,
}

impl QuantArgs {
    /// As the engine takes them.
    pub(super) fn options(&self, stray_tables: StrayTables) -> PostTraining {
        PostTraining {
            rounding: self.method,
            calibration_samples: self.calibration_samples,
            is_equalized: self.equalize,
            budget_bits: self.budget_bits,
            ternary_scales: self.ternary_scales,
            ternary_rule: self.ternary_rule,
            sparsity: self.sparsity,
            tables: Tables { embedding: self.embedding_type, head: self.head_type },
            stray_tables,
        }
    }
}

fn parse_rounding(label: &str) -> Result<Rounding, String> {
    let known = Rounding::ALL.map(Rounding::label).join(" or ");
    Rounding::from_label(label).ok_or_else(|| format!("expected {known}"))
}

fn parse_scales(label: &str) -> Result<TernaryScales, String> {
    let known = TernaryScales::ALL.map(TernaryScales::label).join(", ");
    TernaryScales::from_label(label).ok_or_else(|| format!("expected one of {known}"))
}

fn parse_sparsity(label: &str) -> Result<Sparsity, String> {
    Sparsity::from_label(label).ok_or_else(|| "expected 2:4, or a share between 0 and 1".to_owned())
}

fn parse_table(label: &str) -> Result<TableType, String> {
    let known = TableType::ALL.map(TableType::label).join(", ");
    TableType::from_label(label).ok_or_else(|| format!("expected one of {known}"))
}

fn parse_rule(label: &str) -> Result<TernaryRule, String> {
    match label {
        "absmean" => Ok(TernaryRule::AbsMean),
        "threshold" => Ok(TernaryRule::Threshold),
        _ => Err("expected absmean or threshold".to_owned()),
    }
}
