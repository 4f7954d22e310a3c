//! How many instructions an operation takes, counted by callgrind: the same on a noisy machine as on a
//! quiet one, so that it has limits. Each operation is counted in a process that does so many of them and
//! in one that does twice as many; what they differ by is theirs. Without valgrind nothing is counted.
//!
//! `cargo bench --bench instructions -- --misses` counts a get's cache misses instead, by number of entries.

#![allow(missing_docs)]

mod common;

use common::{directory, key, open};
use persist_cache::Table;
use std::hint::black_box;
use std::process::{Command, ExitCode};

/// What is counted, and a limit in instructions: a tenth above what it took last. Each file spreads its keys
/// differently, so that counts differ by up to a twentieth.
const LIMITS: [(&str, u64); 7] = [
    ("hit", 345),
    ("get", 340),
    ("get_many of 32, each", 470),
    ("first get of a record", 1500),
    ("miss", 950),
    ("insert", 5200),
    ("insert_many of 1000, each", 2200),
];

const OPERATIONS: u64 = 20_000;
/// As many as are met for the first time by twice as many operations.
const ENTRIES: u64 = 2 * OPERATIONS;

/// A core's caches as [`misses`] takes them: 48 KiB and 1 MiB.
const CACHES: [&str; 3] = ["--cache-sim=yes", "--D1=49152,12,64", "--LL=1048576,16,64"];

/// Does `operations` of one kind in a cache of `entries`, whose keys are asked for in turn.
fn perform(what: &str, operations: u64, entries: u64) {
    let dir = directory();
    let cache = open(&dir, "instructions");
    let table: Table<[u8; 16], [u8; 64]> = cache.table("values");
    table.insert_many((0..entries).map(|n| (key(n), [n as u8; 64]))).expect("entries fit");
    let absent = |n: u64| key(n + (1 << 40));
    match what {
        "hit" => {
            let memo = cache.memoize(|n: &u64| n + 1);
            (0..entries).for_each(|n| drop(memo.call(&n)));
            for n in 0..operations {
                black_box(*memo.call(black_box(&(n % entries))));
            }
        }
        "get" => {
            for n in 0..operations {
                // All of them, in another order than they lie in: a prime is no divisor of their number.
                let key = key(n * 2_654_435_761 % entries);
                black_box(table.get(black_box(&key)).expect("no error").is_some());
            }
        }
        "get_many of 32, each" => {
            for n in 0..operations / 32 {
                let keys: Vec<_> = (0..32).map(|m| key((n * 32 + m) % entries)).collect();
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
        "insert_many of 1000, each" => {
            for n in 0..operations / 1000 {
                let batch = (0..1000).map(|m| (absent(n * 1000 + m), [m as u8; 64]));
                table.insert_many(batch).expect("no error");
            }
        }
        _ => panic!("there is nothing called {what}"),
    }
}

/// What valgrind says of a whole process, if there is one.
fn simulate(what: &str, operations: u64, entries: u64, options: &[&str]) -> Option<String> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).args(options);
    valgrind.arg(std::env::current_exe().expect("this program"));
    valgrind.args(["--perform", what, &operations.to_string(), &entries.to_string()]);
    let output = valgrind.output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{what}: {said}");
    Some(said)
}

/// The first number behind `name` in what valgrind said.
fn number(said: &str, name: &str) -> f64 {
    let line = said.lines().find_map(|line| line.split_once(name)).expect("a count").1;
    let digits = line.split_whitespace().next().expect("a number").replace(',', "");
    digits.parse().expect("a number")
}

/// Prints what a get takes, and how often its loads miss, by number of entries, each read once before.
fn misses() {
    for entries in [10_000, 100_000, 1_000_000] {
        let said = |times| simulate("get", times * entries, entries, &CACHES);
        let (Some(once), Some(twice)) = (said(1), said(2)) else {
            println!("there is no valgrind here: nothing is counted");
            return;
        };
        let each = |name| (number(&twice, name) - number(&once, name)) / entries as f64;
        println!(
            "{entries:>8} entries: {:.0} instructions, {:.1} misses of the first cache, {:.1} of the last",
            each("Collected :"),
            each("D1  misses:"),
            each("LLd misses:"),
        );
    }
}

/// Prints what each operation takes; whether all are within their limits.
fn check() -> bool {
    let mut is_within = true;
    for (what, limit) in LIMITS {
        let count = |operations| simulate(what, operations, ENTRIES, &[]);
        let (Some(once), Some(twice)) = (count(OPERATIONS), count(2 * OPERATIONS)) else {
            println!("there is no valgrind here: nothing is counted");
            return true;
        };
        let count = |said: &str| number(said, "Collected :") as u64;
        let each = count(&twice).saturating_sub(count(&once)) / OPERATIONS;
        let verdict = if each > limit { "TOO MANY" } else { "" };
        println!("{what:<28} {each:>6} instructions, limit {limit:>6} {verdict}");
        is_within &= each <= limit;
    }
    is_within
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--perform") {
        let number = |at: usize| arguments[at].parse().expect("a number");
        perform(&arguments[at + 1], number(at + 2), number(at + 3));
    } else if arguments.iter().any(|argument| argument == "--misses") {
        misses();
    } else if !check() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
