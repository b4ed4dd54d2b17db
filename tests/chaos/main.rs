//! What is promised, while everything around fails at random: brokers, disks and cameras. Each test has a long form, which
//! SPECIFICATION.md names.

#[path = "../support/mod.rs"]
mod support;

mod broker;
mod cameras;
mod disk;
mod reconnects;
mod slow;
mod soak;

use std::fs;
use std::process::Command;

/// Set in a process that runs one test alone.
const ALONE: &str = "WATCHPOST_ALONE";

/// Runs a test again as a process of its own: one whose limits, memory and descriptors are in its hands. True in that
/// process.
fn alone(name: &str, environment: &[(&str, &str)]) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    // Beyond a limit on files the system also sends a signal, which would end it.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(std::env::current_exe().unwrap());
    shell.arg(name).env(ALONE, "1").envs(environment.iter().copied());
    let output = shell.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
    println!("{out}");
    false
}

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    memory: u64,
    descriptors: usize,
    threads: usize,
}

impl Held {
    /// What `/proc` says of it.
    fn of(process: u32) -> Self {
        let count = |folder: &str| fs::read_dir(format!("/proc/{process}/{folder}")).unwrap().count();
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        Self { memory: kib << 10, descriptors: count("fd"), threads: count("task") }
    }
}
