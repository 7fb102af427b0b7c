//! How an endpoint is mounted, without a network: requests go to its services as they are.

use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::time::Instant;
use tower::ServiceExt;
use tower_channels::{Channel, Endpoint, JoinError, Joined, Payload, Service, Socket};

struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>, JoinError> {
        Ok(Self.into())
    }
}

fn endpoint() -> Endpoint<()> {
    Endpoint::builder(|_| async { Ok(()) }).channel::<Room>("room:*").build()
}

async fn ask(service: Service<()>, request: Request<String>) -> String {
    let answer = service.oneshot(request.map(Full::<bytes::Bytes>::from)).await;
    let Ok(answer) = answer;
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8(body.to_vec()).expect("text")
}

fn request(method: &str, token: &str, body: &str) -> Request<String> {
    let uri = format!("/socket/longpoll?vsn=2.0.0&token={token}");
    Request::builder().method(method).uri(uri).body(body.to_owned()).expect("a request")
}

fn token(answer: &str) -> &str {
    let (_, token) = answer.split_once(r#""token":""#).expect("a token");
    token.trim_end_matches(['"', '}'])
}

/// As a server does that makes a service for each connection: a client's next poll may come over
/// another one.
#[tokio::test(start_paused = true)]
async fn a_long_poll_session_is_known_to_every_service_of_its_endpoint() {
    let endpoint = endpoint();
    let connected = ask(endpoint.service("/socket"), request("GET", "", "")).await;
    assert!(connected.contains(r#""status":410"#), "{connected}");
    let join = request("POST", token(&connected), r#"["1","1","room:a","phx_join",{}]"#);
    assert_eq!(ask(endpoint.service("/socket"), join).await, r#"{"status":200}"#);
    let poll = request("GET", token(&connected), "");
    let polled = ask(endpoint.service("/socket"), poll).await;
    assert!(polled.contains("phx_reply") && polled.contains(r#""status":200"#), "{polled}");
}

#[tokio::test(start_paused = true)]
async fn a_client_returns_to_its_session_where_there_is_no_place_for_another() {
    let builder = Endpoint::builder(|_| async { Ok(()) }).id(|()| Some("user:1".into()));
    let endpoint = builder.channel::<Room>("room:*").max_sessions(1).build();
    for (session, status) in [("a", 410), ("a", 410), ("b", 403), ("a", 410)] {
        let uri = format!("/socket/longpoll?vsn=2.0.0&session={}", session.repeat(30));
        let connect = Request::get(uri).body(String::new()).expect("a request");
        let answer = ask(endpoint.service("/socket"), connect).await;
        assert!(answer.contains(&format!(r#""status":{status}"#)), "{session}: {answer}");
        assert_eq!(endpoint.sessions().total(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_as_soon_as_the_last_long_poll_client_knows() {
    let endpoint = endpoint();
    let service = endpoint.service("/socket");
    let connected = ask(service.clone(), request("GET", "", "")).await;
    let heartbeat = request("POST", token(&connected), r#"[null,"1","phoenix","heartbeat",{}]"#);
    ask(service.clone(), heartbeat).await;
    let answered = ask(service.clone(), request("GET", token(&connected), "")).await;
    let began = Instant::now();
    let drain = tokio::spawn(async move { endpoint.shutdown(Duration::from_secs(60)).await });
    tokio::task::yield_now().await;
    // What was answered before is not acknowledged: it may have been lost.
    let repeated = ask(service.clone(), request("GET", token(&connected), "")).await;
    assert_eq!(repeated, answered);
    let refused = ask(service, request("GET", token(&answered), "")).await;
    assert_eq!(refused, r#"{"status":403}"#);
    assert!(drain.await.expect("no panic"));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}
