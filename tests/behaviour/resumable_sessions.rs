//! Resumable sessions, which outlive their connections. The scenarios of [`handover`],
//! [`leaving`] and [`presence`] run from one connection to the next over every pair of transports, with and without
//! sequence numbers, and in both versions of the protocol.

use std::time::Duration;

use tower_channels::ResumeConfig;

use crate::support::{Client, Connection, Server, Transport, Version};

const SESSION: &str = "user_id=u1&session=0123456789abcdefghijkl";

/// The environment of a scenario that runs from one connection of a session to the next.
struct Handover {
    server: Server,
    from: Transport,
    to: Transport,
    numbered: bool,
    version: Version,
}

impl Handover {
    async fn first(&self) -> Connection {
        self.connect(self.from, 0).await
    }

    async fn connect(&self, transport: Transport, received: u64) -> Connection {
        let parameters = parameters(self.numbered, received);
        Connection::with_version(self.version, &self.server, transport, &parameters).await
    }

    /// Opens the first connection, joins `room:a`, and acknowledges everything.
    async fn member(&self) -> Connection {
        let mut conn = self.first().await;
        conn.join("1", "room:a").await;
        conn.acknowledge_all().await;
        conn
    }

    /// Acknowledges everything received so far, of a member of `room:a`: with the number of one more
    /// message, or with heartbeats.
    async fn acknowledge_all(&self, conn: &mut Connection) {
        if self.numbered {
            self.broadcast("room:a", 0).await;
            conn.expect(&new_msg("room:a", 0)).await;
        } else {
            conn.acknowledge_all().await;
        }
    }

    async fn reconnect(&self, received: u64) -> Connection {
        self.connect(self.to, received).await
    }

    /// The end of a channel. 1.0.0 has no join_ref, so its ref names the join.
    fn end(&self, join_ref: &str, topic: &str, end: &str) -> String {
        match self.version {
            Version::V1 => format!(r#"[null,"{join_ref}","{topic}",{end}]"#),
            Version::V2 => format!(r#"["{join_ref}",null,"{topic}",{end}]"#),
        }
    }

    fn closed(&self, join_ref: &str, topic: &str) -> String {
        self.end(join_ref, topic, r#""phx_close",{}"#)
    }

    async fn broadcast(&self, topic: &str, number: u32) {
        self.server.broadcast(topic, "new_msg", &format!(r#"{{"n":{number}}}"#)).await;
    }
}

fn parameters(numbered: bool, received: u64) -> String {
    if numbered { format!("{SESSION}&received={received}") } else { SESSION.to_owned() }
}

fn new_msg(topic: &str, number: u32) -> String {
    format!(r#"[null,null,"{topic}","new_msg",{{"n":{number}}}]"#)
}

macro_rules! handovers {
    ($($scenario:ident),* $(,)?) => {
        mod websocket_to_websocket { handover!(WebSocket WebSocket false: $($scenario)*); }
        mod websocket_to_longpoll { handover!(WebSocket LongPoll false: $($scenario)*); }
        mod longpoll_to_websocket { handover!(LongPoll WebSocket false: $($scenario)*); }
        mod longpoll_to_longpoll { handover!(LongPoll LongPoll false: $($scenario)*); }
        mod numbered_websocket_to_websocket { handover!(WebSocket WebSocket true: $($scenario)*); }
        mod numbered_websocket_to_longpoll { handover!(WebSocket LongPoll true: $($scenario)*); }
        mod numbered_longpoll_to_websocket { handover!(LongPoll WebSocket true: $($scenario)*); }
        mod numbered_longpoll_to_longpoll { handover!(LongPoll LongPoll true: $($scenario)*); }
    };
}

macro_rules! handover {
    ($from:ident $to:ident $numbered:literal: $($scenario:ident)*) => {
        handover!(v1 V1 $from $to $numbered: $($scenario)*);
        handover!(v2 V2 $from $to $numbered: $($scenario)*);
    };
    ($name:ident $version:ident $from:ident $to:ident $numbered:literal: $($scenario:ident)*) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $scenario() {
                    use crate::support::{Server, Transport, Version};
                    let (from, to) = (Transport::$from, Transport::$to);
                    let (server, version) = (Server::start().await, Version::$version);
                    let handover =
                        super::super::Handover { server, from, to, numbered: $numbered, version };
                    super::super::$scenario(handover).await;
                }
            )*
        }
    };
}

mod acknowledgement;
mod callbacks;
mod eligibility;
mod ends;
mod handover;
mod leaving;
mod once;
mod presence;
mod priority;
mod repeats;
mod takeover;

/// Joins another client, without a resumable session, that receives broadcasts.
async fn witness(server: &Server, topic: &str) -> Client {
    let mut witness = Client::connect(server, Transport::WebSocket, Version::V2, "").await;
    witness.join("1", topic).await;
    witness
}

fn short_ttl() -> ResumeConfig {
    ResumeConfig::new().session_ttl(Duration::from_millis(200))
}

fn short_grace() -> ResumeConfig {
    ResumeConfig::new().rejoin_grace(Duration::from_millis(300))
}
