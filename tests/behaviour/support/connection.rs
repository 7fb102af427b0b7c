//! One connection of a resumable session over either transport, by a client that tracks sequence
//! numbers. It takes messages in the notation of 2.0.0.

use std::collections::VecDeque;
use std::panic::Location;

use serde_json::{Value, json};

use super::longpoll::{JSON, NDJSON};
use super::raw_websocket::{BINARY, CLOSE, PING, PONG, TEXT, close, frame};
use super::{DEADLINE, LongPoll, RawWebSocket, Server, Transport, Version, base64, notation, soon};

pub(crate) struct Connection {
    version: Version,
    inner: Inner,
    /// Whether the server was asked for sequence numbers.
    numbered: bool,
    received: u64,
    /// The number of messages received.
    count: u64,
    /// The number of messages acknowledged by Pongs.
    acked: u64,
    refs: u32,
}

enum Inner {
    WebSocket(RawWebSocket),
    LongPoll { session: LongPoll, queue: VecDeque<String> },
}

/// A message received over either transport.
#[derive(Debug, PartialEq, Eq)]
enum Received {
    Text(String),
    Binary(Vec<u8>),
}

impl Connection {
    /// Connects with these parameters. If they include `received`, messages must be numbered.
    pub(crate) async fn open(server: &Server, transport: Transport, parameters: &str) -> Self {
        Self::with_version(Version::V2, server, transport, parameters).await
    }

    pub(crate) async fn with_version(
        version: Version,
        server: &Server,
        transport: Transport,
        parameters: &str,
    ) -> Self {
        let parameters = format!("{}&{parameters}", version.parameter());
        let inner = match transport {
            Transport::WebSocket => Inner::WebSocket(RawWebSocket::open(server, &parameters).await),
            Transport::LongPoll => {
                let session = LongPoll::open(server, &parameters).await;
                Inner::LongPoll { session, queue: VecDeque::new() }
            }
        };
        let received = parameters.split_once("received=").map(|(_, number)| {
            let digits = number.split('&').next().unwrap_or_default();
            digits.parse().expect("a number")
        });
        let numbered = received.is_some();
        let received = received.unwrap_or(0);
        Self { version, inner, numbered, received, count: 0, acked: 0, refs: 0 }
    }

