//! The calls that users make, from end to end: the same function, kept by each in the way its
//! documentation shows, its result read as far as a caller would: one part of it. Python's libraries too,
//! where there is a Python.

use crate::Bench;
use crate::report::{Table, Unit};
use crate::rivals::OWN;
use anyhow::{Result, bail};
use cached::{ConcurrentCached as _, RedbCache};
use heed::types::{Bytes, SerdeBincode};
use heed::{CommitOrAbort, Database, EnvOpenOptions};
use persist_cache::MmapCache;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

#[derive(
    Debug,
    Clone,
    PartialEq,
    Serialize,
    Deserialize,
    rkyv::Archive,
    rkyv::Serialize,
    rkyv::Deserialize,
)]
pub struct Small {
    id: u64,
    score: f64,
    is_good: bool,
}

fn small(id: u64) -> Small {
    Small { id, score: id as f64 / 3.0, is_good: id.is_multiple_of(2) }
}

fn floats(text: &str) -> Vec<f64> {
    (0..1000).map(|n| (text.len() * n) as f64 / 7.0).collect()
}

fn strings(path: &Path) -> Vec<String> {
    (0..1000).map(|n| format!("{}: line {n} of the file", path.display())).collect()
}

/// Distinct arguments, called in turn.
const ARGUMENTS: usize = 16;

/// Calls all of them until enough were made: nanoseconds a call.
fn time<T>(calls: usize, mut call: impl FnMut(usize) -> T) -> f64 {
    let mut call = |n: usize| drop(black_box(call(n % ARGUMENTS)));
    (0..ARGUMENTS * 2).for_each(&mut call); // Computed, stored, checked.
    let start = Instant::now();
    (0..calls).for_each(call);
    start.elapsed().as_nanos() as f64 / calls as f64
}

/// The arguments of the three functions.
struct Arguments {
    numbers: Vec<u64>,
    texts: Vec<String>,
    paths: Vec<PathBuf>,
}

impl Arguments {
    fn new() -> Arguments {
        let numbers = || 0..ARGUMENTS as u64;
        let path = |n| PathBuf::from(format!("/home/someone/documents/reports/report-{n:04}.txt"));
        Arguments {
            numbers: numbers().collect(),
            texts: numbers().map(|n| format!("{n:0200}")).collect(),
            paths: numbers().map(path).collect(),
        }
    }
}

const COLUMNS: [&str; 3] = ["f(u64) -> struct", "f(&str) -> Vec<f64>", "f(&Path) -> Vec<String>"];

fn own(arguments: &Arguments, dir: &Path, calls: usize) -> Result<[f64; 3]> {
    let cache = MmapCache::open_at(dir.join("calls.pcache"))?;
    let small = cache.memoize(|id: &u64| small(*id));
    let floats = cache.memoize(|text: &str| floats(text));
    let strings = cache.memoize(|path: &Path| strings(path));
    Ok([
        time(calls, |n| small.call(&arguments.numbers[n]).score),
        time(calls, |n| floats.call(&arguments.texts[n])[999]),
        time(calls, |n| strings.call(&arguments.paths[n])[999].len()),
    ])
}

/// A store as the rest of the rivals are used: look, or compute and put.
fn keep<V>(
    get: impl FnOnce() -> Option<V>,
    put: impl FnOnce(&V),
    compute: impl FnOnce() -> V,
) -> V {
    get().unwrap_or_else(|| {
        let value = compute();
        put(&value);
        value
    })
}

fn lmdb(arguments: &Arguments, dir: &Path, calls: usize) -> Result<[f64; 3]> {
    fn memoised<V: Serialize + DeserializeOwned>(
        env: &heed::Env,
        database: Database<'_, Bytes, SerdeBincode<V>>,
        key: &[u8],
        compute: impl FnOnce() -> V,
    ) -> V {
        let get = || database.get(&env.read_txn().expect("a transaction"), key).expect("a get");
        let put = |value: &V| {
            let mut write = env.write_txn().expect("a transaction");
            database.put(&mut write, key, value).expect("a put");
            write.commit().expect("a commit");
        };
        keep(get, put, compute)
    }
    let dir = dir.join("lmdb");
    std::fs::create_dir_all(&dir)?;
    // SAFETY: nobody changes the files by other means.
    let env = unsafe { EnvOpenOptions::new().map_size(1 << 30).max_dbs(3).open(dir)? };
    let database = |name| {
        let create = env.create_databases_and_commit(env.write_txn()?, |options, write| {
            options
                .create_database::<Bytes, Bytes>(write, Some(name))
                .map(CommitOrAbort::<_, ()>::Commit)
        });
        create.map(heed::CommitOrAbort::unwrap_commit)
    };
    let (smalls, many) =
        (database("small")?.remap_data_type(), database("floats")?.remap_data_type());
    let texts = database("strings")?.remap_data_type();
    Ok([
        time(calls, |n| {
            let id = arguments.numbers[n];
            memoised(&env, smalls, &id.to_be_bytes(), || small(id)).score
        }),
        time(calls / 100, |n| {
            let text = &arguments.texts[n];
            memoised(&env, many, text.as_bytes(), || floats(text))[999]
        }),
        time(calls / 100, |n| {
            let path = &arguments.paths[n];
            let key = path.as_os_str().as_encoded_bytes();
            memoised(&env, texts, key, || strings(path))[999].len()
        }),
    ])
}

