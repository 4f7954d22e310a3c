//! The keys that the index does not lead to when a verification meets their records: what became of them, the log
//! goes on to say, or they are lost. They are a target of the [law](crate::engine::log::op).
//!
//! Memory does not depend on the number of keys. Each record is held against the index when it is met, and only the
//! keys that it does not lead to are remembered. Of these no more than [`KEYS_MAX`] at a time: those with larger
//! hashes have their turn in another pass. (A set of all keys would be the plain way: it needs 64 bytes for each.)
//!
//! Passes, where no more than four keys are remembered and eight are not in the index. The range is of hashes:
//!
//! ```text
//!   pass 1   range 0 ..= max    four keys; the fifth: keep those up to the median, range 0 ..= m1
//!            .. and again, as often as four are reached; at the end: the lost keys up to some m
//!   pass 2   range m+1 ..= max  the same, with those that were left out
//!   .. until a pass ends with the range's end at max
//! ```
//!
//! Each pass applies the law to all records of the keys in its range, in the order of the log, so a key whose range was
//! cut off in the midst of a pass is begun anew in a later one, and none is judged by half of its records.
//!
//! A key may be suspected for three reasons, and only the first is a finding: its slot is lost; it was removed, flushed
//! or cleared later in the log; somebody changed it while this went on. The law tells the second; the third is what
//! [`lost`](Suspects::lost) asks at the end, of the log behind the tail that the walk had ended at.

use super::findings::{Finding, Verification};
use crate::engine::file::open_file::OpenFile;
use crate::engine::format::FILE_LIMIT;
use crate::engine::format::record::{Head, Identity, Kind};
use crate::engine::format::slot::{Slot, Table, Tag};
use crate::engine::index;
use crate::engine::log::op::{Op, Target, apply, is_decided_by_payload, is_space, supersedes};
use crate::engine::log::records::Records;
use crate::engine::log::walk::{Step, Walk};
use crate::engine::os::file::Storage as _;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::hash::BuildHasher as _;
use std::ops::RangeInclusive;

/// So many keys are remembered at a time: with 64 bytes for each, and while the map grows, some 14 MiB.
pub(super) const KEYS_MAX: usize = 7 << 13;

/// The newest record of a key.
struct Newest {
    offset: u64,
    seq: u64,
    /// The record from which on it counts: of a large value, the one that says that it was committed.
    since: u64,
}

/// The newest healthy record, since the last clear, of each key that the index did not lead to when it was met: of
/// those keys whose hashes lie in a range that is no larger than memory allows.
pub(super) struct Suspects<'a> {
    open_file: &'a OpenFile,
    range: RangeInclusive<u64>,
    newest: HashMap<Identity, Newest>,
    keys_max: usize,
    /// The number of the last clear that was met.
    cleared: u64,
}

impl<'a> Suspects<'a> {
    pub(super) fn new(open_file: &'a OpenFile, keys_max: usize) -> Suspects<'a> {
        let newest = HashMap::new();
        Suspects { open_file, range: 0..=u64::MAX, newest, keys_max, cleared: 0 }
    }

    /// By the map's own hasher, which nobody knows who makes files.
    fn hash(&self, identity: &Identity) -> u64 {
        self.newest.hasher().hash_one(identity)
    }

    /// Whether what becomes of a key is to be followed.
    ///
    /// A key that the index leads to is followed no more, even if something older of it was not found before: it is
    /// found now.
    fn follows(&self, identity: &Identity) -> bool {
        self.range.contains(&self.hash(identity))
            && (self.newest.contains_key(identity) || !is_in_index(self.open_file, identity))
    }

    /// If there are too many keys, half of them are left to another pass over the log; a file with that many lost
    /// keys takes several.
    fn insert(&mut self, identity: Identity, newest: Newest) {
        if self.newest.len() >= self.keys_max {
            self.narrow();
        }
        if self.range.contains(&self.hash(&identity)) {
            self.newest.insert(identity, newest);
        }
    }

    /// Leaves the upper half of the keys to another pass.
    ///
    /// The median of their hashes is the new end of the range. Keys with one hash, which the map's own hasher gives
    /// nobody on purpose, stay on one side.
    fn narrow(&mut self) {
        let mut hashes: Vec<u64> = self.newest.keys().map(|key| self.hash(key)).collect();
        let middle = hashes.len().saturating_sub(1) / 2;
        let (_, median, _) = hashes.select_nth_unstable(middle);
        self.range = *self.range.start()..=*median;
        let (range, hasher) = (self.range.clone(), self.newest.hasher().clone());
        self.newest.retain(|identity, _| range.contains(&hasher.hash_one(identity)));
    }

    /// Begins with the keys behind the range. `false` if there are none. The next walk starts at the log's beginning.
    pub(super) fn go_on(&mut self) -> bool {
        let next = self.range.end().checked_add(1);
        self.newest.clear();
        self.range = next.unwrap_or(u64::MAX)..=u64::MAX;
        next.is_some()
    }

    /// Walks over the records up to `end`. The first time, with a report, every one is read.
    ///
    /// Space is stepped over. A record that is not whole is reported, and supersedes what its key had: nothing older
    /// of the key need be found.
    pub(super) fn walk(&mut self, end: u64, mut report: Option<&mut Verification>) -> Result<()> {
        let (file, superblock) = (self.open_file.file(), self.open_file.superblock);
        let read = || Error::io("read", file.path());
        let records = self.open_file.journal().records_below(end);
        self.cleared = 0;
        let mut walk = Walk::new(file, superblock.seed, superblock.log_start, end);
        while let Some(step) = walk.next().map_err(read())? {
            let (offset, head) = match (step, &mut report) {
                (Step::Record(offset, head), _) => (offset, head),
                (Step::Damage(offset, end), Some(report)) => {
                    report.find(Finding::Torn { offset, bytes: end - offset });
                    continue;
                }
                (Step::Damage(..), None) => continue,
            };
            if let Some(report) = &mut report {
                report.records += 1;
            }
            let is_decided = is_decided_by_payload(&head);
            let is_read = report.is_some() || is_decided || self.follows(&head.identity);
            if is_space(&head) || !is_read {
                continue;
            }
            if walk.is_whole(offset, &head).map_err(read())? {
                apply(Op::decode(offset, &head), offset, &head, &records, self)?;
                continue;
            }
            if !is_decided {
                self.newest.remove(&head.identity); // It supersedes what its key had, and is found by nobody itself.
            }
            if let Some(report) = &mut report {
                report.find(Finding::Corrupt { offset });
            }
        }
        Ok(())
    }

    /// Where the records are of those keys that are in the index, if all below `applied` are, and to which it does
    /// not lead, though nothing has happened to them since the tail was at `tail`. `None` if all was cleared since.
    ///
    /// What was appended behind `applied` may not be in the index yet, and is not looked for. Every key is searched for
    /// once more here, since it may have been put back into the index since it was met. Costs a search for each, and a
    /// walk over what was appended since `tail` if one is missing.
    pub(super) fn lost(&self, applied: u64, tail: u64) -> Result<Option<Vec<u64>>> {
        let due = self.newest.iter().filter(|(_, newest)| newest.since < applied);
        let missing = due.filter(|(identity, _)| !is_in_index(self.open_file, identity)).collect();
        still_missing(self.open_file, missing, tail)
    }
}

impl Target for Suspects<'_> {
    fn cleared(&self) -> Result<u64> {
        Ok(self.cleared)
    }

