//! [`Claim`]: how a node comes to have a session.

use super::left::Left;
use super::record::{SessionRecord, generation_after};
use crate::adapter::{NodeId, Record, Revision};
use bytes::Bytes;

/// A node's attempt to take a session. Plain code: it returns the next step, and takes its result.
///
/// The store decides who is first, by comparing revisions. A living owner decides whether it gives the session away.
#[derive(Debug)]
pub(super) struct Claim {
    node: NodeId,
    /// The hash of the socket id of its client.
    socket: u64,
    /// The time, in microseconds since the Unix epoch.
    time: u64,
    state: State,
    /// How many replacements were refused.
    refused: u8,
    /// How many nodes were asked.
    asked: u8,
    cause: Cause,
    /// The generation of the session that this node has, unless another has a later one.
    own: Option<u64>,
    /// A node that may still believe to have the session.
    unheard: Option<NodeId>,
    /// The node to which this one has given the session lately, and which may not have written its record yet.
    given_to: Option<NodeId>,
    /// What a node leaves of the session, if it is gone.
    left: Option<(NodeId, Left)>,
}

#[derive(Debug)]
enum State {
    /// A record of this node is being written.
    Replacing {
        seen: Option<Revision>,
        generation: u64,
    },
    /// The node with this record is being asked.
    Asking {
        owner: NodeId,
        seen: Revision,
        generation: u64,
        /// Whether the session is that of its client.
        is_same: bool,
    },
    Done,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Write that this node has the session, with this generation, in place of what was seen.
    Replace {
        seen: Option<Revision>,
        generation: u64,
    },
    /// Ask this node for the session.
    Ask(NodeId),
    Done(Outcome),
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Replaced(Revision),
    /// This is there instead.
    Refused(Option<Record>),
    /// The store did not answer, or the time is over.
    Failed,
    Answered(Answer),
}

/// What the owner of a session answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Offered,
    Taken,
    /// It does not have the session.
    None,
    /// There is no such node.
    Gone,
    /// Nothing, in time.
    Silent,
}

/// How a claim ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// This node has the session.
    Own { cause: Cause, held: Held, unheard: Option<NodeId> },
    /// Its node has left it behind. The record is still that of its node: this is what takes its place.
    Deposited { held: Held, state: Bytes },
    /// Its node offers it. The record is still that of its node: this is what takes its place.
    Offered { owner: NodeId, held: Held },
    /// It is another client's, or contested.
    Taken,
}

/// Why a node has a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// It had it already.
    Kept,
    /// It begins it, as no other node has it.
    Unknown,
    /// It begins it, as the node that had it is gone or silent.
    DeadNode,
}

/// What a node knows of the record of a session that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) generation: u64,
    /// The record that was seen last.
    pub(super) seen: Option<Revision>,
    /// Whether that is of this node, and of this generation.
    pub(super) is_recorded: bool,
}

/// How many replacements may be refused.
const MAX_REFUSED: u8 = 3;

/// How many nodes are asked. A session that moves on faster than that begins anew.
const MAX_ASKED: u8 = 3;

impl Claim {
    /// Begins. `time` is in microseconds since the Unix epoch. `own` is the session that this node has, and `given_to` the
    /// node to which it has given one lately.
    pub(super) fn new(
        node: NodeId,
        socket: u64,
        time: u64,
        own: Option<Held>,
        given_to: Option<NodeId>,
    ) -> (Self, Step) {
        let mut claim = Self {
            node,
            socket,
            time,
            state: State::Done,
            refused: 0,
            asked: 0,
            cause: if own.is_some() { Cause::Kept } else { Cause::Unknown },
            own: own.map(|own| own.generation),
            unheard: None,
            given_to,
            left: None,
        };
        let step = claim.replace(own.and_then(|own| own.seen), 0);
        (claim, step)
    }

    /// Takes what came of the last step.
    pub(super) fn on(&mut self, event: Event) -> Step {
        match (std::mem::replace(&mut self.state, State::Done), event) {
            (State::Replacing { generation, .. }, Event::Replaced(revision)) => {
                let held = Held { generation, seen: Some(revision), is_recorded: true };
                Step::Done(self.own(held))
            }
            (State::Replacing { generation, .. }, Event::Refused(there)) => {
                self.refused += 1;
                if self.refused >= MAX_REFUSED {
                    // Whose session it is will show when it is recorded.
                    return self.own_unrecorded(None, generation);
                }
                self.go_on_from(there)
            }
            // Nobody can say whether the other client is still there.
            (State::Asking { is_same: false, .. }, Event::Answered(Answer::Silent)) => {
                Step::Done(Outcome::Taken)
            }
            (State::Asking { owner, seen, generation, .. }, Event::Answered(answer)) => {
                self.go_on_after(answer, owner, seen, generation)
            }
            (State::Replacing { seen, generation }, _) => self.own_unrecorded(seen, generation),
            (State::Asking { owner, seen, generation, .. }, _) => {
                self.unheard = Some(owner);
                self.own_unrecorded(Some(seen), generation_after(generation, self.time))
            }
            (State::Done, _) => self.own_unrecorded(None, self.time),
        }
    }

