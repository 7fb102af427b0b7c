//! A client of either transport and either version that takes messages in the notation of 2.0.0.

use std::collections::VecDeque;
use std::panic::Location;

use serde_json::{Value, json};

use super::longpoll::{JSON, NDJSON};
use super::raw_websocket::{BINARY, TEXT, frame};
use super::{LongPoll, RawWebSocket, Server, Transport, Version, base64, corpus, notation, soon};

pub(crate) struct Client {
    version: Version,
    inner: Inner,
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

impl Client {
    pub(crate) async fn connect(
        server: &Server,
        transport: Transport,
        version: Version,
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
        Self { version, inner }
    }

    /// Sends one message, given in the notation.
    pub(crate) async fn send(&mut self, message: &str) {
        self.send_all(&[message]).await;
    }

    /// Sends several messages, in one write if the transport allows.
    pub(crate) async fn send_all(&mut self, messages: &[&str]) {
        let texts: Vec<_> =
            messages.iter().map(|message| notation::outgoing(self.version, message)).collect();
        texts.iter().for_each(|text| self.save(text));
        match &mut self.inner {
            Inner::WebSocket(socket) => {
                let frames = texts.iter().map(|text| frame(0x80 | TEXT, text.as_bytes()));
                socket.send_bytes(&frames.collect::<Vec<_>>().concat()).await;
            }
            Inner::LongPoll { session, .. } if self.version == Version::V2 => {
                let response = session.post(NDJSON, &texts.join("\n")).await;
                assert_eq!(response, json!({"status": 200}));
            }
            Inner::LongPoll { session, .. } => {
                for text in texts {
                    assert_eq!(session.post(JSON, &text).await, json!({"status": 200}));
                }
            }
        }
    }

    /// Sends a text unchanged.
    pub(crate) async fn send_text(&mut self, text: &str) {
        self.save(text);
        match &mut self.inner {
            Inner::WebSocket(socket) => socket.send_text(text).await,
            Inner::LongPoll { session, .. } => {
                assert_eq!(session.post(JSON, text).await, json!({"status": 200}));
            }
        }
    }

    /// Sends a binary message.
    pub(crate) async fn send_binary(&mut self, bytes: &[u8]) {
        corpus::save("v2_binary", bytes);
        match &mut self.inner {
            Inner::WebSocket(socket) => socket.send_binary(bytes).await,
            Inner::LongPoll { session, .. } => {
                let response = session.post(NDJSON, &base64::encode(bytes)).await;
                assert_eq!(response, json!({"status": 200}));
            }
        }
    }

    /// Sends a text that must end the session.
    #[track_caller]
    pub(crate) fn send_fatal(mut self, text: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            self.save(text);
            match &mut self.inner {
                Inner::WebSocket(socket) => socket.send_text(text).await,
                Inner::LongPoll { session, .. } => {
                    let response = session.post(JSON, text).await;
                    assert_eq!(response, json!({"status": 500}), "{caller}: {text}");
                }
            }
            self.expect_end(1011, caller).await;
        }
    }

