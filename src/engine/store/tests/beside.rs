//! What walks over the whole index, interrupted at every step by what others do meanwhile. A handle that
//! reads by copy does the walk: each of its reads is a step, before which another handle is at work.

use super::records::reserve;
use super::{SCOPE, entry, get, identity, location, put};
use crate::engine::file::expiry::ExpiryRule;
use crate::engine::file::open::Location;
use crate::engine::file::replay::{Outcome, Replay};
use crate::engine::format::header::word;
use crate::engine::format::record::Kind;
use crate::engine::format::slot::{Slot, Tag};
use crate::engine::index::{SlotEntry, slot_entry};
use crate::engine::os::effect::{Effect, watch};
use crate::engine::os::place::AccessMode;
use crate::engine::os::replacement::Replacement;
use crate::engine::store::Store;
use crate::engine::store::compact::copy_to;
use crate::engine::store::findings::{Finding, Verification};
use crate::engine::store::put::Entry;
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A cache with two handles that know nothing of each other.
pub(super) struct Scene {
    _dir: tempfile::TempDir,
    /// Each of its reads is a step.
    pub(super) walker: Arc<Store>,
    /// Gives up at once where the walker has the lock.
    pub(super) other: Arc<Store>,
}

/// Nearly as many entries as make the first index grow.
pub(super) const NEAR_LOAD_FACTOR: u64 = 64 * 8 * 11 / 16 - 12;

impl Scene {
    /// Whose first entries, nearly up to the load factor, have a time to live.
    pub(super) fn new(ttl: Option<Duration>) -> Scene {
        Scene::of(NEAR_LOAD_FACTOR, ttl)
    }

    /// Of so few entries that the walk over the index is not most of the work.
    fn small() -> Scene {
        Scene::of(SMALL, None)
    }

    fn of(entries: u64, ttl: Option<Duration>) -> Scene {
        let dir = tempfile::tempdir().unwrap();
        let at = location(&dir.path().join("x.pcache"));
        let walker = Location { access: AccessMode::Copied, ..at.clone() };
        let other = Location { lock_timeout: Duration::ZERO, ..at };
        let other = Store::open(other).unwrap();
        insert(&other, 0..entries, ttl).unwrap();
        Scene { walker: Store::open(walker).unwrap(), other, _dir: dir }
    }
}

/// The entries of a small scene.
const SMALL: u64 = 20;

pub(super) fn insert(store: &Store, keys: Range<u64>, ttl: Option<Duration>) -> crate::Result<()> {
    let payloads: Vec<_> = keys.map(|key| (key, key.to_le_bytes())).collect();
    let entries = payloads.iter().map(|(key, payload)| Entry { ttl, ..entry(*key, payload) });
    store.put_many(&entries.collect::<Vec<_>>(), &SCOPE)
}

/// So many that the index grows, and what it has left is given back.
fn grow(store: &Store) -> crate::Result<()> {
    insert(store, 1000..1100, None)
}

/// Whether an interruption came to something, or found the lock taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Came {
    Never,
    InVain,
    Through,
}

/// Does `work` on a new scene, interrupted before each of its reads in turn, or one of so many of them.
pub(super) fn interrupt<T>(
    scene: impl Fn() -> Scene,
    stride: usize,
    interruption: fn(&Store) -> crate::Result<()>,
    work: impl Fn(&Scene) -> T,
    check: impl Fn(&Scene, T, bool),
) {
    let mut through = 0;
    for step in (0_usize..).step_by(stride) {
        let scene = scene();
        let came = Rc::new(Cell::new(Came::Never));
        let left: Cell<usize> = Cell::new(step);
        let (seen, other) = (Rc::clone(&came), Arc::clone(&scene.other));
        let probe = move |effect: Effect<'_>| {
            if matches!(effect, Effect::Read) && left.replace(left.get().wrapping_sub(1)) == 0 {
                seen.set(match interruption(&other) {
                    Ok(()) => Came::Through,
                    Err(crate::Error::Locked { .. }) => Came::InVain,
                    Err(error) => panic!("{error}"),
                });
            }
            Ok(())
        };
        let result = watch(probe, || work(&scene));
        check(&scene, result, came.get() == Came::Through);
        through += u32::from(came.get() == Came::Through);
        if came.get() == Came::Never {
            break;
        }
    }
    assert!(through > 2, "{through} interruptions");
}

const EXPIRED: Option<Duration> = Some(Duration::ZERO);

fn flush(scene: &Scene) -> u64 {
    scene.walker.flush(ExpiryRule::AS_WRITTEN).unwrap()
}

