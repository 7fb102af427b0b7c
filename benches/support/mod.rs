//! Shared parts of the benches: a minimal WebSocket client, and CPU times of threads.

#![allow(dead_code, reason = "not every bench uses all of it")]

pub(crate) mod baseline;
pub(crate) mod by_hand;
pub(crate) mod crowd;
pub(crate) mod local;
pub(crate) mod long_poll;
pub(crate) mod room;
pub(crate) mod server;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Opens a WebSocket and joins `topic`.
pub(crate) fn join(server: SocketAddr, topic: &str) -> TcpStream {
    let mut client = upgrade(server, "/socket");
    client.write_all(&push("1", topic, "phx_join", "{}")).expect("written");
    let reply = frame(&mut client);
    assert!(reply.ends_with(b"\"response\":{}}]"), "{}", String::from_utf8_lossy(&reply));
    client
}

/// Opens a WebSocket of what is mounted at `path`.
pub(crate) fn upgrade(server: SocketAddr, path: &str) -> TcpStream {
    let mut client = connect(server);
    let request = format!(
        "GET {path}/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n"
    );
    client.write_all(request.as_bytes()).expect("written");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).expect("a response");
        head.extend(byte);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    client
}

/// Opens a connection with a read timeout.
pub(crate) fn connect(server: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(server).expect("connected");
    client.set_nodelay(true).expect("a socket option");
    client.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket option");
    client
}

/// Encodes a message as a client frame, with a mask of zeros.
pub(crate) fn push(reference: &str, topic: &str, event: &str, payload: &str) -> Vec<u8> {
    let message = format!(r#"["1","{reference}","{topic}","{event}",{payload}]"#);
    let mut frame = vec![0x81];
    match (u8::try_from(message.len()), u16::try_from(message.len())) {
        (Ok(short @ ..=125), _) => frame.push(0x80 | short),
        (_, Ok(size)) => {
            frame.push(0x80 | 126);
            frame.extend(size.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((message.len() as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(message.as_bytes());
    frame
}

/// Receives the next frame of the server, including its header.
pub(crate) fn frame(mut client: impl Read) -> Vec<u8> {
    let mut frame = vec![0; 2];
    client.read_exact(&mut frame).expect("a frame");
    let mut size = usize::from(frame[1]);
    if size > 125 {
        frame.resize(if size == 126 { 4 } else { 10 }, 0);
        client.read_exact(&mut frame[2..]).expect("a frame");
        size = frame[2..].iter().fold(0, |size, byte| size << 8 | usize::from(*byte));
    }
    let head = frame.len();
    frame.resize(head + size, 0);
    client.read_exact(&mut frame[head..]).expect("a frame");
    frame
}

/// A thread of this process, whose times can be read from other threads.
pub(crate) struct Thread(String);

impl Thread {
    /// Returns the calling thread.
    pub(crate) fn current() -> Self {
        let link = fs::read_link("/proc/thread-self").expect("Linux");
        Self(format!("/proc/{}", link.display()))
    }

    /// Returns the CPU time used.
    pub(crate) fn cpu(&self) -> Duration {
        self.statistic(0)
    }

    /// Returns the time spent runnable but waiting for a processor.
    pub(crate) fn waited(&self) -> Duration {
        self.statistic(1)
    }

    fn statistic(&self, field: usize) -> Duration {
        let text = fs::read_to_string(format!("{}/schedstat", self.0)).unwrap_or_default();
        let nanoseconds = text.split(' ').nth(field).and_then(|text| text.parse().ok());
        Duration::from_nanos(nanoseconds.unwrap_or(0))
    }

    /// Returns the clock ticks spent in user space and in the kernel, a coarse measure.
    pub(crate) fn ticks(&self) -> [u64; 2] {
        let text = fs::read_to_string(format!("{}/stat", self.0)).unwrap_or_default();
        // The name can contain anything, so parse after its closing parenthesis, where the third
        // field starts.
        let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
        let mut ticks = fields.skip(11).map(|field| field.parse().unwrap_or(0));
        [ticks.next().unwrap_or(0), ticks.next().unwrap_or(0)]
    }
}

/// Returns the median.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Returns a number from the environment, or the default.
pub(crate) fn setting(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Returns the number of connections: `CONNECTIONS` or the default, reduced if the limit of file
/// descriptors is too low.
pub(crate) fn connections(default: usize, descriptors: usize) -> usize {
    let count = setting("CONNECTIONS", default);
    count.min((allowed(count * descriptors + SPARE) - SPARE) / descriptors)
}

/// Raises the limit of open files to `descriptors`, or as far as permitted, and returns the new
/// limit.
pub(crate) fn allowed(descriptors: usize) -> usize {
    let limit = rlimit::increase_nofile_limit(descriptors as u64).expect("a limit of open files");
    usize::try_from(limit).unwrap_or(descriptors)
}

/// File descriptors used by the process besides its connections.
pub(crate) const SPARE: usize = 64;
