//! The command line: mainstay.
fn main() {}
