//! The engine as the window and the command line hold it.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use super::outlet::Outlet;
use super::trainer_thread::{self, Control, RunRequest, TrainerJob, Work};
use super::worker::{self, Shelf, WorkerJob};
use super::{Command, Event, JobId, RunSnapshot};
use crate::device::CancelFlag;

/// Called by the engine when there is something new to see; must return at once.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Commands that may wait in a queue before the sender is told to keep them.
const QUEUE_LEN: usize = 64;

/// Events that may wait for the window.
const EVENT_LEN: usize = 1024;

/// Handle on the engine's threads, which end when it is dropped (a run first saves and ends).
#[derive(Debug)]
pub struct Engine {
    runs: Sender<TrainerJob>,
    control: Sender<Control>,
    questions: Sender<WorkerJob>,
    events: Receiver<Event>,
    snapshot: Arc<ArcSwapOption<RunSnapshot>>,
    /// Flags of the worker's jobs; only callers lock it, never an engine thread.
    worker_flags: Mutex<Vec<(JobId, CancelFlag)>>,
    /// Flags of the current and the queued runs; all set by `Stop`.
    run_flags: Mutex<Vec<CancelFlag>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Engine {
    /// Starts the threads. `wake` is called whenever there is something new to see.
    /// `cache` is the folder for generated datasets and trial packages.
    pub fn spawn(wake: Wake, cache: std::path::PathBuf) -> std::io::Result<Self> {
        let (runs, run_receiver) = bounded(QUEUE_LEN);
        let (control, control_receiver) = bounded(QUEUE_LEN);
        let (questions, question_receiver) = bounded(QUEUE_LEN);
        let (event_sender, events) = bounded(EVENT_LEN);
        let snapshot = Arc::new(ArcSwapOption::empty());
        let outlet = || Outlet::new(event_sender.clone(), Arc::clone(&snapshot), Arc::clone(&wake));
        let shelf = Shelf::new(cache);
        let trainer = {
            let (outlet, shelf) = (outlet(), shelf.clone());
            let run = move || trainer_thread::run(&run_receiver, &control_receiver, &shelf, outlet);
            std::thread::Builder::new().name("trainer".to_owned()).spawn(run)?
        };
        let worker = {
            let (outlet, snapshot) = (outlet(), Arc::clone(&snapshot));
            let run = move || worker::run(&question_receiver, &snapshot, &shelf, outlet);
            std::thread::Builder::new().name("worker".to_owned()).spawn(run)?
        };
        let threads = vec![trainer, worker];
        let (worker_flags, run_flags) = (Mutex::default(), Mutex::default());
        Ok(Self { runs, control, questions, events, snapshot, worker_flags, run_flags, threads })
    }

    /// Queues a command without waiting; gives it back when the queue is full or the engine is gone.
    pub fn try_send(&self, command: Command) -> Result<(), Box<Command>> {
        match command {
            Command::Start(job, config) => self.queue_work(job, Work::Run(RunRequest::New(config))),
            Command::ResumeRun(job, folder) => self.queue_work(job, Work::Run(RunRequest::Existing(folder, None))),
            Command::ResumeRunOn(job, folder, device) => {
                self.queue_work(job, Work::Run(RunRequest::Existing(folder, Some(device))))
            }
            Command::Experiment(job, asked) => self.queue_work(job, Work::Experiment(asked)),
            Command::Offload(job, asked) => self.queue_work(job, Work::Offload(asked)),
            Command::BenchTrain(job, plan) => self.queue_work(job, Work::BenchTrain(plan)),
            Command::Pause => queue(&self.control, Control::Pause, |_| Command::Pause),
            Command::Resume => queue(&self.control, Control::Resume, |_| Command::Resume),
            Command::Save => queue(&self.control, Control::Save, |_| Command::Save),
            Command::Stop => {
                self.run_flags.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(CancelFlag::set);
                // Wakes a run that waits; when the queue is full it is awake already.
                let _ = self.control.try_send(Control::Stop);
                Ok(())
            }
            Command::Cancel(job) => {
                let flags = self.worker_flags.lock().unwrap_or_else(PoisonError::into_inner);
                flags.iter().filter(|(id, _)| *id == job).for_each(|(_, flag)| flag.set());
                Ok(())
            }
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
            | Command::DrawChart(job, _) => {
                let cancel = CancelFlag::default();
                let asked = WorkerJob { job, command, cancel: cancel.clone() };
                queue(&self.questions, asked, |asked| asked.command)?;
                let mut flags = self.worker_flags.lock().unwrap_or_else(PoisonError::into_inner);
                // Jobs whose worker side is gone have ended.
                flags.retain(|(_, flag)| flag.is_shared());
                flags.push((job, cancel));
                Ok(())
            }
        }
    }

    /// What happened; bounded, so drain it often.
    #[must_use]
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// The next event, waiting up to `timeout` for it: for a command line, never for a frame.
    #[must_use]
    pub fn wait_event(&self, timeout: std::time::Duration) -> Option<Event> {
        self.events.recv_timeout(timeout).ok()
    }

    /// The current run as it is now, or the last one as it ended; lock-free.
    #[must_use]
    pub fn snapshot(&self) -> Option<Arc<RunSnapshot>> {
        self.snapshot.load_full()
    }

    fn queue_work(&self, job: JobId, work: Work) -> Result<(), Box<Command>> {
        let cancel = CancelFlag::default();
        let asked = TrainerJob { job, work, cancel: cancel.clone() };
        queue(&self.runs, asked, |asked| match asked.work {
            Work::Run(RunRequest::New(config)) => Command::Start(asked.job, config),
            Work::Run(RunRequest::Existing(folder, None)) => Command::ResumeRun(asked.job, folder),
            Work::Run(RunRequest::Existing(folder, Some(device))) => Command::ResumeRunOn(asked.job, folder, device),
            Work::Experiment(experiment) => Command::Experiment(asked.job, experiment),
            Work::Offload(offload) => Command::Offload(asked.job, offload),
            Work::BenchTrain(plan) => Command::BenchTrain(asked.job, plan),
        })?;
        let mut flags = self.run_flags.lock().unwrap_or_else(PoisonError::into_inner);
        flags.retain(CancelFlag::is_shared);
        flags.push(cancel);
        Ok(())
    }

    /// Ends the threads, waiting for a current run to save: for a program's end, never for a frame.
    pub fn shut_down(self) {
        let Self { runs, control, questions, worker_flags, run_flags, threads, .. } = self;
        run_flags.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(CancelFlag::set);
        worker_flags.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|(_, flag)| flag.set());
        drop((runs, control, questions));
        for thread in threads {
            // A panic on an engine thread was caught and reported there.
            let _ = thread.join();
        }
    }
}

fn queue<T>(sender: &Sender<T>, item: T, back: impl FnOnce(T) -> Command) -> Result<(), Box<Command>> {
    sender.try_send(item).map_err(|error| match error {
        TrySendError::Full(item) | TrySendError::Disconnected(item) => Box::new(back(item)),
    })
}
