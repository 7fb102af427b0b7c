//! Guarantees to the author of a channel, tested with in-memory clients.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::json;
use tower_channels::channel::{Error, Result};
use tower_channels::test::{Client, connect};
use tower_channels::{
    Channel, ConnectInfo, Endpoint, Joined, Payload, Reason, Rejected, Reply, Socket,
};

struct User {
    name: Option<String>,
}

#[derive(Default)]
struct Room {
    handled: u32,
}

static TERMINATED: Mutex<Vec<(String, Reason)>> = Mutex::new(Vec::new());

async fn user(info: ConnectInfo) -> Result<User, Rejected> {
    if info.param("reject").is_some() {
        return Err(Rejected::reason("rejected"));
    }
    Ok(User { name: info.param("name").map(Into::into) })
}

impl Channel for Room {
    type Assigns = User;
    type Info = u32;

    const INTERCEPT: &'static [&'static str] = &["shout"];

    async fn join(topic: &str, payload: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        match topic.strip_prefix("room:") {
            Some("closed") => Err(Error::reason("unauthorized")),
            Some("slow") => {
                tokio::time::sleep(Duration::from_secs(3)).await;
                Ok(Self::default().into())
            }
            Some("never") => pending().await,
            Some("panic") => panic!("requested"),
            Some("error") => Err("no database".into()),
            _ => Ok(Joined::new(Self::default()).reply(payload)),
        }
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        socket.push("joined", json!({ "name": socket.assigns().name }));
        Ok(())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        self.handled += 1;
        match event {
            "ping" => Ok(Reply::Ok(payload)),
            "count" => Ok(Reply::ok(json!(self.handled))),
            "say" => {
                socket.broadcast("said", payload);
                Ok(Reply::None)
            }
            "whisper" => {
                socket.broadcast_from("said", payload);
                Ok(Reply::None)
            }
            "shout" => {
                socket.broadcast("shout", payload);
                Ok(Reply::None)
            }
            "later" => {
                let (reply_ref, handle) = (socket.reply_ref(), socket.handle());
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    reply_ref.reply(Reply::ok(json!("late")));
                    handle.send(7).expect("the channel is alive");
                });
                Ok(Reply::None)
            }
            "outlive" => {
                let socket = socket.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    socket.push("late", json!({}));
                    socket.broadcast_from("said", json!("late"));
                });
                Ok(Reply::None)
            }
            "nap" => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(Reply::None)
            }
            "quote" => Ok(Reply::ok(json!(payload.parse::<String>()?.repeat(4)))),
            "block" => {
                socket.push("blocking", json!({}));
                std::thread::sleep(Duration::from_millis(100));
                socket.push("late", json!({}));
                Ok(Reply::None)
            }
            "hang" => pending().await,
            "panic" => panic!("requested"),
            "stop" => Err(Error::stop()),
            "stop_reply" => Err(Error::stop_with(Reply::Ok(payload))),
            "error" => Err("no database".into()),
            _ => Err(Error::unmatched(event)),
        }
    }

    async fn handle_info(&mut self, info: u32, socket: &Socket<Self>) -> Result<()> {
        socket.push("info", json!(info));
        Ok(())
    }

    async fn handle_out(&mut self, event: &str, _: Payload, socket: &Socket<Self>) -> Result<()> {
        socket.push(event, json!({ "to": socket.assigns().name }));
        Ok(())
    }

    async fn terminate(&mut self, reason: Reason, socket: &Socket<Self>) {
        TERMINATED.lock().expect("not poisoned").push((socket.topic().to_owned(), reason));
    }
}

fn endpoint() -> Endpoint<User> {
    Endpoint::builder(user)
        .id(|user| user.name.as_ref().map(|name| format!("user:{name}")))
        .channel::<Room>("room:*")
        .build()
}

async fn client(endpoint: &Endpoint<User>, name: &str) -> Client<User> {
    connect(endpoint, &[("name", name)]).await.expect("connects")
}

