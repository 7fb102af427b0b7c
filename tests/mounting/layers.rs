//! The layers that docs/deployment.md names, around an endpoint.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::header::{ACCEPT_ENCODING, ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_ENCODING, HOST, ORIGIN};
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{Any, CorsLayer};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;
use tower_http::trace::TraceLayer;

use super::endpoint::endpoint;
use super::stacks::axum_server;

fn app() -> Router {
    Router::new().nest_service("/socket", endpoint().service())
}

#[tokio::test]
async fn layers_of_tower_http_go_around_the_endpoint() {
    let app = app()
        .layer(RequestBodyLimitLayer::new(2 << 20))
        .layer(CompressionLayer::new())
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, Duration::from_secs(30)))
        .layer(CatchPanicLayer::new())
        .layer(TraceLayer::new_for_http());
    axum_server(app).await.expect_both("tower-http").await;
}

async fn get(app: Router, query: &str, name: HeaderName, value: &str) -> Response<Body> {
    let request = Request::get(format!("/socket/longpoll?vsn=2.0.0{query}"));
    let request = request.header(HOST, "chat.test").header(name, value).body(Body::empty());
    let Ok(response) = app.oneshot(request.expect("a request")).await;
    response
}

#[tokio::test]
async fn compression_compresses_the_responses_of_polls() {
    let response = get(app().layer(CompressionLayer::new()), "", ACCEPT_ENCODING, "gzip").await;
    assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
}

#[tokio::test]
async fn a_cors_layer_replaces_the_headers_of_the_endpoint() {
    let (origin, any) = ("https://chat.test", CorsLayer::new().allow_origin(Any));
    for (layer, allowed) in [(CorsLayer::very_permissive(), origin), (any, "*")] {
        let response = get(app().layer(layer), "", ORIGIN, origin).await;
        let headers = response.headers().get_all(ACCESS_CONTROL_ALLOW_ORIGIN);
        assert_eq!(headers.iter().collect::<Vec<_>>(), [allowed]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_below_that_of_a_poll_refuses_the_poll() {
    let timeout = |seconds| {
        let status = StatusCode::REQUEST_TIMEOUT;
        TimeoutLayer::with_status_code(status, Duration::from_secs(seconds))
    };
    // The default timeout of a poll is 10 s.
    for (seconds, status) in [(9, 408), (11, 200)] {
        let app = app().layer(timeout(seconds));
        let connected = get(app.clone(), "", ACCEPT_ENCODING, "identity").await;
        let connected = connected.into_body().collect().await.expect("a body").to_bytes();
        let connected: serde_json::Value = serde_json::from_slice(&connected).expect("JSON");
        let token = format!("&token={}", connected["token"].as_str().expect("a token"));
        let polled = get(app, &token, ACCEPT_ENCODING, "identity").await;
        assert_eq!(polled.status(), status, "{seconds} s");
    }
}
