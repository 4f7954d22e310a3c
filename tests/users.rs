//! Other users: those who may change names on the way to a cache, those whose directory it lies in, and
//! what they put beside it. Most of it needs root, who can be any user.
#![allow(missing_docs)]

mod common;

use common::{Dir, command, effort, finish, role};
use persist_cache::{Cached, Error, Exposure, MmapCache, OpenOptions};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

/// A user who is nobody on this machine.
const OTHER: u32 = 54321;

/// Longer than anything here takes.
const HANG: Duration = Duration::from_secs(30);

/// Says so if this process can be no other user.
fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("not run: this process is not root");
    }
    is_root
}

/// A test as a process of another user, who may read and execute nothing but a copy of the program.
fn spawn_as_other(test: &str, role: &str, place: &Path) -> (Child, Dir) {
    let programs = Dir::new();
    let program = programs.join("program");
    set_mode(programs.path(), 0o755);
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let model = command(test, role, place);
    let mut child = Command::new(&program);
    child.args(model.get_args()).envs(model.get_envs().filter_map(|(k, v)| Some((k, v?))));
    child.uid(OTHER).gid(OTHER).current_dir("/").stdout(Stdio::piped()).stderr(Stdio::piped());
    (child.spawn().unwrap(), programs)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// The files at and under a path.
fn all_below(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_path_buf()];
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            found.extend(all_below(&entry.unwrap().path()));
        }
    }
    found
}

fn open(root: &Path) -> Result<MmapCache, Error> {
    MmapCache::options().root(root).open("x")
}

fn exposed(root: &Path) -> (PathBuf, Exposure) {
    match open(root) {
        Err(Error::Exposed { path, exposure }) => (path, exposure),
        other => panic!("{other:?}", other = other.map(|_| "opened")),
    }
}

/// Nothing is made below a directory in which others could exchange it, and nothing there is mapped.
#[test]
fn a_place_that_others_could_exchange_is_refused() {
    let dir = Dir::new();
    let (shared, root) = (dir.join("shared"), dir.join("shared/own/root"));
    fs::create_dir(&shared).unwrap();
    let shared = shared.canonicalize().unwrap();
    set_mode(&shared, 0o777);
    let refused = (shared.clone(), Exposure::WritableByOthers(0o777));
    assert_eq!(exposed(&root), refused);
    assert_eq!(all_below(&shared).len(), 1, "something was made");
    // Where only owners may change names, as in `/tmp`, nobody can exchange it.
    set_mode(&shared, 0o1777);
    drop(open(&root).unwrap());
    assert!(root.join("CACHEDIR.TAG").exists());
    set_mode(&shared, 0o777);
    assert_eq!(exposed(&root), refused);
    let through_link = dir.join("link");
    symlink(&root, &through_link).unwrap();
    assert_eq!(exposed(&through_link), refused, "the way that the link leads is looked at");
    let copied = MmapCache::options().copy_reads().root(&root).open("x").unwrap();
    copied.table::<u64, u64>("t").insert(&1, &1).unwrap();
    if is_root() {
        set_mode(&shared, 0o775);
        chown(&shared, None, Some(OTHER)).unwrap();
        assert_eq!(exposed(&root), (shared.clone(), Exposure::WritableByOthers(0o775)));
        set_mode(&shared, 0o755);
        chown(&shared, Some(OTHER), None).unwrap();
        let foreign = Exposure::ForeignOwner { owner: OTHER, user: 0 };
        assert_eq!(exposed(&root), (shared.clone(), foreign));
        chown(&shared, Some(0), None).unwrap();
    }
    set_mode(&shared, 0o755);
    assert!(open(&root).unwrap().table::<u64, u64>("t").contains(&1).unwrap());
}

