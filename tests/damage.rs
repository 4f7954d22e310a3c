//! Damaged files: whatever byte is flipped, wherever the file is cut, every value read is right, every
//! healthy record is served, and nothing panics.
#![allow(missing_docs)]

mod common;

use common::{Dir, effort, mix, value_of};
use persist_cache::{Cached, Error, Finding, MmapCache};
use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

const KEYS: u64 = 300;

/// A cache file with some history, at rest.
fn original(dir: &Dir) -> (PathBuf, Vec<u8>) {
    let cache = dir.open("original");
    let table = cache.table::<u64, Vec<u64>>("t");
    for key in 0..KEYS {
        table.insert(&key, &vec![key; 3]).unwrap();
    }
    for key in 0..KEYS {
        table.insert(&key, &value_of(key)).unwrap();
    }
    (cache.path().to_path_buf(), fs::read(cache.path()).unwrap())
}

/// Writes an image to a fresh file: its provenance does not hold, so all of it is verified.
fn fresh(dir: &Dir, name: &str, image: &[u8]) -> PathBuf {
    let path = dir.join(name);
    let _ = fs::remove_file(&path);
    fs::write(&path, image).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// How many keys have their values. None may have another one but an older one of its own.
fn served(path: &Path) -> Option<u64> {
    let cache = match MmapCache::open_at(path) {
        Ok(cache) => cache,
        Err(Error::Damaged { .. } | Error::NotACache { .. } | Error::Incompatible { .. }) => {
            return None;
        }
        Err(other) => panic!("{other}"),
    };
    let table = cache.table::<u64, Vec<u64>>("t");
    let mut count = 0;
    for key in 0..KEYS {
        if let Some(value) = table.get(&key).unwrap().map(Cached::into_owned) {
            assert!(value == value_of(key) || value == vec![key; 3], "{key}: {value:?}");
            count += u64::from(value == value_of(key));
        }
    }
    table.insert(&KEYS, &vec![1]).expect("a damaged cache can be written");
    assert_eq!(*table.get(&KEYS).unwrap().unwrap(), [1]);
    cache.compact().expect("and compacted");
    assert!(cache.verify().unwrap().findings.is_empty(), "which mends it");
    Some(count)
}

#[test]
fn flipped_bits_cost_no_more_than_their_record() {
    let dir = Dir::new();
    let (_, image) = original(&dir);
    let mut refused = 0;
    for round in 0..400_u64 {
        // Half of them in the header and the index, where it matters most.
        let size = if round % 2 == 0 { 8192 } else { image.len() as u64 };
        let bit = mix(round) % (size * 8);
        let mut damaged = image.clone();
        damaged[bit as usize / 8] ^= 1 << (bit % 8);
        match served(&fresh(&dir, "flipped.pcache", &damaged)) {
            Some(count) => assert!(count >= KEYS - 1, "bit {bit}: {count} of {KEYS} are served"),
            None => {
                refused += 1;
                assert!(
                    bit / 8 < 256,
                    "only the superblock is indispensable, not byte {}",
                    bit / 8
                );
            }
        }
    }
    assert!(refused > 0, "some bits hit the superblock");
}

#[test]
fn a_header_flipped_in_place_is_mended() {
    let dir = Dir::new();
    for bit in (512 * 8..768 * 8).step_by(5) {
        let (path, image) = original(&dir);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        let flipped = image[bit / 8] ^ (1 << (bit % 8));
        file.write_all_at(&[flipped], bit as u64 / 8).unwrap();
        let count = served(&path).expect("the words can be made anew");
        assert!(count >= KEYS - 1, "bit {bit}: {count} of {KEYS} are served");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_bit_flipped_in_place_is_a_miss_and_has_a_name() {
    let dir = Dir::new();
    let (path, image) = original(&dir);
    let mut findings = HashSet::new();
    for round in 0..200_u64 {
        let bit = mix(round) % (image.len() as u64 * 8);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&image, 0).unwrap();
        let flipped = image[bit as usize / 8] ^ (1 << (bit % 8));
        file.write_all_at(&[flipped], bit / 8).unwrap();
        // The provenance of the file holds: it is trusted at once, and the damage met when it is read.
        let Ok(cache) = MmapCache::options().read_only(true).open_at(&path) else { continue };
        let table = cache.table::<u64, Vec<u64>>("t");
        let values = (0..KEYS).filter_map(|key| Some((key, table.get(&key).ok()??)));
        for (key, value) in values {
            let value = Cached::into_owned(value);
            assert!(value == value_of(key) || value == vec![key; 3], "bit {bit}, {key}: {value:?}");
        }
        let kinds = cache.verify().unwrap().findings.into_iter().map(|finding| match finding {
            Finding::Torn { .. } => "torn",
            Finding::Corrupt { .. } => "corrupt",
            Finding::Unreachable { .. } => "unreachable",
            Finding::Astray { .. } => "astray",
            _ => "other",
        });
        findings.extend(kinds);
    }
    for kind in ["torn", "corrupt"] {
        assert!(findings.contains(kind), "{findings:?}");
    }
}

#[test]
fn a_file_cut_anywhere_serves_what_is_left() {
    let dir = Dir::new();
    let (_, image) = original(&dir);
    for round in 0..60 {
        let size = mix(round) % image.len() as u64;
        let path = fresh(&dir, "cut.pcache", &image[..size as usize]);
        match served(&path) {
            Some(count) => assert!(size >= 8192 || count == 0),
            None => assert!(size < 8192, "a file of {size} bytes has its header"),
        }
    }
    // In place: the same inode, hence of the same provenance, and shorter than its tail.
    let (path, _) = original(&dir);
    OpenOptions::new().write(true).open(&path).unwrap().set_len(20_000).unwrap();
    assert!(served(&path).is_some());
}

#[test]
fn a_damaged_tail_costs_no_entry() {
    const MANY: u64 = 60_000;
    let dir = Dir::new();
    let path = dir.join("many.pcache");
    let table = MmapCache::open_at(&path).unwrap().table::<u64, u64>("t");
    table.insert_many((0..MANY).map(|key| (key, key))).unwrap();
    drop(table);
    // Enough that some keys share a tag; the word says less than the log has.
    let image = fs::read(&path).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[image[642] ^ 0x10], 642).unwrap();
    let count = |cache: MmapCache| {
        let table = cache.table::<u64, u64>("t");
        (0..MANY).filter(|key| table.get(key).unwrap().is_some_and(|value| *value == *key)).count()
    };
    let read_only = || MmapCache::options().read_only(true);
    assert_eq!(count(read_only().open_at(&path).unwrap()), MANY as usize);
    assert_eq!(count(read_only().copy_reads().open_at(&path).unwrap()), MANY as usize);
    assert_eq!(count(MmapCache::open_at(&path).unwrap()), MANY as usize);
}

#[test]
fn verification_finds_nothing_while_others_write() {
    let dir = Dir::new();
    let cache = dir.open("x");
    let reports = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let brief = MmapCache::options().root(dir.path()).expiry(std::time::Duration::ZERO);
            let brief = brief.open("x").unwrap();
            let table = brief.table::<u64, u64>("t");
            for _ in 0..300 {
                table.insert_many((0..200).map(|key| (key, key))).unwrap();
                brief.flush().unwrap();
            }
        });
        let mut reports = Vec::new();
        while !writer.is_finished() {
            reports.push(cache.verify().unwrap());
        }
        reports
    });
    for report in reports {
        assert_eq!(report.findings, []);
    }
}

