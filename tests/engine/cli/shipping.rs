//! Quantize, export, validate and infer as a script sees them: what is read again, names of runs, refusals, notes.

use std::path::Path;

use serde_json::Value;

use super::{TRAIN, check_code, foretrain, json_of, last_json, stderr_of, train, workshop};

/// A character GPT-2 of the smallest preset, two steps in sequences of 32 tokens; its run's folder, seen from `folder`.
#[track_caller]
fn train_text(folder: &Path, name: &str) -> String {
    std::fs::write(folder.join("story.txt"), "Once upon a time there was a cat. ".repeat(300)).unwrap();
    let args = [
        "train",
        "--preset",
        "shakespeare-gpt2-char",
        "--tier",
        "vanilla",
        "--data",
        "story.txt",
        "--runs",
        "runs",
        "--steps",
        "2",
        "--batch-size",
        "2",
        "--sequence-length",
        "32",
        "--threads",
        "1",
        "--json",
        "--name",
        name,
    ];
    json_of(folder, &args, 0)["run"].as_str().unwrap().to_owned()
}

fn error_of(folder: &Path, args: &[&str], code: i32) -> String {
    json_of(folder, args, code)["error"].as_str().unwrap().to_owned()
}

fn loss_of(validated: &Value) -> f64 {
    validated["measured"]["loss"].as_f64().unwrap()
}

#[test]
fn what_was_stored_of_an_image_model_is_measured_again() {
    let workshop = workshop();
    let folder = workshop.path();
    let run = train(folder);
    let validate = |input: &str| json_of(folder, &["validate", "--checkpoint", input, "--json"], 0);
    for scheme in ["int8", "int4", "ternary", "bf16"] {
        let file = format!("{scheme}.safetensors");
        let report =
            json_of(folder, &["quantize", "--input", &run, "--scheme", scheme, "--output", &file, "--json"], 0);
        let validated = validate(&file);
        let after = report["loss_after"].as_f64().unwrap();
        assert!((loss_of(&validated) - after).abs() < 1e-6, "{scheme}: {validated} {after}");
        assert_eq!(validated["measured"]["accuracy"], report["after"], "{scheme}");
        let package = format!("package-{scheme}");
        let export = ["export", "--input", &run, "--target", "gpu-low", "--scheme", scheme, "--output", &package];
        stderr_of(folder, &export, 0);
        let of_package = validate(&package);
        assert!((loss_of(&of_package) - after).abs() < 1e-6, "{scheme}: {of_package} {after}");
    }
    // A graph is not read back; the error says where its figure is, and what measures it.
    stderr_of(folder, &["export", "--input", &run, "--target", "mobile", "--output", "onnx"], 0);
    let message = error_of(folder, &["validate", "--checkpoint", "onnx", "--json"], 2);
    assert!(message.contains("ONNX") && message.contains("foretrain export --format onnx"), "{message}");
    // Weights alone, of nobody knows what.
    let checkpoint = folder.join(&run).join("checkpoints/step-00000002/model.safetensors");
    std::fs::copy(checkpoint, folder.join("weights.safetensors")).unwrap();
    let message = error_of(folder, &["validate", "--checkpoint", "weights.safetensors", "--json"], 2);
    assert!(message.contains("foretrain quantize") && message.contains("weights alone"), "{message}");
}

