//! Power cuts. The effects of a script are recorded, and the disk is cut at every one of them, in every
//! way that [`disk`](super::disk) knows. Whatever is left opens without a panic; what was there at the
//! last sync is there, or what was stored later in its place; nothing else is; and a second recovery,
//! after all that the first one and its users did, finds the same. Of some of what is left the recovery
//! is recorded, too, with what its users do next, and the disk is cut again in the midst of that.

use super::disk::{Disk, Event, Loss};
use super::kills::{Run, dying};
use super::script::{Op, Possible, Subject};
use super::{Numbers, effort};
use crate::engine::format::header::{PROVENANCE, PROVENANCE_SIZE};
use crate::engine::os::effect::{Effect, watch};
use std::cell::{Cell, RefCell};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::rc::Rc;

/// What happens on the way to the cut.
enum Act {
    Do(Op),
    /// The process dies at this step of it, and another one goes on.
    Die(Op, u64),
}

struct Script {
    name: &'static str,
    acts: Vec<Act>,
}

/// Scripts in which something is synced, something is not, and some of that died half-way.
fn scripts() -> Vec<Script> {
    use Op::{Clear, Compact, Delete, Flush, Insert, InsertLarge, InsertMany, Remove, Sync};
    let script = |name, acts: &[Op], deaths: &[(usize, u64)]| {
        let act = |(at, op): (usize, &Op)| match deaths.iter().find(|death| death.0 == at) {
            Some((_, step)) => Act::Die(op.clone(), *step),
            None => Act::Do(op.clone()),
        };
        Script { name, acts: acts.iter().enumerate().map(act).collect() }
    };
    let start = [InsertMany(0..12), Remove(3), Sync];
    let with = |rest: &[Op]| [&start[..], rest].concat();
    let busy =
        with(&[Insert(1), Insert(20), Remove(2), InsertMany(4..9), Sync, Insert(1), Remove(5)]);
    let large =
        with(&[InsertLarge(1), Insert(2), InsertLarge(30), Sync, InsertLarge(2), Insert(3)]);
    let clears = with(&[Clear, Insert(1), Sync, Insert(2), Clear, Insert(3)]);
    let flushes = with(&[Insert(1), Flush, Insert(2), Sync, Flush, Insert(3)]);
    let moves = with(&[Insert(1), Compact, Insert(2), Sync, Insert(3), Compact, Insert(4)]);
    let deletes = with(&[Delete, Insert(1), Sync, Insert(2), Delete, Insert(3)]);
    let grows = [
        InsertMany(0..340),
        Sync,
        InsertMany(340..358),
        InsertMany(0..36),
        Insert(1),
        Sync,
        Insert(2),
    ];
    let mut scripts = vec![
        script("appends", &busy, &[]),
        script("large values", &large, &[]),
        script("clears", &clears, &[]),
        script("flushes", &flushes, &[]),
        script("compactions", &moves, &[]),
        script("deletions", &deletes, &[]),
        script("growth", &grows, &[]),
        script("killed batches", &busy, &[(6, 9), (10, 7)]),
        script("killed large values", &large, &[(3, 5), (5, 9)]),
        script("killed compaction", &moves, &[(4, 60), (8, 30)]),
    ];
    // A clear that dies after each of its steps: published or not, and redone or erased.
    for step in 3..24 {
        scripts.push(script("killed clears", &clears, &[(3, step), (7, step)]));
    }
    // And an heir that dies while it erases what the dead one left.
    for (step, heir) in (3..11).step_by(2).flat_map(|step| (1..5).map(move |heir| (step, heir))) {
        scripts.push(script("killed heirs", &clears, &[(3, step), (4, heir), (7, step)]));
    }
    for step in [2, 4, 6, 8, 10, 12] {
        scripts.push(script("killed flushes", &flushes, &[(4, step), (7, step)]));
        scripts.push(script("killed growth", &grows, &[(2, step * 20), (4, step * 7)]));
    }
    scripts
}

/// About as many steps has a recovery.
const RECOVERY_STEPS: usize = 48;

/// The script of those who find what a power cut left. Of two such lives one begins with a recovery
/// that is killed.
fn after_a_cut(numbers: &mut Numbers) -> Vec<Act> {
    let acts = [Op::Reopen, Op::Insert(0), Op::Remove(4), Op::Sync, Op::Insert(2), Op::Clear];
    let mut acts: Vec<Act> = acts.into_iter().map(Act::Do).collect();
    if numbers.below(2) == 1 {
        acts.insert(0, Act::Die(Op::Reopen, 1 + numbers.below(RECOVERY_STEPS) as u64));
    }
    acts
}

/// What a script did, and what may be found after a cut in each of its acts.
struct Recording {
    /// The disk on which it began.
    disk: Disk,
    events: Vec<(usize, Event)>,
    allowed: Vec<Possible>,
}

