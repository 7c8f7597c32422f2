//! Whole models with every set of kernels that this processor runs: the same greedy text from all of them, and the same
//! on every processor.

use foretrain_edge::{choose_kernels, kernel_sets};
use serde_json::Value;

use super::builder::{Scheme, write};
use super::language_models::{gpt2, llama, text_files};
use super::program;

/// The greedy text of `foretrain-edge run` with one set of kernels, and how many tokens it has.
fn greedy(kernels: &str, dir: &std::path::Path) -> (String, u64) {
    let output = program::command(env!("CARGO_BIN_EXE_foretrain-edge"))
        .args(["--kernels", kernels, "run", "--prompt", "hébc", "--max-tokens", "30", "--temperature", "0", "--json"])
        .arg("--package")
        .arg(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    (json["text"].as_str().unwrap().to_owned(), json["num_tokens"].as_u64().unwrap())
}

/// What the reference makes of the random models of `builder`, on any processor: GPT-2's text, then Llama's.
const TEXTS: [(Scheme, [&str; 2]); 7] = [
    (Scheme::F32, ["hkjjahhkjéhhhhhhqqrrrrrmrhhhhh", "tqqßvqqqßmlrxddd→tccccbtvppppc"]),
    (Scheme::F16, ["hkjjahhkjéhhhhhhqqrrrrrmrhhhhh", "tqqßvqqqßmlrxddd→tccccbtvppppc"]),
    (Scheme::Bf16, ["hkjjahhkjéhhhhhhqqrrrrrmrhhhhh", "tqqßvqqqßmlrxddd→tccccbtvppppc"]),
    (Scheme::Int8, ["hkjjahhhhhhhhhhhqqrrrrrmrhhhhh", "tqqßvqqqßmlrxddd→tccccbtvppppc"]),
    (Scheme::Int4, ["hmrjmmhhhhhhhhhhqqrrhhhhhhhhhh", "→ qqqqujuddrdr xl→→ccccyyyyyyy"]),
    (Scheme::Ternary, ["jjjjjjjjjrrrrrrrrrrrrrrrrrrrrr", "jjjjjuqqqjjjjjjjßßßßßßßtttthpp"]),
    (Scheme::TernaryBase3, ["jjjjjjjjjrrrrrrrrrrrrrrrrrrrrr", "jjjjjuqqqjjjjjjjßßßßßßßtttthpp"]),
];

#[test]
fn greedy_texts_are_the_same_with_every_set_of_kernels() {
    // Rows of 128 are half a block of trits, those of 256 a whole one.
    let models = |scheme| [gpt2(scheme), llama(scheme, 256, true)].map(|built| write(&text_files(&built)));
    let dirs = Scheme::ALL.map(|scheme| (scheme, models(scheme)));
    let expected = TEXTS.map(|(scheme, texts)| (scheme, texts.map(|text| (text.to_owned(), 30))));
    for kernels in kernel_sets() {
        let found =
            dirs.each_ref().map(|(scheme, dirs)| (*scheme, dirs.each_ref().map(|dir| greedy(kernels, dir.path()))));
        assert_eq!(found, expected, "{kernels}");
    }
}

#[test]
fn unknown_kernels_are_refused_with_those_that_run_here() {
    let sets = kernel_sets();
    assert_eq!(sets[0], "scalar");
    let output = program::command(env!("CARGO_BIN_EXE_foretrain-edge"))
        .env("FORETRAIN_EDGE_KERNELS", "mmx")
        .args(["info", "--package", "nowhere"])
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && message.contains("\"mmx\"") && message.contains(&sets.join(", ")), "{message}");
    // What is in use stays in use.
    let fastest = sets.last().unwrap();
    choose_kernels(fastest).unwrap();
    choose_kernels(fastest).unwrap();
    if sets.len() > 1 {
        assert!(choose_kernels("scalar").unwrap_err().to_string().contains("in use already"));
    }
}
