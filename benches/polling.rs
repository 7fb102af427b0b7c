//! What the server's thread uses for an echo over long poll, which is a POST and the poll that brings
//! the answer, and for a delivery to polls that wait, beside a hyper handler that answers both with
//! constants and looks at nothing but the path. Both serve in one thread, over loopback, in turns.
//!
//! `cargo bench --bench polling`; `CONNECTIONS` (the sessions, default 1000) needs eight
//! file descriptors each.

mod support;

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;

use self::support::server::{Costs, Server};
use self::support::{connect, connections};

/// One session: a connection for its polls, one for its POSTs, and the path of both.
struct Client {
    polls: TcpStream,
    posts: TcpStream,
    path: String,
}

impl Client {
    fn new(server: SocketAddr, path: String) -> Self {
        Self { polls: connect(server), posts: connect(server), path }
    }

    /// A client of ours that has joined.
    fn join(server: SocketAddr) -> Self {
        let mut client = Self::new(server, "/socket/longpoll?vsn=2.0.0".to_owned());
        client.poll();
        client.path.push_str("&token=");
        client.take();
        client.post(&push("phx_join", "{}"));
        client.poll();
        client.take();
        client
    }

    fn poll(&mut self) {
        let request = format!("GET {} HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n", self.path);
        self.polls.write_all(request.as_bytes()).expect("written");
    }

    /// What the poll is answered. The next one has its token.
    fn take(&mut self) -> usize {
        let answer = read(&mut self.polls);
        if let Some((_, token)) = answer.split_once(r#""token":""#) {
            let path = self.path.rfind('=').expect("a parameter") + 1;
            self.path.replace_range(path.., token.trim_end_matches(r#""}"#));
        }
        answer.len()
    }

    fn post(&mut self, message: &str) {
        let (path, length) = (&self.path, message.len());
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\n\
             Content-Length: {length}\r\n\r\n{message}"
        );
        self.posts.write_all(request.as_bytes()).expect("written");
        assert_eq!(read(&mut self.posts), ACCEPTED);
    }
}

const ACCEPTED: &str = r#"{"status":200}"#;

fn push(event: &str, payload: &str) -> String {
    format!(r#"["1","1","room:a","{event}",{payload}]"#)
}

/// The body of the next answer.
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

fn main() {
    let count = connections(1000, 8);
    let server = Server::new(1);
    let ours = server.rooms();
    let waiting: Arc<[Notify]> = (0..count).map(|_| Notify::new()).collect();
    let least = server.accept(move |io| {
        let waiting = Arc::clone(&waiting);
        let service = service_fn(move |request| answer(request, Arc::clone(&waiting)));
        let http = http1::Builder::new().serve_connection(TokioIo::new(io), service);
        async { drop(http.await) }
    });
    let ours = (0..count).map(|_| Client::join(ours)).collect();
    let least = (0..count).map(|id| Client::new(least, format!("/{id}"))).collect();
    let mut both: [Vec<Client>; 2] = [ours, least];

    println!("{count} sessions, the server's CPU in us; medians\n");
    println!("{:<34}{:>8}{:>10}{:>8}{:>8}", "", "us", "least us", "ratio", "target");
    let mut row = |what: &str, work: &dyn Fn(&mut [Client]) -> usize| {
        let mut costs = [Costs::default(), Costs::default()];
        for _ in 0..TURNS {
            for (costs, clients) in costs.iter_mut().zip(&mut both) {
                server.turn(costs, || work(clients));
            }
        }
        let [ours, least] = costs;
        let (us, least_us, ratio) = (ours.us(), least.us(), ours.ratio(&least));
        println!("{what:<34}{us:>8.2}{least_us:>10.2}{ratio:>8.2}{:>8.2}", 1.30);
    };
    let payload = format!(r#"{{"body":"{}"}}"#, "x".repeat(64));
    let (ping, publish) = (push("ping", &payload), push("new_msg", &payload));
    row("an echo, 64 at a time", &|clients| {
        let count = clients.len().min(64);
        exchange(&mut clients[..count], |clients| {
            clients.iter_mut().for_each(|client| client.post(&ping));
        })
    });
    row("a delivery, one message at a time", &|clients| {
        exchange(clients, |clients| clients[0].post(&publish))
    });
}

const TURNS: usize = 15;

/// Everyone polls, something is posted, and everyone is answered.
fn exchange(clients: &mut [Client], post: impl Fn(&mut [Client])) -> usize {
    clients.iter_mut().for_each(Client::poll);
    post(clients);
    let sizes = clients.iter_mut().map(Client::take);
    assert!(sizes.min() > Some(64), "an answer without the message");
    clients.len()
}

/// The least that a hyper handler can do.
async fn answer(
    request: Request<Incoming>,
    waiting: Arc<[Notify]>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let client = request.uri().path()[1..].parse::<usize>().expect("a client");
    let answer = if request.method() == Method::GET {
        waiting[client].notified().await;
        ANSWER
    } else {
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let everyone = body.starts_with(br#"["1","1","room:a","new_msg""#);
        let woken = if everyone { &waiting[..] } else { &waiting[client..=client] };
        woken.iter().for_each(Notify::notify_one);
        ACCEPTED
    };
    let mut answer = Response::new(Full::from(answer));
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    Ok(answer)
}

/// What one of ours says that brings an echo, but for the token.
const ANSWER: &str = r#"{"messages":["[\"1\",\"1\",\"room:a\",\"phx_reply\",{\"status\":\"ok\",\"response\":{\"body\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}}]"],"status":200}"#;
