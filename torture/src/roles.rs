//! What a process does until it is killed.

use crate::history::{Diary, Effect};
use crate::{Numbers, mix};
use persist_cache::rkyv::rend::u64_le;
use persist_cache::{Error, MmapCache, Table};
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Keys that are there from the beginning and never removed, but in a batch that clears.
pub(crate) const STABLE: Range<u64> = 0..500;
/// Keys that come and go.
const FLEETING: Range<u64> = 500..2000;
/// Keys that make the index grow.
const MANY: Range<u64> = 2000..6000;
/// Keys whose values are copied without the lock.
const LARGE: Range<u64> = 6000..6008;
/// All of them lie below this.
pub(crate) const KEYS: u64 = 6008;

const ORDER: &str = "TORTURE_ORDER";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Writer,
    Refresher,
    Remover,
    Clearer,
    Compactor,
    Grower,
    Reader,
}

impl Role {
    /// Who takes part in a batch: without a clearer, or with one.
    pub(crate) fn of(number: u64, clears: bool) -> Role {
        use Role::{Clearer, Compactor, Grower, Reader, Refresher, Remover, Writer};
        let steady = [Writer, Writer, Refresher, Remover, Compactor, Grower, Reader, Reader];
        match number % 9 {
            8 if clears => Clearer,
            n => steady[n as usize % 8],
        }
    }
}

/// What one process is to do.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) role: u64,
    pub(crate) clears: bool,
    /// Of this process alone, in all its versions.
    pub(crate) number: u64,
    pub(crate) seed: u64,
    pub(crate) directory: PathBuf,
}

impl Order {
    pub(crate) fn to_environment(&self) -> (&'static str, String) {
        let Order { role, clears, number, seed, directory } = self;
        (ORDER, format!("{role} {} {number} {seed} {}", u64::from(*clears), directory.display()))
    }

    pub(crate) fn from_environment() -> Option<Order> {
        let text = std::env::var(ORDER).ok()?;
        let mut words = text.splitn(5, ' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let (role, clears, number, seed) = (number()?, number()? == 1, number()?, number()?);
        Some(Order { role, clears, number, seed, directory: PathBuf::from(words.next()?) })
    }

    pub(crate) fn diary(&self) -> PathBuf {
        self.directory.join(format!("{}.diary", self.number))
    }
}

/// The value of a key in a version.
pub(crate) fn value_of(key: u64, version: u64) -> Vec<u64> {
    items_of(key, version).collect()
}

fn items_of(key: u64, version: u64) -> impl Iterator<Item = u64> {
    let len = if LARGE.contains(&key) { 9000 } else { mix(key ^ version) % 30 };
    [key, version].into_iter().chain((0..len).map(move |n| mix(key ^ (version << 20) ^ (n << 50))))
}

/// The version of what is there; anything but a value of that key is a fault.
pub(crate) fn version_of(key: u64, value: &[u64_le]) -> u64 {
    let version = value.get(1).map_or(0, |version| version.to_native());
    let items = value.iter().map(|item| item.to_native());
    assert!(items.eq(items_of(key, version)), "{key} has a value of nobody's");
    version
}

pub(crate) type Values = Table<u64, Vec<u64>>;

pub(crate) fn open(directory: &Path) -> persist_cache::Result<(MmapCache, Values)> {
    let cache = MmapCache::open_at(directory.join("torture.pcache"))?;
    let table = cache.table("values");
    Ok((cache, table))
}

/// One process's work.
struct Player {
    cache: MmapCache,
    table: Values,
    diary: Diary,
    numbers: Numbers,
    next_version: u64,
    clears: bool,
}

/// Does as ordered, until it is killed.
pub(crate) fn play(order: &Order) {
    let diary = Diary::create(&order.diary()).expect("a diary");
    let (cache, table) = open(&order.directory).expect("the cache opens");
    let mut player = Player {
        cache,
        table,
        diary,
        numbers: Numbers(order.seed),
        next_version: order.number << 24,
        clears: order.clears,
    };
    let mut out = std::io::stdout();
    out.write_all(b"r").and_then(|()| out.flush()).expect("somebody listens");
    // Nobody is left behind if the parent is stopped.
    let parent = std::os::unix::process::parent_id();
    while std::os::unix::process::parent_id() == parent {
        player.step(Role::of(order.role, order.clears)).expect("a diary can be written");
    }
}

impl Player {
    fn key(&mut self, keys: Range<u64>) -> u64 {
        keys.start + self.numbers.below(keys.end - keys.start)
    }

    fn version(&mut self) -> u64 {
        self.next_version += 1;
        self.next_version
    }

    fn insert(&mut self, key: u64) -> std::io::Result<()> {
        let (version, table) = (self.version(), &self.table);
        let store = || table.insert(&key, &value_of(key, version)).map(drop);
        self.diary.record(key..key + 1, Effect::Stored(version), store)
    }

    fn insert_many(&mut self, keys: Range<u64>) -> std::io::Result<()> {
        let (version, table) = (self.version(), &self.table);
        let entries = keys.clone().map(|key| (key, value_of(key, version)));
        let store = || table.insert_many(entries).map(drop);
        self.diary.record(keys, Effect::Stored(version), store)
    }

    fn step(&mut self, role: Role) -> std::io::Result<()> {
        match role {
            Role::Writer => match self.numbers.below(20) {
                0 => {
                    let key = self.key(LARGE);
                    self.insert(key)
                }
                1 => {
                    let first = self.key(FLEETING.start..FLEETING.end - 40);
                    self.insert_many(first..first + 40)
                }
                _ => {
                    let key = self.key(STABLE.start..FLEETING.end);
                    self.insert(key)
                }
            },
            Role::Refresher => {
                let key = self.key(STABLE);
                self.insert(key)
            }
            Role::Remover => {
                let (key, table) = (self.key(FLEETING), &self.table);
                let remove = || table.remove(&key).map(drop);
                self.diary.record(key..key + 1, Effect::Removed, remove)
            }
            Role::Clearer => self.clear(),
            Role::Compactor => match self.cache.compact() {
                Ok(_) => self.diary.count_compaction(),
                Err(Error::Busy { .. } | Error::Locked { .. } | Error::Unstable { .. }) => Ok(()),
                Err(error) => panic!("compact: {error}"),
            },
            Role::Grower => {
                let first = self.key(MANY.start..MANY.end - 200);
                self.insert_many(first..first + 200)
            }
            Role::Reader => self.read(),
        }
    }

    fn clear(&mut self) -> std::io::Result<()> {
        std::thread::sleep(Duration::from_micros(self.numbers.below(2000)));
        let (which, cache) = (self.numbers.below(8), &self.cache);
        let clear = || match which {
            0 => cache.delete(),
            1 => {
                cache.set_expiry(Duration::ZERO);
                let flushed = cache.flush().map(drop);
                cache.set_expiry(None);
                flushed
            }
            _ => cache.clear(),
        };
        self.diary.record(0..KEYS, Effect::Removed, clear)
    }

    fn read(&mut self) -> std::io::Result<()> {
        for n in 0..1000 {
            let key = if n == 0 { self.key(LARGE) } else { self.key(STABLE.start..MANY.end) };
            match self.table.get(&key).expect("a look-up") {
                Some(value) => drop(version_of(key, &value)),
                None => assert!(self.clears || !STABLE.contains(&key), "{key} is missing"),
            }
        }
        self.diary.count_reads(1000)
    }
}
