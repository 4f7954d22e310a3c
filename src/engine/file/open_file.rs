//! One file of a cache, opened and verified, and the search in it.
//!
//! Any number of threads look up without a lock, in this order: state, index, slot, record. Each load is an
//! acquire, and pairs with the release store of the writer who put there what it leads to. The mapping lives as
//! long as anyone holds the open file, whatever became of the file's name.
//!
//! A file is reached in one of three ways: by a map that is read and written; by a map that is only read, where a
//! store could be a signal; by system calls alone, where even a load could. A file may outgrow its map at any
//! moment: what lies behind the map is read by copy until a larger map is to be had.

use super::expiry::ExpiryRule;
use crate::engine::format::header::{Superblock, state, word};
use crate::engine::format::record::Identity;
use crate::engine::format::slot::{Slot, Table, Tag};
use crate::engine::format::units::Cost;
use crate::engine::format::{FILE_LIMIT, WORD_MASK, record};
use crate::engine::index::{self, FrozenTable};
use crate::engine::log::journal::Journal;
use crate::engine::os::file::{CacheFile, PAGE_MAX, Storage};
use crate::engine::os::map::{Map, MappedFile, Record};
use crate::engine::os::place::AccessMode;
use crate::engine::os::{Words, clock, place};
use crate::error::{Error, Result};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The least room that a map has for what its file grows by. Most have as much as the file is long.
const ROOM_MIN: u64 = 1 << 20;
/// How long no larger map is asked for after one was refused, in milliseconds.
const REFUSAL_PAUSE: u64 = 100;

/// For how many look-ups the machine fetches memory at a time. With half as many, each took a sixth longer.
pub(crate) const PREFETCH_MAX: usize = 32;

/// How the bytes are reached.
pub(crate) enum Backing {
    /// In place, but for what lies behind the map.
    Mapped(MappedFile),
    /// By copy, verified each time.
    Copied(Arc<CacheFile>),
}

/// A file and what never changes of it.
pub(crate) struct OpenFile {
    pub(crate) backing: Backing,
    pub(crate) superblock: Superblock,
    private: Option<Private>,
    /// Whether it may be mapped, and further than it is.
    is_mappable: bool,
    /// When a larger map was last refused, in milliseconds since 1970: address space is scarce.
    refused: AtomicU64,
}

/// The index as this process found it, where it may not be brought up to date in the file.
pub(crate) struct Private {
    pub(crate) index: FrozenTable,
    /// Where the records end.
    pub(crate) end: u64,
}

impl OpenFile {
    pub(crate) fn new(
        backing: Backing,
        superblock: Superblock,
        private: Option<Private>,
    ) -> OpenFile {
        OpenFile { backing, superblock, private, is_mappable: false, refused: AtomicU64::new(0) }
    }

    /// Maps a file, or prepares to copy from it: as is asked for, or where address space is scarce.
    pub(crate) fn attach(
        file: CacheFile,
        superblock: Superblock,
        access: AccessMode,
    ) -> Result<OpenFile> {
        let file = Arc::new(file);
        if access == AccessMode::Copied {
            return Ok(OpenFile::new(Backing::Copied(file), superblock, None));
        }
        let map = largest(&file, 0, |size| Map::new(&file, size));
        let map = map.map_err(Error::io("map", file.path()))?;
        let is_refused = map.is_none();
        let backing = map.map_or(Backing::Copied(file), |map| Backing::Mapped(MappedFile { map }));
        let open_file = OpenFile { is_mappable: true, ..OpenFile::new(backing, superblock, None) };
        if is_refused {
            open_file.note_refusal();
        }
        Ok(open_file)
    }

    /// The same file in a larger map; `None` if there is none to be had, which is noted.
    pub(crate) fn grown(&self) -> Option<OpenFile> {
        let map = match &self.backing {
            Backing::Mapped(MappedFile { map }) => {
                largest(map.file(), map.len(), |size| map.resized(size))
            }
            Backing::Copied(file) => largest(file, 0, |size| Map::new(file, size)),
        };
        let Ok(Some(map)) = map else {
            self.note_refusal();
            return None;
        };
        let open_file = OpenFile::new(Backing::Mapped(MappedFile { map }), self.superblock, None);
        Some(OpenFile { is_mappable: true, ..open_file })
    }

