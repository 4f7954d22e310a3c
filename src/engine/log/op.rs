//! What a record does: the law of the log, told once.
//!
//! A record is decoded into an [`Op`], and [`apply`] brings a [`Target`] up to it. There are four targets: the index
//! of a file in use ([`live`](super::live)), the index that recovery makes anew
//! ([`rebuild`](crate::engine::file::rebuild)), the new file of a compaction
//! ([`replay`](crate::engine::file::replay)), and what a verification expects to find
//! ([`suspects`](crate::engine::store::suspects)). A target knows how to keep a key's newest record, and no rule.
//!
//! The rules:
//! 1. Of two records of a key the one with the higher sequence number counts: [`supersedes`].
//! 2. A value, a tombstone and a scope's record count from their own place in the log on. A large value counts from the
//!    record that commits it on; it is committed once. If its key has a newer record by then, it stays a pad.
//! 3. A clear ends every record with a lower number, and those that are committed only after it.
//! 4. A dead list ends the records that it names. A record of the same key that was stored since is another one.
//! 5. What a clear or a dead list ends may have been a removal, which is on record no more. So both raise the barrier
//!    to the number of what they end: no result of a computation that began before it is stored. The barrier rises
//!    first, since whoever applies a record may be killed half-way, and the next one finds the rest done.
//! 6. The kind of a record may be damaged and its head verify, since the kind stands outside the head's check. A record
//!    with a key still supersedes what its key had, whatever kind it shows: nothing older comes back.
//! 7. A payload is looked at only where it decides: see [`is_decided_by_payload`].
//!
//! An example, with the numbers of the records, and what each key has after it:
//!
//! ```text
//!   log                                            key a        key b           barrier
//!   1  VALUE a                                     1            -               0
//!   2  PAD b        (b is large, being copied)     1            -               0
//!   3  VALUE b                                     1            3               0
//!   4  COMMIT of 2  (3 is newer: 2 stays a pad)    1            3               0
//!   5  TOMBSTONE a                                 5: no value  3               0
//!   6  DEAD_LIST of 3                              5: no value  -               3
//!   7  CLEAR                                       -            -               7
//!   8  VALUE a      (of a token of 4: refused)     -            -               7
//! ```
//!
//! The last line never gets into the log: the barrier keeps it out. Without the barrier the value would be stored:
//! record 5, which says that a was removed since the token, counts no more.
//!
//! Numbers decide and places do not: a pad lies where it was reserved and counts from its commit on, and a replay puts
//! records at other places. Times do not either: clocks are set back.
//!
//! The rejected form is one fold for each target, with the rules it needs: there were four, and the rules that one of
//! them had forgotten brought back what was cleared.

use super::records::Records;
use crate::engine::format::record::{HEAD_SIZE, Head, Identity, Kind};
use crate::engine::format::slot::{BUCKET_SIZE, Table};
use crate::error::Result;

/// Payloads longer than this are copied without the lock, into space reserved under it.
pub(crate) const LARGE: usize = 64 << 10;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// The newest record of its key.
    Put,
    /// The large values at the offsets that it lists have their payloads.
    Commit,
    /// The records at the offsets that it lists count no more.
    MarkDead,
    /// Nothing before counts any more, and this table is the index from here on.
    Clear(Table),
    /// Space for a table that the index may grow into. Of a record that is in the log already it is nothing: whoever
    /// appended it may have died half-way, so growth begins anew, in another table.
    Grow,
    /// What was durable when it was written.
    Checkpoint,
    /// Space, or a kind that later versions write and this one may skip.
    Nothing,
}

impl Op {
    /// What the record at `offset` is. A record with an identity is its key's, whatever kind it shows (rule 6), unless
    /// it is space. A kind that nobody here knows is nothing: versions that come later may add some.
    #[inline]
    pub(crate) fn decode(offset: u64, head: &Head) -> Op {
        if head.identity != Identity::NONE {
            return if is_space(head) { Op::Nothing } else { Op::Put };
        }
        match head.kind {
            Kind::COMMIT => Op::Commit,
            Kind::DEAD_LIST => Op::MarkDead,
            Kind::CLEAR => Op::Clear(table_in(offset, head)),
            Kind::INDEX => Op::Grow,
            Kind::CHECKPOINT => Op::Checkpoint,
            _ => Op::Nothing,
        }
    }
}

/// The table that is the payload of the record at `offset`.
pub(crate) fn table_in(offset: u64, head: &Head) -> Table {
    Table::new(offset + HEAD_SIZE, head.len / BUCKET_SIZE)
}

/// Whether a record is space: nobody's, or a large value's that is not committed. A pad with an identity that is not
/// large can only be a value whose kind was damaged, for small values are never reserved.
#[inline]
pub(crate) fn is_space(head: &Head) -> bool {
    head.kind == Kind::PAD && (head.identity == Identity::NONE || is_large(head))
}

/// Whether a record's payload is copied into reserved space.
fn is_large(head: &Head) -> bool {
    head.len > LARGE as u64
}

