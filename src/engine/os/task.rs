//! What async code needs of the system without knowing its runtime: a sleep that wakes a task, and a thread of the
//! [`pool`] for what would block one.
//!
//! One thread of this module's own wakes all sleepers. It is there while there are any, and each process has its
//! own. A task that is dropped takes its place among the sleepers along; a job that has begun goes on, and what it
//! gives is dropped.

use super::fork::PerProcess;
use super::pool;
use super::waker::wake_all;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

/// Who is to be woken, and when.
#[derive(Default)]
struct Clock {
    sleepers: Mutex<Sleepers>,
    changed: Condvar,
}

#[derive(Default)]
struct Sleepers {
    wakers: BTreeMap<(Instant, u64), Waker>,
    next_id: u64,
    is_running: bool,
}

impl Clock {
    const fn new() -> Clock {
        let wakers = BTreeMap::new();
        let sleepers = Sleepers { wakers, next_id: 0, is_running: false };
        Clock { sleepers: Mutex::new(sleepers), changed: Condvar::new() }
    }

    /// The sleepers. No waker is cloned, woken or dropped while they are locked.
    fn lock(&self) -> MutexGuard<'_, Sleepers> {
        lock(&self.sleepers)
    }

    /// Wakes sleepers until there are none.
    fn run(&self) {
        let mut sleepers = self.lock();
        while let Some((&(at, id), _)) = sleepers.wakers.first_key_value() {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let waker = sleepers.wakers.remove(&(at, id));
                drop(sleepers);
                wake_all(waker);
                sleepers = self.lock();
            } else {
                let waited = self.changed.wait_timeout(sleepers, left);
                sleepers = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        sleepers.is_running = false;
    }
}

static CLOCK: PerProcess<Clock> = PerProcess::first(Clock::new());

fn clock() -> &'static Clock {
    CLOCK.get(Clock::default)
}

/// A place among the sleepers, given up when dropped.
struct Bed(Instant, u64);

impl Drop for Bed {
    fn drop(&mut self) {
        let waker = clock().lock().wakers.remove(&(self.0, self.1));
        drop(waker);
    }
}

/// Nobody sleeps longer: past the end of the clock there is no time to wake at.
const SLEEP_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Sleeps without blocking the thread. Where no thread is to be had that could wake it, it blocks.
pub(crate) async fn sleep(duration: Duration) {
    let until = Instant::now() + duration.min(SLEEP_MAX);
    let mut bed: Option<Bed> = None;
    poll_fn(|context| {
        if Instant::now() >= until {
            return Poll::Ready(());
        }
        let clock = clock();
        let waker = context.waker().clone();
        let mut sleepers = clock.lock();
        // The same bed at each poll: making another would clear this one away.
        let Bed(_, id) = *bed.get_or_insert_with(|| {
            sleepers.next_id += 1;
            Bed(until, sleepers.next_id)
        });
        let former = sleepers.wakers.insert((until, id), waker);
        let is_running = std::mem::replace(&mut sleepers.is_running, true);
        drop(sleepers);
        drop(former);
        if is_running {
            clock.changed.notify_one();
        } else if spawn(|| self::clock().run()).is_err() {
            clock.lock().is_running = false;
            thread::sleep(until.saturating_duration_since(Instant::now()));
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

fn spawn(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name("persist-cache".into()).spawn(work).map(drop)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a thread of the pool does for a task.
struct Errand<T> {
    result: Option<thread::Result<T>>,
    waker: Option<Waker>,
}

/// Does `work` on a thread of the [`pool`], so that it may block; here, where this is one of them, or none
/// is to be had. Once begun, or in the pool's queue, it goes on to its end though the task is dropped.
pub(crate) async fn offload<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    if pool::is_here() {
        return work();
    }
    let errand = Arc::new(Mutex::new(Errand { result: None, waker: None }));
    let theirs = Arc::clone(&errand);
    pool::submit(Box::new(move || {
        let result = catch_unwind(AssertUnwindSafe(work));
        let waker = {
            let mut errand = lock(&theirs);
            errand.result = Some(result);
            errand.waker.take()
        };
        wake_all(waker);
    }))
    .await;
    let result = poll_fn(|context| {
        let waker = context.waker().clone();
        let mut errand = lock(&errand);
        if let Some(result) = errand.result.take() {
            return Poll::Ready(result);
        }
        let former = errand.waker.replace(waker);
        drop(errand);
        drop(former);
        Poll::Pending
    });
    result.await.unwrap_or_else(|panic| resume_unwind(panic))
}

#[cfg(test)]
mod tests {
    use super::{offload, sleep};
    use futures_lite::future::{block_on, poll_once};
    use std::pin::pin;
    use std::time::{Duration, Instant};

    #[test]
    fn a_sleeper_is_woken_however_often_it_was_polled() {
        block_on(async {
            let start = Instant::now();
            let mut sleeper = pin!(sleep(Duration::from_millis(50)));
            for _ in 0..3 {
                assert!(poll_once(sleeper.as_mut()).await.is_none());
            }
            sleeper.await;
            assert!(start.elapsed() >= Duration::from_millis(50));
        });
    }

    #[test]
    fn sleepers_wake_at_their_time_and_leave_without_trace() {
        let start = Instant::now();
        let sleep_for = |millis| move || block_on(sleep(Duration::from_millis(millis)));
        let sleepers =
            [30_u64, 10, 20].map(|millis| (millis, std::thread::spawn(sleep_for(millis))));
        // One that is given up keeps nobody waiting.
        assert!(block_on(poll_once(pin!(sleep(Duration::from_secs(3600))))).is_none());
        for (millis, thread) in sleepers {
            thread.join().unwrap();
            assert!(start.elapsed() >= Duration::from_millis(millis));
        }
    }

    #[test]
    fn an_errand_brings_its_result_or_its_panic() {
        assert_eq!(block_on(offload(|| 7)), 7);
        let panics = || block_on(offload(|| -> u8 { panic!("on an errand") }));
        assert!(std::panic::catch_unwind(panics).is_err());
    }
}
