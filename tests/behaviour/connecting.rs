//! What an application learns of a connecting client and what its decision does, over both transports.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use serde_json::{Value, json};
use tower_channels::channel::Result;
use tower_channels::{
    Builder, Channel, CheckOrigin, ConnectInfo, Endpoint, Joined, LongPollConfig, Payload,
    Rejected, Reply, Socket,
};

use crate::support::connection::ok;
use crate::support::longpoll::JSON;
use crate::support::raw_websocket::UPGRADE;
use crate::support::{
    Client, Connection, Http, LongPoll, Response, Server, Transport, Version, soon,
};

/// Replies with its assigns.
struct Room;

impl Channel for Room {
    type Assigns = Value;
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn handle_in(&mut self, _: &str, _: Payload, it: &Socket<Self>) -> Result<Reply> {
        Ok(Reply::ok(it.assigns().clone()))
    }
}

const TRANSPORTS: [Transport; 2] = [Transport::WebSocket, Transport::LongPoll];

async fn serve(endpoint: &Endpoint<Value>) -> Server {
    let app = axum::Router::new().layer(endpoint.layer("/socket"));
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    Server::running(|listener, _| async { axum::serve(listener, app).await }).await
}

/// An application whose channels reply with what `learn` says of their client.
async fn learning(learn: fn(&ConnectInfo) -> Value) -> Server {
    let endpoint = Endpoint::builder(move |info| async move { Ok(learn(&info)) });
    serve(&endpoint.channel::<Room>("room:*").build()).await
}

/// An application that rejects every client.
fn rejecting(rejected: fn() -> Rejected) -> Builder<Value> {
    Endpoint::builder(move |_| async move { Err(rejected()) }).channel::<Room>("room:*")
}

