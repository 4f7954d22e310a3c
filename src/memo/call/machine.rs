//! The way of a call that misses, as a table: what is to be done, and what each answer to it leads to. The
//! machine does nothing, waits for nothing and holds nothing, so that a test goes all its ways without a thread
//! and without a file. Two drivers do what it asks and hand back the answer: [`blocking`](super::blocking) for
//! threads, [`tasks`](super::tasks) for tasks. What they do with files, locks and other processes is in
//! [`election`](crate::engine::store::election).
//!
//! ```text
//! asked           answer                                          next
//! --------------  ----------------------------------------------  -------------------------------
//! Look, any role  found                                           the call returns the value
//! Look, Alone     missed, or failed                               Compute without a lead
//! Look, Follower  missed                                          Enter
//!                 failed                                          Compute without a lead
//! Look, Rescuer   missed                                          Enter, to rescue
//!                 failed                                          Compute without a lead
//! Look, Leader    missed, or failed                               Compute and lead
//! Enter           entered: nobody else computes in this process   Claim
//!                 another leads; this call rescues                Compute and lead
//!                 another leads; this call may wait               Wait
//!                 another leads; this call may not wait           Compute without a lead
//! Wait            the flight landed, or the deadline passed       Look, as a Follower
//!                 the flight landed and could store nothing       Compute without a lead
//!                 the flight is stuck                             Look, as a Rescuer
//! Claim           claimed, and nothing was stored since the miss  Compute and lead
//!                 claimed, and something was stored               Look, as a Leader
//!                 another process has it; this call may wait      Pause
//!                 another process has it; may not wait; an error  Compute and lead
//!                 no sidecar is open                              Open; just tried: Compute and lead
//! Open            the opening was tried                           Claim
//! Pause           it is over                                      Claim
//! Compute         a value                                         the call stores it and returns it
//!                 an error or a panic of the function             the call returns it
//! ```
//!
//! A call may wait until its deadline, and only if it is not made by a leader's own work: so every way ends, since
//! each circle in the table leads through `Wait` or `Pause`. `Compute` is the last state: a call computes once
//! at most, and its driver then stores the value and returns. The driver holds the lead as a value that gives
//! itself back when it is dropped; so it does when the function fails or panics, and when a task is dropped.
//!
//! Each driver could have kept its own loop, as both once did; then the two came to differ. One driver for both,
//! the blocking one by polling the other's future on its own thread, would bring wakers and the pool to threads that
//! need neither.

use crate::engine::store::election::{Claimed, Entered, Landing};

/// What a call is to the others that miss the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// It neither leads nor waits: nothing that it computes could be found by others.
    Alone,
    /// It has no lead yet, and may wait for another that has.
    Follower,
    /// It has waited for a leader that does not go on, and holds the right to compute beside that.
    Rescuer,
    /// It leads in this process, and holds the claim that other processes see.
    Leader,
}

/// What a call does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// Looks the key up.
    Look(Role),
    /// Enters the key among the computations of this process.
    Enter { rescues: bool },
    /// Waits for the flight of another.
    Wait,
    /// Claims the key before other processes. `has_opened`: the sidecar of the claims has just been opened, or
    /// made: if it is not there even so, there can be none.
    Claim { has_opened: bool },
    /// Opens the sidecar of the claims.
    Open,
    /// Waits a moment for another process.
    Pause,
    /// Computes, stores and returns; keeps the lead that it holds until then.
    Compute { leads: bool },
}

/// Why a look brings no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    Missed,
    Failed,
}

/// What came of it, with what was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Look(Role, Looked),
    Enter { rescues: bool, entered: Entered },
    Wait(Landing),
    Claim { has_opened: bool, claimed: Claimed },
    Open,
    Pause,
}

impl State {
    /// Where a call begins. `is_electing`: calls that miss the same key wait for one of them.
    pub(crate) fn start(is_electing: bool) -> State {
        State::Look(if is_electing { Role::Follower } else { Role::Alone })
    }
}

