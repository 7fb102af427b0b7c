//! A hand-written WebSocket client that sends arbitrary bytes, valid or not, and returns every
//! frame received.

use std::panic::Location;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

use super::{Http, Server, corpus, soon};

/// The headers of an upgrade. The key is the example of RFC 6455 section 1.3.
pub(crate) const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Version", "13"),
];

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub(crate) const TEXT: u8 = 1;
pub(crate) const BINARY: u8 = 2;
pub(crate) const CLOSE: u8 = 8;
pub(crate) const PING: u8 = 9;
pub(crate) const PONG: u8 = 10;

pub(crate) struct RawWebSocket {
    stream: BufReader<TcpStream>,
    sent: Vec<u8>,
}

/// A complete frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl RawWebSocket {
    /// Upgrades with these parameters.
    pub(crate) async fn open(server: &Server, parameters: &str) -> Self {
        Self::upgrade(Http::connect(server).await, parameters).await
    }

    /// Opens a socket of 2.0.0 and joins `room:a` under `"1"`.
    pub(crate) async fn member(server: &Server) -> Self {
        let mut socket = Self::open(server, "vsn=2.0.0").await;
        socket.send_text(r#"["1","1","room:a","phx_join",{}]"#).await;
        socket.expect_text(r#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#).await;
        socket.expect_text(r#"["1",null,"room:a","joined",{"user_id":null}]"#).await;
        socket
    }

    /// Upgrades with a receive buffer so small that a client that does not read is soon noticed.
    pub(crate) async fn open_with_small_buffer(server: &Server, parameters: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        let stream = socket.connect(server.address()).await.expect("a server that listens");
        Self::upgrade(Http::over(stream, "localhost"), parameters).await
    }

    async fn upgrade(mut http: Http, parameters: &str) -> Self {
        let target = format!("/socket/websocket?{parameters}");
        let response = http.request("GET", &target, &UPGRADE, b"").await;
        assert_eq!(response.status, 101, "{response:?}");
        Self::after_upgrade(http)
    }

    /// Wraps a connection that has been upgraded.
    pub(crate) fn after_upgrade(http: Http) -> Self {
        Self { stream: http.into_stream(), sent: Vec::new() }
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.send_bytes(&frame(0x80 | TEXT, text.as_bytes())).await;
    }

    pub(crate) async fn send_binary(&mut self, bytes: &[u8]) {
        self.send_bytes(&frame(0x80 | BINARY, bytes)).await;
    }

    /// Sends bytes unchanged. Errors are ignored: the server may have closed already, which reading
    /// will show.
    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.sent.extend_from_slice(bytes);
        let _ = self.stream.write_all(bytes).await;
    }

    /// Receives the next frame, or `None` once the connection has ended.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> impl Future<Output = Option<Frame>> {
        soon(self.next())
    }

    /// Receives the next frame without a deadline.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 2];
        self.fill(&mut head).await?;
        assert_eq!(head[0] & 0xf0, 0x80, "a frame in one piece without reserved bits");
        assert_eq!(head[1] & 0x80, 0, "a frame without a mask");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.fill(&mut length).await?;
                usize::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                self.fill(&mut length).await?;
                usize::try_from(u64::from_be_bytes(length)).expect("a length")
            }
            length => usize::from(length),
        };
        let mut payload = vec![0; length];
        self.fill(&mut payload).await?;
        Some(Frame { opcode: head[0] & 0x0f, payload })
    }

    /// Expects this text frame next.
    #[track_caller]
    pub(crate) fn expect_text(&mut self, text: &str) -> impl Future<Output = ()> {
        self.expect_frame(TEXT, text.as_bytes())
    }

    /// Expects this frame next.
    #[track_caller]
    pub(crate) fn expect_frame(&mut self, opcode: u8, payload: &[u8]) -> impl Future<Output = ()> {
        let caller = Location::caller();
        let next = self.frame();
        async move {
            let expected = Frame { opcode, payload: payload.to_vec() };
            let got =
                next.await.unwrap_or_else(|| panic!("{caller}: ended, expected {expected:?}"));
            assert_eq!(shown(&got), shown(&expected), "{caller}");
        }
    }

    /// Expects a close with this code and no reason next, and then the end of the connection.
    #[track_caller]
    pub(crate) fn expect_close(&mut self, code: u16) -> impl Future<Output = ()> {
        let caller = Location::caller();
        soon(async move {
            let got = self.frame().await;
            let got = got.unwrap_or_else(|| panic!("{caller}: ended, expected close {code}"));
            let expected = Frame { opcode: CLOSE, payload: code.to_be_bytes().to_vec() };
            assert_eq!(shown(&got), shown(&expected), "{caller}");
            assert_eq!(self.frame().await, None, "{caller}: the end after a close");
        })
    }

    /// Expects the reply to a heartbeat next: nothing sent before was answered.
    #[track_caller]
    pub(crate) fn expect_nothing(&mut self) -> impl Future<Output = ()> {
        let caller = Location::caller();
        async move {
            self.send_text(r#"[null,"quiet","phoenix","heartbeat",{}]"#).await;
            let got = self.frame().await.unwrap_or_else(|| panic!("{caller}: ended"));
            let reply = r#"[null,"quiet","phoenix","phx_reply",{"status":"ok","response":{}}]"#;
            let expected = Frame { opcode: TEXT, payload: reply.into() };
            assert_eq!(shown(&got), shown(&expected), "{caller}");
        }
    }

    /// Closes the sending direction and waits until the server has closed the connection.
    pub(crate) async fn hang_up(mut self) {
        let _ = self.stream.shutdown().await;
        let mut unread = Vec::new();
        let _ = soon(self.stream.read_to_end(&mut unread)).await;
    }

    async fn fill(&mut self, buffer: &mut [u8]) -> Option<()> {
        self.stream.read_exact(buffer).await.ok().map(|_| ())
    }
}

