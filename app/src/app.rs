//! The window's program: `logic` drains the engine, `ui` lays out the screens.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use eframe::Storage;
use egui::{CentralPanel, Frame, Panel};
use foretrain_engine::session::{Command, Event, RunSnapshot};

use crate::dialogs::Dialogs;
use crate::link::EngineLink;
use crate::shortcuts::{self, Place, Shortcut};
use crate::state::{Catalog, CloseState, Draft, Live, Machine, Saved, Screen};
use crate::theme;
use crate::views::{self, Action, SCREENS, ViewCtx};
use crate::widgets::FollowFocus;

const SAVED_KEY: &str = "saved";
const DRAFT_KEY: &str = "draft";

/// The studio.
#[derive(Debug)]
pub struct App {
    link: EngineLink,
    catalog: Catalog,
    saved: Saved,
    live: Live,
    dialogs: Dialogs,
    next_job: Cell<u64>,
}

impl App {
    /// The studio over `link`, with what `storage` remembers.
    #[must_use]
    pub fn new(ctx: &egui::Context, storage: Option<&dyn Storage>, link: EngineLink, catalog: Catalog) -> Self {
        theme::apply(ctx);
        ctx.add_plugin(FollowFocus::default());
        // The scale is a setting; egui's own keys would change it behind our back, and one of them means another thing.
        ctx.options_mut(|options| options.zoom_with_keyboard = false);
        let mut saved: Saved = storage.and_then(|storage| eframe::get_value(storage, SAVED_KEY)).unwrap_or_default();
        // A draft of another version is dropped, and only the draft.
        let draft = storage.and_then(|storage| eframe::get_value::<Draft>(storage, DRAFT_KEY));
        saved.draft = draft.filter(|draft| catalog.recipe(&draft.recipe).is_some());
        if saved.draft.is_none() {
            saved.draft = catalog.recipes.first().map(Draft::of);
        }
        let app =
            Self { link, catalog, saved, live: Live::default(), dialogs: Dialogs::default(), next_job: Cell::new(1) };
        app.apply_settings(ctx);
        app
    }

    /// With what was read of the machine; without it, one that is the same everywhere.
    #[must_use]
    pub fn with_machine(mut self, machine: Machine) -> Self {
        self.live.machine = machine;
        self
    }

    /// What is saved, for tests and tools that set the stage.
    pub fn saved_mut(&mut self) -> &mut Saved {
        &mut self.saved
    }

    /// What is saved.
    #[must_use]
    pub fn saved(&self) -> &Saved {
        &self.saved
    }

    /// What is not saved.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// What is not saved, for tests that set the stage.
    pub fn live_mut(&mut self) -> &mut Live {
        &mut self.live
    }

    /// The link to the engine.
    #[must_use]
    pub fn link(&self) -> &EngineLink {
        &self.link
    }

    /// Forgets the commands that no engine took and gives them out.
    pub fn take_pending(&mut self) -> Vec<Command> {
        self.link.take_pending()
    }

    /// Shows `run`; for a link without an engine.
    pub fn show_snapshot(&mut self, run: Arc<RunSnapshot>) {
        self.live.snapshot = Some(run);
    }

    /// Takes an answer as if it came from the engine; for a link without one.
    pub fn apply_event(&mut self, event: &Event) {
        self.live.apply(event);
        note_measured(&mut self.saved, &mut self.live);
    }

    fn apply_settings(&self, ctx: &egui::Context) {
        let settings = &self.saved.settings;
        ctx.set_theme(settings.theme.preference());
        if (ctx.zoom_factor() - settings.ui_scale).abs() > 0.001 {
            ctx.set_zoom_factor(settings.ui_scale);
        }
    }

    /// Asks before closing while work goes on; closes once it has ended, unless a run could not be saved.
    fn guard_closing(&mut self, ctx: &egui::Context) {
        let live = &mut self.live;
        let has_run = live.is_running();
        let is_busy = has_run || !live.jobs_under_way().is_empty();
        match live.close {
            CloseState::Asking { has_run } | CloseState::Ending { has_run, .. } if !is_busy => {
                if has_run && live.loss_of_run().is_some() {
                    live.close = CloseState::Lost;
                } else {
                    live.close = CloseState::Closing;
                    ctx.send_viewport_cmd(egui::ViewportCommand::Close);
                }
            }
            CloseState::Open
            | CloseState::Asking { .. }
            | CloseState::Ending { .. }
            | CloseState::Lost
            | CloseState::Closing => {}
        }
        let must_stay = match live.close {
            CloseState::Open | CloseState::Asking { .. } | CloseState::Ending { .. } => is_busy,
            CloseState::Lost => true,
            CloseState::Closing => false,
        };
        if must_stay && ctx.input(|input| input.viewport().close_requested()) {
            ctx.send_viewport_cmd(egui::ViewportCommand::CancelClose);
            if live.close == CloseState::Open {
                live.close = CloseState::Asking { has_run };
            }
        }
    }

