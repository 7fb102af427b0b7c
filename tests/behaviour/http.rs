//! The application's plain HTTP endpoints next to the socket.

use crate::support::{Http, RawWebSocket, Server};

#[tokio::test]
async fn health_is_ok() {
    let server = Server::start().await;
    let response = Http::connect(&server).await.get("/health").await;
    assert_eq!((response.status, &*response.body), (200, "ok"));
}

#[tokio::test]
async fn a_server_without_an_engine_is_alone_and_counts_its_sessions() {
    let server = Server::start().await;
    let _member = RawWebSocket::member(&server).await;
    let mut http = Http::connect(&server).await;
    assert_eq!(&*http.get("/nodes").await.body, "[]");
    assert_eq!(&*http.get("/sessions").await.body, r#"{"connected":1,"detached":0}"#);
}

#[tokio::test]
async fn a_broadcast_to_an_empty_topic_succeeds() {
    let server = Server::start().await;
    server.broadcast("room:empty", "news", "{}").await;
}

#[tokio::test]
async fn a_broadcast_of_any_json_is_delivered() {
    let server = Server::start().await;
    let mut member = RawWebSocket::member(&server).await;
    server.broadcast("room:a", "news", "[1,null]").await;
    member.expect_text(r#"[null,null,"room:a","news",[1,null]]"#).await;
}

#[tokio::test]
async fn an_invalid_broadcast_is_a_bad_request() {
    let server = Server::start().await;
    let mut http = Http::connect(&server).await;
    for body in ["", "not json", "[]", "{}", r#"{"topic":"room:a","event":"news"}"#] {
        let json = [("Content-Type", "application/json")];
        let response = http.request("POST", "/broadcast", &json, body.as_bytes()).await;
        assert_eq!(response.status, 400, "{body}: {response:?}");
    }
    assert_eq!(http.get("/health").await.status, 200);
}

#[tokio::test]
async fn a_disconnect_of_an_unknown_id_succeeds() {
    let server = Server::start().await;
    server.disconnect("user_socket:nobody").await;
}

#[tokio::test]
async fn other_paths_are_not_found() {
    let server = Server::start().await;
    let mut http = Http::connect(&server).await;
    for target in ["/", "/socket", "/socket/", "/socket/other", "/socketwebsocket"] {
        assert_eq!(http.get(target).await.status, 404, "{target}");
    }
}

/// A page of any site can send a text or a form, with its origin.
#[tokio::test]
async fn a_page_of_another_site_can_neither_broadcast_nor_disconnect() {
    let server = Server::start().await;
    let mut member = RawWebSocket::open(&server, "vsn=2.0.0&user_id=u1").await;
    member.send_text(r#"["1","1","room:a","phx_join",{}]"#).await;
    member.expect_text(r#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    member.expect_text(r#"["1",null,"room:a","joined",{"user_id":"u1"}]"#).await;
    let mut http = Http::connect(&server).await;
    for origin in ["http://evil.test", "null"] {
        let headers = [("Origin", origin), ("Content-Type", "text/plain")];
        let body = br#"{"topic":"room:a","event":"news","payload":{}}"#;
        for target in ["/broadcast", "/disconnect?id=user_socket:u1"] {
            let response = http.request("POST", target, &headers, body).await;
            assert_eq!((response.status, &*response.body), (403, ""), "{origin} {target}");
        }
    }
    let allowed = [("Origin", "https://example.com"), ("Content-Type", "application/json")];
    let body = br#"{"topic":"room:a","event":"news","payload":{"a":1}}"#;
    let response = http.request("POST", "/broadcast", &allowed, body).await;
    assert_eq!(response.status, 204, "{response:?}");
    member.expect_text(r#"[null,null,"room:a","news",{"a":1}]"#).await;
}
