//! How many instructions an operation takes, counted by callgrind: the same on a noisy machine as on a
//! quiet one, so that it has limits. Each operation is counted in a process that does so many of them and
//! in one that does twice as many; what they differ by is theirs. Without valgrind nothing is counted.

#![allow(missing_docs)]

mod common;

use common::{directory, key, open};
use persist_cache::Table;
use std::hint::black_box;
use std::process::{Command, ExitCode};

/// What is counted, and a limit in instructions: a tenth above what it took last, since each file spreads its
/// keys differently.
const LIMITS: [(&str, u64); 7] = [
    ("hit", 310),
    ("get", 330),
    ("get_many of 32, each", 430),
    ("first get of a record", 1500),
    ("miss", 950),
    ("insert", 5200),
    ("insert_many of 1000, each", 2200),
];

const OPERATIONS: u64 = 20_000;
const ENTRIES: u64 = 20_000;

/// Does `operations` of one kind, in a cache of so many entries.
fn perform(what: &str, operations: u64) {
    let dir = directory();
    let cache = open(&dir, "instructions");
    let table: Table<[u8; 16], [u8; 64]> = cache.table("values");
    table.insert_many((0..2 * ENTRIES).map(|n| (key(n), [n as u8; 64]))).expect("entries fit");
    let absent = |n: u64| key(n + (1 << 40));
    match what {
        "hit" => {
            let memo = cache.memoize(|n: &u64| n + 1);
            (0..ENTRIES).for_each(|n| drop(memo.call(&n)));
            for n in 0..operations {
                black_box(*memo.call(black_box(&(n % ENTRIES))));
            }
        }
        "get" => {
            for n in 0..operations {
                black_box(table.get(black_box(&key(n % ENTRIES))).expect("no error").is_some());
            }
        }
        "get_many of 32, each" => {
            for n in 0..operations / 32 {
                let keys: Vec<_> = (0..32).map(|m| key((n * 32 + m) % ENTRIES)).collect();
                black_box(table.get_many(black_box(&keys)).expect("no error"));
            }
        }
        "first get of a record" => {
            let path = dir.path().join("copy.pcache");
            std::fs::copy(cache.path(), &path).expect("a copy");
            let other = persist_cache::MmapCache::open_at(path).expect("it opens");
            let table: Table<[u8; 16], [u8; 64]> = other.table("values");
            for n in 0..operations {
                black_box(table.get(black_box(&key(n))).expect("no error").is_some());
            }
        }
        "miss" => {
            for n in 0..operations {
                black_box(table.get(black_box(&absent(n))).expect("no error").is_none());
            }
        }
        "insert" => {
            for n in 0..operations {
                table.insert(black_box(&absent(n)), &[n as u8; 64]).expect("no error");
            }
        }
        _ => {
            for n in 0..operations / 1000 {
                let entries = (0..1000).map(|m| (absent(n * 1000 + m), [m as u8; 64]));
                table.insert_many(entries).expect("no error");
            }
        }
    }
}

/// The instructions of a whole process, if there is a valgrind to count them.
fn count(what: &str, operations: u64) -> Option<u64> {
    let this = std::env::current_exe().expect("this program");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(this);
    let output = valgrind.args(["--perform", what, &operations.to_string()]).output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{what}: {said}");
    let line = said.lines().find_map(|line| line.split_once("Collected :"));
    Some(line.expect("a count").1.trim().parse().expect("a number"))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--perform") {
        perform(&arguments[at + 1], arguments[at + 2].parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    let mut is_within = true;
    for (what, limit) in LIMITS {
        let (Some(once), Some(twice)) = (count(what, OPERATIONS), count(what, 2 * OPERATIONS))
        else {
            println!("there is no valgrind here: nothing is counted");
            break;
        };
        let each = twice.saturating_sub(once) / OPERATIONS;
        let verdict = if each > limit { "TOO MANY" } else { "" };
        println!("{what:<28} {each:>6} instructions, limit {limit:>6} {verdict}");
        is_within &= each <= limit;
    }
    if is_within { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
