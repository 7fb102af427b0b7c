//! Long polling over real sockets, with an echo handler.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1 as client;
use hyper::server::conn::http1 as server;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower::Service;
use tower_channels_transports::{
    Acceptor, CheckOrigin, Close, ConnectInfo, Handler, Inbound, Limits, LongPoll, LongPollConfig,
    Message, Rejected, Session, outbox,
};

/// Echoes messages, and obeys some of them. Reports each connect, and the end of each session.
struct Echo(mpsc::UnboundedSender<Event>);

#[derive(Debug)]
enum Event {
    Connected(outbox::Sender),
    Ended,
}

struct EchoSession {
    outbox: outbox::Sender,
    events: mpsc::UnboundedSender<Event>,
}

impl Handler for Echo {
    type Session = EchoSession;

    async fn connect(
        &self,
        info: ConnectInfo,
        outbox: outbox::Sender,
    ) -> Result<EchoSession, Rejected> {
        if info.param("reject") == Some("true") {
            return Err(Rejected::reason("on request"));
        }
        self.0.send(Event::Connected(outbox.clone())).unwrap();
        Ok(EchoSession { outbox, events: self.0.clone() })
    }
}

impl Session for EchoSession {
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
        match message {
            Inbound::Text("[malformed]") => return Err(Close::Malformed),
            Inbound::Text("[two]") => {
                let outbox = self.outbox.clone();
                tokio::spawn(async move {
                    outbox.push(Message::text("[1]"));
                    outbox.push(Message::text("[2]"));
                });
            }
            Inbound::Text(text) => self.outbox.push(Message::text(text.to_owned())),
            Inbound::Binary(bytes) => self.outbox.push(Message::binary(bytes.to_vec())),
            _ => return Err(Close::Malformed),
        }
        Ok(())
    }
}

impl Drop for EchoSession {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Ended);
    }
}

struct Server {
    address: SocketAddr,
    service: LongPoll<Echo>,
    events: mpsc::UnboundedReceiver<Event>,
}

const POLL_TIMEOUT: Duration = Duration::from_millis(300);

impl Server {
    async fn start() -> Self {
        Self::with(CheckOrigin::default(), LongPollConfig::new().poll_timeout(POLL_TIMEOUT)).await
    }

    /// A poll timeout that no test reaches.
    async fn without_timeouts() -> Self {
        Self::with(CheckOrigin::default(), LongPollConfig::new()).await
    }

    async fn with(check_origin: CheckOrigin, config: LongPollConfig) -> Self {
        let (tx, events) = mpsc::unbounded_channel();
        let limits = Limits::new().max_message(1000);
        let service = LongPoll::new(Acceptor::new(Echo(tx), check_origin, limits), config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = service.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(service.clone());
                let connection = server::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { address, service: shared, events }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let (head, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: head.status, headers: head.headers, body }
    }

    async fn get(&self, query: &str) -> Answer {
        self.send(request(Method::GET, query).body(Full::default()).unwrap()).await
    }

    async fn post(&self, token: &str, body: impl Into<Bytes>) -> Answer {
        let request = request(Method::POST, &format!("token={token}"));
        self.send(request.body(Full::new(body.into())).unwrap()).await
    }

    async fn post_ndjson(&self, token: &str, body: &str) -> Answer {
        let request = request(Method::POST, &format!("token={token}"))
            .header("content-type", "application/x-ndjson");
        self.send(request.body(Full::new(body.to_owned().into())).unwrap()).await
    }

    async fn poll(&self, token: &str) -> Answer {
        self.get(&format!("token={token}")).await
    }

    /// Connects, and returns the first token.
    async fn connect(&self, query: &str) -> String {
        let answer = self.get(query).await;
        assert_eq!(answer.json()["status"], 410);
        answer.token()
    }

    /// Begins a poll, and returns once it waits at the server.
    async fn hold(&self, token: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!("GET /?token={token} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // The runtime has one thread, so the server reads these requests after the poll.
        for _ in 0..3 {
            self.send(request(Method::PUT, "").body(Full::default()).unwrap()).await;
        }
        stream
    }

    /// The next event, within a time that no test should need.
    async fn event(&mut self) -> Event {
        tokio::time::timeout(Duration::from_secs(30), self.events.recv()).await.unwrap().unwrap()
    }
}

fn request(method: Method, query: &str) -> http::request::Builder {
    Request::builder().method(method).uri(format!("/socket/longpoll?{query}")).header("host", "x")
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn token(&self) -> String {
        self.json()["token"].as_str().unwrap().to_owned()
    }

    fn messages(&self) -> Vec<String> {
        let json = self.json();
        let messages = json["messages"].as_array().unwrap().iter();
        messages.map(|message| message.as_str().unwrap().to_owned()).collect()
    }
}

/// Reads the response on a connection that is used once.
async fn read_answer(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut buffer));
        let count = read.await.unwrap().unwrap();
        answer.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&answer).into_owned();
        if count == 0 || text.contains("\r\n\r\n{") && text.ends_with('}') {
            return text;
        }
    }
}

