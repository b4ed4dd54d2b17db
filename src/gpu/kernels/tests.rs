use std::ffi::CString;

use super::*;

/// The NVRTCs that `scripts/get-nvrtc` fetches, by major version; none where it has not run.
fn compilers() -> Vec<Nvrtc> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(".nvrtc");
    let files = ["11/libnvrtc.so.11.2", "12/libnvrtc.so.12", "13/libnvrtc.so.13"];
    let found: Vec<PathBuf> = files.iter().map(|file| root.join(file)).filter(|file| file.exists()).collect();
    if found.is_empty() {
        println!("skipped: no NVRTC in {}: run scripts/get-nvrtc", root.display());
    }
    found.iter().map(|file| Nvrtc::open_path(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))).collect()
}

#[test]
fn every_kernel_compiles_without_a_warning_for_every_architecture_of_every_nvrtc() {
    let source = CString::new(SOURCE).unwrap();
    for nvrtc in compilers() {
        // Tegra X1 and newer.
        let architectures: Vec<u32> = nvrtc.architectures().iter().copied().filter(|n| *n >= 53).collect();
        println!("NVRTC {:?}: {architectures:?}", nvrtc.version());
        assert!(architectures.contains(&87), "Orin");
        let newest = architectures.last().copied().map(Target::Portable);
        for target in architectures.into_iter().map(Target::Machine).chain(newest) {
            let image = nvrtc.compile(&source, target, OPTIONS).unwrap_or_else(|e| panic!("{target:?}: {e}"));
            let log: Vec<&str> =
                image.log.lines().filter(|line| !line.contains("are deprecated and may be removed")).collect();
            assert!(log.is_empty(), "{target:?}: {log:?}");
            for name in NAMES {
                let found = image.bytes.windows(name.count_bytes()).any(|bytes| bytes == name.to_bytes());
                assert!(found, "{target:?} has no {name:?}");
            }
        }
    }
}

#[test]
fn what_does_not_compile_is_refused_with_the_compilers_words() {
    for nvrtc in compilers() {
        let target = Target::Machine(87);
        let error =
            nvrtc.compile(c"__global__ void broken() { nonsense; }", target, OPTIONS).map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("nonsense"), "{error}");
    }
}

#[test]
fn the_key_tells_compilers_and_architectures_apart() {
    let key_of = |version, target| key(version, target);
    let first = key_of((13, 0), Target::Machine(90));
    assert_eq!(first, key_of((13, 0), Target::Machine(90)));
    assert_ne!(first, key_of((12, 9), Target::Machine(90)));
    assert_ne!(first, key_of((13, 0), Target::Portable(90)));
    assert_ne!(first, key_of((13, 0), Target::Machine(89)));
}

#[test]
fn a_broken_file_of_the_cache_is_not_read_and_is_written_anew() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("deep").join("kernels-sm_90-0123");
    assert_eq!(read(&file), None);
    write(&file, b"program").unwrap();
    assert_eq!(read(&file).as_deref(), Some(&b"program"[..]));
    let mut bytes = fs::read(&file).unwrap();
    for broken in [0, DIGEST_BYTES, bytes.len() - 1] {
        bytes[broken] ^= 1;
        fs::write(&file, &bytes).unwrap();
        assert_eq!(read(&file), None, "byte {broken}");
        bytes[broken] ^= 1;
    }
    fs::write(&file, &bytes[..DIGEST_BYTES - 1]).unwrap();
    assert_eq!(read(&file), None, "cut short");
    write(&file, b"again").unwrap();
    assert_eq!(read(&file).as_deref(), Some(&b"again"[..]));
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
}
