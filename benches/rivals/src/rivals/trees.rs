//! Stores with a tree of their own, for one process at a time: redb, fjall, sled, and `cached`, which
//! keeps its entries in redb.

use super::{CACHE_BYTES, Key, Rival, first_word, text};
use cached::{ConcurrentCached as _, RedbCache, SerializeCached as _};
use redb::{Database, Durability, ReadOnlyTable, ReadableDatabase as _, TableDefinition};
use serde_bytes::ByteBuf;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("values");

#[derive(Clone)]
pub struct Redb(Arc<Database>);

impl Redb {
    fn write<'a>(
        &self,
        durability: Durability,
        entries: impl Iterator<Item = (&'a Key, &'a [u8])>,
    ) {
        let mut write = self.0.begin_write().expect("a transaction");
        write.set_durability(durability).expect("a durability");
        {
            let mut table = write.open_table(TABLE).expect("a table");
            for (key, value) in entries {
                table.insert(&key[..], value).expect("a put");
            }
        }
        write.commit().expect("a commit");
    }
    fn table(&self) -> ReadOnlyTable<&'static [u8], &'static [u8]> {
        self.0.begin_read().expect("a transaction").open_table(TABLE).expect("a table")
    }
}

fn find(table: &ReadOnlyTable<&'static [u8], &'static [u8]>, key: &Key) -> Option<u64> {
    table.get(&key[..]).expect("a get").map(|value| first_word(value.value()))
}

impl Rival for Redb {
    fn open(dir: &Path) -> Self {
        let database =
            Database::builder().set_cache_size(CACHE_BYTES).create(dir.join("store.redb"));
        let store = Redb(Arc::new(database.expect("the database opens")));
        store.write(Durability::None, std::iter::empty());
        store
    }
    fn get(&self, key: &Key) -> Option<u64> {
        find(&self.table(), key)
    }
    fn get_all(&self, keys: &[Key]) -> usize {
        let table = self.table();
        keys.iter().filter(|key| black_box(find(&table, key)).is_some()).count()
    }
    fn put(&self, key: &Key, value: &[u8]) {
        self.write(Durability::None, std::iter::once((key, value)));
    }
    fn put_many(&self, entries: &[(Key, Vec<u8>)]) {
        self.write(Durability::None, entries.iter().map(|(key, value)| (key, &value[..])));
    }
    fn flush(&self) {
        self.write(Durability::Immediate, std::iter::empty());
    }
    fn settle(mut self, _: &Path) -> Self {
        self.flush();
        let database = Arc::get_mut(&mut self.0).expect("the only handle");
        database.compact().expect("a compaction");
        self
    }
    fn share(&self) -> Self {
        self.clone()
    }
}

#[derive(Clone)]
pub struct Fjall {
    values: fjall::Keyspace,
    database: fjall::Database,
}

impl Rival for Fjall {
    fn open(dir: &Path) -> Self {
        let database = fjall::Database::builder(dir).cache_size(CACHE_BYTES as u64).open();
        let database = database.expect("the database opens");
        let values = database.keyspace("values", fjall::KeyspaceCreateOptions::default);
        let values = values.expect("a keyspace");
        Fjall { values, database }
    }
    fn get(&self, key: &Key) -> Option<u64> {
        self.values.get(key).expect("a get").map(|value| first_word(&value))
    }
    fn put(&self, key: &Key, value: &[u8]) {
        self.values.insert(key, value).expect("a put");
    }
    fn put_many(&self, entries: &[(Key, Vec<u8>)]) {
        let mut batch = self.database.batch();
        for (key, value) in entries {
            batch.insert(&self.values, &key[..], &value[..]);
        }
        batch.commit().expect("a commit");
    }
    fn flush(&self) {
        self.values.rotate_memtable_and_wait().expect("a flush");
    }
    fn settle(self, _: &Path) -> Self {
        self.flush();
        self.values.major_compact().expect("a compaction");
        self
    }
    fn share(&self) -> Self {
        self.clone()
    }
}

#[derive(Clone)]
pub struct Sled(sled::Db);

impl Rival for Sled {
    fn open(dir: &Path) -> Self {
        let config = sled::Config::new().path(dir).mode(sled::Mode::HighThroughput);
        let config = config.cache_capacity(CACHE_BYTES as u64).flush_every_ms(None);
        // Threads of its own may hold the lock for a while after the last handle has gone.
        let open = |_| config.open().inspect_err(|_| sleep(Duration::from_millis(1))).ok();
        Sled((0..10_000).find_map(open).expect("the database opens"))
    }
    fn get(&self, key: &Key) -> Option<u64> {
        self.0.get(key).expect("a get").map(|value| first_word(&value))
    }
    fn put(&self, key: &Key, value: &[u8]) {
        self.0.insert(key, value).expect("a put");
    }
    fn put_many(&self, entries: &[(Key, Vec<u8>)]) {
        let mut batch = sled::Batch::default();
        for (key, value) in entries {
            batch.insert(&key[..], &value[..]);
        }
        self.0.apply_batch(batch).expect("a batch");
    }
    fn flush(&self) {
        self.0.flush().expect("a flush");
    }
    fn settle(self, _: &Path) -> Self {
        self.flush();
        self
    }
    fn share(&self) -> Self {
        self.clone()
    }
}

/// `cached`: keys become text, values MessagePack. It has no batches.
#[derive(Clone)]
pub struct CachedOnDisk(Arc<RedbCache<String, ByteBuf>>);

impl Rival for CachedOnDisk {
    fn open(dir: &Path) -> Self {
        let cache = RedbCache::builder("values").disk_dir(dir).durable(false).build();
        CachedOnDisk(Arc::new(cache.expect("the cache opens")))
    }
    fn get(&self, key: &Key) -> Option<u64> {
        self.0.cache_get(&text(key)).expect("a get").map(|value| first_word(&value))
    }
    fn put(&self, key: &Key, value: &[u8]) {
        self.0.cache_set_ref(&text(key), &ByteBuf::from(value)).expect("a put");
    }
    fn flush(&self) {
        self.0.flush().expect("a flush");
    }
    fn settle(self, _: &Path) -> Self {
        self.flush();
        self
    }
    fn share(&self) -> Self {
        self.clone()
    }
}
