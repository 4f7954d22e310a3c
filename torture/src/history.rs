//! What processes said that they did, and whether what is found agrees with it. Each says so in a file of
//! its own, before and after every operation, with the time; its parent adds when it was dead. A kill leaves
//! an operation without its end: it may have had its effect, or have it yet when the next writer finishes
//! what it had begun, or never have it.
//!
//! What is found for a key must be the effect of an operation after whose end no finished one began.

use persist_cache::Error;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

/// What an operation does to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// It has this version.
    Stored(u64),
    /// It has nothing.
    Removed,
}

/// An operation on the keys from `first` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) first: u64,
    pub(crate) end: u64,
    pub(crate) effect: Effect,
    pub(crate) began: u64,
    /// When it was over, one way or the other.
    pub(crate) ended: u64,
    /// It had its effect.
    pub(crate) is_done: bool,
}

/// The same clock in all processes, in nanoseconds.
pub(crate) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

const ENTRY_SIZE: usize = 40;
const BEGAN: u64 = 1;
const ENDED: u64 = 2;
const READS: u64 = 3;
const COMPACTED: u64 = 4;
const FAILED: u64 = 5;
const DEAD: u64 = 6;

/// Where one process says what it does.
pub(crate) struct Diary(File);

impl Diary {
    pub(crate) fn create(path: &Path) -> io::Result<Diary> {
        File::create(path).map(Diary)
    }

    /// One write.
    fn note(&mut self, words: [u64; 5]) -> io::Result<()> {
        let mut entry = [0; ENTRY_SIZE];
        for (place, word) in entry.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        self.0.write_all(&entry)
    }

