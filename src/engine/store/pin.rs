//! Pins: what keeps an open file, and so its map, alive while a thread may use it. Each thread has, for each store,
//! a [`FilePin`] of the store's open file, and counters of its own. A hit clones the thread's own pin, and a value
//! that a user holds keeps that clone. So a hit writes to no memory that another thread writes to, unless another
//! thread drops the value. One reference count for all threads was rejected: each hit on one thread would take the
//! count's cache line from all others.
//!
//! Whoever leaves a superseded file takes the pins of it from all threads: else a thread that idles would keep the
//! file's disk space. [`biased`](crate::engine::os::biased) says how. Where the system has no barrier for that (Linux
//! before 4.14), a thread gives up its pin when it next uses the store, or ends.
//!
//! Who holds what. The file is unmapped when the last arrow to it has gone:
//!
//! ```text
//!   thread's list PINS        store's list FilePins
//!     [slot 3] Owner --------> Biased <-------- Arc
//!                                |   revoke: closes it; reclaim: takes what it leads to
//!                                v
//!                             FilePin <-------- Cached<V> of the user's, any number
//!                               |   |
//!                               |   +---------> Counts <----- Totals, which sums them up
//!                               v
//!                            OpenFile <-------- State::current
//! ```
//!
//! 1. A thread keeps at most one pin of each store. It is in the store's list before it is kept.
//! 2. A thread writes to its own pin's count and its own counters alone, on each hit. Another thread writes there only
//!    when it drops a value that was given to it, or takes the pin.
//! 3. A pin that was revoked is never given out again; values that hold it keep the file all the same.
//! 4. A slot is used again by another store only after all pins of the former one were revoked. So a thread never
//!    finds another store's file in it.
//!
//! Epochs, which lock-free maps have for this, were tried beside a shared count: 6.5 ns for each hit, where a clone of
//! the thread's own `Arc` and its drop took 3.5.

use crate::engine::file::open_file::OpenFile;
use crate::engine::os::biased::{Biased, Owner, reclaim};
use crate::engine::os::fork::PerProcess;
use crate::engine::os::map::Record;
use rkyv::util::AlignedVec;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Keeps the bytes of values alive.
pub(crate) enum FilePin {
    /// A file, mapped or copied from, and where the thread whose pin it is counts its hits.
    OpenFile(Arc<OpenFile>, Arc<Counts>),
    /// A copy, in a box: so each hit tells by one instruction that it is none.
    Copy(Box<AlignedVec>),
}

impl FilePin {
    /// The file, if it is one.
    #[inline]
    pub(crate) fn open_file(&self) -> Option<&Arc<OpenFile>> {
        match self {
            FilePin::OpenFile(open_file, _) => Some(open_file),
            FilePin::Copy(_) => None,
        }
    }

    /// Counts a hit that saved `nanos`. For the thread whose pin it is: of two threads that count in one place by load
    /// and store, one would take back what the other added.
    #[inline]
    pub(crate) fn count_hit(&self, nanos: u64) {
        if let FilePin::OpenFile(_, counts) = self {
            counts.count_hit(nanos);
        }
    }

    /// The payload of a record in a mapped file; of a copy, the copy. The record is one that was found through this
    /// pin: in another file it would be other bytes.
    #[inline]
    pub(crate) fn payload(&self, record: &Record) -> &[u8] {
        match self {
            FilePin::OpenFile(open_file, _) => {
                open_file.map().map_or(&[], |map| map.payload(record))
            }
            FilePin::Copy(bytes) => bytes,
        }
    }
}

/// What one thread counted on one file of a store. The thread adds by load and store: nobody else does.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    hits: AtomicU64,
    saved: AtomicU64,
}

impl Counts {
    #[inline]
    fn count_hit(&self, nanos: u64) {
        // Relaxed, here and in `Totals::hits`: each is a number of its own.
        self.hits.store(self.hits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let saved = self.saved.load(Ordering::Relaxed).saturating_add(nanos);
        self.saved.store(saved, Ordering::Relaxed);
    }
}

/// What this process counted on one store. A forked child begins at zero.
///
/// Misses and errors are counted in one place for all threads, since each comes with a computation or with system
/// calls. Hits are counted by each thread for itself.
#[derive(Default)]
pub(crate) struct Totals {
    own: PerProcess<Tally>,
}

#[derive(Default)]
struct Tally {
    misses: AtomicU64,
    store_errors: AtomicU64,
    hits: Mutex<Hits>,
}

/// The counters of threads, and the sums of those on which nobody can count any more.
#[derive(Default)]
struct Hits {
    threads: Vec<Arc<Counts>>,
    ended: u64,
    ended_saved: u64,
}

impl Totals {
    fn own(&self) -> &Tally {
        self.own.get(Tally::default)
    }

