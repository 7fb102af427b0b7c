//! [`Console`]: the channel that shows samples and answers the questions of a page.

use serde::{Deserialize, Serialize};
use serde_json::json;
use tower_channels::channel::{Error, Result};
use tower_channels::{Channel, Joined, Payload, Reply, Socket};
use tower_channels_transports::{excerpt, limited};

use crate::lists::{TopicRow, sessions, topic_row, topics};
use crate::{Viewer, monitor};

/// The topic of the channel.
pub(crate) const TOPIC: &str = "dashboard";

/// How many keys of a topic's presence are shown, and how many metas of each.
const KEYS: usize = 60;
const METAS: usize = 4;

/// How much of one meta is shown, in bytes.
const META: usize = 500;

pub(crate) struct Console {
    _page: monitor::Page,
}

#[derive(Deserialize)]
struct TopicName {
    topic: String,
}

#[derive(Deserialize)]
struct SocketId {
    id: String,
}

#[derive(Serialize)]
struct TopicDetails {
    #[serde(flatten)]
    row: TopicRow,
    /// Each key, how many metas it has, and some of them if they may be seen.
    keys: Vec<(String, usize, Vec<String>)>,
}

impl Channel for Console {
    type Assigns = Viewer;
    type Info = ();

    const LOG_JOIN: Option<tracing::Level> = Some(tracing::Level::DEBUG);

    async fn join(_: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        let Viewer { access, monitor } = socket.assigns();
        let page = monitor.open(socket.pubsub());
        let response = json!({
            "payloads": access.shows_payloads(),
            "disconnects": access.disconnects(),
            "kept": monitor::SAMPLES,
            "samples": monitor.samples(),
        });
        Ok(Joined::new(Self { _page: page }).reply(response))
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        let Viewer { access, monitor } = socket.assigns();
        match event {
            "sessions" => ok(&sessions(monitor, &payload.parse()?).await),
            "topics" => ok(&topics(monitor, &payload.parse()?).await),
            "topic" => {
                let TopicName { topic } = payload.parse()?;
                ok(&details(socket.assigns(), topic))
            }
            "disconnect" if access.disconnects() => {
                let SocketId { id } = payload.parse()?;
                let pubsub = monitor.inspect().pubsub();
                let sessions = pubsub.sockets(&id);
                limited!(WARN, id = ?excerpt(&id), sessions, "disconnected from the dashboard");
                pubsub.disconnect(&id);
                ok(&json!({ "sessions": sessions }))
            }
            "disconnect" => Err(Error::reason("not allowed")),
            _ => Err(Error::unmatched(event)),
        }
    }
}

fn ok(value: &impl Serialize) -> Result<Reply> {
    Ok(Reply::ok(Payload::json(value)?))
}

fn details(viewer: &Viewer, topic: String) -> TopicDetails {
    let Viewer { access, monitor } = viewer;
    let keys = monitor.inspect().presences(&topic, KEYS).keys.into_iter().map(|present| {
        let (count, mut metas) = (present.metas.len(), present.metas);
        metas.truncate(if access.shows_payloads() { METAS } else { 0 });
        metas.iter_mut().for_each(|meta| *meta = start(meta, META));
        (present.key, count, metas)
    });
    TopicDetails { keys: keys.collect(), row: topic_row(monitor, topic) }
}

/// Returns the first bytes of a text, with an ellipsis if it is longer.
pub(crate) fn start(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end));
    [&text[..end.unwrap_or_default()], "…"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_letters() {
        assert_eq!(start("ab", 2), "ab");
        assert_eq!(start("abc", 2), "ab…");
        assert_eq!(start("aß", 2), "a…");
        assert_eq!(start("ß", 1), "…");
    }
}
