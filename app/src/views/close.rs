//! Closing the window while a run goes on.

use egui::{Context, Id, Modal};
use foretrain_engine::session::Command;

use super::{Action, ViewCtx};
use crate::state::CloseState;
use crate::theme::space;
use crate::widgets::number;

/// Asks, then shows how far the end is.
pub fn close_ui(ctx: &ViewCtx<'_>, state: &mut CloseState, egui_ctx: &Context) {
    match *state {
        CloseState::Open | CloseState::Closing => {}
        CloseState::Asking => {
            let modal = Modal::new(Id::unique("close")).show(egui_ctx, |ui| {
                ui.set_width(400.0);
                ui.heading("A run is going on");
                ui.add_space(space::SM);
                ui.label("Stopping saves a checkpoint, so that you can go on from it later.");
                ui.add_space(space::MD);
                ui.horizontal(|ui| {
                    if ui.button("Stop, save and close").clicked() {
                        ctx.request(Command::Stop);
                        *state = CloseState::Ending;
                    }
                    if ui.button("Keep training").clicked() {
                        *state = CloseState::Open;
                    }
                });
            });
            if modal.should_close() && *state == CloseState::Asking {
                *state = CloseState::Open;
            }
            if ctx.active_run().is_none() && *state == CloseState::Asking {
                *state = CloseState::Open;
                ctx.act(Action::Close);
            }
        }
        CloseState::Ending => {
            Modal::new(Id::unique("closing")).show(egui_ctx, |ui| {
                ui.set_width(400.0);
                ui.heading("Saving and closing…");
                ui.add_space(space::SM);
                if let Some(run) = ctx.active_run() {
                    ui.label(format!("Ending the run at step {}.", number::count(run.step)));
                }
                ui.label("The window closes when the checkpoint is on disk.");
            });
        }
    }
}
