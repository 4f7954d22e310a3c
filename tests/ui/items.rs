//! Iterators and streams that cannot be cached.
use persist_cache::cache;

struct NotArchived;

#[cache]
fn exact(n: u64) -> impl ExactSizeIterator<Item = u64> {
    (0..n as usize).map(|n| n as u64)
}

#[cache]
fn both_ends(n: u64) -> impl Iterator<Item = u64> + DoubleEndedIterator {
    0..n
}

#[cache]
fn no_item(n: u64) -> impl Iterator {
    0..n
}

#[cache]
fn borrowed(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
}

#[cache]
async fn later(n: u64) -> impl Iterator<Item = u64> {
    0..n
}

#[cache]
fn not_archived(n: u64) -> impl Iterator<Item = NotArchived> {
    (0..n).map(|_| NotArchived)
}

fn main() {}
