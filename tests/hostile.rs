//! Surroundings that mean ill: what lies at the path, who may write there, what it is called, and a name
//! that changes between a look and the opening. (Exposure by mode, owner and link is in `cases.rs`.)
#![allow(missing_docs)]

mod common;

use common::{Dir, effort, mix};
use persist_cache::{Cached, Error, Exposure, MmapCache};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

fn exposure(path: &Path) -> Exposure {
    match MmapCache::open_at(path) {
        Err(Error::Exposed { exposure, .. }) => exposure,
        other => panic!("{other:?}", other = other.map(|_| "opened")),
    }
}

#[test]
fn what_is_no_file_is_refused_and_left_alone() {
    let dir = Dir::new();
    let _socket = UnixListener::bind(dir.join("socket")).unwrap();
    assert_eq!(exposure(&dir.join("socket")), Exposure::NotAFile);
    assert!(MmapCache::open_at("/dev/zero").is_err());
    assert!(MmapCache::open_at("/dev/null").is_err());
    symlink("nowhere", dir.join("dangling")).unwrap();
    assert_eq!(exposure(&dir.join("dangling")), Exposure::Symlink);
    assert!(!dir.join("nowhere").exists());
    // Copying from it does not make it one.
    for name in ["socket", "dangling"] {
        assert!(MmapCache::options().copy_reads().open_at(dir.join(name)).is_err());
    }
}

#[test]
fn a_directory_where_others_write_is_refused() {
    let dir = Dir::new();
    let path = dir.join("x.pcache");
    for mode in [0o777, 0o1777, 0o770, 0o702] {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(exposure(&path), Exposure::WritableByOthers(mode & 0o777));
        assert!(!path.exists());
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    drop(MmapCache::open_at(&path).unwrap());
    for mode in [0o666, 0o620, 0o602] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(exposure(&path), Exposure::WritableByOthers(mode));
    }
}

#[test]
fn no_name_leaves_the_root() {
    let dir = Dir::new();
    let root = dir.join("root");
    let long = "x".repeat(10_000);
    let names =
        ["../x", "/etc/passwd", "a/../../x", "..", ".", "", "a\0b", "\n", "~", "..\\x", &long];
    for name in names {
        let cache = MmapCache::options().root(&root).open(name).unwrap();
        assert_eq!(cache.path().parent(), Some(&*root), "{name:?}");
        cache.table::<u64, u64>("t").insert(&1, &1).unwrap();
    }
    let files = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path());
    let caches = files.filter(|path| path.extension().is_some_and(|end| end == "pcache"));
    assert_eq!(caches.count(), names.len(), "each has a file of its own");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// Somebody keeps changing what the name is: a cache, a link to a victim, nothing, a directory.
#[test]
fn a_name_swapped_between_look_and_opening_harms_nobody() {
    let dir = Dir::new();
    let (path, victim, other) = (dir.join("x.pcache"), dir.join("victim"), dir.join("other"));
    let secret = vec![0; 65536];
    fs::write(&victim, &secret).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0_u64.. {
                if stop.load(Relaxed) {
                    break;
                }
                let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
                // Never in place: who truncates a mapped file of his own user's is outside the boundary.
                let _ = match mix(n) % 4 {
                    0 => symlink(&victim, &other).and_then(|()| fs::rename(&other, &path)),
                    1 => fs::create_dir(&path),
                    2 => fs::write(&other, b"").and_then(|()| fs::rename(&other, &path)),
                    _ => Ok(()),
                };
            }
        });
        let (start, mut opened) = (Instant::now(), 0);
        for n in 0.. {
            let is_late = start.elapsed() > Duration::from_secs(60) * effort() as u32;
            if is_late || n >= 2000 * effort() && opened >= 20 {
                break;
            }
            match MmapCache::open_at(&path) {
                Ok(cache) => {
                    opened += 1;
                    let table = cache.table::<u64, u64>("t");
                    let _ = table.insert(&n, &n);
                    if let Ok(Some(found)) = table.get(&n) {
                        assert_eq!(Cached::into_owned(found), n);
                    }
                }
                Err(Error::Exposed { .. } | Error::Io { .. } | Error::Unstable { .. }) => {}
                Err(Error::ReadOnly { .. }) => {}
                Err(other) => panic!("{other}"),
            }
        }
        stop.store(true, Relaxed);
        assert!(opened >= 20, "{opened} opened in {:?}", start.elapsed());
    });
    assert!(fs::read(&victim).unwrap() == secret, "the victim was written to");
}

/// A value may hold whatever bytes: the file's own, say.
#[test]
fn a_payload_that_imitates_records_is_a_payload() {
    let dir = Dir::new();
    let path = dir.join("x.pcache");
    {
        let cache = MmapCache::open_at(&path).unwrap();
        let table = cache.table::<u64, Vec<u8>>("t");
        table.insert(&1, &vec![1; 10]).unwrap();
        table.insert(&2, &vec![2; 10]).unwrap();
        table.remove(&1).unwrap();
        let image = fs::read(&path).unwrap();
        for shift in 0..16 {
            table.insert(&(100 + shift), &image[8192 - shift as usize..].to_vec()).unwrap();
        }
        table.insert(&3, &vec![3; 10]).unwrap();
    }
    // Each head of a record that holds such bytes is broken, so that a walk has to search through them.
    let image = fs::read(&path).unwrap();
    for broken in (8192..image.len()).step_by(64 * (16 / effort()).max(1) as usize) {
        let copy = dir.join("copy.pcache");
        let _ = fs::remove_file(&copy);
        let mut bytes = image.clone();
        bytes[broken] ^= 0x55;
        fs::write(&copy, &bytes).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
        let cache = MmapCache::open_at(&copy).unwrap();
        let table = cache.table::<u64, Vec<u8>>("t");
        // The first removal may itself be what was broken.
        for (key, byte) in [(2, 2), (3, 3)] {
            if let Some(found) = table.get(&key).unwrap() {
                assert_eq!(found.as_slice(), [byte; 10]);
            }
        }
    }
}

/// A file may say that it is a terabyte long and hold next to nothing.
#[test]
fn a_file_that_is_all_holes_takes_no_time() {
    const LONG: u64 = 1 << 43;
    let dir = Dir::new();
    let path = dir.join("x.pcache");
    let read_only = MmapCache::options().read_only(true);
    for (n, open) in
        [MmapCache::options(), read_only.clone(), read_only.copy_reads()].into_iter().enumerate()
    {
        let table = MmapCache::open_at(&path).unwrap().table::<u64, u64>("t");
        table.insert_many((0..100).map(|key| (key, key))).unwrap();
        drop(table);
        // Neither with a provenance that holds nor with a tail that can be believed: all of it is searched for records.
        let copy = dir.join(&format!("{n}.pcache"));
        let mut image = fs::read(&path).unwrap();
        image[640..648].fill(0x55);
        fs::write(&copy, &image).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o600)).unwrap();
        let file = OpenOptions::new().write(true).open(&copy).unwrap();
        if let Err(error) = file.set_len(LONG).or_else(|_| file.set_len(1 << 40)) {
            println!("no long files here: {error}");
            return;
        }
        let cache = open.open_at(&copy).unwrap();
        let table = cache.table::<u64, u64>("t");
        assert!((0..100).all(|key| table.get(&key).unwrap().is_some_and(|value| *value == key)));
    }
}
