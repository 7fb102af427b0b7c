//! An echo server on the contract of the transports alone: no channels, no router, only hyper.
//!
//! `cargo run --release -p tower-channels-transports --example echo`, then connect to
//! `ws://127.0.0.1:9001`. The Autobahn test suite runs against it.

use std::env;
use std::error::Error;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tower_channels_transports::{
    Acceptor, CheckOrigin, Close, ConnectInfo, Handler, Inbound, Limits, Message, Rejected,
    Session, WebSocket, WebSocketConfig, outbox,
};

/// Accepts every client.
struct Echo;

/// Echoes the messages of one client.
struct EchoSession {
    outbox: outbox::Sender,
}

impl Handler for Echo {
    type Session = EchoSession;

    async fn connect(
        &self,
        _info: ConnectInfo,
        outbox: outbox::Sender,
    ) -> Result<EchoSession, Rejected> {
        Ok(EchoSession { outbox })
    }
}

impl Session for EchoSession {
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
        self.outbox.push(match message {
            Inbound::Text(text) => Message::text(text.to_owned()),
            Inbound::Binary(bytes) => Message::binary(bytes.to_vec()),
            _ => return Err(Close::Malformed),
        });
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Autobahn sends messages of 16 MiB, and empty continuation frames.
    let limits = Limits::new().max_message(16 << 20).max_outbox(64 << 20);
    let config = WebSocketConfig::new().empty_continuations(true);
    let echo = WebSocket::new(Acceptor::new(Echo, CheckOrigin::default(), limits), config);

    let addr = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:9001".to_owned());
    let listener = TcpListener::bind(addr).await?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = TowerToHyperService::new(echo.clone());
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            if let Err(error) =
                server.serve_connection_with_upgrades(TokioIo::new(stream), service).await
            {
                eprintln!("{error}");
            }
        });
    }
}
