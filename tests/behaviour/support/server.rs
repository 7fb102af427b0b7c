//! A server for a single test, on a port chosen by the system.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{DEADLINE, Http, soon};
use crate::reference::{self, Config};

/// A running server. It ends with the test's runtime, or by a graceful shutdown.
pub(crate) struct Server {
    address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    running: JoinHandle<io::Result<()>>,
}

impl Server {
    /// Starts the reference application with a poll timeout beyond every deadline, so that only a
    /// message or the end of the session answers a poll.
    pub(crate) async fn start() -> Self {
        Self::with(Config { poll_timeout: 6 * DEADLINE, ..Config::default() }).await
    }

    /// Starts the reference application with other settings.
    pub(crate) async fn with(config: Config) -> Self {
        let endpoint = reference::endpoint(&config).await.expect("it needs no engine");
        Self::running(move |listener, stop| {
            reference::serve(listener, endpoint, config.shutdown, async {
                let _ = stop.await;
            })
        })
        .await
    }

    /// Starts any other application.
    pub(crate) async fn running<F>(
        serve: impl FnOnce(TcpListener, oneshot::Receiver<()>) -> F,
    ) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("the address of a listener");
        let (shutdown, signal) = oneshot::channel();
        let running = tokio::spawn(serve(listener, signal));
        Self { address, shutdown: Some(shutdown), running }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Broadcasts from outside of any channel.
    pub(crate) async fn broadcast(&self, topic: &str, event: &str, payload: &str) {
        let body = format!(r#"{{"topic":"{topic}","event":"{event}","payload":{payload}}}"#);
        let json = [("Content-Type", "application/json")];
        let mut http = Http::connect(self).await;
        let response = http.request("POST", "/broadcast", &json, body.as_bytes()).await;
        assert_eq!(response.status, 204, "{response:?}");
    }

    /// Disconnects every socket with that id.
    pub(crate) async fn disconnect(&self, id: &str) {
        let target = format!("/disconnect?id={id}");
        let response = Http::connect(self).await.request("POST", &target, &[], b"").await;
        assert_eq!(response.status, 204, "{response:?}");
    }

    /// Starts a graceful shutdown.
    pub(crate) fn shut_down(&mut self) {
        let _ = self.shutdown.take().expect("a server that still runs").send(());
    }

    /// Waits for the end of the shutdown.
    pub(crate) async fn ended(self) {
        soon(self.running).await.expect("no panic").expect("no error");
    }
}
