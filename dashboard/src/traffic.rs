//! [`Traffic`]: the channel that shows what is broadcast on a topic, while it is looked at.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tower_channels::channel::{Error, Result};
use tower_channels::pubsub::{Broadcast, Subscription};
use tower_channels::{Channel, Handle, Joined, Lagged, Payload, SendError, Socket};

use crate::Viewer;
use crate::console::start;

/// The topic of the channel. The one that it shows is in the payload of the join.
pub(crate) const TOPIC: &str = "traffic";

/// How many messages are shown of each interval; the others are counted.
const SHOWN: usize = 20;
const INTERVAL: Duration = Duration::from_millis(300);

/// How much of a payload is shown, in bytes.
const PAYLOAD: usize = 2000;

pub(crate) struct Traffic(JoinHandle<()>);

#[derive(Deserialize)]
struct TopicName {
    topic: String,
}

/// What was broadcast in an interval.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Batch {
    messages: Vec<Shown>,
    /// How many there were beside those, and those that were lost on the way to the dashboard.
    skipped: u64,
}

#[derive(Debug, Serialize)]
struct Shown {
    /// Milliseconds since 1970.
    t: u64,
    event: String,
    size: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
}

impl Channel for Traffic {
    type Assigns = Viewer;
    type Info = Batch;

    const LOG_JOIN: Option<tracing::Level> = Some(tracing::Level::DEBUG);

    async fn join(_: &str, payload: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        let TopicName { topic } = payload.parse()?;
        if topic.is_empty() || topic.len() > 255 {
            return Err(Error::reason("this is no topic"));
        }
        let Viewer { access, monitor } = socket.assigns();
        let broadcasts = monitor.inspect().pubsub().subscribe(&topic);
        let watch = watch(broadcasts, access.shows_payloads(), socket.handle());
        Ok(Self(tokio::spawn(watch)).into())
    }

    async fn handle_info(&mut self, batch: Batch, socket: &Socket<Self>) -> Result<()> {
        socket.push("messages", Payload::json(&batch)?);
        Ok(())
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Passes on what is broadcast, an interval at a time, until the channel is gone.
async fn watch(mut broadcasts: Subscription, shows_payloads: bool, channel: Handle<Traffic>) {
    loop {
        let mut batch = Batch::default();
        batch.add(broadcasts.recv().await, shows_payloads);
        let end = Instant::now() + INTERVAL;
        while let Ok(received) = timeout_at(end, broadcasts.recv()).await {
            batch.add(received, shows_payloads);
        }
        if let Err(SendError::Closed) = channel.send(batch) {
            return;
        }
    }
}

impl Batch {
    fn add(&mut self, received: std::result::Result<Arc<Broadcast>, Lagged>, shows_payloads: bool) {
        match received {
            Ok(broadcast) if self.messages.len() < SHOWN => {
                self.messages.push(Shown::new(&broadcast, shows_payloads));
            }
            Ok(_) => self.skipped += 1,
            Err(lagged) => self.skipped = self.skipped.saturating_add(lagged.0),
        }
    }
}

impl Shown {
    fn new(broadcast: &Broadcast, shows_payload: bool) -> Self {
        let payload = broadcast.payload();
        let size = payload.as_json().map_or(0, str::len);
        let size = payload.as_binary().map_or(size, |bytes| bytes.len());
        let text = || payload.as_json().map_or("(binary)".to_owned(), |json| start(json, PAYLOAD));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let event = broadcast.event().to_owned();
        let payload = shows_payload.then(text);
        Self { t: now.as_millis() as u64, event, size, payload }
    }
}
