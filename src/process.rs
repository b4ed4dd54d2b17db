//! What the kernel says of this process: resident memory and processor time, from `/proc/self`; what it is started with; and
//! files: who may read and write them, and their names.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, setrlimit, umask};

/// Clock ticks a second in `/proc/self/stat`: part of Linux's interface to programs, 100 on every machine we build
/// for.
const TICKS_PER_SECOND: u64 = 100;

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
pub const SETTINGS: [(&str, &str); 4] = [
    ("MALLOC_MMAP_THRESHOLD_", "65536"),
    ("MALLOC_TRIM_THRESHOLD_", "1048576"),
    ("G_SLICE", "always-malloc"),
    ("CUDA_DEVICE_MAX_CONNECTIONS", "32"),
];

/// From now on files that this process and its children make are not for others, and not to be changed by their group:
/// modes 640 and 750 at most. Libraries write some of them (the spool, compiled models). A stricter umask stays.
pub fn keep_files_from_others() {
    let given = umask(Mode::RWXO | Mode::WGRP);
    umask(given | Mode::RWXO | Mode::WGRP);
}

/// Everyone may write the file: what stands in it may be anybody's.
pub fn is_everyones(metadata: &Metadata) -> bool {
    metadata.mode() & 0o002 != 0
}

/// Why a file that [`is_everyones`] is refused, and what to do.
pub const EVERYONES: &str = "everyone may change this file: chmod o-w it";

/// The path with `end` behind its whole name: `m.engine` and `.toml` are `m.engine.toml`.
pub fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// From now on this process leaves no core behind, however it ends: a core holds passwords and pictures.
///
/// # Errors
///
/// The system's, which always allows to lower a limit.
pub fn leave_no_core() -> io::Result<()> {
    Ok(setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?)
}

/// Resident memory in bytes.
///
/// # Errors
///
/// Where `/proc` is not mounted or says something else than Linux does.
pub fn rss_bytes() -> io::Result<u64> {
    parse_rss(&std::fs::read_to_string("/proc/self/status")?).ok_or_else(|| unreadable("/proc/self/status"))
}

/// Processor time (user and system) of all threads of this process since it started, the ended ones included.
/// Resolution 10 ms.
///
/// # Errors
///
/// Where `/proc` is not mounted or says something else than Linux does.
pub fn cpu_time() -> io::Result<Duration> {
    parse_cpu(&std::fs::read_to_string("/proc/self/stat")?).ok_or_else(|| unreadable("/proc/self/stat"))
}

fn unreadable(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not what Linux writes"))
}

fn parse_rss(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

fn parse_cpu(stat: &str) -> Option<Duration> {
    // The program's name stands in parentheses and may hold anything, parentheses too.
    let (_, fields) = stat.rsplit_once(')')?;
    // utime and stime are fields 14 and 15; the first one here is field 3.
    let mut times = fields.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (times.next()?.parse().ok()?, times.next()?.parse().ok()?);
    Some(Duration::from_millis(user.checked_add(system)?.checked_mul(1000 / TICKS_PER_SECOND)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_linux_writes() {
        assert_eq!(parse_rss("VmPeak:\t 9 kB\nVmRSS:\t    5120 kB\nVmData: 1 kB\n"), Some(5 << 20));
        assert_eq!((parse_rss(""), parse_rss("VmRSS: x kB")), (None, None));
        let stat = "17 (a) b) (c) S 1 17 17 0 -1 4194304 100 0 0 0 150 25 3 4 20 0 9 0 12345";
        assert_eq!(parse_cpu(stat), Some(Duration::from_millis(1750)));
        assert_eq!((parse_cpu(""), parse_cpu("17 (a) S 1")), (None, None));
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let rss = rss_bytes().unwrap();
        assert!(rss > 1 << 20 && rss < 1 << 40, "{rss}");
        let before = cpu_time().unwrap();
        // Two ticks of work in another thread: its time counts, and still does once it has ended.
        crate::worker::spawn("busy", move || while cpu_time().unwrap() < before + Duration::from_millis(20) {})
            .join()
            .unwrap();
        assert!(cpu_time().unwrap() >= before + Duration::from_millis(20));
    }
}
