//! What a second core gains: threads, and processes, that read at the same time.

use crate::Bench;
use crate::report::{Table, Unit};
use crate::rivals::{ALL, OWN, UNLOCKED};
use crate::sections::play;
use crate::worker::{Role, Task, Worker, now};
use anyhow::{Context as _, Result};

/// Processes that use one store, each on a core of its own.
pub struct Processes(Vec<Worker>);

impl Processes {
    pub fn start(role: &Role, count: usize) -> Result<Processes> {
        let start = |number| {
            let mut worker = Worker::start(role)?;
            worker.ask(Task::Core(number))?;
            worker.ask(Task::Warm)?;
            Ok(worker)
        };
        (0..count).map(start).collect::<Result<_>>().map(Processes)
    }

    /// Has the first `count` of them get keys, from the same time on: gets a second, of all, until the
    /// slowest is done.
    pub fn run(&mut self, count: usize, gets: usize, round: u64) -> Result<f64> {
        let workers = &mut self.0[..count];
        // They make their keys before.
        let start = now() + 100_000_000 + 300 * (gets * count) as u64;
        for (number, worker) in workers.iter_mut().enumerate() {
            worker.tell(Task::LoopFrom(start, gets, round * 64 + number as u64))?;
        }
        let times = workers.iter_mut().map(Worker::hear).collect::<Result<Vec<_>>>()?;
        let slowest = times.iter().map(|time| time[0]).fold(0.0, f64::max);
        Ok((count * gets) as f64 * 1e9 / slowest)
    }
}

/// Our gain beside that of a map that nobody changes and nothing guards. A virtual machine's cores may be
/// two at one time and the halves of one at another: what is compared runs within a second.
pub fn parallel(bench: &mut Bench) -> Result<()> {
    let count = bench.amount(100_000, 1_000_000);
    let gets = bench.amount(200_000, 500_000);
    let title = format!("What a second core gains: uniform hits among {count} entries of 64 bytes");
    let mut table = Table::new("parallel", title);
    let dir = bench.dir.path().to_path_buf();
    let rounds = bench.rounds() * 8;
    bench.progress.inc_length(rounds + 2);
    let start = |name: &str| {
        let facts = ALL.iter().find(|facts| facts.name == name).context("a rival")?;
        bench.step(format!("{name}: filling"));
        let mut player = play(bench, facts, &dir, 64, count)?;
        player.worker.ask(Task::Fill(0, count))?;
        player.worker.ask(Task::Settle)?;
        player.worker.ask(Task::Warm)?;
        anyhow::Ok(player)
    };
    let (mut map, mut own) = (start(UNLOCKED)?, start(OWN)?);
    let mut processes = Processes::start(&own.role, 2)?;
    for round in 0..rounds {
        bench.step("two at a time");
        // One and two, or two and one; and another one of the three first in each round.
        let counts = if round % 2 == 0 { [1, 2] } else { [2, 1] };
        let mut rates = [[0.0; 2]; 3];
        for which in (0..3).map(|step| (round as usize + step) % 3) {
            for count in counts {
                let threads = Task::Threads(count, gets, round);
                rates[which][count - 1] = match which {
                    0 => map.worker.ask_one(threads)?,
                    1 => own.worker.ask_one(threads)?,
                    _ => processes.run(count, gets, round)?,
                };
            }
        }
        let limit = rates[0][1] / rates[0][0];
        let mut add = |row: &str, [one, two]: [f64; 2]| {
            table.add(row, "one", Unit::PerSecond, one);
            table.add(row, "two", Unit::PerSecond, two);
            table.add(row, "gain", Unit::Ratio, two / one);
            table.add(row, "of the map's", Unit::Ratio, two / one / limit);
        };
        let rows = [UNLOCKED, "persist-cache, threads", "persist-cache, processes"];
        rows.into_iter().zip(rates).for_each(|(row, rates)| add(row, rates));
    }
    drop((map.worker, own.worker, processes));
    drop(std::fs::remove_dir_all(&own.role.dir));
    bench.results.add(table);
    Ok(())
}
