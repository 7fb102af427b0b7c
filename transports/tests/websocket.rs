//! WebSockets over real sockets, served by a handler that echoes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tower::ServiceExt;
use tower_channels_transports::{
    Acceptor, CheckOrigin, Close, ConnectInfo, Handler, Inbound, Limits, Message, Rejected,
    Session, WebSocket, WebSocketConfig, outbox,
};

/// Echoes messages, and reports when a session starts and when it is dropped.
#[derive(Clone)]
struct Echo(mpsc::UnboundedSender<Event>);

#[derive(Debug)]
enum Event {
    Connected(outbox::Sender),
    Ended,
}

struct EchoSession {
    outbox: outbox::Sender,
    events: mpsc::UnboundedSender<Event>,
}

impl Handler for Echo {
    type Session = EchoSession;

    async fn connect(
        &self,
        info: ConnectInfo,
        outbox: outbox::Sender,
    ) -> Result<EchoSession, Rejected> {
        if info.param("reject") == Some("true") {
            return Err(Rejected::reason("on request"));
        }
        let _ = self.0.send(Event::Connected(outbox.clone()));
        Ok(EchoSession { outbox, events: self.0.clone() })
    }
}

impl Session for EchoSession {
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
        self.outbox.push(match message {
            Inbound::Text("malformed") => return Err(Close::Malformed),
            Inbound::Text(text) => Message::text(text.to_owned()),
            Inbound::Binary(bytes) => Message::binary(bytes.to_vec()),
            _ => return Err(Close::Malformed),
        });
        Ok(())
    }
}

impl Drop for EchoSession {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Ended);
    }
}

struct Server {
    address: SocketAddr,
    events: mpsc::UnboundedReceiver<Event>,
}

fn service(config: WebSocketConfig) -> (WebSocket<Echo>, mpsc::UnboundedReceiver<Event>) {
    let (tx, events) = mpsc::unbounded_channel();
    let limits = Limits::new().max_outbox(8 << 20);
    (WebSocket::new(Acceptor::new(Echo(tx), CheckOrigin::default(), limits), config), events)
}

impl Server {
    async fn start() -> Self {
        Self::with(WebSocketConfig::new()).await
    }

    async fn with(config: WebSocketConfig) -> Self {
        let (service, events) = service(config);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(service.clone());
                tokio::spawn(async move {
                    let mut server = auto::Builder::new(TokioExecutor::new());
                    server.http2().enable_connect_protocol();
                    let stream = TokioIo::new(stream);
                    let _ = server.serve_connection_with_upgrades(stream, service).await;
                });
            }
        });
        Self { address, events }
    }

    async fn tcp(&self) -> Client<TcpStream> {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// Opens a WebSocket.
    async fn open(&mut self) -> (Client<TcpStream>, outbox::Sender) {
        let mut client = self.tcp().await;
        assert_eq!(client.request(&upgrade("", &[])).await.status, 101);
        let Some(Event::Connected(outbox)) = self.events.recv().await else { panic!("connected") };
        (client, outbox)
    }

    async fn ended(&mut self) {
        while !matches!(self.events.recv().await, Some(Event::Ended)) {}
    }
}

struct Client<Io>(Io);

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Client<Io> {
    async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    async fn read(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        self.0.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    async fn request(&mut self, request: &str) -> Answer {
        self.write(request).await;
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push(char::from(self.0.read_u8().await.unwrap()));
        }
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length =
            if request.starts_with("HEAD") { 0 } else { length.unwrap_or("0").parse().unwrap() };
        let body = String::from_utf8(self.read(length).await).unwrap();
        Answer { status: head[9..12].parse().unwrap(), head, body }
    }

    /// Reads a frame and returns its first byte and its payload.
    async fn frame(&mut self) -> (u8, Vec<u8>) {
        let first = self.0.read_u8().await.unwrap();
        let size = match self.0.read_u8().await.unwrap() {
            126 => usize::from(self.0.read_u16().await.unwrap()),
            127 => usize::try_from(self.0.read_u64().await.unwrap()).unwrap(),
            size => usize::from(size),
        };
        (first, self.read(size).await)
    }

    /// Asserts that a CLOSE follows, and nothing after it.
    async fn closed(&mut self, close: Close) {
        assert_eq!(self.frame().await, (0x88, close.code().to_be_bytes().to_vec()));
        assert_eq!(self.0.read(&mut [0]).await.unwrap(), 0);
    }
}

/// An upgrade request. Headers replace the default of the same name; an empty value removes it.
fn upgrade(query: &str, headers: &[(&str, &str)]) -> String {
    let defaults = [
        ("Host", "example.com"),
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ];
    let defaults =
        defaults.iter().filter(|(name, _)| headers.iter().all(|(other, _)| other != name));
    let mut request = format!("GET /socket/websocket?{query} HTTP/1.1\r\n");
    for (name, value) in defaults.chain(headers).filter(|(_, value)| !value.is_empty()) {
        request += &format!("{name}: {value}\r\n");
    }
    request + "\r\n"
}

