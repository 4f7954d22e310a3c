//! One rival in a process of its own, so that its memory is its own, and all take turns. It does what it
//! is told on its standard input and answers with numbers.

use crate::measure::{
    Order, Pinned, blocks, entries, key, median, memory, mix, page_faults, quantile, value,
};
use crate::rivals::{Key, Rival};
use crate::with_rival;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Instant, UNIX_EPOCH};

/// What a worker is told.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Task {
    /// Put the entries of these numbers, by the thousand: nanoseconds an entry, in the mean.
    Fill(u64, u64),
    /// Put them one by one: nanoseconds of each put, as p50, p99, p99.9, p99.99 and the longest, the mean,
    /// and the p50 of the first and of the last hundredth.
    Put(u64, u64),
    /// Get every key there is.
    Warm,
    /// Get so many keys in an order, in a loop: nanoseconds a get.
    Loop(Order, usize, u64),
    /// Get so many keys one by one, each timed: p50, p99, p99.9.
    Each(Order, usize, u64),
    /// Get them 32 at a time: nanoseconds a get.
    Many(usize, u64),
    /// 95 gets for 5 puts: nanoseconds an operation, then of each, as p50, p99 and p99.9.
    Mixed(usize, u64),
    /// So many threads, each getting so many keys: gets a second, of all.
    Threads(usize, usize, u64),
    /// Get so many keys from a time on, in nanoseconds since 1970, and all that are told so at once:
    /// nanoseconds until the last.
    LoopFrom(u64, usize, u64),
    /// Make what was put lie on disk.
    Flush,
    /// Flush and compact: seconds.
    Settle,
    /// Close and open again, and the first get: nanoseconds.
    Open,
    /// Bytes on disk.
    Blocks,
    /// Bytes of memory: the most there were, and those that are its own now.
    Memory,
    /// Work on this core.
    Core(usize),
}

/// What a worker is started with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Role {
    pub rival: String,
    pub dir: PathBuf,
    pub size: usize,
    /// Entries that are read from.
    pub count: u64,
}

/// A worker as the one who tells it what to do sees it.
pub struct Worker {
    child: Child,
    tasks: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Worker {
    pub fn start(role: &Role) -> Result<Worker> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--worker", &serde_json::to_string(role)?])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let tasks = child.stdin.take().context("piped")?;
        let answers = BufReader::new(child.stdout.take().context("piped")?);
        Ok(Worker { child, tasks, answers })
    }

    /// Tells it to begin.
    pub fn tell(&mut self, task: Task) -> Result<()> {
        writeln!(self.tasks, "{}", serde_json::to_string(&task)?)?;
        Ok(self.tasks.flush()?)
    }

    /// Waits for its answer.
    pub fn hear(&mut self) -> Result<Vec<f64>> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("a worker answered {line:?}"))
    }

    pub fn ask(&mut self, task: Task) -> Result<Vec<f64>> {
        self.tell(task)?;
        self.hear()
    }

    pub fn ask_one(&mut self, task: Task) -> Result<f64> {
        self.ask(task)?.first().copied().context("an answer of no numbers")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It ends when nothing more comes; if it does not, that is no reason to wait.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The life of a worker.
pub fn work(role: &str) -> Result<()> {
    // One thread that fails would leave others waiting: let the whole worker end, as its caller expects.
    std::panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        std::process::abort();
    }));
    let role: Role = serde_json::from_str(role)?;
    with_rival!(&*role.rival, role.size, serve(&role))
}

fn serve<R: Rival>(role: &Role) -> Result<()> {
    std::fs::create_dir_all(&role.dir)?;
    let mut store = R::open(&role.dir);
    let mut core = 0;
    for line in std::io::stdin().lines() {
        // A store that opens is not pinned: it may have threads of its own, and they need not be here.
        let answer = match serde_json::from_str(&line?)? {
            Task::Settle => {
                let start = Instant::now();
                store = store.settle(&role.dir);
                vec![start.elapsed().as_secs_f64()]
            }
            Task::Open => {
                drop(store);
                let start = Instant::now();
                store = R::open(&role.dir);
                black_box(store.get(&key(mix(7) % role.count)));
                vec![start.elapsed().as_nanos() as f64]
            }
            Task::Core(other) => {
                core = other;
                vec![]
            }
            task => {
                let _pinned = Pinned::to(core);
                perform(&store, role, task)
            }
        };
        println!("{}", serde_json::to_string(&answer)?);
    }
    Ok(())
}

fn perform<R: Rival>(store: &R, role: &Role, task: Task) -> Vec<f64> {
    let keys = |order: Order, gets, round| order.keys(role.count, gets, round);
    match task {
        Task::Fill(from, to) => fill(store, from, to, role.size),
        Task::Put(from, to) => put(store, from, to, role.size),
        Task::Warm => {
            let found = (0..role.count).filter(|n| store.get(&key(*n)).is_some()).count();
            assert_eq!(found as u64, role.count);
            vec![]
        }
        Task::Loop(order, gets, round) => {
            let keys = keys(order, gets, round);
            let found = if order == Order::Absent { 0 } else { gets };
            time(gets, || assert_eq!(store.get_all(&keys), found))
        }
        Task::Each(order, gets, round) => each(store, &keys(order, gets, round)),
        Task::Many(gets, round) => {
            let keys = keys(Order::Uniform, gets, round);
            let all = || keys.chunks(32).map(|keys| store.get_many(keys)).sum::<usize>();
            time(gets, || assert_eq!(all(), gets))
        }
        Task::LoopFrom(start, gets, round) => {
            let keys = keys(Order::Uniform, gets, round);
            store.get_all(&keys[..keys.len().min(1000)]);
            assert!(now() < start, "the start is early");
            while now() < start {
                std::hint::spin_loop();
            }
            assert_eq!(store.get_all(&keys), gets);
            vec![(now() - start) as f64]
        }
        Task::Flush => {
            store.flush();
            vec![]
        }
        Task::Mixed(operations, round) => mixed(store, role, operations, round),
        Task::Threads(threads, gets, round) => run_threads(store, role, threads, gets, round),
        Task::Blocks => vec![blocks(&role.dir) as f64],
        Task::Memory => {
            let (peak, own) = memory();
            vec![peak, own]
        }
        Task::Settle | Task::Open | Task::Core(_) => unreachable!("done above"),
    }
}

