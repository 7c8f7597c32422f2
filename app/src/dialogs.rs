//! The system's file dialogs, on their own thread: a frame never waits for one.

use std::cell::RefCell;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

/// What a dialog offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PickKind {
    /// An existing file.
    File,
    /// A folder.
    Folder,
    /// A place for a new file with this ending.
    NewFile(&'static str),
}

/// A dialog that is open, and the slot its thread fills; `None` inside means that the user closed it.
#[derive(Debug)]
struct Open {
    salt: String,
    answer: Arc<OnceLock<Option<PathBuf>>>,
}

/// Dialogs that are open; at most one for each field.
#[derive(Debug, Default)]
pub struct Dialogs {
    open: RefCell<Vec<Open>>,
}

impl Dialogs {
    /// Opens a dialog for the field `salt`, unless it has one.
    pub fn open(&self, ctx: &egui::Context, salt: &str, what: &str, kind: PickKind) {
        let mut open = self.open.borrow_mut();
        if open.iter().any(|dialog| dialog.salt == salt) {
            return;
        }
        let answer = Arc::new(OnceLock::new());
        let (slot, ctx, title) = (answer.clone(), ctx.clone(), format!("Choose {what}"));
        let spawned = std::thread::Builder::new().name("file-dialog".to_owned()).spawn(move || {
            let dialog = rfd::FileDialog::new().set_title(title);
            let picked = match kind {
                PickKind::File => dialog.pick_file(),
                PickKind::Folder => dialog.pick_folder(),
                PickKind::NewFile(ending) => dialog.add_filter(ending, &[ending]).save_file(),
            };
            // The slot is this thread's alone to fill.
            let _ = slot.set(picked);
            ctx.request_repaint();
        });
        match spawned {
            Ok(_) => open.push(Open { salt: salt.to_owned(), answer }),
            Err(error) => tracing::warn!("opening a file dialog: {error}. Type the path instead"),
        }
    }

    /// The path picked for the field `salt`, once.
    pub fn take(&self, salt: &str) -> Option<PathBuf> {
        let mut open = self.open.borrow_mut();
        let index = open.iter().position(|dialog| dialog.salt == salt && dialog.answer.get().is_some())?;
        open.swap_remove(index).answer.get().cloned().flatten()
    }
}
