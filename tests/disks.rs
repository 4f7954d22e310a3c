//! Real file systems, each made on a loop where the machine allows it: full, with blocks that a copy shares,
//! with holes. Nothing there is a signal, a wrong value or the end of a cache.
#![allow(missing_docs)]

mod common;

use common::{Dir, apart, command, role, value_of};
use persist_cache::{Cached, Error, MmapCache};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is mounted for a test, in that order; unmounted with it.
struct Disk {
    root: PathBuf,
    mounted: Vec<PathBuf>,
}

impl Drop for Disk {
    fn drop(&mut self) {
        for place in self.mounted.iter().rev() {
            let _ = Command::new("umount").arg("-l").arg(place).status();
        }
    }
}

/// Whether a command did what it should.
fn does(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// A small disk of this kind; `None` where this machine makes none.
fn disk(dir: &Dir, kind: &str) -> Option<Disk> {
    let made = match kind.strip_prefix("overlay on ") {
        Some(kind) => disk(dir, kind).and_then(overlay),
        None => plain_disk(dir, kind),
    };
    if made.is_none() {
        eprintln!("not run on {kind}: this machine makes and mounts none");
    }
    made
}

fn plain_disk(dir: &Dir, kind: &str) -> Option<Disk> {
    let (root, image) = (dir.join("disk"), dir.join("image"));
    fs::create_dir(&root).unwrap();
    let mut mount = Command::new("mount");
    let (size, options): (u64, &[&str]) = match kind {
        "tmpfs" => (3, &[]),
        // The least that is made of each.
        "xfs" => (300, &["-q"]),
        "btrfs" => (128, &["-q"]),
        _ => (12, &["-q"]),
    };
    if kind == "tmpfs" {
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}m,mode=700"), "none"]);
    } else {
        File::create(&image).unwrap().set_len(size << 20).unwrap();
        if !does(Command::new(format!("mkfs.{kind}")).args(options).arg(&image)) {
            return None;
        }
        mount.args(["-o", "loop"]).arg(&image);
    }
    does(mount.arg(&root)).then(|| Disk { mounted: vec![root.clone()], root })
}

/// A layer over an empty one, both on `disk`.
fn overlay(mut disk: Disk) -> Option<Disk> {
    let [lower, upper, work, root] = ["lower", "upper", "work", "root"].map(|name| {
        let place = disk.root.join(name);
        fs::create_dir(&place).unwrap();
        place
    });
    let layers = [("lowerdir=", &lower), ("upperdir=", &upper), ("workdir=", &work)];
    let layers = layers.map(|(name, place)| format!("{name}{}", place.display())).join(",");
    let mut mount = Command::new("mount");
    if !does(mount.args(["-t", "overlay", "overlay", "-o", &layers]).arg(&root)) {
        return None;
    }
    disk.mounted.push(root.clone());
    disk.root = root;
    Some(disk)
}

/// The kinds of file systems, each of which one test is run on.
const KINDS: [&str; 8] = [
    "ext2",
    "ext4",
    "tmpfs",
    "xfs",
    "btrfs",
    "overlay on tmpfs",
    "overlay on xfs",
    "overlay on btrfs",
];

