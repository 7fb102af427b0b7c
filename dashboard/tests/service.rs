//! The dashboard as a service: who may see it, and what a page is told.

use std::net::SocketAddr;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use serde_json::{Map, Value, json};
use tower::ServiceExt;
use tower_channels::channel::Result;
use tower_channels::{Channel, ConnectInfo, Endpoint, Joined, Payload, Socket, test};
use tower_channels_dashboard::{Access, Dashboard, Parts, has_password, is_local};

struct Room;

impl Channel for Room {
    type Assigns = String;
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }
}

/// An endpoint whose clients name themselves.
fn endpoint() -> Endpoint<String> {
    let connect = |info: ConnectInfo| {
        let user = info.param("user").unwrap_or_default().to_owned();
        async move { Ok(user) }
    };
    let id = |user: &String| Some(format!("user:{user}"));
    Endpoint::builder(connect).id(id).channel::<Room>("room:*").build()
}

fn open(endpoint: &Endpoint<String>, access: Access) -> Dashboard {
    Dashboard::new(endpoint).authorize(move |_| async move { access })
}

async fn call(dashboard: &Dashboard, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
    let response = dashboard.clone().oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(Body::new(body), usize::MAX).await.expect("a body");
    (parts.status, parts.headers, String::from_utf8(body.into()).expect("text"))
}

async fn get(dashboard: &Dashboard, uri: &str) -> (StatusCode, HeaderMap, String) {
    call(dashboard, Request::get(uri).body(Body::empty()).expect("a request")).await
}

/// A page that has connected, over long poll.
struct Page {
    dashboard: Dashboard,
    token: String,
    last_ref: u32,
    waiting: Vec<Value>,
}

impl Page {
    /// Connects and joins the channel of the dashboard. Returns its reply, too.
    async fn open(dashboard: &Dashboard) -> (Self, Value) {
        let (status, _, body) = get(dashboard, "/longpoll?vsn=2.0.0").await;
        assert_eq!(status, StatusCode::OK);
        let first: Value = serde_json::from_str(&body).expect("JSON");
        let token = first["token"].as_str().expect("a token").to_owned();
        let mut page =
            Self { dashboard: dashboard.clone(), token, last_ref: 0, waiting: Vec::new() };
        let reply = page.send("dashboard", "phx_join", json!({})).await;
        (page, reply)
    }

    /// Sends a message and returns the payload of its reply.
    async fn send(&mut self, topic: &str, event: &str, payload: Value) -> Value {
        self.last_ref += 1;
        let reference = self.last_ref.to_string();
        let join_ref = (event == "phx_join").then(|| reference.clone());
        let message = json!([join_ref, reference, topic, event, payload]).to_string();
        let request = Request::post(format!("/longpoll?vsn=2.0.0&token={}", self.token))
            .header(header::CONTENT_TYPE, "application/x-ndjson")
            .body(Body::from(message));
        let (status, _, body) = call(&self.dashboard, request.expect("a request")).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        self.next(|message| message[1] == *reference).await[4].clone()
    }

    async fn ask(&mut self, event: &str, payload: Value) -> Value {
        self.send("dashboard", event, payload).await
    }

    /// Returns the payload of the next message with this event.
    async fn event(&mut self, event: &str) -> Value {
        self.next(|message| message[3] == event).await[4].clone()
    }

    async fn next(&mut self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            if let Some(index) = self.waiting.iter().position(&is_wanted) {
                return self.waiting.remove(index);
            }
            let poll = format!("/longpoll?vsn=2.0.0&token={}", self.token);
            let (_, _, body) = get(&self.dashboard, &poll).await;
            let response: Value = serde_json::from_str(&body).expect("JSON");
            self.token = response["token"].as_str().expect("a token").to_owned();
            let messages = response["messages"].as_array().expect("messages");
            let texts = messages.iter().filter_map(Value::as_str);
            self.waiting.extend(texts.map(|text| serde_json::from_str(text).expect("JSON")));
        }
    }
}

#[tokio::test]
async fn nobody_is_let_in_until_somebody_decides_who() {
    let dashboard = Dashboard::new(&endpoint());
    for uri in ["/", "/?dashboard.js", "/longpoll?vsn=2.0.0", "/websocket?vsn=2.0.0"] {
        let (status, _, body) = get(&dashboard, uri).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{uri}");
        assert!(body.contains("Dashboard::authorize"), "{body}");
    }
}

#[tokio::test]
async fn whom_the_closure_refuses_gets_403_or_is_asked_for_a_password() {
    let endpoint = endpoint();
    for (access, expected) in [
        (Access::NONE, StatusCode::FORBIDDEN),
        (Access::NONE.with_payloads().with_disconnects(), StatusCode::FORBIDDEN),
        (Access::LOGIN, StatusCode::UNAUTHORIZED),
    ] {
        for uri in ["/", "/?dashboard.js", "/longpoll?vsn=2.0.0"] {
            let (status, headers, body) = get(&open(&endpoint, access), uri).await;
            assert_eq!(status, expected, "{uri}");
            assert!(!body.contains('<'), "{body}");
            let asks = headers.contains_key(header::WWW_AUTHENTICATE);
            assert_eq!(asks, access == Access::LOGIN);
        }
    }
}

