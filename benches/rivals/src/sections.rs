//! The parts of the benchmark.

use crate::Bench;
use crate::calls;
use crate::fresh;
use crate::limits;
use crate::measure::{Order, Pinned, key, mix, quantile, touch_memory};
use crate::parallel::{self, Processes};
use crate::report::{Table, Unit};
use crate::rivals::{ALL, Facts, Keeps, OWN, UNLOCKED};
use crate::worker::{Role, Task, Worker};
use anyhow::Result;
use persist_cache::MmapCache;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

type Part = fn(&mut Bench) -> Result<()>;

pub const PARTS: &[(&str, Part)] = &[
    ("store", store),
    ("calls", calls::calls),
    ("parallel", parallel::parallel),
    ("limits", limits::limits),
    ("memory", limits::memory),
    ("fresh", fresh::fresh),
    ("growth", growth),
    ("compaction", compaction),
    ("scale", scale),
];

/// A rival at work, and how many entries it has.
pub struct Player {
    facts: &'static Facts,
    pub role: Role,
    pub worker: Worker,
    /// The first number that has no entry yet.
    next: u64,
    /// How many gets take as long as a loop of them should.
    gets: usize,
}

pub fn play(
    bench: &Bench,
    facts: &'static Facts,
    dir: &Path,
    size: usize,
    count: u64,
) -> Result<Player> {
    let name = facts.name.replace([' ', '<', '>', ','], "-");
    let dir = dir.join(format!("{name}-{size}-{count}"));
    let role = Role { rival: facts.name.to_string(), dir, size, count };
    let worker = Worker::start(&role)?;
    bench.progress.set_message(format!("{}: {size} bytes", facts.name));
    Ok(Player { facts, role, worker, next: 0, gets: 0 })
}

/// Everything that is asked of a store, at one size of values.
fn store(bench: &mut Bench) -> Result<()> {
    let sizes: &[(usize, u64)] =
        bench.amount(&[(64, 100_000)], &[(64, 1_000_000), (1024, 200_000), (65536, 4_000)]);
    for (size, count) in sizes {
        let table = |name: &str, what: &str| {
            let title = format!(
                "{what}: {count} entries (cacache: {}), keys of 16 bytes, values of {size} bytes",
                count_of(*count, 100)
            );
            Table::new(&format!("{name}-{size}"), title)
        };
        let mut tables = Tables {
            reads: table("reads", "Reading"),
            gets: table("gets", "Single gets, each by itself"),
            writes: table("writes", "Writing"),
            space: table("space", "Space and opening"),
        };
        store_of(bench, &mut tables, *size, *count)?;
        let Tables { reads, gets, writes, space } = tables;
        [reads, gets, writes, space].into_iter().for_each(|table| bench.results.add(table));
    }
    Ok(())
}

/// What is asked of a store, in four tables.
struct Tables {
    reads: Table,
    gets: Table,
    writes: Table,
    space: Table,
}

/// What is asked in rounds, in turns.
const LOOPS: [(&str, Order); 4] = [
    ("hot hit", Order::Hot),
    ("uniform hit", Order::Uniform),
    ("Zipf hit", Order::Zipf),
    ("miss", Order::Absent),
];

/// How many entries a store has that is so much slower than others.
fn count_of(count: u64, one_in: usize) -> u64 {
    (count / one_in as u64).max(2000)
}

fn store_of(bench: &mut Bench, tables: &mut Tables, size: usize, count: u64) -> Result<()> {
    let mut players = Vec::new();
    let rounds = bench.rounds();
    let dir = bench.dir.path().to_path_buf();
    for facts in ALL.iter().filter(|facts| bench.has(facts.name)) {
        players.push(play(bench, facts, &dir, size, count_of(count, facts.one_in))?);
    }
    bench.progress.inc_length(players.len() as u64 * (3 + 2 * rounds));
    in_turn(bench, &mut players, "filling", |player| {
        player.next = player.role.count;
        player.worker.ask(Task::Fill(0, player.next)).map(drop)
    })?;
    in_turn(bench, &mut players, "settling", |player| {
        settle(player, &mut tables.space)?;
        player.worker.ask(Task::Warm)?;
        let get = player.worker.ask_one(Task::Loop(Order::Uniform, 2000, 99))?;
        let most = bench.amount(200_000.0, 500_000.0);
        player.gets = (bench.amount(5e7, 2e8) / get).clamp(1000.0, most) as usize;
        Ok(())
    })?;
    for round in 0..rounds {
        in_turn(bench, &mut players, "reading", |player| read(player, tables, round))?;
    }
    for round in 0..rounds {
        in_turn(bench, &mut players, "writing", |player| write(player, &mut tables.writes, round))?;
    }
    in_turn(bench, &mut players, "memory", |player| {
        for (name, bytes) in
            ["peak memory", "of its own"].iter().zip(player.worker.ask(Task::Memory)?)
        {
            tables.space.add(player.facts.name, name, Unit::Bytes, bytes);
        }
        drop(std::fs::remove_dir_all(&player.role.dir));
        Ok(())
    })
}

