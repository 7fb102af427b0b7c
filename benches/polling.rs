//! Server CPU per echo over long poll (a POST, and the poll that returns the reply) and per
//! delivery to pending polls, compared with a baseline hyper handler that returns canned responses
//! and parses nothing but the path. Both run on one thread over loopback, in alternating turns.
//!
//! `cargo bench --bench polling`; each of `CONNECTIONS` (the number of sessions, default 1000)
//! needs eight file descriptors.

mod support;

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;

use self::support::connections;
use self::support::long_poll::{ACCEPTED, Client, push};
use self::support::server::{Costs, Server};

fn main() {
    let count = connections(1000, 8);
    let server = Server::new(1);
    let ours = server.rooms();
    let pending: Arc<[Notify]> = (0..count).map(|_| Notify::new()).collect();
    let baseline = server.accept(move |io| {
        let pending = Arc::clone(&pending);
        let service = service_fn(move |request| answer(request, Arc::clone(&pending)));
        let http = http1::Builder::new().serve_connection(TokioIo::new(io), service);
        async { drop(http.await) }
    });
    let ours = (0..count).map(|_| Client::join(ours)).collect();
    let baseline = (0..count).map(|id| Client::new(baseline, format!("/{id}"))).collect();
    let mut both: [Vec<Client>; 2] = [ours, baseline];

    println!("{count} sessions; server CPU in us; medians\n");
    println!("{:<34}{:>8}{:>10}{:>8}{:>8}", "", "us", "base us", "ratio", "target");
    let mut row = |what: &str, work: &dyn Fn(&mut [Client]) -> usize| {
        let mut costs = [Costs::default(), Costs::default()];
        for _ in 0..TURNS {
            for (costs, clients) in costs.iter_mut().zip(&mut both) {
                server.turn(costs, || work(clients));
            }
        }
        let [ours, baseline] = costs;
        let (us, baseline_us, ratio) = (ours.us(), baseline.us(), ours.ratio(&baseline));
        println!("{what:<34}{us:>8.2}{baseline_us:>10.2}{ratio:>8.2}{:>8.2}", 1.30);
    };
    let payload = format!(r#"{{"body":"{}"}}"#, "x".repeat(64));
    let (ping, publish) = (push("ping", &payload), push("new_msg", &payload));
    row("echo, 64 at a time", &|clients| {
        let count = clients.len().min(64);
        exchange(&mut clients[..count], |clients| {
            clients.iter_mut().for_each(|client| client.post(&ping));
        })
    });
    row("delivery, one message in flight", &|clients| {
        exchange(clients, |clients| clients[0].post(&publish))
    });
}

const TURNS: usize = 15;

/// Sends all polls, posts, and receives all responses.
fn exchange(clients: &mut [Client], post: impl Fn(&mut [Client])) -> usize {
    clients.iter_mut().for_each(Client::poll);
    post(clients);
    let sizes = clients.iter_mut().map(Client::take);
    assert!(sizes.min() > Some(64), "a response without the message");
    clients.len()
}

/// The baseline handler.
async fn answer(
    request: Request<Incoming>,
    pending: Arc<[Notify]>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let client = request.uri().path()[1..].parse::<usize>().expect("a client");
    let body = if request.method() == Method::GET {
        pending[client].notified().await;
        RESPONSE
    } else {
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        let everyone = body.starts_with(br#"["1","1","room:a","new_msg""#);
        let woken = if everyone { &pending[..] } else { &pending[client..=client] };
        woken.iter().for_each(Notify::notify_one);
        ACCEPTED
    };
    let mut response = Response::new(Full::from(body));
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, json);
    Ok(response)
}

/// A response of our server to a poll that receives an echo, without the token.
const RESPONSE: &str = r#"{"messages":["[\"1\",\"1\",\"room:a\",\"phx_reply\",{\"status\":\"ok\",\"response\":{\"body\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}}]"],"status":200}"#;
