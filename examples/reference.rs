//! The reference application: a small application that exercises every feature of the protocol.
//! Other servers implement it too, so that they can be compared; this implementation runs on plain
//! hyper.
//!
//! It is configured by environment variables: `ADDR` (default `127.0.0.1:4000`), `WORKERS` (tokio
//! worker threads; 1 selects a current-thread runtime), `IDLE_MS` (idle timeout of a WebSocket),
//! `WINDOW_MS` (poll timeout) and `SESSION_TTL_MS`.

use std::collections::{BTreeMap, HashMap};
use std::env;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, server::conn::http1};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower::{Layer, service_fn};
use tower_channels::channel::{Error, Result};
use tower_channels::{
    Channel, CheckOrigin, ConnectInfo, Endpoint, Joined, LongPollConfig, Payload, Presence,
    PresenceError, Rejected, Reply, ResumeConfig, Socket, WebSocketConfig,
};

fn main() -> io::Result<()> {
    let workers = variable("WORKERS", std::thread::available_parallelism().map_or(1, usize::from));
    let mut runtime = if workers == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    runtime.worker_threads(workers.max(1)).enable_all().build()?.block_on(async {
        let defaults = Config::default();
        let config = Config {
            idle: milliseconds("IDLE_MS", defaults.idle),
            poll_timeout: milliseconds("WINDOW_MS", defaults.poll_timeout),
            session_ttl: milliseconds("SESSION_TTL_MS", defaults.session_ttl),
        };
        let listener = TcpListener::bind(variable("ADDR", "127.0.0.1:4000".to_owned())).await?;
        println!("listening on {}", listener.local_addr()?);
        serve(listener, config, terminated()).await
    })
}

fn variable<T: FromStr>(name: &str, default: T) -> T {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn milliseconds(name: &str, default: Duration) -> Duration {
    env::var(name).ok().and_then(|text| text.parse().ok()).map_or(default, Duration::from_millis)
}

/// Waits for SIGTERM.
async fn terminated() {
    let signal = tokio::signal::unix::SignalKind::terminate();
    match tokio::signal::unix::signal(signal) {
        Ok(mut terminate) => drop(terminate.recv().await),
        Err(_) => std::future::pending().await,
    }
}

/// Settings of the application.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a WebSocket may be silent before it is closed.
    pub idle: Duration,
    /// How long a poll waits for messages.
    pub poll_timeout: Duration,
    /// How long a session without a connection is retained.
    pub session_ttl: Duration,
}

impl Default for Config {
    fn default() -> Self {
        let (idle, poll_timeout) = (Duration::from_secs(60), Duration::from_secs(10));
        Self { idle, poll_timeout, session_ttl: Duration::from_secs(60) }
    }
}

/// Serves until `shutdown` completes, then shuts down gracefully.
pub async fn serve(
    listener: TcpListener,
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let endpoint = endpoint(&config);
    let plain = {
        let endpoint = endpoint.clone();
        service_fn(move |request| plain(request, endpoint.clone()))
    };
    let service = TowerToHyperService::new(endpoint.layer("/socket").layer(plain));
    let stop = watch::Sender::new(());
    let mut shutdown = pin!(shutdown);
    loop {
        let io = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((io, _)) => io,
                Err(_) => {
                    // Most likely out of file descriptors; wait until some are free again.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            },
            () = &mut shutdown => break,
        };
        let _ = io.set_nodelay(true);
        let (service, mut stopped) = (service.clone(), stop.subscribe());
        tokio::spawn(async move {
            // Without a timer, hyper sets no time limit for request heads; nor do the servers that
            // this one is compared with. Enable it on public servers: it costs a little per
            // request.
            let http = http1::Builder::new().serve_connection(TokioIo::new(io), service);
            let mut http = pin!(http.with_upgrades());
            tokio::select! {
                _ = http.as_mut() => return,
                _ = stopped.changed() => http.as_mut().graceful_shutdown(),
            }
            // Finish the responses to earlier requests.
            let _ = http.await;
        });
    }
    drop(listener);
    endpoint.shutdown(Duration::from_secs(5)).await;
    stop.send_replace(());
    let _ = tokio::time::timeout(Duration::from_secs(1), stop.closed()).await;
    Ok(())
}