/// What a rival did; nothing, and a message, if it failed. If it is not a rival that is a failure.
fn or_left_out<T>(bench: &Bench, facts: &Facts, done: Result<T>) -> Result<Option<T>> {
    match done {
        Err(error) if facts.name != OWN => {
            bench.leave_out(format!("{} is left out from here on: {error:#}", facts.name));
            Ok(None)
        }
        done => done.map(Some),
    }
}

/// Has all do something in turns. A rival that fails is left out from there on.
fn in_turn(
    bench: &Bench,
    players: &mut Vec<Player>,
    what: &str,
    mut work: impl FnMut(&mut Player) -> Result<()>,
) -> Result<()> {
    let mut own = Ok(());
    players.retain_mut(|player| {
        let name = player.facts.name;
        bench.step(format!("{name}: {what}"));
        match or_left_out(bench, player.facts, work(player)) {
            Ok(done) => done.is_some(),
            Err(error) => {
                own = Err(error);
                true
            }
        }
    });
    own
}

/// How often each store is opened, one time after the other.
const OPENINGS: usize = 25;

/// Bytes on disk before and after it is brought to rest, and opening it.
fn settle(player: &mut Player, table: &mut Table) -> Result<()> {
    let Player { facts, role, worker, .. } = player;
    if facts.keeps == Keeps::InMemory {
        worker.ask(Task::Settle)?;
        return Ok(());
    }
    let payload = role.count as f64 * (16 + role.size) as f64;
    worker.ask(Task::Flush)?;
    let before = worker.ask_one(Task::Blocks)?;
    let seconds = worker.ask_one(Task::Settle)?;
    let opens: Vec<f64> =
        (0..OPENINGS).map(|_| worker.ask_one(Task::Open)).collect::<Result<_>>()?;
    // Some give their space back when they are opened anew.
    let after = worker.ask_one(Task::Blocks)?;
    table.add(facts.name, "disk / payload", Unit::Ratio, before / payload);
    table.add(facts.name, "compacted", Unit::Ratio, after / payload);
    table.add(facts.name, "compacting", Unit::Seconds, seconds);
    opens.into_iter().for_each(|open| table.add(facts.name, "open", Unit::Nanoseconds, open));
    Ok(())
}

fn read(player: &mut Player, tables: &mut Tables, round: u64) -> Result<()> {
    let Player { facts, worker, role, gets, .. } = player;
    let gets = *gets;
    let table = &mut tables.reads;
    for (name, order) in LOOPS {
        let time = worker.ask_one(Task::Loop(order, gets, round))?;
        table.add(facts.name, name, Unit::Nanoseconds, time);
        let times = worker.ask(Task::Each(order, gets.min(100_000), round))?;
        let columns = PARTS_OF_TIMES.map(|part| format!("{name}, {part}"));
        add_parts(&mut tables.gets, facts.name, &columns, gets.min(100_000), times);
    }
    let many = worker.ask_one(Task::Many(gets, round))?;
    table.add(facts.name, "32 at once", Unit::Nanoseconds, many);
    for (name, threads) in [("1 thread", 1), ("2 threads", 2)] {
        let rate = worker.ask_one(Task::Threads(threads, gets, round))?;
        table.add(facts.name, name, Unit::PerSecond, rate);
    }
    if facts.is_shared {
        for (name, processes) in [("1 process", 1), ("2 processes", 2), ("4 processes", 4)] {
            let rate = Processes::start(role, processes)?.run(processes, gets, round)?;
            table.add(facts.name, name, Unit::PerSecond, rate);
        }
    }
    Ok(())
}

/// What is told of many times.
const PARTS_OF_TIMES: [&str; 3] = ["p50", "p99", "p99.9"];

/// Tells them, as far as so many times can say anything of them.
fn add_parts(table: &mut Table, row: &str, columns: &[String; 3], count: usize, times: Vec<f64>) {
    for ((column, time), least) in columns.iter().zip(times).zip([1, 200, 2000]) {
        if count >= least {
            table.add(row, column, Unit::Nanoseconds, time);
        }
    }
}

