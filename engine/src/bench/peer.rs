//! PyTorch, in a process of its own: it gets our weights and our batch, and steps when it is asked to.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use candle_core::Tensor;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use serde::{Deserialize, Serialize};

use super::BenchError;
use super::case::Case;
use super::measure::{Prepared, Tell};
use super::turn::Turn;
use crate::data::Batch;
use crate::device::{Watch, resolved_num_threads};
use crate::models::ops::Precision;

/// What the peer runs.
const SCRIPT: &str = include_str!("torch_peer.py");

/// What pip is asked for.
pub const TORCH_REQUIREMENT: &str = "torch>=2.6";

/// Looks at the cancel flag this often while the other side computes.
const POLL: Duration = Duration::from_millis(50);

/// Relative difference of a first loss that another order of sums explains in f32.
const LOSS_TOLERANCE: f64 = 1e-4;

/// The same for bf16, which has 8 bits of precision.
const LOSS_TOLERANCE_BF16: f64 = 0.02;

/// A way of computing with PyTorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TorchVariant {
    /// f32, operation by operation.
    Eager,
    /// f32, with `torch.compile`.
    Compile,
    /// As `Eager`, with matrix products in bf16 (autocast).
    EagerBf16,
    /// As `Compile`, with matrix products in bf16 (autocast).
    CompileBf16,
}

impl TorchVariant {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Eager, Self::Compile, Self::EagerBf16, Self::CompileBf16];

    /// The name to show and to type.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Eager => "eager",
            Self::Compile => "compile",
            Self::EagerBf16 => "eager-bf16",
            Self::CompileBf16 => "compile-bf16",
        }
    }

    /// The way called `label`.
    #[must_use]
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|variant| variant.label() == label)
    }

    /// How far its loss may be from ours, computed in `ours`.
    fn tolerance(self, ours: Precision) -> f64 {
        match (self, ours) {
            (Self::Eager | Self::Compile, Precision::F32) => LOSS_TOLERANCE,
            (Self::Eager | Self::Compile, Precision::Bf16 | Precision::F16)
            | (Self::EagerBf16 | Self::CompileBf16, _) => LOSS_TOLERANCE_BF16,
        }
    }
}

/// Where PyTorch comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerPython {
    /// This Python has it.
    Given(PathBuf),
    /// A virtual environment in this folder, made where it is not there yet: several GB from the package registry.
    InstalledIn(PathBuf),
}

/// PyTorch to compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerPlan {
    /// Where it comes from.
    pub python: PeerPython,
    /// Ways of computing.
    pub variants: Vec<TorchVariant>,
}

/// The process; ends when this is dropped.
#[derive(Debug)]
pub(super) struct Peer {
    child: Child,
    /// `None` once it was told to end.
    requests: Option<ChildStdin>,
    answers: Receiver<std::io::Result<String>>,
    python: PathBuf,
    version: String,
    variants: Vec<TorchVariant>,
}

/// A line to the process.
#[derive(Debug, Serialize)]
#[serde(tag = "do", rename_all = "snake_case")]
enum Request<'a> {
    /// Read these weights and this batch, and step once: answers the loss before the step.
    Prepare { variant: &'static str, config: &'a crate::models::ModelConfig, file: &'a Path },
    /// Step for so long, at least twice.
    Turn { variant: &'static str, seconds: f64 },
    /// Forget all models.
    Release,
}

/// A line from it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reply {
    Ready { version: String },
    Prepared { loss: f64 },
    Turned { step_ms: Vec<f64>, processor_ms: f64 },
    Released,
    Failed(String),
}

