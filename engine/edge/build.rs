//! Link options of the program.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Where a program lies is known when it starts: what it then corrects in its tables takes 24 bytes each, or one bit
    // packed (RELR; glibc from 2.36, musl from 1.2.4, Android from 9). A linker that does not know it says so and goes on.
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux" || system == "android") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
