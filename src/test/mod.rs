//! An in-memory client, for tests of an application's channels.
//!
//! It is a transport of its own: the session and the channel tasks are the real ones, only the
//! network is missing. It works with paused time. Requires the feature `test-util`.
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
//! A client that connects with the parameter `session` can lose its connection and resume its
//! channels, see [`Channel::resume`](crate::Channel::resume):
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
//! let session = [("session", "any-20-to-64-characters")];
//! let mut ann = tower_channels::test::connect(&endpoint, &session).await.unwrap();
//! ann.join("room:1", json!({})).await;
//!
//! ann.drop_connection();
//! endpoint.broadcast("room:1", "new_msg", json!("while you were away"));
//! ann.reconnect().await.unwrap();
//!
//! let reply = ann.join("room:1", json!({})).await;
//! assert_eq!(reply, Reply::ok(json!("welcome back")));
//! assert_eq!(ann.next_push().await, ("new_msg".into(), json!("while you were away").into()));
//! # }
//! ```

mod message;

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde_json::{Map, Value};
use tower_channels_transports::{
    self as transports, Close, ConnectError, ConnectInfo, Inbound, Rejected, Session, outbox,
};

pub use self::message::Message;
use crate::endpoint::Endpoint;
use crate::payload::Payload;
use crate::reply::Reply;

/// Connects a client with these connect parameters. It uses protocol 2.0.0, the only version that
/// [`Client`] decodes.
///
/// With the parameter `session`, 20 to 64 characters of `A-Za-z0-9_-`, the session is resumable.
/// With `received` as well, such as `"0"`, the client also tracks sequence numbers.
///
/// # Errors
/// If the endpoint rejects the client.
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

/// An in-memory client. Dropping it drops its connection.
///
/// Received messages are kept until a method asks for them, so an unexpected push stays visible.
/// Methods that wait for a message panic if it does not arrive within five seconds.
pub struct Client<A: Send + Sync + 'static> {
    endpoint: Endpoint<A>,
    params: Map<String, Value>,
    /// `None` once it is closed or dropped.
    connection: Option<Connection>,
    unread: VecDeque<Message>,
    /// The join_ref of each topic.
    joined: HashMap<String, String>,
    last_ref: u64,
}

struct Connection {
    session: Box<dyn Session>,
    receiver: outbox::Receiver,
    /// The last sequence number received, if the client tracks them.
    received: Option<u64>,
}

