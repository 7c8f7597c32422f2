//! Plots move together along x, and y fits what is in view.

use std::cell::Cell;
use std::rc::Rc;

use egui::{Event, Id, Modifiers, PointerButton, Pos2, Rect, pos2, vec2};
use egui_kittest::Harness;
use foretrain::plots::{Curve, CurveStyle, PlotAnswer, PlotView, Readout, Series, plot_card_ui};
use foretrain::theme::DARK;

/// What the two plots of a window answered last.
type Answers = Rc<Cell<[Option<PlotAnswer>; 2]>>;

/// Two linked plots of a loss that falls from 10 to 1 over 1000 steps, and one that is 100 times as large.
struct Plots {
    harness: Harness<'static>,
    answers: Answers,
    reset: Rc<Cell<bool>>,
}

impl Plots {
    fn new() -> Self {
        let answers = Answers::default();
        let reset = Rc::new(Cell::new(false));
        let (told, asked) = (Rc::clone(&answers), Rc::clone(&reset));
        let mut series = [Series::default(), Series::default()];
        for step in 0..=1000 {
            let loss = 1.0 + 9.0 * (1.0 - step as f32 / 1000.0);
            series[0].push(f64::from(step), loss);
            series[1].push(f64::from(step), 100.0 * loss);
        }
        let builder = Harness::builder().with_size(vec2(600.0, 600.0)).with_max_steps(40).with_step_dt(1.0 / 60.0);
        let mut harness = builder.build_ui(move |ui| {
            let reset = asked.take();
            let view = PlotView { link: Id::unique("zoom"), x_name: "steps", x_end: 1000.0, cursor: None, reset };
            let plots = [("First", &series[0]), ("Second", &series[1])];
            told.set(plots.map(|(title, series)| {
                let about = Readout { title, unit: "", about: "", limit: None, is_log: false, height: 200.0 };
                let curve = Curve::new(title, DARK.measured, CurveStyle::Solid, series);
                Some(plot_card_ui(ui, view, about, &[curve], |_| {}))
            }));
        });
        // It comes to rest: no frame asks for another one.
        harness.run();
        Self { harness, answers, reset }
    }

    fn answer(&self, index: usize) -> PlotAnswer {
        self.answers.get()[index].expect("a frame was shown")
    }

    /// Where a step is on the screen, in the middle of the first plot.
    fn at(&self, step: f64) -> Pos2 {
        let PlotAnswer { range: (from, to), pixels: (left, right), rect, .. } = self.answer(0);
        pos2(left + ((step - from) / (to - from)) as f32 * (right - left), rect.bottom() - 100.0)
    }

    fn button(&mut self, pos: Pos2, button: PointerButton, pressed: bool) {
        self.harness.event(Event::PointerButton { pos, button, pressed, modifiers: Modifiers::NONE });
        self.harness.run_steps(1);
    }

    /// Drags in a few moves.
    fn drag(&mut self, from: Pos2, to: Pos2, button: PointerButton) {
        self.harness.hover_at(from);
        self.harness.run_steps(2);
        self.button(from, button, true);
        for part in 1..=4 {
            self.harness.hover_at(from + (to - from) * (part as f32 / 4.0));
            self.harness.run_steps(1);
        }
        self.button(to, button, false);
        self.harness.run();
    }

    fn double_click(&mut self, pos: Pos2) {
        self.harness.hover_at(pos);
        self.harness.run_steps(1);
        for pressed in [true, false, true, false] {
            self.button(pos, PointerButton::Primary, pressed);
        }
        self.harness.run();
    }

    /// The y axis of the first plot.
    fn y_axis(&self) -> Rect {
        let PlotAnswer { pixels: (left, _), rect, .. } = self.answer(0);
        Rect::from_min_max(pos2(left - 40.0, rect.bottom() - 150.0), pos2(left - 5.0, rect.bottom() - 30.0))
    }

