//! The task of a store: connects, and connects again.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context};
use async_nats::{Client, ServerAddr};
use tokio::time::{sleep, timeout};
use tower_channels_transports::limited;

use super::link::{Access, Link};
use super::session::Session;
use super::shared::Shared;
use super::stream::Found;
use crate::backoff::{self, Backoff};
use crate::connection::{self, End, Ended};
use crate::error::ConnectError;

/// How long the server may take to answer about the stream.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the stream is looked after, and after trouble.
const LOOK: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// After how many lower numbers in a row a replicated stream counts as another one: a new leader may not know the last
/// numbers at first.
const MAX_DOUBTS: u32 = 3;

/// Serves a store until it is dropped and everything that it has taken is kept.
pub(crate) async fn run(shared: Arc<Shared>) {
    tokio::select! {
        () = shared.expire() => {}
        never = serve(&shared) => match never {},
    }
}

async fn serve(shared: &Shared) -> std::convert::Infallible {
    let mut backoff = Backoff::new();
    let servers = &shared.servers;
    let mut turn = usize::try_from(backoff::random() % servers.len() as u64).unwrap_or(0);
    loop {
        let server = &servers[turn];
        turn = (turn + 1) % servers.len();
        let since = Instant::now();
        let name = connection::name(server);
        match serve_with(shared, server).await {
            Ok(end) => {
                let reason = end.to_string();
                limited!(WARN, server = ?name, ?reason, "the connection to NATS for histories has ended");
            }
            Err(error) => {
                let error = error.to_string();
                limited!(WARN, ?error, "cannot connect to NATS for histories");
            }
        }
        shared.disconnected();
        backoff.lasted(since.elapsed());
        sleep(backoff.pause(backoff::random())).await;
    }
}

/// Connects to a server, and serves until the connection ends.
async fn serve_with(shared: &Shared, server: &ServerAddr) -> Result<End, ConnectError> {
    let connecting = connection::connect(server, &shared.config);
    let (client, ended) = timeout(shared.config.connect_timeout, connecting)
        .await
        .unwrap_or_else(|_| Err(ConnectError::Unreachable(connection::name(server))))?;
    let mut context = jetstream::new(client.clone());
    context.set_timeout(PATIENCE);
    let stream = Stream { shared, client, context, ended };
    let serving = async {
        let link = stream.open().await;
        let beginning = Session::begin(shared, link.clone(), stream.ended.clone());
        let session = match timeout(shared.config.connect_timeout, beginning).await {
            Ok(Ok(session)) => session,
            Ok(Err(_)) => return End::Disconnected,
            Err(_) => return End::Silence,
        };
        tokio::select! {
            end = session.run() => end,
            never = stream.keep(link) => match never {},
        }
    };
    let end = tokio::select! {
        end = stream.ended.wait() => end,
        end = serving => end,
    };
    Ok(end)
}

/// The stream, over one connection.
struct Stream<'a> {
    shared: &'a Shared,
    client: Client,
    context: Context,
    ended: Ended,
}

impl Stream<'_> {
    /// Finds the stream, or creates it.
    async fn find(&self, is_lost: bool) -> Result<Found, String> {
        let shared = self.shared;
        let seen = (shared.epoch.load(Ordering::Relaxed), shared.seen.load(Ordering::Relaxed));
        let found = shared.settings.find(&self.context, &self.client, is_lost.then_some(seen));
        tokio::select! {
            found = found => found,
            reason = self.ended.jetstream_refused() => Err(reason),
        }
    }

    /// The same, until there is one.
    async fn open(&self) -> Link {
        loop {
            match self.find(false).await {
                Ok(found) => return self.link(found),
                Err(reason) => self.shared.set_access(Access::Unusable(reason)),
            }
            if self.ended.is_refused() {
                // A connection keeps its permissions.
                pending::<()>().await;
            }
            sleep(PATIENCE).await;
        }
    }

    fn link(&self, found: Found) -> Link {
        Link {
            client: self.client.clone(),
            context: self.context.clone(),
            name: self.shared.settings.name.clone(),
            direct: format!("$JS.API.DIRECT.GET.{}", self.shared.settings.name).into(),
            found,
            read: Arc::default(),
        }
    }

    /// Looks after the stream, which may be removed, created anew or restored while the connection lasts.
    async fn keep(&self, mut link: Link) -> std::convert::Infallible {
        let mut doubts = 0;
        let is_behind = link.found.last < self.shared.seen.load(Ordering::Relaxed);
        let mut pause = if is_behind { PATIENCE } else { LOOK };
        loop {
            let is_trouble = tokio::select! {
                () = sleep(pause) => pause < LOOK,
                () = self.shared.trouble.notified() => {
                    sleep(LOOK_AGAIN).await;
                    true
                }
            };
            // Before the server is asked: what is known by then is there.
            let seen = self.shared.seen.load(Ordering::Relaxed);
            pause = match self.find(doubts >= MAX_DOUBTS).await {
                Ok(found) => {
                    let is_same = found.epoch == link.found.epoch;
                    let is_behind = is_same && found.last < seen;
                    doubts = match () {
                        () if !is_behind => 0,
                        () if found.has_replicas => doubts + 1,
                        () => MAX_DOUBTS,
                    };
                    if !is_same || found != link.found {
                        link = Link { found, ..link };
                    }
                    if !is_same {
                        limited!(
                            WARN,
                            "the histories in NATS begin anew: those of before are gone"
                        );
                    }
                    self.shared.open(&link, !is_same);
                    if is_trouble {
                        self.shared.settled.notify_one();
                    }
                    if is_behind { PATIENCE } else { LOOK }
                }
                Err(reason) => {
                    self.shared.set_access(Access::Unusable(reason));
                    PATIENCE
                }
            };
        }
    }
}
