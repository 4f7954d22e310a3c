//! Any bytes as a cache file, and any bytes written over a healthy one: opening, reading, verifying,
//! writing and compacting it must neither panic nor return a wrong value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use persist_cache::MmapCache;
use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::LazyLock;

const KEYS: u64 = 64;

/// A healthy file.
static HEALTHY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let cache = MmapCache::open_at(dir.path().join("healthy.pcache")).unwrap();
    let table = cache.table::<u64, Vec<u64>>("fuzz");
    table.insert_many((0..KEYS).map(|key| (key, vec![key; 5]))).unwrap();
    std::fs::read(cache.path()).unwrap()
});

thread_local! {
    static DIR: RefCell<tempfile::TempDir> = RefCell::new(tempfile::tempdir().unwrap());
}

fn use_all(path: &Path) {
    let Ok(cache) = MmapCache::open_at(path) else { return };
    let table = cache.table::<u64, Vec<u64>>("fuzz");
    for key in 0..KEYS {
        if let Ok(Some(value)) = table.get(&key) {
            assert!(value.iter().all(|item| *item == key) && value.len() == 5);
        }
    }
    let _ = cache.verify();
    let _ = table.insert(&1, &vec![1; 5]);
    let _ = cache.compact();
    assert!(cache.verify().map_or(true, |report| report.findings.is_empty()));
}

fuzz_target!(|data: &[u8]| {
    DIR.with_borrow(|dir| {
        let path = dir.path().join("x.pcache");
        let mut image = HEALTHY.clone();
        // The first bytes say where the rest is written; out of range, it is the whole file.
        match data.split_first_chunk::<4>() {
            Some((at, patch)) => {
                let at = u32::from_le_bytes(*at) as usize % (image.len() + 64);
                if at < image.len() {
                    let size = patch.len().min(image.len() - at);
                    image[at..at + size].copy_from_slice(&patch[..size]);
                } else {
                    image = patch.to_vec();
                }
            }
            None => image = data.to_vec(),
        }
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, &image).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        use_all(&path);
    });
});