#[test]
fn absurd_lengths_allocate_nothing() {
    let dir = Dir::new();
    let (_, image) = original(&dir);
    for at in (8192..image.len() - 8).step_by(16).take(400 * effort().min(100) as usize) {
        let mut damaged = image.clone();
        damaged[at..at + 5].fill(0xff);
        let path = fresh(&dir, "absurd.pcache", &damaged);
        for is_copied in [false, true] {
            let options = MmapCache::options();
            let options = if is_copied { options.copy_reads() } else { options };
            let table = options.open_at(&path).unwrap().table::<u64, Vec<u64>>("t");
            for key in 0..KEYS {
                if let Some(value) = table.get(&key).unwrap().map(Cached::into_owned) {
                    assert!(value == value_of(key) || value == vec![key; 3]);
                }
            }
        }
    }
}

#[test]
fn blocks_zeroed_or_swapped_are_misses() {
    let dir = Dir::new();
    let (_, image) = original(&dir);
    let blocks = image.len() / 512;
    for round in 0..100 * effort().min(100) {
        let (a, b) = (mix(round) as usize % blocks, mix(!round) as usize % blocks);
        let mut damaged = image.clone();
        if round % 2 == 0 {
            damaged[a * 512..(a + 1) * 512].fill(0);
        } else {
            let (left, right) =
                (image[a * 512..][..512].to_vec(), image[b * 512..][..512].to_vec());
            damaged[a * 512..][..512].copy_from_slice(&right);
            damaged[b * 512..][..512].copy_from_slice(&left);
        }
        // A zeroed block holds a dozen records at most.
        if let Some(count) = served(&fresh(&dir, "blocks.pcache", &damaged)) {
            assert!(count >= KEYS - 30, "{count} of {KEYS}");
        }
    }
}

