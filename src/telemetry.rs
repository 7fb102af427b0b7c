//! The metrics of channels: their names, and the handles of each channel of an endpoint.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use tower_channels_transports::define_metrics;
use tower_channels_transports::telemetry::{self, Described, Level, Timing};

/// The label of what belongs to one channel of the endpoint: its topic pattern.
const CHANNEL: (&str, &[&str]) = ("channel", &[]);

/// What nodes ask each other.
const QUESTIONS: (&str, &[&str]) = ("kind", &["poll", "post", "offer", "take"]);

/// What becomes of a join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinResult {
    Joined,
    Refused,
    Crashed,
    TimedOut,
    /// The client has joined too many channels.
    Full,
}

impl JoinResult {
    const ALL: [Self; 5] = [Self::Joined, Self::Refused, Self::Crashed, Self::TimedOut, Self::Full];

    /// Returns the label value.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Joined => "ok",
            Self::Refused => "refused",
            Self::Crashed => "crashed",
            Self::TimedOut => "timed_out",
            Self::Full => "full",
        }
    }
}

define_metrics! {
    /// Connections that ended because the time of their client was over.
    pub(crate) Counter CONNECTIONS_EXPIRED = "tower_channels_connections_expired_total" by [];
    /// Joins, by the topic pattern of the channel and by their result.
    pub(crate) Counter JOINS = "tower_channels_joins_total"
        by [CHANNEL, ("result", &["ok", "refused", "crashed", "timed_out", "full"])];
    /// How long joins took, whatever their result, with the wait for the previous instance.
    pub(crate) Histogram JOIN = "tower_channels_join_seconds" by [CHANNEL];
    /// How long `handle_in` took.
    pub(crate) Histogram HANDLE_IN = "tower_channels_handle_in_seconds" by [CHANNEL];
    /// Joined channels that crashed, by an error, a panic or a full mailbox.
    pub(crate) Counter CRASHES = "tower_channels_channel_crashes_total" by [CHANNEL];
    /// Channels, from the join until nothing is left of them, those of clients that are gone included.
    pub(crate) Gauge CHANNELS = "tower_channels_channels" by [CHANNEL];
    /// Living channels that were joined again in a resumable session.
    pub(crate) Counter CHANNELS_RESUMED = "tower_channels_channels_resumed_total" by [];
    /// Channels that were joined again on a node that their session has moved to.
    pub(crate) Counter CHANNELS_MOVED = "tower_channels_channels_moved_total" by [];
    /// Channels that did not go along with a session to another node: they were joining, crashed or ended (`ended`), or
    /// were not done in time (`late`), or their clients had not received the reply to the join (`unanswered`), or name
    /// positions and have a `gap` in the history. Their clients join anew.
    pub(crate) Counter CHANNELS_LEFT_BEHIND = "tower_channels_channels_left_behind_total"
        by [("reason", &["ended", "late", "unanswered", "gap"])];
    /// Results of `Channel::pack` that were too large to go along.
    pub(crate) Counter PACKED_TOO_LARGE = "tower_channels_packed_too_large_total" by [];
    /// Messages for a topic that is not joined, or has no channel.
    pub(crate) Counter MESSAGES_UNMATCHED = "tower_channels_messages_unmatched_total" by [];
    /// Messages that were handled before, and came again after their connection or request was lost.
    pub(crate) Counter MESSAGES_REPEATED = "tower_channels_messages_repeated_total" by [];
    /// Messages whose payload is not acceptable JSON.
    pub(crate) Counter PAYLOADS_REFUSED = "tower_channels_payloads_refused_total" by [];
    /// Messages that the protocol version of their client could not carry.
    pub(crate) Counter MESSAGES_SKIPPED = "tower_channels_messages_skipped_total" by [];
    /// Broadcasts, however many clients receive them.
    pub(crate) Counter BROADCASTS = "tower_channels_broadcasts_total" by [];
    /// Broadcasts dropped because the mailbox of a channel that handles them itself was full.
    pub(crate) Counter INTERCEPTS_DROPPED = "tower_channels_intercepts_dropped_total" by [];
    /// Presences of other nodes that exceed the limits of this one.
    pub(crate) Counter PRESENCES_REFUSED = "tower_channels_presences_refused_total" by [];
    /// Messages that were kept in the histories of their topics, and then delivered on this node.
    pub(crate) Counter HISTORY_KEPT = "tower_channels_history_messages_kept_total" by [];
    /// Messages on topics with a history that were not kept, and so reached nobody: too long, or the store had too much to do
    /// (`overflow`) or was not available, in which case they may have been kept all the same. And messages in the store
    /// that cannot be read (`malformed`).
    pub(crate) Counter HISTORY_LOST = "tower_channels_history_messages_lost_total"
        by [("reason", &["too_large", "overflow", "unavailable", "malformed"])];
    /// Reads of histories. Clients that return to a topic together share one.
    pub(crate) Counter HISTORY_READS = "tower_channels_history_reads_total"
        by [("result", &["ok", "failed"])];
    /// Joins of clients that had missed part of a topic with a history: with everything that they had missed, with a gap,
    /// or with a gap because the store was not available.
    pub(crate) Counter HISTORY_RECOVERIES = "tower_channels_history_recoveries_total"
        by [("result", &["complete", "gap", "unavailable"])];
    /// Topics of which a node has missed messages that it could not read afterwards: they were forgotten, or the store has
    /// lost everything; the store was not available for too long; or it handed the topic over too late for clients that had
    /// joined.
    pub(crate) Counter HISTORY_GAPS = "tower_channels_history_gaps_total"
        by [("cause", &["forgotten", "unavailable", "unheard"])];
    /// Topics whose history was forgotten because too much was kept in memory.
    pub(crate) Counter HISTORY_TOPICS_FORGOTTEN = "tower_channels_history_topics_forgotten_total" by [];
    /// What histories take in memory.
    pub(crate) Gauge HISTORY_BYTES = "tower_channels_history_bytes" by [];
    /// Topics with subscribers.
    pub(crate) Gauge TOPICS = "tower_channels_topics" by [];
    /// Subscriptions to topics.
    pub(crate) Gauge SUBSCRIBERS = "tower_channels_subscribers" by [];
    /// Nodes of the cluster that are heard, this one included.
    pub(crate) Gauge CLUSTER_NODES = "tower_channels_cluster_nodes" by [];
    /// Whether the engine that connects the nodes is heard: 1 or 0.
    pub(crate) Gauge CLUSTER_LINK = "tower_channels_cluster_link" by [];
    /// Times that the engine was not heard any more.
    pub(crate) Counter LINKS_LOST = "tower_channels_cluster_links_lost_total" by [];
    /// Frames to other nodes.
    pub(crate) Counter FRAMES_SENT = "tower_channels_cluster_frames_sent_total" by [];
    /// Frames of other nodes.
    pub(crate) Counter FRAMES_RECEIVED = "tower_channels_cluster_frames_received_total" by [];
    /// Frames to other nodes that were not sent, or may not have been: too much waited, the engine was away, or the
    /// message is longer than 6 MiB.
    pub(crate) Counter FRAMES_LOST = "tower_channels_cluster_frames_lost_total"
        by [("reason", &["overflow", "unsent", "too_large"])];
    /// Frames of other nodes that cannot be read, and broadcasts of which some frames did not come.
    pub(crate) Counter FRAMES_REFUSED = "tower_channels_cluster_frames_refused_total"
        by [("reason", &["version", "malformed", "incomplete"])];
    /// Frames of other nodes that came twice.
    pub(crate) Counter FRAMES_REPEATED = "tower_channels_cluster_frames_repeated_total" by [];
    /// Times that broadcasts of other nodes may have been lost: by the numbers of frames, because the engine was not
    /// heard, or because their sender says so.
    pub(crate) Counter CLUSTER_GAPS = "tower_channels_cluster_gaps_total"
        by [("cause", &["numbers", "link", "sender"])];
    /// Questions to other nodes, by their kind and by what became of them.
    pub(crate) Counter QUESTIONS_ASKED = "tower_channels_cluster_questions_asked_total"
        by [QUESTIONS, ("result", &["answered", "gone", "silent", "late", "busy", "withdrawn"])];
    /// Questions of other nodes, by their kind and by what became of them.
    pub(crate) Counter QUESTIONS_SERVED = "tower_channels_cluster_questions_served_total"
        by [QUESTIONS, ("result", &["answered", "busy", "cancelled", "panicked"])];
    /// Answers of other nodes that nobody waited for any more.
    pub(crate) Counter ANSWERS_IGNORED = "tower_channels_cluster_answers_ignored_total" by [];
    /// Sessions that were asked for on this node: begun, since no other had them or since their node is gone or silent;
    /// begun though the store did not answer; here already; offered by their node, or left behind by it; in use by another
    /// client; and those whose WebSockets keep dying.
    pub(crate) Counter CLAIMS = "tower_channels_cluster_claims_total"
        by [("result", &["new", "dead_node", "unrecorded", "here", "offered", "deposited", "taken"])];
    /// Sessions that ended because another node has them.
    pub(crate) Counter SESSIONS_SUPERSEDED = "tower_channels_cluster_sessions_superseded_total" by [];
    /// Sessions that the store does not know yet.
    pub(crate) Gauge SESSIONS_UNRECORDED = "tower_channels_cluster_sessions_unrecorded" by [];
    /// Sessions that were to be left behind in the store at a shutdown.
    pub(crate) Counter DEPOSITS = "tower_channels_cluster_deposits_total"
        by [("result", &["ok", "too_large", "superseded", "failed"])];
    /// Attempts to write up to where all clients of this node have received the messages that are kept, once a second at most.
    pub(crate) Counter HORIZONS = "tower_channels_cluster_horizons_total"
        by [("result", &["ok", "again", "failed"])];
    /// Topics with a history that were joined beyond the 64 or the 4 KiB of names that are remembered of a session: they
    /// begin anew if their node dies.
    pub(crate) Counter TOPICS_NOT_REMEMBERED = "tower_channels_cluster_topics_not_remembered_total" by [];
    /// Sessions that went on after the death of their node, with topics that have a history.
    pub(crate) Counter SESSIONS_RECOVERED = "tower_channels_cluster_sessions_recovered_total" by [];
    /// Nodes whose sessions were taken over, and that are told so once, because too many do not answer.
    pub(crate) Counter NOTICES_DROPPED = "tower_channels_cluster_notices_dropped_total" by [];
    /// Calls of the store that failed.
    pub(crate) Counter STORE_ERRORS = "tower_channels_cluster_store_errors_total" by [];
    /// Bytes of the questions to and of other nodes that are not answered yet, and of the answers on their way.
    pub(crate) Gauge QUESTIONS_IN_FLIGHT = "tower_channels_cluster_questions_bytes" by [];
    /// Channels of resumable sessions that ended so that their clients join again after such a gap.
    pub(crate) Counter CHANNELS_ENDED_FOR_GAP = "tower_channels_channels_ended_for_gap_total" by [];
}

