//! What the tests share: a private directory, caches in it, and this very program as another process.
#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part")]

use persist_cache::MmapCache;
use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A directory of this test's own, gone with it.
pub struct Dir(tempfile::TempDir);

impl Dir {
    pub fn new() -> Dir {
        Dir(tempfile::tempdir().expect("a directory"))
    }
    pub fn path(&self) -> &Path {
        self.0.path()
    }
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    /// The cache of this name in the directory.
    pub fn open(&self, name: &str) -> MmapCache {
        MmapCache::options().root(self.path()).open(name).expect("the cache opens")
    }
}

/// The path in another spelling: what is opened by it has nothing in common with what is opened by the first
/// but the file, as two processes have.
pub fn apart(path: &Path) -> PathBuf {
    let directory = path.parent().expect("a cache lies in a directory");
    let name = directory.file_name().expect("which is not `/`");
    directory.join("..").join(name).join(path.file_name().expect("a file"))
}

/// Counts how often a memoised function runs.
#[derive(Default)]
pub struct Calls(Cell<u64>);

impl Calls {
    pub fn add(&self) {
        self.0.set(self.0.get() + 1);
    }
    /// How often since it was last asked.
    pub fn take(&self) -> u64 {
        self.0.take()
    }
}

const ROLE: &str = "PERSIST_CACHE_TEST_ROLE";
const PLACE: &str = "PERSIST_CACHE_TEST_PLACE";

/// This test program as another process, which runs the test named `test` and finds its role there.
pub fn spawn(test: &str, role: &str, place: &Path) -> Child {
    command(test, role, place).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn")
}

pub fn command(test: &str, role: &str, place: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]);
    command.env(ROLE, role).env(PLACE, place);
    command
}

/// The role and place of this process, if it is another's.
pub fn role() -> Option<(String, PathBuf)> {
    Some((std::env::var(ROLE).ok()?, PathBuf::from(std::env::var_os(PLACE)?)))
}

/// Waits for a process and demands that it went well.
pub fn finish(child: Child) -> Output {
    let output = child.wait_with_output().expect("wait");
    assert!(
        output.status.success(),
        "{:?}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// Runs `test` as another process under a shell's limit.
pub fn run_limited(test: &str, limit: &str, place: &Path) {
    let inner = command(test, limit, place);
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("ulimit {limit}; exec \"$0\" \"$@\"")).arg(inner.get_program());
    shell.args(inner.get_args());
    shell.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let stdio = Stdio::piped;
    finish(shell.stdout(stdio()).stderr(stdio()).spawn().unwrap());
}

/// Runs a command with a small disk of its own mounted at `dir`, where that is allowed.
pub fn on_small_disk(dir: &Dir, size: &str, command: impl FnOnce() -> Command) {
    let options = format!("size={size},mode=700");
    on_disk(dir.path(), &["-t", "tmpfs", "-o", &options], None, command);
}

/// Runs a command with a disk mounted at `place`, where that is allowed.
pub fn on_disk(
    place: &Path,
    options: &[&str],
    device: Option<&Path>,
    command: impl FnOnce() -> Command,
) {
    let mut mount = Command::new("mount");
    mount.args(options).arg(device.unwrap_or(Path::new("none"))).arg(place);
    if !mount.output().is_ok_and(|output| output.status.success()) {
        eprintln!("not run: this machine lets the test mount nothing");
        return;
    }
    let result = command().output();
    let unmounted = Command::new("umount").arg("-l").arg(place).status();
    assert!(unmounted.unwrap().success());
    let result = result.unwrap();
    assert!(result.status.success(), "{result:?}");
}

/// A well-mixed number.
pub fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// The value of a key, which says itself whether it is right: its length too depends on the key.
pub fn value_of(key: u64) -> Vec<u64> {
    let len = mix(key) % 40;
    (0..len).map(|n| mix(key ^ (n << 32))).collect()
}

/// How much of the long tests is tried: 1 in `cargo test`, as much as `PERSIST_CACHE_EFFORT` says elsewhere.
pub fn effort() -> u64 {
    std::env::var("PERSIST_CACHE_EFFORT").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}
