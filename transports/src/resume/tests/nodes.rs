//! Nodes with an acceptor each, what connects them, and their clients.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::Notify;
use tower_service::Service;

use crate::connect_info::{ConnectInfo, Transport};
use crate::frame::{Close, Inbound, Message};
use crate::longpoll::{LongPoll, LongPollConfig};
use crate::memory::Memory;
use crate::outbox::Sender;
use crate::peers::{
    BoxFuture, Found, Handover, NodeId, NotRelayed, Offer, Offering, Peers, Relayed, RelayedAnswer,
    Wanted,
};
use crate::rejected::Rejected;
use crate::session::{DetachReason, Handler, Session};
use crate::websocket::{Connection, WebSocketConfig};
use crate::{Acceptor, CheckOrigin, Limits, ResumeConfig};

/// Makes the sessions of a node.
pub(super) struct Tabs(pub(super) Arc<Shared>);

/// What the test knows of the sessions of a node.
#[derive(Default)]
pub(super) struct Shared {
    /// The outbox of the newest connect.
    pub(super) newest: Mutex<Option<Sender>>,
    /// The stream of the newest session.
    pub(super) outbox: Mutex<Option<Sender>>,
    pub(super) record: Mutex<Vec<String>>,
    /// What goes wrong.
    pub(super) fault: Mutex<Option<Fault>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    PackPanics,
    PackHangs,
    PreparePanics,
    UnpackPanics,
    Refuses,
    HasExpired,
}

/// A session with one stream, which is resumed by `join` and pushes back anything else.
pub(super) struct Tab {
    shared: Arc<Shared>,
    user: String,
    outbox: Sender,
    stream: Option<Sender>,
    epoch: u64,
}

impl Handler for Tabs {
    type Session = Tab;

    async fn connect(&self, info: ConnectInfo, outbox: Sender) -> Result<Tab, Rejected> {
        *self.0.newest.lock() = Some(outbox.clone());
        let (shared, user) = (Arc::clone(&self.0), info.param("user").unwrap_or("ann").to_owned());
        Ok(Tab { shared, user, outbox, stream: None, epoch: 0 })
    }
}

impl Tab {
    fn note(&self, text: impl Into<String>) {
        self.shared.record.lock().push(text.into());
    }

    fn fails(&self, fault: Fault) -> bool {
        *self.shared.fault.lock() == Some(fault)
    }
}

impl Session for Tab {
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
        let Inbound::Text(text) = message else { return Ok(()) };
        let stream = self.stream.get_or_insert_with(|| self.outbox.stream()).clone();
        *self.shared.outbox.lock() = Some(stream.clone());
        if text == "join" {
            stream.resume(self.epoch, Message::text("joined"));
        } else {
            stream.push(event(text));
        }
        Ok(())
    }

    fn id(&self) -> Option<&str> {
        Some(&self.user)
    }

    fn has_expired(&self) -> bool {
        self.fails(Fault::HasExpired)
    }

    fn attached(&mut self, epoch: u64, _: Transport) {
        self.epoch = epoch;
    }

    fn detached(&mut self, _: DetachReason) {
        self.note("detached");
    }

    fn outline(&self) -> Bytes {
        "outline".into()
    }

    fn prepare(&mut self, outline: Bytes) -> BoxFuture<Bytes> {
        assert!(!self.fails(Fault::PreparePanics), "as requested");
        if outline.is_empty() {
            self.note("not prepared any more");
            return Box::pin(std::future::ready(outline));
        }
        assert_eq!(outline, "outline");
        Box::pin(std::future::ready("prepared".into()))
    }

    fn pack(&mut self, prepared: Option<Bytes>) -> BoxFuture<Bytes> {
        assert!(!self.fails(Fault::PackPanics), "as requested");
        if self.fails(Fault::PackHangs) {
            return Box::pin(std::future::pending());
        }
        self.note(format!("packed for {prepared:?}"));
        let stream = self.stream.clone();
        Box::pin(async move {
            tokio::task::yield_now().await;
            let Some(stream) = stream else { return Bytes::new() };
            stream.push(event("last"));
            stream.stream_id().to_string().into()
        })
    }

    fn unpack(&mut self, packed: Bytes) -> bool {
        assert!(!self.fails(Fault::UnpackPanics), "as requested");
        if self.fails(Fault::Refuses) {
            return false;
        }
        self.note("unpacked");
        let id = str::from_utf8(&packed).ok().and_then(|id| id.parse().ok());
        self.stream = id.map(|id| self.outbox.stream_of(id));
        self.shared.outbox.lock().clone_from(&self.stream);
        true
    }
}

