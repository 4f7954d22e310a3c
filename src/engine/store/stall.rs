//! Whether a computation that a thread waits for can still end: see [`flight`](super::flight).
//!
//! Two signs are looked for, ever less often. All threads of the process wait to be woken: then nobody is left who
//! could go on. Or the leader's thread has waited for another one for a second, and for four times as long as the
//! process knows the function to have ever taken. The first is certain; the second is a guess, after which a value
//! may be computed twice, and nothing worse.

use super::pin::lock;
use crate::engine::os::fork::PerProcess;
use crate::engine::os::threads::{ThreadId, stand_still, waits_to_be_woken};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How soon, and how often, a waiting thread looks whether it waits in vain.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long, and how many times as long as the function ever took, a leader's thread may wait for another one
/// before it is suspected of waiting for one that waits for it.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);
const SUSPECT_FACTOR: u32 = 4;

/// The threads of this process that wait for a flight.
static WAITERS: PerProcess<Mutex<BTreeSet<ThreadId>>> =
    PerProcess::first(Mutex::new(BTreeSet::new()));
/// Held by the one who looks at all threads: two who look at once would see each other at work.
static LOOKING: PerProcess<Mutex<()>> = PerProcess::first(Mutex::new(()));

fn waiters() -> MutexGuard<'static, BTreeSet<ThreadId>> {
    lock(WAITERS.get(Mutex::default))
}

/// Says that a thread waits for a flight.
pub(crate) struct Waiting(ThreadId);

impl Waiting {
    pub(crate) fn new(own: ThreadId) -> Waiting {
        waiters().insert(own);
        Waiting(own)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        waiters().remove(&self.0);
    }
}

/// What a waiting thread has seen of the one it waits for.
pub(crate) struct Suspicion {
    pause: Duration,
    /// The leader, if it was seen waiting for another thread at each look since then.
    suspect: Option<(ThreadId, Instant)>,
}

impl Suspicion {
    pub(crate) fn new() -> Suspicion {
        Suspicion { pause: PAUSE_MIN / 2, suspect: None }
    }

    /// How long to wait before the next look.
    pub(crate) fn next_pause(&mut self) -> Duration {
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        self.pause
    }

    /// Whether the computation cannot go on, or is suspected not to. `leader` is the thread that computes;
    /// without one, only the process as a whole is looked at. `longest` is what the function is known to have
    /// taken; without that nobody is suspected.
    pub(crate) fn finds_stuck(
        &mut self,
        leader: Option<ThreadId>,
        longest: Option<Duration>,
    ) -> bool {
        if leader.is_some_and(|leader| !waits_to_be_woken(leader)) {
            self.suspect = None; // It works, or waits for the outside world.
            return false;
        }
        let since = leader.map(|leader| match self.suspect {
            Some((suspect, since)) if suspect == leader => since,
            _ => self.suspect.insert((leader, Instant::now())).1,
        });
        let is_late = since.zip(longest).is_some_and(|(since, longest)| {
            since.elapsed() >= longest.saturating_mul(SUSPECT_FACTOR).max(SUSPECT_AFTER)
        });
        is_late || all_stand_still()
    }
}

/// Whether no thread of this process can go on by itself.
fn all_stand_still() -> bool {
    let _looking = match LOOKING.get(Mutex::default).try_lock() {
        Ok(looking) => looking,
        Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
        Err(TryLockError::WouldBlock) => return false,
    };
    let waiters = waiters().clone();
    stand_still(&waiters)
}
