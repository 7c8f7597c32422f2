//! The one binary; what it does is in the library, so that tests can drive it.

fn main() -> std::process::ExitCode {
    foretrain::main()
}