fn write(player: &mut Player, table: &mut Table, round: u64) -> Result<()> {
    let Player { facts, worker, role, next, .. } = player;
    if facts.name == UNLOCKED {
        return Ok(());
    }
    // Commits that wait for a disk are few.
    let slow = if facts.name == "LMDB" { 50 } else { facts.one_in as u64 };
    let puts = ((16_000_000 / (64 + role.size as u64)).min(20_000) / slow).max(50);
    touch_memory(256)?;
    let times = worker.ask(Task::Put(*next, *next + puts))?;
    table.add(facts.name, "append", Unit::Nanoseconds, times[5]);
    let columns = PARTS_OF_TIMES.map(|part| format!("append, {part}"));
    add_parts(table, facts.name, &columns, puts as usize, times);
    *next += puts;
    // Twice as many entries after five rounds: what a store does now and then as it grows, it does in them.
    let many = role.count / 5;
    let batch = worker.ask_one(Task::Fill(*next, *next + many))?;
    table.add(facts.name, "append by 1000", Unit::Nanoseconds, batch);
    *next += many;
    let operations = (puts as usize * 4).max(100);
    let mut mixed = worker.ask(Task::Mixed(operations, round))?;
    let parts = mixed.split_off(1);
    table.add(facts.name, "95 gets, 5 puts", Unit::Nanoseconds, mixed[0]);
    let columns = PARTS_OF_TIMES.map(|part| format!("95 and 5, {part}"));
    add_parts(table, facts.name, &columns, operations, parts);
    Ok(())
}

/// What a worker tells of many puts.
const TIMES_OF_PUTS: [&str; 8] =
    ["p50", "p99", "p99.9", "p99.99", "longest", "mean", "p50 of the first 1%", "of the last 1%"];

/// Every single append on the way to a large store.
fn growth(bench: &mut Bench) -> Result<()> {
    let count = bench.amount(300_000, 10_000_000);
    let mut table = Table::new(
        "growth",
        format!("Each of {count} appends of 8 bytes, one by one, from nothing"),
    );
    let names = [OWN, "LMDB WRITEMAP", "fjall"];
    let places = [
        ("in memory", bench.dir.path().to_path_buf()),
        ("on disk", bench.disk.path().to_path_buf()),
    ];
    let rivals = || ALL.iter().filter(|facts| names.contains(&facts.name) && bench.has(facts.name));
    bench.progress.inc_length(2 * rivals().count() as u64);
    for (place, dir) in places {
        for facts in rivals() {
            bench.step(format!("{}: growing {place}", facts.name));
            let mut player = play(bench, facts, &dir, 8, count)?;
            touch_memory(count as usize >> 13)?;
            let Some(times) = or_left_out(bench, facts, player.worker.ask(Task::Put(0, count)))?
            else {
                continue;
            };
            let row = format!("{}, {place}", facts.name);
            for (name, time) in TIMES_OF_PUTS.iter().zip(times) {
                table.add(&row, name, Unit::Nanoseconds, time);
            }
            drop(player.worker);
            drop(std::fs::remove_dir_all(&player.role.dir));
        }
    }
    bench.results.add(table);
    Ok(())
}

/// A plain copy of a file in the place of an older one, with the syncs that a compaction makes: of the file
/// before and behind its seal, and of the directory.
fn copy_plainly(from: &Path, place: &Path) -> Result<()> {
    let new = place.with_extension("new");
    let (mut from, mut to) = (std::fs::File::open(from)?, std::fs::File::create(&new)?);
    let mut piece = vec![0; 1 << 20];
    loop {
        let size = from.read(&mut piece)?;
        if size == 0 {
            break;
        }
        to.write_all(&piece[..size])?;
    }
    to.sync_all()?;
    to.sync_all()?;
    std::fs::rename(new, place)?;
    Ok(std::fs::File::open(place.parent().unwrap_or(place))?.sync_all()?)
}

