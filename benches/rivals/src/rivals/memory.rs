//! What a program would keep in memory instead, and lose when it ends.

use super::{Key, Rival, first_word};
use std::collections::HashMap;
use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

type Map = HashMap<Key, Box<[u8]>, ahash::RandomState>;

/// Entries that a bounded cache may keep: more than any run has.
const CAPACITY: usize = 4_000_000;

#[derive(Clone, Default)]
pub struct Locked(Arc<RwLock<Map>>);

impl Locked {
    fn read(&self) -> RwLockReadGuard<'_, Map> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rival for Locked {
    fn open(_: &Path) -> Self {
        Self::default()
    }
    #[inline]
    fn get(&self, key: &Key) -> Option<u64> {
        self.read().get(key).map(|value| first_word(value))
    }
    fn put(&self, key: &Key, value: &[u8]) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(*key, value.into());
    }
    fn share(&self) -> Self {
        self.clone()
    }
}

/// Filled first, and never changed again: no lock, no guard, no count.
#[derive(Clone, Default)]
pub struct Unlocked {
    filling: Locked,
    map: Arc<OnceLock<Map>>,
}

impl Unlocked {
    #[inline]
    fn map(&self) -> &Map {
        self.map.get_or_init(|| {
            std::mem::take(&mut *self.filling.0.write().unwrap_or_else(PoisonError::into_inner))
        })
    }
}

impl Rival for Unlocked {
    fn open(_: &Path) -> Self {
        Self::default()
    }
    #[inline]
    fn get(&self, key: &Key) -> Option<u64> {
        self.map().get(key).map(|value| first_word(value))
    }
    fn get_all(&self, keys: &[Key]) -> usize {
        let map = self.map();
        let word = |key: &Key| map.get(key).map(|value| first_word(value));
        keys.iter().filter(|key| black_box(word(key)).is_some()).count()
    }
    fn put(&self, key: &Key, value: &[u8]) {
        self.filling.put(key, value);
    }
    fn share(&self) -> Self {
        self.clone()
    }
}

#[derive(Clone, Default)]
pub struct Papaya(Arc<papaya::HashMap<Key, Box<[u8]>, ahash::RandomState>>);

impl Rival for Papaya {
    fn open(_: &Path) -> Self {
        Self::default()
    }
    #[inline]
    fn get(&self, key: &Key) -> Option<u64> {
        self.0.pin().get(key).map(|value| first_word(value))
    }
    fn get_all(&self, keys: &[Key]) -> usize {
        let map = self.0.pin();
        let word = |key: &Key| map.get(key).map(|value| first_word(value));
        keys.iter().filter(|key| black_box(word(key)).is_some()).count()
    }
    fn put(&self, key: &Key, value: &[u8]) {
        self.0.pin().insert(*key, value.into());
    }
    fn share(&self) -> Self {
        self.clone()
    }
}

#[derive(Clone)]
pub struct QuickCache(Arc<quick_cache::sync::Cache<Key, Arc<[u8]>>>);

impl Rival for QuickCache {
    fn open(_: &Path) -> Self {
        QuickCache(Arc::new(quick_cache::sync::Cache::new(CAPACITY)))
    }
    #[inline]
    fn get(&self, key: &Key) -> Option<u64> {
        self.0.get(key).map(|value| first_word(&value))
    }
    fn put(&self, key: &Key, value: &[u8]) {
        self.0.insert(*key, value.into());
    }
    fn share(&self) -> Self {
        self.clone()
    }
}

#[derive(Clone)]
pub struct Moka(moka::sync::Cache<Key, Arc<[u8]>, ahash::RandomState>);

impl Rival for Moka {
    fn open(_: &Path) -> Self {
        let builder = moka::sync::Cache::builder().max_capacity(CAPACITY as u64);
        Moka(builder.build_with_hasher(ahash::RandomState::default()))
    }
    #[inline]
    fn get(&self, key: &Key) -> Option<u64> {
        self.0.get(key).map(|value| first_word(&value))
    }
    fn put(&self, key: &Key, value: &[u8]) {
        self.0.insert(*key, value.into());
    }
    fn settle(self, _: &Path) -> Self {
        self.0.run_pending_tasks();
        self
    }
    fn share(&self) -> Self {
        self.clone()
    }
}
