//! A client without a network, for tests of one's own channels.
//!
//! It is a third transport: the real session and the real channel tasks, and no sockets. It works
//! under paused time.
//!
//! ```
//! use serde_json::json;
//! use tower_channels::channel::Result;
//! use tower_channels::{Channel, Endpoint, Joined, Payload, JoinError, Reply, Socket};
//!
//! struct Room;
//!
//! impl Channel for Room {
//!     type Assigns = ();
//!     type Info = ();
//!
//!     async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>, JoinError> {
//!         Ok(Room.into())
//!     }
//!
//!     async fn handle_in(&mut self, event: &str, msg: Payload, socket: &Socket<Self>) -> Result<Reply> {
//!         socket.broadcast(event, msg);
//!         Ok(Reply::ack())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let endpoint = Endpoint::builder(|_| async { Ok(()) }).channel::<Room>("room:*").build();
//! let mut ann = tower_channels::test::connect(&endpoint, &[("name", "ann")]).await.unwrap();
//! let mut bob = tower_channels::test::connect(&endpoint, &[("name", "bob")]).await.unwrap();
//! ann.join("room:1", json!({})).await;
//! bob.join("room:1", json!({})).await;
//! assert_eq!(ann.push("room:1", "new_msg", json!("hi")).await, Reply::ack());
//! assert_eq!(bob.next_push().await, ("new_msg".into(), json!("hi").into()));
//! # }
//! ```
//!
//! A client that connects with a `session` can lose its connection and return, which is what
//! [`Channel::resume`](crate::Channel::resume) is for:
//!
//! ```
//! # use serde_json::json;
//! # use tower_channels::{Channel, Endpoint, Joined, Payload, JoinError, Reply, Socket};
//! # struct Room;
//! # impl Channel for Room {
//! #     type Assigns = ();
//! #     type Info = ();
//! #     async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>, JoinError> {
//! #         Ok(Room.into())
//! #     }
//! #     async fn resume(&mut self, _: Payload, _: &Socket<Self>) -> Result<Option<Payload>, JoinError> {
//! #         Ok(Some(json!("welcome back").into()))
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let endpoint = Endpoint::builder(|_| async { Ok(()) })
//!     .id(|()| Some("user:7".into()))
//!     .channel::<Room>("room:*")
//!     .build();
//! let session = [("session", "any-22-to-64-characters")];
//! let mut ann = tower_channels::test::connect(&endpoint, &session).await.unwrap();
//! ann.join("room:1", json!({})).await;
//!
//! ann.drop_connection();
//! endpoint.broadcast("room:1", "new_msg", json!("while you were away"));
//! ann.reconnect().await.unwrap();
//!
//! let answer = ann.join("room:1", json!({})).await;
//! assert_eq!(answer, Reply::ok(json!("welcome back")));
//! assert_eq!(ann.next_push().await, ("new_msg".into(), json!("while you were away").into()));
//! # }
//! ```

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tower_channels_transports::{Close, ConnectInfo, Inbound, Message, Session, outbox};

use crate::endpoint::Endpoint;
use crate::endpoint::Rejected;
use crate::payload::Payload;
use crate::reply::Reply;

/// Connects a client with these parameters. It speaks protocol 2.0.0 unless `vsn` says otherwise;
/// only 2.0.0 can be read by [`Client`].
///
/// With `session`, 22 to 64 characters of `A-Za-z0-9_-`, it asks for a session that is kept; a client
/// with a `received` of `"0"`, or any other number, reads numbers, too.
pub async fn connect<A: Send + Sync + 'static>(
    endpoint: &Endpoint<A>,
    params: &[(&str, &str)],
) -> Result<Client<A>, Rejected> {
    let mut all = Map::from_iter([("vsn".to_owned(), Value::from("2.0.0"))]);
    all.extend(params.iter().map(|&(name, value)| (name.to_owned(), Value::from(value))));
    let mut client = Client {
        endpoint: endpoint.clone(),
        params: all,
        connection: None,
        unread: VecDeque::new(),
        joined: HashMap::new(),
        last_ref: 0,
    };
    client.reconnect().await?;
    Ok(client)
}

/// A client without a network. Dropping it is a lost connection.
///
/// What comes is kept until it is asked for: an unexpected push stays visible. Whatever is awaited
/// and does not come within five seconds panics.
pub struct Client<A: Send + Sync + 'static> {
    endpoint: Endpoint<A>,
    params: Map<String, Value>,
    /// `None` once it is closed or lost.
    connection: Option<Connection>,
    unread: VecDeque<Event>,
    /// The join_ref of each topic.
    joined: HashMap<String, String>,
    last_ref: u64,
}

struct Connection {
    session: Box<dyn Session>,
    receiver: outbox::Receiver,
    /// The last number that was seen, if the client reads numbers.
    received: Option<u64>,
}

