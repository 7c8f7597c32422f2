//! The link to the engine: the only file in app that touches a channel.

use std::collections::VecDeque;
use std::sync::Arc;

use foretrain_engine::session::{Command, Engine, Event, JobId, RunSnapshot};

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

    /// Queues `commands` and sends what the engine takes; the rest stays, in order. What has no room keeps back only
    /// what must come after it: a run can be stopped while questions wait.
    pub fn send(&mut self, commands: Vec<Command>) {
        self.pending.extend(commands);
        let Some(engine) = &self.engine else { return };
        self.pending = send_each(std::mem::take(&mut self.pending), |command| engine.try_send(command));
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

/// Tries each command in order and returns those that must wait, in order.
fn send_each(
    commands: VecDeque<Command>,
    mut try_send: impl FnMut(Command) -> Result<(), Box<Command>>,
) -> VecDeque<Command> {
    let mut kept = VecDeque::new();
    for command in commands {
        if kept.iter().any(|earlier| must_follow(&command, earlier)) {
            kept.push_back(command);
        } else if let Err(command) = try_send(command) {
            kept.push_back(*command);
        }
    }
    kept
}

/// True when `command` would mean something else, or nothing, before `earlier`.
fn must_follow(command: &Command, earlier: &Command) -> bool {
    match (kind_of(command), kind_of(earlier)) {
        (CommandKind::Run, CommandKind::Run)
        | (CommandKind::Control | CommandKind::Stop, CommandKind::Run)
        | (CommandKind::Control, CommandKind::Control)
        | (CommandKind::Question(_), CommandKind::Question(_)) => true,
        (CommandKind::Cancel(job), CommandKind::Question(asked)) => job == asked,
        (CommandKind::Run | CommandKind::Control | CommandKind::Stop | CommandKind::Cancel(_), _)
        | (CommandKind::Question(_), _) => false,
    }
}

/// What a command acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CommandKind {
    /// Begins a run.
    Run,
    /// Steers the run in progress.
    Control,
    /// Ends it.
    Stop,
    /// Asks the worker.
    Question(JobId),
    /// Ends a question.
    Cancel(JobId),
}

fn kind_of(command: &Command) -> CommandKind {
    match command {
        Command::Start(..)
        | Command::ResumeRun(..)
        | Command::ResumeRunOn(..)
        | Command::Experiment(..)
        | Command::Offload(..)
        | Command::BenchTrain(..) => CommandKind::Run,
        Command::Pause | Command::Resume | Command::Save => CommandKind::Control,
        Command::Stop => CommandKind::Stop,
        Command::Cancel(job) => CommandKind::Cancel(*job),
        Command::Inspect(job, _)
        | Command::Plan(job, _)
        | Command::PlanOffload(job, ..)
        | Command::Quantize(job, _)
        | Command::Export(job, _)
        | Command::Infer(job, _)
        | Command::ListRuns(job, _)
        | Command::OpenRun(job, _)
        | Command::Describe(job, _)
        | Command::ReadImage(job, _)
        | Command::ListReports(job, _)
        | Command::OpenReport(job, _)
        | Command::DrawChart(job, _) => CommandKind::Question(*job),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(job: u64) -> Command {
        Command::ListRuns(JobId(job), "/runs".into())
    }

    fn resume_run(job: u64) -> Command {
        Command::ResumeRun(JobId(job), "/runs/a".into())
    }

    /// What is sent and what is kept of `commands` when the queues in `full` have no room.
    fn sent_and_kept(commands: &[Command], full: &[fn(&Command) -> bool]) -> (Vec<Command>, Vec<Command>) {
        let mut sent = Vec::new();
        let kept = send_each(commands.iter().cloned().collect(), |command| {
            if full.iter().any(|is_full| is_full(&command)) {
                return Err(Box::new(command));
            }
            sent.push(command);
            Ok(())
        });
        (sent, kept.into())
    }

    fn is_question(command: &Command) -> bool {
        matches!(kind_of(command), CommandKind::Question(_))
    }

    fn is_run(command: &Command) -> bool {
        kind_of(command) == CommandKind::Run
    }

    #[test]
    fn what_steers_a_run_goes_past_questions_that_wait() {
        let steering = [Command::Pause, Command::Resume, Command::Save, Command::Stop, Command::Cancel(JobId(9))];
        let mut commands = vec![ask(1), ask(2)];
        commands.extend(steering.clone());
        let (sent, kept) = sent_and_kept(&commands, &[is_question]);
        assert_eq!((sent.as_slice(), kept.as_slice()), (&steering[..], &[ask(1), ask(2)][..]));
    }

    #[test]
    fn nothing_goes_past_what_it_is_about() {
        let cancel = Command::Cancel(JobId(1));
        let (sent, kept) = sent_and_kept(&[ask(1), cancel.clone()], &[is_question]);
        assert_eq!((sent, kept), (vec![], vec![ask(1), cancel]), "a question that is not asked cannot be cancelled");
        let commands = [resume_run(1), Command::Stop, ask(2)];
        let (sent, kept) = sent_and_kept(&commands, &[is_run]);
        assert_eq!((sent, kept), (vec![ask(2)], vec![resume_run(1), Command::Stop]), "nor a run that did not begin");
    }

    #[test]
    fn with_room_everything_goes_in_order() {
        let commands = [ask(1), resume_run(2), Command::Pause, ask(3)];
        assert_eq!(sent_and_kept(&commands, &[]), (commands.to_vec(), vec![]));
    }
}
