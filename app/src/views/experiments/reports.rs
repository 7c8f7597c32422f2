//! Reports of past experiments, to open again.

use std::sync::Arc;

use egui::text::{LayoutJob, TextFormat};
use egui::{Button, FontId, Ui, vec2};
use foretrain_engine::session::{Command, ReportSummary};

use crate::state::{ExperimentsLive, Live};
use crate::theme::{font, palette, space};
use crate::views::{ViewCtx, job_ui};
use crate::widgets::{Icon, Severity, card_ui, hint_ui, icon_button_ui, notice_ui, number};

/// Asks for the reports when the folder is another one, or an experiment ended since the last time.
pub(super) fn keep_reports_fresh(ctx: &ViewCtx<'_>, live: &mut ExperimentsLive) {
    let wanted = (ctx.settings.reports_folder_path(), live.num_ended);
    if live.reports_seen.as_ref() != Some(&wanted) && !live.reports.is_waiting() {
        live.reports.ask(ctx, |job| Command::ListReports(job, wanted.0.clone()));
        live.reports_seen = Some(wanted);
    }
}

/// Shows them.
pub(super) fn reports_ui(ctx: &ViewCtx<'_>, live: &mut Live, ui: &mut Ui) {
    let experiments = &mut live.experiments;
    card_ui(ui, "Past reports", |ui| {
        ui.horizontal(|ui| {
            if icon_button_ui(ui, Icon::Refresh, "Read the reports again").clicked() {
                experiments.reports_seen = None;
            }
            hint_ui(ui, &ctx.settings.reports_folder_path().display().to_string());
        });
        if experiments.reports.answer().is_none() || experiments.reports.failure().is_some() {
            job_ui(ctx, "Reading the reports", &mut experiments.reports, ui);
        }
        job_ui(ctx, "Opening the report", &mut experiments.opening, ui);
        let reports = experiments.reports.answer().cloned().unwrap_or_default();
        if reports.is_empty() && !experiments.reports.is_waiting() {
            hint_ui(ui, "None yet: each experiment that is measured to its end leaves one here.");
        }
        for report in &reports {
            match &report.problem {
                Some(problem) => notice_ui(ui, Severity::Warning, &format!("{}: {problem}", report.title), |_| {}),
                None => row_ui(ctx, report, experiments, ui),
            }
        }
    });
}

fn row_ui(ctx: &ViewCtx<'_>, report: &ReportSummary, live: &mut ExperimentsLive, ui: &mut Ui) {
    let p = palette(ui);
    let is_race = live.run.is_waiting() && !live.is_report_wanted;
    let is_on = !is_race && live.report.as_ref().is_some_and(|shown| shown.folder == report.folder);
    let name = report.folder.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let mut text = LayoutJob::default();
    let format = |size: f32, color| TextFormat { font_id: FontId::proportional(size), color, ..TextFormat::default() };
    text.append(&report.title, 0.0, format(font::BODY, p.text_strong));
    let about = format!("\n{} · took {}\n{name}", report.day, number::seconds(report.seconds));
    text.append(&about, 0.0, format(font::SMALL, p.text_weak));
    let button = Button::selectable(is_on, text).wrap().min_size(vec2(ui.available_width(), 0.0));
    let row = ui.add(button).accessible_name(format!("Open report {name}"));
    ui.add_space(space::XS);
    if !row.on_hover_text(report.folder.display().to_string()).clicked() {
        return;
    }
    live.is_report_wanted = true;
    if live.report.as_ref().is_none_or(|shown: &Arc<_>| shown.folder != report.folder) {
        live.opening.ask(ctx, |job| Command::OpenReport(job, report.folder.clone()));
    }
}
