//! Processes that open a store, get a few keys, and end.

use crate::Bench;
use crate::measure::{Pinned, mix, page_faults, value};
use crate::report::{Table, Unit};
use crate::rivals::{ALL, OWN};
use crate::sections::play;
use crate::with_rival;
use crate::worker::{Role, Task, start_afresh};
use anyhow::{Context as _, Result, ensure};
use std::hint::black_box;
use std::io::Write as _;
use std::process::Command;
use std::time::Instant;

/// The role of a process that starts, gets a few keys, and ends.
pub fn live_afresh(role: &str) -> Result<()> {
    let (role, gets): (Role, usize) = serde_json::from_str(role)?;
    let _pinned = Pinned::to(0);
    if role.rival == "plain file" {
        return read_plainly(&role, gets);
    }
    with_rival!(&*role.rival, role.size, start_afresh(&role.dir, role.count, gets))
}

/// The least that can be done: the values in one file, each at its number.
fn read_plainly(role: &Role, gets: usize) -> Result<()> {
    use std::os::unix::fs::FileExt as _;
    let numbers: Vec<u64> = (0..gets as u64).map(|n| mix(n) % role.count).collect();
    let (faults, start) = (page_faults(), Instant::now());
    let file = std::fs::File::open(role.dir.join("plain"))?;
    let mut value = vec![0; role.size];
    for number in numbers {
        file.read_exact_at(&mut value, number * role.size as u64)?;
        black_box(&value);
    }
    let nanos = start.elapsed().as_nanos() as f64;
    println!("{}", serde_json::to_string(&(nanos, page_faults() - faults))?);
    Ok(())
}

/// A new process: open, and the first gets.
pub fn fresh(bench: &mut Bench) -> Result<()> {
    let count = bench.amount(100_000, 1_000_000);
    let title =
        format!("A new process: open a store of {count} entries of 64 bytes, and the first gets");
    let mut table = Table::new("fresh", title);
    let dir = bench.dir.path().to_path_buf();
    let names = [OWN, "LMDB"];
    bench.progress.inc_length(names.len() as u64 + 1);
    let mut roles = Vec::new();
    for facts in ALL.iter().filter(|facts| names.contains(&facts.name)) {
        bench.step(format!("{}: filling", facts.name));
        let mut player = play(bench, facts, &dir, 64, count)?;
        player.worker.ask(Task::Fill(0, count))?;
        roles.push(player.role.clone());
    }
    let mut plain = std::io::BufWriter::new(std::fs::File::create(dir.join("plain"))?);
    (0..count).try_for_each(|n| plain.write_all(&value(n, 64)))?;
    plain.flush()?;
    roles.push(Role { rival: "plain file".into(), dir, size: 64, count });
    for _ in 0..bench.rounds() * 3 {
        for gets in [1, 10, 100, 1000] {
            for role in &roles {
                let mut command = Command::new(std::env::current_exe()?);
                let output =
                    command.args(["--fresh", &serde_json::to_string(&(role, gets))?]).output()?;
                let said = String::from_utf8_lossy(&output.stderr);
                ensure!(output.status.success(), "{}: {said}", role.rival);
                let (time, faults) = serde_json::from_slice(&output.stdout).context("times")?;
                table.add(&role.rival, &format!("{gets} gets"), Unit::Nanoseconds, time);
                table.add(&role.rival, &format!("faults in {gets}"), Unit::Count, faults);
            }
        }
    }
    for role in roles.iter().filter(|role| role.rival != "plain file") {
        drop(std::fs::remove_dir_all(&role.dir));
    }
    bench.results.add(table);
    Ok(())
}
