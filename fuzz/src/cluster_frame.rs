//! Frames between nodes.

use std::future::ready;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::json;
use tower_channels::adapter::{
    Adapter, AdapterLimits, BoxFuture, Channel as To, Link, NodeId, NodeInbox, PublishError,
    Reached,
};
use tower_channels::channel::Result;
use tower_channels::internals::frames;
use tower_channels::{Channel, Endpoint, Joined, Payload, Presence, Rejected, Socket};

/// Asserts that whatever can be read as a frame survives encoding and decoding, that parts give back
/// their body and hold a bounded number of bytes, that questions end once and in time, and that a node which hears arbitrary frames neither
/// panics nor remembers more nodes than it may.
pub fn check(data: &[u8]) {
    frames::decode(data);
    frames::reassemble(data);
    frames::ask(data);
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(hear(data));
}

/// A node hears the bytes as one frame, and then as many: a byte for the kind, one for the length, and the rest.
async fn hear(data: &[u8]) {
    let engine = Engine::default();
    let endpoint = Endpoint::builder(|_| ready(Ok::<_, Rejected>(())))
        .channel::<Room>("room:*")
        .id(|()| Some("ann".into()))
        .adapter(engine.clone())
        .build();
    let inbox = Arc::clone(engine.0.inbox.get().expect("it was started"));
    inbox.link(Link::Up);
    let mut client = tower_channels::test::connect(&endpoint, &[]).await.expect("accepted");
    client.join("room:1", json!({})).await;
    let mut subscription = endpoint.pubsub().subscribe("room:1");
    inbox.receive(data.to_vec().into());
    let mut rest = data;
    while let [kind, length, more @ ..] = rest {
        let (bytes, more) = more.split_at(usize::from(*length).min(more.len()));
        rest = more;
        match kind % 8 {
            0 => inbox.receive(bytes.to_vec().into()),
            1..=3 => inbox.receive(frame(kind >> 3, 0, bytes).into()),
            4 => inbox.receive(frame(kind >> 3, u64::from(*length), bytes).into()),
            5 => inbox.lost(frame(kind >> 3, 1, bytes).into()),
            6 => inbox.link(if length % 2 == 0 { Link::Up } else { Link::Down }),
            _ => tokio::time::sleep(Duration::from_millis(u64::from(*length) * 16)).await,
        }
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(endpoint.nodes().len() <= 1 + data.len());
    // What the node says itself can be read.
    for frame in engine.0.published.lock().expect("no panic").drain(..) {
        frames::decode(&frame);
        assert!(frames::is_readable(&frame));
    }
    let next = tokio::time::timeout(Duration::ZERO, subscription.recv()).await;
    drop(next);
    drop(client);
}

/// A frame of one of a few nodes.
fn frame(node: u8, number: u64, body: &[u8]) -> Vec<u8> {
    let node = u64::from(node).to_be_bytes();
    [&[0x11], &node[..], &number.to_be_bytes(), body].concat()
}

/// An engine that carries nothing.
#[derive(Clone, Default)]
struct Engine(Arc<Shared>);

#[derive(Default)]
struct Shared {
    inbox: OnceLock<Arc<dyn NodeInbox>>,
    published: Mutex<Vec<Vec<u8>>>,
}

impl Engine {
    fn take(&self, frame: &[u8]) {
        self.0.published.lock().expect("no panic").push(frame.to_vec());
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Engine")
    }
}

impl Adapter for Engine {
    fn start(&self, _: NodeId, inbox: Arc<dyn NodeInbox>) {
        assert!(self.0.inbox.set(inbox).is_ok(), "it is started once");
    }

    fn publish(&self, _: To<'_>, frame: bytes::Bytes) -> std::result::Result<(), PublishError> {
        self.take(&frame);
        Ok(())
    }

    fn reach(&self, node: NodeId, frame: bytes::Bytes) -> BoxFuture<'_, Reached> {
        self.take(&frame);
        let reached = [Reached::Someone, Reached::Nobody, Reached::Unknown];
        Box::pin(ready(reached[(node.0 % 3) as usize]))
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    fn listen(&self, _: &str) -> BoxFuture<'static, ()> {
        Box::pin(ready(()))
    }

    fn ignore(&self, _: &str) {}

    fn hear_all(&self, _: bool) -> BoxFuture<'static, ()> {
        Box::pin(ready(()))
    }

    fn reconnect(&self) {}

    fn limits(&self) -> AdapterLimits {
        AdapterLimits::new(1 << 20)
    }
}

struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        Presence::track(socket, "ann", json!({}))?;
        Presence::push_state(socket);
        Ok(Self.into())
    }
}
