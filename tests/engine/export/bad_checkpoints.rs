//! Checkpoints that are damaged, hostile or of another model: an error that names the file, never a panic.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use foretrain_engine::export::{
    COMPLETE_MARKER, ExportError, ModelCard, TOKENIZER_FILE, WEIGHTS_FILE, WeightsReader, read_checkpoint, read_params,
    resolve_checkpoint, write_params,
};
use foretrain_engine::models::Params;
use foretrain_engine::unwatched;
use proptest::prelude::*;

use crate::fixtures::{self, card, checkpoint, weights, write_checkpoint};

#[test]
fn a_checkpoint_comes_back_as_it_was() {
    let root = tempfile::tempdir().unwrap();
    for (family, model) in fixtures::families() {
        let folder = root.path().join(family);
        let read = checkpoint(&folder, &model);
        assert_eq!(read.card, card(&model));
        let written = weights(&model);
        assert_eq!(read.weights.len(), written.len());
        for (name, tensor) in written.iter() {
            let bits = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(bits(read.weights.get(name).unwrap()), bits(tensor), "{name}");
        }
    }
}

#[test]
fn every_type_survives_a_file() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("all.safetensors");
    let types = [DType::F64, DType::F32, DType::F16, DType::BF16, DType::I64, DType::U32, DType::U8];
    let tensor = |dtype| Tensor::new(&[[1_u8, 2, 3], [4, 5, 6]], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
    let params: Params = types.into_iter().map(|dtype| (format!("{dtype:?}"), tensor(dtype))).collect();
    let metadata = BTreeMap::from([("step".to_owned(), "12".to_owned())]);
    write_params(&path, &params, &metadata, unwatched!()).unwrap();
    assert_eq!(WeightsReader::open(&path).unwrap().metadata("step"), Some("12"));
    let read = read_params(&path, unwatched!()).unwrap();
    assert_eq!(read.len(), types.len());
    for dtype in types {
        let tensor = read.get(&format!("{dtype:?}")).unwrap();
        assert_eq!((tensor.dtype(), tensor.dims()), (dtype, &[2, 3][..]));
        let values = tensor.to_dtype(DType::F32).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(values, [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    }
    // The reference implementation reads the same.
    let bytes = std::fs::read(&path).unwrap();
    let reference = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(reference.len(), types.len());
    assert_eq!(reference.tensor("U8").unwrap().data(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_tensor_that_holds_no_numbers_is_named() {
    let model = fixtures::gpt2(64);
    let (name, mut weights) = ("transformer.ln_f.weight", weights(&model));
    let mut values = weights.get(name).unwrap().to_vec1::<f32>().unwrap();
    values[2] = f32::NAN;
    weights.insert(name, Tensor::new(values, &Device::Cpu).unwrap());
    let change = |folder: &Path| {
        std::fs::remove_dir_all(folder).unwrap();
        write_checkpoint(folder, &card(&model), &weights);
    };
    check(change, &["finite numbers", name, "NaN at index 2"]);
}

/// Reading a checkpoint after `change` fails with a message that holds all of `expected`, and the file's name.
#[track_caller]
fn check(change: impl FnOnce(&Path), expected: &[&str]) {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("checkpoint");
    write_checkpoint(&folder, &card(&fixtures::gpt2(64)), &weights(&fixtures::gpt2(64)));
    change(&folder);
    let error = read_checkpoint(&folder).unwrap_err().to_string();
    for part in expected {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

fn rewrite(folder: &Path, change: impl FnOnce(&mut Params)) {
    let mut params = weights(&fixtures::gpt2(64));
    change(&mut params);
    write_params(&folder.join(WEIGHTS_FILE), &params, &BTreeMap::new(), unwatched!()).unwrap();
}

fn raw(folder: &Path, header_bytes: u64, header: &str, data: &[u8]) {
    let bytes = [&header_bytes.to_le_bytes()[..], header.as_bytes(), data].concat();
    std::fs::write(folder.join(WEIGHTS_FILE), bytes).unwrap();
}

#[test]
fn incomplete_checkpoints() {
    check(|folder| std::fs::remove_file(folder.join(COMPLETE_MARKER)).unwrap(), &["COMPLETE", "checkpoint"]);
    check(|folder| std::fs::remove_file(folder.join(TOKENIZER_FILE)).unwrap(), &["tokenizer.json"]);
    check(
        |folder| std::fs::remove_file(folder.join(WEIGHTS_FILE)).unwrap(),
        &["model.safetensors", "moved or deleted"],
    );
    check(|folder| std::fs::remove_file(folder.join(ModelCard::FILE)).unwrap(), &["card.json"]);
    check(|folder| std::fs::write(folder.join(ModelCard::FILE), "{").unwrap(), &["model card", "line 1", "card.json"]);
    check(|folder| std::fs::write(folder.join(ModelCard::FILE), "{}").unwrap(), &["missing field", "card.json"]);
}

#[test]
fn weights_of_another_model() {
    let name = "transformer.h.0.attn.c_attn.weight";
    check(
        |folder| {
            rewrite(folder, |params| params.insert(name, Tensor::zeros((64, 64), DType::F32, &Device::Cpu).unwrap()));
        },
        &[name, "[64, 192]", "[64, 64]", "model.safetensors"],
    );
    check(
        |folder| {
            rewrite(folder, |params| params.insert(name, Tensor::zeros((64, 192), DType::F16, &Device::Cpu).unwrap()));
        },
        &[name, "F32", "F16", "model.safetensors"],
    );
    check(
        |folder| rewrite(folder, |params| *params = params.clone().into_iter().filter(|(n, _)| n != name).collect()),
        &[name, "found none of that name; the nearest is", "model.safetensors"],
    );
    check(
        |folder| {
            rewrite(folder, |params| params.insert("stranger", Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap()));
        },
        &["stranger", "model.safetensors"],
    );
    // Renamed: what was meant is near.
    let wrong = "transformer.h.0.attn.c_atn.weight";
    let renamed = |params: &mut Params| {
        let rename = |(found, tensor)| if found == name { (wrong.to_owned(), tensor) } else { (found, tensor) };
        *params = params.clone().into_iter().map(rename).collect();
    };
    check(|folder| rewrite(folder, renamed), &[name, "none of that name", wrong]);
}

#[test]
fn hostile_headers() {
    let entry = |start: u64, end: u64| format!(r#"{{"dtype":"F32","shape":[2],"data_offsets":[{start},{end}]}}"#);
    check(
        |folder| std::fs::write(folder.join(WEIGHTS_FILE), "").unwrap(),
        &["8 bytes", "0 bytes", "model.safetensors"],
    );
    check(|folder| raw(folder, u64::MAX, "{}", &[]), &["header", "18446744073709551615", "model.safetensors"]);
    check(|folder| raw(folder, 1 << 40, "{}", &[]), &["at most 2 bytes", "model.safetensors"]);
    check(|folder| raw(folder, 7, "garbage", &[]), &["JSON", "model.safetensors"]);
    let two = |a: &str, b: &str| format!(r#"{{"a":{a},"b":{b}}}"#);
    let overlapping = two(&entry(0, 8), &entry(4, 12));
    check(
        |folder| raw(folder, overlapping.len() as u64, &overlapping, &[0; 12]),
        &["tensor \"b\" from byte 8 on", "model.safetensors"],
    );
    let gap = two(&entry(0, 8), &entry(12, 20));
    check(
        |folder| raw(folder, gap.len() as u64, &gap, &[0; 20]),
        &["tensor \"b\" from byte 8 on", "offsets 12 to 20", "model.safetensors"],
    );
    let backwards = format!(r#"{{"a":{}}}"#, entry(8, 0));
    check(
        |folder| raw(folder, backwards.len() as u64, &backwards, &[0; 8]),
        &["tensor \"a\"", "offsets 8 to 0", "model.safetensors"],
    );
    let short = format!(r#"{{"a":{}}}"#, entry(0, 8));
    check(
        |folder| raw(folder, short.len() as u64, &short, &[0; 7]),
        &["bytes by the header", "tensor \"a\" is cut off", "model.safetensors"],
    );
    check(|folder| raw(folder, short.len() as u64, &short, &[0; 9]), &["bytes by the header", "model.safetensors"]);
    let lie = r#"{"a":{"dtype":"F32","shape":[4611686018427387904,8],"data_offsets":[0,8]}}"#;
    check(|folder| raw(folder, lie.len() as u64, lie, &[0; 8]), &["tensor \"a\"", "overflow", "model.safetensors"]);
    let lie = r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#;
    check(
        |folder| raw(folder, lie.len() as u64, lie, &[0; 8]),
        &["12 bytes of tensor \"a\"", "8 by its offsets", "model.safetensors"],
    );
    let strange = r#"{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#;
    check(|folder| raw(folder, strange.len() as u64, strange, &[0; 8]), &["tensor \"a\"", "F33", "model.safetensors"]);
    let deep = "[".repeat(100_000);
    check(|folder| raw(folder, deep.len() as u64, &deep, &[]), &["JSON", "model.safetensors"]);
}

#[test]
fn a_run_folder_means_its_best_then_its_newest_complete_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let run = root.path();
    let folder = |name: &str| run.join("checkpoints").join(name);
    let complete = |name: &str| {
        std::fs::create_dir_all(folder(name)).unwrap();
        std::fs::write(folder(name).join(COMPLETE_MARKER), "").unwrap();
    };
    let error = resolve_checkpoint(run).unwrap_err();
    assert!(matches!(&error, ExportError::NotACheckpoint { .. }), "{error}");
    std::fs::create_dir_all(folder("step-00000300")).unwrap();
    assert!(resolve_checkpoint(run).is_err(), "a checkpoint without its marker does not count");
    for name in ["step-00000020", "step-00000100", "step-x", "other"] {
        complete(name);
    }
    assert_eq!(resolve_checkpoint(run).unwrap(), folder("step-00000100"));
    let name_best = |name: &str| std::fs::write(folder("best"), name).unwrap();
    for not_a_complete_checkpoint in ["step-00000300", "step-99999999", "../..", "other", ""] {
        name_best(not_a_complete_checkpoint);
        assert_eq!(resolve_checkpoint(run).unwrap(), folder("step-00000100"), "{not_a_complete_checkpoint:?}");
    }
    name_best("step-00000020");
    assert_eq!(resolve_checkpoint(run).unwrap(), folder("step-00000020"));
    assert_eq!(resolve_checkpoint(&folder("step-00000020")).unwrap(), folder("step-00000020"));
    assert!(resolve_checkpoint(&run.join("nowhere")).unwrap_err().to_string().contains("nothing there"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_make_an_error_or_a_file(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("any.safetensors");
        std::fs::write(&path, bytes).unwrap();
        if let Err(error) = read_params(&path, unwatched!()) {
            prop_assert!(error.to_string().contains("any.safetensors"), "{error}");
        }
    }

    /// Bytes of a real file changed at random: an error, or tensors of no more bytes than the file has.
    #[test]
    fn changed_files_make_an_error_or_fit_their_file(
        changes in prop::collection::vec((0_usize..400, any::<u8>()), 1..6),
        cut in 0_usize..400,
    ) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("changed.safetensors");
        let tensor = |n: usize| Tensor::zeros(n, DType::F32, &Device::Cpu).unwrap();
        let params: Params = [("a".to_owned(), tensor(10)), ("b".to_owned(), tensor(30))].into_iter().collect();
        write_params(&path, &params, &BTreeMap::new(), unwatched!()).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        for (place, value) in changes {
            let place = place % bytes.len();
            bytes[place] = value;
        }
        if cut < bytes.len() / 4 {
            bytes.truncate(bytes.len() - cut);
        }
        std::fs::write(&path, &bytes).unwrap();
        match read_params(&path, unwatched!()) {
            Err(error) => prop_assert!(error.to_string().contains("changed.safetensors"), "{error}"),
            Ok(params) => {
                let total: usize = params.iter().map(|(_, t)| t.elem_count() * t.dtype().size_in_bytes()).sum();
                prop_assert!(total <= bytes.len());
            }
        }
    }
}
