//! Who sends them, kills them, and looks at what is left.

use crate::history::{Diary, Effect, History, Operation, now};
use crate::roles::{KEYS, Order, STABLE, open, value_of, version_of};
use crate::{Numbers, Plan};
use persist_cache::MmapCache;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Processes at a time.
const SLOTS: u64 = 6;
/// Kills from one look at what is left to the next.
const BATCH: u64 = 300;
/// A file that is compacted now and then does not get larger than this, in bytes.
const SIZE_MAX: u64 = 256 << 20;

/// What was done so far.
#[derive(Default)]
struct Totals {
    kills: u64,
    batches: u64,
    operations: u64,
    reads: u64,
    compactions: u64,
    growths: u64,
    largest: u64,
}

pub(crate) fn torture(plan: &Plan) -> Result<(), String> {
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let root = plan.directory.as_deref().unwrap_or(scratch.path());
    let begin = Instant::now();
    let mut totals = Totals::default();
    let mut numbers = Numbers(plan.seed);
    let is_over = |totals: &Totals| {
        totals.kills >= plan.kills || plan.time.is_some_and(|time| begin.elapsed() >= time)
    };
    while !is_over(&totals) {
        let directory = root.join(format!("batch {}", totals.batches));
        std::fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
        let batch = run_batch(&directory, totals.batches % 2 == 1, numbers.next(), &mut totals);
        if let Err(fault) = batch {
            // A fault is looked into with the file as it is.
            let kept = scratch.keep();
            return Err(format!("{fault}\nseed {}, left in {}", plan.seed, kept.display()));
        }
        std::fs::remove_dir_all(&directory).map_err(|error| error.to_string())?;
        totals.batches += 1;
        if totals.batches.is_multiple_of(20) || is_over(&totals) {
            println!(
                "{:>6.0?}: {} kills, {} operations, {} verified reads, {} compactions, {} growths, \
                 largest file {} KiB: no fault",
                begin.elapsed(),
                totals.kills,
                totals.operations,
                totals.reads,
                totals.compactions,
                totals.growths,
                totals.largest >> 10
            );
        }
    }
    Ok(())
}

fn run_batch(directory: &Path, clears: bool, seed: u64, totals: &mut Totals) -> Result<(), String> {
    let mut history = History::default();
    {
        let (_cache, table) = open(directory).map_err(|error| error.to_string())?;
        let began = now();
        table
            .insert_many(STABLE.map(|key| (key, value_of(key, 1))))
            .map_err(|error| error.to_string())?;
        let effect = Effect::Stored(1);
        let (first, end) = (STABLE.start, STABLE.end);
        history.operations.push(Operation {
            first,
            end,
            effect,
            began,
            ended: now(),
            is_done: true,
        });
    }
    let next = AtomicU64::new(0);
    let first = totals.batches * BATCH + 1;
    let fates: Result<Vec<()>, String> = std::thread::scope(|scope| {
        let slot = |slot: u64| {
            let next = &next;
            scope.spawn(move || {
                let mut numbers = Numbers(seed ^ slot);
                loop {
                    let number = next.fetch_add(1, Relaxed); // Relaxed: distinct numbers, no more.
                    if number >= BATCH {
                        return Ok(());
                    }
                    let order = Order {
                        role: slot.wrapping_add(numbers.next()),
                        clears,
                        number: first + number,
                        seed: numbers.next(),
                        directory: directory.to_path_buf(),
                    };
                    send_and_kill(&order, &mut numbers)?;
                }
            })
        };
        let slots: Vec<_> = (0..SLOTS).map(slot).collect();
        let watch = scope.spawn(|| watch_growth(directory, &next));
        let fates = slots.into_iter().map(|slot| slot.join().expect("a slot does not panic"));
        let fates = fates.collect();
        next.store(u64::MAX / 2, Relaxed);
        totals.growths += watch.join().expect("nor does who watches");
        fates
    });
    fates?;
    totals.kills += BATCH;
    for number in first..first + BATCH {
        let diary = directory.join(format!("{number}.diary"));
        history.read(&diary).map_err(|error| format!("{}: {error}", diary.display()))?;
    }
    history.bound_unfinished();
    totals.operations += history.operations.len() as u64;
    totals.reads += history.reads;
    totals.compactions += history.compactions;
    look(directory, &history, totals)
}

/// Sends a process and kills it after up to 8 ms; half of them only once they have the cache open.
fn send_and_kill(order: &Order, numbers: &mut Numbers) -> Result<(), String> {
    let mut command = Command::new(std::env::current_exe().map_err(|error| error.to_string())?);
    let (name, text) = order.to_environment();
    command.env(name, text).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("spawn: {error}"))?;
    if numbers.below(2) == 0 {
        let mut ready = [0];
        let _ = child.stdout.take().map(|mut out| out.read(&mut ready));
    }
    std::thread::sleep(Duration::from_micros(numbers.below(8000)));
    child.kill().map_err(|error| format!("kill: {error}"))?;
    let output = child.wait_with_output().map_err(|error| format!("wait: {error}"))?;
    Diary::close(&order.diary()).map_err(|error| format!("{}: {error}", order.number))?;
    match output.status.signal() {
        Some(9) => Ok(()),
        _ => Err(format!("{order:?}: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// How often the index in the header was seen to have grown.
fn watch_growth(directory: &Path, next: &AtomicU64) -> u64 {
    let (mut growths, mut buckets) = (0, 64);
    while next.load(Relaxed) < BATCH {
        let mut word = [0; 8];
        let path = directory.join("torture.pcache");
        if File::open(path).is_ok_and(|file| file.read_exact_at(&mut word, 520).is_ok()) {
            let seen = u64::from_le_bytes(word) & ((1 << 30) - 1);
            growths += u64::from(seen > buckets);
            buckets = seen;
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    growths
}

/// Everything that must be so once all are dead.
fn look(directory: &Path, history: &History, totals: &mut Totals) -> Result<(), String> {
    let failed = |what: &'static str| move |error: persist_cache::Error| format!("{what}: {error}");
    let (cache, table) = open(directory).map_err(failed("open"))?;
    // The lock is free, and whoever takes it finishes what the dead began.
    let quick = MmapCache::options().lock_timeout(Duration::from_millis(200));
    let quick = quick.open_at(cache.path()).map_err(failed("open"))?;
    quick.table::<u64, u64>("lock").insert(&0, &0).map_err(failed("the lock"))?;
    let size = || std::fs::metadata(cache.path()).map(|data| data.len()).map_err(|e| e.to_string());
    totals.largest = totals.largest.max(size()?);
    if size()? > SIZE_MAX {
        return Err(format!("the file has {} bytes", size()?));
    }
    let all = || -> Result<BTreeMap<u64, u64>, String> {
        let mut found = BTreeMap::new();
        for key in 0..KEYS {
            if let Some(value) = table.get(&key).map_err(failed("get"))? {
                found.insert(key, version_of(key, &value));
            }
        }
        Ok(found)
    };
    let found = all()?;
    if let Some(fault) = history.fault(KEYS, &found) {
        return Err(fault);
    }
    let findings = cache.verify().map_err(failed("verify"))?.findings;
    if !findings.is_empty() {
        return Err(format!("the log: {findings:?}"));
    }
    let kept = cache.compact().map_err(failed("compact"))?.entries_kept;
    // Each key once, and the one of the lock.
    if kept != found.len() as u64 + 1 || all()? != found {
        return Err(format!("{kept} entries after a compaction, {} keys", found.len() + 1));
    }
    Ok(())
}
