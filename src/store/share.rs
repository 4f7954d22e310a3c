//! What makes a hit free of shared writes: each thread keeps, for each store, a [`Share`] of the
//! store's region and its own counters. A guard holds the thread's share, so that only a guard dropped
//! by another thread ever moves the line of its count. The share lies under a lock that only its
//! thread takes, but for the moment in which a superseded file is retired: idle threads must not pin
//! old files.

use super::region::Region;
use crate::sys::fork::PerProcess;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Keeps a region alive.
pub(crate) struct Share {
    pub(crate) region: Arc<Region>,
}

/// A thread's share of a store, and what that thread counted.
pub(crate) struct Cell {
    store: u64,
    share: Mutex<Option<Arc<Share>>>,
    hits: AtomicU64,
    saved: AtomicU64,
    totals: Arc<Totals>,
}

/// What all threads of this process counted on one store.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Hits of threads that are gone.
    hits: AtomicU64,
    saved: AtomicU64,
    pub(crate) misses: AtomicU64,
    pub(crate) store_errors: AtomicU64,
}

impl Totals {
    /// Hits and nanoseconds saved, those of `cells` included.
    pub(crate) fn with(&self, cells: &[Arc<Cell>]) -> (u64, u64) {
        let hits = cells.iter().map(|cell| cell.hits.load(Ordering::Relaxed)).sum::<u64>();
        let saved = cells.iter().map(|cell| cell.saved.load(Ordering::Relaxed)).sum::<u64>();
        // Relaxed, here and where they are counted: each is a number of its own.
        (hits + self.hits.load(Ordering::Relaxed), saved + self.saved.load(Ordering::Relaxed))
    }
}

/// Locks a mutex; what it guards is whole even if a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Cell {
    pub(crate) fn new(key: &Key, totals: &Arc<Totals>) -> Arc<Cell> {
        Arc::new(Cell {
            store: key.id,
            share: Mutex::new(None),
            hits: AtomicU64::new(0),
            saved: AtomicU64::new(0),
            totals: Arc::clone(totals),
        })
    }

    /// The share, if there is one and nobody is retiring it at this moment.
    #[inline]
    pub(crate) fn get(&self) -> Option<Arc<Share>> {
        self.share.try_lock().ok()?.as_ref().map(Arc::clone)
    }
    pub(crate) fn set(&self, share: Option<Arc<Share>>) {
        *lock(&self.share) = share;
    }

    /// Counts a hit that saved `nanos`. Load and store: the thread is the only one to count here, and
    /// the cell of threads that are ending may lose one.
    #[inline]
    pub(crate) fn count_hit(&self, nanos: u64) {
        self.hits.store(self.hits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        let saved = self.saved.load(Ordering::Relaxed).saturating_add(nanos);
        self.saved.store(saved, Ordering::Relaxed);
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.totals.hits.fetch_add(*self.hits.get_mut(), Ordering::Relaxed);
        self.totals.saved.fetch_add(*self.saved.get_mut(), Ordering::Relaxed);
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
        free_places().push(self.place);
    }
}

thread_local! {
    static CELLS: RefCell<Vec<Option<Arc<Cell>>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `work` with this thread's cell of the store with `key`, which `make` makes at first; `None`
/// while the thread is ending and has no cells any more.
#[inline]
pub(crate) fn with_cell<T>(
    key: &Key,
    make: impl FnOnce() -> Arc<Cell>,
    work: impl FnOnce(&Cell) -> T,
) -> Option<T> {
    let with = |cells: &RefCell<Vec<Option<Arc<Cell>>>>| {
        if let Some(Some(cell)) = cells.borrow().get(key.place)
            && cell.store == key.id
        {
            return work(cell);
        }
        let cell = make();
        let mut list = cells.borrow_mut();
        if list.len() <= key.place {
            list.resize(key.place + 1, None);
        }
        let former = list[key.place].replace(Arc::clone(&cell));
        drop((list, former));
        work(&cell)
    };
    CELLS.try_with(with).ok()
}