/// Keys of a rich cache: what was cleared, removed, flushed, and stored last.
const CLEARED: std::ops::Range<u64> = 1000..1020;
const REMOVED: std::ops::Range<u64> = 2000..2010;
const FLUSHED: std::ops::Range<u64> = 3000..3010;
const LATEST: std::ops::Range<u64> = 4000..4100;
const UNSYNCED: u64 = 5000;

/// A cache of 256 KiB with some of everything: a clear, a grown index, a large value, batches, removals,
/// a flush, a sync.
fn rich(dir: &Dir) -> Vec<u8> {
    let cache = dir.open("rich");
    let table = cache.table::<u64, Vec<u64>>("t");
    table.insert_many(CLEARED.map(|key| (key, value_of(key)))).unwrap();
    cache.clear().unwrap();
    table.insert_many(FLUSHED.map(|key| (key, value_of(key)))).unwrap();
    cache.set_expiry(std::time::Duration::ZERO);
    cache.flush().unwrap();
    cache.set_expiry(None);
    table.insert_many(REMOVED.map(|key| (key, value_of(key)))).unwrap();
    REMOVED.for_each(|key| assert!(table.remove(&key).unwrap()));
    table.insert_many((0..KEYS).map(|key| (key, vec![key; 3]))).unwrap();
    table.insert_many((0..KEYS).map(|key| (key, value_of(key)))).unwrap();
    cache.table::<u64, Vec<u64>>("large").insert(&1, &vec![7; 16_000]).unwrap();
    cache.sync().unwrap();
    LATEST.for_each(|key| drop(table.insert(&key, &value_of(key)).unwrap()));
    cache.sync().unwrap();
    // The index is not as it was at the checkpoint: it has to be made anew from the records.
    table.insert(&UNSYNCED, &value_of(UNSYNCED)).unwrap();
    let image = fs::read(cache.path()).unwrap();
    assert!(image.len() >= 256 << 10, "{}", image.len());
    image
}

