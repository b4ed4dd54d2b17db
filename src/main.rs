//! The `watchpost` program: arguments in, exit code out.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread::available_parallelism;

use clap::Parser;
use watchpost::cli::Cli;

/// glibc's malloc, told to give memory back. A camera that is built anew allocates on new threads each time, and glibc
/// keeps a heap for every few threads, with frames on it: 16 cameras built anew every 2 s come to about 680 MiB, to about
/// 470 MiB with these settings and two heaps; 16 files that are only sought to their start every 0.8 s, to 485 and 363 MiB.
/// Of heaps there are as many as cores, two at least: threads that run at once and share one wait for each other (128 cameras on
/// 16 cores: decoding took a tenth less processor time with 16 or 64 heaps than with two, and as much memory).
/// What has 64 KiB or more is the system's again once it is free: frames of small pictures and decoders' buffers lie in no heap
/// among what stays.
///
/// GLib's own allocator for small things, which gives no page back that has one of them left, is left out, as GLib itself did from
/// 2.76 on: 16 cameras that fail at random made it grow by 6 MiB an hour.
///
/// And CUDA, told to use as many hardware queues as there are: streams that share one wait for each other, and every
/// decoder has one (32 cameras: the slowest batches in 100 took 9.6 ms with CUDA's usual 8 queues, 6.3 ms so).
const SETTINGS: [(&str, &str); 4] = [
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
    ("MALLOC_TRIM_THRESHOLD_", "1048576"),
    ("G_SLICE", "always-malloc"),
    ("CUDA_DEVICE_MAX_CONNECTIONS", "32"),
];

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
