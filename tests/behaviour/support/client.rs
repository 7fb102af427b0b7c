//! A client of either transport and either version, spoken to in the notation of 2.0.0.

use std::collections::VecDeque;
use std::panic::Location;

use serde_json::{Value, json};

use super::longpoll::{JSON, NDJSON};
use super::raw_websocket::{BINARY, TEXT, frame};
use super::{LongPoll, RawWebSocket, Server, Transport, Version, base64, corpus, notation, soon};

pub(crate) struct Client {
    version: Version,
    link: Link,
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

impl Client {
    pub(crate) async fn connect(
        server: &Server,
        transport: Transport,
        version: Version,
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
        Self { version, link }
    }

    /// Sends one message, written in the notation.
    pub(crate) async fn send(&mut self, message: &str) {
        self.send_all(&[message]).await;
    }

    /// Sends several messages, in one write where the transport can.
    pub(crate) async fn send_all(&mut self, messages: &[&str]) {
        let texts: Vec<_> =
            messages.iter().map(|message| notation::outgoing(self.version, message)).collect();
        texts.iter().for_each(|text| self.keep(text));
        match &mut self.link {
            Link::WebSocket(socket) => {
                let frames = texts.iter().map(|text| frame(0x80 | TEXT, text.as_bytes()));
                socket.send_bytes(&frames.collect::<Vec<_>>().concat()).await;
            }
            Link::LongPoll { session, .. } if self.version == Version::V2 => {
                let answer = session.post(NDJSON, &texts.join("\n")).await;
                assert_eq!(answer, json!({"status": 200}));
            }
            Link::LongPoll { session, .. } => {
                for text in texts {
                    assert_eq!(session.post(JSON, &text).await, json!({"status": 200}));
                }
            }
        }
    }

    /// Sends a text as it is.
    pub(crate) async fn send_text(&mut self, text: &str) {
        self.keep(text);
        match &mut self.link {
            Link::WebSocket(socket) => socket.send_text(text).await,
            Link::LongPoll { session, .. } => {
                assert_eq!(session.post(JSON, text).await, json!({"status": 200}));
            }
        }
    }

    /// Sends a binary message.
    pub(crate) async fn send_binary(&mut self, bytes: &[u8]) {
        corpus::keep("v2_binary", bytes);
        match &mut self.link {
            Link::WebSocket(socket) => socket.send_binary(bytes).await,
            Link::LongPoll { session, .. } => {
                let answer = session.post(NDJSON, &base64::encode(bytes)).await;
                assert_eq!(answer, json!({"status": 200}));
            }
        }
    }

    /// Sends a text that no session survives, and sees it end.
    #[track_caller]
    pub(crate) fn break_with(mut self, text: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            self.keep(text);
            match &mut self.link {
                Link::WebSocket(socket) => socket.send_text(text).await,
                Link::LongPoll { session, .. } => {
                    let answer = session.post(JSON, text).await;
                    assert_eq!(answer, json!({"status": 500}), "{caller}: {text}");
                }
            }
            self.expect_end(1011, caller).await;
        }
    }

