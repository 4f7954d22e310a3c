//! The protocol under a model checker: every order of steps, and every value that a load may see under
//! the memory model, for the crate's own journal, index, growth, search and handover, over words that the
//! checker watches instead of a file's. A hit is never lost, a value never torn.
//!
//! ```text
//! RUSTFLAGS='--cfg model="loom"' cargo test --release --lib orders      # all orders, two threads
//! RUSTFLAGS='--cfg model="shuttle"' cargo test --release --lib orders   # random orders, four threads
//! ```
//!
//! The words that only the holder of the lock uses are plain: nothing about them is left to order.

#[cfg(model = "loom")]
use loom as checker;
#[cfg(model = "shuttle")]
use shuttle as checker;

use crate::engine::file::handover::hand_over;
use crate::engine::file::open_file::{Moved, search};
use crate::engine::format::header::{Superblock, state, word};
use crate::engine::format::record::{HEAD_SIZE, Head, HeadBytes, Identity, Kind};
use crate::engine::format::slot::{Table, Tag};
use crate::engine::format::{WORD_MASK, record, seal};
use crate::engine::log::journal::{Draft, Journal};
use crate::engine::os::Words;
#[cfg(model = "loom")]
use crate::engine::os::biased::{Bias, heavy_barrier};
use crate::engine::os::file::Storage;
use crate::error::Result;
use checker::sync::atomic::{AtomicU64, Ordering};
use checker::sync::{Arc, Mutex};
use checker::thread;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64 as PlainU64;

/// Where the first table begins. (A real header is larger; nothing depends on it.)
const TABLE: u64 = 4096;
const SEED: u64 = 42;

/// A word of the model's file.
enum Word {
    /// Readers load it while a writer may store it.
    Shared(AtomicU64),
    /// Only the holder of the lock uses it.
    Own(PlainU64),
}

/// A file made of words.
struct Model {
    header: Vec<Word>,
    words: Vec<AtomicU64>,
    superblock: Superblock,
}

/// The first header word that is kept.
const HEADER: u64 = word::STATE;

impl Model {
    /// An empty cache with an index of so many buckets, and room for so many bytes of log.
    fn new(buckets: u64, room: u64) -> Model {
        let first_index = Table::new(TABLE, buckets);
        let log_start = first_index.end();
        let header = (HEADER..=word::FAILED).step_by(8).map(|place| match place {
            word::STATE | word::INDEX | word::TAIL | word::SEQ => Word::Shared(AtomicU64::new(0)),
            _ => Word::Own(PlainU64::new(0)),
        });
        let words = (TABLE..log_start + room).step_by(8).map(|_| AtomicU64::new(0));
        let superblock = Superblock {
            file_id: [1; 16],
            cache_id: [2; 16],
            seed: SEED,
            log_start,
            first_index,
            generation: 0,
            pointer_width: 64,
            is_for_reading: false,
        };
        let model = Model { header: header.collect(), words: words.collect(), superblock };
        for (place, value) in word::sealed(log_start) {
            model.store(place, seal(value, place)).unwrap();
        }
        model.store(word::ALLOCATED, seal(log_start + room, word::ALLOCATED)).unwrap();
        model.store(word::STATE, state::LIVE).unwrap();
        model.store(word::INDEX, first_index.0).unwrap();
        model
    }

