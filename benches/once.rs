//! What it costs to handle each push once: the time of a push and its reply in a resumable session with
//! `pushes=once`, compared with one without, in memory and in alternating turns.
//!
//! `cargo bench --bench once`

mod support;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::future::ready;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use hyper::Request;
use tower_channels::{ConnectInfo, Endpoint, Rejected, ResumeConfig, Transport};
use tower_channels_transports::{Acceptor, Handler, Inbound, Message, Session, outbox};

use self::support::median;
use self::support::room::Room;

const TURNS: usize = 101;
const PUSHES: u64 = 1000;
/// A push over a socket and its reply, in ns; see `delivery`.
const ECHO: f64 = 12_300.0;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let endpoint = Endpoint::builder(|_| ready(Ok::<_, Rejected>(())))
        .channel::<Room>("room:*")
        .resume(ResumeConfig::new().anonymous(true))
        .build();
    let mut clients = [
        Client::join(&endpoint.acceptor(), "session=0123456789abcdefghijkl").await,
        Client::join(&endpoint.acceptor(), "session=abcdefghijkl0123456789&pushes=once").await,
    ];
    let mut times: [Vec<f64>; 2] = Default::default();
    for _ in 0..TURNS {
        for (client, times) in clients.iter_mut().zip(&mut times) {
            let start = Instant::now();
            client.echo().await;
            times.push(start.elapsed().as_nanos() as f64 / PUSHES as f64);
        }
    }
    let [off, on] = times.map(median);
    println!("a push and its reply in memory: {off:.0} ns, with `pushes=once` {on:.0} ns");
    println!("{:+.2} % of an echo over a socket; target +2 %", 100.0 * (on - off) / ECHO);
}

struct Client {
    session: Box<dyn Session>,
    receiver: outbox::Receiver,
    next: u64,
    message: String,
    replies: VecDeque<Message>,
}

impl Client {
    async fn join(acceptor: &Acceptor<impl Handler>, params: &str) -> Self {
        let request = Request::get(format!("/socket?vsn=2.0.0&{params}"));
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let info = ConnectInfo::from_request_parts(&parts, Transport::WebSocket).expect("a query");
        let (session, receiver) = acceptor.connect(info).await.expect("it is accepted");
        let session: Box<dyn Session> = Box::new(session);
        let (message, replies) = (String::new(), VecDeque::new());
        let mut client = Self { session, receiver, next: 2, message, replies };
        client.send(r#"["1","1","room:a","phx_join",{}]"#);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        client.receive();
        client
    }

    fn send(&mut self, message: &str) {
        self.session.handle_in(Inbound::Text(message)).expect("it is handled");
    }

    /// Pushes, one after the other, and receives the replies.
    async fn echo(&mut self) {
        for _ in 0..PUSHES {
            let mut message = std::mem::take(&mut self.message);
            message.clear();
            write!(message, r#"["1","{}","room:a","ping",{{}}]"#, self.next).expect("memory");
            self.send(&message);
            self.message = message;
            self.next += 1;
            while self.receive() == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn receive(&mut self) -> usize {
        let mut context = Context::from_waker(Waker::noop());
        match self.receiver.poll_take(&mut context, &mut self.replies) {
            Poll::Ready(taken) => taken.expect("it is open"),
            Poll::Pending => return 0,
        }
        self.receiver.read();
        let received = self.replies.len();
        self.replies.clear();
        received
    }
}