impl Peer {
    /// Starts Python with `num_threads` threads, installing PyTorch first where the plan asks for that.
    /// Errors: [`BenchError::Install`], [`BenchError::Peer`], cancelled.
    pub fn start(plan: &PeerPlan, num_threads: usize, watch: Watch<'_>) -> Result<Self, BenchError> {
        let python = match &plan.python {
            PeerPython::Given(python) => python.clone(),
            PeerPython::InstalledIn(folder) => install(folder, watch)?,
        };
        watch.step("starting PyTorch", 0, None)?;
        let threads = resolved_num_threads(num_threads).to_string();
        let fault = |problem: String| BenchError::Peer { python: python.clone(), problem };
        let mut child = Command::new(&python)
            .args(["-c", SCRIPT, &threads])
            .env("OMP_NUM_THREADS", &threads)
            // Threads that wait must not take the cores from the side whose turn it is.
            .env("OMP_WAIT_POLICY", "passive")
            .env("CUDA_VISIBLE_DEVICES", "")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| fault(format!("it does not start: {error}")))?;
        let (Some(requests), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(fault("it has no input or output".to_owned()));
        };
        let (sender, answers) = crossbeam_channel::unbounded();
        // Ends with the process's output, and so with the process.
        std::thread::Builder::new()
            .name("torch-reader".to_owned())
            .spawn(move || BufReader::new(output).lines().try_for_each(|line| sender.send(line)))
            .map_err(|error| fault(format!("no thread reads it: {error}")))?;
        let variants = plan.variants.clone();
        let mut peer = Self { child, requests: Some(requests), answers, python, version: String::new(), variants };
        match peer.answer(watch)? {
            Reply::Ready { version } => peer.version = version,
            other => return Err(peer.strange(&other)),
        }
        Ok(peer)
    }

    pub fn version(&self) -> &str {
        &self.version
    }

    /// Hands over `case`'s weights and `batch`; the first loss of each way of computing, or why it cannot be had.
    /// Errors: [`BenchError::Differs`] when such a loss is not `ours`.
    pub fn prepare(
        &mut self,
        case: &Case,
        batch: &Batch,
        ours: f64,
        (watch, tell): (Watch<'_>, Tell<'_>),
        scratch: &Path,
    ) -> Result<Prepared, BenchError> {
        let file = scratch.join(format!("foretrain-bench-{}.safetensors", std::process::id()));
        write(case, batch, &file)?;
        let prepared = self.prepare_all(case, ours, (watch, tell), &file);
        let removed = std::fs::remove_file(&file);
        let prepared = prepared?;
        removed.map_err(|source| BenchError::File { what: "deleting", path: file, source })?;
        Ok(prepared)
    }

    fn prepare_all(
        &mut self,
        case: &Case,
        ours: f64,
        (watch, tell): (Watch<'_>, Tell<'_>),
        file: &Path,
    ) -> Result<Prepared, BenchError> {
        let mut prepared = Prepared::new();
        for variant in self.variants.clone() {
            tell(&format!("PyTorch {} takes its first step", variant.label()))?;
            let request = Request::Prepare { variant: variant.label(), config: case.config(), file };
            let outcome = match self.ask(&request, watch)? {
                Reply::Prepared { loss } => {
                    let tolerance = variant.tolerance(case.precision()) * ours.abs().max(1.0);

                    if loss.is_nan() || (loss - ours).abs() > tolerance {
                        let (model, variant) = (case.model.label(), variant.label());
                        return Err(BenchError::Differs { model, variant, ours, theirs: loss, tolerance });
                    }
                    Ok(loss)
                }
                Reply::Failed(why) => Err(why),
                other => return Err(self.strange(&other)),
            };
            prepared.push((variant, outcome));
        }
        Ok(prepared)
    }

    /// A turn of steps.
    pub fn turn(&mut self, variant: TorchVariant, seconds: f64, watch: Watch<'_>) -> Result<Turn, BenchError> {
        match self.ask(&Request::Turn { variant: variant.label(), seconds }, watch)? {
            Reply::Turned { step_ms, processor_ms } if !step_ms.is_empty() => {
                Ok(Turn { step_ms, processor_ms: Some(processor_ms) })
            }
            other => Err(self.strange(&other)),
        }
    }

    /// Frees its memory.
    pub fn release(&mut self, watch: Watch<'_>) -> Result<(), BenchError> {
        match self.ask(&Request::Release, watch)? {
            Reply::Released => Ok(()),
            other => Err(self.strange(&other)),
        }
    }

    fn ask(&mut self, request: &Request<'_>, watch: Watch<'_>) -> Result<Reply, BenchError> {
        let python = self.python.clone();
        let fault = move |problem: String| BenchError::Peer { python, problem };
        let line = serde_json::to_string(request).map_err(|error| fault.clone()(error.to_string()))?;
        let requests = self.requests.as_mut().ok_or_else(|| fault.clone()("it was told to end".to_owned()))?;
        writeln!(requests, "{line}")
            .and_then(|()| requests.flush())
            .map_err(|error| fault(format!("it takes no request: {error}")))?;
        self.answer(watch)
    }

    fn answer(&mut self, watch: Watch<'_>) -> Result<Reply, BenchError> {
        let line = loop {
            watch.check()?;
            match self.answers.recv_timeout(POLL) {
                Ok(line) => break line,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(self.fault("it ended".to_owned())),
            }
        };
        let line = line.map_err(|error| self.fault(format!("reading its answer: {error}")))?;
        serde_json::from_str(&line).map_err(|error| self.fault(format!("{error} in its answer {line:?}")))
    }

    fn strange(&self, reply: &Reply) -> BenchError {
        match reply {
            Reply::Failed(why) => self.fault(why.clone()),
            other => self.fault(format!("found an answer to another question: {other:?}")),
        }
    }

    fn fault(&self, problem: String) -> BenchError {
        BenchError::Peer { python: self.python.clone(), problem }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It may be in the middle of a long step; nothing of it is worth waiting for.
        drop(self.requests.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Weights under their names, and the batch as "inputs" and "targets" (ids and classes as i64).
fn write(case: &Case, batch: &Batch, file: &Path) -> Result<(), BenchError> {
    let weights = case.weights();
    let ids = |tensor: &Tensor| tensor.to_dtype(candle_core::DType::I64);
    let inputs = if case.model.unit() == "tokens" { ids(&batch.inputs)? } else { batch.inputs.clone() };
    let batch = [("inputs".to_owned(), inputs), ("targets".to_owned(), ids(&batch.targets)?)];
    let named = weights.iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())).chain(batch);
    safetensors::serialize_to_file(named, None, file).map_err(|error| BenchError::File {
        what: "writing",
        path: file.to_owned(),
        source: std::io::Error::other(error),
    })
}

