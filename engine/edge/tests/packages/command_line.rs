//! The binary as a user runs it.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use super::builder::{Scheme, write, write_into};
use super::image_models::{image_files, mlp};
use super::language_models::{gpt2, text_files};
use super::program;
use super::talker::write_talker;

fn run(arguments: &[&str], dir: &Path) -> Output {
    program::command(env!("CARGO_BIN_EXE_foretrain-edge")).args(arguments).arg("--package").arg(dir).output().unwrap()
}

#[track_caller]
fn text(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn run_streams_text_or_prints_json() {
    let dir = write(&text_files(&gpt2(Scheme::Ternary)));
    let arguments = ["run", "--prompt", "abc", "--max-tokens", "5", "--seed", "2"];
    let plain = text(&run(&arguments, dir.path()));
    assert!(plain.starts_with("abc") && plain.contains("5 tokens"), "{plain}");
    let json: Value = serde_json::from_str(&text(&run(&[&arguments[..], &["--json"]].concat(), dir.path()))).unwrap();
    assert_eq!(json["num_tokens"], 5);
    assert!(plain.starts_with(&format!("abc{}", json["text"].as_str().unwrap())), "{plain} {json}");
}

#[test]
fn what_a_model_does_not_see_of_a_prompt_is_told() {
    let vanishing = text_files(&gpt2(Scheme::F32));
    let mut replacing = vanishing.clone();
    // As export writes it for models of characters.
    let vocab: serde_json::Map<_, _> =
        ('a'..='z').chain(['\u{fffd}']).zip(0..).map(|(c, id)| (c.to_string(), id.into())).collect();
    let each = json!({"type": "Split", "pattern": {"Regex": "[\\s\\S]"}, "behavior": "Isolated", "invert": false});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": each, "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "\u{fffd}"},
    });
    replacing.insert("tokenizer.json".to_owned(), tokenizer.to_string().into_bytes());
    let told = "4 characters are unknown to the model's tokenizer (\"Ö\", \"ä\", \"ü\", \"€\")";
    for (files, num_tokens) in [(vanishing, 2), (replacing, 6)] {
        let dir = write(&files);
        let said = |prompt: &str| {
            let output = run(&["run", "--max-tokens", "2", "--json", "--prompt", prompt], dir.path());
            let json: Value = serde_json::from_str(&text(&output)).unwrap();
            (String::from_utf8(output.stderr).unwrap(), json)
        };
        let (warning, json) = said("aÖäü€b");
        assert!(warning.starts_with("warning: ") && warning.contains(told), "{warning}");
        assert_eq!((&json["unknown_characters"], &json["prompt_tokens"]), (&4.into(), &num_tokens.into()));
        assert_eq!(json["first_unknown"], json!(["Ö", "ä", "ü", "€"]));
        // 12 positions: the last half of them is read.
        let (warning, json) = said(&"ab".repeat(20));
        assert!(warning.contains("40 tokens") && warning.contains("12 positions"), "{warning}");
        assert!(warning.contains("first 34 are not read"), "{warning}");
        assert_eq!((&json["passed_over_tokens"], &json["unknown_characters"]), (&34.into(), &0.into()));
        let (warning, json) = said("abab");
        assert_eq!((warning.as_str(), &json["passed_over_tokens"]), ("", &0.into()));
        assert_eq!(json["first_unknown"], json!([]));

        let file = dir.path().join("held-out.txt");
        std::fs::write(&file, "aÖäü€b").unwrap();
        let output = run(&["perplexity", "--json", "--text", file.to_str().unwrap()], dir.path());
        let json: Value = serde_json::from_str(&text(&output)).unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains(told) && json["unknown_characters"] == 4, "{json}");
    }
}

#[test]
fn a_prompt_cache_is_made_used_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = |seed: u32, prompt: &str| {
        let model = write_talker(dir.path(), 64, seed);
        let mut command = program::command(env!("CARGO_BIN_EXE_foretrain-edge"));
        command.args([
            "run",
            "--temperature",
            "0",
            "--max-tokens",
            "4",
            "--json",
            "--kv-cache",
            "int8",
            "--prompt",
            prompt,
        ]);
        command.arg("--gguf").arg(model).arg("--prompt-cache").arg(dir.path().join("talk.cache")).output().unwrap()
    };
    let read = |output: &Output| serde_json::from_str::<Value>(&text(output)).unwrap();
    let first = read(&run(1, "Once upon"));
    assert_eq!((&first["cached_tokens"], &first["prompt_tokens"]), (&0.into(), &10.into()));
    let again = read(&run(1, "Once upon"));
    assert_eq!((&again["cached_tokens"], &again["text"]), (&9.into(), &first["text"]));
    assert_eq!(read(&run(1, "Once a week"))["cached_tokens"], 1 + "Once ".len());
    let other = run(2, "Once upon");
    assert!(!other.status.success() && String::from_utf8_lossy(&other.stderr).contains("talk.cache"));
}

