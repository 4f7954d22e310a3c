//! The records of a log, by their offsets: whoever follows a slot or a list reads them here. Nothing is believed but
//! a head that verifies, of a record that ends below the end of the log.
//!
//! There are two ways to read a head, for two kinds of records. Most never change below the tail, and are read from
//! the map where there is one. A large value changes once, from a pad to a value, and its payload is being written
//! meanwhile; it is read by copy, by a system call, so that no reference to it exists.
//!
//! An offset may come from anywhere: a slot of a damaged index, a list in a damaged payload. So none of these panics
//! or reads behind the end, whatever it is given.

use super::walk::Window;
use crate::engine::format::ALIGNMENT;
use crate::engine::format::record::{HEAD_SIZE, Head, Kind};
use crate::engine::os::file::Storage;
use crate::error::{Error, Result};

/// Records that one list names at most: the payload then has the 64 KiB up to which a record is appended in one piece.
pub(crate) const LIST_MAX: u64 = 8192;

/// The records below an end.
#[derive(Clone, Copy)]
pub(crate) struct Records<'a> {
    pub(crate) storage: &'a dyn Storage,
    pub(crate) seed: u64,
    pub(crate) end: u64,
}

impl Records<'_> {
    /// Whether a record ends below the end. Its padding need not: a file may have been cut there.
    fn holds(&self, offset: u64, head: &Head) -> bool {
        offset + HEAD_SIZE + head.len <= self.end
    }

    /// The head of the record at `offset`, of any kind that never changes. `None` for what is no record or could not be
    /// read, and in a map for space and tables too. It costs a copy of 64 bytes and a checksum over them.
    pub(crate) fn head(&self, offset: u64) -> Option<Head> {
        let head = Head::decode(&self.storage.head(offset)?, offset, self.seed)?;
        self.holds(offset, &head).then_some(head)
    }

    /// The head of a large value at `offset`: a pad until it is committed, and a value from then on. `None` if no such
    /// record is there. Whether its payload is there, the head does not say: the COMMIT record does.
    pub(crate) fn reserved(&self, offset: u64) -> Result<Option<Head>> {
        let mut bytes = [0; HEAD_SIZE as usize];
        if offset > self.end.saturating_sub(HEAD_SIZE) || !offset.is_multiple_of(ALIGNMENT) {
            return Ok(None);
        }
        let read = Error::io("read", self.storage.path());
        self.storage.read(offset, &mut bytes).map_err(read)?;
        let is_reserved =
            |head: &Head| matches!(head.kind, Kind::PAD | Kind::VALUE) && self.holds(offset, head);
        Ok(Head::decode(&bytes, offset, self.seed).filter(is_reserved))
    }

    /// The offsets that are the payload of the record at `offset`, which the caller has a head of. Empty if the head
    /// claims more than anybody writes, so that a damaged one takes no memory.
    ///
    /// The payload's check is not looked at. Whoever reads a log that may be damaged has done so before (see
    /// [`is_decided_by_payload`](super::op::is_decided_by_payload)); the index in use is brought up to records that
    /// this boot's page cache has whole.
    pub(crate) fn list(&self, offset: u64, head: &Head) -> Result<Vec<u64>> {
        if head.len > LIST_MAX * 8 {
            return Ok(Vec::new()); // Nobody writes such a list.
        }
        let mut window = Window::new(self.storage, offset + HEAD_SIZE + head.len);
        let payload = window.get(offset + HEAD_SIZE, head.len);
        let payload = payload.map_err(Error::io("read", self.storage.path()))?;
        let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("chunks of 8"));
        Ok(payload.unwrap_or_default().chunks_exact(8).map(word).collect())
    }
}
