//! What is to be reached, and whether it was: each goal is a ratio of two numbers of the same run, and is
//! reached if the ratio is as large.

use crate::report::{Results, Table, Unit};
use crate::rivals::OWN;

/// A number of the run: table, row, column.
type Place = (&'static str, &'static str, &'static str);

/// The first number is to be so many times the second.
struct Goal {
    what: &'static str,
    times: f64,
    over: Place,
    under: Place,
}

/// Any two numbers.
const fn ratio(what: &'static str, times: f64, over: Place, under: Place) -> Goal {
    Goal { what, times, over, under }
}

/// A rival's number and ours, of the same column.
const fn ahead(
    what: &'static str,
    times: f64,
    table: &'static str,
    rival: &'static str,
    column: &'static str,
) -> Goal {
    Goal { what, times, over: (table, rival, column), under: (table, OWN, column) }
}

const READS: &str = "reads-64";
const WRITES: &str = "writes-64";
const HOT: &str = "hot hit";
const UNIFORM: &str = "uniform hit";
const BATCH: &str = "append by 1000";
const BEFORE: &str = "disk / payload";
const AFTER: &str = "compacted";
const MAP: &str = "RwLock<HashMap>";
const SHARE: &str = "of the map's";
/// Of its three modes the best at this.
const LMDB: &str = "LMDB at its best";
const CACHED: &str = "cached on disk";
const WRITEMAP: &str = "LMDB WRITEMAP";

const GOALS: &[Goal] = &[
    ahead("hot hit: LMDB / ours", 6.0, READS, LMDB, HOT),
    ahead("hot hit: moka / ours", 5.0, READS, "moka", HOT),
    ahead("hot hit: `cached` on disk / ours", 25.0, READS, CACHED, HOT),
    ahead("call: Python's / ours", 3000.0, "calls", "Python: persist-cache", "f(u64) -> struct"),
    ahead("hot hit: quick_cache / ours", 1.0, READS, "quick_cache", HOT),
    ahead("hot hit: `RwLock<HashMap>` / ours", 0.5, READS, MAP, HOT),
    ahead("uniform hits in a loop: LMDB / ours", 5.0, READS, LMDB, UNIFORM),
    ahead("uniform hits in a loop: papaya / ours", 1.0, READS, "papaya", UNIFORM),
    ahead("uniform hits in a loop: quick_cache / ours", 1.0, READS, "quick_cache", UNIFORM),
    ahead("a uniform hit by itself, p50: LMDB / ours", 2.2, "gets-64", LMDB, "uniform hit, p50"),
    ratio(
        "key of 200 bytes: BLAKE3 of it and a hot hit / ours",
        1.0 / 1.3,
        ("limits", "BLAKE3 of 200 bytes, and a hot hit", "time"),
        ("limits", "hot hit, key of 200 bytes", "time"),
    ),
    ratio(
        "warm `Vec<String>` of 1,000: a hot hit / ours",
        0.95,
        ("limits", "hot hit, key u64", "time"),
        ("limits", "Vec<String> of 1000, warm", "time"),
    ),
    ahead("append: LMDB WRITEMAP / ours", 3.0, WRITES, WRITEMAP, "append"),
    ahead("append: LMDB NOSYNC / ours", 15.0, WRITES, "LMDB NOSYNC", "append"),
    ahead("append: fjall / ours", 1.0, WRITES, "fjall", "append"),
    ahead("append by thousand: LMDB NOSYNC / ours", 10.0, WRITES, "LMDB NOSYNC", BATCH),
    ahead("append by thousand: LMDB WRITEMAP / ours", 10.0, WRITES, WRITEMAP, BATCH),
    ratio("32 at once: one by one / ours", 3.0, (READS, OWN, UNIFORM), (READS, OWN, "32 at once")),
    ahead("32 at once: papaya, one by one / ours", 1.0, READS, "papaya", "32 at once"),
    ahead("open: LMDB / ours", 2.0, "space-64", LMDB, "open"),
    ahead("new process, 1 get: LMDB / ours", 1.0, "fresh", LMDB, "1 gets"),
    ahead("new process, 10 gets: LMDB / ours", 1.0, "fresh", LMDB, "10 gets"),
    ahead("new process, 100 gets: LMDB / ours", 1.0, "fresh", LMDB, "100 gets"),
    ahead("new process, 1,000 gets: LMDB / ours", 1.0, "fresh", LMDB, "1000 gets"),
    ahead("disk, 64 bytes, compacted: LMDB / ours", 1.0, "space-64", LMDB, AFTER),
    ahead("disk, 1 KiB, compacted: LMDB / ours", 1.0, "space-1024", LMDB, AFTER),
    ahead("disk, 64 KiB, compacted: LMDB / ours", 1.0, "space-65536", LMDB, AFTER),
    ahead("disk, 64 bytes, before: LMDB / ours", 1.0 / 1.2, "space-64", LMDB, BEFORE),
    ahead("disk, 1 KiB, before: LMDB / ours", 1.0 / 1.2, "space-1024", LMDB, BEFORE),
    ahead("disk, 64 KiB, before: LMDB / ours", 1.0 / 1.2, "space-65536", LMDB, BEFORE),
    ratio(
        "compaction in memory: plain copy / ours",
        0.7,
        ("compaction", "plain copy, in memory", "time"),
        ("compaction", "compaction, in memory", "time"),
    ),
    ratio(
        "compaction on disk: plain copy / ours",
        0.7,
        ("compaction", "plain copy, on disk", "time"),
        ("compaction", "compaction, on disk", "time"),
    ),
    ratio(
        "a reader's p99, in memory: alone / beside a compaction",
        0.5,
        ("compaction", "compaction, in memory", "a reader's p99 before"),
        ("compaction", "compaction, in memory", "and meanwhile"),
    ),
    ratio(
        "a reader's p99, on disk: alone / beside a compaction",
        0.5,
        ("compaction", "compaction, on disk", "a reader's p99 before"),
        ("compaction", "compaction, on disk", "and meanwhile"),
    ),
    ratio(
        "open: 10,000 entries / as many as were tried",
        0.8,
        ("scale", "persist-cache: open", "10000"),
        ("scale", "persist-cache: open", "100000000"),
    ),
    ratio(
        "median append while growing to 10,000,000: first / last",
        0.9,
        ("growth", "persist-cache, in memory", "p50 of the first 1%"),
        ("growth", "persist-cache, in memory", "of the last 1%"),
    ),
];

/// The longest that appends may take, in nanoseconds.
const LONGEST: f64 = 5e6;

const APPENDS: [(&str, Place); 2] = [
    ("longest append, in memory: 5 ms / ours", ("growth", "persist-cache, in memory", "longest")),
    ("p99.99 of appends, on disk: 5 ms / ours", ("growth", "persist-cache, on disk", "p99.99")),
];

/// What a second core gains, as a part of what an unlocked map gains by it.
const GAINS: [(&str, Place); 2] = [
    ("2 threads: our gain / an unlocked map's", ("parallel", "persist-cache, threads", SHARE)),
    ("2 processes: our gain / an unlocked map's", ("parallel", "persist-cache, processes", SHARE)),
];

/// The table of what was to be reached, as far as this run measured it.
pub fn judge(results: &Results) -> Table {
    let mut table = Table::new("goals", "What was to be reached: ratios, larger is better");
    let get = |(table, row, column): Place| match row {
        LMDB => {
            let modes = ["LMDB", "LMDB NOSYNC", WRITEMAP];
            modes.iter().filter_map(|mode| results.get(table, mode, column)).reduce(f64::min)
        }
        row => results.get(table, row, column),
    };
    let mut add = |what: &str, goal: f64, measured: Option<f64>| {
        table.add(what, "goal", Unit::Ratio, goal);
        // What was not measured shows as that.
        let Some(measured) = measured else { return };
        table.add(what, "measured", Unit::Ratio, measured);
        table.add(what, "measured / goal", Unit::Ratio, measured / goal);
    };
    for Goal { what, times, over, under } in GOALS {
        add(what, *times, get(*over).zip(get(*under)).map(|(over, under)| over / under));
    }
    for (what, place) in APPENDS {
        add(what, 1.0, get(place).map(|longest| LONGEST / longest));
    }
    for (what, place) in GAINS {
        add(what, 0.95, get(place));
    }
    table
}
