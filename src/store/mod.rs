//! The store: bytes in, bytes out, for one cache in this process. It knows identities and records,
//! no types. Any number of threads read without locks; writers take the gate, then the file's lock.
//! Whatever happens to the file at the path, a store follows: to a compacted one, to one that was
//! replaced, to a new one after deletion.

// In reading order: each stands on those above it; the last four are this module's operations.
pub(crate) mod expiry;
pub(crate) mod journal;
pub(crate) mod region;
pub(crate) mod share;
pub(crate) mod gate;
pub(crate) mod create;
pub(crate) mod trust;
pub(crate) mod rewrite;
pub(crate) mod recover;
pub(crate) mod open;
pub(crate) mod write;
pub(crate) mod compact;
pub(crate) mod stats;
pub(crate) mod verify;

use crate::error::{Error, Result};
use crate::format::header::{state, word};
use crate::format::record::{self, Identity};
use crate::sys::fork::PerProcess;
use expiry::View;
use gate::{Deadline, Gate, Pass};
use open::{Location, TRIES};
use region::{Region, Sight};
use share::{Cell, Key, Share, Totals, lock, with_cell};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

/// How often the path is looked at while nothing in the file says that it moved, in milliseconds.
const PATH_CHECK_INTERVAL: u64 = 100;

/// One cache in this process, shared by all handles that opened it alike.
pub(crate) struct Store {
    pub(crate) location: Location,
    key: Key,
    state: PerProcess<State>,
    pub(crate) totals: Arc<Totals>,
}

/// What a forked child does not share with its parent.
#[derive(Default)]
struct State {
    current: Mutex<Option<Arc<Region>>>,
    cells: Mutex<Vec<Weak<Cell>>>,
    gate: Gate,
    /// When the path was last looked at, in milliseconds of this process.
    looked: AtomicU64,
}

/// When a computation began: whether its result may still be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) cache_id: [u8; 16],
    pub(crate) seq: u64,
}

/// What a look-up in a store found, with what keeps it alive.
pub(crate) struct Found {
    pub(crate) share: Arc<Share>,
    pub(crate) sight: Sight,
}

impl Found {
    /// Whether it is nothing.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self.sight, Sight::Absent | Sight::Moved)
    }
}

/// The stores of this process.
type Stores = Mutex<BTreeMap<Location, Weak<Store>>>;
static STORES: PerProcess<Stores> = PerProcess::first(Mutex::new(BTreeMap::new()));

fn stores() -> &'static Stores {
    STORES.get(Mutex::default)
}

impl Store {
    /// The store at a location: the one that other handles use, if there is one.
    pub(crate) fn open(location: Location) -> Result<Arc<Store>> {
        if let Some(store) = lock(stores()).get(&location).and_then(Weak::upgrade) {
            store.region()?;
            return Ok(store);
        }
        // Opened without the map's lock: others may open other caches meanwhile. Two that open the
        // same one may both get here; one of the two stores is kept.
        let store = Arc::new(Store {
            location: location.clone(),
            key: Key::new(),
            state: PerProcess::new(State::default()),
            totals: Arc::default(),
        });
        store.region()?;
        let mut stores = lock(stores());
        stores.retain(|_, store| store.strong_count() > 0);
        if let Some(other) = stores.get(&location).and_then(Weak::upgrade) {
            return Ok(other);
        }
        stores.insert(location, Arc::downgrade(&store));
        Ok(store)
    }

    fn state(&self) -> &State {
        self.state.get(State::default)
    }

    /// The file that is the cache now, as far as is known.
    pub(crate) fn region(&self) -> Result<Arc<Region>> {
        let mut current = lock(&self.state().current);
        match &*current {
            Some(region) => Ok(Arc::clone(region)),
            None => {
                let region = open::open(&self.location)?;
                *current = Some(Arc::clone(&region));
                Ok(region)
            }
        }
    }

