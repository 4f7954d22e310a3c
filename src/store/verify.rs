//! Verification: reads the whole file and names what is wrong with it. It writes nothing and takes
//! no lock; records appended meanwhile are not looked at.

use super::Store;
use super::region::Region;
use super::trust::is_table;
use crate::error::{Error, Result};
use crate::format::header::word;
use crate::format::record::{HEAD_SIZE, Head, Kind};
use crate::format::slot::{Slot, Tag};
use crate::index;
use crate::scan::{Step, Walk};
use crate::sys::file::Medium as _;
use std::collections::{HashMap, HashSet};
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
        let (words, table) = region.index();
        let slots: Vec<Slot> = index::slots(words, table).collect();
        // The size after the tail: a file grows before its tail does.
        let tail = region.journal().tail();
        let size = region.file().size().map_err(Error::io("look at", region.file().path()))?;
        let tail = tail.unwrap_or(size);
        if tail > size {
            report.find(Finding::Truncated { offset: tail });
        }
        if !region.is_private()
            && !is_table(&region.journal(), table, tail)
            && region.index().1 == table
        {
            report.find(Finding::Corrupt { offset: table.offset().saturating_sub(HEAD_SIZE) });
        }
        // What a writer has published and not yet put into the index, living or killed, is no finding:
        // the next one does.
        let applied = region.journal().ledger.get(word::APPLIED).unwrap_or(tail);
        let mut newest = walk(&region, tail.min(size), &mut report)?;
        newest.retain(|_, offset| *offset < applied);
        for slot in slots.iter().filter(|slot| slot.offset() < tail) {
            let head = region.medium().head(slot.offset());
            let head = head.and_then(|b| Head::decode(&b, slot.offset(), region.facts.seed));
            if head.is_none() {
                report.find(Finding::Astray { offset: slot.offset() });
            }
        }
        // What a flush buried since the walk is not in the index, rightly.
        if tail <= size && region.index().1 == table {
            let mut later = Verification::default();
            check_reach(&region, &newest, &mut later);
            let dead = dead_since(&region, tail)?;
            later.findings.retain(|finding| {
                !matches!(finding, Finding::Unreachable { offset } if dead.contains(offset))
            });
            // A table that was left meanwhile is given back piece by piece, and leads nowhere.
            if region.index().1 == table {
                later.findings.into_iter().for_each(|finding| report.find(finding));
            }
        }
        Ok(report)
    }
}

/// Reads every record. Returns the newest healthy one of each key, since the last clear.
fn walk(region: &Region, end: u64, report: &mut Verification) -> Result<HashMap<Vec<u8>, u64>> {
    let file = region.file();
    let read = || Error::io("read", file.path());
    let seed = region.facts.seed;
    let mut newest = HashMap::new();
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
                for filled in region.journal().offsets_in(offset, &head)? {
                    let Some(value) = region.journal().head_at(filled) else { continue };
                    if value.seq > cleared {
                        newest.entry(key_of(&value)).or_insert(filled);
                    }
                }
            }
            Kind::DEAD_LIST => {
                let dead = region.journal().offsets_in(offset, &head)?;
                let dead: HashSet<u64> = dead.into_iter().collect();
                newest.retain(|_, offset| !dead.contains(offset));
            }
            kind if kind.is_keyed() => {
                newest.insert(key_of(&head), offset);
            }
            _ => {}
        }
    }
    Ok(newest)
}

fn key_of(head: &Head) -> Vec<u8> {
    let mut key = head.identity.bytes.to_vec();
    key.push(head.identity.form);
    key
}

/// The records that dead lists behind `tail` name.
fn dead_since(region: &Region, tail: u64) -> Result<HashSet<u64>> {
    let (file, journal) = (region.file(), region.journal());
    let read = || Error::io("read", file.path());
    let mut dead = HashSet::new();
    let mut walk = Walk::new(file, region.facts.seed, tail, journal.tail().unwrap_or(tail));
    while let Some(step) = walk.next().map_err(read())? {
        match step {
            Step::Record(offset, head) if head.kind == Kind::DEAD_LIST => {
                dead.extend(journal.offsets_in(offset, &head)?);
            }
            // Cleared since: nothing from before need be found.
            Step::Record(_, head) if head.kind == Kind::CLEAR => return Ok(dead),
            _ => {}
        }
    }
    Ok(dead)
}

/// Every newest record must be found from its key, or a newer one in its place.
fn check_reach(region: &Region, newest: &HashMap<Vec<u8>, u64>, report: &mut Verification) {
    let journal = region.journal();
    let (words, table) = region.index();
    for offset in newest.values() {
        let Some(head) = journal.head_at(*offset) else { continue };
        let tag = Tag::of(head.identity.hash(region.facts.seed));
        let leads = |slot: Slot| {
            let found = journal.head_at(slot.offset())?;
            (found.identity == head.identity).then_some(())
        };
        if !matches!(index::seat(words, table, tag, leads), index::Seat::Taken(..)) {
            report.find(Finding::Unreachable { offset: *offset });
        }
    }
}
