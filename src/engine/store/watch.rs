//! The thread that looks after the stores of this process while none of its own threads does.
//!
//! A file that another process has superseded keeps its disk space for as long as anybody maps it, and whoever
//! idles learns nothing: so somebody has to look. The thread looks at words in memory, twice a second. It is there
//! while there are stores, keeps no process alive, and a forked child starts its own.
//!
//! A look at a store is one load of STATE, as a rule, and nothing more while that is LIVE. Otherwise the store leaves
//! the file and takes its pins from all threads (`idle_threads_keep_no_file_that_is_superseded`).
//!
//! 1. One such thread is there at most in a process: whoever sets `is_running` starts it.
//! 2. It holds the stores weakly, and each for one look at a time. It may hold the last reference for that moment;
//!    then it is the one who drops the store's state.
//! 3. `WATCH` is locked for a few instructions, and never during a look.
//!
//! A watch on the directory (inotify) would wake it only when something happens. It is rejected: a user has few of
//! them, network and overlay file systems do not tell all, and macOS has another interface.

use super::pin::lock;
use super::stall::Waiting;
use crate::engine::os::fork::{PerProcess, forks};
use crate::engine::os::threads;
use std::sync::{Mutex, Weak};
use std::thread;
use std::time::Duration;

/// How often it looks.
const PERIOD: Duration = Duration::from_millis(500);

/// What is looked after.
pub(crate) trait Watched: Send + Sync {
    /// Lets go of what is superseded.
    fn look(&self);
}

/// All that is looked after in this process, and whether the thread is there.
#[derive(Default)]
struct Watch {
    watched: Vec<Weak<dyn Watched>>,
    is_running: bool,
}

static WATCH: PerProcess<Mutex<Watch>> =
    PerProcess::first(Mutex::new(Watch { watched: Vec::new(), is_running: false }));

/// This process's. A forked child has none of its parent's stores, and no thread.
fn current() -> &'static Mutex<Watch> {
    WATCH.get(Mutex::default)
}

/// Has `watched` looked after for as long as it is there. Where no thread is to be had, the next call tries
/// again.
pub(crate) fn watch(watched: Weak<dyn Watched>) {
    let was_running = {
        let mut watch = lock(current());
        watch.watched.push(watched);
        std::mem::replace(&mut watch.is_running, true)
    };
    // The thread sanitizer allows no threads in a forked child.
    if was_running || cfg!(model = "tsan") && forks() > 0 {
        return;
    }
    if thread::Builder::new().name("persist-cache".into()).spawn(run).is_err() {
        lock(current()).is_running = false;
    }
}

/// What the thread does, until there is nothing to look after any more.
///
/// It ends under the lock under which it found nothing: whoever adds something afterwards starts another thread. What
/// is added during a look is in the list that it left behind, and is joined to its own.
fn run() {
    let _waiting = threads::own().map(Waiting::new);
    loop {
        // A wait that may end, as those of who waits for a computation: nobody is waited for by this thread.
        thread::park_timeout(PERIOD);
        // Looked at without the lock, so that nobody who opens a store waits for it.
        let mut watched = std::mem::take(&mut lock(current()).watched);
        watched.retain(|one| one.upgrade().inspect(|one| one.look()).is_some());
        let mut watch = lock(current());
        watch.watched.append(&mut watched);
        if watch.watched.is_empty() {
            watch.is_running = false;
            return;
        }
    }
}