    /// Leaves `old`, if nobody did yet, for the file that is at the path now.
    pub(crate) fn follow(&self, old: &Arc<Region>) -> Result<()> {
        let state = self.state();
        {
            let mut current = lock(&state.current);
            if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, old)) {
                *current = Some(open::open(&self.location)?);
            }
        }
        self.retire_shares();
        Ok(())
    }

    /// Empties all threads' cells: nobody but guards keeps an old file alive.
    fn retire_shares(&self) {
        let mut cells = lock(&self.state().cells);
        cells.retain(|cell| cell.upgrade().inspect(|cell| cell.set(None)).is_some());
    }

    pub(crate) fn cells(&self) -> Vec<Arc<Cell>> {
        lock(&self.state().cells).iter().filter_map(Weak::upgrade).collect()
    }

    fn new_cell(&self) -> Arc<Cell> {
        let cell = Cell::new(&self.key, &self.totals);
        lock(&self.state().cells).push(Arc::downgrade(&cell));
        cell
    }

    /// What `identity` has. No lock, no system call, no allocation on a hit, once this thread has its
    /// share.
    #[inline]
    pub(crate) fn find(&self, identity: &Identity, view: View) -> Result<Found> {
        let work = |cell: &Cell| self.find_with(cell, identity, view);
        match with_cell(&self.key, || self.new_cell(), work) {
            Some(found) => found,
            None => self.find_with(&self.new_cell(), identity, view), // The thread is ending.
        }
    }

    #[inline]
    fn find_with(&self, cell: &Cell, identity: &Identity, view: View) -> Result<Found> {
        let share = match cell.get() {
            Some(share) => share,
            None => self.share(cell)?,
        };
        match share.region.find(identity, view) {
            sight @ Sight::Mapped { record, .. } => {
                let map = share.region.map().expect("a record in place is mapped");
                cell.count_hit(record::cost(map.head(&record)).nanos());
                Ok(Found { share, sight })
            }
            sight => self.find_slowly(cell, identity, view, share, sight),
        }
    }

    /// All that is not a hit in place.
    #[cold]
    fn find_slowly(
        &self,
        cell: &Cell,
        identity: &Identity,
        view: View,
        mut share: Arc<Share>,
        mut sight: Sight,
    ) -> Result<Found> {
        for _ in 0..TRIES {
            let has_moved = match &sight {
                Sight::Moved => true,
                Sight::Absent => !self.is_current(&share.region)?,
                Sight::Copied(head, _) => {
                    cell.count_hit(record::cost(head).nanos());
                    return Ok(Found { share, sight });
                }
                Sight::Mapped { .. } => return Ok(Found { share, sight }),
            };
            if !has_moved {
                self.totals.misses.fetch_add(1, Ordering::Relaxed);
                return Ok(Found { share, sight });
            }
            self.follow(&share.region)?;
            share = self.share(cell)?;
            sight = share.region.find(identity, view);
        }
        Err(Error::Unstable { path: self.location.path.clone() })
    }

    #[cold]
    fn share(&self, cell: &Cell) -> Result<Arc<Share>> {
        let share = Arc::new(Share { region: self.region()? });
        cell.set(Some(Arc::clone(&share)));
        Ok(share)
    }

    /// Whether a file in which something is missing is still the one to look in: it is mapped as far
    /// as it goes, and it is at the path, which is looked at now and then.
    fn is_current(&self, region: &Region) -> Result<bool> {
        if region.is_outgrown() && region.journal().tail()? > region.medium().reach() {
            return Ok(false);
        }
        Ok(!self.is_path_check_due() || region.is_at_path())
    }

    fn is_path_check_due(&self) -> bool {
        static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
        let now = START.elapsed().as_millis() as u64 + PATH_CHECK_INTERVAL;
        let looked = &self.state().looked;
        // Relaxed: two threads that look at once do no harm.
        let is_due = now - looked.load(Ordering::Relaxed).min(now) >= PATH_CHECK_INTERVAL;
        if is_due {
            looked.store(now, Ordering::Relaxed);
        }
        is_due
    }

    /// When a computation that begins now began.
    pub(crate) fn token(region: &Region) -> Token {
        Token { cache_id: region.facts.cache_id, seq: region.seq() }
    }

    /// Takes the lock on the file that is the cache, with all that was published in the index.
    pub(crate) fn lock(&self) -> Result<Writer<'_>> {
        let path = &self.location.path;
        let deadline = Deadline::after(self.location.lock_timeout);
        let mut pass = self.state().gate.enter(&deadline, path)?;
        for _ in 0..TRIES {
            let region = self.region()?;
            if !region.file().is_writable() || region.is_private() || self.location.is_read_only {
                return Err(Error::ReadOnly { path: path.clone() });
            }
            pass.lock(&region, &deadline)?;
            if self.is_ready(&region)? {
                region.journal().redo(false)?;
                return Ok(Writer { region, _pass: pass });
            }
            pass.unlock();
            self.follow(&region)?;
        }
        Err(Error::Unstable { path: path.clone() })
    }

    /// Whether a locked file can be written: it is the cache, sound, and mapped far enough.
    fn is_ready(&self, region: &Region) -> Result<bool> {
        let ledger = region.journal().ledger;
        match ledger.medium.load(word::STATE) {
            state::LIVE if self.is_path_check_due() && !region.is_at_path() => return Ok(false),
            state::LIVE => {}
            // Nobody holds the lock, so whoever was moving the file died.
            state::MOVING if region.is_at_path() => ledger.store(word::STATE, state::LIVE)?,
            _ => return Ok(false),
        }
        if !ledger.is_sound() {
            return Ok(false);
        }
        Ok(!region.is_outgrown())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Threads keep their cells; without this they would keep the file mapped.
        self.retire_shares();
    }
}

/// The lock, held: the one who may write. It goes with this value.
pub(crate) struct Writer<'a> {
    region: Arc<Region>,
    _pass: Pass<'a>,
}

impl Writer<'_> {
    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }
}
