//! persist-cache itself. Values have a type of their size, as results of functions have.

use super::{Key, Rival, first_word};
use persist_cache::{MmapCache, Table};
use std::path::Path;

#[derive(Clone)]
pub struct Own<const N: usize> {
    cache: MmapCache,
    table: Table<Key, [u8; N]>,
}

fn array<const N: usize>(value: &[u8]) -> &[u8; N] {
    value.try_into().expect("a value of the benchmark's size")
}

impl<const N: usize> Rival for Own<N> {
    fn open(dir: &Path) -> Self {
        let cache = MmapCache::open_at(dir.join("store.pcache")).expect("the cache opens");
        let table = cache.table("values");
        Own { cache, table }
    }
    #[inline]
    fn get(&self, key: &Key) -> Option<u64> {
        self.table.get(key).expect("a get").map(|value| first_word(&value[..]))
    }
    fn get_many(&self, keys: &[Key]) -> usize {
        let values = self.table.get_many(keys).expect("gets");
        let words = values.into_iter().flatten().map(|value| first_word(&value[..]));
        words.map(std::hint::black_box).count()
    }
    fn put(&self, key: &Key, value: &[u8]) {
        self.table.insert(key, array(value)).expect("a put");
    }
    fn put_many(&self, entries: &[(Key, Vec<u8>)]) {
        let entries = entries.iter().map(|(key, value)| (key, *array::<N>(value)));
        self.table.insert_many(entries).expect("puts");
    }
    fn settle(self, _: &Path) -> Self {
        self.cache.compact().expect("a compaction");
        self
    }
    fn share(&self) -> Self {
        self.clone()
    }
}
