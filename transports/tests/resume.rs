//! Resumable sessions through the public contract, without a network.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use metrics::{Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, SharedString, Unit};
use serde_json::{Map, Value};
use tokio::time::Instant;
use tower::ServiceExt;
use tower_channels_transports::{
    Acceptor, CheckOrigin, Close, ConnectInfo, DetachReason, Handler, Inbound, Limits, LongPoll,
    LongPollConfig, Message, Rejected, ResumeConfig, Session, Transport, outbox,
};

/// Creates sessions that record what happens to them.
#[derive(Clone, Default)]
struct Recorder {
    /// By the session id, in order.
    record: Arc<Mutex<HashMap<String, Vec<String>>>>,
    /// The outbox of the newest session.
    outbox: Arc<Mutex<Option<outbox::Sender>>>,
}

impl Handler for Recorder {
    type Session = Recorded;

    async fn connect(
        &self,
        info: ConnectInfo,
        outbox: outbox::Sender,
    ) -> Result<Recorded, Rejected> {
        let id = info.param("session").unwrap_or_default().to_owned();
        *self.outbox.lock().unwrap() = Some(outbox.clone());
        Ok(Recorded { recorder: self.clone(), id, outbox })
    }
}

impl Recorder {
    fn note(&self, id: &str, event: String) {
        self.record.lock().unwrap().entry(id.to_owned()).or_default().push(event);
    }

    /// What has happened to a session since the last call.
    fn take(&self, tab: u32) -> Vec<String> {
        self.record.lock().unwrap().remove(&id(tab)).unwrap_or_default()
    }

    fn outbox(&self) -> outbox::Sender {
        self.outbox.lock().unwrap().clone().unwrap()
    }
}

struct Recorded {
    recorder: Recorder,
    id: String,
    outbox: outbox::Sender,
}

impl Recorded {
    fn note(&self, event: impl Into<String>) {
        self.recorder.note(&self.id, event.into());
    }
}

impl Session for Recorded {
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
        let Inbound::Text(text) = message else { return Ok(()) };
        match text {
            "slow" => {
                self.note("slow begins");
                std::thread::sleep(SLOW);
                self.note("slow ends");
            }
            "bad" => return Err(Close::Malformed),
            text => {
                self.note(text);
                self.outbox.priority().push(Message::text(text.to_owned()));
            }
        }
        Ok(())
    }

    fn id(&self) -> Option<&str> {
        Some("ann")
    }

    fn attached(&mut self, _: u64, _: Transport) {
        self.note("attached");
    }

    fn detached(&mut self, _: DetachReason) {
        self.note("detached");
    }

    fn reattached(&mut self) {
        self.note("reattached");
    }

    fn rejoin_deadline(&mut self) {
        self.note("rejoin deadline");
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.note("dropped");
    }
}

const SLOW: Duration = Duration::from_millis(500);
const TTL: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn acceptor() -> (Acceptor<Recorder>, Recorder) {
    let recorder = Recorder::default();
    let config = ResumeConfig::new().session_ttl(TTL);
    let (check_origin, limits) = (CheckOrigin::off(), Limits::default());
    (Acceptor::with_resume(recorder.clone(), check_origin, limits, config), recorder)
}

fn id(tab: u32) -> String {
    format!("{tab:022}")
}

fn info(tab: u32) -> ConnectInfo {
    ConnectInfo::in_memory(Map::from_iter([("session".to_owned(), Value::from(id(tab)))]))
}

/// Counts what the code under test counts on this thread.
#[derive(Default)]
struct Counts(Mutex<HashMap<String, Arc<AtomicU64>>>);

struct Count(Arc<AtomicU64>);

impl CounterFn for Count {
    fn increment(&self, value: u64) {
        self.0.fetch_add(value, Ordering::Relaxed);
    }

    fn absolute(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }
}

