//! The `watchpost` program: arguments in, exit code out.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Parser;
use watchpost::cli::Cli;

/// glibc's malloc, told to give memory back. A camera that is built anew every few minutes allocates on new threads
/// each time; with a heap for every few threads, and frames on those heaps, 16 repeated files grew by 18 MiB a minute.
const MALLOC: [(&str, &str); 3] =
    [("MALLOC_ARENA_MAX", "2"), ("MALLOC_MMAP_THRESHOLD_", "262144"), ("MALLOC_TRIM_THRESHOLD_", "1048576")];

fn main() -> ExitCode {
    watchpost::worker::abort_on_panic();
    tune_malloc();
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

/// Starts this program again in its own place, once: malloc reads its settings before `main`. Settings of the user's
/// own hold; where the program cannot be started again it goes on as it is, only larger.
fn tune_malloc() {
    if std::env::var_os(MALLOC[0].0).is_some() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let _ = Command::new(program).args(std::env::args_os().skip(1)).envs(MALLOC).exec();
    }
}