/// A masked frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    let opcode = (first & 0x0f).try_into().unwrap();
    let payload = payload.to_vec().into();
    let mut frame =
        fastwebsockets::Frame::new(first & 0x80 != 0, opcode, Some([9, 8, 7, 6]), payload);
    frame.mask();
    frame.write(&mut bytes).to_vec()
}

#[tokio::test]
async fn an_upgrade_has_the_response_of_phoenix() {
    let mut client = Server::start().await.tcp().await;
    let answer = client.request(&upgrade("vsn=2.0.0", &[])).await;
    assert_eq!(answer.status, 101);
    let mut names: Vec<_> =
        answer.head.lines().skip(1).filter_map(|line| line.split_once(": ")).collect();
    names.sort_unstable();
    names.retain(|(name, value)| *name != "date" || value.is_empty());
    assert_eq!(
        names,
        [
            ("cache-control", "max-age=0, private, must-revalidate"),
            ("connection", "upgrade"),
            ("sec-websocket-accept", "s3pplmbitxaq9kygzzhzrbk+xoo="),
            ("upgrade", "websocket"),
        ]
    );
}

#[tokio::test]
async fn requests_that_are_not_an_upgrade_are_refused_as_phoenix_does() {
    let server = Server::start().await;
    let other_method = |method| upgrade("", &[]).replacen("GET", method, 1);
    let bad = r#"{"errors":{"detail":"Bad Request"}}"#;
    let no_connection = "'connection' header must contain 'upgrade', got []";
    let no_key = "'sec-websocket-key' header is absent";
    let version = r#"'sec-websocket-version' header must equal '13', got ["12"]"#;
    let http_10 = upgrade("", &[]).replacen("HTTP/1.1", "HTTP/1.0", 1);
    let cases = [
        (upgrade("reject=true", &[]), 403, ""),
        (upgrade("", &[("Origin", "http://evil.example")]), 403, ""),
        (upgrade("foo=%ff", &[]), 400, bad),
        (upgrade("", &[("Connection", "")]), 400, no_connection),
        (upgrade("reject=true", &[("Connection", "")]), 403, ""),
        (upgrade("", &[("Sec-WebSocket-Key", "")]), 400, no_key),
        (upgrade("", &[("Sec-WebSocket-Version", "12")]), 400, version),
        (other_method("POST"), 400, ""),
        (other_method("PUT"), 400, ""),
        (other_method("OPTIONS"), 400, ""),
        (other_method("HEAD"), 400, ""),
        (http_10, 400, "HTTP version HTTP/1.0 unsupported"),
    ];
    for (request, status, body) in cases {
        let answer = server.tcp().await.request(&request).await;
        assert_eq!((answer.status, &*answer.body), (status, body), "{request}");
        assert!(answer.head.contains("max-age=0, private, must-revalidate"), "{request}");
    }
}

#[tokio::test]
async fn unusual_upgrades_are_accepted() {
    let server = Server::start().await;
    for headers in [
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "WebSocket"),
        ("Sec-WebSocket-Key", "short"),
        ("Origin", "http://example.com"),
        ("Sec-WebSocket-Protocol", "chat"),
        ("Sec-WebSocket-Extensions", "permessage-deflate"),
    ] {
        let answer = server.tcp().await.request(&upgrade("", &[headers])).await;
        assert_eq!(answer.status, 101, "{headers:?}");
        for name in ["sec-websocket-protocol", "sec-websocket-extensions"] {
            assert!(!answer.head.contains(name), "{headers:?}");
        }
    }
}

#[tokio::test]
async fn beside_an_auth_token_the_subprotocol_phoenix_is_selected() {
    let mut client = Server::start().await.tcp().await;
    let protocols = ("Sec-WebSocket-Protocol", "phoenix, base64url.bearer.phx.dG9rZW4");
    let answer = client.request(&upgrade("", &[protocols])).await;
    assert_eq!(answer.status, 101);
    assert!(answer.head.contains("\r\nsec-websocket-protocol: phoenix\r\n"));
}

#[tokio::test]
async fn a_refused_upgrade_can_be_repeated_on_the_same_connection() {
    let mut client = Server::start().await.tcp().await;
    assert_eq!(client.request(&upgrade("reject=true", &[])).await.status, 403);
    assert_eq!(client.request(&upgrade("", &[("Upgrade", "h2c")])).await.status, 400);
    assert_eq!(client.request(&upgrade("", &[])).await.status, 101);
    client.write(frame(0x81, b"hello")).await;
    assert_eq!(client.frame().await, (0x81, b"hello".to_vec()));
}