#[test]
fn what_was_stored_of_a_language_model_is_measured_as_it_was_trained() {
    let workshop = workshop();
    let folder = workshop.path();
    let run = train_text(folder, "tale");
    let quantize = ["quantize", "--input", "tale", "--scheme", "int8", "--output", "q.safetensors"];
    let report = json_of(folder, &[&quantize[..], &["--runs", "runs", "--samples", "100000", "--json"]].concat(), 0);
    assert_eq!(report["metric"], "loss");
    let validate = |args: &[&str]| json_of(folder, &[&["validate", "--json", "--checkpoint"], args].concat(), 0);
    let of_file = validate(&["q.safetensors"]);
    assert!((loss_of(&of_file) - report["loss_after"].as_f64().unwrap()).abs() < 1e-5, "{of_file} {report}");
    // Beside a package, its weights know how long their sequences were; alone they do not, and that is told.
    let of_run = validate(&[&run]);
    for (format, target) in [("gguf", "cpu-x86-64"), ("transformers", "gpu-high"), ("safetensors", "gpu-high")] {
        let export = ["export", "--input", &run, "--target", target, "--format", format, "--output", format];
        stderr_of(folder, &[&export[..], &["--scheme", "f32"]].concat(), 0);
        let of_package = validate(&[format]);
        assert!((loss_of(&of_package) - loss_of(&of_run)).abs() < 1e-5, "{format}: {of_package} {of_run}");
        assert_eq!(of_package["sequence_length"], 32, "{format}");
        // With data of others, too, as `quantize` reads it.
        let quantize = ["quantize", "--input", format, "--data", "story.txt", "--scheme", "bf16", "--json"];
        if format != "safetensors" {
            let before = json_of(folder, &quantize, 0)["loss_before"].as_f64().unwrap();
            assert!((before - loss_of(&of_run)).abs() < 1e-5, "{format}: {before}");
        }
    }
    std::fs::copy(folder.join("gguf/model.gguf"), folder.join("alone.gguf")).unwrap();
    std::fs::copy(folder.join("gguf/tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    let alone = validate(&["alone.gguf", "--data", "story.txt"]);
    assert_eq!(alone["sequence_length"], 256);
    assert!(alone["notes"].to_string().contains("does not say how long"), "{alone}");
    let output = foretrain(folder, &["quantize", "--input", &run, "--scheme", "bf16"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("validation tokens"), "{text}");
}

#[test]
fn runs_are_taken_by_name_wherever_a_model_is() {
    let workshop = workshop();
    let folder = workshop.path();
    let mut args = TRAIN.to_vec();
    args.extend(["--name", "digits"]);
    stderr_of(folder, &args, 0);
    image::GrayImage::new(8, 8).save(folder.join("black.png")).unwrap();
    let with =
        |args: &[&str], name: &str, code| json_of(folder, &[args, &[name, "--runs", "runs", "--json"]].concat(), code);
    let commands: [&[&str]; 4] = [
        &["quantize", "--scheme", "int8", "--input"],
        &["export", "--target", "gpu-low", "--input"],
        &["infer", "--image", "black.png", "--package"],
        &["validate", "--checkpoint"],
    ];
    for command in commands {
        with(command, "digits", 0);
        let message = with(command, "digts", 2)["error"].as_str().unwrap().to_owned();
        assert!(message.contains("no run is called \"digts\"") && message.contains("digits"), "{message}");
        let message = with(command, "nowhere/digits", 2)["error"].as_str().unwrap().to_owned();
        assert!(message.contains("found nothing"), "{message}");
    }
    let line = [&TRAIN[..], &["--from", "digits", "--json"]].concat();
    json_of(folder, &line, 0);
    let message = error_of(folder, &["infer", "--package", "data", "--image", "black.png", "--json"], 2);
    assert!(message.contains("manifest.json") && message.contains("checkpoint"), "{message}");
}

#[test]
fn quantize_writes_safetensors_and_says_what_writes_other_files() {
    let workshop = workshop();
    let folder = workshop.path();
    let run = train(folder);
    for name in ["model.gguf", "model.ONNX"] {
        let line = ["quantize", "--input", &run, "--scheme", "int8", "--output", name, "--json"];
        let message = error_of(folder, &line, 2);
        assert!(message.contains("foretrain export") && message.contains("--format"), "{message}");
        assert!(!folder.join(name).exists());
    }
}

#[test]
fn of_all_targets_those_that_fail_are_told_with_those_that_do_not() {
    let workshop = workshop();
    let folder = workshop.path();
    let run = train(folder);
    std::fs::create_dir_all(folder.join("some/gpu-low")).unwrap();
    let export = ["export", "--input", &run, "--target", "all", "--output", "some", "--json"];
    let output = foretrain(folder, &export).output().unwrap();
    check_code(&output, 1);
    let json = last_json(&output);
    let (packages, failed) = (json["packages"].as_array().unwrap(), json["failed"].as_array().unwrap());
    assert!(packages.len() > 1 && failed.len() == 1, "{json}");
    assert_eq!(failed[0]["target"], "gpu-low");
    assert!(failed[0]["error"].as_str().unwrap().contains("existing"), "{json}");
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told.matches("found an existing one").count(), 1, "{told}");
    // Nothing could be begun: each cause once, as wrong usage.
    for (args, cause) in [
        (&["--input", "nowhere"][..], "no run is called"),
        (&["--input", &run, "--output", "data/train-images-idx3-ubyte"], "expected a folder, found a file"),
        (&["--input", &run, "--sparsity", "1.5"], "sparsity"),
    ] {
        let line = [&["export", "--target", "all", "--runs", "runs", "--json"], args].concat();
        let output = foretrain(folder, &line).output().unwrap();
        check_code(&output, 2);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(told.matches(cause).count(), 1, "{told}");
    }
}

/// The file system of processes has no room for anything.
#[cfg(target_os = "linux")]
#[test]
fn room_on_the_disk_is_looked_for_first() {
    let workshop = workshop();
    let folder = workshop.path();
    let run = train(folder);
    let quantize = ["quantize", "--input", &run, "--scheme", "int8", "--output", "/proc/q.safetensors", "--json"];
    let export = ["export", "--input", &run, "--target", "gpu-low", "--output", "/proc/package", "--json"];
    for line in [&quantize[..], &export] {
        let message = error_of(folder, line, 1);
        assert!(message.contains("are needed") && message.contains("the disk has 0 B (0 bytes) left"), "{message}");
    }
}

#[test]
fn options_without_effect_are_told() {
    let workshop = workshop();
    let folder = workshop.path();
    let run = train(folder);
    let notes = |input: &str, more: &[&str]| {
        let json = json_of(folder, &[&["quantize", "--input", input, "--json"], more].concat(), 0);
        (json["notes"].to_string(), json["method"].as_str().unwrap().to_owned())
    };
    let (told, method) =
        notes(&run, &["--scheme", "bf16", "--method", "gptq", "--sparsity", "0.5", "--ternary-rule", "threshold"]);
    for what in ["GPTQ was left out", "Sparsity was left out", "ternary rule was left out"] {
        assert!(told.contains(what), "{what}: {told}");
    }
    assert!(method == "nearest" && !told.contains("0.0%"), "{method} {told}");
    let (told, _) = notes(&run, &["--scheme", "ternary", "--calibration-samples", "64"]);
    assert!(told.contains("number of calibration samples was left out"), "{told}");
    // Rows of 128 fill no blocks, rows of 512 do.
    let text = train_text(folder, "tale");
    let (told, _) = notes(&text, &["--scheme", "ternary", "--ternary-scales", "row", "--samples", "4"]);
    assert!(told.contains("ternary tensors keep one scale"), "{told}");
    let export = ["export", "--input", &text, "--target", "cpu-x86-64", "--scheme", "int8", "--output", "small"];
    let json = json_of(folder, &[&export[..], &["--embedding-type", "int3-k", "--json"]].concat(), 0);
    let told = json["quality"]["notes"].to_string();
    assert!(told.contains("Q4_0, asked for as int3-k: rows of 128 fill no blocks of 256"), "{told}");
}

#[test]
fn a_damaged_package_is_named_before_it_is_measured() {
    let workshop = workshop();
    let folder = workshop.path();
    let run = train(folder);
    stderr_of(folder, &["export", "--input", &run, "--target", "gpu-low", "--output", "whole"], 0);
    let damage = |name: &str, file: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let package = folder.join(name);
        std::fs::create_dir(&package).unwrap();
        for entry in std::fs::read_dir(folder.join("whole")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), package.join(entry.file_name())).unwrap();
        }
        let path = package.join(file);
        let mut content = std::fs::read(&path).unwrap();
        change(&mut content);
        std::fs::write(&path, content).unwrap();
        error_of(folder, &["validate", "--checkpoint", name, "--json"], 1)
    };
    let message = damage("empty", "model.safetensors", &Vec::clear);
    assert!(message.contains("by the manifest, found 0"), "{message}");
    let message = damage("flipped", "model.safetensors", &|content| *content.last_mut().unwrap() ^= 1);
    assert!(message.contains("SHA-256") && message.contains("model.safetensors"), "{message}");
    let message = damage("cut", "manifest.json", &|content| content.truncate(content.len() / 2));
    assert!(message.contains("manifest.json") && !message.contains("model_type"), "{message}");
    let newer = |content: &mut Vec<u8>| {
        let text = String::from_utf8(std::mem::take(content)).unwrap();
        *content = text.replace("\"format_version\": 1", "\"format_version\": 99").into_bytes();
    };
    let message = damage("newer", "manifest.json", &newer);
    assert!(message.contains("format_version 1") && message.contains("99"), "{message}");
    let validated = json_of(folder, &["validate", "--checkpoint", "whole", "--json"], 0);
    assert_eq!(validated["weights"], "whole");
}

