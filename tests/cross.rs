//! `cross/check` refuses what would not load on a Jetson. The programs that it looks at are made here by the cross compiler
//! and the sysroot of `cross/setup`; without them only what needs neither is tested, and that is said.

use std::path::Path;
use std::process::{Command, Stdio};

/// Exit code 0 or not, and what was said.
fn check(program: &Path) -> (bool, String) {
    let ended = Command::new("cross/check").arg(program).stdin(Stdio::null()).output().unwrap();
    let said = [ended.stdout, ended.stderr].concat();
    (ended.status.success(), String::from_utf8(said).unwrap())
}

/// A program for arm64 that calls a function of a library.
fn program(folder: &Path, function: &str, library: &str) -> std::path::PathBuf {
    let (source, program) = (folder.join("main.c"), folder.join(function));
    std::fs::write(&source, format!("void {function}(void);\nint main(void) {{ {function}(); return 0; }}\n"))
        .unwrap();
    let line = format!(
        ". cross/environment && cross/linker -fno-builtin -o {} {} -l:{library}",
        program.display(),
        source.display()
    );
    assert!(Command::new("bash").args(["-c", &line]).status().unwrap().success(), "{function}");
    program
}

/// Whether `cross/setup` was here.
fn set_up() -> bool {
    let ready = ". cross/environment && [ -e $sysroot/WANTED ] && command -v aarch64-linux-gnu-gcc >/dev/null";
    Command::new("bash").args(["-c", ready]).status().unwrap().success()
}

#[test]
fn a_program_that_would_not_load_on_a_jetson_is_refused_with_the_reason() {
    let (good, said) = check(&std::env::current_exe().unwrap());
    if cfg!(target_arch = "x86_64") {
        assert!(!good && said.contains("not a program for arm64 but for"), "{said}");
    }
    let (good, said) = check(Path::new("Cargo.toml"));
    assert!(!good && said.contains("nothing that runs on Linux"), "{said}");
    if !set_up() {
        eprintln!("no cross compiler or no sysroot: only the wrong processor was tested; cross/setup makes them");
        return;
    }

    let folder = tempfile::TempDir::new().unwrap();
    let gstreamer = "libgstreamer-1.0.so.0";
    let (good, said) = check(&program(folder.path(), "gst_init_check", gstreamer));
    assert!(good && said.contains("JetPack 6 (Ubuntu 22.04): loads"), "{said}");
    // Since glibc 2.36, and since GStreamer 1.22: JetPack 7 has them, JetPack 6 has not.
    for (function, library, needs) in [
        ("arc4random", "libc.so.6", "arc4random of GLIBC 2.36"),
        ("gst_debug_log_id", gstreamer, "gst_debug_log_id of GStreamer 1.22"),
    ] {
        let (good, said) = check(&program(folder.path(), function, library));
        assert!(!good && said.contains(&format!("JetPack 6 (Ubuntu 22.04): does not load: {needs}")), "{said}");
        assert!(said.contains("JetPack 7 (Ubuntu 24.04): loads"), "{said}");
    }
}