/// Joins a topic and waits for the `joined` push.
async fn joined(endpoint: &Endpoint<User>, name: &str, topic: &str) -> Client<User> {
    let mut client = client(endpoint, name).await;
    assert_eq!(client.join(topic, json!({})).await, Reply::ack());
    assert_eq!(client.next_push().await, ("joined".into(), json!({ "name": name }).into()));
    client
}

fn crashed() -> (String, Payload) {
    ("phx_error".into(), json!({ "reason": "channel_crash" }).into())
}

fn closed() -> (String, Payload) {
    ("phx_close".into(), json!({}).into())
}

#[tokio::test(start_paused = true)]
async fn a_join_is_answered_before_the_first_push() {
    let mut ann = client(&endpoint(), "ann").await;
    assert_eq!(ann.join("room:1", json!({ "a": 1 })).await, Reply::ok(json!({ "a": 1 })));
    assert_eq!(ann.next_push().await.0, "joined");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_connect_fails() {
    assert!(connect(&endpoint(), &[("reject", "true")]).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn joins_fail_with_their_reasons() {
    let mut ann = client(&endpoint(), "ann").await;
    for (topic, reason) in [
        ("room:closed", "unauthorized"),
        ("room:panic", "join crashed"),
        ("room:error", "join crashed"),
        ("nowhere", "unmatched topic"),
    ] {
        assert_eq!(ann.join(topic, json!({})).await, Reply::reason(reason), "{topic}");
        assert_eq!(ann.push(topic, "ping", json!(1)).await, Reply::reason("unmatched topic"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_join_that_never_ends_times_out() {
    let endpoint = Endpoint::builder(user)
        .channel::<Room>("room:*")
        .join_timeout(Duration::from_secs(2))
        .build();
    let mut ann = client(&endpoint, "ann").await;
    assert_eq!(ann.join("room:never", json!({})).await, Reply::reason("join timed out"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_join_does_not_block_other_channels_or_the_heartbeat() {
    let mut ann = client(&endpoint(), "ann").await;
    let slow = ann.send("room:slow", "phx_join", json!({}));
    assert_eq!(ann.join("room:1", json!({})).await, Reply::ack());
    assert_eq!(ann.push("phoenix", "heartbeat", json!({})).await, Reply::ack());
    assert_eq!(ann.push("room:1", "ping", json!(1)).await, Reply::ok(json!(1)));
    assert_eq!(ann.expect_reply(&slow).await, Reply::ack());
}

#[tokio::test(start_paused = true)]
async fn pushes_during_a_join_wait_for_it() {
    let mut ann = client(&endpoint(), "ann").await;
    let join = ann.send("room:slow", "phx_join", json!({}));
    let ping = ann.send("room:slow", "ping", json!("early"));
    assert_eq!(ann.next_message().await.reference, Some(join));
    assert_eq!(ann.next_push().await.0, "joined");
    assert_eq!(ann.next_message().await.reference, Some(ping));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_handler_does_not_block_other_channels() {
    let endpoint = endpoint();
    let mut ann = joined(&endpoint, "ann", "room:1").await;
    ann.join("room:2", json!({})).await;
    ann.send("room:1", "hang", json!({}));
    assert_eq!(ann.push("room:2", "ping", json!(1)).await, Reply::ok(json!(1)));
    assert_eq!(ann.push("phoenix", "heartbeat", json!({})).await, Reply::ack());
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_crashes_only_its_own_channel() {
    let endpoint = Endpoint::builder(user).channel::<Room>("room:*").max_mailbox(10_000).build();
    let mut ann = joined(&endpoint, "ann", "room:1").await;
    ann.join("room:2", json!({})).await;
    ann.next_push().await;
    ann.send("room:1", "hang", json!({}));
    for _ in 0..100 {
        ann.send("room:1", "ping", json!("x".repeat(500)));
    }
    assert_eq!(ann.next_push().await, crashed());
    assert_eq!(ann.push("room:2", "ping", json!(1)).await, Reply::ok(json!(1)));
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_works_off_a_backlog_lets_its_client_read() {
    let mut ann = joined(&endpoint(), "ann", "room:1").await;
    ann.send("room:1", "nap", json!({}));
    let large = "x".repeat(1000);
    let pings: Vec<_> = (0..500).map(|_| ann.send("room:1", "quote", json!(large))).collect();
    for ping in pings {
        assert!(matches!(ann.expect_reply(&ping).await, Reply::Ok(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_an_error_or_an_unknown_event_ends_only_one_channel() {
    let endpoint = endpoint();
    let mut bob = joined(&endpoint, "bob", "room:1").await;
    for event in ["panic", "error", "unknown"] {
        let mut ann = joined(&endpoint, "ann", "room:1").await;
        ann.join("room:2", json!({})).await;
        ann.next_push().await;
        ann.send("room:1", event, json!({}));
        let end = ann.next_message().await;
        assert_eq!((end.event.as_str(), &end.reference), ("phx_error", &end.join_ref));
        assert_eq!(ann.push("room:1", "ping", json!(1)).await, Reply::reason("unmatched topic"));
        assert_eq!(ann.push("room:2", "ping", json!(1)).await, Reply::ok(json!(1)));
        assert_eq!(ann.join("room:1", json!({})).await, Reply::ack(), "can be joined again");
    }
    assert_eq!(bob.push("room:1", "ping", json!(1)).await, Reply::ok(json!(1)));
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_reaches_everyone_and_broadcast_from_skips_the_sender() {
    let endpoint = endpoint();
    let mut ann = joined(&endpoint, "ann", "room:1").await;
    let mut bob = joined(&endpoint, "bob", "room:1").await;
    let mut eve = joined(&endpoint, "eve", "room:2").await;
    ann.send("room:1", "whisper", json!("psst"));
    ann.send("room:1", "say", json!("hello"));
    assert_eq!(bob.next_push().await, ("said".into(), json!("psst").into()));
    assert_eq!(bob.next_push().await, ("said".into(), json!("hello").into()));
    assert_eq!(ann.next_push().await, ("said".into(), json!("hello").into()));
    endpoint.broadcast("room:2", "news", json!(1));
    assert_eq!(eve.next_push().await, ("news".into(), json!(1).into()));
}

#[tokio::test(start_paused = true)]
async fn an_intercepted_broadcast_is_handled_by_each_channel() {
    let endpoint = endpoint();
    let mut ann = joined(&endpoint, "ann", "room:1").await;
    let mut bob = joined(&endpoint, "bob", "room:1").await;
    ann.send("room:1", "shout", json!({}));
    assert_eq!(ann.next_push().await, ("shout".into(), json!({ "to": "ann" }).into()));
    assert_eq!(bob.next_push().await, ("shout".into(), json!({ "to": "bob" }).into()));
}

#[tokio::test(start_paused = true)]
async fn a_late_reply_and_an_info_message_arrive_while_other_pushes_are_handled() {
    let mut ann = joined(&endpoint(), "ann", "room:1").await;
    let later = ann.send("room:1", "later", json!({}));
    assert_eq!(ann.push("room:1", "ping", json!(1)).await, Reply::ok(json!(1)));
    assert_eq!(ann.expect_reply(&later).await, Reply::ok(json!("late")));
    assert_eq!(ann.next_push().await, ("info".into(), json!(7).into()));
}

#[tokio::test(start_paused = true)]
async fn a_late_reply_of_a_channel_that_has_ended_is_dropped() {
    let mut ann = joined(&endpoint(), "ann", "room:1").await;
    ann.send("room:1", "later", json!({}));
    ann.leave("room:1").await;
    assert_eq!(ann.next_message().await.event, "phx_close");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let heartbeat = ann.send("phoenix", "heartbeat", json!({}));
    assert_eq!(ann.next_message().await.reference, Some(heartbeat));
}

#[tokio::test(start_paused = true)]
async fn broadcast_from_a_socket_that_outlives_its_channel_reaches_everyone() {
    let endpoint = endpoint();
    let mut ann = joined(&endpoint, "ann", "room:1").await;
    ann.send("room:1", "outlive", json!({}));
    ann.leave("room:1").await;
    assert_eq!(ann.next_push().await, closed());
    let mut bob = joined(&endpoint, "bob", "room:1").await;
    assert_eq!(bob.next_push().await, ("said".into(), json!("late").into()));
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_has_ended_pushes_nothing() {
    let endpoint = endpoint();
    let mut ann = joined(&endpoint, "ann", "room:1").await;
    ann.send("room:1", "outlive", json!({}));
    ann.leave("room:1").await;
    assert_eq!(ann.next_push().await, closed());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(ann.discard(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_replies_before_it_closes() {
    let mut ann = joined(&endpoint(), "ann", "room:1").await;
    assert_eq!(ann.push("room:1", "stop_reply", json!("bye")).await, Reply::ok(json!("bye")));
    assert_eq!(ann.next_push().await, closed());
    ann.join("room:1", json!({})).await;
    ann.next_push().await;
    ann.send("room:1", "stop", json!({}));
    assert_eq!(ann.next_push().await, closed());
}

#[tokio::test(start_paused = true)]
async fn terminate_receives_the_reason_and_is_not_called_after_a_crash() {
    let endpoint = endpoint();
    for topic in ["room:t-left", "room:t-stop", "room:t-gone", "room:t-crash"] {
        let mut ann = joined(&endpoint, "ann", topic).await;
        match topic {
            "room:t-left" => assert_eq!(ann.leave(topic).await, Reply::ack()),
            "room:t-stop" => drop(ann.send(topic, "stop", json!({}))),
            "room:t-crash" => drop(ann.send(topic, "panic", json!({}))),
            _ => continue,
        }
        ann.next_push().await;
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut seen = TERMINATED.lock().expect("not poisoned").clone();
    seen.retain(|(topic, _)| topic.starts_with("room:t-"));
    let reason = |topic: &str| seen.iter().find(|(t, _)| t == topic).map(|(_, reason)| *reason);
    assert_eq!(reason("room:t-left"), Some(Reason::Left));
    assert_eq!(reason("room:t-stop"), Some(Reason::Normal));
    assert_eq!(reason("room:t-gone"), Some(Reason::Closed));
    assert_eq!(reason("room:t-crash"), None);
}

#[tokio::test(start_paused = true)]
async fn a_second_join_is_answered_before_the_first_channel_is_closed() {
    let mut ann = joined(&endpoint(), "ann", "room:1").await;
    ann.send("room:1", "hang", json!({}));
    let join = ann.send("room:1", "phx_join", json!({}));
    let reply = ann.next_message().await;
    assert_eq!(reply.reference, Some(join));
    let close = ann.next_message().await;
    assert_eq!((close.event.as_str(), close.join_ref.as_deref()), ("phx_close", Some("1")));
    assert_eq!(ann.next_message().await.event, "joined");
}

#[tokio::test(start_paused = true)]
async fn terminate_is_not_called_for_a_replaced_channel() {
    let endpoint = endpoint();
    let mut ann = client(&endpoint, "ann").await;
    ann.send("room:twice", "phx_join", json!({}));
    assert_eq!(ann.join("room:twice", json!({})).await, Reply::ack());
    tokio::time::sleep(Duration::from_millis(1)).await;
    let terminated = TERMINATED.lock().expect("not poisoned").clone();
    assert_eq!(terminated.iter().find(|(topic, _)| topic == "room:twice"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_channel_sends_nothing_even_if_it_cannot_be_cancelled() {
    let mut ann = joined(&endpoint(), "ann", "room:1").await;
    ann.send("room:1", "block", json!({}));
    assert_eq!(ann.next_push().await.0, "blocking");
    ann.send("room:1", "phx_join", json!({}));
    ann.send("room:1", "phx_join", json!({}));
    tokio::time::sleep(Duration::from_millis(300)).await;
    ann.send("room:1", "stop", json!({}));
    let mut events = Vec::new();
    while events.iter().filter(|event| *event == "phx_close").count() < 3 {
        events.push(ann.next_push().await.0);
    }
    assert!(!events.contains(&"late".to_owned()), "{events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_never_subscribed_twice_to_a_topic() {
    let endpoint = endpoint();
    let mut ann = joined(&endpoint, "ann", "room:1").await;
    ann.send("room:1", "block", json!({}));
    assert_eq!(ann.next_push().await.0, "blocking");
    ann.send("room:1", "phx_join", json!({}));
    ann.send("room:1", "phx_join", json!({}));
    tokio::time::sleep(Duration::from_millis(50)).await;
    endpoint.broadcast("room:1", "said", json!({}));
    tokio::time::sleep(Duration::from_millis(200)).await;
    ann.send("room:1", "stop", json!({}));
    let mut events = Vec::new();
    while events.iter().filter(|event| *event == "phx_close").count() < 3 {
        events.push(ann.next_push().await.0);
    }
    assert_eq!(events.iter().filter(|event| *event == "said").count(), 1, "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_join_that_is_replaced_while_it_runs_is_closed_and_not_answered() {
    let endpoint = endpoint();
    let mut ann = client(&endpoint, "ann").await;
    let first = ann.send("room:slow", "phx_join", json!({}));
    let second = ann.send("room:slow", "phx_join", json!({}));
    assert_eq!(ann.expect_reply(&second).await, Reply::ack());
    let close = ann.next_message().await;
    assert_eq!((close.event.as_str(), close.reference), ("phx_close", None));
    assert_eq!(ann.next_message().await.event, "joined");
    let heartbeat = ann.send("phoenix", "heartbeat", json!({}));
    let next = ann.next_message().await.reference;
    assert_eq!(next, Some(heartbeat), "the first join ({first}) is not answered");
}

#[tokio::test(start_paused = true)]
async fn the_hundred_and_first_channel_is_rejected_until_one_ends() {
    let mut ann = client(&endpoint(), "ann").await;
    for n in 0..100 {
        assert_eq!(ann.join(&format!("room:{n}"), json!({})).await, Reply::ack());
    }
    let full = Reply::reason("too many channels joined");
    assert_eq!(ann.join("room:100", json!({})).await, full);
    assert_eq!(ann.join("nowhere", json!({})).await, Reply::reason("unmatched topic"));
    assert_eq!(ann.join("room:99", json!({})).await, Reply::ack(), "a joined topic can rejoin");
    ann.leave("room:7").await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(ann.join("room:100", json!({})).await, Reply::ack());
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_closes_only_the_sockets_with_that_id() {
    let endpoint = endpoint();
    let mut ann = joined(&endpoint, "ann", "room:1").await;
    let mut bob = joined(&endpoint, "bob", "room:1").await;
    endpoint.disconnect("user:ann");
    assert_eq!(ann.expect_closed().await.code(), 1001);
    assert_eq!(bob.push("room:1", "ping", json!(1)).await, Reply::ok(json!(1)));
    endpoint.broadcast("user:bob", "disconnect", json!({}));
    assert_eq!(bob.expect_closed().await.code(), 1001);
}

#[tokio::test(start_paused = true)]
async fn binary_payloads_work_in_both_directions() {
    let endpoint = endpoint();
    let mut ann = joined(&endpoint, "ann", "room:1").await;
    let mut bob = joined(&endpoint, "bob", "room:1").await;
    let bytes = Payload::binary(&[0, 255, 7][..]);
    assert_eq!(ann.push("room:1", "ping", bytes.clone()).await, Reply::Ok(bytes.clone()));
    ann.send("room:1", "say", bytes.clone());
    assert_eq!(bob.next_push().await, ("said".into(), bytes));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_overflows_without_affecting_others() {
    let endpoint = Endpoint::builder(user).channel::<Room>("room:*").max_outbox(10_000).build();
    let mut ann = joined(&endpoint, "ann", "room:1").await;
    let mut bob = joined(&endpoint, "bob", "room:1").await;
    for _ in 0..100 {
        endpoint.broadcast("room:1", "said", json!("x".repeat(1000)));
        bob.next_push().await;
    }
    assert_eq!(ann.expect_closed().await.code(), 1013);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_session_drops_its_channels() {
    struct Counted;
    static ALIVE: AtomicUsize = AtomicUsize::new(0);
    impl Drop for Counted {
        fn drop(&mut self) {
            ALIVE.fetch_sub(1, Ordering::SeqCst);
        }
    }
    impl Channel for Counted {
        type Assigns = ();
        type Info = ();
        async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
            ALIVE.fetch_add(1, Ordering::SeqCst);
            Ok(Self.into())
        }
    }
    let endpoint = Endpoint::builder(|_| async { Ok(()) }).channel::<Counted>("*").build();
    let mut ann = connect(&endpoint, &[]).await.expect("connects");
    ann.join("a", json!({})).await;
    ann.join("b", json!({})).await;
    assert_eq!((ALIVE.load(Ordering::SeqCst), endpoint.sessions().total()), (2, 1));
    drop(ann);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!((ALIVE.load(Ordering::SeqCst), endpoint.sessions().total()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_notified_of_an_end_after_the_channel_is_dropped() {
    struct Slow;
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    impl Drop for Slow {
        fn drop(&mut self) {
            std::thread::sleep(Duration::from_millis(50));
            DROPPED.fetch_add(1, Ordering::SeqCst);
        }
    }
    impl Channel for Slow {
        type Assigns = ();
        type Info = ();
        async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
            Ok(Self.into())
        }
    }
    let endpoint = Endpoint::builder(|_| async { Ok(()) }).channel::<Slow>("*").build();
    let mut ann = connect(&endpoint, &[]).await.expect("connects");
    ann.join("a", json!({})).await;
    ann.leave("a").await;
    assert_eq!(ann.next_push().await, closed());
    assert_eq!(DROPPED.load(Ordering::SeqCst), 1);
    ann.join("a", json!({})).await;
    ann.send("a", "crash", json!({}));
    assert_eq!(ann.next_push().await, crashed());
    assert_eq!(DROPPED.load(Ordering::SeqCst), 2);
}

#[test]
fn an_invalid_configuration_is_reported_by_build() {
    let build = |error: &str, builder: tower_channels::Builder<User>| {
        let message = builder.try_build().expect_err("an error").to_string();
        assert!(message.contains(error), "{message}");
    };
    build("can never match", Endpoint::builder(user).channel::<Room>("a*").channel::<Room>("ab"));
    let room = || Endpoint::builder(user).channel::<Room>("*");
    build("max_outbox", room().max_outbox(0));
    build("max_channels", room().max_channels(0));
    build("join_timeout", room().join_timeout(Duration::ZERO));
}

/// Blocks a thread when it is dropped, until it is released.
struct Stubborn {
    released: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl Channel for Stubborn {
    type Assigns = Arc<Mutex<mpsc::Receiver<()>>>;
    type Info = ();

    async fn join(_: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self { released: Arc::clone(socket.assigns()) }.into())
    }
}

impl Drop for Stubborn {
    fn drop(&mut self) {
        let _ = self.released.lock().expect("not poisoned").recv();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_wait_for_the_previous_instance_counts_towards_the_join_timeout() {
    let (release, released) = mpsc::channel();
    let released = Arc::new(Mutex::new(released));
    let endpoint = Endpoint::builder(move |_| {
        let released = Arc::clone(&released);
        async move { Ok(released) }
    })
    .channel::<Stubborn>("room")
    .join_timeout(Duration::from_millis(200))
    .build();
    let mut client = connect(&endpoint, &[]).await.expect("connects");
    assert_eq!(client.join("room", json!({})).await, Reply::ack());
    assert_eq!(client.join("room", json!({})).await, Reply::reason("join timed out"));
    // The previous instance still has the topic to itself, however often its client joins.
    assert_eq!(client.join("room", json!({})).await, Reply::reason("join timed out"));
    assert_eq!(client.discard(), 0, "the previous instance has not ended");

    release.send(()).expect("it is waited for");
    let (event, _) = client.next_push().await;
    assert_eq!(event, "phx_close");
    assert_eq!(client.join("room", json!({})).await, Reply::ack());
    drop(release);
}