    /// Lays out the whole window and queues what it asks for.
    pub fn window_ui(&mut self, ui: &mut egui::Ui) {
        let Self { link, catalog, saved, live, dialogs, next_job } = self;
        let settings = saved.settings.clone();
        let mut ctx = ViewCtx::new(catalog, &settings, dialogs, next_job);
        ctx.snapshot.clone_from(&live.snapshot);
        ctx.zone.clone_from(&live.machine.zone);
        ctx.is_busy = link.is_busy();
        if live.close == CloseState::Open {
            let place = Place { screen: saved.screen, is_covered: live.is_help_open || is_asking(saved.screen, live) };
            for shortcut in shortcuts::pressed(ui.ctx(), place) {
                press(&ctx, saved, live, shortcut);
            }
        }
        views::doubt_runs(saved.screen, live, ui.ctx());
        screens_ui(&ctx, saved, live, ui);
        let (requests, actions) = ctx.into_parts();
        for action in actions {
            match action {
                Action::Show(screen) => saved.screen = screen,
                Action::Close => ui.ctx().send_viewport_cmd(egui::ViewportCommand::Close),
            }
        }
        link.send(requests);
        self.apply_settings(ui.ctx());
    }
}

/// What an experiment measured outlives the window.
fn note_measured(saved: &mut Saved, live: &mut Live) {
    if let Some((recipe, figures)) = live.experiments.measured.take() {
        saved.tier_lock.note(recipe, figures);
    }
}

/// True while a dialog covers `screen`.
fn is_asking(screen: Screen, live: &Live) -> bool {
    match screen {
        Screen::Run => live.run.is_resume_open || live.run.resume_asked.is_some(),
        Screen::Ship => live.ship.asked.is_some(),
        Screen::Data | Screen::Compare | Screen::Try | Screen::Settings => false,
    }
}

fn press(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, shortcut: Shortcut) {
    match shortcut {
        Shortcut::Start => {
            // Where its progress is shown, and why it fails.
            saved.screen = Screen::Run;
            views::run::start(ctx, live, saved);
        }
        Shortcut::PauseOrResume => views::run::pause_or_resume(ctx, live),
        Shortcut::Save => views::run::save(ctx, live),
        Shortcut::ResetPlots if saved.screen == Screen::Compare => {
            live.compare.reset_plots = true;
            live.experiments.shown_curves.clear();
        }
        Shortcut::ResetPlots => live.run.reset_plots = true,
        Shortcut::Enlarge => saved.settings.enlarge(),
        Shortcut::Reduce => saved.settings.reduce(),
        Shortcut::Screen(index) => {
            if let Some(entry) = SCREENS.get(index) {
                saved.screen = entry.screen;
            }
        }
        Shortcut::Help => live.is_help_open = !live.is_help_open,
    }
}

fn screens_ui(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, ui: &mut egui::Ui) {
    let p = theme::palette(ui);
    Panel::left("navigation")
        .exact_size(theme::size::RAIL)
        .resizable(false)
        .show_separator_line(false)
        .frame(Frame::new().fill(p.base))
        .show(ui, |ui| views::navigation_ui(ctx, saved.screen, &mut live.is_help_open, ui));
    CentralPanel::no_frame().frame(Frame::new().fill(p.base)).show(ui, |ui| match saved.screen {
        Screen::Run => views::run::run_ui(ctx, saved, live, ui),
        Screen::Data => views::data_ui(ctx, saved, live, ui),
        Screen::Compare => views::compare_ui(ctx, saved, live, ui),
        Screen::Ship => views::ship_ui(ctx, saved, live, ui),
        Screen::Try => views::trial_ui(ctx, saved, live, ui),
        Screen::Settings => views::settings_ui(ctx, saved, live, ui),
    });
    views::help_ui(&mut live.is_help_open, ui.ctx());
    views::close_ui(ctx, live, ui.ctx());
}

impl eframe::App for App {
    fn logic(&mut self, ctx: &egui::Context, _frame: &mut eframe::Frame) {
        let live = &mut self.live;
        if self.link.drain(|event| live.apply(event)) {
            ctx.request_repaint();
        }
        note_measured(&mut self.saved, &mut self.live);
        if self.link.is_attached() {
            self.live.snapshot = self.link.snapshot();
        }
        self.live.settle_requests();
        self.link.send(Vec::new());
        if self.link.is_busy() {
            // The engine wakes us when something happened, not when its queue has room again.
            ctx.request_repaint_after(Duration::from_millis(100));
        }
        self.guard_closing(ctx);
    }

    fn ui(&mut self, ui: &mut egui::Ui, frame: &mut eframe::Frame) {
        let took = frame.info().cpu_usage.map(Duration::from_secs_f32);
        if let Some(rate) = self.live.frames.count(ui.input(|input| input.time), took) {
            tracing::debug!("{rate}");
        }
        self.window_ui(ui);
    }

    fn save(&mut self, storage: &mut dyn Storage) {
        eframe::set_value(storage, SAVED_KEY, &self.saved);
        if let Some(draft) = &self.saved.draft {
            eframe::set_value(storage, DRAFT_KEY, draft);
        }
    }
}