    fn journal(&self) -> Journal<'_> {
        Journal::new(self, &self.superblock)
    }

    fn word(&self, at: u64) -> Option<&AtomicU64> {
        self.words.get((at.checked_sub(TABLE)? / 8) as usize)
    }

    fn header(&self, at: u64) -> Option<&Word> {
        self.header.get((at.checked_sub(HEADER)? / 8) as usize)
    }

    /// Bytes of records: nothing orders them but the words around them.
    fn copy(&self, at: u64, bytes: &[u8], ordering: Ordering) -> io::Result<()> {
        assert!(at.is_multiple_of(8));
        for (chunk, place) in bytes.chunks(8).zip((at..).step_by(8)) {
            let mut content = [0; 8];
            content[..chunk.len()].copy_from_slice(chunk);
            let word = self.word(place).ok_or(io::ErrorKind::StorageFull)?;
            word.store(u64::from_le_bytes(content), ordering);
        }
        Ok(())
    }

    /// A value as a reader meets it for the first time, if the index leads to it: checked, or as it is.
    fn find(&self, key: u64, is_at_path: impl Fn() -> bool) -> Result<Option<u64>, Moved> {
        let identity = identity(key);
        let tag = Tag::of(identity.hash(SEED));
        let examine = |offset| {
            let head = Storage::head(self, offset)?;
            let head = Head::decode(&head, offset, SEED)?;
            let mut payload = [0; 16];
            self.read(offset + HEAD_SIZE, &mut payload).ok()?;
            (head.identity == identity).then_some((head, payload))
        };
        let found = search(self, tag, is_at_path, examine)?;
        Ok(found.filter(|(head, _)| head.kind == Kind::VALUE).map(|(head, payload)| {
            // By the protocol no check is needed once a slot leads here: so none may fail.
            let payload = &payload[..head.len as usize];
            assert_eq!(head.check_of(payload, SEED), head.payload_check, "a torn value");
            let (left, right) = payload.split_at(8);
            assert_eq!(left, right, "a torn value");
            u64::from_le_bytes(left.try_into().unwrap())
        }))
    }

    fn get(&self, key: u64) -> Option<u64> {
        self.find(key, || true).unwrap_or_else(|Moved| panic!("nobody moved it"))
    }

    fn insert(&self, key: u64, value: u64) {
        let payload = [value.to_le_bytes(), value.to_le_bytes()].concat();
        let journal = self.journal();
        journal.redo(false).unwrap();
        let mut head = Head::new(Kind::VALUE, identity(key), 16);
        head.payload_check = record::payload_check(Kind::VALUE, &payload, SEED);
        journal.append(&mut [Draft { head, payload: &payload }]).unwrap();
    }
}

fn identity(key: u64) -> Identity {
    let mut identity = Identity { form: 8, ..Identity::default() };
    identity.bytes[8..16].copy_from_slice(&key.to_le_bytes());
    identity
}

impl Words for Model {
    fn load(&self, at: u64) -> u64 {
        match self.header(at) {
            Some(Word::Own(word)) => word.load(std::sync::atomic::Ordering::Relaxed),
            header => {
                let word = match header {
                    Some(Word::Shared(word)) => Some(word),
                    _ => self.word(at),
                };
                // As `Map::load` does it, but that shuttle knows no fences.
                #[cfg(model = "loom")]
                {
                    let value = word.map_or(0, |word| word.load(Ordering::Relaxed));
                    checker::sync::atomic::fence(Ordering::Acquire);
                    value
                }
                #[cfg(model = "shuttle")]
                word.map_or(0, |word| word.load(Ordering::Acquire))
            }
        }
    }

    fn store(&self, at: u64, value: u64) -> io::Result<()> {
        match self.header(at) {
            Some(Word::Own(word)) => word.store(value, std::sync::atomic::Ordering::Relaxed),
            Some(Word::Shared(word)) => word.store(value, Ordering::Release),
            None => {
                let word = self.word(at).ok_or(io::ErrorKind::InvalidInput)?;
                word.store(value, Ordering::Release);
            }
        }
        Ok(())
    }
}

