//! What happened to one file while it was copied, once more in the copy. A replay is a target of the
//! [law](crate::engine::log::op): what a record does to an index, it does to the new file by a record of its own.
//!
//! No sequence number becomes smaller, so that a computation that began before a removal still did in the new file. No
//! payload is held in memory.

use super::versions::Prefix;
use crate::engine::format::header::word;
use crate::engine::format::record::{HEAD_SIZE, Head, Identity, Kind};
use crate::engine::format::slot::Table;
use crate::engine::log::journal::{Draft, Journal};
use crate::engine::log::op::{Op, Target, apply, is_space};
use crate::engine::log::records::Records;
use crate::engine::log::walk::{Step, Walk, Window};
use crate::error::{Error, Result};
use std::collections::{HashMap, HashSet};

/// What became of a replay.
#[derive(PartialEq, Eq)]
pub(crate) enum Outcome {
    /// What was to be replayed is in the new file.
    Done,
    /// Going on would copy more than was allowed.
    Paused,
    /// The cache was cleared: what was copied is worth nothing.
    Cleared,
}

/// Replays the records of one file as operations on another.
pub(crate) struct Replay<'a> {
    old: Journal<'a>,
    new: Journal<'a>,
    /// What lies below has been replayed.
    pub(crate) at: u64,
    /// The scopes of the values that were replayed.
    scopes: HashSet<Prefix>,
}

impl<'a> Replay<'a> {
    pub(crate) fn new(old: Journal<'a>, new: Journal<'a>, at: u64) -> Replay<'a> {
        Replay { old, new, at, scopes: HashSet::new() }
    }

    /// Replays the records up to `end`, of which no more than so many bytes are copied.
    pub(crate) fn run(&mut self, end: u64, bytes_max: u64) -> Result<Outcome> {
        let mut left = bytes_max;
        let (file, records) = (self.old.storage(), self.old.records()?);
        let mut walk = Walk::new(file, records.seed, self.at, end);
        while let Some(step) = walk.next().map_err(Error::io("read", file.path()))? {
            let Step::Record(offset, head) = step else { continue };
            self.at = offset;
            match left.checked_sub(cost(offset, &head, &records)?) {
                Some(rest) => left = rest,
                None => return Ok(Outcome::Paused),
            }
            let mut at_record =
                AtRecord { replay: self, seq: head.seq, window: walk.bytes(), is_cleared: false };
            apply(Op::decode(offset, &head), offset, &head, &records, &mut at_record)?;
            if at_record.is_cleared {
                return Ok(Outcome::Cleared);
            }
        }
        self.at = end;
        Ok(Outcome::Done)
    }

    /// Copies a record from where `from` reads, with a number that is no smaller than `seq`.
    fn append(&mut self, offset: u64, seq: u64, head: &Head, from: &mut Window<'_>) -> Result<()> {
        self.new.raise_seq(seq - 1)?;
        let (prefix, _) = head.identity.bytes.split_first_chunk().expect("32 bytes");
        if head.kind == Kind::VALUE {
            self.scopes.insert(*prefix);
        }
        self.new.append_copy(&mut { *head }, from, offset + HEAD_SIZE).map(drop)
    }

    /// Carries over the records of scopes that were omitted, and have been stored to since.
    pub(crate) fn announce(&self, omitted: &HashMap<Prefix, u64>) -> Result<()> {
        let records = self.old.records()?;
        for (_, offset) in omitted.iter().filter(|(prefix, _)| self.scopes.contains(*prefix)) {
            let Some(head) = records.head(*offset) else { continue };
            // Unless the log has had another one since.
            if self.new.locate(&head.identity).is_none() {
                let mut window = Window::new(records.storage, head.next(*offset));
                self.new.append_copy(&mut { head }, &mut window, offset + HEAD_SIZE)?;
            }
        }
        Ok(())
    }
}

/// The bytes that are copied for a record. Of a large value it is the record that commits it which costs, and not its
/// space.
fn cost(offset: u64, head: &Head, records: &Records<'_>) -> Result<u64> {
    let own = if is_space(head) { HEAD_SIZE } else { head.next(0) };
    if Op::decode(offset, head) != Op::Commit {
        return Ok(own);
    }
    records.list(offset, head)?.into_iter().try_fold(own, |cost, offset| {
        let value = records.reserved(offset)?.filter(|value| value.kind == Kind::VALUE);
        Ok(cost.saturating_add(value.map_or(0, |value| value.len)))
    })
}

/// A replay that has come to a record.
struct AtRecord<'r, 'a> {
    replay: &'r mut Replay<'a>,
    /// The record's number.
    seq: u64,
    /// What reads the log.
    window: &'r mut Window<'a>,
    is_cleared: bool,
}

impl Target for AtRecord<'_, '_> {
    fn cleared(&self) -> Result<u64> {
        self.replay.old.header.get(word::CLEARED)
    }

    /// The old file has judged that: a value that was superseded before it could be committed is a pad.
    fn newest(&self, _: &Identity) -> Result<Option<u64>> {
        Ok(None)
    }

    fn put(&mut self, offset: u64, head: &Head, since: u64) -> Result<()> {
        if since == offset {
            return self.replay.append(offset, self.seq, head, self.window);
        }
        // A large value far from here, where the walk goes on.
        let mut window = Window::new(self.replay.old.storage(), head.next(offset));
        self.replay.append(offset, self.seq, head, &mut window)
    }

    fn commit(&mut self, _: u64, head: &Head) -> Result<bool> {
        Ok(head.kind == Kind::VALUE)
    }

    /// By a list of the offsets that the records have in the new file. Each was the newest of its key when it was
    /// listed, and as far as has been replayed it is so in the new file, if it is there: the same but for its number.
    fn mark_dead(&mut self, dead: &[(u64, Head)], seq: u64) -> Result<()> {
        let new = &self.replay.new;
        let newest = |dead: &Head| {
            new.locate(&dead.identity)
                .filter(|(_, newest)| *newest == Head { seq: newest.seq, ..*dead })
        };
        let offsets = dead.iter().filter_map(|(_, head)| newest(head));
        let payload: Vec<u8> = offsets.flat_map(|(offset, _)| offset.to_le_bytes()).collect();
        let draft = Draft::new(Kind::DEAD_LIST, Identity::NONE, &payload, new.superblock.seed);
        new.raise_seq(seq - 1)?;
        new.append(&mut [draft]).map(drop)
    }

    fn clear(&mut self, _: Table, _: u64) -> Result<()> {
        self.is_cleared = true;
        Ok(())
    }
}
