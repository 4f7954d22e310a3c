//! Caches in use while a thread ends, from destructors of thread-local values, and while the process ends,
//! from `atexit`: whatever was destroyed before. A panic there is the process's end.
#![allow(missing_docs)]

mod common;

use common::{Dir, finish, role, spawn};
use persist_cache::{Cached, CachedIter, MmapCache, cache};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};

static PLACE: OnceLock<PathBuf> = OnceLock::new();

#[cache(path = PLACE.get().expect("set").join("lengths.pcache"))]
fn length(text: &str) -> usize {
    text.len()
}

fn open(place: &Path) -> MmapCache {
    MmapCache::options().root(place).open("endings").expect("the cache opens")
}

/// What waits without thread-local values of its own.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
        std::thread::yield_now();
    }
}

/// Asks of the cache all that can be asked, with keys of this round.
fn use_all(cache: &MmapCache, round: u64) {
    let texts = vec![round.to_string(), "x".repeat(100)];
    let table = cache.table::<u64, Vec<String>>("texts");
    let inserted = table.insert(&round, &texts).expect("insert");
    assert_eq!(Cached::into_owned(inserted), texts);
    table.insert_many((0..300).map(|n| (round * 1000 + n, texts.clone()))).expect("insert_many");
    assert!(table.get_many(&[round * 1000, round]).expect("get_many").iter().all(Option::is_some));
    assert!(table.remove(&(round * 1000)).expect("remove"));

    let double = cache.memoize_as("double", |n: &u64| n * 2);
    for _ in 0..2 {
        assert_eq!(*double.call(&round), round * 2, "a miss, then a hit");
        assert_eq!(length(&texts[1][..round as usize]), round as usize);
        let items = cache.memoize_iter_as("items", |n: &u64| (0..*n).map(|n| n.to_string()));
        assert_eq!(items.call(&(round + 5)).count(), round as usize + 5);
        // So large that another thread stores it.
        let large = cache.memoize_async_as("large", async |n: &u64| vec![*n; 100_000]);
        assert_eq!(block_on(large.call(&round)).len(), 100_000);
    }
    let nothing = MmapCache::disabled().table::<u64, Vec<String>>("none");
    assert_eq!(Cached::into_owned(nothing.insert(&1, &texts).expect("no file")), texts);
    cache.flush().expect("flush");
    cache.sync().expect("sync");
    cache.compact().expect("compact");
    assert_eq!(cache.verify().expect("verify").findings, []);
    assert_eq!(cache.stats().store_errors, 0);
}

/// What a thread leaves behind: a cache, and values and items of it that go on being read.
struct Leftover {
    cache: MmapCache,
    place: PathBuf,
    round: u64,
    value: Option<Cached<Vec<String>>>,
    items: [Box<dyn Iterator<Item = String>>; 2],
}

impl Leftover {
    fn new(place: &Path, round: u64) -> Leftover {
        Leftover {
            cache: open(place),
            place: place.to_path_buf(),
            round,
            value: None,
            items: [Box::new(std::iter::empty()), Box::new(std::iter::empty())],
        }
    }

    /// Has it hold what it can.
    fn fill(&mut self) {
        let table = self.cache.table::<u64, Vec<String>>("held");
        self.value = Some(table.insert(&self.round, &vec!["held".to_owned()]).expect("insert"));
        self.items = [false, true].map(|is_stored| {
            let name = format!("{} {is_stored}", self.round);
            let items = self.cache.memoize_iter_as(&name, |n: &u64| (0..*n).map(|n| n.to_string()));
            if is_stored {
                assert_eq!(items.call(&9).count(), 9);
            }
            let mut items: CachedIter<_, _> = items.call(&9);
            assert_eq!(items.next().as_deref(), Some("0"));
            Box::new(items) as Box<dyn Iterator<Item = String>>
        });
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            assert_eq!(value[0].as_str(), "held");
            assert_eq!(Cached::into_owned(value.clone()), ["held"]);
            assert_eq!(self.items.each_mut().map(|items| items.count()), [8, 8]);
        }
        use_all(&self.cache, self.round);
        std::fs::write(self.place.join(self.round.to_string()), "").expect("a note");
    }
}

thread_local! {
    static FIRST: RefCell<Option<Leftover>> = const { RefCell::new(None) };
    static LAST: RefCell<Option<Leftover>> = const { RefCell::new(None) };
}

/// Leaves two behind that are destroyed as the thread ends: one registered before the thread uses a cache,
/// and one after; so that one of them is destroyed when whatever the library keeps for the thread is gone,
/// and the other one when nothing is.
fn leave_behind(place: &Path, uses: bool) {
    FIRST.set(Some(Leftover::new(place, 1)));
    if uses {
        FIRST.with_borrow_mut(|first| first.as_mut().expect("set").fill());
        use_all(&open(place), 3);
    }
    LAST.set(Some(Leftover::new(place, 2)));
    if uses {
        LAST.with_borrow_mut(|last| last.as_mut().expect("set").fill());
    }
}

extern "C" fn at_exit() {
    let place = PLACE.get().expect("set");
    drop(Leftover::new(place, 4));
}

#[expect(unsafe_code, reason = "std registers no function to be called at exit")]
fn register_at_exit() {
    // SAFETY: the function is there for as long as the process.
    assert_eq!(unsafe { libc::atexit(at_exit) }, 0);
}

#[test]
fn caches_are_used_while_threads_and_the_process_end() {
    const TEST: &str = "caches_are_used_while_threads_and_the_process_end";
    let Some((role, place)) = role() else {
        for (role, notes) in [
            ("used before", &[1, 2][..]),
            ("used in destructors alone", &[1, 2]),
            ("at exit, used before", &[1, 2, 4]),
            ("at exit, used there alone", &[4]),
        ] {
            let dir = Dir::new();
            finish(spawn(TEST, role, dir.path()));
            for note in notes {
                assert!(dir.join(&note.to_string()).exists(), "{role}: {note} came to its end");
            }
        }
        return;
    };
    PLACE.set(place.clone()).expect("set once");
    match &*role {
        "used before" | "used in destructors alone" => {
            let uses = role == "used before";
            std::thread::spawn(move || leave_behind(&place, uses)).join().expect("no panic");
        }
        _ => {
            register_at_exit();
            if role == "at exit, used before" {
                leave_behind(&place, true);
            }
            // From this thread, whose values are destroyed before the function is called.
            std::process::exit(0);
        }
    }
}
