//! Verification: reads the whole file and names what is wrong with it, and nothing else, whatever others do to
//! the file meanwhile. It writes nothing and takes no lock; records appended meanwhile are not looked at.
//!
//! Memory does not depend on the number of keys. Each record is held against the index when it is met. Only keys
//! that the index does not lead to are remembered: they were flushed, as the log goes on to say, or they are lost.
//! Of these no more than [`KEYS_MAX`] at a time: those with larger hashes have their turn in another pass.

use super::Store;
use crate::engine::file::region::Region;
use crate::engine::file::trust::is_table;
use crate::engine::format::header::word;
use crate::engine::format::record::{HEAD_SIZE, Head, Identity, Kind};
use crate::engine::format::slot::{Slot, Tag};
use crate::engine::index;
use crate::engine::log::walk::{Step, Walk};
use crate::engine::os::file::Medium as _;
use crate::error::{Error, Result};
use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher as _;
use std::ops::RangeInclusive;

/// What a verification found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Verification {
    /// Records that were read.
    pub records: u64,
    /// What is wrong; empty for a healthy file. At most a thousand are listed.
    pub findings: Vec<Finding>,
}

/// A thing that is wrong, and the offset in the file where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// A word of the header fails its check.
    Header {
        /// Where the word is.
        offset: u64,
    },
    /// Bytes that should be records and are none.
    Torn {
        /// Where they begin.
        offset: u64,
        /// How many they are.
        bytes: u64,
    },
    /// A record whose payload fails its check.
    Corrupt {
        /// Where the record begins.
        offset: u64,
    },
    /// A healthy record that the index does not lead to: a miss.
    Unreachable {
        /// Where the record begins.
        offset: u64,
    },
    /// An index slot that leads to no record: a miss.
    Astray {
        /// Where the slot leads.
        offset: u64,
    },
    /// The file ends before its log.
    Truncated {
        /// Where the log should end.
        offset: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Header { offset } => write!(f, "the header word at {offset} fails its check"),
            Finding::Torn { offset, bytes } => write!(f, "{bytes} bytes at {offset} are no record"),
            Finding::Corrupt { offset } => write!(f, "the record at {offset} fails its check"),
            Finding::Unreachable { offset } => {
                write!(f, "the record at {offset} is not in the index")
            }
            Finding::Astray { offset } => {
                write!(f, "the index leads to {offset}, where no record is")
            }
            Finding::Truncated { offset } => write!(f, "the file ends before {offset}"),
        }
    }
}

const FINDINGS_MAX: usize = 1000;

/// So many keys are remembered at a time: with 64 bytes for each, and while the map grows, some 14 MiB.
const KEYS_MAX: usize = 7 << 13;

impl Verification {
    fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

impl Store {
    pub(crate) fn verify(&self) -> Result<Verification> {
        self.verify_by(KEYS_MAX)
    }