    fn note_refusal(&self) {
        // Relaxed, here and in `is_outgrown`: a time, and nothing that happened before it.
        self.refused.store(clock::now().as_millis() as u64, Ordering::Relaxed);
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        match &self.backing {
            Backing::Mapped(mapped) => mapped,
            Backing::Copied(file) => &**file,
        }
    }
    pub(crate) fn file(&self) -> &CacheFile {
        self.shared_file()
    }
    fn shared_file(&self) -> &Arc<CacheFile> {
        match &self.backing {
            Backing::Mapped(mapped) => mapped.map.file(),
            Backing::Copied(file) => file,
        }
    }
    /// Whether both are one file, opened once, in whatever maps.
    pub(crate) fn is_same_file(&self, other: &OpenFile) -> bool {
        Arc::ptr_eq(self.shared_file(), other.shared_file())
    }
    /// What the holder of the lock may do.
    pub(crate) fn journal(&self) -> Journal<'_> {
        Journal::new(self.storage(), &self.superblock)
    }
    /// The map, if it is mapped.
    pub(crate) fn map(&self) -> Option<&Map> {
        match &self.backing {
            Backing::Mapped(mapped) => Some(&mapped.map),
            Backing::Copied(_) => None,
        }
    }

    /// The value of `identity`, if it lies in place and this process has verified it before, and what
    /// computing it took: the path of nearly every hit. `None` says nothing; [`find`](OpenFile::find) does.
    #[inline(always)]
    pub(crate) fn find_seen(
        &self,
        identity: &Identity,
        expiry: ExpiryRule,
    ) -> Option<(Record, Cost)> {
        self.find_seen_by(Tag::of(identity.hash(self.superblock.seed)), identity, expiry)
    }

    #[inline(always)]
    fn find_seen_by(
        &self,
        tag: Tag,
        identity: &Identity,
        expiry: ExpiryRule,
    ) -> Option<(Record, Cost)> {
        let (map, table) = self.live_index()?;
        let record = index::find(map, table, tag, |offset| {
            let record = map.seen(offset)?;
            record::belongs_to(map.head(&record), identity).then_some(record)
        })?;
        let head = map.head(&record);
        let counts = record::is_value(head) && !expiry.is_expired(head);
        counts.then(|| (record, record::cost(head)))
    }

    /// As [`find_seen`](OpenFile::find_seen), for each of the first [`PREFETCH_MAX`] identities. The machine
    /// fetches the slots of all, then the records that they lead to: each is most likely a cache miss, and
    /// none depends on another one.
    pub(crate) fn find_seen_many(
        &self,
        identities: &[Identity],
        expiry: ExpiryRule,
        mut give: impl FnMut(Option<(Record, Cost)>),
    ) {
        let mut tags = [Tag::default(); PREFETCH_MAX];
        for (tag, identity) in tags.iter_mut().zip(identities) {
            *tag = Tag::of(identity.hash(self.superblock.seed));
        }
        let tags = &tags[..identities.len().min(PREFETCH_MAX)];
        if let Some((map, table)) = self.live_index() {
            tags.iter().for_each(|tag| map.prefetch(index::first_place(table, *tag)));
            // A slot is known by its tag alone, which nearly always suffices.
            let records = tags.iter().filter_map(|tag| index::find(map, table, *tag, Some));
            records.for_each(|offset| map.prefetch_record(offset));
        }
        for (tag, identity) in tags.iter().zip(identities) {
            give(self.find_seen_by(*tag, identity, expiry));
        }
    }

    /// The map and the index in it, if what counts is found by that.
    #[inline(always)]
    fn live_index(&self) -> Option<(&Map, Table)> {
        let Backing::Mapped(MappedFile { map }) = &self.backing else { return None };
        if map.load(word::STATE) != state::LIVE || self.private.is_some() {
            return None;
        }
        // Acquire, in `load`; pairs with the store that switches tables.
        Some((map, Table(map.load(word::INDEX))))
    }

    /// Has the machine fetch the slot of an identity, most likely a cache miss, without waiting for it.
    pub(crate) fn prefetch_slot(&self, identity: &Identity) {
        if let Some((map, table)) = self.live_index() {
            let tag = Tag::of(identity.hash(self.superblock.seed));
            map.prefetch(index::first_place(table, tag));
        }
    }

    /// The search through the index as it is now. A miss looks whether the index moved meanwhile.
    pub(crate) fn search<W: Words, T>(
        &self,
        words: &W,
        identity: &Identity,
        examine: impl Fn(u64) -> Option<T>,
    ) -> Result<Option<T>, Moved> {
        let tag = Tag::of(identity.hash(self.superblock.seed));
        if let Some(private) = &self.private {
            return Ok(index::find(&private.index, private.index.table(), tag, &examine));
        }
        search(words, tag, || self.is_at_path(), examine)
    }

    /// Whether the cache is not in this file any more. While it is being moved, the path decides.
    pub(crate) fn has_moved(&self) -> bool {
        match self.is_private() {
            // Of a file whose provenance does not hold the state says nothing.
            true => !self.is_at_path(),
            false => has_moved(self.storage(), || self.is_at_path()),
        }
    }

    /// Whether the file at the path is this one. A system call.
    pub(crate) fn is_at_path(&self) -> bool {
        place::is_at(self.file(), self.file().path()).unwrap_or(true)
    }

    /// Whether a larger map should be asked for: the file's space goes on behind the one it has, and none
    /// has just been refused.
    #[inline]
    pub(crate) fn is_outgrown(&self) -> bool {
        let is_behind = match &self.backing {
            Backing::Mapped(MappedFile { map }) => {
                map.load(word::ALLOCATED) & WORD_MASK > map.len()
            }
            Backing::Copied(_) => true,
        };
        is_behind && self.is_mappable && !self.is_private() && self.may_ask()
    }

    /// Whether the last refusal of a larger map is some time ago.
    #[cold]
    fn may_ask(&self) -> bool {
        let refused = self.refused.load(Ordering::Relaxed);
        (clock::now().as_millis() as u64).abs_diff(refused) >= REFUSAL_PAUSE
    }

    /// Whether this process keeps an index of its own for it.
    pub(crate) fn is_private(&self) -> bool {
        self.private.is_some()
    }

    /// Where the records end that are in such an index.
    pub(crate) fn private_end(&self) -> Option<u64> {
        self.private.as_ref().map(|private| private.end)
    }

    /// The sequence number of the newest record.
    pub(crate) fn seq(&self) -> u64 {
        self.storage().load(word::SEQ) & WORD_MASK
    }

    /// The slots of the index that name a record, of those that are wanted, and no more than `max`: what was in
    /// the index when this began is among them, or what came in its place since. All walks over the index begin
    /// here. Needs no lock.
    pub(crate) fn slots(&self, is_wanted: impl Fn(Slot) -> bool, max: usize) -> Vec<Slot> {
        loop {
            let (words, table) = self.index();
            let wanted = index::slots(words, table).filter(|slot| is_wanted(*slot));
            let mut slots: Vec<Slot> = wanted.take(max).collect();
            slots.shrink_to_fit(); // Its room has been doubled as it filled.
            // A table is given back only after it was left, and none is taken up again: this one was the
            // index to the end, and no piece of it was read as zeros. It is left when it has grown to twice
            // the size, or when all is cleared: there is an end to going on in the next one.
            if self.index().1 == table {
                return slots;
            }
        }
    }

    /// The table that is the index now, with the words it lies in.
    pub(crate) fn index(&self) -> (&dyn Words, Table) {
        match (&self.private, &self.backing) {
            (Some(private), _) => (&private.index, private.index.table()),
            (None, Backing::Mapped(mapped)) => (mapped, Table(mapped.load(word::INDEX))),
            (None, Backing::Copied(file)) => (&**file, Table(file.load(word::INDEX))),
        }
    }
}

