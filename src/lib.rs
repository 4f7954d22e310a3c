#![cfg_attr(docsrs, feature(doc_cfg))]
//! Persistent memoisation.

mod error;
mod format;
mod sys;
mod ledger;
mod index;
mod scan;
mod store;
mod key;
mod value;
mod scope;
mod handle;
mod table;
mod memo;
mod options;
mod cache;

pub use cache::{MmapCache, clear, delete, flush};
pub use error::{Error, Exposure, Result};
pub use key::{CacheKey, KeySchema, KeyWriter};
pub use memo::{Memoized, TryMemoized};
pub use options::OpenOptions;
pub use rkyv;
pub use store::compact::Compaction;
pub use store::stats::Stats;
pub use store::verify::{Finding, Verification};
pub use table::Table;
#[doc(hidden)]
pub use value::Sink;
pub use value::{CacheValue, Cached};

#[cfg(not(all(target_pointer_width = "64", target_endian = "little")))]
compile_error!("persist-cache needs a 64-bit, little-endian machine: its file is read in place");
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
compile_error!("persist-cache knows Linux and macOS; see src/sys for what another system needs");
