//! Async calls among hostile executors, held locks and moved files: no poll waits, and no waker of
//! anybody's runs under a lock.
#![allow(missing_docs)]

mod common;

use common::{Dir, finish, role, spawn};
use futures_lite::StreamExt as _;
use futures_lite::future::block_on;
use persist_cache::rkyv::rancor::Fallible;
use persist_cache::rkyv::rend::u64_le;
use persist_cache::rkyv::{Archive, Deserialize, Place, Serialize};
use persist_cache::{AsyncMemoized, MmapCache, cache};
use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::future::Future;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, Once, OnceLock, mpsc};
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
    static TABLE: RawWakerVTable =
        RawWakerVTable::new(clone, |data| drop(own(data)), |_| {}, drop_);
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

/// The file at the cache's path, locked, as another process would lock it.
fn locked(cache: &MmapCache) -> File {
    let file = OpenOptions::new().read(true).write(true).open(cache.path()).unwrap();
    fs4::FileExt::lock(&file).unwrap();
    file
}

/// Puts a copy of the file in place of it that nobody may trust before it has its lock, which is held.
fn replaced(cache: &MmapCache, dir: &Dir) -> impl FnOnce() -> File {
    let copy = dir.join("copy");
    std::fs::copy(cache.path(), &copy).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&copy).unwrap();
    fs4::FileExt::lock(&file).unwrap();
    let path = cache.path().to_path_buf();
    move || {
        std::fs::rename(copy, path).unwrap();
        thread::sleep(Duration::from_millis(150)); // A miss looks at the path by then.
        file
    }
}

/// Each poll returns while the lock is held that the call cannot go on without: if one waited for it, this
/// would not end, since the lock is given back when the polls have returned.
#[test]
fn no_poll_waits_for_a_lock_or_a_file() {
    let dir = Dir::new();
    let cache = open(&dir);
    let small = cache.memoize_async_as("small", async |n: &u64| *n);
    let large = cache.memoize_async_as("large", async |n: &u64| vec![*n as u8; 100_000]);
    block_on(async {
        let mut held = locked(&cache);
        for round in 1..3 {
            let (mut one, mut other) = (Box::pin(small.call(&round)), Box::pin(large.call(&round)));
            for _ in 0..20 {
                assert!(poll(&mut one).is_pending() && poll(&mut other).is_pending());
                thread::sleep(Duration::from_millis(1));
            }
            drop(held);
            assert_eq!((one.await.to_native(), other.await.len()), (round, 100_000));
            assert!(small.peek(&round).is_some() && large.peek(&round).is_some());
            // The next time it is another file, which has to be recovered first.
            held = replaced(&cache, &dir)();
        }
    });
    assert_eq!(cache.stats().store_errors, 0);
}

/// The same of a refresh.
#[test]
fn no_poll_of_a_refresh_waits() {
    use persist_cache::cache;
    static PATH: OnceLock<std::path::PathBuf> = OnceLock::new();
    static RUNS: AtomicU32 = AtomicU32::new(0);
    #[cache(path = PATH.get().unwrap().clone())]
    async fn runs() -> u32 {
        RUNS.fetch_add(1, Ordering::Relaxed)
    }
    watch();
    let dir = Dir::new();
    PATH.set(dir.join("refresh")).unwrap();
    block_on(async {
        assert_eq!((runs().await, runs().await), (0, 0));
        let held = locked(&runs::cache());
        let mut refresh = Box::pin(runs::refresh());
        for _ in 0..20 {
            assert!(poll(&mut refresh).is_pending());
            thread::sleep(Duration::from_millis(1));
        }
        drop(held);
        assert_eq!((refresh.await, runs().await), (1, 1));
    });
}

/// A stream's creation waits for nothing either: what is stored in a file that is not open yet is looked for
/// when the stream is polled.
#[test]
fn no_stream_waits_for_a_lock_or_a_file() {
    let dir = Dir::new();
    let cache = open(&dir);
    let (calls, items) = (AtomicU32::new(0), AtomicU32::new(0));
    let count = cache.memoize_stream_as("count", |n: &u32| {
        calls.fetch_add(1, Ordering::Relaxed);
        let item = |n| {
            items.fetch_add(1, Ordering::Relaxed);
            n
        };
        futures_lite::stream::iter(0..*n).map(item)
    });
    let all = |n: u32| Box::pin(count.call(&n).collect::<Vec<u32>>());
    block_on(async {
        assert_eq!(all(3).await, [0, 1, 2]);
        let replace = replaced(&cache, &dir);
        assert!(count.forget(&3).unwrap());
        let held = replace();
        calls.store(0, Ordering::Relaxed);
        items.store(0, Ordering::Relaxed);
        let mut stored = all(3);
        for _ in 0..20 {
            assert!(poll(&mut stored).is_pending());
            thread::sleep(Duration::from_millis(1));
        }
        drop(held);
        assert_eq!(stored.await, [0, 1, 2]);
        assert_eq!((calls.load(Ordering::Relaxed), items.load(Ordering::Relaxed)), (1, 0));
        // The same of one that is not stored: it is computed, once, and stored in the other file.
        let held = replaced(&cache, &dir)();
        let mut other = all(4);
        assert!(poll(&mut other).is_pending());
        drop(held);
        assert_eq!(other.await, [0, 1, 2, 3]);
        assert_eq!(all(4).await, [0, 1, 2, 3]);
        assert_eq!((calls.load(Ordering::Relaxed), items.load(Ordering::Relaxed)), (2, 4));
        // The next lock is one that who stores waits for.
        let held = locked(&cache);
        let mut third = all(5);
        for _ in 0..20 {
            assert!(poll(&mut third).is_pending());
            thread::sleep(Duration::from_millis(1));
        }
        drop(held);
        assert_eq!(third.await.len(), 5);
        assert_eq!((all(5).await.len(), items.load(Ordering::Relaxed)), (5, 9));
    });
    assert_eq!(cache.stats().store_errors, 0);
}