    pub(crate) fn count_miss(&self) {
        self.own().misses.fetch_add(1, Ordering::Relaxed); // Relaxed, as all counts.
    }

    pub(crate) fn count_store_error(&self) {
        self.own().store_errors.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn misses(&self) -> u64 {
        self.own().misses.load(Ordering::Relaxed)
    }

    pub(crate) fn store_errors(&self) -> u64 {
        self.own().store_errors.load(Ordering::Relaxed)
    }

    /// Hits, and the nanoseconds they saved. The list is locked, so that no thread's counters are on their way from it
    /// to the sums meanwhile; threads go on counting.
    pub(crate) fn hits(&self) -> (u64, u64) {
        let hits = lock(&self.own().hits);
        let (mut sum, mut sum_saved) = (hits.ended, hits.ended_saved);
        for Counts { hits, saved } in hits.threads.iter().map(|counts| &**counts) {
            sum = sum.saturating_add(hits.load(Ordering::Relaxed));
            sum_saved = sum_saved.saturating_add(saved.load(Ordering::Relaxed));
        }
        (sum, sum_saved)
    }

    /// Counters for a thread.
    ///
    /// Whose pin and values are gone counts no more: those counters are added to the sums, and dropped. So a program
    /// that starts a thread for each request keeps no counters for them.
    fn new_counts(&self) -> Arc<Counts> {
        let mut hits = lock(&self.own().hits);
        let Hits { threads, ended, ended_saved } = &mut *hits;
        threads.retain_mut(|counts| {
            // A glance first: `get_mut` writes to the line that the thread counts in.
            if Arc::strong_count(counts) > 1 {
                return true;
            }
            let Some(Counts { hits, saved }) = Arc::get_mut(counts) else { return true };
            *ended = ended.saturating_add(*hits.get_mut());
            *ended_saved = ended_saved.saturating_add(*saved.get_mut());
            false
        });
        let counts = Arc::default();
        threads.push(Arc::clone(&counts));
        counts
    }
}

/// Locks a mutex; what it guards is whole even if a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pins that threads of this process have of one store, for who takes them away.
#[derive(Default)]
pub(crate) struct FilePins(Mutex<Vec<Arc<Biased<FilePin>>>>);

impl FilePins {
    /// Enters a pin that a thread is about to keep. Called with the store's `current` locked: see
    /// [`Store::pin_of`](super::Store::pin_of).
    pub(crate) fn add(&self, pin: Arc<Biased<FilePin>>) {
        let mut pins = lock(&self.0);
        if pins.len() == pins.capacity() {
            pins.retain(|pin| !pin.is_taken()); // Those of threads that have ended.
        }
        pins.push(pin);
    }

    /// Takes all of them away. Those that are in use just now stay, to be reclaimed later.
    ///
    /// The caller has made another file the current one, or none, before: a thread that looks from now on gets a pin
    /// of that.
    pub(crate) fn revoke(&self) {
        // All are revoked under the lock: whoever has had it, at whatever another thread is, can rely on it.
        lock(&self.0).iter().for_each(|pin| pin.revoke());
        self.reclaim();
    }

