//! What the errors of a channel's callbacks lead to: an error reply, a stop or a crash.

use serde::Deserialize;
use serde_json::{Value, json};
use support::capture;
use tower_channels::channel::{Error, OrReply, Result};
use tower_channels::test::{Client, connect};
use tower_channels::{Channel, Endpoint, Joined, Payload, Reply, Socket};
use tracing::Level;

#[path = "support/capture.rs"]
mod support;

/// An application's own error type.
enum RoomError {
    Full,
    Database(std::num::ParseIntError),
}

impl From<RoomError> for Error {
    fn from(error: RoomError) -> Self {
        match error {
            RoomError::Full => Self::reason("the room is full"),
            RoomError::Database(error) => error.into(),
        }
    }
}

#[derive(Deserialize)]
struct Message {
    body: String,
}

/// Fails in the way that a payload names.
fn fail(how: &Payload) -> Result<()> {
    match how.parse::<String>()?.as_str() {
        "reply" => Err(Error::reply(json!([1]))),
        "missing" => None.or_reply("nothing is there"),
        "failed" => "seven".parse::<u8>().map(drop).or_reply("not a number"),
        "full" => Err(RoomError::Full.into()),
        "stop" => Err(Error::stop()),
        "stop_with" => Err(Error::stop_with(Reply::ok(json!("bye")))),
        "database" => Ok("seven".parse::<u8>().map(drop).map_err(RoomError::Database)?),
        "crash" => Err("requested")?,
        _ => Ok(()),
    }
}

struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = Payload;

    const INTERCEPT: &'static [&'static str] = &["out"];

    async fn join(_: &str, how: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        fail(&how)?;
        Ok(Self.into())
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        let (_, how) = socket.topic().split_once(':').or_reply("a topic without a colon")?;
        fail(&how.into())
    }

    async fn resume(&mut self, how: Payload, _: &Socket<Self>) -> Result<Option<Payload>> {
        fail(&how)?;
        Ok(Some(json!("resumed").into()))
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        match event {
            "fail" => fail(&payload)?,
            "info" => socket.handle().send(payload)?,
            "out" => socket.broadcast("out", payload),
            "new_msg" => return Ok(Reply::ok(payload.parse::<Message>()?.body)),
            _ => return Err(Error::unmatched(event)),
        }
        Ok(Reply::ack())
    }

    async fn handle_info(&mut self, how: Payload, _: &Socket<Self>) -> Result<()> {
        fail(&how)
    }

    async fn handle_out(&mut self, _: &str, how: Payload, _: &Socket<Self>) -> Result<()> {
        fail(&how)
    }
}

async fn client() -> Client<()> {
    let builder = Endpoint::builder(|_| async { Ok(()) }).id(|()| Some("ann".into()));
    let session = [("session", "a-session-of-one-client")];
    connect(&builder.channel::<Room>("room:*").build(), &session).await.expect("accepted")
}

async fn joined() -> Client<()> {
    let mut ann = client().await;
    assert_eq!(ann.join("room:1", json!("")).await, Reply::ack());
    ann
}

fn invalid(detail: &str) -> Reply {
    Reply::error(json!({ "reason": "invalid payload", "detail": detail }))
}

#[test]
fn an_error_reply_answers_the_push_and_the_channel_lives() {
    let captured = capture(async {
        let mut ann = joined().await;
        for (how, expected) in [
            ("reply", Reply::error(json!([1]))),
            ("missing", Reply::reason("nothing is there")),
            ("failed", Reply::reason("not a number")),
            ("full", Reply::reason("the room is full")),
        ] {
            assert_eq!(ann.push("room:1", "fail", how).await, expected);
        }
        assert_eq!(ann.push("room:1", "new_msg", json!({ "body": "hi" })).await, Reply::ok("hi"));
    });
    assert!(captured.at(Level::ERROR).is_empty());
    captured.expect_line(&["replied with an error", "invalid digit", "not a number"]);
}

#[test]
fn an_invalid_payload_is_answered_with_its_field_and_writes_no_error() {
    let captured = capture(async {
        let mut ann = joined().await;
        let reply = ann.push("room:1", "new_msg", json!({})).await;
        assert_eq!(reply, invalid("missing field `body` at line 1 column 2"));
        let binary = ann.push("room:1", "new_msg", vec![1, 2]).await;
        assert_eq!(binary, invalid("the payload is binary, not JSON"));
        let attack = "\u{1b}[31m\r\nERROR".repeat(1000);
        for payload in [json!(attack), json!({ "body": [attack] }), json!({ attack: 1 })] {
            let Reply::Error(response) = ann.push("room:1", "new_msg", payload).await else {
                panic!("not an error");
            };
            let response: Value = response.parse().expect("JSON");
            assert!(response["detail"].as_str().is_some_and(|detail| detail.len() <= 256));
        }
        assert_eq!(ann.join("room:2", json!(1)).await, invalid(NO_STRING));
        assert_eq!(ann.join("room:1", json!(1)).await, invalid(NO_STRING), "resume refuses");
    });
    assert!(captured.at(Level::ERROR).is_empty(), "{:?}", captured.lines());
}

