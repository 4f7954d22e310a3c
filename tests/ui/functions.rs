//! What is no function, or none that can be cached.
use persist_cache::{cache, tracked};

#[cache]
struct NoFunction;

#[cache]
const fn compile_time(n: u32) -> u32 {
    n
}

#[cache]
unsafe fn dangerous(n: u32) -> u32 {
    n
}

#[cache]
extern "C" fn foreign(n: u32) -> u32 {
    n
}

#[cache]
fn str(n: u32) -> u32 {
    n
}

#[tracked]
struct Tracked;

#[tracked(name = "a")]
fn named() {}

fn main() {}
