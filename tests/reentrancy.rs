//! An application's metrics recorder, log subscriber and wakers may use the library themselves:
//! none of them is called while one of its locks is held.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_channels::channel::{Error, Result};
use tower_channels::test::connect;
use tower_channels::{
    Builder, Channel, Endpoint, Joined, Payload, Presence, PresenceConfig, PubSub, PubSubConfig,
    Reply, Socket,
};

const TOPIC: &str = "room:1";
const SESSION: [(&str, &str); 1] = [("session", "0123456789abcdefghijkl")];

struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = ();

    const INTERCEPT: &'static [&'static str] = &["intercepted"];

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn handle_in(&mut self, event: &str, _: Payload, it: &Socket<Self>) -> Result<Reply> {
        match event {
            "track" => Presence::track(it, "ann", json!({}))?,
            "untrack" => Presence::untrack(it, "ann"),
            "push_state" => Presence::push_state(it),
            "subscribe" => it.subscribe("heard")?,
            "push_binary" => it.push("binary", Payload::binary("bytes")),
            _ => return Err(Error::unmatched(event)),
        }
        Ok(Reply::ack())
    }
}

/// Never intercepts, so that it becomes dormant while its client is away.
struct Quiet;

impl Channel for Quiet {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }
}

fn builder() -> Builder<()> {
    Endpoint::builder(|_| async { Ok(()) })
        .id(|()| Some("user:1".into()))
        .channel::<Room>("room:*")
        .channel::<Quiet>("quiet:*")
        .presence(PresenceConfig::default().fetch(|_, _| async { panic!("asked to") }))
}

/// A metrics recorder, log subscriber and waker that uses the endpoint whenever it is called.
struct Meddler {
    endpoint: Endpoint<()>,
    topic: &'static str,
    calls: AtomicUsize,
    /// The counters that were incremented.
    counted: Mutex<Vec<String>>,
}

impl Meddler {
    fn meddle(&self) {
        thread_local!(static MEDDLING: Cell<bool> = const { Cell::new(false) });
        if MEDDLING.replace(true) {
            return;
        }
        // Without an end, the channels that it joins would call it as they come and go.
        if self.calls.fetch_add(1, Ordering::Relaxed) > 100 {
            return MEDDLING.set(false);
        }
        let Self { endpoint, topic, .. } = self;
        endpoint.broadcast(topic, "meddled", json!({}));
        endpoint.broadcast(topic, "intercepted", json!({}));
        endpoint.presence().count(topic);
        drop(endpoint.presence().track_task(topic, "meddler", json!({})));
        endpoint.sessions();
        // The in-memory client needs no waiting to connect.
        if let Poll::Ready(Ok(mut client)) = poll_once(connect(endpoint, &[])) {
            client.send(topic, "phx_join", json!({}));
            client.send(topic, "phx_leave", json!({}));
        }
        MEDDLING.set(false);
    }
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

impl Wake for Meddler {
    fn wake(self: Arc<Self>) {
        self.meddle();
    }
}

/// One metric of a [`Meddler`].
struct Metric(Arc<Meddler>, String);

impl CounterFn for Metric {
    fn increment(&self, _: u64) {
        self.0.counted.lock().expect("not poisoned").push(self.1.clone());
        self.0.meddle();
    }

    fn absolute(&self, _: u64) {
        self.0.meddle();
    }
}

impl GaugeFn for Metric {
    fn increment(&self, _: f64) {
        self.0.meddle();
    }

    fn decrement(&self, _: f64) {
        self.0.meddle();
    }

    fn set(&self, _: f64) {
        self.0.meddle();
    }
}

impl HistogramFn for Metric {
    fn record(&self, _: f64) {
        self.0.meddle();
    }
}

/// A [`Meddler`] as the recorder and as the subscriber of a thread.
#[derive(Clone)]
struct Observer(Arc<Meddler>);

impl Recorder for Observer {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.0.meddle();
        Counter::from_arc(Arc::new(Metric(Arc::clone(&self.0), key.name().to_owned())))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.0.meddle();
        Gauge::from_arc(Arc::new(Metric(Arc::clone(&self.0), key.name().to_owned())))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.0.meddle();
        Histogram::from_arc(Arc::new(Metric(Arc::clone(&self.0), key.name().to_owned())))
    }
}

impl tracing::Subscriber for Observer {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("tower_channels")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.meddle();
    }

    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

