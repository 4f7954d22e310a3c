//! Arguments that cannot be part of a key.
use persist_cache::cache;

struct Opaque;

#[cache]
fn changes(list: &mut Vec<u32>) -> usize {
    list.push(1);
    list.len()
}

#[cache]
fn changes_inside(list: Option<&mut Vec<u32>>) -> usize {
    list.map_or(0, |list| list.len())
}

#[cache]
fn no_key(plain: u32, opaque: Opaque) -> u32 {
    let _ = opaque;
    plain
}

#[cache]
fn closure(f: impl Fn() -> u32) -> u32 {
    f()
}

struct Client;

impl Client {
    #[cache]
    fn count(&mut self, n: u32) -> u32 {
        n
    }

    #[cache]
    fn pinned(self: std::pin::Pin<&mut Self>, n: u32) -> u32 {
        n
    }

    #[cache(with_self)]
    fn by_self(&self, n: u32) -> u32 {
        n
    }
}

fn main() {}