fn compaction(bench: &mut Bench) -> Result<()> {
    let count = bench.amount(50_000, 300_000);
    let mut table = Table::new("compaction", format!("Compacting {count} values of 1 KiB"));
    bench.progress.inc_length(2);
    for (place, dir) in [("in memory", bench.dir.path()), ("on disk", bench.disk.path())] {
        bench.step(format!("compaction, {place}"));
        let (path, copy): (PathBuf, PathBuf) = (dir.join("compact.pcache"), dir.join("plain.copy"));
        let cache = MmapCache::open_at(&path)?;
        let values = cache.table::<[u8; 16], [u8; 1024]>("values");
        values.insert_many((0..count).map(|n| (key(n), [n as u8; 1024])))?;
        cache.sync()?;
        copy_plainly(&path, &copy)?;
        let get = |n: u64| drop(black_box(values.get(&key(mix(n) % count))));
        let latencies = |is_over: &dyn Fn() -> bool| {
            let mut times = Vec::new();
            for n in 0.. {
                let start = Instant::now();
                get(n);
                times.push(start.elapsed().as_nanos() as f64);
                if is_over() {
                    return times;
                }
            }
            times
        };
        for _ in 0..bench.rounds() {
            let _pinned = Pinned::to(0);
            touch_memory(512)?;
            let start = Instant::now();
            copy_plainly(&path, &copy)?;
            let plain = start.elapsed().as_secs_f64();
            touch_memory(512)?;
            let start = Instant::now();
            cache.compact()?;
            let own = start.elapsed().as_secs_f64();
            table.add(&format!("plain copy, {place}"), "time", Unit::Seconds, plain);
            table.add(&format!("compaction, {place}"), "time", Unit::Seconds, own);
            table.add(
                &format!("compaction, {place}"),
                "of the copy's speed",
                Unit::Ratio,
                plain / own,
            );
            (0..count).for_each(|n| drop(black_box(values.get(&key(n)))));
            let until = Instant::now() + std::time::Duration::from_secs_f64(own);
            let mut alone = latencies(&|| Instant::now() > until);
            let mut beside = std::thread::scope(|scope| {
                let running = scope.spawn(|| {
                    let _pinned = Pinned::to(1);
                    cache.compact().map(drop)
                });
                let times = latencies(&|| running.is_finished());
                running.join().expect("no panic").map(|()| times)
            })?;
            let (alone, beside) = (quantile(&mut alone, 0.99), quantile(&mut beside, 0.99));
            let row = format!("compaction, {place}");
            table.add(&row, "a reader's p99 before", Unit::Nanoseconds, alone);
            table.add(&row, "and meanwhile", Unit::Nanoseconds, beside);
        }
        drop((values, cache));
        drop((std::fs::remove_file(path), std::fs::remove_file(copy)));
    }
    bench.results.add(table);
    Ok(())
}

/// Cost as work grows.
fn scale(bench: &mut Bench) -> Result<()> {
    let counts: &[u64] =
        bench.amount(&[10_000, 100_000], &[10_000, 100_000, 1_000_000, 10_000_000, 100_000_000]);
    let mut table = Table::new("scale", "Values of 8 bytes: cost by number of entries");
    let names = [OWN, "LMDB WRITEMAP", "RwLock<HashMap>"];
    let rivals = || ALL.iter().filter(|facts| names.contains(&facts.name) && bench.has(facts.name));
    bench.progress.inc_length(counts.len() as u64 * rivals().count() as u64);
    let dir = bench.dir.path().to_path_buf();
    for count in counts {
        for facts in rivals() {
            bench.step(format!("{}: {count} entries", facts.name));
            if facts.name != OWN && *count > 10_000_000 {
                continue; // Too slow to fill, or too large for this machine's memory.
            }
            let mut player = play(bench, facts, &dir, 8, *count)?;
            let column = count.to_string();
            touch_memory((*count as usize >> 13).min(2048))?;
            let mut measured = Vec::new();
            let done = measure_at(bench, &mut player, &mut measured);
            or_left_out(bench, facts, done)?;
            for (what, value) in measured {
                table.add(&format!("{}: {what}", facts.name), &column, Unit::Nanoseconds, value);
            }
            drop(player.worker);
            drop(std::fs::remove_dir_all(&player.role.dir));
        }
    }
    bench.results.add(table);
    Ok(())
}

/// What it costs at one number of entries.
fn measure_at(
    bench: &Bench,
    player: &mut Player,
    measured: &mut Vec<(&'static str, f64)>,
) -> Result<()> {
    let Player { role, facts, worker, .. } = player;
    measured.push(("append by 1000", worker.ask_one(Task::Fill(0, role.count))?));
    for round in 0..bench.rounds() {
        measured.push(("uniform hit", worker.ask_one(Task::Loop(Order::Uniform, 500_000, round))?));
    }
    for round in 0..bench.rounds() {
        let next = role.count + round * 2000;
        let times = worker.ask(Task::Put(next, next + 2000))?;
        measured.push(("append", times[5]));
    }
    // Last, since a store that was opened anew has its entries to meet anew.
    for _ in (0..OPENINGS).filter(|_| facts.keeps == Keeps::OnDisk) {
        measured.push(("open", worker.ask_one(Task::Open)?));
    }
    Ok(())
}
