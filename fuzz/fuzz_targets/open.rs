//! Any bytes as a cache file, and any bytes written over a healthy one, as they are or with every check
//! mended, with its provenance or without, mapped, read by copy or not to be written: opening, reading, verifying,
//! writing and compacting it must neither panic nor, where a check could tell, return a wrong value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use persist_cache::{Cached, MmapCache, OpenOptions};
use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::LazyLock;

const KEYS: u64 = 64;

fn items(count: &u64) -> impl Iterator<Item = String> + use<> {
    (0..*count).map(|n| "item ".repeat(n as usize % 5))
}

/// A healthy file with some of everything.
static HEALTHY: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let cache = MmapCache::open_at(dir.path().join("healthy.pcache")).unwrap();
    let table = cache.table::<u64, Vec<u64>>("fuzz");
    table.insert_many((0..KEYS).map(|key| (key, vec![key; 5]))).unwrap();
    table.remove(&0).unwrap();
    cache.table::<str, Vec<String>>("texts").insert("one", &vec!["two".into(); 3]).unwrap();
    cache.table::<u64, Vec<u64>>("large").insert(&1, &vec![1; 9000]).unwrap();
    cache.memoize_iter_as("items", items).call(&20).for_each(drop);
    cache.sync().unwrap();
    table.insert(&1, &vec![1; 5]).unwrap();
    std::fs::read(cache.path()).unwrap()
});

thread_local! {
    static DIR: RefCell<tempfile::TempDir> = RefCell::new(tempfile::tempdir().unwrap());
}

fn use_all(options: OpenOptions, path: &Path, is_mended: bool) {
    let Ok(cache) = options.open_at(path) else { return };
    let table = cache.table::<u64, Vec<u64>>("fuzz");
    for key in 0..KEYS {
        if let Ok(Some(value)) = table.get(&key) {
            let is_right = value.iter().all(|item| *item == key) && value.len() == 5;
            assert!(is_right || is_mended);
        }
    }
    if let Ok(Some(texts)) = cache.table::<str, Vec<String>>("texts").get("one") {
        let _ = Cached::try_into_owned(texts);
    }
    if let Ok(Some(large)) = cache.table::<u64, Vec<u64>>("large").get(&1) {
        assert!(is_mended || large.len() == 9000);
    }
    let replayed = cache.memoize_iter_as("items", items).call(&20).count();
    assert!(is_mended || replayed == 20);
    let _ = cache.verify();
    let _ = table.insert(&1, &vec![1; 5]);
    let _ = table.insert_many((100..140).map(|key| (key, vec![key; 5])));
    let _ = cache.table::<u64, Vec<u64>>("large").insert(&2, &vec![2; 9000]);
    let _ = cache.flush();
    let is_compacted = cache.compact().is_ok();
    let _ = cache.sync();
    let is_sound = || cache.verify().is_ok_and(|report| report.findings.is_empty());
    assert!(is_mended || !is_compacted || is_sound());
}

fuzz_target!(|data: &[u8]| {
    DIR.with_borrow(|dir| {
        let path = dir.path().join("x.pcache");
        let mut image = HEALTHY.clone();
        let Some((how, data)) = data.split_first() else { return };
        // Each patch is a place, a length, and bytes; one that lies outside is the whole file.
        let mut rest = data;
        while let Some((at, patch)) = rest.split_first_chunk::<4>() {
            let at = u32::from_le_bytes(*at) as usize % (image.len() + 64);
            if at >= image.len() {
                image = patch.to_vec();
                break;
            }
            let size = (patch.first().map_or(0, |size| *size as usize)).min(patch.len());
            let size = size.min(image.len() - at);
            image[at..at + size].copy_from_slice(&patch[..size]);
            rest = &patch[size.max(1).min(patch.len())..];
        }
        let is_mended = how % 2 == 1;
        if is_mended {
            persist_cache::fuzzing::mend(&mut image);
        }
        let _ = std::fs::remove_file(&path);
        let has_provenance = how & 2 != 0;
        if has_provenance {
            drop(MmapCache::open_at(&path).unwrap());
            persist_cache::fuzzing::renew_provenance(&mut image, &path);
        }
        std::fs::write(&path, &image).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let options = MmapCache::options().read_only(how & 4 != 0);
        let options = if how & 8 != 0 { options.copy_reads() } else { options };
        use_all(options, &path, is_mended);
    });
});
