//! Files that are never at home: the system tells no boot, or two of them use one file.

use super::*;
use crate::format::header::HOME_SIZE;

fn leave_home(store: &Store) {
    let region = store.region().unwrap();
    region.file().write(HOME, &[0; HOME_SIZE]).unwrap();
}

/// An opening that finds nothing to be mended appends nothing.
#[test]
fn openings_away_from_home_leave_the_file_as_long_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (0..2000).for_each(|key| put(&store, key, b"a value"));
    (0..200).for_each(|key| put(&store, key, b"a newer value"));
    for key in 500..600 {
        store.remove(&identity(key), View::AS_WRITTEN).unwrap();
    }
    let expected = |key| match key {
        500..600 => None,
        0..200 => Some(b"a newer value".to_vec()),
        _ => Some(b"a value".to_vec()),
    };
    leave_home(&store);
    let (entries, tail) = (store.stats().entries, store.region().unwrap().journal().tail());
    let size = store.region().unwrap().file().size().unwrap();
    drop(store);
    for opening in 0..100 {
        let store = open(&dir);
        let region = store.region().unwrap();
        assert_eq!(region.journal().tail().unwrap(), *tail.as_ref().unwrap(), "{opening}");
        assert_eq!(region.file().size().unwrap(), size, "{opening}");
        leave_home(&store);
    }
    let store = open(&dir);
    assert_eq!(store.stats().entries, entries);
    for key in 0..2000 {
        assert_eq!(get(&store, key), expected(key), "{key}");
    }
    // And it is an index to go on with.
    (2000..6000).for_each(|key| put(&store, key, b"a value"));
    (0..6000).for_each(|key| assert_eq!(get(&store, key), expected(key), "{key}"));
    assert_sound(&store);
}

/// An index that lacks a record, or has one too many, is made anew.
#[test]
fn an_index_that_is_not_what_the_log_says_is_not_kept() {
    for is_lacking in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        (0..100).for_each(|key| put(&store, key, b"old"));
        {
            let writer = store.lock().unwrap();
            let journal = writer.journal();
            let table = journal.ledger.table(word::INDEX);
            let tag = Tag::of(identity(7).hash(journal.facts.seed));
            if is_lacking {
                let named = |slot: Slot| (slot.tag() == tag).then_some(());
                let seat = index::seat(journal.ledger.medium, table, tag, named);
                let Seat::Taken(at, ..) = seat else { panic!("it is there") };
                journal.ledger.store(at, Slot::dead(tag).0).unwrap();
            } else {
                let Seat::Free(at, _) =
                    index::seat(journal.ledger.medium, table, tag, |_| None::<()>)
                else {
                    panic!("there is room")
                };
                journal.ledger.store(at, Slot::new(tag, table.end() + 4096).0).unwrap();
            }
        }
        leave_home(&store);
        let tail = store.region().unwrap().journal().tail().unwrap();
        drop(store);
        let store = open(&dir);
        assert!(store.region().unwrap().journal().tail().unwrap() > tail);
        (0..100).for_each(|key| assert_eq!(get(&store, key).unwrap(), b"old"));
        assert_sound(&store);
    }
}

/// A reader with an index of its own learns of what becomes of the cache by its path alone, and goes there.
#[test]
fn a_reader_with_its_own_index_follows_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"old");
    let copy = dir.path().join("copy.pcache");
    std::fs::copy(&store.location.path, &copy).unwrap();
    let reader = Store::open(Location { is_read_only: true, ..location(&copy) }).unwrap();
    assert_eq!(get(&reader, 1).unwrap(), b"old");
    assert!(reader.region().unwrap().is_private());
    let writer = Store::open(location(&copy)).unwrap();
    put(&writer, 1, b"new");
    writer.compact(View::AS_WRITTEN).unwrap();
    let start = std::time::Instant::now();
    while get(&reader, 1).unwrap() != b"new" {
        assert!(start.elapsed() < Duration::from_secs(60), "it never follows");
        std::thread::sleep(Duration::from_millis(20));
    }
}
