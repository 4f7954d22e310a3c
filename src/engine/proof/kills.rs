//! Death at every step. A process that dies has no further effect on the world, so from the step at
//! which it is to die on, the probe refuses all effects: everything between two of them is tried
//! thousands of times in one process. That a process really killed there does the same is tried too.

use super::effort;
use super::script::{Op, Possible, Subject};
use crate::engine::os::effect::{Effect, watch};
use crate::engine::os::place::HAS_UNNAMED;
use crate::{Error, MmapCache};
use rustix::process::{Signal, getpid, kill_process};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

/// What happens: first undisturbed, then up to a death, then up to another one.
pub(super) struct Scene {
    pub(super) name: &'static str,
    pub(super) before: Vec<Op>,
    pub(super) victim: Vec<Op>,
    pub(super) heir: Vec<Op>,
}

/// One for every operation whose death could leave something half done.
pub(super) fn scenes() -> Vec<Scene> {
    use Op::{
        BreakTail, Clear, Compact, Delete, FillIndex, Flush, Insert, InsertLarge, InsertMany,
        Reboot, Remove, Reopen, Sync,
    };
    let scene = |name, before: &[Op], victim: &[Op], heir: &[Op]| Scene {
        name,
        before: before.to_vec(),
        victim: victim.to_vec(),
        heir: heir.to_vec(),
    };
    let some = [InsertMany(0..20), Remove(3), Insert(5)];
    let crowd = [InsertMany(0..300), InsertMany(300..350), Remove(7)];
    // Grown once already, so that there is a former table to give back.
    let grown = [InsertMany(0..360), InsertMany(0..40), InsertMany(0..360), Remove(7)];
    let near = [Reopen, Insert(1)];
    vec![
        scene("creation", &[], &[Insert(1), Insert(2)], &[Insert(2), Insert(3)]),
        scene("append", &some, &[Insert(1), Insert(30), Remove(2), Insert(2)], &near),
        scene("batch", &some, &[InsertMany(2..40), InsertMany(10..50)], &[Insert(12)]),
        scene("large", &some, &[InsertLarge(1), InsertLarge(90), Insert(1)], &[InsertLarge(90)]),
        scene("removal", &some, &[Remove(1), Remove(77), Insert(1), Remove(1)], &[Insert(77)]),
        scene("growth", &crowd, &[InsertMany(340..360), InsertMany(0..36)], &[InsertMany(4..9)]),
        scene("retirement", &grown, &[Insert(1), Insert(2), Remove(3)], &[Insert(4)]),
        scene("flush", &some, &[Flush, Insert(1), Flush], &[Insert(2)]),
        scene("clear", &some, &[Clear, Insert(1), Clear], &[Insert(2), Clear]),
        scene("clear while growing", &crowd, &[Insert(360), Insert(361), Clear], &[Insert(2)]),
        scene("compaction", &some, &[Compact, Insert(1), Compact], &[Insert(2), Compact]),
        scene("deletion", &some, &[Delete, Insert(1), Delete, Insert(2)], &[Insert(3)]),
        scene(
            "recovery",
            &some,
            &[Reboot, Insert(1), Sync, Remove(2), Reboot],
            &[Reboot, Insert(3)],
        ),
        scene("recovery of growth", &grown, &[Reboot, Insert(1)], &[Reboot, Insert(2)]),
        scene("salvage", &some, &[BreakTail, Insert(1)], &[BreakTail, Insert(2)]),
        scene("a new index", &some, &[FillIndex, Insert(60), Insert(61)], &[Insert(62)]),
        scene("durability", &some, &[Sync, Insert(1), Sync], &[Insert(2), Sync]),
    ]
}

/// Counts the effects that change something, and refuses all from one on.
pub(super) fn dying(at: u64, steps: Rc<Cell<u64>>) -> impl FnMut(Effect<'_>) -> io::Result<()> {
    move |effect| {
        let is_dead = steps.get() >= at;
        if !matches!(effect, Effect::Read | Effect::Map { .. }) && !is_dead {
            steps.set(steps.get() + 1);
        }
        if is_dead { Err(io::Error::other("dead")) } else { Ok(()) }
    }
}

/// A run of a script, and what may be found after it.
pub(super) struct Run {
    pub(super) subject: Subject,
    pub(super) possible: Possible,
    version: u64,
}

impl Run {
    pub(super) fn new(path: &Path) -> Run {
        Run { subject: Subject::new(path), possible: Possible::default(), version: 0 }
    }

    /// Performs all operations, undisturbed.
    pub(super) fn perform(&mut self, ops: &[Op]) {
        for op in ops {
            self.version += 1;
            self.subject
                .perform(op, self.version)
                .unwrap_or_else(|error| panic!("{op:?}: {error}"));
            self.possible = self.possible.after(op, self.version);
        }
    }

    /// Performs all operations; those that fail may or may not have had their effect.
    pub(super) fn perform_or_not(&mut self, ops: &[Op]) {
        for op in ops {
            self.version += 1;
            let after = self.possible.after(op, self.version);
            match self.subject.perform(op, self.version) {
                Ok(()) => self.possible = after,
                Err(_) => self.possible = self.possible.or(&after),
            }
        }
    }

