//! Damaged and lying files: an error that names the file, never a panic.

use foretrain_edge::gguf::TensorType;
use foretrain_edge::{GenerateOptions, Message, Model, Package};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::allocations::most_allocated;
use super::builder::{Files, Scheme, character_tokenizer, files, write};
use super::image_models::{cnn, image_files, mlp, resnet};
use super::language_models::{gpt2, llama, text_files};
use super::talker::write_talker;

/// Bytes that opening a package may take from the allocator for each byte of its files: a list of empty strings, of 8 bytes
/// in a GGUF file, is 24 each in memory, twice while it grows; a number of 2 bytes in JSON becomes 32, kept twice over by
/// the tokenizers library where it tries one form of a list after the other; a merge of a
/// tokenizer, of 6 bytes at least, some 500 while the library reads it.
const BYTES_PER_BYTE: usize = 128;
/// Bytes that it may take besides: names of up to 65536 classes, compiled patterns of the tokenizer, the objects that JSON
/// may have.
const BYTES_BESIDES: usize = 8 << 20;

/// Opens the package in no more memory than its files justify.
fn open(files: &Files) -> Result<Package, String> {
    let dir = write(files);
    let (package, most) = most_allocated(|| Package::open(dir.path()));
    let size: usize = files.values().map(Vec::len).sum();
    let package = package.map_err(|error| error.to_string());
    let end = package.as_ref().map_or_else(String::as_str, |_| "open");
    assert!(most <= size * BYTES_PER_BYTE + BYTES_BESIDES, "{most} bytes for files of {size}: {end}");
    package
}

/// Opens the package and asks it everything; the answers do not matter.
fn use_everything(files: &Files) -> Result<(), String> {
    let package = open(files)?;
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

/// A file that ends where something could end is not taken for a whole one.
#[test]
fn files_cut_at_any_boundary_are_refused() {
    for files in samples() {
        for (name, content) in &files {
            let is_json = name.ends_with(".json");
            // In JSON before and after each sign of its grammar; elsewhere at each 4 bytes of the header and the start of
            // the data, then in larger steps.
            let cuts: Vec<usize> = if is_json {
                let signs = (0..content.len()).filter(|&at| b"{}[],:\"".contains(&content[at]));
                signs.flat_map(|at| [at, at + 1]).filter(|&cut| cut < content.len()).collect()
            } else {
                (0..3000).step_by(12).chain((3000..).step_by(4001)).take_while(|&cut| cut < content.len()).collect()
            };
            let padding = content.iter().rev().take_while(|&&byte| byte == 0).count();
            for cut in cuts {
                let mut files = files.clone();
                files.get_mut(name).unwrap().truncate(cut);
                // A GGUF file ends with up to 31 bytes that nothing reads.
                if is_json || cut + padding.max(32) < content.len() {
                    let error = open(&files).unwrap_err();
                    assert!(error.contains(name.as_str()) || error.contains("model."), "{cut}: {error}");
                }
            }
        }
    }
}

/// Files that are as hard on memory as their formats allow, large enough that what is fixed does not hide it.
#[test]
fn files_made_to_grow_in_memory_are_bounded() {
    let len = 1_000_000;
    let base = text_files(&llama(Scheme::F32, 32, true));
    let with = |name: &str, content: Vec<u8>| {
        let mut files = base.clone();
        let start = String::from_utf8_lossy(&content[..content.len().min(120)]).into_owned();
        files.insert(name.to_owned(), content);
        assert!(open(&files).is_err(), "{name}: {start}");
    };
    let list = |item: &str, start: &str, end: &str| {
        format!("{start}{}{end}", vec![item; len / (item.len() + 1)].join(",")).into_bytes()
    };
    for item in ["0", "[]", "{}", "\"\"", "null", "[[]]", "[[0]]", "{\"\":0}"] {
        with("config.json", list(item, "{\"model_type\":\"llama\",\"rope_scaling\":[", "]}"));
        with("tokenizer.json", list(item, "{\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[", "]}}"));
        with("tokenizer.json", list(item, "{\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[", "]}}"));
        with("tokenizer.json", list(item, "{\"added_tokens\":[", "]}"));
        let header = list(item, "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,0],\"shape\":[", "]}}");
        with("model.safetensors", [&(header.len() as u64).to_le_bytes()[..], &header].concat());
    }
    let vocabulary: Vec<String> = (0..len / 12).map(|id| format!("\"{id}\":{id}")).collect();
    let vocabulary = format!("{{\"model\":{{\"type\":\"BPE\",\"merges\":[],\"vocab\":{{{}}}}}}}", vocabulary.join(","));
    let mut large = base.clone();
    large.insert("tokenizer.json".to_owned(), vocabulary.into_bytes());
    open(&large).unwrap();
    // GGUF: one list of strings (type 8) or of empty lists (type 9) under one key, or many keys.
    let head =
        |tensors: u64, pairs: u64| [&b"GGUF\x03\0\0\0"[..], &tensors.to_le_bytes(), &pairs.to_le_bytes()].concat();
    let key =
        |key: &str, kind: u32| [&(key.len() as u64).to_le_bytes()[..], key.as_bytes(), &kind.to_le_bytes()].concat();
    let count = |count: usize| (count as u64).to_le_bytes().to_vec();
    let list = |kind: u32, count_of: usize, item: &[u8]| {
        [head(0, 1), key("k", 9), kind.to_le_bytes().to_vec(), count(count_of), item.repeat(count_of)].concat()
    };
    let many_pairs: Vec<u8> = (0..len / 18).flat_map(|n| [key(&format!("{n:05}"), 7), vec![1]].concat()).collect();
    let tensor = |n: usize| {
        // One dimension of 256, in Q4_K, all at the same place.
        let rest = [&1_u32.to_le_bytes()[..], &256_u64.to_le_bytes(), &12_u32.to_le_bytes(), &0_u64.to_le_bytes()];
        [&5_u64.to_le_bytes()[..], format!("{n:05}").as_bytes(), &rest.concat()].concat()
    };
    let many_tensors: Vec<u8> = (0..len / 37).flat_map(tensor).collect();
    for file in [
        list(8, len / 8, &[0; 8]),
        list(9, len / 12, &[0; 12]),
        list(7, len, &[1]),
        [head(0, len as u64 / 18), many_pairs].concat(),
        [head(len as u64 / 37, 0), many_tensors, vec![0; 256]].concat(),
    ] {
        let mut files = base.clone();
        files.remove("model.safetensors");
        files.insert("model.gguf".to_owned(), file);
        assert!(open(&files).is_err());
    }
}

/// Tensors that lie on each other would be decoded again and again.
#[test]
fn tensors_that_share_bytes_are_refused() {
    let (config, mut weights) = llama(Scheme::F32, 32, false);
    let name = |name: &str| name.replace("model.layers", "blk").replace("model.", "");
    let mut file = weights.gguf("llama", TensorType::Q8_0, |_| true, name, |_, array| array.values.clone());
    let at = |file: &[u8], name: &[u8]| file.windows(name.len()).position(|w| w == name).unwrap() + name.len();
    // Name, dimensions, type, offset.
    let offset = |file: &[u8], name: &[u8]| at(file, name) + 4 + 16 + 4;
    let gate = offset(&file, b"blk.0.mlp.gate_proj.weight");
    let up = offset(&file, b"blk.0.mlp.up_proj.weight");
    file.copy_within(gate..gate + 8, up);
    let error = open(&files(&config, "model.gguf", file, Some(character_tokenizer("ab ")))).unwrap_err();
    assert!(error.contains("share no bytes") && error.contains("blk.0.mlp.up_proj.weight"), "{error}");
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