    /// Returns whether this node has had the session all the time, as far as it knows.
    pub(super) fn is_kept(&self) -> bool {
        self.own.is_some()
    }

    /// What is left of the session whose node is gone, and that node.
    pub(super) fn left(&self) -> Option<&(NodeId, Left)> {
        self.left.as_ref().filter(|_| self.cause == Cause::DeadNode)
    }

    /// Returns whether an owner is being asked.
    #[cfg(any(test, feature = "unstable-internals"))]
    pub(super) fn is_asking(&self) -> bool {
        matches!(self.state, State::Asking { .. })
    }

    /// Goes on from what is in the store.
    fn go_on_from(&mut self, there: Option<Record>) -> Step {
        self.left = None;
        let Some(Record { value, revision }) = there else { return self.replace(None, 0) };
        let seen = Some(revision);
        let Some(record) = SessionRecord::decode(value) else { return self.replace(seen, 0) };
        let (owner, generation) = (record.owner(), record.generation);
        if let Some(own) = self.own {
            let is_other = owner != self.node;
            if !is_other || generation < own {
                self.unheard = is_other.then_some(owner).or(self.unheard);
                return self.replace(seen, generation);
            }
            (self.own, self.cause, self.unheard) = (None, Cause::Unknown, None);
        }
        let is_same = record.socket == self.socket;
        if let Some(deposit) = record.deposit {
            let is_there = self.time < deposit.expires;
            if !is_there {
                return self.replace(seen, generation);
            }
            let held = self.successor(revision, generation);
            let deposited = Outcome::Deposited { held, state: deposit.state };
            return Step::Done(if is_same { deposited } else { Outcome::Taken });
        }
        let owner = match (owner == self.node, self.given_to.take()) {
            (false, _) => owner,
            (true, Some(other)) => other,
            // A session that has ended here meanwhile.
            (true, None) => return self.replace(seen, generation),
        };
        if self.asked == MAX_ASKED {
            if !is_same {
                return Step::Done(Outcome::Taken);
            }
            self.unheard = Some(owner);
            return self.replace(seen, generation);
        }
        self.asked += 1;
        self.left = record.left.filter(|_| is_same).map(|left| (owner, left));
        self.state = State::Asking { owner, seen: revision, generation, is_same };
        Step::Ask(owner)
    }

    fn go_on_after(&mut self, answer: Answer, owner: NodeId, seen: Revision, before: u64) -> Step {
        match answer {
            Answer::Offered => {
                let held = self.successor(seen, before);
                return Step::Done(Outcome::Offered { owner, held });
            }
            Answer::Taken => return Step::Done(Outcome::Taken),
            // If the session has moved on, the replacement is refused and shows where to. If the node is just beginning it,
            // its client has come here since.
            Answer::None => (self.unheard, self.left) = (Some(owner), None),
            // It may only not hear, and come back.
            Answer::Gone | Answer::Silent => {
                self.cause = Cause::DeadNode;
                self.unheard = Some(owner);
            }
        }
        self.replace(Some(seen), before)
    }

    fn replace(&mut self, seen: Option<Revision>, before: u64) -> Step {
        let generation = generation_after(before.max(self.own.unwrap_or(0)), self.time);
        self.state = State::Replacing { seen, generation };
        Step::Replace { seen, generation }
    }

    /// What takes the place of another node's record.
    fn successor(&self, seen: Revision, before: u64) -> Held {
        let generation = generation_after(before, self.time);
        Held { generation, seen: Some(seen), is_recorded: false }
    }

    fn own(&self, held: Held) -> Outcome {
        Outcome::Own { cause: self.cause, held, unheard: self.unheard }
    }

    fn own_unrecorded(&self, seen: Option<Revision>, generation: u64) -> Step {
        Step::Done(self.own(Held { generation, seen, is_recorded: false }))
    }
}

#[cfg(test)]
mod tests;
