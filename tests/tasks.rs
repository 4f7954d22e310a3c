//! Async calls among hostile executors, held locks and moved files: no poll waits, and no waker of
//! anybody's runs under a lock.
#![allow(missing_docs)]

mod common;

use common::Dir;
use futures_lite::future::block_on;
use persist_cache::MmapCache;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};
use std::thread;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(3600);

/// Ends this program if it takes a hundred times as long as it should: then somebody waits for ever.
fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        drop(thread::spawn(|| {
            thread::sleep(Duration::from_secs(300));
            eprintln!("somebody waits for ever");
            std::process::abort();
        }))
    });
}

fn open(dir: &Dir) -> MmapCache {
    watch();
    let options = MmapCache::options().root(dir.path()).claim_timeout(LONG).lock_timeout(LONG);
    options.open("tasks").unwrap()
}

/// Polls once, for nobody.
fn poll<F: Future + ?Sized>(future: &mut Pin<Box<F>>) -> Poll<F::Output> {
    future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

type Hook = Mutex<Box<dyn FnMut() + Send>>;

/// A waker that calls a function of the executor's whenever it is cloned or dropped.
#[expect(unsafe_code, reason = "only a table of functions makes a waker whose clones run code")]
fn hooked(hook: Arc<Hook>) -> Waker {
    static TABLE: RawWakerVTable = RawWakerVTable::new(clone, |data| drop(own(data)), |_| {}, drop_);
    fn own(data: *const ()) -> Arc<Hook> {
        // SAFETY: the pointer is of `Arc::into_raw` in `clone` or `hooked`, and this one is given up.
        unsafe { Arc::from_raw(data.cast()) }
    }
    fn call(hook: &Hook) {
        if let Ok(mut hook) = hook.try_lock() {
            hook();
        }
    }
    fn clone(data: *const ()) -> RawWaker {
        let hook = std::mem::ManuallyDrop::new(own(data));
        call(&hook);
        RawWaker::new(Arc::into_raw(Arc::clone(&hook)).cast(), &TABLE)
    }
    fn drop_(data: *const ()) {
        call(&own(data));
    }
    let raw = RawWaker::new(Arc::into_raw(hook).cast(), &TABLE);
    // SAFETY: the table's functions keep the count of the `Arc`, and may be called by any thread.
    unsafe { Waker::from_raw(raw) }
}

/// An executor may do anything when it clones or drops a waker: here it polls other calls, that wait at the
/// same places.
#[test]
fn wakers_are_touched_under_no_lock() {
    let dir = Dir::new();
    let cache = open(&dir);
    let slow = cache.memoize_async_as("slow", async |_: &u64| std::future::pending::<u64>().await);
    let slow = Arc::new(slow);
    let call = || -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let slow = Arc::clone(&slow);
        Box::pin(async move { drop(slow.call(&1).await) })
    };
    let mut leader = call();
    assert!(poll(&mut leader).is_pending());
    let calls = Arc::new(AtomicU32::new(0));
    let mut others: Vec<_> = (0..64).map(|_| call()).collect();
    let hook: Box<dyn FnMut() + Send> = {
        let calls = Arc::clone(&calls);
        Box::new(move || {
            calls.fetch_add(1, Ordering::Relaxed);
            if let Some(mut other) = others.pop() {
                assert!(poll(&mut other).is_pending());
            }
        })
    };
    let waker = hooked(Arc::new(Mutex::new(hook)));
    let mut other = call();
    for _ in 0..4 {
        assert!(other.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(other);
    assert!(calls.load(Ordering::Relaxed) >= 4);
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("an executor that is gone");
    }
}

/// A waker that panics keeps the tasks behind it from nothing.
#[test]
fn a_waker_that_panics_harms_nobody_else() {
    let dir = Dir::new();
    let cache = open(&dir);
    let is_dropped = AtomicU32::new(0);
    let slow = cache.memoize_async_as("slow", async |n: &u64| {
        if is_dropped.load(Ordering::Relaxed) == 0 {
            std::future::pending::<()>().await;
        }
        n + 1
    });
    let mut leader = Box::pin(slow.call(&1));
    assert!(poll(&mut leader).is_pending());
    let mut first = pin!(slow.call(&1));
    let panics = Waker::from(Arc::new(Panics));
    assert!(first.as_mut().poll(&mut Context::from_waker(&panics)).is_pending());
    thread::scope(|scope| {
        let (begun, is_begun) = std::sync::mpsc::channel();
        let (slow, cache) = (&slow, &cache);
        scope.spawn(move || {
            block_on(async {
                let mut call = pin!(slow.call(&1));
                assert!(futures_lite::future::poll_once(&mut call).await.is_none());
                begun.send(()).unwrap();
                assert_eq!(*call.await, 2);
                assert_eq!(cache.stats().entries, 1);
            });
        });
        is_begun.recv().unwrap();
        is_dropped.store(1, Ordering::Relaxed);
        drop(leader);
    });
}