/// How many threads this library has.
#[cfg(target_os = "linux")]
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "persist-cache").count()
}

/// However many results wait to be stored, a few threads do it.
#[test]
#[cfg(target_os = "linux")]
fn a_few_threads_store_for_all_tasks() {
    let dir = Dir::new();
    let cache = open(&dir);
    let large = cache.memoize_async_as("large", async |n: &u64| vec![*n as u8; 100_000]);
    let held = locked(&cache);
    let numbers: Vec<u64> = (0..1000).collect();
    let mut calls: Vec<_> = numbers.iter().map(|n| Box::pin(large.call(n))).collect();
    for _ in 0..3 {
        assert!(calls.iter_mut().all(|call| poll(call).is_pending()));
        // Those of the pool, the one that wakes sleepers, and the one that looks after idle files.
        assert!((1..=6).contains(&threads()), "{}", threads());
    }
    drop(held);
    // Half of them are given up, at whatever they are.
    calls.truncate(500);
    block_on(async {
        for call in calls {
            assert_eq!(call.await.len(), 100_000);
        }
    });
    assert_eq!(cache.stats().store_errors, 0);
    assert!((0..500).all(|n| large.peek(&n).is_some()));
}

/// A call that is dropped while it waits for a lock or a file leaves no claim: the next one leads.
#[test]
fn a_call_dropped_while_it_waits_leaves_no_claim() {
    let dir = Dir::new();
    let cache = open(&dir);
    let runs = AtomicU32::new(0);
    let large = cache.memoize_async_as("large", async |_: &u64| {
        runs.fetch_add(1, Ordering::Relaxed);
        vec![0_u8; 100_000]
    });
    // The first call waits for the claims to be opened. (Of another key: if it comes to store, it does so though
    // it is dropped.)
    let held = locked(&cache);
    assert!(poll(&mut Box::pin(large.call(&0))).is_pending());
    drop(held);
    assert_eq!(block_on(large.call(&0)).len(), 100_000);
    runs.store(0, Ordering::Relaxed);
    let held = locked(&cache);
    for round in 1..9 {
        let mut call = Box::pin(large.call(&1));
        for _ in 0..round {
            assert!(poll(&mut call).is_pending());
        }
        drop(call);
        assert_eq!(runs.load(Ordering::Relaxed), round, "nobody was waited for");
    }
    drop(held);
    assert_eq!(block_on(large.call(&1)).len(), 100_000);
}

type Boxed = Pin<Box<dyn Future<Output = Result<u64, ()>>>>;

/// What a future calls when it is dropped.
struct Then<F: FnMut()>(F);

impl<F: FnMut()> Drop for Then<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// What makes a future, and what drops it, is called by the leader too: a call of its own waits for nobody.
#[test]
fn making_and_dropping_a_future_is_led() {
    thread_local! {
        static CACHE: RefCell<Option<MmapCache>> = const { RefCell::new(None) };
    }
    static DEPTH: AtomicU32 = AtomicU32::new(0);
    fn again() {
        if DEPTH.fetch_add(1, Ordering::Relaxed) == 0 {
            let cache = CACHE.with_borrow(|cache| cache.clone()).unwrap();
            let call = cache.try_memoize_async_as("eager", |_: &u64| async { Ok::<u64, ()>(8) });
            assert_eq!(block_on(call.call(&7)).map(|n| n.to_native()), Ok(8));
        }
    }
    let dir = Dir::new();
    let cache = open(&dir);
    CACHE.set(Some(cache.clone()));
    let eager = cache.try_memoize_async_as("eager", |_: &u64| -> Boxed {
        again();
        Box::pin(async { Ok(7) })
    });
    // The call within stored its result first.
    assert_eq!(block_on(eager.call(&7)).map(|n| n.to_native()), Ok(8));
    for is_dropped_early in [true, false] {
        cache.clear().unwrap();
        DEPTH.store(0, Ordering::Relaxed);
        let late = cache.try_memoize_async_as("eager", |_: &u64| -> Boxed {
            Box::pin(async move {
                let _then = Then(again);
                if is_dropped_early {
                    std::future::pending::<()>().await;
                }
                Ok(7)
            })
        });
        let mut call = Box::pin(late.call(&7));
        assert_eq!(poll(&mut call).is_pending(), is_dropped_early);
        drop(call);
        assert_eq!(DEPTH.load(Ordering::Relaxed), 1);
    }
}