    /// Both plots show these steps, and y of each fits its values there.
    #[track_caller]
    fn check_fits(&self, from: f64, to: f64) {
        for (index, scale) in [(0, 1.0), (1, 100.0)] {
            let PlotAnswer { range, y_range, .. } = self.answer(index);
            let least = 0.02 * (to - from);
            assert!((range.0 - from).abs() < least && (range.1 - to).abs() < least, "x of {index}: {range:?}");
            let value = |step: f64| scale * (1.0 + 9.0 * (1.0 - step / 1000.0));
            let (low, high) = (value(to), value(from));
            let room = 0.15 * (high - low);
            assert!(y_range.0 <= low && y_range.0 > low - room, "y of {index}: {y_range:?}, values from {low}");
            assert!(y_range.1 >= high && y_range.1 < high + room, "y of {index}: {y_range:?}, values to {high}");
        }
    }
}

#[test]
fn a_right_drag_zooms_into_a_range_of_steps_whatever_way_the_hand_moves() {
    let mut plots = Plots::new();
    plots.check_fits(0.0, 1000.0);
    let (from, to) = (plots.at(400.0), plots.at(600.0));
    plots.drag(from, to - vec2(0.0, 60.0), PointerButton::Secondary);
    plots.check_fits(400.0, 600.0);
    // And from right to left.
    let (from, to) = (plots.at(550.0), plots.at(450.0));
    plots.drag(from, to, PointerButton::Secondary);
    plots.check_fits(450.0, 550.0);
}

#[test]
fn a_right_click_zooms_nothing() {
    let mut plots = Plots::new();
    let at = plots.at(400.0);
    plots.drag(at, at + vec2(2.0, 30.0), PointerButton::Secondary);
    plots.check_fits(0.0, 1000.0);
}

#[test]
fn control_and_the_wheel_zoom_steps_and_a_drag_moves_along_them() {
    let mut plots = Plots::new();
    let middle = plots.at(500.0);
    plots.harness.hover_at(middle);
    plots.harness.run_steps(2);
    plots.harness.event(Event::Zoom(4.0));
    plots.harness.run();
    plots.check_fits(375.0, 625.0);
    let (from, to) = (plots.at(500.0), plots.at(600.0));
    plots.drag(from, to + vec2(0.0, 40.0), PointerButton::Primary);
    plots.check_fits(275.0, 525.0);
    let middle = plots.at(400.0);
    plots.double_click(middle);
    plots.check_fits(0.0, 1000.0);
}

#[test]
fn y_is_the_users_once_its_axis_was_dragged_until_a_double_click() {
    let mut plots = Plots::new();
    let axis = plots.y_axis();
    plots.drag(axis.center(), axis.center_bottom(), PointerButton::Primary);
    let zoomed = plots.answer(0).y_range;
    assert!(zoomed.1 - zoomed.0 < 8.0, "zoomed in: {zoomed:?}");
    assert!(plots.answer(1).y_range.1 > 900.0, "the other plot keeps its own");
    let x = plots.answer(0).range;
    assert!(x.0.abs() < 1.0 && (x.1 - 1000.0).abs() < 1.0, "x goes on to show everything: {x:?}");
    let (from, to) = (plots.at(400.0), plots.at(600.0));
    plots.drag(from, to, PointerButton::Secondary);
    let kept = plots.answer(0).y_range;
    assert!((kept.0 - zoomed.0).abs() < 1e-6 && (kept.1 - zoomed.1).abs() < 1e-6, "{zoomed:?} became {kept:?}");
    let axis = plots.y_axis();
    plots.double_click(axis.center());
    plots.check_fits(400.0, 600.0);
}

#[test]
fn showing_everything_again_fits_y_too() {
    let mut plots = Plots::new();
    let axis = plots.y_axis();
    plots.drag(axis.center(), axis.center_bottom(), PointerButton::Primary);
    let (from, to) = (plots.at(400.0), plots.at(600.0));
    plots.drag(from, to, PointerButton::Secondary);
    plots.reset.set(true);
    plots.harness.run_steps(1);
    plots.harness.run();
    plots.check_fits(0.0, 1000.0);
}
