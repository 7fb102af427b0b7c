//! Limits and durations at their extremes: no arithmetic on them overflows.

use std::time::Duration;

use tower_channels::channel::Result;
use tower_channels::{
    Builder, Channel, Endpoint, Joined, LongPollConfig, Payload, PresenceConfig, Reply,
    ResumeConfig, Socket, WebSocketConfig,
};

use crate::support::Transport::{self, LongPoll as Poll, WebSocket};
use crate::support::connection::ok;
use crate::support::{Connection, Server};

const SESSION: &str = "session=0123456789abcdefghijkl";

struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn handle_in(&mut self, event: &str, _: Payload, socket: &Socket<Self>) -> Result<Reply> {
        if event == "shout" {
            socket.broadcast("shout", Payload::EMPTY);
        }
        Ok(Reply::ack())
    }
}

fn builder() -> Builder<()> {
    Endpoint::builder(|_| async { Ok(()) }).id(|()| Some("user:1".into())).channel::<Room>("room:*")
}

/// Every limit and duration at its largest value.
fn unlimited() -> Endpoint<()> {
    let websocket = WebSocketConfig::new().idle_timeout(Duration::MAX).close_timeout(Duration::MAX);
    let long_poll = LongPollConfig::new().poll_timeout(Duration::MAX).body_timeout(Duration::MAX);
    let resume = ResumeConfig::new()
        .session_ttl(Duration::MAX)
        .acknowledged_ttl(Duration::MAX)
        .rejoin_grace(Duration::MAX)
        .max_per_id(usize::MAX)
        .flapping_limit(u32::MAX)
        .flapping_age(Duration::MAX)
        .flapping_pause(Duration::MAX);
    let presence = PresenceConfig::default().max_meta(usize::MAX).fetch_timeout(Duration::MAX);
    builder()
        .websocket(websocket)
        .long_poll(long_poll)
        .resume(resume)
        .presence(presence)
        .max_message(usize::MAX)
        .max_outbox(usize::MAX)
        .max_mailbox(usize::MAX)
        .max_channels(usize::MAX)
        .max_sessions(usize::MAX)
        .connect_timeout(Duration::MAX)
        .join_timeout(Duration::MAX)
        .build()
}

/// Every limit at the smallest value with which a session can be resumed.
fn minimal() -> Endpoint<()> {
    let resume = ResumeConfig::new().max_per_id(1).flapping_limit(0);
    let presence = PresenceConfig::default().interval(Duration::ZERO).max_meta(2);
    builder()
        .resume(resume)
        .presence(presence)
        .max_mailbox(1)
        .max_channels(1)
        .max_sessions(2)
        .build()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_without_limits_survives_its_connections() {
    for (from, to) in [(WebSocket, WebSocket), (WebSocket, Poll), (Poll, WebSocket), (Poll, Poll)] {
        for parameters in [SESSION.to_owned(), format!("{SESSION}&received=0")] {
            survives(&unlimited(), from, to, &parameters, &["one", "two"]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_with_minimal_limits_survives_its_connections() {
    for (from, to) in [(WebSocket, WebSocket), (Poll, Poll)] {
        survives(&minimal(), from, to, SESSION, &["one"]).await;
    }
}

/// Connects, joins, pushes, loses the connection, and resumes the session on another one.
async fn survives(
    endpoint: &Endpoint<()>,
    from: Transport,
    to: Transport,
    parameters: &str,
    missed: &[&str],
) {
    let app = axum::Router::new().layer(endpoint.layer("/socket"));
    let server = Server::running(|listener, _| async { axum::serve(listener, app).await }).await;
    let mut conn = Connection::open(&server, from, parameters).await;
    conn.rejoin("1", "room:a").await;
    conn.ping("1", "room:a").await;
    conn.acknowledge_all().await;
    conn.cut().await;
    for event in missed {
        endpoint.broadcast("room:a", event, Payload::EMPTY);
    }
    let mut conn = Connection::open(&server, to, parameters).await;
    conn.rejoin("7", "room:a").await;
    for event in missed {
        // With sequence numbers the reply to the ping comes again, as no number has acknowledged it.
        conn.skip_to(&format!(r#"[null,null,"room:a","{event}",{{}}]"#)).await;
    }
    conn.ping("7", "room:a").await;
    conn.send(r#"["7","8","room:a","shout",{}]"#).await;
    conn.expect(r#"[null,null,"room:a","shout",{}]"#).await;
    conn.expect(&ok("8", "room:a")).await;
}
