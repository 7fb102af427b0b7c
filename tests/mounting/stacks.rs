//! Every row of the table in docs/mounting.md: a WebSocket and a long poll join and push.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_stream::wrappers::TcpListenerStream;
use tower::{Layer, ServiceBuilder, service_fn};
use tower_channels::Service;

use super::client::Client;
use super::endpoint::endpoint;

/// Serves a router of axum.
pub(crate) async fn axum_server(app: Router) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    Client::new(address)
}

/// Serves each connection with `serve`.
pub(crate) async fn server<F>(mut serve: impl FnMut(TcpStream) -> F + Send + 'static) -> Client
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        loop {
            let (io, _) = listener.accept().await.expect("a connection");
            tokio::spawn(serve(io));
        }
    });
    Client::new(address)
}

fn hyper_service() -> TowerToHyperService<Service<()>> {
    TowerToHyperService::new(endpoint().service())
}

async fn hello() -> &'static str {
    "hello"
}

#[tokio::test]
async fn the_service_works_wherever_axum_nests_it() {
    let service = || endpoint().service();
    let nested = || Router::new().nest_service("/socket", service());
    for (stack, app, prefix) in [
        ("nest_service", nested(), "/socket"),
        ("in a nested router", Router::new().nest("/api", nested()), "/api/socket"),
        (
            "in a router nested twice",
            Router::new().nest("/a", Router::new().nest("/b", nested())),
            "/a/b/socket",
        ),
        ("in a merged router", Router::new().route("/", get(hello)).merge(nested()), "/socket"),
        (
            "below a prefix with a parameter",
            Router::new().nest_service("/{tenant}/socket", service()),
            "/acme/socket",
        ),
        ("route_service", Router::new().route_service("/socket/{*rest}", service()), "/socket"),
        (
            "route_service of each transport",
            Router::new()
                .route_service("/socket/websocket", endpoint().websocket())
                .route_service("/socket/longpoll", endpoint().long_poll()),
            "/socket",
        ),
        (
            "fallback_service",
            Router::new().route("/", get(hello)).fallback_service(service()),
            "/socket",
        ),
        (
            "fallback_service in a nested router",
            Router::new().nest("/api", Router::new().fallback_service(service())),
            "/api",
        ),
        ("before a fallback", nested().fallback(hello), "/socket"),
    ] {
        axum_server(app).await.prefix(prefix).expect_both(stack).await;
    }
}

#[tokio::test]
async fn a_layer_works_on_the_outermost_router_after_its_fallback() {
    let layer = || endpoint().layer("/socket");
    let merged = Router::new().route("/other", get(hello));
    for (stack, app) in [
        ("an empty router", Router::new().layer(layer())),
        ("after routes", Router::new().route("/", get(hello)).layer(layer())),
        ("before routes", Router::new().layer(layer()).route("/", get(hello))),
        ("after a fallback", Router::new().fallback(hello).layer(layer())),
        ("after a merge", Router::new().merge(merged).layer(layer())),
        ("ServiceBuilder", Router::new().layer(ServiceBuilder::new().layer(layer()))),
    ] {
        axum_server(app).await.expect_both(stack).await;
    }
    // Around the router as a service, where it is before all routing.
    let app = layer().layer(Router::new().fallback(hello));
    let app = Router::new().fallback_service(app);
    axum_server(app).await.expect_both("around the router").await;
}

#[tokio::test]
async fn a_layer_elsewhere_is_not_reached() {
    let layer = || endpoint().layer("/socket");
    let routes = || Router::new().route("/", get(hello));
    for (place, app, prefix, answer) in [
        ("before a fallback", routes().layer(layer()).fallback(hello), "/socket", "200 hello"),
        ("as a route_layer", routes().route_layer(layer()), "/socket", "404"),
        (
            "in a nested router",
            Router::new().nest("/api", routes().layer(layer())),
            "/api/socket",
            "404",
        ),
        (
            "in a nested router, by the whole path",
            Router::new().nest("/api", routes().layer(endpoint().layer("/api/socket"))),
            "/api/socket",
            "404",
        ),
        (
            "in a router merged into one with a fallback",
            Router::new().fallback(hello).merge(routes().layer(layer())),
            "/socket",
            "200 hello",
        ),
    ] {
        let client = axum_server(app).await.prefix(prefix);
        assert_eq!(client.try_both().await, (answer.into(), answer.into()), "{place}");
    }
}

