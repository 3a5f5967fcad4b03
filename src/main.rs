//! Parse the command line, load the settings, dispatch: all of it in `inferq::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    inferq::cli::run(std::env::args_os())
}