const NO_STRING: &str = "invalid type: integer `1`, expected a string at line 1 column 1";

#[test]
fn a_stop_replies_and_closes_the_channel_and_writes_no_error() {
    let captured = capture(async {
        let mut ann = joined().await;
        assert_eq!(ann.push("room:1", "fail", "stop_with").await, Reply::ok("bye"));
        ann.expect_on("room:1", "phx_close").await;
        assert_eq!(ann.join("room:1", "").await, Reply::ack());
        ann.send("room:1", "fail", "stop");
        assert_eq!(ann.next_message().await.event, "phx_close");
    });
    assert!(captured.at(Level::ERROR).is_empty());
}

#[test]
fn a_crash_is_logged_once_and_the_client_can_join_again() {
    for (how, logged) in [("crash", "requested"), ("database", "invalid digit")] {
        let captured = capture(async {
            let mut ann = joined().await;
            ann.send("room:1", "fail", how);
            ann.expect_on("room:1", "phx_error").await;
            assert_eq!(ann.join("room:1", "").await, Reply::ack());
        });
        let errors = captured.at(Level::ERROR);
        assert_eq!(errors.len(), 1, "{errors:?}");
        captured.expect_line(&["channel crashed", "room:1", logged]);
    }
}

#[test]
fn an_error_of_a_join_refuses_the_client() {
    let captured = capture(async {
        let mut ann = client().await;
        for (how, expected) in refusals() {
            assert_eq!(ann.join("room:1", how).await, expected, "{how}");
            assert_eq!(ann.push("room:1", "info", "").await, Reply::reason("unmatched topic"));
        }
        assert_eq!(ann.join("room:1", "").await, Reply::ack());
    });
    assert_eq!(captured.at(Level::ERROR).len(), 1, "of the crash");
    captured.expect_line(&["join crashed", "room:1", "requested"]);
}

#[test]
fn an_error_of_a_resume_refuses_the_client_and_ends_the_channel() {
    let captured = capture(async {
        for (how, expected) in refusals() {
            let mut ann = joined().await;
            ann.reconnect().await.expect("accepted");
            assert_eq!(ann.join("room:1", "").await, Reply::ok("resumed"));
            ann.reconnect().await.expect("accepted");
            assert_eq!(ann.join("room:1", how).await, expected, "{how}");
            assert_eq!(ann.join("room:1", "").await, Reply::ack(), "a new channel");
        }
    });
    assert_eq!(captured.at(Level::ERROR).len(), 1, "of the crash");
    captured.expect_line(&["join crashed", "room:1", "requested"]);
}

fn refusals() -> [(&'static str, Reply); 5] {
    [
        ("reply", Reply::error(json!([1]))),
        ("full", Reply::reason("the room is full")),
        ("stop", Reply::error(json!({}))),
        ("stop_with", Reply::error("bye")),
        ("crash", Reply::reason("join crashed")),
    ]
}

#[test]
fn an_error_reply_without_a_push_is_logged_and_the_channel_lives() {
    let captured = capture(async {
        let mut ann = joined().await;
        for event in ["info", "out"] {
            assert_eq!(ann.push("room:1", event, "full").await, Reply::ack());
            assert_eq!(ann.push("room:1", event, json!(1)).await, Reply::ack());
        }
        assert_eq!(ann.join("room:full", "").await, Reply::ack());
        for topic in ["room:1", "room:full"] {
            assert_eq!(ann.push(topic, "new_msg", json!({ "body": "hi" })).await, Reply::ok("hi"));
        }
    });
    assert!(captured.at(Level::ERROR).is_empty());
    let unsent = captured.at(Level::DEBUG);
    let unsent = unsent.iter().filter(|line| line.contains("no push to reply to")).count();
    assert_eq!(unsent, 5, "{:?}", captured.lines());
}

#[test]
fn a_stop_and_a_crash_without_a_push_end_the_channel() {
    let captured = capture(async {
        for (how, end) in
            [("stop", "phx_close"), ("stop_with", "phx_close"), ("crash", "phx_error")]
        {
            for event in ["info", "out"] {
                let mut ann = joined().await;
                assert_eq!(ann.push("room:1", event, how).await, Reply::ack());
                ann.expect_on("room:1", end).await;
            }
            let (mut ann, topic) = (client().await, format!("room:{how}"));
            assert_eq!(ann.join(&topic, "").await, Reply::ack());
            ann.expect_on(&topic, end).await;
        }
    });
    assert_eq!(captured.at(Level::ERROR).len(), 3);
}
