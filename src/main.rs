//! Parse the command line, load the settings, dispatch: all of it in `inferq::cli`. And choose the allocator.

use std::process::ExitCode;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    inferq::cli::run(std::env::args_os())
}