    /// Sends a binary message that must end the session.
    #[track_caller]
    pub(crate) fn send_fatal_binary(mut self, bytes: &[u8]) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            corpus::save("v2_binary", bytes);
            match &mut self.inner {
                Inner::WebSocket(socket) => socket.send_binary(bytes).await,
                Inner::LongPoll { session, .. } => {
                    let response = session.post(NDJSON, &base64::encode(bytes)).await;
                    assert_eq!(response, json!({"status": 500}), "{caller}: {bytes:?}");
                }
            }
            self.expect_end(1011, caller).await;
        }
    }

    /// Expects that the server disconnects this client without sending anything else.
    #[track_caller]
    pub(crate) fn expect_disconnect(self) -> impl Future<Output = ()> {
        self.expect_end(1001, Location::caller())
    }

    /// Expects a close with this code or, over long poll, that the session is gone.
    async fn expect_end(mut self, code: u16, caller: &Location<'_>) {
        match &mut self.inner {
            Inner::WebSocket(socket) => {
                let mut got = Vec::new();
                while let Some(frame) = socket.frame().await {
                    got.push((frame.opcode, frame.payload));
                }
                assert_eq!(got, [(8, code.to_be_bytes().to_vec())], "{caller}");
            }
            Inner::LongPoll { session, .. } => {
                assert_eq!(session.poll().await, json!({"status": 500}), "{caller}");
            }
        }
    }

    /// Receives the next message, in the notation.
    #[track_caller]
    pub(crate) fn recv(&mut self) -> impl Future<Output = String> {
        let caller = Location::caller();
        let version = self.version;
        let message = soon(self.next_message());
        async move {
            match message.await {
                Some(Received::Text(text)) => notation::incoming(version, &text),
                other => panic!("{caller}: expected a text, got {other:?}"),
            }
        }
    }

    /// Expects this next message, given in the notation.
    #[track_caller]
    pub(crate) fn expect(&mut self, message: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        let expected = notation::visible(self.version, message);
        let got = self.recv();
        async move { assert_eq!(got.await, expected, "{caller}") }
    }

    /// Expects these next messages in any order.
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

    /// Expects this next binary message.
    #[track_caller]
    pub(crate) fn expect_binary(&mut self, bytes: &[u8]) -> impl Future<Output = ()> {
        let caller = Location::caller();
        let expected = Some(Received::Binary(bytes.to_vec()));
        let message = soon(self.next_message());
        async move { assert_eq!(message.await, expected, "{caller}") }
    }

    /// Joins a topic of `room:*`, with the join_ref as ref.
    #[track_caller]
    pub(crate) fn join(&mut self, join_ref: &str, topic: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            self.send(&format!(r#"["{join_ref}","{join_ref}","{topic}","phx_join",{{}}]"#)).await;
            let reply = format!(
                r#"["{join_ref}","{join_ref}","{topic}","phx_reply",{{"status":"ok","response":{{}}}}]"#
            );
            let expected = notation::visible(self.version, &reply);
            assert_eq!(self.recv().await, expected, "{caller}: the reply to the join");
            let joined = self.recv().await;
            assert!(joined.contains(&format!(r#","{topic}","joined","#)), "{caller}: {joined}");
        }
    }

    /// Expects the reply to a ping next: everything sent before has been handled, and nothing
    /// unexpected was received.
    #[track_caller]
    pub(crate) fn ping(&mut self, join_ref: &str, topic: &str) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            self.send(&format!(r#"["{join_ref}","pong?","{topic}","ping",{{}}]"#)).await;
            let reply = format!(
                r#"["{join_ref}","pong?","{topic}","phx_reply",{{"status":"ok","response":{{}}}}]"#
            );
            let expected = notation::visible(self.version, &reply);
            assert_eq!(self.recv().await, expected, "{caller}: the reply to a ping");
        }
    }

    /// Expects the reply to a heartbeat next: the socket is alive and nothing unexpected was
    /// received.
    #[track_caller]
    pub(crate) fn heartbeat(&mut self) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            self.send(r#"[null,"beat","phoenix","heartbeat",{}]"#).await;
            let reply = r#"[null,"beat","phoenix","phx_reply",{"status":"ok","response":{}}]"#;
            assert_eq!(self.recv().await, reply, "{caller}: the reply to a heartbeat");
        }
    }

    async fn next_message(&mut self) -> Option<Received> {
        let (session, queue) = match &mut self.inner {
            Inner::LongPoll { session, queue } => (session, queue),
            Inner::WebSocket(socket) => {
                let frame = socket.next().await?;
                return match frame.opcode {
                    TEXT => String::from_utf8(frame.payload).ok().map(Received::Text),
                    BINARY => Some(Received::Binary(frame.payload)),
                    opcode => panic!("a frame of opcode {opcode}: {:?}", frame.payload),
                };
            }
        };
        while queue.is_empty() {
            let response = session.next().await;
            assert!(response["status"] == 200 || response["status"] == 204, "{response}");
            let messages = response["messages"].as_array().into_iter().flatten();
            queue.extend(messages.filter_map(Value::as_str).map(str::to_owned));
        }
        let message = queue.pop_front()?;
        Some(if message.starts_with(['[', '{']) {
            Received::Text(message)
        } else {
            Received::Binary(base64::decode(&message))
        })
    }

    fn save(&self, text: &str) {
        let kind = match self.version {
            Version::V1 => "v1_text",
            Version::V2 => "v2_text",
        };
        corpus::save(kind, text.as_bytes());
    }
}
