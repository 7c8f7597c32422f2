//! The window's program: `logic` drains the engine, `ui` lays out the screens.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use eframe::Storage;
use egui::{CentralPanel, Frame, Panel};
use foretrain_engine::session::{Command, Event, RunSnapshot, RunStatus};

use crate::dialogs::Dialogs;
use crate::link::EngineLink;
use crate::shortcuts::{self, Shortcut};
use crate::state::{Catalog, CloseState, Draft, Live, Saved, Screen};
use crate::theme;
use crate::views::{self, Action, SCREENS, ViewCtx};

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
    }

    fn apply_settings(&self, ctx: &egui::Context) {
        let settings = &self.saved.settings;
        ctx.set_theme(settings.theme.preference());
        if (ctx.zoom_factor() - settings.ui_scale).abs() > 0.001 {
            ctx.set_zoom_factor(settings.ui_scale);
        }
    }

    /// Asks before closing while a run goes on; closes once it has ended.
    fn guard_closing(&mut self, ctx: &egui::Context) {
        let wants_close = ctx.input(|input| input.viewport().close_requested());
        let is_running = self.live.is_running();
        match self.live.close {
            CloseState::Open | CloseState::Asking | CloseState::Ending if wants_close && is_running => {
                ctx.send_viewport_cmd(egui::ViewportCommand::CancelClose);
                if self.live.close == CloseState::Open {
                    self.live.close = CloseState::Asking;
                }
            }
            CloseState::Ending if !is_running => {
                self.live.close = CloseState::Closing;
                ctx.send_viewport_cmd(egui::ViewportCommand::Close);
            }
            CloseState::Open | CloseState::Asking | CloseState::Ending | CloseState::Closing => {}
        }
    }

    /// Lays out the whole window and queues what it asks for.
    pub fn window_ui(&mut self, ui: &mut egui::Ui) {
        let Self { link, catalog, saved, live, dialogs, next_job } = self;
        let settings = saved.settings.clone();
        let mut ctx = ViewCtx::new(catalog, &settings, dialogs, next_job);
        ctx.snapshot.clone_from(&live.snapshot);
        ctx.is_busy = link.is_busy();
        if live.close == CloseState::Open {
            for shortcut in shortcuts::pressed(ui.ctx()) {
                press(&ctx, saved, live, shortcut);
            }
        }
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

fn press(ctx: &ViewCtx<'_>, saved: &mut Saved, live: &mut Live, shortcut: Shortcut) {
    match shortcut {
        Shortcut::Start => views::run::start(ctx, live, saved.draft.as_ref()),
        Shortcut::PauseOrResume => match ctx.active_run().map(|run| &run.status) {
            Some(RunStatus::Paused) => ctx.request(Command::Resume),
            Some(RunStatus::Training | RunStatus::Validating) => ctx.request(Command::Pause),
            Some(RunStatus::Preparing { .. } | RunStatus::Ended(_)) | None => {}
        },
        Shortcut::Save => {
            if ctx.active_run().is_some() {
                ctx.request(Command::Save);
            }
        }
        Shortcut::ResetPlots => live.run.reset_plots = true,
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
    views::close_ui(ctx, &mut live.close, ui.ctx());
}

impl eframe::App for App {
    fn logic(&mut self, ctx: &egui::Context, _frame: &mut eframe::Frame) {
        let live = &mut self.live;
        if self.link.drain(|event| live.apply(event)) {
            ctx.request_repaint();
        }
        if self.link.is_attached() {
            self.live.snapshot = self.link.snapshot();
        }
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
            tracing::debug!("{:.0} frames a second, the longest took {:.1} ms", rate.per_second, rate.longest_ms);
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