fn time(operations: usize, work: impl FnOnce()) -> Vec<f64> {
    let start = Instant::now();
    work();
    vec![start.elapsed().as_nanos() as f64 / operations as f64]
}

fn fill<R: Rival>(store: &R, from: u64, to: u64, size: usize) -> Vec<f64> {
    let mut nanos = 0.0;
    let mut at = from;
    while at < to {
        let entries = entries(at..to.min(at + 1000), size);
        at += entries.len() as u64;
        nanos += time(1, || store.put_many(&entries))[0];
    }
    vec![nanos / (to - from) as f64]
}

fn put<R: Rival>(store: &R, from: u64, to: u64, size: usize) -> Vec<f64> {
    let clock = clock();
    let mut times = Vec::with_capacity((to - from) as usize);
    for n in from..to {
        let (key, value) = (key(n), value(n, size));
        let took = time(1, || store.put(&key, &value))[0];
        times.push((took - clock).max(0.0));
    }
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    let part = times.len().div_ceil(100);
    let (first, last) = (median(&times[..part]), median(&times[times.len() - part..]));
    let parts = [0.5, 0.99, 0.999, 0.9999, 1.0].map(|part| quantile(&mut times, part));
    [&parts[..], &[mean, first, last]].concat()
}

fn each<R: Rival>(store: &R, keys: &[Key]) -> Vec<f64> {
    each_of(keys.len(), |n| {
        black_box(store.get(&keys[n]));
    })
}

/// What two looks at the clock cost, in nanoseconds. It ticks every ten on some machines.
fn clock() -> f64 {
    let nothing: Vec<f64> = (0..10_000).flat_map(|_| time(1, || {})).collect();
    median(&nothing)
}

/// Nanoseconds since 1970, for times that several processes know.
pub fn now() -> u64 {
    UNIX_EPOCH.elapsed().map_or(0, |since| since.as_nanos() as u64)
}

/// Each between two looks at the clock, which wait for what came before; less what two looks cost.
fn each_of(count: usize, mut work: impl FnMut(usize)) -> Vec<f64> {
    let clock = clock();
    let times = (0..count).flat_map(|n| time(1, || work(n)));
    let mut times: Vec<f64> = times.map(|time| (time - clock).max(0.0)).collect();
    [0.5, 0.99, 0.999].map(|part| quantile(&mut times, part)).to_vec()
}

fn mixed<R: Rival>(store: &R, role: &Role, operations: usize, round: u64) -> Vec<f64> {
    let keys = Order::Uniform.keys(role.count, operations, round);
    let value = value(round, role.size);
    let operate = |n: usize| {
        if n % 20 == 19 {
            store.put(&keys[n], &value);
        } else {
            black_box(store.get(&keys[n]));
        }
    };
    let mean = time(operations, || (0..operations).for_each(operate));
    [mean, each_of(operations, operate)].concat()
}

fn run_threads<R: Rival>(
    store: &R,
    role: &Role,
    threads: usize,
    gets: usize,
    round: u64,
) -> Vec<f64> {
    let barrier = std::sync::Barrier::new(threads);
    let run = |store: R, number: usize| {
        let _pinned = Pinned::to(number);
        let keys = Order::Uniform.keys(role.count, gets, round * 64 + number as u64);
        store.get_all(&keys[..keys.len().min(1000)]);
        barrier.wait();
        let start = Instant::now();
        store.get_all(&keys);
        start.elapsed()
    };
    let slowest = std::thread::scope(|scope| {
        let run = &run;
        let spawn = |number| {
            let store = store.share();
            scope.spawn(move || run(store, number))
        };
        let running: Vec<_> = (0..threads).map(spawn).collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).max()
    });
    let seconds = slowest.map_or(f64::NAN, |slowest| slowest.as_secs_f64());
    vec![(threads * gets) as f64 / seconds]
}

/// A process that opens a store and gets so many keys, from nothing: nanoseconds, and page faults.
pub fn start_afresh<R: Rival>(dir: &Path, count: u64, gets: usize) -> Result<()> {
    let keys = Order::Uniform.keys(count, gets, 1);
    let (faults, start) = (page_faults(), Instant::now());
    let store = R::open(dir);
    let found = keys.iter().filter(|key| black_box(store.get(key)).is_some()).count();
    let nanos = start.elapsed().as_nanos();
    let faults = page_faults() - faults;
    anyhow::ensure!(found == gets, "{found} of {gets} found");
    println!("{}", serde_json::to_string(&(nanos as f64, faults))?);
    Ok(())
}