fn endpoint(config: &Config) -> Endpoint<User> {
    let origins = ["//localhost", "//127.0.0.1", "//example.com"];
    let origins = CheckOrigin::hosts(origins).expect("valid origins").and_same_host();
    Endpoint::builder(connect)
        .id(|user| user.id.as_ref().map(|id| format!("user_socket:{id}")))
        .channel::<Room>("room:*")
        .channel::<Lobby>("lobby:*")
        .check_origin(origins)
        .websocket(WebSocketConfig::default().idle_timeout(config.idle))
        .long_poll(LongPollConfig::default().poll_timeout(config.poll_timeout))
        .resume(ResumeConfig::new().session_ttl(config.session_ttl))
        .build()
}

struct User {
    id: Option<String>,
}

async fn connect(info: ConnectInfo) -> Result<User, Rejected> {
    if info.param("reject") == Some("true") {
        return Err(Rejected::reason("rejected"));
    }
    Ok(User { id: info.param("user_id").map(Into::into) })
}

/// The channel `room:*`. Stores values set by `assign` under the JSON text of their keys.
#[derive(Default)]
struct Room {
    assigned: HashMap<String, Box<RawValue>>,
    /// The replies that are yet to come. They end with the channel.
    delayed: JoinSet<()>,
}

impl Channel for Room {
    type Assigns = User;
    type Info = ();

    const INTERCEPT: &'static [&'static str] = &["shout"];

    async fn join(topic: &str, payload: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        if topic.starts_with("room:closed") {
            return Err(Error::reason("unauthorized"));
        }
        let mut payload: Object = payload.parse().unwrap_or_default();
        if payload.get("crash").is_some_and(|crash| crash.get() == "true") {
            panic!("crash requested by the client");
        }
        let joined = Joined::new(Self::default());
        Ok(match payload.remove("echo") {
            Some(echo) => joined.reply(Payload::json(&BTreeMap::from([("echo", echo)]))?),
            None => joined,
        })
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        socket.push("joined", json!({ "user_id": socket.assigns().id }));
        Ok(())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        Ok(match event {
            "ping" => Reply::Ok(payload),
            "fail" => Reply::Error(payload),
            "ack" => Reply::ack(),
            "silent" => Reply::None,
            "new_msg" => {
                socket.broadcast("new_msg", payload);
                Reply::None
            }
            "typing" => {
                socket.broadcast_from("typing", payload);
                Reply::None
            }
            "push_me" => {
                socket.push("pushed", payload);
                Reply::None
            }
            "slow" => {
                let ms = serde_json::from_str::<u64>(field(&payload, "ms")?.get())?;
                let reply_ref = socket.reply_ref();
                while self.delayed.try_join_next().is_some() {}
                self.delayed.spawn(async move {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    reply_ref.reply(Reply::ok(json!({ "ms": ms })));
                });
                Reply::None
            }
            "shout" => {
                socket.broadcast("shout", payload);
                Reply::None
            }
            "assign" => {
                let (key, value) = (field(&payload, "k")?, field(&payload, "v")?);
                self.assigned.insert(key.get().to_owned(), value);
                Reply::ack()
            }
            "fetch" => {
                let value = self.assigned.get(field(&payload, "k")?.get());
                Reply::Ok(Payload::json(&BTreeMap::from([("v", value)]))?)
            }
            "boom" => panic!("crash requested by the client"),
            "stop" => return Err(Error::stop()),
            "stop_reply" => return Err(Error::stop_with(Reply::Ok(payload))),
            _ => return Err(Error::unmatched(event)),
        })
    }

    async fn handle_out(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<()> {
        let mut payload = object(&payload)?;
        let own = socket.assigns().id.as_deref();
        let skip =
            payload.get("skip").and_then(|skip| serde_json::from_str::<String>(skip.get()).ok());
        if own.is_none() || skip.as_deref() != own {
            payload.insert("to".into(), to_raw_value(&own)?);
            socket.push(event, Payload::json(&payload)?);
        }
        Ok(())
    }
}

