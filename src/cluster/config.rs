//! [`ClusterConfig`].

use std::time::Duration;

use tower_channels_transports::ConfigError;

use super::wire::{VERSIONS, Versions};
use crate::adapter::NodeId;

/// Configures how a node lives with the others; see [`Builder::cluster`](crate::Builder::cluster).
///
/// Nodes of one cluster may have different configurations, except for [`beat`](Self::beat), which the others'
/// [`down_after`](Self::down_after) must allow for.
#[derive(Clone, Debug)]
#[must_use = "pass it to `Builder::cluster` or `PubSubConfig::cluster`"]
pub struct ClusterConfig {
    pub(crate) beat: Duration,
    pub(crate) down_after: Duration,
    pub(crate) deaf_after: Duration,
    pub(crate) gone_after: Duration,
    pub(crate) on_gap: OnGap,
    pub(crate) gap_pace: Duration,
    pub(crate) listen: Listen,
    pub(crate) max_topics: usize,
    pub(crate) linger: Duration,
    pub(crate) versions: Versions,
    /// For tests whose every run is the same; drawn by default.
    pub(crate) node: Option<NodeId>,
}

/// What happens to the channels of resumable sessions when broadcasts of other nodes may have been lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnGap {
    /// They end with `phx_error`, spread over [`ClusterConfig::gap_pace`]: their clients join again, and the join
    /// can send what they need. A resumable session promises that nothing is lost, and this keeps the promise
    /// honest.
    #[default]
    Rejoin,
    /// Nothing, as for all other sessions, and as in Phoenix.
    Ignore,
}

/// Which topics a node hears.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Listen {
    /// All. A join waits for nothing, and a lost message is noticed; each node takes every broadcast of the cluster
    /// from the engine.
    #[default]
    All,
    /// Those that have subscribers on the node. The first join of a topic waits until the engine has confirmed that it
    /// is heard; broadcasts of other topics cost the node nothing.
    Topics,
}

impl ClusterConfig {
    /// Creates the default configuration.
    pub fn new() -> Self {
        Self {
            beat: Duration::from_secs(1),
            down_after: Duration::from_secs(5),
            deaf_after: Duration::from_secs(3),
            gone_after: Duration::from_secs(20 * 60),
            on_gap: OnGap::default(),
            gap_pace: Duration::from_secs(10),
            listen: Listen::default(),
            max_topics: 200_000,
            linger: Duration::from_secs(10),
            versions: VERSIONS,
            node: None,
        }
    }

    /// Sets how often a node tells the others that it is there. Default 1 s.
    pub fn beat(mut self, interval: Duration) -> Self {
        self.beat = interval;
        self
    }

    /// Sets after which silence of another node its presences are hidden. Default 5 s, at least three beats. A node
    /// of which the engine says that it does not hear any more is taken for dead after two beats.
    ///
    /// While a node does not hear its own beats either, the silence of others does not count.
    pub fn down_after(mut self, silence: Duration) -> Self {
        self.down_after = silence;
        self
    }

    /// Sets after which time without its own beats a node connects to the engine anew. Default 3 s, at least two
    /// beats.
    pub fn deaf_after(mut self, silence: Duration) -> Self {
        self.deaf_after = silence;
        self
    }

    /// Sets after which silence another node is forgotten. Default 20 min.
    pub fn gone_after(mut self, silence: Duration) -> Self {
        self.gone_after = silence;
        self
    }

    /// Sets what happens to the channels of resumable sessions when broadcasts of other nodes may have been lost.
    /// Default [`OnGap::Rejoin`].
    pub fn on_gap(mut self, on_gap: OnGap) -> Self {
        self.on_gap = on_gap;
        self
    }

    /// Sets over which time [`OnGap::Rejoin`] spreads the joins. Default 10 s.
    pub fn gap_pace(mut self, pace: Duration) -> Self {
        self.gap_pace = pace;
        self
    }

    /// Sets which topics the node hears. Default [`Listen::All`]. [`PubSub::listen`](crate::PubSub::listen) changes
    /// it at run time.
    pub fn listen(mut self, listen: Listen) -> Self {
        self.listen = listen;
        self
    }

    /// Sets to how many topics [`Listen::Topics`] applies. Default 200,000. A node with more hears all.
    pub fn max_topics(mut self, topics: usize) -> Self {
        self.max_topics = topics;
        self
    }

    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        let at_least = |name: &str, value: Duration, beats: u32| {
            if value < self.beat.saturating_mul(beats) {
                return Err(ConfigError::new(format!("`{name}` must be at least {beats} beats")));
            }
            Ok(())
        };
        if self.beat < TICK {
            return Err(ConfigError::new("`beat` must be at least 50 ms"));
        }
        at_least("down_after", self.down_after, 3)?;
        at_least("deaf_after", self.deaf_after, 2)?;
        at_least("gone_after", self.gone_after, 3)
    }
}

/// How often a node looks what is due.
pub(super) const TICK: Duration = Duration::from_millis(50);

impl Default for ClusterConfig {
    fn default() -> Self {
        Self::new()
    }
}
