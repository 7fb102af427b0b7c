//! [`Client`], the in-memory client.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::request::Parts;
use serde_json::{Map, Value};
use tower_channels_transports::{self as transports, Close, ConnectInfo, Inbound, Session, outbox};

use super::expected::Expected;
use super::message::Message;
use crate::endpoint::Endpoint;
use crate::endpoint::connect::{Rejected, RejectedSlot};
use crate::payload::Payload;
use crate::reply::Reply;

/// An in-memory client. Dropping it drops its connection.
///
/// Received messages are kept until a method asks for them, so an unexpected push stays visible.
/// Methods that wait for a message panic if it does not arrive within five seconds, and name what
/// came instead; [`timeout`](Self::timeout) sets another time.
pub struct Client<A: Send + Sync + 'static> {
    endpoint: Endpoint<A>,
    params: Map<String, Value>,
    /// The request of every connect.
    request: Parts,
    timeout: Duration,
    skips_presence: bool,
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
    pub(super) fn new(endpoint: Endpoint<A>, params: Map<String, Value>, request: Parts) -> Self {
        Self {
            endpoint,
            params,
            request,
            timeout: Duration::from_secs(5),
            skips_presence: false,
            connection: None,
            unread: VecDeque::new(),
            joined: HashMap::new(),
            last_ref: 0,
        }
    }

    /// Sets how long methods wait for a message. Default 5 s.
    pub fn timeout(&mut self, timeout: Duration) -> &mut Self {
        self.timeout = timeout;
        self
    }

    /// Lets [`next_push`](Self::next_push) pass over `presence_state` and `presence_diff`. The other
    /// methods find them.
    pub fn skip_presence(&mut self) -> &mut Self {
        self.skips_presence = true;
        self
    }

    /// Joins a topic and returns the reply.
    pub async fn join(&mut self, topic: &str, payload: impl Into<Payload>) -> Reply {
        let reference = self.next_ref();
        self.joined.insert(topic.to_owned(), reference.clone());
        self.write(topic, "phx_join", &reference, &payload.into());
        self.expect_reply(&reference).await
    }

    /// Pushes an event and returns the reply.
    pub async fn push(&mut self, topic: &str, event: &str, payload: impl Into<Payload>) -> Reply {
        let reference = self.send(topic, event, payload);
        self.expect_reply(&reference).await
    }

    /// Pushes an event without waiting for a reply, and returns its ref, which
    /// [`expect_reply`](Self::expect_reply) takes.
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
    pub async fn expect_reply(&mut self, reference: &str) -> Reply {
        let is_reply = |message: &Message| {
            !is_push(message) && message.reference.as_deref() == Some(reference)
        };
        self.next(is_reply, &format!("the reply to {reference:?}")).await.into_reply()
    }

    /// Waits for a push or broadcast on any topic, and returns its payload. Others that come before
    /// it stay unread.
    ///
    /// ```
    /// # async fn example<A: Send + Sync>(client: &mut tower_channels::test::Client<A>) {
    /// let payload = client.expect("new_msg").await;
    /// let payload = client.expect(|message: &tower_channels::test::Message| message.topic == "room:1").await;
    /// # }
    /// ```
    pub async fn expect(&mut self, expected: impl Expected) -> Payload {
        let description = Described(&expected).to_string();
        self.next(|message| is_push(message) && expected.matches(message), &description)
            .await
            .payload
    }

    /// Waits for a push or broadcast on this topic, and returns its payload. Others that come before
    /// it stay unread. The end of a channel is `phx_close` or, after a crash, `phx_error`.
    pub async fn expect_on(&mut self, topic: &str, expected: impl Expected) -> Payload {
        let description = format!("{} on {topic:?}", Described(&expected));
        let matches = |message: &Message| {
            is_push(message) && message.topic == topic && expected.matches(message)
        };
        self.next(matches, &description).await.payload
    }

    /// Waits for this long, and panics if such a push or broadcast is unread or arrives meanwhile.
    pub async fn refute(&mut self, unexpected: impl Expected, duration: Duration) {
        let matches = |message: &Message| is_push(message) && unexpected.matches(message);
        let until = tokio::time::Instant::now() + duration;
        loop {
            if let Some(message) = self.unread.iter().find(|message| matches(message)) {
                panic!("expected not to receive {}: {message:?}", Described(&unexpected));
            }
            let Some(connection) = &mut self.connection else {
                return tokio::time::sleep_until(until).await;
            };
            let receive = poll_fn(|cx| connection.poll_receive(cx, &mut self.unread));
            match tokio::time::timeout_at(until, receive).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return tokio::time::sleep_until(until).await,
                Err(_) => return,
            }
        }
    }

    /// Waits for the next message that is not a reply, and returns its event and payload.
    pub async fn next_push(&mut self) -> (String, Payload) {
        let skips_presence = self.skips_presence;
        let is_next =
            |message: &Message| is_push(message) && !(skips_presence && is_presence(message));
        let message = self.next(is_next, "a push").await;
        (message.event, message.payload)
    }

    /// Waits for the next message of any kind.
    pub async fn next_message(&mut self) -> Message {
        self.next(|_| true, "a message").await
    }

    /// Discards all unread messages, those of presence too, and returns their number.
    pub fn discard(&mut self) -> usize {
        if let Some(connection) = &mut self.connection {
            let mut cx = Context::from_waker(Waker::noop());
            while let Poll::Ready(Ok(())) = connection.poll_receive(&mut cx, &mut self.unread) {}
        }
        self.unread.drain(..).count()
    }

    /// Waits until the server closes the connection, and returns the reason.
    /// [`reconnect`](Self::reconnect) opens another connection.
    pub async fn expect_closed(&mut self) -> Close {
        loop {
            if let Err(close) = self.receive("the connection to be closed").await {
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
        let slot = Arc::new(RejectedSlot::default());
        let mut request = self.request.clone();
        request.extensions.insert(Arc::clone(&slot));
        let info = ConnectInfo::in_memory_with(self.params.clone(), &request);
        let (session, receiver) = match self.endpoint.acceptor().connect(info).await {
            Ok(connected) => connected,
            Err(rejected) => return Err(slot.lock().take().unwrap_or_else(|| rejected.into())),
        };
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
                let unread = &self.unread;
                panic!("expected {what}, but the connection closed: {close:?}; unread: {unread:?}");
            }
        }
    }

    /// Waits for at least one message.
    async fn receive(&mut self, what: &str) -> Result<(), Close> {
        let connection = self.connection.as_mut();
        let connection =
            connection.unwrap_or_else(|| panic!("expected {what}, but there is no connection"));
        let receive = poll_fn(|cx| connection.poll_receive(cx, &mut self.unread));
        let received = tokio::time::timeout(self.timeout, receive).await;
        received.unwrap_or_else(|_| panic!("expected {what}; unread: {:?}", self.unread))
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

fn is_push(message: &Message) -> bool {
    message.event != "phx_reply"
}

fn is_presence(message: &Message) -> bool {
    matches!(&*message.event, "presence_state" | "presence_diff")
}

/// Displays the description of an expected message.
struct Described<'a, E>(&'a E);

impl<E: Expected> fmt::Display for Described<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.describe(f)
    }
}
