//! The `watchpost` program: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use watchpost::cli::Cli;

fn main() -> ExitCode {
    watchpost::worker::abort_on_panic();
    match watchpost::cmd::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.text.lines() {
                eprintln!("watchpost: {line}");
            }
            ExitCode::from(failure.code as u8)
        }
    }
}
