//! A server and its clients on one thread, connected by in-memory pipes.

use std::convert::Infallible;
use std::error::Error;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

use super::push;

/// Returns the client's end of a connection served by `service`.
pub(crate) fn connect<S, B>(service: S) -> DuplexStream
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>,
    S: Send + 'static,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    let (client, server) = tokio::io::duplex(16 * 1024);
    let connection = http1::Builder::new().serve_connection(TokioIo::new(server), service);
    tokio::spawn(connection.with_upgrades());
    client
}

/// Upgrades the connection to a WebSocket.
pub(crate) async fn upgrade(client: &mut (impl AsyncRead + AsyncWrite + Unpin), parameters: &str) {
    let request = format!(
        "GET /socket/websocket?vsn=2.0.0&{parameters} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    );
    client.write_all(request.as_bytes()).await.expect("written");
    let head = head(client).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
}

/// Joins a topic over a WebSocket.
pub(crate) async fn join(client: &mut (impl AsyncRead + AsyncWrite + Unpin), topic: &str) {
    client.write_all(&push("1", topic, "phx_join", "{}")).await.expect("written");
    let reply = frame(client).await.unwrap_or_default();
    assert!(reply.ends_with(b"\"response\":{}}]"), "{}", String::from_utf8_lossy(&reply));
}

/// Receives the next text message, or `None` once the connection has ended. Pings are not answered.
pub(crate) async fn frame(client: &mut (impl AsyncRead + Unpin)) -> Option<Vec<u8>> {
    loop {
        let opcode = client.read_u8().await.ok()?;
        let size = match client.read_u8().await.ok()? {
            126 => usize::from(client.read_u16().await.ok()?),
            size => usize::from(size),
        };
        let mut payload = vec![0; size];
        client.read_exact(&mut payload).await.ok()?;
        if opcode == 0x81 {
            return Some(payload);
        }
    }
}

/// Sends a plain HTTP request without waiting for the response.
pub(crate) async fn send_request(
    client: &mut (impl AsyncWrite + Unpin),
    method: &str,
    query: &str,
    body: &str,
) {
    let request = format!(
        "{method} /socket/longpoll?vsn=2.0.0&{query} HTTP/1.1\r\nHost: a\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client.write_all(request.as_bytes()).await.expect("written");
}

/// Receives the body of the next response.
pub(crate) async fn response(client: &mut (impl AsyncRead + Unpin)) -> String {
    let head = head(client).await.to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
    let length = length.and_then(|length| length.parse().ok()).expect("a length");
    let mut body = vec![0; length];
    client.read_exact(&mut body).await.expect("a body");
    String::from_utf8(body).expect("text")
}

async fn head(client: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("a response"));
    }
    String::from_utf8_lossy(&head).into()
}
