//! Whole charts: what a reader must find in them.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

fn curves(series: Vec<Series>) -> Chart {
    let panel =
        CurvePanel { x: Axis::new("Step", "").whole(), y: Axis::new("Loss", "nats"), series, ..Default::default() };
    Chart { title: "Loss".into(), width: 400, height: 320, panels: vec![Panel::Curves(panel)], ..Default::default() }
}

fn steps(count: u32, value: impl Fn(u32) -> f64) -> Vec<(f64, f64)> {
    (0..count).map(|step| (f64::from(step), value(step))).collect()
}

fn with_everything() -> Chart {
    let forecast: Piece = [(4.0, 1.1), (6.0, 0.9), (8.0, 0.8)].into_iter().collect();
    let forecast = forecast.with_ends(vec![1.0, 0.7, 0.5], vec![1.2, 1.1, 1.1]);
    let mut chart = curves(vec![
        Series::line("Measured", 0, steps(9, |step| if step == 5 { f64::NAN } else { 2.0 / f64::from(step + 1) })),
        Series { label: "Next".into(), color: 1, pieces: vec![forecast], ..Series::default() }.predicted(),
        Series::line("Validation", 2, [(4.0, 1.5), (8.0, 0.7)]).with_style(Style::Points),
    ]);
    chart.subtitle = "digits, seed 7 & <2 threads>".into();
    chart.x_ranges = vec![
        XRange { from: 0.0, to: 4.0, label: "Full".into(), color: 0 },
        XRange { from: 4.0, to: 8.0, label: "Predict".into(), color: 1 },
    ];
    if let Some(Panel::Curves(panel)) = chart.panels.first_mut() {
        panel.limits = vec![Limit { y: 0.5, label: "target".into() }];
    }
    chart
}

fn bars(values: [[f64; 2]; 2]) -> Chart {
    let contender = |(color, values): (u8, [f64; 2])| Contender {
        label: format!("Contender {color}"),
        color,
        bars: values.map(|value| Bar::within(value, value * 0.9, value * 1.1)).to_vec(),
    };
    let panel = BarPanel {
        y: Axis::new("Wall time", "s"),
        groups: vec!["Digits".into(), "Stories".into()],
        contenders: (0..).zip(values).map(contender).collect(),
        ..Default::default()
    };
    Chart { width: 400, height: 300, panels: vec![Panel::Bars(panel)], ..Default::default() }
}

fn svg(chart: &Chart) -> String {
    render_svg(chart, Theme::Light).unwrap()
}

fn pixels(chart: &Chart, theme: Theme, scale: f64) -> image::RgbImage {
    image::load_from_memory(&render_png(chart, theme, scale).unwrap()).unwrap().into_rgb8()
}

#[test]
fn a_small_chart_looks_like_this() {
    insta::assert_snapshot!(svg(&with_everything()));
}

#[test]
fn equal_charts_are_equal_files_even_after_json() {
    // Numbers with all 53 bits, of which JSON readers may lose the last.
    let mut chart = with_everything();
    let values = steps(500, |step| (f64::from(step) * 0.737_123).sin().exp() / 3.0 + 1e-3);
    chart.panels.push(curves(vec![Series::line("Odd", 4, values)]).panels.remove(0));
    chart.panels.extend(bars([[1.0 / 3.0, f64::NAN], [2.0 / 7.0, 1e-9 / 3.0]]).panels);
    chart.height = 700;
    let again = Chart::from_json(&chart.to_json().unwrap()).unwrap();
    for theme in [Theme::Light, Theme::Dark] {
        assert_eq!(render_svg(&chart, theme).unwrap(), render_svg(&again, theme).unwrap());
        assert_eq!(render_png(&chart, theme, 1.0).unwrap(), render_png(&again, theme, 1.0).unwrap());
    }
    assert_eq!(chart.to_json().unwrap(), again.to_json().unwrap());
}

