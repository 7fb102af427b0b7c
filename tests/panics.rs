//! Where the application's code panics, it ends its own channel or its own request, and nothing else.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use http::header::ORIGIN;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde::{Serialize, Serializer};
use serde_json::json;
use support::capture;
use tower::ServiceExt;
use tower_channels::channel::{Error, Result};
use tower_channels::test::{Client, connect};
use tower_channels::{
    Builder, Channel, CheckOrigin, Close, ConnectInfo, Endpoint, Handle, Joined, Payload, Presence,
    PresenceConfig, Reason, Rejected, Reply, Socket,
};

#[path = "support/capture.rs"]
mod support;

const PANICS: &str = "tower_channels_panics_total";

/// Panics when it is dropped, if the flag is set.
struct Fragile(bool);

impl Drop for Fragile {
    fn drop(&mut self) {
        assert!(!self.0, "dropped as requested");
    }
}

impl Clone for Fragile {
    fn clone(&self) -> Self {
        panic!("cloned as requested")
    }
}

/// Panics when it is serialized.
struct Unspeakable;

impl Serialize for Unspeakable {
    fn serialize<S: Serializer>(&self, _: S) -> std::result::Result<S::Ok, S::Error> {
        panic!("serialized as requested")
    }
}

/// An error that panics when it is printed.
#[derive(Debug)]
struct Unprintable;

impl fmt::Display for Unprintable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("printed as requested")
    }
}

impl std::error::Error for Unprintable {}

struct User {
    handles: std::sync::mpsc::Sender<Handle<Room>>,
    _fragile: Fragile,
}

/// The channels of the topics `room:fragile…` panic when they are dropped.
struct Room(Fragile);

impl Channel for Room {
    type Assigns = User;
    type Info = Fragile;

    async fn join(topic: &str, payload: Payload, it: &Socket<Self>) -> Result<Joined<Self>> {
        let _ = it.assigns().handles.send(it.handle());
        if payload == json!("error") {
            return Err(Unprintable.into());
        }
        if payload == json!("serialize") {
            return Ok(Joined::new(Self(Fragile(false))).reply(Payload::json(&Unspeakable)?));
        }
        Ok(Self(Fragile(topic.starts_with("room:fragile"))).into())
    }

    async fn handle_in(&mut self, event: &str, _: Payload, it: &Socket<Self>) -> Result<Reply> {
        match event {
            "ping" => Ok(Reply::ack()),
            "fix" => {
                self.0.0 = false;
                Ok(Reply::ack())
            }
            "panic" => panic!("requested"),
            "hang" => std::future::pending().await,
            "subscribe" => {
                it.subscribe("news")?;
                Ok(Reply::ack())
            }
            "send_every" => {
                it.send_every(Duration::from_secs(1), Fragile(false));
                Ok(Reply::ack())
            }
            "send_after" => {
                it.send_after(Duration::from_secs(3600), Fragile(true));
                Ok(Reply::ack())
            }
            "stop" => Err(Error::stop()),
            "error" => Err(Unprintable.into()),
            "reply" => Ok(Reply::ok(Payload::json(&Unspeakable)?)),
            "track" => {
                Presence::track(it, "ann", Unspeakable)?;
                Ok(Reply::ack())
            }
            "update" => {
                Presence::track(it, "ann", json!({}))?;
                Presence::update(it, "ann", |_: &mut serde_json::Map<_, _>| panic!("requested"))?;
                Ok(Reply::ack())
            }
            _ => Err(Error::unmatched(event)),
        }
    }

    async fn handle_broadcast(
        &mut self,
        _: &str,
        _: &str,
        _: Payload,
        _: &Socket<Self>,
    ) -> Result<()> {
        panic!("requested")
    }

    async fn terminate(&mut self, _: Reason, it: &Socket<Self>) {
        assert_ne!(it.topic(), "room:terminates", "requested");
    }
}

/// The connect parameter `panic` names what panics.
fn builder() -> Builder<User> {
    let connect = |info: ConnectInfo| {
        assert_ne!(info.param("panic"), Some("connect"), "requested");
        async move {
            tokio::task::yield_now().await;
            assert_ne!(info.param("panic"), Some("later"), "requested");
            let _local = Fragile(info.param("panic") == Some("hang"));
            if info.param("panic") == Some("hang") {
                std::future::pending::<()>().await;
            }
            if info.param("panic") == Some("error") {
                return Err(Unprintable.into());
            }
            let fragile = Fragile(info.param("panic") == Some("assigns"));
            Ok::<_, Rejected>(User { handles: std::sync::mpsc::channel().0, _fragile: fragile })
        }
    };
    Endpoint::builder(connect).channel::<Room>("room:*")
}

