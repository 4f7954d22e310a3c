//! A dependency whose code nobody can see.
use persist_cache::cache;

fn unmarked(n: u32) -> u32 {
    n
}

#[cache(deps(unmarked))]
fn depends(n: u32) -> u32 {
    unmarked(n)
}

fn main() {}
