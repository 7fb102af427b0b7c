//! One connection of a kept session, over either transport, by a client that counts what it receives.
//! It is spoken to in the notation of 2.0.0.

use std::collections::VecDeque;
use std::panic::Location;

use serde_json::{Value, json};

use super::longpoll::{JSON, NDJSON};
use super::raw_websocket::{BINARY, CLOSE, PING, PONG, TEXT, close, frame};
use super::{DEADLINE, LongPoll, RawWebSocket, Server, Transport, Version, base64, notation, soon};

pub(crate) struct Line {
    version: Version,
    link: Link,
    /// Whether it was told to number what it sends.
    numbered: bool,
    received: u64,
    /// How many messages have come.
    count: u64,
    /// How many of them a Pong has acknowledged.
    ponged: u64,
    beats: u32,
}

enum Link {
    WebSocket(RawWebSocket),
    LongPoll { session: LongPoll, waiting: VecDeque<String> },
}

/// A message as it came over either transport.
#[derive(Debug, PartialEq, Eq)]
enum Arrival {
    Text(String),
    Binary(Vec<u8>),
}

impl Line {
    /// Connects with these parameters; with `received` among them numbers are expected.
    pub(crate) async fn open(server: &Server, transport: Transport, parameters: &str) -> Self {
        Self::of_version(Version::V2, server, transport, parameters).await
    }

    pub(crate) async fn of_version(
        version: Version,
        server: &Server,
        transport: Transport,
        parameters: &str,
    ) -> Self {
        let parameters = format!("{}&{parameters}", version.parameter());
        let link = match transport {
            Transport::WebSocket => Link::WebSocket(RawWebSocket::open(server, &parameters).await),
            Transport::LongPoll => {
                let session = LongPoll::open(server, &parameters).await;
                Link::LongPoll { session, waiting: VecDeque::new() }
            }
        };
        let received = parameters.split_once("received=").map(|(_, number)| {
            let digits = number.split('&').next().unwrap_or_default();
            digits.parse().expect("a number")
        });
        let numbered = received.is_some();
        let received = received.unwrap_or(0);
        Self { version, link, numbered, received, count: 0, ponged: 0, beats: 0 }
    }