/// A message from the server, as [`Client::next_message`] returns it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Event {
    /// The join that it belongs to, if it says.
    pub join_ref: Option<String>,
    /// What it answers, if it is a reply.
    pub reference: Option<String>,
    /// Its topic.
    pub topic: String,
    /// Its event: `phx_reply` for a reply.
    pub event: String,
    /// What it carries; a binary reply's response without its status.
    pub payload: Payload,
    /// The status of a binary reply.
    status: Option<String>,
}

impl<A: Send + Sync + 'static> Client<A> {
    /// Joins a topic and returns the answer.
    pub async fn join(&mut self, topic: &str, payload: impl Into<Payload>) -> Reply {
        let reference = self.next_ref();
        self.joined.insert(topic.to_owned(), reference.clone());
        self.write(topic, "phx_join", &reference, &payload.into());
        self.reply_to(&reference).await
    }

    /// Pushes an event and returns the answer.
    pub async fn push(&mut self, topic: &str, event: &str, payload: impl Into<Payload>) -> Reply {
        let reference = self.send(topic, event, payload);
        self.reply_to(&reference).await
    }

    /// Pushes an event that will not be answered, or whose answer is awaited later with
    /// [`reply_to`](Self::reply_to): its ref is returned.
    pub fn send(&mut self, topic: &str, event: &str, payload: impl Into<Payload>) -> String {
        let reference = self.next_ref();
        self.write(topic, event, &reference, &payload.into());
        reference
    }

    /// Leaves a topic and returns the answer.
    pub async fn leave(&mut self, topic: &str) -> Reply {
        self.push(topic, "phx_leave", Payload::EMPTY).await
    }

    /// The answer to the push or join with this ref.
    pub async fn reply_to(&mut self, reference: &str) -> Reply {
        let is_reply = |event: &Event| {
            event.event == "phx_reply" && event.reference.as_deref() == Some(reference)
        };
        self.next(is_reply, "reply").await.into_reply()
    }

    /// The next event that is no reply, with its payload.
    pub async fn next_push(&mut self) -> (String, Payload) {
        let event = self.next(|event| event.event != "phx_reply", "push").await;
        (event.event, event.payload)
    }

    /// The next message of any kind.
    pub async fn next_message(&mut self) -> Event {
        self.next(|_| true, "message").await
    }

    /// Forgets everything that came and was not asked for, and says how much that was.
    pub fn discard(&mut self) -> usize {
        if let Some(connection) = &mut self.connection {
            let mut cx = Context::from_waker(Waker::noop());
            while let Poll::Ready(Ok(())) = connection.poll_receive(&mut cx, &mut self.unread) {}
        }
        self.unread.drain(..).count()
    }

    /// Why the server closed the connection, which must happen. [`reconnect`](Self::reconnect) opens
    /// another.
    pub async fn closed(&mut self) -> Close {
        loop {
            if let Err(close) = self.receive("close").await {
                self.drop_connection();
                return close;
            }
        }
    }

    /// Loses the connection without a word. What came before and was not asked for stays unread; a
    /// session that is kept sends the rest when its topic is joined again.
    pub fn drop_connection(&mut self) {
        let lost = self.connection.take();
        if let Some(received) = lost.and_then(|lost| lost.received) {
            self.params.insert("received".to_owned(), received.to_string().into());
        }
    }

    /// Connects again with the parameters of the first time, to the session that was kept if there is
    /// one. If there is a connection it is dropped before.
    ///
    /// As every client it has to join its topics again then: [`Channel::resume`] answers where the
    /// channel has lived on, and [`Channel::join`] where it has not.
    ///
    /// [`Channel::join`]: crate::Channel::join
    /// [`Channel::resume`]: crate::Channel::resume
    ///
    /// # Errors
    /// If `connect` refuses it this time.
    pub async fn reconnect(&mut self) -> Result<(), Rejected> {
        self.drop_connection();
        let info = ConnectInfo::in_memory(self.params.clone());
        let refused = |_| Rejected::reason("the endpoint refused the connection");
        let (session, receiver) = self.endpoint.connect(info).await.map_err(refused)?;
        let received = self.params.get("received").and_then(Value::as_str);
        let received = received.and_then(|number| number.parse().ok());
        self.connection = Some(Connection { session: Box::new(session), receiver, received });
        Ok(())
    }

    /// The first unread message that `wanted` takes; the others stay unread, in order.
    async fn next(&mut self, wanted: impl Fn(&Event) -> bool, what: &str) -> Event {
        loop {
            if let Some(at) = self.unread.iter().position(&wanted) {
                return self.unread.remove(at).expect("it was found there");
            }
            if let Err(close) = self.receive(what).await {
                panic!("awaited a {what}, but the connection closed: {close:?}");
            }
        }
    }

    /// Waits for at least one message.
    async fn receive(&mut self, what: &str) -> Result<(), Close> {
        let connection = self.connection.as_mut();
        let connection =
            connection.unwrap_or_else(|| panic!("awaited a {what} without connection"));
        let receive = poll_fn(|cx| connection.poll_receive(cx, &mut self.unread));
        let received = tokio::time::timeout(PATIENCE, receive).await;
        received.unwrap_or_else(|_| panic!("awaited a {what}; unread: {:?}", self.unread))
    }

    fn write(&mut self, topic: &str, event: &str, reference: &str, payload: &Payload) {
        let join_ref = self.joined.get(topic).map_or("", String::as_str);
        let Connection { session, receiver, .. } =
            self.connection.as_mut().expect("the connection is closed");
        let handled = if let Some(data) = payload.as_binary() {
            let texts = [join_ref, reference, topic, event];
            let lengths = texts.iter().map(|text| u8::try_from(text.len()).expect("short text"));
            let mut frame: Vec<u8> = std::iter::once(0).chain(lengths).collect();
            texts.iter().for_each(|text| frame.extend_from_slice(text.as_bytes()));
            frame.extend_from_slice(data);
            session.handle_in(Inbound::Binary(&frame))
        } else {
            let payload: Value = payload.parse().expect("a payload is JSON or binary");
            let join_ref = if join_ref.is_empty() { Value::Null } else { join_ref.into() };
            let frame = serde_json::json!([join_ref, reference, topic, event, payload]);
            session.handle_in(Inbound::Text(&frame.to_string()))
        };
        if let Err(close) = handled {
            receiver.close(close);
        }
    }

    fn next_ref(&mut self) -> String {
        self.last_ref += 1;
        self.last_ref.to_string()
    }
}

