//! [`Node`]: an adapter that was started, and what it hears.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use tower_channels::adapter::{Adapter, Channel, Link, NodeId, NodeInbox, Reached};
use tower_channels_redis::{Redis, RedisConfig};

/// How long anything may take that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An adapter that was started, and what it hears.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) redis: Redis,
    events: UnboundedReceiver<Event>,
    /// The frames that were lost by now.
    pub(crate) lost: Vec<Bytes>,
}

/// What an adapter tells its inbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Frame(Bytes),
    Link(Link),
    Lost(Bytes),
}

struct Inbox(UnboundedSender<Event>);

impl Inbox {
    fn take(&self, event: Event) {
        // Nobody may be interested any more.
        let _ = self.0.send(event);
    }
}

impl NodeInbox for Inbox {
    fn receive(&self, frame: Bytes) {
        self.take(Event::Frame(frame));
    }

    fn link(&self, link: Link) {
        self.take(Event::Link(link));
    }

    fn lost(&self, frame: Bytes) {
        self.take(Event::Lost(frame));
    }
}

impl Node {
    /// Starts an adapter and waits until it hears and sends.
    pub(crate) async fn start(number: u64, config: RedisConfig) -> Self {
        let redis = Redis::connect(config).await.expect("connects");
        let (sender, events) = unbounded_channel();
        let id = NodeId(number);
        redis.start(id, Arc::new(Inbox(sender)));
        let mut node = Self { id, redis, events, lost: Vec::new() };
        node.up().await;
        node.hears_itself().await;
        node
    }

    pub(crate) fn publish(&self, to: Channel<'_>, frame: impl Into<Bytes>) {
        self.redis.publish(to, frame.into()).expect("there is room");
    }

    pub(crate) async fn reach(&self, node: NodeId, frame: impl Into<Bytes>) -> Reached {
        timeout(PATIENCE, self.redis.reach(node, frame.into())).await.expect("an answer")
    }

    pub(crate) async fn event(&mut self) -> Event {
        let event = timeout(PATIENCE, self.events.recv()).await;
        let event = event.expect("an event").expect("an adapter");
        if let Event::Lost(frame) = &event {
            self.lost.push(frame.clone());
        }
        event
    }

    /// The next event that is a frame.
    pub(crate) async fn frame(&mut self) -> Bytes {
        loop {
            if let Event::Frame(frame) = self.event().await {
                return frame;
            }
        }
    }

    async fn wait_for(&mut self, event: Event) {
        while self.event().await != event {}
    }

    pub(crate) async fn up(&mut self) {
        self.wait_for(Event::Link(Link::Up)).await;
    }

    pub(crate) async fn down(&mut self) {
        self.wait_for(Event::Link(Link::Down)).await;
    }

    /// Waits until it sends and hears. Nobody else hears anything of it.
    pub(crate) async fn hears_itself(&mut self) {
        let mut number = 0_u32;
        loop {
            number += 1;
            let sent = Bytes::from(format!("to myself: {number}"));
            self.reach(self.id, sent.clone()).await;
            let heard = async { while self.frame().await != sent {} };
            if timeout(Duration::from_millis(200), heard).await.is_ok() {
                return;
            }
        }
    }

    /// What it has heard of what the server has taken by now.
    pub(crate) async fn heard(&mut self) -> Vec<Event> {
        let last = Bytes::from_static(b"the last");
        self.redis.flush().await;
        self.reach(self.id, last.clone()).await;
        let mut events = Vec::new();
        loop {
            match self.event().await {
                Event::Frame(frame) if frame == last => return events,
                event => events.push(event),
            }
        }
    }
}

pub(crate) fn url(address: SocketAddr) -> String {
    format!("redis://{address}")
}

pub(crate) fn config(address: SocketAddr) -> RedisConfig {
    RedisConfig::new(url(address)).app("test")
}

pub(crate) fn frames<const N: usize>(frames: [&'static str; N]) -> Vec<Event> {
    frames.into_iter().map(|frame| Event::Frame(Bytes::from(frame))).collect()
}
