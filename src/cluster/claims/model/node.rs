//! One node of the model.

use std::collections::BTreeMap;

use super::super::claim::{Answer, Claim, Event, Held, Step};
use super::super::records::{self, Records, Task};
use crate::adapter::NodeId;

pub(super) struct Node {
    pub(super) id: NodeId,
    /// By how many milliseconds its clock is late.
    skew: u64,
    pub(super) is_stalled: bool,
    /// Whether it reaches neither the store nor the others.
    pub(super) is_cut: bool,
    pub(super) has_session: bool,
    /// The latest offer that its client has not withdrawn by coming back.
    pub(super) ticket: Option<u64>,
    pub(super) records: Records,
    pub(super) tasks: BTreeMap<u64, Task>,
    pub(super) running: Option<Running>,
    pub(super) taking: Option<Taking>,
    /// What came while it was stalled.
    pub(super) held_back: Vec<Message>,
}

/// A claim.
pub(super) struct Running {
    number: u64,
    claim: Claim,
    pub(super) started: u64,
    pub(super) stage: u64,
    pub(super) ticket: u64,
    pub(super) was_stalled: bool,
}

/// A session that is being taken, from its owner or from the store.
pub(super) struct Taking {
    pub(super) held: Held,
    pub(super) owner: Option<NodeId>,
    pub(super) running: Running,
}

/// A claim and its step.
pub(super) type Token = (u64, u64);

pub(super) enum Message {
    Claimed(Token, Event),
    /// The time of a step is over.
    Overdue(Token),
    Ask {
        from: NodeId,
        token: Token,
    },
    Answered {
        token: Token,
        answer: Answer,
        ticket: u64,
    },
    Take {
        from: NodeId,
        token: Token,
        ticket: u64,
    },
    Given {
        token: Token,
        is_given: bool,
        is_withdrawn: bool,
    },
    Took {
        from: NodeId,
        generation: u64,
    },
    Done(u64, records::Answer),
}

impl Message {
    /// Whether it comes from the node's own clock.
    pub(super) fn is_own(&self) -> bool {
        matches!(self, Self::Overdue(_) | Self::Done(_, records::Answer::Failed))
    }
}

impl Node {
    pub(super) fn new(id: NodeId, skew: u64) -> Self {
        Self {
            id,
            skew,
            is_stalled: false,
            is_cut: false,
            has_session: false,
            ticket: None,
            records: Records::new(id),
            tasks: BTreeMap::new(),
            running: None,
            taking: None,
            held_back: Vec::new(),
        }
    }

    /// The time of its clock.
    pub(super) fn time(&self, now: u64) -> u64 {
        1_000_000 + now - self.skew
    }

    pub(super) fn begin(&mut self, number: u64, claim: Claim, started: u64) {
        let running = Running { number, claim, started, stage: 0, ticket: 0, was_stalled: false };
        self.running = Some(running);
    }

    /// Tells the claim what came of its current step.
    pub(super) fn on(&mut self, token: Token, event: Event) -> Option<Step> {
        let running = self.running.as_mut().filter(|running| running.token() == token)?;
        Some(running.claim.on(event))
    }

    /// Whether the claim waits for an owner.
    pub(super) fn is_asking(&self, token: Token) -> bool {
        let running = self.running.as_ref().filter(|running| running.token() == token);
        running.is_some_and(|running| running.claim.is_asking())
    }

    pub(super) fn is_taking(&self, token: Token) -> bool {
        self.taking.as_ref().is_some_and(|taking| taking.running.token() == token)
    }
}

impl Running {
    pub(super) fn token(&self) -> Token {
        (self.number, self.stage)
    }
}
