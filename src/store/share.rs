//! What makes a hit free of shared writes: each thread keeps, for each store, a [`Share`] of the
//! store's region and its own counters. A guard holds the thread's share, so that only a guard dropped
//! by another thread ever moves the line of its count. A thread lets go of a superseded file when it
//! next uses the store, or ends; one that idles keeps its disk space until then. (Emptying the cells
//! of other threads would cost each hit a lock of its own: 10 ns of 30, measured.)

use super::region::Region;
use crate::sys::fork::PerProcess;
use crate::sys::map::Record;
use rkyv::util::AlignedVec;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Keeps the bytes of values alive.
pub(crate) enum Share {
    /// A file, mapped or copied from, and where the thread whose share it is counts its hits.
    Region(Arc<Region>, Arc<Counts>),
    /// A copy.
    Copy(AlignedVec),
}

impl Share {
    /// The file, if it is one.
    #[inline]
    pub(crate) fn region(&self) -> Option<&Arc<Region>> {
        match self {
            Share::Region(region, _) => Some(region),
            Share::Copy(_) => None,
        }
    }

    /// Counts a hit that saved `nanos`. For the thread whose share it is.
    #[inline]
    pub(crate) fn count_hit(&self, nanos: u64) {
        if let Share::Region(_, counts) = self {
            counts.count_hit(nanos);
        }
    }

    /// The payload of a record in a mapped file; of a copy, the copy.
    #[inline]
    pub(crate) fn payload(&self, record: &Record) -> &[u8] {
        match self {
            Share::Region(region, _) => region.map().map_or(&[], |map| map.payload(record)),
            Share::Copy(bytes) => bytes,
        }
    }
}

/// What one thread counted on one store. The thread adds by load and store: nobody else does.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    hits: AtomicU64,
    saved: AtomicU64,
}

impl Counts {
    #[inline]
    fn count_hit(&self, nanos: u64) {
        // Relaxed, here and in `Totals::sum`: each is a number of its own.
        self.hits.store(self.hits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let saved = self.saved.load(Ordering::Relaxed).saturating_add(nanos);
        self.saved.store(saved, Ordering::Relaxed);
    }
}

/// What all threads of this process counted on one store.
#[derive(Default)]
pub(crate) struct Totals {
    pub(crate) misses: AtomicU64,
    pub(crate) store_errors: AtomicU64,
    /// Of threads that are gone. Read, and added to, with the list locked: otherwise what an ending
    /// thread counted could be on its way, and in neither place.
    hits: AtomicU64,
    saved: AtomicU64,
    threads: PerProcess<Mutex<Vec<Weak<Counts>>>>,
}

impl Totals {
    /// Hits and nanoseconds saved.
    pub(crate) fn sum(&self) -> (u64, u64) {
        let threads = self.threads();
        let mut sum = (self.hits.load(Ordering::Relaxed), self.saved.load(Ordering::Relaxed));
        for counts in threads.iter().filter_map(Weak::upgrade) {
            sum.0 = sum.0.saturating_add(counts.hits.load(Ordering::Relaxed));
            sum.1 = sum.1.saturating_add(counts.saved.load(Ordering::Relaxed));
        }
        sum
    }

    /// Counters for a thread.
    fn new_counts(&self) -> Arc<Counts> {
        let counts = Arc::default();
        let mut threads = self.threads();
        threads.retain(|counts| counts.strong_count() > 0);
        threads.push(Arc::downgrade(&counts));
        counts
    }

    /// Takes over what a thread counted that counts no more.
    fn take_over(&self, counts: &Counts) {
        let _threads = self.threads();
        self.hits.fetch_add(counts.hits.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        self.saved.fetch_add(counts.saved.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }

    fn threads(&self) -> MutexGuard<'_, Vec<Weak<Counts>>> {
        lock(self.threads.get(Mutex::default))
    }
}

/// Locks a mutex; what it guards is whole even if a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a thread keeps for a store.
pub(crate) struct Cell {
    store: u64,
    share: Arc<Share>,
    counts: Arc<Counts>,
    totals: Arc<Totals>,
}

impl Cell {
    fn new(key: &Key, region: &Arc<Region>, totals: &Arc<Totals>) -> Cell {
        let counts = totals.new_counts();
        let share = Arc::new(Share::Region(Arc::clone(region), Arc::clone(&counts)));
        Cell { store: key.id, share, counts, totals: Arc::clone(totals) }
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.totals.take_over(&self.counts);
    }
}

/// Where a store's cells are found: a place in each thread's list, used again after the store is
/// gone, and an id that is not.
pub(crate) struct Key {
    place: usize,
    id: u64,
}

static NEXT_ID: AtomicU64 = AtomicU64::new(1);
static NEXT_PLACE: AtomicUsize = AtomicUsize::new(0);
static FREE_PLACES: PerProcess<Mutex<Vec<usize>>> = PerProcess::first(Mutex::new(Vec::new()));

fn free_places() -> MutexGuard<'static, Vec<usize>> {
    lock(FREE_PLACES.get(Mutex::default))
}

impl Key {
    pub(crate) fn new() -> Key {
        let place = free_places().pop();
        // Relaxed: nothing but distinct numbers is asked for.
        let place = place.unwrap_or_else(|| NEXT_PLACE.fetch_add(1, Ordering::Relaxed));
        Key { place, id: NEXT_ID.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        // This thread lets go of the file at once, the others when the place is used again.
        release_share(self);
        free_places().push(self.place);
    }
}

thread_local! {
    static CELLS: RefCell<Vec<Option<Cell>>> = const { RefCell::new(Vec::new()) };
}

/// This thread's share of the store with `key`; `None` if it has none yet, or the thread is ending.
#[inline(always)]
pub(crate) fn own_share(key: &Key) -> Option<Arc<Share>> {
    let clone = |cells: &RefCell<Vec<Option<Cell>>>| {
        let cells = cells.borrow();
        let cell = cells.get(key.place)?.as_ref()?;
        (cell.store == key.id).then(|| Arc::clone(&cell.share))
    };
    CELLS.try_with(clone).ok()?
}

/// This thread's share of `region`, which its cell holds from now on; counts a hit, if it was one, that
/// saved so many nanoseconds.
#[cold]
pub(crate) fn share_of(
    key: &Key,
    region: &Arc<Region>,
    totals: &Arc<Totals>,
    saved: Option<u64>,
) -> Arc<Share> {
    let count = |share: &Share| {
        saved.inspect(|nanos| share.count_hit(*nanos));
    };
    let is_of = |share: &Share| share.region().is_some_and(|own| Arc::ptr_eq(own, region));
    if let Some(share) = own_share(key).filter(|share| is_of(share)) {
        count(&share);
        return share;
    }
    let cell = Cell::new(key, region, totals);
    count(&cell.share);
    let share = Arc::clone(&cell.share);
    let keep = |cells: &RefCell<Vec<Option<Cell>>>| {
        let mut list = cells.borrow_mut();
        if list.len() <= key.place {
            list.resize_with(key.place + 1, || None);
        }
        list[key.place].replace(cell)
    };
    // What was there before goes when it is not borrowed any more. A thread that is ending keeps none.
    drop(CELLS.try_with(keep));
    share
}

/// Lets go of this thread's share.
pub(crate) fn release_share(key: &Key) {
    let take = |cells: &RefCell<Vec<Option<Cell>>>| {
        cells
            .borrow_mut()
            .get_mut(key.place)
            .and_then(|cell| cell.take_if(|cell| cell.store == key.id))
    };
    // What was taken goes when the list is not borrowed any more.
    drop(CELLS.try_with(take));
}
