//! A minimal long-poll client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::connect;

/// A session with a connection for polls, one for POSTs, and the path of both.
pub(crate) struct Client {
    polls: TcpStream,
    posts: TcpStream,
    path: String,
}

impl Client {
    pub(crate) fn new(server: SocketAddr, path: String) -> Self {
        Self { polls: connect(server), posts: connect(server), path }
    }

    /// Connects to our server and joins.
    pub(crate) fn join(server: SocketAddr) -> Self {
        let mut client = Self::new(server, "/socket/longpoll?vsn=2.0.0".to_owned());
        client.poll();
        client.path.push_str("&token=");
        client.take();
        client.post(&push("phx_join", "{}"));
        client.poll();
        client.take();
        client
    }

    /// Sends further requests to another server.
    pub(crate) fn move_to(&mut self, server: SocketAddr) {
        (self.polls, self.posts) = (connect(server), connect(server));
    }

    pub(crate) fn poll(&mut self) {
        let request = format!("GET {} HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n", self.path);
        self.polls.write_all(request.as_bytes()).expect("written");
    }

    /// Receives the response to a poll and adopts its token. Returns the length of the response.
    pub(crate) fn take(&mut self) -> usize {
        let answer = read(&mut self.polls);
        if let Some((_, token)) = answer.split_once(r#""token":""#) {
            let path = self.path.rfind('=').expect("a parameter") + 1;
            self.path.replace_range(path.., token.trim_end_matches(r#""}"#));
        }
        answer.len()
    }

    pub(crate) fn post(&mut self, message: &str) {
        let (path, length) = (&self.path, message.len());
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\n\
             Content-Length: {length}\r\n\r\n{message}"
        );
        self.posts.write_all(request.as_bytes()).expect("written");
        assert_eq!(read(&mut self.posts), ACCEPTED);
    }
}

pub(crate) const ACCEPTED: &str = r#"{"status":200}"#;

/// Encodes a message to the room.
pub(crate) fn push(event: &str, payload: &str) -> String {
    format!(r#"["1","1","room:a","{event}",{payload}]"#)
}

/// Reads the body of the next response.
fn read(connection: &mut TcpStream) -> String {
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let size = connection.read(&mut buffer).expect("read");
        assert!(size > 0, "the server closed the connection");
        answer.extend_from_slice(&buffer[..size]);
        let text = str::from_utf8(&answer).expect("text");
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.split_once("content-length: ").expect("a length").1;
            let length = length.split("\r\n").next().and_then(|length| length.parse().ok());
            if Some(body.len()) == length {
                return body.to_owned();
            }
        }
    }
}
