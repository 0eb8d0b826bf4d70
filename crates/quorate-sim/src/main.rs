//! Whole clusters of the core's machines on virtual time.

fn main() {}