    /// Says in another's diary that it is dead.
    pub(crate) fn close(path: &Path) -> io::Result<()> {
        match File::options().append(true).open(path) {
            Ok(file) => {
                // A write over the end of a page may have been cut short by the kill.
                let size = file.metadata()?.len();
                file.set_len(size - size % ENTRY_SIZE as u64)?;
                Diary(file).note([DEAD, 0, 0, 0, now()])
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Says that it is about to do something, does it, and says whether it was done.
    pub(crate) fn record(
        &mut self,
        keys: std::ops::Range<u64>,
        effect: Effect,
        work: impl FnOnce() -> persist_cache::Result<()>,
    ) -> io::Result<()> {
        let version = match effect {
            Effect::Stored(version) => version,
            Effect::Removed => 0,
        };
        self.note([BEGAN, keys.start, keys.end, version, now()])?;
        match work() {
            Ok(()) => self.note([ENDED, 0, 0, 0, now()]),
            // It may have had its effect, or not: as if it had been killed.
            Err(Error::Locked { .. } | Error::Busy { .. } | Error::Unstable { .. }) => {
                self.note([FAILED, 0, 0, 0, now()])
            }
            // Another one has removed the file.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.note([FAILED, 0, 0, 0, now()])
            }
            Err(error) => panic!("{effect:?}: {error}"),
        }
    }

    pub(crate) fn count_reads(&mut self, reads: u64) -> io::Result<()> {
        self.note([READS, reads, 0, 0, 0])
    }
    pub(crate) fn count_compaction(&mut self) -> io::Result<()> {
        self.note([COMPACTED, 0, 0, 0, 0])
    }
}

/// What all processes of a batch said.
#[derive(Default)]
pub(crate) struct History {
    pub(crate) operations: Vec<Operation>,
    pub(crate) reads: u64,
    pub(crate) compactions: u64,
}

impl History {
    /// Adds what a diary says.
    pub(crate) fn read(&mut self, diary: &Path) -> io::Result<()> {
        let mut bytes = Vec::new();
        match File::open(diary) {
            Ok(mut file) => file.read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let first = self.operations.len();
        for entry in bytes.chunks_exact(ENTRY_SIZE) {
            let word =
                |n: usize| u64::from_le_bytes(entry[n * 8..n * 8 + 8].try_into().expect("8"));
            match word(0) {
                BEGAN => self.operations.push(Operation {
                    first: word(1),
                    end: word(2),
                    effect: if word(3) == 0 { Effect::Removed } else { Effect::Stored(word(3)) },
                    began: word(4),
                    ended: u64::MAX,
                    is_done: false,
                }),
                ENDED | FAILED | DEAD => {
                    let last = self.operations[first..].last_mut();
                    if let Some(last) = last.filter(|last| last.ended == u64::MAX) {
                        (last.ended, last.is_done) = (word(4), word(0) == ENDED);
                    }
                }
                READS => self.reads += word(1),
                COMPACTED => self.compactions += 1,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(())
    }

    /// Says of what was cut short by when it had its effect, if ever: the next writer to take the lock
    /// finishes it first.
    pub(crate) fn bound_unfinished(&mut self) {
        let done = self.operations.iter().filter(|operation| operation.is_done);
        let mut writes: Vec<(u64, u64)> = done.map(|done| (done.began, done.ended)).collect();
        writes.sort_unstable();
        // The earliest end of all that began at the same time or later.
        let mut earliest = u64::MAX;
        for write in writes.iter_mut().rev() {
            earliest = earliest.min(write.1);
            write.1 = earliest;
        }
        for short in self.operations.iter_mut().filter(|operation| !operation.is_done) {
            let next = writes.partition_point(|write| write.0 <= short.ended);
            short.ended = writes.get(next).map_or(u64::MAX, |write| write.1);
        }
    }

    /// What is wrong with what was found for the keys below `keys`.
    pub(crate) fn fault(&self, keys: u64, found: &BTreeMap<u64, u64>) -> Option<String> {
        let mut of_keys: Vec<Vec<&Operation>> = vec![Vec::new(); keys as usize];
        for operation in &self.operations {
            for key in operation.first..operation.end.min(keys) {
                of_keys[key as usize].push(operation);
            }
        }
        of_keys.iter().zip(0..).find_map(|(operations, key)| {
            let has = found.get(&key).map_or(Effect::Removed, |version| Effect::Stored(*version));
            let finished = operations.iter().filter(|operation| operation.is_done);
            let last_began = finished.map(|operation| operation.began).max().unwrap_or(0);
            let may_be_last = |operation: &&&Operation| operation.ended >= last_began;
            let mut last = operations.iter().filter(may_be_last);
            let was_empty = operations.iter().all(|operation| !operation.is_done);
            let is_right = last.any(|operation| operation.effect == has)
                || was_empty && has == Effect::Removed;
            (!is_right).then(|| format!("key {key} has {has:?} after {operations:#?}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations on one key; one without an end was cut short when it began.
    fn history(operations: &[(Effect, u64, Option<u64>)]) -> History {
        let operation = |&(effect, began, ended): &(Effect, u64, Option<u64>)| Operation {
            first: 0,
            end: 1,
            effect,
            began,
            ended: ended.unwrap_or(began),
            is_done: ended.is_some(),
        };
        let operations = operations.iter().map(operation).collect();
        let mut history = History { operations, ..History::default() };
        history.bound_unfinished();
        history
    }

    fn is_right(history: &History, has: Option<u64>) -> bool {
        history.fault(1, &has.map(|version| (0, version)).into_iter().collect()).is_none()
    }

    #[test]
    fn what_cannot_be_last_is_a_fault() {
        use Effect::{Removed, Stored};
        let one = history(&[(Stored(1), 10, Some(20))]);
        assert!(is_right(&one, Some(1)) && !is_right(&one, None) && !is_right(&one, Some(2)));
        let removed = history(&[(Stored(1), 10, Some(20)), (Removed, 30, Some(40))]);
        assert!(is_right(&removed, None) && !is_right(&removed, Some(1)));
        let at_once = history(&[(Stored(1), 10, Some(35)), (Removed, 30, Some(40))]);
        assert!(is_right(&at_once, None) && is_right(&at_once, Some(1)));
        let killed = history(&[(Stored(1), 10, Some(20)), (Removed, 30, None)]);
        assert!(is_right(&killed, None) && is_right(&killed, Some(1)));
        let bounded = history(&[(Removed, 30, None), (Stored(2), 50, Some(60))]);
        assert!(is_right(&bounded, Some(2)));
        let later = [(Removed, 30, None), (Stored(2), 50, Some(60)), (Stored(3), 70, Some(80))];
        assert!(!is_right(&history(&later), None), "it was finished before 60");
        let unsure = history(&[(Stored(1), 10, None)]);
        assert!(is_right(&unsure, None) && is_right(&unsure, Some(1)));
    }
}
