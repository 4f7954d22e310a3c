//! How the document draws a file, and what is stored to it: see [`example`](super::example).

use crate::engine::format::HEADER_SIZE;
use crate::engine::format::WORD_MASK;
use crate::engine::format::header::{state, word};
use crate::engine::format::record::{HEAD_SIZE, Head, HeadBytes, Kind};
use crate::engine::format::slot::{BUCKET_SIZE, Slot, Table, Tag};
use std::fmt::Write as _;

/// The seed of the file.
pub(super) const SEED: u64 = 0x0123_4567_89ab_cdef;
const INDEX_START: u64 = HEADER_SIZE;
const LOG_START: u64 = 8192;

const WORDS: [(u64, &str); 15] = [
    (word::STATE, "STATE"),
    (word::INDEX, "INDEX"),
    (word::TAIL, "TAIL"),
    (word::APPLIED, "APPLIED"),
    (word::SEQ, "SEQ"),
    (word::ALLOCATED, "ALLOCATED"),
    (word::BARRIER, "BARRIER"),
    (word::SYNCED, "SYNCED"),
    (word::PUBLISHED, "PUBLISHED"),
    (word::LAST, "LAST"),
    (word::ENTRIES, "ENTRIES"),
    (word::LIVE, "LIVE"),
    (word::USED, "USED"),
    (word::CLEARED, "CLEARED"),
    (word::CHECKPOINT, "CHECKPOINT"),
];

/// The fields of the head of the example's put: where, how long, and what they are.
const FIELDS: [(usize, usize, &str); 11] = [
    (0, 5, "length of the payload: 40"),
    (5, 1, "kind: VALUE"),
    (6, 1, "form of the identity: a key of 8 bytes"),
    (7, 1, "flags: none"),
    (8, 32, "identity: 8 bytes of the scope, the key 2,"),
    (40, 6, "sequence number: 3"),
    (46, 5, "created: in 10 ms since 1970"),
    (51, 3, "time to live: none"),
    (54, 2, "cost of computing: 0"),
    (56, 4, "payload check"),
    (60, 4, "head check"),
];

/// One change to a file or to a name.
pub(super) struct Change {
    /// Of the file; 0 for a name.
    pub(super) inode: u64,
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
    /// What it is, if it is no store of bytes.
    pub(super) what: &'static str,
}

pub(super) fn load(bytes: &[u8], at: u64) -> u64 {
    u64::from_le_bytes(bytes[at as usize..at as usize + 8].try_into().unwrap())
}

/// What the word at `at` says, if it is one of the header's.
fn value_at(at: u64, word: u64) -> String {
    let table = Table(word);
    match at {
        word::STATE if word == state::LIVE => "LIVE".into(),
        word::STATE if word == state::MOVING => "MOVING".into(),
        word::STATE if word == state::MOVED => "MOVED".into(),
        word::INDEX => format!("{} buckets at {}", table.buckets(), table.offset()),
        INDEX_START..LOG_START if word == 0 => "empty".into(),
        INDEX_START..LOG_START => format!("-> {}", Slot(word).offset()),
        _ => (word & WORD_MASK).to_string(),
    }
}

fn head_at(bytes: &[u8], at: u64) -> Head {
    let head: &HeadBytes = bytes[at as usize..(at + HEAD_SIZE) as usize].try_into().unwrap();
    Head::decode(head, at, SEED).unwrap()
}

fn kind(head: &Head) -> &'static str {
    match head.kind {
        Kind::VALUE => "VALUE",
        Kind::PAD => "PAD",
        Kind::SCOPE => "SCOPE",
        Kind::COMMIT => "COMMIT",
        Kind::CHECKPOINT => "CHECKPOINT",
        _ => "other",
    }
}

/// What a store is to, if it is one of those that a put makes.
pub(super) fn name_of(store: &Change) -> String {
    let Change { at, bytes, what, .. } = store;
    let named = WORDS.iter().find(|(place, _)| place == at);
    match (named, bytes.len()) {
        (_, 0) => (*what).into(),
        (_, 4096) if *at == 0 => "the header page".into(),
        (Some((_, name)), 8) => (*name).into(),
        (None, 8) if (INDEX_START..LOG_START).contains(at) => "slot".into(),
        (_, 4096) if *at == INDEX_START => "the index".into(),
        _ if bytes.iter().all(|byte| *byte == 0) => "zeros behind the tail".into(),
        (None, 8) if bytes[6..] == [8, 0] => "to VALUE".into(),
        (None, 64) if bytes[6] >= 8 => {
            let head: &HeadBytes = bytes[..].try_into().unwrap();
            let head = Head::decode(head, *at, SEED);
            head.map_or("payload".into(), |head| format!("head: {}", kind(&head)))
        }
        _ if bytes.len() > 70_000 && *at == LOG_START => "the live records".into(),
        _ => "payload".into(),
    }
}

