//! Archives that are not valid: of types whose own rkyv implementation, all of it safe code, archives what is
//! no value of theirs, and of values that are nested too deep. Nobody accesses them, and they do not pile up.
#![allow(missing_docs)]
#![forbid(unsafe_code)]

mod common;

use common::Dir;
use futures_lite::StreamExt as _;
use futures_lite::future::block_on;
use persist_cache::rkyv::rancor::Fallible;
use persist_cache::rkyv::ser::Writer;
use persist_cache::rkyv::vec::{ArchivedVec, VecResolver};
use persist_cache::rkyv::{self, Archive, Deserialize, Place, Serialize};
use persist_cache::{CacheValue, Cached, Error, MmapCache, Stats, Table, cache};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::LazyLock;

/// Archives a slice of a MiB, of which it writes nothing; or of no bytes, which is true.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Slice {
    is_honest: bool,
}

const LIE: Slice = Slice { is_honest: false };
const TRUTH: Slice = Slice { is_honest: true };

impl Archive for Slice {
    type Archived = ArchivedVec<u8>;
    type Resolver = VecResolver;

    fn resolve(&self, resolver: VecResolver, out: Place<ArchivedVec<u8>>) {
        let len = if self.is_honest { 0 } else { 1 << 20 };
        ArchivedVec::resolve_from_len(len, resolver, out);
    }
}

impl<S: Fallible + Writer + ?Sized> Serialize<S> for Slice {
    fn serialize(&self, serializer: &mut S) -> Result<VecResolver, S::Error> {
        Ok(VecResolver::from_pos(serializer.pos()))
    }
}

impl<D: Fallible + ?Sized> Deserialize<Slice, D> for ArchivedVec<u8> {
    fn deserialize(&self, _: &mut D) -> Result<Slice, D::Error> {
        assert!(self.is_empty(), "a slice of {} bytes is accessed", self.len());
        Ok(TRUTH)
    }
}

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(serialize_bounds(__S: Writer))]
#[rkyv(deserialize_bounds(__D::Error: rkyv::rancor::Source))]
#[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)))]
struct Nested(#[rkyv(omit_bounds)] Option<Box<Nested>>);

fn nested(depth: usize) -> Nested {
    (0..depth).fold(Nested(None), |inner, _| Nested(Some(Box::new(inner))))
}

fn depth_of(nested: &ArchivedNested) -> usize {
    std::iter::successors(Some(nested), |nested| nested.0.as_ref().map(|inner| &**inner)).count()
        - 1
}

/// As many pointers within each other as may be.
const DEEPEST: usize = 1024;

/// All that a file's log has ever held.
fn log_of(stats: &Stats) -> u64 {
    stats.live_bytes + stats.dead_bytes
}

fn assert_invalid<T>(result: Result<T, Error>) {
    let error = result.map(drop).expect_err("no valid archive");
    assert!(matches!(&error, Error::Invalid { depth_max: DEEPEST, .. }), "{error:?}");
    assert!(error.to_string().contains("1024"), "{error}");
}

/// What is not valid is stored by no way of storing.
fn refuses<V: CacheValue + Clone>(cache: &MmapCache, good: V, bad: V) {
    let table: Table<u64, V> = cache.table("values");
    assert_invalid(table.insert(&1, &bad));
    assert_invalid(table.insert_many([(2, good.clone()), (3, bad.clone())]));
    assert!(table.get_many(&[1, 2, 3]).unwrap().iter().all(Option::is_none));
    assert_eq!(log_of(&cache.stats()), 0, "nor is anything written");
    drop(table.insert(&1, &good).unwrap());
    assert_invalid(table.insert(&1, &bad));
    let is_kept = table.get(&1).unwrap().is_some();
    assert_eq!(is_kept, cache.stats().entries == 1, "what was there is there");
}

#[test]
fn tables_refuse_what_is_not_valid() {
    let dir = Dir::new();
    let open = |name: &str| dir.open(name);
    refuses(&open("slices"), TRUTH, LIE);
    refuses(&MmapCache::disabled(), TRUTH, LIE);
    let copying = MmapCache::options().root(dir.path()).copy_reads().open("copied").unwrap();
    refuses(&copying, TRUTH, LIE);
}

#[test]
fn nesting_has_a_limit_that_is_the_same_wherever_it_is_checked() {
    let dir = Dir::new();
    let cache = dir.open("nested");
    let table: Table<u64, Nested> = cache.table("values");
    assert_eq!(depth_of(&table.insert(&1, &nested(DEEPEST)).unwrap()), DEEPEST);
    assert_invalid(table.insert(&2, &nested(DEEPEST + 1)));
    assert_invalid(table.insert_many([(2, nested(DEEPEST + 1))]));
    assert_invalid(MmapCache::disabled().table("values").insert(&2_u64, &nested(DEEPEST + 1)));
    // Another process checks what this one has stored.
    let copying = MmapCache::options().root(dir.path()).copy_reads().open("nested").unwrap();
    let found = copying.table::<u64, Nested>("values").get(&1).unwrap().expect("it is admitted");
    assert_eq!(depth_of(&found), DEEPEST);
    drop(Cached::into_owned(found));
    assert!(table.get(&2).unwrap().is_none());
}

static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory").keep()
});