/// Another user's link leads where he wants, the next time perhaps elsewhere.
#[test]
fn a_link_of_another_user_is_refused() {
    if !is_root() {
        return;
    }
    let dir = Dir::new();
    let (link, victim) = (dir.path().canonicalize().unwrap().join("link"), dir.join("victim"));
    fs::create_dir(&victim).unwrap();
    symlink(&victim, &link).unwrap();
    drop(open(&link.join("own")).unwrap());
    lchown(&link, Some(OTHER), None).unwrap();
    let foreign = Exposure::ForeignOwner { owner: OTHER, user: 0 };
    for root in [link.clone(), link.join("own"), link.join("others")] {
        assert_eq!(exposed(&root), (link.clone(), foreign));
    }
    assert!(!victim.join("others").exists() && !victim.join("CACHEDIR.TAG").exists());
}

/// The other user puts a directory of links in the place of every root that he sees being made.
#[test]
fn a_root_exchanged_while_it_is_made_harms_nobody() {
    const TEST: &str = "a_root_exchanged_while_it_is_made_harms_nobody";
    if let Some((_, place)) = role() {
        let secret = place.join("secret");
        for n in 0_u64.. {
            let bait = place.join(format!("bait-{n}"));
            fs::create_dir(&bait).unwrap();
            for name in ["CACHEDIR.TAG", ".gitignore"] {
                symlink(&secret, bait.join(name)).unwrap();
            }
            let root = place.join(format!("root-{n}"));
            let mut stolen = place.join(format!("stolen-{n}"));
            while fs::rename(&root, &stolen).is_err() {
                if place.join("over").exists() || !place.exists() {
                    return;
                }
            }
            stolen.set_file_name(format!("root-{n}"));
            let _ = fs::rename(&bait, &stolen);
        }
    }
    if !is_root() {
        return;
    }
    let dir = Dir::new();
    set_mode(dir.path(), 0o777);
    let (secret, victim) = (dir.join("secret"), "nobody else writes this");
    fs::write(&secret, victim).unwrap();
    let (mut thief, _programs) = spawn_as_other(TEST, "thief", dir.path());
    for n in 0..200 * effort() {
        let root = dir.join(&format!("root-{n}"));
        // Whoever wins, a call is answered. (Checked, nothing is made there at all.)
        let _ = MmapCache::options().copy_reads().root(&root).open("x");
        while !dir.join(&format!("bait-{}", n + 1)).exists() {
            assert!(thief.try_wait().unwrap().is_none(), "the thief has ended");
            std::thread::sleep(Duration::from_micros(100)); // Until this one is stolen.
        }
        assert_eq!(fs::read_to_string(&secret).unwrap(), victim, "overwritten at root {n}");
    }
    fs::write(dir.join("over"), "").unwrap();
    finish(thief);
    assert_eq!(secret.metadata().unwrap().uid(), 0);
}

/// What another user has put where a compaction prepares its file does not become the cache.
#[test]
fn a_planted_successor_is_not_taken() {
    if !is_root() {
        return;
    }
    let dir = Dir::new();
    set_mode(dir.path(), 0o1777);
    let (path, new) = (dir.join("x.pcache"), dir.join("x.pcache.new"));
    let cache = MmapCache::options().copy_reads().open_at(&path).unwrap();
    let table = cache.table::<u64, u64>("t");
    table.insert_many((0..100).map(|key| (key, key))).unwrap();
    for (owner, mode) in [(OTHER, 0o666), (OTHER, 0o600), (0, 0o622)] {
        fs::write(&new, "planted").unwrap();
        chown(&new, Some(owner), None).unwrap();
        set_mode(&new, mode);
        let planted = fs::OpenOptions::new().write(true).open(&new).unwrap();
        cache.compact().unwrap();
        let data = fs::metadata(&path).unwrap();
        assert_ne!(data.ino(), planted.metadata().unwrap().ino(), "it is the cache");
        assert_eq!((data.uid(), data.mode() & 0o777), (0, 0o600));
        assert!(!new.exists());
        assert!((0..100).all(|key| *table.get(&key).unwrap().unwrap() == key));
    }
    // Nor is what somebody is preparing taken from him.
    fs::write(&new, "planted").unwrap();
    let held = fs::File::open(&new).unwrap();
    fs4::FileExt::lock(&held).unwrap();
    assert!(matches!(cache.compact(), Err(Error::Busy { .. })));
    fs::remove_file(&new).unwrap();
    let victim = dir.join("victim");
    fs::write(&victim, "victim").unwrap();
    symlink(&victim, &new).unwrap();
    let error = cache.compact().map(drop).unwrap_err();
    assert!(matches!(error, Error::Exposed { exposure: Exposure::Symlink, .. }), "{error}");
    assert_eq!(fs::read(&victim).unwrap(), b"victim");
}

