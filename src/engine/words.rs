//! The words of the header, as the holder of the writer's lock reads and writes them. A word is read with its check,
//! and written sealed. Only the holder of the lock writes words; readers load [`word::STATE`], [`word::INDEX`] and
//! [`word::TAIL`] without this module. It stands on the format and a [`Storage`], below the index, whose growth keeps
//! its progress in header words.

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
    /// A sealed word; an error if its check fails.
    pub(crate) fn get(&self, place: u64) -> Result<u64> {
        unseal(self.storage.load(place), place).ok_or_else(|| self.damaged("a word of the header"))
    }

    /// Stores a sealed word.
    pub(crate) fn set(&self, place: u64, value: u64) -> Result<()> {
        self.store(place, seal(value, place))
    }

    /// Sees to it that a sealed word has this value. One that has it is not stored: its page stays clean.
    pub(crate) fn ensure(&self, place: u64, value: u64) -> Result<()> {
        self.ensure_as_is(place, seal(value, place))
    }

    /// As [`ensure`](HeaderWords::ensure), of a word as it is.
    pub(crate) fn ensure_as_is(&self, place: u64, value: u64) -> Result<()> {
        if self.storage.load(place) == value { Ok(()) } else { self.store(place, value) }
    }

    /// Adds to a sealed count, which stays at zero if it would go below.
    pub(crate) fn add(&self, place: u64, delta: i64) -> Result<()> {
        let value = self.get(place)?.saturating_add_signed(delta);
        self.set(place, value)
    }

    /// The table that a word names.
    pub(crate) fn table(&self, place: u64) -> Table {
        Table(self.storage.load(place))
    }

    /// Stores a word as it is: a state or a table.
    pub(crate) fn store(&self, place: u64, value: u64) -> Result<()> {
        let path = self.storage.path();
        self.storage.store(place, value).map_err(Error::io("write", path))
    }

    /// Whether every check of the header holds.
    pub(crate) fn is_sound(&self) -> bool {
        let is_sealed = |place| unseal(self.storage.load(place), place).is_some();
        word::sealed(0).iter().all(|(place, _)| is_sealed(*place))
    }

    pub(crate) fn damaged(&self, what: &'static str) -> Error {
        Error::Damaged { path: self.storage.path().to_path_buf(), what }
    }
}