/// Runs a scenario on a thread of its own, where everything meddles. Returns which counters were
/// incremented, and how often the application's code was called.
fn run<F: Future>(
    endpoint: Endpoint<()>,
    topic: &'static str,
    scenario: impl FnOnce(Endpoint<()>, Arc<Meddler>) -> F + Send + 'static,
) -> (Vec<String>, usize) {
    let (done, finished) = mpsc::channel();
    thread::spawn(move || {
        let meddler = Arc::new(Meddler {
            endpoint: endpoint.clone(),
            topic,
            calls: AtomicUsize::new(0),
            counted: Mutex::default(),
        });
        let observer = Observer(Arc::clone(&meddler));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime");
        metrics::with_local_recorder(&observer, || {
            tracing::subscriber::with_default(observer.clone(), || {
                runtime.block_on(scenario(endpoint, Arc::clone(&meddler)));
                // The tasks end while everything still meddles.
                drop(runtime);
            });
        });
        let counted = meddler.counted.lock().expect("not poisoned").clone();
        let _ = done.send((counted, meddler.calls.load(Ordering::Relaxed)));
    });
    finished.recv_timeout(Duration::from_secs(20)).expect("a lock is held, or a thread panicked")
}

/// Lets the tasks run.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(30)).await;
}

#[test]
fn an_overflowing_outbox() {
    let endpoint = builder().max_outbox(100_000).build();
    let (counted, _) = run(endpoint, TOPIC, |endpoint, _| async move {
        let mut slow = connect(&endpoint, &[]).await.expect("connects");
        slow.join(TOPIC, json!({})).await;
        for _ in 0..5 {
            endpoint.broadcast(TOPIC, "new_msg", json!("x".repeat(90_000)));
        }
        settle().await;
    });
    assert!(counted.contains(&"tower_channels_outbox_overflows_total".into()), "{counted:?}");
}

