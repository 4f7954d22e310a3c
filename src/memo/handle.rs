//! What a handle on a cache and its clones share, and what is memoised from them.
//!
//! A `#[cache]` function has a handle even if its cache cannot be opened: the function must go on. Where the
//! trouble may pass, such a handle opens its cache later ([`Late`]), and whatever was made from it then uses
//! that. A handle whose store was there from the start pays nothing for this.

use crate::engine::file::expiry::SharedExpiry;
use crate::engine::os::clock;
use crate::engine::os::fork::PerProcess;
use crate::engine::os::program::Program;
use crate::engine::os::task::offload;
use crate::engine::store::pin::Totals;
use crate::engine::store::{Store, Token};
use crate::error::{Error, Result};
use once_cell::race::OnceBox;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What counts as the code of a function, for [`OpenOptions::code`](crate::OpenOptions::code).
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// use persist_cache::{Code, MmapCache};
/// let cache = MmapCache::options().root(dir.path()).code(Code::Program).open("sizes")?;
/// # Ok::<(), persist_cache::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Code {
    /// What is known of the function itself. For a `#[cache]` function that is its tokens and those of its `deps`, or
    /// its `version`; for a table, or a function that is memoised under a name, the name. A closure or function that
    /// is memoised without a name belongs to the program as built in any case.
    #[default]
    Own,
    /// Beside that, the program as built: the executable, the shared object that the code is in, and the
    /// Rust libraries that were linked dynamically. After a rebuild that changed something all entries are misses;
    /// after a restart they are not.
    Program,
}

impl Code {
    /// The program that counts, for code at an address of the user's program.
    pub(crate) fn program(self, code: *const ()) -> Option<Program> {
        (self == Code::Program).then(|| Program::of(code))
    }
}

/// A store, as one handle and its clones see it.
pub(crate) struct Handle {
    /// `None`: the cache is disabled, or is opened later.
    pub(crate) store: Option<Arc<Store>>,
    pub(crate) late: Option<Late>,
    pub(crate) expiry: SharedExpiry,
    /// What was counted while there was no store.
    pub(crate) storeless: Totals,
    pub(crate) name: Option<String>,
    /// How long a call waits for another that computes the same.
    pub(crate) claim_timeout: Duration,
    /// How many bytes a result may take.
    pub(crate) record_limit: u64,
    /// What counts as a function's code.
    pub(crate) code: Code,
    /// Why the store is not quite what was asked for, if it is not.
    pub(crate) fault: Option<Error>,
}

impl Handle {
    /// The store, if there is one by now.
    #[inline(always)]
    pub(crate) fn store(&self) -> Option<&Arc<Store>> {
        match &self.store {
            Some(store) => Some(store),
            None => self.late_store(),
        }
    }

    #[cold]
    fn late_store(&self) -> Option<&Arc<Store>> {
        Some(&self.late.as_ref()?.opened.get()?.store)
    }

    /// The store, for an operation that its caller wants done: it is opened now if it is late, and what
    /// keeps it from being opened is the operation's error. `None`: the cache is disabled.
    pub(crate) fn demand(&self) -> Result<Option<&Arc<Store>>> {
        if let (None, Some(late)) = (self.store(), &self.late) {
            late.keep((late.open)(LockWait::Full)?);
        }
        Ok(self.store())
    }

    /// Opens a late store if the next attempt is due. Waits for no lock.
    #[cold]
    pub(crate) fn retry(&self) {
        let Some(late) = self.late.as_ref().filter(|late| late.is_due()) else { return };
        if let Err(error) = late.retry() {
            self.note(&error);
        }
    }

    /// Whether an attempt to open a late store is due.
    pub(crate) fn is_due(&self) -> bool {
        self.late.as_ref().is_some_and(Late::is_due)
    }

    /// Uses what another thread has opened meanwhile, if this one's store is late.
    pub(crate) fn adopt(&self, other: Handle) {
        if let (Some(late), Some(store)) = (&self.late, other.store) {
            late.keep(Opened { store, fault: other.fault });
        }
    }

