//! Draws one chart of each kind into a folder, in both themes, as SVG, PNG and JSON:
//! `cargo run -p foretrain-engine --example chart_gallery -- FOLDER`. The values are made up, and say so.

use std::path::{Path, PathBuf};

use foretrain_engine::chart::{
    Axis, Bar, BarPanel, BarStyle, Chart, Contender, CurvePanel, Limit, NEUTRAL, Panel, Piece, Series, Style, Theme,
    XAxes, XRange, render_png, render_svg,
};

type Failure = Box<dyn std::error::Error>;

const MADE_UP: &str = "Made-up values, to look at how charts are drawn";

fn main() -> Result<(), Failure> {
    let folder = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("target/chart-gallery"), PathBuf::from);
    std::fs::create_dir_all(&folder)?;
    draw(&folder, "loss", &loss())?;
    draw(&folder, "contenders", &contenders())?;
    draw(&folder, "reliability", &reliability())?;
    draw(&folder, "run", &run())
}

fn draw(folder: &Path, name: &str, chart: &Chart) -> Result<(), Failure> {
    std::fs::write(folder.join(name).with_extension("json"), chart.to_json()?)?;
    for (theme, suffix) in [(Theme::Light, "light"), (Theme::Dark, "dark")] {
        let path = folder.join(format!("{name}-{suffix}"));
        std::fs::write(path.with_extension("svg"), render_svg(chart, theme)?)?;
        std::fs::write(path.with_extension("png"), render_png(chart, theme, 2.0)?)?;
    }
    Ok(())
}

/// A number between -1 and 1 that looks random.
fn noise(seed: u32) -> f64 {
    let mixed = seed.wrapping_mul(2_654_435_761).rotate_left(13).wrapping_mul(2_246_822_519);
    f64::from(mixed) / f64::from(u32::MAX) * 2.0 - 1.0
}

fn expected_loss(step: u32) -> f64 {
    0.18 + 2.1 * (-f64::from(step) / 260.0).exp()
}

/// Predict from one step to the next Correct.
const PREDICT: [(u32, u32); 7] =
    [(300, 390), (400, 520), (530, 640), (700, 820), (830, 950), (960, 1080), (1090, 1200)];

fn phases() -> Vec<XRange> {
    let range = |from: u32, to: u32, label: &str, color| XRange {
        from: from.into(),
        to: to.into(),
        label: label.into(),
        color,
    };
    let mut phases = vec![range(0, 100, "Warmup", NEUTRAL)];
    let mut at = 100;
    for (from, to) in PREDICT {
        if from > at + 10 {
            phases.push(range(at, from, "Full", 0));
        } else {
            phases.push(range(at, from, "Correct", 3));
        }
        phases.push(range(from, to, "Predict", 1));
        at = to;
    }
    phases
}

fn measured() -> Series {
    let spike = |step| if step == 660 { 0.9 } else { 0.0 };
    let value = |step| expected_loss(step) * (1.0 + 0.16 * noise(step)) + spike(step);
    Series::line("Measured", 0, (0..=1200).map(|step| (f64::from(step), value(step)))).with_style(Style::Faint)
}

fn smoothed() -> Series {
    let value = |step: u32| expected_loss(step) * (1.0 + 0.02 * noise(step / 12));
    Series::line("Smoothed", 0, (0..=1200).map(|step| (f64::from(step), value(step))))
}

fn forecast() -> Series {
    let piece = |(from, to): (u32, u32)| {
        let half = |step: u32| 0.03 + 0.0012 * f64::from(step - from);
        let y = |step| expected_loss(step) * 0.97;
        let piece: Piece = (from..=to).map(|step| (f64::from(step), y(step))).collect();
        piece.with_ends(
            (from..=to).map(|step| y(step) - half(step)).collect(),
            (from..=to).map(|step| y(step) + half(step)).collect(),
        )
    };
    let pieces = PREDICT.into_iter().map(piece).collect();
    Series { label: "Forecast ± 2 σ".into(), color: 1, pieces, ..Series::default() }.predicted()
}

fn validation() -> Series {
    let points = (1..=12).map(|index| (f64::from(index * 100), expected_loss(index * 100) * 1.08 + 0.02));
    Series::line("Validation", 2, points).with_style(Style::Points)
}

fn loss_panel() -> CurvePanel {
    CurvePanel {
        x: Axis::new("Step", "").whole(),
        y: Axis::new("Loss", "nats"),
        series: vec![measured(), smoothed(), forecast(), validation()],
        ..CurvePanel::default()
    }
}

fn loss() -> Chart {
    Chart {
        title: "Loss of a run with prediction".into(),
        subtitle: MADE_UP.into(),
        width: 900,
        height: 480,
        x_ranges: phases(),
        panels: vec![Panel::Curves(loss_panel())],
        ..Chart::default()
    }
}

