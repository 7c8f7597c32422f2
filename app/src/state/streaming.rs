//! Where the weights of a run lie, and what the form then asks of the engine.

use std::path::PathBuf;

use foretrain_engine::models::ops::Kept;
use foretrain_engine::offload::{Commit, Precision};
use foretrain_engine::optim::{StatePlace, StatePrecision};
use foretrain_engine::session::{OffloadBatches, OffloadEnding, OffloadGoal, OffloadJob, RunConfig, slug};
use serde::{Deserialize, Serialize};

use super::{Draft, Settings};

/// Weights that lie on disk and go through memory block by block.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Streaming {
    /// They do.
    pub is_on: bool,
    /// Folder of the blocks; empty takes [`Streaming::default_folder`].
    pub folder: String,
    /// How numbers lie there.
    pub precision: Precision,
    /// What of a broken step counts; `None` decides by the disk's room.
    pub commit: Option<Commit>,
}

impl Streaming {
    /// Where blocks of a run with this name go when nobody says.
    #[must_use]
    pub fn default_folder(name: &str, settings: &Settings) -> PathBuf {
        settings.runs_folder_path().join("streamed").join(slug(name))
    }
}

/// What a form asks the engine for.
#[derive(Debug, Clone, PartialEq)]
pub enum Wanted {
    /// A run in memory.
    Run(Box<RunConfig>),
    /// A run whose weights lie on disk.
    Streamed(Box<OffloadJob>),
}

impl Wanted {
    /// Its recipe.
    #[must_use]
    pub fn config(&self) -> &RunConfig {
        match self {
            Self::Run(config) => config,
            Self::Streamed(job) => &job.config,
        }
    }

    /// True when both need the same; what runs are called does not matter.
    #[must_use]
    pub fn needs_what(&self, other: &Self) -> bool {
        let name = || self.config().name.clone();
        match other.clone() {
            Self::Run(config) => *self == Self::Run(Box::new(RunConfig { name: name(), ..*config })),
            Self::Streamed(job) => {
                let config = RunConfig { name: name(), ..job.config.clone() };
                *self == Self::Streamed(Box::new(OffloadJob { config, ..*job }))
            }
        }
    }
}

impl Draft {
    /// True when the form asks for weights on disk; those of models of images stay in memory.
    #[must_use]
    pub fn is_streamed(&self) -> bool {
        self.streaming.is_on && !self.data.kind.holds_images()
    }

    /// What the form describes, or what it lacks.
    pub fn wanted(&self, settings: &Settings) -> Result<Wanted, String> {
        if !self.is_streamed() {
            return Ok(Wanted::Run(Box::new(self.run_config(settings)?)));
        }
        let mut whole = self.clone();
        whole.config.num_micro_batches = 1;
        let config = whole.run_config(settings)?;
        let typed = self.streaming.folder.trim();
        let folder =
            if typed.is_empty() { Streaming::default_folder(&config.name, settings) } else { PathBuf::from(typed) };
        let folder = std::path::absolute(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut config = config;
        // What saves memory otherwise has no part in it: each block is computed again on its way back.
        config.kept = Kept::Activations;
        (config.optimizer.states, config.optimizer.state_place) = (StatePrecision::F32, StatePlace::WithWeights);
        Ok(Wanted::Streamed(Box::new(OffloadJob {
            config,
            folder,
            precision: self.streaming.precision,
            commit: self.streaming.commit,
            batches: OffloadBatches::Data,
            goal: OffloadGoal::Train,
            ending: OffloadEnding::Model,
        })))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use foretrain_engine::device::ComputeDevice;

    use super::*;
    use crate::state::{Catalog, DataKind};

    #[test]
    fn weights_on_disk_take_a_folder_and_leave_out_what_is_of_no_use_there() {
        let catalog = Catalog::load();
        let mut draft = Draft::of(catalog.recipe("grammar-gpt2-char").unwrap());
        let settings = Settings { runs_folder: "/runs".to_owned(), device: ComputeDevice::Auto, ..Settings::default() };
        assert!(matches!(draft.wanted(&settings), Ok(Wanted::Run(_))));
        draft.streaming.is_on = true;
        draft.config.name = "Seven Billion".to_owned();
        // Seven parts cut no batch of 32.
        (draft.config.num_micro_batches, draft.config.kept) = (7, Kept::Input);
        let Ok(Wanted::Streamed(job)) = draft.wanted(&settings) else { panic!("expected weights on disk") };
        assert_eq!(job.folder, PathBuf::from("/runs/streamed/seven-billion"));
        let config = &job.config;
        // The settings say where it computes, as of any run.
        assert_eq!((config.device, config.num_micro_batches, config.kept), (ComputeDevice::Auto, 1, Kept::Activations));
        draft.streaming.folder = " /big/disk ".to_owned();
        let Ok(Wanted::Streamed(job)) = draft.wanted(&settings) else { panic!("expected weights on disk") };
        assert_eq!(job.folder, PathBuf::from("/big/disk"));
        // Images fit into memory.
        draft.data.kind = DataKind::Glyphs;
        assert!(!draft.is_streamed());
    }

    #[test]
    fn a_name_changes_no_need_but_a_folder_does() {
        let catalog = Catalog::load();
        let mut draft = Draft::of(catalog.recipe("grammar-gpt2-char").unwrap());
        (draft.streaming.is_on, draft.streaming.folder) = (true, "/a".to_owned());
        let settings = Settings::default();
        let before = draft.wanted(&settings).unwrap();
        draft.config.name = "another".to_owned();
        assert!(before.needs_what(&draft.wanted(&settings).unwrap()));
        draft.streaming.folder = "/b".to_owned();
        assert!(!before.needs_what(&draft.wanted(&settings).unwrap()));
    }
}