/// Describes every metric of the library to the installed recorder of the `metrics` facade, and
/// registers those whose labels are known: counters read 0 before anything is counted.
///
/// [`Builder::build`](crate::Builder::build) does this, so it is needed only for a recorder that is
/// installed later. An endpoint keeps the recorder that it was built with for its gauges and
/// histograms, and for what it counts per message.
pub fn describe_metrics() {
    telemetry::describe();
    ALL.iter().for_each(|metric| metric.describe());
}

/// Returns the definition of every metric of the library.
pub fn all_metrics() -> impl Iterator<Item = &'static dyn Described> {
    telemetry::all().iter().chain(ALL).copied()
}

/// The metrics of one channel of an endpoint.
pub(crate) struct ChannelMetrics {
    pattern: Box<str>,
    joins: [Counter; JoinResult::ALL.len()],
    join: Timing,
    handle_in: Timing,
    crashes: Counter,
    running: AtomicUsize,
    level: Level,
}

impl ChannelMetrics {
    /// Registers the metrics of the channel with this topic pattern.
    pub(crate) fn new(pattern: &str) -> Self {
        let label = || [pattern.to_owned()];
        Self {
            pattern: pattern.into(),
            joins: JoinResult::ALL
                .map(|result| JOINS.handle([pattern.to_owned(), result.label().to_owned()])),
            join: Timing::new(JOIN.handle(label())),
            handle_in: Timing::new(HANDLE_IN.handle(label())),
            crashes: CRASHES.handle(label()),
            running: AtomicUsize::new(0),
            level: Level::new(CHANNELS.handle(label())),
        }
    }

