//! The callbacks that a channel receives over the life of a session.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc;
use tower_channels::channel::{Error, Result};
use tower_channels::{
    Channel, Endpoint, Joined, LongPollConfig, Payload, Reason, Reply, ResumeConfig, Socket,
};

use super::{SESSION, new_msg, short_grace, short_ttl};
use crate::support::Transport::{self, LongPoll as Poll, WebSocket};
use crate::support::connection::ok;
use crate::support::longpoll::JSON;
use crate::support::{Client, Connection, LongPoll, Server, Version, soon};

/// A channel that records calls of its callbacks.
struct Recorded(Recorder);

type Recorder = mpsc::UnboundedSender<String>;

impl Channel for Recorded {
    type Assigns = Recorder;
    type Info = ();

    async fn join(topic: &str, mode: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        record(socket.assigns(), format!("join {topic}"));
        if mode.parse::<String>().unwrap_or_default() == "nap" {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(Self(socket.assigns().clone()).into())
    }

    async fn resume(&mut self, payload: Payload, socket: &Socket<Self>) -> Result<Option<Payload>> {
        record(socket.assigns(), format!("resume {}", socket.topic()));
        match payload.parse::<String>().unwrap_or_default().as_str() {
            "reject" => Err(Error::reason("no longer")),
            "respond" => Ok(Some(json!({"resumed": true}).into())),
            _ => Ok(None),
        }
    }

    async fn handle_in(&mut self, _: &str, payload: Payload, _: &Socket<Self>) -> Result<Reply> {
        Ok(Reply::ok(payload))
    }

    async fn terminate(&mut self, reason: Reason, socket: &Socket<Self>) {
        record(socket.assigns(), format!("terminate {} {reason:?}", socket.topic()));
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        record(&self.0, "drop".to_owned());
    }
}

fn record(recorder: &Recorder, call: String) {
    let _ = recorder.send(call);
}

struct App {
    server: Server,
    endpoint: Endpoint<Recorder>,
    calls: mpsc::UnboundedReceiver<String>,
}

impl App {
    async fn start(config: ResumeConfig) -> Self {
        let (recorder, calls) = mpsc::unbounded_channel();
        let endpoint = Endpoint::builder(move |_| {
            let recorder = recorder.clone();
            async move { Ok(recorder) }
        })
        .id(|_| Some("the one".to_owned()))
        .channel::<Recorded>("room:*")
        .long_poll(LongPollConfig::default().poll_timeout(Duration::from_millis(500)))
        .resume(config)
        .build();
        let app = axum::Router::new().layer(endpoint.layer("/socket"));
        let server =
            Server::running(|listener, _| async { axum::serve(listener, app).await }).await;
        Self { server, endpoint, calls }
    }

    async fn connect(&self, transport: Transport) -> Connection {
        Connection::open(&self.server, transport, SESSION).await
    }

    #[track_caller]
    fn expect(&mut self, call: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        let next = soon(self.calls.recv());
        async move { assert_eq!(next.await.as_deref(), Some(call), "{caller}") }
    }

    #[track_caller]
    fn expect_no_call(&mut self) {
        assert!(self.calls.is_empty(), "{:?}", self.calls.try_recv());
    }

