//! `bench`: how fast a language model runs here.

use std::io::Write;

use clap::Args;
use foretrain_edge::{BenchOptions, Pace, bench};
use serde_json::json;

use super::model_arguments::{ModelPath, ThreadArguments};

/// Arguments of `bench`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  foretrain-edge bench --package packages/shakespeare-cpu --prompt 64
  foretrain-edge bench --gguf model-TQ2_0.gguf --threads 2 --json")]
pub(super) struct BenchArguments {
    #[command(flatten)]
    path: ModelPath,
    #[command(flatten)]
    threads: ThreadArguments,
    /// Tokens of the prompt; 0 leaves it out [default: 512, or as many as the model has positions].
    #[arg(long)]
    prompt: Option<usize>,
    /// New tokens; 0 leaves them out [default: 64, or as many as the model has positions].
    #[arg(long)]
    tokens: Option<usize>,
    /// Memory to read for measuring its rate, in MiB: more than the processor's caches hold.
    #[arg(long, default_value_t = 1024, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    memory: u32,
    /// Print one JSON object on one line instead of text.
    #[arg(long)]
    pub(super) json: bool,
}

pub(super) fn run(arguments: &BenchArguments, out: &mut impl Write) -> anyhow::Result<()> {
    let BenchArguments { path, threads, prompt, tokens, memory, json } = arguments;
    let (path, num_threads) = (path.get(), threads.get());
    let read_bytes = (*memory as usize).saturating_mul(1 << 20);
    let options = BenchOptions { num_threads, prompt_tokens: *prompt, new_tokens: *tokens, read_bytes };
    let report = bench(&path, options)?;
    let share = report.decode_rate().map(|rate| rate / report.bandwidth);
    let cpu_share = report.cpu_decode_rate().zip(report.cpu_bandwidth).map(|(rate, bandwidth)| rate / bandwidth);
    if *json {
        let pace = |pace: Pace| {
            json!({
                "num_tokens": pace.num_tokens, "tokens_per_second": pace.tokens_per_second(), "seconds": pace.seconds,
                "cpu_seconds": pace.cpu_seconds,
            })
        };
        let answer = json!({
            "model": path.display().to_string(), "kernels": report.kernels, "num_threads": report.num_threads,
            "max_positions": report.max_positions, "cut_to_positions": report.cut,
            "first_token_seconds": report.first_token_seconds, "prompt": report.prompt.map(pace),
            "decode": report.decode.map(pace), "bytes_per_token": report.bytes_per_token,
            "cache_bytes": report.cache_bytes, "decode_bytes_per_second": report.decode_rate(),
            "read_bandwidth_bytes_per_second": report.bandwidth, "share_of_bandwidth": share,
            "cpu_bandwidth_bytes_per_second": report.cpu_bandwidth, "share_of_cpu_bandwidth": cpu_share,
        });
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    writeln!(out, "kernels       {}, {} thread(s)", report.kernels, report.num_threads)?;
    writeln!(out, "first token   {:.3} s after opening the file", report.first_token_seconds)?;
    for (name, pace) in [("prompt", report.prompt), ("decode", report.decode)] {
        let Some(pace) = pace else { continue };
        write!(
            out,
            "{name}        {:.2} tokens/s ({} in {:.2} s",
            pace.tokens_per_second(),
            pace.num_tokens,
            pace.seconds
        )?;
        if let Some(cpu_seconds) = pace.cpu_seconds {
            write!(out, "; {:.2} per CPU-second", pace.num_tokens as f64 / cpu_seconds)?;
        }
        writeln!(out, ")")?;
        if report.cut.contains(&name) {
            writeln!(out, "              cut to the {} positions that the model has", report.max_positions)?;
        }
    }
    let megabytes = report.bytes_per_token as f64 / 1e6;
    write!(out, "weights       {megabytes:.1} MB per token")?;
    if let (Some(rate), Some(share)) = (report.decode_rate(), share) {
        let (rate, bandwidth) = (rate / 1e9, report.bandwidth / 1e9);
        write!(out, ": {rate:.1} GB/s, {:.0} % of the {bandwidth:.1} GB/s read from memory", share * 100.0)?;
        if let Some(cpu_share) = cpu_share {
            write!(out, " ({:.0} % by processor time)", cpu_share * 100.0)?;
        }
    }
    writeln!(out)?;
    Ok(())
}
