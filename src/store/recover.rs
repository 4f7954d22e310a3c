//! Recovery: the index anew, from the log. It runs under the lock when a file is not at home (a
//! reboot, a copy) or its header does not verify. It assumes no solitude: it writes only behind the
//! tail, as any appender, and never truncates. Where even the tail cannot be believed, or the file
//! ends before it, the healthy records move to a new file instead.

use super::create::write_header;
use super::expiry::View;
use super::journal::{Journal, LARGE};
use super::region::{Backing, Private, Region};
use super::rewrite;
use super::trust::is_consistent;
use crate::error::{Error, Result};
use crate::format::checkpoint::Checkpoint;
use crate::format::header::{Facts, HEADER_SIZE, HOME, HOME_SIZE, state, word};
use crate::format::record::{HEAD_SIZE, Head, Kind};
use crate::format::slot::{Slot, Tag};
use crate::index::{self, HeapTable};
use crate::scan::{Step, Walk};
use crate::sys::file::{CacheFile, Medium as _};
use crate::sys::place::Replacement;
use std::collections::HashSet;

/// What a walk over a log found.
pub(crate) struct Rebuilt {
    /// The slots of the newest record of every key, removed ones included.
    pub(crate) index: HeapTable,
    pub(crate) entries: u64,
    pub(crate) live: u64,
    /// The sequence number of the last clear.
    pub(crate) barrier: u64,
    /// The highest sequence number met.
    pub(crate) seq: u64,
}

/// Makes a file that is locked trustworthy. `false` if another file is at the path now.
pub(crate) fn recover(region: &Region) -> Result<bool> {
    let journal = region.journal();
    let state = journal.ledger.medium.load(word::STATE);
    if state == state::MOVED || !has_believable_tail(&journal)? {
        salvage(region)?;
        return Ok(false);
    }
    let file = region.file();
    leave_home(file)?;
    file.unshare();
    let tail = journal.tail()?;
    // Space behind the tail is taken anew: a copy may have holes there.
    journal.ledger.set(word::ALLOCATED, tail)?;
    file.allocate(0, HEADER_SIZE).map_err(Error::io("grow", file.path()))?;
    if !reuse_checkpoint(&journal)? {
        rebuild_in_place(&journal)?;
    }
    journal.ledger.store(word::STATE, state::LIVE)?;
    come_home(file)?;
    Ok(true)
}

/// Makes the index of a locked file anew.
pub(crate) fn make_index(region: &Region) -> Result<()> {
    leave_home(region.file())?;
    rebuild_in_place(&region.journal())?;
    come_home(region.file())
}

/// From here until it comes home, the file is believed by nobody: recovery may be killed, too.
fn leave_home(file: &CacheFile) -> Result<()> {
    file.write(HOME, &[0; HOME_SIZE]).map_err(Error::io("write", file.path()))
}

fn come_home(file: &CacheFile) -> Result<()> {
    let Some(home) = file.home() else { return Ok(()) };
    file.write(HOME, &home.encode()).map_err(Error::io("write", file.path()))
}

/// Whether all header words verify and the file is long enough for them.
fn has_believable_tail(journal: &Journal<'_>) -> Result<bool> {
    let file = journal.ledger.medium.file();
    let size = file.size().map_err(Error::io("look at", file.path()))?;
    if !journal.ledger.is_sound() {
        return Ok(false);
    }
    Ok((journal.facts.log_start..=size).contains(&journal.tail()?))
}

/// Goes back to the last checkpoint, if the index is still as it was then, and redoes what came
/// since.
fn reuse_checkpoint(journal: &Journal<'_>) -> Result<bool> {
    let ledger = &journal.ledger;
    let Some(checkpoint) = read_checkpoint(journal)? else { return Ok(false) };
    let is_whole = checkpoint.index.is_plausible()
        && checkpoint.index.end() <= journal.tail()?.max(journal.facts.log_start)
        && journal.hash_table(checkpoint.index).is_ok_and(|hash| hash == checkpoint.index_hash);
    if !is_whole {
        return Ok(false);
    }
    let (file, index) = (ledger.medium.file(), checkpoint.index);
    file.allocate(index.offset(), index.end()).map_err(Error::io("grow", file.path()))?;
    for place in [word::CURSOR, word::GROWN] {
        ledger.set(place, 0)?;
    }
    ledger.store(word::PENDING, 0)?;
    ledger.store(word::RETIRED, 0)?;
    ledger.store(word::INDEX, checkpoint.index.0)?;
    ledger.set(word::BARRIER, ledger.get(word::BARRIER)?.max(checkpoint.barrier))?;
    ledger.set(word::ENTRIES, checkpoint.entries)?;
    ledger.set(word::LIVE, checkpoint.live)?;
    ledger.set(word::USED, checkpoint.used)?;
    ledger.set(word::APPLIED, checkpoint.tail)?;
    journal.redo(true)?;
    Ok(true)
}

fn read_checkpoint(journal: &Journal<'_>) -> Result<Option<Checkpoint>> {
    let offset = journal.ledger.get(word::CHECKPOINT)?;
    if offset == 0 {
        return Ok(None);
    }
    let Some(head) = journal.head_at(offset).filter(|head| head.kind == Kind::CHECKPOINT) else {
        return Ok(None);
    };
    let mut payload = vec![0; (head.len as usize).min(4096)];
    let file = journal.ledger.medium.file();
    file.read(offset + HEAD_SIZE, &mut payload).map_err(Error::io("read", file.path()))?;
    let is_whole = head.check_of(&payload, journal.facts.seed) == head.payload_check;
    Ok(Checkpoint::decode(&payload).filter(|_| is_whole))
}

