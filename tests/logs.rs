//! What clients send appears in log lines only escaped: it can neither break a line nor color it.

use std::path::Path;
use std::time::Duration;

use http::Request;
use http::header::ORIGIN;
use http_body_util::Full;
use serde_json::json;
use support::{Captured, capture};
use tower::ServiceExt;
use tower_channels::channel::{Error, Result};
use tower_channels::test::connect;
use tower_channels::{
    Builder, Channel, ConnectInfo, Endpoint, Joined, Payload, Presence, PresenceConfig, Rejected,
    Reply, Socket,
};

#[path = "support/capture.rs"]
mod support;

/// What an attacker writes into topics, payloads and parameters.
const EVIL: &str = "a\r\n\u{1b}[31mERROR forged\u{202e}";

/// Errors and crashes with what the client sent.
struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, payload: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        match payload.parse::<String>() {
            Ok(text) => Err(text.into()),
            Err(_) => Ok(Self.into()),
        }
    }

    async fn resume(&mut self, payload: Payload, _: &Socket<Self>) -> Result<Option<Payload>> {
        Err(payload.parse::<String>()?.into())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        it: &Socket<Self>,
    ) -> Result<Reply> {
        match event {
            "fail" => Err(payload.parse::<String>()?.into()),
            "parse" => Err(payload.parse::<u64>().expect_err("a text").to_string().into()),
            "panic" => panic!("{}", payload.parse::<String>()?),
            "hang" => std::future::pending().await,
            "track" => {
                Presence::track(it, &payload.parse::<String>()?, json!({}))?;
                Ok(Reply::ack())
            }
            _ => Err(Error::unmatched(event)),
        }
    }
}

fn builder() -> Builder<()> {
    let connect = |info: ConnectInfo| async move {
        match info.param("reject") {
            Some(reason) => Err(Rejected::reason(reason)),
            None => match info.param("fail") {
                Some(text) => Err(text.to_owned().into()),
                None => Ok(()),
            },
        }
    };
    Endpoint::builder(connect).channel::<Room>("room:*")
}

#[track_caller]
fn assert_escaped(captured: &Captured, expected: &[&str]) {
    for line in captured.lines() {
        let sound = line.chars().all(|char| !char.is_control() && char != '\u{202e}');
        assert!(sound, "not escaped: {line:?}");
    }
    for text in expected {
        captured.expect_line(&[text, r"a\r\n\u{1b}[31mERROR forged\u{202e}"]);
    }
}

#[test]
fn topics_events_and_payloads_are_escaped() {
    let captured = capture(async {
        let endpoint = builder().max_mailbox(1000).build();
        let mut ann = connect(&endpoint, &[]).await.expect("accepted");
        let topic = format!("room:{EVIL}");
        ann.join(&topic, json!(EVIL)).await;
        for event in ["fail", "parse", "panic", EVIL] {
            assert_eq!(ann.join(&topic, json!({})).await, Reply::ack());
            ann.send(&topic, event, json!(EVIL));
            assert_eq!(ann.next_push().await.0, "phx_error");
        }
        // A mailbox that is full.
        assert_eq!(ann.join(&topic, json!({})).await, Reply::ack());
        for _ in 0..3 {
            ann.send(&topic, "hang", json!(EVIL.repeat(50)));
        }
        assert_eq!(ann.next_push().await.0, "phx_error");
    });
    assert_escaped(&captured, &["join crashed", "channel crashed", "channel panicked", "is full"]);
}

#[test]
fn the_reasons_of_rejected_clients_are_escaped() {
    let captured = capture(async {
        let endpoint = builder().build();
        for parameter in ["reject", "fail"] {
            connect(&endpoint, &[(parameter, EVIL)]).await.expect_err("rejected");
        }
        let panicking = builder().id(|()| panic!("{EVIL}")).build();
        connect(&panicking, &[]).await.expect_err("it panics");
    });
    assert_escaped(&captured, &["connect rejected", "connect failed", "connect panicked"]);
}

