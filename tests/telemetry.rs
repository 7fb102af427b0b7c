//! What an operator sees: log lines with their spans, and metrics.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Request;
use http::header::{HOST, ORIGIN};
use http_body_util::Full;
use serde_json::json;
use support::{Captured, capture};
use tower::ServiceExt;
use tower_channels::channel::{Error, Result};
use tower_channels::history::Since;
use tower_channels::test::{Client, connect};
use tower_channels::{
    Builder, Channel, ConnectInfo, Endpoint, Handle, History, Joined, Payload, PubSub,
    PubSubConfig, Reason, Rejected, Reply, Socket, internals,
};
use tracing::Level;

#[path = "support/capture.rs"]
mod support;

/// A line of the application's own.
macro_rules! own {
    ($text:expr) => {
        tracing::info!(target: "tower_channels_test", "own line in {}", $text)
    };
}

/// Logs a line in each callback.
struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = ();

    const INTERCEPT: &'static [&'static str] = &["shout"];

    async fn join(_: &str, payload: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        own!("join");
        match payload.parse::<String>().as_deref() {
            Ok("refuse") => Err(Error::reason("no")),
            Ok("crash") => Err("crashed".into()),
            Ok("panic") => panic!("requested"),
            Ok("hang") => std::future::pending().await,
            _ => Ok(Self.into()),
        }
    }

    async fn after_join(&mut self, _: &Socket<Self>) -> Result<()> {
        own!("after_join");
        Ok(())
    }

    async fn resume(&mut self, _: Payload, _: &Socket<Self>) -> Result<Option<Payload>> {
        own!("resume");
        Ok(None)
    }

    async fn handle_in(&mut self, event: &str, _: Payload, socket: &Socket<Self>) -> Result<Reply> {
        own!("handle_in");
        match event {
            "crash" => Err("crashed".into()),
            "shout" => {
                let handle: Handle<Self> = socket.handle();
                handle.send(()).expect("room");
                socket.broadcast("shout", json!({}));
                Ok(Reply::ack())
            }
            _ => Ok(Reply::ack()),
        }
    }

    async fn handle_info(&mut self, (): (), _: &Socket<Self>) -> Result<()> {
        own!("handle_info");
        Ok(())
    }

    async fn handle_out(&mut self, _: &str, _: Payload, _: &Socket<Self>) -> Result<()> {
        own!("handle_out");
        Ok(())
    }

    async fn terminate(&mut self, _: Reason, _: &Socket<Self>) {
        own!("terminate");
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        own!("drop");
    }
}

/// Logs its joins as warnings, and its pushes not at all.
struct Quiet;

impl Channel for Quiet {
    type Assigns = ();
    type Info = ();

    const LOG_JOIN: Option<Level> = Some(Level::WARN);
    const LOG_HANDLE_IN: Option<Level> = None;

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn handle_in(&mut self, _: &str, _: Payload, _: &Socket<Self>) -> Result<Reply> {
        Ok(Reply::ack())
    }
}

fn builder() -> Builder<()> {
    let connect = async |info: ConnectInfo| {
        own!("connect");
        match info.param("reject") {
            Some(_) => Err(Rejected::reason("banned")),
            None => Ok(()),
        }
    };
    Endpoint::builder(connect)
        .id(|()| Some("ann".to_owned()))
        .channel::<Quiet>("quiet")
        .channel::<Room>("room:*")
}

async fn ann(endpoint: &Endpoint<()>) -> Client<()> {
    let session = [("session", "0123456789abcdefghijkl")];
    connect(endpoint, &session).await.expect("accepted")
}

