//! Values to archives: which types can be archived, where to, and whether an archive is one that whoever
//! meets it will admit.

use crate::engine::format::ALIGNMENT;
use crate::engine::os::heap;
use crate::error::{Error, Result};
use rkyv::api::high::{HighDeserializer, HighSerializer, HighValidator, to_bytes_in_with_alloc};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::{BoxedError, Source as _};
use rkyv::ser::allocator::{Arena, ArenaHandle};
use rkyv::ser::{Positional, Writer};
use rkyv::util::AlignedVec;
use rkyv::validation::Validator;
use rkyv::validation::archive::ArchiveValidator;
use rkyv::validation::shared::SharedValidator;
use rkyv::{Archive, Deserialize, Portable, RelPtr, Serialize};
use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::ops::Range;

/// A type whose values can be cached: any that derives rkyv's three traits and owns what it holds.
///
/// It is implemented for every such type; there is nothing to implement by hand. At most 1024 pointers (boxes,
/// vectors, shared pointers, ..) of a value may lie one within another. A value that is nested deeper is not stored:
/// see [`Error::Invalid`](crate::Error::Invalid).
///
/// # Cost
/// A value is archived when it is stored, and its archive is checked the first time that a process meets it. Both take
/// time in proportion to its size. A hit does neither.
///
/// # Examples
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

/// Pointers that may lie one within another in an archive: a nested archive must not overflow the
/// stack of who checks it.
const DEPTH_MAX: usize = 1024;

/// What rkyv's validator is told for it, which counts the root too, and stops before it has used up all.
const VALIDATOR_DEPTH: NonZeroUsize = NonZeroUsize::new(DEPTH_MAX + 2).expect("not zero");

/// Whether an archive has room for more pointers within each other than may be. Each has bytes of its own.
pub(crate) fn may_be_too_deep(archive: &[u8]) -> bool {
    archive.len() > DEPTH_MAX * size_of::<RelPtr<u8>>()
}

/// The one check of bytes that are to be seen as an archived `V`.
pub(crate) fn check<V: CacheValue>(bytes: &[u8]) -> Result<&V::Archived, BoxedError> {
    let archive = ArchiveValidator::with_max_depth(bytes, Some(VALIDATOR_DEPTH));
    let mut validator = Validator::new(archive, SharedValidator::new());
    rkyv::api::access_with_context::<V::Archived, _, BoxedError>(bytes, &mut validator)
}

/// Checks an archive that this process has made: as whoever meets it in a file will.
pub(crate) fn validate<V: CacheValue>(archive: &[u8]) -> Result<()> {
    let checked = check::<V>(archive).map(drop);
    checked.map_err(|source| Error::Invalid { depth_max: DEPTH_MAX, source })
}

/// Where a value is archived to: a buffer that says so when there is no more memory.
///
/// Nobody else makes one: a value's own code could put it in the place of that which it is given.
#[doc(hidden)]
pub struct Sink(AlignedVec);

impl Positional for Sink {
    fn pos(&self) -> usize {
        self.0.len()
    }
}

impl Writer<BoxedError> for Sink {
    fn write(&mut self, bytes: &[u8]) -> Result<(), BoxedError> {
        if bytes.len() > self.0.capacity() - self.0.len() {
            self.expect_room(bytes.len())?;
        }
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Why there is no archive where one was written.
#[derive(Debug, thiserror::Error)]
#[error("its own `Serialize` implementation took bytes away that it had not written")]
struct BufferTaken;

/// Why a buffer does not grow.
#[derive(Debug, thiserror::Error)]
#[error("there is no memory to archive it beyond {size} bytes; store it in parts")]
struct NoMemory {
    size: usize,
}

impl Sink {
    /// An [`AlignedVec`] aborts where there is no memory to grow: it is asked for beforehand.
    #[cold]
    fn expect_room(&self, more: usize) -> Result<(), BoxedError> {
        let size = self.0.len().checked_add(more).and_then(usize::checked_next_power_of_two);
        let has_room = size.is_some_and(heap::has_room);
        let error = || BoxedError::new(NoMemory { size: self.0.len() });
        has_room.then_some(()).ok_or_else(error)
    }
}

thread_local! {
    /// A buffer that encoding uses again.
    static BUFFER: RefCell<AlignedVec> = RefCell::default();
    /// Memory that rkyv serializes with, used again.
    static ARENA: Cell<Option<Arena>> = const { Cell::new(None) };
}

/// A buffer, or an arena, larger than this is not kept.
const KEPT_MAX: usize = 1 << 20;

/// Archives `value` and calls `work` with the bytes, which are aligned as in a file.
pub(crate) fn encode<V: CacheValue, T>(value: &V, work: impl FnOnce(&[u8]) -> T) -> Result<T> {
    let mut buffer = BUFFER.try_with(RefCell::take).unwrap_or_default();
    buffer.clear();
    append(value, &mut buffer)?;
    let result = work(&buffer);
    if buffer.capacity() <= KEPT_MAX {
        let _ = BUFFER.try_with(|kept| kept.replace(buffer)); // Or the thread is ending.
    }
    Ok(result)
}

/// Archives `value` behind what the buffer holds, which is lost if that fails; returns where. With an arena
/// of this module's own: rkyv's belongs to the thread, and asking for it while the thread ends panics.
pub(crate) fn append<V: CacheValue>(value: &V, buffer: &mut AlignedVec) -> Result<Range<usize>> {
    let (start, sink) = (buffer.len(), Sink(std::mem::take(buffer)));
    // Taken out, so that a value whose serialization archives another has one of its own.
    let mut arena = ARENA.try_with(Cell::take).ok().flatten().unwrap_or_default();
    let archived = to_bytes_in_with_alloc::<_, _, BoxedError>(value, sink, arena.acquire());
    if arena.shrink() <= KEPT_MAX {
        let _ = ARENA.try_with(|kept| kept.set(Some(arena)));
    }
    *buffer = archived.map_err(|source| Error::Convert { source })?.0;
    // The value's own code had the buffer, and may have emptied it.
    if buffer.len() < start + size_of::<V::Archived>() {
        return Err(Error::Convert { source: BoxedError::new(BufferTaken) });
    }
    Ok(start..buffer.len())
}

/// As [`append`], at a place from where the archive may be taken by itself: archives may be moved as long as
/// they stay aligned.
pub(crate) fn encode_behind<V: CacheValue>(
    value: &V,
    buffer: &mut AlignedVec,
) -> Result<Range<usize>> {
    buffer.resize(buffer.len().next_multiple_of(ALIGNMENT as usize), 0);
    append(value, buffer)
}

/// The archive of `value` in a buffer of its own.
pub(crate) fn encode_owned<V: CacheValue>(value: &V) -> Result<AlignedVec> {
    let mut buffer = AlignedVec::new();
    append(value, &mut buffer)?;
    Ok(buffer)
}