#[test]
fn a_message_that_version_1_cannot_carry() {
    let (counted, _) = run(builder().build(), TOPIC, |endpoint, _| async move {
        let old = LongPoll::connect(&endpoint, "1.0.0").await;
        old.send(r#"{"topic":"room:1","event":"phx_join","payload":{},"ref":"1"}"#).await;
        settle().await;
        endpoint.broadcast(TOPIC, "new_msg", Payload::binary("bytes"));
        old.send(r#"{"topic":"room:1","event":"push_binary","payload":{},"ref":"2"}"#).await;
        settle().await;
    });
    let skipped =
        counted.iter().filter(|name| *name == "tower_channels_messages_skipped_total").count();
    assert_eq!(skipped, 2, "one broadcast and one push");
}

#[test]
fn an_intercepted_broadcast_for_which_there_is_no_room() {
    let (counted, _) = run(builder().max_mailbox(1).build(), TOPIC, |endpoint, _| async move {
        let mut client = connect(&endpoint, &[]).await.expect("connects");
        client.join(TOPIC, json!({})).await;
        (0..5).for_each(|_| endpoint.broadcast(TOPIC, "intercepted", json!({})));
        settle().await;
    });
    assert!(counted.contains(&"tower_channels_intercepts_dropped_total".into()), "{counted:?}");
}

#[test]
fn a_heard_broadcast_for_which_there_is_no_room() {
    let endpoint = builder().max_mailbox(1).build();
    let (counted, _) = run(endpoint, "heard", |endpoint, _| async move {
        let mut client = connect(&endpoint, &[]).await.expect("connects");
        client.join(TOPIC, json!({})).await;
        client.push(TOPIC, "subscribe", json!({})).await;
        (0..5).for_each(|_| endpoint.broadcast("heard", "news", json!({})));
        settle().await;
    });
    assert!(counted.contains(&"tower_channels_intercepts_dropped_total".into()), "{counted:?}");
}

#[test]
fn a_subscription_whose_reader_is_woken() {
    let (_, calls) = run(builder().build(), TOPIC, |endpoint, meddler| async move {
        let mut subscription = endpoint.pubsub().subscribe(TOPIC);
        let waker = Waker::from(meddler);
        let mut next = Box::pin(subscription.recv());
        assert!(next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        endpoint.broadcast(TOPIC, "new_msg", json!({}));
        assert!(next.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    });
    assert!(calls > 0);
}

#[test]
fn a_subscription_that_lags() {
    let pubsub = PubSub::with_config(PubSubConfig::new().max_subscription(1000));
    let endpoint = Endpoint::builder(|_| async { Ok(()) })
        .channel::<Quiet>("*")
        .pubsub(pubsub.expect("valid"))
        .build();
    let (_, calls) = run(endpoint, TOPIC, |endpoint, meddler| async move {
        let mut subscription = endpoint.pubsub().subscribe(TOPIC);
        let waker = Waker::from(meddler);
        let mut next = Box::pin(subscription.recv());
        assert!(next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        for _ in 0..9 {
            endpoint.broadcast(TOPIC, "new_msg", json!("x".repeat(2000)));
        }
        assert!(next.await.is_err(), "it has missed some");
    });
    assert!(calls > 0);
}

#[test]
fn a_crash() {
    let (_, calls) = run(builder().build(), TOPIC, |endpoint, _| async move {
        let mut client = connect(&endpoint, &[]).await.expect("connects");
        client.join(TOPIC, json!({})).await;
        client.send(TOPIC, "unknown", json!({}));
        let crashed = |event: &(String, Payload)| event.0 == "phx_error";
        while !crashed(&client.next_push().await) {}
    });
    assert!(calls > 0);
}

#[test]
fn a_waker() {
    let (_, calls) = run(builder().build(), TOPIC, |endpoint, meddler| async move {
        let mut client = connect(&endpoint, &[]).await.expect("connects");
        client.join(TOPIC, json!({})).await;
        client.discard();
        let waker = Waker::from(meddler);
        let mut next = Box::pin(client.next_push());
        assert!(next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        endpoint.broadcast(TOPIC, "new_msg", json!({}));
        let ready = next.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(ready.is_ready());
        settle().await;
    });
    assert!(calls > 0);
}

#[test]
fn a_waker_that_a_reply_wakes() {
    let (_, calls) = run(builder().build(), TOPIC, |endpoint, meddler| async move {
        let mut client = connect(&endpoint, &[]).await.expect("connects");
        let waker = Waker::from(meddler);
        let mut join = Box::pin(client.join(TOPIC, json!({})));
        assert!(join.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        settle().await;
        assert!(join.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
    });
    assert!(calls > 0);
}

#[test]
fn a_dormant_channel_that_catches_up() {
    let (counted, _) = run(builder().build(), "quiet:1", |endpoint, _| async move {
        let mut client = connect(&endpoint, &SESSION).await.expect("connects");
        client.join("quiet:1", json!({})).await;
        client.drop_connection();
        settle().await;
        endpoint.broadcast("quiet:1", "new_msg", json!({}));
        client.reconnect().await.expect("connects");
        client.join("quiet:1", json!({})).await;
        while client.next_push().await.0 != "new_msg" {}
    });
    for counter in
        ["tower_channels_messages_replayed_total", "tower_channels_channels_resumed_total"]
    {
        assert!(counted.contains(&counter.into()), "{counter}: {counted:?}");
    }
}

#[test]
fn a_dormant_channel_for_which_too_much_was_kept() {
    let endpoint = builder().max_outbox(100_000).build();
    let (counted, _) = run(endpoint, "quiet:1", |endpoint, _| async move {
        let mut client = connect(&endpoint, &SESSION).await.expect("connects");
        client.join("quiet:1", json!({})).await;
        client.drop_connection();
        settle().await;
        (0..9).for_each(|_| endpoint.broadcast("quiet:1", "new_msg", json!("x".repeat(90_000))));
        settle().await;
    });
    assert!(counted.contains(&"tower_channels_outbox_overflows_total".into()), "{counted:?}");
}

#[test]
fn presence() {
    let (_, calls) = run(builder().build(), TOPIC, |endpoint, _| async move {
        let mut client = connect(&endpoint, &[]).await.expect("connects");
        client.join(TOPIC, json!({})).await;
        for event in ["push_state", "track", "untrack"] {
            assert_eq!(client.push(TOPIC, event, json!({})).await, Reply::ack());
            settle().await;
        }
    });
    assert!(calls > 0, "the fetch hook panics, which is logged");
}

/// A long-poll client, which may speak version 1.0.0.
struct LongPoll {
    endpoint: Endpoint<()>,
    query: String,
}

impl LongPoll {
    async fn connect(endpoint: &Endpoint<()>, vsn: &str) -> Self {
        let (endpoint, query) = (endpoint.clone(), format!("vsn={vsn}"));
        let mut client = Self { endpoint, query };
        let answer = client.ask(Request::get(client.uri()).body(Full::default())).await;
        let token = answer["token"].as_str().expect("a token");
        client.query.push_str("&token=");
        client.query.push_str(token);
        client
    }

    async fn send(&self, message: &'static str) {
        let request = Request::post(self.uri()).header("content-type", "application/json");
        let answer = self.ask(request.body(Full::from(message))).await;
        assert_eq!(answer["status"], 200);
    }

    fn uri(&self) -> String {
        format!("/socket/longpoll?{}", self.query)
    }

    async fn ask(&self, request: http::Result<Request<Full<Bytes>>>) -> Value {
        let service = self.endpoint.service();
        let answer = service.oneshot(request.expect("a request")).await.expect("an answer");
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        serde_json::from_slice(&body).expect("JSON")
    }
}
