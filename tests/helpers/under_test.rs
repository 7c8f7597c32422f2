//! The product's own program, so that tests can run and kill it as a process.

fn main() -> std::process::ExitCode {
    foretrain::main()
}
