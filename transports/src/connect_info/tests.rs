use http::request::Builder;

use super::*;

fn info(request: Builder, transport: Transport) -> ConnectInfo {
    let (parts, ()) = request.body(()).unwrap().into_parts();
    ConnectInfo::from_request_parts(&parts, transport).unwrap()
}

fn subprotocol(value: &str) -> Option<String> {
    let request = Request::builder().header(SEC_WEBSOCKET_PROTOCOL, value);
    info(request, Transport::WebSocket).auth_token().map(str::to_owned)
}

#[test]
fn the_accessors_return_the_parts_of_the_request() {
    let request = Request::builder()
        .uri("/socket/websocket?name=ann&tags[]=a")
        .header("user-agent", "test")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x-forwarded-for", "5.6.7.8")
        .header("traceparent", "00-1-2-00")
        .header("cookie", "secret")
        .extension(SocketAddr::from(([127, 0, 0, 1], 9)))
        .extension("from an outer layer");
    let info = info(request, Transport::WebSocket);
    assert_eq!(info.param("name"), Some("ann"));
    assert_eq!(info.param("tags"), None);
    assert_eq!(info.params()["tags"][0], "a");
    assert_eq!(info.uri().path(), "/socket/websocket");
    assert_eq!(info.user_agent(), Some("test"));
    let x_headers: Vec<_> = info.x_headers().map(|(_, value)| value.to_str().unwrap()).collect();
    assert_eq!(x_headers, ["1.2.3.4", "5.6.7.8"]);
    assert_eq!(info.trace_context_headers().count(), 1);
    assert_eq!(info.peer_addr(), Some(SocketAddr::from(([127, 0, 0, 1], 9))));
    assert_eq!(info.extensions().get(), Some(&"from an outer layer"));
}

#[test]
fn every_header_is_there_by_its_name_in_any_case() {
    let request = Request::builder()
        .header("Authorization", "Bearer x")
        .header("X-Phoenix-AuthToken", "t")
        .header("accept", "text/plain")
        .header("accept", "*/*")
        .header("x-bytes", b"\xff".as_slice());
    let info = info(request, Transport::LongPoll);
    assert_eq!(info.header("authorization"), Some("Bearer x"));
    assert_eq!(info.header("ACCEPT"), Some("text/plain"));
    assert_eq!(info.headers().get_all("accept").iter().count(), 2);
    assert_eq!(info.header("x-phoenix-authtoken"), Some("t"));
    for name in ["x-bytes", "x-none", "", "not a name"] {
        assert_eq!(info.header(name), None, "{name}");
    }
}

#[test]
fn a_header_that_is_marked_as_secret_stays_so() {
    let mut secret = HeaderValue::from_static("hunter2");
    secret.set_sensitive(true);
    let info = info(Request::builder().header("authorization", secret), Transport::LongPoll);
    assert!(info.headers()["authorization"].is_sensitive());
}

#[test]
fn a_cookie_is_found_in_any_list_and_decoded() {
    let request = Request::builder()
        .header("cookie", "a=1; session=x%2By%3D%3D;b=\"q\"; raw=100%; A=2;  c = 3 ;flag; a=4")
        .header("cookie", b"bytes=\xff; d=\xc3\xa9; bad=%ff; e=f=g; =nameless; empty=".as_slice());
    let info = info(request, Transport::WebSocket);
    for (name, value) in [
        ("a", "1"),
        ("A", "2"),
        ("session", "x+y=="),
        ("b", "\"q\""),
        ("raw", "100%"),
        ("c", "3"),
        ("d", "é"),
        ("bad", "%ff"),
        ("e", "f=g"),
        ("empty", ""),
    ] {
        assert_eq!(info.cookie(name).as_deref(), Some(value), "{name}");
    }
    for name in ["flag", "none", "session=", "bytes"] {
        assert_eq!(info.cookie(name), None, "{name}");
    }
}

