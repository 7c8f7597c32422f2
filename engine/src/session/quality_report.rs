//! What a quantization costs, as a folder: `report.json`, `README.md` and charts of every layer.

use std::fmt::Write;
use std::path::Path;

use super::reports::publish;
use super::{QuantizeReport, SessionError};
use crate::chart::{Axis, Bar, BarPanel, Chart, Contender, Panel, Theme, render_svg};
use crate::device::MachineRecord;
use crate::device::atomic_file::WriteError;
use crate::export::ModelCard;
use crate::memory::format_bytes;
use crate::quant::LayerFigures;

/// Layers in a chart: the worst of them, so that their names stay readable.
const MOST_BARS: usize = 16;

/// Writes it into the new folder `folder`, which is whole or absent. Errors: the folder exists, or cannot be written.
pub(super) fn write(report: &QuantizeReport, card: &ModelCard, folder: &Path) -> Result<(), SessionError> {
    let value = serde_json::json!({ "model": card, "machine": MachineRecord::here(), "quantization": report });
    let json = serde_json::to_vec_pretty(&value)
        .map_err(|source| WriteError::new("writing", &folder.join("report.json"), std::io::Error::other(source)))?;
    let charts = charts(report, card);
    let mut files =
        vec![("report.json".to_owned(), json), ("README.md".to_owned(), markdown(report, card, &charts).into_bytes())];
    for (name, chart) in &charts {
        files.push((format!("{name}.svg"), render_svg(chart, Theme::Light)?.into_bytes()));
    }
    publish(&files, folder)
}

fn markdown(report: &QuantizeReport, card: &ModelCard, charts: &[(String, Chart)]) -> String {
    let scheme = report.scheme.label();
    let mut text = format!("# {} in {scheme}\n\n{}\n\n", card.name, report.method);
    let metric = |value: f64| match report.metric.as_str() {
        "accuracy" => format!("{:.2}%", value * 100.0),
        _ => format!("{value:.4}"),
    };
    let mut rows = Vec::new();
    if report.metric == "accuracy" {
        rows.push(["accuracy".to_owned(), metric(report.before), metric(report.after)]);
    } else {
        rows.push(["perplexity".to_owned(), number(report.loss_before.exp()), number(report.loss_after.exp())]);
    }
    rows.push(["loss, nats".to_owned(), number(report.loss_before), number(report.loss_after)]);
    rows.push(["weights".to_owned(), format_bytes(report.bytes_before), format_bytes(report.bytes_after)]);
    rows.push(["bits per weight".to_owned(), "32.00".to_owned(), format!("{:.2}", report.bits_per_weight)]);
    text.push_str("| | as trained | as stored |\n| --- | --- | --- |\n");
    for [name, before, after] in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {name} | {before} | {after} |");
    }
    let _ = writeln!(
        text,
        "\nMeasured on {} held-out {}. Bits count every tensor, scales and embeddings.\n",
        report.num_examples,
        report.example_unit()
    );
    for note in &report.notes {
        let _ = writeln!(text, "- {note}");
    }
    text.push('\n');
    if let Some(tables) = report.tables.as_ref().filter(|tables| !tables.tried.is_empty()) {
        let _ = writeln!(text, "## Embedding and head\n\n{}", tables.markdown());
    }
    for (name, chart) in charts {
        let _ = writeln!(text, "![{}]({name}.svg)\n", chart.title);
    }
    if !report.speeds.is_empty() {
        text.push_str(
            "## Predicted speed\n\nTokens a second for one reader at most, from the bytes read for each token and the \
             memory's data sheet. Nothing here was measured.\n\n| target | tokens a second, at most |\n| --- | --- |\n",
        );
        for speed in &report.speeds {
            let _ = writeln!(text, "| {} | {:.0} |", speed.name, speed.most_tokens_per_second);
        }
        text.push('\n');
    }
    text.push_str(&layer_table(&report.layers));
    let _ = write!(
        text,
        "\n## Conditions\n\n- Model: {} parameters, step {} of {}\n- Data: {}\n- Program: foretrain {}\n",
        card.num_params,
        card.step,
        card.num_steps,
        card.dataset_name,
        env!("CARGO_PKG_VERSION")
    );
    text
}

fn layer_table(layers: &[LayerFigures]) -> String {
    let mut text = "## Tensors\n\nErrors are shares: of the weights' own length, and of the outputs' over the calibration set, \
                    each weight rounded alone and as stored. The last column is what the loss gains when this tensor alone \
                    is quantized.\n\n| tensor | storage | bytes | weights | outputs, rounded alone | outputs, as stored | \
                    loss, nats |\n| --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    let percent = |error: Option<f64>| error.map_or_else(String::new, |error| format!("{:.2}%", error * 100.0));
    for layer in layers {
        let loss = layer.loss_increase.map_or_else(String::new, |loss| format!("{loss:+.5}"));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {loss} |",
            layer.name,
            layer.storage,
            layer.bytes,
            percent(Some(layer.weight_error)),
            percent(layer.nearest_output_error),
            percent(layer.output_error),
        );
    }
    text
}