#[test]
fn every_line_of_an_application_tells_whose_it_is() {
    let captured = capture(async {
        let endpoint = builder().build();
        let mut ann = ann(&endpoint).await;
        ann.join("room:1", json!({})).await;
        ann.push("room:1", "shout", json!({})).await;
        ann.reconnect().await.expect("accepted");
        ann.join("room:1", json!({})).await;
        ann.leave("room:1").await;
    });
    assert_eq!(captured.spans_of("own line in connect"), ["connect transport=memory"]);
    for callback in [
        "join",
        "after_join",
        "handle_in",
        "handle_info",
        "handle_out",
        "resume",
        "terminate",
        "drop",
    ] {
        let spans = captured.spans_of(&format!("own line in {callback}"));
        let expected = [r#"socket id="ann" transport=memory"#, r#"channel topic="room:1""#];
        assert_eq!(spans, expected, "{callback}");
    }
}

#[test]
fn joins_pushes_and_leaves_are_logged_at_the_levels_of_their_channel() {
    let captured = capture(async {
        let endpoint = builder().join_timeout(Duration::from_secs(2)).build();
        let mut bob = connect(&endpoint, &[]).await.expect("accepted");
        for payload in ["", "refuse", "hang"] {
            bob.join("room:1", json!(payload)).await;
        }
        bob.join("room:1", json!({})).await;
        bob.push("room:1", "new_msg", json!("secret")).await;
        bob.leave("room:1").await;
        bob.join("quiet", json!({})).await;
        bob.push("quiet", "new_msg", json!({})).await;
        bob.join("nowhere", json!({})).await;
        let mut ann = ann(&endpoint).await;
        for _ in 0..2 {
            ann.join("room:2", json!({})).await;
        }
    });
    let starts = |level, text: &str| {
        let found = captured.at(level).into_iter().filter(|line| line.starts_with(text));
        found.collect::<Vec<_>>()
    };
    assert_eq!(starts(Level::INFO, "client connected").len(), 2);
    assert_eq!(starts(Level::INFO, r#"joined topic="room:1" took="#).len(), 2);
    assert_eq!(starts(Level::INFO, r#"resumed topic="room:2""#).len(), 1);
    assert_eq!(starts(Level::INFO, r#"join refused topic="room:1" took="#).len(), 1);
    assert_eq!(starts(Level::INFO, r#"join timed out topic="room:1" took=2"#).len(), 1);
    assert_eq!(starts(Level::WARN, r#"joined topic="quiet""#).len(), 1);
    assert_eq!(starts(Level::DEBUG, r#"handled topic="room:1" event="new_msg" took="#).len(), 1);
    assert_eq!(starts(Level::DEBUG, "handled").len(), 1);
    assert_eq!(starts(Level::DEBUG, r#"left topic="room:1""#).len(), 1);
    let unmatched = r#"message to an unmatched topic topic="nowhere" event="phx_join""#;
    assert_eq!(starts(Level::DEBUG, unmatched).len(), 1, "{:?}", captured.lines());
    assert!(!captured.lines().iter().any(|line| line.contains("secret")));
}

fn request(uri: &str) -> http::request::Builder {
    Request::get(uri).header(HOST, "chat.example.com")
}

#[test]
fn a_refused_origin_is_a_warning_that_says_what_would_allow_it() {
    let captured = capture(async {
        let service = builder().build().service();
        let request = request("/longpoll?vsn=2.0.0").header(ORIGIN, "https://example.com");
        let request = request.body(Full::<bytes::Bytes>::default()).expect("a request");
        let Ok(_) = service.oneshot(request).await;
    });
    let lines = captured.at(Level::WARN);
    let parts = ["https://example.com", "chat.example.com", "Builder::check_origin"];
    assert!(parts.iter().all(|part| lines[0].contains(part)), "{lines:?}");
    let refused = "tower_channels_connects_refused_total{reason=origin}";
    assert_eq!(captured.value(refused), Some(1.0));
}

#[test]
fn a_stranger_cannot_fill_a_disk() {
    let captured = capture(async {
        let endpoint = builder().build();
        for _ in 0..2000 {
            connect(&endpoint, &[("reject", "yes")]).await.expect_err("rejected");
        }
    });
    let lines = captured.lines();
    let refused = lines.iter().filter(|line| line.contains("banned")).count();
    // Another minute may begin in between.
    assert!(refused == 300 || refused == 600, "{refused}");
    captured.expect_line(&["more lines such as the last one are suppressed"]);
    let refused = captured.value("tower_channels_connects_refused_total{reason=rejected}");
    assert_eq!(refused, Some(2000.0), "all are counted");
}

#[test]
fn a_request_makes_no_long_line_and_its_headers_are_in_none() {
    let captured = capture(async {
        let service = builder().build().service();
        let long = "M".repeat(100_000);
        let uri = "/websocket?vsn=2.0.0";
        let requests = [
            request(uri).method(&*long),
            request(uri).header("connection", format!("session=secret, {long}")),
            request(uri).header("connection", "upgrade").header("upgrade", &long),
            request(uri).header("user-agent", &long),
        ];
        for request in requests {
            let request = request.body(Full::<bytes::Bytes>::default()).expect("a request");
            let Ok(_) = service.clone().oneshot(request).await;
        }
    });
    let lines = captured.lines();
    assert_eq!(lines.iter().filter(|line| line.contains("WebSocket refused")).count(), 4);
    assert!(lines.iter().all(|line| line.len() < 2000 && !line.contains("secret")), "{lines:?}");
}

#[test]
fn every_metric_exists_before_anything_is_counted() {
    let captured = capture(async { drop(builder().build()) });
    for series in [
        "tower_channels_connects_total{transport=websocket}",
        "tower_channels_connects_refused_total{reason=origin}",
        "tower_channels_connects_refused_total{reason=full}",
        "tower_channels_panics_total{in=channel}",
        "tower_channels_joins_total{channel=room:*,result=crashed}",
        "tower_channels_channel_crashes_total{channel=quiet}",
        "tower_channels_sessions{transport=longpoll,state=detached}",
        "tower_channels_messages_sent_total{transport=longpoll}",
        "tower_channels_broadcasts_total",
        "tower_channels_handle_in_seconds{channel=room:*}",
        "tower_channels_delivery_lag_seconds",
        "tower_channels_memory_limit_bytes",
    ] {
        assert_eq!(captured.value(series), Some(0.0), "{series}");
    }
    let names = internals::all_metrics().map(|metric| metric.name());
    for name in names {
        assert!(captured.has_metric(name), "{name}");
    }
}

#[test]
fn what_channels_do_is_counted_by_their_pattern() {
    let captured = capture(async {
        let endpoint = builder().max_channels(1).join_timeout(Duration::from_secs(1)).build();
        let mut ann = ann(&endpoint).await;
        for payload in ["refuse", "crash", "panic", "hang", ""] {
            ann.join("room:1", json!(payload)).await;
        }
        ann.join("room:2", json!({})).await;
        ann.push("room:1", "new_msg", json!({})).await;
        endpoint.broadcast("room:1", "news", json!({}));
        ann.send("room:1", "crash", json!({}));
        ann.push("room:3", "new_msg", json!({})).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    for (series, expected) in [
        ("tower_channels_joins_total{channel=room:*,result=ok}", 1.0),
        ("tower_channels_joins_total{channel=room:*,result=refused}", 1.0),
        ("tower_channels_joins_total{channel=room:*,result=crashed}", 2.0),
        ("tower_channels_joins_total{channel=room:*,result=timed_out}", 1.0),
        ("tower_channels_joins_total{channel=room:*,result=full}", 1.0),
        ("tower_channels_joins_total{channel=quiet,result=ok}", 0.0),
        ("tower_channels_join_seconds{channel=room:*}", 4.0),
        ("tower_channels_handle_in_seconds{channel=room:*}", 2.0),
        ("tower_channels_channel_crashes_total{channel=room:*}", 1.0),
        ("tower_channels_messages_unmatched_total", 1.0),
        ("tower_channels_broadcasts_total", 1.0),
        ("tower_channels_connect_seconds", 1.0),
    ] {
        assert_eq!(captured.value(series), Some(expected), "{series}");
    }
}

#[test]
fn what_is_kept_lost_and_forgotten_is_counted_and_logged() {
    let captured = Captured::default();
    captured.run(async {
        let config = PubSubConfig::new().history("log:*", History::last(9)).history_memory(50_000);
        let pubsub = PubSub::with_config(config).expect("valid");
        let endpoint = Endpoint::builder(|_| async { Ok(()) })
            .channel::<Quiet>("log:*")
            .pubsub(pubsub.clone())
            .build();
        for topic in 0..10 {
            pubsub.broadcast(&format!("log:{topic}"), "new_msg", json!("x".repeat(10_000)));
        }
        pubsub.broadcast("log:1", "new_msg", json!("x".repeat(300_000)));
        pubsub.broadcast("room:1", "new_msg", json!("elsewhere"));
        let page = pubsub.history("log:9", Since::Newest, 100).await.expect("a page");
        assert_eq!(page.messages.len(), 1);
        endpoint.record_gauges().await;
        for (series, expected) in [
            ("messages_kept_total", 10.0),
            ("messages_lost_total{reason=too_large}", 1.0),
            ("topics_forgotten_total", 6.0),
            ("reads_total{result=ok}", 1.0),
        ] {
            let series = format!("tower_channels_history_{series}");
            assert_eq!(captured.value(&series), Some(expected), "{series}");
        }
        let [held, reserved] = ["history_bytes", "memory_bytes"]
            .map(|gauge| captured.value(&format!("tower_channels_{gauge}")).expect("a gauge"));
        assert!((40_000.0..50_000.0).contains(&held) && reserved >= held, "{held} of {reserved}");
    });
    captured.expect_line(&["a message is too large to be kept", "log:1"]);
    captured.expect_line(&["the histories of topics were forgotten"]);
}

async fn gauges(endpoint: &Endpoint<()>, captured: &Captured) -> Vec<f64> {
    tokio::time::sleep(Duration::from_secs(10)).await;
    endpoint.record_gauges().await;
    let names = [
        "sessions{transport=other,state=connected}",
        "sessions{transport=other,state=detached}",
        "channels{channel=room:*}",
        "topics",
        "subscribers",
    ];
    let value = |name: &&str| captured.value(&format!("tower_channels_{name}"));
    names.iter().map(|name| value(name).expect("a gauge")).collect()
}

#[test]
fn gauges_show_what_there_is_when_they_are_recorded() {
    let captured = Captured::default();
    captured.run(async {
        let endpoint = builder().memory(64 << 20).build();
        assert_eq!(gauges(&endpoint, &captured).await, [0.0; 5]);
        let mut ann = ann(&endpoint).await;
        let mut bob = connect(&endpoint, &[]).await.expect("accepted");
        ann.join("room:1", json!({})).await;
        bob.join("room:1", json!({})).await;
        bob.join("room:2", json!({})).await;
        assert_eq!(gauges(&endpoint, &captured).await, [2.0, 0.0, 3.0, 2.0, 3.0]);
        endpoint.broadcast("room:2", "news", json!("x".repeat(10_000)));
        endpoint.record_gauges().await;
        let queued = captured.value("tower_channels_queued_bytes").expect("a gauge");
        let reserved = captured.value("tower_channels_memory_bytes").expect("a gauge");
        assert!(queued > 10_000.0 && reserved > queued, "{queued}, {reserved}");
        let limit = captured.value("tower_channels_memory_limit_bytes");
        assert_eq!(limit, Some(f64::from(64 << 20)));
        ann.drop_connection();
        drop(bob);
        assert_eq!(gauges(&endpoint, &captured).await, [0.0, 1.0, 1.0, 1.0, 1.0]);
        endpoint.disconnect("ann");
        assert_eq!(gauges(&endpoint, &captured).await, [0.0; 5]);
        assert_eq!(captured.value("tower_channels_queued_bytes"), Some(0.0));
    });
}

/// The metrics that a text names with their prefix, without what a histogram adds to its name.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    const PREFIX: &str = "tower_channels_";
    let names = text.match_indices(PREFIX).map(|(at, _)| {
        let name = &text[at..];
        let is_end = |char: char| !char.is_ascii_alphanumeric() && char != '_';
        let name = &name[..name.find(is_end).unwrap_or(name.len())];
        name.strip_suffix("_bucket").or(name.strip_suffix("_count")).unwrap_or(name)
    });
    names.collect()
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let all: BTreeSet<_> = internals::all_metrics().map(|metric| metric.name()).collect();
    assert_eq!(metrics_in(include_str!("../docs/grafana.json")), all);
}

#[test]
fn the_page_lists_every_metric_with_its_labels_and_no_other() {
    let page = include_str!("../docs/metrics.md");
    let (_, section) = page.split_once("## Metrics\n").expect("the section");
    let (section, _) = section.split_once("### Reasons").expect("the end of the section");
    let mut listed = BTreeSet::new();
    for row in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let labels: Vec<_> = cells[3].split(", ").map(|label| label.trim_matches('`')).collect();
        for name in cells[1].split(", ") {
            listed.insert((name.trim_matches('`'), cells[2], labels.join(",")));
        }
    }
    let defined = internals::all_metrics().map(|metric| {
        let name = metric.name().strip_prefix("tower_channels_").expect("the prefix");
        (name, metric.kind(), metric.labels().join(","))
    });
    assert_eq!(listed, defined.collect());
}
