//! Channels over server-sent events: a transport of its own, on the public contract of
//! `tower-channels-transports`.
//!
//! `cargo run --example sse`, then
//!
//! ```text
//! $ curl -N 'http://127.0.0.1:4000/sse?vsn=2.0.0'          # prints `event: open` with an id
//! $ curl -d '["1","1","room:1","phx_join",{}]' http://127.0.0.1:4000/sse/ID
//! ```
//!
//! A GET opens the event stream, which carries messages down and owns the session; a POST to its id
//! carries one message up. The stream ends when the client goes away or the session is closed.
//!
//! The example `hyper` shows what else a public server needs.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{StatusCode, request::Parts};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tower_channels::channel::Result;
use tower_channels::{Channel, ConnectInfo, Endpoint, Joined, Payload, Reply, Socket};
use tower_channels::{Rejected, Transport};
use tower_channels_transports::{Acceptor, Handler, Inbound, Message, Session, outbox};

/// The transport. Any handler can be served over it.
struct SseTransport<H: Handler> {
    acceptor: Acceptor<H>,
    /// Where the messages of a POST go, by the id of the stream.
    streams: Streams,
}

type Streams = Arc<Mutex<HashMap<String, mpsc::Sender<String>>>>;

/// An open event stream. Dropping it ends the connection.
struct EventStream {
    id: String,
    streams: Streams,
    session: Box<dyn Session>,
    receiver: outbox::Receiver,
    posted: mpsc::Receiver<String>,
    unsent: VecDeque<Message>,
    is_closed: bool,
}

/// The routes of the transport.
fn routes<H: Handler>(acceptor: Acceptor<H>) -> Router {
    let body_limit = DefaultBodyLimit::max(acceptor.limits().message_limit());
    Router::new()
        .route("/sse", get(open::<H>))
        .route("/sse/{id}", post(receive::<H>))
        .layer(body_limit)
        .with_state(Arc::new(SseTransport { acceptor, streams: Streams::default() }))
}

/// Connects a client and answers with its event stream.
async fn open<H: Handler>(State(sse): State<Arc<SseTransport<H>>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    if let Err(error) = sse.acceptor.check_origin(&parts) {
        return error.status().into_response();
    }
    let Ok(info) = ConnectInfo::from_request_parts(&parts, Transport::Other("sse")) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    // The id is all that authorizes a POST, so it must not be guessable.
    let (Ok(high), Ok(low)) = (getrandom::u64(), getrandom::u64()) else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let (session, receiver) = match sse.acceptor.connect(info).await {
        Ok(connected) => connected,
        Err(error) => return error.status().into_response(),
    };
    let (id, (sender, posted)) = (format!("{high:016x}{low:016x}"), mpsc::channel(16));
    lock(&sse.streams).insert(id.clone(), sender);
    let opened = Event::default().event("open").data(&id);
    let mut stream = EventStream {
        id,
        streams: Arc::clone(&sse.streams),
        session: Box::new(session),
        receiver,
        posted,
        unsent: VecDeque::new(),
        is_closed: false,
    };
    let events = stream::once(ready(opened)).chain(stream::poll_fn(move |cx| stream.poll_next(cx)));
    // The keep-alive comments also detect a client that is gone.
    Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::default()).into_response()
}

/// Passes a message to the stream with this id. Waits while the session has too much to do.
async fn receive<H: Handler>(
    State(sse): State<Arc<SseTransport<H>>>,
    Path(id): Path<String>,
    parts: Parts,
    message: String,
) -> StatusCode {
    if let Err(error) = sse.acceptor.check_origin(&parts) {
        return error.status();
    }
    let sender = lock(&sse.streams).get(&id).cloned();
    match sender {
        Some(sender) if sender.send(message).await.is_ok() => StatusCode::ACCEPTED,
        _ => StatusCode::GONE,
    }
}

impl EventStream {
    /// Handles what was posted, then returns the next event; `None` after the close.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        while let Poll::Ready(Some(text)) = self.posted.poll_recv(cx) {
            if let Err(close) = self.session.handle_in(Inbound::Text(&text)) {
                self.receiver.close(close);
                self.is_closed = true;
            }
        }
        if self.is_closed {
            return Poll::Ready(None);
        }
        if self.unsent.is_empty()
            && let Err(close) = ready!(self.receiver.poll_take(cx, &mut self.unsent))
        {
            self.is_closed = true;
            let code = close.code().to_string();
            return Poll::Ready(Some(Event::default().event("close").data(code)));
        }
        let Some(message) = self.unsent.pop_front() else { return Poll::Pending };
        self.receiver.release(message.cost());
        Poll::Ready(Some(event(&message)))
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        lock(&self.streams).remove(&self.id);
    }
}

