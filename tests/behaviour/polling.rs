//! Long poll: responses, tokens, and the lifetime of a session.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::reference::Config;
use crate::support::longpoll::{JSON, NDJSON};
use crate::support::{Http, LongPoll, Server, soon};

const HEARTBEAT: &str = r#"[null,"2","phoenix","heartbeat",{}]"#;
const REPLY: &str = r#"[null,"2","phoenix","phx_reply",{"status":"ok","response":{}}]"#;

// Opening a session

#[tokio::test]
async fn a_poll_without_a_token_gets_a_new_session_at_once() {
    let server = Server::start().await;
    let mut http = Http::connect(&server).await;
    for query in
        ["", "vsn=2.0.0", "vsn=1.0.0&", "token=", "token=null", "token=undefined", "token[]=a"]
    {
        let response = http.get(&format!("/socket/longpoll?{query}")).await;
        assert_eq!(response.status, 200, "{query}");
        let body = response.json();
        assert_eq!((&body["status"], &body["messages"]), (&json!(410), &json!([])), "{query}");
        assert!(body["token"].is_string(), "{query}: {body}");
    }
}

/// Every version of phoenix.js takes the 500 for the end of its session, and rejoins.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_token_is_answered_500_after_a_pause() {
    let server = Server::start().await;
    let token = LongPoll::open(&server, "vsn=2.0.0").await.token;
    let tampered = format!("{}x", &token[..token.len() - 1]);
    let mut refused = tokio::task::JoinSet::new();
    for token in ["phx-lp.", "phx-lp.abc", &tampered, &format!("{token}x"), &format!("{token}1")] {
        for method in ["GET", "POST"] {
            let target = format!("/socket/longpoll?vsn=2.0.0&token={token}");
            let mut http = Http::connect(&server).await;
            refused.spawn(async move {
                let started = Instant::now();
                let response = http.request(method, &target, &[], HEARTBEAT.as_bytes()).await;
                response.expect_body(r#"{"status":500}"#);
                assert!(started.elapsed() >= Duration::from_millis(500), "{method} {target}");
            });
        }
    }
    soon(refused.join_all()).await;
}

