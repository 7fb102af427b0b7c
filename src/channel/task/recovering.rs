//! Joins of topics with a history: what their clients have missed.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
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
    /// Up to where nothing is missing, or what is missing does not follow. `None` if the store does not answer.
    pub(in crate::channel) last: Option<Position>,
    /// Up to where it had everything before, all of which may yet be handed over here.
    pub(in crate::channel) received: Option<Position>,
}

/// Where a join stands in the history of its topic, for the next node if this one dies.
pub(super) struct Standing {
    /// Everything behind it is the client's.
    position: Position,
    /// Whether the client knows already that it has joined.
    is_known: bool,
}

impl Standing {
    /// The channel has joined.
    pub(super) fn remember<A>(self, context: &ChannelContext<A>) {
        let Self { position, is_known } = self;
        if let Some(remembered) = &context.remembered {
            remembered.join(&context.topic, position, is_known, context.mailbox.clone());
        }
    }
}

/// From where the client is to receive what it has missed.
#[derive(Clone, Copy)]
enum From {
    /// Behind the last message that it has received, as it says.
    Named(Position),
    /// Behind what it was sent on the node that it comes from, or is known to have received on one that is gone: a number
    /// of the store, which may be above all of the topic.
    Left(Position),
    /// It has missed nothing.
    Now,
}

/// Reads what the client has missed of the topic, or where its history ends, and sets what the channel learns of it.
/// Returns `None` if the client is told nothing of the history. Everything that is broadcast from then on is kept for it.
pub(super) async fn recover<A>(
    context: &ChannelContext<A>,
    stage: &mut Stage,
    after: Option<Position>,
    payload: &Payload,
) -> (Option<Recovered>, Option<Standing>) {
    let moved = match stage {
        Stage::Joining { continued: Some(continued), .. } => Some(&mut **continued),
        _ => None,
    };
    let has_moved = moved.is_some();
    // Where it goes on, if the history is not that of one node.
    let position = moved.as_ref().and_then(|moved| moved.position);
    let mut arrival = moved.as_ref().map_or(Arrival::New, |moved| moved.arrival.clone());
    let (mut recovered, mut standing) = (None, None);
    let histories = context.pubsub.histories();
    let histories = histories.filter(|histories| histories.policy(&context.topic).is_some());
    if let Arrival::Moved { has_gap, .. } = &mut arrival {
        // One of the nodes knows nothing of the history.
        *has_gap |= position.is_some() != histories.is_some_and(|it| it.outlive_node());
    }
    let is_whole = matches!(arrival, Arrival::Moved { has_gap: false, .. });
    if let Some(histories) = histories {
        let remembered = context.remembered.as_deref();
        let named = named(after, payload, context.client.positions);
        let named = named.filter(|_| !has_moved);
        let left = remembered.and_then(|it| it.awaited(&context.topic)).filter(|_| !has_moved);
        let from = match (named, position.or(left)) {
            (Some(named), _) => From::Named(named),
            (None, Some(left)) => From::Left(left),
            (None, None) => From::Now,
        };
        let is_told = context.client.positions.are_wanted() && !is_whole;
        if !matches!(from, From::Now) || is_told {
            let (begun, is_complete) = read(context, histories, from).await;
            match &mut arrival {
                Arrival::Moved { has_gap, .. } => *has_gap |= !is_complete,
                arrival if named.is_some() || left.is_some() => {
                    *arrival = Arrival::Recovered { has_gap: !is_complete };
                }
                _ => {}
            }
            // What it has kept until now is in the history.
            moved.into_iter().for_each(|moved| moved.resting = None);
            recovered = Some(begun);
        }
        standing = match from {
            From::Named(position) => Some(Standing { position, is_known: false }),
            // After a move its client has yet to acknowledge what came along.
            From::Left(position) => Some(Standing { position, is_known: !has_moved }),
            From::Now if remembered.is_some() => {
                // No client waits long for a store that is away.
                let head = timeout(HEAD_WITHIN, histories.head(&context.topic)).await;
                let head = head.ok().flatten();
                head.map(|position| Standing { position, is_known: false })
            }
            From::Now => None,
        };
    }
    if has_moved || arrival != Arrival::New {
        // It is set once.
        let _ = context.arrival.set(Box::new(arrival));
    }
    (recovered, standing)
}

/// How long the head of a history may take to be read for a client that is not told.
const HEAD_WITHIN: Duration = Duration::from_millis(250);

/// Reads the history of the topic. Returns also whether nothing is missing.
async fn read<A>(
    context: &ChannelContext<A>,
    histories: &Histories,
    from: From,
) -> (Recovered, bool) {
    let topic = &context.topic;
    let rest = || context.pubsub.registry().rest(topic);
    if let Some(heard) = histories.hear(topic) {
        heard.await;
    }
    // It begins before it is read, so that nothing falls in between.
    let mut resting = rest();
    let (Recovery { messages, last, is_complete }, received) = match from {
        From::Named(after) => (histories.recover(topic, after).await, Some(after)),
        From::Left(after) => (histories.recover_from(topic, after).await, Some(after)),
        From::Now => {
            let last = histories.head(topic).await;
            return (Recovered { resting, missed: Vec::new(), last, received: None }, true);
        }
    };
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
    (Recovered { resting, missed, last, received }, is_complete)
}

/// Returns whether the client has room for what it has missed.
fn fits<A>(context: &ChannelContext<A>, missed: &[Arc<Broadcast>]) -> bool {
    let size: usize = missed.iter().map(|message| message.outbox_cost()).sum();
    size <= context.client.outbox.room()
}

/// Returns the last message that a client has received, as its join says: beside the payload, or as an unmodified one does
/// in it.
pub(super) fn named(
    after: Option<Position>,
    payload: &Payload,
    positions: Positions,
) -> Option<Position> {
    let in_payload = || match positions {
        Positions::Refs => json::position_in(payload.as_json()?),
        Positions::Unwanted | Positions::All => None,
    };
    after.or_else(in_payload)
}
