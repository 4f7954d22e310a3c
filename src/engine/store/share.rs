//! What makes a hit free of shared writes: each thread keeps, for each store, a [`Share`] of the
//! store's region and its own counters. A guard holds the thread's share, so that only a guard dropped
//! by another thread ever moves the line of its count. Whoever leaves a superseded file takes the shares
//! of it from all threads, so that those that idle do not keep its disk space: see
//! [`biased`](crate::engine::os::biased). Where the system has no barrier for that (Linux before 4.14), a thread
//! lets go when it next uses the store, or ends.

use crate::engine::file::region::Region;
use crate::engine::os::biased::{Biased, Owner, reclaim};
use crate::engine::os::fork::PerProcess;
use crate::engine::os::map::Record;
use rkyv::util::AlignedVec;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Keeps the bytes of values alive.
pub(crate) enum Share {
    /// A file, mapped or copied from, and where the thread whose share it is counts its hits.
    Region(Arc<Region>, Arc<Counts>),
    /// A copy, in a box: so each hit tells by one instruction that it is none.
    Copy(Box<AlignedVec>),
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

/// What this process counted on one store.
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

    /// Hits, and the nanoseconds they saved.
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

/// The shares that threads of this process have of one store, for who takes them away.
#[derive(Default)]
pub(crate) struct Shares(Mutex<Vec<Arc<Biased<Share>>>>);

impl Shares {
    pub(crate) fn add(&self, share: Arc<Biased<Share>>) {
        let mut shares = lock(&self.0);
        if shares.len() == shares.capacity() {
            shares.retain(|share| !share.is_taken()); // Those of threads that have ended.
        }
        shares.push(share);
    }

    /// Takes all of them away. Those that are in use just now stay, to be reclaimed later.
    pub(crate) fn revoke(&self) {
        // All are revoked under the lock: whoever has had it, at whatever another thread is, can rely on it.
        lock(&self.0).iter().for_each(|share| share.revoke());
        self.reclaim();
    }

    /// Reclaims those that are revoked.
    pub(crate) fn reclaim(&self) {
        let is_revoked = |share: &mut Arc<Biased<Share>>| share.is_closed();
        let mut shares: Vec<_> = lock(&self.0).extract_if(.., is_revoked).collect();
        // Not under the lock: this may wait for a moment, and unmaps files.
        reclaim(&mut shares);
        lock(&self.0).append(&mut shares);
    }
}

/// Where a store's shares are found: a place in each thread's list, used again after the store is gone. What
/// still lies there then has been revoked.
pub(crate) struct Key {
    seat: Seat,
}

/// The place, for those who have the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seat(usize);

static NEXT_SEAT: AtomicUsize = AtomicUsize::new(0);
static FREE_SEATS: PerProcess<Mutex<Vec<Seat>>> = PerProcess::first(Mutex::new(Vec::new()));

fn free_seats() -> MutexGuard<'static, Vec<Seat>> {
    lock(FREE_SEATS.get(Mutex::default))
}

impl Key {
    pub(crate) fn new() -> Key {
        let seat = free_seats().pop();
        // Relaxed: nothing but distinct numbers is asked for.
        Key { seat: seat.unwrap_or_else(|| Seat(NEXT_SEAT.fetch_add(1, Ordering::Relaxed))) }
    }

    pub(crate) fn seat(&self) -> Seat {
        self.seat
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        release_share(self.seat);
        free_seats().push(self.seat);
    }
}

thread_local! {
    static SHARES: RefCell<Vec<Option<Owner<Share>>>> = const { RefCell::new(Vec::new()) };
}

/// This thread's share of the store that has a seat; `None` if it has none (yet, or any more), or the thread is
/// ending.
#[inline(always)]
pub(crate) fn own_share(Seat(seat): Seat) -> Option<Arc<Share>> {
    let get =
        |shares: &RefCell<Vec<Option<Owner<Share>>>>| shares.borrow().get(seat)?.as_ref()?.get();
    SHARES.try_with(get).ok()?
}

/// This thread's share of `region`, which it keeps from now on, if `enter` enters it among those that
/// are revoked: the region may have been left meanwhile.
#[cold]
pub(crate) fn share_of(
    seat: Seat,
    region: &Arc<Region>,
    totals: &Totals,
    enter: impl FnOnce(Arc<Biased<Share>>) -> bool,
) -> Arc<Share> {
    let is_of = |share: &Share| share.region().is_some_and(|own| Arc::ptr_eq(own, region));
    if let Some(share) = own_share(seat).filter(|share| is_of(share)) {
        return share;
    }
    let share = Arc::new(Share::Region(Arc::clone(region), totals.new_counts()));
    let own = Owner::new(Arc::clone(&share));
    if !enter(Arc::clone(own.cell())) {
        return share;
    }
    let keep = |shares: &RefCell<Vec<Option<Owner<Share>>>>| {
        let mut list = shares.borrow_mut();
        if list.len() <= seat.0 {
            list.resize_with(seat.0 + 1, || None);
        }
        list[seat.0].replace(own)
    };
    // What was there before goes when it is not borrowed any more. A thread that is ending keeps none.
    drop(SHARES.try_with(keep));
    share
}

/// Lets go of this thread's share.
pub(crate) fn release_share(Seat(seat): Seat) {
    let take = |shares: &RefCell<Vec<Option<Owner<Share>>>>| {
        shares.borrow_mut().get_mut(seat).and_then(Option::take)
    };
    // What was taken goes when the list is not borrowed any more.
    drop(SHARES.try_with(take));
}