    /// When a computation that begins now began, as far as the file tells that a late store will open.
    #[cold]
    pub(crate) fn glance(&self) -> Option<Token> {
        (self.late.as_ref()?.glance)()
    }

    /// As [`retry`](Handle::retry), on another thread than the task's.
    #[cold]
    pub(crate) async fn retry_async(self: &Arc<Self>) {
        if self.is_due() {
            let handle = Arc::clone(self);
            offload(move || handle.retry()).await;
        }
    }

    /// Why this is not the cache that was asked for, as things are now.
    pub(crate) fn fault(&self) -> Option<&Error> {
        match &self.late {
            Some(late) => late.fault(),
            None => self.fault.as_ref(),
        }
    }

    /// Where this handle's counts go.
    pub(crate) fn totals(&self) -> &Totals {
        self.store().map_or(&self.storeless, |store| store.totals())
    }

    /// Fails for a result of so many bytes, or more, if that is over the limit.
    pub(crate) fn check_size(&self, size: u64) -> Result<()> {
        let limit = self.record_limit;
        if size > limit { Err(Error::OverLimit { size, limit }) } else { Ok(()) }
    }

    /// Counts, and logs, what went wrong with the cache in a memoised call.
    #[cold]
    pub(crate) fn note(&self, error: &Error) {
        self.totals().count_store_error();
        #[cfg(feature = "tracing")]
        tracing::warn!(%error, cache = self.name.as_deref(), "a result could not be cached");
        #[cfg(not(feature = "tracing"))]
        let _ = error;
    }
}

/// How long an opening may wait for the file's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockWait {
    /// As long as the cache's options say.
    Full,
    /// Not at all.
    None,
    /// Not at all. The lock is not taken even if it is free: there may be much to do under it.
    NoLock,
    /// Nothing is opened now: another thread is at it.
    Later,
}

/// A store that was opened, and why it is not quite what was asked for, if it is not.
pub(crate) struct Opened {
    pub(crate) store: Arc<Store>,
    pub(crate) fault: Option<Error>,
}

/// How a late store is opened.
pub(crate) type Open = Box<dyn Fn(LockWait) -> Result<Opened> + Send + Sync>;

/// How it is known when a computation began that begins before a late store is opened.
pub(crate) type Glance = Box<dyn Fn() -> Option<Token> + Send + Sync>;

/// A store that could not be opened when it was asked for, and may be later. One attempt is made at a
/// time, by a call that misses; the others compute meanwhile. The pauses between attempts double. Trouble
/// that lasts ends them: see [`Error::is_transient`].
///
/// A forked child has its parent's late store, and makes attempts of its own: nothing here is held while
/// another thread waits for it.
pub(crate) struct Late {
    open: Open,
    glance: Glance,
    opened: OnceBox<Opened>,
    /// Why the first attempt failed.
    first: Error,
    /// Why a later one did, after which none is made.
    lasting: OnceBox<Error>,
    is_trying: PerProcess<AtomicBool>,
    /// When the last attempt was made, and how long to wait from then on: milliseconds.
    last: AtomicU64,
    pause: AtomicU64,
}

/// The first pause between attempts, and the longest, in milliseconds.
pub(crate) const PAUSES: (u64, u64) = (100, 60_000);

impl Late {
    /// For a store that could not be opened just now, to be tried again after so many milliseconds.
    pub(crate) fn new(open: Open, glance: Glance, first: Error, pause: u64) -> Late {
        Late {
            open,
            glance,
            first,
            opened: OnceBox::new(),
            lasting: OnceBox::new(),
            is_trying: PerProcess::new(AtomicBool::new(false)),
            last: AtomicU64::new(now()),
            pause: AtomicU64::new(pause),
        }
    }

