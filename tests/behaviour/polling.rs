//! The long poll: its answers, its token, its bodies, and the life of its session.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::reference::Config;
use crate::support::longpoll::{JSON, NDJSON};
use crate::support::{Http, LongPoll, Response, Server, base64, soon};

const JOIN: &str = r#"["1","1","room:a","phx_join",{}]"#;
const HEARTBEAT: &str = r#"[null,"2","phoenix","heartbeat",{}]"#;
const REPLY: &str = r#"[null,"2","phoenix","phx_reply",{"status":"ok","response":{}}]"#;

// Opening a session.

#[tokio::test]
async fn a_poll_without_a_token_of_a_session_gets_a_new_one_at_once() {
    let server = Server::start().await;
    let mut http = Http::connect(&server).await;
    let token = LongPoll::open(&server, "vsn=2.0.0").await.token;
    let tampered = format!("{}x", &token[..token.len() - 1]);
    for query in [
        "",
        "vsn=2.0.0",
        "vsn=1.0.0&",
        "token=",
        "token=null",
        "token=abc",
        "token=SFMyNTY.abc.def",
        &format!("token={tampered}"),
        &format!("token={token}x"),
        "token[]=a",
    ] {
        let response = http.get(&format!("/socket/longpoll?{query}")).await;
        let answer = response.json();
        assert_eq!(response.status, 200, "{query}");
        assert_eq!((&answer["status"], &answer["messages"]), (&json!(410), &json!([])), "{query}");
        assert!(answer["token"].as_str().is_some_and(|new| new != token), "{query}: {answer}");
    }
}

