//! What both drivers of a call share: where it is, what it holds, and what it does that takes no wait.

use super::keyspace::Keyspace;
use super::machine::{Answer, Looked, State};
use super::outcome::Wanted;
use crate::engine::file::expiry::ExpiryRule;
use crate::engine::format::record::Identity;
use crate::engine::os::threads::ThreadId;
use crate::engine::store::election::{Election, Lead};
use crate::engine::store::put::PutCondition;
use crate::engine::store::{Store, StoreLookup};
use crate::error::Result;
use crate::memo::value::archive::CacheValue;
use crate::memo::value::cached::Cached;
use crate::memo::value::type_proof::TypeProof;
use std::time::Duration;

/// One call on its way to a stored value, or to the right to compute it.
pub(crate) struct Attempt<'a, V> {
    keyspace: &'a Keyspace<V>,
    proof: TypeProof<V>,
    pub(crate) state: State,
    pub(crate) election: Election<'a>,
    /// Under what condition a result is stored, by the last look.
    condition: Result<Option<PutCondition>>,
}

/// A call that computes.
pub(crate) struct Computation<'a> {
    pub(crate) lead: Option<Lead<'a>>,
    /// Under what condition the result is stored: not at all without a store, nor after an error, which is noted.
    pub(crate) condition: Result<Option<PutCondition>>,
}

impl<'a, V: CacheValue> Attempt<'a, V> {
    pub(crate) fn new(
        keyspace: &'a Keyspace<V>,
        (store, proof): (&'a Store, TypeProof<V>),
        identity: &Identity,
    ) -> Attempt<'a, V> {
        // What expires at once, or cannot be stored, nobody waits for.
        let is_kept = keyspace.expiry_rule() != ExpiryRule::new(Some(Duration::ZERO));
        let timeout = keyspace.handle.claim_timeout;
        let is_electing = is_kept && !timeout.is_zero() && !store.location.is_read_only;
        let election = Election::new(store, identity, timeout, &keyspace.longest);
        let state = State::start(is_electing);
        Attempt { keyspace, proof, state, election, condition: Ok(None) }
    }

    /// What a look came to: the value; or why there is none, to be answered.
    pub(crate) fn looked(&mut self, found: Result<StoreLookup>) -> Result<Cached<V>, Looked> {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.condition = Err(error);
                return Err(Looked::Failed);
            }
        };
        self.condition = Ok(Some(self.keyspace.condition(&found)));
        self.election.note_miss(&found.open_file, found.token);
        self.keyspace.note_cost(found.saved.unwrap_or(0));
        Cached::admit(found, self.proof).ok_or(Looked::Missed)
    }

    /// Enters a flight. `own` is the thread that would compute, if it is not a task.
    pub(crate) fn enter(&mut self, rescues: bool, own: Option<ThreadId>) -> Answer {
        Answer::Enter { rescues, entered: self.election.enter(own) }
    }

    pub(crate) fn claim(&mut self, has_opened: bool) -> Answer {
        Answer::Claim { has_opened, claimed: self.election.claim() }
    }

    /// Goes on from an answer.
    pub(crate) fn go_on(&mut self, answer: Answer) {
        self.state = answer.next();
    }

    pub(crate) fn into_computation(self, leads: bool) -> Computation<'a> {
        Computation { lead: self.election.into_lead(leads), condition: self.condition }
    }
}

impl<V: CacheValue> Keyspace<V> {
    /// What was stored, as a value if its archive is wanted; what went wrong is noted. Who leads tells the
    /// others if they will find nothing.
    pub(crate) fn conclude(
        &self,
        stored: Result<Option<StoreLookup>>,
        wanted: Wanted,
        lead: Option<&mut Lead<'_>>,
    ) -> Option<Cached<V>> {
        let found = stored.unwrap_or_else(|error| {
            self.handle.note(&error);
            None
        });
        let is_there = found.as_ref().is_some_and(|found| !found.is_absent());
        let cached = found.filter(|_| wanted == Wanted::Archived);
        let cached =
            cached.zip(self.proof()).and_then(|(found, proof)| Cached::admit(found, proof));
        let is_admitted = is_there && (wanted == Wanted::Value || cached.is_some());
        if let (false, Some(lead)) = (is_admitted, lead) {
            lead.give_up();
        }
        cached
    }
}
