//! A run that is killed at any moment goes on from its last checkpoint and ends bit for bit like one that never was.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use foretrain_tests::{DEADLINE, TestEngine, small_config, write_idx};

/// Steps of each run; checkpoints every 25.
const NUM_STEPS: &str = "240";

fn train_command(data: &Path, runs: &Path, states: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foretrain-under-test"));
    command.args(["train", "--preset", "glyphs-mlp", "--steps", NUM_STEPS, "--batch-size", "64", "--threads", "1"]);
    // `auto`, the tier's own strategy, decides by step times that each run measures at its start: two runs of one seed may
    // differ, though each goes on as it would have.
    command.args(["--strategy", "importance", "--optimizer-states", states]);
    command.args(["--validation-interval", "40", "--checkpoint-interval", "25", "--seed", "3"]);
    command.arg("--data").arg(data).arg("--runs").arg(runs).stdin(Stdio::null()).stderr(Stdio::null());
    command.stdout(Stdio::null());
    command
}

fn resume_command(run: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foretrain-under-test"));
    command.args(["train", "--resume"]).arg(run).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The only run below `runs`, once it is there.
fn run_folder(runs: &Path) -> Option<PathBuf> {
    std::fs::read_dir(runs).ok()?.flatten().map(|entry| entry.path()).find(|path| path.join("config.ron").exists())
}

fn num_rows(run: &Path) -> usize {
    std::fs::read(run.join("metrics.jsonl")).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count())
}

fn num_checkpoints(run: &Path) -> usize {
    let entries = std::fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().join("COMPLETE").exists()).count()
}

/// Kills the process once its run has a checkpoint and `rows` metrics; returns false when it ended before.
fn kill_at(child: &mut Child, runs: &Path, rows: usize) -> bool {
    let started = Instant::now();
    loop {
        let is_there = run_folder(runs).is_some_and(|run| num_checkpoints(&run) > 0 && num_rows(&run) >= rows);
        if is_there {
            // SIGKILL: the process gets no chance to save.
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(started.elapsed() < DEADLINE, "the run does not get anywhere");
        std::thread::yield_now();
    }
}

#[test]
fn a_killed_run_resumes_bit_for_bit() {
    check_killed("f32");
}

#[test]
fn states_of_8_bits_resume_bit_for_bit() {
    check_killed("8bit");
}

/// Kills a run several times and compares it with one that never was; `states`: of its optimizer.
#[track_caller]
fn check_killed(states: &str) {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    write_idx(&data, 2_000, 200);

    let unbroken = folder.path().join("unbroken");
    assert!(train_command(&data, &unbroken, states).status().unwrap().success());

    let broken = folder.path().join("broken");
    let mut child = train_command(&data, &broken, states).spawn().unwrap();
    let mut num_kills = 0;
    for rows in [60, 110, 190] {
        if !kill_at(&mut child, &broken, rows) {
            break;
        }
        num_kills += 1;
        child = resume_command(&run_folder(&broken).unwrap()).spawn().unwrap();
    }
    assert!(child.wait().unwrap().success());
    assert!(num_kills > 0, "the run ended before it could be killed");

    let last = format!("checkpoints/step-{:08}", NUM_STEPS.parse::<u64>().unwrap());
    let (unbroken, broken) = (run_folder(&unbroken).unwrap(), run_folder(&broken).unwrap());
    for file in ["model.safetensors", "trainer.safetensors", "trainer.json"] {
        let read = |run: &Path| std::fs::read(run.join(&last).join(file)).unwrap();
        assert!(read(&unbroken) == read(&broken), "{file} differs after {num_kills} kills");
    }
    // Every step once, in order, although some were done twice.
    let steps = |run: &Path| -> Vec<u64> {
        let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        let row = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap();
        text.lines().map(row).collect()
    };
    assert_eq!(steps(&unbroken), steps(&broken));
}

#[test]
fn a_checkpoint_without_its_marker_does_not_count() {
    use foretrain_engine::session::{Command, EventKind};
    let mut test = TestEngine::default();
    let (data, runs) = (test.sub("data"), test.sub("runs"));
    write_idx(&data, 500, 100);
    let mut config = small_config(&data, &runs);
    config.num_steps = 30;
    let run = test.train(config);
    for entry in std::fs::read_dir(run.join("checkpoints")).unwrap().flatten() {
        let _ = std::fs::remove_file(entry.path().join("COMPLETE"));
    }
    let job = test.send(|job| Command::ResumeRun(job, run));
    let message =
        test.wait(job, |kind| if let EventKind::Rejected(failure) = kind { Some(failure.message) } else { None });
    assert!(message.contains("no complete checkpoint"), "{message}");
}
