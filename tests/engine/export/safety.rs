//! Nothing half written, nothing written over, nothing damaged accepted.

use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use candle_core::{Device, Tensor};
use foretrain_edge::Package;
use foretrain_engine::device::{CancelFlag, Progress, Watch};
use foretrain_engine::export::{
    ExportError, TargetPreset, check_new_file, export_package, quantize_for_target, write_quantized,
};
use foretrain_engine::quant::QuantScheme;
use foretrain_engine::unwatched;
use foretrain_tests::DEADLINE;

use crate::fixtures::{self, checkpoint, names};

/// Cancelled at the n-th report of progress, for every n there is: no folder, no trace.
#[test]
fn a_cancelled_export_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    for (family, model) in [("cnn", fixtures::cnn()), ("gpt2", fixtures::gpt2(64))] {
        let checkpoint = checkpoint(&root.path().join(family), &model);
        let outputs = root.path().join(format!("{family} packages"));
        for id in ["gpu-high", "cpu-arm64", "edge-board"] {
            let target = TargetPreset::find(id).unwrap();
            let mut last = 0;
            for stop_at in 0.. {
                let (cancel, reports) = (CancelFlag::default(), AtomicUsize::new(0));
                let on_progress = |_| {
                    if reports.fetch_add(1, Ordering::Relaxed) == stop_at {
                        cancel.set();
                    }
                };
                let watch = Watch::new(&cancel, &on_progress);
                match export_package(&checkpoint, &target, &outputs.join("package"), None, watch) {
                    Err(ExportError::Cancelled(_)) => {
                        assert!(cancel.is_set());
                        assert!(!outputs.exists(), "{family} for {id} left {:?}", names(&outputs));
                        last = stop_at;
                    }
                    Err(other) => panic!("{family} for {id}, stopped at {stop_at}: {other}"),
                    Ok(_) => break,
                }
            }
            assert!(last > 5, "{family} for {id} was stopped at {last} places only");
            std::fs::remove_dir_all(&outputs).unwrap();
        }
    }
}

/// Killed while it writes: nothing has the package's name, and the next export clears away what was left.
#[cfg(target_os = "linux")]
#[test]
fn a_killed_export_leaves_nothing_under_its_name() {
    let root = tempfile::tempdir().unwrap();
    // So large that a process can be caught at it, and few tokens to measure it on.
    let folder = root.path().join("checkpoint");
    checkpoint(&folder, &fixtures::llama(1024, true));
    let text = root.path().join("text.txt");
    std::fs::write(&text, "AB ".repeat(700)).unwrap();
    let outputs = root.path().join("packages");
    std::fs::create_dir(&outputs).unwrap();
    let output = outputs.join("package");
    let export = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_foretrain-under-test"));
        command.args(["export", "--target", "cpu-x86-64", "--embedding-type", "int3-k", "--input"]).arg(&folder);
        command.arg("--data").arg(&text).arg("--output").arg(&output);
        command.env("XDG_CACHE_HOME", root.path().join("cache")).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut child = export();
    let started = Instant::now();
    let is_writing = || names(&outputs).iter().any(|name| !names(&outputs.join(name)).is_empty());
    while !is_writing() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was seen at work");
        assert!(started.elapsed() < DEADLINE, "the export does not get anywhere");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let left = names(&outputs);
    assert_eq!(left, [format!(".package.partial-{}", child.id())]);
    let again = export().wait_with_output().unwrap();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    assert_eq!(names(&outputs), ["package"]);
    Package::open(&output).unwrap().verify_checksums().unwrap();
}

/// Cancelled while it writes or while it compares: a file that was not compared does not have its name.
#[test]
fn a_cancelled_quantization_leaves_nothing() {
    let root = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(&root.path().join("checkpoint"), &fixtures::cnn());
    let weights = quantize_for_target(&checkpoint, &TargetPreset::for_scheme(QuantScheme::Int8), unwatched!()).unwrap();
    let output = root.path().join("weights.safetensors");
    let mut stages = Vec::new();
    for stop_at in 0.. {
        let (cancel, reports) = (CancelFlag::default(), Mutex::new(Vec::new()));
        let on_progress = |progress: Progress| {
            let mut reports = reports.lock().unwrap();
            reports.push(progress.what);
            if reports.len() > stop_at {
                cancel.set();
            }
        };
        let watch = Watch::new(&cancel, &on_progress);
        match write_quantized(&weights, &checkpoint, &output, watch) {
            Err(ExportError::Cancelled(_)) => assert_eq!(names(root.path()), ["checkpoint"], "stopped at {stop_at}"),
            Err(other) => panic!("stopped at {stop_at}: {other}"),
            Ok(()) => break,
        }
        stages.extend(reports.into_inner().unwrap().pop());
    }
    stages.dedup();
    assert_eq!(stages, ["writing weights", "comparing weights"]);
    assert_eq!(names(root.path()), ["checkpoint", "weights.safetensors"]);
}