#[test]
fn perplexity_reads_texts_of_any_length() {
    let dir = write(&text_files(&gpt2(Scheme::F32)));
    let package = foretrain_edge::Package::open(dir.path()).unwrap();
    let positions = package.max_positions().unwrap();
    let file = dir.path().join("held-out.txt");
    let held_out: String = "abcdecab".chars().cycle().take(positions * 2 + 3).collect();
    std::fs::write(&file, &held_out).unwrap();
    let file = file.to_str().unwrap();
    let json: Value = serde_json::from_str(&text(&run(&["perplexity", "--text", file, "--json"], dir.path()))).unwrap();
    // Every token but the first is predicted, each stretch from itself alone.
    let tokens = package.tokens(&held_out).unwrap();
    let stretches = [(0, positions + 1), (positions, 2 * positions + 1), (2 * positions, tokens.len())];
    let losses = stretches.map(|(start, end)| package.token_losses(&tokens[start..end]).unwrap()).concat();
    assert_eq!(json["num_tokens"], losses.len());
    let loss = losses.iter().map(|loss| f64::from(*loss)).sum::<f64>() / losses.len() as f64;
    assert!((json["perplexity"].as_f64().unwrap() - loss.exp()).abs() < 1e-9, "{json}");
    let plain = text(&run(&["perplexity", "--text", file], dir.path()));
    assert!(plain.starts_with(&format!("perplexity {:.4}", loss.exp())), "{plain}");
    let arguments = ["perplexity", "--text", file, "--max-tokens", "5", "--logits", "--json"];
    let json: Value = serde_json::from_str(&text(&run(&arguments, dir.path()))).unwrap();
    assert_eq!((json["num_tokens"].as_u64(), json["tokens"].as_array().unwrap().len()), (Some(4), 5));
    let row = json["logits"][4].as_array().unwrap();
    let logits = package.token_logits(&tokens[..5]).unwrap();
    assert!(row.iter().zip(&logits[4 * row.len()..]).all(|(a, b)| a.as_f64().unwrap() as f32 == *b));
    let short = run(&["perplexity", "--text", file, "--max-tokens", "1"], dir.path());
    assert!(String::from_utf8_lossy(&short.stderr).contains("at least 2 tokens"));
}

#[test]
fn classify_names_pictures_and_info_describes() {
    let dir = write(&image_files(&mlp(Scheme::Int8)));
    let picture = dir.path().join("picture.png");
    image::RgbImage::from_pixel(20, 20, image::Rgb([200, 10, 90])).save(&picture).unwrap();
    let picture = picture.to_str().unwrap();
    let plain = text(&run(&["classify", "--image", picture, picture], dir.path()));
    assert_eq!(plain.matches("picture.png").count(), 2, "{plain}");
    assert!(plain.contains("kind 0") && plain.contains('%'), "{plain}");
    let json: Value =
        serde_json::from_str(&text(&run(&["classify", "--json", "--top", "2", "--image", picture], dir.path())))
            .unwrap();
    assert_eq!(json["images"][0]["classes"].as_array().unwrap().len(), 2);
    let plain = text(&run(&["info", "--verify"], dir.path()));
    assert!(plain.contains("7 x 5") && plain.contains("INT8") && plain.contains("checksums match"), "{plain}");
    let json: Value = serde_json::from_str(&text(&run(&["info", "--json"], dir.path()))).unwrap();
    assert_eq!(json["kind"]["reads"], "images");
}

#[test]
fn bench_prints_rates_or_json() {
    let dir = write(&text_files(&gpt2(Scheme::Ternary)));
    let arguments = ["bench", "--prompt", "6", "--tokens", "5", "--memory", "4", "--threads", "2"];
    let plain = text(&run(&arguments, dir.path()));
    assert!(plain.contains("prompt") && plain.contains("decode") && plain.contains("2 thread(s)"), "{plain}");
    let json: Value = serde_json::from_str(&text(&run(&[&arguments[..], &["--json"]].concat(), dir.path()))).unwrap();
    for (test, count) in [("prompt", 6), ("decode", 5)] {
        assert_eq!(json[test]["num_tokens"], count);
        assert!(json[test]["tokens_per_second"].as_f64().unwrap() > 0.0);
    }
    // 2 layers of 4 · 3 matrices of 128 x 128 at 66 bytes in 256, and a table of 30 x 128 half-precision numbers.
    assert_eq!(json["bytes_per_token"], 2 * 12 * 128 * 128 / 256 * 66 + 30 * 128 * 2);
    // Keys and values of 5 tokens in 2 layers, in half precision.
    assert_eq!(json["cache_bytes"], 2 * 2 * 5 * 128 * 2);
    assert!(json["share_of_bandwidth"].as_f64().unwrap() > 0.0);
    let nothing = run(&["bench", "--prompt", "0", "--tokens", "0", "--memory", "4"], dir.path());
    assert!(!text(&nothing).contains("decode"));
}

