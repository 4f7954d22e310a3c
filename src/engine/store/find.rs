//! Looking up: what a key has in the file that is the cache now. A hit takes no lock and makes no system call.

use super::share::own_share;
use super::{Found, Hit, Store, TRIES, Unmet};
use crate::engine::file::effort::Effort;
use crate::engine::file::expiry::View;
use crate::engine::file::region::Region;
use crate::engine::file::sight::Sight;
use crate::engine::format::record::{self, Identity};
use crate::error::{Error, Result};
use std::sync::Arc;

impl Store {
    /// The value of `identity`, if it lies in place and this process has verified it before. No lock
    /// that another thread takes, no system call, no allocation. `None` says nothing:
    /// [`find`](Store::find) does.
    #[inline(always)]
    pub(crate) fn find_seen(&self, identity: &Identity, view: View) -> Option<Hit> {
        let share = own_share(self.seat)?;
        let region = share.region()?;
        let (record, cost) = region.find_seen(identity, view)?;
        share.count_hit(cost.nanos());
        Some(Hit { share, record })
    }

    /// What `identity` has: nothing, a record that this process meets for the first time, a copy. Goes
    /// where the cache went. Hits and misses are counted by the caller, who may refuse what is found, or
    /// look again.
    #[cold]
    pub(crate) fn find(&self, identity: &Identity, view: View) -> Result<Found> {
        for _ in 0..TRIES {
            match self.find_in(self.grown(self.region()?), identity, view, Effort::Full)? {
                Ok(found) => return Ok(found),
                Err(old) => self.follow(old)?,
            }
        }
        Err(Error::Unstable { path: self.location.path.clone() })
    }

    /// As [`find`](Store::find), in the file that is open.
    pub(crate) fn find_here(
        &self,
        identity: &Identity,
        view: View,
        effort: Effort,
    ) -> Result<Result<Found, Unmet>> {
        let Some(region) = self.known() else { return Ok(Err(Unmet::Elsewhere(None))) };
        let region = self.grown(region);
        Ok(match self.find_in(region, identity, view, effort)? {
            Ok(Found { sight: Sight::Long, .. }) => Err(Unmet::Long),
            Ok(found) => Ok(found),
            Err(old) => Err(Unmet::Elsewhere(Some(old))),
        })
    }

    /// What `identity` has in a file; the file again, if the cache is not in it any more.
    #[inline]
    fn find_in(
        &self,
        region: Arc<Region>,
        identity: &Identity,
        view: View,
        effort: Effort,
    ) -> Result<Result<Found, Arc<Region>>> {
        // Before the look: what is stored during it is stored since.
        let token = Store::token(&region);
        let sight = region.find(identity, view, effort);
        let has_moved = match &sight {
            Sight::Moved => true,
            Sight::Absent => !self.is_current(&region)?,
            Sight::Mapped { .. } | Sight::Copied(..) | Sight::Long => false,
        };
        if has_moved {
            return Ok(Err(region));
        }
        let saved = match &sight {
            Sight::Mapped { record, .. } => region.map().map(|map| *map.head(record)),
            Sight::Copied(head, _) => Some(**head),
            Sight::Absent | Sight::Moved | Sight::Long => None,
        };
        let saved = saved.map(|head| record::cost(&head).nanos());
        let share = self.share_of(&region);
        Ok(Ok(Found { region, share, sight, saved, is_valid: None, token }))
    }

    /// As [`find_seen`](Store::find_seen), for each of a few identities, in their order. What is not given
    /// (all of them to a thread that has no share yet) is to be looked for one by one.
    #[inline]
    pub(crate) fn find_seen_many(
        &self,
        identities: &[Identity],
        view: View,
        mut give: impl FnMut(Option<Hit>),
    ) {
        let Some(share) = own_share(self.seat) else { return };
        let Some(region) = share.region() else { return };
        region.find_seen_many(identities, view, |found| {
            give(found.map(|(record, cost)| {
                share.count_hit(cost.nanos());
                Hit { share: Arc::clone(&share), record }
            }));
        });
    }
}