    /// The topic pattern of the channel.
    pub(crate) fn pattern(&self) -> &str {
        &self.pattern
    }

    /// Counts a join, and records how long it took.
    pub(crate) fn join(&self, result: JoinResult, took: Duration) {
        self.count_join(result);
        self.join.record(took);
    }

    /// Counts a join that took no time, or whose time says nothing.
    pub(crate) fn count_join(&self, result: JoinResult) {
        self.joins[result as usize].increment(1);
    }

    pub(crate) fn crash(&self) {
        self.crashes.increment(1);
        CRASHES.count(1);
    }

    /// The time of `handle_in`.
    pub(crate) fn handle_in(&self) -> &Timing {
        &self.handle_in
    }

    pub(crate) fn begin(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns how many channels there are.
    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Updates the gauge.
    pub(crate) fn record_gauges(&self) {
        self.level.set(self.running());
    }
}

/// Without a recorder.
impl Default for ChannelMetrics {
    fn default() -> Self {
        Self {
            pattern: Box::default(),
            joins: JoinResult::ALL.map(|_| Counter::noop()),
            join: Timing::new(Histogram::noop()),
            handle_in: Timing::new(Histogram::noop()),
            crashes: Counter::noop(),
            running: AtomicUsize::new(0),
            level: Level::new(Gauge::noop()),
        }
    }
}

impl fmt::Debug for ChannelMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelMetrics").field("running", &self.running).finish_non_exhaustive()
    }
}