#[test]
fn bench_keeps_to_the_positions_that_a_model_has() {
    let dir = write(&text_files(&gpt2(Scheme::F32)));
    let positions = foretrain_edge::Package::open(dir.path()).unwrap().max_positions().unwrap();
    let plain = text(&run(&["bench", "--memory", "4"], dir.path()));
    let told = format!("cut to the {positions} positions");
    assert_eq!(plain.matches(&told).count(), 2, "{plain}");
    let json: Value = serde_json::from_str(&text(&run(&["bench", "--memory", "4", "--json"], dir.path()))).unwrap();
    assert_eq!((&json["prompt"]["num_tokens"], &json["decode"]["num_tokens"]), (&positions.into(), &positions.into()));
    assert_eq!(json["cut_to_positions"], json!(["prompt", "decode"]));
    let named = positions.to_string();
    let plain = text(&run(&["bench", "--memory", "4", "--prompt", &named, "--tokens", &named], dir.path()));
    assert!(!plain.contains("cut to"), "{plain}");
    // A number that was asked for is kept or refused.
    for option in ["--prompt", "--tokens"] {
        let refused = run(&["bench", "--memory", "4", option, "99"], dir.path());
        let message = String::from_utf8_lossy(&refused.stderr);
        let says = format!("at most {positions} tokens");
        assert!(!refused.status.success() && message.contains(option) && message.contains(&says), "{message}");
    }
    let help = program::command(env!("CARGO_BIN_EXE_foretrain-edge")).args(["bench", "--help"]).output().unwrap();
    assert!(text(&help).contains("GPT-2, Llama or BitNet"));
}

#[test]
fn what_an_export_left_unfinished_is_not_run() {
    let root = tempfile::tempdir().unwrap();
    for (name, files, verbs) in [
        (
            ".talk.partial-4194305",
            text_files(&gpt2(Scheme::F32)),
            &[&["run", "--prompt", "abc"][..], &["chat"], &["bench"], &["info"]][..],
        ),
        (".see.partial-4194305", image_files(&mlp(Scheme::F32)), &[&["classify", "--image", "a.png"], &["info"]]),
    ] {
        let dir = root.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        write_into(&dir, &files);
        for verb in verbs {
            let refused = run(verb, &dir);
            let message = String::from_utf8_lossy(&refused.stderr);
            let is_told =
                message.contains("not finished") && message.contains("export again") && message.contains(name);
            assert!(!refused.status.success() && is_told, "{verb:?}: {message}");
        }
    }
    // A file that was about to get its name, and a folder called by its own dot.
    let file = root.path().join(".model.gguf.partial-4194305");
    std::fs::rename(write_talker(root.path(), 64, 1), &file).unwrap();
    let mut alone = program::command(env!("CARGO_BIN_EXE_foretrain-edge"));
    let alone = alone.args(["run", "--prompt", "abc", "--gguf"]).arg(&file).output().unwrap();
    let mut within = program::command(env!("CARGO_BIN_EXE_foretrain-edge"));
    let within = within.args(["info", "--package", "."]).current_dir(root.path().join(".see.partial-4194305"));
    for refused in [alone, within.output().unwrap()] {
        assert!(String::from_utf8_lossy(&refused.stderr).contains("not finished"), "{refused:?}");
    }
}

