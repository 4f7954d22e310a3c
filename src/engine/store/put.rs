//! Storing a value: what a put does in each hold of the write lock, how it goes on from there, and under what
//! condition.
//!
//! ```text
//!   small value      lock | decide, append, apply                                    | unlock
//!   large value      lock | decide, reserve | unlock  copy  lock | decide, commit    | unlock
//!   a value is there lock | decide          | unlock  verify it;  if it is damaged: lock | decide, .. | unlock
//! ```
//!
//! A hold takes no longer than the bytes of a small value take to be copied, and nothing of the user's runs
//! meanwhile. Checksums are made before the lock: the file's seed, which keys them, outlives compactions. What is
//! decided anew in each hold is whether the value may still be stored ([`PutCondition`]), since the lock was free
//! in between.
//!
//! What is decided, by what the key has in the index at that moment:
//!
//! | the key has | Replace | IfAbsent | Mend | Refresh |
//! | --- | --- | --- | --- | --- |
//! | (the cache is another one, or BARRIER is above the token) | store | refuse | refuse | refuse |
//! | nothing | store | store | store | store |
//! | a value that counts and is whole | store | keep it | by number | store |
//! | a value that has expired, or is damaged | store | by number | by number | store |
//! | a tombstone | store | by number | by number | by number |
//!
//! "By number": refuse if that record is newer than the token, else store. It tells what happened before the
//! computation began from what happened since. Where an expired value is newer than the token, nothing is stored
//! either: that value may have been stored over a removal which came after the token.
//!
//! Killed or failed between two holds, a small value was stored or was not; a large one leaves space that nobody uses,
//! until a compaction. An attempt that is given up leaves the same.
//!
//! Rejected: to copy large values under the lock, which would stop all writers for as long as the copy takes; and
//! to write them to a file of their own, which would need another map to be read in place.

use super::writer::Writer;
use super::{Store, StoreLookup, Token, Unmet};
use crate::engine::file::deadline::Deadline;
use crate::engine::file::effort::Effort;
use crate::engine::file::expiry::ExpiryRule;
use crate::engine::file::lookup::{Lookup, RECORD_COPY_MAX};
use crate::engine::file::open;
use crate::engine::file::open_file::OpenFile;
use crate::engine::format::header::word;
use crate::engine::format::record::{Head, Identity, Kind};
use crate::engine::format::units::{Cost, Ttl};
use crate::engine::format::{PAYLOAD_LIMIT, record};
use crate::engine::log::journal::Draft;
use crate::engine::log::op::LARGE;
use crate::engine::os::file::Storage as _;
use crate::engine::os::heap;
use crate::engine::os::place::AccessMode;
use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A value to be stored.
pub(crate) struct Entry<'a> {
    pub(crate) identity: Identity,
    pub(crate) payload: &'a [u8],
    /// The time to live that the record keeps.
    pub(crate) ttl: Option<Duration>,
    /// What computing it took.
    pub(crate) cost: Duration,
    /// Whether the payload was checked as what the scope's values are, so that this process may access it
    /// as one without another check.
    pub(crate) is_valid: bool,
}

/// The record behind a scope, written before its first value. No look-up needs it: it tells a compaction, and people
/// who list a file, which function the values are of.
pub(crate) struct ScopeRecord<'a> {
    pub(crate) identity: Identity,
    pub(crate) payload: &'a [u8],
    /// Where this process last saw it: see `announce`.
    pub(crate) seen: &'a AtomicU64,
}

/// When a value is stored, in view of what is in the file by then. The file's words and heads decide, and never a
/// payload: what would have to be read is for after the hold.
#[derive(Clone, Copy)]
pub(crate) enum PutCondition {
    /// In any case.
    Replace,
    /// If nothing is there that counts, and nothing was cleared or removed since the token.
    IfAbsent(Token, ExpiryRule),
    /// If nothing was cleared or removed since the token. What is there is damaged.
    Mend(Token),
    /// If nothing was cleared or removed since the token, in place of what is there.
    Refresh(Token),
}

/// What becomes of a put.
enum Verdict {
    /// It is stored.
    Store,
    /// It is not: its time has passed.
    Refuse,
    /// It is not if the value at this offset is whole, which is for whoever has let go of the lock to see.
    Keep(u64),
}

/// What one hold of the lock came to.
enum Hold {
    /// There is no more to do.
    Done(Option<StoreLookup>),
    /// The lock has to be taken once more, since payloads are copied and checked without it.
    Again,
    /// It is too much effort.
    Long,
}

/// Where a record is. It holds the open file, so that no later one can be taken for it.
struct Place {
    open_file: Arc<OpenFile>,
    offset: u64,
}

