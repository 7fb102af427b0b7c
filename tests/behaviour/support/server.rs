//! A server of a test's own, on a port of the system's choosing.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{DEADLINE, Http, soon};
use crate::reference::{self, Config};

/// A running server. It ends with the test's runtime, or drains when told to.
pub(crate) struct Server {
    address: SocketAddr,
    shutdown: Option<oneshot::Sender<()>>,
    running: JoinHandle<io::Result<()>>,
}

impl Server {
    /// The reference application, with a window so long that only a message, or an end, answers a
    /// poll before a test's deadline.
    pub(crate) async fn start() -> Self {
        Self::with(Config { poll_timeout: 6 * DEADLINE, ..Config::default() }).await
    }

    /// The reference application with other times.
    pub(crate) async fn with(config: Config) -> Self {
        Self::running(|listener, shutdown| {
            reference::serve(listener, config, async {
                let _ = shutdown.await;
            })
        })
        .await
    }

    /// Any other application.
    pub(crate) async fn running<F>(
        serve: impl FnOnce(TcpListener, oneshot::Receiver<()>) -> F,
    ) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("the address of a listener");
        let (shutdown, told) = oneshot::channel();
        let running = tokio::spawn(serve(listener, told));
        Self { address, shutdown: Some(shutdown), running }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Broadcasts from outside any channel.
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

    /// Begins an orderly end.
    pub(crate) fn shut_down(&mut self) {
        let _ = self.shutdown.take().expect("a server that still runs").send(());
    }

    /// Waits for that end.
    pub(crate) async fn ended(self) {
        soon(self.running).await.expect("no panic").expect("no error");
    }
}
