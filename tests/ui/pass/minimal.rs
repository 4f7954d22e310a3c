//! A crate with nothing but this one, under lints as strict as they come.
#![deny(warnings, missing_docs, unused, unreachable_pub, clippy::all)]

use persist_cache::{Cached, cache};
use std::time::Duration;

/// Adds up.
#[cache(root = std::env::temp_dir().join("persist-cache-ui"), expiry = "1h")]
#[must_use]
pub fn digest(text: &str, rounds: u32) -> u64 {
    text.bytes().map(u64::from).sum::<u64>() * u64::from(rounds)
}

/// Looks things up.
pub struct Client;

impl Client {
    /// Looks one up.
    #[cache(root = std::env::temp_dir().join("persist-cache-ui"))]
    #[must_use]
    pub fn lookup(&self, id: u64) -> u64 {
        id + 1
    }

    /// Has companions.
    #[cache(root = std::env::temp_dir().join("persist-cache-ui"), companion = found)]
    #[expect(unused_variables, reason = "the body does not look at it")]
    pub fn find(&self, id: u64, unused: u8) -> u64 {
        id + 1
    }
}

fn main() -> persist_cache::Result<()> {
    assert_eq!(digest("ab", 2), 390);
    let seen: Cached<u64> = digest::archived("ab", 2);
    assert_eq!(seen.to_native(), 390);
    assert_eq!((Client.lookup(1), Client.find(1, 2)), (2, 2));
    digest::set_expiry(Duration::from_secs(60));
    digest::forget("ab", 2)?;
    digest::delete()
}