impl<A: Send + Sync + 'static> Client<A> {
    /// Joins a topic and returns the reply.
    pub async fn join(&mut self, topic: &str, payload: impl Into<Payload>) -> Reply {
        let reference = self.next_ref();
        self.joined.insert(topic.to_owned(), reference.clone());
        self.write(topic, "phx_join", &reference, &payload.into());
        self.reply_to(&reference).await
    }

    /// Pushes an event and returns the reply.
    pub async fn push(&mut self, topic: &str, event: &str, payload: impl Into<Payload>) -> Reply {
        let reference = self.send(topic, event, payload);
        self.reply_to(&reference).await
    }

    /// Pushes an event without waiting for a reply, and returns its ref, which
    /// [`reply_to`](Self::reply_to) takes.
    pub fn send(&mut self, topic: &str, event: &str, payload: impl Into<Payload>) -> String {
        let reference = self.next_ref();
        self.write(topic, event, &reference, &payload.into());
        reference
    }

    /// Leaves a topic and returns the reply.
    pub async fn leave(&mut self, topic: &str) -> Reply {
        self.push(topic, "phx_leave", Payload::EMPTY).await
    }

    /// Waits for the reply to the push or join with this ref.
    pub async fn reply_to(&mut self, reference: &str) -> Reply {
        let is_reply = |message: &Message| {
            message.event == "phx_reply" && message.reference.as_deref() == Some(reference)
        };
        self.next(is_reply, "reply").await.into_reply()
    }

    /// Waits for the next message that is not a reply, and returns its event and payload.
    pub async fn next_push(&mut self) -> (String, Payload) {
        let message = self.next(|message| message.event != "phx_reply", "push").await;
        (message.event, message.payload)
    }

    /// Waits for the next message of any kind.
    pub async fn next_message(&mut self) -> Message {
        self.next(|_| true, "message").await
    }

    /// Discards all unread messages and returns their number.
    pub fn discard(&mut self) -> usize {
        if let Some(connection) = &mut self.connection {
            let mut cx = Context::from_waker(Waker::noop());
            while let Poll::Ready(Ok(())) = connection.poll_receive(&mut cx, &mut self.unread) {}
        }
        self.unread.drain(..).count()
    }

    /// Waits until the server closes the connection, and returns the reason.
    /// [`reconnect`](Self::reconnect) opens another connection.
    pub async fn closed(&mut self) -> Close {
        loop {
            if let Err(close) = self.receive("close").await {
                self.drop_connection();
                return close;
            }
        }
    }

    /// Drops the connection, as a network failure would. Messages that were received stay unread; a
    /// resumable session sends the rest when their topic is rejoined.
    pub fn drop_connection(&mut self) {
        let lost = self.connection.take();
        if let Some(received) = lost.and_then(|lost| lost.received) {
            self.params.insert("received".to_owned(), received.to_string().into());
        }
    }

    /// Closes the connection, as a page that goes away does. A resumable session outlives it as it
    /// outlives [`drop_connection`](Self::drop_connection); its presence leaves sooner, see
    /// [`PresenceConfig::leave_grace`](crate::PresenceConfig::leave_grace).
    pub fn close_connection(&mut self) {
        if let Some(connection) = &self.connection {
            connection.receiver.close(Close::Normal);
        }
        self.drop_connection();
    }

    /// Connects again with the same parameters, after dropping the current connection if there is
    /// one. A resumable session is resumed.
    ///
    /// As with any client, topics must then be rejoined: a channel that is still alive answers with
    /// [`Channel::resume`], any other with [`Channel::join`].
    ///
    /// [`Channel::join`]: crate::Channel::join
    /// [`Channel::resume`]: crate::Channel::resume
    ///
    /// # Errors
    /// If the endpoint rejects the client.
    pub async fn reconnect(&mut self) -> Result<(), Rejected> {
        self.drop_connection();
        let info = ConnectInfo::in_memory(self.params.clone());
        let (session, receiver) =
            self.endpoint.acceptor().connect(info).await.map_err(ConnectError::into_rejected)?;
        let received = self.params.get("received").and_then(Value::as_str);
        let received = received.and_then(|number| number.parse().ok());
        self.connection = Some(Connection { session: Box::new(session), receiver, received });
        Ok(())
    }

    /// Waits for the first message that `wanted` accepts. The others stay unread, in order.
    async fn next(&mut self, wanted: impl Fn(&Message) -> bool, what: &str) -> Message {
        loop {
            let found = self.unread.iter().position(&wanted);
            if let Some(message) = found.and_then(|at| self.unread.remove(at)) {
                return message;
            }
            if let Err(close) = self.receive(what).await {
                panic!("expected a {what}, but the connection closed: {close:?}");
            }
        }
    }

    /// Waits for at least one message.
    async fn receive(&mut self, what: &str) -> Result<(), Close> {
        let connection = self.connection.as_mut();
        let connection =
            connection.unwrap_or_else(|| panic!("expected a {what}, but there is no connection"));
        let receive = poll_fn(|cx| connection.poll_receive(cx, &mut self.unread));
        let received = tokio::time::timeout(TIMEOUT, receive).await;
        received.unwrap_or_else(|_| panic!("expected a {what}; unread: {:?}", self.unread))
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
    /// Receives all that waits. Ready with at least one message, or with the close reason.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        unread: &mut VecDeque<Message>,
    ) -> Poll<Result<(), Close>> {
        let mut batch = VecDeque::new();
        let taken = self.receiver.poll_take(cx, &mut batch);
        self.receiver.release(batch.iter().map(transports::Message::cost).sum());
        self.receiver.read();
        for message in batch {
            let mut message = Message::decode(&message);
            if let Some(received) = &mut self.received {
                message.take_number(received);
            }
            unread.push_back(message);
        }
        taken
    }
}

impl<A: Send + Sync + 'static> fmt::Debug for Client<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("unread", &self.unread).finish_non_exhaustive()
    }
}

/// How long a method waits for a message.
const TIMEOUT: Duration = Duration::from_secs(5);