impl Answer {
    /// What is to be done next.
    pub(crate) fn next(self) -> State {
        const LEADING: State = State::Compute { leads: true };
        const ALONE: State = State::Compute { leads: false };
        match self {
            Answer::Look(Role::Leader, Looked::Missed | Looked::Failed) => LEADING,
            Answer::Look(Role::Alone, Looked::Missed) | Answer::Look(_, Looked::Failed) => ALONE,
            Answer::Look(Role::Follower, Looked::Missed) => State::Enter { rescues: false },
            Answer::Look(Role::Rescuer, Looked::Missed) => State::Enter { rescues: true },

            Answer::Enter { entered: Entered::Yes, .. } => State::Claim { has_opened: false },
            Answer::Enter { rescues: true, entered: Entered::No { .. } } => LEADING,
            Answer::Enter { entered: Entered::No { may_wait: true }, .. } => State::Wait,
            Answer::Enter { entered: Entered::No { may_wait: false }, .. } => ALONE,

            Answer::Wait(Landing::Look) => State::Look(Role::Follower),
            Answer::Wait(Landing::Free) => ALONE,
            Answer::Wait(Landing::Stuck) => State::Look(Role::Rescuer),

            Answer::Claim { claimed, has_opened } => match claimed {
                Claimed::Yes { is_unchanged: true } => LEADING,
                Claimed::Yes { is_unchanged: false } => State::Look(Role::Leader),
                Claimed::No { may_wait: true } => State::Pause,
                Claimed::No { may_wait: false } | Claimed::Failed => LEADING,
                Claimed::NoSidecar if has_opened => LEADING,
                Claimed::NoSidecar => State::Open,
            },
            Answer::Open => State::Claim { has_opened: true },
            Answer::Pause => State::Claim { has_opened: false },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A call among others: what it is asked, what it was told last, and what it holds.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Call {
        state: State,
        told: Option<Answer>,
        /// It holds a flight of this process.
        has_entered: bool,
        has_claim: bool,
        /// It holds the right to rescue another's flight.
        has_rescue: bool,
        /// Answers since it last waited.
        steps: u32,
    }

    impl Call {
        fn new(is_electing: bool) -> Call {
            let state = State::start(is_electing);
            let (has_entered, has_claim, has_rescue) = (false, false, false);
            Call { state, told: None, has_entered, has_claim, has_rescue, steps: 0 }
        }

        /// All answers that there may be to what is asked.
        fn answers(&self) -> Vec<Answer> {
            match self.state {
                State::Look(role) => {
                    [Looked::Missed, Looked::Failed].map(|looked| Answer::Look(role, looked)).into()
                }
                State::Enter { rescues } => {
                    let no = |may_wait| Entered::No { may_wait };
                    let answers = [Entered::Yes, no(true), no(false)];
                    answers.map(|entered| Answer::Enter { rescues, entered }).into()
                }
                State::Wait => {
                    [Landing::Look, Landing::Free, Landing::Stuck].map(Answer::Wait).into()
                }
                State::Claim { has_opened } => [
                    Claimed::Yes { is_unchanged: true },
                    Claimed::Yes { is_unchanged: false },
                    Claimed::No { may_wait: true },
                    Claimed::No { may_wait: false },
                    Claimed::NoSidecar,
                    Claimed::Failed,
                ]
                .map(|claimed| Answer::Claim { has_opened, claimed })
                .into(),
                State::Open => vec![Answer::Open],
                State::Pause => vec![Answer::Pause],
                State::Compute { .. } => Vec::new(),
            }
        }

        /// The call after an answer: what the election holds for it by then, and what the table asks next.
        fn after(mut self, answer: Answer) -> Call {
            self.steps += 1;
            match answer {
                Answer::Enter { entered: Entered::Yes, .. } => {
                    assert!(!self.has_entered, "it entered twice: {self:?}");
                    (self.has_entered, self.has_rescue) = (true, false);
                }
                Answer::Wait(landing) => {
                    (self.has_rescue, self.steps) = (landing == Landing::Stuck, 0);
                }
                Answer::Claim { claimed: Claimed::Yes { .. }, .. } => self.has_claim = true,
                Answer::Pause => self.steps = 0,
                Answer::Look(..) | Answer::Enter { .. } | Answer::Claim { .. } | Answer::Open => {}
            }
            (self.state, self.told) = (answer.next(), Some(answer));
            self
        }

        /// The rules that hold of what it holds, in every state.
        fn check_holds(&self) {
            let leads = self.has_entered || self.has_rescue;
            assert!(!(self.has_entered && self.has_rescue), "two leads: {self:?}");
            match self.state {
                State::Look(Role::Alone | Role::Follower) | State::Wait => {
                    assert!(!leads, "a lead is kept while its holder waits: {self:?}");
                }
                State::Look(Role::Rescuer) => assert!(self.has_rescue, "{self:?}"),
                State::Look(Role::Leader) => assert!(self.has_claim, "{self:?}"),
                State::Enter { rescues } => {
                    assert!(!self.has_entered && rescues == self.has_rescue, "{self:?}");
                }
                State::Claim { .. } | State::Open | State::Pause => {
                    assert!(self.has_entered && !self.has_claim, "{self:?}");
                }
                State::Compute { leads: asked } => {
                    let has_failed = matches!(self.told, Some(Answer::Look(_, Looked::Failed)));
                    assert!(!asked || leads, "there is no lead to keep: {self:?}");
                    let may_end = !leads || (self.has_rescue && has_failed);
                    assert!(asked || may_end, "the lead is given back too early: {self:?}");
                }
            }
        }

        /// The rules that hold of each state after what the call was told.
        fn check_order(&self) {
            assert!(self.steps < 8, "it goes round in circles without a wait: {self:?}");
            let claimed = match self.told {
                Some(Answer::Claim { claimed, .. }) => Some(claimed),
                _ => None,
            };
            let is_computing = matches!(self.state, State::Compute { .. });
            match self.told {
                Some(Answer::Wait(Landing::Free)) => assert!(is_computing, "{self:?}"),
                Some(Answer::Wait(_)) => assert!(matches!(self.state, State::Look(_)), "{self:?}"),
                Some(Answer::Pause) => {
                    assert!(matches!(self.state, State::Claim { .. }), "{self:?}")
                }
                Some(Answer::Claim { claimed: Claimed::Yes { is_unchanged }, .. }) => {
                    assert_eq!(is_computing, is_unchanged, "{self:?}");
                    assert_eq!(self.state == State::Look(Role::Leader), !is_unchanged, "{self:?}");
                }
                _ => {}
            }
            match self.state {
                State::Wait => {
                    let entered = Entered::No { may_wait: true };
                    assert_eq!(self.told, Some(Answer::Enter { rescues: false, entered }));
                }
                State::Pause => assert_eq!(claimed, Some(Claimed::No { may_wait: true })),
                State::Open => assert_eq!(claimed, Some(Claimed::NoSidecar)),
                State::Claim { has_opened } => {
                    assert_eq!(has_opened, self.told == Some(Answer::Open), "{self:?}");
                }
                State::Look(_) | State::Enter { .. } | State::Compute { .. } => {}
            }
        }
    }

    /// Goes all ways from the start, through each situation once.
    fn all_ways(is_electing: bool) -> Vec<Call> {
        let (mut seen, mut due) = (Vec::new(), vec![Call::new(is_electing)]);
        while let Some(call) = due.pop() {
            call.check_holds();
            call.check_order();
            if !seen.contains(&call) {
                seen.push(call);
                due.extend(call.answers().into_iter().map(|answer| call.after(answer)));
            }
        }
        seen
    }

    #[test]
    fn every_way_keeps_the_rules() {
        let mut states: Vec<State> = all_ways(true).iter().map(|call| call.state).collect();
        states.sort_unstable();
        states.dedup();
        // All but `Look(Alone)`: each row of the table is on some way.
        assert_eq!(states.len(), 12, "{states:?}");
    }

    #[test]
    fn where_nothing_can_be_kept_nobody_waits_or_leads() {
        for call in all_ways(false) {
            let states = [State::Look(Role::Alone), State::Compute { leads: false }];
            assert!(states.contains(&call.state), "{call:?}");
        }
    }

    #[test]
    fn a_call_that_may_not_wait_ends_in_a_few_steps() {
        let may_wait = |answer: &Answer| match *answer {
            Answer::Enter { entered: Entered::No { may_wait }, .. } => may_wait,
            Answer::Claim { claimed: Claimed::No { may_wait }, .. } => may_wait,
            _ => false,
        };
        let mut due = all_ways(true);
        for _ in 0..10 {
            let answers = |call: Call| call.answers().into_iter().map(move |answer| (call, answer));
            let told = due.into_iter().flat_map(answers).filter(|(_, answer)| !may_wait(answer));
            let after: Vec<Call> = told.map(|(call, answer)| call.after(answer)).collect();
            due = Vec::new();
            after.into_iter().for_each(|call| {
                if !due.contains(&call) {
                    due.push(call)
                }
            });
        }
        assert!(due.is_empty(), "it does not end: {due:?}");
    }
}
