//! The look-up of what is no hot hit: a value that this process has not verified yet, of which head and payload are
//! checked now; a copy of a value, where the file is read by copy or the value lies behind the map; or nothing.
//!
//! A record that has been verified is noted in a bit of this process's own, one for each 16 bytes of the map, so that
//! each is verified once. The bit is not in the file: another process must not believe what this one has checked.

use super::effort::Effort;
use super::expiry::ExpiryRule;
use super::open_file::{Backing, Moved, OpenFile};
use crate::engine::format::header::word;
use crate::engine::format::record::{HEAD_SIZE, Head, HeadBytes, Identity};
use crate::engine::format::{WORD_MASK, record};
use crate::engine::log::walk::{WINDOW_SIZE, Window};
use crate::engine::os::file::{CacheFile, Storage};
use crate::engine::os::map::{Map, MappedFile, Record};
use crate::engine::os::{Words as _, heap};
use rkyv::util::AlignedVec;

/// The largest payload that is read by copy. A larger one is a miss, and is not stored by who reads so.
pub(crate) const RECORD_COPY_MAX: u64 = 1 << 30;

/// What a look-up found.
pub(crate) enum Lookup {
    /// A value, in place. If it is fresh, this process has yet to check it as a type.
    Mapped { record: Record, is_fresh: bool },
    /// A value, copied.
    Copied(Box<HeadBytes>, AlignedVec),
    /// Nothing that counts.
    Absent,
    /// The cache is not in this file any more.
    Moved,
    /// A value that was not looked at, for that would be too much effort.
    Long,
}

impl OpenFile {
    /// What `identity` has, as `expiry` judges it.
    #[cold]
    pub(crate) fn find(&self, identity: &Identity, expiry: ExpiryRule, effort: Effort) -> Lookup {
        let find_copied = |file| self.find_copied(file, identity, expiry, effort);
        match &self.backing {
            Backing::Mapped(MappedFile { map }) => {
                match self.find_mapped(map, identity, expiry, effort) {
                    // It may be there all the same, behind the map.
                    Lookup::Absent if map.load(word::TAIL) & WORD_MASK > map.len() => {
                        find_copied(map.file())
                    }
                    lookup => lookup,
                }
            }
            Backing::Copied(file) => find_copied(file),
        }
    }

    /// A record that this process has seen is believed by its bit. Of another one the head is verified here, and the
    /// payload in [`lookup_of`](OpenFile::lookup_of). A head that does not verify is none, and the search goes on.
    fn find_mapped(
        &self,
        map: &Map,
        identity: &Identity,
        expiry: ExpiryRule,
        effort: Effort,
    ) -> Lookup {
        let examine = |offset| {
            let (record, is_fresh) = match map.seen(offset) {
                Some(record) => (record, false),
                None => (self.admit(map, offset)?, true),
            };
            record::belongs_to(map.head(&record), identity).then_some((record, is_fresh))
        };
        let (record, is_fresh) = match self.search(map, identity, examine) {
            Ok(Some(found)) => found,
            Ok(None) => return Lookup::Absent,
            Err(Moved) => return Lookup::Moved,
        };
        let head = map.head(&record);
        if !record::is_value(head) || expiry.is_expired(head) {
            return Lookup::Absent;
        }
        self.lookup_of(map, record, is_fresh, effort)
    }

    /// A value in place. All of it is checked, here and now, unless this process has done so before.
    fn lookup_of(&self, map: &Map, record: Record, is_fresh: bool, effort: Effort) -> Lookup {
        let (head, payload) = (map.head(&record), map.payload(&record));
        if is_fresh && !effort.allows(payload.len() as u64) {
            return Lookup::Long;
        }
        match !is_fresh || self.is_whole(head, record.offset(), payload) {
            true => Lookup::Mapped { record, is_fresh },
            false => Lookup::Absent,
        }
    }

    /// The value at `offset`, to which a search led whoever had the lock.
    pub(crate) fn value_at(&self, offset: u64, effort: Effort) -> Lookup {
        let seen = |map: &Map| map.seen(offset).map(|record| (record, false));
        let met = |map| self.admit(map, offset).map(|record| (record, true));
        if let Some(map) = self.map()
            && let Some((record, is_fresh)) = seen(map).or_else(|| met(map))
        {
            return match record::is_value(map.head(&record)) {
                true => self.lookup_of(map, record, is_fresh, effort),
                false => Lookup::Absent,
            };
        }
        // The record is copied: the whole file is read by copy, or the record lies behind the map.
        let file = self.file();
        match Storage::head(file, offset).filter(record::is_value) {
            Some(head) => self.copied_lookup(file, offset, head, effort),
            None => Lookup::Absent,
        }
    }

    /// A value, copied, if it is whole.
    fn copied_lookup(&self, file: &CacheFile, at: u64, head: HeadBytes, effort: Effort) -> Lookup {
        if !effort.allows(record::len(&head)) {
            return Lookup::Long;
        }
        let copy = self.copy(file, at, &head);
        copy.map_or(Lookup::Absent, |payload| Lookup::Copied(Box::new(head), payload))
    }

    /// A record that this process meets for the first time, if its head verifies.
    fn admit(&self, map: &Map, offset: u64) -> Option<Record> {
        let record = map.record(offset)?;
        Head::decode(map.head(&record), offset, self.superblock.seed).map(|_| record)
    }

    fn is_whole(&self, head: &HeadBytes, offset: u64, payload: &[u8]) -> bool {
        let head = Head::decode(head, offset, self.superblock.seed);
        head.is_some_and(|head| head.check_of(payload, self.superblock.seed) == head.payload_check)
    }

    /// Head and payload are read by copy and verified each time: somebody may change the file who is not to be
    /// trusted.
    fn find_copied(
        &self,
        file: &CacheFile,
        identity: &Identity,
        expiry: ExpiryRule,
        effort: Effort,
    ) -> Lookup {
        let examine = |offset| {
            let bytes = Storage::head(file, offset)?;
            Head::decode(&bytes, offset, self.superblock.seed)?;
            record::belongs_to(&bytes, identity).then_some((offset, bytes))
        };
        match self.search(file, identity, examine) {
            Ok(Some((offset, head))) if record::is_value(&head) && !expiry.is_expired(&head) => {
                self.copied_lookup(file, offset, head, effort)
            }
            Ok(_) => Lookup::Absent,
            Err(Moved) => Lookup::Moved,
        }
    }

    /// A copy of a payload that lies below tail and end of file and has its checksum. A stranger may have
    /// made a sparse file of any size, and may change it meanwhile: so memory is taken for what has its
    /// checksum alone, and what was read is checked once more.
    fn copy(&self, file: &CacheFile, offset: u64, head: &HeadBytes) -> Option<AlignedVec> {
        let len = record::len(head);
        let end = (offset + HEAD_SIZE).checked_add(len)?;
        let tail = file.load(word::TAIL) & WORD_MASK;
        let limit = self.private_end().unwrap_or(tail).min(file.size().ok()?);
        if end > limit || len > RECORD_COPY_MAX {
            return None;
        }
        if len > WINDOW_SIZE {
            let head = Head::decode(head, offset, self.superblock.seed)?;
            let is_whole = Window::new(file, end).is_whole(offset, &head, self.superblock.seed);
            is_whole.ok()?.then_some(())?;
        }
        let mut payload = heap::zeros(usize::try_from(len).ok()?)?;
        file.read(offset + HEAD_SIZE, &mut payload).ok()?;
        self.is_whole(head, offset, &payload).then_some(payload)
    }
}