#[test]
fn origins_and_session_ids_are_escaped() {
    let captured = capture(async {
        let service = builder().build().service();
        for transport in ["websocket", "longpoll"] {
            let uri = format!("/socket/{transport}?vsn=2.0.0&session=%0a%1b[31m");
            let request = Request::get(uri).body(Full::<bytes::Bytes>::default());
            let mut request = request.expect("a request");
            let Ok(_) = service.clone().oneshot(request.clone()).await;
            // A tab and bytes beyond ASCII are all that a header can smuggle.
            let origin = b"http://evil.test\t\xc2\x9b31m".as_slice();
            request.headers_mut().insert(ORIGIN, origin.try_into().expect("a header value"));
            let Ok(_) = service.clone().oneshot(request).await;
        }
    });
    assert_escaped(&captured, &[]);
    captured.expect_line(&["origin refused", r"http://evil.test\t\u{9b}31m", "CheckOrigin::hosts"]);
    captured.expect_line(&["session id ignored", "20 to 64 characters"]);
}

#[test]
fn what_a_resumable_session_and_presence_log_is_escaped() {
    let captured = capture(async {
        let fetch = |topic: String, keys: Vec<String>| async move {
            match &*keys[0] {
                "hang" => std::future::pending().await,
                _ => panic!("no {keys:?} on {topic}"),
            }
        };
        let config = PresenceConfig::default().fetch(fetch).fetch_timeout(Duration::from_secs(1));
        let endpoint = builder().id(|()| Some(EVIL.into())).presence(config).build();
        let session = [("session", "a-session-of-one-client")];
        let mut ann = connect(&endpoint, &session).await.expect("accepted");
        let topic = format!("room:{EVIL}");
        ann.join(&topic, json!({})).await;
        for key in [EVIL, "hang"] {
            assert_eq!(ann.push(&topic, "track", json!(key)).await, Reply::ack());
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        ann.reconnect().await.expect("accepted");
        assert_eq!(ann.join(&topic, json!(EVIL)).await, Reply::reason("join crashed"));
    });
    assert_escaped(&captured, &["fetch panicked", "fetch hook timed out", "join crashed"]);
}

/// Fields whose values are numbers or texts of the server's own.
const OWN: [&str; 26] = [
    "bytes",
    "cause",
    "channels",
    "closed",
    "code = close.code()",
    "count",
    "epoch",
    "expected",
    // Escaped where the span is made.
    "id",
    "incomplete",
    "is_complete",
    "kind",
    "kind = self.kind",
    "limit",
    "max_payload",
    "private",
    "reason",
    "refused",
    "replayed",
    "result",
    "sessions",
    "shared",
    "size",
    "skipped",
    "topics",
    "transport",
];

/// Where a line is logged, with what precedes its fields and what follows them. The level comes first in
/// a line, and the name in a span.
const LINES: [(&str, &str, &str); 3] =
    [("limited!(", ",", "\""), ("log_at!(", ",", "\""), ("info_span!(", "\",", ")")];

fn assert_escaped_fields(file: &str, source: &str) -> usize {
    let mut lines = 0;
    for (start, before, after) in LINES {
        for (at, _) in source.match_indices(start) {
            let line = &source[at + start.len()..];
            // The fields of a macro are those of its callers.
            let is_macro = line.lines().next().is_some_and(|line| line.contains("$("));
            let Some((_, fields)) = line.split_once(before).filter(|_| !is_macro) else { continue };
            let fields = fields.split(after).next().unwrap_or_default();
            for field in fields.split(',').map(str::trim).filter(|field| !field.is_empty()) {
                let sound = OWN.contains(&field) || field.starts_with('?') || field.contains("= ?");
                let hint = "print it with `?`, or add it to `OWN` if no client chooses it";
                assert!(sound, "{file}: `{field}`: {hint}");
            }
            lines += 1;
        }
    }
    lines
}

/// A field with `%` is printed as it is, and so is a string without a sigil by some subscribers.
#[test]
fn every_line_is_limited_and_each_of_its_fields_the_servers_own_or_escaped() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [
        "src",
        "transports/src",
        "adapters/redis/src",
        "adapters/nats/src",
        "adapters/sqlite/src",
        "dashboard/src",
    ];
    let mut folders: Vec<_> = folders.map(|folder| root.join(folder)).into();
    let mut lines = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // This is what limits the others.
            if path.ends_with("log_limit.rs") {
                continue;
            }
            let source = std::fs::read_to_string(&path).expect("a source file");
            let file = path.display().to_string();
            for level in ["trace!", "debug!", "info!", "warn!", "error!", "event!"] {
                let unlimited = source.contains(&format!("tracing::{level}("));
                assert!(!unlimited, "{file}: use `limited!` in place of `{level}`");
            }
            lines += assert_escaped_fields(&file, &source);
        }
    }
    assert!(lines > 30, "found {lines}");
}