#[tokio::test]
async fn an_answer_has_the_headers_of_phoenix() {
    let server = Server::start().await;
    let mut http = Http::connect(&server).await;
    for method in ["GET", "POST"] {
        let response = http.request(method, "/socket/longpoll?vsn=2.0.0", &[], b"").await;
        assert_eq!(response.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(response.header("cache-control"), Some("no-store"));
        assert_eq!(response.header("access-control-allow-origin"), Some("*"));
        assert!(response.header("date").is_some());
    }
}

#[tokio::test]
async fn a_token_needs_no_escaping_in_a_query() {
    let server = Server::start().await;
    let token = LongPoll::open(&server, "vsn=2.0.0").await.token;
    let safe = |letter: char| letter.is_ascii_alphanumeric() || "-_.~".contains(letter);
    assert!(token.chars().all(safe), "{token}");
}

#[tokio::test]
async fn a_refused_connect_is_a_403_in_the_body() {
    let server = Server::start().await;
    let mut http = Http::connect(&server).await;
    for query in ["reject=true", "vsn=3.0.0", "vsn=", "vsn[]=2.0.0", "vsn=2.0"] {
        let response = http.get(&format!("/socket/longpoll?{query}")).await;
        says(&response, r#"{"status":403}"#);
    }
}

#[tokio::test]
async fn another_origin_is_a_403_in_the_body_whatever_the_method() {
    let server = Server::start().await;
    let token = LongPoll::open(&server, "vsn=2.0.0").await.token;
    let mut http = Http::connect(&server).await;
    for method in ["GET", "POST", "OPTIONS"] {
        for origin in ["http://elsewhere.test", "null"] {
            let target = format!("/socket/longpoll?vsn=2.0.0&token={token}");
            let response = http.request(method, &target, &[("Origin", origin)], b"").await;
            says(&response, r#"{"status":403}"#);
        }
    }
}

#[tokio::test]
async fn an_origin_on_the_list_gets_in() {
    let server = Server::start().await;
    let mut http = Http::connect(&server).await;
    let origin = [("Origin", "https://example.com:444")];
    let response = http.request("GET", "/socket/longpoll?vsn=2.0.0", &origin, b"").await;
    assert_eq!(response.json()["status"], 410);
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
}

#[tokio::test]
async fn a_query_that_is_not_utf8_is_a_bad_request() {
    let server = Server::start().await;
    let response = Http::connect(&server).await.get("/socket/longpoll?vsn=2.0.0&foo=%ff").await;
    assert_eq!(response.status, 400);
    assert_eq!(response.body, r#"{"errors":{"detail":"Bad Request"}}"#);
}

// Polling.

#[tokio::test]
async fn waiting_messages_are_strings_in_one_answer_at_once() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    session.post(JSON, HEARTBEAT).await;
    session.post(JSON, &HEARTBEAT.replace('2', "3")).await;
    let answer = session.poll().await;
    assert_eq!(answer["status"], 200);
    assert_eq!(answer["messages"], json!([REPLY, REPLY.replace('2', "3")]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_comes_while_a_poll_waits_answers_it() {
    let server = Server::start().await;
    let mut session = joined(&server).await;
    let mut held = session.held_poll(&server).await;
    session.post(JSON, HEARTBEAT).await;
    let answer = held.answer().await;
    assert_eq!((&answer["status"], &answer["messages"]), (&json!(200), &json!([REPLY])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_without_a_message_ends_with_its_window() {
    let window = Duration::from_millis(300);
    let server = Server::with(Config { window, ..Config::default() }).await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    let started = Instant::now();
    let answer = session.poll().await;
    assert!(started.elapsed() >= window, "{:?}", started.elapsed());
    assert_eq!((&answer["status"], &answer["messages"]), (&json!(204), &json!([])), "{answer}");
    assert!(answer["token"].is_string(), "{answer}");
}

#[tokio::test]
async fn an_answer_with_messages_brings_a_new_token() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    let mut tokens = vec![session.token.clone()];
    for _ in 0..3 {
        session.post(JSON, HEARTBEAT).await;
        session.poll().await;
        assert!(!tokens.contains(&session.token), "{} again", session.token);
        tokens.push(session.token.clone());
    }
}

#[tokio::test]
async fn messages_that_no_poll_acknowledged_are_sent_again() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    let first = session.token.clone();
    session.post(JSON, HEARTBEAT).await;
    for _ in 0..3 {
        session.token.clone_from(&first);
        assert_eq!(session.poll().await["messages"], json!([REPLY]));
    }
    // Unacknowledged messages come with the newer ones, in order.
    session.post(JSON, &HEARTBEAT.replace('2', "3")).await;
    session.token.clone_from(&first);
    assert_eq!(session.poll().await["messages"], json!([REPLY, REPLY.replace('2', "3")]));
}

#[tokio::test]
async fn messages_that_a_poll_acknowledged_are_not_sent_again() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    let first = session.token.clone();
    session.post(JSON, HEARTBEAT).await;
    assert_eq!(session.poll().await["messages"], json!([REPLY]));
    // This poll acknowledges; the one after it shows an older token, which takes nothing back.
    session.post(JSON, &HEARTBEAT.replace('2', "3")).await;
    assert_eq!(session.poll().await["messages"], json!([REPLY.replace('2', "3")]));
    session.token = first;
    assert_eq!(session.poll().await["messages"], json!([REPLY.replace('2', "3")]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newer_of_two_polls_gets_the_messages_and_the_older_ends_at_once() {
    let server = Server::start().await;
    let mut session = joined(&server).await;
    let mut older = session.held_poll(&server).await;
    let mut newer = session.beside(&server).await;
    newer.begin_poll().await;
    let answer = older.answer().await;
    assert_eq!((&answer["status"], &answer["messages"]), (&json!(204), &json!([])), "{answer}");
    session.post(JSON, HEARTBEAT).await;
    assert_eq!(newer.answer().await["messages"], json!([REPLY]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_a_poll_whose_client_went_away_comes_with_the_next() {
    let server = Server::start().await;
    let mut session = joined(&server).await;
    drop(session.held_poll(&server).await);
    for n in 0..3 {
        server.broadcast("room:a", "news", &n.to_string()).await;
    }
    let mut got = Vec::new();
    while got.len() < 3 {
        let answer = session.poll().await;
        got.extend(answer["messages"].as_array().unwrap().clone());
    }
    let expected: Vec<_> =
        (0..3).map(|n| json!(format!(r#"[null,null,"room:a","news",{n}]"#))).collect();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn a_token_may_travel_in_a_header() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    session.post(JSON, HEARTBEAT).await;
    let header = [("X-Phoenix-LongPoll-Token", &*session.token)];
    let mut http = Http::connect(&server).await;
    let response = http.request("GET", "/socket/longpoll?vsn=2.0.0", &header, b"").await;
    assert_eq!(response.json()["messages"], json!([REPLY]));
    // It wins over the query.
    let target = "/socket/longpoll?vsn=2.0.0&token=abc";
    let response = http.request("GET", target, &header, b"").await;
    assert_eq!(response.json()["messages"], json!([REPLY]));
    let response = http.request("POST", target, &header, HEARTBEAT.as_bytes()).await;
    says(&response, r#"{"status":200}"#);
}

#[tokio::test]
async fn with_a_token_the_other_parameters_do_not_count() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    session.post(JSON, HEARTBEAT).await;
    let target = format!("/socket/longpoll?vsn=9.0.0&reject=true&token={}", session.token);
    let response = Http::connect(&server).await.get(&target).await;
    assert_eq!(response.json()["messages"], json!([REPLY]));
}

#[tokio::test]
async fn a_trailing_slash_is_the_same_path() {
    let server = Server::start().await;
    let response = Http::connect(&server).await.get("/socket/longpoll/?vsn=2.0.0").await;
    assert_eq!(response.json()["status"], 410);
}

// Posting.

#[tokio::test]
async fn a_post_that_is_answered_with_an_error_is_ok_itself() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    let response = session.post_raw(JSON, br#"["1","1","nope","phx_join",{}]"#).await;
    says(&response, r#"{"status":200}"#);
}

#[tokio::test]
async fn a_post_without_a_session_is_a_410() {
    let server = Server::start().await;
    let mut http = Http::connect(&server).await;
    for query in ["", "vsn=2.0.0", "token=", "token=abc", "token=SFMyNTY.abc.def"] {
        let target = format!("/socket/longpoll?{query}");
        let response = http.request("POST", &target, &[], HEARTBEAT.as_bytes()).await;
        says(&response, r#"{"status":410}"#);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_breaks_the_session_says_500_and_answers_the_waiting_poll() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    let mut held = session.held_poll(&server).await;
    let response = session.post_raw(JSON, b"not json").await;
    says(&response, r#"{"status":500}"#);
    let answer = held.answer().await;
    assert_eq!((&answer["status"], &answer["messages"]), (&json!(204), &json!([])), "{answer}");
    is_gone(&mut session).await;
}

#[tokio::test]
async fn a_batch_is_handled_line_by_line() {
    let server = Server::start().await;
    for between in ["\n", "\r\n"] {
        let mut session = joined(&server).await;
        let lines: Vec<_> = (0..3).map(ping).collect();
        session.post(NDJSON, &lines.join(between)).await;
        assert_eq!(received(&mut session, 3).await, (0..3).map(pong).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn empty_lines_of_a_batch_are_ignored() {
    let server = Server::start().await;
    let mut session = joined(&server).await;
    for body in [&format!("{}\n", ping(0)), &format!("\n\r\n\n{}\n\n{}\r\n\r\n", ping(1), ping(2))]
    {
        assert_eq!(session.post(NDJSON, body).await, json!({"status": 200}));
    }
    for body in ["", "\n", "\r\n", "\n\n\n"] {
        assert_eq!(session.post(NDJSON, body).await, json!({"status": 200}), "{body:?}");
    }
    assert_eq!(received(&mut session, 3).await, (0..3).map(pong).collect::<Vec<_>>());
}

#[tokio::test]
async fn all_of_more_than_a_hundred_lines_are_handled() {
    let server = Server::start().await;
    let mut session = joined(&server).await;
    let lines: Vec<_> = (0..1000).map(ping).collect();
    assert_eq!(session.post(NDJSON, &lines.join("\n")).await, json!({"status": 200}));
    assert_eq!(received(&mut session, 1000).await, (0..1000).map(pong).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_line_that_is_neither_text_nor_base64_is_refused_and_nothing_is_handled() {
    let server = Server::start().await;
    let mut session = joined(&server).await;
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
            says(&response, r#"{"status":400}"#);
        }
    }
    session.post(NDJSON, &ping(1)).await;
    assert_eq!(received(&mut session, 1).await, [pong(1)]);
}

#[tokio::test]
async fn a_batch_that_is_not_utf8_hurts_nobody_else() {
    let server = Server::start().await;
    let mut other = joined(&server).await;
    let mut session = joined(&server).await;
    let response = session.post_raw(NDJSON, b"[\"\xff\"]").await;
    let status = response.json()["status"].clone();
    assert!(status == 400 || status == 500, "{response:?}");
    other.post(NDJSON, &ping(1)).await;
    assert_eq!(received(&mut other, 1).await, [pong(1)]);
}

#[tokio::test]
async fn any_other_content_type_is_one_text() {
    let server = Server::start().await;
    for content_type in [JSON, "text/plain", "application/x-ndjson; charset=utf-8", ""] {
        let mut session = joined(&server).await;
        assert_eq!(session.post(content_type, &ping(1)).await, json!({"status": 200}));
        assert_eq!(received(&mut session, 1).await, [pong(1)]);
        let two = format!("{}\n{}", ping(2), ping(3));
        assert_eq!(
            session.post(content_type, &two).await,
            json!({"status": 500}),
            "{content_type}"
        );
        is_gone(&mut session).await;
    }
}

#[tokio::test]
async fn a_body_without_a_content_type_is_one_text() {
    let server = Server::start().await;
    let session = LongPoll::open(&server, "vsn=2.0.0").await;
    let mut http = Http::connect(&server).await;
    let response = http.request("POST", &session.target(), &[], HEARTBEAT.as_bytes()).await;
    says(&response, r#"{"status":200}"#);
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
    says(&soon(http.response_to("POST")).await.expect("a response"), r#"{"status":200}"#);
    assert_eq!(session.poll().await["messages"], json!([REPLY]));
}

#[tokio::test]
async fn a_post_whose_client_goes_away_midway_is_not_handled() {
    let server = Server::start().await;
    let mut session = joined(&server).await;
    let mut http = Http::connect(&server).await;
    let length = [("Content-Length", "1000"), ("Content-Type", NDJSON)];
    http.ask("POST", &session.target(), &length, ping(9).as_bytes()).await;
    drop(http);
    session.post(NDJSON, &ping(1)).await;
    assert_eq!(received(&mut session, 1).await, [pong(1)]);
}

// Other methods.

#[tokio::test]
async fn a_preflight_is_answered_for_browsers() {
    let server = Server::start().await;
    let headers = [
        ("Origin", "https://example.com"),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "content-type, x-phoenix-longpoll-token"),
    ];
    let mut http = Http::connect(&server).await;
    let response = http.request("OPTIONS", "/socket/longpoll?vsn=2.0.0", &headers, b"").await;
    assert_eq!((response.status, &*response.body), (200, ""), "{response:?}");
    for (name, value) in [
        ("access-control-allow-headers", "content-type, x-phoenix-longpoll-token"),
        ("access-control-allow-methods", "get, post, options"),
        ("access-control-allow-origin", "*"),
        ("access-control-max-age", "3600"),
        ("cache-control", "max-age=0, private, must-revalidate"),
    ] {
        assert_eq!(response.header(name), Some(value), "{name}");
    }
}

#[tokio::test]
async fn other_methods_are_a_bad_request() {
    let server = Server::start().await;
    let mut http = Http::connect(&server).await;
    for method in ["PUT", "DELETE", "HEAD", "PATCH"] {
        let response = http.request(method, "/socket/longpoll?vsn=2.0.0", &[], b"").await;
        assert_eq!((response.status, &*response.body), (400, ""), "{method}");
    }
}

// The life of a session.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_when_nobody_polls_however_much_is_posted() {
    let window = Duration::from_millis(200);
    let server = Server::with(Config { window, ..Config::default() }).await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    session.poll().await;
    let started = Instant::now();
    soon(async {
        while session.post(NDJSON, "").await["status"] == 200 {
            tokio::time::sleep(window / 10).await;
        }
    })
    .await;
    assert!(started.elapsed() >= window, "{:?}", started.elapsed());
    is_gone(&mut session).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lives_as_long_as_somebody_polls() {
    let window = Duration::from_millis(600);
    let server = Server::with(Config { window, ..Config::default() }).await;
    let mut session = joined(&server).await;
    for _ in 0..4 {
        assert_eq!(session.poll().await["status"], 204);
    }
    session.post(NDJSON, &ping(1)).await;
    assert_eq!(received(&mut session, 1).await, [pong(1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnect_by_id_answers_the_waiting_poll_and_ends_the_session() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0&user_id=u1").await;
    let mut held = session.held_poll(&server).await;
    server.disconnect("user_socket:u1").await;
    let answer = held.answer().await;
    assert_eq!((&answer["status"], &answer["messages"]), (&json!(204), &json!([])), "{answer}");
    assert_eq!(session.post(JSON, HEARTBEAT).await, json!({"status": 410}));
    is_gone(&mut session).await;
}

#[tokio::test]
async fn a_token_of_one_session_does_not_open_another() {
    let server = Server::start().await;
    let mut first = LongPoll::open(&server, "vsn=2.0.0").await;
    let mut second = LongPoll::open(&server, "vsn=2.0.0").await;
    assert_ne!(first.token, second.token);
    first.post(JSON, HEARTBEAT).await;
    second.post(JSON, &HEARTBEAT.replace('2', "3")).await;
    assert_eq!(second.poll().await["messages"], json!([REPLY.replace('2', "3")]));
    assert_eq!(first.poll().await["messages"], json!([REPLY]));
}

#[tokio::test]
async fn a_token_of_another_server_is_not_taken() {
    let token = LongPoll::open(&Server::start().await, "vsn=2.0.0").await.token;
    let server = Server::start().await;
    let target = format!("/socket/longpoll?vsn=2.0.0&token={token}");
    assert_eq!(Http::connect(&server).await.get(&target).await.json()["status"], 410);
}

/// A session with `room:a` joined under `"1"` and nothing left to receive.
async fn joined(server: &Server) -> LongPoll {
    let mut session = LongPoll::open(server, "vsn=2.0.0").await;
    session.post(JSON, JOIN).await;
    let got = received(&mut session, 2).await;
    assert_eq!(got[1], r#"["1",null,"room:a","joined",{"user_id":null}]"#);
    session
}

/// Polls until that many messages have come.
async fn received(session: &mut LongPoll, count: usize) -> Vec<String> {
    let mut got = Vec::new();
    while got.len() < count {
        let answer = session.poll().await;
        let messages = answer["messages"].as_array().unwrap_or_else(|| panic!("{answer}"));
        got.extend(messages.iter().filter_map(Value::as_str).map(str::to_owned));
    }
    got
}

async fn is_gone(session: &mut LongPoll) {
    let before = session.token.clone();
    let answer = session.poll().await;
    assert_eq!((&answer["status"], &answer["messages"]), (&json!(410), &json!([])), "{answer}");
    assert_ne!(session.token, before, "a new session has a new token");
}

fn ping(n: usize) -> String {
    format!(r#"["1","{n}","room:a","ping",{n}]"#)
}

fn pong(n: usize) -> String {
    format!(r#"["1","{n}","room:a","phx_reply",{{"status":"ok","response":{n}}}]"#)
}

fn says(response: &Response, body: &str) {
    assert_eq!((response.status, &*response.body), (200, body), "{response:?}");
}
