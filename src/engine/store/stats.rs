//! Counts: of the file, kept by its writers in the header; and of this process, kept by its threads.
//!
//! A writer that was killed between a slot and its count leaves the count wrong by one record, until the index is
//! made anew or the file is compacted. Threads count hits by plain loads and stores in counters of their own, which
//! are added up when somebody asks.
//!
//! What is counted where:
//!
//! | | where | lives as long as | exact |
//! | --- | --- | --- | --- |
//! | entries, their bytes | words of the header | the file; a compaction counts anew | but for deaths of writers |
//! | the file's size | the file system | | yes |
//! | dead bytes | the log less the live bytes and the index | | as the live bytes |
//! | hits, time saved | the threads' counters | this process and store | yes |
//! | misses, errors | one counter for all threads | the same | yes |
//!
//! The file's lock is not taken, so the numbers of one answer may be of different moments: a put may be in the one and
//! not in the other. Hits of all processes together would need a word of the file that each hit writes to. They are
//! rejected for that: a hit writes to no memory that others use.

use super::Store;
use super::pin::Totals;
use crate::engine::format::header::word;
use crate::engine::os::file::Storage as _;
use crate::error::{Error, Result};
use std::time::Duration;

/// What a cache holds, and what this process did with it, from [`MmapCache::stats`](crate::MmapCache::stats).
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let cache = persist_cache::MmapCache::options().root(dir.path()).open("doc")?;
/// let sizes = cache.table::<str, u64>("sizes");
/// sizes.insert("a.txt", &17)?;
/// sizes.get("b.txt")?;
/// let stats = cache.stats();
/// assert_eq!((stats.entries, stats.hits, stats.misses), (1, 0, 1));
/// assert!(stats.file_bytes > stats.live_bytes);
/// # Ok::<(), persist_cache::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Entries that can be found, expired ones included until they are flushed or compacted away.
    ///
    /// Writers keep this count and the count of bytes beside it. A process that is killed in the middle of an append
    /// may leave them off by that append; a compaction counts anew.
    pub entries: u64,
    /// Bytes that these entries take in the file.
    pub live_bytes: u64,
    /// Bytes of the log that a compaction would give back.
    pub dead_bytes: u64,
    /// The file's size in bytes.
    pub file_bytes: u64,
    /// Look-ups of this process that found a value.
    pub hits: u64,
    /// Look-ups of this process that found none.
    pub misses: u64,
    /// Calls of this process whose result could not be looked up or stored, and attempts to open the
    /// cache of a `#[cache]` function that failed.
    pub store_errors: u64,
    /// How long the computations took whose results this process read. Each hit adds what its result took.
    pub time_saved: Duration,
}

impl Stats {
    /// The counts of this process alone.
    pub(crate) fn of_process(totals: &Totals) -> Stats {
        let (hits, saved) = totals.hits();
        Stats {
            hits,
            misses: totals.misses(),
            store_errors: totals.store_errors(),
            time_saved: Duration::from_nanos(saved),
            ..Stats::default()
        }
    }

    /// These counts, with the calls that `other` counts.
    pub(crate) fn with_calls_of(self, other: &Stats) -> Stats {
        Stats {
            hits: self.hits.saturating_add(other.hits),
            misses: self.misses.saturating_add(other.misses),
            store_errors: self.store_errors.saturating_add(other.store_errors),
            time_saved: self.time_saved.saturating_add(other.time_saved),
            ..self
        }
    }
}

impl Store {
    /// The counts of the file and of this process. Costs some loads and a system call for the size; it may have to open
    /// the file first.
    pub(crate) fn stats(&self) -> Stats {
        let of_process = Stats::of_process(self.totals());
        self.count(of_process).unwrap_or(of_process)
    }

    /// Adds the counts of the file, which may be damaged or gone: then it fails, and the process's own counts are given
    /// alone. The first index is no part of the log, so only a later one is taken off what the log has.
    fn count(&self, of_process: Stats) -> Result<Stats> {
        let open_file = self.current()?;
        let journal = open_file.journal();
        let count = |place| journal.header.get(place);
        let index = journal.header.table(word::INDEX);
        let log = count(word::TAIL)?.saturating_sub(open_file.superblock.log_start);
        let own = if index == open_file.superblock.first_index { 0 } else { index.size() };
        let live_bytes = count(word::LIVE)?;
        let file = open_file.file();
        Ok(Stats {
            entries: count(word::ENTRIES)?,
            live_bytes,
            dead_bytes: log.saturating_sub(live_bytes + own),
            file_bytes: file.size().map_err(Error::io("look at", file.path()))?,
            ..of_process
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_two_handles_are_added_and_entries_are_not() {
        let calls = |n| Stats {
            entries: n,
            live_bytes: n,
            dead_bytes: n,
            file_bytes: n,
            hits: n,
            misses: 2 * n,
            store_errors: 3 * n,
            time_saved: Duration::from_secs(4 * n),
        };
        let sum = calls(10).with_calls_of(&calls(1));
        let own = calls(10);
        let calls = (sum.hits, sum.misses, sum.store_errors, sum.time_saved);
        assert_eq!(calls, (11, 22, 33, Duration::from_secs(44)));
        assert_eq!(
            Stats { hits: 10, misses: 20, store_errors: 30, time_saved: own.time_saved, ..sum },
            own
        );
    }
}
