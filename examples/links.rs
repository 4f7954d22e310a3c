//! Lists the addresses on the web that the files below a directory mention. Files are read
//! asynchronously, on one thread, and what is found in each is a cached stream; what is known of a file
//! is forgotten when it changes. The second run reads no file.
//!
//! ```text
//! cargo run --release --example links -- DIR
//! ```
//!
//! Without `DIR` it looks at this crate; a large tree is `~/.cargo/registry/src`.

use futures_core::Stream;
use futures_lite::stream::{StreamExt as _, try_unfold};
use persist_cache::rkyv::{Archive, Deserialize, Serialize};
use persist_cache::{FileKey, Schema, cache};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// An address and the line it is on.
#[derive(Archive, Serialize, Deserialize, Schema)]
#[rkyv(crate = persist_cache::rkyv)]
struct Link {
    line: u64,
    host: String,
}

/// The addresses in a file, as it is read. If reading fails, nothing is stored.
#[cache(name = "links", deps(hosts))]
fn links(file: FileKey) -> impl Stream<Item = io::Result<Link>> + Send {
    let state = (file, None, Vec::new(), 0_u64);
    try_unfold(state, |(file, mut reader, mut found, mut line)| async move {
        loop {
            if let Some(link) = found.pop() {
                return Ok(Some((link, (file, reader, found, line))));
            }
            let lines = match &mut reader {
                Some(lines) => lines,
                none => {
                    none.insert(BufReader::new(tokio::fs::File::open(&file).await?).split(b'\n'))
                }
            };
            let Some(text) = lines.next_segment().await? else { return Ok(None) };
            line += 1;
            let text = String::from_utf8_lossy(&text);
            found.extend(hosts(&text).map(|host| Link { line, host: host.to_owned() }));
        }
    })
}

/// The hosts of the addresses in a line.
#[persist_cache::tracked]
fn hosts(line: &str) -> impl Iterator<Item = &str> {
    let is_of_host = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-';
    line.split("https://").skip(1).filter_map(move |rest| {
        let host = rest.split(|c| !is_of_host(c)).next()?.trim_end_matches('.');
        host.contains('.').then_some(host)
    })
}

/// How much text a file is.
#[cache(name = "links")]
async fn size(file: FileKey) -> io::Result<(u64, u64)> {
    let text = tokio::fs::read(&file).await?;
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    Ok((text.len() as u64, lines as u64))
}

/// The files below a directory.
fn files(directory: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if kind.is_dir() && !is_hidden && !path.ends_with("target") {
            files(&path, found)?;
        } else if kind.is_file() && !is_hidden {
            found.push(path);
        }
    }
    Ok(())
}

/// What one file adds to the whole.
async fn visit(path: PathBuf) -> io::Result<(u64, u64, Vec<String>)> {
    let file = FileKey::new(&path)?;
    let (bytes, lines) = size(file.clone()).await?;
    let mut found = Vec::new();
    let mut stream = Box::pin(links(file));
    while let Some(link) = stream.next().await {
        found.push(link?.host);
    }
    Ok((bytes, lines, found))
}

/// Files that are open at once.
const OPEN_MAX: usize = 64;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let own = env!("CARGO_MANIFEST_DIR");
    let directory = std::env::args_os().nth(1).unwrap_or_else(|| own.into());
    let mut paths = Vec::new();
    files(Path::new(&directory), &mut paths)?;

    let start = Instant::now();
    let permits = Arc::new(Semaphore::new(OPEN_MAX));
    let mut tasks = JoinSet::new();
    for path in paths {
        let permits = Arc::clone(&permits);
        tasks.spawn(async move {
            let _permit = permits.acquire().await;
            visit(path).await
        });
    }
    let (mut bytes, mut lines, mut unread) = (0, 0, 0);
    let mut hosts: BTreeMap<String, u64> = BTreeMap::new();
    while let Some(visited) = tasks.join_next().await {
        match visited? {
            Ok((more_bytes, more_lines, found)) => {
                (bytes, lines) = (bytes + more_bytes, lines + more_lines);
                found.into_iter().for_each(|host| *hosts.entry(host).or_default() += 1);
            }
            Err(error) => {
                unread += 1;
                eprintln!("{error}");
            }
        }
    }
    let elapsed = start.elapsed();

    let mut hosts: Vec<_> = hosts.into_iter().collect();
    hosts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    hosts.iter().take(20).for_each(|(host, count)| println!("{count:>8}  {host}"));
    println!("{} hosts in {lines} lines, {bytes} bytes; {unread} files not read", hosts.len());
    let stats = links::stats(); // Of the cache, which is that of `size` as well.
    println!("{} hits and {} misses in {elapsed:.2?}", stats.hits, stats.misses);
    Ok(())
}
