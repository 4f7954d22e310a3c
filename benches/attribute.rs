//! What `#[cache]`, claims and recorded iterators cost: a hit through the attribute beside
//! `Memoized::call`; claiming a key on a miss beside two bare pairs of file lock and unlock; a million
//! items replayed beside the same in an archived `Vec`, and recorded beside a plain loop.
#![allow(missing_docs)]

mod common;

use common::{HOT, compare, directory, open};
use persist_cache::{MmapCache, cache};
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

static ROOT: OnceLock<PathBuf> = OnceLock::new();

fn root() -> PathBuf {
    ROOT.get().expect("main sets it").clone()
}

#[cache(root = root())]
fn next(n: u64) -> u64 {
    n + 1
}

#[cache(root = root())]
fn next_of<T: Into<u64> + persist_cache::CacheKey>(n: T) -> u64 {
    n.into() + 1
}

#[cache(root = root())]
async fn next_async(n: u64) -> u64 {
    n + 1
}

fn hits(cache: &MmapCache) {
    const ROUNDS: u64 = 2000;
    let memo = cache.memoize(|n: &u64| n + 1);
    let each = |call: &dyn Fn(u64) -> u64| {
        for n in 0..HOT * ROUNDS {
            black_box(call(black_box(n % HOT)));
        }
    };
    let yardstick = || {
        for n in 0..HOT * ROUNDS {
            black_box(*memo.call(black_box(&(n % HOT))));
        }
    };
    let own = || {
        for n in 0..HOT * ROUNDS {
            black_box(next(black_box(n % HOT)));
        }
    };
    let yardstick = ("Memoized::call", yardstick);
    compare("hit through #[cache] fn f(u64) -> u64", HOT * ROUNDS, ("own", own), yardstick);
    compare("of a generic function", HOT * ROUNDS, ("own", || each(&|n| next_of(n))), yardstick);
    let asynchronous = || each(&|n| futures_lite::future::block_on(next_async(n)));
    compare(
        "of an async function, with its block_on",
        HOT * ROUNDS,
        ("own", asynchronous),
        yardstick,
    );
}

fn claims() {
    const MISSES: u64 = 20_000;
    let dir = directory();
    let claiming = open(&dir, "claims");
    let options = MmapCache::options().root(dir.path()).claim_timeout(Duration::ZERO);
    let free = options.open("free").expect("a cache opens");
    let lock = std::fs::File::create(dir.path().join("lock")).expect("a file to lock");
    // The keys go on from round to round, so that each call is a miss.
    let keys = std::cell::Cell::new(0);
    let misses = |cache: &MmapCache| {
        let memo = cache.memoize(|n: &u64| n + 1);
        for _ in 0..MISSES {
            keys.set(keys.get() + 1);
            black_box(*memo.call(&keys.get()));
        }
    };
    let (with, without) = (|| misses(&claiming), || misses(&free));
    let ratio = compare("miss with a claim", MISSES, ("own", with), ("without", without));
    let pairs = || {
        for _ in 0..2 * MISSES {
            fs4::FileExt::lock(&lock).expect("lock");
            fs4::FileExt::unlock(&lock).expect("unlock");
        }
    };
    let share =
        compare("miss without a claim", MISSES, ("own", without), ("two lock pairs", pairs));
    println!("{:<44} {:.2} of two lock pairs", "what a claim adds", (ratio - 1.0) * share);
}

fn items() {
    const ITEMS: u64 = 1_000_000;
    let dir = directory();
    let cache = open(&dir, "items");
    let items = cache.memoize_iter(|count: &u64| (0..*count).map(common::mix));
    let whole = cache.memoize(|count: &u64| (0..*count).map(common::mix).collect::<Vec<u64>>());
    assert_eq!(items.call(&ITEMS).count() as u64, ITEMS);
    let archived = whole.call(&ITEMS);
    let own = || items.call(&ITEMS).for_each(|item| _ = black_box(item));
    let yardstick = || archived.iter().for_each(|item| _ = black_box(item.to_native()));
    let yardstick = ("archived Vec", yardstick);
    compare("replaying 1,000,000 items, each", ITEMS, ("own", own), yardstick);
    let looped = || {
        for item in items.call(&ITEMS) {
            black_box(item);
        }
    };
    let yardstick = || {
        for item in archived.iter() {
            black_box(item.to_native());
        }
    };
    let yardstick = ("archived Vec", yardstick);
    compare("the same in a `for` loop", ITEMS, ("own", looped), yardstick);
    let record = || {
        items.forget(&ITEMS).expect("forget");
        items.call(&ITEMS).for_each(|item| _ = black_box(item));
    };
    let plain = || (0..ITEMS).map(common::mix).for_each(|item| _ = black_box(item));
    compare("recording them, each", ITEMS, ("own", record), ("plain loop", plain));
}

fn main() {
    let dir = directory();
    ROOT.set(dir.path().to_path_buf()).expect("set once");
    hits(&open(&dir, "memoized"));
    claims();
    items();
}