fn has_flushed_all(scene: &Scene, removed: u64) {
    assert_eq!(removed, NEAR_LOAD_FACTOR);
    let open_file = scene.other.current().unwrap();
    let value_of = |key: &u64| open_file.journal().locate(&identity(*key));
    let left = (0..NEAR_LOAD_FACTOR).filter(|key| value_of(key).is_some());
    assert_eq!(left.count(), 0);
}

#[test]
fn a_flush_beside_growth_removes_all_that_had_expired() {
    let check = |scene: &Scene, removed, is_grown: bool| {
        has_flushed_all(scene, removed);
        assert!(!is_grown || (1000..1100).all(|key| get(&scene.other, key).is_some()));
    };
    interrupt(|| Scene::new(EXPIRED), 23, grow, flush, check);
}

#[test]
fn a_flush_beside_a_compaction_that_keeps_everything_removes_all_that_had_expired() {
    let compact = |store: &Store| store.compact(ExpiryRule::NEVER).map(drop);
    let check = |scene: &Scene, removed, _| has_flushed_all(scene, removed);
    interrupt(|| Scene::new(EXPIRED), 83, compact, flush, check);
}

#[test]
fn a_flush_leaves_what_is_stored_meanwhile() {
    let refresh = |store: &Store| insert(store, 0..20, None);
    let check = |scene: &Scene, removed, is_refreshed| {
        let is_there = |key| get(&scene.other, key).is_some();
        assert_eq!((0..20).all(is_there), is_refreshed);
        assert!(!(20..NEAR_LOAD_FACTOR).any(is_there));
        assert!((NEAR_LOAD_FACTOR - 20..=NEAR_LOAD_FACTOR).contains(&removed));
        assert_eq!(scene.other.stats().entries, if is_refreshed { 20 } else { 0 });
    };
    interrupt(|| Scene::new(EXPIRED), 31, refresh, flush, check);
}

#[test]
fn a_compaction_beside_growth_loses_nothing() {
    let compact = |scene: &Scene| scene.walker.compact(ExpiryRule::AS_WRITTEN).unwrap();
    let check = |scene: &Scene, _, is_grown: bool| {
        assert!(
            (0..NEAR_LOAD_FACTOR).all(|key| get(&scene.other, key).unwrap() == key.to_le_bytes())
        );
        assert!(!is_grown || (1000..1100).all(|key| get(&scene.other, key).is_some()));
    };
    interrupt(|| Scene::new(None), 83, grow, compact, check);
}

#[test]
fn a_compaction_beside_a_clear_brings_nothing_back() {
    let clear = |store: &Store| {
        store.clear()?;
        insert(store, 1000..1003, None)
    };
    let compact = |scene: &Scene| scene.walker.compact(ExpiryRule::AS_WRITTEN).unwrap();
    let check = |scene: &Scene, _, is_cleared: bool| {
        let is_there = |key| get(&scene.other, key).is_some();
        assert!((0..SMALL).all(|key| is_there(key) != is_cleared));
        assert!((1000..1003).all(|key| is_there(key) == is_cleared));
        assert_eq!(scene.other.verify().unwrap().findings, []);
    };
    interrupt(Scene::small, 1, clear, compact, check);
}

#[test]
fn a_compaction_beside_removals_and_refreshes_loses_none_of_them() {
    let change = |store: &Store| {
        for key in 0..5 {
            store.remove(&identity(key), ExpiryRule::AS_WRITTEN)?;
        }
        put(store, 5, b"refreshed");
        put(store, 6, &[6; 100_000]);
        store.flush(ExpiryRule::new(EXPIRED)).map(drop)?;
        put(store, 7, b"stored again");
        put(store, 8, &[8; 100_000]);
        Ok(())
    };
    let compact = |scene: &Scene| scene.walker.compact(ExpiryRule::AS_WRITTEN).unwrap();
    let check = |scene: &Scene, _, is_changed: bool| {
        let value = |key| get(&scene.other, key);
        if is_changed {
            assert!((0..7).chain(9..SMALL).all(|key| value(key).is_none()));
            assert_eq!(value(7).unwrap(), b"stored again");
            assert_eq!(value(8).unwrap(), [8; 100_000]);
            assert_eq!(scene.other.stats().entries, 2);
        } else {
            assert!((0..SMALL).all(|key| value(key).unwrap() == key.to_le_bytes()));
        }
        assert_eq!(scene.other.verify().unwrap().findings, []);
    };
    interrupt(Scene::small, 1, change, compact, check);
}