impl Drop for Tab {
    fn drop(&mut self) {
        self.note("dropped");
    }
}

/// A message that takes a number.
pub(super) fn event(text: &str) -> Message {
    Message::with_placeholder(format!("null {text}"), 0)
}

/// Which node has which session, and all nodes.
#[derive(Default)]
pub(super) struct Cluster {
    nodes: Mutex<Vec<Acceptor<Tabs>>>,
    owners: Mutex<HashMap<Arc<str>, NodeId>>,
    pub(super) released: Mutex<Vec<Arc<str>>>,
    /// How often a node has looked for a session.
    pub(super) finds: Mutex<usize>,
    /// What happens when a session is about to be taken.
    pub(super) before_take: Mutex<Option<Hook>>,
    /// The next state arrives changed.
    pub(super) garbles: Mutex<bool>,
    /// If set, a node that looks for a session waits for it.
    pub(super) gate: Mutex<Option<Arc<Notify>>>,
}

impl Cluster {
    /// Forgets which node has which session.
    pub(super) fn forget(&self) {
        self.owners.lock().clear();
    }
}

pub(super) type Hook = Box<dyn FnOnce() -> BoxFuture<()> + Send>;

struct Link(NodeId, Weak<Cluster>);

struct Offered {
    to: NodeId,
    id: Arc<str>,
    outline: Bytes,
    handover: Box<dyn Handover>,
    cluster: Arc<Cluster>,
}

impl Peers for Link {
    fn node(&self) -> NodeId {
        self.0
    }

    fn relay(&self, _: NodeId, _: Relayed) -> BoxFuture<Result<RelayedAnswer, NotRelayed>> {
        Box::pin(std::future::ready(Err(NotRelayed::Gone)))
    }

    fn find(&self, wanted: Wanted) -> BoxFuture<Found> {
        let (to, Some(cluster)) = (self.0, self.1.upgrade()) else {
            return Box::pin(std::future::ready(Found::None));
        };
        *cluster.finds.lock() += 1;
        let gate = cluster.gate.lock().clone();
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.notified().await;
            }
            let id = Arc::clone(&wanted.id);
            let owner = cluster.owners.lock().get(&id).copied();
            if owner == Some(to) {
                return Found::Here;
            }
            // A session that is here as well is an older one.
            let here = cluster.nodes.lock()[to as usize].clone();
            if owner.is_some() {
                here.end_moved(&id);
            }
            let offering = match owner {
                Some(owner) => {
                    let acceptor = cluster.nodes.lock()[owner as usize].clone();
                    acceptor.offer(&wanted)
                }
                None => Offering::None,
            };
            match offering {
                Offering::None => {
                    cluster.owners.lock().insert(id, to);
                    Found::None
                }
                Offering::Taken | Offering::Busy => Found::Taken,
                Offering::Offered(handover) => {
                    let outline = handover.outline();
                    Found::Offered(Box::new(Offered { to, id, outline, handover, cluster }))
                }
            }
        })
    }

    fn release(&self, id: &Arc<str>) {
        if let Some(cluster) = self.1.upgrade() {
            cluster.released.lock().push(Arc::clone(id));
            let mut owners = cluster.owners.lock();
            if owners.get(id) == Some(&self.0) {
                owners.remove(id);
            }
        }
    }
}

impl Offer for Offered {
    fn outline(&self) -> &Bytes {
        &self.outline
    }

