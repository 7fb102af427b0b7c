//! How an endpoint is mounted, without a network: requests go to its services as they are.

use http::Request;
use http_body_util::{BodyExt, Full};
use tower::ServiceExt;
use tower_channels::transports::{NotFound, SocketService};
use tower_channels::{Channel, Connect, Endpoint, Joined, Payload, Refused, Socket};

struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>, Refused> {
        Ok(Self.into())
    }
}

fn endpoint() -> Endpoint<()> {
    Endpoint::builder(|_| async { Ok(()) }).channel::<Room>("room:*").build()
}

async fn ask(service: SocketService<Connect<()>, NotFound>, request: Request<String>) -> String {
    let answer = service.oneshot(request.map(Full::<bytes::Bytes>::from)).await;
    let Ok(answer) = answer;
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

/// As a server does that makes a service for each connection: a client's next poll may come over
/// another one.
#[tokio::test(start_paused = true)]
async fn a_long_poll_session_is_known_to_every_service_of_its_endpoint() {
    let endpoint = endpoint();
    let connect = Request::get("/socket/longpoll?vsn=2.0.0").body(String::new()).expect("valid");
    let connected = ask(endpoint.service("/socket"), connect).await;
    assert!(connected.contains(r#""status":410"#), "{connected}");
    let (_, token) = connected.split_once(r#""token":""#).expect("a token");
    let path = format!("/socket/longpoll?vsn=2.0.0&token={}", &token[..token.len() - 2]);
    let join = r#"["1","1","room:a","phx_join",{}]"#.to_owned();
    let posted = ask(endpoint.service("/socket"), Request::post(&path).body(join).expect("valid"));
    assert_eq!(posted.await, r#"{"status":200}"#);
    let poll = Request::get(&path).body(String::new()).expect("valid");
    let polled = ask(endpoint.service("/socket"), poll).await;
    assert!(polled.contains("phx_reply") && polled.contains(r#""status":200"#), "{polled}");
}