#[test]
fn infer_asks_for_what_the_model_reads() {
    let workshop = workshop();
    let folder = workshop.path();
    let images = train(folder);
    let message = error_of(folder, &["infer", "--package", &images, "--json"], 2);
    assert!(message.contains("--image: expected pictures"), "{message}");
    let text = train_text(folder, "tale");
    let message = error_of(folder, &["infer", "--package", &text, "--json"], 2);
    assert!(message.contains("--prompt: expected a text"), "{message}");
    let answer =
        json_of(folder, &["infer", "--package", &text, "--prompt", "a cat\u{20ac}", "--max-tokens", "2", "--json"], 0);
    assert!(answer["warnings"][0].as_str().unwrap().contains("1 character is unknown"), "{answer}");
}

#[test]
fn an_export_that_was_cut_off_is_not_opened() {
    let workshop = workshop();
    let folder = workshop.path();
    let run = train(folder);
    stderr_of(folder, &["export", "--input", &run, "--target", "gpu-low", "--output", "package"], 0);
    std::fs::rename(folder.join("package"), folder.join(".package.partial-4194305")).unwrap();
    image::GrayImage::new(8, 8).save(folder.join("black.png")).unwrap();
    for line in [
        &["infer", "--package", ".package.partial-4194305", "--image", "black.png", "--json"][..],
        &["validate", "--checkpoint", ".package.partial-4194305", "--json"],
        &["quantize", "--input", ".package.partial-4194305", "--scheme", "int8", "--json"],
    ] {
        let message = error_of(folder, line, 2);
        assert!(message.contains("not finished") && message.contains("export again"), "{message}");
    }
}

#[cfg(unix)]
#[test]
fn what_cannot_be_looked_into_is_told_as_such() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let workshop = workshop();
    let folder = workshop.path();
    // For the superuser nothing is forbidden; a circle of links is closed to everybody.
    symlink("circle", folder.join("circle")).unwrap();
    let message = error_of(folder, &["validate", "--checkpoint", "./circle", "--json"], 1);
    assert!(message.contains("symbolic links") && !message.contains("COMPLETE"), "{message}");
    let closed = folder.join("closed");
    std::fs::create_dir(&closed).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read_dir(&closed).is_err() {
        let message = error_of(folder, &["validate", "--checkpoint", "closed", "--json"], 1);
        assert!(message.contains("ermission") && !message.contains("COMPLETE"), "{message}");
    }
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[cfg(unix)]
#[test]
fn files_of_a_checkpoint_may_be_read_by_whom_others_may() {
    use std::os::unix::fs::PermissionsExt;
    let workshop = workshop();
    let folder = workshop.path();
    let run = folder.join(train(folder));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    let usual = mode(&run.join("config.ron"));
    for entry in std::fs::read_dir(run.join("checkpoints/step-00000002")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), usual, "{}", path.display());
    }
}