#[tokio::test]
async fn a_password_and_a_local_peer_decide_by_the_head_of_the_request() {
    let dashboard = Dashboard::new(&endpoint()).authorize(|request: Parts| async move {
        let peer = request.extensions.get::<SocketAddr>();
        let is_local = peer.is_some_and(|peer| is_local(&request, *peer));
        if is_local || has_password(&request, "opensesame") { Access::VIEW } else { Access::LOGIN }
    });
    let status = |request: Request<Body>| {
        let dashboard = dashboard.clone();
        async move { call(&dashboard, request).await.0 }
    };
    let request = || Request::get("/").header(header::HOST, "localhost:4000");
    let peer = |address: &str| address.parse::<SocketAddr>().expect("an address");
    let local = request().extension(peer("127.0.0.1:1")).body(Body::empty()).unwrap();
    assert_eq!(status(local).await, StatusCode::OK);
    let remote = request().extension(peer("10.0.0.1:1")).body(Body::empty()).unwrap();
    assert_eq!(status(remote).await, StatusCode::UNAUTHORIZED);
    // admin:opensesame
    let password = request().header(header::AUTHORIZATION, "Basic YWRtaW46b3BlbnNlc2FtZQ==");
    assert_eq!(status(password.body(Body::empty()).unwrap()).await, StatusCode::OK);
}