fn number(value: f64) -> String {
    format!("{value:.4}")
}

/// Charts by file name without ending: those for which something was measured.
fn charts(report: &QuantizeReport, card: &ModelCard) -> Vec<(String, Chart)> {
    let subtitle = format!("{}, {}; {}", card.name, report.scheme.label(), report.method);
    let sensitivity = chart(
        ("Loss that each tensor costs by itself", &subtitle),
        Axis::new("loss increase", "nats"),
        &report.layers,
        &[("", 1, |layer| layer.loss_increase)],
    );
    let outputs = chart(
        ("Share of its outputs that each layer loses", &subtitle),
        Axis::new("output error", "%"),
        &report.layers,
        &[
            ("rounded alone", 7, |layer| layer.nearest_output_error.map(|error| error * 100.0)),
            ("as stored", 1, |layer| layer.output_error.map(|error| error * 100.0)),
        ],
    );
    let charts = [("sensitivity", sensitivity), ("outputs", outputs)];
    charts.into_iter().filter_map(|(name, chart)| Some((name.to_owned(), chart?))).collect()
}

/// What is drawn of a layer, with its name and color.
type Value = (&'static str, u8, fn(&LayerFigures) -> Option<f64>);

/// The worst layers by the last of `values`, in the network's order; `None` where nothing was measured.
fn chart((title, subtitle): (&str, &str), y: Axis, layers: &[LayerFigures], values: &[Value]) -> Option<Chart> {
    let (_, _, by) = *values.last()?;
    let mut measured: Vec<(usize, f64)> =
        layers.iter().enumerate().filter_map(|(index, layer)| Some((index, by(layer)?))).collect();
    let total = measured.len();
    measured.sort_by(|a, b| b.1.total_cmp(&a.1));
    measured.truncate(MOST_BARS);
    measured.sort_by_key(|(index, _)| *index);
    let shown: Vec<&LayerFigures> = measured.iter().filter_map(|(index, _)| layers.get(*index)).collect();
    if shown.is_empty() {
        return None;
    }
    let contenders = values.iter().map(|&(label, color, of)| Contender {
        label: label.to_owned(),
        color,
        bars: shown.iter().map(|layer| Bar::of(of(layer).unwrap_or(f64::NAN))).collect(),
    });
    let cut = if total > MOST_BARS { format!("; the worst {MOST_BARS} of {total}") } else { String::new() };
    Some(Chart {
        title: title.to_owned(),
        subtitle: format!("{subtitle}{cut}"),
        width: 1400,
        height: 460,
        panels: vec![Panel::Bars(BarPanel {
            y,
            groups: shown.iter().map(|layer| short_name(&layer.name)).collect(),
            contenders: contenders.collect(),
            ..BarPanel::default()
        })],
        ..Chart::default()
    })
}

/// A tensor's name without what all have in common: "transformer.h.3.mlp.c_fc.weight" is "3 c_fc".
fn short_name(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').filter(|part| *part != "weight" && *part != "convolution").collect();
    let number = parts.iter().rev().find(|part| part.parse::<u32>().is_ok());
    let last = parts.last().copied().unwrap_or(name);
    match number {
        Some(number) if *number != last => format!("{number} {last}"),
        _ => parts.iter().rev().take(2).rev().copied().collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn short_names_keep_what_differs() {
        for (name, short) in [
            ("transformer.h.3.mlp.c_fc.weight", "3 c_fc"),
            ("conv.1.weight", "conv 1"),
            ("fc.weight", "fc"),
            ("model.layers.11.self_attn.q_proj.weight", "11 q_proj"),
        ] {
            assert_eq!(short_name(name), short);
        }
    }

    #[test]
    fn charts_show_the_worst_in_the_networks_order() {
        let layer = |index: usize| LayerFigures {
            name: format!("h.{index}.fc.weight"),
            storage: "INT8".to_owned(),
            num_weights: 1,
            bytes: 1,
            weight_error: 0.0,
            zero_share: 0.0,
            nearest_output_error: None,
            output_error: None,
            loss_increase: Some((index % 7) as f64),
        };
        let layers: Vec<LayerFigures> = (0..40).map(layer).collect();
        let value: Value = ("", 1, |layer| layer.loss_increase);
        let chart = chart(("title", "subtitle"), Axis::new("loss", ""), &layers, &[value]).unwrap();
        let Panel::Bars(panel) = &chart.panels[0] else { panic!("bars expected") };
        assert_eq!((panel.groups.len(), panel.groups[0].as_str()), (MOST_BARS, "4 fc"));
        assert!(chart.subtitle.ends_with("the worst 16 of 40"));
        assert!(super::chart(("", ""), Axis::new("", ""), &layers, &[("", 1, |layer| layer.output_error)]).is_none());
    }
}
