//! Many clients of one server, in one thread. They wait by asking again and again: the server would
//! pay for waking a client that sleeps, which it does not for one elsewhere.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::{connect, frame, join, push};

/// What a client says, and what it or everyone is told then.
pub(crate) struct Talk {
    pub(crate) question: Vec<u8>,
    pub(crate) answer: Vec<u8>,
    pub(crate) everyone: bool,
}

/// The clients of a topic.
pub(crate) struct Crowd(Vec<TcpStream>);

impl Crowd {
    /// Clients that have joined `topic`.
    pub(crate) fn join(server: SocketAddr, topic: &str, count: usize) -> Self {
        Self::new((0..count).map(|_| join(server, topic)))
    }

    /// Clients of a server that greets them with a byte.
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

    /// Hears what is answered to a text of `size` bytes: everyone is, unless it is a `ping`.
    pub(crate) fn learn(&self, topic: &str, event: &str, size: usize) -> Arc<Talk> {
        let payload = format!(r#"{{"body":"{}"}}"#, "x".repeat(size));
        let (question, everyone) = (push("2", topic, event, &payload), event != "ping");
        let mut talk = Talk { question, answer: Vec::new(), everyone };
        self.say(&talk, 1);
        let count = if everyone { self.0.len() } else { 1 };
        self.0[..count].iter().for_each(|client| talk.answer = frame(Patient(client)));
        Arc::new(talk)
    }

    /// Has each of the first `count` clients ask `times` times, and each is answered before it asks
    /// again.
    pub(crate) fn echo(&self, talk: &Talk, count: usize, times: usize) -> usize {
        let clients = &self.0[..count.min(self.0.len())];
        let ask = |mut client: &TcpStream| client.write_all(&talk.question).expect("written");
        clients.iter().for_each(ask);
        for _ in 1..times {
            for client in clients {
                hear(client, talk);
                ask(client);
            }
        }
        clients.iter().for_each(|client| hear(client, talk));
        clients.len() * times
    }

    /// The first client says it so many times.
    pub(crate) fn say(&self, talk: &Talk, times: usize) {
        (&self.0[0]).write_all(&talk.question.repeat(times)).expect("written");
    }

    /// Everyone hears it once.
    pub(crate) fn hear(&self, talk: &Talk) -> usize {
        self.0.iter().for_each(|client| hear(client, talk));
        self.0.len()
    }

    /// The first client says it `times` times, and everyone hears it. As many as `window` are under
    /// way: the next one leaves when one has reached everyone.
    pub(crate) fn publish(&self, talk: &Talk, window: usize, times: usize) -> usize {
        let size = talk.answer.len();
        let expected = talk.answer.repeat(window + 1);
        let mut buffer = vec![0; window * size];
        let mut received = vec![0; self.0.len()];
        let (mut said, mut arrived) = (0, 0);
        while arrived < times {
            let due = times.min(arrived + window) - said;
            if due > 0 {
                self.say(talk, due);
                said += due;
            }
            for (client, received) in self.0.iter().zip(&mut received) {
                while *received < (arrived + 1) * size {
                    let more = Patient(client).read(&mut buffer).expect("read");
                    assert_eq!(buffer[..more], expected[*received % size..][..more]);
                    *received += more;
                }
            }
            arrived = received.iter().min().map_or(times, |least| least / size);
        }
        self.0.len() * times
    }
}

fn hear(client: &TcpStream, talk: &Talk) {
    let mut received = vec![0; talk.answer.len()];
    Patient(client).read_exact(&mut received).expect("read");
    assert!(received == talk.answer, "{}", String::from_utf8_lossy(&received));
}

/// Asks until there is something.
struct Patient<'a>(&'a TcpStream);

impl Read for Patient<'_> {
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
