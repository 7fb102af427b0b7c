//! The reference application: a small application that exercises every feature of the protocol.
//! Other servers implement it too, so that they can be compared; this implementation runs on plain
//! hyper.
//!
//! It is configured by environment variables:
//!
//! | variable | meaning | default |
//! | --- | --- | --- |
//! | `ADDR` | the address to listen on | `127.0.0.1:4000` |
//! | `WORKERS` | tokio worker threads; 1 selects a current-thread runtime | one per core |
//! | `IDLE_MS` | how long a WebSocket may be silent | 60000 |
//! | `WINDOW_MS` | how long a poll waits for messages | 10000 |
//! | `SESSION_TTL_MS` | how long a session without a connection is retained | 60000 |
//! | `SHUTDOWN_MS` | how long sessions may take to end on SIGTERM | 10000 |
//! | `ENGINE` | what connects several nodes and keeps the history of `log:*`: `redis://HOST:PORT`, with `?durable` behind it if the server loses nothing when it is killed, or `nats://HOST:PORT`; or where one node keeps it: `sqlite:FILE` | none: in memory |
//! | `APP` | the name that these nodes share | `reference` |

#![allow(unreachable_pub, reason = "`pub` marks what a file offers to the others")]

mod engine;
mod http;
mod lobby;
mod room;

use std::env;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::str::FromStr;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::{Layer, service_fn};
use tower_channels::{
    CheckOrigin, ConnectInfo, Endpoint, History, LongPollConfig, Rejected, ResumeConfig,
    WebSocketConfig,
};

use self::lobby::Lobby;
use self::room::Room;

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
            shutdown: milliseconds("SHUTDOWN_MS", defaults.shutdown),
            engine: env::var("ENGINE").ok().filter(|engine| !engine.is_empty()),
            app: variable("APP", defaults.app),
        };
        let endpoint = endpoint(&config).await?;
        let listener = TcpListener::bind(variable("ADDR", "127.0.0.1:4000".to_owned())).await?;
        println!("listening on {}", listener.local_addr()?);
        serve(listener, endpoint, config.shutdown, terminated()).await
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
    /// How long sessions may take to end when the application stops.
    pub shutdown: Duration,
    /// What connects several nodes, or keeps the history of one.
    pub engine: Option<String>,
    /// The name that these nodes share.
    pub app: String,
}

impl Default for Config {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            idle: seconds(60),
            poll_timeout: seconds(10),
            session_ttl: seconds(60),
            shutdown: seconds(10),
            engine: None,
            app: "reference".to_owned(),
        }
    }
}

/// Returns the endpoint, connected with the other nodes, or with its store, if there is an engine.
pub async fn endpoint(config: &Config) -> io::Result<Endpoint<User>> {
    let origins = ["//localhost", "//127.0.0.1", "//example.com"];
    let origins = CheckOrigin::hosts(origins).expect("valid origins").and_same_host();
    let builder = Endpoint::builder(connect)
        .id(|user| user.id.as_ref().map(|id| format!("user_socket:{id}")))
        .channel::<Room>("room:*")
        .channel::<Room>("log:*")
        .channel::<Lobby>("lobby:*")
        .check_origin(origins)
        .websocket(WebSocketConfig::default().idle_timeout(config.idle))
        .long_poll(LongPollConfig::default().poll_timeout(config.poll_timeout))
        .resume(ResumeConfig::new().session_ttl(config.session_ttl));
    let history = ("log:*", History::last(1000).within(Duration::from_secs(600)));
    let engine = config.engine.as_deref();
    Ok(engine::connect(builder, engine, &config.app, history).await?.build())
}

/// The assigns of a socket.
#[derive(Debug)]
pub struct User {
    id: Option<String>,
}

async fn connect(info: ConnectInfo) -> Result<User, Rejected> {
    if info.param("reject") == Some("true") {
        return Err(Rejected::reason("rejected"));
    }
    Ok(User { id: info.param("user_id").map(Into::into) })
}

/// Serves until `stop` completes, then shuts down gracefully.
pub async fn serve(
    listener: TcpListener,
    endpoint: Endpoint<User>,
    shutdown: Duration,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let plain = {
        let endpoint = endpoint.clone();
        service_fn(move |request| http::plain(request, endpoint.clone()))
    };
    let service = TowerToHyperService::new(endpoint.layer("/socket").layer(plain));
    let stopping = watch::Sender::new(());
    let mut stop = pin!(stop);
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
            () = &mut stop => break,
        };
        let _ = io.set_nodelay(true);
        let (service, mut stopping) = (service.clone(), stopping.subscribe());
        tokio::spawn(async move {
            // Without a timer, hyper sets no time limit for request heads; nor do the servers that
            // this one is compared with. Enable it on public servers: it costs a little per
            // request.
            let http = http1::Builder::new().serve_connection(TokioIo::new(io), service);
            let mut http = pin!(http.with_upgrades());
            tokio::select! {
                _ = http.as_mut() => return,
                _ = stopping.changed() => http.as_mut().graceful_shutdown(),
            }
            // Finish the responses to earlier requests.
            let _ = http.await;
        });
    }
    drop(listener);
    endpoint.shutdown(shutdown).await;
    stopping.send_replace(());
    let _ = tokio::time::timeout(Duration::from_secs(1), stopping.closed()).await;
    Ok(())
}