    /// The last sequence number received.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    pub(crate) fn websocket(&mut self) -> &mut RawWebSocket {
        match &mut self.inner {
            Inner::WebSocket(socket) => socket,
            Inner::LongPoll { .. } => panic!("a long poll"),
        }
    }

    pub(crate) fn longpoll(&mut self) -> &mut LongPoll {
        match &mut self.inner {
            Inner::LongPoll { session, .. } => session,
            Inner::WebSocket(_) => panic!("a WebSocket"),
        }
    }

    pub(crate) async fn send(&mut self, message: &str) {
        self.send_all(&[message]).await;
    }

    /// Sends several messages, in one write if the transport allows.
    pub(crate) async fn send_all(&mut self, messages: &[&str]) {
        let messages: Vec<_> =
            messages.iter().map(|message| notation::outgoing(self.version, message)).collect();
        match &mut self.inner {
            Inner::WebSocket(socket) => {
                let frames = messages.iter().map(|text| frame(0x80 | TEXT, text.as_bytes()));
                socket.send_bytes(&frames.collect::<Vec<_>>().concat()).await;
            }
            Inner::LongPoll { session, .. } if self.version == Version::V1 => {
                for message in messages {
                    assert_eq!(session.post(JSON, &message).await, json!({"status": 200}));
                }
            }
            Inner::LongPoll { session, .. } => {
                let response = session.post(NDJSON, &messages.join("\n")).await;
                assert_eq!(response, json!({"status": 200}));
            }
        }
    }

    /// Expects this next message. In a numbered session, a number must stand in place of a null
    /// ref.
    #[track_caller]
    pub(crate) fn expect(&mut self, message: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        let got = self.recv();
        async move { assert_eq!(got.await, message, "{caller}") }
    }

    /// Expects this next binary message.
    #[track_caller]
    pub(crate) fn expect_binary(&mut self, bytes: &[u8]) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let message = self.next_soon(caller).await;
            assert_eq!(message, Some(Received::Binary(bytes.to_vec())), "{caller}");
            // A binary message has a number, but no room for it.
            self.received += u64::from(self.numbered);
        }
    }

    /// Receives the next message, with its number replaced by null.
    #[track_caller]
    pub(crate) fn recv(&mut self) -> impl Future<Output = String> {
        let caller = Location::caller();
        async move {
            match self.next_soon(caller).await {
                Some(Received::Text(text)) => {
                    self.count_text(&notation::incoming(self.version, &text), caller)
                }
                other => panic!("{caller}: expected a text, got {other:?}"),
            }
        }
    }

    fn count_text(&mut self, text: &str, caller: &Location<'_>) -> String {
        if !self.numbered {
            return text.to_owned();
        }
        // The ref is the second element. Only the end of a channel has a join_ref before it.
        let Some((number, start, rest)) = text.split_once(r#","s:"#).and_then(|(start, rest)| {
            let (number, rest) = rest.split_once('"')?;
            let is_ref = !start.contains(',');
            Some((number.parse::<u64>().ok().filter(|_| is_ref)?, start, rest))
        }) else {
            assert!(!text.starts_with("[null,null,"), "{caller}: no number: {text}");
            return text.to_owned();
        };
        assert!(number > self.received, "{caller}: after {}: {text}", self.received);
        self.received = number;
        format!("{start},null{rest}")
    }

    /// Joins a topic of `room:*` for the first time in this session.
    #[track_caller]
    pub(crate) fn join(&mut self, join_ref: &str, topic: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            self.begin_join(join_ref, topic).await;
            assert_eq!(self.recv().await, ok(join_ref, topic), "{caller}: the reply to the join");
            let joined = self.recv().await;
            let start = format!(r#"[null,null,"{topic}","joined","#);
            assert!(joined.starts_with(&start), "{caller}: {joined}");
        }
    }

    /// Rejoins a topic.
    #[track_caller]
    pub(crate) fn rejoin(&mut self, join_ref: &str, topic: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            self.begin_join(join_ref, topic).await;
            assert_eq!(self.recv().await, ok(join_ref, topic), "{caller}: the reply to the join");
        }
    }

    pub(crate) async fn begin_join(&mut self, join_ref: &str, topic: &str) {
        self.send(&format!(r#"["{join_ref}","{join_ref}","{topic}","phx_join",{{}}]"#)).await;
    }

    /// Joins a topic whose channel has just crashed or is about to crash, under the join_ref
    /// `"last"`. Retries until the join starts a new channel.
    #[track_caller]
    pub(crate) fn join_after_a_crash(&mut self, topic: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let joined = format!(r#"[null,null,"{topic}","joined","#);
            loop {
                let reference = self.next_ref();
                let join = format!(r#"["last","{reference}","{topic}","phx_join",{{}}]"#);
                self.send(&join).await;
                let reply = loop {
                    let got = self.recv().await;
                    if got.starts_with(&format!(r#"[null,"{reference}","#)) {
                        break got;
                    }
                };
                if reply != ok(&reference, topic) {
                    // The join arrived while the channel was about to crash.
                    assert!(reply.contains(r#""join crashed""#), "{caller}: {reply}");
                    continue;
                }
                let reference = self.next_ref();
                self.send(&format!(r#"["last","{reference}","{topic}","ping",{{}}]"#)).await;
                loop {
                    let got = self.recv().await;
                    if got.starts_with(&joined) {
                        assert_eq!(self.recv().await, ok(&reference, topic), "{caller}");
                        return;
                    }
                    if got.contains(&format!(r#""{reference}""#)) {
                        break;
                    }
                }
            }
        }
    }

    /// Receives messages up to this one.
    #[track_caller]
    pub(crate) fn skip_to(&mut self, message: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let mut skipped = Vec::new();
            loop {
                let next = tokio::time::timeout(DEADLINE, self.next_message()).await;
                let Ok(Some(Received::Text(text))) = next else {
                    panic!("{caller}: {next:?} after {skipped:?}");
                };
                let text = self.count_text(&notation::incoming(self.version, &text), caller);
                if text == message {
                    return;
                }
                skipped.push(text);
            }
        }
    }

    /// Expects the reply to a ping next: everything sent before has been handled, and nothing
    /// unexpected was received.
    #[track_caller]
    pub(crate) fn ping(&mut self, join_ref: &str, topic: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let reference = self.next_ref();
            self.send(&format!(r#"["{join_ref}","{reference}","{topic}","ping",{{}}]"#)).await;
            let got = self.recv().await;
            assert_eq!(got, ok(&reference, topic), "{caller}: the reply to a ping");
        }
    }

    /// Expects the reply to a heartbeat next: nothing unexpected was received.
    #[track_caller]
    pub(crate) fn heartbeat(&mut self) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let reference = self.next_ref();
            self.send(&format!(r#"[null,"{reference}","phoenix","heartbeat",{{}}]"#)).await;
            let got = self.recv().await;
            assert_eq!(got, ok(&reference, "phoenix"), "{caller}: the reply to a heartbeat");
        }
    }

    /// Acknowledges everything received so far: the second heartbeat proves receipt of everything
    /// sent before the reply to the first. With sequence numbers only the messages that have one are
    /// acknowledged, by the next connection.
    #[track_caller]
    pub(crate) fn acknowledge_all(&mut self) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            for _ in 0..2 {
                let reference = self.next_ref();
                self.send(&format!(r#"[null,"{reference}","phoenix","heartbeat",{{}}]"#)).await;
                assert_eq!(self.recv().await, ok(&reference, "phoenix"), "{caller}");
            }
        }
    }

    /// Answers Pings until everything received is acknowledged. Only for the first WebSocket of a
    /// session.
    pub(crate) async fn pong(&mut self) {
        while self.acked < self.count {
            let frame = soon(self.websocket().next()).await.expect("a Ping");
            assert_eq!(frame.opcode, PING, "{:?}", String::from_utf8_lossy(&frame.payload));
            self.answer_ping(&frame.payload).await;
        }
    }

    async fn answer_ping(&mut self, payload: &[u8]) {
        self.acked = u64::from_be_bytes(payload.try_into().expect("eight bytes"));
        self.websocket().send_bytes(&frame(0x80 | PONG, payload)).await;
    }

    /// Drops the connection without a close, and waits until the server has noticed the loss of a
    /// WebSocket. Unread messages are lost. Returns the last number received.
    pub(crate) async fn cut(self) -> u64 {
        if let Inner::WebSocket(socket) = self.inner {
            socket.hang_up().await;
        }
        self.received
    }

    /// Closes a WebSocket with code 1000, as clients do. Returns the last number received.
    pub(crate) async fn close(self) -> u64 {
        self.close_with(Some(1000)).await
    }

    /// Closes a WebSocket with this code or without one. Returns the last number received.
    pub(crate) async fn close_with(self, code: Option<u16>) -> u64 {
        let Inner::WebSocket(mut socket) = self.inner else { panic!("a long poll") };
        let without_code = || frame(0x80 | CLOSE, b"");
        socket.send_bytes(&code.map_or_else(without_code, |code| close(code, b""))).await;
        socket.hang_up().await;
        self.received
    }

    /// Reacts to the takeover of its session as a living client does.
    pub(crate) async fn yield_session(self) {
        match self.inner {
            Inner::WebSocket(mut socket) => {
                soon(async { while socket.next().await.expect("a close").opcode != CLOSE {} })
                    .await;
                socket.send_bytes(&close(1012, b"")).await;
                socket.hang_up().await;
            }
            Inner::LongPoll { mut session, .. } => {
                assert_eq!(session.poll().await, json!({"status": 500}));
            }
        }
    }

    fn next_ref(&mut self) -> String {
        self.refs += 1;
        format!("ref-{}", self.refs)
    }

    async fn next_soon(&mut self, caller: &Location<'_>) -> Option<Received> {
        let message = tokio::time::timeout(DEADLINE, self.next_message()).await;
        message.unwrap_or_else(|_| panic!("{caller}: still queue after {DEADLINE:?}"))
    }

    async fn next_message(&mut self) -> Option<Received> {
        loop {
            let message = match &mut self.inner {
                Inner::LongPoll { session, queue } => {
                    while queue.is_empty() {
                        let response = session.next().await;
                        assert!(
                            response["status"] == 200 || response["status"] == 204,
                            "{response}"
                        );
                        let messages = response["messages"].as_array().into_iter().flatten();
                        queue.extend(messages.filter_map(Value::as_str).map(str::to_owned));
                    }
                    let message = queue.pop_front()?;
                    if message.starts_with(['[', '{']) {
                        Received::Text(message)
                    } else {
                        Received::Binary(base64::decode(&message))
                    }
                }
                Inner::WebSocket(socket) => {
                    let frame = socket.next().await?;
                    match frame.opcode {
                        TEXT => Received::Text(String::from_utf8(frame.payload).ok()?),
                        BINARY => Received::Binary(frame.payload),
                        PING => {
                            self.answer_ping(&frame.payload).await;
                            continue;
                        }
                        opcode => panic!("a frame of opcode {opcode}: {:?}", frame.payload),
                    }
                }
            };
            self.count += 1;
            return Some(message);
        }
    }
}

/// An ok reply with an empty response, as encoded in a resumable session.
pub(crate) fn ok(reference: &str, topic: &str) -> String {
    format!(r#"[null,"{reference}","{topic}","phx_reply",{{"status":"ok","response":{{}}}}]"#)
}