/// The stores of a put, with what was there and what is there then.
pub(super) fn table_of(stores: &[Change], before: &[u8]) -> String {
    let mut text =
        String::from("store  offset  bytes  what                     before          after\n");
    let mut bytes = before.to_vec();
    bytes.resize(1 << 20, 0);
    for (number, store) in stores.iter().enumerate() {
        let Change { at, bytes: new, .. } = store;
        let name = name_of(store);
        let _ = write!(text, "{:>5}  {at:>6}  {:>5}  {name}", number + 1, new.len());
        if new.len() == 8 && *at < LOG_START {
            let [old, new] = [load(&bytes, *at), load(new, 0)].map(|word| value_at(*at, word));
            let _ = write!(text, "{:width$}{old:>6}  {new:>13}", "", width = 25 - name.len());
        }
        text.push('\n');
        bytes[*at as usize..*at as usize + new.len()].copy_from_slice(new);
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// Bytes, sixteen in a line, and what they are.
fn dump(text: &mut String, at: u64, bytes: &[u8], what: &str) {
    for (number, line) in bytes.chunks(16).enumerate() {
        let what = if number == 0 { what } else { "" };
        let line = format!("{:>6}  {:<48}  {what}", at + number as u64 * 16, hex(line));
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

pub(super) fn record(bytes: &[u8], at: u64) -> String {
    let mut text = String::new();
    for (place, size, what) in FIELDS {
        let from = at as usize + place;
        dump(&mut text, from as u64, &bytes[from..from + size], what);
    }
    let head = head_at(bytes, at);
    let (start, end) = (at + HEAD_SIZE, at + HEAD_SIZE + head.len);
    dump(
        &mut text,
        start,
        &bytes[start as usize..end as usize],
        "payload: an archived string of 19 bytes",
    );
    dump(
        &mut text,
        end,
        &bytes[end as usize..head.next(at) as usize],
        "padding, which is not written",
    );
    text
}

pub(super) fn header(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, name) in WORDS {
        let value = value_at(at, load(bytes, at));
        dump(&mut text, at, &bytes[at as usize..at as usize + 8], &format!("{name:<10} {value}"));
        text = text.replace(&" ".repeat(25), " ");
    }
    text
}

/// Where the slot of a record lies, and why there.
pub(super) fn slot_of(bytes: &[u8], change: &Change) -> String {
    let slot = Slot(load(&change.bytes, 0));
    let head = head_at(bytes, slot.offset());
    let (hash, table) = (head.identity.hash(SEED), Table(load(bytes, word::INDEX)));
    let (tag, buckets) = (hash >> 36, table.buckets());
    assert_eq!(Tag::of(hash), slot.tag());
    let (bucket, first) = (slot.tag().home(buckets), slot.tag().place(0));
    let place = table.offset() + bucket * BUCKET_SIZE + first;
    assert_eq!(place, change.at);
    format!(
        "hash of the identity  {hash:016x}\n\
         tag                   {tag:07x}            its upper 28 bits\n\
         home bucket           {tag:07x} * {buckets} >> 28 = {bucket}\n\
         place in the bucket   {tag:07x} % 8 = {}\n\
         offset in the file    {} + {bucket} * 64 + {} * 8 = {place}\n\
         slot                  {:016x}   the tag, and {} / 16 = {:09x}\n",
        first / 8,
        table.offset(),
        first / 8,
        slot.0,
        slot.offset(),
        slot.offset() / 16,
    )
}

pub(super) fn log(bytes: &[u8]) -> String {
    let mut text = String::new();
    let mut at = LOG_START;
    while at < load(bytes, word::TAIL) & WORD_MASK {
        let head = head_at(bytes, at);
        let (seq, next) = (head.seq, head.next(at));
        let name = kind(&head);
        let _ = writeln!(
            text,
            "{at:>6}  number {seq}  {name:<10} 64 + {} bytes, next at {next}",
            head.len
        );
        at = next;
    }
    let _ = writeln!(text, "{at:>6}  the tail");
    text
}

/// The changes of a compaction, in order: those to the new file in one line up to each sync.
pub(super) fn compaction(stores: &[Change], old: u64) -> String {
    let mut text = String::new();
    let mut names = Vec::new();
    for store in stores {
        let (name, is_state) = (name_of(store), store.at == word::STATE && store.inode == old);
        match (store.inode, is_state) {
            (_, true) => {
                let state = value_at(store.at, load(&store.bytes, 0));
                let _ = writeln!(text, "old file  STATE = {state}");
            }
            (0, _) => {
                let _ = writeln!(text, "names     {name}");
            }
            _ => names.push(name),
        }
        if store.what == "sync" {
            for names in std::mem::take(&mut names).chunks(8) {
                let _ = writeln!(text, "new file  {}", names.join(", "));
            }
        }
    }
    text
}