    fn take(self: Box<Self>, prepared: Bytes) -> BoxFuture<Option<Bytes>> {
        Box::pin(async move {
            let Self { to, id, handover, cluster, .. } = *self;
            let hook = cluster.before_take.lock().take();
            if let Some(hook) = hook {
                hook().await;
            }
            let given = handover.give(Some(prepared)).await;
            cluster.owners.lock().insert(id, to);
            let garbles = std::mem::take(&mut *cluster.garbles.lock());
            given.map(|state| if garbles { state.slice(1..) } else { state })
        })
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Link").field(&self.0).finish()
    }
}

impl std::fmt::Debug for Offered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Offered").field(&self.to).finish()
    }
}

/// One node.
pub(super) struct Node {
    pub(super) acceptor: Acceptor<Tabs>,
    pub(super) tabs: Arc<Shared>,
    longpoll: LongPoll<Tabs>,
}

pub(super) const TTL: Duration = Duration::from_secs(60);

/// Three nodes.
pub(super) fn nodes() -> (Arc<Cluster>, [Node; 3]) {
    let cluster = Arc::new(Cluster::default());
    let nodes = [0, 1, 2].map(|number| {
        let tabs = Arc::new(Shared::default());
        let acceptor = Acceptor::with_peers(
            Tabs(Arc::clone(&tabs)),
            CheckOrigin::off(),
            Limits::default(),
            ResumeConfig::new().session_ttl(TTL),
            Memory::new(1 << 30),
            Some(Arc::new(Link(number, Arc::downgrade(&cluster)))),
        );
        cluster.nodes.lock().push(acceptor.clone());
        let longpoll = LongPoll::new(acceptor.clone(), LongPollConfig::new());
        Node { acceptor, tabs, longpoll }
    });
    (cluster, nodes)
}

/// A client: what it has read, and the last number.
#[derive(Default)]
pub(super) struct Client {
    pub(super) user: Option<&'static str>,
    pub(super) seen: Vec<String>,
    /// `None` if it reads no numbers.
    pub(super) received: Option<u64>,
}

pub(super) const ID: &str = "0123456789abcdef012345";

impl Client {
    pub(super) fn numbered() -> Self {
        Self { received: Some(0), ..Self::default() }
    }

    fn query(&self) -> String {
        let received = self.received.map(|it| format!("&received={it}")).unwrap_or_default();
        format!("/?session={ID}&user={}{received}", self.user.unwrap_or("ann"))
    }

    /// What it connects with over a WebSocket.
    fn info(&self) -> ConnectInfo {
        let parts = Request::builder().uri(self.query()).body(()).unwrap().into_parts().0;
        ConnectInfo::from_request_parts(&parts, Transport::WebSocket).unwrap()
    }

    pub(super) fn read(&mut self, text: &str) {
        let text = match text.strip_prefix("\"s:").and_then(|rest| rest.split_once('"')) {
            Some((number, text)) => {
                let number = number.parse().unwrap();
                let received = self.received.as_mut().expect("numbers for who reads them");
                assert!(number > *received, "{number} came after {received}");
                *received = number;
                text
            }
            None => text.strip_prefix("null").unwrap_or(text),
        };
        self.seen.push(text.trim().to_owned());
    }

    pub(super) fn take_seen(&mut self) -> Vec<String> {
        std::mem::take(&mut self.seen)
    }
}

/// The client's end of a WebSocket.
pub(super) struct Ws(DuplexStream);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Text(String),
    Close(u16),
    Eof,
}

impl Node {
    /// Returns whether the node refuses a WebSocket of the session before that opens.
    pub(super) async fn refuses(&self, client: &Client) -> bool {
        self.acceptor.accept(client.info()).await.is_err()
    }

    /// Connects over a WebSocket. The claim is under way when this returns.
    pub(super) async fn websocket(&self, client: &Client) -> Ws {
        let acceptor = self.acceptor.clone();
        let accepted = acceptor.accept(client.info()).await.unwrap();
        let connected = acceptor.admit(accepted, Transport::WebSocket).unwrap();
        let (here, there) = tokio::io::duplex(1 << 20);
        tokio::spawn(async move {
            let attached = if connected.may_be_elsewhere() {
                connected.claim(Transport::WebSocket).await
            } else {
                connected.attach(Transport::WebSocket)
            };
            let Some((session, receiver)) = attached else { return };
            let (io, config) = (TokioIo::new(there), WebSocketConfig::new());
            Connection::new(io, session, receiver, &config, acceptor.limits()).await;
        });
        Ws(here)
    }