/// Nor is it taken where it cannot be removed.
#[test]
fn a_planted_successor_that_stays_is_an_error() {
    const TEST: &str = "a_planted_successor_that_stays_is_an_error";
    if let Some((_, place)) = role() {
        let path = place.join("x.pcache");
        let cache = MmapCache::options().copy_reads().open_at(path).unwrap();
        let table = cache.table::<u64, u64>("t");
        table.insert(&1, &1).unwrap();
        let error = cache.compact().map(drop).unwrap_err();
        let foreign = Exposure::ForeignOwner { owner: 0, user: OTHER };
        assert!(matches!(error, Error::Exposed { exposure, .. } if exposure == foreign), "{error}");
        assert_eq!(*table.get(&1).unwrap().unwrap(), 1);
        return;
    }
    if !is_root() {
        return;
    }
    for mode in [0o666, 0o600] {
        let dir = Dir::new();
        set_mode(dir.path(), 0o1777);
        fs::write(dir.join("x.pcache.new"), "planted").unwrap();
        set_mode(&dir.join("x.pcache.new"), mode);
        let (child, _programs) = spawn_as_other(TEST, "child", dir.path());
        finish(child);
        assert_eq!(fs::metadata(dir.join("x.pcache")).unwrap().uid(), OTHER);
        assert_eq!(fs::read(dir.join("x.pcache.new")).unwrap(), b"planted");
    }
}

/// What root makes in a user's directory is the user's, who goes on with it as if he had made it.
#[test]
fn root_leaves_nothing_that_the_user_cannot_write() {
    const TEST: &str = "root_leaves_nothing_that_the_user_cannot_write";
    if let Some((_, root)) = role() {
        let cache = open(&root).unwrap();
        let table = cache.table::<u64, u64>("t");
        assert_eq!(*table.get(&1).unwrap().unwrap(), 1);
        table.insert(&2, &2).unwrap();
        assert_eq!(*cache.memoize_as("f", |n: &u64| n + 1).call(&7), 8);
        cache.compact().unwrap();
        return;
    }
    if !is_root() {
        return;
    }
    let dir = Dir::new();
    let home = dir.path().canonicalize().unwrap();
    chown(&home, Some(OTHER), Some(OTHER)).unwrap();
    let root = home.join("project/caches");
    let foreign = Exposure::ForeignOwner { owner: OTHER, user: 0 };
    assert_eq!(exposed(&root), (home.clone(), foreign));
    assert!(!home.join("project").exists());
    let use_it = |expected: u64| {
        let cache = MmapCache::options().copy_reads().root(&root).open("x").unwrap();
        let table = cache.table::<u64, u64>("t");
        assert_eq!(table.get(&2).unwrap().map_or(0, Cached::into_owned), expected);
        table.insert(&1, &1).unwrap();
        assert_eq!(*cache.memoize_as("f", |n: &u64| n + 1).call(&expected), expected + 1);
        cache.compact().unwrap();
        table.insert(&3, &3).unwrap();
        for path in all_below(&home) {
            let data = fs::symlink_metadata(&path).unwrap();
            assert_eq!((data.uid(), data.gid()), (OTHER, OTHER), "{}", path.display());
        }
        // The directory, its parent and its parent's, two marks, the cache, the sidecar.
        assert_eq!(all_below(&home).len(), 7);
        cache.path().to_path_buf()
    };
    let path = use_it(0);
    set_mode(&path, 0o640);
    let (child, _programs) = spawn_as_other(TEST, "user", &root);
    finish(child);
    use_it(2);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640, "it keeps its mode");
    assert_eq!(fs::metadata(&root).unwrap().mode() & 0o777, 0o700);
}

