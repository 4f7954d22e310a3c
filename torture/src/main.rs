//! Kills processes that use one cache, again and again, and looks at what is left.
//!
//! ```text
//! cargo run --release -p torture -- [--kills N | --seconds N] [--seed N] [--dir DIRECTORY]
//! ```
//!
//! Six processes at a time write, refresh, remove, clear, compact, grow the index, and read; each is
//! killed with SIGKILL after 0 to 8 ms, and another takes its place. After every batch the log is walked,
//! every key is held against the [`history`], the file's size and lock are looked at, and a compaction
//! must keep each key once. A fault ends the run, with the seed that it began with. The seed decides who
//! does what and when it is killed; what the kernel makes of it differs from run to run.

mod history;
mod parent;
mod roles;

use std::path::PathBuf;
use std::time::Duration;

/// How long and how it goes on.
struct Plan {
    kills: u64,
    time: Option<Duration>,
    seed: u64,
    directory: Option<PathBuf>,
}

fn plan() -> Result<Plan, String> {
    let mut plan = Plan { kills: 3000, time: None, seed: 1, directory: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{name} {value}: {error}"));
        match &*name {
            "--kills" => plan.kills = number()?,
            "--seconds" => {
                plan.kills = u64::MAX;
                plan.time = Some(Duration::from_secs(number()?));
            }
            "--seed" => plan.seed = number()?,
            "--dir" => plan.directory = Some(PathBuf::from(&value)),
            _ => return Err(format!("no such option: {name}")),
        }
    }
    Ok(plan)
}

fn main() -> Result<(), String> {
    if let Some(order) = roles::Order::from_environment() {
        roles::play(&order);
        return Ok(());
    }
    parent::torture(&plan()?)
}

/// A well-mixed number.
fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// A stream of numbers.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    fn below(&mut self, count: u64) -> u64 {
        self.next() % count
    }
}
