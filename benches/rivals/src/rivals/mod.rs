//! The rivals, each as its documentation recommends and in its fastest honest mode, under one trait.

pub mod files;
pub mod lmdb;
pub mod memory;
pub mod own;
pub mod trees;

use std::path::Path;

/// What a key is: 16 bytes, no counter.
pub type Key = [u8; 16];

/// A store of values by keys, open.
pub trait Rival: Sized + Send {
    /// Opens the store in a directory, or creates it there.
    fn open(dir: &Path) -> Self;

    /// One get, as a program does that asks for one value now and then: the value's first word, read in
    /// place where that is possible.
    fn get(&self, key: &Key) -> Option<u64>;

    /// A loop of gets, with whatever may be held over all of them. Returns how many were there.
    fn get_all(&self, keys: &[Key]) -> usize {
        keys.iter().filter(|key| std::hint::black_box(self.get(key)).is_some()).count()
    }

    /// Gets of a few keys at once.
    fn get_many(&self, keys: &[Key]) -> usize {
        self.get_all(keys)
    }

    fn put(&self, key: &Key, value: &[u8]);

    fn put_many(&self, entries: &[(Key, Vec<u8>)]) {
        for (key, value) in entries {
            self.put(key, value);
        }
    }

    /// Makes what was put lie on disk, so far as it can be made to.
    fn flush(&self) {}

    /// Brings the store to its state of rest: what it calls flushing and compacting.
    fn settle(self, dir: &Path) -> Self {
        let _ = dir;
        self
    }

    /// Another handle to the same open store, for another thread.
    fn share(&self) -> Self;
}

/// What is told about a rival.
pub struct Facts {
    pub name: &'static str,
    pub mode: &'static str,
    pub keeps: Keeps,
    /// Whether several processes may use one store at a time.
    pub is_shared: bool,
    /// Entries are fewer where it is this slow: one in so many.
    pub one_in: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Keeps {
    OnDisk,
    InMemory,
}

const fn on_disk(name: &'static str, is_shared: bool, mode: &'static str) -> Facts {
    Facts { name, mode, keeps: Keeps::OnDisk, is_shared, one_in: 1 }
}

const fn in_memory(name: &'static str, mode: &'static str) -> Facts {
    Facts { name, mode, keeps: Keeps::InMemory, is_shared: false, one_in: 1 }
}

pub const OWN: &str = "persist-cache";
pub const UNLOCKED: &str = "unlocked HashMap";

pub const ALL: &[Facts] = &[
    on_disk(OWN, true, "`Table<[u8; 16], [u8; N]>`, values read in place, each held by a guard"),
    on_disk(
        "LMDB",
        true,
        "heed, fsync with each commit, a read transaction for each get, one for a loop",
    ),
    on_disk("LMDB NOSYNC", true, "the same with MDB_NOSYNC"),
    on_disk("LMDB WRITEMAP", true, "the same with MDB_WRITEMAP and MDB_NOSYNC: its fastest mode"),
    on_disk(
        "redb",
        false,
        "Durability::None, a read transaction for each get, one for a loop, cache of 1 GiB; a process that \
         may write has the file for itself",
    ),
    on_disk("fjall", false, "cache of 1 GiB, after a major compaction; one process"),
    on_disk(
        "sled",
        false,
        "HighThroughput, no flushing thread, cache of 1 GiB; one process, no compaction",
    ),
    on_disk("cached on disk", false, "`RedbCache`, durable(false); one process, no compaction"),
    Facts {
        one_in: 100,
        ..on_disk("cacache", true, "the blocking API with XXH3: a file for each entry")
    },
    on_disk(
        "simd-r-drive",
        true,
        "one file, an index in memory; keeps a hash of each key; processes see what was there when they opened",
    ),
    in_memory("RwLock<HashMap>", "std's, with ahash; locked for each get, in loops too"),
    in_memory("papaya", "ahash, pinned for each get, once for a loop"),
    in_memory("quick_cache", "values in an `Arc`"),
    in_memory("moka", "sync, ahash, values in an `Arc`"),
    in_memory(UNLOCKED, "std's with ahash, immutable: the limit"),
];

/// Calls `$serve::<R>($args)` with the rival of a name.
#[macro_export]
macro_rules! with_rival {
    ($name:expr, $size:expr, $serve:ident($($argument:expr),*)) => {{
        use $crate::rivals::{files, lmdb, memory, own, trees};
        match ($name, $size) {
            ("persist-cache", 8) => $serve::<own::Own<8>>($($argument),*),
            ("persist-cache", 64) => $serve::<own::Own<64>>($($argument),*),
            ("persist-cache", 1024) => $serve::<own::Own<1024>>($($argument),*),
            ("persist-cache", 65536) => $serve::<own::Own<65536>>($($argument),*),
            ("LMDB", _) => $serve::<lmdb::Lmdb<false, true>>($($argument),*),
            ("LMDB NOSYNC", _) => $serve::<lmdb::Lmdb<false, false>>($($argument),*),
            ("LMDB WRITEMAP", _) => $serve::<lmdb::Lmdb<true, false>>($($argument),*),
            ("redb", _) => $serve::<trees::Redb>($($argument),*),
            ("fjall", _) => $serve::<trees::Fjall>($($argument),*),
            ("sled", _) => $serve::<trees::Sled>($($argument),*),
            ("cached on disk", _) => $serve::<trees::CachedOnDisk>($($argument),*),
            ("cacache", _) => $serve::<files::Cacache>($($argument),*),
            ("simd-r-drive", _) => $serve::<files::SimdRDrive>($($argument),*),
            ("RwLock<HashMap>", _) => $serve::<memory::Locked>($($argument),*),
            ("papaya", _) => $serve::<memory::Papaya>($($argument),*),
            ("quick_cache", _) => $serve::<memory::QuickCache>($($argument),*),
            ("moka", _) => $serve::<memory::Moka>($($argument),*),
            ("unlocked HashMap", _) => $serve::<memory::Unlocked>($($argument),*),
            (other, size) => panic!("no rival is called {other:?} with values of {size} bytes"),
        }
    }};
}

/// A key as text, for stores that have no others.
fn text(key: &Key) -> String {
    format!("{:032x}", u128::from_be_bytes(*key))
}

/// What a store may hold in memory where it asks.
const CACHE_BYTES: usize = 1 << 30;

/// The first word of a value.
#[inline(always)]
fn first_word(value: &[u8]) -> u64 {
    value.first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}
