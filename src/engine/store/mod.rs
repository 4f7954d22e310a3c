//! The store: bytes in, bytes out, for one cache in this process. It knows identities and records, and no types.
//!
//! ```text
//!   handles      Store  Store  Store         each with its own lock timeout
//!                   \     |     /
//!   process          Shared / State          one for each file, access mode and right to write
//!                        |
//!                     current  ----------->  OpenFile -----> the file at the path, as far as is known
//!                     pins of threads            ^
//!   threads            FilePin ------------------+           what a hit looks in, without a lock
//! ```
//!
//! Any number of threads read without locks. Writers take the write lock, first among the threads of this process,
//! then the file's. Whatever happens to the file at the path, a store follows it: to a compacted one, to one that
//! was put in its place, to a new one after deletion. It learns of that in four ways: a reader meets a STATE that
//! is not LIVE; a miss looks at the path, at most every [`PATH_CHECK_INTERVAL`]; whoever takes the lock looks, too;
//! and where all threads idle, [`watch`](mod@watch) does.
//!
//! The life of one store, as far as files are concerned. Any thread may take the store along any of the arrows:
//!
//! ```text
//!                 open_file_until                    a larger map: grown
//!   no open file ----------------> an open file ----------------------+
//!        ^                            |     ^                          |
//!        |  leave: current is none,   |     +--------------------------+
//!        |  pins are revoked          |
//!        +----------------------------+   STATE is not LIVE, or the path leads elsewhere
//! ```
//!
//! In between the store has no file, so that nothing but held values keeps the old one's disk space.
//!
//! What is locked, and by whom, from the outside in. None is taken while one further in is held:
//!
//! | lock | guards | held for |
//! | --- | --- | --- |
//! | `STORES` | which stores there are | a look-up in a map |
//! | `write_lock` | writing, among threads | an operation's hold |
//! | the file's | writing, among processes | the same |
//! | `current` | which file is the cache | a clone of an `Arc`; in a look by [`watch`](mod@watch), a `stat` at most |
//! | `pins` | the list of pins | adding one, closing all |
//!
//! Invariants:
//! 1. No code of the user's runs while a lock of this module is held.
//! 2. No lock of this module is held while a file's lock is waited for, but for the write lock.
//! 3. Who leaves a file takes its pins from all threads, so that its space is free once no value in it is held.
//! 4. A forked child shares no [`State`] with its parent.
//!
//! Handles could each have a file of their own, as SQLite's connections have. Then two of one process would not
//! wait for each other's computations, and each would map the file once more.

// In reading order: each stands on those above it; the last eleven are this module's operations.
pub(crate) mod pin;
pub(crate) mod write_lock;
pub(crate) mod stall;
pub(crate) mod flight;
pub(crate) mod watch;
pub(crate) mod election;
pub(crate) mod find;
pub(crate) mod writer;
pub(crate) mod put;
pub(crate) mod write;
pub(crate) mod flush;
pub(crate) mod async_ops;
pub(crate) mod compact;
pub(crate) mod stats;
pub(crate) mod findings;
pub(crate) mod suspects;
pub(crate) mod verify;

#[cfg(test)]
mod tests;

use crate::engine::file::deadline::Deadline;
use crate::engine::file::lookup::Lookup;
use crate::engine::file::open::{Location, Place, TRIES};
use crate::engine::file::open_file::OpenFile;
use crate::engine::file::{open, trust};
use crate::engine::os::directory::make_root;
use crate::engine::os::fork::PerProcess;
use crate::engine::os::map::Record;
use crate::engine::os::place::AccessMode;
use crate::engine::os::{clock, place};
use crate::error::{Error, Result};
use flight::Flights;
use pin::{FilePin, FilePins, Key, PinSlot, Totals, lock, pin_of, release_pin};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use watch::{Watched, watch};
use write_lock::WriteLock;

/// How often the path is looked at while nothing in the file says that it moved, in milliseconds.
const PATH_CHECK_INTERVAL: u64 = 100;

/// One cache in this process, as a handle uses it: how long it waits for locks is the handle's own. Everything else is
/// in [`Shared`], so that two handles of one cache have one write lock and find each other's computations.
pub(crate) struct Store {
    pub(crate) location: Location,
    /// As in `shared`, without a way there: each hit asks for it.
    pin_slot: PinSlot,
    shared: Arc<Shared>,
}

/// One cache in this process, shared by all handles that reach its file alike. It goes with the last of them, and takes
/// the pins of all threads along.
struct Shared {
    key: Key,
    state: PerProcess<Arc<State>>,
    totals: Totals,
    /// Whether its directory is a root of this crate's, to be made where it is missing.
    is_in_root: AtomicBool,
}

