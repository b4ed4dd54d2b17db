//! The `watchpost` program: arguments in, exit code out.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::available_parallelism;

use clap::Parser;
use watchpost::cli::Cli;
use watchpost::process::SETTINGS;

fn main() {
    watchpost::worker::abort_on_panic();
    tune_libraries();
    let code = match watchpost::cmd::run(Cli::parse()) {
        Ok(()) => 0,
        Err(failure) => {
            for line in failure.text.lines() {
                eprintln!("watchpost: {line}");
            }
            failure.code as i32
        }
    };
    // Whoever reads may have left.
    let _ = std::io::stdout().flush();
    watchpost::daemon::end(code)
}

/// Starts this program again in its own place, once: malloc reads its settings before `main`. Settings of the user's
/// own hold; where the program cannot be started again it goes on as it is, only larger.
fn tune_libraries() {
    let heaps = available_parallelism().map_or(2, |cores| cores.get().max(2)).to_string();
    let settings = SETTINGS.into_iter().chain([("MALLOC_ARENA_MAX", heaps.as_str())]);
    let ours: Vec<_> = settings.filter(|(name, _)| std::env::var_os(name).is_none()).collect();
    if ours.is_empty() {
        return;
    }
    if let Ok(program) = std::env::current_exe() {
        let _ = Command::new(program).args(std::env::args_os().skip(1)).envs(ours).exec();
    }
}
