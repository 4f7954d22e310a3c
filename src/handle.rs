//! What a handle on a cache and its clones share, and what is memoised from them.

use crate::error::Error;
use crate::store::Store;
use crate::store::expiry::SharedView;
use crate::store::share::Totals;
use std::sync::Arc;
use std::time::Duration;

/// A store, as one handle and its clones see it.
pub(crate) struct Handle {
    /// `None`: the cache is disabled.
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) view: SharedView,
    pub(crate) totals: Arc<Totals>,
    pub(crate) name: Option<String>,
    /// How long a call waits for another that computes the same.
    pub(crate) claim_timeout: Duration,
    /// Why it is not the cache that was asked for.
    pub(crate) fault: Option<Error>,
}

impl Handle {
    /// Counts, and logs, what went wrong with the cache in a memoised call.
    #[cold]
    pub(crate) fn note(&self, error: &Error) {
        self.totals.count_store_error();
        #[cfg(feature = "tracing")]
        tracing::warn!(%error, cache = self.name.as_deref(), "a result could not be cached");
        #[cfg(not(feature = "tracing"))]
        let _ = error;
    }
}