/// What a forked child does not share with its parent.
///
/// A child would inherit a mutex that a thread held which does not exist there, and a file's lock that does not exclude
/// its parent. So it has a state of its own, without an open file: its first look opens one.
#[derive(Default)]
struct State {
    /// The file that is the cache, as far as is known. A hit does not come here: it goes by its thread's pin.
    current: Mutex<Option<Arc<OpenFile>>>,
    /// Of the open file that was left last.
    left: Mutex<Option<Token>>,
    /// What threads have of the current open file alone: who leaves it takes them away.
    pins: FilePins,
    is_watched: AtomicBool,
    write_lock: WriteLock,
    flights: Flights,
    /// When the path was last looked at, in milliseconds since 1970.
    looked: AtomicU64,
}

/// When a computation began: whether its result may still be stored.
///
/// A removal takes its number before anything of it can be seen, and a clear does, too. So there are two cases. A token
/// below the number: the computation began before, may have seen what the removal is about, and its result is refused.
/// A token with the number or a higher one: the computation began when the removal was under way or had ended, and so
/// after whatever its caller had changed before it. Time would not do in the place of numbers: clocks are set back.
///
/// Making one costs a load of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) cache_id: [u8; 16],
    pub(crate) seq: u64,
}

/// A value in place that this process has verified, with what keeps it alive.
pub(crate) struct Hit {
    pub(crate) pin: Arc<FilePin>,
    pub(crate) record: Record,
}

/// What a look-up found, and the file it looked in.
pub(crate) struct StoreLookup {
    pub(crate) open_file: Arc<OpenFile>,
    /// The pin of the thread that looked.
    pub(crate) pin: Arc<FilePin>,
    pub(crate) lookup: Lookup,
    /// The nanoseconds that a hit saves, for that thread to count. `None` if it is no look-up's, but what
    /// was there or was stored when a result was to be.
    pub(crate) saved: Option<u64>,
    /// What checking it as a type has come to, if that was done ahead of whoever admits it.
    pub(crate) is_valid: Option<bool>,
    /// When the look began.
    pub(crate) token: Token,
}

/// Why one who waits for nothing has nothing yet.
pub(crate) enum Unmet {
    /// It is elsewhere: another file must be opened first, in place of this one, if one is open.
    Elsewhere(Option<Arc<OpenFile>>),
    /// It takes longer than a task's thread may be kept.
    Long,
}

impl StoreLookup {
    /// Whether it is nothing.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self.lookup, Lookup::Absent | Lookup::Moved)
    }
}

/// The stores of this process.
type Stores = Mutex<BTreeMap<Place, Weak<Shared>>>;
static STORES: PerProcess<Stores> = PerProcess::first(Mutex::new(BTreeMap::new()));

fn stores() -> &'static Stores {
    STORES.get(Mutex::default)
}

impl Store {
    /// The store at a location: the one that other handles use, if there is one.
    ///
    /// Stores are told apart by the location's path, the way of access and the right to write. Two paths to one file
    /// make two stores, which exclude each other by the file's lock as two processes do.
    pub(crate) fn open(location: Location) -> Result<Arc<Store>> {
        let deadline = Deadline::after(location.lock_timeout);
        Store::open_until(location, &deadline)
    }

    /// As [`open`](Store::open), with a deadline of its own for the lock of who verifies the file.
    pub(crate) fn open_until(location: Location, deadline: &Deadline) -> Result<Arc<Store>> {
        let place = location.place();
        let shared = lock(stores()).get(&place).and_then(Weak::upgrade);
        // Opened without the map's lock: others may open other caches meanwhile. Two that open the
        // same one may both get here; what one of the two has is kept.
        let is_known = shared.is_some();
        let store = Store::of(location, shared.unwrap_or_default());
        store.open_file_until(deadline)?;
        if is_known {
            return Ok(Arc::new(store));
        }
        let mut stores = lock(stores());
        // Here, since this is the one place where the map becomes longer.
        stores.retain(|_, shared| shared.strong_count() > 0);
        if let Some(other) = stores.get(&place).and_then(Weak::upgrade) {
            drop(stores); // What is dropped now lets go of a file.
            return Ok(Arc::new(Store::of(store.location, other)));
        }
        stores.insert(place, Arc::downgrade(&store.shared));
        Ok(Arc::new(store))
    }

    /// The slot for pins stands beside the shared part, so that a hit does not go there.
    fn of(location: Location, shared: Arc<Shared>) -> Store {
        Store { location, pin_slot: shared.key.pin_slot(), shared }
    }

    /// A child's is a fresh one, made when it is first asked for.
    fn state(&self) -> &Arc<State> {
        self.shared.state.get(Arc::default)
    }

