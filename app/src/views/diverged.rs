//! What to know of a run that diverged before one goes on with it.

use egui::{Context, Id, Modal, Ui};
use foretrain_engine::session::{GuardEnd, ModelReport, RunSummary, StopReason};

use crate::theme::space;
use crate::widgets::{Severity, notice_ui, number};

/// Width of the question.
const WIDTH: f32 = 460.0;

/// What resuming a diverged run does.
const RESUMING: &str = "Resuming goes on from those weights in the Full phase, with the learning rate as low as the \
    guard has cut it. It may diverge again: a new run with a lower learning rate is the safer choice.";

/// The warning beside a run to resume; `None` for one that did not diverge.
#[must_use]
pub fn resume_warning(run: &RunSummary) -> Option<String> {
    (run.ended == Some(StopReason::Diverged)).then(|| format!("{} {RESUMING}", what_happened(run.guard_end.as_ref())))
}

/// The warning beside a model to quantize, export or try; `None` for one whose run did not diverge.
#[must_use]
pub fn model_warning(model: &ModelReport) -> Option<String> {
    let end = model.guard_end.as_ref()?;
    let step = number::count(model.card.step);
    Some(format!(
        "{} This is its checkpoint of step {step}. Look at what it measures before you rely on it.",
        what_happened(Some(end))
    ))
}

/// What the guard saw and did.
fn what_happened(end: Option<&GuardEnd>) -> String {
    let Some(GuardEnd { step, divergence, restored_step }) = end else {
        return "This run diverged and was ended with its last good weights.".to_owned();
    };
    let weights = match restored_step {
        Some(0) => "its initial weights".to_owned(),
        Some(step) => format!("its last good weights, of step {}", number::count(*step)),
        None => "its last good weights".to_owned(),
    };
    format!("This run diverged at step {}: {divergence}. It was ended with {weights}.", number::count(*step))
}

/// What was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// Nothing yet.
    NotYet,
    /// Go on.
    Yes,
    /// Leave it.
    No,
}

/// Asks before something is done with a run that diverged: "Resume", "Export".
pub fn ask_ui(ctx: &Context, what: &str, warning: &str) -> Answered {
    let modal = Modal::new(Id::unique("diverged")).show(ctx, |ui| {
        ui.set_width(WIDTH);
        ui.heading(format!("{what} a run that diverged?"));
        ui.add_space(space::SM);
        notice_ui(ui, Severity::Warning, warning, |_| {});
        ui.add_space(space::MD);
        answers_ui(what, ui)
    });
    if modal.inner == Answered::NotYet && modal.should_close() { Answered::No } else { modal.inner }
}

fn answers_ui(what: &str, ui: &mut Ui) -> Answered {
    ui.horizontal(|ui| {
        let is_yes = ui.button(format!("{what} anyway")).clicked();
        let is_no = ui.button("Not now").clicked();
        match (is_yes, is_no) {
            (true, _) => Answered::Yes,
            (false, true) => Answered::No,
            (false, false) => Answered::NotYet,
        }
    })
    .inner
}

#[cfg(test)]
mod tests {
    use foretrain_engine::hybrid::{Divergence, DivergenceKind};

    use super::*;

    #[test]
    fn what_happened_is_told_with_its_figures() {
        let divergence = Divergence { kind: DivergenceKind::LossSpike, value: 6.5, limit: 4.0 };
        let end = GuardEnd { step: 1_612, divergence, restored_step: Some(580) };
        assert_eq!(
            what_happened(Some(&end)),
            "This run diverged at step 1,612: loss spike (6.500 against a limit of 4.000). It was ended with its last \
             good weights, of step 580."
        );
    }
}
