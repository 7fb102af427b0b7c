//! A shutdown closes connections at a pace, and does not wait for absent clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::time::Instant;
use tower::ServiceExt;
use tower_channels::channel::Result;
use tower_channels::test::{Client, connect};
use tower_channels::{
    Channel, Close, Endpoint, Joined, Payload, Reason, Reply, ShutdownConfig, Socket,
};

/// Counts the channels that have terminated.
struct Room;

impl Channel for Room {
    type Assigns = Arc<AtomicUsize>;
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn terminate(&mut self, _: Reason, socket: &Socket<Self>) {
        socket.assigns().fetch_add(1, Ordering::Relaxed);
    }
}

type Rooms = Endpoint<Arc<AtomicUsize>>;

fn endpoint() -> (Rooms, Arc<AtomicUsize>) {
    let terminated = Arc::new(AtomicUsize::new(0));
    let assigns = Arc::clone(&terminated);
    let builder = Endpoint::builder(move |_| {
        let assigns = Arc::clone(&assigns);
        async { Ok(assigns) }
    });
    let builder = builder.id(|_| Some("user:1".into())).channel::<Room>("room:*");
    (builder.build(), terminated)
}

/// A long-poll client, between two polls unless it polls.
struct LongPoll {
    endpoint: Rooms,
    query: String,
    token: String,
}

impl LongPoll {
    async fn connect(endpoint: &Rooms, query: &str) -> Self {
        let (endpoint, query) = (endpoint.clone(), format!("vsn=2.0.0&{query}"));
        let mut client = Self { endpoint, query, token: String::new() };
        assert_eq!(client.request("GET", "").await["status"], 410);
        client
    }

    async fn join(&mut self) {
        let join = r#"["1","1","room:1","phx_join",{}]"#;
        assert_eq!(self.request("POST", join).await["status"], 200);
    }

    async fn request(&mut self, method: &str, body: &str) -> Value {
        let uri = format!("/socket/longpoll?{}&token={}", self.query, self.token);
        let request = Request::builder().method(method).uri(uri);
        let request = request.body(Full::<bytes::Bytes>::from(body.to_owned()));
        let service = self.endpoint.service();
        let Ok(answer) = service.oneshot(request.expect("a request")).await;
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        if let Some(token) = body["token"].as_str() {
            self.token = token.to_owned();
        }
        body
    }
}

const TIMEOUT: Duration = Duration::from_secs(60);

/// Shuts down, which must succeed, and returns how long it took.
async fn shut_down(endpoint: &Rooms) -> Duration {
    let began = Instant::now();
    assert!(endpoint.shutdown(TIMEOUT).await, "it waited for a client that was gone");
    assert_eq!(endpoint.sessions().total(), 0);
    began.elapsed()
}

const AT_ONCE: Duration = Duration::from_millis(100);

#[tokio::test(start_paused = true)]
async fn a_long_poll_client_that_has_vanished_delays_nothing() {
    for query in ["", "session=a-session-of-one-client"] {
        let (endpoint, terminated) = endpoint();
        // One has never polled, one has not acknowledged its answer, one has an answer waiting.
        let _unused = LongPoll::connect(&endpoint, "").await;
        let mut polled = LongPoll::connect(&endpoint, query).await;
        polled.join().await;
        assert_eq!(polled.request("GET", "").await["status"], 200);
        let mut waiting = LongPoll::connect(&endpoint, "").await;
        waiting.join().await;
        let took = shut_down(&endpoint).await;
        assert!(took < AT_ONCE, "{took:?}");
        tokio::time::sleep(AT_ONCE).await;
        assert_eq!(terminated.load(Ordering::Relaxed), 2);
        for client in [&mut polled, &mut waiting] {
            let refused = client.request("GET", "").await["status"].clone();
            assert!(refused == 403 || refused == 500, "{refused}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn detached_sessions_end_at_once_with_their_channels() {
    let (endpoint, terminated) = endpoint();
    let mut clients = Vec::new();
    for index in 0..20 {
        let session = format!("the-session-of-client-{index:02}");
        let mut client = connect(&endpoint, &[("session", &session)]).await.expect("accepted");
        assert_eq!(client.join("room:1", json!({})).await, Reply::ack());
        client.drop_connection();
        clients.push(client);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(endpoint.sessions().detached, 20);
    let took = shut_down(&endpoint).await;
    assert!(took < AT_ONCE, "{took:?}");
    tokio::time::sleep(AT_ONCE).await;
    assert_eq!(terminated.load(Ordering::Relaxed), 20);
}

#[tokio::test(start_paused = true)]
async fn a_pending_poll_is_answered_before_the_session_ends() {
    for query in ["", "session=a-session-of-one-client"] {
        let (endpoint, _) = endpoint();
        let mut client = LongPoll::connect(&endpoint, query).await;
        client.join().await;
        assert_eq!(client.request("GET", "").await["status"], 200);
        let pending = tokio::spawn(async move { client.request("GET", "").await });
        tokio::task::yield_now().await;
        let took = shut_down(&endpoint).await;
        assert!(took < AT_ONCE, "{took:?}");
        assert_eq!(pending.await.expect("no panic")["status"], 204);
    }
}

#[tokio::test(start_paused = true)]
async fn no_client_is_admitted_during_a_shutdown() {
    let (endpoint, _) = endpoint();
    let _connected = connect(&endpoint, &[]).await.expect("accepted");
    let shutdown = tokio::spawn({
        let endpoint = endpoint.clone();
        async move { endpoint.shutdown(TIMEOUT).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(connect(&endpoint, &[]).await.is_err());
    shutdown.abort();
    let _ = shutdown.await;
    assert!(connect(&endpoint, &[]).await.is_err(), "also if it is cancelled");
}

/// Shuts down with `clients` connected, and returns when each was closed.
async fn closes(clients: usize, config: ShutdownConfig) -> Vec<Duration> {
    let (endpoint, _) = endpoint();
    let mut closing = Vec::new();
    for _ in 0..clients {
        let mut client: Client<_> = connect(&endpoint, &[]).await.expect("accepted");
        closing.push(async move {
            assert_eq!(client.expect_closed().await, Close::Restart);
            Instant::now()
        });
    }
    let began = Instant::now();
    let closing: Vec<_> = closing.into_iter().map(tokio::spawn).collect();
    assert!(endpoint.shutdown(config).await);
    let mut times = Vec::new();
    for client in closing {
        times.push(client.await.expect("it is closed") - began);
    }
    times.sort();
    times
}

#[tokio::test(start_paused = true)]
async fn connections_are_closed_evenly_over_half_of_the_timeout() {
    let times = closes(400, Duration::from_secs(8).into()).await;
    for (index, time) in times.iter().enumerate() {
        let expected = Duration::from_millis(10) * index as u32;
        let late = time.saturating_sub(expected);
        assert!(*time >= expected && late <= Duration::from_millis(20), "{index}: {time:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn connections_are_closed_at_the_configured_pace() {
    let config = ShutdownConfig::new(TIMEOUT).sessions_per_second(2);
    let times = closes(5, config).await;
    let rounded: Vec<_> = times.iter().map(|time| time.as_millis() / 50 * 50).collect();
    assert_eq!(rounded, [0, 500, 1000, 1500, 2000]);
}