#[cfg(feature = "axum")]
#[test]
fn the_address_that_axum_sets_is_that_of_the_client() {
    use axum::extract::connect_info::{ConnectInfo, MockConnectInfo};
    let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let peer = |request: Builder| info(request, Transport::WebSocket).peer_addr();
    let axum = || Request::builder().extension(ConnectInfo(address(1)));
    assert_eq!(peer(axum()), Some(address(1)));
    assert_eq!(peer(axum().extension(address(2))), Some(address(2)), "an outer layer knows better");
    let mocked = Request::builder().extension(MockConnectInfo(address(3)));
    assert_eq!(peer(mocked), Some(address(3)));
    assert_eq!(peer(Request::builder()), None);
}

#[test]
fn debug_prints_no_secrets() {
    let request = Request::builder()
        .uri("/socket/longpoll?password=hunter2")
        .header(AUTH_TOKEN, "hunter3")
        .header("x-secret", "hunter4");
    let shown = format!("{:?}", info(request, Transport::LongPoll));
    assert!(shown.contains("/socket/longpoll") && !shown.contains("hunter"), "{shown}");
}

#[test]
fn a_long_poll_carries_the_auth_token_in_a_header() {
    let request = || Request::builder().header("X-Phoenix-AuthToken", "s3cret");
    let long_poll = info(request(), Transport::LongPoll);
    assert_eq!(long_poll.auth_token(), Some("s3cret"));
    assert_eq!(long_poll.x_headers().count(), 0);
    assert_eq!(info(request(), Transport::WebSocket).auth_token(), None);
}

#[test]
fn a_custom_transport_reads_the_request_as_long_poll_does() {
    let request = Request::builder().uri("/sse?name=ann").header("X-Phoenix-AuthToken", "t");
    let info = info(request, Transport::Other("sse"));
    assert_eq!((info.param("name"), info.auth_token()), (Some("ann"), Some("t")));
    assert_eq!(info.transport().name(), "sse");
}

#[test]
fn a_session_id_has_20_to_64_characters_of_the_url_alphabet() {
    let session = |query: &str| {
        let info = info(Request::builder().uri(format!("/?{query}")), Transport::LongPoll);
        info.session().map(|id| id.map(str::to_owned))
    };
    for id in ["a".repeat(20), "V1StGXR8_Z5jdHi6B-myT".to_owned(), "Z9_-".repeat(16)] {
        assert_eq!(session(&format!("session={id}")), Ok(Some(id)));
    }
    assert_eq!(session("name=ann"), Ok(None));
    for (id, expected) in [
        (String::new(), "20 to 64"),
        ("a".repeat(19), "20 to 64"),
        ("a".repeat(65), "20 to 64"),
        (format!("{}.", "a".repeat(20)), "letters and digits"),
        ("é".repeat(20), "letters and digits"),
    ] {
        let error = session(&format!("session={id}")).expect_err(&id);
        assert!(error.contains(expected), "{id}: {error}");
    }
    assert!(session("session[]=aaaaaaaaaaaaaaaaaaaa").is_err());
}

#[test]
fn a_websocket_carries_the_auth_token_as_a_subprotocol() {
    for encoded in ["MTIzNA", "MTIzNA=="] {
        let value = format!("phoenix, base64url.bearer.phx.{encoded}");
        assert_eq!(subprotocol(&value).as_deref(), Some("1234"));
    }
}

#[test]
fn both_base64_alphabets_are_decoded() {
    for encoded in ["fn5+Pz8/", "fn5-Pz8_"] {
        let value = format!("base64url.bearer.phx.{encoded}");
        assert_eq!(subprotocol(&value).as_deref(), Some("~~~???"));
    }
}

#[test]
fn a_token_that_is_not_base64_of_utf8_is_ignored() {
    for encoded in ["!", "_w", "MTIzN"] {
        assert_eq!(subprotocol(&format!("base64url.bearer.phx.{encoded}")), None, "{encoded}");
    }
    assert_eq!(subprotocol("phoenix"), None);
}

#[test]
fn a_bad_query_is_an_error() {
    let (parts, ()) = Request::builder().uri("/?a=%ff").body(()).unwrap().into_parts();
    assert_eq!(ConnectInfo::from_request_parts(&parts, Transport::LongPoll).unwrap_err(), BadQuery);
}
