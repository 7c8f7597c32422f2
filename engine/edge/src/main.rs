//! Command line of the edge runtime.
fn main() {}