    /// Whether it is time for an attempt.
    fn is_due(&self) -> bool {
        // Relaxed, in all of this type: two attempts at once would do no harm, and what was opened is
        // published by its own cell. A clock that was set back is a reason to try.
        let since = now().abs_diff(self.last.load(Ordering::Relaxed));
        self.fault().is_some_and(Error::is_transient) && since >= self.pause.load(Ordering::Relaxed)
    }

    /// Why it is not open, or not quite what was asked for.
    fn fault(&self) -> Option<&Error> {
        match self.opened.get() {
            Some(opened) => opened.fault.as_ref(),
            None => Some(self.lasting.get().unwrap_or(&self.first)),
        }
    }

    /// Makes an attempt, if nobody is at one.
    fn retry(&self) -> Result<()> {
        let is_trying = self.is_trying.get(AtomicBool::default);
        if is_trying.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        // Taken back even if the attempt panics.
        let _over = Over(is_trying);
        let opened = (self.open)(LockWait::None);
        self.last.store(now(), Ordering::Relaxed);
        match opened {
            Ok(opened) => {
                self.keep(opened);
                Ok(())
            }
            Err(error) if error.is_transient() => {
                let pause = self.pause.load(Ordering::Relaxed) * 2;
                self.pause.store(pause.clamp(PAUSES.0, PAUSES.1), Ordering::Relaxed);
                Err(error)
            }
            Err(error) => {
                // Of two at once the first is kept; they say the same.
                let _ = self.lasting.set(Box::new(error));
                Ok(())
            }
        }
    }

    fn keep(&self, opened: Opened) {
        // Of two at once the first is kept; both hold the same store.
        let _ = self.opened.set(Box::new(opened));
    }
}

fn now() -> u64 {
    clock::now().as_millis() as u64
}

/// Says that an attempt is over.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed); // Relaxed: what was done is published by its own cell.
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::os::clock::tests::SET;
    use std::io;
    use std::path::Path;
    use std::sync::Mutex;

    /// A late store whose attempts fail with what `errors` has, the last one first.
    fn late(errors: &Arc<Mutex<Vec<Error>>>) -> Late {
        let errors = Arc::clone(errors);
        let open = move |lock_wait| {
            assert_eq!(lock_wait, LockWait::None, "a later attempt waits for no lock");
            Err(errors.lock().unwrap().pop().expect("an attempt too many"))
        };
        Late::new(Box::new(open), Box::new(|| None), passing(), PAUSES.0)
    }

    fn passing() -> Error {
        Error::io("open", Path::new("x"))(io::ErrorKind::NotFound.into())
    }

    #[test]
    fn attempts_are_made_ever_less_often_and_after_what_lasts_none() {
        let errors = Arc::new(Mutex::new(Vec::new()));
        let set = |millis: u64| SET.set(Some(Duration::from_millis(1_000_000 + millis)));
        set(0);
        let late = late(&errors);
        let mut at = 0;
        for pause in [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000] {
            set(at + pause - 1);
            assert!(!late.is_due(), "{pause} ms have not passed");
            at += pause;
            set(at);
            assert!(late.is_due(), "{pause} ms have passed");
            errors.lock().unwrap().push(passing());
            assert!(late.retry().is_err());
        }
        set(0);
        assert!(late.is_due(), "the clock was set back by minutes");
        let path = Path::new("x").to_path_buf();
        errors.lock().unwrap().push(Error::NotACache { path, found: "00".into() });
        late.retry().unwrap();
        set(1 << 30);
        assert!(!late.is_due() && late.lasting.get().is_some());
    }

    #[test]
    fn one_attempt_is_made_at_a_time_and_a_panic_ends_it() {
        let open = Box::new(|_| panic!("of the user's"));
        let late = Late::new(open, Box::new(|| None), passing(), PAUSES.0);
        let attempt = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| late.retry()));
        assert!(attempt().is_err() && attempt().is_err(), "it is free again");
        late.is_trying.get(AtomicBool::default).store(true, Ordering::Relaxed);
        assert!(attempt().unwrap().is_ok(), "somebody is at it: nothing is done");
    }
}
