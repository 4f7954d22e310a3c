//! A world that says no: every effect refused once, with each error that a disk, a file system or a
//! limit could have for it; and, from each effect on, a disk that is full. The operation says so or does
//! without; nothing stored is lost, the same handles go on afterwards, and so does the next process.

use super::effort;
use super::kills::{Run, scenes};
use super::script::{Op, Subject};
use crate::Error;
use crate::engine::os::effect::{Effect, watch};
use std::cell::Cell;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::rc::Rc;

/// How the world says no.
#[derive(Debug, Clone, Copy)]
enum No {
    /// Once, with this error.
    Once(i32),
    /// To everything that needs space, for good.
    Full,
}

/// Refuses from the step of this number on, as `no` says.
fn refusing(at: u64, no: No, steps: Rc<Cell<u64>>) -> impl FnMut(Effect<'_>) -> io::Result<()> {
    move |effect| {
        let step = steps.replace(steps.get() + 1);
        let error = match no {
            No::Once(error) if step == at => error,
            No::Full if step >= at && matches!(effect, Effect::Allocate { .. }) => libc::ENOSPC,
            _ => return Ok(()),
        };
        Err(io::Error::from_raw_os_error(error))
    }
}

fn refuse_syncs(effect: Effect<'_>) -> io::Result<()> {
    match effect {
        Effect::Sync { .. } => Err(io::Error::from_raw_os_error(libc::EIO)),
        _ => Ok(()),
    }
}

/// The system forgets what it could not bring to the device, and the next sync of the same file succeeds
/// all the same, for whoever asks. Only that of another file is worth anything.
#[test]
fn no_sync_is_believed_after_one_that_failed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pcache");
    let mut run = Run::new(&path);
    run.perform(&[Op::InsertMany(0..20), Op::Sync, Op::InsertMany(10..30)]);
    let mut neighbour = Subject::neighbour(&path);
    neighbour.perform(&Op::Reopen, 0).unwrap();
    watch(refuse_syncs, || assert!(run.subject.perform(&Op::Sync, 0).is_err()));
    for subject in [&mut run.subject, &mut neighbour] {
        let error = subject.perform(&Op::Sync, 0).unwrap_err();
        assert!(matches!(error, Error::Unsynced { .. }), "{error}");
        subject.perform(&Op::Insert(30), 100).unwrap();
    }
    run.perform(&[Op::Insert(30), Op::Compact, Op::Sync]);
    neighbour.perform(&Op::Sync, 0).unwrap();
    run.check();
}

/// Nor is one that a recovery needs: the next recovery takes another file.
#[test]
fn a_recovery_whose_sync_failed_is_done_in_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pcache");
    let mut run = Run::new(&path);
    run.perform(&[Op::InsertMany(0..20), Op::Sync, Op::InsertMany(10..30)]);
    let inode = || std::fs::metadata(&path).unwrap().ino();
    let before = inode();
    watch(refuse_syncs, || assert!(run.subject.perform(&Op::Reboot, 0).is_err()));
    assert_eq!(inode(), before);
    run.perform(&[Op::Reopen]);
    assert_ne!(inode(), before);
    run.check();
}

/// A put that follows the cache to another file has let go of the one before when it asks for space: on a full
/// disk that file's may be all there is.
#[cfg(target_os = "linux")]
#[test]
fn a_put_needs_no_space_beside_that_of_a_file_that_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pcache");
    let mut run = Run::new(&path);
    run.perform(&[Op::InsertMany(0..20), Op::Insert(3)]);
    let mut neighbour = Subject::neighbour(&path);
    neighbour.perform(&Op::Compact, 0).unwrap();
    neighbour.close();
    let steps = Rc::new(Cell::new(0));
    let seen = Rc::clone(&steps);
    let held = move || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let old = format!("{} (deleted)", path.display());
        maps.lines().filter(|line| line.ends_with(&old)).count()
    };
    assert_eq!(held(), 1);
    let probe = move |effect: Effect<'_>| {
        if matches!(effect, Effect::Allocate { .. } | Effect::Write { .. }) {
            seen.set(seen.get() + 1);
            assert_eq!(held(), 0, "{effect:?}");
        }
        Ok(())
    };
    watch(probe, || run.perform(&[Op::Insert(4)]));
    assert!(steps.get() > 0);
    run.check();
}

#[test]
fn a_refusal_is_an_error_and_nothing_worse() {
    let kinds = [No::Once(libc::EIO), No::Once(libc::ENOSPC), No::Once(libc::EDQUOT), No::Full];
    let stride = (16 / effort()).max(1);
    let dir = tempfile::tempdir().unwrap();
    let mut tried = 0;
    for scene in scenes() {
        for at in 0.. {
            let mut is_over = true;
            let chosen =
                kinds.iter().enumerate().filter(|(n, _)| (at + *n as u64).is_multiple_of(stride));
            for (_, no) in chosen {
                let path = dir.path().join(format!("{tried}.pcache"));
                tried += 1;
                let attempt = || {
                    let mut run = Run::new(&path);
                    run.perform(&scene.before);
                    let steps = Rc::new(Cell::new(0));
                    let probe = refusing(at, *no, Rc::clone(&steps));
                    watch(probe, || run.perform_or_not(&scene.victim));
                    run.check();
                    steps.get() > at
                };
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt));
                let _ = std::fs::remove_file(&path);
                is_over &= !result.unwrap_or_else(|_| panic!("{}: {no:?} at {at}", scene.name));
            }
            if is_over && at % stride == stride - 1 {
                break;
            }
        }
    }
    println!("{tried} refusals");
}
