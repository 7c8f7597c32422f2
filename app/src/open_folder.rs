//! Shows a folder in the system's file manager, on a thread of its own: a frame waits for no process.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};

/// The program that opens a folder here.
#[cfg(target_os = "linux")]
const OPENER: &str = "xdg-open";
#[cfg(target_os = "macos")]
const OPENER: &str = "open";
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
const OPENER: &str = "explorer";

/// A folder being opened, and why it could not be, once its thread knows.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The folder.
    pub folder: PathBuf,
    failure: Arc<OnceLock<String>>,
}

impl Opening {
    /// Why the folder did not come up.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }
}

/// Asks the system to show `folder`.
pub fn open_folder(ctx: &egui::Context, folder: &Path) -> Opening {
    let opening = Opening { folder: folder.to_owned(), failure: Arc::default() };
    let (slot, ctx, wanted) = (opening.clone(), ctx.clone(), folder.to_owned());
    let spawned = std::thread::Builder::new().name("open-folder".to_owned()).spawn(move || {
        if let Err(why) = open(OPENER, &wanted) {
            // The slot is this thread's alone to fill.
            let _ = slot.failure.set(why);
            ctx.request_repaint();
        }
    });
    if let Err(error) = spawned {
        let _ = opening.failure.set(format!("starting a thread to open the folder: {error}"));
    }
    opening
}

fn open(opener: &str, folder: &Path) -> Result<(), String> {
    let command =
        Command::new(opener).arg(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    match command {
        Ok(status) if status.success() => Ok(()),
        // It answers 1 whether it opened the folder or not.
        Ok(_) if opener == "explorer" => Ok(()),
        Ok(status) => Err(format!("{opener} could not open the folder ({status}). Its path: {}", folder.display())),
        Err(error) => Err(format!("{opener}: {error}. The folder's path: {}", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_the_path_to_go_to() {
        let why = open("no-such-opener", Path::new("/reports/one")).err().unwrap_or_default();
        assert!(why.contains("no-such-opener") && why.contains("/reports/one"), "{why}");
    }
}