#[test]
fn a_png_has_its_size_and_its_curve() {
    // Flat, so that its place is known: in the middle of the range.
    let chart = curves(vec![Series::line("", 0, [(0.0, 5.0), (10.0, 5.0)])]);
    for theme in [Theme::Light, Theme::Dark] {
        let picture = pixels(&chart, theme, 1.5);
        assert_eq!(picture.dimensions(), (600, 480));
        let color = palette::Palette::of(theme).series(0).channels();
        let is_curve =
            |x: u32| (0..480).any(|y| picture.get_pixel(x, y).0.iter().zip(color).all(|(a, b)| a.abs_diff(b) < 24));
        assert!((120..540).all(is_curve), "{theme:?}");
    }
}

#[test]
fn both_themes_and_all_parts_differ_from_the_background() {
    let chart = bars([[1.0, 2.0], [3.0, 0.5]]);
    for theme in [Theme::Light, Theme::Dark] {
        let picture = pixels(&chart, theme, 1.0);
        for color in [palette::Palette::of(theme).series(0), palette::Palette::of(theme).series(1)] {
            let count = picture.pixels().filter(|pixel| pixel.0 == color.channels()).count();
            assert!(count > 500, "{theme:?}: {count} px of {color:?}");
        }
    }
}

#[test]
fn predicted_values_are_dashed_and_say_so() {
    for style in [Style::Line, Style::Faint] {
        let text = svg(&curves(vec![Series::line("Next", 1, steps(9, f64::from)).with_style(style).predicted()]));
        assert_eq!(text.matches("stroke-dasharray=\"6 3.5\"").count(), 2, "the line and its sample: {style:?}");
        assert!(text.contains("Next (predicted)"));
    }
    let text = svg(&curves(vec![Series::line("Forecast", 1, steps(9, f64::from)).predicted()]));
    assert!(text.contains(">Forecast<"), "said already");
    let hollow = svg(&curves(vec![Series::line("Next", 1, [(1.0, 1.0)]).with_style(Style::Points).predicted()]));
    assert!(hollow.contains("fill=\"#ffffff\" stroke=\"#c97800\""), "points are hollow");
}

#[test]
fn hostile_text_stays_text() {
    let hostile = "</title><script>alert('x')</script>\n\"&\u{202e}".to_owned() + &"W".repeat(5000);
    let mut chart = with_everything();
    chart.title.clone_from(&hostile);
    chart.subtitle.clone_from(&hostile);
    for range in &mut chart.x_ranges {
        range.label.clone_from(&hostile);
    }
    let Some(Panel::Curves(panel)) = chart.panels.first_mut() else { panic!("a panel") };
    for text in
        [&mut panel.title, &mut panel.x.label, &mut panel.x.unit, &mut panel.y.label, &mut panel.series[0].label]
    {
        text.clone_from(&hostile);
    }
    chart.height = 500;
    let mut more = bars([[1.0, 2.0], [3.0, 4.0]]);
    if let Panel::Bars(panel) = &mut more.panels[0] {
        panel.groups[0].clone_from(&hostile);
        panel.contenders[0].label.clone_from(&hostile);
    }
    for chart in [chart, more] {
        let text = svg(&chart);
        assert!(!text.contains("<script"), "{text}");
        assert!(text.contains("&lt;") || text.contains("…"), "{text}");
        // Tags are ours: each line of the file is one.
        assert!(text.lines().all(|line| line.starts_with('<') && line.ends_with('>')), "{text}");
        assert!(!render_png(&chart, Theme::Dark, 1.0).unwrap().is_empty());
    }
}

#[test]
fn a_gap_is_marked_and_a_lone_value_seen() {
    let text =
        svg(&curves(vec![Series::line("Loss", 0, [(0.0, 1.0), (1.0, f64::NAN), (2.0, 2.0), (3.0, f64::INFINITY)])]));
    assert_eq!(text.matches("<circle").count(), 2, "two values, each alone between gaps");
    assert!(text.contains("not a number"));
    let whole = svg(&curves(vec![Series::line("Loss", 0, [(0.0, 1.0), (2.0, 2.0)])]));
    assert!(!whole.contains("not a number") && !whole.contains("<circle"));
}