#[cache(path = ROOT.join("slice.pcache"))]
fn slice(_: u64) -> Slice {
    LIE
}

#[cache(path = ROOT.join("slice_async.pcache"))]
async fn slice_async(_: u64) -> Slice {
    LIE
}

#[cache(path = ROOT.join("deep.pcache"))]
fn deep(depth: usize) -> Nested {
    nested(depth)
}

#[cache(path = ROOT.join("slices.pcache"))]
fn slices(count: u64) -> impl Iterator<Item = Slice> {
    std::iter::repeat_n(LIE, count as usize)
}

#[cache(path = ROOT.join("deeps.pcache"))]
fn deeps(depth: usize) -> impl Iterator<Item = Nested> {
    [nested(1), nested(depth), nested(2)].into_iter()
}

/// A function that returns the value itself is not kept waiting for a check; what turns out to be refused is
/// not stored again.
#[test]
fn calls_return_what_they_compute_and_store_no_refused_archive_again() {
    let grows = |call: &dyn Fn(), stats: &dyn Fn() -> Stats, stored: u64| {
        call();
        let first = stats();
        assert_eq!((first.entries, first.store_errors), (stored, 1 - stored));
        for n in 1..5 {
            call();
            let then = stats();
            assert_eq!(log_of(&then), log_of(&first), "call {n} stores nothing");
            assert_eq!(then.store_errors, first.store_errors + n, "and says so");
            assert_eq!((then.hits, then.misses), (0, n + 1));
        }
    };
    grows(&|| assert_eq!(slice(1), LIE), &slice::stats, 1);
    grows(&|| assert_eq!(block_on(slice_async(1)), LIE), &slice_async::stats, 1);
    grows(&|| drop(deep(DEEPEST + 1)), &deep::stats, 0);
    grows(&|| assert_eq!(slices(3).collect::<Vec<_>>(), [LIE; 3]), &slices::stats, 1);
    grows(&|| assert_eq!(deeps(DEEPEST + 1).count(), 3), &deeps::stats, 0);
    assert_eq!(deeps(DEEPEST).count(), 3);
    assert_eq!((deeps(DEEPEST).count(), deeps::stats().hits), (3, 1));
}

#[test]
fn a_result_that_is_read_in_place_is_checked_before_it_is_stored() {
    let dir = Dir::new();
    let cache = dir.open("results");
    let refuses = |call: &dyn Fn()| {
        let before = cache.stats();
        for _ in 0..2 {
            let panic = catch_unwind(AssertUnwindSafe(call)).expect_err("there is nothing to read");
            let text = panic.downcast_ref::<String>().expect("a message");
            assert!(text.contains("not valid") && text.contains("1024"), "{text}");
        }
        let after = cache.stats();
        assert_eq!((log_of(&after), after.entries), (log_of(&before), before.entries));
        assert_eq!(after.store_errors, before.store_errors + 2);
    };
    let slice = cache.memoize(|_: &u64| LIE);
    refuses(&|| drop(slice.call(&1)));
    let slice = cache.memoize_async(async |_: &u64| LIE);
    refuses(&|| drop(block_on(slice.call(&1))));
    let deep = cache.memoize(|depth: &usize| nested(*depth));
    refuses(&|| drop(deep.call(&(DEEPEST + 1))));
    assert_eq!(depth_of(&deep.call(&DEEPEST)), DEEPEST);
    assert!(catch_unwind(|| MmapCache::disabled().memoize(|_: &u64| LIE).call(&1)).is_err());
}

/// What is stored unchecked is checked by the process that stored it, too, when it first accesses it.
#[test]
fn what_this_process_stored_it_does_not_access_unchecked() {
    let dir = Dir::new();
    let cache = dir.open("items");
    let items = cache.memoize_iter(|_: &u64| [TRUTH, LIE, TRUTH]);
    assert_eq!(items.call(&1).count(), 3);
    assert_eq!(cache.stats().entries, 1, "recorded as they passed");
    assert_eq!(items.call(&1).collect::<Vec<_>>(), [TRUTH, LIE, TRUTH], "computed anew");
    let stream = cache.memoize_stream(|_: &u64| futures_lite::stream::iter([LIE, TRUTH]));
    for _ in 0..2 {
        assert_eq!(block_on(stream.call(&1).collect::<Vec<_>>()), [LIE, TRUTH]);
    }
}
