//! Operations on a cache, and what they allow to be found: for each key the versions that it may have.
//! An operation that was cut short leaves each key as before or as after it.

use crate::engine::file::open::apart;
use crate::engine::format::header::{PROVENANCE, PROVENANCE_SIZE, word};
use crate::engine::format::slot::{self, Slot, Tag};
use crate::error::Result;
use crate::{Cached, MmapCache, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Something that is done to a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    Insert(u64),
    InsertMany(Range<u64>),
    /// A value so long that it is copied without the lock.
    InsertLarge(u64),
    Remove(u64),
    /// Everything expires, and is flushed.
    Flush,
    Clear,
    Compact,
    Sync,
    Delete,
    /// All handles go, and others are taken.
    Reopen,
    /// The machine starts anew: nothing of the file is believed as it is.
    Reboot,
    /// And it comes up with a header that cannot be believed at all.
    BreakTail,
    /// Every free place of the index is taken by a slot that leads nowhere.
    FillIndex,
}

/// What one key may have: versions, or nothing.
pub(super) type Versions = BTreeSet<Option<u64>>;

/// What may be found. A key that is not listed has nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Possible(BTreeMap<u64, Versions>);

impl Possible {
    /// What may be found after `op`, which gives what it stores the version `version`.
    pub(super) fn after(&self, op: &Op, version: u64) -> Possible {
        let mut after = self.clone();
        let mut set = |key: u64, has: Option<u64>| after.0.insert(key, Versions::from([has]));
        match op {
            Op::Insert(key) | Op::InsertLarge(key) => drop(set(*key, Some(version))),
            Op::InsertMany(keys) => keys.clone().for_each(|key| drop(set(key, Some(version)))),
            Op::Remove(key) => drop(set(*key, None)),
            Op::Flush | Op::Clear | Op::Delete => after.0.clear(),
            Op::Compact | Op::Sync | Op::Reopen | Op::Reboot | Op::BreakTail | Op::FillIndex => {}
        }
        after
    }

    /// What may be found if either is so.
    pub(super) fn or(&self, other: &Possible) -> Possible {
        let keys = self.0.keys().chain(other.0.keys());
        let both = |key| self.of(key).union(&other.of(key)).copied().collect();
        Possible(keys.map(|key| (*key, both(*key))).collect())
    }

    fn of(&self, key: u64) -> Versions {
        self.0.get(&key).cloned().unwrap_or_else(|| Versions::from([None]))
    }

    /// What was found, as what may be found from then on.
    pub(super) fn exactly(found: &Found) -> Possible {
        Possible(found.iter().map(|(key, has)| (*key, Versions::from([Some(*has)]))).collect())
    }

    /// What is wrong with what was found.
    pub(super) fn fault(&self, found: &Found) -> Option<String> {
        let keys: BTreeSet<u64> = self.0.keys().chain(found.keys()).copied().collect();
        keys.into_iter().find_map(|key| {
            let (may, has) = (self.of(key), found.get(&key).copied());
            (!may.contains(&has)).then(|| format!("{key} has {has:?}, may have {may:?}"))
        })
    }
}

/// The versions that were found.
pub(super) type Found = BTreeMap<u64, u64>;

/// Above the largest key of any script.
pub(super) const KEYS: u64 = 400;

/// The value of a key in a version: whatever else is found is wrong.
fn value_of(key: u64, version: u64, is_large: bool) -> Vec<u64> {
    let len = if is_large { 9000 } else { (key + version) % 7 };
    [key, version, len].into_iter().chain((0..len).map(|n| n ^ (key << 32) ^ version)).collect()
}

/// A cache under test.
pub(super) struct Subject {
    path: PathBuf,
    open: Option<(MmapCache, Table<u64, Vec<u64>>)>,
}

impl Subject {
    pub(super) fn new(path: &Path) -> Subject {
        Subject { path: path.to_path_buf(), open: None }
    }

    /// The cache as another process sees it that has had it open all the time.
    pub(super) fn neighbour(path: &Path) -> Subject {
        Subject::new(&apart(path))
    }

    fn open(&mut self) -> Result<&(MmapCache, Table<u64, Vec<u64>>)> {
        if self.open.is_none() {
            let cache = MmapCache::open_at(&self.path)?;
            let table = cache.table("proof");
            self.open = Some((cache, table));
        }
        Ok(self.open.as_ref().expect("just opened"))
    }

    /// Lets go of all handles, as the end of a process does.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    pub(super) fn perform(&mut self, op: &Op, version: u64) -> Result<()> {
        if matches!(op, Op::Reopen | Op::Reboot | Op::BreakTail) {
            self.close();
        }
        if matches!(op, Op::Reboot | Op::BreakTail) {
            let file = OpenOptions::new().write(true).open(&self.path).expect("a file");
            file.write_all_at(&[0; PROVENANCE_SIZE], PROVENANCE).expect("it can be written");
            if *op == Op::BreakTail {
                file.write_all_at(&[0x55; 8], word::TAIL).expect("it can be written");
            }
        }
        if *op == Op::FillIndex {
            fill_index(&self.path).expect("a file");
        }
        let (cache, table) = self.open()?;
        match op {
            Op::Insert(key) => table.insert(key, &value_of(*key, version, false)).map(drop),
            Op::InsertLarge(key) => table.insert(key, &value_of(*key, version, true)).map(drop),
            Op::InsertMany(keys) => table
                .insert_many(keys.clone().map(|key| (key, value_of(key, version, false))))
                .map(drop),
            Op::Remove(key) => table.remove(key).map(drop),
            Op::Flush => {
                cache.set_expiry(Duration::ZERO);
                let flushed = cache.flush();
                cache.set_expiry(None);
                flushed.map(drop)
            }
            Op::Clear => cache.clear(),
            Op::Compact => cache.compact().map(drop),
            Op::Sync => cache.sync(),
            Op::Delete => cache.delete(),
            Op::Reopen | Op::Reboot | Op::BreakTail | Op::FillIndex => Ok(()),
        }
    }

    /// Every entry, each checked byte for byte.
    pub(super) fn look(&mut self) -> Result<Found> {
        let (_, table) = self.open()?;
        let mut found = Found::new();
        for key in 0..KEYS {
            let Some(value) = table.get(&key)?.map(Cached::into_owned) else { continue };
            let version = value.get(1).copied().unwrap_or(u64::MAX);
            let right = value_of(key, version, value.len() > 100);
            assert!(value == right, "{key} has a value that nobody stored");
            found.insert(key, version);
        }
        Ok(found)
    }

    /// What [`verify`](MmapCache::verify) says is wrong.
    pub(super) fn findings(&mut self) -> Result<Vec<crate::Finding>> {
        Ok(self.open()?.0.verify()?.findings)
    }
}

/// Has slots that lead nowhere take all free places of the index of the file at `path`.
fn fill_index(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let word_at = |at| {
        let mut word = [0; 8];
        file.read_exact_at(&mut word, at).map(|()| u64::from_le_bytes(word))
    };
    let table = slot::Table(word_at(word::INDEX)?);
    for at in (table.offset()..table.end()).step_by(8) {
        if word_at(at)? == 0 {
            let slot = Slot::new(Tag::of(at.wrapping_mul(0x9e37_79b9_7f4a_7c15)), 1 << 39);
            file.write_all_at(&slot.0.to_le_bytes(), at)?;
        }
    }
    Ok(())
}
