//! At every scale of the desktop, on a large and on a common screen, texts have their room.

use egui::Rect;
use egui::epaint::{ClippedShape, Shape, TextShape};
use egui_kittest::kittest::Queryable;
use foretrain::theme::ThemeChoice;
use foretrain_engine::session::RunStatus;

use crate::scene::{self, Window, show};

/// Pixels.
const SCREENS: [[f32; 2]; 2] = [[1480.0, 920.0], [1280.0, 800.0]];

/// Pixels of a point.
const SCALES: [f32; 4] = [1.0, 1.25, 1.5, 2.0];

/// The window as it fills `screen` at `scale`.
fn window_at(screen: [f32; 2], scale: f32) -> Window {
    let mut harness = scene::window_of([screen[0] / scale, screen[1] / scale], ThemeChoice::Dark);
    harness.set_pixels_per_point(scale);
    harness.run_steps(4);
    harness
}

/// A text as it is drawn, and what of the window it may be drawn into.
#[derive(Debug)]
struct Drawn {
    text: String,
    rect: Rect,
    clip: Rect,
}

fn texts_of(shape: &Shape, clip: Rect, found: &mut Vec<Drawn>) {
    match shape {
        Shape::Vec(shapes) => shapes.iter().for_each(|shape| texts_of(shape, clip, found)),
        // The names of folded panels stand upright.
        Shape::Text(text) if text.angle == 0.0 && !text.galley.text().trim().is_empty() => {
            let rect = text.galley.mesh_bounds.translate(text.pos.to_vec2());
            found.push(Drawn { text: text.galley.text().to_owned(), rect, clip });
        }
        _ => {}
    }
}

/// All texts that are in view, as far as they are.
fn texts(harness: &Window) -> Vec<Drawn> {
    let mut found = Vec::new();
    for ClippedShape { clip_rect, shape, .. } in &harness.output().shapes {
        texts_of(shape, *clip_rect, &mut found);
    }
    found.retain(|drawn| drawn.rect.intersect(drawn.clip).is_positive());
    found
}

/// No text is cut at its left or right, none lies over another. Lists may cut their first and last line.
#[track_caller]
fn check_texts(harness: &Window, about: &str) {
    let found = texts(harness);
    assert!(found.len() > 20, "{about}: only {} texts", found.len());
    for Drawn { text, rect, clip } in &found {
        let is_whole = rect.left() >= clip.left() - 1.0 && rect.right() <= clip.right() + 1.0;
        assert!(is_whole, "{about}: {text:?} at {rect} is cut by {clip}");
    }
    for (index, one) in found.iter().enumerate() {
        for other in &found[index + 1..] {
            let both = one.rect.intersect(one.clip).intersect(other.rect.intersect(other.clip));
            // Letters of neighbouring lines may touch.
            let is_over = both.width() > 1.0 && both.height() > 2.0;
            assert!(!is_over, "{about}: {:?} at {} lies over {:?} at {}", one.text, one.rect, other.text, other.rect);
        }
    }
}

#[test]
fn nothing_is_cut_or_lies_over_another_at_any_scale() {
    for screen in SCREENS {
        for scale in SCALES {
            let mut harness = window_at(screen, scale);
            let about = format!("{screen:?} at {scale}");
            check_texts(&harness, &format!("welcome, {about}"));
            show(&mut harness, scene::snapshot(900, RunStatus::Training));
            harness.run_steps(6);
            check_texts(&harness, &about);
            for panel in ["Show the recipe", "Show events and samples"] {
                if harness.query_by_label(panel).is_some() {
                    harness.get_by_label(panel).click();
                    harness.run_steps(30);
                }
            }
            check_texts(&harness, &format!("all open, {about}"));
        }
    }
}

#[test]
fn a_long_event_goes_on_in_the_next_line() {
    let text = "Full to Predict: the gate was open for 20 steps (ρ 0.06) and the forecaster is confident (0.97)";
    for screen in SCREENS {
        for scale in SCALES {
            let mut harness = window_at(screen, scale);
            show(&mut harness, scene::snapshot(900, RunStatus::Training));
            harness.run_steps(6);
            if harness.query_by_label("Show events and samples").is_some() {
                harness.get_by_label("Show events and samples").click();
                harness.run_steps(30);
            }
            let shown = harness.query_all_by_label(text).count();
            assert!(shown >= 1, "{screen:?} at {scale}");
        }
    }
}

/// Whether a galley ends in an ellipsis.
fn is_elided(shape: &Shape) -> Vec<String> {
    match shape {
        Shape::Vec(shapes) => shapes.iter().flat_map(is_elided).collect(),
        Shape::Text(TextShape { galley, .. }) if galley.elided => vec![galley.text().to_owned()],
        _ => Vec::new(),
    }
}

#[test]
fn legends_and_events_are_not_shortened() {
    for screen in SCREENS {
        for scale in SCALES {
            let mut harness = window_at(screen, scale);
            show(&mut harness, scene::snapshot(900, RunStatus::Training));
            harness.run_steps(6);
            let elided: Vec<String> =
                harness.output().shapes.iter().flat_map(|clipped| is_elided(&clipped.shape)).collect();
            for name in ["Measured", "Smoothed", "Forecast", "Validation", "Oscillation", "Predict", "Full to"] {
                let cut = elided.iter().find(|text| text.contains(name));
                assert_eq!(cut, None, "{screen:?} at {scale}");
            }
        }
    }
}

#[test]
fn events_and_samples_take_turns_where_there_is_no_room_for_both() {
    let mut harness = window_at(SCREENS[0], 1.5);
    show(&mut harness, scene::snapshot(900, RunStatus::Training));
    harness.run_steps(6);
    assert!(harness.query_by_label("Sample of 3, predicted 3").is_none());
    harness.get_by_label("Samples").click();
    harness.run_steps(4);
    assert!(harness.query_all_by_label("Sample of 3, predicted 3").count() >= 1);
    check_texts(&harness, "samples");
    harness.get_by_label("Events").click();
    harness.run_steps(4);
    harness.get_by_label("Filter events");
}
