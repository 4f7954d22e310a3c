//! The words of the header, as the holder of the write lock reads and writes them. A word is read with its check,
//! and written sealed. It stands on the format and a [`Storage`], below the index, whose growth keeps its progress in
//! header words.
//!
//! 1. Words are written by the holder of the lock alone. The one exception is [`word::FAILED`], which is written by
//!    whomever a sync fails for, with or without the lock: it goes from 0 to 1 once and never back.
//! 2. A word may be read by anybody at any time. Each load is an acquire and each store a release, so whoever sees a
//!    word sees what was stored before it. Two words that are loaded one after the other need not belong together; who
//!    needs that holds the lock, or loads them in an order in which it does no harm.
//! 3. A word whose check fails is an error and never a number to go on with. What follows from it is decided further
//!    up: an opening recovers the file ([`is_consistent`](super::file::trust::is_consistent)), an operation fails.
//!
//! Look-ups do without this module. They load [`word::STATE`], [`word::INDEX`] and [`word::TAIL`] as they are: these
//! were held against each other, and against the file's size, when the file was opened.
//!
//! A struct cast onto the page would make each word a field. It is rejected for the reason that
//! [`format`](super::format) gives, and because one of the two storages has no page: it loads each word by `pread`.

use super::format::header::word;
use super::format::slot::Table;
use super::format::{seal, unseal};
use super::os::file::Storage;
use crate::error::{Error, Result};

/// The header words of one file.
#[derive(Clone, Copy)]
pub(crate) struct HeaderWords<'a> {
    pub(crate) storage: &'a dyn Storage,
}

impl HeaderWords<'_> {
    /// A sealed word; [`Error::Damaged`] if its check fails, or if the word could not be read at all, for that reads
    /// as zero, and a zero is never sealed.
    pub(crate) fn get(&self, place: u64) -> Result<u64> {
        unseal(self.storage.load(place), place).ok_or_else(|| self.damaged("a word of the header"))
    }

    /// Stores a sealed word.
    pub(crate) fn set(&self, place: u64, value: u64) -> Result<()> {
        self.store(place, seal(value, place))
    }

    /// Sees to it that a sealed word has this value. One that has it is not stored: its page stays clean. Recovery uses
    /// it, so that one which finds nothing to mend changes nothing but the provenance.
    pub(crate) fn ensure(&self, place: u64, value: u64) -> Result<()> {
        self.ensure_as_is(place, seal(value, place))
    }

    /// As [`ensure`](HeaderWords::ensure), of a word as it is.
    pub(crate) fn ensure_as_is(&self, place: u64, value: u64) -> Result<()> {
        if self.storage.load(place) == value { Ok(()) } else { self.store(place, value) }
    }

    /// Adds to a sealed count, which stays at zero if it would go below: a count may be off after a death (see
    /// [`live`](super::log::live)), and must not wrap around.
    pub(crate) fn add(&self, place: u64, delta: i64) -> Result<()> {
        let value = self.get(place)?.saturating_add_signed(delta);
        self.set(place, value)
    }

    /// The table that a word names. It has no check, so what comes of a damaged one may be any table:
    /// [`is_table`](super::file::trust::is_table) tells.
    pub(crate) fn table(&self, place: u64) -> Table {
        Table(self.storage.load(place))
    }

    /// Stores a word as it is: a state, a table, or how much of a table was given back. It can fail where stores go
    /// through `pwrite`, for want of space on a disk whose blocks are shared; in a map of allocated space it cannot.
    pub(crate) fn store(&self, place: u64, value: u64) -> Result<()> {
        let path = self.storage.path();
        self.storage.store(place, value).map_err(Error::io("write", path))
    }

    /// Whether the check of every sealed word holds. Sixteen loads: each hold of the lock begins with it.
    pub(crate) fn is_sound(&self) -> bool {
        let is_sealed = |place| unseal(self.storage.load(place), place).is_some();
        word::sealed(0).iter().all(|(place, _)| is_sealed(*place))
    }

    /// The error for what a sound file cannot have. Where an append meets it, the index is made anew, once.
    pub(crate) fn damaged(&self, what: &'static str) -> Error {
        Error::Damaged { path: self.storage.path().to_path_buf(), what }
    }
}
