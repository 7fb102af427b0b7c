//! A hand-written HTTP/1.1 client on one persistent connection, for arbitrary requests and raw
//! responses.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::{Server, corpus, soon};

pub(crate) struct Http {
    stream: BufReader<TcpStream>,
    host: String,
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Http {
    pub(crate) async fn connect(server: &Server) -> Self {
        let stream = TcpStream::connect(server.address()).await.expect("a server that listens");
        Self::over(stream, &server.address().to_string())
    }

    pub(crate) fn over(stream: TcpStream, host: &str) -> Self {
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream: BufReader::new(stream), host: host.to_owned() }
    }

    pub(crate) async fn get(&mut self, target: &str) -> Response {
        self.request("GET", target, &[], b"").await
    }

    /// Sends a request and reads its response. Adds `Host` and `Content-Length` if they are
    /// missing.
    #[track_caller]
    pub(crate) fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> impl Future<Output = Response> {
        soon(async move {
            self.send_request(method, target, headers, body).await;
            self.response_to(method).await.expect("a response")
        })
    }

    /// Sends a request without reading the response.
    pub(crate) async fn send_request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        if let Some((_, query)) = target.split_once('?') {
            match query.split_once("token=") {
                // Contains a token of this run; such queries are all alike as seeds.
                Some((_, token)) if token.len() > 20 => {}
                _ => corpus::save("query", query.as_bytes()),
            }
        }
        let given = |name: &str| headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        let mut request = format!("{method} {target} HTTP/1.1\r\n");
        if !given("host") {
            request += &format!("Host: {}\r\n", self.host);
        }
        if !given("content-length") && !given("transfer-encoding") && method == "POST" {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        self.write(&bytes).await;
    }

    /// Sends arbitrary bytes. Errors are ignored: the server may have responded and closed already,
    /// which reading will show.
    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// Reads a response, or `None` if the connection has ended.
    pub(crate) async fn response_to(&mut self, method: &str) -> Option<Response> {
        let start = self.line().await?;
        let status = start
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("not a status line: {start}"));
        let mut response = Response { status, headers: Vec::new(), body: String::new() };
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').expect("a header");
            response.headers.push((name.to_lowercase(), value.trim().to_owned()));
        }
        let bodiless = method == "HEAD" || status == 101 || status == 204;
        if !bodiless {
            assert_eq!(response.header("transfer-encoding"), None, "responses have a length");
            let length = response
                .header("content-length")
                .map_or(0, |length| length.parse().expect("a number"));
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.expect("the whole body");
            response.body = String::from_utf8(body).expect("text");
        }
        Some(response)
    }

    /// Returns whether the server closes this connection without sending more.
    pub(crate) async fn ended(&mut self) -> bool {
        matches!(soon(self.stream.read(&mut [0])).await, Ok(0) | Err(_))
    }

    /// Returns the underlying connection, after an upgrade.
    pub(crate) fn into_stream(self) -> BufReader<TcpStream> {
        self.stream
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end_matches(['\r', '\n']).to_owned()),
        }
    }
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Asserts HTTP status 200 and this body, which contains the actual status.
    #[track_caller]
    pub(crate) fn expect_body(&self, body: &str) {
        assert_eq!((self.status, &*self.body), (200, body), "{self:?}");
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

#[tokio::test]
async fn two_responses_on_one_connection_are_separated() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    server
        .write_all(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nokHTTP/1.1 204 No\r\n\r\n",
        )
        .await
        .unwrap();
    drop(server);
    let mut http = Http::over(stream, "localhost");
    let first = http.response_to("GET").await.unwrap();
    assert_eq!((first.status, first.header("x-a"), &*first.body), (200, Some("b"), "ok"));
    assert_eq!(http.response_to("GET").await.unwrap().status, 204);
    assert!(http.response_to("GET").await.is_none());
}