#[tokio::test]
async fn a_response_has_the_headers_of_phoenix() {
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

/// Compression is left to an outer layer.
#[tokio::test]
async fn a_response_is_not_compressed_even_if_the_client_accepts_gzip() {
    let server = Server::start().await;
    let gzip = [("Accept-Encoding", "gzip, deflate, br")];
    let mut http = Http::connect(&server).await;
    let response = http.request("GET", "/socket/longpoll?vsn=2.0.0", &gzip, b"").await;
    assert_eq!(response.header("content-encoding"), None);
    assert_eq!(response.json()["status"], 410);
}

#[tokio::test]
async fn a_token_needs_no_escaping_in_a_query() {
    let server = Server::start().await;
    let token = LongPoll::open(&server, "vsn=2.0.0").await.token;
    let safe = |letter: char| letter.is_ascii_alphanumeric() || "-_.~".contains(letter);
    assert!(token.chars().all(safe), "{token}");
}

#[tokio::test]
async fn a_rejected_connect_is_a_403_in_the_body() {
    let server = Server::start().await;
    let mut http = Http::connect(&server).await;
    for query in ["reject=true", "vsn=3.0.0", "vsn=", "vsn[]=2.0.0", "vsn=2.0"] {
        let response = http.get(&format!("/socket/longpoll?{query}")).await;
        response.expect_body(r#"{"status":403}"#);
    }
}

#[tokio::test]
async fn another_origin_is_a_403_in_the_body_for_every_method() {
    let server = Server::start().await;
    let token = LongPoll::open(&server, "vsn=2.0.0").await.token;
    let mut http = Http::connect(&server).await;
    for method in ["GET", "POST", "OPTIONS"] {
        for origin in ["http://elsewhere.test", "null"] {
            let target = format!("/socket/longpoll?vsn=2.0.0&token={token}");
            let response = http.request(method, &target, &[("Origin", origin)], b"").await;
            response.expect_body(r#"{"status":403}"#);
        }
    }
}

#[tokio::test]
async fn an_allowed_origin_is_accepted() {
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

// Polling

#[tokio::test]
async fn queued_messages_are_returned_as_strings_in_one_response() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    session.post(JSON, HEARTBEAT).await;
    session.post(JSON, &HEARTBEAT.replace('2', "3")).await;
    let response = session.poll().await;
    assert_eq!(response["status"], 200);
    assert_eq!(response["messages"], json!([REPLY, REPLY.replace('2', "3")]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_answers_a_pending_poll() {
    let server = Server::start().await;
    let mut session = LongPoll::member(&server).await;
    let mut pending = session.pending_poll(&server).await;
    session.post(JSON, HEARTBEAT).await;
    let response = pending.response().await;
    assert_eq!((&response["status"], &response["messages"]), (&json!(200), &json!([REPLY])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_poll_without_a_message_ends_at_the_poll_timeout() {
    let poll_timeout = Duration::from_millis(300);
    let server = Server::with(Config { poll_timeout, ..Config::default() }).await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    let started = Instant::now();
    let response = session.poll().await;
    assert!(started.elapsed() >= poll_timeout, "{:?}", started.elapsed());
    assert_eq!(
        (&response["status"], &response["messages"]),
        (&json!(204), &json!([])),
        "{response}"
    );
    assert!(response["token"].is_string(), "{response}");
}

#[tokio::test]
async fn a_response_with_messages_carries_a_new_token() {
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
    // Unacknowledged messages are sent together with newer ones, in order.
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
    // This poll acknowledges. The older token of the next one does not undo that.
    session.post(JSON, &HEARTBEAT.replace('2', "3")).await;
    assert_eq!(session.poll().await["messages"], json!([REPLY.replace('2', "3")]));
    session.token = first;
    assert_eq!(session.poll().await["messages"], json!([REPLY.replace('2', "3")]));
}

/// A broadcast of 15 KB and the message that clients receive.
async fn broadcast_15_kb(server: &Server, n: usize) -> String {
    let payload = format!(r#"[{n},"{}"]"#, "x".repeat(15_000));
    server.broadcast("room:a", "news", &payload).await;
    format!(r#"[null,null,"room:a","news",{payload}]"#)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_is_bounded_and_the_rest_follows_with_the_next_poll() {
    for parameters in ["vsn=2.0.0", "vsn=2.0.0&user_id=u1&session=0123456789abcdefghijkl"] {
        let server = Server::start().await;
        let mut session = LongPoll::open(&server, parameters).await;
        session.post(JSON, r#"["1","1","room:a","phx_join",{}]"#).await;
        session.receive(2).await;
        let mut expected = Vec::new();
        for n in 0..60 {
            expected.push(json!(broadcast_15_kb(&server, n).await));
        }
        let (mut got, mut responses) = (Vec::new(), 0);
        while got.len() < 60 {
            let before = session.token.clone();
            let response = session.poll().await;
            let size = response.to_string().len();
            assert!(size <= 128 << 10, "{size} bytes");
            // It is repeated as it is, whatever else waits.
            session.token = before;
            assert_eq!(session.poll().await, response);
            got.extend(response["messages"].as_array().unwrap().clone());
            responses += 1;
        }
        assert!(got == expected && responses == 10, "{responses} responses");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_larger_than_a_response_should_be_is_sent_alone() {
    let server = Server::start().await;
    let mut session = LongPoll::member(&server).await;
    for size in [300_000, 10, 300_000] {
        server.broadcast("room:a", "news", &format!(r#""{}""#, "x".repeat(size))).await;
    }
    for _ in 0..3 {
        assert_eq!(session.poll().await["messages"].as_array().unwrap().len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_repeats_of_a_token_within_a_second_get_few_responses() {
    let server = Server::start().await;
    let mut session = LongPoll::member(&server).await;
    let expected = broadcast_15_kb(&server, 0).await;
    let token = session.token.clone();
    let (started, mut answered) = (Instant::now(), 0);
    for _ in 0..300 {
        session.token.clone_from(&token);
        let response = session.poll().await;
        if response["messages"] != json!([]) {
            answered += 1;
        } else {
            assert_eq!((&response["status"], &response["token"]), (&json!(204), &json!(token)));
        }
    }
    let seconds = started.elapsed().as_secs() + 1;
    assert!(answered >= 50 && answered <= 50 * seconds, "{answered} in {seconds} s");
    // Nothing was lost.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(session.receive(1).await, [expected]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newer_of_two_polls_gets_the_messages_and_the_older_ends_at_once() {
    let server = Server::start().await;
    let mut session = LongPoll::member(&server).await;
    let mut older = session.pending_poll(&server).await;
    let mut newer = session.second_connection(&server).await;
    newer.send_poll().await;
    let response = older.response().await;
    assert_eq!(
        (&response["status"], &response["messages"]),
        (&json!(204), &json!([])),
        "{response}"
    );
    session.post(JSON, HEARTBEAT).await;
    assert_eq!(newer.response().await["messages"], json!([REPLY]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_an_aborted_poll_is_sent_with_the_next_poll() {
    let server = Server::start().await;
    let mut session = LongPoll::member(&server).await;
    drop(session.pending_poll(&server).await);
    for n in 0..3 {
        server.broadcast("room:a", "news", &n.to_string()).await;
    }
    let mut got = Vec::new();
    while got.len() < 3 {
        let response = session.poll().await;
        got.extend(response["messages"].as_array().unwrap().clone());
    }
    let expected: Vec<_> =
        (0..3).map(|n| json!(format!(r#"[null,null,"room:a","news",{n}]"#))).collect();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn a_token_can_be_sent_in_a_header() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    session.post(JSON, HEARTBEAT).await;
    let header = [("X-Phoenix-LongPoll-Token", &*session.token)];
    let mut http = Http::connect(&server).await;
    let response = http.request("GET", "/socket/longpoll?vsn=2.0.0", &header, b"").await;
    assert_eq!(response.json()["messages"], json!([REPLY]));
    // The header takes precedence over the query.
    let target = "/socket/longpoll?vsn=2.0.0&token=abc";
    let response = http.request("GET", target, &header, b"").await;
    assert_eq!(response.json()["messages"], json!([REPLY]));
    let response = http.request("POST", target, &header, HEARTBEAT.as_bytes()).await;
    response.expect_body(r#"{"status":200}"#);
}

#[tokio::test]
async fn other_parameters_are_ignored_next_to_a_token() {
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

// Other methods

#[tokio::test]
async fn a_preflight_is_answered() {
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

// Lifetime of a session

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_without_polls_ends_despite_posts() {
    let poll_timeout = Duration::from_millis(200);
    let server = Server::with(Config { poll_timeout, ..Config::default() }).await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0").await;
    session.poll().await;
    let started = Instant::now();
    soon(async {
        while session.post(NDJSON, "").await["status"] == 200 {
            tokio::time::sleep(poll_timeout / 10).await;
        }
    })
    .await;
    assert!(started.elapsed() >= poll_timeout, "{:?}", started.elapsed());
    session.expect_gone().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lives_as_long_as_it_is_polled() {
    let poll_timeout = Duration::from_millis(600);
    let server = Server::with(Config { poll_timeout, ..Config::default() }).await;
    let mut session = LongPoll::member(&server).await;
    for _ in 0..4 {
        assert_eq!(session.poll().await["status"], 204);
    }
    session.post(NDJSON, &ping(1)).await;
    assert_eq!(session.receive(1).await, [pong(1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_does_not_time_out_while_its_client_reads_a_large_response() {
    let poll_timeout = Duration::from_millis(200);
    let server = Server::with(Config { poll_timeout, ..Config::default() }).await;
    let mut session = LongPoll::member(&server).await;
    server.broadcast("room:a", "news", &format!(r#""{}""#, "x".repeat(60_000))).await;
    assert_eq!(session.receive(1).await.len(), 1);
    tokio::time::sleep(5 * poll_timeout).await;
    session.post(NDJSON, &ping(1)).await;
    assert_eq!(session.receive(1).await, [pong(1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnect_by_id_answers_the_pending_poll_and_ends_the_session() {
    let server = Server::start().await;
    let mut session = LongPoll::open(&server, "vsn=2.0.0&user_id=u1").await;
    let mut pending = session.pending_poll(&server).await;
    server.disconnect("user_socket:u1").await;
    let response = pending.response().await;
    assert_eq!(
        (&response["status"], &response["messages"]),
        (&json!(204), &json!([])),
        "{response}"
    );
    assert_eq!(session.post(JSON, HEARTBEAT).await, json!({"status": 500}));
    session.expect_gone().await;
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
async fn a_token_of_another_server_is_not_accepted() {
    let token = LongPoll::open(&Server::start().await, "vsn=2.0.0").await.token;
    let server = Server::start().await;
    let target = format!("/socket/longpoll?vsn=2.0.0&token={token}");
    assert_eq!(Http::connect(&server).await.get(&target).await.json()["status"], 500);
}

fn ping(n: usize) -> String {
    format!(r#"["1","{n}","room:a","ping",{n}]"#)
}

fn pong(n: usize) -> String {
    format!(r#"["1","{n}","room:a","phx_reply",{{"status":"ok","response":{n}}}]"#)
}