/// Encodes a message: text as it is, binary as the base64 data of an event named `binary`.
fn event(message: &Message) -> Event {
    let bytes = message.to_bytes();
    match str::from_utf8(&bytes) {
        // An event cannot carry a carriage return. In JSON text it is mere whitespace.
        Ok(text) if !message.is_binary() => Event::default().data(text.replace('\r', " ")),
        _ => Event::default().event("binary").data(STANDARD.encode(&bytes)),
    }
}

fn lock(streams: &Streams) -> std::sync::MutexGuard<'_, HashMap<String, mpsc::Sender<String>>> {
    streams.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A channel that broadcasts every push.
struct Room;

impl Channel for Room {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn handle_in(&mut self, event: &str, msg: Payload, room: &Socket<Self>) -> Result<Reply> {
        room.broadcast(event, msg);
        Ok(Reply::ack())
    }
}

fn endpoint() -> Endpoint<()> {
    Endpoint::builder(async |_| Ok::<_, Rejected>(())).channel::<Room>("room:*").build()
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let endpoint = endpoint();
    // Phoenix clients connect at /socket, and share their rooms with those at /sse.
    let app = routes(endpoint.acceptor()).nest_service("/socket", endpoint.service());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:4000").await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, app).await
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::header::{HOST, ORIGIN};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn send(app: &Router, request: axum::http::request::Builder, body: String) -> Response {
        let request = request.header(HOST, "app.test").body(Body::from(body)).unwrap();
        app.clone().oneshot(request).await.unwrap()
    }

    async fn post(app: &Router, id: &str, message: &str) -> StatusCode {
        send(app, Request::post(format!("/sse/{id}")), message.to_owned()).await.status()
    }

    async fn open(app: &Router) -> Body {
        let response = send(app, Request::get("/sse?vsn=2.0.0"), String::new()).await;
        assert_eq!(response.status(), StatusCode::OK);
        response.into_body()
    }

    /// The next event, without the keep-alive comments.
    async fn next(events: &mut Body) -> Option<String> {
        loop {
            let data = events.frame().await?.unwrap().into_data().unwrap();
            let text = String::from_utf8(data.to_vec()).unwrap();
            if !text.starts_with(':') {
                return Some(text.trim_end().to_owned());
            }
        }
    }

    async fn opened(events: &mut Body) -> String {
        let event = next(events).await.unwrap();
        event.strip_prefix("event: open\ndata: ").unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_joins_pushes_and_receives_broadcasts() {
        let endpoint = endpoint();
        let app = routes(endpoint.acceptor());
        let mut events = open(&app).await;
        let id = opened(&mut events).await;

        let join = r#"["1","1","room:1","phx_join",{}]"#;
        assert_eq!(post(&app, &id, join).await, StatusCode::ACCEPTED);
        let joined = r#"data: ["1","1","room:1","phx_reply",{"status":"ok","response":{}}]"#;
        assert_eq!(next(&mut events).await.as_deref(), Some(joined));

        post(&app, &id, "[\"1\",\"2\",\"room:1\",\"new_msg\",[\r1]]").await;
        let broadcast = r#"data: [null,null,"room:1","new_msg",[ 1]]"#;
        assert_eq!(next(&mut events).await.as_deref(), Some(broadcast));
        let reply = r#"data: ["1","2","room:1","phx_reply",{"status":"ok","response":{}}]"#;
        assert_eq!(next(&mut events).await.as_deref(), Some(reply));

        endpoint.broadcast("room:1", "file", Payload::binary("\0"));
        assert_eq!(
            next(&mut events).await.as_deref(),
            Some("event: binary\ndata: AgYEcm9vbToxZmlsZQA=")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_ends_with_its_session_and_the_session_with_its_stream() {
        let endpoint = endpoint();
        let app = routes(endpoint.acceptor());
        let mut events = open(&app).await;
        let id = opened(&mut events).await;
        assert_eq!(post(&app, &id, "not a message").await, StatusCode::ACCEPTED);
        assert_eq!(next(&mut events).await, None);
        drop(events);
        assert_eq!(post(&app, &id, "[]").await, StatusCode::GONE);

        let mut events = open(&app).await;
        opened(&mut events).await;
        assert_eq!(endpoint.sessions().connected, 1);
        drop(events);
        assert_eq!(endpoint.sessions().connected, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn other_origins_and_large_messages_are_rejected() {
        let app = routes(endpoint().acceptor());
        let foreign = Request::get("/sse?vsn=2.0.0").header(ORIGIN, "http://evil.test");
        assert_eq!(send(&app, foreign, String::new()).await.status(), StatusCode::FORBIDDEN);
        let mut events = open(&app).await;
        let id = opened(&mut events).await;
        assert_eq!(post(&app, &id, &"x".repeat(2 << 20)).await, StatusCode::PAYLOAD_TOO_LARGE);
    }
}
