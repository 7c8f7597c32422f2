//! Packages in programs that we did not write: the proof is a script of its own, because it installs them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;

#[test]
#[ignore = "installs llama.cpp, transformers, gguf-py and onnxruntime: run tests/interop/run, or this test with --ignored"]
fn packages_answer_alike_in_llama_cpp_transformers_gguf_py_and_onnxruntime() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/run");
    let status = Command::new(&script).arg("--strict").status().unwrap();
    assert!(status.success(), "{} ended with {status}", script.display());
}