    /// Waits until the endpoint has no sessions left.
    async fn expect_no_session(&self) {
        soon(async {
            while self.endpoint.sessions().total() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_channel_is_not_terminated_and_resumes() {
    for transport in [WebSocket, Poll] {
        let mut app = App::start(ResumeConfig::default()).await;
        let mut conn = app.connect(transport).await;
        conn.rejoin("1", "room:a").await;
        app.expect("join room:a").await;
        conn.acknowledge_all().await;
        conn.cut().await;
        let mut conn = app.connect(transport).await;
        conn.rejoin("7", "room:a").await;
        app.expect("resume room:a").await;
        app.expect_no_call();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resume_can_change_the_response() {
    let app = App::start(ResumeConfig::default()).await;
    app.connect(WebSocket).await.rejoin("1", "room:a").await;
    let mut conn = app.connect(WebSocket).await;
    conn.send(r#"["7","7","room:a","phx_join","respond"]"#).await;
    conn.expect(r#"[null,"7","room:a","phx_reply",{"status":"ok","response":{"resumed":true}}]"#)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_resume_ends_the_channel_with_an_error() {
    let mut app = App::start(ResumeConfig::default()).await;
    app.connect(WebSocket).await.rejoin("1", "room:a").await;
    app.expect("join room:a").await;
    let mut conn = app.connect(WebSocket).await;
    app.endpoint.broadcast("room:a", "secret", json!({}));
    conn.send(r#"["7","7","room:a","phx_join","reject"]"#).await;
    conn.expect(
        r#"[null,"7","room:a","phx_reply",{"status":"error","response":{"reason":"no longer"}}]"#,
    )
    .await;
    app.expect("resume room:a").await;
    app.expect("terminate room:a Closed").await;
    app.expect("drop").await;
    conn.rejoin("8", "room:a").await;
    app.expect("join room:a").await;
    conn.heartbeat().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejoin_waits_for_a_join_that_is_still_running() {
    for transport in [WebSocket, Poll] {
        let mut app = App::start(ResumeConfig::default()).await;
        let mut conn = app.connect(transport).await;
        conn.send(r#"["1","1","room:a","phx_join","nap"]"#).await;
        app.expect("join room:a").await;
        conn.cut().await;
        let mut conn = app.connect(transport).await;
        conn.rejoin("7", "room:a").await;
        app.expect("resume room:a").await;
        app.endpoint.broadcast("room:a", "new_msg", json!({"n": 1}));
        conn.expect(&new_msg("room:a", 1)).await;
        conn.ping("7", "room:a").await;
        app.expect_no_call();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_join_repeated_on_one_connection_while_the_first_is_running_is_answered() {
    let mut app = App::start(ResumeConfig::default()).await;
    let mut conn = app.connect(WebSocket).await;
    conn.send_all(&[
        r#"["1","1","room:a","phx_join","nap"]"#,
        r#"["2","2","room:a","phx_join","nap"]"#,
    ])
    .await;
    conn.expect(&ok("1", "room:a")).await;
    conn.expect(&ok("2", "room:a")).await;
    conn.ping("2", "room:a").await;
    app.expect("join room:a").await;
    app.expect("resume room:a").await;
    app.expect_no_call();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_not_rejoined_in_time_ends() {
    for transport in [WebSocket, Poll] {
        let mut app = App::start(short_grace()).await;
        let mut conn = app.connect(transport).await;
        conn.rejoin("1", "room:a").await;
        conn.rejoin("2", "room:b").await;
        conn.acknowledge_all().await;
        conn.cut().await;
        let mut conn = app.connect(transport).await;
        conn.rejoin("7", "room:a").await;
        for expected in ["join room:a", "join room:b", "resume room:a", "terminate room:b Closed"] {
            app.expect(expected).await;
        }
        app.expect("drop").await;
        conn.rejoin("8", "room:b").await;
        app.expect("join room:b").await;
        conn.ping("7", "room:a").await;
        app.expect_no_call();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_left_by_a_timed_out_join_ends_if_it_is_not_rejoined() {
    let grace = Duration::from_secs(7);
    let mut app = App::start(ResumeConfig::new().rejoin_grace(grace)).await;
    let mut conn = app.connect(WebSocket).await;
    conn.begin_join("1", "room:a").await;
    tokio::time::sleep(grace * 3 / 4).await;
    conn.send(r#"["1","2","room:a","phx_leave",{}]"#).await;
    app.expect("join room:a").await;
    app.expect("terminate room:a Closed").await;
    app.expect("drop").await;
    conn.skip_to(&ok("2", "room:a")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_left_terminates_before_the_next_one_joins() {
    for transport in [WebSocket, Poll] {
        let mut app = App::start(ResumeConfig::default()).await;
        let mut conn = app.connect(transport).await;
        conn.rejoin("1", "room:a").await;
        conn.send_all(&[
            r#"["1","2","room:a","phx_leave",{}]"#,
            r#"["3","3","room:a","phx_join",{}]"#,
        ])
        .await;
        conn.expect(&ok("2", "room:a")).await;
        conn.expect(r#"["1",null,"room:a","phx_close",{}]"#).await;
        conn.expect(&ok("3", "room:a")).await;
        conn.ping("3", "room:a").await;
        for call in ["join room:a", "terminate room:a Left", "drop", "join room:a"] {
            app.expect(call).await;
        }
        app.expect_no_call();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_session_expires_and_the_next_join_starts_a_new_channel() {
    for transport in [WebSocket, Poll] {
        let mut app = App::start(short_ttl()).await;
        let mut conn = app.connect(transport).await;
        conn.rejoin("1", "room:a").await;
        app.expect("join room:a").await;
        conn.acknowledge_all().await;
        conn.cut().await;
        app.expect("terminate room:a Closed").await;
        app.expect("drop").await;
        app.expect_no_session().await;
        let mut conn = app.connect(transport).await;
        conn.rejoin("7", "room:a").await;
        app.expect("join room:a").await;
        conn.heartbeat().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_in_use_does_not_expire() {
    for transport in [WebSocket, Poll] {
        let mut app = App::start(short_ttl()).await;
        let mut conn = app.connect(transport).await;
        conn.rejoin("1", "room:a").await;
        app.expect("join room:a").await;
        // Much longer than the session TTL.
        let until = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < until {
            conn.heartbeat().await;
        }
        app.expect_no_call();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_token_of_an_expired_session_is_answered_500() {
    let app = App::start(short_ttl()).await;
    let mut session = LongPoll::open(&app.server, &format!("vsn=2.0.0&{SESSION}")).await;
    session.post(JSON, r#"["1","1","room:a","phx_join",{}]"#).await;
    session.receive(1).await;
    app.expect_no_session().await;
    session.expect_gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_polls_again_after_the_session_timeout_receives_what_it_missed() {
    let app = App::start(ResumeConfig::default()).await;
    let mut session = LongPoll::open(&app.server, &format!("vsn=2.0.0&{SESSION}")).await;
    session.post(JSON, r#"["1","1","room:a","phx_join",{}]"#).await;
    session.receive(1).await;
    soon(async {
        while app.endpoint.sessions().detached == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    app.endpoint.broadcast("room:a", "new_msg", json!({"n": 1}));
    assert_eq!(session.receive(1).await, [new_msg("room:a", 1)]);
    app.endpoint.broadcast("room:a", "new_msg", json!({"n": 2}));
    assert_eq!(session.receive(1).await, [new_msg("room:a", 2)]);
    assert_eq!(app.endpoint.sessions().detached, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_never_used_leaves_no_session_behind() {
    let app = App::start(short_ttl()).await;
    Connection::open(&app.server, Poll, SESSION).await;
    app.expect_no_session().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_counted_once_however_often_it_is_resumed() {
    let app = App::start(ResumeConfig::default()).await;
    for transport in [WebSocket, Poll, WebSocket, Poll] {
        app.connect(transport).await.heartbeat().await;
    }
    assert_eq!(app.endpoint.sessions().total(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ttl_of_zero_disables_resumable_sessions() {
    let off = ResumeConfig::new().session_ttl(Duration::ZERO);
    let mut app = App::start(off).await;
    let mut client = Client::connect(&app.server, WebSocket, Version::V2, SESSION).await;
    client.send(r#"["1","1","room:a","phx_join",{}]"#).await;
    client.expect(r#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    drop(client);
    app.expect("join room:a").await;
    app.expect("terminate room:a Closed").await;
}
