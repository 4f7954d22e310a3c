//! A result without a schema.
use persist_cache::MmapCache;
use persist_cache::rkyv::{Archive, Deserialize, Serialize};

#[derive(Archive, Serialize, Deserialize)]
#[rkyv(crate = persist_cache::rkyv)]
struct Plain(u32);

fn main() {
    let _ = MmapCache::disabled().memoize(|n: &u32| Plain(*n)).with_schema();
}
