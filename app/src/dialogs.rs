//! The system's file dialogs, on their own thread: a frame never waits for one.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A dialog that ends sooner than this without a path was never seen: nobody cancels so fast. Without a desktop
/// portal and without zenity the system answers as if the user had cancelled.
const LEAST_VISIBLE: Duration = Duration::from_millis(300);

/// What a dialog offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PickKind {
    /// An existing file.
    File,
    /// A folder.
    Folder,
    /// An existing file or a folder. No system has one dialog for both, so a field offers two.
    FileOrFolder,
}

/// What became of a dialog.
#[derive(Debug, Clone)]
struct Picked {
    /// `None` when it was closed, or never opened.
    path: Option<PathBuf>,
    /// From its start to its end.
    took: Duration,
}

/// A dialog that is open, and the slot its thread fills.
#[derive(Debug)]
struct Open {
    salt: String,
    answer: Arc<OnceLock<Picked>>,
}

/// Dialogs that are open; at most one for each field.
#[derive(Debug, Default)]
pub struct Dialogs {
    open: RefCell<Vec<Open>>,
    /// Fields whose last dialog never came up.
    silent: RefCell<BTreeSet<String>>,
}

impl Dialogs {
    /// Opens a dialog for the field `salt`, unless it has one; for `FileOrFolder`, the one for files.
    pub fn open(&self, ctx: &egui::Context, salt: &str, what: &str, kind: PickKind) {
        let mut open = self.open.borrow_mut();
        if open.iter().any(|dialog| dialog.salt == salt) {
            return;
        }
        self.silent.borrow_mut().remove(salt);
        let answer = Arc::new(OnceLock::new());
        let (slot, ctx, title) = (answer.clone(), ctx.clone(), format!("Choose {what}"));
        let spawned = std::thread::Builder::new().name("file-dialog".to_owned()).spawn(move || {
            let begun = Instant::now();
            let path = pick(title, kind);
            // The slot is this thread's alone to fill.
            let _ = slot.set(Picked { path, took: begun.elapsed() });
            ctx.request_repaint();
        });
        match spawned {
            Ok(_) => open.push(Open { salt: salt.to_owned(), answer }),
            Err(error) => {
                tracing::warn!("opening a file dialog: {error}");
                self.silent.borrow_mut().insert(salt.to_owned());
            }
        }
    }

    /// The path picked for the field `salt`, once.
    pub fn take(&self, salt: &str) -> Option<PathBuf> {
        let mut open = self.open.borrow_mut();
        let index = open.iter().position(|dialog| dialog.salt == salt && dialog.answer.get().is_some())?;
        let picked = open.swap_remove(index).answer.get().cloned()?;
        if picked.path.is_none() && picked.took < LEAST_VISIBLE {
            self.silent.borrow_mut().insert(salt.to_owned());
        }
        picked.path
    }

    /// True when the last dialog of the field `salt` never came up, until another one or a path does.
    #[must_use]
    pub fn is_silent(&self, salt: &str) -> bool {
        self.silent.borrow().contains(salt)
    }

    /// Forgets that: the field has a path.
    pub fn settle(&self, salt: &str) {
        self.silent.borrow_mut().remove(salt);
    }
}

/// Shows the dialog and waits for its end.
fn pick(title: String, kind: PickKind) -> Option<PathBuf> {
    let dialog = rfd::FileDialog::new().set_title(title);
    match kind {
        PickKind::File | PickKind::FileOrFolder => dialog.pick_file(),
        PickKind::Folder => dialog.pick_folder(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dialogs whose only one, for the field "data", has just ended.
    fn ended(path: Option<&str>, took_ms: u64) -> Dialogs {
        let picked = Picked { path: path.map(PathBuf::from), took: Duration::from_millis(took_ms) };
        let dialogs = Dialogs::default();
        let open = Open { salt: "data".to_owned(), answer: Arc::new(OnceLock::from(picked)) };
        dialogs.open.borrow_mut().push(open);
        dialogs
    }

    #[test]
    fn a_dialog_that_never_came_up_is_told_from_a_cancelled_one() {
        for (path, took_ms, is_silent) in [(None, 20, true), (None, 2_000, false), (Some("/data"), 20, false)] {
            let dialogs = ended(path, took_ms);
            assert_eq!(dialogs.take("elsewhere"), None);
            assert_eq!(dialogs.take("data"), path.map(PathBuf::from));
            assert_eq!(dialogs.is_silent("data"), is_silent, "{path:?} after {took_ms} ms");
            assert_eq!(dialogs.take("data"), None, "an answer is given once");
            dialogs.settle("data");
            assert!(!dialogs.is_silent("data"));
        }
    }
}