/// Asks what the application has learned of a client with these parameters.
async fn learned(server: &Server, transport: Transport, parameters: &str) -> Value {
    let mut client = Client::connect(server, transport, Version::V2, parameters).await;
    client.send(r#"["1","1","room:a","phx_join",{}]"#).await;
    client.recv().await;
    client.send(r#"["1","2","room:a","info",{}]"#).await;
    let reply: Value = serde_json::from_str(&client.recv().await).expect("JSON");
    reply[4]["response"].clone()
}

/// Connects to both transports with these headers, and returns their responses.
async fn ask(server: &Server, headers: &[(&str, &str)]) -> (Response, Response) {
    let upgrade = [&UPGRADE, headers].concat();
    let mut http = Http::connect(server).await;
    let websocket = http.request("GET", "/socket/websocket?vsn=2.0.0", &upgrade, b"").await;
    let mut http = Http::connect(server).await;
    let long_poll = http.request("GET", "/socket/longpoll?vsn=2.0.0", headers, b"").await;
    (websocket, long_poll)
}

/// Asserts the HTTP statuses of both transports, the status in the body of a poll, and `Retry-After`.
async fn assert_refused(server: &Server, websocket: u16, polled: (u16, u16), retry: Option<&str>) {
    let (upgrade, poll) = ask(server, &[]).await;
    assert_eq!((upgrade.status, &*upgrade.body), (websocket, ""), "{upgrade:?}");
    assert_eq!((poll.status, poll.json()), (polled.0, json!({ "status": polled.1 })), "{poll:?}");
    for response in [upgrade, poll] {
        assert_eq!(response.header("retry-after"), retry, "{response:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parameter_of_the_applications_own_may_be_called_token() {
    let server = learning(|info| json!([info.param("token"), info.uri().query()])).await;
    for transport in TRANSPORTS {
        for (parameters, token, query) in [
            ("token=a.b.c", json!("a.b.c"), "vsn=2.0.0&token=a.b.c"),
            (
                "token=SFMyNTY.g3Q.x&a=1",
                json!("SFMyNTY.g3Q.x"),
                "vsn=2.0.0&token=SFMyNTY.g3Q.x&a=1",
            ),
            // A token of 24 hexadecimal digits, the last two of which are decimal.
            ("token=0123456789abcdefabcdef42", json!("0123456789abcdefabcdef42"), ""),
        ] {
            let got = learned(&server, transport, parameters).await;
            assert_eq!(got[0], token, "{transport:?}");
            assert!(
                got[1].as_str().is_some_and(|it| it.starts_with(query)),
                "{transport:?}: {got}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_in_place_of_the_transports_token_hides_no_parameter_and_is_none() {
    let server = learning(|info| json!([info.param("token"), info.uri().query()])).await;
    for (parameters, token, query) in [
        ("token=jwt&token=null", json!("jwt"), "vsn=2.0.0&token=jwt"),
        ("token=undefined", json!(null), "vsn=2.0.0"),
        ("token=", json!(null), "vsn=2.0.0"),
    ] {
        let got = learned(&server, Transport::LongPoll, parameters).await;
        assert_eq!(got, json!([token, query]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_cookies_and_the_address_reach_connect() {
    let endpoint = Endpoint::builder(|info: ConnectInfo| async move {
        let is_local = info.peer_addr().is_some_and(|peer| peer.ip().is_loopback());
        let token = info.headers().keys().find(|name| name.as_str().contains("longpoll"));
        let learned = (info.header("X-Mine"), info.cookie("session"), is_local, token);
        Err(match learned {
            (Some("yes"), Some(cookie), true, None) if cookie == "a=b" => {
                Rejected::status(StatusCode::IM_A_TEAPOT)
            }
            other => Rejected::reason(format!("{other:?}")),
        })
    });
    let server = serve(&endpoint.channel::<Room>("room:*").build()).await;
    let headers = [
        ("x-mine", "yes"),
        ("Cookie", "theme=dark; session=a%3Db"),
        ("X-Phoenix-LongPoll-Token", "null"),
    ];
    let (websocket, _) = ask(&server, &headers[..2]).await;
    assert_eq!(websocket.status, 418);
    let mut http = Http::connect(&server).await;
    let poll = http.request("GET", "/socket/longpoll?vsn=2.0.0", &headers, b"").await;
    assert_eq!(poll.json(), json!({ "status": 403 }));
}

/// A refusal, the HTTP status of an upgrade, those of a poll and in its body, and `Retry-After`.
type Case = (fn(&str) -> Rejected, u16, (u16, u16), Option<&'static str>);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejection_has_its_own_status_and_one_that_phoenix_js_knows() {
    let cases: [Case; 6] = [
        (|text| Rejected::reason(text), 403, (200, 403), None),
        (|_| Rejected::status(StatusCode::UNAUTHORIZED), 401, (200, 403), None),
        (|_| Rejected::status(StatusCode::INTERNAL_SERVER_ERROR), 500, (200, 500), None),
        (|_| Rejected::status(StatusCode::SERVICE_UNAVAILABLE), 503, (503, 500), Some("5")),
        (
            |_| {
                let limited = Rejected::status(StatusCode::TOO_MANY_REQUESTS);
                limited.with_retry_after(Duration::from_secs(60))
            },
            429,
            (200, 500),
            Some("60"),
        ),
        (|error| error.to_owned().into(), 500, (200, 500), None),
    ];
    for (rejected, websocket, polled, retry) in cases {
        let connect = move |_| async move { Err(rejected("secret")) };
        let endpoint = Endpoint::builder(connect).channel::<Room>("room:*").build();
        assert_refused(&serve(&endpoint).await, websocket, polled, retry).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_that_takes_too_long_makes_the_server_unavailable() {
    let endpoint = Endpoint::builder(async |_| std::future::pending().await)
        .channel::<Room>("room:*")
        .connect_timeout(Duration::from_millis(50))
        .build();
    assert_refused(&serve(&endpoint).await, 503, (503, 500), Some("5")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_full_or_shuts_down_is_unavailable() {
    let builder = Endpoint::builder(async |_| Ok(json!(null))).channel::<Room>("room:*");
    let endpoint = builder.max_sessions(1).build();
    let server = serve(&endpoint).await;
    let mut first = Client::connect(&server, Transport::WebSocket, Version::V2, "").await;
    first.heartbeat().await;
    assert_refused(&server, 503, (503, 500), Some("5")).await;
    drop(first);
    assert!(soon(endpoint.shutdown(Duration::from_secs(5))).await);
    assert_refused(&server, 503, (503, 500), Some("5")).await;
}

/// An application whose clients may stay for two seconds, or for longer if they ask for it.
async fn expiring() -> Server {
    let connect = async |info: ConnectInfo| {
        Ok(json!([info.param("user_id"), info.param("longer").is_some()]))
    };
    let expires = |user: &Value| {
        let seconds = if user[1] == true { 600 } else { 2 };
        Some(SystemTime::now() + Duration::from_secs(seconds))
    };
    // Only the end of the stay answers a poll.
    let poll = LongPollConfig::new().poll_timeout(Duration::from_secs(60));
    let builder = Endpoint::builder(connect).id(|user| user[0].as_str().map(str::to_owned));
    serve(&builder.expires(expires).channel::<Room>("room:*").long_poll(poll).build()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_whose_client_expires_closes_with_1012() {
    let server = expiring().await;
    let mut socket = crate::support::RawWebSocket::open(&server, "vsn=2.0.0").await;
    socket.expect_close(1012).await;
    crate::support::RawWebSocket::open(&server, "vsn=2.0.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_whose_client_expires_is_told_to_connect_anew() {
    let server = expiring().await;
    for session in ["", "&user_id=ann&session=0123456789abcdefghij"] {
        let mut client = LongPoll::open(&server, &format!("vsn=2.0.0{session}")).await;
        let response = client.poll().await;
        assert_eq!((&response["status"], &response["messages"]), (&json!(204), &json!([])));
        let posted = client.post(JSON, r#"[null,"1","phoenix","heartbeat",{}]"#).await;
        assert_eq!(posted, json!({ "status": 500 }));
        client.expect_gone().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_client_resumes_its_session_over_any_transport() {
    let server = expiring().await;
    let parameters = "user_id=ann&session=0123456789abcdefghij";
    let mut conn = Connection::open(&server, Transport::WebSocket, parameters).await;
    conn.begin_join("1", "room:a").await;
    conn.expect(&ok("1", "room:a")).await;
    conn.pong().await;
    conn.websocket().expect_close(1012).await;
    let longer = format!("{parameters}&longer=");
    let mut conn = Connection::open(&server, Transport::LongPoll, &longer).await;
    conn.rejoin("2", "room:a").await;
    conn.send(r#"["2","3","room:a","info",{}]"#).await;
    let first = r#"[null,"3","room:a","phx_reply",{"status":"ok","response":["ann",false]}]"#;
    conn.expect(first).await;
}

/// `Access-Control-Allow-Origin` and `…-Private-Network` of a preflight for a private network, and the
/// former of a connect.
async fn cors(config: LongPollConfig) -> (u16, [Option<String>; 3]) {
    let builder = Endpoint::builder(async |_| Ok(json!(null))).channel::<Room>("room:*");
    let server = serve(&builder.long_poll(config).build()).await;
    let mut http = Http::connect(&server).await;
    let asks = [("Access-Control-Request-Private-Network", "true")];
    let preflight = http.request("OPTIONS", "/socket/longpoll", &asks, b"").await;
    let connect = http.get("/socket/longpoll?vsn=2.0.0").await;
    assert_eq!(connect.json()["status"], 410);
    let header = |response: &Response, name| response.header(name).map(str::to_owned);
    let allowed = [
        header(&preflight, "access-control-allow-origin"),
        header(&preflight, "access-control-allow-private-network"),
        header(&connect, "access-control-allow-origin"),
    ];
    (preflight.status, allowed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cors_and_private_networks_are_switches() {
    let (any, yes) = (Some("*".to_owned()), Some("true".to_owned()));
    let on = LongPollConfig::new();
    assert_eq!(cors(on.clone()).await, (200, [any.clone(), None, any.clone()]));
    let private = on.clone().private_network(true);
    assert_eq!(cors(private.clone()).await, (200, [any.clone(), yes, any]));
    assert_eq!(cors(private.cors(false)).await, (400, [None, None, None]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_without_an_origin_of_their_own_may_be_allowed() {
    let check = CheckOrigin::default().allow_null().allow_file();
    let rejected = || Rejected::status(StatusCode::IM_A_TEAPOT);
    let server = serve(&rejecting(rejected).check_origin(check).build()).await;
    let strict = serve(&rejecting(rejected).build()).await;
    for origin in ["null", "file://"] {
        let (websocket, _) = ask(&server, &[("Origin", origin)]).await;
        assert_eq!(websocket.status, 418, "connect is asked");
        let (websocket, _) = ask(&strict, &[("Origin", origin)]).await;
        assert_eq!(websocket.status, 403, "{origin}");
    }
}
