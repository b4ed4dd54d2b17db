//! The `watchpost` program: arguments in, exit code out.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use clap::Parser;
use watchpost::cli::Cli;

/// glibc's malloc, told to give memory back. A camera that is built anew allocates on new threads each time, and glibc
/// keeps a heap for every few threads, with frames on it: 16 cameras built anew every 2 s come to about 680 MiB, to about
/// 470 MiB with these settings; 16 files that are only sought to their start every 0.8 s, to 485 and 363 MiB.
///
/// And CUDA, told to use as many hardware queues as there are: streams that share one wait for each other, and every
/// decoder has one (32 cameras: the slowest batches in 100 took 9.6 ms with CUDA's usual 8 queues, 6.3 ms so).
const SETTINGS: [(&str, &str); 4] = [
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_MMAP_THRESHOLD_", "262144"),
    ("MALLOC_TRIM_THRESHOLD_", "1048576"),
    ("CUDA_DEVICE_MAX_CONNECTIONS", "32"),
];

fn main() -> ExitCode {
    watchpost::worker::abort_on_panic();
    tune_libraries();
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
fn tune_libraries() {
    let unset = |(name, _): &(&str, &str)| std::env::var_os(name).is_none();
    if !SETTINGS.iter().any(unset) {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let ours = SETTINGS.into_iter().filter(unset);
        let _ = Command::new(program).args(std::env::args_os().skip(1)).envs(ours).exec();
    }
}
