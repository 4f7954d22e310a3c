//! Keys, orders of keys, and what is made of many times.

use crate::rivals::Key;
use anyhow::Result;
use memmap2::{Advice, MmapMut};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};
use std::sync::OnceLock;

/// A well-mixed number: neighbours become strangers.
pub fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// The key of a number.
pub fn key(n: u64) -> Key {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mix(n).to_be_bytes());
    key[8..].copy_from_slice(&mix(!n).to_be_bytes());
    key
}

/// The value of a number: nothing that compresses well.
pub fn value(n: u64, size: usize) -> Vec<u8> {
    (0..size.div_ceil(8) as u64)
        .flat_map(|at| mix(n ^ (at << 40)).to_le_bytes())
        .take(size)
        .collect()
}

pub fn entries(numbers: std::ops::Range<u64>, size: usize) -> Vec<(Key, Vec<u8>)> {
    numbers.map(|n| (key(n), value(n, size))).collect()
}

/// Orders in which keys are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// A thousand keys, again and again.
    Hot,
    Uniform,
    /// Zipf with an exponent of 0.99.
    Zipf,
    /// Keys that are not there.
    Absent,
}

impl Order {
    /// So many keys out of the first `count`, different in each round.
    pub fn keys(self, count: u64, gets: usize, round: u64) -> Vec<Key> {
        let random = |n: usize| mix(mix(n as u64) ^ (round << 48));
        match self {
            Order::Hot => (0..gets).map(|n| key(mix(n as u64 % 1000) % count)).collect(),
            Order::Uniform => (0..gets).map(|n| key(random(n) % count)).collect(),
            Order::Absent => (0..gets).map(|n| key(u64::MAX - random(n) % (1 << 40))).collect(),
            Order::Zipf => {
                let mut sum = 0.0;
                let weights = (1..=count).map(|rank| {
                    sum += (rank as f64).powf(-0.99);
                    sum
                });
                let sums: Vec<f64> = weights.collect();
                let pick = |n: usize| {
                    let at = random(n) as f64 / u64::MAX as f64 * sum;
                    let rank = sums.partition_point(|sum| *sum < at) as u64;
                    key(mix(rank) % count)
                };
                (0..gets).map(pick).collect()
            }
        }
    }
}

/// The middle one.
pub fn median(values: &[f64]) -> f64 {
    quantile(&mut values.to_vec(), 0.5)
}

/// The value below which such a part of all lies.
pub fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * part) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// How far the rounds lie apart: half of them lie in so large a part of the median.
pub fn spread(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    (quantile(&mut values, 0.75) - quantile(&mut values, 0.25)) / quantile(&mut values, 0.5)
}

/// The cores that this process may use, as they were when it first asked.
fn cores() -> &'static CpuSet {
    static CORES: OnceLock<CpuSet> = OnceLock::new();
    CORES.get_or_init(|| sched_getaffinity(None).unwrap_or_default())
}

/// This thread on one core, so that it does not wander while it is timed, until this is dropped. Threads and
/// processes that it starts meanwhile stay there too.
pub struct Pinned(());

impl Pinned {
    pub fn to(core: usize) -> Pinned {
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| cores().is_set(*core)).collect();
        let mut set = CpuSet::new();
        if let Some(core) = all.get(core % all.len().max(1)) {
            set.set(*core);
            // Where that is not allowed it wanders.
            let _ = sched_setaffinity(None, &set);
        }
        Pinned(())
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(None, cores());
    }
}

/// So many lines of 64 bytes, in large pages if they are to be had.
pub fn lines(count: usize, in_large_pages: bool) -> Result<MmapMut> {
    let memory = MmapMut::map_anon(count * 64)?;
    memory.advise(if in_large_pages { Advice::HugePage } else { Advice::NoHugePage })?;
    Ok(memory)
}

/// Uses memory and gives it back, before something is timed that needs as much: a virtual machine may not
/// have it, or not any more, and a page that its host must find first takes ten times as long. Page by page:
/// a large one would leave the pieces that are given out next as they are.
pub fn touch_memory(mebibytes: usize) -> Result<()> {
    let mut memory = lines(mebibytes << 14, false)?;
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    Ok(())
}

/// Bytes of memory this process had at most, and those that are its own now.
pub fn memory() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? * 1024.0)
    };
    (of("VmHWM:").unwrap_or(f64::NAN), of("RssAnon:").unwrap_or(f64::NAN))
}

/// How many pages this process has had mapped so far, one by one.
pub fn page_faults() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let faults = behind_name.split_whitespace().nth(7).and_then(|field| field.parse().ok());
    faults.unwrap_or(f64::NAN)
}

/// The disk blocks of everything in a directory, in bytes.
pub fn blocks(dir: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => blocks(&entry.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}