/// The channel `lobby:*`: tracks its members and their names with presence.
struct Lobby {
    name: Option<Box<RawValue>>,
}

impl Lobby {
    fn key(socket: &Socket<Self>) -> &str {
        socket.assigns().id.as_deref().unwrap_or("anon")
    }
}

impl Channel for Lobby {
    type Assigns = User;
    type Info = ();

    async fn join(_: &str, payload: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        let mut payload: Object = payload.parse().unwrap_or_default();
        Ok(Self { name: payload.remove("name") }.into())
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        let meta = BTreeMap::from([("name", self.name.take())]);
        Presence::track(socket, Self::key(socket), meta)?;
        Presence::push_state(socket);
        Ok(())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        match event {
            "rename" => {
                let name: Value = serde_json::from_str(field(&payload, "name")?.get())?;
                match Presence::update(socket, Self::key(socket), json!({ "name": name })) {
                    Ok(()) | Err(PresenceError::NotTracked) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            "leave_presence" => Presence::untrack(socket, Self::key(socket)),
            _ => return Err(Error::unmatched(event)),
        }
        Ok(Reply::ack())
    }
}

/// A JSON object whose values keep their original text.
type Object = BTreeMap<String, Box<RawValue>>;

/// Parses an object. Any other payload crashes the channel, as a clause that does not match does.
fn object(payload: &Payload) -> Result<Object> {
    Ok(serde_json::from_str(payload.as_json().ok_or("the payload is binary")?)?)
}

/// Returns the member `name` of an object, or crashes the channel.
fn field(payload: &Payload, name: &str) -> Result<Box<RawValue>> {
    let value = object(payload)?.remove(name);
    value.ok_or_else(|| Error::from(format!("no `{name}` in the payload")))
}

/// Serves plain HTTP next to the socket.
async fn plain(
    request: Request<Incoming>,
    endpoint: Endpoint<User>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let respond = |status: StatusCode, body: &'static str| {
        let mut response = Response::new(Full::from(body));
        *response.status_mut() = status;
        Ok(response)
    };
    let (head, body) = request.into_parts();
    match (&head.method, head.uri.path()) {
        (&Method::GET, "/health") => respond(StatusCode::OK, "ok"),
        // Browsers send a form or a text to any site, and the origin with it.
        (&Method::POST, "/broadcast" | "/disconnect")
            if endpoint.acceptor().check_origin(&head).is_err() =>
        {
            respond(StatusCode::FORBIDDEN, "")
        }
        (&Method::POST, "/broadcast") => {
            let body = Limited::new(body, 1 << 20).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            let Ok(BroadcastRequest { topic, event, payload }) = serde_json::from_slice(&body)
            else {
                return respond(StatusCode::BAD_REQUEST, "");
            };
            let Ok(payload) = Payload::json(&payload) else {
                return respond(StatusCode::BAD_REQUEST, "");
            };
            endpoint.broadcast(&topic, &event, payload);
            respond(StatusCode::NO_CONTENT, "")
        }
        (&Method::POST, "/disconnect") => {
            let query = head.uri.query().unwrap_or_default();
            for (_, id) in form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "id")
            {
                endpoint.disconnect(&id);
            }
            respond(StatusCode::NO_CONTENT, "")
        }
        _ => respond(StatusCode::NOT_FOUND, ""),
    }
}

#[derive(Deserialize)]
struct BroadcastRequest {
    topic: String,
    event: String,
    payload: Box<RawValue>,
}
