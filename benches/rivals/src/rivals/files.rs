//! Stores without a tree: a file for each entry, and one file with an index in memory.

use super::{Key, Rival, first_word, text};
use simd_r_drive::DataStore;
use simd_r_drive::traits::{DataStoreReader as _, DataStoreWriter as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[derive(Clone)]
pub struct Cacache(PathBuf);

impl Rival for Cacache {
    fn open(dir: &Path) -> Self {
        Cacache(dir.to_path_buf())
    }
    fn get(&self, key: &Key) -> Option<u64> {
        match cacache::read_sync(&self.0, text(key)) {
            Ok(value) => Some(first_word(&value)),
            Err(cacache::Error::EntryNotFound(..)) => None,
            Err(error) => panic!("{error}"),
        }
    }
    fn put(&self, key: &Key, value: &[u8]) {
        let xxh3 = cacache::Algorithm::Xxh3;
        cacache::write_sync_with_algo(xxh3, &self.0, text(key), value).expect("a put");
    }
    fn share(&self) -> Self {
        self.clone()
    }
}

#[derive(Clone)]
pub struct SimdRDrive(Arc<DataStore>);

impl Rival for SimdRDrive {
    fn open(dir: &Path) -> Self {
        SimdRDrive(Arc::new(DataStore::open(&dir.join("store.bin")).expect("the store opens")))
    }
    fn get(&self, key: &Key) -> Option<u64> {
        self.0.read(key).expect("a get").map(|value| first_word(value.as_slice()))
    }
    fn get_many(&self, keys: &[Key]) -> usize {
        let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
        let values = self.0.batch_read(&keys).expect("gets");
        let words = values.into_iter().flatten().map(|value| first_word(value.as_slice()));
        words.map(std::hint::black_box).count()
    }
    fn put(&self, key: &Key, value: &[u8]) {
        self.0.write(key, value).expect("a put");
    }
    fn put_many(&self, entries: &[(Key, Vec<u8>)]) {
        let entries: Vec<_> = entries.iter().map(|(key, value)| (&key[..], &value[..])).collect();
        self.0.batch_write(&entries).expect("puts");
    }
    fn settle(mut self, dir: &Path) -> Self {
        let store = Arc::get_mut(&mut self.0).expect("the only handle");
        store.compact().expect("a compaction");
        drop(self);
        Self::open(dir)
    }
    fn share(&self) -> Self {
        self.clone()
    }
}