impl Drop for RawWebSocket {
    fn drop(&mut self) {
        corpus::save("websocket", &self.sent);
    }
}

/// A masked frame with the given first byte (FIN, reserved bits and opcode).
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = head(first, payload.len() as u64);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The head of a masked frame that announces `length` bytes.
pub(crate) fn head(first: u8, length: u64) -> Vec<u8> {
    let mut bytes = vec![first];
    match length {
        0..=125 => bytes.push(0x80 | length as u8),
        126..=0xffff => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        _ => {
            bytes.push(0x80 | 127);
            bytes.extend(length.to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes
}

/// A close frame with this code and reason.
pub(crate) fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(0x80 | CLOSE, &[&code.to_be_bytes(), reason].concat())
}

/// Formats a frame for failed assertions.
fn shown(frame: &Frame) -> String {
    let payload = match (frame.opcode, frame.payload.as_slice()) {
        (CLOSE, &[high, low, ref reason @ ..]) => {
            format!("{} {:?}", u16::from_be_bytes([high, low]), String::from_utf8_lossy(reason))
        }
        (TEXT, text) => String::from_utf8_lossy(text).into_owned(),
        (_, bytes) => format!("{bytes:?}"),
    };
    format!("opcode {}: {payload}", frame.opcode)
}

#[test]
fn a_masked_frame_equals_the_example_of_the_rfc() {
    let expected = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(frame(0x81, b"Hello"), expected);
    assert_eq!(head(0x82, 256)[..4], [0x82, 0xfe, 1, 0]);
    assert_eq!(head(0x82, 65536)[..10], [0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 0]);
}

#[tokio::test]
async fn frames_and_the_end_of_the_connection_are_read() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    let mut long = vec![0x81, 126, 0, 200];
    long.extend([b'x'; 200]);
    server.write_all(&[0x81, 2, b'h', b'i']).await.unwrap();
    server.write_all(&long).await.unwrap();
    server.write_all(&[0x88, 2, 3, 233]).await.unwrap();
    drop(server);
    let mut socket = RawWebSocket::after_upgrade(Http::over(stream, "localhost"));
    socket.expect_text("hi").await;
    socket.expect_text(&"x".repeat(200)).await;
    socket.expect_close(1001).await;
}
