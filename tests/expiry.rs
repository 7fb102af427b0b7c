//! How long clients may stay, and what a client that comes back with a fresh token changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use serde_json::json;
use tower::ServiceExt;
use tower_channels::channel::Result;
use tower_channels::test::{Client, client, connect_as};
use tower_channels::{
    Builder, Channel, Close, ConnectInfo, Endpoint, Joined, Payload, Rejected, Reply, ResumeConfig,
    Socket,
};

/// What a token says: the role of its user, and when it expires.
struct User {
    role: Mutex<String>,
    expires: Option<SystemTime>,
}

impl User {
    /// The parameters `role` and `seconds`, for which the token is valid.
    async fn from_token(info: ConnectInfo) -> Result<Self, Rejected> {
        let seconds = info.param("seconds").map(str::parse).transpose()?;
        let expires = seconds.map(|seconds| SystemTime::now() + Duration::from_secs(seconds));
        let role = info.param("role").unwrap_or("guest").to_owned();
        Ok(Self { role: role.into(), expires })
    }
}

/// Replies with the role of its user.
struct Room;

fn role(socket: &Socket<Room>) -> serde_json::Value {
    json!(*socket.assigns().role.lock())
}

impl Channel for Room {
    type Assigns = User;
    type Info = ();

    async fn join(_: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Joined::new(Self).reply(json!({ "joined": role(socket) })))
    }

    async fn resume(&mut self, _: Payload, socket: &Socket<Self>) -> Result<Option<Payload>> {
        Ok(Some(json!({ "resumed": role(socket) }).into()))
    }

    async fn handle_in(&mut self, _: &str, _: Payload, socket: &Socket<Self>) -> Result<Reply> {
        Ok(Reply::ok(role(socket)))
    }
}

fn builder() -> Builder<User> {
    Endpoint::builder(User::from_token)
        .id(|_| Some("ann".to_owned()))
        .expires(|user| user.expires)
        .channel::<Room>("room:*")
}

fn refreshing() -> Builder<User> {
    builder().refresh(|user, fresh| *user.role.lock() = fresh.role.into_inner())
}

const SESSION: &str = "0123456789abcdefghij";

/// Connects with a token that is valid for so many seconds.
async fn connect(
    endpoint: &Endpoint<User>,
    role: &str,
    seconds: u64,
) -> Result<Client<User>, Rejected> {
    let token = client(endpoint).param("role", role).param("seconds", seconds.to_string());
    token.connect().await
}

/// Connects to the session with such a token.
async fn connect_to_session(endpoint: &Endpoint<User>, role: &str, seconds: u64) -> Client<User> {
    let token = client(endpoint).param("role", role).param("seconds", seconds.to_string());
    token.param("session", SESSION).connect().await.expect("accepted")
}