/// What `map` makes of the best size for a file's map above `least` that is not refused: with room, without,
/// or of the front alone. `None` if there is not enough address space for any.
fn largest(
    file: &CacheFile,
    least: u64,
    map: impl Fn(u64) -> io::Result<Map>,
) -> io::Result<Option<Map>> {
    let size = file.size()?.min(FILE_LIMIT);
    let wanted = [size.max(ROOM_MIN).saturating_add(size), size, ROOM_MIN];
    let sizes = wanted.map(|size| size.min(FILE_LIMIT).next_multiple_of(PAGE_MAX));
    for size in sizes.into_iter().filter(|size| *size > least) {
        match map(size) {
            // Not enough address space, or not enough memory that may be locked.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock
                ) => {}
            result => return result.map(Some),
        }
    }
    Ok(None)
}

/// The cache is in another file.
pub(crate) struct Moved;

/// Whether the cache is not in this file any more. While it is being moved, the path decides.
fn has_moved(words: &(impl Words + ?Sized), is_at_path: impl Fn() -> bool) -> bool {
    match words.load(word::STATE) {
        state::LIVE => false,
        state::MOVING => !is_at_path(),
        _ => true,
    }
}

/// What `examine` makes of the record that a tag leads to: the search that every reader goes through, and
/// that needs no lock. State, index, slots, each loaded afresh; a miss looks whether the index moved
/// meanwhile.
pub(crate) fn search<W: Words, T>(
    words: &W,
    tag: Tag,
    is_at_path: impl Fn() -> bool,
    examine: impl Fn(u64) -> Option<T>,
) -> Result<Option<T>, Moved> {
    if has_moved(words, is_at_path) {
        return Err(Moved);
    }
    // Acquire, in `load`; pairs with the store that switches tables.
    let mut table = Table(words.load(word::INDEX));
    loop {
        if let Some(found) = index::find(words, table, tag, &examine) {
            return Ok(Some(found));
        }
        let current = Table(words.load(word::INDEX));
        if current == table {
            return Ok(None);
        }
        table = current;
    }
}
