//! Pushes through the connections of a resumable session whose client asks that each is handled once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::ready;
use std::mem;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use hyper::Request;
use serde_json::{Value, json};
use tower_channels::channel::Result;
use tower_channels::{
    Channel, ConnectInfo, Endpoint, Joined, Payload, Rejected, Reply, Socket, Transport,
};
use tower_channels_transports::{Acceptor, Handler, Inbound, Session, outbox};

/// Asserts that the server handles each push of a client at most once, whatever becomes of connections
/// and requests, and exactly once when the client has come back; in order, unless requests overtake
/// each other; and that it reports what it has handled. The bytes are steps with a value each.
pub fn check(data: &[u8]) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let handled = Handled::default();
        let record = Arc::clone(&handled);
        let connect = move |_| ready(Ok::<_, Rejected>(Arc::clone(&record)));
        let endpoint =
            Endpoint::builder(connect).id(|_| Some("ann".into())).channel::<Room>("room:*").build();
        let mut bytes = data.iter().copied();
        let is_ordered = bytes.next().unwrap_or(0) & 1 == 0;
        let mut walk = Walk::new(endpoint.acceptor(), handled, is_ordered);
        while let Some(step) = bytes.next() {
            walk.step(step % 16, usize::from(bytes.next().unwrap_or(0))).await;
        }
        walk.finish().await;
    });
}

/// The topics and numbers of the pushes that were handled.
type Handled = Arc<Mutex<Vec<(String, u64)>>>;

/// A channel that records its pushes, and replies to every other one.
struct Room(String);

impl Channel for Room {
    type Assigns = Handled;
    type Info = ();

    async fn join(topic: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self(topic.into()).into())
    }

    async fn handle_in(&mut self, _: &str, push: Payload, socket: &Socket<Self>) -> Result<Reply> {
        let number: u64 = push.parse()?;
        let mut handled = socket.assigns().lock().expect("no panic");
        handled.push((self.0.clone(), number));
        Ok(if number.is_multiple_of(2) { Reply::Ok(push) } else { Reply::None })
    }
}

const TOPICS: [&str; 2] = ["room:a", "room:b"];

struct Walk<H: Handler> {
    acceptor: Acceptor<H>,
    handled: Handled,
    /// Whether requests keep their order, as messages on a WebSocket do.
    is_ordered: bool,
    client: Client,
    connection: Option<Connection>,
    /// Connections that the client has given up, whose last requests may still arrive.
    given_up: Vec<Connection>,
}

/// What the client knows, as `keepSession` does.
#[derive(Default)]
struct Client {
    refs: u64,
    pushes: u64,
    connects: u64,
    /// The pushes that may not have been handled, by ref: the topic, the number, and the join_ref under
    /// which each was sent last.
    kept: BTreeMap<u64, (usize, u64, u64)>,
    /// The join_ref of each topic, and whether the join was answered on this connection.
    joins: [(u64, bool); 2],
}

struct Connection {
    session: Box<dyn Session>,
    receiver: outbox::Receiver,
    is_websocket: bool,
    /// What the client has sent and the server has not received.
    on_the_wire: VecDeque<String>,
}

impl<H: Handler> Walk<H> {
    fn new(acceptor: Acceptor<H>, handled: Handled, is_ordered: bool) -> Self {
        let client = Client::default();
        Self { acceptor, handled, is_ordered, client, connection: None, given_up: Vec::new() }
    }

    async fn step(&mut self, step: u8, value: usize) {
        match step {
            0..=3 => self.push(value % 2),
            4..=6 => self.deliver(value),
            7 => self.deliver_late(value),
            8..=9 => self.receive(value.is_multiple_of(2)).await,
            10 => self.lose(value),
            11 => self.cut(value),
            12 => self.connect(value.is_multiple_of(2)).await,
            13..=14 => self.join(value % 2),
            _ => self.ask(),
        }
        self.check();
    }

    /// Pushes to a joined topic.
    fn push(&mut self, topic: usize) {
        let Some(connection) = &mut self.connection else { return };
        let client = &mut self.client;
        let (join, is_joined) = client.joins[topic];
        if is_joined {
            client.refs += 1;
            client.pushes += 1;
            client.kept.insert(client.refs, (topic, client.pushes, join));
            connection.send(join, client.refs, topic, "push", &json!(client.pushes));
        }
    }

    fn join(&mut self, topic: usize) {
        let Some(connection) = &mut self.connection else { return };
        self.client.refs += 1;
        let join = self.client.refs;
        self.client.joins[topic] = (join, false);
        connection.send(join, join, topic, "phx_join", &json!({}));
    }

    fn ask(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.on_the_wire.push_back(r#"[null,"handled","phoenix","handled",{}]"#.into());
        }
    }

    /// One message arrives. A request may arrive again, or before an earlier one.
    fn deliver(&mut self, value: usize) {
        let Some(connection) = &mut self.connection else { return };
        let repeats = !connection.is_websocket && value.is_multiple_of(3);
        let Some(message) = connection.take(value, self.is_ordered) else { return };
        for _ in 0..=usize::from(repeats) {
            let handled = connection.session.handle_in(Inbound::Text(&message));
            assert_eq!(handled, Ok(()), "{message}");
        }
    }

    /// A request of an earlier connection arrives, which is refused once the next one has begun.
    fn deliver_late(&mut self, value: usize) {
        let is_ordered = self.is_ordered;
        if let Some(connection) = self.given_up.last_mut()
            && let Some(message) = connection.take(value, is_ordered)
        {
            let _ = connection.session.handle_in(Inbound::Text(&message));
        }
    }

    /// A request is lost. The client may go on for a while if requests have no order, and otherwise
    /// takes the connection for lost.
    fn lose(&mut self, value: usize) {
        let Some(connection) = &mut self.connection else { return };
        connection.take(value, self.is_ordered);
        if self.is_ordered {
            connection.on_the_wire.clear();
            self.cut(0);
        }
    }

