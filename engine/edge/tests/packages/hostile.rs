//! Damaged and lying files: an error that names the file, never a panic.

use foretrain_edge::gguf::TensorType;
use foretrain_edge::{GenerateOptions, Message, Model, Package};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::builder::{Files, Scheme, character_tokenizer, files, write};
use super::image_models::{cnn, image_files, mlp, resnet};
use super::language_models::{gpt2, llama, text_files};
use super::talker::write_talker;

/// Opens the package and asks it everything; the answers do not matter.
fn use_everything(files: &Files) -> Result<(), String> {
    let dir = write(files);
    let package = Package::open(dir.path()).map_err(|error| error.to_string())?;
    let options = GenerateOptions { max_tokens: 3, temperature: 0.5, top_k: 2, seed: 1, ..GenerateOptions::default() };
    let _ = package.generate("ab", &options, &mut |_| true);
    let _ = package.token_losses(&[0, 1, 2, 3]);
    let _ = package.classify(&[100; 35]);
    let _ = package.classify(&[100; 324]);
    Ok(())
}

fn samples() -> Vec<Files> {
    let (config, mut weights) = llama(Scheme::F32, 32, false);
    let name = |name: &str| name.replace("model.layers", "blk").replace("model.", "");
    let file = weights.gguf("llama", TensorType::Q8_0, |_| true, name, |_, array| array.values.clone());
    vec![
        image_files(&mlp(Scheme::Ternary)),
        image_files(&cnn(Scheme::Int8)),
        text_files(&llama(Scheme::Ternary, 32, true)),
        files(&config, "model.gguf", file, Some(character_tokenizer("ab "))),
    ]
}