fn contenders() -> Chart {
    let names = ["Plain training", "Predictive, conservative", "Predictive, balanced", "Predictive, aggressive"];
    let panel = |title: &str, unit: &str, style, (values, half): ([[f64; 3]; 4], f64)| {
        let contender = |(index, values): (usize, [f64; 3])| Contender {
            label: names[index].into(),
            color: index as u8,
            bars: values.map(|value| Bar::within(value, value * (1.0 - half), value * (1.0 + half))).to_vec(),
        };
        Panel::Bars(BarPanel {
            title: title.into(),
            y: Axis::new("", unit),
            style,
            groups: vec!["ResNet-20 on CIFAR-10".into(), "GPT-2 on stories".into(), "LeNet on digits".into()],
            contenders: values.into_iter().enumerate().map(contender).collect(),
        })
    };
    let hours = [[1.9, 2.6, 0.4], [1.5, 2.1, 0.36], [1.2, 1.7, 0.3], [0.9, f64::NAN, 0.26]];
    let accuracy = [[0.912, 0.871, 0.991], [0.911, 0.873, 0.99], [0.908, 0.868, 0.991], [0.896, f64::NAN, 0.987]];
    Chart {
        title: "Four contenders, three tasks".into(),
        subtitle: format!("{MADE_UP}. Error bars: 95 % confidence interval of the mean over 5 seeds"),
        width: 900,
        height: 620,
        panels: vec![
            panel("Wall time to the target loss", "hours, lower is better", BarStyle::Bars, (hours, 0.07)),
            panel("Accuracy", "share, higher is better", BarStyle::Dots, (accuracy, 0.006)),
        ],
        ..Chart::default()
    }
}

fn reliability() -> Chart {
    let points = (0..10).map(|bin| {
        let x = 0.05 + 0.1 * f64::from(bin);
        (x, x - 0.12 * x * (1.0 - x) * 4.0 + 0.02 * noise(bin))
    });
    let points: Vec<(f64, f64)> = points.collect();
    let half = |index: usize| 0.02 + 0.008 * (10 - index) as f64;
    let piece: Piece = points.iter().copied().collect();
    let ends = |sign: f64| points.iter().enumerate().map(|(index, (_, y))| y + sign * half(index)).collect();
    let pieces = vec![piece.with_ends(ends(-1.0), ends(1.0))];
    let bins = Series { label: "Bins of 200 predictions".into(), style: Style::Points, pieces, ..Series::default() };
    let diagonal = Series::line("Perfectly calibrated", NEUTRAL, [(0.0, 0.0), (1.0, 1.0)]).with_style(Style::Reference);
    let panel = CurvePanel {
        x: Axis::new("Confidence predicted", "").between(0.0, 1.0),
        y: Axis::new("Share that held", "").between(0.0, 1.0),
        series: vec![diagonal, bins],
        ..CurvePanel::default()
    };
    Chart {
        title: "Does the forecaster know what it knows?".into(),
        subtitle: MADE_UP.into(),
        width: 560,
        height: 560,
        panels: vec![Panel::Curves(panel)],
        ..Chart::default()
    }
}

fn run() -> Chart {
    let line = |label: &str, color, value: fn(u32) -> f64| {
        Series::line(label, color, (0..=1200).map(|step| (f64::from(step), value(step))))
    };
    let panel = |title: &str, unit: &str, series: Vec<Series>| {
        let (x, y) = (Axis::new("Step", "").whole(), Axis::new("", unit));
        CurvePanel { title: title.into(), x, y, series, ..CurvePanel::default() }
    };
    let mut loss = CurvePanel { title: "Loss".into(), ..loss_panel() };
    loss.y = Axis::new("", "nats").log();
    let mut signals = panel(
        "Divergence",
        "share of limit",
        vec![
            line("Loss", 0, |step| 0.3 + 0.25 * noise(step) + if step == 660 { 0.9 } else { 0.0 }),
            line("Gradient", 1, |step| if step == 420 { f64::NAN } else { 0.4 + 0.1 * noise(step + 7) }),
            line("Oscillation", 3, |step| 0.2 + 0.1 * noise(step / 30)),
        ],
    );
    signals.limits = vec![Limit { y: 1.0, label: "limit".into() }];
    let rate = line("", 3, |step| 1e-3 * f64::from(step.min(100)) / 100.0 * (1.0 - f64::from(step) / 1300.0));
    let throughput = line("", 2, |step| 21_000.0 + 1500.0 * noise(step) + if step > 300 { 14_000.0 } else { 0.0 });
    Chart {
        title: "A run, as the window shows it".into(),
        subtitle: MADE_UP.into(),
        width: 1000,
        height: 1000,
        x_axes: XAxes::Shared,
        x_ranges: phases(),
        panels: [
            loss,
            signals,
            panel("Confidence", "cosine", Vec::new()),
            panel("Learning rate", "", vec![rate]),
            panel("Throughput", "examples / s", vec![throughput]),
        ]
        .into_iter()
        .map(Panel::Curves)
        .collect(),
        ..Chart::default()
    }
}
