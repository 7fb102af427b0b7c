//! [`Hearing`]: the task that connects, hears, and connects again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use async_nats::ServerAddr;
use tokio::sync::{mpsc, oneshot};
use tower_channels::adapter::{Link, NodeId, NodeInbox};
use tower_channels_transports::limited;

use crate::Shared;
use crate::backlog::Backlog;
use crate::backoff::{self, Backoff};
use crate::connection::{Connection, End, name};
use crate::error::ConnectError;
use crate::receiver::Receiver;
use crate::sender::SendHalf;

/// Owns the connection. Everything that is heard is delivered from here.
pub(crate) struct Hearing {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: NodeId,
    pub(crate) inbox: Arc<dyn NodeInbox>,
    /// Takes the sending half of each connection to its task.
    pub(crate) sender: mpsc::Sender<SendHalf>,
}

impl Hearing {
    pub(crate) async fn run(self) {
        let mut backoff = Backoff::new();
        let servers = &self.shared.servers;
        let mut turn = usize::try_from(backoff::random() % servers.len() as u64).unwrap_or(0);
        loop {
            let server = &servers[turn];
            turn = (turn + 1) % servers.len();
            match self.serve(server, &mut backoff).await {
                Ok(End::Renewed) => continue,
                Ok(_) => {}
                Err(error) => {
                    self.shared.applied.send_replace(u64::MAX);
                    let error = error.to_string();
                    limited!(WARN, ?error, "cannot connect to NATS");
                }
            }
            tokio::time::sleep(backoff.pause(backoff::random())).await;
        }
    }

    /// Connects, and hears until the connection ends.
    async fn serve(&self, server: &ServerAddr, backoff: &mut Backoff) -> Result<End, ConnectError> {
        let shared = &*self.shared;
        let (selection, version) = shared.wanted();
        let (config, subjects) = (&shared.config, &shared.subjects);
        let opened = Connection::open(server, config, subjects, self.id, selection).await?;
        let Connection { client, all, topics, node, marks, ended, propagation } = opened;
        let since = Instant::now();
        let server = name(server);
        limited!(INFO, ?server, "connected to NATS");
        shared.max_payload.store(client.max_payload(), Ordering::Relaxed);
        shared.is_ordered_again();
        let (taken, is_taken) = oneshot::channel();
        let half = SendHalf { client: client.clone(), marks, ended: ended.clone(), taken };
        // Neither fails: the task waits for the next connection when this one has ended.
        let _ = self.sender.send(half).await;
        let _ = is_taken.await;
        shared.applied.send_replace(version);
        *shared.connection.lock() = Some(ended.clone());
        self.inbox.link(Link::Up);
        let mut backlog = Backlog::default();
        backlog.emptied(client.statistics().in_bytes.load(Ordering::Relaxed));
        let keeper = client.clone();
        let mut receiver = Receiver {
            shared,
            inbox: &self.inbox,
            id: self.id,
            client,
            all,
            node,
            topics,
            selection,
            backlog,
            repeats: None,
            switched: None,
            propagation,
            propagating: VecDeque::new(),
        };
        let end = tokio::select! {
            end = receiver.run(&ended) => end,
            never = shared.records.keep(&keeper, &ended) => match never {},
        };
        ended.end(end.clone());
        shared.records.disconnected();
        drop((receiver, keeper));
        shared.applied.send_replace(u64::MAX);
        self.inbox.link(Link::Down);
        let reason = end.to_string();
        limited!(WARN, ?server, ?reason, "the connection to NATS has ended");
        backoff.lasted(since.elapsed());
        Ok(end)
    }
}
