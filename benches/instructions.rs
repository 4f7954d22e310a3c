//! How many instructions an operation takes, counted by callgrind: the same on a noisy machine as on a
//! quiet one, so that it has limits. Each kind is done in a process of its own, of which nothing is counted
//! but what lies within [`count`]. Without valgrind nothing is counted.
//!
//! `cargo bench --bench instructions -- --misses` counts a get's cache misses instead, by number of entries.

#![allow(missing_docs)]

mod common;

use common::{directory, key, open};
use persist_cache::Table;
use std::hint::black_box;
use std::process::{Command, ExitCode};

/// What is counted, and a limit in instructions: a twentieth above what it took last. Each file spreads its
/// keys differently, so that counts differ by one or two in a hundred.
const LIMITS: [(&str, u64); 7] = [
    ("hit", 280),
    ("get", 300),
    ("get_many of 32, each", 416),
    ("first get of a record", 1600),
    ("miss", 1015),
    ("insert", 5830),
    ("insert_many of 1000, each", 2515),
];

/// A multiple of 32 and of 1000.
const ENTRIES: u64 = 20_000;

/// A core's caches as [`misses`] takes them: 48 KiB and 1 MiB.
const CACHES: [&str; 3] = ["--cache-sim=yes", "--D1=49152,12,64", "--LL=1048576,16,64"];

/// Does something so often: the function whose instructions are counted.
#[inline(never)]
fn count(times: u64, operation: impl FnMut(u64)) {
    (0..times).for_each(operation);
}

/// Does as many operations of one kind as there are entries, each with another key.
fn perform(what: &str, entries: u64) {
    let dir = directory();
    let cache = open(&dir, "instructions");
    let table: Table<[u8; 16], [u8; 64]> = cache.table("values");
    table.insert_many((0..entries).map(|n| (key(n), [n as u8; 64]))).expect("entries fit");
    let absent = |n: u64| key(n + (1 << 40));
    match what {
        "hit" => {
            let memo = cache.memoize(|n: &u64| n + 1);
            (0..entries).for_each(|n| drop(memo.call(&n)));
            count(entries, |n| {
                black_box(*memo.call(black_box(&n)));
            });
        }
        "get" => {
            let get = |n: u64| {
                // All of them, in another order than they lie in: a prime is no divisor of their number.
                let key = key(n * 2_654_435_761 % entries);
                black_box(table.get(black_box(&key)).expect("no error").is_some());
            };
            (0..entries).for_each(get);
            count(entries, get);
        }
        "get_many of 32, each" => count(entries / 32, |n| {
            let keys: [_; 32] = std::array::from_fn(|m| key(n * 32 + m as u64));
            black_box(table.get_many(black_box(&keys)).expect("no error"));
        }),
        "first get of a record" => {
            let path = dir.path().join("copy.pcache");
            std::fs::copy(cache.path(), &path).expect("a copy");
            let other = persist_cache::MmapCache::open_at(path).expect("it opens");
            let table: Table<[u8; 16], [u8; 64]> = other.table("values");
            count(entries, |n| {
                black_box(table.get(black_box(&key(n))).expect("no error").is_some());
            });
        }
        "miss" => count(entries, |n| {
            black_box(table.get(black_box(&absent(n))).expect("no error").is_none());
        }),
        "insert" => count(entries, |n| {
            table.insert(black_box(&absent(n)), &[n as u8; 64]).expect("no error");
        }),
        "insert_many of 1000, each" => count(entries / 1000, |n| {
            let batch = (0..1000).map(|m| (absent(n * 1000 + m), [m as u8; 64]));
            table.insert_many(batch).expect("no error");
        }),
        _ => panic!("there is nothing called {what}"),
    }
}

/// What valgrind says of a process that performs, if there is a valgrind.
fn simulate(what: &str, entries: u64, options: &[&str]) -> Option<String> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).args(options);
    valgrind.arg("--toggle-collect=instructions::count*");
    valgrind.arg(std::env::current_exe().expect("this program"));
    valgrind.args(["--perform", what, &entries.to_string()]);
    let output = valgrind.output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{what}: {said}");
    Some(said)
}

/// The first number behind `name` in what valgrind said, for each of the entries.
///
/// # Panics
/// If nothing was counted: this program's symbols are missing, or callgrind did not read the function's.
fn each(said: &str, name: &str, entries: u64) -> f64 {
    assert!(
        !said.contains("Collected : 0\n"),
        "callgrind did not find the function that is counted"
    );
    let line = said.lines().find_map(|line| line.split_once(name)).expect("a count").1;
    let digits = line.split_whitespace().next().expect("a number").replace(',', "");
    digits.parse::<f64>().expect("a number") / entries as f64
}

/// Prints what a get takes, and how often its loads miss, by number of entries, each read once before.
fn misses() {
    for entries in [10_000, 100_000, 1_000_000] {
        let Some(said) = simulate("get", entries, &CACHES) else {
            println!("there is no valgrind here: nothing is counted");
            return;
        };
        let each = |name| each(&said, name, entries);
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
        let Some(said) = simulate(what, ENTRIES, &[]) else {
            println!("there is no valgrind here: nothing is counted");
            return true;
        };
        let each = each(&said, "Collected :", ENTRIES) as u64;
        let verdict = if each > limit { "TOO MANY" } else { "" };
        println!("{what:<28} {each:>6} instructions, limit {limit:>6} {verdict}");
        is_within &= each <= limit;
    }
    is_within
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--perform") {
        perform(&arguments[at + 1], arguments[at + 2].parse().expect("a number"));
    } else if arguments.iter().any(|argument| argument == "--misses") {
        misses();
    } else if !check() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
