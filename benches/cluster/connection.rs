//! A WebSocket of a lean client.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    /// How much of it was read.
    read: usize,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Connection {
    /// Opens a WebSocket with these parameters. `None` if the server refuses it, or the connection ends.
    pub(crate) async fn open(server: SocketAddr, query: &str) -> Option<Self> {
        let stream = TcpStream::connect(server).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Self::over(stream, query).await
    }

    /// Opens a WebSocket over a stream.
    pub(crate) async fn over(stream: impl Stream + 'static, query: &str) -> Option<Self> {
        let mut connection = Self { stream: Box::new(stream), buffer: Vec::new(), read: 0 };
        let request = format!(
            "GET /socket/websocket?vsn=2.0.0&{query} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n"
        );
        connection.write(request.as_bytes()).await?;
        loop {
            if let Some(end) = connection.buffer.windows(4).position(|it| it == b"\r\n\r\n") {
                connection.read = end + 4;
                return connection.buffer.starts_with(b"HTTP/1.1 101 ").then_some(connection);
            }
            connection.fill().await?;
        }
    }

    /// `None` if the connection has ended.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Option<()> {
        self.stream.write_all(bytes).await.ok()
    }

    /// Reads more. `None` if the connection has ended.
    async fn fill(&mut self) -> Option<()> {
        (self.stream.read_buf(&mut self.buffer).await.ok()? > 0).then_some(())
    }

    /// Receives the next text message, and answers Pings before it. `None` if the connection has ended.
    ///
    /// Cancel safety: no message is lost.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            while let Some((kind, head, size)) = head(&self.buffer[self.read..]) {
                let begin = self.read + head;
                let Some(message) = self.buffer.get(begin..begin + size) else { break };
                self.read = begin + size;
                match kind {
                    1 => return Some(String::from_utf8(message.to_vec()).expect("text")),
                    8 => return None,
                    9 => {
                        // Short enough for the buffer of the socket, and with a mask of zeros.
                        let pong =
                            [&[0x8A, 0x80 | message.len() as u8, 0, 0, 0, 0], message].concat();
                        self.stream.write_all(&pong).await.ok()?;
                    }
                    _ => {}
                }
            }
            self.buffer.drain(..std::mem::take(&mut self.read));
            self.fill().await?;
        }
    }
}

/// The kind of a frame, the length of its head and that of the rest.
fn head(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let (kind, size) = (bytes.first()? & 15, *bytes.get(1)?);
    match size {
        126 => Some((kind, 4, u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]).into())),
        127 => panic!("a long message"),
        size => Some((kind, 2, size.into())),
    }
}

/// The number of a message that has one.
pub(crate) fn number(message: &str) -> Option<u64> {
    message.strip_prefix(r#"[null,"s:"#)?.split('"').next()?.parse().ok()
}
