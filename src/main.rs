//! Parse the command line, load the settings, dispatch.

fn main() {}
