//! The endpoint as a standalone service on plain hyper, without axum, with what a public server needs:
//! a time limit for request heads, an accept loop that survives a full table of file descriptors, and
//! a graceful stop on SIGTERM or Ctrl-C.
//!
//! Run `cargo run --example hyper`, connect any Phoenix client to `ws://127.0.0.1:4000/socket`, and
//! join the topic `echo`.

use std::io;
use std::pin::pin;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower_channels::channel::Result;
use tower_channels::{Channel, Endpoint, Joined, Payload, Reply, Socket};

/// Replies to every push with its payload.
struct Echo;

impl Channel for Echo {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn handle_in(&mut self, _: &str, payload: Payload, _: &Socket<Self>) -> Result<Reply> {
        Ok(Reply::Ok(payload))
    }
}

/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long sessions may take to end, and then the remaining responses.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(20);
const LAST_RESPONSES: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:4000").await?;
    println!("listening on {}", listener.local_addr()?);
    serve(listener, stopped()).await;
    Ok(())
}

/// Serves until `stop` completes, then shuts down gracefully.
async fn serve(listener: TcpListener, stop: impl Future<Output = ()>) {
    let endpoint = Endpoint::builder(|_| async { Ok(()) }).channel::<Echo>("echo").build();
    let service = TowerToHyperService::new(endpoint.service());
    let stopping = watch::Sender::new(());
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        let io = match accepted {
            Ok((io, _)) => io,
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
        tokio::spawn(async move {
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
            // A WebSocket starts as an HTTP request, so the server must support upgrades.
            let connection = http.serve_connection(TokioIo::new(io), service).with_upgrades();
            let mut connection = pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                _ = stopping.changed() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = served {
                eprintln!("connection error: {error}");
            }
        });
    }
    // In this order: no new connections, the end of all sessions, the last responses.
    drop(listener);
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

#[cfg(all(test, unix))]
mod tests {
    use std::fs::File;
    use std::process::Command;
    use std::sync::{Mutex, PoisonError};

    use rlimit::Resource;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpSocket, TcpStream};

    use super::*;

    /// Runs one test at a time: file descriptors and signals are those of the process.
    fn alone(test: impl Future<Output = ()>) {
        static PROCESS: Mutex<()> = Mutex::new(());
        let _process = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().expect("a runtime").block_on(test);
    }

    const UPGRADE: &[u8] = b"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: localhost\r\n\
        Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

    async fn head(stream: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a response"));
        }
        String::from_utf8(head).expect("text")
    }

    #[test]
    fn an_error_of_one_connection_does_not_pause_the_others() {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, OutOfMemory};
        for kind in [ConnectionAborted, ConnectionRefused, ConnectionReset] {
            assert!(is_of_one_connection(&kind.into()));
        }
        let (enfile, emfile) = (io::Error::from_raw_os_error(23), io::Error::from_raw_os_error(24));
        for error in [enfile, emfile, OutOfMemory.into()] {
            assert!(!is_of_one_connection(&error), "{error}");
        }
    }

    #[test]
    fn sigterm_closes_the_websockets_and_ends_the_server() {
        alone(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("an address");
            let server = tokio::spawn(serve(listener, stopped()));
            let mut socket = TcpStream::connect(address).await.expect("it listens");
            socket.write_all(UPGRADE).await.expect("it reads");
            assert!(head(&mut socket).await.starts_with("HTTP/1.1 101"));
            let id = std::process::id().to_string();
            let sent = Command::new("kill").args(["-TERM", &id]).status().expect("kill");
            assert!(sent.success());
            let mut close = Vec::new();
            socket.read_to_end(&mut close).await.expect("a graceful end");
            assert_eq!(close, [0x88, 2, 0x03, 0xf4], "the code 1012");
            drop(socket);
            server.await.expect("no panic");
        });
    }

    #[test]
    fn the_server_survives_a_full_table_of_file_descriptors() {
        alone(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("an address");
            let server = tokio::spawn(serve(listener, std::future::pending()));
            let client = TcpSocket::new_v4().expect("a socket");
            let (soft, hard) = rlimit::getrlimit(Resource::NOFILE).expect("a limit");
            rlimit::setrlimit(Resource::NOFILE, soft.min(256), hard).expect("a lower limit");
            let full: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
            // The kernel accepts the connection, the server cannot.
            let mut client = client.connect(address).await.expect("it listens");
            tokio::time::sleep(Duration::from_millis(50)).await;
            drop(full);
            rlimit::setrlimit(Resource::NOFILE, soft, hard).expect("the previous limit");
            client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.expect("it reads");
            assert!(head(&mut client).await.starts_with("HTTP/1.1 404"));
            server.abort();
        });
    }
}