#[test]
fn a_logarithmic_axis_marks_what_it_cannot_show() {
    let mut chart = curves(vec![Series::line("Loss", 0, [(0.0, 100.0), (1.0, 0.0), (2.0, 0.01)])]);
    if let Panel::Curves(panel) = &mut chart.panels[0] {
        panel.y.scale = Scale::Log;
    }
    let text = svg(&chart);
    assert!(text.contains("zero or below") && !text.contains("not a number"));
    assert!(text.contains(">0.01<") && text.contains(">100<"), "{text}");
}

#[test]
fn without_values_it_says_so() {
    let empty = svg(&curves(vec![Series::line("Loss", 0, [])]));
    assert!(empty.contains("No data") && empty.contains("Loss (no data)"));
    for chart in [curves(Vec::new()), curves(vec![Series::line("Loss", 0, [(0.0, f64::NAN)])])] {
        assert!(svg(&chart).contains("No data"));
    }
    let diagonal = Series::line("", NEUTRAL, [(0.0, 0.0), (1.0, 1.0)]).with_style(Style::Reference);
    assert!(svg(&curves(vec![diagonal])).contains("No data"), "a line of reference is no data");
    assert!(!svg(&with_everything()).contains("no data"));
    let mut bars = bars([[f64::NAN; 2]; 2]);
    assert_eq!(svg(&bars).matches(">n/a<").count(), 4);
    if let Panel::Bars(panel) = &mut bars.panels[0] {
        (panel.groups, panel.contenders) = (Vec::new(), Vec::new());
    }
    assert!(svg(&bars).contains("No data"));
}

#[test]
fn a_long_series_is_a_small_file_and_keeps_its_spike() {
    let value = |step| if step == 123_456 { 50.0 } else { f64::from(step % 10) };
    let series = Series::line("Loss", 0, steps(300_000, value));
    let text = svg(&curves(vec![series]));
    assert!(text.len() < 40_000, "{} bytes", text.len());
    // The range ends a little above the spike, at the top of the frame.
    let spike = svg(&curves(vec![Series::line("Loss", 0, [(0.0, 0.0), (1.0, 50.0)])]));
    let top = |text: &str| {
        let ys =
            text.split(['L', ' ', 'M']).filter_map(|pair| pair.split_once(',')?.1.trim_end_matches('"').parse().ok());
        ys.fold(f64::INFINITY, f64::min)
    };
    assert!((top(&text) - top(&spike)).abs() < 0.02, "{} {}", top(&text), top(&spike));
}

#[test]
fn shared_axes_cover_all_and_are_named_once() {
    let panel = |from: f64, to: f64| curves(vec![Series::line("", 0, [(from, 1.0), (to, 2.0)])]).panels.remove(0);
    let mut chart = curves(Vec::new());
    chart.panels = vec![panel(0.0, 10.0), panel(50.0, 100.0)];
    chart.height = 400;
    assert_eq!(svg(&chart).matches(">Step<").count(), 2);
    chart.x_axes = XAxes::Shared;
    let text = svg(&chart);
    assert_eq!(text.matches(">Step<").count(), 1);
    assert!(text.contains(">0<") && text.contains(">100<"));
}

#[test]
fn a_zoomed_axis_cuts_lines_at_its_edges() {
    let mut chart = curves(vec![Series::line("", 0, steps(1000, f64::from))]);
    if let Panel::Curves(panel) = &mut chart.panels[0] {
        panel.x.range = Some((400.0, 500.0));
    }
    let text = svg(&chart);
    assert!(text.contains(">400<") && text.contains(">500<") && !text.contains(">600<"));
    // The y axis is that of what is in view.
    assert!(text.contains(">420<") && !text.contains(">0<"), "{text}");
}