/// Reads everything. A value is right or not there; returns how many are, of those that should be.
fn look(open: persist_cache::OpenOptions, path: &Path, what: &str) -> Option<u64> {
    let cache = match open.open_at(path) {
        Ok(cache) => cache,
        Err(Error::Damaged { .. } | Error::NotACache { .. } | Error::Incompatible { .. }) => {
            return None;
        }
        Err(other) => panic!("{what}: {other}"),
    };
    let table = cache.table::<u64, Vec<u64>>("t");
    let mut count = 0;
    for key in (0..KEYS).chain(LATEST).chain([UNSYNCED]) {
        if let Some(value) = table.get(&key).unwrap().map(Cached::into_owned) {
            assert!(value == value_of(key), "{what}, {key}: {value:?}");
            count += 1;
        }
    }
    for key in CLEARED.chain(REMOVED).chain(FLUSHED) {
        assert!(table.get(&key).unwrap().is_none(), "{what}: {key} came back");
    }
    if let Some(large) = cache.table::<u64, Vec<u64>>("large").get(&1).unwrap() {
        assert!(large.len() == 16_000 && large.iter().all(|item| *item == 7), "{what}");
    }
    Some(count)
}

/// All values of a rich cache.
const ALL: u64 = KEYS + LATEST.end - LATEST.start + 1;

#[test]
fn every_bit() {
    let dir = Dir::new();
    let image = rich(&dir);
    let stride = (6007 / effort()).max(1) as usize;
    // Several processes may share the work: each takes a part.
    let part: usize = std::env::var("PERSIST_CACHE_PART").ok().map_or(0, |n| n.parse().unwrap());
    let parts = if std::env::var_os("PERSIST_CACHE_PART").is_some() { 2 } else { 1 };
    let mut tried = 0;
    for bit in (part * stride..image.len() * 8).step_by(stride * parts) {
        let mut flipped = image.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let path = fresh(&dir, "flipped.pcache", &flipped);
        let count = look(MmapCache::options(), &path, &format!("bit {bit}"));
        let is_superblock = bit / 8 < 256;
        assert!(
            is_superblock || count.is_some_and(|count| count >= ALL - 1),
            "bit {bit}: {count:?}"
        );
        tried += 1;
    }
    println!("{tried} bits flipped");
}

/// Of a file whose provenance holds, which is trusted at once, whatever the payloads and slots have become.
#[test]
fn bits_in_place() {
    let dir = Dir::new();
    let path = dir.open("rich").path().to_path_buf();
    let home = || (rich(&dir), OpenOptions::new().write(true).open(&path).unwrap());
    let (mut image, mut file) = home();
    let stride = (5003 / effort()).max(16) as usize | 1; // Odd: each bit of a byte.
    let mut tried = 0;
    for bit in (0..image.len() * 8).step_by(stride) {
        for open in [MmapCache::options().read_only(true), MmapCache::options()] {
            file.set_len(image.len() as u64).unwrap();
            file.write_all_at(&image, 0).unwrap();
            file.write_all_at(&[image[bit / 8] ^ (1 << (bit % 8))], bit as u64 / 8).unwrap();
            let count = look(open, &path, &format!("bit {bit} in place"));
            let is_superblock = bit / 8 < 256;
            assert!(
                is_superblock || count.is_some_and(|count| count >= ALL - 1),
                "bit {bit}: {count:?}"
            );
            tried += 1;
            if fs::metadata(&path).unwrap_or_else(|e| panic!("bit {bit} {count:?} {e}")).ino()
                != file.metadata().unwrap().ino()
            {
                // Too damaged to be mended in place.
                fs::remove_file(&path).unwrap();
                (image, file) = home();
            }
        }
    }
    println!("{tried} bits flipped in place");
}

#[test]
fn every_length() {
    let dir = Dir::new();
    let image = rich(&dir);
    let stride = (1009 / effort()).max(1) as usize;
    let mut tried = 0;
    for size in (0..image.len()).step_by(stride) {
        let path = fresh(&dir, "cut.pcache", &image[..size]);
        look(MmapCache::options(), &path, &format!("{size} bytes"));
        tried += 1;
    }
    println!("{tried} lengths");
}
