//! [`Remembering`]: whether another node can go on with the topics of a session if this one dies.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use tower_channels_transports::outbox;

use crate::channel::remembered::Remembered;
use crate::cluster::claims::{Left, LeftTopic};
use crate::cluster::questions::EndpointPeers;
use crate::telemetry::SESSIONS_RECOVERED;

/// What a socket knows of that.
pub(super) enum Remembering {
    /// Nothing is remembered.
    Off,
    /// The session has no connection yet, and may not become resumable.
    Begun {
        id: Arc<str>,
        /// What a node has left that is gone.
        left: Vec<LeftTopic>,
        /// Whether it goes on with a session of another node.
        continues: bool,
    },
    On(Arc<Remembered>),
}

impl Remembering {
    pub(super) fn new(id: Arc<str>) -> Self {
        Self::Begun { id, left: Vec::new(), continues: false }
    }

    /// A node that is gone has left this.
    pub(super) fn recover(&mut self, bytes: &Bytes) {
        if let Self::Begun { left, continues, .. } = self
            && let Ok(decoded) = Left::decode(&**bytes)
        {
            SESSIONS_RECOVERED.add(1);
            (*left, *continues) = (decoded.topics, true);
        }
    }

    /// The session has come from another node, with topics that were not joined there after a node before had gone.
    pub(super) fn move_here(&mut self, topics: Vec<LeftTopic>) {
        if let Self::Begun { left, continues, .. } = self {
            (*left, *continues) = (topics, true);
        }
    }

    /// The session has a connection, and so is resumable.
    pub(super) fn attach(&mut self, peers: Option<&Arc<EndpointPeers>>, outbox: &outbox::Sender) {
        match (&mut *self, peers) {
            (Self::Begun { id, left, continues }, Some(peers)) => {
                let (id, left) = (Arc::clone(id), std::mem::take(left));
                let (peers, outbox) = (Arc::clone(peers), outbox.clone());
                *self = Self::On(Remembered::new(peers, id, outbox, left, *continues));
            }
            (Self::On(remembered), _) => remembered.set_attached(true),
            _ => {}
        }
    }

    pub(super) fn get(&self) -> Option<&Arc<Remembered>> {
        match self {
            Self::On(remembered) => Some(remembered),
            Self::Off | Self::Begun { .. } => None,
        }
    }
}
