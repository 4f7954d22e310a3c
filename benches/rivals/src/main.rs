//! persist-cache and its rivals, doing the same work in the same run on the same machine. One command
//! makes the numbers (JSON), the tables and the charts, in `docs/benchmarks/`:
//!
//! ```text
//! cargo run --release              # all of it
//! cargo run --release -- --quick   # two minutes' worth
//! ```
//!
//! Each store lives in a process of its own, pinned to a core, and they take turns: in each round each reads,
//! then in each round each writes. What is shown is the median of the rounds.

mod calls;
mod charts;
mod fresh;
mod goals;
mod limits;
mod measure;
mod parallel;
mod report;
mod rivals;
mod sections;
mod worker;

use anyhow::{Context as _, Result};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use report::Results;
use std::path::{Path, PathBuf};

#[derive(Debug, Parser)]
#[command(about = "persist-cache and its rivals")]
struct Arguments {
    /// Fewer entries, fewer rounds: two minutes' worth.
    #[arg(long)]
    quick: bool,
    /// Only these parts, anew, among the results that there are: store,
    /// calls, parallel, limits, memory, fresh, growth, compaction, scale.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these rivals.
    #[arg(long, value_delimiter = ',')]
    rivals: Vec<String>,
    /// Where the stores lie: memory, where the system has such a place.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// A directory on a disk, for what is measured there, too.
    #[arg(long)]
    disk: Option<PathBuf>,
    /// Where results go; the project's docs, unless the run is a quick one.
    #[arg(long)]
    out: Option<PathBuf>,
    /// For processes that this program starts.
    #[arg(long, hide = true)]
    worker: Option<String>,
    #[arg(long, hide = true)]
    fresh: Option<String>,
}

/// What all parts are given.
pub struct Bench {
    quick: bool,
    only: Vec<String>,
    rivals: Vec<String>,
    dir: tempfile::TempDir,
    disk: tempfile::TempDir,
    progress: ProgressBar,
    results: Results,
}

impl Bench {
    /// One of two amounts.
    fn amount<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }
    fn rounds(&self) -> u64 {
        self.amount(3, 5)
    }
    fn has(&self, rival: &str) -> bool {
        self.rivals.is_empty()
            || rival == rivals::OWN
            || self.rivals.iter().any(|name| name == rival)
    }
    /// Says something above the bar.
    fn say(&self, what: String) {
        self.progress.suspend(|| eprintln!("{what}"));
    }
    /// Says what is missing, there and below the tables.
    fn leave_out(&self, what: String) {
        self.results.leave_out(&what);
        self.say(what);
    }
    fn step(&self, what: impl Into<std::borrow::Cow<'static, str>>) {
        self.progress.set_message(what);
        self.progress.inc(1);
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(role) = &arguments.worker {
        return worker::work(role);
    }
    if let Some(role) = &arguments.fresh {
        return fresh::live_afresh(role);
    }
    let memory = Path::new("/dev/shm");
    let place = arguments.dir.clone().or_else(|| memory.is_dir().then(|| memory.to_path_buf()));
    let place = place.unwrap_or_else(std::env::temp_dir);
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let disk = arguments.disk.unwrap_or_else(|| project.join("target"));
    std::fs::create_dir_all(&disk)?;
    let style = ProgressStyle::with_template("{elapsed_precise} {bar:30} {pos}/{len} {wide_msg}")?;
    let mut bench = Bench {
        quick: arguments.quick,
        only: arguments.only,
        rivals: arguments.rivals,
        dir: tempfile::tempdir_in(&place).with_context(|| place.display().to_string())?,
        disk: tempfile::tempdir_in(&disk).with_context(|| disk.display().to_string())?,
        progress: ProgressBar::new(0).with_style(style),
        results: Results::begin(arguments.quick, &place),
    };
    let out = match (&arguments.out, arguments.quick) {
        (Some(out), _) => out.clone(),
        (None, true) => project.join("target/benchmarks"),
        (None, false) => project.join("docs/benchmarks"),
    };
    if let (false, Some(results)) = (bench.only.is_empty(), Results::read(&out)) {
        bench.results = results;
    }
    let is_wanted = |name: &str| bench.only.is_empty() || bench.only.iter().any(|it| it == name);
    let parts: Vec<_> = sections::PARTS.iter().filter(|(name, _)| is_wanted(name)).collect();
    for (name, part) in parts {
        bench.say(format!("{name}..."));
        part(&mut bench).with_context(|| (*name).to_string())?;
        bench.results.write(&out)?; // What there is so far.
    }
    bench.progress.finish_and_clear();
    bench.results.add(goals::judge(&bench.results));
    bench.results.write(&out)?;
    println!("{}", bench.results.tables());
    println!("tables and charts are in {}", out.display());
    Ok(())
}
