//! Verification: reads the whole file and names what is wrong with it, and nothing else, whatever others do to
//! the file meanwhile. It writes nothing and takes no lock; records appended meanwhile are not looked at.

use super::Store;
use super::region::Region;
use super::trust::is_table;
use crate::error::{Error, Result};
use crate::format::header::word;
use crate::format::record::{HEAD_SIZE, Head, Identity, Kind};
use crate::format::slot::{Slot, Tag};
use crate::index;
use crate::scan::{Step, Walk};
use crate::sys::file::Medium as _;
use std::collections::HashMap;
use std::fmt;

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

impl Verification {
    fn find(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

impl Store {
    pub(crate) fn verify(&self) -> Result<Verification> {
        let region = self.current()?;
        let mut report = Verification::default();
        for (offset, _) in word::sealed(0) {
            if region.journal().ledger.get(offset).is_err() {
                report.find(Finding::Header { offset });
            }
        }
        // The index before the tail: whatever it leads to below this tail must be there.
        let table = region.index().1;
        let slots = region.slots();
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
        let newest = walk(&region, end.min(size), &mut report)?;
        for slot in slots.iter().filter(|slot| slot.offset() < tail) {
            let head = region.medium().head(slot.offset());
            let head = head.and_then(|b| Head::decode(&b, slot.offset(), region.facts.seed));
            if head.is_none() {
                report.find(Finding::Astray { offset: slot.offset() });
            }
        }
        if tail <= size {
            let due = newest.iter().filter(|(_, newest)| newest.since < applied);
            let missing = due.filter(|(identity, _)| !is_in_index(&region, identity)).collect();
            for offset in still_missing(&region, missing, tail)? {
                report.find(Finding::Unreachable { offset });
            }
        }
        Ok(report)
    }
}

/// The newest record of a key.
struct Newest {
    offset: u64,
    seq: u64,
    /// The record from which on it counts: of a large value, the one that says that it was filled.
    since: u64,
}

/// Reads every record. Returns the newest healthy one of each key, since the last clear.
fn walk(region: &Region, end: u64, report: &mut Verification) -> Result<HashMap<Identity, Newest>> {
    let (file, journal, seed) = (region.file(), region.journal(), region.facts.seed);
    let read = || Error::io("read", file.path());
    let mut newest: HashMap<Identity, Newest> = HashMap::new();
    let mut cleared = 0;
    let mut walk = Walk::new(file, seed, region.facts.log_start, end);
    while let Some(step) = walk.next().map_err(read())? {
        let (offset, head) = match step {
            Step::Record(offset, head) => (offset, head),
            Step::Damage(offset, end) => {
                report.find(Finding::Torn { offset, bytes: end - offset });
                continue;
            }
        };
        report.records += 1;
        if head.kind == Kind::PAD {
            continue; // Space, or a large value that never was filled.
        }
        let is_whole = walk.is_whole(offset, &head).map_err(read())?;
        match head.kind {
            _ if !is_whole => report.find(Finding::Corrupt { offset }),
            Kind::CLEAR => {
                cleared = head.seq;
                newest.clear();
            }
            // A large value counts from where it was filled, unless a newer one of its key does.
            Kind::FILLED => {
                for filled in journal.offsets_in(offset, &head)? {
                    let Some(value) = journal.head_at(filled) else { continue };
                    let is_newest = |other: &Newest| other.seq <= value.seq;
                    if value.seq > cleared && newest.get(&value.identity).is_none_or(is_newest) {
                        let value_at = Newest { offset: filled, seq: value.seq, since: offset };
                        newest.insert(value.identity, value_at);
                    }
                }
            }
            Kind::DEAD_LIST => {
                for dead in journal.offsets_in(offset, &head)? {
                    let identity = journal.head_at(dead).map(|head| head.identity);
                    if let Some(identity) = identity
                        && newest.get(&identity).is_some_and(|newest| newest.offset == dead)
                    {
                        newest.remove(&identity);
                    }
                }
            }
            kind if kind.is_keyed() => {
                newest.insert(head.identity, Newest { offset, seq: head.seq, since: offset });
            }
            _ => {}
        }
    }
    Ok(newest)
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
) -> Result<Vec<u64>> {
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
            Step::Record(_, head) if head.kind == Kind::CLEAR => missing.clear(),
            _ => {}
        }
    }
    Ok(missing.values().map(|newest| newest.offset).collect())
}
