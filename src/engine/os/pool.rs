//! A few threads for what would block a task's: opening a file, copying or checking a large value.
//!
//! Jobs wait for no lock that others hold, so that one cache whose lock is held delays no other; but the first
//! opening of a `#[cache]` function's cache may, for as long as its options say. Each process has its own threads,
//! started when there is work and ended when there was none for a while. The queue is bounded: a task that finds it
//! full waits for a place, and is woken for it in the order in which tasks came.
//!
//! A thread for each job, or the runtime's own blocking threads, would be simpler. The first has no bound; the
//! second would tie the crate to one runtime.

use super::fork::PerProcess;
use super::waker::{quietly, wake_all};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

/// Jobs open files and copy into them: a few threads reach the speed of the device.
const THREADS: usize = 4;

/// Jobs in the queue. Those whose task was dropped stay in it, with what they are to store.
const QUEUE: usize = 64;

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(2);

pub(crate) type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Pool {
    inner: Mutex<Inner>,
    arrived: Condvar,
}

#[derive(Default)]
struct Inner {
    jobs: VecDeque<Job>,
    threads: usize,
    /// Threads that wait for jobs.
    idle: usize,
    /// Tasks that wait for a place in the queue, in the order in which they came.
    wakers: BTreeMap<u64, Waker>,
    next: u64,
}

static POOL: PerProcess<Pool> = PerProcess::first(Pool {
    inner: Mutex::new(Inner {
        jobs: VecDeque::new(),
        threads: 0,
        idle: 0,
        wakers: BTreeMap::new(),
        next: 0,
    }),
    arrived: Condvar::new(),
});

fn pool() -> &'static Pool {
    POOL.get(Pool::default)
}

thread_local! {
    static IS_HERE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is a thread of the pool: it may block, and would wait for itself.
pub(crate) fn is_here() -> bool {
    IS_HERE.try_with(Cell::get).unwrap_or(false)
}

/// Has a thread do the job, once there is a place in the queue. Where no thread is to be had, it is done
/// here.
pub(crate) async fn submit(job: Job) {
    let (mut job, mut waiter) = (Some(job), None);
    poll_fn(|context| {
        let waker = context.waker().clone();
        let pool = pool();
        let mut inner = pool.lock();
        // Who comes while others wait does not overtake them: then the queue has yet to become half empty.
        let is_behind_others = waiter.is_none() && !inner.wakers.is_empty();
        if inner.jobs.len() >= QUEUE || is_behind_others {
            let Waiter(number) = *waiter.get_or_insert_with(|| {
                inner.next += 1;
                Waiter(inner.next)
            });
            let former = inner.wakers.insert(number, waker);
            drop(inner);
            drop(former);
            return Poll::Pending;
        }
        inner.jobs.extend(job.take());
        pool.attend(inner);
        Poll::Ready(())
    })
    .await;
}

/// A waiting task, taken off the list when dropped.
struct Waiter(u64);

impl Drop for Waiter {
    fn drop(&mut self) {
        let waker = pool().lock().wakers.remove(&self.0);
        drop(waker);
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that a thread takes the job that has just come.
    fn attend(&self, mut inner: MutexGuard<'_, Inner>) {
        if inner.idle >= inner.jobs.len() {
            drop(inner);
            return self.arrived.notify_one();
        }
        if inner.threads == THREADS {
            return; // One takes it when it is done with what it is at.
        }
        inner.threads += 1;
        drop(inner);
        let thread = thread::Builder::new().name("persist-cache".into());
        let run = || {
            let _ = IS_HERE.try_with(|is_here| is_here.set(true));
            pool().run();
        };
        if thread.spawn(run).is_ok() {
            return;
        }
        let mut inner = self.lock();
        inner.threads -= 1;
        // Nobody else would: all that is there, since each of those who brought it may count on this one.
        while inner.threads == 0 {
            inner = match self.work(inner) {
                Ok(inner) => inner,
                Err(_) => return,
            };
        }
    }

    /// Works until there was nothing to do for a while.
    fn run(&self) {
        let mut inner = self.lock();
        loop {
            inner = match self.work(inner) {
                Ok(inner) => inner,
                Err(mut inner) => {
                    inner.idle += 1;
                    let waited = self.arrived.wait_timeout(inner, IDLE);
                    let (mut inner, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                    inner.idle -= 1;
                    if waited.timed_out() && inner.jobs.is_empty() {
                        inner.threads -= 1;
                        return;
                    }
                    inner
                }
            };
        }
    }

    /// Does the first job, without the lock; `Err` if there is none.
    fn work<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
    ) -> Result<MutexGuard<'a, Inner>, MutexGuard<'a, Inner>> {
        let Some(job) = inner.jobs.pop_front() else { return Err(inner) };
        // All that wait, of whom some may not be polled any more: waking one for each place could leave the
        // others waiting beside an empty queue. They come here again if they find it full.
        let is_half_empty = inner.jobs.len() == QUEUE / 2;
        let woken = if is_half_empty { std::mem::take(&mut inner.wakers) } else { BTreeMap::new() };
        drop(inner);
        wake_all(woken.into_values());
        quietly(job);
        Ok(self.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::{QUEUE, THREADS};
    use crate::engine::os::task::offload;
    use futures_lite::future::{block_on, poll_once};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Condvar, Mutex, mpsc};
    use std::task::{Context, Wake, Waker};
    use std::time::Duration;

    /// Says that it was woken.
    struct Told(mpsc::Sender<()>);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(());
        }
    }

    /// Jobs that wait for a gate: as many at once as there are threads. Tasks beyond the queue wait for a place
    /// in it; those that are not polled any more keep none from the others.
    #[test]
    fn a_full_queue_lets_tasks_wait() {
        let gate = Arc::new((Mutex::new(false), Condvar::new()));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let job = || {
            let (gate, running, most) = (gate.clone(), running.clone(), most.clone());
            Box::pin(offload(move || {
                let now = running.fetch_add(1, Ordering::Relaxed) + 1;
                most.fetch_max(now, Ordering::Relaxed);
                let is_open = gate.0.lock().unwrap();
                drop(gate.1.wait_while(is_open, |is_open| !*is_open).unwrap());
                running.fetch_sub(1, Ordering::Relaxed);
            }))
        };
        block_on(async {
            let mut jobs: Vec<_> = (0..QUEUE + THREADS).map(|_| job()).collect();
            for job in &mut jobs {
                assert!(poll_once(job).await.is_none());
            }
            // They find no place, or soon none, and are never polled again until the end.
            let mut idle: Vec<_> = (0..3 * QUEUE).map(|_| job()).collect();
            for job in &mut idle {
                let mut nobody = Context::from_waker(Waker::noop());
                assert!(job.as_mut().poll(&mut nobody).is_pending());
            }
            let (told, is_told) = mpsc::channel();
            let waker = Waker::from(Arc::new(Told(told)));
            let mut last = job();
            assert!(last.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            *gate.0.lock().unwrap() = true;
            gate.1.notify_all();
            is_told.recv_timeout(Duration::from_secs(60)).expect("there is a place for it");
            last.await;
            idle.truncate(QUEUE);
            for job in jobs.into_iter().chain(idle) {
                job.await;
            }
        });
        let most = most.load(Ordering::Relaxed);
        assert!(most <= THREADS, "{most} at once");
    }
}
