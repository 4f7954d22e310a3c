//! Types that cannot be keys or say their schema.
use persist_cache::{CacheKey, Schema};

struct Opaque;

#[derive(CacheKey)]
struct Key {
    id: u64,
    opaque: Opaque,
}

#[derive(Schema)]
struct Value {
    id: u64,
    opaque: Opaque,
}

#[derive(CacheKey)]
union Either {
    left: u32,
    right: f32,
}

#[derive(CacheKey)]
struct Misspelled {
    #[cache_key(ignore)]
    id: u64,
}

fn main() {}
