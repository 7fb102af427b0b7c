//! The HTTP server, and its graceful stop.

use std::io::Result;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower_channels::Endpoint;

use crate::User;

/// Serves until the program is to stop. The order of the end: no new connections, the sessions at a
/// pace, the last responses.
pub(crate) async fn serve(address: &str, router: Router, endpoint: &Endpoint<User>) -> Result<()> {
    let (stop, stopped) = oneshot::channel::<()>();
    let server = axum::serve(TcpListener::bind(address).await?, router);
    let server = server.with_graceful_shutdown(async { _ = stopped.await });
    let server = tokio::spawn(server.into_future());
    stop_requested().await?;
    drop(stop);
    endpoint.shutdown(Duration::from_secs(20)).await;
    server.await?
}

/// Waits for SIGTERM, which service managers send, or for Ctrl-C.
async fn stop_requested() -> Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            interrupted = tokio::signal::ctrl_c() => interrupted,
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