    /// Reclaims those that are revoked. If there are any, that costs a system call which has every thread of the
    /// process pass a barrier, and unmaps what they were the last to hold. Those that their owners use at this moment
    /// stay in the list for the next time: [`watch`](mod@super::watch) comes by twice a second.
    pub(crate) fn reclaim(&self) {
        let is_revoked = |pin: &mut Arc<Biased<FilePin>>| pin.is_closed();
        let mut pins: Vec<_> = lock(&self.0).extract_if(.., is_revoked).collect();
        // Not under the lock: this may wait for a moment, and unmaps files.
        reclaim(&mut pins);
        lock(&self.0).append(&mut pins);
    }
}

/// Owns the pin slot of a store, and gives it back for another store when the store is gone. A pin that still lies
/// in the slot then has been revoked.
pub(crate) struct Key {
    pin_slot: PinSlot,
}

/// Where each thread's list has its pin of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PinSlot(usize);

static NEXT_PIN_SLOT: AtomicUsize = AtomicUsize::new(0);
static FREE_PIN_SLOTS: PerProcess<Mutex<Vec<PinSlot>>> = PerProcess::first(Mutex::new(Vec::new()));

/// Slots of stores that are gone. A child has its own list: its parent's threads do not exist in it.
fn free_pin_slots() -> MutexGuard<'static, Vec<PinSlot>> {
    lock(FREE_PIN_SLOTS.get(Mutex::default))
}

impl Key {
    /// A slot that a former store gave back, or a new one: the lists of threads grow no longer than there are stores at
    /// one time.
    pub(crate) fn new() -> Key {
        let pin_slot = free_pin_slots().pop();
        // Relaxed: nothing but distinct numbers is asked for.
        Key {
            pin_slot: pin_slot
                .unwrap_or_else(|| PinSlot(NEXT_PIN_SLOT.fetch_add(1, Ordering::Relaxed))),
        }
    }

    pub(crate) fn pin_slot(&self) -> PinSlot {
        self.pin_slot
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        release_pin(self.pin_slot);
        free_pin_slots().push(self.pin_slot);
    }
}

thread_local! {
    /// This thread's pins, by the slots of stores. Borrowed for a few instructions, in which no pin is dropped: that
    /// may unmap a file.
    static PINS: RefCell<Vec<Option<Owner<FilePin>>>> = const { RefCell::new(Vec::new()) };
}

/// This thread's pin of a store. `None` if the thread has no pin of it, or is ending.
///
/// This is the first step of each hit: a thread-local access, a bound, and the owner's half of a [`Biased`]: no
/// atomic read-modify-write but the reference count of the pin, which this thread alone writes to.
#[inline(always)]
pub(crate) fn own_pin(PinSlot(pin_slot): PinSlot) -> Option<Arc<FilePin>> {
    let get =
        |pins: &RefCell<Vec<Option<Owner<FilePin>>>>| pins.borrow().get(pin_slot)?.as_ref()?.get();
    PINS.try_with(get).ok()?
}

/// A pin of `open_file` for this thread, which keeps it from now on if `enter` enters it among the pins that are
/// revoked. `enter` refuses when the store has left the file meanwhile.
#[cold]
pub(crate) fn pin_of(
    pin_slot: PinSlot,
    open_file: &Arc<OpenFile>,
    totals: &Totals,
    enter: impl FnOnce(Arc<Biased<FilePin>>) -> bool,
) -> Arc<FilePin> {
    let is_of = |pin: &FilePin| pin.open_file().is_some_and(|own| Arc::ptr_eq(own, open_file));
    if let Some(pin) = own_pin(pin_slot).filter(|pin| is_of(pin)) {
        return pin;
    }
    let pin = Arc::new(FilePin::OpenFile(Arc::clone(open_file), totals.new_counts()));
    let own = Owner::new(Arc::clone(&pin));
    // Entered before it is kept: whoever leaves the file in between finds it in the list, and revokes it.
    if !enter(Arc::clone(own.cell())) {
        return pin;
    }
    let keep = |pins: &RefCell<Vec<Option<Owner<FilePin>>>>| {
        let mut list = pins.borrow_mut();
        if list.len() <= pin_slot.0 {
            list.resize_with(pin_slot.0 + 1, || None);
        }
        list[pin_slot.0].replace(own)
    };
    // What was there before goes when it is not borrowed any more. A thread that is ending keeps none.
    drop(PINS.try_with(keep));
    pin
}

/// Lets go of this thread's pin.
///
/// Dropped outside of the borrow, since dropping the last one unmaps a file.
pub(crate) fn release_pin(PinSlot(pin_slot): PinSlot) {
    let take = |pins: &RefCell<Vec<Option<Owner<FilePin>>>>| {
        pins.borrow_mut().get_mut(pin_slot).and_then(Option::take)
    };
    // What was taken goes when the list is not borrowed any more.
    drop(PINS.try_with(take));
}