#[tokio::test]
async fn hyper_serves_the_service_alone_or_a_layer_around_another() {
    let service = hyper_service();
    let client = server(move |io| {
        http1::Builder::new().serve_connection(TokioIo::new(io), service.clone()).with_upgrades()
    });
    client.await.expect_both("hyper").await;

    let plain = service_fn(async |_: http::Request<hyper::body::Incoming>| {
        Ok::<_, io::Error>(http::Response::new(String::new()))
    });
    let service = ServiceBuilder::new().layer(endpoint().layer("/socket")).service(plain);
    let service = TowerToHyperService::new(service);
    let client = server(move |io| {
        http1::Builder::new().serve_connection(TokioIo::new(io), service.clone()).with_upgrades()
    });
    client.await.expect_both("ServiceBuilder on hyper").await;
}

#[tokio::test]
async fn an_endpoint_serves_connections_on_several_runtimes() {
    let endpoint = endpoint();
    for runtime in ["first", "second"] {
        let app = Router::new().nest_service("/socket", endpoint.service());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        listener.set_nonblocking(true).expect("a mode of every socket");
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = TcpListener::from_std(listener).expect("non-blocking");
                axum::serve(listener, app).await
            })
        });
        Client::new(address).expect_both(runtime).await;
    }
}

#[tokio::test]
async fn both_transports_work_over_http_2() {
    let app = Router::new().nest_service("/socket", endpoint().service());
    axum_server(app).await.http2().expect_both("axum").await;

    let service = hyper_service();
    let client = server(move |io| {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.enable_connect_protocol().serve_connection(TokioIo::new(io), service.clone())
    });
    client.await.http2().expect_both("hyper").await;
}

#[tokio::test]
async fn both_transports_work_over_tls() {
    let (acceptor, tls) = tls();
    let service = hyper_service();
    let client = server(move |io| {
        let (acceptor, service) = (acceptor.clone(), service.clone());
        async move { serve_both(acceptor.accept(io).await.expect("a handshake"), service).await }
    });
    let client = Client { tls: Some(tls), ..client.await };
    client.expect_both("HTTP/1.1").await;
    client.http2().expect_both("HTTP/2").await;
}

/// HTTP/1.1 and HTTP/2, by what the client begins with.
async fn serve_both(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    service: TowerToHyperService<Service<()>>,
) {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http2().enable_connect_protocol();
    let _ = http.serve_connection_with_upgrades(TokioIo::new(io), service).await;
}

/// A server with a certificate of its own, and a client that trusts it.
fn tls() -> (TlsAcceptor, Arc<ClientConfig>) {
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key");
    let certificate = signed.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(signed.signing_key.serialize_der().into());
    let server = ServerConfig::builder().with_no_client_auth();
    let server = server.with_single_cert(vec![certificate.clone()], key).expect("a fitting key");
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let client = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    (TlsAcceptor::from(Arc::new(server)), Arc::new(client))
}

#[tokio::test]
async fn both_transports_work_under_axum_server() {
    let app = Router::new().nest_service("/socket", endpoint().service());
    let handle = axum_server::Handle::<SocketAddr>::new();
    let server = axum_server::bind(([127, 0, 0, 1], 0).into()).handle(handle.clone());
    tokio::spawn(server.serve(app.into_make_service()));
    let address = handle.listening().await.expect("a free port");
    Client::new(address).expect_both("axum-server").await;
}

fn tonic_routes() -> tonic::service::Routes {
    let app = Router::new().nest_service("/socket", endpoint().service());
    tonic::service::Routes::from(app)
}

#[tokio::test]
async fn both_transports_work_beside_the_routes_of_tonic() {
    let app = tonic_routes().into_axum_router();
    let client = axum_server(app).await;
    client.expect_both("HTTP/1.1").await;
    client.http2().expect_both("HTTP/2").await;
}

#[tokio::test]
async fn only_long_poll_works_under_the_server_of_tonic() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let server = tonic::transport::Server::builder().accept_http1(true).add_routes(tonic_routes());
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    // It answers with 101 and gives up the connection; see the warning in the log. Over HTTP/2 it does not
    // take an extended CONNECT.
    let client = Client::new(address);
    let works = || "works".to_owned();
    assert_eq!(client.try_both().await, ("cut: unexpected end of file".to_owned(), works()));
    let (websocket, longpoll) = client.http2().try_both().await;
    assert!(websocket.starts_with("no response"), "{websocket}");
    assert_eq!(longpoll, works());
}
