//! Window and command line.
fn main() {}
