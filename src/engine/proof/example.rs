//! The worked example of `docs/architecture.md`, made once more: a cache whose seed, ids and clock are fixed, so that
//! every byte of it is the same in each run. What the document shows in its blocks of text must be what comes out
//! here. Where it is not, the test prints the block as it should be.

use super::drawings::{
    Change, SEED, compaction, header, load, log, name_of, record, slot_of, table_of,
};
use super::{Numbers, effort};
use crate::engine::file::create::{fill, new_superblock};
use crate::engine::format::WORD_MASK;
use crate::engine::format::header::{Superblock, word};
use crate::engine::os::clock::tests::SET;
use crate::engine::os::effect::{Effect, watch};
use crate::engine::os::{boot, replacement};
use crate::{MmapCache, Table};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// 27 November 2026, noon, in UTC.
const NOON: Duration = Duration::from_secs(1_795_780_800);

/// The cache of the example, which nobody else has.
struct Example {
    dir: tempfile::TempDir,
    cache: MmapCache,
    names: Table<u64, String>,
}

impl Example {
    /// With the value of key 1. `None` where the system does not tell one boot from the next: there a file is verified
    /// when it is opened, which leaves a record.
    fn new() -> Option<Example> {
        SET.set(Some(NOON));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("names.pcache");
        let superblock = Superblock {
            file_id: [0xf1; 16],
            cache_id: [0xca; 16],
            seed: SEED,
            ..new_superblock()
        };
        assert!(replacement::create(&path, |file| fill(file, &superblock)).unwrap());
        boot::boot_id().unwrap()?;
        let cache = MmapCache::open_at(&path).unwrap();
        let names = cache.table::<u64, String>("names").with_schema();
        names.insert(&1, &"the first value".into()).unwrap();
        Some(Example { dir, cache, names })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("names.pcache")
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    fn inode(&self) -> u64 {
        self.path().metadata().unwrap().ino()
    }

    fn put(&self, key: u64) -> bool {
        let value = if key == 3 { "large ".repeat(12_000) } else { "a put, byte by byte".into() };
        self.names.insert(&key, &value).is_ok()
    }

    fn has(&self, key: u64) -> bool {
        self.names.contains(&key).unwrap()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        SET.set(None);
    }
}

/// The changes that `work` makes, up to so many; all later ones are refused, as to one who is dead. Disk space and the
/// length of files are left out: how they are taken is the file system's.
fn changes_of(max: usize, work: impl FnOnce()) -> Vec<Change> {
    let stores = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&stores);
    let probe = move |effect: Effect<'_>| {
        let inode = |file: &File| file.metadata().map(|data| data.ino());
        let store = |inode, what| Change { inode, at: 0, bytes: Vec::new(), what };
        let mut stores = seen.borrow_mut();
        let store = match effect {
            Effect::Write { bytes: [], .. } => return Ok(()),
            Effect::Write { file, at, bytes } => {
                Change { at, bytes: bytes.to_vec(), ..store(inode(file)?, "") }
            }
            Effect::Sync { file } => store(inode(file)?, "sync"),
            Effect::Rename { .. } => store(0, "rename"),
            Effect::SyncDirectory => store(0, "sync of the directory"),
            _ => return Ok(()),
        };
        if stores.len() >= max {
            return Err(io::Error::other("dead"));
        }
        stores.push(store);
        Ok(())
    };
    watch(probe, work);
    stores.take()
}

/// What is left of a put of which so many stores were made: what a reader finds, what the next holder of the lock
/// stores, what is found then, and the counts.
fn heritage(key: u64, count: usize) -> Option<String> {
    let example = Example::new()?;
    changes_of(count, || {
        example.put(key);
    });
    let found = |is_there| if is_there { "finds it" } else { "misses" };
    let seen = found(example.has(key));
    // Takes the lock, and has nothing of its own to do.
    let next = changes_of(usize::MAX, || assert_eq!(example.cache.flush().unwrap(), 0));
    let next: Vec<String> = next.iter().map(name_of).collect();
    let next = next.join(", ").replace("USED, ENTRIES, LIVE", "counts");
    let next = if next.is_empty() { "nothing" } else { &next };
    let bytes = example.bytes();
    let [entries, live] = [word::ENTRIES, word::LIVE].map(|at| load(&bytes, at) & WORD_MASK);
    Some(format!("{seen:<8}  {next:<48}  {:<8}  {entries:>7}  {live:>6}", found(example.has(key))))
}

