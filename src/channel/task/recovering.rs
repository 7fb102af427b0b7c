//! Joins of topics with a history: what their clients have missed.

use std::sync::Arc;

use tower_channels_transports::limited;

use crate::channel::arrival::Arrival;
use crate::channel::context::ChannelContext;
use crate::channel::exit_guard::Stage;
use crate::history::{Histories, Position, Recovery};
use crate::payload::Payload;
use crate::responder::Positions;
use crate::serializer::json;
use crate::topics::broadcast::Broadcast;
use crate::topics::resting::Resting;

/// What a client receives that joins a topic with a history, between the reply and what is yet to be broadcast.
pub(in crate::channel) struct Recovered {
    /// Keeps what is broadcast while the join is decided.
    pub(in crate::channel) resting: Resting,
    /// In their order.
    pub(in crate::channel) missed: Vec<Arc<Broadcast>>,
    /// Up to where nothing is missing, or what is missing does not follow.
    pub(in crate::channel) last: Option<Position>,
}

/// Reads what the client has missed of the topic, or where its history ends, and sets what the channel learns of it.
/// Returns `None` if the client is told nothing of the history. Everything that is broadcast from now on is kept for it.
pub(super) async fn recover<A>(
    context: &ChannelContext<A>,
    stage: &mut Stage,
    after: Option<Position>,
    payload: &Payload,
) -> Option<Recovered> {
    let moved = match stage {
        Stage::Joining { continued: Some(continued), .. } => Some(&mut **continued),
        _ => None,
    };
    let has_moved = moved.is_some();
    // Where it goes on, if the nodes share the history.
    let position = moved.as_ref().and_then(|moved| moved.position);
    let mut arrival = moved.as_ref().map_or(Arrival::New, |moved| moved.arrival.clone());
    let mut recovered = None;
    let histories = context.pubsub.histories();
    let histories = histories.filter(|histories| histories.policy(&context.topic).is_some());
    if let Arrival::Moved { has_gap, .. } = &mut arrival {
        // One of the nodes knows nothing of the history.
        *has_gap |= position.is_some() != histories.is_some_and(|it| it.are_shared());
    }
    let is_whole = matches!(arrival, Arrival::Moved { has_gap: false, .. });
    if let Some(histories) = histories.filter(|_| position.is_some() || !is_whole) {
        let named = after.or_else(|| after_in(payload, context.client.positions));
        let named = named.filter(|_| !is_whole);
        let after = named.or(position);
        if after.is_some() || context.client.positions.are_wanted() {
            let (begun, is_complete) = read(context, histories, after).await;
            match &mut arrival {
                Arrival::Moved { has_gap, .. } if named.is_some() => *has_gap = !is_complete,
                Arrival::Moved { has_gap, .. } => *has_gap |= !is_complete,
                _ if named.is_some() => arrival = Arrival::Recovered { has_gap: !is_complete },
                _ => {}
            }
            // What it has kept until now is in the history.
            moved.into_iter().for_each(|moved| moved.resting = None);
            recovered = Some(begun);
        }
    }
    if has_moved || arrival != Arrival::New {
        // It is set once.
        let _ = context.arrival.set(Box::new(arrival));
    }
    recovered
}

/// Reads the history of the topic. Returns also whether nothing is missing.
async fn read<A>(
    context: &ChannelContext<A>,
    histories: &Histories,
    after: Option<Position>,
) -> (Recovered, bool) {
    let topic = &context.topic;
    let rest = || context.pubsub.registry().rest(topic);
    if let Some(heard) = histories.hear(topic) {
        heard.await;
    }
    // It begins before it is read, so that nothing falls in between.
    let mut resting = rest();
    let Some(after) = after else {
        let last = histories.head(topic).await;
        return (Recovered { resting, missed: Vec::new(), last }, true);
    };
    let Recovery { messages, last, is_complete } = histories.recover(topic, after).await;
    let (mut missed, mut last) = (messages, last);
    let is_complete = is_complete && fits(context, &missed) && !resting.missed();
    if !is_complete {
        missed = Vec::new();
        if resting.missed() {
            // More was broadcast than is kept for a join.
            resting = rest();
            last = histories.head(topic).await;
        }
    }
    let count = missed.len();
    limited!(DEBUG, ?topic, count, is_complete, "joined after an earlier message");
    (Recovered { resting, missed, last }, is_complete)
}

/// Returns whether the client has room for what it has missed.
fn fits<A>(context: &ChannelContext<A>, missed: &[Arc<Broadcast>]) -> bool {
    let size: usize = missed.iter().map(|message| message.outbox_cost()).sum();
    size <= context.client.outbox.room()
}

/// The position that a client has put into the payload of its join, as an unmodified one does.
fn after_in(payload: &Payload, positions: Positions) -> Option<Position> {
    match positions {
        Positions::Refs => json::position_in(payload.as_json()?),
        Positions::Unwanted | Positions::All => None,
    }
}
