//! What is posted to a long poll: one text, or a batch of lines.

use serde_json::json;

use crate::support::longpoll::{JSON, NDJSON};
use crate::support::{Http, LongPoll, Server, base64, soon};

const HEARTBEAT: &str = r#"[null,"2","phoenix","heartbeat",{}]"#;
const REPLY: &str = r#"[null,"2","phoenix","phx_reply",{"status":"ok","response":{}}]"#;

#[tokio::test]
async fn a_post_that_is_answered_with_an_error_is_ok_itself() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    let response = session.post_raw(JSON, br#"["1","1","nope","phx_join",{}]"#).await;
    response.says(r#"{"status":200}"#);
}

#[tokio::test]
async fn a_post_without_a_session_is_a_410() {
    let server = Server::start().await;
    let mut http = Http::connect(&server).await;
    for query in ["", "vsn=2.0.0", "token=", "token=abc", "token=SFMyNTY.abc.def"] {
        let target = format!("/socket/longpoll?{query}");
        let response = http.request("POST", &target, &[], HEARTBEAT.as_bytes()).await;
        response.says(r#"{"status":410}"#);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_breaks_the_session_says_500_and_answers_the_waiting_poll() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    let mut held = session.held_poll(&server).await;
    let response = session.post_raw(JSON, b"not json").await;
    response.says(r#"{"status":500}"#);
    let answer = held.answer().await;
    assert_eq!((&answer["status"], &answer["messages"]), (&json!(204), &json!([])), "{answer}");
    session.expect_gone().await;
}

#[tokio::test]
async fn a_batch_is_handled_line_by_line() {
    let server = Server::start().await;
    for between in ["\n", "\r\n"] {
        let mut session = LongPoll::member(&server).await;
        let lines: Vec<_> = (0..3).map(ping).collect();
        session.post(NDJSON, &lines.join(between)).await;
        assert_eq!(session.received(3).await, (0..3).map(pong).collect::<Vec<_>>());
    }
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
    assert_eq!(session.received(3).await, (0..3).map(pong).collect::<Vec<_>>());
}

#[tokio::test]
async fn all_of_more_than_a_hundred_lines_are_handled() {
    let server = Server::start().await;
    let mut session = LongPoll::member(&server).await;
    let lines: Vec<_> = (0..1000).map(ping).collect();
    assert_eq!(session.post(NDJSON, &lines.join("\n")).await, json!({"status": 200}));
    assert_eq!(session.received(1000).await, (0..1000).map(pong).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_line_that_is_neither_text_nor_base64_is_refused_and_nothing_is_handled() {
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
            response.says(r#"{"status":400}"#);
        }
    }
    session.post(NDJSON, &ping(1)).await;
    assert_eq!(session.received(1).await, [pong(1)]);
}

#[tokio::test]
async fn a_batch_that_is_not_utf8_hurts_nobody_else() {
    let server = Server::start().await;
    let mut other = LongPoll::member(&server).await;
    let mut session = LongPoll::member(&server).await;
    let response = session.post_raw(NDJSON, b"[\"\xff\"]").await;
    let status = response.json()["status"].clone();
    assert!(status == 400 || status == 500, "{response:?}");
    other.post(NDJSON, &ping(1)).await;
    assert_eq!(other.received(1).await, [pong(1)]);
}

#[tokio::test]
async fn any_other_content_type_is_one_text() {
    let server = Server::start().await;
    for content_type in [JSON, "text/plain", "application/x-ndjson; charset=utf-8", ""] {
        let mut session = LongPoll::member(&server).await;
        assert_eq!(session.post(content_type, &ping(1)).await, json!({"status": 200}));
        assert_eq!(session.received(1).await, [pong(1)]);
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
    response.says(r#"{"status":200}"#);
}

#[tokio::test]
async fn a_body_may_come_in_chunks() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    let mut http = Http::connect(&server).await;
    let headers = [("Transfer-Encoding", "chunked")];
    http.ask("POST", &session.target(), &headers, b"").await;
    let (start, end) = HEARTBEAT.split_at(7);
    http.write(format!("{:x}\r\n{start}\r\n", start.len()).as_bytes()).await;
    http.write(format!("{:x}\r\n{end}\r\n0\r\n\r\n", end.len()).as_bytes()).await;
    let response = soon(http.response_to("POST")).await.expect("a response");
    response.says(r#"{"status":200}"#);
    assert_eq!(session.poll().await["messages"], json!([REPLY]));
}

#[tokio::test]
async fn a_post_whose_client_goes_away_midway_is_not_handled() {
    let server = Server::start().await;
    let mut session = LongPoll::member(&server).await;
    let mut http = Http::connect(&server).await;
    let length = [("Content-Length", "1000"), ("Content-Type", NDJSON)];
    http.ask("POST", &session.target(), &length, ping(9).as_bytes()).await;
    drop(http);
    session.post(NDJSON, &ping(1)).await;
    assert_eq!(session.received(1).await, [pong(1)]);
}

fn ping(n: usize) -> String {
    format!(r#"["1","{n}","room:a","ping",{n}]"#)
}

fn pong(n: usize) -> String {
    format!(r#"["1","{n}","room:a","phx_reply",{{"status":"ok","response":{n}}}]"#)
}