/// Asks both transports, and returns the HTTP status of the one and the body of the other.
async fn ask(endpoint: &Endpoint<User>, query: &str, origin: &str) -> (StatusCode, String) {
    let service = endpoint.service();
    let request = |transport| {
        let uri = format!("/socket/{transport}?vsn=2.0.0&{query}");
        let request = Request::get(uri).header(ORIGIN, origin).header("host", "a.test");
        request.body(Full::<bytes::Bytes>::default()).expect("a request")
    };
    let Ok(websocket) = service.clone().oneshot(request("websocket")).await;
    let Ok(long_poll) = service.oneshot(request("longpoll")).await;
    assert_eq!(long_poll.status(), StatusCode::OK);
    let body = long_poll.into_body().collect().await.expect("a body").to_bytes();
    (websocket.status(), String::from_utf8_lossy(&body).into_owned())
}

const FAILED: (StatusCode, &str) = (StatusCode::INTERNAL_SERVER_ERROR, r#"{"status":500}"#);

#[track_caller]
fn assert_failed((status, body): (StatusCode, String)) {
    assert_eq!((status, &*body), FAILED);
}

#[test]
fn a_panic_in_connect_is_answered_with_500() {
    let captured = capture(async {
        let endpoint = builder().build();
        for query in ["panic=connect", "panic=later", "panic=hang", "panic=error"] {
            assert_failed(ask(&endpoint, query, "http://a.test").await);
        }
        assert_eq!(endpoint.sessions().total(), 0);
    });
    assert_eq!(captured.count(&format!("{PANICS}{{in=connect}}")), 8);
    captured.expect_line(&["connect panicked", "requested"]);
}

#[test]
fn a_panic_in_id_is_answered_with_500_although_the_assigns_panic_too() {
    let captured = capture(async {
        let endpoint = builder().id(|_| panic!("requested")).build();
        assert_failed(ask(&endpoint, "", "http://a.test").await);
        assert_failed(ask(&endpoint, "panic=assigns", "http://a.test").await);
    });
    assert_eq!(captured.count(&format!("{PANICS}{{in=connect}}")), 4);
    assert_eq!(captured.count(&format!("{PANICS}{{in=drop}}")), 2);
}

#[test]
fn a_panic_in_expires_is_answered_with_500() {
    let captured = capture(async {
        let endpoint = builder().expires(|_| panic!("requested")).build();
        assert_failed(ask(&endpoint, "", "http://a.test").await);
        assert_eq!(endpoint.sessions().total(), 0);
    });
    assert_eq!(captured.count(&format!("{PANICS}{{in=connect}}")), 2);
}

#[test]
fn a_panic_in_refresh_ends_the_session_and_its_client_begins_another() {
    let captured = capture(async {
        let refreshing = builder().id(|_| Some("ann".into())).refresh(|_, _| panic!("requested"));
        let endpoint = refreshing.build();
        let session = [("session", "a-session-of-one-client")];
        let mut ann = connect(&endpoint, &session).await.expect("accepted");
        assert_eq!(ann.join("room:1", json!({})).await, Reply::ack());
        ann.reconnect().await.expect("accepted");
        assert_eq!(ann.expect_closed().await, Close::Restart);
        ann.reconnect().await.expect("accepted");
        assert_eq!(ann.join("room:1", json!({})).await, Reply::ack());
        assert_eq!(ann.push("room:1", "ping", json!({})).await, Reply::ack());
        assert_eq!(endpoint.sessions().total(), 1);
    });
    assert_eq!(captured.count(&format!("{PANICS}{{in=refresh}}")), 1);
    captured.expect_line(&["refresh panicked", "requested"]);
}

#[test]
fn a_panic_in_check_origin_is_answered_with_500() {
    let captured = capture(async {
        let check = CheckOrigin::with(|_, _| panic!("requested"));
        let endpoint = builder().check_origin(check).build();
        assert_failed(ask(&endpoint, "", "http://b.test").await);
    });
    assert_eq!(captured.count(&format!("{PANICS}{{in=check_origin}}")), 2);
    captured.expect_line(&["check_origin panicked", "requested"]);
}

/// A client that has joined `room:1`, and `room:fragile`, whose channel panics when it is dropped.
async fn client(endpoint: &Endpoint<User>) -> Client<User> {
    let mut client = connect(endpoint, &[]).await.expect("accepted");
    for topic in ["room:1", "room:fragile"] {
        assert_eq!(client.join(topic, json!({})).await, Reply::ack());
    }
    client
}

#[test]
fn a_channel_that_panics_when_it_is_dropped_ends_as_any_other() {
    let captured = capture(async {
        let endpoint = builder().build();
        let mut ann = client(&endpoint).await;
        let topic = "room:fragile";
        assert_eq!(ann.leave(topic).await, Reply::ack());
        assert_eq!(ann.next_push().await.0, "phx_close");
        ann.join(topic, json!({})).await;
        ann.send(topic, "stop", json!({}));
        assert_eq!(ann.next_push().await.0, "phx_close");
        ann.join(topic, json!({})).await;
        // A panic while another one unwinds would abort the process.
        ann.send(topic, "panic", json!({}));
        assert_eq!(ann.next_push().await.0, "phx_error");
        ann.join(topic, json!({})).await;
        ann.send(topic, "hang", json!({}));
        ann.join(topic, json!({})).await;
        assert_eq!(ann.next_push().await.0, "phx_close");
        assert_eq!(ann.push("room:1", "ping", json!({})).await, Reply::ack());
        assert_eq!(ann.push(topic, "fix", json!({})).await, Reply::ack());
    });
    assert_eq!(captured.count(&format!("{PANICS}{{in=drop}}")), 4);
    assert_eq!(captured.count(&format!("{PANICS}{{in=channel}}")), 1);
    captured.expect_line(&["drop panicked", "dropped as requested"]);
}

#[test]
fn assigns_that_panic_when_they_are_dropped_end_no_other_session() {
    let captured = capture(async {
        let endpoint = builder().build();
        let mut ann = client(&endpoint).await;
        let mut bob = connect(&endpoint, &[("panic", "assigns")]).await.expect("accepted");
        assert_eq!(bob.join("room:1", json!({})).await, Reply::ack());
        bob.send("room:1", "panic", json!({}));
        assert_eq!(bob.next_push().await.0, "phx_error");
        drop(bob);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(endpoint.sessions().total(), 1);
        assert_eq!(ann.push("room:1", "ping", json!({})).await, Reply::ack());
        ann.push("room:fragile", "fix", json!({})).await;
    });
    assert_eq!(captured.count(&format!("{PANICS}{{in=drop}}")), 1);
}

#[test]
fn an_info_that_panics_when_it_is_dropped_unhandled_hurts_nobody() {
    let captured = capture(async {
        let (handles, handle) = std::sync::mpsc::channel();
        let connect_user = move |_| {
            let handles = handles.clone();
            async { Ok(User { handles, _fragile: Fragile(false) }) }
        };
        let endpoint = Endpoint::builder(connect_user).channel::<Room>("room:*").build();
        let mut ann = connect(&endpoint, &[]).await.expect("accepted");
        for event in ["panic", "stop"] {
            ann.join("room:1", json!({})).await;
            ann.send("room:1", event, json!({}));
            // Waits behind the push that ends the channel.
            handle.recv().expect("a handle").send(Fragile(true)).expect("it has not ended yet");
            let ended = ann.next_push().await.0;
            assert_eq!(ended, if event == "panic" { "phx_error" } else { "phx_close" });
        }
        ann.join("room:1", json!({})).await;
        assert_eq!(ann.push("room:1", "ping", json!({})).await, Reply::ack());
    });
    assert_eq!(captured.count(&format!("{PANICS}{{in=drop}}")), 2);
}

#[test]
fn a_panic_in_handle_broadcast_ends_that_channel_alone() {
    let captured = capture(async {
        let endpoint = builder().build();
        let mut ann = client(&endpoint).await;
        ann.push("room:1", "subscribe", json!({})).await;
        endpoint.broadcast("news", "rain", json!({}));
        ann.expect_on("room:1", "phx_error").await;
        assert_eq!(endpoint.subscriber_count("news"), 0);
        assert_eq!(ann.push("room:fragile", "fix", json!({})).await, Reply::ack());
    });
    assert_eq!(captured.count(&format!("{PANICS}{{in=channel}}")), 1);
}

#[test]
fn a_message_that_panics_when_a_timer_clones_it_ends_that_channel_alone() {
    let captured = capture(async {
        let endpoint = builder().build();
        let mut ann = client(&endpoint).await;
        ann.push("room:1", "send_every", json!({})).await;
        ann.expect_on("room:1", "phx_error").await;
        assert_eq!(ann.push("room:fragile", "fix", json!({})).await, Reply::ack());
    });
    assert_eq!(captured.count(&format!("{PANICS}{{in=channel}}")), 1);
}

#[test]
fn a_message_that_panics_when_its_timer_drops_it_hurts_nobody() {
    let captured = capture(async {
        let endpoint = builder().build();
        let mut ann = client(&endpoint).await;
        ann.push("room:1", "send_after", json!({})).await;
        assert_eq!(ann.leave("room:1").await, Reply::ack());
        assert_eq!(ann.next_push().await.0, "phx_close");
        assert_eq!(ann.push("room:fragile", "fix", json!({})).await, Reply::ack());
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    assert_eq!(captured.count(&format!("{PANICS}{{in=drop}}")), 1);
}

#[test]
fn a_value_that_panics_when_it_is_serialized_ends_the_channel_that_sends_it() {
    let captured = capture(async {
        let endpoint = builder().build();
        let mut ann = client(&endpoint).await;
        let topic = "room:2";
        assert_eq!(ann.join(topic, json!("serialize")).await, Reply::reason("join crashed"));
        for event in ["reply", "track", "update"] {
            assert_eq!(ann.join(topic, json!({})).await, Reply::ack());
            ann.send(topic, event, json!({}));
            while ann.next_push().await.0 != "phx_error" {}
            assert_eq!(endpoint.presence().count(topic), 0);
        }
        assert_eq!(ann.push("room:1", "ping", json!({})).await, Reply::ack());
        ann.push("room:fragile", "fix", json!({})).await;
    });
    assert_eq!(captured.count(&format!("{PANICS}{{in=channel}}")), 4);
}

#[test]
fn an_error_that_panics_when_it_is_printed_crashes_the_channel_as_it_would_have() {
    let captured = capture(async {
        let endpoint = builder().build();
        let mut ann = connect(&endpoint, &[]).await.expect("accepted");
        assert_eq!(ann.join("room:1", json!("error")).await, Reply::reason("join crashed"));
        assert_eq!(ann.join("room:1", json!({})).await, Reply::ack());
        ann.send("room:1", "error", json!({}));
        assert_eq!(ann.next_push().await.0, "phx_error");
        assert_eq!(ann.join("room:1", json!({})).await, Reply::ack());
    });
    assert_eq!(captured.count(&format!("{PANICS}{{in=channel}}")), 2);
}

#[test]
fn a_panic_in_terminate_ends_the_channel_with_phx_error() {
    let captured = capture(async {
        let endpoint = builder().build();
        let mut ann = connect(&endpoint, &[]).await.expect("accepted");
        for _ in 0..2 {
            assert_eq!(ann.join("room:terminates", json!({})).await, Reply::ack());
            assert_eq!(ann.leave("room:terminates").await, Reply::ack());
            assert_eq!(ann.next_push().await.0, "phx_error");
        }
    });
    assert_eq!(captured.count(&format!("{PANICS}{{in=channel}}")), 2);
}

#[test]
fn a_panic_in_the_fetch_hook_adds_nothing_to_the_list() {
    let captured = capture(async {
        let fetch = |_: String, keys: Vec<String>| {
            assert_ne!(keys, ["ann"], "requested");
            async { HashMap::new() }
        };
        let endpoint = builder().presence(PresenceConfig::default().fetch(fetch)).build();
        let presence = endpoint.presence();
        let _ann = presence.track_task("lobby", "ann", json!({})).expect("tracks");
        assert_eq!(presence.list("lobby").await.len(), 1);
    });
    assert!(captured.count(&format!("{PANICS}{{in=fetch}}")) > 0);
    captured.expect_line(&["fetch panicked", "requested"]);
}
