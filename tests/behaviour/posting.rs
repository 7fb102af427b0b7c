//! POSTs to a long poll: a single text, or a batch of lines.

use serde_json::json;

use crate::support::longpoll::{JSON, NDJSON};
use crate::support::{Http, LongPoll, Server, base64, soon};

const HEARTBEAT: &str = r#"[null,"2","phoenix","heartbeat",{}]"#;
const REPLY: &str = r#"[null,"2","phoenix","phx_reply",{"status":"ok","response":{}}]"#;

#[tokio::test]
async fn a_post_succeeds_although_its_message_gets_an_error_reply() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    let response = session.post_raw(JSON, br#"["1","1","nope","phx_join",{}]"#).await;
    response.expect_body(r#"{"status":200}"#);
}

#[tokio::test]
async fn a_post_without_a_token_is_a_410() {
    let server = Server::start().await;
    let mut http = Http::connect(&server).await;
    for query in ["", "vsn=2.0.0", "token=", "token=null", "token=undefined"] {
        let target = format!("/socket/longpoll?{query}");
        let response = http.request("POST", &target, &[], HEARTBEAT.as_bytes()).await;
        response.expect_body(r#"{"status":410}"#);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_ends_the_session_returns_500_and_ends_the_pending_poll() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    let mut pending = session.pending_poll(&server).await;
    let response = session.post_raw(JSON, b"not json").await;
    response.expect_body(r#"{"status":500}"#);
    let response = pending.response().await;
    assert_eq!(
        (&response["status"], &response["messages"]),
        (&json!(204), &json!([])),
        "{response}"
    );
    session.expect_gone().await;
}

#[tokio::test]
async fn a_batch_is_handled_line_by_line() {
    let server = Server::start().await;
    for between in ["\n", "\r\n"] {
        let mut session = LongPoll::member(&server).await;
        let lines: Vec<_> = (0..3).map(ping).collect();
        session.post(NDJSON, &lines.join(between)).await;
        assert_eq!(session.receive(3).await, (0..3).map(pong).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn the_lines_around_an_invalid_payload_are_handled() {
    let server = Server::start().await;
    let mut session = LongPoll::member(&server).await;
    let invalid = r#"["1","x","room:a","ping","\ud83d"]"#;
    let lines = [&*ping(0), invalid, &*ping(1)];
    assert_eq!(session.post(NDJSON, &lines.join("\n")).await, json!({"status": 200}));
    let mut received = session.receive(3).await;
    received.sort();
    let refused = r#"["1","x","room:a","phx_reply",{"status":"error","response":{"reason":"invalid payload"}}]"#;
    assert_eq!(received, [pong(0), pong(1), refused.to_owned()]);
}

#[tokio::test]
async fn empty_lines_of_a_batch_are_ignored() {
    let server = Server::start().await;
    let mut session = LongPoll::member(&server).await;
    for body in [&format!("{}\n", ping(0)), &format!("\n\r\n\n{}\n\n{}\r\n\r\n", ping(1), ping(2))]
    {
        assert_eq!(session.post(NDJSON, body).await, json!({"status": 200}));
    }
    for body in ["", "\n", "\r\n", "\n\n\n"] {
        assert_eq!(session.post(NDJSON, body).await, json!({"status": 200}), "{body:?}");
    }
    assert_eq!(session.receive(3).await, (0..3).map(pong).collect::<Vec<_>>());
}

#[tokio::test]
async fn more_than_a_hundred_lines_are_all_handled() {
    let server = Server::start().await;
    let mut session = LongPoll::member(&server).await;
    let lines: Vec<_> = (0..1000).map(ping).collect();
    assert_eq!(session.post(NDJSON, &lines.join("\n")).await, json!({"status": 200}));
    assert_eq!(session.receive(1000).await, (0..1000).map(pong).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_line_that_is_neither_text_nor_base64_rejects_the_whole_batch() {
    let server = Server::start().await;
    let mut session = LongPoll::member(&server).await;
    let binary =
        base64::encode(&crate::support::binary::client_push("1", "9", "room:a", "ping", b"ab"));
    assert!(binary.ends_with('='), "{binary}");
    for line in [
        "not base64",
        binary.trim_end_matches('='),
        &format!("data:application/octet-stream;base64,{binary}"),
        &format!(" {}", ping(9)),
        r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"2"}"#,
        "AA-_",
        "A===",
        "====",
        "AAAA====",
        "AA==AA==",
    ] {
        for body in [format!("{}\n{line}", ping(9)), format!("{line}\n{}", ping(9))] {
            let response = session.post_raw(NDJSON, body.as_bytes()).await;
            response.expect_body(r#"{"status":400}"#);
        }
    }
    session.post(NDJSON, &ping(1)).await;
    assert_eq!(session.receive(1).await, [pong(1)]);
}

#[tokio::test]
async fn a_batch_that_is_not_utf8_does_not_affect_others() {
    let server = Server::start().await;
    let mut other = LongPoll::member(&server).await;
    let mut session = LongPoll::member(&server).await;
    let response = session.post_raw(NDJSON, b"[\"\xff\"]").await;
    let status = response.json()["status"].clone();
    assert!(status == 400 || status == 500, "{response:?}");
    other.post(NDJSON, &ping(1)).await;
    assert_eq!(other.receive(1).await, [pong(1)]);
}

#[tokio::test]
async fn a_body_of_any_other_content_type_is_one_text() {
    let server = Server::start().await;
    for content_type in [JSON, "text/plain", "application/x-ndjson+json", ""] {
        let mut session = LongPoll::member(&server).await;
        assert_eq!(session.post(content_type, &ping(1)).await, json!({"status": 200}));
        assert_eq!(session.receive(1).await, [pong(1)]);
        let two = format!("{}\n{}", ping(2), ping(3));
        assert_eq!(
            session.post(content_type, &two).await,
            json!({"status": 500}),
            "{content_type}"
        );
        session.expect_gone().await;
    }
}

#[tokio::test]
async fn a_body_without_a_content_type_is_one_text() {
    let server = Server::start().await;
    let session = LongPoll::open(&server, "vsn=2.0.0").await;
    let mut http = Http::connect(&server).await;
    let response = http.request("POST", &session.target(), &[], HEARTBEAT.as_bytes()).await;
    response.expect_body(r#"{"status":200}"#);
}

#[tokio::test]
async fn a_body_can_be_chunked() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    let mut http = Http::connect(&server).await;
    let headers = [("Transfer-Encoding", "chunked")];
    http.send_request("POST", &session.target(), &headers, b"").await;
    let (start, end) = HEARTBEAT.split_at(7);
    http.write(format!("{:x}\r\n{start}\r\n", start.len()).as_bytes()).await;
    http.write(format!("{:x}\r\n{end}\r\n0\r\n\r\n", end.len()).as_bytes()).await;
    let response = soon(http.response_to("POST")).await.expect("a response");
    response.expect_body(r#"{"status":200}"#);
    assert_eq!(session.poll().await["messages"], json!([REPLY]));
}

#[tokio::test]
async fn an_incomplete_post_is_not_handled() {
    let server = Server::start().await;
    let mut session = LongPoll::member(&server).await;
    let mut http = Http::connect(&server).await;
    let length = [("Content-Length", "1000"), ("Content-Type", NDJSON)];
    http.send_request("POST", &session.target(), &length, ping(9).as_bytes()).await;
    drop(http);
    session.post(NDJSON, &ping(1)).await;
    assert_eq!(session.receive(1).await, [pong(1)]);
}

fn ping(n: usize) -> String {
    format!(r#"["1","{n}","room:a","ping",{n}]"#)
}

fn pong(n: usize) -> String {
    format!(r#"["1","{n}","room:a","phx_reply",{{"status":"ok","response":{n}}}]"#)
}