async fn pass(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

async fn join(client: &mut Client<User>) -> Reply {
    client.join("room:1", json!({})).await
}

#[tokio::test(start_paused = true)]
async fn a_client_is_asked_to_come_back_when_its_time_is_over_and_not_before() {
    let endpoint = builder().build();
    let mut ann = connect(&endpoint, "guest", 60).await.expect("accepted");
    join(&mut ann).await;
    pass(58).await;
    assert_eq!(ann.push("room:1", "role", json!({})).await, Reply::ok(json!("guest")));
    let before = tokio::time::Instant::now();
    ann.timeout(Duration::from_secs(10));
    assert_eq!(ann.expect_closed().await, Close::Restart);
    assert!(before.elapsed() <= Duration::from_secs(3));
    pass(1).await;
    assert_eq!(endpoint.sessions().total(), 0, "a plain session ends with its connection");
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_time_stays() {
    let endpoint = builder().build();
    let mut ann = client(&endpoint).connect().await.expect("accepted");
    join(&mut ann).await;
    pass(1_000_000).await;
    assert_eq!(ann.push("room:1", "role", json!({})).await, Reply::ok(json!("guest")));
}

#[tokio::test(start_paused = true)]
async fn a_client_whose_time_is_over_already_is_rejected() {
    let refused = connect(&builder().build(), "guest", 0).await.expect_err("too late");
    assert_eq!(refused.status_code(), 403);
}

#[tokio::test(start_paused = true)]
async fn a_session_goes_on_when_its_client_comes_back_with_a_fresh_token() {
    let endpoint = refreshing().build();
    let mut ann = connect_to_session(&endpoint, "guest", 60).await;
    assert_eq!(join(&mut ann).await, Reply::ok(json!({ "joined": "guest" })));
    ann.timeout(Duration::from_secs(100));
    assert_eq!(ann.expect_closed().await, Close::Restart);
    endpoint.broadcast("room:1", "said", json!("meanwhile"));
    pass(5).await;
    assert_eq!(endpoint.sessions().detached, 1);

    let mut ann = connect_to_session(&endpoint, "admin", 60).await;
    assert_eq!(join(&mut ann).await, Reply::ok(json!({ "resumed": "admin" })));
    assert_eq!(ann.next_push().await, ("said".into(), json!("meanwhile").into()));
    assert_eq!(ann.push("room:1", "role", json!({})).await, Reply::ok(json!("admin")));
    ann.timeout(Duration::from_secs(100));
    assert_eq!(ann.expect_closed().await, Close::Restart, "and so on");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_earlier_stays_as_long_as_its_newest_token_allows() {
    let endpoint = builder().build();
    let mut ann = connect_to_session(&endpoint, "guest", 60).await;
    join(&mut ann).await;
    pass(50).await;
    ann.drop_connection();
    let mut ann = connect_to_session(&endpoint, "guest", 60).await;
    join(&mut ann).await;
    pass(55).await;
    assert_eq!(ann.push("room:1", "role", json!({})).await, Reply::ok(json!("guest")));
    pass(10).await;
    assert_eq!(ann.expect_closed().await, Close::Restart);
}

/// Sends a request over long poll, and returns the answer.
async fn request(
    endpoint: &Endpoint<User>,
    method: Method,
    query: &str,
    body: &'static str,
) -> serde_json::Value {
    let uri = format!("/longpoll?vsn=2.0.0&{query}");
    let request = Request::builder().method(method).uri(uri).body(Full::new(Bytes::from(body)));
    let response = endpoint.long_poll().oneshot(request.unwrap()).await.unwrap();
    let answer = response.into_body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&answer).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_expires_before_its_first_use_resumes_nothing() {
    let endpoint = refreshing().build();
    let mut ann = connect_to_session(&endpoint, "admin", 60).await;
    join(&mut ann).await;
    let query = format!("session={SESSION}&role=guest&seconds=2");
    let connected = request(&endpoint, Method::GET, &query, "").await;
    pass(3).await;
    let query = format!("token={}", connected["token"].as_str().unwrap());
    let join = r#"["2","2","room:1","phx_join",{}]"#;
    let answer = request(&endpoint, Method::POST, &query, join).await;
    assert_ne!(answer["status"], 200);
    let reply = ann.push("room:1", "role", json!({})).await;
    assert_eq!(reply, Reply::ok(json!("admin")), "its connection and its assigns are untouched");
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_client_stays_away_ends_as_any_detached_one() {
    let config = ResumeConfig::new().session_ttl(Duration::from_secs(40));
    let endpoint = builder().resume(config).build();
    // One that expires with its client, and one whose client is away by then.
    let mut ann = connect_to_session(&endpoint, "guest", 60).await;
    let mut bob = client(&endpoint)
        .param("session", "another-session-id-x")
        .param("seconds", "60")
        .connect()
        .await
        .expect("accepted");
    join(&mut ann).await;
    join(&mut bob).await;
    pass(30).await;
    bob.drop_connection();
    pass(35).await;
    assert_eq!(ann.expect_closed().await, Close::Restart);
    assert_eq!(endpoint.sessions().detached, 2);
    pass(50).await;
    assert_eq!(endpoint.sessions().total(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_refresh_channels_keep_the_assigns_of_the_first_connect() {
    let endpoint = builder().build();
    let mut ann = connect_to_session(&endpoint, "guest", 60).await;
    join(&mut ann).await;
    ann.drop_connection();
    let mut ann = connect_to_session(&endpoint, "admin", 60).await;
    assert_eq!(join(&mut ann).await, Reply::ok(json!({ "resumed": "guest" })));
}

#[tokio::test(start_paused = true)]
async fn only_a_connect_that_resumes_the_session_refreshes_it() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let refresh = move |_: &User, _: User| _ = counted.fetch_add(1, Ordering::Relaxed);
    let endpoint = builder().refresh(refresh).build();
    let mut ann = connect_to_session(&endpoint, "guest", 60).await;
    join(&mut ann).await;
    connect(&endpoint, "guest", 60).await.expect("accepted");
    connect(&endpoint, "guest", 0).await.expect_err("too late");
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    connect_to_session(&endpoint, "guest", 60).await;
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn given_assigns_expire_as_those_of_a_connect() {
    let expires = Some(SystemTime::now() + Duration::from_secs(60));
    let user = User { role: Mutex::new("guest".into()), expires };
    let mut ann = connect_as(&builder().build(), user).await;
    ann.timeout(Duration::from_secs(100));
    assert_eq!(ann.expect_closed().await, Close::Restart);
}