    /// Performs the operations up to one that fails, which may or may not have had its effect.
    pub(super) fn perform_until_death(&mut self, ops: &[Op]) {
        for op in ops {
            self.version += 1;
            let after = self.possible.after(op, self.version);
            match self.subject.perform(op, self.version) {
                Ok(()) => self.possible = after,
                Err(_) => {
                    self.possible = self.possible.or(&after);
                    break;
                }
            }
        }
        self.subject.close();
    }

    /// Performs the operations until the step of this number. `true` if it came so far.
    fn die(&mut self, ops: &[Op], at: u64) -> bool {
        let steps = Rc::new(Cell::new(0));
        watch(dying(at, Rc::clone(&steps)), || self.perform_until_death(ops));
        steps.get() >= at
    }

    /// What is there now is what may be there, and everything works.
    pub(super) fn check(&mut self) {
        assert_eq!(self.possible.fault(&self.subject.look().unwrap()), None);
        // The next writer finishes what the dead one had begun; from then on nothing comes to light.
        self.perform(&[Op::Insert(0), Op::Remove(1)]);
        let found = self.subject.look().unwrap();
        assert_eq!(self.possible.fault(&found), None);
        self.possible = Possible::exactly(&found);
        self.perform(&[Op::InsertMany(390..393)]);
        assert_eq!(self.subject.findings().unwrap(), []);
        self.perform(&[Op::Compact, Op::Reopen]);
        assert_eq!(self.possible.fault(&self.subject.look().unwrap()), None);
        assert_eq!(self.subject.findings().unwrap(), []);
    }
}

/// What comes after the first death.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// Somebody else opens the cache.
    Opening,
    /// Somebody else goes on who has had it open all the time.
    Neighbour,
    /// Another death, at this step of what the heir does.
    Death(u64),
}

/// Everything up to two deaths, and what is found. `false` for a death that did not come.
fn live_and_die(scene: &Scene, path: &Path, first: u64, then: Then) -> (bool, bool) {
    let mut run = Run::new(path);
    run.perform(&scene.before);
    let mut neighbour = Subject::neighbour(path);
    if matches!(then, Then::Neighbour) {
        neighbour.look().unwrap();
    }
    let died = run.die(&scene.victim, first);
    let died_again = match then {
        Then::Opening => false,
        Then::Death(second) => run.die(&scene.heir, second),
        Then::Neighbour => {
            std::mem::swap(&mut run.subject, &mut neighbour);
            run.perform(&scene.heir);
            let found = run.subject.look().unwrap();
            std::mem::swap(&mut run.subject, &mut neighbour);
            // They are in the same file, and see the same.
            assert_eq!(run.subject.look().unwrap(), found);
            false
        }
    };
    run.check();
    (died, died_again)
}

/// How many steps the victim takes if it lives.
fn steps_of(scene: &Scene, path: &Path) -> u64 {
    let mut run = Run::new(path);
    run.perform(&scene.before);
    let steps = Rc::new(Cell::new(0));
    watch(dying(u64::MAX, Rc::clone(&steps)), || run.perform(&scene.victim));
    steps.get()
}

/// Tries all deaths of a scene, or every so many of them.
fn try_all(scene: &Scene, stride: u64) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let mut tried = 0;
    let mut attempt = |first, then| {
        tried += 1;
        let path = dir.path().join(format!("{tried}.pcache"));
        let attempt = || live_and_die(scene, &path, first, then);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt));
        let _ = std::fs::remove_file(&path);
        result.unwrap_or_else(|_| panic!("{}: dead at {first}, then {then:?}", scene.name))
    };
    // All steps of short scenes, some of long ones.
    let step = (steps_of(scene, &dir.path().join("counted.pcache")) / (100 * effort())).max(1);
    for first in (0..).step_by(step as usize) {
        if !attempt(first, Then::Opening).0 {
            break;
        }
        attempt(first, Then::Neighbour);
        for second in (first % stride..).step_by(stride as usize) {
            if !attempt(first, Then::Death(second)).1 {
                break;
            }
        }
    }
    tried
}

#[test]
fn nothing_is_lost_by_a_death_at_any_step_nor_by_a_second_one() {
    let stride = (200 / effort()).max(1);
    for scene in scenes() {
        let tried = try_all(&scene, stride);
        println!("{}: {tried} deaths", scene.name);
    }
}

/// Where no file can be made without a name, one is prepared under another.
#[test]
fn nothing_is_lost_by_a_death_in_a_creation_by_renaming() {
    HAS_UNNAMED.set(false);
    let creation = scenes().into_iter().find(|scene| scene.name == "creation").unwrap();
    println!("{} deaths", try_all(&creation, (20 / effort()).max(1)));
    HAS_UNNAMED.set(true);
}

/// Scene, step, signal and path, for another process.
const ROLE: &str = "PERSIST_CACHE_PROOF_ROLE";

