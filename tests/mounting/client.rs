//! A client of both transports over HTTP/1.1, TLS and HTTP/2.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

/// How a server is reached.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// What precedes the path of a transport.
    pub(crate) prefix: &'static str,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) http2: bool,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

const JOIN: &str = r#"["1","1","room:a","phx_join",{}]"#;
const JOINED: &str = r#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#;
const PUSH: &str = r#"["1","2","room:a","echo",{"n":7}]"#;
const ECHO: &str = r#"["1","2","room:a","phx_reply",{"status":"ok","response":{"n":7}}]"#;

/// Nothing takes this long: it ends a test that would hang.
const DEADLINE: Duration = Duration::from_secs(60);

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, prefix: "/socket", tls: None, http2: false }
    }

    pub(crate) fn prefix(self, prefix: &'static str) -> Self {
        Self { prefix, ..self }
    }

    pub(crate) fn http2(self) -> Self {
        Self { http2: true, ..self }
    }

    /// Joins and pushes over both transports. Each outcome is `works`, or the refusal: its status and
    /// its body.
    pub(crate) async fn try_both(&self) -> (String, String) {
        let websocket = tokio::time::timeout(DEADLINE, self.websocket()).await;
        let longpoll = tokio::time::timeout(DEADLINE, self.longpoll()).await;
        let outcome = |result: Result<(), String>| result.err().unwrap_or_else(|| "works".into());
        (outcome(websocket.expect("a prompt answer")), outcome(longpoll.expect("a prompt answer")))
    }

    pub(crate) async fn expect_both(&self, stack: &str) {
        let works = || "works".to_owned();
        assert_eq!(self.try_both().await, (works(), works()), "{stack}");
    }

    /// Opens a WebSocket, joins and pushes. The error is the answer if it is not an upgrade.
    pub(crate) async fn websocket(&self) -> Result<(), String> {
        let mut socket = self.open_websocket().await?;
        for (sent, expected) in [(JOIN, JOINED), (PUSH, ECHO)] {
            let received = exchange(&mut socket, sent).await;
            assert_eq!(received.map_err(|error| format!("cut: {}", error.kind()))?, expected);
        }
        Ok(())
    }

    pub(crate) async fn open_websocket(&self) -> Result<TokioIo<Upgraded>, String> {
        let request = Request::builder().header(header::SEC_WEBSOCKET_VERSION, "13");
        let request = if self.http2 {
            // RFC 8441.
            let request =
                request.method(Method::CONNECT).extension(Protocol::from_static("websocket"));
            request.uri(self.absolute("/websocket?vsn=2.0.0"))
        } else {
            request
                .uri(format!("{}/websocket?vsn=2.0.0", self.prefix))
                .header(header::HOST, "localhost")
                .header(header::CONNECTION, "Upgrade")
                .header(header::UPGRADE, "websocket")
                .header(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==")
        };
        let response = self.send(request.body(Full::default()).expect("a request")).await?;
        let accepted = if self.http2 { StatusCode::OK } else { StatusCode::SWITCHING_PROTOCOLS };
        if response.status() != accepted {
            return Err(describe(response).await);
        }
        let upgraded = hyper::upgrade::on(response).await;
        Ok(TokioIo::new(upgraded.map_err(|error| format!("no upgrade: {error}"))?))
    }

    /// Connects, joins and pushes over long poll. The error is the answer if it has no token.
    pub(crate) async fn longpoll(&self) -> Result<(), String> {
        let response = self.request(Method::GET, "", "").await?;
        let mut token = token(&response).ok_or_else(|| response.to_string())?;
        for (sent, expected) in [(JOIN, JOINED), (PUSH, ECHO)] {
            let posted = self.request(Method::POST, &token, sent).await?;
            assert_eq!(posted["status"], 200, "{posted}");
            let polled = self.request(Method::GET, &token, "").await?;
            assert_eq!(polled["messages"], Value::from(vec![expected]), "{polled}");
            token = self::token(&polled).expect("the next token");
        }
        Ok(())
    }

    async fn request(&self, method: Method, token: &str, body: &str) -> Result<Value, String> {
        let path = format!("/longpoll?vsn=2.0.0&token={token}");
        let uri = if self.http2 { self.absolute(&path) } else { format!("{}{path}", self.prefix) };
        let request = Request::builder().method(method).uri(uri);
        let request = if self.http2 { request } else { request.header(header::HOST, "localhost") };
        let body = Full::from(body.to_owned());
        let response = self.send(request.body(body).expect("a request")).await?;
        let answer = describe(response).await;
        let json = answer.strip_prefix("200 ").and_then(|body| serde_json::from_str(body).ok());
        json.ok_or(answer)
    }

    fn absolute(&self, path: &str) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://localhost{}{path}", self.prefix)
    }

    /// Sends a request over a connection of its own.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String> {
        let tcp = TcpStream::connect(self.address).await.expect("it listens");
        let sender = match &self.tls {
            None => self.handshake(tcp).await,
            Some(config) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let name = "localhost".try_into().expect("a name");
                self.handshake(connector.connect(name, tcp).await.expect("a handshake")).await
            }
        };
        let response = match sender {
            Sender::Http1(mut sender) => sender.send_request(request).await,
            Sender::Http2(mut sender) => {
                // The settings that allow an extended CONNECT precede any response.
                let first = Request::get(self.absolute("")).body(Full::default());
                let _ = sender.send_request(first.expect("a request")).await;
                sender.send_request(request).await
            }
        };
        response.map_err(|error| format!("no response: {error}"))
    }

    async fn handshake(&self, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Sender {
        let io = TokioIo::new(io);
        if self.http2 {
            let handshake = http2::handshake(TokioExecutor::new(), io).await;
            let (sender, connection) = handshake.expect("it speaks HTTP/2");
            tokio::spawn(connection);
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.expect("it speaks HTTP/1.1");
            tokio::spawn(connection.with_upgrades());
            Sender::Http1(sender)
        }
    }
}

/// The status of a response and its body, if any.
async fn describe(response: Response<Incoming>) -> String {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    format!("{status} {}", String::from_utf8_lossy(&body)).trim_end().to_owned()
}

fn token(response: &Value) -> Option<String> {
    response["token"].as_str().map(str::to_owned)
}

/// Sends a short text and receives one.
async fn exchange(
    socket: &mut (impl AsyncRead + AsyncWrite + Unpin),
    text: &str,
) -> io::Result<String> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 126).expect("short");
    let mut frame = vec![0x81, 0x80 | length, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    socket.write_all(&frame).await?;
    let mut head = [0; 2];
    socket.read_exact(&mut head).await?;
    assert!(head[0] == 0x81 && head[1] < 126, "a short text: {head:?}");
    let mut text = vec![0; usize::from(head[1])];
    socket.read_exact(&mut text).await?;
    Ok(String::from_utf8(text).expect("text"))
}