    /// As [`verify`](Store::verify), with no more than so many keys in memory.
    pub(crate) fn verify_by(&self, keys_max: usize) -> Result<Verification> {
        let region = self.current()?;
        let mut report = Verification::default();
        for (offset, _) in word::sealed(0) {
            if region.journal().ledger.get(offset).is_err() {
                report.find(Finding::Header { offset });
            }
        }
        // The index before the tail: a table that was the index lies below it.
        let table = region.index().1;
        // The size after the tail: a file grows before its tail does.
        let tail = region.journal().tail();
        let size = region.file().size().map_err(Error::io("look at", region.file().path()))?;
        let tail = tail.unwrap_or(size);
        if tail > size {
            report.find(Finding::Truncated { offset: tail });
        }
        if !region.is_private() && !is_table(&region.journal(), table, tail) {
            report.find(Finding::Corrupt { offset: table.offset().saturating_sub(HEAD_SIZE) });
        }
        // What a writer has published and not yet put into the index, living or killed, is no finding: the
        // next one does. Nor is what came after an index of this process's own was made.
        let applied = region.journal().ledger.get(word::APPLIED).unwrap_or(tail);
        let (end, applied) = region.private_end().map_or((tail, applied), |end| (end, end));
        let end = end.min(size);
        let mut suspects = Suspects::new(&region, keys_max);
        suspects.walk(end, Some(&mut report))?;
        // Whatever the index leads to below a tail of before must be there.
        let is_astray = |slot: Slot| slot.offset() < tail && !has_head(&region, slot.offset());
        for slot in region.slots(is_astray, FINDINGS_MAX) {
            report.find(Finding::Astray { offset: slot.offset() });
        }
        if tail > size {
            return Ok(report);
        }
        while let Some(lost) = suspects.lost(applied, tail)? {
            lost.into_iter().for_each(|offset| report.find(Finding::Unreachable { offset }));
            if report.findings.len() == FINDINGS_MAX || !suspects.go_on() {
                break;
            }
            suspects.walk(end, None)?;
        }
        Ok(report)
    }
}

/// Whether there is the head of a record at an offset.
fn has_head(region: &Region, offset: u64) -> bool {
    let head = region.medium().head(offset);
    head.is_some_and(|bytes| Head::decode(&bytes, offset, region.facts.seed).is_some())
}

/// The newest record of a key.
struct Newest {
    offset: u64,
    seq: u64,
    /// The record from which on it counts: of a large value, the one that says that it was filled.
    since: u64,
}

/// The newest healthy record, since the last clear, of each key that the index did not lead to when it was met: of
/// those keys whose hashes lie in a range that is no larger than memory allows.
struct Suspects<'a> {
    region: &'a Region,
    range: RangeInclusive<u64>,
    newest: HashMap<Identity, Newest>,
    keys_max: usize,
}

impl<'a> Suspects<'a> {
    fn new(region: &'a Region, keys_max: usize) -> Suspects<'a> {
        Suspects { region, range: 0..=u64::MAX, newest: HashMap::new(), keys_max }
    }

    /// By the map's own hasher, which nobody knows who makes files.
    fn hash(&self, identity: &Identity) -> u64 {
        self.newest.hasher().hash_one(identity)
    }

    /// Whether what becomes of a key is to be followed.
    fn follows(&self, identity: &Identity) -> bool {
        self.range.contains(&self.hash(identity))
            && (self.newest.contains_key(identity) || !is_in_index(self.region, identity))
    }

    fn insert(&mut self, identity: Identity, newest: Newest) {
        if self.newest.len() >= self.keys_max {
            self.narrow();
        }
        if self.range.contains(&self.hash(&identity)) {
            self.newest.insert(identity, newest);
        }
    }

    /// Leaves the upper half of the keys to another pass.
    fn narrow(&mut self) {
        let mut hashes: Vec<u64> = self.newest.keys().map(|key| self.hash(key)).collect();
        let middle = hashes.len().saturating_sub(1) / 2;
        let (_, median, _) = hashes.select_nth_unstable(middle);
        self.range = *self.range.start()..=*median;
        let (range, hasher) = (self.range.clone(), self.newest.hasher().clone());
        self.newest.retain(|identity, _| range.contains(&hasher.hash_one(identity)));
    }

    /// Begins with the keys behind the range. `false` if there are none.
    fn go_on(&mut self) -> bool {
        let next = self.range.end().checked_add(1);
        self.newest.clear();
        self.range = next.unwrap_or(u64::MAX)..=u64::MAX;
        next.is_some()
    }

    /// Walks over the records up to `end`. The first time, with a report, every one is read.
    fn walk(&mut self, end: u64, mut report: Option<&mut Verification>) -> Result<()> {
        let (file, facts) = (self.region.file(), self.region.facts);
        let read = || Error::io("read", file.path());
        let mut cleared = 0;
        let mut walk = Walk::new(file, facts.seed, facts.log_start, end);
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
            // Space, or a large value that never was filled.
            let is_read = head.kind != Kind::PAD
                && (report.is_some() || !head.kind.is_keyed() || self.follows(&head.identity));
            if !is_read {
                continue;
            }
            if walk.is_whole(offset, &head).map_err(read())? {
                self.follow(offset, &head, &mut cleared)?;
            } else if let Some(report) = &mut report {
                report.find(Finding::Corrupt { offset });
            }
        }
        Ok(())
    }