    /// The connection is lost, and perhaps what is on its way.
    fn cut(&mut self, value: usize) {
        let Some(mut connection) = self.connection.take() else { return };
        if connection.is_websocket || value.is_multiple_of(2) {
            connection.on_the_wire.clear();
        }
        self.given_up.push(connection);
        self.client.joins.iter_mut().for_each(|(_, is_joined)| *is_joined = false);
        if self.given_up.len() > 2 {
            self.given_up.remove(0);
        }
    }

    async fn connect(&mut self, is_websocket: bool) {
        self.cut(0);
        self.client.connects += 1;
        let query = "/socket?vsn=2.0.0&session=0123456789abcdefghijkl&pushes=once";
        let (parts, ()) = Request::get(query).body(()).expect("a request").into_parts();
        let transport = if is_websocket { Transport::WebSocket } else { Transport::LongPoll };
        let info = ConnectInfo::from_request_parts(&parts, transport).expect("a query");
        let (session, receiver) = self.acceptor.connect(info).await.expect("it is accepted");
        let session: Box<dyn Session> = Box::new(session);
        let on_the_wire = VecDeque::new();
        self.connection = Some(Connection { session, receiver, is_websocket, on_the_wire });
    }

    /// The channels run, and the client reads everything.
    async fn receive(&mut self, acknowledges: bool) {
        for _ in 0..16 {
            tokio::task::yield_now().await;
        }
        let Some(connection) = &mut self.connection else { return };
        let mut messages = VecDeque::new();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Ok(())) = connection.receiver.poll_take(&mut context, &mut messages) {
        }
        if acknowledges {
            connection.receiver.read();
        }
        for message in messages {
            let message: Value = serde_json::from_slice(&message.to_bytes()).expect("JSON");
            self.client.read(&message, connection);
        }
    }

    fn check(&self) {
        let handled = self.handled.lock().expect("no panic");
        let numbers: BTreeSet<_> = handled.iter().map(|(_, number)| number).collect();
        assert_eq!(numbers.len(), handled.len(), "{handled:?}: a push was handled twice");
    }

    /// The client comes back, and everything arrives.
    async fn finish(&mut self) {
        self.connect(true).await;
        self.receive(true).await;
        (0..TOPICS.len()).for_each(|topic| self.join(topic));
        for _ in 0..3 {
            self.deliver_all();
            self.receive(true).await;
        }
        self.ask();
        self.deliver_all();
        self.receive(true).await;
        self.check();
        assert!(self.client.kept.is_empty(), "{:?}: not known to be handled", self.client.kept);
        let handled = mem::take(&mut *self.handled.lock().expect("no panic"));
        assert_eq!(handled.len() as u64, self.client.pushes, "{handled:?}: a push was lost");
        for topic in TOPICS {
            let numbers = handled.iter().filter(|(of, _)| of == topic).map(|(_, number)| number);
            assert!(!self.is_ordered || numbers.is_sorted(), "{handled:?}: out of order");
        }
    }

    fn deliver_all(&mut self) {
        while self.connection.as_ref().is_some_and(|it| !it.on_the_wire.is_empty()) {
            self.deliver(0);
        }
    }
}

impl Client {
    fn read(&mut self, message: &Value, connection: &mut Connection) {
        let [_, reference, topic, event, payload] =
            message.as_array().expect("an array").as_slice()
        else {
            panic!("{message} is no message")
        };
        let topic = TOPICS.iter().position(|name| topic == name);
        match (reference.as_str(), event.as_str(), topic) {
            (Some("handled"), ..) => self.learn(&payload["response"]),
            (Some(reference), Some("phx_reply"), Some(topic)) => {
                assert_eq!(payload["status"], "ok", "{message}");
                let reference = reference.parse().expect("a number");
                if let Some((_, number, _)) = self.kept.remove(&reference) {
                    assert_eq!(payload["response"], number, "the reply to another push");
                }
                if self.joins[topic] == (reference, false) {
                    self.joined(topic, connection);
                }
            }
            other => panic!("{other:?}: nothing else is sent"),
        }
    }

    /// The server reports what it has handled.
    fn learn(&mut self, report: &Value) {
        assert!(report["resumed"] == true || self.connects == 1, "{report}");
        let ranges = report["refs"].as_array().expect("a list");
        self.kept.retain(|reference, _| {
            let contains = |range: &Value| {
                let [first, last] = [&range[0], &range[1]].map(|end| end.as_u64().expect("a ref"));
                (first..=last).contains(reference)
            };
            !ranges.iter().any(contains)
        });
    }

    /// A topic was joined: what may be missing is sent again.
    fn joined(&mut self, topic: usize, connection: &mut Connection) {
        let join = self.joins[topic].0;
        self.joins[topic].1 = true;
        for (reference, (of, number, last_join)) in &mut self.kept {
            if *of == topic && *last_join != join {
                *last_join = join;
                connection.send(join, *reference, topic, "push", &json!(number));
            }
        }
    }
}

impl Connection {
    fn send(&mut self, join: u64, reference: u64, topic: usize, event: &str, payload: &Value) {
        let topic = TOPICS[topic];
        let message = json!([join.to_string(), reference.to_string(), topic, event, payload]);
        self.on_the_wire.push_back(message.to_string());
    }

    /// Takes the next message from the wire, or any other where requests may overtake each other.
    fn take(&mut self, value: usize, is_ordered: bool) -> Option<String> {
        let at = if is_ordered || self.is_websocket { 0 } else { value };
        let at = at.checked_rem(self.on_the_wire.len())?;
        self.on_the_wire.remove(at)
    }
}