#[tokio::test]
async fn a_get_without_a_token_connects_and_returns_a_token() {
    let server = Server::start().await;
    for query in ["vsn=2.0.0&", "token=", "token=null", "token=undefined"] {
        let answer = server.get(query).await;
        assert_eq!(answer.status, StatusCode::OK);
        let token = answer.token();
        let expected = format!(r#"{{"messages":[],"status":410,"token":"{token}"}}"#);
        assert_eq!(answer.body, expected, "{query}");
    }
}

#[tokio::test]
async fn the_next_poll_returns_what_a_post_brought() {
    let server = Server::start().await;
    let first = server.connect("").await;
    assert_eq!(server.post(&first, r#"["é"]"#).await.body, r#"{"status":200}"#);
    let answer = server.poll(&first).await;
    let token = answer.token();
    assert_ne!(token, first);
    let expected = format!(r#"{{"messages":["[\"é\"]"],"status":200,"token":"{token}"}}"#);
    assert_eq!(answer.body, expected);
    for (name, value) in [
        ("content-type", "application/json; charset=utf-8"),
        ("cache-control", "no-store"),
        ("access-control-allow-origin", "*"),
        ("vary", "accept-encoding"),
        ("content-length", &expected.len().to_string()),
    ] {
        assert_eq!(answer.headers[name], value);
    }
}

#[tokio::test]
async fn an_answer_is_repeated_until_its_token_comes_back() {
    let server = Server::start().await;
    let first = server.connect("").await;
    server.post(&first, "[1]").await;
    assert_eq!(server.poll(&first).await.messages(), ["[1]"]);
    server.post(&first, "[2]").await;
    let answer = server.poll(&first).await;
    assert_eq!(answer.messages(), ["[1]", "[2]"]);
    let answer = server.poll(&answer.token()).await;
    assert_eq!(answer.json()["status"], 204);
}

#[tokio::test]
async fn a_poll_without_messages_waits_for_the_poll_timeout_and_keeps_its_token() {
    let server = Server::start().await;
    let token = server.connect("").await;
    let begun = Instant::now();
    let answer = server.poll(&token).await;
    assert!(begun.elapsed() >= POLL_TIMEOUT);
    assert_eq!(answer.body, format!(r#"{{"messages":[],"status":204,"token":"{token}"}}"#));
}

#[tokio::test]
async fn a_waiting_poll_is_answered_as_soon_as_a_message_comes() {
    let server = Server::without_timeouts().await;
    let token = server.connect("").await;
    let poll = server.hold(&token).await;
    assert_eq!(server.post(&token, "[1]").await.body, r#"{"status":200}"#);
    assert!(read_answer(poll).await.contains(r#"{"messages":["[1]"],"status":200"#));
}

#[tokio::test]
async fn messages_that_are_pushed_together_leave_in_one_answer() {
    let server = Server::without_timeouts().await;
    let token = server.connect("").await;
    let poll = server.hold(&token).await;
    server.post(&token, "[two]").await;
    assert!(read_answer(poll).await.contains(r#"{"messages":["[1]","[2]"],"status":200"#));
}

#[tokio::test]
async fn a_newer_poll_ends_an_older_one_and_gets_everything() {
    let server = Server::without_timeouts().await;
    let token = server.connect("").await;
    let older = server.hold(&token).await;
    let newer = server.hold(&token).await;
    assert!(read_answer(older).await.contains(r#"{"messages":[],"status":204"#));
    server.post(&token, "[1]").await;
    assert!(read_answer(newer).await.contains(r#"{"messages":["[1]"],"status":200"#));
}

#[tokio::test]
async fn a_poll_whose_client_vanished_loses_nothing() {
    let server = Server::without_timeouts().await;
    let token = server.connect("").await;
    drop(server.hold(&token).await);
    server.post(&token, "[1]").await;
    assert_eq!(server.poll(&token).await.messages(), ["[1]"]);
}

#[tokio::test]
async fn a_token_in_the_header_takes_precedence_over_one_in_the_query() {
    let server = Server::start().await;
    let token = server.connect("").await;
    server.post(&token, "[1]").await;
    let request = |header: &str, query: &str| {
        let request = request(Method::GET, query).header("x-phoenix-longpoll-token", header);
        server.send(request.body(Full::default()).unwrap())
    };
    assert_eq!(request(&token, "token=bad").await.json()["status"], 200);
    assert_eq!(request("bad", &format!("token={token}")).await.json()["status"], 500);
    assert_eq!(request("", &format!("token={token}")).await.json()["status"], 410);
}

#[tokio::test]
async fn a_cursor_that_was_never_handed_out_is_refused() {
    let server = Server::without_timeouts().await;
    let token = server.connect("").await;
    // The last character belongs to the cursor.
    let ahead = format!("{}I", &token[..token.len() - 1]);
    assert_eq!(server.post(&ahead, "[1]").await.body, r#"{"status":500}"#);
    assert_eq!(server.poll(&ahead).await.body, r#"{"status":500}"#);
    assert_eq!(server.post(&token, "[1]").await.body, r#"{"status":200}"#);
}

#[tokio::test]
async fn a_rejected_connect_is_answered_403() {
    let server = Server::start().await;
    let answer = server.get("reject=true").await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, r#"{"status":403}"#));
}

#[tokio::test]
async fn every_request_from_another_origin_is_answered_403() {
    let server = Server::start().await;
    for method in [Method::GET, Method::POST, Method::OPTIONS] {
        let request = request(method, "").header("origin", "http://elsewhere.test");
        let answer = server.send(request.body(Full::default()).unwrap()).await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, r#"{"status":403}"#));
    }
}

#[tokio::test]
async fn a_preflight_allows_the_requested_headers() {
    let server = Server::start().await;
    let request = request(Method::OPTIONS, "")
        .header("origin", "http://x")
        .header("access-control-request-headers", "x-phoenix-authtoken");
    let answer = server.send(request.body(Full::default()).unwrap()).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, ""));
    for (name, value) in [
        ("access-control-allow-headers", "x-phoenix-authtoken"),
        ("access-control-allow-methods", "get, post, options"),
        ("access-control-max-age", "3600"),
        ("access-control-allow-origin", "*"),
        ("cache-control", "max-age=0, private, must-revalidate"),
    ] {
        assert_eq!(answer.headers[name], value);
    }
}

#[tokio::test]
async fn an_unsupported_method_is_a_bad_request() {
    let server = Server::start().await;
    for method in [Method::PUT, Method::DELETE, Method::HEAD] {
        let answer = server.send(request(method, "").body(Full::default()).unwrap()).await;
        assert_eq!((answer.status, answer.body.as_str()), (StatusCode::BAD_REQUEST, ""));
    }
}

#[tokio::test]
async fn an_over_long_query_is_a_bad_request_whatever_is_asked() {
    let server = Server::start().await;
    let token = server.connect("").await;
    let query = format!("{}&token={token}", "x".repeat(16 * 1024));
    for method in [Method::GET, Method::POST] {
        let answer = server.send(request(method, &query).body(Full::default()).unwrap()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }
    let expanding: String = (0..100).map(|name| format!("{name}[a][b]=1&")).collect();
    for query in ["x&".repeat(257), expanding] {
        assert_eq!(server.get(&query).await.status, StatusCode::BAD_REQUEST);
    }
}

#[tokio::test]
async fn a_query_that_is_not_utf8_is_a_bad_request() {
    let server = Server::start().await;
    let answer = server.get("foo=%ff").await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert_eq!(answer.body, r#"{"errors":{"detail":"Bad Request"}}"#);
    assert_eq!(server.get("foo=%zz").await.json()["status"], 410);
}

#[tokio::test]
async fn a_post_without_a_session_is_answered_before_its_body_is_read() {
    let server = Server::start().await;
    for (token, status) in [("", 410), ("null", 410), ("bad", 410), ("phx-lp.bad", 500)] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!("POST /?token={token} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        assert!(read_answer(stream).await.ends_with(&format!(r#"{{"status":{status}}}"#)));
    }
}

#[tokio::test]
async fn a_malformed_message_ends_the_session_and_its_waiting_poll_at_once() {
    let mut server = Server::without_timeouts().await;
    let token = server.connect("").await;
    assert!(matches!(server.event().await, Event::Connected(_)));
    let poll = server.hold(&token).await;
    assert_eq!(server.post(&token, "[malformed]").await.body, r#"{"status":500}"#);
    assert!(matches!(server.event().await, Event::Ended));
    assert!(read_answer(poll).await.contains(r#"{"messages":[],"status":204"#));
    assert_eq!(server.post(&token, "[1]").await.body, r#"{"status":500}"#);
    assert_eq!(server.poll(&token).await.body, r#"{"status":500}"#);
}

#[tokio::test]
async fn a_text_that_is_not_utf8_ends_the_session() {
    let server = Server::start().await;
    let token = server.connect("").await;
    assert_eq!(server.post(&token, &b"[\xff]"[..]).await.body, r#"{"status":500}"#);
}

#[tokio::test]
async fn a_disconnect_ends_the_waiting_poll_at_once_and_the_next_one_is_refused() {
    let mut server = Server::without_timeouts().await;
    let token = server.connect("").await;
    let Event::Connected(outbox) = server.event().await else { panic!("expected a connect") };
    let poll = server.hold(&token).await;
    outbox.close(Close::GoingAway);
    assert!(read_answer(poll).await.contains(r#"{"messages":[],"status":204"#));
    assert!(matches!(server.event().await, Event::Ended));
    assert_eq!(server.poll(&token).await.body, r#"{"status":500}"#);
}

#[tokio::test]
async fn the_text_and_binary_messages_of_a_batch_are_handled_in_order() {
    let server = Server::start().await;
    let token = server.connect("binary=base64").await;
    let lines: Vec<_> = (0..200).map(|line| format!("[{line}]")).collect();
    let body = format!("{}\r\nAAH/\n", lines.join("\n"));
    assert_eq!(server.post_ndjson(&token, &body).await.body, r#"{"status":200}"#);
    let messages = server.poll(&token).await.messages();
    assert_eq!(messages[..200], lines);
    assert_eq!(messages[200..], ["AAH/"]);
}

#[tokio::test]
async fn a_batch_with_an_undecodable_line_is_not_handled_at_all() {
    let server = Server::start().await;
    let token = server.connect("").await;
    assert_eq!(server.post_ndjson(&token, "[1]\nno base64").await.body, r#"{"status":400}"#);
    server.post(&token, "[2]").await;
    assert_eq!(server.poll(&token).await.messages(), ["[2]"]);
}

#[tokio::test]
async fn a_binary_message_is_skipped_unless_the_client_reads_them() {
    let server = Server::without_timeouts().await;
    let token = server.connect("").await;
    let poll = server.hold(&token).await;
    server.post_ndjson(&token, "AAH/").await;
    server.post(&token, "[1]").await;
    assert!(read_answer(poll).await.contains(r#"{"messages":["[1]"],"status":200"#));
}

#[tokio::test]
async fn a_message_may_have_exactly_the_limit() {
    let server = Server::start().await;
    let token = server.connect("").await;
    assert_eq!(server.post(&token, "x".repeat(1000)).await.body, r#"{"status":200}"#);
    let answer = server.post(&token, "x".repeat(1001)).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(answer.body, r#"{"status":413}"#);
    assert_eq!(server.poll(&token).await.messages(), ["x".repeat(1000)]);
}

#[tokio::test]
async fn a_body_that_announces_too_many_bytes_is_refused_before_it_arrives() {
    let server = Server::start().await;
    let token = server.connect("").await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST /?token={token} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        u64::MAX / 2
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(read_answer(stream).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn a_body_that_never_ends_is_refused_once_it_is_too_large() {
    let server = Server::start().await;
    let token = server.connect("").await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head =
        format!("POST /?token={token} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    for _ in 0..6 {
        let chunk = format!("3e8\r\n{}\r\n", "\n".repeat(1000));
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    assert!(read_answer(stream).await.starts_with("HTTP/1.1 413"));
}

#[tokio::test]
async fn a_body_that_does_not_arrive_times_out_and_the_session_lives() {
    let config = LongPollConfig::new().body_timeout(Duration::from_millis(500));
    let server = Server::with(CheckOrigin::default(), config).await;
    let token = server.connect("").await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("POST /?token={token} HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n[");
    stream.write_all(head.as_bytes()).await.unwrap();
    assert!(read_answer(stream).await.ends_with(r#"{"status":408}"#));
    assert_eq!(server.post(&token, "[1]").await.body, r#"{"status":200}"#);
}

#[tokio::test]
async fn a_session_without_polls_ends_after_the_session_timeout() {
    let mut server = Server::start().await;
    let token = server.connect("").await;
    assert!(matches!(server.event().await, Event::Connected(_)));
    let begun = Instant::now();
    assert!(matches!(server.event().await, Event::Ended));
    assert!(begun.elapsed() > POLL_TIMEOUT, "{:?}", begun.elapsed());
    assert_eq!(server.post(&token, "[1]").await.body, r#"{"status":500}"#);
}

#[tokio::test]
async fn a_session_that_is_polled_lives() {
    let server = Server::start().await;
    let mut token = server.connect("").await;
    for _ in 0..5 {
        let answer = server.poll(&token).await;
        assert_eq!(answer.json()["status"], 204);
        token = answer.token();
    }
    assert_eq!(server.post(&token, "[1]").await.body, r#"{"status":200}"#);
}

#[tokio::test]
async fn a_client_that_does_not_read_overflows_and_is_refused() {
    let mut server = Server::without_timeouts().await;
    let token = server.connect("").await;
    let Event::Connected(outbox) = server.event().await else { panic!("expected a connect") };
    for _ in 0..4 {
        outbox.push(Message::text("x".repeat(600_000)));
    }
    assert!(outbox.is_closed());
    assert_eq!(server.poll(&token).await.json()["status"], 500);
    assert!(matches!(server.event().await, Event::Ended));
}

#[tokio::test]
async fn a_content_type_is_compared_without_its_parameters_and_in_any_case() {
    let server = Server::start().await;
    for content_type in [
        "application/x-ndjson; charset=utf-8",
        "application/x-ndjson;charset=utf-8",
        "Application/X-NDJSON",
        "application/x-ndjson ; a=b; c=\"d\"",
    ] {
        let token = server.connect("").await;
        let request = request(Method::POST, &format!("token={token}"))
            .header("content-type", content_type)
            .body(Full::from("[1]\nAAH/"));
        assert_eq!(server.send(request.unwrap()).await.body, r#"{"status":200}"#, "{content_type}");
        assert_eq!(server.poll(&token).await.messages(), ["[1]"], "{content_type}");
    }
    for content_type in ["application/x-ndjson+json", "text/x-ndjson", ";application/x-ndjson"] {
        let token = server.connect("").await;
        let request = request(Method::POST, &format!("token={token}"))
            .header("content-type", content_type)
            .body(Full::from("[1]\n[2]"));
        server.send(request.unwrap()).await;
        assert_eq!(server.poll(&token).await.messages(), ["[1]\n[2]"], "{content_type}");
    }
}

#[tokio::test]
async fn an_answer_before_an_expected_body_closes_the_connection() {
    let server = Server::without_timeouts().await;
    let token = server.connect("").await;
    for (method, query, length, more) in [
        ("POST", "token=phx-lp.unknown", 5, ""),
        ("POST", &*format!("token={token}"), 5, "origin: http://elsewhere\r\n"),
        ("POST", &*format!("token={token}"), 5_000_000, ""),
        ("PUT", "", 5, ""),
        ("OPTIONS", "", 5, ""),
        ("GET", "", 5, ""),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "{method} /?{query} HTTP/1.1\r\nhost: x\r\n{more}content-length: {length}\r\n\
             expect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        let read = tokio::time::timeout(Duration::from_secs(30), read).await;
        assert!(read.is_ok(), "{head}: kept open after {answer}");
        assert!(!answer.contains(" 100 Continue"), "{answer}");
        assert!(answer.to_lowercase().contains("connection: close"), "{head}: {answer}");
    }
}

#[tokio::test]
async fn the_request_after_an_expected_body_is_intact() {
    let server = Server::without_timeouts().await;
    let token = server.connect("").await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = |more: &str| {
        format!("POST /?token={token} HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n{more}\r\n")
    };
    stream.write_all(head("expect: 100-continue\r\n").as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(interim, *b"HTTP/1.1 100 Continue\r\n\r\n");
    let rest = format!("[1]{}[2]", head("connection: close\r\n"));
    stream.write_all(rest.as_bytes()).await.unwrap();
    let answers = read_answer(stream).await;
    assert_eq!(answers.matches(r#"{"status":200}"#).count(), 2, "{answers}");
}

/// The test's other task runs between the slices of a batch.
#[tokio::test]
async fn a_long_batch_leaves_room_for_other_work() {
    let server = Server::without_timeouts().await;
    let token = server.connect("").await;
    let turns = Arc::new(AtomicUsize::new(0));
    let other = tokio::spawn({
        let turns = Arc::clone(&turns);
        async move {
            loop {
                turns.fetch_add(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    let turns_of = async |lines: usize| {
        let before = turns.load(Ordering::Relaxed);
        let mut service = server.service.clone();
        let request = request(Method::POST, &format!("token={token}"))
            .header("content-type", "application/x-ndjson")
            .body(Full::<Bytes>::from("[]\n".repeat(lines)));
        let answer = service.call(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        turns.load(Ordering::Relaxed) - before
    };
    let (short, long) = (turns_of(10).await, turns_of(400).await);
    other.abort();
    assert!(long >= short + 400 / 64, "{short} turns, and {long} for 400 messages");
}

#[tokio::test]
async fn the_posts_of_a_session_are_handled_one_after_another() {
    let server = Server::without_timeouts().await;
    let token = server.connect("").await;
    let post = |messages: std::ops::Range<usize>| {
        let lines: Vec<_> = messages.map(|number| format!("[{number}]")).collect();
        let request = request(Method::POST, &format!("token={token}"))
            .header("content-type", "application/x-ndjson")
            .body(Full::<Bytes>::from(lines.join("\n")));
        server.service.clone().call(request.unwrap())
    };
    let answers = tokio::join!(post(0..200), post(200..202), post(202..400), post(400..401));
    drop(answers);
    let expected: Vec<_> = (0..401).map(|number| format!("[{number}]")).collect();
    assert_eq!(server.poll(&token).await.messages(), expected);
}

#[tokio::test]
async fn a_batch_that_was_begun_is_handled_although_its_client_goes_away() {
    let server = Server::without_timeouts().await;
    let token = server.connect("").await;
    let request = request(Method::POST, &format!("token={token}"))
        .header("content-type", "application/x-ndjson")
        .body(Full::<Bytes>::from("[]\n".repeat(300)));
    let mut answer = Box::pin(server.service.clone().call(request.unwrap()));
    assert!(answer.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(answer);
    let (mut received, mut token) = (0, token);
    while received < 300 {
        let poll = server.poll(&token).await;
        assert_eq!(poll.json()["status"], 200, "after {received} of 300 messages");
        received += poll.messages().len();
        token = poll.token();
    }
}
