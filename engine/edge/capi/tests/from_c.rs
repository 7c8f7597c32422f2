//! The header is current, and a C program that uses it talks with a model.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

#[cfg(unix)]
#[path = "../../tests/packages/program.rs"]
mod program;
#[path = "../../tests/packages/talker.rs"]
mod talker;

use std::path::Path;
#[cfg(unix)]
use std::{path::PathBuf, process::Command};

#[cfg(unix)]
use foretrain_edge::{GenerateOptions, Model};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_header_is_current() {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).unwrap();
    let bindings = cbindgen::Builder::new().with_src(root().join("src/lib.rs")).with_config(config).generate().unwrap();
    let mut made = Vec::new();
    bindings.write(&mut made);
    let path = root().join("include/foretrain_edge.h");
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::create_dir_all(root().join("include")).unwrap();
        std::fs::write(&path, &made).unwrap();
    }
    let committed = std::fs::read(&path).unwrap_or_default();
    assert!(
        String::from_utf8_lossy(&committed).replace("\r\n", "\n") == String::from_utf8(made).unwrap(),
        "include/foretrain_edge.h is stale: run this test with UPDATE_HEADER=1 and commit it"
    );
}

/// The static library that cargo built with this test: in its folder or the one above, whichever is newer.
#[cfg(unix)]
fn static_library() -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let folders = test.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join("libforetrain_edge_c.a")).filter(|path| path.is_file());
    found.max_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok())
}

#[test]
#[cfg(unix)]
fn a_c_program_generates_text() {
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    if Command::new(&compiler).arg("--version").output().is_err() {
        eprintln!("SKIPPED: no C compiler ({compiler}); nothing was tested");
        return;
    }
    let library = static_library().expect("the static library, which cargo builds before this test");
    let dir = tempfile::tempdir().unwrap();
    let model = talker::write_talker(dir.path(), 100, 1);
    let executable = dir.path().join("program");
    let compiled = Command::new(&compiler)
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&executable)
        .arg(root().join("tests/program.c"))
        .arg("-I")
        .arg(root().join("include"))
        .arg(library)
        .args(["-lpthread", "-ldl", "-lm"])
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = program::command(&executable).arg(&model).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let model = Model::open(&model).unwrap();
    let options = GenerateOptions { temperature: 0.0, max_tokens: 20, ..GenerateOptions::default() };
    let expected = |prompt| -> String { model.generate(prompt, &options).unwrap().map(Result::unwrap).collect() };
    let text = String::from_utf8(output.stdout).unwrap();
    let parts: Vec<&str> = text.split("\n---\n").collect();
    let (tell, tell_me) = (expected("Tell"), expected("Tell me"));
    // With a context and without, the same.
    assert_eq!([parts[0], parts[2], parts[3], parts[4]], [&tell, &tell, &tell_me, &tell_me], "{text}");
}
