//! Files that lie, break off or make no sense: an error that says so, never a panic.

use proptest::prelude::*;

use super::fixtures::*;
use crate::data::{DataError, DatasetSpec, TokenizerSpec, load};
use crate::device::{CancelFlag, Watch};

/// Breaks one of the four IDX files; the error must hold all of `words`.
#[track_caller]
fn check_idx(file: usize, bytes: Vec<u8>, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let mut files = idx_files();
    files[file].1 = bytes;
    write_all(folder.path(), &files);
    let error = error_text(&idx_spec(folder.path()));
    for word in words {
        assert!(error.contains(word), "{word:?} is missing in: {error}");
    }
    assert!(error.contains(&*folder.path().to_string_lossy()), "the path is missing in: {error}");
}

#[test]
fn idx_lies() {
    let good = idx_files()[0].1.clone();
    check_idx(0, Vec::new(), &["an empty file", "00 00 08 03"]);
    check_idx(0, good[..9].to_vec(), &["a header of 16 bytes", "9 bytes"]);
    check_idx(0, good[..100].to_vec(), &["[30, 2, 3]", "room for at most 84"]);
    check_idx(0, [good.clone(), vec![0]].concat(), &["180 bytes", "181 bytes"]);
    check_idx(0, idx(&[u32::MAX, u32::MAX, u32::MAX], &[]), &["1 to 4096 pixels"]);
    check_idx(0, idx(&[u32::MAX, 4096, 4096], &[]), &["room for at most 0 bytes"]);
    check_idx(0, idx(&[30, 0, 3], &[]), &["1 to 4096 pixels"]);
    check_idx(0, idx(&[0, 2, 3], &[]), &["expected 0 labels", "found 30"]);
    check_idx(0, b"<!DOCTYPE html>".to_vec(), &["00 00 08 03", "3c 21 44 4f"]);
    check_idx(1, idx(&[29], &[0; 29]), &["30 labels", "found 29"]);
    check_idx(3, idx(&[10], &[7; 10]), &["labels 0 to 2", "label 7 at record 0"]);
    let mut labels = [0, 1, 2].repeat(10);
    labels[4] = 200;
    check_idx(1, idx(&[30], &labels), &["label 200 at record 4"]);
}

#[test]
fn gz_lies() {
    let good = idx_files()[0].1.clone();
    check_idx(0, gz(&good[..100]), &["180 bytes", "84 bytes"]);
    check_idx(0, gz(&[good.clone(), vec![0; 1 << 20]].concat()), &["180 bytes", "found more"]);
    let packed = gz(&good);
    check_idx(0, packed[..packed.len() - 12].to_vec(), &["download complete"]);
    // The header asks for 16 TB; the file is too small for that even at the highest compression there is.
    check_idx(0, gz(&idx(&[1 << 20, 4096, 4096], &[0; 1 << 16])), &["room for at most"]);
    let mut broken = packed;
    broken[12] ^= 0xff;
    broken[14] ^= 0xff;
    let folder = tempfile::tempdir().unwrap();
    let mut files = idx_files();
    files[0].1 = broken;
    write_all(folder.path(), &files);
    assert!(load_from(&idx_spec(folder.path())).is_err());
}

/// The limit is named, with what to do about it.
#[track_caller]
fn check_too_large(spec: &DatasetSpec, max_bytes: u64, words: &[&str]) {
    let error = error_within(spec, max_bytes);
    for word in words.iter().chain(&["at most", "memory"]) {
        assert!(error.contains(word), "{word:?} is missing in: {error}");
    }
}

#[test]
fn memory_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), &idx_files());
    let spec = idx_spec(folder.path());
    check_too_large(&spec, 179, &["IDX images", "179 bytes", "180 bytes", "train-images"]);
    // What training takes is not there for testing.
    check_too_large(&spec, 239, &["IDX images", "59 bytes", "60 bytes", "t10k-images"]);
    assert!(load_from(&spec).is_ok());

    // The text fits, and its tokens, four bytes each, do not; or only part of a folder does.
    let texts = folder.path().join("texts");
    write_all(&texts, &[("1.txt", vec![b'a'; 1000]), ("2.txt", vec![b'b'; 1000])]);
    let one = text_spec(&texts.join("1.txt"), TokenizerSpec::Byte);
    check_too_large(&one, 999, &["1000 bytes", "999 bytes"]);
    check_too_large(&one, 3599, &["tokens", "3599 bytes"]);
    check_too_large(&one, 3999, &["tokens", "399 bytes"]);
    check_too_large(&text_spec(&texts, TokenizerSpec::Byte), 1999, &["2000 bytes", "1999 bytes"]);
    let jsonl = DatasetSpec::Jsonl { path: texts.join("1.txt"), field: "a".into(), tokenizer: TokenizerSpec::Byte };
    check_too_large(&jsonl, 999, &["1000 bytes"]);

    let images = folder.path().join("images");
    for name in ["a/1.png", "a/2.png", "b/1.png", "b/2.png"] {
        write_all(&images, &[(name, png(false))]);
    }
    let spec = DatasetSpec::ImageFolder { path: images, image_size: (10, 10) };
    check_too_large(&spec, 1199, &["1199 bytes", "1200 bytes for 4 files", "smaller image size"]);
    assert!(load_from(&spec).is_ok());
}

