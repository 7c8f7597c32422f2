//! Streamed training as a user has it: killed at any moment, on a disk that fills up or goes away, and its model used.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use foretrain_engine::device::has_cuda;
use foretrain_tests::DEADLINE;
use serde_json::Value;

/// A text in which each word decides the next.
fn write_text(folder: &Path) -> PathBuf {
    let words = ["one ", "wolf ", "saw ", "seven ", "goats ", "and ", "ran. "];
    let text: String = (0..3000).map(|i| words[(i * i + i / 7) % words.len()]).collect();
    let path = folder.join("wolf.txt");
    std::fs::write(&path, text).unwrap();
    path
}

/// A training of `num_steps` steps with blocks in `folder`, in its own home.
fn train(text: &Path, folder: &Path, num_steps: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foretrain-under-test"));
    command.args(["train", "--preset", "shakespeare-gpt2-char", "--batch-size", "2", "--sequence-length", "24"]);
    command.args(["--steps", num_steps, "--threads", "1", "--json"]).args(more);
    command.arg("--data").arg(text).arg("--offload").arg(folder).env("HOME", text.parent().unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[track_caller]
fn finished(command: Command) -> Value {
    told(command).0
}

/// What a training that must end well tells programs, and people.
#[track_caller]
fn told(mut command: Command) -> (Value, String) {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = std::str::from_utf8(&output.stdout).unwrap();
    (serde_json::from_str(text.lines().last().unwrap()).unwrap(), stderr(&output))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn num_rows(folder: &Path) -> usize {
    std::fs::read(folder.join("metrics.jsonl")).map_or(0, |bytes| bytes.iter().filter(|&&byte| byte == b'\n').count())
}

/// Returns once this many steps are done; false when the process ended before.
fn wait_for_rows(child: &mut Child, folder: &Path, rows: usize) -> bool {
    let started = Instant::now();
    while num_rows(folder) < rows {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        assert!(started.elapsed() < DEADLINE, "the training does not get anywhere");
        std::thread::yield_now();
    }
    true
}

/// Kills the process within the step that follows; SIGKILL gives it no chance to save.
fn kill_within_a_step(mut child: Child, folder: &Path, rows: usize, delay: Duration) -> bool {
    if !wait_for_rows(&mut child, folder, rows) {
        return false;
    }
    let seen = Instant::now();
    while seen.elapsed() < delay {
        std::thread::yield_now();
    }
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

/// Names and bytes of all blocks.
fn blocks(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(folder.join("blocks")).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let mut blocks: Vec<_> = entries.map(|path| (name(&path), std::fs::read(&path).unwrap())).collect();
    blocks.sort();
    blocks
}

/// The step in each block's header.
fn steps_of_blocks(folder: &Path) -> Vec<u64> {
    let header = |(_, bytes): (String, Vec<u8>)| serde_json::from_slice::<Value>(&bytes[..4096]).unwrap();
    blocks(folder).into_iter().map(|block| header(block)["step"].as_u64().unwrap()).collect()
}

/// Kills a training again and again in the middle of steps, then lets it end. Returns how often it was killed.
fn broken(text: &Path, folder: &Path, commit: &str) -> u32 {
    let mut num_kills = 0;
    for round in 0..14_u64 {
        let child = train(text, folder, "40", &["--offload-commit", commit]).spawn().unwrap();
        // Up to the length of a step, which is some tens of milliseconds.
        let delay = Duration::from_millis(round * 37 % 41);
        num_kills += u32::from(kill_within_a_step(child, folder, num_rows(folder) + 1, delay));
    }
    finished(train(text, folder, "40", &["--offload-commit", commit]));
    num_kills
}

#[test]
fn killed_in_the_middle_of_steps_it_ends_like_one_that_was_not() {
    let root = tempfile::tempdir().unwrap();
    let text = write_text(root.path());
    let (whole, folder) = (root.path().join("whole"), root.path().join("broken"));
    let report = finished(train(&text, &whole, "40", &["--offload-commit", "step"]));
    assert_eq!((&report["offload"]["step"], &report["offload"]["commit"]), (&40.into(), &"Step".into()));
    let num_kills = broken(&text, &folder, "step");
    assert!(num_kills >= 7, "{num_kills}");
    assert!(blocks(&whole) == blocks(&folder), "bit for bit");
    let model = |folder: &Path| std::fs::read(folder.join("model/model.safetensors")).unwrap();
    assert!(model(&whole) == model(&folder));
}

#[test]
fn killed_between_blocks_it_gives_each_block_every_step() {
    let root = tempfile::tempdir().unwrap();
    let text = write_text(root.path());
    let folder = root.path().join("broken");
    let num_kills = broken(&text, &folder, "block");
    assert!(num_kills >= 7, "{num_kills}");
    assert_eq!(steps_of_blocks(&folder), vec![40; 6]);
    let rows = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let loss = |row: &Value| row["loss"].as_f64().unwrap();
    assert!(loss(rows.last().unwrap()) < 0.8 * loss(&rows[0]), "{rows:?}");
}

#[test]
fn it_says_first_what_it_takes_and_its_model_goes_on_in_memory_and_from_disk() {
    let root = tempfile::tempdir().unwrap();
    let text = write_text(root.path());
    let folder = root.path().join("blocks");
    let plan = finished(train(&text, &folder, "30", &["--plan"]));
    let planned = &plan["offload"];
    assert!(planned["step_seconds"].as_f64().unwrap() > 0.0 && !folder.exists(), "{plan}");
    assert!(planned["costs"].as_array().unwrap().len() == 4 && planned["num_steps_left"] == 30, "{plan}");
    let bytes = |value: &Value| value.as_u64().unwrap();
    assert!(bytes(&planned["disk"]["needed_bytes"]) > bytes(&planned["model_bytes"]), "{plan}");
    // First the weights stay in their blocks; asked again, they are written out.
    let report = finished(train(&text, &folder, "30", &["--repeat-batch", "--blocks-only"]));
    let trained = &report["offload"];
    let losses: Vec<f64> = trained["losses"].as_array().unwrap().iter().map(|loss| loss.as_f64().unwrap()).collect();
    assert!(losses.len() == 30 && losses[29] < 0.5 * losses[0], "{losses:?}");
    assert!(trained["seconds_a_step"].as_f64().unwrap() > 0.0 && bytes(&trained["peak_bytes"]) > 10_000_000);
    assert_eq!(bytes(&trained["read_bytes_a_step"]), bytes(&planned["plan"]["read_bytes"]));
    assert!(trained["model"].is_null() && !folder.join("model").exists());
    let (again, words) = told(train(&text, &folder, "30", &["--repeat-batch"]));
    assert!(again["offload"]["losses"].as_array().unwrap().is_empty(), "{again}");
    assert!(again["forecast"]["rates"].is_null(), "nothing is measured for no step: {again}");
    assert!(words.contains("30 steps done, and none is left"), "{words}");
    assert_eq!(again["offload"]["model"].as_str().unwrap(), folder.join("model").to_str().unwrap());
    let run = Command::new(env!("CARGO_BIN_EXE_foretrain-under-test"))
        .args(["train", "--preset", "shakespeare-gpt2-char", "--tier", "vanilla", "--steps", "1", "--json"])
        .args(["--batch-size", "2", "--sequence-length", "24", "--learning-rate", "1e-9", "--optimizer", "adamw"])
        .arg("--data")
        .arg(&text)
        .arg("--from")
        .arg(folder.join("model"))
        .arg("--runs")
        .arg(root.path().join("runs"))
        .env("HOME", root.path())
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(0), "{}", stderr(&run));
    let out: Value = serde_json::from_str(String::from_utf8_lossy(&run.stdout).lines().last().unwrap()).unwrap();
    // Its first step, too, is on the first batch.
    let rows = std::fs::read_to_string(Path::new(out["run"].as_str().unwrap()).join("metrics.jsonl")).unwrap();
    let row: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    let in_memory = row["loss"].as_f64().unwrap();
    assert!(in_memory < 1.05 * losses[29] + 0.01, "{in_memory} after {}", losses[29]);
    // From disk it goes on where it was: the same batch, the last loss.
    let model = folder.join("model").to_str().unwrap().to_owned();
    let next = root.path().join("next");
    let more = ["--repeat-batch", "--from", &model, "--learning-rate", "1e-6"];
    let tuned = finished(train(&text, &next, "1", &more));
    let first = tuned["offload"]["losses"][0].as_f64().unwrap();
    assert!((first - in_memory).abs() < 1e-4, "{first} and in memory {in_memory}");
    let ours = root.path().join("runs");
    let ours = std::fs::read_dir(&ours).unwrap().next().unwrap().unwrap().path();
    let refused = train(&text, &root.path().join("third"), "1", &["--from", ours.to_str().unwrap()]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("goes on in memory"), "{}", stderr(&refused));
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_the_last_step_and_the_same_command_goes_on() {
    let root = tempfile::tempdir().unwrap();
    let text = write_text(root.path());
    let folder = root.path().join("blocks");
    let mut child = train(&text, &folder, "100000", &["--offload-commit", "step"]).spawn().unwrap();
    assert!(wait_for_rows(&mut child, &folder, 2));
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let words = stderr(&output);
    assert!(words.contains("interrupted. Step") && words.contains("the same command goes on"), "{words}");
    let ended: Value = serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap();
    let step = ended["offload"]["step"].as_u64().unwrap();
    assert!(step >= 2 && ended["offload"]["is_finished"] == false, "{ended}");
    assert!(ended["offload"]["losses"].as_array().unwrap().len() as u64 == step, "{ended}");
    let goal = (step + 2).to_string();
    let (report, words) = told(train(&text, &folder, &goal, &["--offload-commit", "step"]));
    assert_eq!(report["offload"]["losses"].as_array().unwrap().len(), 2);
    let (announced, first) = (format!("going on after step {step} of {goal}\n"), format!("step {}: ", step + 1));
    assert!(words.find(&announced).is_some_and(|at| at < words.find(&first).unwrap()), "{words}");
}

#[test]
fn it_predicts_like_a_training_in_memory() {
    let root = tempfile::tempdir().unwrap();
    let text = write_text(root.path());
    let folder = root.path().join("blocks");
    // The control that predicts nothing needs no gate: in Predict its weights stand still.
    let (report, words) = told(train(&text, &folder, "60", &["--tier", "conservative", "--strategy", "frozen"]));
    assert!(words.contains("a Predict step goes forward alone"), "{words}");
    assert!(words.find("-> Predict: ").unwrap() < words.find(": Predict ").unwrap(), "{words}");
    let phases = report["offload"]["phases"].as_array().unwrap();
    let of = |phase: &str, figure: &str| {
        let found = phases.iter().find(|figures| figures["phase"] == phase);
        found.map_or(0.0, |figures| figures[figure].as_f64().unwrap())
    };
    assert!(of("Predict", "num_steps") > 0.0 && of("Predict", "num_backward") == 0.0, "{report}");
    assert!(of("Full", "num_backward") == of("Full", "num_examples"), "{report}");
    let steps = report["offload"]["steps"].as_array().unwrap();
    let is_predicted = |step: &&Value| step["hybrid"]["phase"] == "Predict";
    assert!(steps.iter().filter(is_predicted).all(|step| step["grad_norm"].is_null() && step["written_bytes"] == 0));
    let moved = 60 - of("Predict", "num_steps") as u64;
    assert_eq!(steps_of_blocks(&folder), vec![moved; 6]);
    // What a sample costs is rehearsed.
    let sampled = root.path().join("sampled");
    let more = ["--tier", "conservative", "--plan", "--activation-checkpointing"];
    let (plan, words) = told(train(&text, &sampled, "60", &more));
    assert!(words.contains("--activation-checkpointing changes nothing"), "{words}");
    let (planned, costs) = (&plan["offload"]["plan"], &plan["offload"]["rates"]["step_costs"]);
    assert_eq!(planned["predict"]["num_sequences"], 1, "{plan}");
    assert!(costs["forward"].is_string() && plan["offload"]["predict_seconds"].as_f64().unwrap() > 0.0, "{plan}");
}

#[test]
fn what_streaming_cannot_do_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let text = write_text(root.path());
    let folder = root.path().join("blocks");
    for (more, part) in [
        (&["--tier", "balanced", "--strategy", "extrapolate-momentum"][..], "no copies of the weights"),
        (&["--optimizer", "muon"][..], "adamw"),
        (&["--micro-batches", "2"][..], "--micro-batches"),
        (&["--qat", "ternary"][..], "--qat"),
        (&["--vram-limit", "2"][..], "--device cuda:N"),
    ] {
        let output = train(&text, &folder, "2", more).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{more:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
    let output = train(&text, &folder, "2", &["--memory-budget", "0.05"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
}

/// Without CUDA in the build: a GPU is refused with the way to one before anything is written, and `auto` says why it is the
/// processor.
#[test]
fn it_computes_where_it_is_asked_to_or_says_why_not() {
    let root = tempfile::tempdir().unwrap();
    let text = write_text(root.path());
    let folder = root.path().join("blocks");
    if has_cuda() {
        return;
    }
    for more in [&["--device", "cuda:0"][..], &["--device", "cuda:0", "--plan"]] {
        let output = train(&text, &folder, "2", more).output().unwrap();
        let words = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{words}");
        for part in ["GPU 0", "packaging/cuda/build", "--device cpu"] {
            assert!(words.contains(part), "expected {part:?} in {words:?}");
        }
        assert!(!folder.exists());
    }
    let (report, words) = told(train(&text, &folder, "2", &["--device", "auto", "--vram-limit", "2"]));
    assert!(words.contains("Computing on the processor: this build"), "{words}");
    assert_eq!(report["offload"]["device"], "cpu");
    assert_eq!(report["forecast"]["device"], "Cpu");
    assert!(report["offload"]["planned_gpu_bytes"].is_null(), "{report}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_is_named_before_anything_is_done() {
    let root = tempfile::tempdir().unwrap();
    let text = write_text(root.path());
    // Not even root makes files there.
    let folder = Path::new("/proc/nowhere");
    for more in [&[][..], &["--plan"]] {
        let output = train(&text, folder, "2", more).output().unwrap();
        let words = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{words}");
        assert!(words.contains("cannot be written") && words.contains("Choose another one"), "{words}");
        let is_of_inside = |word: &&str| words.contains(*word);
        assert!(!["scratch", "pace", "whole", "free"].iter().any(is_of_inside), "{words}");
    }
}

#[test]
fn a_folder_that_goes_away_ends_it_with_words() {
    let root = tempfile::tempdir().unwrap();
    let text = write_text(root.path());
    let (folder, elsewhere) = (root.path().join("blocks"), root.path().join("elsewhere"));
    let mut child = train(&text, &folder, "100000", &["--offload-commit", "step"]).spawn().unwrap();
    assert!(wait_for_rows(&mut child, &folder, 3));
    std::fs::rename(&folder, &elsewhere).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let message = stderr(&output);
    assert!(message.contains("still"), "{message}");
    std::fs::rename(&elsewhere, &folder).unwrap();
    let rows = num_rows(&folder);
    let report = finished(train(&text, &folder, &(rows + 2).to_string(), &[]));
    assert_eq!(report["offload"]["is_finished"], true);
}

/// A small disk of its own, where the system lets us have one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf, size: &str) -> Option<Self> {
        std::fs::create_dir(&path).unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "a test that is skipped says so")]
fn a_full_disk_ends_it_with_words_and_a_saved_state() {
    let root = tempfile::tempdir().unwrap();
    let text = write_text(root.path());
    let Some(disk) = SmallDisk::mount(root.path().join("disk"), "320m") else {
        eprintln!("SKIPPED: mounting a small disk takes root");
        return;
    };
    let folder = disk.0.join("blocks");
    let filler = disk.0.join("filler");
    let mut child = train(&text, &folder, "100000", &[]).spawn().unwrap();
    assert!(wait_for_rows(&mut child, &folder, 3));
    let fill = std::fs::File::create(&filler).and_then(|mut file| std::io::copy(&mut std::io::repeat(1), &mut file));
    assert!(fill.is_err(), "the disk is full now");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("Free disk space"), "{}", stderr(&output));
    std::fs::remove_file(&filler).unwrap();
    let next = num_rows(&folder) + 2;
    assert_eq!(finished(train(&text, &folder, &next.to_string(), &[]))["offload"]["is_finished"], true);
    // Too small from the beginning: refused before anything is written.
    let small = SmallDisk::mount(root.path().join("small"), "8m").unwrap();
    let output = train(&text, &small.0.join("blocks"), "2", &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("making room for the blocks: they need"), "{}", stderr(&output));
    let output = train(&text, &small.0.join("blocks"), "2", &["--plan"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let told: Value = serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap();
    let disk = &told["offload"]["disk"];
    assert!(disk["needed_bytes"].as_u64() > disk["free_bytes"].as_u64(), "{told}");
    assert!(!small.0.join("blocks").exists());
}
