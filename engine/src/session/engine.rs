//! The engine as the window and the command line hold it.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::{Command, Event, RunSnapshot};

/// Called by the engine when there is something new to see; must return at once.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Handle on the engine's threads. Dropping it does not end a run; `Command::Stop` does.
#[derive(Debug)]
pub struct Engine {
    commands: Sender<Command>,
    events: Receiver<Event>,
    snapshot: Arc<ArcSwapOption<RunSnapshot>>,
}

impl Engine {
    /// Queues a command without waiting; gives it back when the queue is full or the engine is gone.
    pub fn try_send(&self, command: Command) -> Result<(), Box<Command>> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(command) | TrySendError::Disconnected(command) => Box::new(command),
        })
    }

    /// What happened since the last call's end; bounded, so drain it often.
    #[must_use]
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// The current run as it is now, or the last one as it ended; lock-free.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<RunSnapshot>> {
        self.snapshot.load_full()
    }
}
