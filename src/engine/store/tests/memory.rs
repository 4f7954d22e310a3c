//! Files that outgrow their maps, and maps that are refused.

use super::*;
use crate::engine::os::effect::{Effect, watch};
use std::cell::Cell;
use std::io;
use std::rc::Rc;

/// Refuses maps of more than `limit` bytes.
fn refuse_above(limit: Rc<Cell<u64>>) -> impl FnMut(Effect<'_>) -> io::Result<()> {
    move |effect| match effect {
        Effect::Map { size } if size > limit.get() => Err(io::ErrorKind::OutOfMemory.into()),
        _ => Ok(()),
    }
}

const MIB: u64 = 1 << 20;

/// A large value, or a small one.
fn value(key: u64) -> Vec<u8> {
    let len = if key.is_multiple_of(500) { 300_000 } else { 20 };
    (0..len).map(|n| (key ^ n) as u8).collect()
}

const COUNT: u64 = 20_000;

fn is_mapped(store: &Store, key: u64) -> bool {
    let found = store.find(&identity(key), ExpiryRule::AS_WRITTEN).unwrap();
    matches!(found.lookup, Lookup::Mapped { .. })
}

/// As time passes, a larger map is asked for again.
fn pause() {
    std::thread::sleep(Duration::from_millis(150));
}

/// Records, large values and index tables lie behind the map: written and found all the same, in this process
/// and another one's map, and in place again once there is a larger map to be had.
#[test]
fn what_lies_behind_the_map_is_written_and_found() {
    for limit in [0, MIB + MIB / 4] {
        let dir = tempfile::tempdir().unwrap();
        let given = Rc::new(Cell::new(limit));
        let refusing = refuse_above(Rc::clone(&given));
        watch(refusing, || {
            let store = open(&dir);
            let mapped = |store: &Store| store.open_file().unwrap().map().map(|map| map.len());
            assert_eq!(mapped(&store).is_some(), limit > 0);
            for key in 0..COUNT {
                put(&store, key, &value(key));
                if key % 1000 == 2 && key > 1000 {
                    store.remove(&identity(key - 3), ExpiryRule::AS_WRITTEN).unwrap();
                }
            }
            let is_removed = |key: u64| key % 1000 == 999 && key < COUNT - 1;
            let other = Store::open(Location { is_read_only: true, ..store.location.clone() });
            let other = other.unwrap();
            for store in [&store, &other] {
                assert!(store.open_file().unwrap().file().size().unwrap() > 12 * MIB);
                assert!(mapped(store).unwrap_or(0) <= limit);
                for key in (0..COUNT).step_by(7).chain([999, 18_999, COUNT - 1]) {
                    let expected = (!is_removed(key)).then(|| value(key));
                    assert_eq!(get(store, key), expected, "{key}");
                }
                assert!(!is_mapped(store, COUNT - 1));
            }
            assert_sound(&store);
            store.sync().unwrap();

            given.set(u64::MAX);
            pause();
            for store in [&store, &other] {
                assert!(is_mapped(store, COUNT - 1), "there is room for a larger map again");
                assert_eq!(get(store, 500).unwrap(), value(500));
            }
            put(&store, 1, b"new");
            assert_eq!(get(&other, 1).unwrap(), b"new");
            let rebooted = reboot(&dir, &store);
            assert_eq!(rebooted.stats().entries, store.stats().entries);
            given.set(limit);
            store.compact(ExpiryRule::AS_WRITTEN).unwrap();
            assert_eq!(get(&store, COUNT - 1).unwrap(), value(COUNT - 1));
            assert_eq!(get(&other, COUNT - 1).unwrap(), value(COUNT - 1));
            assert_sound(&store);
        });
    }
}

/// A larger map takes nobody's time to verify again what this process has verified.
#[test]
fn a_larger_map_knows_what_was_verified() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (0..100).for_each(|key| put(&store, key, &value(key)));
    let small = store.open_file().unwrap();
    for key in 100..COUNT {
        put(&store, key, &value(key));
    }
    let large = store.open_file().unwrap();
    assert!(large.is_same_file(&small) && !Arc::ptr_eq(&large, &small));
    assert!(large.map().unwrap().len() > small.map().unwrap().len());
    for key in (0..100).chain(COUNT - 100..COUNT) {
        let found = store.find_seen(&identity(key), ExpiryRule::AS_WRITTEN);
        assert!(found.is_some(), "{key} is looked at once more");
    }
    // The former map goes with its last holder.
    let former = Arc::downgrade(&small);
    drop(small);
    assert!(former.upgrade().is_none());
}

/// A file grows through few maps, and each is in proportion to it.
#[test]
fn maps_are_in_proportion_to_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = Rc::new(std::cell::RefCell::new(Vec::new()));
    let seen = Rc::clone(&sizes);
    let counting = move |effect: Effect<'_>| {
        if let Effect::Map { size } = effect {
            seen.borrow_mut().push(size);
        }
        Ok(())
    };
    watch(counting, || {
        let store = open(&dir);
        for key in 0..60 {
            put(&store, key, &vec![7; MIB as usize]);
        }
        let size = store.open_file().unwrap().file().size().unwrap();
        let sizes = sizes.borrow();
        assert!(sizes[0] < 2 * MIB, "{sizes:?}");
        assert!(sizes.len() <= 8 && *sizes.last().unwrap() < 3 * size, "{sizes:?} for {size}");
    });
}
