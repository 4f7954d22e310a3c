//! Results: archived by rkyv, checked once per process, then read where they lie. The one place that
//! casts bytes to a type.
//!
//! # Safety
//! [`Cached`] and [`Items`] are made here alone, of bytes that never change while they hold their owner,
//! and that either were checked as archives of `V` just now, or were checked as such before: a record
//! that this process has seen was checked under its scope, in place or before it was stored, and a scope
//! belongs to one type in a process ([`TypeProof`]). What this process wrote itself is no exception: rkyv's
//! `Archive` and `Serialize` are safe traits, so that safe code can archive a slice that is longer than
//! what it has written.
//!
//! A check ahead of who admits what was found ([`StoreLookup::is_valid`]) is of the same bytes, under the same scope.
//!
//! What was checked before it was stored is valid in the file too: its bytes are the same, at an address
//! that is aligned as well, and an archive refers to its parts by their distance.
//!
//! The check is rkyv's validation, and no better. It stands on implementations of the unsafe traits
//! `Portable` (which says: no interior mutability), `CheckBytes` and `Verify`. It also believes safe ones,
//! reported as unsound: `LayoutRaw` (rkyv/rkyv#692), `Niching` (#694), `ArchivePointee` (#696). It sees
//! bytes as a type before they are checked: the tag of an enum that is niched and has a field with
//! `#[rkyv(niche = ..)]` (#698), the metadata of a niched box of a user's own unsized type (#699). And an
//! enum whose discriminants depend on `Self` has tags that differ from those that are checked (#708).
//! (As of rkyv 0.8.18; what it reports of packed archived types, #701, concerns their making.) A type
//! that derives rkyv's traits, without these attributes, discriminants and traits by hand, reaches none of
//! them. The others reach #692, #694, #696 and #708 by their author's doing alone, and just so through
//! rkyv's own `access`; #698 and #699 by bytes that no archiving gives, hence by a forged record alone.
#![expect(unsafe_code, reason = "one of the files that may: see the safety section")]

#[cfg(test)]
mod tests;

use crate::engine::file::lookup::Lookup;
use crate::engine::os::map::Record;
use crate::engine::store::pin::FilePin;
use crate::engine::store::{Hit, StoreLookup};
use crate::error::{Error, Result};
use crate::memo::value::archive::{
    CacheValue, append, check, encode_owned, may_be_too_deep, validate,
};
use crate::memo::value::sequence::{
    CHUNK_SIZE, CHUNK_VALUES, COUNT_SIZE, Parts, count_of, is_plain, root_at,
};
use crate::memo::value::type_proof::{Sequence, TypeProof};
use rkyv::Archive;
use rkyv::rancor::BoxedError;
use rkyv::util::AlignedVec;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

/// A cached result. It dereferences to the result's archived form, in the mapped file itself.
///
/// A `Cached` keeps its bytes alive and unchanged for as long as it is held, whatever happens to the cache: clearing,
/// compaction, deletion, in this process or another. A file that was replaced or deleted keeps its disk space while
/// anyone holds a value in it. A `Cached` is `Send` and `Sync` where the archived type is both.
///
/// # Cost
/// To dereference is to follow a pointer. A clone is one atomic increment. Neither allocates nor copies.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
/// use persist_cache::Cached;
/// let words = cache.memoize(|text: &str| text.split(' ').map(String::from).collect::<Vec<_>>());
/// let cached = words.call("to be or not to be");
/// assert_eq!(cached.len(), 6);                     // an ArchivedVec<ArchivedString>, in place
/// assert_eq!(cached[1].as_str(), "be");
/// let owned: Vec<String> = Cached::into_owned(cached);
/// # assert_eq!(owned.len(), 6);
/// # Ok::<(), persist_cache::Error>(())
/// ```
pub struct Cached<V: Archive> {
    /// The archived value, in what `pin` keeps.
    archived: NonNull<V::Archived>,
    /// What keeps the bytes alive: this thread's pin of the mapped file, or a copy.
    pin: Arc<FilePin>,
}

const _: () = {
    const fn is_for_threads<T: Send + Sync>() {}
    is_for_threads::<FilePin>();
};

// SAFETY: shared ownership of an archived value, as an `Arc` of one is, and under the same bounds. What
// keeps it is for threads too: see above.
unsafe impl<V: Archive<Archived: Send + Sync>> Send for Cached<V> {}
// SAFETY: as above.
unsafe impl<V: Archive<Archived: Send + Sync>> Sync for Cached<V> {}