/// Appends an index made from the whole log.
fn rebuild_in_place(journal: &Journal<'_>) -> Result<()> {
    let ledger = &journal.ledger;
    let file = ledger.medium.file();
    let (tail, synced) = (journal.tail()?, ledger.get(word::SYNCED)?);
    let rebuilt = rebuild(file, journal.facts, tail, synced)?;
    ledger.set(word::SEQ, journal.seq()?.max(rebuilt.seq))?;
    ledger.set(word::BARRIER, ledger.get(word::BARRIER)?.max(rebuilt.barrier))?;
    ledger.set(word::CLEARED, rebuilt.barrier)?;
    journal.adopt_table(&rebuilt.index.bytes())?;
    ledger.set(word::USED, rebuilt.index.used())?;
    ledger.set(word::ENTRIES, rebuilt.entries)?;
    ledger.set(word::LIVE, rebuilt.live)
}

/// The index of the log up to `end`. Records below `synced` were on the device before the power
/// could fail: their payloads are checked when they are first read, like any.
pub(crate) fn rebuild(file: &CacheFile, facts: &Facts, end: u64, synced: u64) -> Result<Rebuilt> {
    let failed = || Error::io("read", file.path());
    let mut rebuilt = Rebuilt::new();
    let mut walk = Walk::new(file, facts.seed, facts.log_start, end);
    while let Some(step) = walk.next().map_err(failed())? {
        let Step::Record(offset, head) = step else { continue };
        let mut dead = Vec::new();
        // A large value's space may have been reserved before a sync and filled after it.
        let is_checked = head.kind.is_keyed() && (offset >= synced || head.len > LARGE as u64);
        if head.kind == Kind::DEAD_LIST || is_checked {
            let payload = walk.payload(offset, &head).map_err(failed())?;
            if head.check_of(payload, facts.seed) != head.payload_check {
                continue;
            }
            if head.kind == Kind::DEAD_LIST {
                let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("of 8"));
                dead.extend(payload.chunks_exact(8).map(word));
            }
        }
        rebuilt.apply(file, facts.seed, offset, &head, &dead);
    }
    Ok(rebuilt)
}

impl Rebuilt {
    fn new() -> Rebuilt {
        let index = HeapTable::new(crate::format::header::FIRST_BUCKETS);
        Rebuilt { index, entries: 0, live: 0, barrier: 0, seq: 0 }
    }

    fn apply(&mut self, file: &CacheFile, seed: u64, offset: u64, head: &Head, dead: &[u64]) {
        self.seq = self.seq.max(head.seq);
        let head_at = |offset| Head::decode(&file.head(offset)?, offset, seed);
        match head.kind {
            kind if kind.is_keyed() => {
                let slot = Slot::new(Tag::of(head.identity.hash(seed)), offset);
                let same = |slot: Slot| {
                    head_at(slot.offset()).is_some_and(|found| found.identity == head.identity)
                };
                let old = self.index.put(slot, same);
                if let Some(old) = old.and_then(|slot| head_at(slot.offset())) {
                    self.count(&old, -1);
                }
                self.count(head, 1);
            }
            Kind::DEAD_LIST => {
                for buried in dead {
                    let Some(old) = head_at(*buried) else { continue };
                    let slot = Slot::dead(Tag::of(old.identity.hash(seed)));
                    if self.index.replace(slot, |slot| slot.offset() == *buried) {
                        self.count(&old, -1);
                    }
                }
            }
            Kind::CLEAR => {
                *self = Rebuilt { barrier: head.seq, seq: self.seq, ..Rebuilt::new() };
            }
            _ => {}
        }
    }

    fn count(&mut self, head: &Head, sign: i64) {
        if head.kind == Kind::VALUE {
            self.entries = self.entries.saturating_add_signed(sign);
            self.live = self.live.saturating_add_signed(sign * head.next(0) as i64);
        }
    }
}

/// Moves what is healthy in a locked file to a new one at the same path.
fn salvage(region: &Region) -> Result<()> {
    let (file, facts) = (region.file(), &region.facts);
    let busy = || Error::Busy { path: file.path().to_path_buf() };
    let new = Replacement::begin(file.path())?.ok_or_else(busy)?;
    let size = file.size().map_err(Error::io("look at", file.path()))?;
    let tail = region.journal().tail().unwrap_or(size).min(size);
    let rebuilt = rebuild(file, facts, tail, 0)?;
    let slots = index::slots(&rebuilt.index, rebuilt.index.table()).collect();
    let barrier = rebuilt.barrier.max(region.journal().ledger.get(word::BARRIER).unwrap_or(0));
    let seq = rebuilt.seq.max(region.journal().seq().unwrap_or(0));
    let bulk = rewrite::copy(region, slots, &new.file, View::Never, &HashSet::new())?;
    let words = bulk.words(seq, barrier.max(bulk.barrier));
    write_header(&new.file, &bulk.facts, &words).map_err(Error::io("write", new.file.path()))?;
    new.file.sync().map_err(Error::io("sync", new.file.path()))?;
    rewrite::take_place(region, &new)
}

/// For a file that may not be written: an index of this process's own. If its tail cannot be believed,
/// it is read by copy, up to where records were found.
pub(crate) fn with_private_index(region: Region) -> Result<Region> {
    let journal = region.journal();
    let file = region.file();
    let size = file.size().map_err(Error::io("look at", file.path()))?;
    let is_believed = is_consistent(&journal)?;
    let end = if is_believed { journal.tail()?.min(size) } else { size };
    let rebuilt = rebuild(file, &region.facts, end, end)?;
    let private = Private { index: rebuilt.index.freeze(), end };
    let backing = match region.backing {
        Backing::Mapped(map) if !is_believed => Backing::Copied(map.into_file()),
        backing => backing,
    };
    Ok(Region::new(backing, region.facts, Some(private)))
}