/// The environment's Python, with PyTorch.
fn install(folder: &Path, watch: Watch<'_>) -> Result<PathBuf, BenchError> {
    let python = folder.join(if cfg!(windows) { "Scripts/python.exe" } else { "bin/python" });
    let done = folder.join("torch-is-here");
    if done.exists() && python.exists() {
        return Ok(python);
    }
    watch.step("making a Python environment for PyTorch", 0, None)?;
    let base = if cfg!(windows) { "python" } else { "python3" };
    let log = folder.with_extension("log");
    run(Command::new(base).args(["-m", "venv"]).arg(folder), &log, watch)?;
    watch.step("installing PyTorch from the package registry, several GB", 0, None)?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", TORCH_REQUIREMENT];
    run(Command::new(&python).args(pip), &log, watch)?;
    std::fs::write(&done, []).map_err(|source| BenchError::File { what: "writing", path: done, source })?;
    Ok(python)
}

/// Runs a command to its end, its complaints going into `log`; ends it when cancelled. Errors: [`BenchError::Install`].
fn run(command: &mut Command, log: &Path, watch: Watch<'_>) -> Result<(), BenchError> {
    let words = std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_string_lossy());
    let tried = words.collect::<Vec<_>>().join(" ");
    let fault = |problem: String| BenchError::Install { tried: tried.clone(), problem };
    let file = |source| BenchError::File { what: "writing", path: log.to_owned(), source };
    log.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(file)?;
    let errors = std::fs::File::create(log).map_err(file)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .map_err(|error| fault(format!("it does not start: {error}")))?;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| fault(error.to_string()))? {
            break status;
        }
        if let Err(cancelled) = watch.check() {
            let _ = child.kill();
            let _ = child.wait();
            return Err(cancelled.into());
        }
        std::thread::sleep(POLL);
    };
    if status.success() {
        return Ok(());
    }
    let said = std::fs::read_to_string(log).unwrap_or_default();
    let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(fault(format!("it ended with {status}: {last} (all of it: {})", log.display())))
}
