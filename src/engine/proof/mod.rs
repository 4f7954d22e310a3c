//! The promises, tried from inside. A probe before every effect (see [`effect`](crate::engine::os::effect))
//! numbers the steps of each operation, so that a process can be made to die, a disk to refuse, or the
//! power to fail at every one of them. [`script`] says what may be found afterwards; [`kills`],
//! [`refusals`] and [`cuts`] try it; [`orders`] runs the protocol under a model checker. [`example`] makes what
//! `docs/architecture.md` shows.
//!
//! `cargo test` tries a part, the same one each time. `PERSIST_CACHE_EFFORT=n` multiplies it.

mod script;
mod disk;
mod kills;
mod refusals;
mod cuts;
mod drawings;
mod example;
#[cfg(any(model = "loom", model = "shuttle"))]
mod orders;

/// How much is tried: 1 in `cargo test`.
fn effort() -> u64 {
    std::env::var("PERSIST_CACHE_EFFORT").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// A stream of numbers that is the same in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let n = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    }

    /// One of `count` numbers from zero on.
    fn below(&mut self, count: usize) -> usize {
        (self.next() % count as u64) as usize
    }
}
