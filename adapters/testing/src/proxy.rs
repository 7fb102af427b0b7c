//! [`Proxy`]: a proxy that breaks connections.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

/// Listens on loopback and forwards all connections to one address, unless it is told otherwise. Everything ends
/// when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    task: AbortHandle,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    is_cut: bool,
    is_stalled: bool,
    delay: Duration,
    /// Connections of an older number end.
    number: u64,
}

impl Proxy {
    /// Creates a proxy in front of this address.
    ///
    /// # Panics
    /// If there is no port to listen on.
    pub async fn new(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let state = watch::Sender::new(State::default());
        let task = tokio::spawn(accept(listener, upstream, state.clone())).abort_handle();
        Self { address, state, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections, and each new one at once.
    pub fn cut(&self) {
        self.state.send_modify(|state| {
            state.is_cut = true;
            state.number += 1;
        });
    }

    /// Closes all connections. New ones are forwarded.
    pub fn interrupt(&self) {
        self.state.send_modify(|state| state.number += 1);
    }

    /// Holds everything back, in both directions. New connections are accepted, but not forwarded.
    pub fn stall(&self) {
        self.state.send_modify(|state| state.is_stalled = true);
    }

    /// Delays everything.
    pub fn delay(&self, delay: Duration) {
        self.state.send_modify(|state| state.delay = delay);
    }

    /// Forwards everything at once, also what was held back.
    pub fn heal(&self) {
        self.state.send_modify(|state| *state = State { number: state.number, ..State::default() });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, upstream: SocketAddr, state: watch::Sender<State>) {
    let state = Arc::new(state);
    while let Ok((client, _)) = listener.accept().await {
        let mut changes = state.subscribe();
        let now = *changes.borrow_and_update();
        if !now.is_cut {
            let state = state.clone();
            tokio::spawn(async move {
                tokio::select! {
                    _ = forward(client, upstream, &state) => {}
                    _ = changes.wait_for(|state| state.number != now.number) => {}
                }
            });
        }
    }
}

async fn forward(
    mut client: TcpStream,
    upstream: SocketAddr,
    state: &watch::Sender<State>,
) -> io::Result<()> {
    flowing(state).await;
    let mut server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let up = pump(from_client, to_server, state);
    let down = pump(from_server, to_client, state);
    tokio::try_join!(up, down).map(drop)
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    state: &watch::Sender<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        let delay = state.borrow().delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        flowing(state).await;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..length]).await?;
    }
}

/// Waits while everything is held back.
async fn flowing(state: &watch::Sender<State>) {
    let mut changes = state.subscribe();
    // The sender outlives this.
    let _ = changes.wait_for(|state| !state.is_stalled).await;
}
