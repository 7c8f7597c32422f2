//! The model that a screen works on: a run saves better checkpoints while one looks at the results of an older one.

use std::path::Path;
use std::sync::Arc;

use foretrain_engine::session::ModelReport;

/// What became of the results when the engine said what a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldChange {
    /// They stand: the model is the same, or a newer one waits.
    Kept,
    /// Another path was chosen: they are about something else.
    Replaced,
}

/// The model that results are about, and a newer checkpoint of the same path, until the user takes it.
#[derive(Debug, Clone, Default)]
pub struct HeldModel {
    model: Option<Arc<ModelReport>>,
    newer: Option<Arc<ModelReport>>,
}

impl HeldModel {
    /// Takes what the chosen path leads to now. A newer checkpoint of the same path waits while `has_results`, and is
    /// taken at once otherwise.
    pub fn see(&mut self, found: &Arc<ModelReport>, has_results: bool) -> HeldChange {
        let change = match &self.model {
            Some(held) if held.input != found.input => HeldChange::Replaced,
            Some(held) if held.folder != found.folder && has_results => {
                self.newer = Some(Arc::clone(found));
                return HeldChange::Kept;
            }
            Some(_) | None => HeldChange::Kept,
        };
        *self = Self { model: Some(Arc::clone(found)), newer: None };
        change
    }

    /// The model to work on, as long as `path` is still chosen.
    #[must_use]
    pub fn of(&self, path: &str) -> Option<&Arc<ModelReport>> {
        self.model.as_ref().filter(|model| model.input == Path::new(path.trim()))
    }

    /// The steps of the model held and of the newer checkpoint, where there is one.
    #[must_use]
    pub fn steps(&self) -> Option<(u64, u64)> {
        Some((self.model.as_ref()?.card.step, self.newer.as_ref()?.card.step))
    }

    /// Goes on with the newer checkpoint, if there is one; results of the other no longer belong.
    pub fn take_newer(&mut self) {
        if let Some(newer) = self.newer.take() {
            self.model = Some(newer);
        }
    }
}
