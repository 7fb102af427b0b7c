//! Several [tower-channels](https://docs.rs/tower-channels) nodes over [NATS](https://nats.io).
//!
//! ```no_run
//! # use tower_channels::{Channel, ConnectInfo, Endpoint, Joined, Payload, Reply, Socket, channel};
//! use tower_channels_nats::{Nats, NatsConfig};
//! #
//! # struct Room;
//! #
//! # impl Channel for Room {
//! #     type Assigns = ();
//! #     type Info = ();
//! #
//! #     async fn join(_: &str, _: Payload, _: &Socket<Self>) -> channel::Result<Joined<Self>> {
//! #         Ok(Room.into())
//! #     }
//! # }
//!
//! # async fn example() -> Result<(), tower_channels_nats::ConnectError> {
//! let nats = Nats::connect(NatsConfig::new("nats://10.0.0.5:4222").app("chat")).await?;
//! let endpoint = Endpoint::builder(|_: ConnectInfo| async { Ok(()) })
//!     .channel::<Room>("room:*")
//!     .adapter(nats)
//!     .build();
//! # let _ = endpoint;
//! # Ok(())
//! # }
//! ```
//!
//! # Requirements
//!
//! A NATS server of version 2.2 or later, or a cluster of them. The user must be permitted to
//! publish and to subscribe to `tc.{app}.>`, which [`Nats::connect`] checks. Whoever may publish there speaks for
//! the application.
//!
//! For resumable sessions to move between nodes, a server of version 2.10 or later with JetStream, and permission to
//! publish to `$KV.tc-{app}.>` and to `$JS.API.STREAM.INFO.KV_tc-{app}`, `$JS.API.STREAM.CREATE.KV_tc-{app}` and
//! `$JS.API.DIRECT.GET.KV_tc-{app}.>`, or `$JS.API.STREAM.MSG.GET.KV_tc-{app}` if the bucket has replicas. Without them
//! all the rest works, and a warning is logged. See [records](#records).
//!
//! For [histories](#histories), a server of version 2.11 or later with JetStream, and permission to publish to
//! `$JS.API.STREAM.INFO.tc-{app}-history`, and the same with `CREATE`, `UPDATE` (to begin another epoch when messages are lost)
//! and, if the stream has replicas, `MSG.GET`; and to `$JS.API.DIRECT.GET.tc-{app}-history`.
//!
//! | subject | content |
//! | --- | --- |
//! | `tc.{app}.all` | frames for all nodes |
//! | `tc.{app}.t.{00..ff}` | broadcasts to the topics of one of 256 partitions |
//! | `tc.{app}.n.{node}` | frames for one node |
//! | `tc.{app}.m.{node}` | what a node sends to itself, to learn that the server has taken the messages before |
//! | `tc.{app}.h.{00..ff}.{topic}` | messages of histories, as the stream takes them |
//! | `tc.{app}.r.{00..ff}.{topic}` | the same, once they are kept |
//! | `tc.{app}.a.{node}.>` | what has become of a node's messages |
//! | `tc.{app}.i.>` | answers of JetStream |
//! | `$KV.tc-{app}.>` | records |
//!
//! # What is guaranteed
//!
//! - Frames of a node to all arrive in order and once, and so do those to topics: in the order of all while a node
//!   hears all topics, in that of each partition while it hears some.
//! - A frame of which it is not known that a server has taken it is reported as lost. It may have arrived; then
//!   it arrives late only by the time that the connection took to break.
//! - Nothing is sent that is older than [`NatsConfig::max_age`].
//! - If the connection is lost, silent for two to three seconds, or reports an error, the node connects anew, after
//!   20 ms to 400 ms and to the next of the servers. It says that it hears the others when it hears itself.
//!
//! - Choosing other topics, or all, loses and repeats nothing: for 50 ms they are heard in both ways.
//!
//! # Clusters of servers
//!
//! The order of a node's frames is that in which it has published them, also at nodes that are connected to other
//! servers. But a server tells the others of a subscription after it has confirmed it. Therefore a node waits for
//! [`NatsConfig::interest_propagation`] before it says that it hears the others, or a topic. While servers are not
//! connected to each other, what crosses between them is lost; a node that hears all topics notices it.
//!
//! # Records
//!
//! Which node has a resumable session, and sessions that a node has left behind in a deploy, are in the key-value bucket
//! `tc-{app}`. A node that finds none creates it: in memory, on one server, with an age of at most an hour
//! ([`NatsConfig::record_storage`], [`record_replicas`](NatsConfig::record_replicas),
//! [`record_max_age`](NatsConfig::record_max_age)). A bucket that is there is used as it is; `nats kv` shows and changes
//! it. Records that are lost with their server are written again by the nodes that have the sessions.
//!
//! A call takes at most a second, and fails at once without a connection or a bucket.
//!
//! # Histories
//!
//! Topics with a history are in the stream `tc-{app}-history`, over a connection of their own that a node has if any of its
//! topics does. A node that finds no stream creates it, as [`HistoryConfig`] says: in files, on one server, with up to 1000
//! messages of a topic for 7 days, and 1 GiB in all. A stream that is there is used as it is, if it republishes
//! `tc.{app}.h.>` to `tc.{app}.r.>`, allows direct gets and forgets the oldest messages first.
//!
//! - A message counts as kept when the server acknowledges it: what that is worth is a matter of the storage, the replicas
//!   and the `sync_interval` of the server. One without an acknowledgement is sent again over the next connection, for five
//!   seconds in all, and counts once. The messages of a node on a topic keep their order, also then.
//! - The number of a position is that of the message in the stream, the epoch the time at which the stream was created; a
//!   node that misses messages which it knows adds to that in the stream's metadata.
//! - A position is complete if the topic has a message that is not newer: the oldest go first. So that there is one, the first
//!   read of an empty topic writes a mark.
//! - What a history asks to keep stands in each message, `Tc-Keep: {messages} {bytes} {milliseconds}`, and the newest
//!   decides what is read.
//! - With replicas the newest message is asked from the leader, and the rest from any replica that knows it.
//!
//! In `{topic}` a `%` and two hexadecimal digits stand for what a subject cannot contain.
//!
//! # Memory
//!
//! Up to [`NatsConfig::max_queue`] bytes of frames and [`HistoryConfig::max_queue`] of messages wait to be sent, and 64 MiB or
//! 16,384 messages to be delivered. A node that
//! cannot keep up gives up the connection, and what waits with it.
//!
//! # TLS
//!
//! Uses rustls with the provider *ring*. If the application is built with another provider, too, it has to install
//! one as the default of the process.

mod adapter;
mod backlog;
mod backoff;
mod config;
mod connection;
mod error;
mod hearing;
mod history;
mod interest;
mod receiver;
mod records;
mod sender;
mod subjects;
mod topics;

pub use self::adapter::Nats;
use self::adapter::Shared;
pub use self::config::{NatsConfig, Storage};
pub use self::error::ConnectError;
pub use self::history::HistoryConfig;
