//! What is done on a task's own thread, and what is not: a probe sees the effects of this thread alone.

use super::stranger::forget_provenance;
use super::{SCOPE, assert_sound, entry, get, location, open, put};
use crate::MmapCache;
use crate::engine::file::deadline::Deadline;
use crate::engine::file::effort::Effort;
use crate::engine::file::open::Location;
use crate::engine::format::header::{PROVENANCE, word};
use crate::engine::format::slot::{Slot, Tag};
use crate::engine::log::op::LARGE;
use crate::engine::os::effect::{Effect, watch};
use crate::engine::store::Store;
use crate::engine::store::put::{PutCondition, PutProgress};
use crate::error::Error;
use futures_lite::future::block_on;
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

/// Does `work`, and says how many effects that this thread had meanwhile were of a kind.
fn count<T>(is_one: fn(&Effect<'_>) -> bool, work: impl FnOnce() -> T) -> (T, u32) {
    let count = Rc::new(Cell::new(0));
    let counted = Rc::clone(&count);
    let probe = move |effect: Effect<'_>| {
        counted.set(counted.get() + u32::from(is_one(&effect)));
        Ok(())
    };
    let result = watch(probe, work);
    (result, count.get())
}

fn is_change(effect: &Effect<'_>) -> bool {
    !matches!(effect, Effect::Read | Effect::Map { .. })
}

/// Puts as a task does, under a condition that no second record of the key would meet.
fn put_as_task(store: &Arc<Store>, key: u64) {
    let condition = PutCondition::Mend(Store::token(&store.open_file().unwrap()));
    let attempt = move |store: &Store, effort, progress: &mut PutProgress| {
        store.try_put(&entry(key, b"a task's"), &SCOPE, condition, effort, progress)
    };
    assert!(block_on(store.put_async(Effort::Brief, attempt)).unwrap().is_some());
}

/// Puts, and dies before the effect of this number; `false` if it came to its end.
fn dies_at(store: &Store, step: u32, payload: &[u8]) -> bool {
    let left = Rc::new(Cell::new(step));
    let steps = Rc::clone(&left);
    let dying = move |effect: Effect<'_>| {
        if steps.get() == 0 {
            return Err(io::Error::other("dead"));
        }
        steps.set(steps.get() - u32::from(is_change(&effect)));
        Ok(())
    };
    let dead = entry(1, payload);
    watch(dying, || store.put(&dead, &SCOPE, PutCondition::Replace, &store.deadline()).map(drop))
        .ok();
    left.get() == 0
}

#[test]
fn what_a_killed_writer_left_is_finished_on_no_tasks_thread() {
    let (mut erased, mut redone) = (0, 0);
    for payload in [&b"the dead one's"[..], &[7; LARGE + 1]] {
        for step in 0.. {
            let dir = tempfile::tempdir().unwrap();
            let store = open(&dir);
            put(&store, 0, b"before");
            let is_dead = dies_at(&store, step, payload);
            let open_file = store.open_file().unwrap();
            let word = |place| open_file.journal().header.get(place).unwrap();
            let has_unpublished = word(word::PUBLISHED) < word(word::SEQ);
            let is_behind = word(word::APPLIED) < word(word::TAIL);
            erased += u32::from(has_unpublished);
            redone += u32::from(is_behind);
            let ((), changes) = count(is_change, || put_as_task(&store, 2));
            let is_finished = !has_unpublished && !is_behind;
            assert_eq!(changes > 0, is_finished, "dead at {step}: {has_unpublished}, {is_behind}");
            assert_eq!(get(&store, 2).unwrap(), b"a task's");
            assert_sound(&store);
            // There is nothing to finish any more: it is brief.
            let ((), changes) = count(is_change, || put_as_task(&store, 3));
            assert!(changes > 0);
            if !is_dead {
                break;
            }
        }
    }
    assert!(erased > 0 && redone > 0, "{erased}, {redone}");
}

/// Has slots that lead nowhere take all free places of the index.
fn fill_index(store: &Store) {
    let open_file = store.open_file().unwrap();
    let header = open_file.journal().header;
    let table = header.table(word::INDEX);
    for at in (table.offset()..table.end()).step_by(8) {
        if header.storage.load(at) == 0 {
            let tag = Tag::of(at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            header.store(at, Slot::new(tag, 1 << 39).0).unwrap();
        }
    }
}

/// A file has no provenance while its index is made anew.
#[test]
fn an_index_that_takes_no_more_is_made_anew_on_no_tasks_thread() {
    for has_scope in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        if has_scope {
            put(&store, 0, b"before");
        }
        fill_index(&store);
        let is_made = |effect: &Effect<'_>| matches!(effect, Effect::Write { at: PROVENANCE, .. });
        let ((), made) = count(is_made, || put_as_task(&store, 1));
        assert_eq!((made, get(&store, 1).unwrap()), (0, b"a task's".into()));
        assert_sound(&store);
        let stats = store.stats();
        assert_eq!(stats.entries, 1 + u64::from(has_scope));
        // By whoever waits for nobody else, it is.
        fill_index(&store);
        assert_ne!(count(is_made, || put(&store, 2, b"after")).1, 0);
        assert_sound(&store);
    }
}

/// Opening the sidecar makes its times the present.
#[test]
fn the_claims_are_opened_on_no_tasks_thread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pcache");
    let sidecar = dir.path().join("x.pcache.claims");
    let cache = MmapCache::open_at(&path).unwrap();
    let next = cache.memoize_async_as("next", async |n: &u64| n + 1);
    let is_touch = |effect: &Effect<'_>| matches!(effect, Effect::Touch);
    for key in 0..3 {
        assert!(!sidecar.exists());
        let (result, touches) = count(is_touch, || block_on(next.call(&key)));
        assert_eq!((result.to_native(), touches), (key + 1, 0));
        // It is made, the first time and whenever somebody has removed it.
        std::fs::remove_file(&sidecar).unwrap();
    }
    // A thread that may wait does it itself.
    let next = cache.memoize_as("next", |n: &u64| n + 1);
    assert_eq!(count(is_touch, || next.call(&9).to_native()), (10, 1));
    assert!(sidecar.exists());
}

/// Nor is a file that may not be written, for which nobody takes a lock.
#[test]
fn a_file_is_verified_on_no_tasks_thread() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (0..100).for_each(|key| put(&store, key, &[7; 1000]));
    forget_provenance(&store);
    drop(store);
    let here = location(&dir.path().join("x.pcache"));
    for location in [Location { is_read_only: true, ..here.clone() }, here] {
        let opened = Store::open_until(location.clone(), &Deadline::without_locks());
        assert!(matches!(opened.map(drop), Err(Error::Locked { .. })), "it was verified");
        assert!(get(&Store::open(location).unwrap(), 7).is_some());
    }
}
