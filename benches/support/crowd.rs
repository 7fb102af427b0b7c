//! Many clients of one server on one thread. They wait by polling their sockets, because waking a
//! sleeping client on the same machine would cost the server time that it does not spend on remote
//! clients.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{connect, frame, join, push};

/// A message, and the response that its sender, or every client, receives.
pub(crate) struct Exchange {
    pub(crate) request: Vec<u8>,
    pub(crate) response: Vec<u8>,
    pub(crate) is_broadcast: bool,
}

/// The clients of a topic.
pub(crate) struct Crowd(Vec<TcpStream>);

impl Crowd {
    /// Connects clients that join `topic`.
    pub(crate) fn join(server: SocketAddr, topic: &str, count: usize) -> Self {
        Self::new((0..count).map(|_| join(server, topic)))
    }

    /// Connects clients to a server that greets each with a byte.
    pub(crate) fn connect(server: SocketAddr, count: usize) -> Self {
        Self::new((0..count).map(|_| {
            let mut client = connect(server);
            client.read_exact(&mut [0]).expect("a greeting");
            client
        }))
    }

    fn new(clients: impl Iterator<Item = TcpStream>) -> Self {
        let clients = clients.inspect(|client| client.set_nonblocking(true).expect("an option"));
        Self(clients.collect())
    }

    /// Sends a text of `size` bytes and records the response. A `ping` is answered, everything else
    /// broadcast.
    pub(crate) fn record(&self, topic: &str, event: &str, size: usize) -> Arc<Exchange> {
        let payload = format!(r#"{{"body":"{}"}}"#, "x".repeat(size));
        let (request, is_broadcast) = (push("2", topic, event, &payload), event != "ping");
        let mut exchange = Exchange { request, response: Vec::new(), is_broadcast };
        self.send(&exchange, 1);
        let count = if is_broadcast { self.0.len() } else { 1 };
        self.0[..count].iter().for_each(|client| exchange.response = frame(Polling(client)));
        Arc::new(exchange)
    }

    /// Makes each of the first `count` clients send `times` requests, waiting for the response
    /// before the next one.
    pub(crate) fn echo(&self, exchange: &Exchange, count: usize, times: usize) -> usize {
        let clients = &self.0[..count.min(self.0.len())];
        let send = |mut client: &TcpStream| client.write_all(&exchange.request).expect("written");
        clients.iter().for_each(send);
        for _ in 1..times {
            for client in clients {
                receive(client, exchange);
                send(client);
            }
        }
        clients.iter().for_each(|client| receive(client, exchange));
        clients.len() * times
    }

    /// Sends the request `times` times from the first client.
    pub(crate) fn send(&self, exchange: &Exchange, times: usize) {
        (&self.0[0]).write_all(&exchange.request.repeat(times)).expect("written");
    }

    /// Receives the response once on every client.
    pub(crate) fn receive(&self, exchange: &Exchange) -> usize {
        self.0.iter().for_each(|client| receive(client, exchange));
        self.0.len()
    }

    /// Sends the request `times` times from the first client and receives the broadcasts on every
    /// client. At most `window` messages are in flight.
    pub(crate) fn publish(&self, exchange: &Exchange, window: usize, times: usize) -> usize {
        let size = exchange.response.len();
        let expected = exchange.response.repeat(window + 1);
        let mut buffer = vec![0; window * size];
        let mut received = vec![0; self.0.len()];
        let (mut sent, mut arrived) = (0, 0);
        while arrived < times {
            let due = times.min(arrived + window) - sent;
            if due > 0 {
                self.send(exchange, due);
                sent += due;
            }
            for (client, received) in self.0.iter().zip(&mut received) {
                while *received < (arrived + 1) * size {
                    let more = Polling(client).read(&mut buffer).expect("read");
                    assert_eq!(buffer[..more], expected[*received % size..][..more]);
                    *received += more;
                }
            }
            arrived = received.iter().min().map_or(times, |least| least / size);
        }
        self.0.len() * times
    }
}

fn receive(client: &TcpStream, exchange: &Exchange) {
    let mut received = vec![0; exchange.response.len()];
    Polling(client).read_exact(&mut received).expect("read");
    assert!(received == exchange.response, "{}", String::from_utf8_lossy(&received));
}

/// A reader that polls a non-blocking socket until it is readable.
struct Polling<'a>(&'a TcpStream);

impl Read for Polling<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < until => {
                    thread::yield_now();
                }
                read => {
                    return read.and_then(|size| match size {
                        0 => Err(ErrorKind::UnexpectedEof.into()),
                        size => Ok(size),
                    });
                }
            }
        }
    }
}