impl metrics::Recorder for Counts {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        let mut counts = self.0.lock().unwrap();
        let count = counts.entry(key.name().to_owned()).or_default();
        Counter::from_arc(Arc::new(Count(Arc::clone(count))))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

impl Counts {
    fn of(&self, name: &str) -> u64 {
        let counts = self.0.lock().unwrap();
        counts.get(name).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Sessions that were detached, and those that expired.
    fn detached_and_expired(&self) -> (u64, u64) {
        (
            self.of("tower_channels_sessions_detached_total"),
            self.of("tower_channels_sessions_expired_total"),
        )
    }
}

#[tokio::test]
async fn a_handler_that_blocks_delays_no_connect_and_events_keep_their_order() {
    let (acceptor, recorder) = acceptor();
    let (mut session, receiver) = acceptor.connect(info(1)).await.unwrap();
    let (began, begins) = mpsc::channel();
    let blocked = std::thread::spawn(move || {
        began.send(()).unwrap();
        let handled = session.handle_in(Inbound::Text("slow"));
        (session, handled)
    });
    begins.recv().unwrap();
    std::thread::sleep(SLOW / 10);
    let begun = Instant::now();
    let other = acceptor.connect(info(2)).await.unwrap();
    let elsewhere = begun.elapsed();
    let begun = Instant::now();
    let (mut newer, newer_receiver) = acceptor.connect(info(1)).await.unwrap();
    let here = begun.elapsed();
    assert!(elsewhere < SLOW / 5, "the connect of another session took {elsewhere:?}");
    assert!(here < SLOW / 5, "the connect of the same session took {here:?}");
    newer.handle_in(Inbound::Text("next")).unwrap();
    let (mut older, handled) = blocked.join().unwrap();
    assert_eq!(handled, Ok(()));
    assert_eq!(older.handle_in(Inbound::Text("stale")), Err(Close::Restart));
    drop((older, receiver, other));
    drop((newer, newer_receiver));
    // The session that the second connect made is shown to the first, and dropped.
    let expected =
        ["attached", "slow begins", "slow ends", "dropped", "attached", "next", "detached"];
    assert_eq!(recorder.take(1), expected);
}

#[tokio::test]
async fn an_end_while_the_handler_runs_drops_the_session_when_it_returns() {
    let (acceptor, recorder) = acceptor();
    let (mut session, receiver) = acceptor.connect(info(1)).await.unwrap();
    let outbox = recorder.outbox();
    let blocked = std::thread::spawn(move || {
        let _ = session.handle_in(Inbound::Text("slow"));
        session
    });
    std::thread::sleep(SLOW / 5);
    outbox.close(Close::GoingAway);
    // The client comes back to a new session, while its old one is still busy.
    let (mut newer, newer_receiver) = acceptor.connect(info(1)).await.unwrap();
    assert_eq!(newer.handle_in(Inbound::Text("new")), Ok(()));
    drop((blocked.join().unwrap(), receiver));
    let record = recorder.take(1);
    assert_eq!(record, ["attached", "slow begins", "attached", "new", "slow ends", "dropped"]);
    drop((newer, newer_receiver));
}

#[tokio::test(start_paused = true)]
async fn sessions_expire_within_a_tick_of_their_ttl_and_are_counted_once() {
    let counts = Counts::default();
    let _guard = metrics::set_default_local_recorder(&counts);
    let (acceptor, recorder) = acceptor();
    let first = acceptor.connect(info(1)).await.unwrap();
    assert_eq!(acceptor.detached_sessions(), 0);
    drop(first);
    assert_eq!((acceptor.detached_sessions(), counts.detached_and_expired()), (1, (1, 0)));
    // Back in time, and taken over by another connection: that detaches nothing.
    tokio::time::sleep(TTL - SECOND).await;
    let second = acceptor.connect(info(1)).await.unwrap();
    let third = acceptor.connect(info(1)).await.unwrap();
    drop(second);
    assert_eq!((acceptor.detached_sessions(), counts.detached_and_expired()), (0, (1, 0)));
    tokio::time::sleep(10 * TTL).await;
    assert_eq!(counts.detached_and_expired(), (1, 0), "a session in use does not expire");
    drop(third);
    tokio::time::sleep(TTL - SECOND).await;
    assert_eq!(acceptor.detached_sessions(), 1);
    // A tick is at most an eighth of the rejoin grace.
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!((acceptor.detached_sessions(), counts.detached_and_expired()), (0, (2, 1)));
    let record = recorder.take(1);
    assert_eq!(record.iter().filter(|event| *event == "detached").count(), 2);
    assert_eq!(record.last().unwrap(), "dropped");
}

#[tokio::test(start_paused = true)]
async fn a_detached_session_that_is_closed_ends_soon_and_has_not_expired() {
    let counts = Counts::default();
    let _guard = metrics::set_default_local_recorder(&counts);
    let (acceptor, recorder) = acceptor();
    drop(acceptor.connect(info(1)).await.unwrap());
    recorder.outbox().close(Close::GoingAway);
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(recorder.take(1), ["attached", "detached", "dropped"]);
    assert_eq!((acceptor.detached_sessions(), counts.detached_and_expired()), (0, (1, 0)));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_fails_is_not_counted_as_detached() {
    let counts = Counts::default();
    let _guard = metrics::set_default_local_recorder(&counts);
    let (acceptor, recorder) = acceptor();
    let (mut session, receiver) = acceptor.connect(info(1)).await.unwrap();
    assert_eq!(session.handle_in(Inbound::Text("bad")), Err(Close::Malformed));
    assert_eq!(recorder.take(1), ["attached", "dropped"]);
    assert_eq!(session.handle_in(Inbound::Text("more")), Err(Close::GoingAway));
    drop((session, receiver));
    tokio::time::sleep(2 * TTL).await;
    assert_eq!((acceptor.detached_sessions(), counts.detached_and_expired()), (0, (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn the_rejoin_deadline_is_reported_once_per_connection() {
    let (acceptor, recorder) = acceptor();
    for _ in 0..2 {
        let _connection = acceptor.connect(info(1)).await.unwrap();
        tokio::time::sleep(14 * SECOND).await;
        assert_eq!(recorder.take(1).last().unwrap(), "attached");
        tokio::time::sleep(4 * SECOND).await;
        assert_eq!(recorder.take(1), ["rejoin deadline"]);
        tokio::time::sleep(10 * TTL).await;
        assert!(recorder.take(1).is_empty());
    }
}

#[tokio::test]
async fn malformed_session_ids_are_counted_once_per_connect() {
    let counts = Counts::default();
    let _guard = metrics::set_default_local_recorder(&counts);
    let (acceptor, _) = acceptor();
    let ignored = "tower_channels_session_ids_ignored_total";
    let params = Map::from_iter([("session".to_owned(), Value::from("too short"))]);
    let _own = acceptor.connect(ConnectInfo::in_memory(params)).await.unwrap();
    assert_eq!(counts.of(ignored), 1);
    let _resumable = acceptor.connect(info(1)).await.unwrap();
    assert_eq!(counts.of(ignored), 1);
}

/// A long-poll client without a network.
struct Poller {
    service: LongPoll<Recorder>,
    token: String,
}

impl Poller {
    async fn connect(acceptor: Acceptor<Recorder>, tab: u32) -> Self {
        let service = LongPoll::new(acceptor, LongPollConfig::new());
        let mut poller = Self { service, token: String::new() };
        let answer = poller.send(Method::GET, &format!("session={}", id(tab)), "").await;
        assert_eq!(answer["status"], 410);
        poller.token = answer["token"].as_str().unwrap().to_owned();
        poller
    }

    async fn send(&self, method: Method, query: &str, body: &'static str) -> Value {
        let request = Request::builder().method(method).uri(format!("/longpoll?{query}"));
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        let response = self.service.clone().oneshot(request).await.unwrap();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        serde_json::from_slice(&body).unwrap()
    }

    /// Polls, and returns the status of the answer.
    async fn poll(&mut self) -> u64 {
        let answer = self.send(Method::GET, &format!("token={}", self.token), "").await;
        if let Some(token) = answer["token"].as_str() {
            self.token = token.to_owned();
        }
        answer["status"].as_u64().unwrap()
    }

    async fn post(&self, body: &'static str) -> u64 {
        let answer = self.send(Method::POST, &format!("token={}", self.token), body).await;
        answer["status"].as_u64().unwrap()
    }
}

const POLL_TIMEOUT: Duration = Duration::from_secs(10);
const SESSION_TIMEOUT: Duration = Duration::from_secs(15);

#[tokio::test(start_paused = true)]
async fn a_long_poll_client_that_stops_polling_is_detached_and_may_come_back_in_the_same_epoch() {
    let counts = Counts::default();
    let _guard = metrics::set_default_local_recorder(&counts);
    let (acceptor, recorder) = acceptor();
    let mut poller = Poller::connect(acceptor.clone(), 1).await;
    assert_eq!(poller.poll().await, 204);
    for _ in 0..10 {
        tokio::time::sleep(SECOND).await;
        assert_eq!(poller.poll().await, 204);
    }
    assert_eq!(recorder.take(1), ["attached", "rejoin deadline"]);
    assert_eq!((acceptor.detached_sessions(), counts.detached_and_expired()), (0, (0, 0)));

    tokio::time::sleep(SESSION_TIMEOUT - SECOND).await;
    assert!(recorder.take(1).is_empty());
    tokio::time::sleep(SESSION_TIMEOUT / 4 + 2 * SECOND).await;
    assert_eq!(recorder.take(1), ["detached"]);
    assert_eq!((acceptor.detached_sessions(), counts.detached_and_expired()), (1, (1, 0)));
    tokio::time::sleep(SESSION_TIMEOUT).await;
    assert!(recorder.take(1).is_empty(), "it is detached once");

    assert_eq!(poller.poll().await, 204);
    assert_eq!(recorder.take(1), ["reattached"]);
    assert_eq!((acceptor.detached_sessions(), counts.detached_and_expired()), (0, (1, 0)));

    // It may also come back with a POST.
    tokio::time::sleep(2 * SESSION_TIMEOUT).await;
    assert_eq!(poller.post("hello").await, 200);
    assert_eq!(recorder.take(1), ["detached", "reattached", "hello"]);
    assert_eq!(poller.poll().await, 200);

    let begun = Instant::now();
    while acceptor.detached_sessions() == 0 {
        tokio::time::sleep(SECOND / 10).await;
    }
    while acceptor.detached_sessions() == 1 {
        tokio::time::sleep(SECOND / 10).await;
    }
    // The ttl counts from the last poll.
    assert!(begun.elapsed() >= TTL && begun.elapsed() < TTL + 3 * SECOND, "{:?}", begun.elapsed());
    assert_eq!(counts.detached_and_expired(), (3, 1));
    assert_eq!(recorder.take(1), ["detached", "dropped"]);
    assert_eq!(poller.poll().await, 500);
}

#[tokio::test(start_paused = true)]
async fn of_the_tokens_that_a_known_session_never_used_only_the_newest_is_valid() {
    let (acceptor, recorder) = acceptor();
    let first = Poller::connect(acceptor, 1).await;
    assert_eq!(first.post("hello").await, 200);
    let mut tokens = Vec::new();
    for _ in 0..5 {
        let answer = first.send(Method::GET, &format!("session={}", id(1)), "").await;
        tokens.push(answer["token"].as_str().unwrap().to_owned());
    }
    let newest = tokens.pop().unwrap();
    for token in tokens {
        let answer = first.send(Method::GET, &format!("token={token}"), "").await;
        assert_eq!(answer["status"], 500);
    }
    assert_eq!(first.post("still there").await, 200, "an unused token takes nothing over");
    let answer = first.send(Method::POST, &format!("token={newest}"), "from the newest").await;
    assert_eq!(answer["status"], 200);
    assert_eq!(recorder.take(1).last().unwrap(), "from the newest");
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_client_whose_poll_waits_is_not_detached() {
    let (acceptor, recorder) = acceptor();
    let mut poller = Poller::connect(acceptor.clone(), 1).await;
    let begun = Instant::now();
    while begun.elapsed() < 5 * TTL {
        assert_eq!(poller.poll().await, 204);
    }
    assert!(begun.elapsed() > 5 * TTL - POLL_TIMEOUT);
    assert_eq!(recorder.take(1), ["attached", "rejoin deadline"]);
    assert_eq!(acceptor.detached_sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_client_that_was_detached_loses_nothing() {
    let (acceptor, recorder) = acceptor();
    let mut poller = Poller::connect(acceptor, 1).await;
    assert_eq!(poller.poll().await, 204);
    tokio::time::sleep(2 * SESSION_TIMEOUT).await;
    recorder.outbox().priority().push(Message::text("[1]"));
    let answer = poller.send(Method::GET, &format!("token={}", poller.token), "").await;
    assert_eq!(answer["messages"], serde_json::json!(["[1]"]));
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_uses_the_acceptor_finds_no_lock_held() {
    struct Connects(Acceptor<Recorder>);
    impl std::task::Wake for Connects {
        fn wake(self: Arc<Self>) {
            let mut connect = Box::pin(self.0.connect(info(1)));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(connect.as_mut().poll(&mut cx).is_ready());
        }
    }
    let (acceptor, recorder) = acceptor();
    let (_session, mut receiver) = acceptor.connect(info(1)).await.unwrap();
    let waker = Waker::from(Arc::new(Connects(acceptor.clone())));
    let mut cx = Context::from_waker(&waker);
    assert!(receiver.poll_take(&mut cx, &mut Default::default()).is_pending());
    // Supersedes the receiver, whose waker supersedes the newcomer.
    let newcomer = acceptor.connect(info(1)).await.unwrap();
    assert_eq!(recorder.take(1), ["attached", "dropped", "attached", "detached", "dropped"]);
    drop(newcomer);
    assert_eq!(acceptor.detached_sessions(), 1);
}

/// Creates sessions with one stream, in which a message of this size waits.
struct OneMessage(usize);

struct OneMessageSession {
    outbox: outbox::Sender,
    stream: Option<outbox::Sender>,
    size: usize,
}

impl Handler for OneMessage {
    type Session = OneMessageSession;

    async fn connect(
        &self,
        _: ConnectInfo,
        outbox: outbox::Sender,
    ) -> Result<OneMessageSession, Rejected> {
        Ok(OneMessageSession { outbox, stream: None, size: self.0 })
    }
}

impl Session for OneMessageSession {
    fn handle_in(&mut self, _: Inbound<'_>) -> Result<(), Close> {
        Ok(())
    }

    fn id(&self) -> Option<&str> {
        Some("ann")
    }

    fn attached(&mut self, epoch: u64, _: Transport) {
        let stream = self.stream.get_or_insert_with(|| {
            let stream = self.outbox.stream();
            stream.push(Message::text("x".repeat(self.size)));
            stream
        });
        stream.resume(epoch, Message::text(format!("epoch {epoch}")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_over_whose_message_three_connections_were_lost_starts_anew() {
    let stuck = "tower_channels_sessions_stuck_total";
    for (size, lived, is_noticed, expected) in [
        (50_000, 2000, true, ["epoch 2", "epoch 3", "epoch 4", "epoch 2", "epoch 3"]),
        // The next connection takes the session over.
        (50_000, 2000, false, ["epoch 2", "epoch 3", "epoch 4", "epoch 2", "epoch 3"]),
        (50_000, 900, true, ["epoch 2", "epoch 3", "epoch 4", "epoch 5", "epoch 6"]),
        (20_000, 9000, true, ["epoch 2", "epoch 3", "epoch 4", "epoch 5", "epoch 6"]),
    ] {
        let counts = Counts::default();
        let _guard = metrics::set_default_local_recorder(&counts);
        let acceptor = Acceptor::new(OneMessage(size), CheckOrigin::off(), Limits::default());
        let (mut first, mut lost) = (Vec::new(), Vec::new());
        for _ in 0..5 {
            let (session, mut receiver) = acceptor.connect(info(1)).await.unwrap();
            let mut messages = std::collections::VecDeque::new();
            let mut cx = Context::from_waker(Waker::noop());
            assert!(receiver.poll_take(&mut cx, &mut messages).is_ready());
            first.push(String::from_utf8(messages[0].to_bytes().to_vec()).unwrap());
            tokio::time::sleep(Duration::from_millis(lived)).await;
            lost.push((session, receiver));
            if is_noticed {
                lost.clear();
            }
        }
        assert_eq!(first, expected, "{size} bytes, {lived} ms, {is_noticed}");
        assert_eq!(counts.of(stuck), u64::from(expected[3] == "epoch 2"));
    }
}
