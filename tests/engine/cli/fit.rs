//! A run that does not fit its memory budget, and the settings that make it fit.

use std::path::Path;

use foretrain_engine::models::ops::Kept;
use foretrain_engine::optim::{StatePlace, StatePrecision};
use foretrain_engine::session::RunConfig;
use serde_json::Value;

use super::{check_code, foretrain, json_of, last_json};

const TRAIN: &str = "train --preset shakespeare-gpt2-char --tier vanilla --data text.txt --runs runs --steps 2 --batch-size 8 \
                     --sequence-length 64 --threads 1 --json";

/// What `train` and `more` print when the program ends with `code`.
#[track_caller]
fn train(folder: &Path, more: &[&str], code: i32) -> (Value, String) {
    let args: Vec<&str> = TRAIN.split_whitespace().chain(more.iter().copied()).collect();
    let output = foretrain(folder, &args).output().unwrap();
    check_code(&output, code);
    (last_json(&output), String::from_utf8(output.stderr).unwrap())
}

fn planned_bytes(folder: &Path, more: &[&str]) -> u64 {
    let args: Vec<&str> = TRAIN.split_whitespace().chain(["--plan"]).chain(more.iter().copied()).collect();
    let plan = json_of(folder, &args, 0);
    plan["plan"]["items"].as_array().unwrap().iter().map(|item| item["bytes"].as_u64().unwrap()).sum()
}

/// As the option takes it.
fn gib(bytes: u64) -> String {
    (bytes as f64 / f64::from(1 << 30)).to_string()
}

fn workshop() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text.txt"), "a rose is a rose is a rose.\n".repeat(400)).unwrap();
    folder
}

#[test]
fn a_run_that_does_not_fit_takes_settings_that_do() {
    let workshop = workshop();
    let folder = workshop.path();
    let budget = gib(planned_bytes(folder, &[]) - 1);
    let (refused, _) = train(folder, &["--memory-budget", &budget], 3);
    let settings = &refused["plan"]["remedies"][0]["settings"];
    assert_eq!(settings["num_micro_batches"], 2, "{refused}");

    let (fitted, told) = train(folder, &["--memory-budget", &budget, "--fit"], 0);
    assert!(told.contains("taking micro-batches of 4 (2 parts)"), "{told}");
    let run = folder.join(fitted["run"].as_str().unwrap());
    let config: RunConfig = ron::from_str(&std::fs::read_to_string(run.join("config.ron")).unwrap()).unwrap();
    assert_eq!((config.num_micro_batches, config.kept), (2, Kept::Activations));
}

#[test]
fn the_last_settings_to_be_taken_are_rounded_states() {
    let workshop = workshop();
    let folder = workshop.path();
    let least = ["--micro-batches", "8", "--activation-checkpointing", "--optimizer-states", "8bit"];
    let budget = gib(planned_bytes(folder, &least) + 1);
    let (fitted, told) = train(folder, &["--memory-budget", &budget, "--fit"], 0);
    assert!(told.contains("8-bit optimizer states") && told.contains("activation checkpointing"), "{told}");
    let run = folder.join(fitted["run"].as_str().unwrap());
    let config: RunConfig = ron::from_str(&std::fs::read_to_string(run.join("config.ron")).unwrap()).unwrap();
    assert_eq!((config.kept, config.optimizer.states), (Kept::Input, StatePrecision::EightBit));
    // A run goes on with the states that it was saved with.
    let resumed = json_of(folder, &["train", "--resume", run.to_str().unwrap(), "--json"], 0);
    assert_eq!(resumed["steps"], 2);
    let [peak, planned] = ["peak_bytes", "planned_bytes"].map(|key| resumed[key].as_u64().unwrap());
    assert!(planned > 1 << 20 && peak > 1 << 20, "{resumed}");

    let (refused, told) = train(folder, &["--memory-budget", "0.001", "--fit"], 3);
    assert!(refused["plan"]["remedies"][0]["settings"].is_null() && !told.contains("taking"), "{refused} {told}");
}

