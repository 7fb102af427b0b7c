//! Nodes with a long-poll service each, and what connects them.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use serde_json::Value;
use tower_service::Service;

use crate::connect_info::ConnectInfo;
use crate::frame::{Close, Inbound, Message};
use crate::longpoll::{LongPoll, LongPollConfig, WeakLongPoll};
use crate::memory::Memory;
use crate::peers::{BoxFuture, Found, NodeId, NotRelayed, Peers, Relayed, RelayedAnswer, Wanted};
use crate::rejected::Rejected;
use crate::session::{Handler, Session};
use crate::{Acceptor, CheckOrigin, Limits, ResumeConfig, outbox};

/// Echoes messages. `[malformed]` ends a session.
pub(super) struct Echo(Arc<Mutex<Vec<outbox::Sender>>>);

pub(super) struct EchoSession(outbox::Sender);

impl Handler for Echo {
    type Session = EchoSession;

    async fn connect(
        &self,
        _: ConnectInfo,
        outbox: outbox::Sender,
    ) -> Result<EchoSession, Rejected> {
        self.0.lock().push(outbox.clone());
        Ok(EchoSession(outbox))
    }
}

impl Session for EchoSession {
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
        match message {
            Inbound::Text("[malformed]") => return Err(Close::Malformed),
            Inbound::Text(text) => self.0.push(Message::text(text.to_owned())),
            Inbound::Binary(bytes) => self.0.push(Message::binary(bytes.to_vec())),
        }
        Ok(())
    }
}

/// What carries requests between nodes.
#[derive(Debug, Default)]
pub(super) struct Network {
    services: Mutex<HashMap<NodeId, WeakLongPoll<Echo>>>,
    /// What the next requests come to.
    pub(super) fault: Mutex<Option<Fault>>,
    /// How many requests were passed on.
    pub(super) relays: AtomicUsize,
}

#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// The request does not arrive.
    Fails(NotRelayed),
    /// The answer does not.
    LosesAnswer,
    Answers(RelayedAnswer),
}

#[derive(Debug)]
struct Link(NodeId, Arc<Network>);

impl Peers for Link {
    fn node(&self) -> NodeId {
        self.0
    }

    fn relay(
        &self,
        node: NodeId,
        request: Relayed,
    ) -> BoxFuture<Result<RelayedAnswer, NotRelayed>> {
        let Self(_, network) = self;
        network.relays.fetch_add(1, Ordering::Relaxed);
        let (fault, services) = (network.fault.lock().clone(), network.services.lock());
        let service = services.get(&node).and_then(WeakLongPoll::upgrade);
        drop(services);
        Box::pin(async move {
            match fault {
                Some(Fault::Fails(why)) => return Err(why),
                Some(Fault::Answers(answer)) => return Ok(answer),
                Some(Fault::LosesAnswer) | None => {}
            }
            let Some(service) = service else { return Err(NotRelayed::Gone) };
            let answer = service.relayed(request).await;
            if fault.is_some() { Err(NotRelayed::Late) } else { Ok(answer) }
        })
    }

    fn find(&self, _: Wanted) -> BoxFuture<Found> {
        Box::pin(std::future::ready(Found::None))
    }

    fn release(&self, _: &Arc<str>) {}
}

/// A node with its service. It has peers if it is in a network.
pub(super) struct Node {
    pub(super) service: LongPoll<Echo>,
    pub(super) memory: Memory,
    outboxes: Arc<Mutex<Vec<outbox::Sender>>>,
}

impl Node {
    pub(super) fn alone() -> Self {
        Self::new(LongPollConfig::new(), Limits::new().max_message(1000), None)
    }

    fn new(config: LongPollConfig, limits: Limits, peers: Option<Arc<dyn Peers>>) -> Self {
        let outboxes = Arc::default();
        let memory = Memory::new(limits.memory_limit());
        let (echo, resume) = (Echo(Arc::clone(&outboxes)), ResumeConfig::default());
        let origin = CheckOrigin::hosts(["http://friend.test"]).unwrap().and_same_host();
        let acceptor = Acceptor::with_peers(echo, origin, limits, resume, memory.clone(), peers);
        Self { service: LongPoll::new(acceptor, config), memory, outboxes }
    }

    /// The outbox of the newest session.
    pub(super) fn outbox(&self) -> outbox::Sender {
        self.outboxes.lock().last().unwrap().clone()
    }

    pub(super) fn start<B>(&self, request: Request<B>) -> Responding
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Send,
    {
        let response = self.service.clone().call(request);
        Box::pin(async move {
            let (head, body) = response.await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Answer { status: head.status, headers: head.headers, body }
        })
    }

    /// Connects, and returns the first token.
    pub(super) async fn connect(&self, query: &str) -> String {
        self.start(get(query)).await.token()
    }

    pub(super) fn poll(&self, token: &str) -> Responding {
        self.start(get(&format!("token={token}")))
    }

    pub(super) fn post(&self, token: &str, body: impl Into<Bytes>) -> Responding {
        self.start(post(token, "text/plain", Full::new(body.into())))
    }
}

/// Two nodes, 1 and 2, which reach each other.
pub(super) fn nodes() -> (Node, Node, Arc<Network>) {
    nodes_with(&LongPollConfig::new(), Limits::new().max_message(1000))
}

pub(super) fn nodes_with(config: &LongPollConfig, limits: Limits) -> (Node, Node, Arc<Network>) {
    let network = Arc::<Network>::default();
    let [a, b] = [1, 2].map(|id| {
        let peers: Arc<dyn Peers> = Arc::new(Link(id, Arc::clone(&network)));
        let node = Node::new(config.clone(), limits, Some(peers));
        network.services.lock().insert(id, node.service.downgrade());
        node
    });
    (a, b, network)
}

pub(super) fn get(query: &str) -> Request<Full<Bytes>> {
    request(Method::GET, query).body(Full::default()).unwrap()
}

pub(super) fn post<B>(token: &str, content_type: &str, body: B) -> Request<B> {
    let request = request(Method::POST, &format!("token={token}"));
    request.header("content-type", content_type).body(body).unwrap()
}

pub(super) fn request(method: Method, query: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("http://x/longpoll?{query}")).header("host", "x")
}

pub(super) type Responding = Pin<Box<dyn Future<Output = Answer> + Send>>;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(super) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    pub(super) fn token(&self) -> String {
        self.json()["token"].as_str().unwrap().to_owned()
    }

    pub(super) fn messages(&self) -> Vec<String> {
        let json = self.json();
        let messages = json["messages"].as_array().unwrap().iter();
        messages.map(|message| message.as_str().unwrap().to_owned()).collect()
    }
}

/// A body that does not end, or breaks off.
pub(super) struct Unfinished {
    pub(super) breaks: bool,
}

impl Body for Unfinished {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        if self.breaks { Poll::Ready(Some(Err("reset"))) } else { Poll::Pending }
    }
}
