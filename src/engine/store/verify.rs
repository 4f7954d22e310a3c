//! Verification: reads the whole file and names what is wrong with it, and nothing else, whatever others do to the
//! file meanwhile. It writes nothing and takes no lock; records that are appended meanwhile are not looked at.
//!
//! In this order, since writers go on: the index before the tail, for a table that was the index lies below the
//! tail of then; the size after the tail, for a file grows before its tail does. What the index should lead to and
//! does not is found by [`suspects`](super::suspects).
//!
//! | looked at | a finding if | no finding, though it looks like one |
//! | --- | --- | --- |
//! | each sealed word | its check fails | |
//! | the index's word | it names no table below the tail | where this process has an index of its own |
//! | each record below the tail | it is none, or its payload fails its check | space; a large value on its way |
//! | each slot below the tail | it leads to no record | one that was stored after the tail was loaded |
//! | each key | its newest record is not found | what is published and not applied; removed or cleared meanwhile |
//!
//! Reading under the lock would make all of this plain. It is rejected: writers would wait for as long as it takes to
//! read the whole file.

use super::Store;
use super::findings::{FINDINGS_MAX, Finding, Verification};
use super::suspects::{KEYS_MAX, Suspects};
use crate::engine::file::trust::is_table;
use crate::engine::format::header::word;
use crate::engine::format::record::HEAD_SIZE;
use crate::engine::format::slot::Slot;
use crate::engine::os::file::Storage as _;
use crate::error::{Error, Result};

impl Store {
    /// Verifies the file that is the cache now. One pass over all of its records; further ones over their heads if
    /// more than [`KEYS_MAX`] keys are not in the index when they are met. An error says that the file could not be
    /// read, and nothing about what is in it.
    pub(crate) fn verify(&self) -> Result<Verification> {
        self.verify_by(KEYS_MAX)
    }

    /// As [`verify`](Store::verify), with no more than so many keys in memory.
    pub(crate) fn verify_by(&self, keys_max: usize) -> Result<Verification> {
        let open_file = self.current()?;
        let mut report = Verification::default();
        for (offset, _) in word::sealed(0) {
            if open_file.journal().header.get(offset).is_err() {
                report.find(Finding::Header { offset });
            }
        }
        // The index before the tail: a table that was the index lies below it.
        let table = open_file.index().1;
        // The size after the tail: a file grows before its tail does.
        let tail = open_file.journal().tail();
        let size =
            open_file.file().size().map_err(Error::io("look at", open_file.file().path()))?;
        let tail = tail.unwrap_or(size);
        if tail > size {
            report.find(Finding::Truncated { offset: tail });
        }
        if !open_file.is_private() && !is_table(&open_file.journal(), table, tail) {
            report.find(Finding::Corrupt { offset: table.offset().saturating_sub(HEAD_SIZE) });
        }
        // What a writer has published and not yet put into the index, living or killed, is no finding: the
        // next one does. Nor is what came after an index of this process's own was made.
        let applied = open_file.journal().header.get(word::APPLIED).unwrap_or(tail);
        let (end, applied) = open_file.private_end().map_or((tail, applied), |end| (end, end));
        let end = end.min(size);
        let mut suspects = Suspects::new(&open_file, keys_max);
        suspects.walk(end, Some(&mut report))?;
        // Whatever the index leads to below a tail of before must be there.
        let records = open_file.journal().records_below(tail);
        let is_astray = |slot: Slot| slot.offset() < tail && records.head(slot.offset()).is_none();
        for slot in open_file.slots(is_astray, FINDINGS_MAX) {
            report.find(Finding::Astray { offset: slot.offset() });
        }
        // Of a file that was cut, the end that says what became of its keys is missing.
        if tail > size {
            return Ok(report);
        }
        while let Some(lost) = suspects.lost(applied, tail)? {
            lost.into_iter().for_each(|offset| report.find(Finding::Unreachable { offset }));
            if report.findings.len() == FINDINGS_MAX || !suspects.go_on() {
                break;
            }
            suspects.walk(end, None)?;
        }
        Ok(report)
    }
}
