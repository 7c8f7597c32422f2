//! How a run is saved: as it goes, and at its end.

use std::path::PathBuf;

use crossbeam_channel::RecvTimeoutError;

use super::{Run, WAIT_INTERVAL};
use crate::data::Dataset;
use crate::export::{CardRecipe, ModelCard, Preprocessing};
use crate::session::checkpoint::{self, Best, CheckpointContent};
use crate::session::outlet::Outlet;
use crate::session::run_view::GAUGE_INTERVAL;
use crate::session::trainer_thread::{Control, Inbox};
use crate::session::{EventKind, LogKind, RunStatus, SessionError, StopReason, ValidationPoint};

impl Run {
    /// Saves the end of a run. When that fails the run waits, so that nothing is lost while the user makes room:
    /// Save or Resume tries again, Stop gives up with the error.
    pub(super) fn end(
        &mut self,
        reason: StopReason,
        inbox: Inbox<'_>,
        outlet: &mut Outlet,
    ) -> Result<StopReason, SessionError> {
        // What was said before concerned the training.
        while inbox.control.try_recv().is_ok() {}
        loop {
            let Err(error) = self.save(outlet) else { return Ok(reason) };
            self.log(LogKind::Warning(error.to_string()));
            loop {
                if outlet.is_due_after(GAUGE_INTERVAL) {
                    self.view.publish(RunStatus::Unsaved { why: error.to_string() }, outlet);
                }
                match inbox.control.recv_timeout(WAIT_INTERVAL) {
                    Ok(Control::Save | Control::Resume) => break,
                    Ok(Control::Pause) | Err(RecvTimeoutError::Timeout) => {}
                    Ok(Control::Stop) | Err(RecvTimeoutError::Disconnected) => return Err(error),
                }
            }
        }
    }

    /// Saves; a failure is a warning, because the run and older checkpoints are intact.
    pub(super) fn save_or_warn(&mut self, outlet: &mut Outlet) {
        if let Err(error) = self.save(outlet) {
            self.log(LogKind::Warning(error.to_string()));
        }
    }

    fn save(&mut self, outlet: &mut Outlet) -> Result<(), SessionError> {
        if self.saved_step == Some(self.view.progress.step) {
            return Ok(());
        }
        let root = self.folder.path().join("checkpoints");
        let content = CheckpointContent {
            trainer: &self.trainer.state()?,
            model: &self.trainer.evaluation_params()?,
            progress: &self.view.progress,
            card: &self.card(),
            tokenizer_json: self.tokenizer_json.as_deref(),
        };
        let path = checkpoint::save(&root, &content)?;
        if let Some(Best { step, .. }) = self.view.progress.best.filter(|best| best.step == self.view.progress.step) {
            checkpoint::mark_best(&root, step)?;
        }
        checkpoint::rotate(&root, self.view.config.keep_last, &self.view.progress);
        self.saved_step = Some(self.view.progress.step);
        self.log(LogKind::Saved(path.clone()));
        outlet.send(self.view.job, EventKind::Saved(path));
        Ok(())
    }

    fn card(&self) -> ModelCard {
        let measured = self.view.validations.last().filter(|point| point.step == self.view.progress.step);
        let measured = measured.map(ValidationPoint::figures);
        ModelCard {
            name: self.view.config.name.clone(),
            model: self.view.config.model.clone(),
            num_params: self.network.num_params() as u64,
            data: self.view.config.data.clone(),
            dataset_name: self.dataset.name().to_owned(),
            preprocessing: Preprocessing::of(&self.dataset),
            split: self.dataset.split().clone(),
            sequence_length: match &*self.dataset {
                Dataset::Images(_) => None,
                Dataset::Text(_) => Some(self.view.config.sequence_length),
            },
            tier: self.view.config.tier.clone(),
            recipe: Some(CardRecipe {
                optimizer: self.view.config.optimizer.clone(),
                batch_size: self.view.config.batch_size,
                seed: self.view.config.seed,
                qat: self.view.config.qat,
                // Where it lay is of no use to others.
                start_from: self.view.config.start_from.as_ref().and_then(|path| path.file_name()).map(PathBuf::from),
            }),
            step: self.view.progress.step,
            num_steps: self.view.config.num_steps,
            trained_for: (self.trainer.quantization_strength() >= 1.0)
                .then_some(self.view.config.qat)
                .flatten()
                .map(|qat| qat.scheme),
            validation_loss: measured.map(|figures| figures.loss),
            validation_accuracy: measured.and_then(|figures| figures.accuracy),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}