impl Connection {
    /// Reads all that waits. Ready with at least one message, or with the reason of the end.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        unread: &mut VecDeque<Event>,
    ) -> Poll<Result<(), Close>> {
        let mut batch = VecDeque::new();
        let taken = self.receiver.poll_take(cx, &mut batch);
        self.receiver.release(batch.iter().map(Message::cost).sum());
        self.receiver.read();
        for message in batch {
            let mut event = Event::decode(&message);
            if let Some(received) = &mut self.received {
                event.count(received);
            }
            unread.push_back(event);
        }
        taken
    }
}

impl Event {
    /// Takes the number of a numbered message, which stands in the place of its ref. A binary one has
    /// no such place, and its reader counts.
    fn count(&mut self, received: &mut u64) {
        let number = self.reference.as_deref().and_then(|text| text.strip_prefix("s:"));
        if let Some(number) = number.and_then(|number| number.parse().ok()) {
            *received = number;
            self.reference = None;
        } else if self.payload.as_binary().is_some() && self.event != "phx_reply" {
            *received += 1;
        }
    }

    /// Reads what the server wrote, which it wrote well.
    fn decode(message: &Message) -> Self {
        let decoded = if message.is_binary() {
            Self::binary(&message.to_bytes())
        } else {
            Self::text(&message.to_bytes())
        };
        decoded.unwrap_or_else(|| panic!("not of protocol 2.0.0: {message:?}"))
    }

    fn text(text: &[u8]) -> Option<Self> {
        type Five<'a> = (Option<String>, Option<String>, String, String, &'a RawValue);
        let (join_ref, reference, topic, event, payload): Five<'_> =
            serde_json::from_slice(text).ok()?;
        let payload = Payload::from_json_text(payload.get());
        Some(Self { join_ref, reference, topic, event, payload, status: None })
    }

    fn binary(frame: &[u8]) -> Option<Self> {
        let (kind, rest) = frame.split_first()?;
        let count = match kind {
            0 => 3,
            1 => 4,
            2 => 2,
            _ => return None,
        };
        let (lengths, mut rest) = rest.split_at_checked(count)?;
        let mut texts = Vec::new();
        for length in lengths {
            let (text, after) = rest.split_at_checked((*length).into())?;
            texts.push(String::from_utf8(text.to_vec()).ok()?);
            rest = after;
        }
        let payload = Payload::binary(rest.to_vec());
        let mut texts = texts.into_iter();
        let join_ref = if *kind == 2 { None } else { texts.next() };
        let reference = if *kind == 1 { texts.next() } else { None };
        let (topic, last) = (texts.next()?, texts.next()?);
        let (event, status) =
            if *kind == 1 { ("phx_reply".into(), Some(last)) } else { (last, None) };
        Some(Self { join_ref, reference, topic, event, payload, status })
    }

    fn into_reply(self) -> Reply {
        #[derive(Deserialize)]
        struct Body {
            status: String,
            response: Box<RawValue>,
        }
        let (status, response) = match self.status {
            Some(status) => (status, self.payload),
            None => {
                let body: Body = self.payload.parse().expect("a reply has a status and a response");
                (body.status, Payload::from_json_text(body.response.get()))
            }
        };
        if status == "ok" { Reply::Ok(response) } else { Reply::Error(response) }
    }
}

impl<A: Send + Sync + 'static> fmt::Debug for Client<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("unread", &self.unread).finish_non_exhaustive()
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
