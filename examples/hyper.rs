//! The endpoint as a standalone service on plain hyper, without axum.
//!
//! Run `cargo run --example hyper`, connect any Phoenix client to `ws://127.0.0.1:4000/socket`, and
//! join the topic `echo`.

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower_channels::channel::Result;
use tower_channels::{Channel, Endpoint, JoinError, Joined, Payload, Reply, Socket};

/// Replies to every push with its payload.
struct Echo;

impl Channel for Echo {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>, JoinError> {
        Ok(Self.into())
    }

    async fn handle_in(&mut self, _: &str, payload: Payload, _: &Socket<Self>) -> Result<Reply> {
        Ok(Reply::Ok(payload))
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let endpoint = Endpoint::builder(|_| async { Ok(()) }).channel::<Echo>("echo").build();
    let service = TowerToHyperService::new(endpoint.service("/socket"));
    let listener = TcpListener::bind("127.0.0.1:4000").await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (io, _) = listener.accept().await?;
        let service = service.clone();
        tokio::spawn(async move {
            // A WebSocket starts as an HTTP request, so the server must support upgrades.
            let server = auto::Builder::new(TokioExecutor::new());
            let served = server.serve_connection_with_upgrades(TokioIo::new(io), service).await;
            if let Err(error) = served {
                eprintln!("connection error: {error}");
            }
        });
    }
}