#[test]
fn what_cannot_be_drawn_is_refused_with_its_reason() {
    let error = |chart: &Chart| render_svg(chart, Theme::Light).unwrap_err();
    assert!(matches!(error(&Chart { panels: Vec::new(), ..with_everything() }), ChartError::NoPanel));
    for (width, height) in [(10, 300), (300, 100), (0, 0), (u32::MAX, 300), (300, u32::MAX)] {
        assert!(matches!(error(&Chart { width, height, ..with_everything() }), ChartError::Size { .. }));
    }
    let ChartError::Size { least_width, least_height, .. } = error(&Chart { height: 1, ..with_everything() }) else {
        panic!("a size")
    };
    assert!(render_svg(&Chart { height: least_height, ..with_everything() }, Theme::Light).is_ok());
    assert!(least_width < 400);
    for scale in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
        let error = render_png(&with_everything(), Theme::Light, scale).unwrap_err();
        assert!(matches!(error, ChartError::Scale { .. }), "{scale}");
    }
    let uneven = Piece { x: vec![1.0, 2.0], y: vec![1.0], ..Default::default() };
    let series = Series { pieces: vec![uneven], ..Series::default() };
    assert!(matches!(error(&curves(vec![series])), ChartError::Lengths { num_x: 2, num_y: 1, .. }));
    let mut chart = bars([[1.0, 2.0]; 2]);
    if let Panel::Bars(panel) = &mut chart.panels[0] {
        panel.y.scale = Scale::Log;
    }
    assert!(matches!(error(&chart), ChartError::LogBars { .. }));
    if let Panel::Bars(panel) = &mut chart.panels[0] {
        panel.style = BarStyle::Dots;
        panel.groups.pop();
    }
    assert!(matches!(error(&chart), ChartError::Bars { num_bars: 2, num_groups: 1, .. }));
    assert!(matches!(Chart::from_json("{\"title\": 3}"), Err(ChartError::Json { .. })));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(200))]
    #[test]
    fn no_values_keep_a_chart_from_being_drawn(
        points in proptest::collection::vec((proptest::num::f64::ANY, proptest::num::f64::ANY), 0..40),
        ends in proptest::num::f64::ANY,
        is_log: bool,
        style in 0..6_usize,
    ) {
        let styles = [Style::Line, Style::Faint, Style::Reference, Style::Points, Style::OpenPoints, Style::Band];
        let piece: Piece = points.iter().copied().collect();
        let high = points.iter().map(|(_, y)| y + ends).collect();
        let low = points.iter().map(|(x, _)| x - ends).collect();
        let pieces = vec![piece.with_ends(low, high)];
        let mut chart = curves(vec![Series { label: "Any".into(), style: styles[style], pieces, ..Series::default() }]);
        chart.x_ranges = points.iter().map(|(x, y)| XRange { from: *x, to: *y, label: "r".into(), color: 3 }).collect();
        if let Panel::Curves(panel) = &mut chart.panels[0] {
            if is_log {
                (panel.x.scale, panel.y.scale) = (Scale::Log, Scale::Log);
            }
            panel.limits = points.iter().map(|(_, y)| Limit { y: *y, label: "l".into() }).collect();
        }
        let mut bars = bars([[1.0; 2]; 2]);
        if let (Panel::Bars(panel), Some((x, y))) = (&mut bars.panels[0], points.first()) {
            panel.contenders[0].bars[0] = Bar::within(*x, *y, ends);
        }
        for chart in [chart, bars] {
            let text = render_svg(&chart, Theme::Dark).unwrap();
            proptest::prop_assert!(!text.contains("NaN") && !text.contains("inf"), "{}", text);
            render_png(&chart, Theme::Dark, 0.5).unwrap();
        }
    }
}