impl PutCondition {
    /// Whether an archive must be checked before it is stored. What is in its place may have been refused, and so
    /// might the archive be: then each call would compute and store it again.
    pub(crate) fn needs_check(&self) -> bool {
        !matches!(self, PutCondition::IfAbsent(..))
    }
}

/// What was done of a put that takes the lock more than once.
///
/// Each part counts for one file. Where the cache is in another file by the next hold, a compaction has copied what was
/// published, and has left behind what was reserved; so such a part is dropped, and the put decides anew.
///
/// ```text
///   (nothing)  --- found a value ------> verify it without the lock ---> whole: kept   damaged: noted in `damaged`
///   (nothing)  --- small, brief -------> appended; the index is full --> `published`: the next holder brings it up
///   (nothing)  --- large --------------> `reserved` ---> the bytes are copied --> committed
/// ```
#[derive(Default)]
pub(crate) struct PutProgress {
    /// The record's head, and the seed that its checksum is made with.
    head: Option<(u64, Head)>,
    /// Where space was reserved for a large value whose payload is written and which is not committed yet.
    reserved: Option<Place>,
    /// Where the record lies if it is published, and an index that could not take it was left to be made anew.
    published: Option<Place>,
    /// Where a record of the key is that was found damaged.
    damaged: Option<Place>,
}

impl PutProgress {
    /// The record for a file with this seed: the one that there is, or a new one. A new one costs a pass over the
    /// payload, for its check. That is made under the lock only if the cache was deleted and made anew just before.
    #[inline]
    fn draft<'a>(&mut self, entry: &Entry<'a>, seed: u64) -> Draft<'a> {
        let head = match self.head {
            Some((of, head)) if of == seed => head,
            _ => entry.draft(seed).head,
        };
        self.head = Some((seed, head));
        Draft { head, payload: entry.payload }
    }
}

impl<'a> Entry<'a> {
    /// The record to be appended, with the time of now, and without a number.
    pub(crate) fn draft(&self, seed: u64) -> Draft<'a> {
        let mut draft = Draft::new(Kind::VALUE, self.identity, self.payload, seed);
        draft.head.ttl = self.ttl.map_or(Ttl::NONE, Ttl::new);
        draft.head.cost = Cost::new(self.cost);
        draft
    }

    /// Whether its bytes are copied without the lock.
    pub(crate) fn is_large(&self) -> bool {
        self.payload.len() > LARGE
    }

    /// Whether it is small enough to be stored, and to be found by who accesses the file in this mode.
    pub(crate) fn check_size(&self, access: AccessMode) -> Result<()> {
        let size = self.payload.len() as u64;
        let (what, limit) = match access {
            AccessMode::Copied => ("a value that is read by copy", RECORD_COPY_MAX),
            AccessMode::Checked | AccessMode::Trusted => ("a value", PAYLOAD_LIMIT),
        };
        match size <= limit {
            true => Ok(()),
            false => Err(Error::TooLarge { what, size, limit }),
        }
    }
}

impl Store {
    /// Stores a value. Returns it as it is in the file, or what was there before, or `None` if it may
    /// not be stored any more. Waits for the lock until the deadline. What is done under the lock takes no
    /// longer for a larger value.
    ///
    /// A small value that is new takes one hold. Each further hold has a reason: a value was there and turned out to be
    /// damaged, a large one is committed, or the cache moved meanwhile. [`TRIES`](open::TRIES) holds are the most, so
    /// that no put goes on for ever beside compactions.
    pub(crate) fn put(
        &self,
        entry: &Entry<'_>,
        scope: &ScopeRecord<'_>,
        condition: PutCondition,
        deadline: &Deadline,
    ) -> Result<Option<StoreLookup>> {
        entry.check_size(self.location.access)?;
        // Encoded, above all checksummed, before the lock; the seed outlives compaction.
        let mut progress = PutProgress::default();
        progress.draft(entry, self.begin(&entry.identity)?);
        for _ in 0..open::TRIES {
            let writer = self.lock_until(deadline)?;
            let effort = Effort::Full;
            if let Hold::Done(found) = writer.put(entry, scope, condition, effort, &mut progress)? {
                return Ok(found);
            }
        }
        Err(Error::Unstable { path: self.location.path.clone() })
    }

