//! The endpoint as a service, without a network.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use allocation_counter::measure;
use http::Request;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body_util::{BodyExt, Full};
use tokio::runtime::Handle;
use tower::ServiceExt;
use tower_channels::channel::Result;
use tower_channels::{
    Channel, CheckOrigin, ConnectInfo, Endpoint, Joined, Payload, Reply, Service, Socket,
};
use tower_channels_transports::internals::fuzzing::{MAX_PARSED_QUERY, parse_query};

/// Replies to every push with its payload.
struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn handle_in(&mut self, _: &str, payload: Payload, _: &Socket<Self>) -> Result<Reply> {
        Ok(Reply::Ok(payload))
    }
}

/// A channel of sockets whose assigns are their ids.
struct Identified;

impl Channel for Identified {
    type Assigns = String;
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }
}

pub(crate) fn endpoint() -> Endpoint<()> {
    Endpoint::builder(|_| async { Ok(()) }).channel::<Room>("room:*").build()
}

async fn call(service: Service<()>, request: Request<String>) -> String {
    let response = service.oneshot(request.map(Full::<bytes::Bytes>::from)).await;
    let Ok(response) = response;
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

fn request(method: &str, token: &str, body: &str) -> Request<String> {
    let uri = format!("/socket/longpoll?vsn=2.0.0&token={token}");
    Request::builder().method(method).uri(uri).body(body.to_owned()).expect("a request")
}

fn token(response: &str) -> &str {
    let (_, token) = response.split_once(r#""token":""#).expect("a token");
    token.trim_end_matches(['"', '}'])
}

#[tokio::test]
async fn a_transport_can_be_mounted_alone_at_any_path() {
    let endpoint = endpoint();
    let app = axum::Router::<()>::new()
        .route_service("/ws", endpoint.websocket())
        .route_service("/lp", endpoint.long_poll());
    for (path, status, body) in
        [("/ws", 400, "'host' header is absent"), ("/lp", 200, r#""status":410"#)]
    {
        let request = Request::get(format!("{path}?vsn=2.0.0")).body(axum::body::Body::empty());
        let response = app.clone().oneshot(request.expect("a request")).await.expect("infallible");
        assert_eq!(response.status(), status);
        let text = response.into_body().collect().await.expect("a body").to_bytes();
        assert!(String::from_utf8_lossy(&text).contains(body), "{path}: {text:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn connected_and_detached_sessions_are_counted_apart() {
    let builder = Endpoint::builder(|_| async { Ok(()) }).id(|()| Some("user:1".into()));
    let endpoint = builder.channel::<Room>("room:*").build();
    let count = || {
        let sessions = endpoint.sessions();
        (sessions.connected, sessions.detached, sessions.total())
    };
    let session = ("session", "a-session-of-one-client");
    let mut ann = tower_channels::test::connect(&endpoint, &[session]).await.expect("accepted");
    let bob = tower_channels::test::connect(&endpoint, &[]).await.expect("accepted");
    assert_eq!(count(), (2, 0, 2));
    ann.drop_connection();
    assert_eq!(count(), (1, 1, 2));
    drop(bob);
    assert_eq!(count(), (0, 1, 1));
    ann.reconnect().await.expect("accepted");
    assert_eq!(count(), (1, 0, 1));
}

#[test]
fn a_glob_import_shadows_nothing_of_the_prelude() {
    #[allow(unused_imports)]
    use tower_channels::*;
    let parsed: Result<u8, std::num::ParseIntError> = "7".parse();
    assert_eq!(parsed, Ok(7));
}

#[test]
fn configuration_errors_say_what_to_change() {
    let builder = Endpoint::builder(|_| async { Ok(()) }).channel::<Room>("room:*");
    let error = builder.max_channels(0).try_build();
    let error: Box<dyn std::error::Error> = Box::new(error.expect_err("zero channels"));
    assert_eq!(error.to_string(), "`max_channels` must be greater than zero");
}

/// Servers may create a service per connection, and a client's next poll may use another
/// connection.
#[tokio::test(start_paused = true)]
async fn a_long_poll_session_is_known_to_every_service_of_its_endpoint() {
    let endpoint = endpoint();
    let connected = call(endpoint.service(), request("GET", "", "")).await;
    assert!(connected.contains(r#""status":410"#), "{connected}");
    let join = request("POST", token(&connected), r#"["1","1","room:a","phx_join",{}]"#);
    assert_eq!(call(endpoint.service(), join).await, r#"{"status":200}"#);
    let poll = request("GET", token(&connected), "");
    let polled = call(endpoint.service(), poll).await;
    assert!(polled.contains("phx_reply") && polled.contains(r#""status":200"#), "{polled}");
}

#[tokio::test(start_paused = true)]
async fn a_client_can_resume_its_session_although_no_other_is_admitted() {
    let builder = Endpoint::builder(|_| async { Ok(()) }).id(|()| Some("user:1".into()));
    let endpoint = builder.channel::<Room>("room:*").max_sessions(1).build();
    for (session, status) in [("a", 410), ("a", 410), ("b", 500), ("a", 410)] {
        let uri = format!("/socket/longpoll?vsn=2.0.0&session={}", session.repeat(30));
        let connect = Request::get(uri).body(String::new()).expect("a request");
        let response = call(endpoint.service(), connect).await;
        assert!(response.contains(&format!(r#""status":{status}"#)), "{session}: {response}");
        if status == 410 {
            // The session begins with the first use of its token.
            let post = request("POST", token(&response), r#"[null,"1","phoenix","heartbeat",{}]"#);
            assert_eq!(call(endpoint.service(), post).await, r#"{"status":200}"#);
        }
        assert_eq!(endpoint.sessions().total(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_connects_in_progress_are_answered_with_503() {
    let endpoint = Endpoint::builder(|info: ConnectInfo| async move {
        let slow = info.param("slow").is_some();
        tokio::time::sleep(Duration::from_secs(if slow { 5 } else { 0 })).await;
        Ok(())
    })
    .max_connecting(2)
    .check_origin(CheckOrigin::off())
    .channel::<Room>("room:*")
    .build();
    let connect = |path: &str, query: &str| {
        let uri = format!("/socket/{path}?vsn=2.0.0{query}");
        let request = Request::get(uri).body(Full::<bytes::Bytes>::default()).expect("a request");
        endpoint.service().oneshot(request)
    };
    let slow: Vec<_> = (0..2).map(|_| tokio::spawn(connect("longpoll", "&slow"))).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (path, body) in [("websocket", ""), ("longpoll", r#"{"status":500}"#)] {
        let Ok(response) = connect(path, "").await;
        assert_eq!(response.status(), 503, "{path}");
        assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), body);
    }
    slow[0].abort();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let Ok(response) = connect("longpoll", "").await;
    assert_eq!(response.status(), 200, "a client that goes away makes room");
}

/// A join that is replaced before it began is gone after the slice of messages that it came with.
#[tokio::test]
async fn many_joins_of_one_topic_leave_few_tasks_behind() {
    let endpoint = endpoint();
    let connected = call(endpoint.service(), request("GET", "", "")).await;
    let peak = Arc::new(AtomicUsize::new(0));
    let sampler = tokio::spawn({
        let peak = Arc::clone(&peak);
        async move {
            loop {
                let alive = Handle::current().metrics().num_alive_tasks();
                peak.fetch_max(alive, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    let join = |n: usize| format!("[\"{n}\",\"{n}\",\"room:a\",\"phx_join\",{{}}]\n");
    let mut post = request("POST", token(&connected), &(0..2000).map(join).collect::<String>());
    post.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    assert_eq!(call(endpoint.service(), post).await, r#"{"status":200}"#);
    sampler.abort();
    let peak = peak.load(Ordering::Relaxed);
    assert!(peak <= 80, "{peak} tasks at a time");
}

#[tokio::test]
async fn a_client_with_an_over_long_socket_id_is_rejected() {
    let endpoint = Endpoint::builder(|info: ConnectInfo| async move {
        Ok(info.param("id").unwrap_or_default().to_owned())
    })
    .id(|id: &String| Some(id.clone()))
    .channel::<Identified>("room:*")
    .build();
    for (size, status) in [(255, 410), (256, 403)] {
        let uri = format!("/socket/longpoll?vsn=2.0.0&id={}", "x".repeat(size));
        let request = Request::get(uri).body(Full::<bytes::Bytes>::default());
        let service = endpoint.service();
        let Ok(response) = service.oneshot(request.expect("a request")).await;
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let expected = format!(r#""status":{status}"#);
        assert!(String::from_utf8_lossy(&body).contains(&expected), "{size}: {body:?}");
    }
}

#[test]
fn the_parameters_of_a_connect_take_a_bounded_amount_of_memory() {
    let parameter = |name: usize, depth: usize| format!("{name}{}=1&", "[a]".repeat(depth));
    let nested = |depth| (0..256).map(|name| parameter(name, depth)).collect::<String>();
    for query in [
        nested(0),
        nested(1),
        nested(16),
        "a[]=&".repeat(256),
        (0..4).map(|name| parameter(name, 16)).collect::<String>() + &"x[]&".repeat(250),
        (0..64).map(|name| parameter(name, 1)).chain((0..192).map(|n| format!("x{n}&"))).collect(),
        format!("a={}", "x".repeat(16 * 1024 - 2)),
        format!("a={}", "%41".repeat(5 * 1024)),
    ] {
        let mut parsed = None;
        let used = measure(|| parsed = parse_query(&query).ok());
        let held = usize::try_from(used.bytes_current).expect("a size");
        assert!(held <= MAX_PARSED_QUERY, "{held} bytes of {}", query.len());
        assert!(
            used.bytes_max <= 2 * MAX_PARSED_QUERY as u64,
            "{} bytes meanwhile",
            used.bytes_max
        );
    }
}