#[test]
fn missing_things_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent");
    assert!(error_text(&idx_spec(&absent)).contains("spelled right"));
    assert!(error_text(&idx_spec(folder.path())).contains("train-images-idx3-ubyte"));
    assert!(error_text(&DatasetSpec::Cifar10 { path: folder.path().into() }).contains("data_batch_1.bin"));
    assert!(error_text(&DatasetSpec::Cifar10 { path: absent.clone() }).contains("absent"));
    let spec = DatasetSpec::ImageFolder { path: folder.path().into(), image_size: (8, 8) };
    assert!(error_text(&spec).contains("one per class"));
    assert!(error_text(&text_spec(folder.path(), TokenizerSpec::Char)).contains(".txt"));
    assert!(error_text(&text_spec(&absent, TokenizerSpec::Char)).contains("absent"));
    let file = folder.path().join("a.txt");
    std::fs::write(&file, "some text that is long enough").unwrap();
    let gpt2 = TokenizerSpec::Gpt2 { folder: folder.path().into() };
    assert!(error_text(&text_spec(&file, gpt2)).contains("encoder.json or vocab.json"));
    assert!(error_text(&text_spec(&file, TokenizerSpec::File { path: absent })).contains("absent"));
}

#[test]
fn text_that_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    for (bytes, word) in
        [(&b""[..], "some text"), (b" \n ", "some text"), (b"ab\xffcd", "from byte 2"), (b"a", "2 tokens")]
    {
        std::fs::write(&path, bytes).unwrap();
        let error = error_text(&text_spec(&path, TokenizerSpec::Byte));
        assert!(error.contains(word), "{error}");
    }
}

#[test]
#[cfg(unix)]
fn a_device_is_no_file() {
    let error = error_text(&text_spec("/dev/zero".as_ref(), TokenizerSpec::Byte));
    assert!(error.contains("device or pipe"), "{error}");
}

#[test]
#[cfg(unix)]
fn permission_is_asked_for() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    std::fs::write(&path, "text").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    if std::fs::read(&path).is_ok() {
        eprintln!("SKIPPED: this user may read everything");
        return;
    }
    assert!(error_text(&text_spec(&path, TokenizerSpec::Byte)).contains("permission"));
}

#[test]
fn cifar_lies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cifar.tar.gz");
    let check = |bytes: Vec<u8>, word: &str| {
        std::fs::write(&path, bytes).unwrap();
        let error = error_text(&DatasetSpec::Cifar10 { path: path.clone() });
        assert!(error.contains(word), "{word:?} is missing in: {error}");
    };
    check(Vec::new(), "data_batch_1.bin");
    check(b"no archive".to_vec(), "archive");
    let mut wrong = cifar_file(20);
    wrong[3073] = 10;
    check(gz(&tar(&[("data_batch_1.bin", wrong)])), "label 10 at record 1 of data_batch_1.bin");
    check(gz(&tar(&[("data_batch_1.bin", vec![0; 3000])])), "records of 3073 bytes");
    let whole = tar(&[("x/data_batch_1.bin", cifar_file(20))]);
    check(gz(&whole[..30_000]), "download");
    check(
        gz(&tar(&[("data_batch_1.bin", cifar_file(20)), ("batches.meta.txt", b"one\ntwo\n".to_vec())])),
        "10 class names",
    );
}

#[test]
fn cancel_ends_every_loader() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), &idx_files());
    write_all(folder.path(), &[("a.txt", b"text and more text".to_vec())]);
    let cancel = CancelFlag::default();
    cancel.set();
    let specs = [
        DatasetSpec::Glyphs,
        DatasetSpec::Grammar,
        DatasetSpec::Rounds,
        idx_spec(folder.path()),
        text_spec(folder.path(), TokenizerSpec::Char),
    ];
    for spec in specs {
        let result = load(&spec, &folder.path().join("cache"), Watch::new(&cancel, &|_| {}));
        assert!(matches!(result, Err(DataError::Cancelled(_))), "{spec:?}: {result:?}");
    }
    assert!(!folder.path().join("cache").exists(), "nothing half done is left");
}