impl Storage for Model {
    fn path(&self) -> &Path {
        Path::new("model")
    }
    fn size(&self) -> io::Result<u64> {
        Ok(TABLE + self.words.len() as u64 * 8)
    }
    fn read(&self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        for (chunk, place) in buffer.chunks_mut(8).zip((at..).step_by(8)) {
            let word = self.word(place).ok_or(io::ErrorKind::UnexpectedEof)?;
            let content = word.load(Ordering::Relaxed).to_le_bytes();
            chunk.copy_from_slice(&content[..chunk.len()]);
        }
        Ok(())
    }
    fn head(&self, offset: u64) -> Option<HeadBytes> {
        self.extent(offset)?;
        let mut head = [0; HEAD_SIZE as usize];
        self.read(offset, &mut head).ok()?;
        Some(head)
    }
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.copy(at, bytes, Ordering::Relaxed)
    }
    fn overwrite(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.copy(at, bytes, Ordering::Relaxed)
    }
    fn zero(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(()) // What lies behind the tail is zeros here: there are no unpublished bytes.
    }
    fn allocate(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn punch(&self, from: u64, to: u64) {
        // The kernel takes the page away from all who have it mapped before it gives them zeros: whoever
        // reads one sees what came before.
        for word in (from..to).step_by(8).filter_map(|place| self.word(place)) {
            word.store(0, Ordering::Release);
        }
    }
    fn next_data(&self, at: u64) -> io::Result<Option<u64>> {
        Ok(Some(at))
    }
    fn erase(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn resize(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Tries all orders, or many.
fn check(work: impl Fn() + Send + Sync + 'static) {
    let tried = std::sync::Arc::new(PlainU64::new(0));
    let count = std::sync::Arc::clone(&tried);
    let work = move || {
        count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        work();
    };
    #[cfg(model = "loom")]
    {
        let mut builder = loom::model::Builder::new();
        builder.max_branches = 100_000;
        builder.check(work);
    }
    #[cfg(model = "shuttle")]
    shuttle::check_random(work, 2000 * super::effort() as usize);
    println!("{} orders", tried.load(std::sync::atomic::Ordering::Relaxed));
}

/// How many readers run beside what is tried.
const READERS: u64 = if cfg!(model = "loom") { 1 } else { 3 };

/// Runs `reader`, some times over, beside `writer`.
fn beside(
    model: &Arc<Model>,
    reader: impl Fn(&Model) + Clone + Send + 'static,
    writer: impl FnOnce(&Model),
) {
    let readers: Vec<_> = (0..READERS)
        .map(|_| {
            let (model, reader) = (Arc::clone(model), reader.clone());
            thread::spawn(move || reader(&model))
        })
        .collect();
    writer(model);
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

#[test]
fn an_append_is_seen_whole_or_not_at_all() {
    check(|| {
        let model = Arc::new(Model::new(2, 1024));
        model.insert(1, 10);
        let reader = |model: &Model| {
            assert!(matches!(model.get(2), None | Some(20)));
            assert_eq!(model.get(1), Some(10));
        };
        beside(&model, reader, |model| model.insert(2, 20));
        assert_eq!(model.get(2), Some(20));
    });
}

#[test]
fn a_refreshed_key_is_never_missing_and_never_goes_back() {
    check(|| {
        let model = Arc::new(Model::new(2, 1024));
        model.insert(1, 10);
        let reader = |model: &Model| {
            let (first, second) = (model.get(1).unwrap(), model.get(1).unwrap());
            assert!(first <= second && [10, 11].contains(&first) && [10, 11].contains(&second));
        };
        beside(&model, reader, |model| model.insert(1, 11));
        assert_eq!(model.get(1), Some(11));
    });
}

#[test]
fn growth_loses_no_key() {
    check(|| {
        // One bucket: the sixth slot in use begins growth, the next appends end it and give the old
        // table back.
        let model = Arc::new(Model::new(1, 4096));
        (1..=5).for_each(|key| model.insert(key, key * 10));
        let first = model.load(word::INDEX);
        let reader = |model: &Model| assert_eq!(model.get(3), Some(30));
        beside(&model, reader, |model| (6..=9).for_each(|key| model.insert(key, key * 10)));
        assert_ne!(model.load(word::INDEX), first);
        assert!((1..=9).all(|key| model.get(key) == Some(key * 10)));
    });
}

#[test]
fn a_cleared_key_stays_cleared() {
    check(|| {
        let model = Arc::new(Model::new(1, 8192));
        model.insert(1, 10);
        let reader = |model: &Model| {
            let (first, second) = (model.get(1), model.get(1));
            assert!(first.is_some() || second.is_none(), "it came back");
            assert!(matches!(model.get(2), None | Some(20)));
        };
        beside(&model, reader, |model| {
            model.journal().clear().unwrap();
            model.insert(2, 20);
        });
        assert_eq!((model.get(1), model.get(2)), (None, Some(20)));
    });
}

/// Two files, which of them is at the path, and the lock of each.
struct Pair {
    files: [Model; 2],
    path: AtomicU64,
    locks: [Mutex<()>; 2],
}

impl Pair {
    /// As `Store::find` goes: to where the cache went.
    fn get(&self, key: u64) -> Option<u64> {
        for which in [0, 1] {
            let is_at_path = || self.path.load(Ordering::Acquire) == which as u64;
            match self.files[which].find(key, is_at_path) {
                Ok(found) => return found,
                Err(Moved) => {}
            }
        }
        panic!("both files moved");
    }

    /// As `Store::lock` goes.
    fn insert(&self, key: u64, value: u64) {
        for which in [0, 1] {
            let lock = self.locks[which].lock().unwrap();
            if self.files[which].load(word::STATE) == state::LIVE {
                self.files[which].insert(key, value);
                return;
            }
            drop(lock);
        }
        panic!("both files moved");
    }
}

#[test]
fn a_superseded_file_is_left_and_nothing_is_lost() {
    check(|| {
        let pair = Arc::new(Pair {
            files: [Model::new(1, 1024), Model::new(1, 1024)],
            path: AtomicU64::new(0),
            locks: [Mutex::new(()), Mutex::new(())],
        });
        pair.files[0].insert(1, 10);
        let reader = {
            let pair = Arc::clone(&pair);
            thread::spawn(move || {
                let (first, second) = (pair.get(1).unwrap(), pair.get(1).unwrap());
                assert!(first <= second && [10, 11].contains(&second));
            })
        };
        let writer = {
            let pair = Arc::clone(&pair);
            thread::spawn(move || pair.insert(1, 11))
        };
        {
            // As a compaction does it, with the old file locked.
            let [old, new] = &pair.files;
            let _lock = pair.locks[0].lock().unwrap();
            new.insert(1, old.get(1).unwrap());
            let publish = || {
                pair.path.store(1, Ordering::Release);
                Ok(())
            };
            hand_over(old.journal().header, publish).unwrap();
        }
        reader.join().unwrap();
        writer.join().unwrap();
        assert_eq!(pair.get(1), Some(11));
        assert_eq!(pair.files[0].load(word::TAIL) & WORD_MASK & 7, 0);
    });
}

/// An owner's uses, beside one who revokes. The first use has another one in it, as of a signal handler's. The
/// cell complains of whatever is done with it at once with the taking, or is not known to come before.
#[cfg(model = "loom")]
#[test]
fn what_is_revoked_is_used_by_nobody() {
    check(|| {
        let shared = Arc::new((Bias::new(), loom::cell::UnsafeCell::new(())));
        let revoker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (bias, value) = &*shared;
                bias.close();
                let is_taken = heavy_barrier() && bias.take();
                if is_taken {
                    value.with_mut(|_| ());
                }
                is_taken
            })
        };
        let (bias, value) = &*shared;
        if bias.enter() {
            if bias.enter() {
                value.with(|_| ());
            }
            bias.leave();
            value.with(|_| ());
        }
        bias.leave();
        let is_own = bias.end();
        if is_own {
            value.with_mut(|_| ());
        }
        assert!(is_own != revoker.join().unwrap(), "one takes it");
    });
}