impl<V: CacheValue> Cached<V> {
    #[inline]
    fn holding(pin: Arc<FilePin>, record: Record) -> Cached<V> {
        const { assert!(align_of::<V::Archived>() <= 16, "records are aligned to 16 bytes") }
        // SAFETY: the bytes are a valid archive of `V`, whose root is at their end: this is called only
        // as the safety section says. They are aligned to 16: a record's payload is by the format, and
        // an `AlignedVec` is.
        let archived = unsafe { rkyv::access_unchecked::<V::Archived>(pin.payload(&record)) };
        Cached { archived: NonNull::from(archived), pin }
    }

    /// What was found in place under a scope that is `V`'s.
    #[inline]
    pub(crate) fn of(hit: Hit, _proof: TypeProof<V>) -> Cached<V> {
        Cached::holding(hit.pin, hit.record)
    }

    /// What a look-up found under a scope that is `V`'s, checked ahead of whoever admits it.
    pub(crate) fn examine(found: StoreLookup, _proof: TypeProof<V>) -> StoreLookup {
        examine(found, |bytes| check::<V>(bytes).is_ok())
    }

    /// What a look-up found under a scope that is `V`'s, if it is one.
    pub(crate) fn admit(found: StoreLookup, _proof: TypeProof<V>) -> Option<Cached<V>> {
        let (pin, record) = admit(found, |bytes| check::<V>(bytes).is_ok())?;
        Some(Cached::holding(pin, record))
    }

    /// A value that is in no file.
    pub(crate) fn from_value(value: &V) -> Result<Cached<V>> {
        let mut archive = encode_owned(value)?;
        archive.shrink_to_fit(); // Before the check, as it may move.
        validate::<V>(&archive)?;
        Ok(Cached::holding(Arc::new(FilePin::Copy(Box::new(archive))), Record::NONE))
    }

    /// Returns the value itself, brought back from its archive.
    ///
    /// # Panics
    /// If the type's own rkyv implementation cannot bring back what it has archived; see
    /// [`try_into_owned`](Cached::try_into_owned).
    ///
    /// # Cost
    /// Copies and allocates what the value is made of. It touches no lock and makes no system call of its own.
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// use persist_cache::Cached;
    /// let words = cache.memoize(|text: &str| text.split(' ').map(String::from).collect::<Vec<_>>());
    /// let owned: Vec<String> = Cached::into_owned(words.call("to be"));
    /// assert_eq!(owned, ["to", "be"]);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    #[must_use]
    pub fn into_owned(this: Cached<V>) -> V {
        match Cached::try_into_owned(this) {
            Ok(value) => value,
            Err(error) => panic!("{error}"),
        }
    }

    /// Returns the value itself, brought back from its archive.
    ///
    /// # Errors
    /// [`Error::Convert`] if rkyv cannot bring it back, as some `#[rkyv(with = ..)]` cannot.
    ///
    /// # Cost
    /// As [`into_owned`](Cached::into_owned).
    ///
    /// # Examples
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
    /// use persist_cache::Cached;
    /// let length = cache.memoize(|text: &str| text.len() as u64);
    /// assert_eq!(Cached::try_into_owned(length.call("four"))?, 4);
    /// # Ok::<(), persist_cache::Error>(())
    /// ```
    pub fn try_into_owned(this: Cached<V>) -> Result<V> {
        bring_back(&*this)
    }
}

#[inline]
fn bring_back<V: CacheValue>(archived: &V::Archived) -> Result<V> {
    rkyv::api::high::deserialize::<V, BoxedError>(archived)
        .map_err(|source| Error::Convert { source })
}

/// What a look-up found, with what a check of its bytes comes to, unless this process has seen them.
fn examine(found: StoreLookup, is_valid: impl Fn(&[u8]) -> bool) -> StoreLookup {
    let is_valid = match &found.lookup {
        Lookup::Mapped { record, is_fresh: true } => {
            found.open_file.map().map(|map| is_valid(map.payload(record)))
        }
        Lookup::Copied(_, bytes) => Some(is_valid(bytes)),
        _ => None,
    };
    StoreLookup { is_valid, ..found }
}