    /// Connects, joins, and waits for the reply and `count` messages before and behind it.
    pub(super) async fn join(&self, client: &mut Client, count: usize) -> Ws {
        let mut ws = self.websocket(client).await;
        ws.send("join").await;
        ws.read(client, count + 1).await;
        ws
    }

    /// Pushes a message to the client of the newest session.
    pub(super) fn push(&self, text: &str) {
        self.tabs.outbox.lock().as_ref().expect("a session").push(event(text));
    }

    /// What has happened to the sessions of the node.
    pub(super) fn record(&self) -> Vec<String> {
        std::mem::take(&mut *self.tabs.record.lock())
    }

    pub(super) fn fails(&self, fault: Fault) {
        *self.tabs.fault.lock() = Some(fault);
    }

    /// A long-poll request, and the status and messages of its answer.
    pub(super) async fn request(
        &self,
        token: Option<&str>,
        body: Option<&str>,
        client: &Client,
    ) -> Polled {
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let body = body.unwrap_or_default().to_owned();
        let mut request = Request::builder().method(method).uri(client.query());
        if let Some(token) = token {
            request = request.header("x-phoenix-longpoll-token", token);
        }
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let response = self.longpoll.clone().call(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        let messages = answer["messages"].as_array().cloned().unwrap_or_default();
        Polled {
            status: answer["status"].as_u64().unwrap(),
            token: answer["token"].as_str().unwrap_or_default().to_owned(),
            messages: messages.iter().map(|it| it.as_str().unwrap().to_owned()).collect(),
        }
    }

    /// Connects over long poll, and returns the token.
    pub(super) async fn longpoll(&self, client: &Client) -> String {
        let answer = self.request(None, None, client).await;
        assert_eq!(answer.status, 410);
        answer.token
    }

    /// Polls once. Returns the next token.
    pub(super) async fn poll(&self, token: &str, client: &mut Client) -> String {
        let answer = self.request(Some(token), None, client).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.messages.iter().for_each(|text| client.read(text));
        answer.token
    }
}

#[derive(Debug)]
pub(super) struct Polled {
    pub(super) status: u64,
    pub(super) token: String,
    pub(super) messages: Vec<String>,
}

impl Ws {
    pub(super) async fn send(&mut self, text: &str) {
        self.write(0x81, text.as_bytes()).await;
    }

    /// Answers the CLOSE of the server.
    pub(super) async fn answer_close(&mut self) {
        self.write(0x88, &1012_u16.to_be_bytes()).await;
    }

    async fn write(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first, 0x80 | u8::try_from(payload.len()).unwrap(), 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        // The connection may have ended.
        let _ = self.0.write_all(&frame).await;
    }

    /// Reads the next frame that is no ping.
    pub(super) async fn next(&mut self) -> Frame {
        loop {
            let Ok(first) = self.0.read_u8().await else { return Frame::Eof };
            let mut size = usize::from(self.0.read_u8().await.unwrap());
            if size == 126 {
                size = self.0.read_u16().await.unwrap().into();
            }
            let mut payload = vec![0; size];
            self.0.read_exact(&mut payload).await.unwrap();
            match first {
                0x81 => return Frame::Text(String::from_utf8(payload).unwrap()),
                0x88 => return Frame::Close(u16::from_be_bytes([payload[0], payload[1]])),
                _ => {}
            }
        }
    }

    /// Reads so many messages.
    pub(super) async fn read(&mut self, client: &mut Client, count: usize) {
        for _ in 0..count {
            match self.next().await {
                Frame::Text(text) => client.read(&text),
                other => panic!("{other:?}, after {:?}", client.seen),
            }
        }
    }
}
