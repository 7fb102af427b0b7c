//! How a client comes to a node with its session.

use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, sleep, timeout_at};
use tower_channels_transports::Rejected;

use super::Client;
use crate::test::simulation::node::Node;
use crate::test::simulation::record::Record;
use crate::test::simulation::{SLOW, TOPICS};

/// How long a connect may take that looks for a session on other nodes.
const CLAIM: Duration = Duration::from_secs(5);

impl Client {
    /// Comes to a node with its session, if it is away.
    pub(in crate::test::simulation) async fn come_back(
        &mut self,
        node: &Node,
        record: &mut Record,
    ) -> bool {
        let Some(since) = self.reach(node, record).await else { return true };
        self.returning = Some(since);
        for topic in 0..TOPICS.len() {
            if !self.read(record) {
                return false;
            }
            let Some(reference) = self.join_again(topic) else { continue };
            if !self.answer_after(topic, &reference, since, record).await {
                return false;
            }
        }
        (self.may_lose_channels, self.is_deposited) = (!record.is_whole(), false);
        self.returning = None;
        true
    }

    /// Comes to a node with its session, if it is away, and loses the connection before it hears anything.
    pub(in crate::test::simulation) async fn pass_by(&mut self, node: &Node, record: &mut Record) {
        let away = self.away;
        if self.reach(node, record).await.is_none() {
            return;
        }
        for topic in 0..TOPICS.len() {
            self.join_again(topic);
            if let Some(join) = &mut self.topics[topic].join {
                record.move_on(&mut join.span, self.at, self.is_exact, false);
            }
        }
        // A channel that has not joined does not move.
        sleep(SLOW).await;
        self.inner.drop_connection();
        self.away = away;
    }

    /// Connects to a node, if it is away. Returns since when it was.
    async fn reach(&mut self, node: &Node, record: &mut Record) -> Option<Instant> {
        let (since, _) = self.away?;
        let moves = self.at != node.origin();
        record.trace(format_args!("{} comes back to {:?}", self.key, node.origin()));
        // No two connects of a client are at the same moment: by their times the nodes know the newer one.
        sleep(Duration::from_millis(1)).await;
        let until = Instant::now() + CLAIM;
        // It is refused for a moment while its session is on its way.
        while let Err(refused) = self.reconnect(node, until).await {
            assert_eq!(refused.status_code(), StatusCode::SERVICE_UNAVAILABLE, "{refused:?}");
            sleep(Duration::from_millis(100)).await;
        }
        // Its session may be a new one.
        (self.away, self.closed_by, self.is_on_dead_node) = (None, None, false);
        self.expects_restart = false;
        self.at = node.origin();
        if moves {
            self.is_exact = node.ends_channels;
        }
        Some(since)
    }

    /// Joins a topic again, if it was joined, and returns the ref.
    fn join_again(&mut self, topic: usize) -> Option<String> {
        self.topics[topic].join.as_ref()?;
        let reference = self.send_join(topic);
        let join = self.topics[topic].join.as_mut()?;
        join.reference.clone_from(&reference);
        Some(reference)
    }

    async fn reconnect(&mut self, node: &Node, until: Instant) -> Result<(), Rejected> {
        let connecting = timeout_at(until, self.inner.reconnect_to(&node.endpoint));
        connecting.await.expect("a connect has taken too long")
    }
}
