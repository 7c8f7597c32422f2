//! The link to the engine: the only file in app that touches a channel.

use std::collections::VecDeque;
use std::sync::Arc;

use foretrain_engine::session::{Command, Engine, Event, RunSnapshot};

/// Most events taken in one frame; the rest waits for the next.
const MAX_EVENTS: usize = 256;

/// Commands out, events and snapshots in. Never waits.
#[derive(Debug, Default)]
pub struct EngineLink {
    /// `None` in tests: commands stay pending, to be looked at.
    engine: Option<Engine>,
    pending: VecDeque<Command>,
    is_busy: bool,
}

impl EngineLink {
    /// A link to `engine`.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { engine: Some(engine), ..Self::default() }
    }

    /// A link to nothing.
    #[must_use]
    pub fn detached() -> Self {
        Self::default()
    }

    /// Takes what happened since the last call; true when there may be more.
    pub fn drain(&self, mut apply: impl FnMut(&Event)) -> bool {
        let Some(engine) = &self.engine else { return false };
        let mut num_taken = 0;
        for event in engine.events().try_iter().take(MAX_EVENTS) {
            apply(&event);
            num_taken += 1;
        }
        num_taken == MAX_EVENTS
    }

    /// The run as it is now; `None` before the first one, and without an engine.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<RunSnapshot>> {
        self.engine.as_ref().and_then(Engine::snapshot)
    }

    /// Queues `commands` and sends what the engine takes; the rest stays, in order.
    pub fn send(&mut self, commands: Vec<Command>) {
        self.pending.extend(commands);
        let Some(engine) = &self.engine else { return };
        while let Some(command) = self.pending.pop_front() {
            if let Err(command) = engine.try_send(command) {
                self.pending.push_front(*command);
                break;
            }
        }
        self.is_busy = !self.pending.is_empty();
    }

    /// True while commands wait for the engine to take them.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }

    /// Commands not taken yet.
    #[must_use]
    pub fn pending(&self) -> &VecDeque<Command> {
        &self.pending
    }

    /// Forgets the commands not taken yet and gives them out.
    pub fn take_pending(&mut self) -> Vec<Command> {
        self.pending.drain(..).collect()
    }

    /// True with an engine behind it.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        self.engine.is_some()
    }
}