#[test]
fn quantized_weights_replace_nothing_and_create_no_folder() {
    let root = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(&root.path().join("checkpoint"), &fixtures::mlp());
    let weights = quantize_for_target(&checkpoint, &TargetPreset::for_scheme(QuantScheme::Int8), unwatched!()).unwrap();
    std::fs::write(root.path().join("mine"), "mine").unwrap();
    for (name, expected) in [
        ("mine", "found an existing one"),
        ("checkpoint", "found an existing folder"),
        ("checkpoint/..", "found an existing folder"),
        ("nowhere/..", "the name of a file"),
        ("nowhere/file", "no such folder"),
        ("mine/file", "a file in its place"),
    ] {
        let output = root.path().join(name);
        let before = check_new_file(&output).unwrap_err();
        let error = write_quantized(&weights, &checkpoint, &output, unwatched!()).unwrap_err();
        assert!(matches!(before, ExportError::NewFile { .. }), "{name}: {before}");
        assert_eq!(error.to_string(), before.to_string());
        assert!(error.to_string().contains(expected), "{name}: {error}");
    }
    assert_eq!(std::fs::read_to_string(root.path().join("mine")).unwrap(), "mine");
    assert_eq!(names(root.path()), ["checkpoint", "mine"]);
    check_new_file(&root.path().join("new")).unwrap();
    check_new_file("new".as_ref()).unwrap();
}

#[test]
fn an_existing_folder_is_not_touched() {
    let root = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(&root.path().join("checkpoint"), &fixtures::mlp());
    let output = root.path().join("package");
    std::fs::create_dir(&output).unwrap();
    std::fs::write(output.join("mine.txt"), "mine").unwrap();
    let target = TargetPreset::find("edge-board").unwrap();
    let error = export_package(&checkpoint, &target, &output, None, unwatched!()).unwrap_err();
    assert!(matches!(error, ExportError::Exists { .. }), "{error}");
    assert_eq!(names(&output), ["mine.txt"]);
    assert_eq!(names(root.path()), ["checkpoint", "package"]);
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let root = tempfile::tempdir().unwrap();
    let checkpoint = checkpoint(&root.path().join("checkpoint"), &fixtures::mlp());
    let target = TargetPreset::find("edge-board").unwrap();
    std::fs::write(root.path().join("file"), "").unwrap();
    let below_a_file = root.path().join("file/package");
    let error = export_package(&checkpoint, &target, &below_a_file, None, unwatched!()).unwrap_err().to_string();
    assert!(error.contains("file/package"), "{error}");
    let error = export_package(&checkpoint, &target, "/proc/package".as_ref(), None, unwatched!()).unwrap_err();
    assert!(matches!(error, ExportError::Write(_) | ExportError::DiskSpace { .. }), "{error}");
    let error = export_package(&checkpoint, &target, "..".as_ref(), None, unwatched!()).unwrap_err();
    assert!(matches!(error, ExportError::Exists { .. }), "{error}");
    assert_eq!(names(root.path()), ["checkpoint", "file"]);
}

#[test]
fn weights_that_are_not_numbers_are_named_and_not_exported() {
    let root = tempfile::tempdir().unwrap();
    let mut checkpoint = checkpoint(&root.path().join("checkpoint"), &fixtures::cnn());
    for (bad, shown) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "-inf")] {
        let name = "fc.bias";
        let len = checkpoint.weights.get(name).unwrap().elem_count();
        let mut values = vec![0.5_f32; len];
        values[3] = bad;
        checkpoint.weights.insert(name, Tensor::from_vec(values, len, &Device::Cpu).unwrap());
        for target in TargetPreset::all().unwrap() {
            let output = root.path().join("package");
            let error = export_package(&checkpoint, &target, &output, None, unwatched!()).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(shown) && error.contains("index 3"), "{error}");
            assert_eq!(names(root.path()), ["checkpoint"]);
        }
    }
}

/// One byte of any file changed, or its end cut off: the runtime does not take it for the package that was exported.
#[test]
fn damaged_packages_are_refused() {
    let root = tempfile::tempdir().unwrap();
    for (family, model, id) in
        [("cnn", fixtures::cnn(), "edge-board"), ("llama", fixtures::llama(256, false), "cpu-x86-64")]
    {
        let checkpoint = checkpoint(&root.path().join(family), &model);
        let output = root.path().join(format!("{family} package"));
        let target = TargetPreset::find(id).unwrap();
        export_package(&checkpoint, &target, &output, None, unwatched!()).unwrap();
        for name in names(&output).iter().filter(|name| *name != "manifest.json") {
            let path = output.join(name);
            let whole = std::fs::read(&path).unwrap();
            for place in [0, whole.len() / 3, whole.len() - 1] {
                let mut damaged = whole.clone();
                damaged[place] ^= 1;
                std::fs::write(&path, &damaged).unwrap();
                let refused = Package::open(&output).and_then(|package| package.verify_checksums());
                let error = refused.expect_err(&format!("{name} with byte {place} changed")).to_string();
                assert!(!error.is_empty());
            }
            std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
            let error = Package::open(&output).expect_err(&format!("{name} cut short")).to_string();
            assert!(error.contains(name.as_str()), "{error}");
            std::fs::remove_file(&path).unwrap();
            let error = Package::open(&output).expect_err(&format!("without {name}")).to_string();
            assert!(error.contains(name.as_str()), "{error}");
            std::fs::write(&path, &whole).unwrap();
        }
        Package::open(&output).unwrap().verify_checksums().unwrap();
    }
}