    /// As [`put`](Store::put), into the file that is open, and without waiting: [`Error::Locked`] if others
    /// have the lock. The next attempt goes on from where this one came to, with more effort if that is needed.
    pub(crate) fn try_put(
        &self,
        entry: &Entry<'_>,
        scope: &ScopeRecord<'_>,
        condition: PutCondition,
        effort: Effort,
        progress: &mut PutProgress,
    ) -> Result<Result<Option<StoreLookup>, Unmet>> {
        entry.check_size(self.location.access)?;
        let Some(open_file) = self.known() else { return Ok(Err(Unmet::Elsewhere(None))) };
        open_file.prefetch_slot(&entry.identity);
        progress.draft(entry, open_file.superblock.seed);
        // Not held on to: whoever follows the cache elsewhere lets go of this file.
        drop(open_file);
        for _ in 0..open::TRIES {
            let writer = match self.try_lock(effort)? {
                Ok(writer) => writer,
                Err(unmet) => return Ok(Err(unmet)),
            };
            match writer.put(entry, scope, condition, effort, progress)? {
                Hold::Done(found) => return Ok(Ok(found)),
                Hold::Again => {}
                Hold::Long => return Ok(Err(Unmet::Long)),
            }
        }
        Err(Error::Unstable { path: self.location.path.clone() })
    }

    /// The seed of the file that is the cache now, which is not held on to: who follows another lets go of
    /// it. The slot of `identity` comes from memory while the lock is taken.
    fn begin(&self, identity: &Identity) -> Result<u64> {
        let open_file = self.open_file()?;
        open_file.prefetch_slot(identity);
        Ok(open_file.superblock.seed)
    }

    /// What was there or was stored, for whoever wanted to store.
    fn found(&self, open_file: &Arc<OpenFile>, lookup: Lookup) -> StoreLookup {
        let (pin, token) = (self.pin_of(open_file), Store::token(open_file));
        StoreLookup {
            open_file: Arc::clone(open_file),
            pin,
            lookup,
            saved: None,
            is_valid: None,
            token,
        }
    }
}

/// Writes the record of a scope, if the file has none. Looks it up once for each file and clear. `false` if that
/// is too much effort.
///
/// Under the lock, just before a value of the scope is appended: so no value is in the log without the record that says
/// whose it is, but where damage took that. It is a record as others are, and a clear ends it: hence the number of the
/// last clear is a part of where it was seen.
pub(crate) fn announce(
    writer: &Writer<'_>,
    scope: &ScopeRecord<'_>,
    effort: Effort,
) -> Result<bool> {
    let journal = writer.journal();
    let (file_id, _) = journal.superblock.file_id.split_first_chunk().expect("16 bytes");
    let place = u64::from_le_bytes(*file_id) ^ journal.header.get(word::CLEARED)?;
    // Relaxed: who sees an old place looks once more.
    if scope.seen.load(Ordering::Relaxed) == place {
        return Ok(true);
    }
    if journal.locate(&scope.identity).is_none() {
        let seed = journal.superblock.seed;
        let draft = Draft::new(Kind::SCOPE, scope.identity, scope.payload, seed);
        if !writer.try_append(&mut [draft], effort)?.1 {
            return Ok(false);
        }
    }
    scope.seen.store(place, Ordering::Relaxed);
    Ok(true)
}