/// Whether the record with the number `new` takes the place of the one of its key with the number `old`. None takes its
/// own, so that applying a record twice changes nothing.
#[inline]
pub(crate) fn supersedes(new: u64, old: u64) -> bool {
    new > old
}

/// Whether the payload decides what a record does, so that a reader of a log that may be damaged applies it only if it
/// is whole. A list says in its payload what it ends. A kind without a key is believed if the payload, whose check
/// covers the kind, says the same. A large value may show that it is committed, and its payload be torn by a power cut
/// all the same. Every other record with a key does what it does by its head alone.
pub(crate) fn is_decided_by_payload(head: &Head) -> bool {
    head.kind != Kind::PAD && (head.identity == Identity::NONE || is_large(head))
}

/// Who keeps the newest record of each key.
///
/// Every method may be called again for a record that was applied before, and must then change nothing but what an
/// interrupted call left undone. None judges whether a record counts: [`apply`] has done that.
pub(crate) trait Target {
    /// The sequence number of the last clear that is known of.
    fn cleared(&self) -> Result<u64>;

    /// The number of the newest record of a key. `None` if there is none that could keep a large value from being
    /// committed.
    fn newest(&self, identity: &Identity) -> Result<Option<u64>>;

    /// Has a record be its key's, unless what the key has is newer. It counts from the record at `since` on, which is
    /// itself or commits it.
    fn put(&mut self, offset: u64, head: &Head, since: u64) -> Result<()>;

    /// Has a large value be one. `false` if it has not got its payload.
    fn commit(&mut self, offset: u64, head: &Head) -> Result<bool>;

    /// Notes that a value is lost which the record at `since` commits.
    fn lose(&mut self, since: u64) {
        let _ = since;
    }

    /// Has these records be found no more, which the list with the number `seq` names.
    fn mark_dead(&mut self, dead: &[(u64, Head)], seq: u64) -> Result<()>;

    /// Has nothing be found any more, and notes the number of the clear.
    fn clear(&mut self, table: Table, seq: u64) -> Result<()>;

    /// Has no result be stored of a computation that began before `seq`.
    fn raise_barrier(&mut self, seq: u64) -> Result<()> {
        let _ = seq;
        Ok(())
    }

    /// Notes where the last checkpoint is.
    fn checkpoint(&mut self, offset: u64) -> Result<()> {
        let _ = offset;
        Ok(())
    }
}

/// Does to `target` what the record at `offset` says. Doing it twice changes nothing.
///
/// Records are applied in the order of the log. The caller has made sure of the payload where it decides; `records`
/// reads the lists, and what they name. An error is the target's, or the device's, and leaves the record half applied:
/// whoever goes on applies it again from its start.
#[inline]
pub(crate) fn apply(
    op: Op,
    offset: u64,
    head: &Head,
    records: &Records<'_>,
    target: &mut impl Target,
) -> Result<()> {
    match op {
        Op::Put if head.seq > target.cleared()? => target.put(offset, head, offset),
        Op::Put | Op::Grow | Op::Nothing => Ok(()),
        Op::Commit => commit(offset, head, records, target),
        Op::MarkDead => mark_dead(offset, head, records, target),
        Op::Clear(table) => {
            target.raise_barrier(head.seq)?;
            target.clear(table, head.seq)
        }
        Op::Checkpoint => target.checkpoint(offset),
    }
}

/// The COMMIT record at `since`. What it names counts by the number that its pad got when it was reserved, and not by
/// that of the COMMIT record: a removal in between wins
/// (`a_large_value_superseded_before_it_was_committed_is_no_damage`), and so does a clear.
fn commit(since: u64, list: &Head, records: &Records<'_>, target: &mut impl Target) -> Result<()> {
    for offset in records.list(since, list)? {
        let Some(head) = records.reserved(offset)? else {
            target.lose(since);
            continue;
        };
        let is_superseded = |newest| supersedes(newest, head.seq);
        if head.seq <= target.cleared()?
            || target.newest(&head.identity)?.is_some_and(is_superseded)
        {
            continue;
        }
        match target.commit(offset, &head)? {
            true => target.put(offset, &Head { kind: Kind::VALUE, ..head }, since)?,
            false => target.lose(since),
        }
    }
    Ok(())
}

/// The dead list at `offset`. The barrier rises before any slot changes (rule 5):
/// `a_flush_killed_behind_its_slot_refuses_what_began_before_it`. What is named and does not verify is passed over: it
/// is found by nobody as it is.
fn mark_dead(
    offset: u64,
    list: &Head,
    records: &Records<'_>,
    target: &mut impl Target,
) -> Result<()> {
    let named = records.list(offset, list)?.into_iter();
    let dead: Vec<(u64, Head)> =
        named.filter_map(|offset| Some((offset, records.head(offset)?))).collect();
    if let Some(last) = dead.iter().map(|(_, head)| head.seq).max() {
        target.raise_barrier(last)?;
    }
    target.mark_dead(&dead, list.seq)
}