/// Who cannot give a file its owner does not replace it.
#[test]
fn a_file_keeps_its_owner_or_stays() {
    const TEST: &str = "a_file_keeps_its_owner_or_stays";
    if let Some((_, place)) = role() {
        let cache = MmapCache::options().copy_reads().open_at(place.join("x.pcache")).unwrap();
        let table = cache.table::<u64, u64>("t");
        assert_eq!(*table.get(&1).unwrap().unwrap(), 1);
        let Err(Error::Io { action, source, .. }) = cache.compact() else { panic!("compacted") };
        assert_eq!((action, source.kind()), ("keep the owner of", io::ErrorKind::PermissionDenied));
        table.insert(&2, &2).unwrap();
        return;
    }
    if !is_root() {
        return;
    }
    let dir = Dir::new();
    set_mode(dir.path(), 0o777);
    let path = dir.join("x.pcache");
    let cache = MmapCache::options().copy_reads().open_at(&path).unwrap();
    let table = cache.table::<u64, u64>("t");
    table.insert(&1, &1).unwrap();
    set_mode(&path, 0o666);
    let inode = fs::metadata(&path).unwrap().ino();
    let (child, _programs) = spawn_as_other(TEST, "child", dir.path());
    finish(child);
    let data = fs::metadata(&path).unwrap();
    assert_eq!((data.ino(), data.uid(), data.mode() & 0o777), (inode, 0, 0o666));
    assert_eq!(*table.get(&2).unwrap().unwrap(), 2);
    assert!(!dir.join("x.pcache.new").exists());
    // Who can does.
    chown(&path, None, Some(OTHER)).unwrap();
    cache.compact().unwrap();
    let data = fs::metadata(&path).unwrap();
    assert_eq!((data.uid(), data.gid(), data.mode() & 0o777), (0, OTHER, 0o666));
    assert_ne!(data.ino(), inode);
}

/// Whoever may lock a sidecar for good could keep all others waiting.
#[test]
fn a_sidecar_of_another_user_makes_nobody_wait() {
    if !is_root() {
        return;
    }
    let dir = Dir::new();
    let open = |access: fn(OpenOptions) -> OpenOptions| {
        let options = MmapCache::options().root(dir.path()).claim_timeout(HANG);
        access(options).open("x").unwrap()
    };
    // Stores of different kinds are as far apart as two processes.
    let (one, other) = (open(|options| options), open(OpenOptions::copy_reads));
    let (arrived, arrival) = mpsc::channel();
    let (done, is_done) = mpsc::channel();
    let (arrived, is_done) = (Mutex::new(arrived), Mutex::new(is_done));
    let slow = one.memoize_as("f", |n: &u64| {
        arrived.lock().unwrap().send(()).unwrap();
        is_done.lock().unwrap().recv_timeout(HANG).map_or(0, |()| n + 1)
    });
    std::thread::scope(|scope| {
        let led = scope.spawn(|| Cached::into_owned(slow.call(&1)));
        arrival.recv_timeout(HANG).unwrap();
        let sidecar = one.path().with_extension("pcache.claims");
        chown(&sidecar, Some(OTHER), Some(OTHER)).unwrap();
        set_mode(&sidecar, 0o666);
        assert_eq!(*other.memoize_as("f", |n: &u64| n + 1).call(&1), 2);
        done.send(()).unwrap();
        assert_eq!(led.join().unwrap(), 2, "the other one waited");
    });
}