    fn newest(&self, identity: &Identity) -> Result<Option<u64>> {
        Ok(self.newest.get(identity).map(|newest| newest.seq))
    }

    fn put(&mut self, offset: u64, head: &Head, since: u64) -> Result<()> {
        let is_newer = |newest: &Newest| supersedes(newest.seq, head.seq);
        if !self.newest.get(&head.identity).is_some_and(is_newer) && self.follows(&head.identity) {
            self.insert(head.identity, Newest { offset, seq: head.seq, since });
        }
        Ok(())
    }

    /// A large value that is still a pad was superseded before its COMMIT record was applied, or its writer was killed
    /// before that, and the next holder applies it: it is no value now, and no finding.
    fn commit(&mut self, _: u64, head: &Head) -> Result<bool> {
        Ok(head.kind == Kind::VALUE)
    }

    /// What a list names was the newest of its key.
    fn mark_dead(&mut self, dead: &[(u64, Head)], _: u64) -> Result<()> {
        for (_, head) in dead {
            self.newest.remove(&head.identity);
        }
        Ok(())
    }

    fn clear(&mut self, _: Table, seq: u64) -> Result<()> {
        self.cleared = seq;
        self.newest.clear();
        Ok(())
    }
}

/// Whether the index leads from an identity to a record of it: the newest, or a newer one.
fn is_in_index(open_file: &OpenFile, identity: &Identity) -> bool {
    let tag = Tag::of(identity.hash(open_file.superblock.seed));
    let leads = |slot: Slot| {
        let found = published(open_file).head(slot.offset())?;
        (found.identity == *identity).then_some(())
    };
    loop {
        let (words, table) = open_file.index();
        if matches!(index::slot_entry(words, table, tag, leads), index::SlotEntry::Occupied(..)) {
            return true;
        }
        // A table that was left during the search is given back, and reads as zeros.
        if open_file.index().1 == table {
            return false;
        }
    }
}

/// The records that are published by now; if the word that says it is damaged, all whose heads verify.
fn published(open_file: &OpenFile) -> Records<'_> {
    let journal = open_file.journal();
    journal.records_below(journal.tail().unwrap_or(FILE_LIMIT))
}

/// Where the newest records are of those `missing` keys to which nothing has happened since the tail was at
/// `tail`. A flush names the record that a key had last, which may be a later one than is missing; a large value
/// that was met as such may have been committed only then.
fn still_missing(
    open_file: &OpenFile,
    mut missing: HashMap<&Identity, &Newest>,
    tail: u64,
) -> Result<Option<Vec<u64>>> {
    let (file, journal) = (open_file.file(), open_file.journal());
    let records = journal.records_below(journal.tail().unwrap_or(tail));
    let mut walk = Walk::new(file, records.seed, tail, records.end);
    while !missing.is_empty()
        && let Some(step) = walk.next().map_err(Error::io("read", file.path()))?
    {
        let Step::Record(offset, head) = step else { continue };
        match Op::decode(offset, &head) {
            Op::MarkDead | Op::Commit => {
                let named = records.list(offset, &head)?.into_iter();
                for head in named.filter_map(|offset| records.head(offset)) {
                    missing.remove(&head.identity);
                }
            }
            // Cleared since: nothing from before need be found.
            Op::Clear(_) => return Ok(None),
            _ => {}
        }
    }
    Ok(Some(missing.values().map(|newest| newest.offset).collect()))
}
