//! The HTTP server: `axum::serve` with what it has no setting for. Request heads have a time limit, and a
//! stop ends the sessions before the connections.

use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, body::Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower_channels::Endpoint;

use crate::dashboard::{announce, dashboard};

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long sessions may take to end, and then the remaining responses.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);
const LAST_RESPONSES: Duration = Duration::from_secs(5);

/// Serves an endpoint under `/socket`, its dashboard under `/dashboard` and `app`, until SIGTERM.
pub async fn run<A>(listener: TcpListener, app: Router, endpoint: Endpoint<A>) -> io::Result<()>
where
    A: Send + Sync + 'static,
{
    announce(listener.local_addr()?);
    serve(listener, app, endpoint, stopped()).await;
    Ok(())
}

/// Serves until `stop` completes, then shuts down gracefully.
async fn serve<A: Send + Sync + 'static>(
    listener: TcpListener,
    app: Router,
    endpoint: Endpoint<A>,
    stop: impl Future<Output = ()>,
) {
    let dashboard = dashboard(&endpoint);
    let app = app
        .nest_service("/socket", endpoint.service())
        .nest_service("/dashboard", dashboard.clone());
    let service = TowerToHyperService::new(app);
    let stopping = watch::Sender::new(());
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let (io, peer) = match accepted {
            Ok(accepted) => accepted,
            // A client that has given up meanwhile concerns nobody else.
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                // Most likely no file descriptor is free: wait until a connection has ended.
                eprintln!("accept error: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (service, mut stopping) = (service.clone(), stopping.subscribe());
        // For the dashboard, which this machine may see.
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            service.call(request)
        });
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            let connection = http.serve_connection(TokioIo::new(io), service).with_upgrades();
            let mut connection = pin!(connection);
            tokio::select! {
                // An error is the client's: it has gone away, or sent no HTTP.
                _ = connection.as_mut() => return,
                _ = stopping.changed() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        });
    }
    // In this order: no new connections, the end of all sessions, the last responses.
    drop(listener);
    dashboard.shutdown(Duration::ZERO).await;
    endpoint.shutdown(SHUTDOWN_TIMEOUT).await;
    stopping.send_replace(());
    let _ = tokio::time::timeout(LAST_RESPONSES, stopping.closed()).await;
}

/// Whether an error of `accept` is that of the connection it would have returned.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Waits for SIGTERM, which service managers send, or for Ctrl-C.
async fn stopped() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).expect("a handler of SIGTERM");
        tokio::select! {
            _ = interrupt => {}
            _ = terminate.recv() => {}
        }
    }
    #[cfg(not(unix))]
    let _ = interrupt.await;
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::sync::oneshot;
    use tokio::task::JoinHandle;
    use tower_channels::channel::Result;
    use tower_channels::{Channel, Joined, Payload, Socket};

    use super::*;

    struct Lobby;

    impl Channel for Lobby {
        type Assigns = ();
        type Info = ();

        async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
            Ok(Self.into())
        }
    }

    /// Starts a server. It stops when the sender is dropped.
    async fn start() -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let endpoint = Endpoint::builder(async |_| Ok(())).channel::<Lobby>("lobby").build();
        let server = serve(listener, Router::new(), endpoint, async { _ = stopped.await });
        (address, stop, tokio::spawn(server))
    }

    #[tokio::test]
    async fn a_stop_closes_the_websockets_and_then_ends_the_server() {
        let (address, stop, server) = start().await;
        let mut socket = TcpStream::connect(address).await.unwrap();
        let upgrade = "GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\n\
            Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
            Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        socket.write_all(upgrade.as_bytes()).await.unwrap();
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n\r\n") {
            received.push(socket.read_u8().await.unwrap());
        }
        assert!(received.starts_with(b"HTTP/1.1 101"));
        drop(stop);
        received.clear();
        socket.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, [0x88, 2, 0x03, 0xf4], "the code 1012");
        drop(socket);
        server.await.unwrap();
    }

    /// Paused time passes as soon as everybody waits.
    #[tokio::test(start_paused = true)]
    async fn an_unfinished_head_does_not_keep_a_connection() {
        let (address, _stop, _server) = start().await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: loc").await.unwrap();
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest).await;
    }
}
