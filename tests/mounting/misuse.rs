//! What cannot work says so: to who builds the endpoint, in the log, and in the answer.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tower::ServiceExt;
use tower_channels::Endpoint;

use super::capture::{Captured, capture};
use super::endpoint::endpoint;

const UPGRADE: &str = "GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: localhost\r\n\
    Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[test]
fn an_endpoint_without_channels_is_not_built() {
    let error = Endpoint::<()>::builder(|_| async { Ok(()) }).try_build().expect_err("no channel");
    assert_eq!(error.to_string(), "the endpoint has no channel: add one with `channel`");
}

#[test]
#[should_panic = r#"prefix "/socket/websocket" must not end in "/websocket""#]
fn a_layer_is_not_mounted_at_the_path_of_a_transport() {
    endpoint().layer("/socket/websocket");
}

#[test]
fn a_client_whose_url_contains_a_transport_is_told_so() {
    let captured = capture(async {
        let app = Router::new().layer(endpoint().layer("/socket"));
        for path in ["/socket/websocket/websocket", "/socket/websocket/longpoll"] {
            let (status, body) = get(&app, &format!("{path}?vsn=2.0.0")).await;
            assert_eq!((status, &*body), (404, MISDIRECTED_CLIENT), "{path}");
        }
    });
    expect_one_line(&captured, &["no transport at this path", "/socket/websocket/websocket"]);
    assert_eq!(captured.count("tower_channels_requests_misdirected_total"), 2);
}

const MISDIRECTED_CLIENT: &str = "no transport at this path: a client appends the path of its \
    transport to its URL, which contains one";

#[test]
fn a_service_that_is_mounted_at_the_path_of_a_transport_says_so() {
    let captured = capture(async {
        let app = Router::new().nest_service("/socket/websocket", endpoint().service());
        let (status, body) = get(&app, "/socket/websocket?vsn=2.0.0").await;
        assert!(status == 404 && body.contains("the service must be mounted"), "{status} {body}");
        // One that is not a client's is none of its business.
        assert_eq!(get(&app, "/socket/websocket/other").await, (404, String::new()));
    });
    expect_one_line(&captured, &["no transport at this path", "the service must be mounted"]);
}

async fn get(app: &Router, path: &str) -> (u16, String) {
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let Ok(response) = app.clone().oneshot(request).await;
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    (head.status.as_u16(), String::from_utf8(body.to_vec()).expect("text"))
}

/// Asserts that exactly one log line contains all of these texts.
#[track_caller]
fn expect_one_line(captured: &Captured, texts: &[&str]) {
    let lines = captured.lines();
    let found = lines.iter().filter(|line| texts.iter().all(|text| line.contains(text)));
    assert_eq!(found.count(), 1, "{texts:?} in {lines:#?}");
}

#[test]
fn a_request_without_an_upgrade_is_answered_in_words() {
    let captured = capture(async {
        let service = endpoint().service();
        for _ in 0..2 {
            let mut lines = UPGRADE.lines().skip(1).filter(|line| !line.is_empty());
            let request = Request::get("/socket/websocket?vsn=2.0.0");
            let request = lines.try_fold(request, |request, line| {
                line.split_once(": ").map(|(name, value)| request.header(name, value))
            });
            let request = request.expect("headers").body(Empty::<Bytes>::new());
            let Ok(response) = service.clone().oneshot(request.expect("a request")).await;
            assert_eq!(response.status(), 500);
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            assert_eq!(body, "the HTTP server does not support WebSocket upgrades");
        }
    });
    expect_one_line(&captured, &["WebSockets do not work behind this HTTP server"]);
    assert_eq!(captured.count("tower_channels_upgrades_unfinished_total"), 2);
}

#[test]
fn a_server_that_gives_up_its_upgrades_is_a_warning() {
    let captured = capture(async {
        let (mut client, server) = tokio::io::duplex(4096);
        let service = TowerToHyperService::new(endpoint().service());
        let served =
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(server), service));
        client.write_all(UPGRADE.as_bytes()).await.expect("it reads");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an end");
        assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
        served.await.expect("no panic").expect("no error");
        tokio::time::sleep(Duration::from_millis(1)).await;
    });
    expect_one_line(
        &captured,
        &["WebSockets do not work behind this HTTP server", "with_upgrades"],
    );
}

#[test]
fn an_upgrade_that_is_never_finished_is_a_warning_and_holds_nothing() {
    let captured = capture(async {
        let (mut client, server) = tokio::io::duplex(4096);
        // Takes the request away from hyper, which waits for a response.
        let (sender, receiver) = oneshot::channel();
        let sender = Mutex::new(Some(sender));
        let stolen = service_fn(move |request: Request<Incoming>| {
            let sender = sender.lock().expect("not poisoned").take().expect("one request");
            sender.send(request).expect("a receiver");
            pending::<Result<Response<String>, Infallible>>()
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(server), stolen);
        tokio::spawn(connection.with_upgrades());
        client.write_all(UPGRADE.as_bytes()).await.expect("it reads");
        let endpoint = endpoint();
        let request = receiver.await.expect("a request");
        let Ok(response) = endpoint.service().oneshot(request).await;
        assert_eq!(response.status(), 101);
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert_eq!(endpoint.sessions().total(), 1);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(endpoint.sessions().total(), 0);
    });
    expect_one_line(&captured, &["WebSockets do not work", "was not finished in time"]);
}
