//! Death at every step. A process that dies has no further effect on the world, so from the step at
//! which it is to die on, the probe refuses all effects: everything between two of them is tried
//! thousands of times in one process. That a process really killed there does the same is tried too.

use super::effort;
use super::script::{Op, Possible, Subject};
use crate::sys::effect::{Effect, watch};
use std::cell::Cell;
use std::io;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

/// What happens: first undisturbed, then up to a death, then up to another one.
pub(super) struct Scene {
    pub(super) name: &'static str,
    pub(super) before: Vec<Op>,
    pub(super) victim: Vec<Op>,
    pub(super) heir: Vec<Op>,
}

/// One for every operation whose death could leave something half done.
pub(super) fn scenes() -> Vec<Scene> {
    use Op::{BreakTail, Clear, Compact, Delete, Flush, Insert, InsertLarge};
    use Op::{InsertMany, Reboot, Remove, Reopen, Sync};
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
        scene("durability", &some, &[Sync, Insert(1), Sync], &[Insert(2), Sync]),
    ]
}

/// Counts the effects that change something, and refuses all from one on.
pub(super) fn dying(at: u64, steps: Rc<Cell<u64>>) -> impl FnMut(Effect<'_>) -> io::Result<()> {
    move |effect| {
        let is_dead = steps.get() >= at;
        if !matches!(effect, Effect::Read) && !is_dead {
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

const SCENE: &str = "PERSIST_CACHE_PROOF_SCENE";

/// The same with a real process and a real signal.
#[test]
fn a_process_killed_at_a_step_leaves_what_a_refused_one_does() {
    const TEST: &str = "proof::kills::a_process_killed_at_a_step_leaves_what_a_refused_one_does";
    if let Ok(role) = std::env::var(SCENE) {
        let mut words = role.splitn(3, ' ');
        let (scene, at) = (words.next().unwrap().parse().unwrap(), words.next().unwrap());
        let (scene, at): (usize, u64) = (scene, at.parse().unwrap());
        let mut run = Run::new(Path::new(words.next().unwrap()));
        run.version = scenes()[scene].before.len() as u64;
        let steps = Cell::new(0);
        let probe = move |effect: Effect<'_>| {
            if !matches!(effect, Effect::Read) {
                if steps.get() >= at {
                    let this = rustix::process::getpid();
                    rustix::process::kill_process(this, rustix::process::Signal::KILL)?;
                }
                steps.set(steps.get() + 1);
            }
            Ok(())
        };
        watch(probe, || run.perform(&scenes()[scene].victim));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let stride = (97 / effort()).max(1) as usize;
    let mut killed = 0;
    for (number, scene) in scenes().into_iter().enumerate() {
        for at in (number as u64 % 7..).step_by(stride) {
            let path = dir.path().join(format!("{number} {at}.pcache"));
            let mut run = Run::new(&path);
            run.perform(&scene.before);
            run.subject.close();
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args([TEST, "--exact", "--test-threads=1"]);
            child.env(SCENE, format!("{number} {at} {}", path.display()));
            let output = child.output().unwrap();
            if output.status.success() {
                break;
            }
            use std::os::unix::process::ExitStatusExt as _;
            assert_eq!(
                output.status.signal(),
                Some(9),
                "{}",
                String::from_utf8_lossy(&output.stdout)
            );
            killed += 1;
            // How far it came, it could not say: any of its operations may have been the last.
            for op in &scene.victim {
                run.version += 1;
                run.possible = run.possible.or(&run.possible.after(op, run.version));
            }
            run.check();
            let _ = std::fs::remove_file(&path);
        }
    }
    println!("{killed} processes killed");
    assert!(killed >= 20);
}
