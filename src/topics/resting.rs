//! Stub.

use smol_str::SmolStr;

use super::subscriber::Subscriber;
use super::{Membership, Topics};
use crate::adapter::NodeId;
use crate::effects::Effects;

pub(crate) type Heard = Vec<(NodeId, u64)>;

pub(crate) struct Resting {
    topics: Topics,
    topic: SmolStr,
}

impl Topics {
    pub(crate) fn rest(&self, topic: &SmolStr) -> Resting {
        Resting { topics: self.clone(), topic: topic.clone() }
    }
}

impl Resting {
    pub(crate) fn missed(&self) -> bool {
        false
    }

    pub(crate) fn wake(
        self,
        subscriber: Subscriber,
        _heard: &Heard,
        first: impl FnOnce(&mut Effects),
    ) -> Membership {
        self.topics.subscribe(&self.topic, subscriber, first)
    }
}

impl Membership {
    pub(crate) fn leave(self) -> Heard {
        Heard::new()
    }
}