fn on_disk(arguments: &Arguments, dir: &Path, calls: usize) -> Result<[f64; 3]> {
    fn open<V: Serialize + DeserializeOwned>(
        name: &str,
        dir: &Path,
    ) -> Result<RedbCache<String, V>> {
        Ok(RedbCache::builder(name).disk_dir(dir).durable(false).build()?)
    }
    fn memoised<V: Serialize + DeserializeOwned + Clone>(
        cache: &RedbCache<String, V>,
        key: String,
        compute: impl FnOnce() -> V,
    ) -> V {
        let get = || cache.cache_get(&key).expect("a get");
        keep(get, |value| drop(cache.cache_set(key.clone(), value.clone())), compute)
    }
    let (smalls, many) = (open("small", dir)?, open("floats", dir)?);
    let texts = open("strings", dir)?;
    Ok([
        time(calls / 10, |n| {
            let id = arguments.numbers[n];
            memoised(&smalls, id.to_string(), || small(id)).score
        }),
        time(calls / 100, |n| {
            let text = &arguments.texts[n];
            memoised(&many, text.clone(), || floats(text))[999]
        }),
        time(calls / 100, |n| {
            let path = &arguments.paths[n];
            memoised(&texts, path.display().to_string(), || strings(path))[999].len()
        }),
    ])
}

fn moka(arguments: &Arguments, _: &Path, calls: usize) -> Result<[f64; 3]> {
    type Cache<K, V> = moka::sync::Cache<K, Arc<V>, ahash::RandomState>;
    fn cache<K, V>() -> Cache<K, V>
    where
        K: Eq + std::hash::Hash + Send + Sync + 'static,
        V: Send + Sync + 'static,
    {
        let builder = moka::sync::Cache::builder().max_capacity(1000);
        builder.build_with_hasher(ahash::RandomState::default())
    }
    let (smalls, many): (Cache<u64, Small>, Cache<String, Vec<f64>>) = (cache(), cache());
    let texts: Cache<PathBuf, Vec<String>> = cache();
    Ok([
        time(calls, |n| {
            let id = arguments.numbers[n];
            smalls.get_with(id, || Arc::new(small(id))).score
        }),
        time(calls, |n| {
            let text = &arguments.texts[n];
            many.get_with_by_ref(text, || Arc::new(floats(text)))[999]
        }),
        time(calls, |n| {
            let path = &arguments.paths[n];
            texts.get_with_by_ref(path, || Arc::new(strings(path)))[999].len()
        }),
    ])
}

fn quick_cache(arguments: &Arguments, _: &Path, calls: usize) -> Result<[f64; 3]> {
    use quick_cache::sync::Cache;
    let smalls: Cache<u64, Arc<Small>> = Cache::new(1000);
    let many: Cache<String, Arc<Vec<f64>>> = Cache::new(1000);
    let texts: Cache<PathBuf, Arc<Vec<String>>> = Cache::new(1000);
    let never = |error: std::convert::Infallible| -> usize { match error {} };
    Ok([
        time(calls, |n| {
            let id = arguments.numbers[n];
            let found = smalls.get_or_insert_with(&id, || Ok(Arc::new(small(id))));
            found.map_or_else(|e| never(e) as f64, |value| value.score)
        }),
        time(calls, |n| {
            let text = &*arguments.texts[n];
            let found = many.get_or_insert_with(text, || Ok(Arc::new(floats(text))));
            found.map_or_else(|e| never(e) as f64, |value| value[999])
        }),
        time(calls, |n| {
            let path = &*arguments.paths[n];
            let found = texts.get_or_insert_with(path, || Ok(Arc::new(strings(path))));
            found.map_or_else(never, |value| value[999].len())
        }),
    ])
}