#[derive(Debug, Clone)]
enum Damage {
    Cut(prop::sample::Index),
    Byte(prop::sample::Index, u8),
    Word(prop::sample::Index, u64),
    /// In the first bytes, where the headers are.
    HeadByte(prop::sample::Index, u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    let word = prop_oneof![Just(u64::MAX), Just(1 << 63), Just(1 << 40), any::<u64>()];
    let index = any::<prop::sample::Index>;
    prop_oneof![
        1 => index().prop_map(Damage::Cut),
        2 => (index(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        1 => (index(), word).prop_map(|(at, word)| Damage::Word(at, word)),
        4 => (index(), any::<u8>()).prop_map(|(at, byte)| Damage::HeadByte(at, byte)),
    ]
}

fn apply(damage: &Damage, file: &mut Vec<u8>) {
    if file.is_empty() {
        return;
    }
    let len = file.len();
    match damage {
        Damage::Cut(at) => file.truncate(at.index(len)),
        Damage::Byte(at, byte) => file[at.index(len)] = *byte,
        Damage::HeadByte(at, byte) => file[at.index(len.min(600))] = *byte,
        Damage::Word(at, word) => {
            let at = at.index(len.min(600));
            for (target, byte) in file[at..].iter_mut().zip(word.to_le_bytes()) {
                *target = byte;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_damage_causes_a_panic(
        sample in 0_usize..4,
        name in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        let mut files = samples().swap_remove(sample);
        let name = files.keys().nth(name.index(files.len())).unwrap().clone();
        let file = files.get_mut(&name).unwrap();
        for damage in &damages {
            apply(damage, file);
        }
        let _ = use_everything(&files);
    }

    #[test]
    fn no_damage_to_a_file_alone_causes_a_panic(damages in prop::collection::vec(damage(), 1..4)) {
        let dir = tempfile::tempdir().unwrap();
        let path = write_talker(dir.path(), 64, 1);
        let mut file = std::fs::read(&path).unwrap();
        for damage in &damages {
            apply(damage, &mut file);
        }
        std::fs::write(&path, file).unwrap();
        if let Ok(model) = Model::open(&path) {
            let options = GenerateOptions { max_tokens: 3, ..GenerateOptions::default() };
            let _ = model.generate("ab", &options).map(|pieces| pieces.count());
            let _ = model.chat_prompt(&[Message::new("user", "Hi")]);
        }
    }

    #[test]
    fn no_number_in_a_config_causes_a_panic(
        sample in 0_usize..5,
        key in any::<prop::sample::Index>(),
        value in prop_oneof![
            Just(json!(0)), Just(json!(u64::MAX)), Just(json!(1_u64 << 62)), Just(json!(1_u64 << 33)), Just(json!(-1)),
            Just(json!(null)), Just(json!([])), Just(json!([0])), Just(json!([1_u64 << 40, 1_u64 << 40])),
            Just(json!("x")), (0_u64..300).prop_map(|n| json!(n)), (0_u64..9).prop_map(|n| json!([n, n])),
        ],
    ) {
        let mut files = match sample {
            0 => image_files(&mlp(Scheme::F32)),
            1 => image_files(&cnn(Scheme::Ternary)),
            2 => image_files(&resnet(Scheme::Int8)),
            3 => text_files(&gpt2(Scheme::F16)),
            _ => text_files(&llama(Scheme::F32, 32, true)),
        };
        let mut config: Value = serde_json::from_slice(&files["config.json"]).unwrap();
        let fields = config.as_object_mut().unwrap();
        let key = fields.keys().nth(key.index(fields.len())).unwrap().clone();
        fields.insert(key, value);
        files.insert("config.json".to_owned(), config.to_string().into_bytes());
        let _ = use_everything(&files);
    }
}

/// Replaces `from` by `to` (of the same length) in `name`, then expects an error that says `says`.
#[track_caller]
fn check(files: &Files, name: &str, from: &[u8], to: &[u8], says: &str) {
    let mut files = files.clone();
    let file = files.get_mut(name).unwrap();
    let at = file.windows(from.len()).position(|window| window == from).unwrap();
    file[at..at + from.len()].copy_from_slice(to);
    let error = use_everything(&files).unwrap_err();
    assert!(error.contains(says) && error.contains(name), "{error}");
}

#[test]
fn lies_are_named() {
    let files = image_files(&mlp(Scheme::Ternary));
    let weights = "model.safetensors";
    check(&files, weights, b"[256,35]", b"[256,36]", "header");
    check(&files, weights, b"\"TQ2_0\"", b"\"TQ9_0\"", "TQ9_0");
    check(&files, weights, b"[130, 256]", b"[130, 999]", "TQ2_0 blocks");
    check(&files, weights, b"layers.0.bias", b"layers.9.bias", "layers.0.bias");
    check(&files, "config.json", b"[256,130]", b"[256,131]", "131");
    check(&files, "config.json", b"\"mlp\"", b"\"mlq\"", "model_type");
}

#[test]
fn sizes_and_names_in_the_manifest_are_checked() {
    let files = image_files(&mlp(Scheme::F32));
    let open = |change: &dyn Fn(&mut Value)| {
        let dir = write(&files);
        let path = dir.path().join("manifest.json");
        let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut manifest);
        std::fs::write(&path, manifest.to_string()).unwrap();
        let package = Package::open(dir.path()).map_err(|error| error.to_string());
        package.and_then(|package| package.verify_checksums().map_err(|error| error.to_string())).unwrap_err()
    };
    let says = |error: String, what: &str| assert!(error.contains(what), "{error}");
    says(open(&|manifest| manifest["files"][0]["bytes"] = json!(3)), "3 bytes by the manifest");
    says(open(&|manifest| manifest["files"][0]["name"] = json!("../config.json")), "plain file names");
    says(open(&|manifest| manifest["files"][1] = manifest["files"][0].clone()), "each once");
    says(open(&|manifest| manifest["files"] = json!([])), "config.json");
    says(open(&|manifest| manifest["format_version"] = json!(2)), "format_version 1");
    says(open(&|manifest| manifest["files"][0]["sha256"] = json!("00")), "SHA-256 00");
}