/// Records what `acts` do to the cache at `path`, in which may be found what `start` allows. What they
/// store has versions from `first_version` on.
fn record(acts: &[Act], path: &Path, start: &Possible, first_version: u64) -> Recording {
    let disk = Disk::at(path).unwrap();
    let events = Rc::new(RefCell::new(Vec::new()));
    let act = Rc::new(Cell::new(0));
    let dead_from = Rc::new(Cell::new(u64::MAX));
    let steps = Rc::new(Cell::new(0));
    let probe = {
        let (events, act, steps) = (Rc::clone(&events), Rc::clone(&act), Rc::clone(&steps));
        let (dead_from, path) = (Rc::clone(&dead_from), path.to_path_buf());
        move |effect: Effect<'_>| -> io::Result<()> {
            dying(dead_from.get(), Rc::clone(&steps))(effect)?;
            if let Some(event) = Event::of(effect, &path)? {
                events.borrow_mut().push((act.get(), event));
            }
            Ok(())
        }
    };
    let mut subject = Subject::new(path);
    let (mut since_sync, mut now) = (start.clone(), start.clone());
    let mut allowed = Vec::new();
    let mut is_pending = true;
    watch(probe, || {
        for (number, what) in acts.iter().enumerate() {
            act.set(number);
            let version = first_version + number as u64;
            let (Act::Do(op) | Act::Die(op, _)) = what;
            let after = now.after(op, version);
            match what {
                Act::Do(_) => {
                    subject.perform(op, version).unwrap();
                    now = after;
                    if std::mem::take(&mut is_pending) {
                        // What was cut short is done by now, or never will be.
                        let found = subject.look().unwrap();
                        assert_eq!(now.fault(&found), None);
                        now = Possible::exactly(&found);
                    }
                }
                Act::Die(_, step) => {
                    steps.set(0);
                    dead_from.set(*step);
                    let outcome = subject.perform(op, version);
                    subject.close();
                    dead_from.set(u64::MAX);
                    is_pending |= outcome.is_err();
                    now = if outcome.is_err() { now.or(&after) } else { after };
                }
            }
            since_sync = since_sync.or(&now);
            allowed.push(since_sync.clone());
            if matches!(what, Act::Do(Op::Sync)) {
                since_sync = now.clone();
            }
        }
    });
    let events = events.take();
    Recording { disk, events, allowed }
}

/// Makes the file at `path` one that nobody believes.
fn forget_provenance(path: &Path) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0; PROVENANCE_SIZE], PROVENANCE).unwrap();
}

/// What is left after a cut is what may be left, and stays so.
fn check(path: &Path, allowed: &Possible, is_thorough: bool) {
    let mut run = Run::new(path);
    run.possible = allowed.clone();
    let found = run.subject.look().unwrap();
    assert_eq!(allowed.fault(&found), None);
    run.possible = Possible::exactly(&found);
    run.subject.close();
    forget_provenance(path);
    assert_eq!(run.possible.fault(&run.subject.look().unwrap()), None, "by a second recovery");
    if !is_thorough {
        return;
    }
    // What is stored now is not lost either, whatever lies around it.
    run.perform(&[Op::Insert(0), Op::Remove(1), Op::InsertMany(390..393), Op::Sync, Op::Reopen]);
    run.subject.close();
    forget_provenance(path);
    assert_eq!(run.possible.fault(&run.subject.look().unwrap()), None, "by a third recovery");
    run.perform(&[Op::Insert(2), Op::Compact]);
    assert_eq!(run.subject.findings().unwrap(), []);
    assert_eq!(run.possible.fault(&run.subject.look().unwrap()), None, "by a compaction");
}

/// The most sectors of which all subsets are tried.
const SUBSETS_MAX: usize = 3;

/// How thoroughly a recording is cut.
#[derive(Debug)]
struct Plan {
    /// One event of so many is cut at.
    stride: usize,
    /// Images at random at each of these.
    random: usize,
    /// Of one image in so many, if any, the recovery is recorded and cut, too.
    again: usize,
}

/// Cuts a recording as planned. Returns how many images that made.
fn cut_everywhere(
    recording: &Recording,
    directory: &Path,
    plan: &Plan,
    numbers: &mut Numbers,
) -> u64 {
    let path = directory.join("cut.pcache");
    let mut disk = recording.disk.clone();
    let mut images = 0;
    let first = numbers.below(plan.stride);
    for (at, (act, event)) in recording.events.iter().enumerate() {
        if at % plan.stride != first {
            disk.apply(event);
            continue;
        }
        let mut losses = vec![Loss::Nothing, Loss::Everything];
        let sectors = disk.dirty_sectors();
        if (1..=SUBSETS_MAX + usize::from(effort() > 1) * 3).contains(&sectors) {
            losses.extend((1..1 << sectors).map(Loss::Sectors));
        }
        losses.extend((0..plan.random).map(|n| Loss::Grains([8, 512, 8, 4096, 512][(at + n) % 5])));
        for loss in losses {
            images += 1;
            let seed = numbers.0;
            let attempt = || {
                let allowed = &recording.allowed[*act];
                disk.cut(&path, loss, numbers).unwrap();
                if plan.again == 0 || numbers.below(plan.again) > 0 {
                    check(&path, allowed, images % 4 == 0);
                    return 0;
                }
                let second = record(&after_a_cut(numbers), &path, allowed, 1_000);
                let plan = Plan { stride: 4, random: 2, again: 0 };
                cut_everywhere(&second, directory, &plan, numbers)
            };
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt));
            images += result.unwrap_or_else(|_| {
                panic!("cut before {at} ({event:?}), {loss:?}, seed {seed:#x}, plan {plan:?}")
            });
        }
        disk.apply(event);
    }
    images
}

#[test]
fn a_power_cut_takes_nothing_that_was_synced() {
    let scripts = scripts();
    let each = 2_000 * effort() as usize / scripts.len();
    let stride = (30 / effort()).max(1) as usize;
    let mut images = 0;
    for (number, script) in scripts.iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut numbers = Numbers(number as u64 + 1);
        let path = dir.path().join("recorded.pcache");
        let recording = record(&script.acts, &path, &Possible::default(), 0);
        let random = (each * stride).div_ceil(recording.events.len());
        let plan = Plan { stride, random, again: 600.max(effort() * 2) as usize };
        println!("{} ({number}):", script.name);
        let made = cut_everywhere(&recording, dir.path(), &plan, &mut numbers);
        println!("{made} images");
        images += made;
    }
    println!("{images} images of disks");
}
