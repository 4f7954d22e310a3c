//! Results: archived by rkyv, checked once per process, then read where they lie. The one place that
//! casts bytes to a type.
//!
//! # Safety
//! [`Cached`] is made here alone, of bytes that never change while it holds its owner, and that either
//! were checked as `V::Archived` just now, or were checked as such before: a record that this process
//! has seen was checked, or written, under its scope, and a scope belongs to one type in a process
//! ([`Claim`]).
#![expect(unsafe_code, reason = "one of the three files that may: see the safety section")]

use crate::error::{Error, Result};
use crate::store::region::Sight;
use crate::store::share::Share;
use crate::store::{Found, Hit};
use crate::sys::map::Record;
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{BoxedError, Source as _};
use rkyv::ser::allocator::ArenaHandle;
use rkyv::ser::{Positional, Writer};
use rkyv::util::AlignedVec;
use rkyv::validation::Validator;
use rkyv::validation::archive::ArchiveValidator;
use rkyv::validation::shared::SharedValidator;
use rkyv::{Archive, Deserialize, Portable, Serialize};
use std::any::TypeId;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// A result that can be cached: whatever derives rkyv's three traits, and owns what it holds.
///
/// ```
/// use persist_cache::rkyv::{Archive, Deserialize, Serialize};
///
/// #[derive(Archive, Serialize, Deserialize)]
/// #[rkyv(crate = persist_cache::rkyv)]
/// struct Report { words: u64, longest: String }
///
/// fn takes(_: impl persist_cache::CacheValue) {}
/// takes(Report { words: 6, longest: "question".into() });
/// ```
///
/// Implemented for every such type; there is nothing to implement by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cached",
    label = "not a `CacheValue`",
    note = "derive `rkyv::Archive`, `rkyv::Serialize` and `rkyv::Deserialize` on it",
    note = "results own what they hold: `String` instead of `&str`",
    note = "for types of other crates see rkyv's features and `#[rkyv(with = ..)]`"
)]
pub trait CacheValue:
    Sized
    + 'static
    + Archive<
        Archived: Portable
                      + for<'a> CheckBytes<HighValidator<'a, BoxedError>>
                      + Deserialize<Self, HighDeserializer<BoxedError>>,
    >
    + for<'a> Serialize<HighSerializer<Sink, ArenaHandle<'a>, BoxedError>>
{
}

impl<T> CacheValue for T where
    T: 'static
        + Archive<
            Archived: Portable
                          + for<'a> CheckBytes<HighValidator<'a, BoxedError>>
                          + Deserialize<T, HighDeserializer<BoxedError>>,
        >
        + for<'a> Serialize<HighSerializer<Sink, ArenaHandle<'a>, BoxedError>>
{
}

/// The proof that a scope belongs to `V` in this process.
pub(crate) struct Claim<V>(PhantomData<fn() -> V>);

impl<V> Clone for Claim<V> {
    fn clone(&self) -> Claim<V> {
        *self
    }
}
impl<V> Copy for Claim<V> {}

impl<V: CacheValue> Claim<V> {
    /// Claims a scope, by its hash, for `V`. `None` if this process uses one with the same first 8
    /// bytes, which are what a short key's record has of it, for another type: a collision of hashes.
    pub(crate) fn of(scope: &[u8; 32]) -> Option<Claim<V>> {
        static TYPES: LazyLock<Mutex<HashMap<[u8; 8], TypeId>>> = LazyLock::new(Mutex::default);
        let prefix = scope[..8].try_into().expect("sized");
        let mut types = TYPES.lock().unwrap_or_else(PoisonError::into_inner);
        let owner = *types.entry(prefix).or_insert_with(TypeId::of::<V::Archived>);
        (owner == TypeId::of::<V::Archived>()).then_some(Claim(PhantomData))
    }
}

/// Pointers that may lie one within another in an archive: a nested archive must not overflow the
/// stack of who checks it.
const DEPTH_MAX: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// Where a value is archived to: a buffer that says so when there is no more memory.
#[doc(hidden)]
#[derive(Default)]
pub struct Sink(Vec<u8>);

impl Positional for Sink {
    fn pos(&self) -> usize {
        self.0.len()
    }
}

impl Writer<BoxedError> for Sink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), BoxedError> {
        if self.0.try_reserve(bytes.len()).is_err() {
            return Err(BoxedError::new(Error::OutOfMemory { size: self.0.len() as u64 }));
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

thread_local! {
    /// A buffer that encoding uses again.
    static SINK: RefCell<Sink> = RefCell::default();
}

/// A buffer larger than this is not kept.
const SINK_KEPT_MAX: usize = 1 << 20;

/// Archives `value` and calls `work` with the bytes.
pub(crate) fn encode<V: CacheValue, T>(value: &V, work: impl FnOnce(&[u8]) -> T) -> Result<T> {
    let mut sink = SINK.try_with(RefCell::take).unwrap_or_default();
    sink.0.clear();
    let sink = append(value, sink)?;
    let result = work(&sink.0);
    if sink.0.capacity() <= SINK_KEPT_MAX {
        let _ = SINK.try_with(|kept| kept.replace(sink)); // Or the thread is ending.
    }
    Ok(result)
}

fn append<V: CacheValue>(value: &V, sink: Sink) -> Result<Sink> {
    rkyv::api::high::to_bytes_in::<_, BoxedError>(value, sink)
        .map_err(|source| Error::Convert { source })
}

/// The archive of `value` in a buffer of its own.
pub(crate) fn encode_owned<V: CacheValue>(value: &V) -> Result<Vec<u8>> {
    append(value, Sink::default()).map(|sink| sink.0)
}

/// A cached result: dereferences to its archived form, in the file itself.
///
/// It keeps its bytes alive and unchanged for as long as it is held, whatever happens to the cache:
/// clearing, compaction, deletion, in this process or another. Cloning it is cheap. It is `Send` and
/// `Sync` where the archived type is both.
///
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
    /// What keeps the bytes alive: this thread's share of the mapped file, or a copy.
    share: Arc<Share>,
    /// Where in the file they are.
    record: Record,
    /// Shared ownership of an archived value, as far as `Send` and `Sync` go.
    value: PhantomData<Arc<V::Archived>>,
}

impl<V: CacheValue> Cached<V> {
    #[inline]
    fn holding(share: Arc<Share>, record: Record) -> Cached<V> {
        const { assert!(align_of::<V::Archived>() <= 16, "records are aligned to 16 bytes") }
        Cached { share, record, value: PhantomData }
    }