    /// Sends a binary message that no session survives, and sees it end.
    #[track_caller]
    pub(crate) fn break_with_binary(mut self, bytes: &[u8]) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            corpus::keep("v2_binary", bytes);
            match &mut self.link {
                Link::WebSocket(socket) => socket.send_binary(bytes).await,
                Link::LongPoll { session, .. } => {
                    let answer = session.post(NDJSON, &base64::encode(bytes)).await;
                    assert_eq!(answer, json!({"status": 500}), "{caller}: {bytes:?}");
                }
            }
            self.expect_end(1011, caller).await;
        }
    }

    /// The server disconnects this client: nothing else comes before.
    #[track_caller]
    pub(crate) fn expect_disconnect(self) -> impl Future<Output = ()> {
        self.expect_end(1001, Location::caller())
    }

    /// The connection closes with this code; a long poll learns that its session is gone.
    async fn expect_end(mut self, code: u16, caller: &Location<'_>) {
        match &mut self.link {
            Link::WebSocket(socket) => {
                let mut got = Vec::new();
                while let Some(frame) = socket.frame().await {
                    got.push((frame.opcode, frame.payload));
                }
                assert_eq!(got, [(8, code.to_be_bytes().to_vec())], "{caller}");
            }
            Link::LongPoll { session, .. } => {
                let answer = session.poll().await;
                assert_eq!(
                    (&answer["status"], &answer["messages"]),
                    (&json!(410), &json!([])),
                    "{caller}"
                );
            }
        }
    }

    /// The next message, in the notation.
    #[track_caller]
    pub(crate) fn recv(&mut self) -> impl Future<Output = String> {
        let caller = Location::caller();
        let version = self.version;
        let arrival = soon(self.arrival());
        async move {
            match arrival.await {
                Some(Arrival::Text(text)) => notation::incoming(version, &text),
                other => panic!("{caller}: expected a text, got {other:?}"),
            }
        }
    }

    /// The next message is this, written in the notation.
    #[track_caller]
    pub(crate) fn expect(&mut self, message: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        let expected = notation::visible(self.version, message);
        let got = self.recv();
        async move { assert_eq!(got.await, expected, "{caller}") }
    }

    /// The next messages are these, in any order.
    #[track_caller]
    pub(crate) fn expect_all(&mut self, messages: &[&str]) -> impl Future<Output = ()> {
        let caller = Location::caller();
        let mut expected: Vec<_> =
            messages.iter().map(|message| notation::visible(self.version, message)).collect();
        async move {
            let mut got = Vec::new();
            for _ in &expected {
                got.push(self.recv().await);
            }
            got.sort();
            expected.sort();
            assert_eq!(got, expected, "{caller}");
        }
    }

    /// The next message is binary, and this.
    #[track_caller]
    pub(crate) fn expect_binary(&mut self, bytes: &[u8]) -> impl Future<Output = ()> {
        let caller = Location::caller();
        let expected = Some(Arrival::Binary(bytes.to_vec()));
        let arrival = soon(self.arrival());
        async move { assert_eq!(arrival.await, expected, "{caller}") }
    }

    /// Joins a topic of `room:*`; the ref is the join_ref.
    #[track_caller]
    pub(crate) fn join(&mut self, join_ref: &str, topic: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            self.send(&format!(r#"["{join_ref}","{join_ref}","{topic}","phx_join",{{}}]"#)).await;
            let reply = format!(
                r#"["{join_ref}","{join_ref}","{topic}","phx_reply",{{"status":"ok","response":{{}}}}]"#
            );
            let expected = notation::visible(self.version, &reply);
            assert_eq!(self.recv().await, expected, "{caller}: the reply of the join");
            let joined = self.recv().await;
            assert!(joined.contains(&format!(r#","{topic}","joined","#)), "{caller}: {joined}");
        }
    }

    /// Everything sent to this channel before has been handled, and no message is left unexpected:
    /// the reply to a ping comes next.
    #[track_caller]
    pub(crate) fn ping(&mut self, join_ref: &str, topic: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            self.send(&format!(r#"["{join_ref}","pong?","{topic}","ping",{{}}]"#)).await;
            let reply = format!(
                r#"["{join_ref}","pong?","{topic}","phx_reply",{{"status":"ok","response":{{}}}}]"#
            );
            let expected = notation::visible(self.version, &reply);
            assert_eq!(self.recv().await, expected, "{caller}: the reply of a ping");
        }
    }

    /// The socket lives and no message is left unexpected: a heartbeat's reply comes next.
    #[track_caller]
    pub(crate) fn heartbeat(&mut self) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            self.send(r#"[null,"beat","phoenix","heartbeat",{}]"#).await;
            let reply = r#"[null,"beat","phoenix","phx_reply",{"status":"ok","response":{}}]"#;
            assert_eq!(self.recv().await, reply, "{caller}: the reply of a heartbeat");
        }
    }

    async fn arrival(&mut self) -> Option<Arrival> {
        let (session, waiting) = match &mut self.link {
            Link::LongPoll { session, waiting } => (session, waiting),
            Link::WebSocket(socket) => {
                let frame = socket.next().await?;
                return match frame.opcode {
                    TEXT => String::from_utf8(frame.payload).ok().map(Arrival::Text),
                    BINARY => Some(Arrival::Binary(frame.payload)),
                    opcode => panic!("a frame of opcode {opcode}: {:?}", frame.payload),
                };
            }
        };
        while waiting.is_empty() {
            let answer = session.next().await;
            assert!(answer["status"] == 200 || answer["status"] == 204, "{answer}");
            let messages = answer["messages"].as_array().into_iter().flatten();
            waiting.extend(messages.filter_map(Value::as_str).map(str::to_owned));
        }
        let message = waiting.pop_front()?;
        Some(if message.starts_with(['[', '{']) {
            Arrival::Text(message)
        } else {
            Arrival::Binary(base64::decode(&message))
        })
    }

    fn keep(&self, text: &str) {
        let kind = match self.version {
            Version::V1 => "v1_text",
            Version::V2 => "v2_text",
        };
        corpus::keep(kind, text.as_bytes());
    }
}