    /// What this process counted on it.
    pub(crate) fn totals(&self) -> &Totals {
        &self.shared.totals
    }

    /// Says that the directory is a root: removed, it is made anew as the file is.
    pub(crate) fn keep_root(&self) {
        self.shared.is_in_root.store(true, Ordering::Relaxed); // Relaxed: it says nothing about other memory.
    }

    /// The file that is the cache now, as far as is known.
    pub(crate) fn open_file(&self) -> Result<Arc<OpenFile>> {
        match self.known() {
            Some(open_file) => Ok(open_file),
            None => self.open_file_until(&self.deadline()),
        }
    }

    /// The open file, or the one at the path, opened: created, trusted or recovered, as the case is. That may take
    /// long: a recovery waits for the file's lock, to the deadline, and may walk over the log.
    ///
    /// Two threads that come here at once may both open the file; the first one's is kept. The thread that watches is
    /// started with the first file.
    fn open_file_until(&self, deadline: &Deadline) -> Result<Arc<OpenFile>> {
        if let Some(open_file) = self.known() {
            return Ok(open_file);
        }
        // Relaxed: see `keep_root`.
        if self.shared.is_in_root.load(Ordering::Relaxed) && !self.location.is_read_only {
            make_root(
                place::parent(&self.location.path),
                self.location.access == AccessMode::Checked,
            )?;
        }
        // Opened without the lock: it may wait for the file's lock, whose holder may wait here.
        let open_file = open::open(&self.location, deadline)?;
        let state = self.state();
        let open_file = Arc::clone(lock(&state.current).get_or_insert(open_file));
        // Relaxed: one of those who come here has it watched.
        if !state.is_watched.swap(true, Ordering::Relaxed) {
            let watched: Weak<State> = Arc::downgrade(state);
            watch(watched);
        }
        Ok(open_file)
    }

    /// As [`open_file`](Store::open_file), if it is open.
    #[inline]
    pub(crate) fn known(&self) -> Option<Arc<OpenFile>> {
        lock(&self.state().current).clone()
    }

    /// The file that is the cache now, by what the one known last says. It may move in the next moment: whoever goes on
    /// with it only reads. The path is asked in the midst of a move alone, and the lock never.
    pub(crate) fn current(&self) -> Result<Arc<OpenFile>> {
        for _ in 0..TRIES {
            let open_file = self.open_file()?;
            if !open_file.has_moved() {
                return Ok(open_file);
            }
            self.follow(open_file)?;
        }
        Err(Error::Unstable { path: self.location.path.clone() })
    }

    /// The same file, in a larger map if it has outgrown this one and there is one to be had.
    #[inline]
    pub(crate) fn grown(&self, open_file: Arc<OpenFile>) -> Arc<OpenFile> {
        if open_file.is_outgrown() { self.grow(open_file) } else { open_file }
    }

    /// Only what behind the old map was read by copy becomes faster; nothing is wrong without it. Pins of the smaller
    /// map are taken away, so that it is unmapped when no value in it is held.
    ///
    /// Several threads may map at once; the first one's map becomes the current one. One that comes too late uses that,
    /// if it is of the same file; and its own, for this once, if the store has left the file meanwhile.
    #[cold]
    fn grow(&self, open_file: Arc<OpenFile>) -> Arc<OpenFile> {
        let Some(larger) = open_file.grown().map(Arc::new) else { return open_file };
        {
            let mut current = lock(&self.state().current);
            match &mut *current {
                Some(known) if Arc::ptr_eq(known, &open_file) => *known = Arc::clone(&larger),
                // Another thread was first.
                Some(known) if known.is_same_file(&open_file) => return Arc::clone(known),
                _ => return larger,
            }
        }
        // The smaller map lives as long as anyone holds a value in it, and no thread keeps it for later.
        self.state().pins.revoke();
        release_pin(self.pin_slot);
        larger
    }

    /// Leaves `old`, if nobody did yet, for the file that is at the path now.
    pub(crate) fn follow(&self, old: Arc<OpenFile>) -> Result<()> {
        self.follow_until(old, &self.deadline())
    }

    /// The old file is let go of before the new one is opened: on a full disk its space may be what the new one
    /// needs (`a_put_needs_no_space_beside_that_of_a_file_that_is_gone`). So the caller gives it away.
    fn follow_until(&self, old: Arc<OpenFile>, deadline: &Deadline) -> Result<()> {
        self.leave(&old);
        drop(old);
        self.open_file_until(deadline).map(drop)
    }

