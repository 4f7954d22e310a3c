//! What is done while the lock is held takes no longer for a larger value: no payload is looked at there, and
//! of none more than a little is copied.

use super::beside::{Scene, interrupt};
use super::{SCOPE, assert_sound, entry, get, identity, location, numbered, open, put};
use crate::engine::file::expiry::ExpiryRule;
use crate::engine::file::lookup::Lookup;
use crate::engine::file::open::{Location, apart};
use crate::engine::format::record::HEAD_SIZE;
use crate::engine::os::effect::{Effect, watch};
use crate::engine::os::file::Storage as _;
use crate::engine::os::place::sibling;
use crate::engine::os::volume;
use crate::engine::store::Store;
use crate::engine::store::put::PutCondition;
use std::cell::{Cell, RefCell};
use std::os::unix::fs::MetadataExt as _;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Changes a byte of the payload of what `key` has.
fn damage(store: &Store, key: u64) {
    let open_file = store.open_file().unwrap();
    let (offset, head) = open_file.journal().locate(&identity(key)).unwrap();
    let at = offset + HEAD_SIZE + head.len / 2;
    let mut byte = [0];
    open_file.file().read(at, &mut byte).unwrap();
    open_file.file().overwrite(at, &[byte[0] ^ 0x80]).unwrap();
}

fn is_free(other: &Store) -> bool {
    other.lock().is_ok()
}

#[test]
fn a_removal_looks_at_no_payload() {
    let dir = tempfile::tempdir().unwrap();
    let at = {
        let store = open(&dir);
        put(&store, 1, &[7; 100_000]);
        put(&store, 2, b"x");
        damage(&store, 1);
        store.location.clone()
    };
    let store = Store::open(at).unwrap();
    assert!(store.remove(&identity(1), ExpiryRule::AS_WRITTEN).unwrap(), "something was there");
    assert!(!store.remove(&identity(1), ExpiryRule::AS_WRITTEN).unwrap());
    assert!(!store.remove(&identity(2), ExpiryRule::new(Some(Duration::ZERO))).unwrap(), "expired");
    assert_eq!((get(&store, 1), get(&store, 2)), (None, None));
}

#[test]
fn what_a_put_finds_is_read_without_the_lock() {
    let scene = Scene::new(None);
    let open_file = scene.walker.open_file().unwrap();
    let condition = PutCondition::IfAbsent(Store::token(&open_file), ExpiryRule::AS_WRITTEN);
    let frees = Rc::new(RefCell::new(Vec::new()));
    let (seen, other) = (Rc::clone(&frees), Arc::clone(&scene.other));
    let probe = move |effect: Effect<'_>| {
        if matches!(effect, Effect::Read) {
            seen.borrow_mut().push(is_free(&other));
        }
        Ok(())
    };
    let new = entry(3, b"new");
    let deadline = scene.walker.deadline();
    let found = watch(probe, || scene.walker.put(&new, &SCOPE, condition, &deadline));
    let Lookup::Copied(_, payload) = found.unwrap().unwrap().lookup else { panic!("it was there") };
    assert_eq!(payload[..], 3_u64.to_le_bytes());
    let frees = frees.borrow();
    let first_held = frees.iter().position(|is_free| !is_free).unwrap();
    assert!(frees[first_held..].iter().any(|is_free| *is_free), "it is read when that is over");
    assert_eq!(frees.last(), Some(&true));
}

#[test]
fn what_came_in_place_of_a_damaged_record_is_kept() {
    let large = vec![9; 100_000];
    for payload in [&b"ours"[..], &large] {
        let scene = || {
            let scene = Scene::new(None);
            damage(&scene.other, 3);
            scene
        };
        let mend = |scene: &Scene| {
            let open_file = scene.walker.open_file().unwrap();
            let condition =
                PutCondition::IfAbsent(Store::token(&open_file), ExpiryRule::AS_WRITTEN);
            let found =
                scene.walker.put(&entry(3, payload), &SCOPE, condition, &scene.walker.deadline());
            found.unwrap().map(drop)
        };
        let theirs = |store: &Store| {
            let entry = entry(3, b"theirs");
            store.put(&entry, &SCOPE, PutCondition::Replace, &store.deadline()).map(drop)
        };
        let check = |scene: &Scene, found: Option<()>, is_theirs: bool| {
            assert_eq!(get(&scene.other, 3).unwrap(), if is_theirs { b"theirs" } else { payload });
            assert!(found.is_some() || is_theirs);
        };
        interrupt(scene, 1, theirs, mend, check);
    }
}