#[tokio::test]
async fn the_page_and_its_files_are_served_under_a_strict_policy_wherever_it_is_mounted() {
    let dashboard = open(&endpoint(), Access::VIEW);
    let (status, headers, page) = get(&dashboard, "/somewhere/below?").await;
    assert_eq!(status, StatusCode::OK);
    let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(headers[header::CACHE_CONTROL], "no-store");
    assert!(!page.contains("http:") && !page.contains("https:"), "no external address");
    for file in ["?dashboard.js", "?dashboard.css", "?icon.svg", "below/client/socket.js"] {
        let (_, headers, content) = get(&dashboard, &format!("/{file}")).await;
        let kind = headers[header::CONTENT_TYPE].to_str().unwrap();
        assert!(!kind.starts_with("text/html") && content.len() > 100, "{file}: {kind}");
    }
    let head = Request::head("/").body(Body::empty()).unwrap();
    assert_eq!(call(&dashboard, head).await.2, "");
    let post = Request::post("/").body(Body::empty()).unwrap();
    assert_eq!(call(&dashboard, post).await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn a_page_of_another_site_cannot_connect() {
    let dashboard = open(&endpoint(), Access::ALL);
    let request = Request::get("/longpoll?vsn=2.0.0")
        .header(header::HOST, "app.example")
        .header(header::ORIGIN, "https://evil.example");
    let (_, _, body) = call(&dashboard, request.body(Body::empty()).unwrap()).await;
    assert!(body.contains("403"), "{body}");
}

#[tokio::test]
async fn a_page_sees_sessions_and_topics_and_no_secrets() {
    let endpoint = endpoint();
    let dashboard = open(&endpoint, Access::VIEW);
    let params = [("user", "ann"), ("token", "a secret token")];
    let mut ann = test::connect(&endpoint, &params).await.unwrap();
    ann.join("room:1", json!({ "password": "another secret" })).await;
    let _present = endpoint.presence().track_task("room:1", "ann", json!({ "mood": "private" }));
    let (mut page, joined) = Page::open(&dashboard).await;
    assert_eq!(joined["response"]["disconnects"], false);

    let sessions = page.ask("sessions", json!({})).await;
    let row = &sessions["response"]["rows"][0];
    assert_eq!((&row["id"], &row["channels"]), (&json!("user:ann"), &json!(1)));
    assert_eq!((&row["state"], &row["transport"]), (&json!("connected"), &json!("memory")));
    let topics = page.ask("topics", json!({ "search": "ROOM" })).await;
    let row = &topics["response"]["rows"][0];
    assert_eq!((&row["topic"], &row["subscribers"]), (&json!("room:1"), &json!(1)));
    let topic = page.ask("topic", json!({ "topic": "room:1" })).await;
    assert_eq!(topic["response"]["keys"], json!([["ann", 1, []]]));
    for answer in [sessions, topics, topic] {
        let answer = answer.to_string();
        assert!(!answer.contains("secret") && !answer.contains("private"), "{answer}");
    }
    let none = page.ask("sessions", json!({ "search": "bob" })).await;
    assert_eq!(none["response"]["rows"], json!([]));
    assert_eq!(page.ask("topics", json!({ "search": 1 })).await["status"], "error");
}

#[tokio::test]
async fn clients_are_disconnected_by_those_who_may() {
    let endpoint = endpoint();
    let mut ann = test::connect(&endpoint, &[("user", "ann")]).await.unwrap();
    let (mut page, _) = Page::open(&open(&endpoint, Access::VIEW.with_payloads())).await;
    let refused = page.ask("disconnect", json!({ "id": "user:ann" })).await;
    assert_eq!(refused["status"], "error");
    assert!(endpoint.is_connected("user:ann"));
    let (mut page, _) = Page::open(&open(&endpoint, Access::VIEW.with_disconnects())).await;
    let answer = page.ask("disconnect", json!({ "id": "user:ann" })).await;
    assert_eq!(answer["response"]["sessions"], 1);
    ann.expect_closed().await;
}

#[tokio::test]
async fn the_broadcasts_of_a_topic_are_seen_and_their_content_by_those_who_may() {
    let endpoint = endpoint();
    for (access, content) in
        [(Access::VIEW, Value::Null), (Access::VIEW.with_payloads(), json!("{\"body\":\"hello\"}"))]
    {
        let (mut page, _) = Page::open(&open(&endpoint, access)).await;
        let joined = page.send("traffic", "phx_join", json!({ "topic": "room:1" })).await;
        assert_eq!(joined["status"], "ok");
        endpoint.broadcast("room:1", "new_msg", json!({ "body": "hello" }));
        endpoint.broadcast("room:2", "new_msg", json!({ "body": "elsewhere" }));
        let batch = page.event("messages").await;
        assert_eq!(batch["messages"].as_array().map(Vec::len), Some(1));
        let message = &batch["messages"][0];
        assert_eq!((&message["event"], &message["size"]), (&json!("new_msg"), &json!(16)));
        assert_eq!(message["payload"], content);

        (0..1000).for_each(|_| endpoint.broadcast("room:1", "many", json!({})));
        let batch = page.event("messages").await;
        assert_eq!(batch["messages"].as_array().map(Vec::len), Some(20));
        assert_eq!(batch["skipped"], 980);
        let (mut other, _) = Page::open(&page.dashboard).await;
        let refused = other.send("traffic", "phx_join", json!({ "topic": "" })).await;
        assert_eq!(refused["status"], "error");
        drop(page);
    }
}

#[tokio::test]
async fn samples_come_while_a_page_is_open() {
    let endpoint = endpoint();
    let (mut page, joined) = Page::open(&open(&endpoint, Access::VIEW)).await;
    assert_eq!(joined["response"]["samples"], json!([]));
    let status = page.event("status").await;
    assert_eq!(status["channels"], json!([["room:*", 0]]));
    endpoint.broadcast("room:1", "new_msg", json!({}));
    let sample = page.event("sample").await;
    assert!(sample["b"].as_f64().is_some_and(|rate| rate > 0.0), "{sample}");
}

/// On one thread, where a task that does not yield would keep all others from running.
#[tokio::test]
async fn a_hundred_thousand_sessions_are_shown_without_loading_them_all() {
    let endpoint = endpoint();
    let acceptor = endpoint.acceptor();
    let mut sessions = Vec::with_capacity(100_000);
    for number in 0..100_000 {
        let params = Map::from_iter([("user".to_owned(), json!(number.to_string()))]);
        let connected = acceptor.connect(ConnectInfo::in_memory(params)).await;
        sessions.push(connected.unwrap_or_else(|error| panic!("{number}: {error:?}")));
    }
    let (mut page, _) = Page::open(&open(&endpoint, Access::VIEW)).await;
    let turns = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let others = tokio::spawn({
        let turns = std::sync::Arc::clone(&turns);
        async move {
            loop {
                turns.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        }
    });
    let before = turns.load(std::sync::atomic::Ordering::Relaxed);
    let list = page.ask("sessions", json!({ "order": "queued" })).await;
    let turns_of_others = turns.load(std::sync::atomic::Ordering::Relaxed) - before;
    assert!(turns_of_others > 300, "others had {turns_of_others} turns meanwhile");
    others.abort();
    let list = &list["response"];
    assert_eq!((&list["total"], &list["found"]), (&json!(100_000), &json!(100_000)));
    assert_eq!(list["rows"].as_array().map(Vec::len), Some(100));

    let found = page.ask("sessions", json!({ "search": "user:99999", "order": "newest" })).await;
    assert_eq!(found["response"]["rows"].as_array().map(Vec::len), Some(1));
    let mut seen = 0;
    let mut from = json!(0);
    for _ in 0..3 {
        let part = page.ask("sessions", json!({ "from": from })).await;
        seen += part["response"]["rows"].as_array().map_or(0, Vec::len);
        from = part["response"]["next"].clone();
    }
    assert_eq!((seen, from), (300, json!(300)));
}