/// Runs this test in processes of its own, one for each role in turn, on a disk of each of these kinds.
fn on_each(kinds: &[&str], test: &str, roles: &[&str]) {
    let mut failures = String::new();
    for kind in kinds {
        let dir = Dir::new();
        let Some(disk) = disk(&dir, kind) else { continue };
        for role in roles {
            let output = command(test, role, &disk.root.join("caches")).output().unwrap();
            if !output.status.success() {
                let text = String::from_utf8_lossy(&output.stderr);
                failures += &format!("\n{role} on {kind}: {}: {text}", output.status);
                break;
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

fn open(place: &Path) -> MmapCache {
    MmapCache::options().root(place).open("x").unwrap()
}

fn file_of(place: &Path) -> PathBuf {
    open(place).path().to_path_buf()
}

/// Takes all the space of the disk beside the caches, to its last byte.
fn fill(place: &Path) {
    let file = |number: usize| place.with_file_name(format!("filler{number}"));
    let allocated = (0..50).take_while(|number| {
        does(Command::new("fallocate").args(["-l", "10m"]).arg(file(*number)))
    });
    let mut number = allocated.count();
    // By what is written in large pieces, then in small ones; some give more once that is on the device.
    for _ in 0..3 {
        for size in [1 << 20, 4096] {
            number += 1;
            let Ok(mut filler) = File::create(file(number)) else { continue };
            while filler.write_all(&vec![1; size]).is_ok() {}
        }
        let _ = Command::new("sync").arg("-f").arg(place).status();
    }
}

/// Gives it back.
fn empty(place: &Path) {
    for entry in fs::read_dir(place.parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("filler") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
    let _ = Command::new("sync").arg("-f").arg(place).status();
}

/// Lets a copy share the blocks of the cache, where the file system does that. This may happen at any time.
fn share(place: &Path, name: &str) -> bool {
    let file = file_of(place);
    does(Command::new("cp").arg("--reflink=always").arg(&file).arg(place.with_file_name(name)))
}

const STORED: u64 = 600;

fn check_stored(cache: &MmapCache) {
    let table = cache.table::<u64, Vec<u64>>("t");
    for key in 0..STORED {
        assert_eq!(table.get(&key).unwrap().map(Cached::into_owned), Some(value_of(key)));
    }
    assert_eq!(cache.verify().unwrap().findings, []);
}

/// Everything that can be done to a cache whose disk is full: what needs space is an error, the values stay,
/// and emptying it works.
fn use_while_full(place: &Path, cache: &MmapCache) {
    let table = cache.table::<u64, Vec<u64>>("t");
    let more = cache.table::<u64, Vec<u8>>("more");
    let error = (0..20_000).find_map(|key| more.insert(&key, &vec![key as u8; 500]).err());
    let error = error.expect("it is full sometime");
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    check_stored(cache);
    for key in 0..50 {
        assert_eq!(*cache.memoize_as("f", |n: &u64| n + 1).call(&key), key + 1);
        // Whether there is space for what says so or not.
        let _ = (more.remove(&key), more.insert_many([(key, vec![1; 100])]), cache.flush());
    }
    let _ = (cache.sync(), cache.compact(), more.insert(&1, &vec![1; 1 << 20]));
    check_stored(cache);
    // Another process, to which the file is new.
    let output = command("child_reads", "reads", place).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    // This one had it open, and is to see it.
    let held = table.get(&7).unwrap().unwrap();
    cache.clear().expect("there is a way out");
    // A new file may need more than there is.
    assert!(!table.contains(&7).unwrap_or(false));
    assert_eq!(Cached::into_owned(held), value_of(7));
}

#[test]
fn child_reads() {
    if let Some((role, place)) = role() {
        assert_eq!(role, "reads");
        check_stored(&open(&place));
    }
}

fn store(cache: &MmapCache) {
    let table = cache.table::<u64, Vec<u64>>("t");
    table.insert_many((0..STORED).map(|key| (key, value_of(key)))).unwrap();
}

fn goes_on(place: &Path, cache: &MmapCache) {
    empty(place);
    store(cache);
    check_stored(cache);
    cache.compact().unwrap();
    check_stored(cache);
    cache.sync().unwrap();
}

#[test]
fn a_full_disk_of_any_kind_is_an_error_and_no_signal() {
    const TEST: &str = "a_full_disk_of_any_kind_is_an_error_and_no_signal";
    let Some((role, place)) = role() else {
        return on_each(&KINDS, TEST, &["stores", "fills", "goes on"]);
    };
    let cache = open(&place);
    match &*role {
        "stores" => store(&cache),
        "fills" => {
            fill(&place);
            use_while_full(&place, &cache);
        }
        _ => goes_on(&place, &cache),
    }
}

/// Where a copy shares the blocks of a file, each change of what is there takes space.
#[test]
fn a_full_disk_with_a_copy_that_shares_its_blocks_is_an_error_and_no_signal() {
    const TEST: &str = "a_full_disk_with_a_copy_that_shares_its_blocks_is_an_error_and_no_signal";
    let Some((_, place)) = role() else {
        return on_each(&["xfs", "btrfs", "overlay on xfs"], TEST, &["fills"]);
    };
    let cache = open(&place);
    store(&cache);
    assert!(share(&place, "backup"));
    fill(&place);
    share(&place, "another");
    use_while_full(&place, &cache);
    goes_on(&place, &cache);
}

/// The same, and the cache is deleted while others have it open.
#[test]
fn a_cache_is_deleted_from_a_full_disk() {
    const TEST: &str = "a_cache_is_deleted_from_a_full_disk";
    let Some((_, place)) = role() else {
        return on_each(&KINDS, TEST, &["deletes"]);
    };
    let cache = open(&place);
    let other = MmapCache::open_at(apart(cache.path())).unwrap();
    store(&cache);
    check_stored(&other);
    let _ = share(&place, "backup");
    fill(&place);
    let _ = share(&place, "another");
    let path = file_of(&place);
    cache.delete().unwrap();
    assert!(!path.exists());
    assert!(!other.table::<u64, Vec<u64>>("t").contains(&7).unwrap_or(false));
    goes_on(&place, &other);
}

/// The value of a key, most of which is zeros: a copy that leaves out what is zero has holes there.
fn hollow(key: u64) -> Vec<u64> {
    let mut value = vec![0; 5000];
    value[0] = key;
    value
}

fn check_hollow(cache: &MmapCache) {
    let table = cache.table::<u64, Vec<u64>>("hollow");
    for key in 0..20 {
        assert_eq!(table.get(&key).unwrap().map(Cached::into_owned), Some(hollow(key)));
    }
    assert_eq!(cache.verify().unwrap().findings, []);
}

/// Copies a file and leaves out what is zero; to the same file again, or to another one that takes its name.
fn copy_sparsely(file: &Path, to_the_same: bool) {
    let copy = file.with_extension("copy");
    let cp = |mode: &str, from: &Path, to: &Path| {
        assert!(does(Command::new("cp").args(["--reflink=never", mode]).args([from, to])));
    };
    cp("--sparse=always", file, &copy);
    let data = fs::metadata(&copy).unwrap();
    assert!(data.blocks() * 512 < data.len(), "it has holes");
    if to_the_same {
        cp("--sparse=always", &copy, file);
        fs::remove_file(&copy).unwrap();
    } else {
        fs::rename(&copy, file).unwrap();
    }
}

/// On tmpfs a page of a hole takes space when it is read through a map.
#[test]
fn a_file_with_holes_on_a_full_disk_is_read() {
    const TEST: &str = "a_file_with_holes_on_a_full_disk_is_read";
    let Some((role, place)) = role() else {
        for copy in ["copies", "overwrites"] {
            on_each(&KINDS, TEST, &["stores", copy, "reads"]);
        }
        return;
    };
    let cache = match &*role {
        "stores" => {
            let table = open(&place).table::<u64, Vec<u64>>("hollow");
            table.insert_many((0..20).map(|key| (key, hollow(key)))).unwrap();
            return;
        }
        "copies" => {
            copy_sparsely(&file_of(&place), false);
            // Another file than it was, so it is verified; then it is in use while the disk fills.
            let cache = open(&place);
            fill(&place);
            cache
        }
        "overwrites" => {
            // The file that it was, so it is believed; and there is no space for its holes.
            copy_sparsely(&file_of(&place), true);
            fill(&place);
            open(&place)
        }
        _ => open(&place),
    };
    check_hollow(&cache);
    let table = cache.table::<u64, Vec<u64>>("hollow");
    let _ = (table.insert(&1, &hollow(1)), table.remove(&100), cache.flush());
    check_hollow(&cache);
    if role == "reads" {
        empty(&place);
        cache.compact().unwrap();
        check_hollow(&cache);
        store(&cache);
        check_stored(&cache);
    }
}

/// A reader may still search a table that the index has left: where that could take space, it keeps what it
/// has until the next compaction.
#[test]
fn a_former_index_on_tmpfs_has_no_holes() {
    const TEST: &str = "a_former_index_on_tmpfs_has_no_holes";
    let Some((_, place)) = role() else {
        return on_each(&["tmpfs", "overlay on tmpfs"], TEST, &["grows"]);
    };
    let cache = open(&place);
    let table = cache.table::<u64, u64>("t");
    for key in 0..10_000 {
        table.insert(&key, &key).unwrap();
    }
    cache.clear().unwrap();
    (0..100).for_each(|key| drop(table.insert(&key, &key).unwrap()));
    let data = fs::metadata(cache.path()).unwrap();
    assert!(data.blocks() * 512 >= data.len(), "{} blocks of {}", data.blocks(), data.len());
    cache.compact().unwrap();
    assert!(fs::metadata(cache.path()).unwrap().len() < data.len() / 2);
}

/// Without /proc nothing tells which boot this is, and a file without a name gets none by it.
#[test]
fn without_proc_a_cache_works_as_well() {
    const TEST: &str = "without_proc_a_cache_works_as_well";
    let Some((role, place)) = role() else {
        let dir = Dir::new();
        for role in ["stores", "reads"] {
            let inner = command(TEST, role, &dir.join("caches"));
            let mut shell = Command::new("unshare");
            shell.args([
                "-m",
                "sh",
                "-c",
                "mount -t tmpfs none /proc || exit 9; exec \"$0\" \"$@\"",
            ]);
            shell.arg(inner.get_program()).args(inner.get_args());
            shell.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
            let output = shell.output();
            let Some(output) = output.ok().filter(|it| !matches!(it.status.code(), Some(1 | 9)))
            else {
                return eprintln!("not run: this machine lets the test mount nothing");
            };
            assert!(output.status.success(), "{role}: {output:?}");
        }
        return;
    };
    assert!(!Path::new("/proc/self").exists());
    let cache = open(&place);
    if role == "stores" {
        store(&cache);
    }
    check_stored(&cache);
    cache.compact().unwrap();
    check_stored(&cache);
    cache.sync().unwrap();
    // No opening finds a provenance that holds; and none changes it.
    let path = cache.path().to_path_buf();
    drop(cache);
    let image = fs::read(&path).unwrap();
    for _ in 0..20 {
        check_stored(&open(&place));
        assert!(fs::read(&path).unwrap() == image);
    }
    let cache = open(&place);
    assert_eq!(*cache.memoize_as("f", |n: &u64| n + 1).call(&1), 2);
    if role == "reads" {
        cache.clear().unwrap();
        assert!(!cache.table::<u64, Vec<u64>>("t").contains(&7).unwrap());
        cache.delete().unwrap();
        store(&cache);
        check_stored(&cache);
    }
}