#[test]
fn a_plan_tells_the_settings_that_it_took() {
    let workshop = workshop();
    let folder = workshop.path();
    let budget = gib(planned_bytes(folder, &[]) - 1);
    let (planned, _) = train(folder, &["--memory-budget", &budget, "--fit", "--plan"], 0);
    assert_eq!(planned["taken_settings"]["num_micro_batches"], 2, "{planned}");
    let (planned, _) = train(folder, &["--fit", "--plan"], 0);
    assert!(planned["taken_settings"].is_null(), "{planned}");
    assert!(!folder.join("runs").exists());
}

#[test]
fn offloading_the_optimizer_changes_nothing_on_the_processor_and_says_so() {
    let workshop = workshop();
    let folder = workshop.path();
    let plan = |more: &[&str]| {
        let args: Vec<&str> = TRAIN.split_whitespace().chain(["--plan"]).chain(more.iter().copied()).collect();
        let output = foretrain(folder, &args).output().unwrap();
        check_code(&output, 0);
        (last_json(&output)["plan"].clone(), String::from_utf8(output.stdout).unwrap())
    };
    let (plain, told) = plan(&[]);
    assert!(!told.contains("changes nothing"), "{told}");
    let (planned, told) = plan(&["--optimizer-offload"]);
    assert_eq!(planned, plain);
    assert!(told.contains("changes nothing on the processor"), "{told}");
    let (trained, told) = train(folder, &["--optimizer-offload", "--optimizer-states", "8bit"], 0);
    assert!(told.contains("changes nothing on the processor"), "{told}");
    let run = folder.join(trained["run"].as_str().unwrap());
    let config: RunConfig = ron::from_str(&std::fs::read_to_string(run.join("config.ron")).unwrap()).unwrap();
    assert_eq!(config.optimizer.state_place, StatePlace::HostMemory, "a GPU may go on with it");
    // In 8 bits they are not a GPU's own.
    let (refused, _) = train(folder, &["--device", "cuda:0", "--optimizer-states", "8bit"], 2);
    assert!(refused["error"].as_str().unwrap().contains("optimizer offload"), "{refused}");
}

#[test]
fn streamed_training_has_ways_of_its_own() {
    let workshop = workshop();
    for option in [&["--fit"][..], &["--optimizer-states", "8bit"], &["--optimizer-offload"]] {
        let args: Vec<&str> = option.iter().copied().chain(["--offload", "blocks"]).collect();
        let (refused, _) = train(workshop.path(), &args, 2);
        assert!(refused["error"].as_str().unwrap().contains("--offload"), "{refused}");
    }
}

#[test]
fn ways_to_save_memory_are_compared_with_plain_training() {
    let workshop = workshop();
    let args = "experiment features --preset shakespeare-gpt2-char --data text.txt --steps 3 --batch-size 2 --sequence-length 32 \
                --seeds 1 --threads 1 --features activation-checkpointing,8bit-states,streamed-full --output reports/features --json";
    let found = json_of(workshop.path(), &args.split_whitespace().collect::<Vec<_>>(), 0);
    let trainings = found["trainings"].as_array().unwrap();
    let equal: Vec<(&str, u64)> = trainings
        .iter()
        .map(|training| (training["name"].as_str().unwrap(), training["seeds_with_plain_weights"].as_u64().unwrap()))
        .collect();
    let expected = [("plain", 1), ("activation-checkpointing", 1), ("8bit-states", 0), ("streamed-full", 1)];
    assert_eq!(equal, expected, "{found}");
    let planned: Vec<u64> = trainings.iter().map(|training| training["planned_bytes"].as_u64().unwrap()).collect();
    // Streaming takes more here: it measures the machine's rates first.
    assert!(planned[1..3].iter().all(|&bytes| bytes < planned[0]), "{planned:?}");
    let report = std::fs::read_to_string(workshop.path().join("reports/features/README.md")).unwrap();
    assert!(report.contains("bit for bit") && report.contains("8bit-states"), "{report}");
    // Blocks lay beside the report.
    assert_eq!(std::fs::read_dir(workshop.path().join("reports")).unwrap().count(), 1);
}