    fn copied(bytes: AlignedVec) -> Cached<V> {
        Cached::holding(Arc::new(Share::Copy(bytes)), Record::NONE)
    }

    /// What was found in place under a scope that is claimed for `V`.
    #[inline]
    pub(crate) fn of(hit: Hit, _claim: Claim<V>) -> Cached<V> {
        Cached::holding(hit.share, hit.record)
    }

    /// What a look-up found under a scope that is claimed for `V`, if it is one.
    pub(crate) fn admit(found: Found, _claim: Claim<V>) -> Option<Cached<V>> {
        match found.sight {
            Sight::Mapped { record, is_fresh } => {
                if is_fresh {
                    let map = found.region.map()?;
                    check::<V>(map.payload(&record)).ok()?;
                    map.mark(&record);
                }
                Some(Cached::holding(found.share, record))
            }
            Sight::Copied(_, bytes) => {
                check::<V>(&bytes).ok()?;
                Some(Cached::copied(bytes))
            }
            Sight::Absent | Sight::Moved => None,
        }
    }

    /// A value that is in no file.
    pub(crate) fn from_value(value: &V) -> Result<Cached<V>> {
        encode(value, |bytes| {
            let mut copy = AlignedVec::with_capacity(bytes.len());
            copy.extend_from_slice(bytes);
            Cached::copied(copy)
        })
    }

    /// The value itself: its archive, brought back.
    ///
    /// # Panics
    /// If the type's own rkyv implementation cannot bring back what it has archived; see
    /// [`try_into_owned`](Cached::try_into_owned).
    #[must_use]
    pub fn into_owned(this: Cached<V>) -> V {
        match Cached::try_into_owned(this) {
            Ok(value) => value,
            Err(error) => panic!("{error}"),
        }
    }

    /// The value itself, or why rkyv cannot bring it back, as some `#[rkyv(with = ..)]` cannot.
    pub fn try_into_owned(this: Cached<V>) -> Result<V> {
        rkyv::api::high::deserialize::<V, BoxedError>(&*this)
            .map_err(|source| Error::Convert { source })
    }
}

/// Checks bytes that nobody in this process has seen yet.
fn check<V: CacheValue>(bytes: &[u8]) -> Result<&V::Archived, BoxedError> {
    let archive = ArchiveValidator::with_max_depth(bytes, Some(DEPTH_MAX));
    let mut validator = Validator::new(archive, SharedValidator::new());
    rkyv::api::access_with_context::<V::Archived, _, BoxedError>(bytes, &mut validator)
}

impl<V: Archive<Archived: Portable>> Deref for Cached<V> {
    type Target = V::Archived;

    #[inline]
    fn deref(&self) -> &V::Archived {
        // SAFETY: the bytes are a valid archive of `V`, whose root is at their end: `holding` is
        // called only as the safety section says. They are aligned to 16: a record's payload is by
        // the format, and an `AlignedVec` is.
        unsafe { rkyv::access_unchecked::<V::Archived>(self.share.payload(&self.record)) }
    }
}

impl<V: Archive> Clone for Cached<V> {
    fn clone(&self) -> Cached<V> {
        Cached { share: Arc::clone(&self.share), record: self.record, value: PhantomData }
    }
}

impl<V: Archive<Archived: Portable + fmt::Debug>> fmt::Debug for Cached<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_belongs_to_one_type() {
        let mut scope = *b"a scope that two types have alike";
        let (scope, _) = scope.split_first_chunk_mut::<32>().unwrap();
        assert!(Claim::<u64>::of(scope).is_some() && Claim::<u64>::of(scope).is_some());
        assert!(
            Claim::<String>::of(scope).is_none(),
            "or unchecked bytes would be seen as another"
        );
        scope[31] ^= 1;
        assert!(Claim::<String>::of(scope).is_none(), "short keys have no more than 8 bytes of it");
        scope[0] ^= 1;
        assert!(Claim::<String>::of(scope).is_some());
    }

    #[test]
    fn a_nested_archive_overflows_no_stack() {
        #[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
        #[rkyv(serialize_bounds(__S: Writer))]
        #[rkyv(deserialize_bounds(__D::Error: rkyv::rancor::Source))]
        #[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)))]
        struct Nested(#[rkyv(omit_bounds)] Option<Box<Nested>>);

        let nest = |depth| (0..depth).fold(Nested(None), |inner, _| Nested(Some(Box::new(inner))));
        let encoded = |depth| {
            let mut bytes = AlignedVec::<16>::new();
            encode(&nest(depth), |archive| bytes.extend_from_slice(archive)).unwrap();
            bytes
        };
        assert!(check::<Nested>(&encoded(1000)).is_ok());
        assert!(check::<Nested>(&encoded(1100)).is_err(), "deeper than anyone may ask to check");
    }
}