/// However large a value is that is stored while a compaction is at work, and whenever that is.
#[test]
fn a_compaction_copies_little_under_the_lock_and_holds_no_payload_in_memory() {
    const LARGE: usize = 3 << 20;
    const HOLD: u64 = 1 << 20;
    let large: Rc<[u8]> = vec![7; LARGE].into();
    let mut stored = 0;
    for step in 0_usize.. {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&dir);
        (0..20).for_each(|key| put(&store, key, b"before"));
        let at = location(&apart(&store.location.path));
        let other = Store::open(Location { lock_timeout: Duration::ZERO, ..at }).unwrap();
        let new = sibling(&store.location.path);
        let (held, payload) = (Cell::new(0), Rc::clone(&large));
        // Whether the step was reached, and whether the lock was free.
        let outcome = Rc::new(Cell::new(None));
        let (left, came) = (Cell::new(step), Rc::clone(&outcome));
        let probe = move |effect: Effect<'_>| {
            if left.replace(left.get().wrapping_sub(1)) == 0 {
                let entry = entry(100, &payload);
                let stored = other.put(&entry, &SCOPE, PutCondition::Replace, &other.deadline());
                came.set(Some(stored.is_ok()));
            }
            let Effect::Write { file, bytes, .. } = effect else { return Ok(()) };
            let is_new = |data: std::fs::Metadata| data.ino() == file.metadata().unwrap().ino();
            if new.metadata().is_ok_and(is_new) {
                assert!(bytes.len() <= 2 << 20, "{} bytes at once", bytes.len());
                held.set(if is_free(&other) { 0 } else { held.get() + bytes.len() as u64 });
                assert!(held.get() < HOLD + (64 << 10), "{} bytes under one hold", held.get());
            }
            Ok(())
        };
        watch(probe, || store.compact(ExpiryRule::AS_WRITTEN)).unwrap();
        let is_stored = outcome.get() == Some(true);
        stored += u32::from(is_stored);
        assert!((0..20).all(|key| get(&store, key).unwrap() == b"before"));
        assert_eq!(get(&store, 100).is_some_and(|value| value[..] == large[..]), is_stored);
        assert_sound(&store);
        if outcome.get().is_none() {
            break;
        }
    }
    assert!(stored > 4, "{stored} values came in between");
}

/// A writer dies when he has taken the space for a large value and written its head. His heir clears that head,
/// and writes no zeros over all the space.
#[test]
fn what_a_killed_writer_left_is_cleared_whatever_space_he_took() {
    const SPACE: u64 = 64 << 20;
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    put(&store, 1, b"before");
    let (tail, unpublished) = {
        let writer = store.lock().unwrap();
        let journal = writer.journal();
        let tail = journal.tail().unwrap();
        journal.make_room(tail + SPACE).unwrap();
        let (pad, storage) = (numbered(&journal, 2, b""), journal.header.storage);
        for at in [tail, tail + 100_000] {
            storage.write(at, &pad.head.encode(at, journal.superblock.seed)).unwrap();
        }
        (tail, tail + 100_000)
    };
    let open_file = store.open_file().unwrap();
    let (done, tells_holes) =
        (Rc::new(Cell::new((0, 0))), volume::tells_holes(open_file.file().inner()));
    let count = Rc::clone(&done);
    let probe = move |effect: Effect<'_>| {
        let (written, reads) = count.get();
        count.set(match effect {
            Effect::Write { bytes, .. } => (written + bytes.len(), reads),
            Effect::Read => (written, reads + 1),
            _ => (written, reads),
        });
        Ok(())
    };
    watch(probe, || put(&store, 3, b"after"));
    let (written, reads) = done.get();
    assert!(written < 256 << 10, "{written} bytes written");
    // What the system has read ahead counts as written, too: some MiB.
    assert!(!tells_holes || reads < 512, "{reads} reads of 64 KiB");
    let mut found = [1; HEAD_SIZE as usize];
    open_file.file().read(unpublished, &mut found).unwrap();
    assert_eq!(found, [0; HEAD_SIZE as usize]);
    assert_eq!(open_file.journal().locate(&identity(3)).unwrap().0, tail);
    assert_eq!((get(&store, 1).unwrap(), get(&store, 2)), (b"before".to_vec(), None));
    assert_sound(&store);
}

#[test]
fn a_batch_copies_its_large_values_without_the_lock_and_keeps_its_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let at = location(&apart(&store.location.path));
    let other = Store::open(Location { lock_timeout: Duration::ZERO, ..at }).unwrap();
    let large = vec![7; 100_000];
    let entries: [(u64, &[u8]); 6] =
        [(1, b"a"), (2, &large), (2, b"b"), (3, b"c"), (3, &large), (4, &large)];
    let entries = entries.map(|(key, payload)| entry(key, payload));
    let copied = Rc::new(Cell::new(0));
    let count = Rc::clone(&copied);
    let probe = move |effect: Effect<'_>| {
        if matches!(effect, Effect::Write { bytes, .. } if bytes.len() > 65_536) {
            count.set(count.get() + 1);
            assert!(is_free(&other));
        }
        Ok(())
    };
    watch(probe, || store.put_many(&entries, &SCOPE)).unwrap();
    assert_eq!(copied.get(), 3);
    let value = |key| get(&store, key).unwrap();
    assert_eq!((value(1), value(2)), (b"a".into(), b"b".into()));
    assert!(value(3) == large && value(4) == large);
    assert_sound(&store);
}