    /// The newest number.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    pub(crate) fn websocket(&mut self) -> &mut RawWebSocket {
        match &mut self.link {
            Link::WebSocket(socket) => socket,
            Link::LongPoll { .. } => panic!("a long poll"),
        }
    }

    pub(crate) fn longpoll(&mut self) -> &mut LongPoll {
        match &mut self.link {
            Link::LongPoll { session, .. } => session,
            Link::WebSocket(_) => panic!("a WebSocket"),
        }
    }

    pub(crate) async fn send(&mut self, message: &str) {
        self.send_all(&[message]).await;
    }

    /// Sends several messages, at once where the transport can.
    pub(crate) async fn send_all(&mut self, messages: &[&str]) {
        let messages: Vec<_> =
            messages.iter().map(|message| notation::outgoing(self.version, message)).collect();
        match &mut self.link {
            Link::WebSocket(socket) => {
                let frames = messages.iter().map(|text| frame(0x80 | TEXT, text.as_bytes()));
                socket.send_bytes(&frames.collect::<Vec<_>>().concat()).await;
            }
            Link::LongPoll { session, .. } if self.version == Version::V1 => {
                for message in messages {
                    assert_eq!(session.post(JSON, &message).await, json!({"status": 200}));
                }
            }
            Link::LongPoll { session, .. } => {
                let answer = session.post(NDJSON, &messages.join("\n")).await;
                assert_eq!(answer, json!({"status": 200}));
            }
        }
    }

    /// The next message is this. Where it has a null ref, a number is expected if there are any.
    #[track_caller]
    pub(crate) fn expect(&mut self, message: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        let got = self.recv();
        async move { assert_eq!(got.await, message, "{caller}") }
    }

    /// The next message is binary, and this.
    #[track_caller]
    pub(crate) fn expect_binary(&mut self, bytes: &[u8]) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let arrival = self.soon_arrival(caller).await;
            assert_eq!(arrival, Some(Arrival::Binary(bytes.to_vec())), "{caller}");
            // A binary message has no place for its number.
            self.received += u64::from(self.numbered);
        }
    }

    /// The next message, with null for its number.
    #[track_caller]
    pub(crate) fn recv(&mut self) -> impl Future<Output = String> {
        let caller = Location::caller();
        async move {
            match self.soon_arrival(caller).await {
                Some(Arrival::Text(text)) => {
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
        let Some((number, rest)) = text.strip_prefix(r#"[null,"s:"#).and_then(|rest| {
            let (number, rest) = rest.split_once('"')?;
            Some((number.parse::<u64>().ok()?, rest))
        }) else {
            assert!(!text.starts_with("[null,null,"), "{caller}: no number: {text}");
            return text.to_owned();
        };
        assert!(number > self.received, "{caller}: after {}: {text}", self.received);
        self.received = number;
        format!("[null,null{rest}")
    }

    /// Joins a topic of `room:*` that is not joined yet.
    #[track_caller]
    pub(crate) fn join(&mut self, join_ref: &str, topic: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            self.begin_join(join_ref, topic).await;
            assert_eq!(self.recv().await, ok(join_ref, topic), "{caller}: the reply of the join");
            let joined = self.recv().await;
            let start = format!(r#"[null,null,"{topic}","joined","#);
            assert!(joined.starts_with(&start), "{caller}: {joined}");
        }
    }

    /// Joins a topic that is joined already.
    #[track_caller]
    pub(crate) fn rejoin(&mut self, join_ref: &str, topic: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            self.begin_join(join_ref, topic).await;
            assert_eq!(self.recv().await, ok(join_ref, topic), "{caller}: the reply of the join");
        }
    }

    pub(crate) async fn begin_join(&mut self, join_ref: &str, topic: &str) {
        self.send(&format!(r#"["{join_ref}","{join_ref}","{topic}","phx_join",{{}}]"#)).await;
    }

    /// Joins a topic whose channel has crashed a moment ago or will in the next one: until a join is
    /// an ordinary one, under the join_ref `"last"`.
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
                    // It came while the channel was about to crash.
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

    /// Reads what comes, up to this message.
    #[track_caller]
    pub(crate) fn skip_to(&mut self, message: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let mut skipped = Vec::new();
            loop {
                let arrival = tokio::time::timeout(DEADLINE, self.arrival()).await;
                let Ok(Some(Arrival::Text(text))) = arrival else {
                    panic!("{caller}: {arrival:?} after {skipped:?}");
                };
                let text = self.count_text(&notation::incoming(self.version, &text), caller);
                if text == message {
                    return;
                }
                skipped.push(text);
            }
        }
    }

    /// Everything sent to this channel before has been handled, and no message is left unexpected.
    #[track_caller]
    pub(crate) fn ping(&mut self, join_ref: &str, topic: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let reference = self.next_ref();
            self.send(&format!(r#"["{join_ref}","{reference}","{topic}","ping",{{}}]"#)).await;
            let got = self.recv().await;
            assert_eq!(got, ok(&reference, topic), "{caller}: the reply of a ping");
        }
    }

    /// No message is left unexpected: a heartbeat's reply comes next.
    #[track_caller]
    pub(crate) fn heartbeat(&mut self) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            let reference = self.next_ref();
            self.send(&format!(r#"[null,"{reference}","phoenix","heartbeat",{{}}]"#)).await;
            let got = self.recv().await;
            assert_eq!(got, ok(&reference, "phoenix"), "{caller}: the reply of a heartbeat");
        }
    }

    /// Lets the server know that everything has arrived: the second heartbeat proves all that came
    /// before the reply to the first.
    #[track_caller]
    pub(crate) fn rejoin_deadline(&mut self) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            for _ in 0..2 {
                let reference = self.next_ref();
                self.send(&format!(r#"[null,"{reference}","phoenix","heartbeat",{{}}]"#)).await;
                assert_eq!(self.recv().await, ok(&reference, "phoenix"), "{caller}");
            }
        }
    }

    /// Answers the Pings of a session's first WebSocket until all that has come is acknowledged.
    pub(crate) async fn pong(&mut self) {
        while self.ponged < self.count {
            let frame = soon(self.websocket().next()).await.expect("a Ping");
            assert_eq!(frame.opcode, PING, "{:?}", String::from_utf8_lossy(&frame.payload));
            self.answer_ping(&frame.payload).await;
        }
    }

    async fn answer_ping(&mut self, payload: &[u8]) {
        self.ponged = u64::from_be_bytes(payload.try_into().expect("eight bytes"));
        self.websocket().send_bytes(&frame(0x80 | PONG, payload)).await;
    }

    /// The connection is gone without a word, and a WebSocket's server has noticed. What it had not
    /// read is lost.
    pub(crate) async fn cut(self) -> u64 {
        if let Link::WebSocket(socket) = self.link {
            socket.hang_up().await;
        }
        self.received
    }

    /// Closes a WebSocket as clients do.
    pub(crate) async fn close(self) -> u64 {
        let Link::WebSocket(mut socket) = self.link else { panic!("a long poll") };
        socket.send_bytes(&close(1000, b"")).await;
        socket.hang_up().await;
        self.received
    }

    /// Finds that another connection has taken the session over, as a client does that is still there.
    pub(crate) async fn give_way(self) {
        match self.link {
            Link::WebSocket(mut socket) => {
                soon(async { while socket.next().await.expect("a close").opcode != CLOSE {} })
                    .await;
                socket.send_bytes(&close(1012, b"")).await;
                socket.hang_up().await;
            }
            Link::LongPoll { mut session, .. } => {
                assert_eq!(session.poll().await, json!({"status": 500}));
            }
        }
    }

    fn next_ref(&mut self) -> String {
        self.beats += 1;
        format!("line-{}", self.beats)
    }

    async fn soon_arrival(&mut self, caller: &Location<'_>) -> Option<Arrival> {
        let arrival = tokio::time::timeout(DEADLINE, self.arrival()).await;
        arrival.unwrap_or_else(|_| panic!("{caller}: still waiting after {DEADLINE:?}"))
    }

    async fn arrival(&mut self) -> Option<Arrival> {
        loop {
            let arrival = match &mut self.link {
                Link::LongPoll { session, waiting } => {
                    while waiting.is_empty() {
                        let answer = session.next().await;
                        assert!(answer["status"] == 200 || answer["status"] == 204, "{answer}");
                        let messages = answer["messages"].as_array().into_iter().flatten();
                        waiting.extend(messages.filter_map(Value::as_str).map(str::to_owned));
                    }
                    let message = waiting.pop_front()?;
                    if message.starts_with(['[', '{']) {
                        Arrival::Text(message)
                    } else {
                        Arrival::Binary(base64::decode(&message))
                    }
                }
                Link::WebSocket(socket) => {
                    let frame = socket.next().await?;
                    match frame.opcode {
                        TEXT => Arrival::Text(String::from_utf8(frame.payload).ok()?),
                        BINARY => Arrival::Binary(frame.payload),
                        PING => {
                            self.answer_ping(&frame.payload).await;
                            continue;
                        }
                        opcode => panic!("a frame of opcode {opcode}: {:?}", frame.payload),
                    }
                }
            };
            self.count += 1;
            return Some(arrival);
        }
    }
}

/// A reply without a response, as a kept session spells it.
pub(crate) fn ok(reference: &str, topic: &str) -> String {
    format!(r#"[null,"{reference}","{topic}","phx_reply",{{"status":"ok","response":{{}}}}]"#)
}