    /// Opens the file that is elsewhere, once; [`Error::Locked`] if that would have to wait for a lock.
    pub(crate) fn try_follow(&self, old: Option<Arc<OpenFile>>) -> Result<()> {
        let at_once = Deadline::after(Duration::ZERO);
        match old {
            Some(old) => self.follow_until(old, &at_once),
            None => self.open_file_until(&at_once).map(drop),
        }
    }

    /// Lets go of `old`, if nobody did yet, for all threads of this process: on a full disk its space may be
    /// what the next file needs.
    pub(crate) fn leave(&self, old: &Arc<OpenFile>) {
        if self.state().leave_if(|current| current.is_same_file(old)) {
            // What a parent's thread had that this one was before a fork.
            release_pin(self.pin_slot);
        }
    }

    /// This thread's pin of an open file: the one that it has, or a new one, which it keeps if the file is the current
    /// one. Of a file that the store has left, the pin goes with the value that is found.
    pub(crate) fn pin_of(&self, open_file: &Arc<OpenFile>) -> Arc<FilePin> {
        let state = self.state();
        let enter = |pin| {
            let current = lock(&state.current);
            let is_current =
                current.as_ref().is_some_and(|current| Arc::ptr_eq(current, open_file));
            // Before the lock is given back: whoever leaves the open file then finds the pin.
            if is_current {
                state.pins.add(pin);
            }
            is_current
        };
        pin_of(self.pin_slot, open_file, self.totals(), enter)
    }

    /// Whether a file in which something is missing is still the one to look in: it is at the path, which is
    /// looked at now and then.
    fn is_current(&self, open_file: &OpenFile) -> Result<bool> {
        if !self.is_path_check_due() {
            return Ok(true);
        }
        // An index of this process's own is given up once a writer has mended the file's.
        Ok(open_file.is_at_path() && !(open_file.is_private() && trust::is_trusted(open_file)?))
    }

    /// Milliseconds since 1970, by the coarse clock. A miss pays a system call for it ten times a second at most.
    fn is_path_check_due(&self) -> bool {
        let now = clock::now().as_millis() as u64;
        let looked = &self.state().looked;
        // Relaxed: two threads that look at once do no harm. A clock set back is a reason to look.
        let is_due = now.abs_diff(looked.load(Ordering::Relaxed)) >= PATH_CHECK_INTERVAL;
        if is_due {
            looked.store(now, Ordering::Relaxed);
        }
        is_due
    }

    /// When a computation that begins now began, as far as can be told without opening a file: numbers only
    /// rise when a cache moves to another file, and another cache is told by its id.
    pub(crate) fn known_token(&self) -> Option<Token> {
        if let Some(open_file) = self.known() {
            return Some(Store::token(&open_file));
        }
        let left = *lock(&self.state().left);
        left.or_else(|| Store::glance(&self.location)) // A forked child has left none.
    }

    /// When a computation that begins now began, by what the header of the file at a location says: no recovery
    /// gives out a number again that a header has which verifies.
    pub(crate) fn glance(location: &Location) -> Option<Token> {
        let open_file = open::glance(location).ok()??;
        Some(Store::token(&open_file))
    }

    /// When a computation that begins now began.
    pub(crate) fn token(open_file: &OpenFile) -> Token {
        Token { cache_id: open_file.superblock.cache_id, seq: open_file.seq() }
    }

    /// When a wait for the lock that begins now ends.
    pub(crate) fn deadline(&self) -> Deadline {
        Deadline::after(self.location.lock_timeout)
    }
}

impl State {
    /// Lets go of the current open file if `is_over` says so, and takes it from all threads: its mapping and
    /// its disk space go when nobody holds a value in it.
    ///
    /// `current` is emptied before the pins are revoked. A thread that asks for a pin in between finds that its file is
    /// not the current one, and keeps none; one that was entered before is in the list and is revoked. `left` remembers
    /// how far the file had come, for whoever asks when its computation began while no file is open.
    fn leave_if(&self, is_over: impl FnOnce(&Arc<OpenFile>) -> bool) -> bool {
        let former = lock(&self.current).take_if(|current| is_over(current));
        if let Some(open_file) = &former {
            *lock(&self.left) = Some(Store::token(open_file));
            self.pins.revoke();
        }
        former.is_some()
    }
}

impl Watched for State {
    fn look(&self) {
        self.leave_if(|current| current.has_moved());
        self.pins.reclaim();
    }
}

impl Default for Shared {
    fn default() -> Shared {
        Shared {
            key: Key::new(),
            state: PerProcess::default(),
            totals: Totals::default(),
            is_in_root: AtomicBool::new(false),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get(Arc::default);
        let current = lock(&state.current).take();
        // Even if another thread has just left it, and is at this: `Key` relies on it.
        state.pins.revoke();
        drop(current);
    }
}