/// The bytes that a look-up found, which are checked unless they were, or this process has seen them. Counts
/// the hit.
fn admit(found: StoreLookup, is_valid: impl Fn(&[u8]) -> bool) -> Option<(Arc<FilePin>, Record)> {
    let StoreLookup { open_file, pin, lookup, saved, is_valid: verdict, .. } = found;
    let is_valid = |bytes: &[u8]| verdict.unwrap_or_else(|| is_valid(bytes));
    let admitted = match lookup {
        Lookup::Mapped { record, is_fresh } => {
            if is_fresh {
                let map = open_file.map()?;
                is_valid(map.payload(&record)).then(|| map.mark(&record))?;
            }
            (Arc::clone(&pin), record)
        }
        Lookup::Copied(_, bytes) if is_valid(&bytes) => {
            (Arc::new(FilePin::Copy(Box::new(bytes))), Record::NONE)
        }
        Lookup::Copied(..) | Lookup::Absent | Lookup::Moved | Lookup::Long => return None,
    };
    saved.inspect(|nanos| pin.count_hit(*nanos));
    Some(admitted)
}

impl<V: Archive> Deref for Cached<V> {
    type Target = V::Archived;

    #[inline]
    fn deref(&self) -> &V::Archived {
        // SAFETY: `holding` had it from bytes that neither move nor change while `pin` is held.
        unsafe { self.archived.as_ref() }
    }
}

impl<V: Archive> Clone for Cached<V> {
    fn clone(&self) -> Cached<V> {
        Cached { archived: self.archived, pin: Arc::clone(&self.pin) }
    }
}

impl<V: Archive<Archived: fmt::Debug>> fmt::Debug for Cached<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// Makes a sequence, chunk by chunk.
pub(crate) struct Chunk<V> {
    archive: AlignedVec,
    roots: Vec<u8>,
    /// Whether each value is checked, and not just those that may be nested too deep.
    needs_check: bool,
    value: PhantomData<fn(V)>,
}

impl<V: CacheValue> Chunk<V> {
    pub(crate) fn new(needs_check: bool) -> Chunk<V> {
        Chunk { archive: AlignedVec::new(), roots: Vec::new(), needs_check, value: PhantomData }
    }

    /// Adds a value, unless it is one for which the sequence would be refused; `true` if the chunk should
    /// be closed now.
    pub(crate) fn push(&mut self, value: &V) -> Result<bool> {
        let place = append(value, &mut self.archive)?;
        let (size, added) = (place.end, &self.archive[place]);
        if self.needs_check || may_be_too_deep(added) {
            validate::<V>(added)?;
        }
        let root = u32::try_from(size - size_of::<V::Archived>()).map_err(|_| Error::TooLarge {
            what: "an item",
            size: size as u64,
            limit: u32::MAX.into(),
        })?;
        self.roots.extend_from_slice(&root.to_le_bytes());
        Ok(size >= CHUNK_SIZE || self.roots.len() >= 4 * CHUNK_VALUES)
    }

    /// Closes the chunk: gives its bytes, part by part, and has none afterwards.
    pub(crate) fn close(&mut self, mut give: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (archive, roots) = (&mut self.archive, &mut self.roots);
        let (size, count) = (archive.len(), roots.len() / 4);
        if count > 0 {
            give(&[(size as u64).to_le_bytes(), (count as u64).to_le_bytes()].concat())?;
            archive.resize(size.next_multiple_of(16), 0);
            give(archive)?;
            if !is_plain::<V>(size, count) {
                roots.resize(roots.len().next_multiple_of(16), 0);
                give(roots)?;
            }
        }
        archive.clear();
        roots.clear();
        Ok(())
    }

    /// What stands behind the last chunk.
    pub(crate) fn end(count: u64) -> [u8; COUNT_SIZE] {
        u128::from(count).to_le_bytes()
    }
}

/// Checks a sequence that nobody in this process has seen yet.
fn is_sequence<V: CacheValue>(bytes: &[u8]) -> bool {
    let size = size_of::<V::Archived>();
    let (mut at, mut values) = (0, 0);
    while let Some(parts) = Parts::at::<V>(bytes, at) {
        let archive = parts.archive;
        let is_valid = |value: &[u8]| check::<V>(value).is_ok();
        // A value may refer to what lies between the root before its own and its own: so no byte is
        // checked twice, whatever the places say.
        let mut start = 0;
        let mut is_rooted = |root: &[u8; 4]| {
            let Some(end) = root_at(root).checked_add(size) else { return false };
            let value = archive.get(std::mem::replace(&mut start, end)..end);
            value.is_some_and(is_valid)
        };
        let are_valid = match parts.roots {
            Some(roots) => roots.iter().all(&mut is_rooted),
            None if size == 0 => parts.count == 0 || is_valid(&[]),
            None => (0..parts.count).all(|n| is_valid(&archive[n * size..(n + 1) * size])),
        };
        if !are_valid {
            return false;
        }
        at = parts.next;
        values += parts.count as u64;
    }
    at + COUNT_SIZE == bytes.len() && values == count_of(bytes)
}