/// A value that calls, when it is archived, the function whose result it is.
struct Asks(u64);

thread_local! {
    static ASKED: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

impl Archive for Asks {
    type Archived = u64_le;
    type Resolver = ();
    fn resolve(&self, (): (), out: Place<u64_le>) {
        out.write(self.0.into());
    }
}

impl<S: Fallible + ?Sized> Serialize<S> for Asks {
    fn serialize(&self, _: &mut S) -> Result<(), S::Error> {
        if let Some(ask) = ASKED.take() {
            ask();
        }
        Ok(())
    }
}

impl<D: Fallible + ?Sized> Deserialize<Asks, D> for u64_le {
    fn deserialize(&self, _: &mut D) -> Result<Asks, D::Error> {
        Ok(Asks(self.to_native()))
    }
}

/// So is archiving its result.
#[test]
fn archiving_a_result_is_led() {
    let dir = Dir::new();
    let cache = open(&dir);
    let inner = cache.clone();
    let call = move || {
        let asks = inner.memoize_as("asks", |n: &u64| Asks(n + 1));
        assert_eq!(asks.call(&1).to_native(), 2);
    };
    ASKED.set(Some(Box::new(call.clone())));
    call();
    cache.clear().unwrap();
    ASKED.set(Some(Box::new(call)));
    let asks: AsyncMemoized<u64, Asks, _> =
        cache.memoize_async_as("asks", async |n: &u64| Asks(n + 1));
    assert_eq!(block_on(asks.call(&1)).to_native(), 2);
}

/// How many openings wait at the gate, and whether it is open.
static GATE: (Mutex<(u32, bool)>, Condvar) = (Mutex::new((0, false)), Condvar::new());

fn root() -> PathBuf {
    role().expect("only in a process of its own").1
}

/// An expression of the user's that takes its time: until the gate is open.
fn gated_root() -> PathBuf {
    let mut gate = GATE.0.lock().unwrap();
    gate.0 += 1;
    GATE.1.notify_all();
    drop(GATE.1.wait_while(gate, |gate| !gate.1).unwrap());
    root()
}

macro_rules! gated {
    ($($name:ident),*) => {$(
        #[cache(root = gated_root())]
        async fn $name(n: u64) -> u64 {
            n
        }
    )*};
}
gated!(first, second, third, fourth);

#[cache(root = root())]
async fn dropped_at_first(n: u64) -> u64 {
    n + 1
}

/// A first call that is dropped while it waits for a thread keeps no other from opening the function's cache.
#[test]
fn a_first_call_that_is_dropped_keeps_none_from_opening() {
    const TEST: &str = "a_first_call_that_is_dropped_keeps_none_from_opening";
    if role().is_none() {
        let dir = Dir::new();
        return drop(finish(spawn(TEST, "alone", dir.path())));
    }
    let dir = Dir::new();
    let bytes = dir.open("bytes").memoize_async(async |n: &u64| vec![*n as u8; 100_000]);
    let mut openings: Vec<Pin<Box<dyn Future<Output = u64>>>> =
        vec![Box::pin(first(1)), Box::pin(second(1)), Box::pin(third(1)), Box::pin(fourth(1))];
    openings.iter_mut().for_each(|call| assert!(poll(call).is_pending()));
    // All threads of the pool are at it, and then its queue is full.
    drop(GATE.1.wait_while(GATE.0.lock().unwrap(), |gate| gate.0 < 4).unwrap());
    let keys: Vec<u64> = (0..64).collect();
    let mut stores: Vec<_> = keys.iter().map(|n| Box::pin(bytes.call(n))).collect();
    stores.iter_mut().for_each(|call| assert!(poll(call).is_pending()));
    assert!(poll(&mut Box::pin(dropped_at_first(1))).is_pending(), "it waits for a place");
    GATE.0.lock().unwrap().1 = true;
    GATE.1.notify_all();
    openings.into_iter().for_each(|call| assert_eq!(block_on(call), 1));
    stores.into_iter().for_each(|call| assert_eq!(block_on(call).len(), 100_000));
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || done.send(block_on(dropped_at_first(2))));
    assert_eq!(is_done.recv_timeout(Duration::from_secs(60)), Ok(3));
}
