//! Looking up: what a key has in the file that is the cache now.
//!
//! - [`find_seen`](Store::find_seen) is the hot path: this thread's pin, the index, the record. It takes no lock,
//!   makes no system call and allocates nothing. It answers only for a record that this process has verified
//!   before.
//! - [`find`](Store::find) is for all else: the first touch of a record, which is verified; a copy; a miss, which
//!   may have to look whether the cache has moved to another file.
//! - [`find_here`](Store::find_here) is for tasks: it does what is brief, and says what is left.
//!
//! Who asks what, for one key of one process, over its life:
//!
//! ```text
//!   first call           find_seen: no pin           find: opens the file; a miss    .. computes, puts ..
//!   second call          find_seen: a hit, if the put checked the archive; else find verifies it
//!   later ones           find_seen: a hit
//!   after a compaction   find_seen: STATE is MOVED   find: follows to the new file, verifies the record there
//!   later ones           find_seen: a hit
//! ```
//!
//! Nothing here believes that a file is the cache for longer than one look. STATE is loaded in each, and a miss, of
//! which a computation may follow, also looks at the path now and then: a stranger who removed or replaced the file has
//! left no mark in it. Hits go on from a file that a stranger removed; they are right.

use super::pin::own_pin;
use super::{Hit, Store, StoreLookup, TRIES, Unmet};
use crate::engine::file::effort::Effort;
use crate::engine::file::expiry::ExpiryRule;
use crate::engine::file::lookup::Lookup;
use crate::engine::file::open_file::OpenFile;
use crate::engine::format::record::{self, Identity};
use crate::error::{Error, Result};
use std::sync::Arc;

impl Store {
    /// The value of `identity`, if it lies in place and this process has verified it before. No lock
    /// that another thread takes, no system call, no allocation. `None` says nothing:
    /// [`find`](Store::find) does.
    ///
    /// It writes to two places, which belong to this thread: the pin's count and the thread's counters. The clock is
    /// read, by the coarse clock, only if the record or the handle has an expiry.
    #[inline(always)]
    pub(crate) fn find_seen(&self, identity: &Identity, expiry: ExpiryRule) -> Option<Hit> {
        let pin = own_pin(self.pin_slot)?;
        let open_file = pin.open_file()?;
        let (record, cost) = open_file.find_seen(identity, expiry)?;
        pin.count_hit(cost.nanos());
        Some(Hit { pin, record })
    }

    /// What `identity` has: nothing, a record that this process meets for the first time, a copy. Goes
    /// where the cache went. Hits and misses are counted by the caller, who may refuse what is found, or
    /// look again.
    #[cold]
    pub(crate) fn find(&self, identity: &Identity, expiry: ExpiryRule) -> Result<StoreLookup> {
        for _ in 0..TRIES {
            match self.find_in(self.grown(self.open_file()?), identity, expiry, Effort::Full)? {
                Ok(found) => return Ok(found),
                Err(old) => self.follow(old)?,
            }
        }
        Err(Error::Unstable { path: self.location.path.clone() })
    }

    /// As [`find`](Store::find), in the file that is open. The outer error is a failure of the system. The inner one
    /// says what a job of the pool has to do first; then the whole of the look is made again.
    pub(crate) fn find_here(
        &self,
        identity: &Identity,
        expiry: ExpiryRule,
        effort: Effort,
    ) -> Result<Result<StoreLookup, Unmet>> {
        let Some(open_file) = self.known() else { return Ok(Err(Unmet::Elsewhere(None))) };
        let open_file = self.grown(open_file);
        Ok(match self.find_in(open_file, identity, expiry, effort)? {
            Ok(StoreLookup { lookup: Lookup::Long, .. }) => Err(Unmet::Long),
            Ok(found) => Ok(found),
            Err(old) => Err(Unmet::Elsewhere(Some(old))),
        })
    }

    /// What `identity` has in a file; the file again, if the cache is not in it any more, for whoever follows it to let
    /// go of.
    ///
    /// The token is made first. In the other order a value might be stored between the look and the token: the look has
    /// missed it, and whoever leads then sees that nothing was stored since the token, and computes it once more.
    #[inline]
    fn find_in(
        &self,
        open_file: Arc<OpenFile>,
        identity: &Identity,
        expiry: ExpiryRule,
        effort: Effort,
    ) -> Result<Result<StoreLookup, Arc<OpenFile>>> {
        // Before the look: what is stored during it is stored since.
        let token = Store::token(&open_file);
        let lookup = open_file.find(identity, expiry, effort);
        let has_moved = match &lookup {
            Lookup::Moved => true,
            Lookup::Absent => !self.is_current(&open_file)?,
            Lookup::Mapped { .. } | Lookup::Copied(..) | Lookup::Long => false,
        };
        if has_moved {
            return Ok(Err(open_file));
        }
        let saved = match &lookup {
            Lookup::Mapped { record, .. } => open_file.map().map(|map| *map.head(record)),
            Lookup::Copied(head, _) => Some(**head),
            Lookup::Absent | Lookup::Moved | Lookup::Long => None,
        };
        let saved = saved.map(|head| record::cost(&head).nanos());
        let pin = self.pin_of(&open_file);
        Ok(Ok(StoreLookup { open_file, pin, lookup, saved, is_valid: None, token }))
    }

    /// As [`find_seen`](Store::find_seen), for each of a few identities, in their order. What is not given
    /// (all of them to a thread that has no pin yet) is to be looked for one by one.
    #[inline]
    pub(crate) fn find_seen_many(
        &self,
        identities: &[Identity],
        expiry: ExpiryRule,
        mut give: impl FnMut(Option<Hit>),
    ) {
        let Some(pin) = own_pin(self.pin_slot) else { return };
        let Some(open_file) = pin.open_file() else { return };
        open_file.find_seen_many(identities, expiry, |found| {
            give(found.map(|(record, cost)| {
                pin.count_hit(cost.nanos());
                Hit { pin: Arc::clone(&pin), record }
            }));
        });
    }
}
