//! What the benches share: where caches lie, keys and values, and a steady way to measure two things
//! in one run.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each bench uses a part")]

use persist_cache::{MmapCache, Table};
use std::time::{Duration, Instant};

/// Entries of a large cache.
pub const LARGE: u64 = 1_000_000;
/// Keys of a hot set.
pub const HOT: u64 = 1000;

/// A directory for caches: `BENCH_DIR`, or memory where there is such a place, or the system's own.
pub fn directory() -> tempfile::TempDir {
    let shm = std::path::Path::new("/dev/shm");
    match std::env::var_os("BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir),
        None if shm.is_dir() => tempfile::tempdir_in(shm),
        None => tempfile::tempdir(),
    }
    .expect("a directory for benches")
}

/// Opens a cache in `dir`.
pub fn open(dir: &tempfile::TempDir, name: &str) -> MmapCache {
    MmapCache::options().root(dir.path()).open(name).expect("a cache opens")
}

/// A 16-byte key that is no counter.
pub fn key(n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mix(n).to_le_bytes());
    key[8..].copy_from_slice(&mix(!n).to_le_bytes());
    key
}

/// A well-mixed number: a key order in which neighbours are strangers.
pub fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// Fills a table with `count` values of `N` bytes.
pub fn fill<const N: usize>(cache: &MmapCache, count: u64) -> Table<[u8; 16], [u8; N]>
where
    [u8; N]: persist_cache::CacheValue,
{
    let table = cache.table::<[u8; 16], [u8; N]>("bench");
    table.insert_many((0..count).map(|n| (key(n), [n as u8; N]))).expect("the bench's entries fit");
    table
}

/// Measures two things by turns, so that a noisy machine is noisy to both, and prints the median time
/// of an operation of each and their ratio.
pub fn compare(
    what: &str,
    operations: u64,
    (own_name, mut own): (&str, impl FnMut()),
    (yardstick_name, mut yardstick): (&str, impl FnMut()),
) -> f64 {
    const ROUNDS: usize = 9;
    let mut times: [Vec<f64>; 2] = Default::default();
    let time = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64() / operations as f64
    };
    own();
    yardstick();
    for _ in 0..ROUNDS {
        times[0].push(time(&mut own));
        times[1].push(time(&mut yardstick));
    }
    let [own, yardstick] = times.map(median);
    let ratio = own / yardstick;
    println!(
        "{what:<44} {own_name} {:>10}   {yardstick_name} {:>10}   ratio {ratio:.2}",
        nanos(own),
        nanos(yardstick)
    );
    ratio
}

/// The middle one.
pub fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Seconds as nanoseconds, to read.
pub fn nanos(seconds: f64) -> String {
    match seconds * 1e9 {
        small if small < 10_000.0 => format!("{small:.1} ns"),
        large if large < 10_000_000.0 => format!("{:.1} us", large / 1e3),
        huge => format!("{:.1} ms", huge / 1e6),
    }
}

/// A duration that outlives the bench.
pub const LONG: Duration = Duration::from_secs(86_400);

/// The disk blocks of a file, in bytes.
pub fn blocks(path: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).expect("the file is there").blocks() * 512
}