    /// What a healthy record says of the keys that are followed.
    fn follow(&mut self, offset: u64, head: &Head, cleared: &mut u64) -> Result<()> {
        let journal = self.region.journal();
        match head.kind {
            Kind::CLEAR => {
                *cleared = head.seq;
                self.newest.clear();
            }
            // A large value counts from where it was filled, unless a newer one of its key does.
            Kind::FILLED => {
                for filled in journal.offsets_in(offset, head)? {
                    let Some(value) = journal.head_at(filled) else { continue };
                    let is_newest = |other: &Newest| other.seq <= value.seq;
                    if value.seq > *cleared
                        && self.newest.get(&value.identity).is_none_or(is_newest)
                        && self.follows(&value.identity)
                    {
                        let value_at = Newest { offset: filled, seq: value.seq, since: offset };
                        self.insert(value.identity, value_at);
                    }
                }
            }
            // What it names was the newest of its key.
            Kind::DEAD_LIST => {
                for dead in journal.offsets_in(offset, head)? {
                    if let Some(dead) = journal.head_at(dead) {
                        self.newest.remove(&dead.identity);
                    }
                }
            }
            kind if kind.is_keyed() && self.follows(&head.identity) => {
                self.insert(head.identity, Newest { offset, seq: head.seq, since: offset });
            }
            _ => {}
        }
        Ok(())
    }

    /// Where the records are of those keys that are in the index, if all below `applied` are, and to which it does
    /// not lead, though nothing has happened to them since the tail was at `tail`. `None` if all was cleared since.
    fn lost(&self, applied: u64, tail: u64) -> Result<Option<Vec<u64>>> {
        let due = self.newest.iter().filter(|(_, newest)| newest.since < applied);
        let missing = due.filter(|(identity, _)| !is_in_index(self.region, identity)).collect();
        still_missing(self.region, missing, tail)
    }
}

/// Whether the index leads from an identity to a record of it: the newest, or a newer one.
fn is_in_index(region: &Region, identity: &Identity) -> bool {
    let tag = Tag::of(identity.hash(region.facts.seed));
    let leads = |slot: Slot| {
        let found = region.journal().head_at(slot.offset())?;
        (found.identity == *identity).then_some(())
    };
    loop {
        let (words, table) = region.index();
        if matches!(index::seat(words, table, tag, leads), index::Seat::Taken(..)) {
            return true;
        }
        // A table that was left during the search is given back, and reads as zeros.
        if region.index().1 == table {
            return false;
        }
    }
}

/// Where the newest records are of those `missing` keys to which nothing has happened since the tail was at
/// `tail`. A flush names the record that a key had last, which may be a later one than is missing; a large value
/// that was met as such may have been filled only then.
fn still_missing(
    region: &Region,
    mut missing: HashMap<&Identity, &Newest>,
    tail: u64,
) -> Result<Option<Vec<u64>>> {
    let (file, journal) = (region.file(), region.journal());
    let read = || Error::io("read", file.path());
    let mut walk = Walk::new(file, region.facts.seed, tail, journal.tail().unwrap_or(tail));
    while !missing.is_empty()
        && let Some(step) = walk.next().map_err(read())?
    {
        match step {
            Step::Record(offset, head) if matches!(head.kind, Kind::DEAD_LIST | Kind::FILLED) => {
                for named in journal.offsets_in(offset, &head)? {
                    if let Some(head) = journal.head_at(named) {
                        missing.remove(&head.identity);
                    }
                }
            }
            // Cleared since: nothing from before need be found.
            Step::Record(_, head) if head.kind == Kind::CLEAR => return Ok(None),
            _ => {}
        }
    }
    Ok(Some(missing.values().map(|newest| newest.offset).collect()))
}