/// The life of a process that sends itself a signal before a step. What it was told is done it notes beside
/// the cache, one byte for each operation.
fn live_until_signal(role: &str) {
    let mut words = role.splitn(4, ' ');
    let mut word = || words.next().unwrap();
    let (scene, at): (usize, u64) = (word().parse().unwrap(), word().parse().unwrap());
    let signal = if word() == "stop" { Signal::STOP } else { Signal::KILL };
    let path = Path::new(word());
    let scene = &scenes()[scene];
    let mut run = Run::new(path);
    run.version = scene.before.len() as u64;
    let mut done = File::create(path.with_extension("done")).unwrap();
    let steps = Cell::new(0);
    let probe = move |effect: Effect<'_>| {
        if !matches!(effect, Effect::Read | Effect::Map { .. }) {
            if steps.get() == at {
                kill_process(getpid(), signal)?;
                // Another of its threads may be the one that the signal reaches first.
                std::thread::sleep(Duration::from_secs(60));
            }
            steps.set(steps.get() + 1);
        }
        Ok(())
    };
    watch(probe, || {
        for op in &scene.victim {
            run.perform(std::slice::from_ref(op));
            done.write_all(b".").unwrap();
        }
    });
}

impl Run {
    /// Another process goes on with a scene's victim until a step.
    fn spawn(&mut self, test: &str, scene: usize, at: u64, signal: &str, path: &Path) -> Child {
        self.subject.close();
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([test, "--exact", "--test-threads=1"]).stdout(Stdio::piped());
        child.env(ROLE, format!("{scene} {at} {signal} {}", path.display()));
        child.spawn().unwrap()
    }

    /// Takes over what a process has done, and has perhaps done, that ran up to a signal.
    fn inherit(&mut self, ops: &[Op], path: &Path) {
        let done = std::fs::read(path.with_extension("done")).unwrap().len();
        for (number, op) in ops.iter().enumerate().take(done + 1) {
            let after = self.possible.after(op, self.version + 1 + number as u64);
            self.possible = if number < done { after } else { self.possible.or(&after) };
        }
        self.version += ops.len() as u64;
    }
}

/// The same with a real process and a real signal.
#[test]
fn a_process_killed_at_a_step_leaves_what_a_refused_one_does() {
    const TEST: &str =
        "engine::proof::kills::a_process_killed_at_a_step_leaves_what_a_refused_one_does";
    if let Ok(role) = std::env::var(ROLE) {
        return live_until_signal(&role);
    }
    let dir = tempfile::tempdir().unwrap();
    let stride = (97 / effort()).max(1) as usize;
    let mut killed = 0;
    for (number, scene) in scenes().into_iter().enumerate() {
        for at in (number as u64 % 7..).step_by(stride) {
            let path = dir.path().join(format!("{number} {at}.pcache"));
            let mut run = Run::new(&path);
            run.perform(&scene.before);
            let output = run.spawn(TEST, number, at, "kill", &path).wait_with_output().unwrap();
            if output.status.success() {
                break;
            }
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(output.status.signal(), Some(9), "{said}");
            killed += 1;
            run.inherit(&scene.victim, &path);
            run.check();
            let _ = std::fs::remove_file(&path);
        }
    }
    println!("{killed} processes killed");
    assert!(killed >= 20);
}

/// A process that is stopped in the midst of a step, with the lock in its hands, stops no reader; a writer
/// gives up after its deadline; and once the stopped one is gone, everything goes on.
#[test]
#[cfg(target_os = "linux")]
fn a_process_stopped_at_a_step_stops_nobody_for_ever() {
    const TEST: &str = "engine::proof::kills::a_process_stopped_at_a_step_stops_nobody_for_ever";
    if let Ok(role) = std::env::var(ROLE) {
        return live_until_signal(&role);
    }
    let dir = tempfile::tempdir().unwrap();
    let number = scenes().iter().position(|scene| scene.name == "batch").unwrap();
    let scene = &scenes()[number];
    let brief = MmapCache::options().lock_timeout(Duration::from_millis(50));
    for at in (4..200).step_by((50 / effort()).max(1) as usize) {
        let path = dir.path().join(format!("{at}.pcache"));
        let mut run = Run::new(&path);
        run.perform(&scene.before);
        let mut child = run.spawn(TEST, number, at, "stop", &path);
        let stat = format!("/proc/{}/stat", child.id());
        while std::fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") T ")) {
            assert_eq!(child.try_wait().unwrap(), None, "it has so many steps");
            std::thread::sleep(Duration::from_millis(1));
        }
        run.inherit(&scene.victim, &path);
        assert_eq!(run.possible.fault(&run.subject.look().unwrap()), None);
        let table = brief.clone().open_at(&path).unwrap().table::<u64, u64>("another");
        let error = table.insert(&1, &1).unwrap_err();
        assert!(matches!(error, Error::Locked { .. }), "{error}");
        assert_eq!(*table.get_or_insert_with(&1, || 1), 1, "a call returns its value");
        drop(table);
        child.kill().unwrap();
        child.wait().unwrap();
        run.check();
    }
}