#[test]
fn a_hint_fits_what_was_read_and_a_cause_is_told_once() {
    const DAMAGED: &str = "undamaged";
    const NO_PACKAGE: &str = "Is this a package folder written by export?";
    let said = |arguments: &[&str], dir: &Path| {
        let output = run(arguments, dir);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let not_there = std::io::Error::from_raw_os_error(2).to_string();
    let dir = write(&image_files(&mlp(Scheme::F32)));
    let message = said(&["classify", "--image", "/nofile.png"], dir.path());
    assert_eq!((message.matches(&not_there).count(), message.matches(NO_PACKAGE).count()), (1, 0), "{message}");
    assert!(message.contains("PNG or JPEG picture?"), "{message}");
    let text = dir.path().join("words.txt");
    std::fs::write(&text, "no picture").unwrap();
    let message = said(&["classify", "--image", text.to_str().unwrap()], dir.path());
    assert!(message.contains("expected a PNG or JPEG picture") && !message.contains(DAMAGED), "{message}");
    let cut = dir.path().join("cut.png");
    image::RgbImage::new(20, 20).save(&cut).unwrap();
    std::fs::write(&cut, &std::fs::read(&cut).unwrap()[..50]).unwrap();
    let message = said(&["classify", "--image", cut.to_str().unwrap()], dir.path());
    assert!(message.contains(DAMAGED), "{message}");

    let empty = tempfile::tempdir().unwrap();
    let message = said(&["info"], empty.path());
    assert!(message.matches(&not_there).count() == 1 && message.contains(NO_PACKAGE), "{message}");
    let message = said(&["run", "--prompt", "a"], &empty.path().join("nowhere"));
    assert!(message.matches(&not_there).count() == 1 && message.contains("GGUF file"), "{message}");
    let message = said(&["perplexity", "--text", "/nofile.txt"], write(&text_files(&gpt2(Scheme::F32))).path());
    assert!(message.matches(&not_there).count() == 1 && message.contains("/nofile.txt"), "{message}");

    let onnx = write(&[("model.onnx".to_owned(), vec![0; 8])].into());
    let message = said(&["info"], onnx.path());
    assert!(message.contains("Its run.py does") && !message.contains(DAMAGED), "{message}");
    let mut other = image_files(&mlp(Scheme::F32));
    other.insert("config.json".to_owned(), b"{\"model_type\": \"unet\"}".to_vec());
    let message = said(&["info"], write(&other).path());
    assert!(message.contains("unet") && !message.contains(DAMAGED), "{message}");
}

#[test]
fn errors_are_json_for_those_who_asked_for_it() {
    let seeing = write(&image_files(&mlp(Scheme::F32)));
    let check = |output: &Output, code: i32, says: &str| {
        let stdout = String::from_utf8_lossy(&output.stdout);
        let json: Value = serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap();
        assert_eq!((&json["exit_code"], output.status.code()), (&code.into(), Some(code)), "{json}");
        let (told, shown) = (json["error"].as_str().unwrap(), String::from_utf8_lossy(&output.stderr));
        assert!(told.contains(says) && shown.contains(told.trim()), "{json} {shown}");
    };
    for (arguments, says) in [
        (&["run", "--prompt", "a"][..], "expected a language model"),
        (&["perplexity", "--text", "/nofile.txt"], "expected a language model"),
        (&["bench"], "expected a language model"),
        (&["classify", "--image", "/nofile.png"], "/nofile.png"),
        (&["--kernels", "abacus", "info"], "abacus"),
    ] {
        check(&run(&[arguments, &["--json"]].concat(), seeing.path()), 1, says);
        assert!(run(arguments, seeing.path()).stdout.is_empty());
    }
    check(&run(&["info", "--json"], &seeing.path().join("nowhere")), 1, "nowhere");
    // Arguments that were not understood.
    check(&run(&["run", "--json"], seeing.path()), 2, "--prompt");
    check(&run(&["info", "--json", "--frobnicate"], seeing.path()), 2, "--frobnicate");
}

#[test]
fn errors_name_the_file_and_end_with_a_code() {
    let dir = write(&image_files(&mlp(Scheme::Int8)));
    let check = |output: &Output, says: &str| {
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains(says), "{message}");
    };
    check(&run(&["run", "--prompt", "a"], dir.path()), "expected a language model");
    check(&run(&["info"], &dir.path().join("nowhere")), "nowhere");
    std::fs::write(dir.path().join("model.safetensors"), b"").unwrap();
    check(&run(&["info"], dir.path()), "model.safetensors");
}

#[test]
fn options_out_of_range_are_refused_before_anything_is_written() {
    let dir = write(&text_files(&gpt2(Scheme::F32)));
    for (options, expected) in [
        (["--temperature", "-1"], "at least 0"),
        (["--temperature", "nan"], "at least 0"),
        (["--top-p", "0"], "above 0 and at most 1"),
        (["--min-p", "2"], "from 0 to 1"),
        (["--repeat-penalty", "0"], "above 0"),
        (["--stop", ""], "--stop"),
        (["--threads", "100000"], "threads on this machine"),
    ] {
        let output = run(&[&["run", "--prompt", "abc"][..], &options].concat(), dir.path());
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &[][..]), "{options:?}: {told}");
        assert!(told.contains(expected), "{options:?}: {told}");
    }
    let nowhere = ["run", "--prompt", "abc", "--prompt-cache", "nowhere/of.cache"];
    let output = run(&nowhere, dir.path());
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &[][..]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("called nowhere"), "{output:?}");
    let output = run(&["bench", "--memory", "0"], dir.path());
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    // Which model is asked for either way.
    let mut command = program::command(env!("CARGO_BIN_EXE_foretrain-edge"));
    let output = command.args(["run", "--prompt", "abc", "--json"]).output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    let error = json["error"].as_str().unwrap();
    assert!(error.contains("--package") && error.contains("--gguf") && !error.starts_with("error:"), "{json}");
}
