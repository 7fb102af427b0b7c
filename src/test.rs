//! A client without a network, for tests of one's own channels.
//!
//! It is a third transport: the real session and the real channel tasks, and no sockets. It works
//! under paused time.
//!
//! ```
//! use serde_json::json;
//! use tower_channels::{Channel, Endpoint, Joined, Payload, Refused, Reply, Result, Socket};
//!
//! struct Room;
//!
//! impl Channel for Room {
//!     type Assigns = ();
//!     type Info = ();
//!
//!     async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>, Refused> {
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

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tower_channels_transports::{Close, ConnectInfo, Drain, Inbound, Message, Session as _};

use crate::endpoint::Endpoint;
use crate::payload::Payload;
use crate::reply::{Refused, Reply};
use crate::socket::SocketSession;

/// Connects a client with these parameters. It speaks protocol 2.0.0 unless `vsn` says otherwise;
/// only 2.0.0 can be read by [`Client`].
pub async fn connect<A: Send + Sync + 'static>(
    endpoint: &Endpoint<A>,
    params: &[(&str, &str)],
) -> Result<Client<A>, Refused> {
    let mut all = Map::from_iter([("vsn".to_owned(), Value::from("2.0.0"))]);
    all.extend(params.iter().map(|&(name, value)| (name.to_owned(), Value::from(value))));
    let refused = |_| Refused::reason("the endpoint refused the connection");
    let (session, drain) = endpoint.connect(ConnectInfo::in_memory(all)).await.map_err(refused)?;
    Ok(Client {
        session: Some(session),
        drain,
        batch: VecDeque::new(),
        unread: VecDeque::new(),
        joined: HashMap::new(),
        last_ref: 0,
    })
}

/// A client without a network. Dropping it is a lost connection.
///
/// What comes is kept until it is asked for: an unexpected push stays visible. Whatever is awaited
/// and does not come within five seconds panics.
pub struct Client<A> {
    /// `None` once the connection is closed.
    session: Option<SocketSession<A>>,
    drain: Drain,
    /// Taken from the drain and not yet decoded.
    batch: VecDeque<Message>,
    unread: VecDeque<Event>,
    /// The join_ref of each topic.
    joined: HashMap<String, String>,
    last_ref: u64,
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
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Ok(())) = self.drain.poll_take(&mut cx, &mut self.batch) {}
        self.drain.release(self.batch.iter().map(Message::cost).sum());
        self.batch.drain(..).count() + self.unread.drain(..).count()
    }

    /// Why the server closed the connection, which must happen.
    pub async fn closed(&mut self) -> Close {
        loop {
            if let Err(close) = self.receive("close").await {
                self.session = None;
                return close;
            }
        }
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
        let take = poll_fn(|cx| self.drain.poll_take(cx, &mut self.batch));
        let taken = tokio::time::timeout(PATIENCE, take).await;
        taken.unwrap_or_else(|_| panic!("awaited a {what}; unread: {:?}", self.unread))?;
        for message in self.batch.drain(..) {
            self.drain.release(message.cost());
            self.unread.push_back(Event::decode(&message));
        }
        Ok(())
    }

    fn write(&mut self, topic: &str, event: &str, reference: &str, payload: &Payload) {
        let join_ref = self.joined.get(topic).map_or("", String::as_str);
        let session = self.session.as_mut().expect("the connection is closed");
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
            self.drain.close(close);
        }
    }

    fn next_ref(&mut self) -> String {
        self.last_ref += 1;
        self.last_ref.to_string()
    }
}

impl Event {
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
        struct Body<'a> {
            status: String,
            #[serde(borrow)]
            response: &'a RawValue,
        }
        let (status, response) = match self.status {
            Some(status) => (status, self.payload),
            None => {
                let body: Body<'_> =
                    self.payload.parse().expect("a reply has a status and a response");
                (body.status, Payload::from_json_text(body.response.get()))
            }
        };
        if status == "ok" { Reply::Ok(response) } else { Reply::Error(response) }
    }
}

impl<A> fmt::Debug for Client<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("unread", &self.unread).finish_non_exhaustive()
    }
}

const PATIENCE: Duration = Duration::from_secs(5);