impl Writer<'_> {
    /// What a put does in one hold of the lock. It ends the hold in any case: the writer goes with it.
    ///
    /// What is found in the way of a conditional put is looked at once the lock is free. Until the next hold that
    /// record may be superseded, by another put that found it damaged, say. So `damaged` names one record by its place,
    /// and excuses no other (`what_came_in_place_of_a_damaged_record_is_kept`).
    #[inline]
    fn put(
        self,
        entry: &Entry<'_>,
        scope: &ScopeRecord<'_>,
        condition: PutCondition,
        effort: Effort,
        progress: &mut PutProgress,
    ) -> Result<Hold> {
        if let Some(place) = progress.published.take().filter(|place| self.is_in(&place.open_file))
        {
            // It is in the index by now: who takes the lock sees to that.
            return Ok(Hold::Done(Some(self.stored(place.offset, entry))));
        }
        progress.damaged = progress.damaged.take().filter(|place| self.is_in(&place.open_file));
        match self.decide(entry, condition, progress.damaged.as_ref().map(|place| place.offset))? {
            Verdict::Store => {}
            Verdict::Refuse => return Ok(Hold::Done(None)),
            Verdict::Keep(offset) => {
                let (store, open_file) = (self.store, Arc::clone(self.open_file()));
                drop(self);
                // It stays what it was under the lock, whatever supersedes it.
                match open_file.value_at(offset, effort) {
                    Lookup::Absent => progress.damaged = Some(Place { open_file, offset }),
                    Lookup::Long => return Ok(Hold::Long),
                    lookup => return Ok(Hold::Done(Some(store.found(&open_file, lookup)))),
                }
                return Ok(Hold::Again);
            }
        }
        // Of a file that was compacted meanwhile, which leaves such space behind, there is another now.
        if let Some(place) = progress.reserved.take().filter(|place| self.is_in(&place.open_file)) {
            self.commit(place.offset)?;
            return Ok(Hold::Done(Some(self.stored(place.offset, entry))));
        }
        match announce(&self, scope, effort)? {
            true => self.append_entry(entry, effort, progress),
            false => Ok(Hold::Long),
        }
    }

    /// Appends an entry; of a large one, what says that its place is taken, and then its bytes.
    ///
    /// The bytes of a large one are written without the lock, by a system call and not through the map: a map's store
    /// is for what lies behind the tail, and the pad lies below it by now. If that write fails, on a device that fails,
    /// the pad stays; an attempt after it reserves another one.
    #[inline]
    fn append_entry(
        self,
        entry: &Entry<'_>,
        effort: Effort,
        progress: &mut PutProgress,
    ) -> Result<Hold> {
        let (journal, open_file) = (self.journal(), Arc::clone(self.open_file()));
        let mut draft = progress.draft(entry, journal.superblock.seed);
        if !entry.is_large() {
            let (offsets, is_applied) =
                self.try_append(std::slice::from_mut(&mut draft), effort)?;
            if is_applied {
                return Ok(Hold::Done(Some(self.stored(offsets[0], entry))));
            }
            progress.published = Some(Place { open_file, offset: offsets[0] });
            return Ok(Hold::Long);
        }
        let offset = journal.reserve(&mut draft.head)?;
        drop(self);
        let file = open_file.file();
        let payload = offset + record::HEAD_SIZE;
        file.write(payload, entry.payload).map_err(Error::io("write", file.path()))?;
        progress.reserved = Some(Place { open_file, offset });
        Ok(Hold::Again)
    }

    /// What becomes of an entry that is to be stored under `condition`, if the record at `damaged` is known not to be
    /// whole. No payload is looked at. The table above this module's code says the same.
    fn decide(
        &self,
        entry: &Entry<'_>,
        condition: PutCondition,
        damaged: Option<u64>,
    ) -> Result<Verdict> {
        let (token, expiry) = match condition {
            PutCondition::Replace => return Ok(Verdict::Store),
            PutCondition::IfAbsent(token, expiry) => (token, Some(expiry)),
            PutCondition::Mend(token) | PutCondition::Refresh(token) => (token, None),
        };
        let journal = self.journal();
        if journal.superblock.cache_id != token.cache_id
            || journal.header.get(word::BARRIER)? > token.seq
        {
            return Ok(Verdict::Refuse);
        }
        let Some((offset, newest)) = journal.locate(&entry.identity) else {
            return Ok(Verdict::Store);
        };
        if let Some(expiry) = expiry
            && damaged != Some(offset)
            && self.has_value_at(offset, expiry)
        {
            return Ok(Verdict::Keep(offset));
        }
        if let (PutCondition::Refresh(_), Kind::VALUE) = (condition, newest.kind) {
            return Ok(Verdict::Store);
        }
        // Removed since; or stored since and expired, and what it replaced may have been a removal.
        Ok(if newest.seq > token.seq { Verdict::Refuse } else { Verdict::Store })
    }

    /// Whether `open_file` is the file that is locked.
    fn is_in(&self, open_file: &Arc<OpenFile>) -> bool {
        self.open_file().is_same_file(open_file)
    }

    /// Whether the record at `offset`, whose head has been verified, is a value that counts by `expiry`.
    pub(crate) fn has_value_at(&self, offset: u64, expiry: ExpiryRule) -> bool {
        let head = self.open_file().storage().head(offset);
        head.is_some_and(|head| record::is_value(&head) && !expiry.is_expired(&head))
    }

    /// What was just stored, as a look-up would find it. The lock goes back first: where the file is read by
    /// copy, the value is copied.
    ///
    /// The bit that says "verified" is set here and not before the append. A record that was written and not published
    /// may be wiped, and another process may put its own in its place: a bit of before would have this process believe
    /// that one unseen. By now the record lies below the tail, where nothing changes.
    ///
    /// Where the record lies behind every map that is to be had, and memory for a copy is not, the value was stored and
    /// the answer is all the same that nothing is there.
    fn stored(self, offset: u64, entry: &Entry<'_>) -> StoreLookup {
        let (store, open_file) = (self.store, Arc::clone(self.open_file()));
        drop(self);
        let mapped = |open_file: &OpenFile| {
            let map = open_file.map()?;
            let record = map.record(offset)?;
            if entry.is_valid {
                map.mark(&record); // Only now: the record lies below the tail.
            }
            Some(Lookup::Mapped { record, is_fresh: !entry.is_valid })
        };
        if let Some(lookup) = mapped(&open_file) {
            return store.found(&open_file, lookup);
        }
        let open_file = store.grown(open_file);
        let copied = || {
            let head = Box::new([0; record::HEAD_SIZE as usize]);
            heap::copy(entry.payload).map(|copy| Lookup::Copied(head, copy))
        };
        let lookup = mapped(&open_file).or_else(copied).unwrap_or(Lookup::Absent);
        store.found(&open_file, lookup)
    }
}