/// Changes some bytes of `bytes`, then cuts or extends it.
fn broken(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let len = bytes.len();
    let changes = proptest::collection::vec((0..len, any::<u8>()), 0..8);
    let end = prop_oneof![3 => Just(len), 1 => 0..len, 1 => len..len + 40];
    (changes, end).prop_map(move |(changes, end)| {
        let mut bytes = bytes.clone();
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes.resize(end, 7);
        bytes
    })
}

/// Loads a folder with these files; any outcome but a panic is fine. An error has a text.
fn survives(files: &[(&str, Vec<u8>)], spec: impl FnOnce(&std::path::Path) -> DatasetSpec) {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), files);
    if let Err(error) = load_from(&spec(folder.path())) {
        assert!(!error.to_string().is_empty());
    }
}

fn png(is_grey: bool) -> Vec<u8> {
    let image = image::RgbImage::from_fn(5, 4, |x, y| image::Rgb([x as u8 * 40, y as u8 * 50, 9]));
    let image = image::DynamicImage::from(image);
    let image = if is_grey { image.grayscale() } else { image };
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

const TOKENIZER: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":3,"content":"</s>",
"single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],"normalizer":{"type":"NFC"},
"pre_tokenizer":{"type":"Split","pattern":{"Regex":"\\s+"},"behavior":"Isolated","invert":false},"post_processor":null,
"decoder":{"type":"Fuse"},"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,
"end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"ignore_merges":false,
"vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]}}"#;

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn idx_survives(file in 0..4_usize, packed: bool, bytes in (0..4_usize).prop_flat_map(|i| broken(idx_files()[i].1.clone()))) {
        let mut files = idx_files();
        files[file].1 = if packed { gz(&bytes) } else { bytes };
        survives(&files, idx_spec);
    }

    #[test]
    fn gz_survives(bytes in broken(gz(&idx_files()[0].1))) {
        let mut files = idx_files();
        files[0].1 = bytes;
        survives(&files, idx_spec);
    }

    #[test]
    fn cifar_survives(bytes in broken(tar(&[("a/data_batch_1.bin", cifar_file(3)), ("a/batches.meta.txt", b"x\n".to_vec())]))) {
        survives(&[("c.tar", bytes)], |folder| DatasetSpec::Cifar10 { path: folder.join("c.tar") });
    }

    #[test]
    fn png_survives(bytes in broken(png(false))) {
        let files = [("a/1.png", png(true)), ("a/2.png", png(false)), ("b/1.png", bytes), ("b/2.png", png(true))];
        survives(&files, |folder| DatasetSpec::ImageFolder { path: folder.into(), image_size: (3, 3) });
    }

    #[test]
    fn tokenizer_survives(bytes in broken(TOKENIZER.as_bytes().to_vec())) {
        let files = [("a.txt", b"abba ab ba abba ab ba".to_vec()), ("t.json", bytes)];
        survives(&files, |folder| {
            text_spec(&folder.join("a.txt"), TokenizerSpec::File { path: folder.join("t.json") })
        });
    }

    #[test]
    fn merges_survive(vocab in broken(br#"{"a":0,"b":1,"ab":2}"#.to_vec()), merges in broken(b"#version: 0.2\na b\n".to_vec())) {
        let files = [("a.txt", b"abba ab ba abba ab ba".to_vec()), ("vocab.json", vocab), ("merges.txt", merges)];
        survives(&files, |folder| {
            text_spec(&folder.join("a.txt"), TokenizerSpec::Gpt2 { folder: folder.into() })
        });
    }

    #[test]
    fn jsonl_survives(bytes in broken(b"{\"text\":\"some words\"}\n{\"text\":\"and some more of them\"}\n".to_vec())) {
        survives(&[("a.jsonl", bytes)], |folder| DatasetSpec::Jsonl {
            path: folder.join("a.jsonl"),
            field: "text".into(),
            tokenizer: TokenizerSpec::Byte,
        });
    }

    #[test]
    fn noise_survives(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let files = [
            ("i/train-images-idx3-ubyte", bytes.clone()),
            ("i/train-labels-idx1-ubyte", bytes.clone()),
            ("c.tar.gz", bytes.clone()),
            ("t.txt", bytes),
        ];
        survives(&files, |folder| idx_spec(&folder.join("i")));
        survives(&files, |folder| DatasetSpec::Cifar10 { path: folder.join("c.tar.gz") });
        survives(&files, |folder| text_spec(&folder.join("t.txt"), TokenizerSpec::Char));
    }
}