/// A miss in a table that is left during the search is no flush.
#[test]
fn a_replay_beside_growth_brings_nothing_superseded_back() {
    let large = vec![7; 100_000];
    let scene = || {
        let scene = Scene::new(None);
        let offset = reserve(&scene.other, 1, &large);
        put(&scene.other, 1, b"newer");
        put(&scene.other, 2000, &offset.to_le_bytes());
        scene
    };
    let replay = |scene: &Scene| {
        let open_file = scene.walker.open_file().unwrap();
        let new = Replacement::begin(&scene.walker.location.path).unwrap().unwrap();
        // What is to be copied is, before the first step.
        let offset = get(&scene.other, 2000).unwrap();
        let (next, _, at) = copy_to(&open_file, &new, ExpiryRule::AS_WRITTEN).unwrap();
        let offset = u64::from_le_bytes(offset.try_into().unwrap());
        scene.other.lock().unwrap().commit(offset).unwrap();
        let mut replay = Replay::new(open_file.journal(), next.journal(), at);
        for _ in 0..2 {
            let end = open_file.journal().header.get(word::APPLIED).unwrap();
            assert!(replay.run(end, u64::MAX).unwrap() == Outcome::Done);
        }
        next.journal().locate(&identity(1)).unwrap().1
    };
    let check = |_: &Scene, head: crate::engine::format::record::Head, _| {
        assert_eq!((head.kind, head.len), (Kind::VALUE, 5));
    };
    interrupt(scene, 7, grow, replay, check);
}

/// What expires while a flush is at work stays: it judges all by the time at which it began.
#[test]
fn a_flush_removes_what_had_expired_when_it_began() {
    use crate::engine::os::clock::tests::SET;
    let day = Duration::from_secs(24 * 3600);
    let scene = || {
        SET.set(Some(day * 20_000));
        let scene = Scene::new(Some(day));
        SET.set(Some(day * 20_001));
        insert(&scene.other, 0..20, Some(day)).unwrap();
        scene
    };
    let time_passes = |_: &Store| {
        SET.set(Some(Duration::from_secs(24 * 3600) * 20_003));
        Ok(())
    };
    let check = |_: &Scene, removed, _| assert_eq!(removed, NEAR_LOAD_FACTOR - 20);
    interrupt(scene, 97, time_passes, flush, check);
    SET.set(None);
}

#[test]
fn a_verification_beside_others_finds_nothing_in_a_healthy_file() {
    let others: [fn(&Store) -> crate::Result<()>; 5] = [
        |store| {
            insert(store, 0..20, None)?;
            store.flush(ExpiryRule::new(EXPIRED)).map(drop)
        },
        grow,
        |store| store.clear(),
        |store| store.compact(ExpiryRule::NEVER).map(drop),
        |store| {
            put(store, 3, &[7; 100_000]);
            store.flush(ExpiryRule::new(EXPIRED))?;
            put(store, 4, &[7; 100_000]);
            store.remove(&identity(5), ExpiryRule::AS_WRITTEN).map(drop)
        },
    ];
    for other in others {
        let verify = |scene: &Scene| scene.walker.verify_by(100).unwrap();
        let check = |scene: &Scene, report: Verification, _| {
            assert_eq!(report.findings, []);
            assert_eq!(scene.other.verify().unwrap().findings, []);
        };
        interrupt(|| Scene::new(None), 37, other, verify, check);
    }
}

/// A key that the index has lost stays a finding, whatever others append meanwhile.
#[test]
fn a_verification_beside_others_finds_what_is_lost() {
    let lose = |scene: &Scene| {
        let writer = scene.other.lock().unwrap();
        let journal = writer.journal();
        let offset = journal.locate(&identity(7)).unwrap().0;
        let tag = Tag::of(identity(7).hash(journal.superblock.seed));
        let table = journal.header.table(word::INDEX);
        let same = |slot: Slot| (slot.offset() == offset).then_some(());
        let SlotEntry::Occupied(at, ..) = slot_entry(journal.header.storage, table, tag, same)
        else {
            panic!()
        };
        journal.header.store(at, Slot::dead(tag).0).unwrap();
        offset
    };
    let scene = || {
        let scene = Scene::new(None);
        let offset = lose(&scene);
        put(&scene.other, 2000, &offset.to_le_bytes());
        scene
    };
    let append = |store: &Store| insert(store, 3000..3003, None);
    let verify = |scene: &Scene| scene.walker.verify().unwrap();
    let check = |scene: &Scene, report: Verification, _| {
        let offset = u64::from_le_bytes(get(&scene.other, 2000).unwrap().try_into().unwrap());
        assert_eq!(report.findings, [Finding::Unreachable { offset }]);
    };
    interrupt(scene, 37, append, verify, check);
}
