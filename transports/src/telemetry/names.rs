//! All metrics of this crate.

use crate::define_metrics;

/// The label `transport`. A transport of another crate adds its own name with its first client.
pub const TRANSPORTS: (&str, &[&str]) = ("transport", &["websocket", "longpoll"]);

/// Why a client is refused before it has a session.
pub const REFUSALS: (&str, &[&str]) = (
    "reason",
    &[
        "origin",
        "query",
        "upgrade",
        "busy",
        "memory",
        "flapping",
        "version",
        "rejected",
        "failed",
        "timeout",
        "panicked",
        "socket_id",
        "full",
        "draining",
    ],
);

/// The application code that a panic is counted for.
pub const PANIC_PLACES: (&str, &[&str]) =
    ("in", &["connect", "check_origin", "session", "refresh", "channel", "fetch", "drop"]);

define_metrics! {
    /// Clients that were accepted, by the transport of their connection.
    pub Counter CONNECTS = "tower_channels_connects_total" by [TRANSPORTS];
    /// Clients that were refused, by the reason.
    pub Counter CONNECTS_REFUSED = "tower_channels_connects_refused_total" by [REFUSALS];
    /// Upgrades that the HTTP server did not offer, or did not finish.
    pub Counter UPGRADES_UNFINISHED = "tower_channels_upgrades_unfinished_total" by [];
    /// Requests to the service whose path leads to no transport.
    pub Counter REQUESTS_MISDIRECTED = "tower_channels_requests_misdirected_total" by [];
    /// How long `connect` took, also where it refused.
    pub Histogram CONNECT = "tower_channels_connect_seconds" by [];
    /// Sessions, by the transport of their last connection and by whether that is there.
    pub Gauge SESSIONS = "tower_channels_sessions"
        by [TRANSPORTS, ("state", &["connected", "detached"])];
    /// Connections that began to use a resumable session, a new one or a detached one.
    pub Counter SESSIONS_ATTACHED = "tower_channels_sessions_attached_total" by [TRANSPORTS];
    /// Resumable sessions that lost their connection.
    pub Counter SESSIONS_DETACHED = "tower_channels_sessions_detached_total" by [];
    /// Resumable sessions that ended because their client did not return in time.
    pub Counter SESSIONS_EXPIRED = "tower_channels_sessions_expired_total" by [];
    /// Resumable sessions that started anew because three connections were lost over one message.
    pub Counter SESSIONS_STUCK = "tower_channels_sessions_stuck_total" by [];
    /// Resumable sessions that another node has taken, and that were taken from another node.
    pub Counter SESSIONS_MOVED = "tower_channels_sessions_moved_total"
        by [("direction", &["out", "in"])];
    /// Sessions of another node that began anew on this one, by the reason.
    pub Counter SESSIONS_NOT_MOVED = "tower_channels_sessions_not_moved_total"
        by [("reason", &["lost", "unreadable", "refused", "failed"])];
    /// Session ids of the wrong form, whose clients work as without one.
    pub Counter SESSION_IDS_IGNORED = "tower_channels_session_ids_ignored_total" by [];
    /// Messages from clients.
    pub Counter MESSAGES_RECEIVED = "tower_channels_messages_received_total" by [TRANSPORTS];
    /// Messages to clients, counted when a connection takes them to write them.
    pub Counter MESSAGES_SENT = "tower_channels_messages_sent_total" by [TRANSPORTS];
    /// Messages that waited for the client of a resumable session until it returned.
    pub Counter MESSAGES_REPLAYED = "tower_channels_messages_replayed_total" by [];
    /// How long a WebSocket had to wait for its client to read before it had written what it was given.
    /// A client that keeps up is not measured.
    pub Histogram DELIVERY_LAG = "tower_channels_delivery_lag_seconds" by [];
    /// Bytes that wait for clients, including what they have not acknowledged.
    pub Gauge QUEUED = "tower_channels_queued_bytes" by [];
    /// Clients closed because they did not read what they were sent.
    pub Counter OUTBOX_OVERFLOWS = "tower_channels_outbox_overflows_total" by [];
    /// Bytes reserved of the memory that everything shares which clients can fill.
    pub Gauge MEMORY = "tower_channels_memory_bytes" by [];
    /// The limit of that memory.
    pub Gauge MEMORY_LIMIT = "tower_channels_memory_limit_bytes" by [];
    /// Sessions closed because memory was exceeded and they held most.
    pub Counter CLOSED_FOR_MEMORY = "tower_channels_sessions_closed_for_memory_total" by [];
    /// Clients that sent more than their rate, and were read more slowly.
    pub Counter THROTTLED = "tower_channels_clients_throttled_total" by [];
    /// Clients closed because they sent far more than their rate.
    pub Counter CLOSED_FOR_RATE = "tower_channels_clients_closed_for_rate_total" by [];
    /// Requests with a long-poll token that was not valid any more.
    pub Counter LONGPOLL_TOKENS_REFUSED = "tower_channels_longpoll_tokens_refused_total"
        by [("reason", &["unknown", "superseded"])];
    /// Requests with unknown long-poll tokens that were answered at once because too many waited.
    pub Counter LONGPOLL_PAUSES_SKIPPED = "tower_channels_longpoll_pauses_skipped_total" by [];
    /// Polls answered without messages because they repeated a token too often.
    pub Counter LONGPOLL_REPEATS_REFUSED = "tower_channels_longpoll_repeats_refused_total" by [];
    /// Long-poll requests that were for a session of another node, by what came of them.
    pub Counter LONGPOLL_RELAYED = "tower_channels_longpoll_relayed_total" by [
        ("kind", &["poll", "post"]),
        ("result", &["answered", "gone", "late", "busy", "memory", "too_large"]),
    ];
    /// POSTs whose body did not arrive in time.
    pub Counter LONGPOLL_BODIES_TIMED_OUT = "tower_channels_longpoll_bodies_timed_out_total" by [];
    /// Binary messages that a long-poll client could not read.
    pub Counter LONGPOLL_BINARY_SKIPPED = "tower_channels_longpoll_binary_skipped_total" by [];
    /// Panics of application code, by what it was called for.
    pub Counter PANICS = "tower_channels_panics_total" by [PANIC_PLACES];
}