fn map(arguments: &Arguments, _: &Path, calls: usize) -> Result<[f64; 3]> {
    type Map<K, V> = RwLock<HashMap<K, Arc<V>, ahash::RandomState>>;
    fn memoised<K, Q, V>(map: &Map<K, V>, key: &Q, compute: impl FnOnce() -> V) -> Arc<V>
    where
        K: Eq + std::hash::Hash + std::borrow::Borrow<Q>,
        Q: Eq + std::hash::Hash + ToOwned<Owned = K> + ?Sized,
    {
        let get = || map.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        let put = |value: &Arc<V>| {
            let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
            map.insert(key.to_owned(), Arc::clone(value));
        };
        keep(get, put, || Arc::new(compute()))
    }
    let (smalls, many): (Map<u64, Small>, Map<String, Vec<f64>>) = Default::default();
    let texts: Map<PathBuf, Vec<String>> = Map::default();
    Ok([
        time(calls, |n| {
            let id = arguments.numbers[n];
            memoised(&smalls, &id, || small(id)).score
        }),
        time(calls, |n| {
            let text = &*arguments.texts[n];
            memoised(&many, text, || floats(text))[999]
        }),
        time(calls, |n| {
            let path = &*arguments.paths[n];
            memoised(&texts, path, || strings(path))[999].len()
        }),
    ])
}

/// How each keeps what a function returns.
pub const MODES: &[(&str, &str)] = &[
    (OWN, "`memoize`, results read in place"),
    (
        "LMDB",
        "by hand: keys as bytes, values by heed's `SerdeBincode`, each miss a commit with fsync",
    ),
    ("cached on disk", "by hand: `RedbCache` with keys as text, durable(false)"),
    (
        "RwLock<HashMap>, quick_cache, moka",
        "values in an `Arc`, computed by what each has for that",
    ),
    ("Python", "each package's decorator with a directory, cachier with separate files; unpinned"),
];

type Keeper = fn(&Arguments, &Path, usize) -> Result<[f64; 3]>;

const KEEPERS: [(&str, Keeper); 6] = [
    (OWN, own),
    ("LMDB", lmdb),
    ("cached on disk", on_disk),
    ("RwLock<HashMap>", map),
    ("quick_cache", quick_cache),
    ("moka", moka),
];

pub fn calls(bench: &mut Bench) -> Result<()> {
    let title = "Cached calls, from end to end: small struct, 1000 floats, 1000 strings";
    let mut table = Table::new("calls", title);
    let rounds = bench.rounds();
    let calls = bench.amount(100_000, 500_000);
    bench.progress.inc_length((rounds + 1) * KEEPERS.len() as u64 + 1);
    let pinned = crate::measure::Pinned::to(0);
    let arguments = Arguments::new();
    for round in 0..=rounds {
        for (name, keeper) in KEEPERS.iter().filter(|(name, _)| bench.has(name)) {
            bench.step(format!("{name}: calls"));
            let dir = tempfile::tempdir_in(bench.dir.path())?;
            let times = keeper(&arguments, dir.path(), calls)?;
            for (column, time) in COLUMNS.iter().zip(times) {
                // In the first round everything is new.
                if round > 0 {
                    table.add(name, column, Unit::Nanoseconds, time);
                }
            }
        }
    }
    drop(pinned);
    bench.step("Python: calls");
    match python(bench.dir.path()) {
        Ok(times) => times.into_iter().for_each(|(name, times)| {
            for (column, time) in COLUMNS.iter().zip(times) {
                table.add(&format!("Python: {name}"), column, Unit::Nanoseconds, time);
            }
        }),
        Err(error) => bench.leave_out(format!("Python's libraries are left out: {error:#}")),
    }
    bench.results.add(table);
    Ok(())
}

/// The same calls by Python's libraries, installed into an environment that goes afterwards.
fn python(dir: &Path) -> Result<Vec<(String, [f64; 3])>> {
    let run = |program: &Path, arguments: &[&str]| -> Result<String> {
        let output = Command::new(program).args(arguments).output()?;
        if !output.status.success() {
            bail!("{}: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let env = dir.join("python");
    run(Path::new("python3"), &["-m", "venv", &env.display().to_string()])?;
    let packages = ["persist-cache", "diskcache", "joblib", "cachier"];
    run(&env.join("bin/pip"), &[&["install", "--quiet"], &packages[..]].concat())?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("rivals.py");
    let said =
        run(&env.join("bin/python"), &[&script.display().to_string(), &dir.display().to_string()])?;
    let times: HashMap<String, [f64; 3]> = serde_json::from_str(&said)?;
    let mut times: Vec<_> = times.into_iter().collect();
    times.sort_by(|a, b| a.1[0].total_cmp(&b.1[0]));
    Ok(times)
}
