//! [`Client`], the in-memory client.

mod reconnect;

use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::request::Parts;
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tower_channels_transports::Close;

use super::broadcasts::Broadcasts;
use super::connection::{Connection, Lost, Missing, receive};
use super::expected::{Described, Expected};
use super::message::Message;
use super::unread::Unread;
use crate::endpoint::Endpoint;
use crate::payload::Payload;
use crate::reply::Reply;

/// An in-memory client. Dropping it drops its connection.
///
/// Received messages are kept until a method asks for them, so an unexpected push stays visible.
/// Methods that wait for a message panic if it does not arrive within five seconds, or within another
/// [`timeout`](Self::timeout): with the line of the test, what was expected, and what came instead.
pub struct Client<A: Send + Sync + 'static> {
    endpoint: Endpoint<A>,
    params: Map<String, Value>,
    /// The request of every connect.
    request: Parts,
    timeout: Duration,
    skips_presence: bool,
    /// `None` once it is closed or dropped.
    connection: Option<Connection>,
    unread: Unread,
    broadcasts: Broadcasts,
    /// The join_ref of each topic.
    joined: HashMap<String, String>,
    last_ref: u64,
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
            unread: Unread::default(),
            broadcasts: Broadcasts::default(),
            joined: HashMap::new(),
            last_ref: 0,
        }
    }

    /// Sets how long a method waits for what it expects. Default 5 s.
    pub fn timeout(&mut self, timeout: Duration) -> &mut Self {
        self.timeout = timeout;
        self
    }

    /// Lets [`next_push`](Self::next_push) pass over `presence_state` and `presence_diff`. The other
    /// methods find them: see [`joins`](super::joins) and [`leaves`](super::leaves).
    pub fn skip_presence(&mut self) -> &mut Self {
        self.skips_presence = true;
        self
    }

    /// Joins a topic and returns the reply.
    #[track_caller]
    pub fn join(
        &mut self,
        topic: &str,
        payload: impl Into<Payload>,
    ) -> impl Future<Output = Reply> {
        let reference = self.send_join(topic, payload);
        self.reply(reference, Location::caller())
    }

    /// Joins a topic without waiting for the reply, and returns the ref.
    #[track_caller]
    pub(super) fn send_join(&mut self, topic: &str, payload: impl Into<Payload>) -> String {
        let reference = self.next_ref();
        self.joined.insert(topic.to_owned(), reference.clone());
        self.write(topic, "phx_join", &reference, &payload.into());
        reference
    }

    /// Pushes an event and returns the reply.
    #[track_caller]
    pub fn push(
        &mut self,
        topic: &str,
        event: &str,
        payload: impl Into<Payload>,
    ) -> impl Future<Output = Reply> {
        let reference = self.send(topic, event, payload);
        self.reply(reference, Location::caller())
    }

    /// Pushes an event without waiting for a reply, and returns its ref, which
    /// [`expect_reply`](Self::expect_reply) takes.
    #[track_caller]
    pub fn send(&mut self, topic: &str, event: &str, payload: impl Into<Payload>) -> String {
        let reference = self.next_ref();
        self.write(topic, event, &reference, &payload.into());
        reference
    }

    /// Leaves a topic and returns the reply.
    #[track_caller]
    pub fn leave(&mut self, topic: &str) -> impl Future<Output = Reply> {
        self.push(topic, "phx_leave", Payload::EMPTY)
    }

    /// Waits for the reply to the push or join with this ref.
    #[track_caller]
    pub fn expect_reply(&mut self, reference: &str) -> impl Future<Output = Reply> {
        self.reply(reference.to_owned(), Location::caller())
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
    #[track_caller]
    pub fn expect(&mut self, expected: impl Expected) -> impl Future<Output = Payload> {
        let caller = Location::caller();
        async move {
            let wanted = |message: &Message| message.is_push() && expected.matches(message);
            self.next(wanted, Described(&expected), caller).await.payload
        }
    }

    /// Waits for a push or broadcast on this topic, and returns its payload. Others that come before
    /// it stay unread. The end of a channel is `phx_close` or, after a crash, `phx_error`.
    #[track_caller]
    pub fn expect_on(
        &mut self,
        topic: &str,
        expected: impl Expected,
    ) -> impl Future<Output = Payload> {
        let caller = Location::caller();
        async move {
            let wanted = |message: &Message| {
                message.is_push() && message.topic == topic && expected.matches(message)
            };
            let what = format!("{} on {topic:?}", Described(&expected));
            self.next(wanted, what, caller).await.payload
        }
    }

    /// Waits for this long, and panics if such a push or broadcast is unread or arrives meanwhile.
    #[track_caller]
    pub fn refute(
        &mut self,
        unexpected: impl Expected,
        duration: Duration,
    ) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let is_it = |message: &Message| message.is_push() && unexpected.matches(message);
            let Self { connection, unread, .. } = self;
            let until = Instant::now() + duration;
            let mut is_open = true;
            while is_open {
                if let Some(message) = unread.find(is_it) {
                    let unexpected = Described(&unexpected);
                    panic!("{caller}: expected not to receive {unexpected}: {message}");
                }
                let received = timeout_at(until, receive(connection, unread)).await;
                let Ok(received) = received else { return };
                is_open = received.is_ok();
            }
            sleep_until(until).await;
        }
    }

    /// Subscribes the test to the broadcasts of a topic, for
    /// [`expect_broadcast`](Self::expect_broadcast). The client need not join it.
    pub fn subscribe(&mut self, topic: &str) -> &mut Self {
        self.broadcasts.subscribe(self.endpoint.pubsub(), topic);
        self
    }

    /// Waits for a broadcast on a topic that the test has [subscribed](Self::subscribe) to, and returns
    /// its payload: as it was broadcast, whatever [`Channel::handle_out`] makes of it. Others that come
    /// before it stay unread.
    ///
    /// # Panics
    /// Also if the test has not subscribed to the topic.
    ///
    /// [`Channel::handle_out`]: crate::Channel::handle_out
    #[track_caller]
    pub fn expect_broadcast(
        &mut self,
        topic: &str,
        expected: impl Expected,
    ) -> impl Future<Output = Payload> {
        let caller = Location::caller();
        async move {
            let topic_of_test = self.broadcasts.get_mut(topic);
            let Some(subscribed) = topic_of_test else {
                panic!("{caller}: `subscribe({topic:?})` must precede `expect_broadcast`");
            };
            let found = timeout(self.timeout, async {
                loop {
                    if let Some(message) = subscribed.unread.take(|it| expected.matches(it)) {
                        return message;
                    }
                    subscribed.receive().await;
                }
            });
            let Ok(message) = found.await else {
                let (expected, unread) = (Described(&expected), &subscribed.unread);
                panic!("{caller}: expected the broadcast of {expected} on {topic:?}; {unread}");
            };
            message.payload
        }
    }

    /// Waits for the next message that is not a reply, and returns its event and payload.
    #[track_caller]
    pub fn next_push(&mut self) -> impl Future<Output = (String, Payload)> {
        let (caller, skips_presence) = (Location::caller(), self.skips_presence);
        async move {
            let is_next = |message: &Message| {
                message.is_push() && !(skips_presence && message.is_of_presence())
            };
            let message = self.next(is_next, "a push", caller).await;
            (message.event, message.payload)
        }
    }

    /// Waits for the next message of any kind.
    #[track_caller]
    pub fn next_message(&mut self) -> impl Future<Output = Message> {
        self.next(|_| true, "a message", Location::caller())
    }

    /// Discards all unread messages, those of presence too, and returns their number.
    pub fn discard(&mut self) -> usize {
        if let Some(connection) = &mut self.connection {
            let mut cx = Context::from_waker(Waker::noop());
            while let Poll::Ready(Ok(())) = connection.poll_receive(&mut cx, &mut self.unread) {}
        }
        self.unread.discard()
    }

    /// Takes all messages that are unread or waiting, and the reason if the connection is closed. Ready if there is any
    /// of these.
    #[cfg(feature = "unstable-internals")]
    pub(super) fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<(Vec<Message>, Option<Close>)> {
        let mut closed = None;
        if let Some(connection) = &mut self.connection {
            closed = loop {
                match connection.poll_receive(cx, &mut self.unread) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(close)) => break Some(close),
                    Poll::Pending => break None,
                }
            };
        }
        let messages = self.unread.take_all();
        if messages.is_empty() && closed.is_none() {
            return Poll::Pending;
        }
        Poll::Ready((messages, closed))
    }

    /// Waits until the server closes the connection, and returns the reason.
    /// [`reconnect`](Self::reconnect) opens another connection.
    #[track_caller]
    pub fn expect_closed(&mut self) -> impl Future<Output = Close> {
        let caller = Location::caller();
        async move {
            let Self { connection, unread, .. } = self;
            let closed = timeout(self.timeout, async {
                loop {
                    if let Err(lost) = receive(connection, unread).await {
                        return lost;
                    }
                }
            });
            match closed.await {
                Ok(Lost::Closed(close)) => {
                    self.drop_connection();
                    close
                }
                Ok(Lost::Absent) => panic!("{caller}: there is no connection to be closed"),
                Err(_) => panic!("{caller}: expected the connection to be closed; {unread}"),
            }
        }
    }

    /// Waits for the reply to the push or join with this ref.
    async fn reply(&mut self, reference: String, caller: &Location<'_>) -> Reply {
        let is_reply = |message: &Message| {
            !message.is_push() && message.reference.as_ref() == Some(&reference)
        };
        let what = format!("the reply to {reference:?}");
        self.next(is_reply, what, caller).await.into_reply()
    }

    /// Waits for the first message that is wanted. The others stay unread, in order. Panics with the line
    /// of the test if it does not come.
    async fn next(
        &mut self,
        wanted: impl Fn(&Message) -> bool,
        what: impl fmt::Display,
        caller: &Location<'_>,
    ) -> Message {
        let Self { connection, unread, .. } = self;
        let found = timeout(self.timeout, async {
            loop {
                if let Some(message) = unread.take(&wanted) {
                    return Ok(message);
                }
                receive(connection, unread).await?;
            }
        });
        let lost = match found.await {
            Ok(Ok(message)) => return message,
            Ok(Err(lost)) => Some(lost),
            Err(_) => None,
        };
        panic!("{caller}: expected {what}{}", Missing { lost, unread });
    }

    #[track_caller]
    fn write(&mut self, topic: &str, event: &str, reference: &str, payload: &Payload) {
        let join_ref = self.joined.get(topic).map(String::as_str);
        let connection = self.connection.as_mut().expect("a connection");
        connection.send(join_ref, reference, topic, event, payload);
    }

    fn next_ref(&mut self) -> String {
        self.last_ref += 1;
        self.last_ref.to_string()
    }
}

impl<A: Send + Sync + 'static> fmt::Debug for Client<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("unread", &self.unread).finish_non_exhaustive()
    }
}