/// The values of a sequence, brought back one by one as they are asked for.
///
/// Its iterators hold pointers, not references: into what `pin` keeps, for as long as it does.
pub(crate) struct Items<V: CacheValue> {
    /// The sequence.
    bytes: std::slice::Iter<'static, u8>,
    /// What is left of the chunk being read, if it has nothing but values...
    plain: std::slice::Iter<'static, V::Archived>,
    /// ...and otherwise its archive, and the places of those values.
    archive: std::slice::Iter<'static, u8>,
    roots: std::slice::Iter<'static, [u8; 4]>,
    /// Where the next chunk is, and how many values are in it and behind.
    next: usize,
    behind: u64,
    /// What keeps the bytes.
    _pin: Arc<FilePin>,
}

impl<V: CacheValue> Items<V> {
    fn holding(pin: Arc<FilePin>, record: Record) -> Items<V> {
        const { assert!(align_of::<V::Archived>() <= 16, "records are aligned to 16 bytes") }
        let payload = pin.payload(&record);
        // SAFETY: the same bytes. They neither move nor change while `pin` is held, which is longer
        // than anything is read from here.
        let bytes: &'static [u8] =
            unsafe { std::slice::from_raw_parts(payload.as_ptr(), payload.len()) };
        let (archive, behind) = ([].iter(), count_of(bytes));
        let (plain, roots, bytes) = ([].iter(), [].iter(), bytes.iter());
        Items { bytes, plain, archive, roots, next: 0, behind, _pin: pin }
    }

    /// What was found in place under a scope that belongs to sequences of `V`.
    pub(crate) fn of(hit: Hit, _proof: TypeProof<Sequence<V>>) -> Items<V> {
        Items::holding(hit.pin, hit.record)
    }

    /// What a look-up found under a scope that belongs to sequences of `V`, checked ahead of whoever admits it.
    pub(crate) fn examine(found: StoreLookup, _proof: TypeProof<Sequence<V>>) -> StoreLookup {
        examine(found, is_sequence::<V>)
    }

    /// What a look-up found under a scope that belongs to sequences of `V`, if it is one.
    pub(crate) fn admit(found: StoreLookup, _proof: TypeProof<Sequence<V>>) -> Option<Items<V>> {
        let (pin, record) = admit(found, is_sequence::<V>)?;
        Some(Items::holding(pin, record))
    }

    /// How many there are yet.
    pub(crate) fn left(&self) -> u64 {
        self.behind + (self.plain.len() + self.roots.len()) as u64
    }

    /// The next value.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Result<V>> {
        loop {
            let archived = match self.plain.next() {
                Some(archived) => archived,
                None => match self.roots.next() {
                    Some(root) => self.rooted(root),
                    None => {
                        self.open_chunk()?;
                        continue;
                    }
                },
            };
            return Some(bring_back(archived));
        }
    }

    /// All values that are left, as [`Iterator::fold`] takes them: chunk by chunk, in tight loops.
    pub(crate) fn fold<T>(mut self, start: T, mut work: impl FnMut(T, Result<V>) -> T) -> T {
        let mut result = start;
        loop {
            for archived in std::mem::take(&mut self.plain) {
                result = work(result, bring_back(archived));
            }
            for root in std::mem::take(&mut self.roots) {
                result = work(result, bring_back(self.rooted(root)));
            }
            if self.open_chunk().is_none() {
                return result;
            }
        }
    }

    fn rooted(&self, root: &[u8; 4]) -> &V::Archived {
        // SAFETY: the bytes are a checked sequence of `V`: `holding` is called only as the safety
        // section says. So its roots are the places of valid archives of `V` in their chunk, which is
        // aligned to 16, as the payload is.
        unsafe { rkyv::api::access_pos_unchecked(self.archive.as_slice(), root_at(root)) }
    }

    /// Goes on to the next chunk; `None` if there is none.
    #[cold]
    fn open_chunk(&mut self) -> Option<()> {
        let parts = Parts::at::<V>(self.bytes.as_slice(), self.next)?;
        self.next = parts.next;
        self.behind -= parts.count as u64;
        self.archive = parts.archive.iter();
        match parts.roots {
            Some(roots) => self.roots = roots.iter(),
            None => {
                let start = parts.archive.as_ptr().cast::<V::Archived>();
                // SAFETY: as for `rooted`: the archive of such a chunk is so many valid values side by
                // side, and nothing else.
                self.plain = unsafe { std::slice::from_raw_parts(start, parts.count) }.iter();
            }
        }
        Some(())
    }
}
