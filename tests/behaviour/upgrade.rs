//! WebSocket upgrades: which requests are accepted, and how others are answered.

use crate::support::raw_websocket::frame;
use crate::support::{Frame, Http, RawWebSocket, Response, Server, UPGRADE};

#[tokio::test]
async fn an_upgrade_is_answered_as_in_the_rfc() {
    let response = upgrade("vsn=2.0.0", &UPGRADE).await;
    assert_eq!(response.status, 101, "{response:?}");
    assert_eq!(response.header("upgrade"), Some("websocket"));
    assert!(response.header("connection").unwrap().eq_ignore_ascii_case("upgrade"));
    assert_eq!(response.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(response.header("cache-control"), Some(NO_CACHE));
    assert!(response.header("date").is_some());
}

#[tokio::test]
async fn offered_extensions_and_subprotocols_are_not_selected() {
    let offered = [
        ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits"),
        ("Sec-WebSocket-Protocol", "chat, superchat"),
    ];
    let response = upgrade("", &[&UPGRADE[..], &offered].concat()).await;
    assert_eq!(response.status, 101, "{response:?}");
    assert_eq!(response.header("sec-websocket-extensions"), None);
    assert_eq!(response.header("sec-websocket-protocol"), None);
}

#[tokio::test]
async fn an_auth_token_in_the_subprotocols_selects_phoenix() {
    let offered = ("Sec-WebSocket-Protocol", "phoenix, base64url.bearer.phx.c2VjcmV0");
    let response = upgrade("vsn=2.0.0", &with(offered)).await;
    assert_eq!(response.status, 101, "{response:?}");
    assert_eq!(response.header("sec-websocket-protocol"), Some("phoenix"));
}

#[tokio::test]
async fn a_rejected_connect_is_a_403_on_a_connection_that_stays_open() {
    let server = Server::start().await;
    let mut http = Http::connect(&server).await;
    let response = http.request("GET", "/socket/websocket?reject=true", &UPGRADE, b"").await;
    assert_forbidden(&response);
    let response = http.request("GET", "/socket/websocket", &UPGRADE, b"").await;
    assert_eq!(response.status, 101, "{response:?}");
}

#[tokio::test]
async fn a_request_without_an_origin_is_accepted() {
    assert_eq!(upgrade("", &UPGRADE).await.status, 101);
}

#[tokio::test]
async fn allowed_origins_are_accepted_with_any_scheme_and_port() {
    for origin in [
        "http://localhost",
        "https://localhost:1234",
        "http://127.0.0.1",
        "http://127.0.0.1:9",
        "https://example.com",
        "ftp://example.com:21",
    ] {
        let response = upgrade("", &with(("Origin", origin))).await;
        assert_eq!(response.status, 101, "{origin}: {response:?}");
    }
}

#[tokio::test]
async fn the_host_of_the_request_is_accepted_as_origin() {
    let headers = [("Host", "chat.test:8080"), ("Origin", "https://chat.test")];
    let response = upgrade("", &[&UPGRADE[..], &headers].concat()).await;
    assert_eq!(response.status, 101, "{response:?}");
}

#[tokio::test]
async fn origin_hosts_are_compared_without_regard_to_case() {
    for origin in ["HTTP://LOCALHOST", "http://Example.COM"] {
        let response = upgrade("", &with(("Origin", origin))).await;
        assert_eq!(response.status, 101, "{origin}: {response:?}");
    }
}

#[tokio::test]
async fn other_origins_are_forbidden() {
    for origin in [
        "http://elsewhere.test",
        "http://sub.example.com",
        "http://example.com.elsewhere.test",
        "http://notexample.com",
        "http://example.com@elsewhere.test",
        "null",
        "garbage",
        "",
        "file://",
    ] {
        assert_forbidden(&upgrade("", &with(("Origin", origin))).await);
    }
}

#[tokio::test]
async fn any_patch_of_a_known_version_is_accepted() {
    for query in ["vsn=1.0.0", "vsn=1.0.5", "vsn=2.0.0", "vsn=2.0.7", "vsn=abc&vsn=2.0.0"] {
        assert_eq!(upgrade(query, &UPGRADE).await.status, 101, "{query}");
    }
}

#[tokio::test]
async fn other_versions_are_forbidden() {
    for query in [
        "vsn=1.1.0",
        "vsn=2.1.0",
        "vsn=3.0.0",
        "vsn=2.0",
        "vsn=2",
        "vsn=2.0.0-rc.1",
        "vsn=abc",
        "vsn=",
        "vsn[]=2.0.0",
        "vsn=2.0.0&vsn=3.0.0",
    ] {
        assert_forbidden(&upgrade(query, &UPGRADE).await);
    }
}

#[tokio::test]
async fn a_patch_version_selects_its_serializer() {
    let server = Server::start().await;
    let mut v1 = RawWebSocket::open(&server, "vsn=1.0.5").await;
    v1.send_text(r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}"#).await;
    v1.expect_text(
        r#"{"ref":"1","event":"phx_reply","payload":{"status":"ok","response":{}},"topic":"phoenix"}"#,
    )
    .await;
    let mut v2 = RawWebSocket::open(&server, "vsn=2.0.7").await;
    v2.expect_nothing().await;
}

#[tokio::test]
async fn the_default_version_is_1_0_0() {
    let server = Server::start().await;
    let mut socket = RawWebSocket::open(&server, "").await;
    socket.send_text(r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}"#).await;
    socket
        .expect_text(
            r#"{"ref":"1","event":"phx_reply","payload":{"status":"ok","response":{}},"topic":"phoenix"}"#,
        )
        .await;
}

#[tokio::test]
async fn the_last_of_repeated_parameters_decides() {
    assert_eq!(upgrade("reject=true&reject=false", &UPGRADE).await.status, 101);
    assert_forbidden(&upgrade("reject=false&reject=true", &UPGRADE).await);
}

#[tokio::test]
async fn odd_queries_are_taken_literally() {
    for query in
        ["foo=%zz", "foo=%", "foo=%2", "=", "&&", "a[b][c]=1&a[b]=2", "a[=1", "a]=1", "[]=1"]
    {
        assert_eq!(upgrade(query, &UPGRADE).await.status, 101, "{query}");
    }
}

#[tokio::test]
async fn a_query_that_is_not_utf8_is_a_bad_request() {
    let response = upgrade("foo=%ff", &UPGRADE).await;
    assert_eq!(response.status, 400);
    assert_eq!(response.body, r#"{"errors":{"detail":"Bad Request"}}"#);
}

#[tokio::test]
async fn a_query_over_a_limit_is_a_bad_request() {
    let nested: String = (0..100).map(|name| format!("&{name}[a][b]=1")).collect();
    for query in ["x".repeat(17 * 1024), "&x=1".repeat(257), nested] {
        assert_eq!(upgrade(&query, &UPGRADE).await.status, 400);
    }
}

#[tokio::test]
async fn a_plain_get_is_a_bad_request_that_names_the_missing_header() {
    let response = upgrade("", &[]).await;
    assert_eq!(response.status, 400);
    assert_eq!(response.body, "'connection' header must contain 'upgrade', got []");
}

#[tokio::test]
async fn an_upgrade_to_something_else_is_a_bad_request() {
    for headers in [replaced("Upgrade", Some("h2c")), replaced("Upgrade", None)] {
        assert_eq!(upgrade("", &headers).await.status, 400, "{headers:?}");
    }
    assert_eq!(upgrade("", &replaced("Connection", Some("keep-alive"))).await.status, 400);
}

#[tokio::test]
async fn connect_is_called_before_the_upgrade_headers_are_checked() {
    assert_forbidden(&upgrade("reject=true", &[]).await);
    assert_forbidden(&upgrade("vsn=9.0.0", &[]).await);
    assert_forbidden(&upgrade("", &[("Origin", "http://elsewhere.test")]).await);
}

#[tokio::test]
async fn a_missing_key_is_a_bad_request() {
    let response = upgrade("", &replaced("Sec-WebSocket-Key", None)).await;
    assert_eq!(response.status, 400);
    assert_eq!(response.body, "'sec-websocket-key' header is absent");
}

#[tokio::test]
async fn a_key_of_any_length_is_accepted() {
    for key in ["abc", "dGhlIHNhbXBsZSBub25jZSB0aGF0IGlzIHRvbyBsb25n"] {
        let response = upgrade("", &replaced("Sec-WebSocket-Key", Some(key))).await;
        assert_eq!(response.status, 101, "{key}: {response:?}");
    }
}

#[tokio::test]
async fn another_version_of_the_protocol_is_a_bad_request() {
    let response = upgrade("", &replaced("Sec-WebSocket-Version", Some("12"))).await;
    assert_eq!(response.status, 400);
    assert_eq!(response.body, r#"'sec-websocket-version' header must equal '13', got ["12"]"#);
    assert_eq!(upgrade("", &replaced("Sec-WebSocket-Version", None)).await.status, 400);
}

#[tokio::test]
async fn http_1_0_is_a_bad_request_and_the_connection_closes() {
    let server = Server::start().await;
    let mut http = Http::connect(&server).await;
    let mut request = "GET /socket/websocket HTTP/1.0\r\nHost: localhost\r\n".to_owned();
    for (name, value) in UPGRADE {
        request += &format!("{name}: {value}\r\n");
    }
    http.write(format!("{request}\r\n").as_bytes()).await;
    let response = http.response_to("GET").await.expect("a response");
    assert_eq!(response.status, 400);
    assert_eq!(response.body, "HTTP version HTTP/1.0 unsupported");
    assert!(http.ended().await);
}

#[tokio::test]
async fn other_methods_are_a_bad_request() {
    let server = Server::start().await;
    for method in ["POST", "PUT", "OPTIONS", "HEAD", "DELETE"] {
        let mut http = Http::connect(&server).await;
        let response = http.request(method, "/socket/websocket?vsn=2.0.0", &UPGRADE, b"").await;
        assert_eq!((response.status, &*response.body), (400, ""), "{method}");
    }
}

#[tokio::test]
async fn equivalent_spellings_of_the_upgrade_headers_are_accepted() {
    for headers in [
        replaced("Connection", Some("keep-alive, Upgrade")),
        replaced("Connection", Some("UPGRADE")),
        replaced("Upgrade", Some("WebSocket")),
        with(("Host", "")),
    ] {
        assert_eq!(upgrade("", &headers).await.status, 101, "{headers:?}");
    }
}

#[tokio::test]
async fn a_trailing_slash_is_the_same_path() {
    let server = Server::start().await;
    let mut http = Http::connect(&server).await;
    let response = http.request("GET", "/socket/websocket/?vsn=2.0.0", &UPGRADE, b"").await;
    assert_eq!(response.status, 101, "{response:?}");
}

/// Phoenix loses such a frame; here it may be answered. Later frames are answered in any case.
#[tokio::test]
async fn a_frame_in_the_same_write_as_the_request_does_no_harm() {
    let server = Server::start().await;
    let mut http = Http::connect(&server).await;
    let early = frame(0x81, br#"[null,"early","phoenix","heartbeat",{}]"#);
    http.send_request("GET", "/socket/websocket?vsn=2.0.0", &UPGRADE, &early).await;
    let response = http.response_to("GET").await.expect("a response");
    assert_eq!(response.status, 101, "{response:?}");
    let mut socket = RawWebSocket::after_upgrade(http);
    socket.send_text(r#"[null,"late","phoenix","heartbeat",{}]"#).await;
    let late = r#"[null,"late","phoenix","phx_reply",{"status":"ok","response":{}}]"#;
    let early = late.replace("late", "early");
    let Frame { payload, .. } = socket.frame().await.expect("a reply");
    if payload == early.as_bytes() {
        socket.expect_text(late).await;
    } else {
        assert_eq!(String::from_utf8_lossy(&payload), late);
    }
}

const NO_CACHE: &str = "max-age=0, private, must-revalidate";

async fn upgrade(query: &str, headers: &[(&str, &str)]) -> Response {
    let server = Server::start().await;
    let target = format!("/socket/websocket?{query}");
    Http::connect(&server).await.request("GET", &target, headers, b"").await
}

fn assert_forbidden(response: &Response) {
    assert_eq!((response.status, &*response.body), (403, ""), "{response:?}");
    assert_eq!(response.header("content-length"), Some("0"), "{response:?}");
    assert_eq!(response.header("cache-control"), Some(NO_CACHE), "{response:?}");
}

fn with<'a>(header: (&'a str, &'a str)) -> Vec<(&'a str, &'a str)> {
    let mut headers = UPGRADE.to_vec();
    headers.push(header);
    headers
}

fn replaced<'a>(name: &str, value: Option<&'a str>) -> Vec<(&'static str, &'a str)> {
    let others = UPGRADE.into_iter().filter(|(known, _)| *known != name);
    let changed = UPGRADE.into_iter().filter(|(known, _)| *known == name);
    others.chain(changed.filter_map(|(name, _)| Some((name, value?)))).collect()
}