/// For a death behind each store of a put, what is left of it.
fn deaths(key: u64, count: usize) -> Option<String> {
    let mut text = String::from(
        "stores   a reader  the next holder of the lock stores                then      ENTRIES    LIVE\n",
    );
    let all = (0..=count).map(|count| heritage(key, count)).collect::<Option<Vec<_>>>()?;
    let mut first = 0;
    for alike in all.chunk_by(|one, next| one == next) {
        let last = first + alike.len() - 1;
        let range = if first == last { first.to_string() } else { format!("{first} - {last}") };
        let _ = writeln!(text, "{range:<9}{}", alike[0]);
        first = last + 1;
    }
    Some(text)
}

#[test]
fn the_document_shows_what_is_so() {
    let Some(example) = Example::new() else { return };
    let before = example.bytes();
    let put = changes_of(usize::MAX, || assert!(example.put(2)));
    let after = example.bytes();
    let large = changes_of(usize::MAX, || assert!(example.put(3)));
    example.names.remove(&1).unwrap();
    let old = example.inode();
    let compacted = changes_of(usize::MAX, || {
        example.cache.compact().unwrap();
    });
    let slot = put.iter().find(|change| name_of(change) == "slot").unwrap();
    let blocks = [
        log(&after),
        header(&after),
        record(&after, put[1].at),
        slot_of(&after, slot),
        table_of(&put, &before),
        deaths(2, put.len()).unwrap(),
        table_of(&large, &after),
        deaths(3, large.len()).unwrap(),
        compaction(&compacted, old),
    ];
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let document = fs::read_to_string(path).unwrap();
    let missing: Vec<_> = blocks
        .into_iter()
        .filter(|block| !document.contains(&format!("```\n{block}```")))
        .collect();
    assert!(missing.is_empty(), "the document does not show:\n\n{}", missing.join("\n"));
}

/// A power cut leaves these of the stores of a put: whether a key is found then. Key 1 is found in any case.
fn is_found_after(example: &Example, before: &[u8], left: &[&Change], key: u64) -> bool {
    let mut image = before.to_vec();
    for Change { at, bytes, .. } in left {
        let (at, end) = (*at as usize, *at as usize + bytes.len());
        image.resize(image.len().max(end), 0);
        image[at..end].copy_from_slice(bytes);
    }
    // Made in another place, as it were in another boot: it is recovered.
    let copy = example.dir.path().join("copy.pcache");
    fs::write(&copy, image).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
    let cache = MmapCache::open_at(&copy).unwrap();
    let names = cache.table::<u64, String>("names").with_schema();
    let is_found = names.contains(&key).unwrap();
    assert!(names.contains(&1).unwrap());
    assert_eq!(cache.stats().entries, 1 + u64::from(is_found));
    assert_eq!(cache.verify().unwrap().findings, []);
    fs::remove_file(&copy).unwrap();
    is_found
}

/// The stores of a subset. Those with a higher number than its bits have are there if the last of them is.
fn subset(stores: &[Change], subset: u64, bits: usize) -> (impl Fn(usize) -> bool, Vec<&Change>) {
    let is_there = move |number: usize| subset & 1 << (number.min(bits) - 1) != 0;
    let left = stores.iter().enumerate().filter(|(at, _)| is_there(at + 1));
    (is_there, left.map(|(_, store)| store).collect())
}

#[test]
fn a_power_cut_leaves_all_of_a_put_or_nothing() {
    let Some(example) = Example::new() else { return };
    let before = example.bytes();
    let put = changes_of(usize::MAX, || assert!(example.put(2)));
    // The counts and APPLIED are one.
    for number in 0..1 << 8 {
        let (is_there, left) = subset(&put, number, 8);
        let is_whole = [2, 3, 4].into_iter().all(is_there);
        assert_eq!(is_found_after(&example, &before, &left, 2), is_whole, "{number:b}");
    }
}

#[test]
fn a_power_cut_leaves_all_of_a_large_value_or_nothing() {
    let Some(example) = Example::new() else { return };
    let before = example.bytes();
    let put = changes_of(usize::MAX, || assert!(example.put(3)));
    let mut numbers = Numbers(1);
    for _ in 0..200 * effort() {
        // Most of them: few values would be whole.
        let number = numbers.next() | numbers.next();
        let (is_there, left) = subset(&put, number, 20);
        let is_below_tail = is_there(4) || is_there(12);
        let is_whole = is_below_tail && [3, 8, 15].into_iter().all(is_there);
        assert_eq!(is_found_after(&example, &before, &left, 3), is_whole, "{number:b}");
    }
}
