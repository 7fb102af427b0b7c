//! [`Link`]: a connection over which histories are kept and read.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use async_nats::jetstream::Context;
use async_nats::{Client, Subject};

use super::stream::Found;

/// A connection and the stream that was found over it. A cheap clone.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) context: Context,
    /// The name of the stream.
    pub(crate) name: String,
    /// Where it is read directly.
    pub(crate) direct: Subject,
    pub(crate) found: Found,
    /// How many bytes reads have taken from the connection.
    pub(crate) read: Arc<AtomicU64>,
}

/// Whether histories can be kept and read.
#[derive(Clone, Debug)]
pub(crate) enum Access {
    /// Not yet, or not for the moment.
    Waiting,
    /// It cannot be used, for this reason.
    Unusable(String),
    Open(Box<Link>),
}