#[tokio::test]
async fn http_1_0_is_refused_and_the_connection_closed() {
    let mut client = Server::start().await.tcp().await;
    let request = upgrade("", &[("Connection", "keep-alive, Upgrade")]);
    assert_eq!(client.request(&request.replacen("HTTP/1.1", "HTTP/1.0", 1)).await.status, 400);
    assert_eq!(client.0.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_server_without_upgrades_is_an_internal_error() {
    let (service, _events) = service(WebSocketConfig::new());
    let request = Request::get("/socket/websocket")
        .header("host", "example.com")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .header("sec-websocket-version", "13");
    let answer = service.oneshot(request.body(()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn a_frame_in_the_same_segment_as_the_request_is_not_lost() {
    let mut client = Server::start().await.tcp().await;
    let mut bytes = upgrade("", &[]).into_bytes();
    bytes.extend(frame(0x81, b"early"));
    client.write(bytes).await;
    assert_eq!(client.request("").await.status, 101);
    assert_eq!(client.frame().await, (0x81, b"early".to_vec()));
}

#[tokio::test]
async fn a_message_of_exactly_the_limit_is_accepted() {
    let (mut client, _) = Server::start().await.open().await;
    let payload = vec![b'x'; 1 << 20];
    for first in [0x81, 0x82] {
        client.write(frame(first, &payload)).await;
        let (opcode, echo) = client.frame().await;
        assert!(opcode == first && echo == payload);
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_before_it_arrives() {
    let (mut client, _) = Server::start().await.open().await;
    client.write(&frame(0x82, &vec![0; (1 << 20) + 1])[..14]).await;
    client.closed(Close::TooBig).await;
}

#[tokio::test]
async fn pings_and_closes_are_answered() {
    let mut server = Server::start().await;
    let (mut client, _) = server.open().await;
    client.write(frame(0x89, b"are you there")).await;
    assert_eq!(client.frame().await, (0x8a, b"are you there".to_vec()));
    client.write(frame(0x88, b"\x03\xe9")).await;
    client.closed(Close::Normal).await;
    server.ended().await;
}

#[tokio::test]
async fn a_close_arrives_although_the_client_keeps_sending() {
    let mut server = Server::start().await;
    let (mut client, _) = server.open().await;
    client.write(frame(0x80, b"a continuation")).await;
    server.ended().await;
    for _ in 0..16 {
        client.write([0; 64 * 1024]).await;
    }
    client.closed(Close::Protocol).await;
}

#[tokio::test]
async fn messages_pushed_before_a_disconnect_arrive() {
    let mut server = Server::start().await;
    let (mut client, outbox) = server.open().await;
    outbox.push(Message::text("bye"));
    outbox.close(Close::GoingAway);
    assert_eq!(client.frame().await, (0x81, b"bye".to_vec()));
    client.closed(Close::GoingAway).await;
    server.ended().await;
}

#[tokio::test]
async fn a_malformed_message_ends_the_connection() {
    let (mut client, _) = Server::start().await.open().await;
    client.write(frame(0x81, b"malformed")).await;
    client.closed(Close::Malformed).await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_disconnected_and_its_session_ends() {
    let config = WebSocketConfig::new().close_timeout(Duration::from_millis(100));
    let mut server = Server::with(config).await;
    let (_client, outbox) = server.open().await;
    let message = Message::binary(vec![0; 1 << 20]);
    // The kernel buffers a few of them.
    while !outbox.is_closed() {
        outbox.push(message.clone());
        tokio::task::yield_now().await;
    }
    server.ended().await;
    while !outbox.is_over() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_client_that_disconnects_ends_its_session() {
    let mut server = Server::start().await;
    let (client, _) = server.open().await;
    drop(client);
    server.ended().await;
}

#[tokio::test]
async fn a_silent_client_is_disconnected() {
    let config = WebSocketConfig::new().idle_timeout(Duration::from_millis(50));
    let (mut client, _) = Server::with(config).await.open().await;
    client.closed(Close::Protocol).await;
}

#[tokio::test]
async fn an_http_2_stream_becomes_a_websocket() {
    let mut server = Server::start().await;
    let stream = TokioIo::new(TcpStream::connect(server.address).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::connect(format!("http://{}/socket/websocket", server.address))
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(Empty::<Bytes>::new())
        .unwrap();
    sender.ready().await.unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let mut client = Client(TokioIo::new(hyper::upgrade::on(response).await.unwrap()));
    let Some(Event::Connected(outbox)) = server.events.recv().await else { panic!("connected") };

    client.write(frame(0x81, b"hello")).await;
    assert_eq!(client.frame().await, (0x81, b"hello".to_vec()));
    let large = vec![7; 300_000];
    client.write(frame(0x82, &large)).await;
    assert!(client.frame().await == (0x82, large));
    outbox.close(Close::Restart);
    client.closed(Close::Restart).await;
    server.ended().await;
}
