//! [`Packing`]: ends the channels of a session that goes on on another node, and packs what goes along.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use smol_str::SmolStr;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use tower_channels_transports::limited;

use super::arriving::{Arriving, ArrivingTopic};
use super::wire::{self, Handled, Outline, Packed, Prepared, State, Topic};
use crate::channel::arrival::News;
use crate::channel::mailbox::Command;
use crate::channel::moving::{PackRequest, PackedChannel};
use crate::cluster::claims::LeftTopic;
use crate::history::Position;
use crate::message::Ref;
use crate::payload::Payload;
use crate::pubsub::PubSub;
use crate::responder::Responder;
use crate::socket::joined_channel::JoinedChannel;
use crate::telemetry::{CHANNELS_LEFT_BEHIND, PACKED_TOO_LARGE};
use crate::topics::broadcast::Broadcast;
use crate::topics::heard::Origin;
use crate::topics::resting::Before;
use crate::topics::subscriber::{Inbox, Subscriber, Undelivered};

/// The most that one channel may pack, and all channels of a client, in bytes.
const LARGEST: usize = 64 << 10;
const LARGEST_SUM: usize = 256 << 10;

/// How long the channels have to end.
const PACKED_WITHIN: Duration = Duration::from_secs(1);

/// How long it may take until this node has heard what the new one had.
const HEARD_WITHIN: Duration = Duration::from_millis(300);

/// How long what has come already may take to reach the subscribers.
const DELIVERED_WITHIN: Duration = Duration::from_millis(50);

/// How often it looks whether it has.
const PAUSE: Duration = Duration::from_millis(2);

/// A session that ends on this node.
pub(in crate::socket) struct Packing {
    pub(in crate::socket) pubsub: PubSub,
    pub(in crate::socket) responder: Responder,
    pub(in crate::socket) channels: Vec<(SmolStr, Box<JoinedChannel>)>,
    /// What it has brought from a node before, and its client has not joined here, with the events that their channels
    /// intercept.
    pub(in crate::socket) arriving: Vec<(SmolStr, Box<ArrivingTopic>, Intercepted)>,
    /// What it had joined on a node that is gone, and not since.
    pub(in crate::socket) left: Vec<LeftTopic>,
    /// The refs that are not handled again.
    pub(in crate::socket) handled: Option<Vec<(u64, u64)>>,
}

type Intercepted = &'static [&'static str];

/// Encodes what a session hears.
pub(in crate::socket) fn outline<'a>(
    responder: &Responder,
    topics: impl Iterator<Item = &'a SmolStr>,
) -> Bytes {
    let topics = topics.map(|topic| topic.to_string()).collect();
    Outline { version: wire::version(responder.version), topics }.encode_to_vec().into()
}

impl Packing {
    /// Ends the channels, within about a second. `prepared` is what [`Arriving::prepare`] has returned on the new node.
    pub(in crate::socket) async fn run(self, prepared: Option<Bytes>) -> Bytes {
        let Self { pubsub, responder, channels, arriving, left, handled } = self;
        let deadline = Instant::now() + PACKED_WITHIN;
        let has_heard = has_heard(&pubsub, prepared).await;
        let is_untold = pubsub.has_pending_gaps();
        let has_gap = !has_heard || is_untold;
        let ticket = next_ticket();
        let names_positions = responder.positions.are_wanted();
        let is_untold = is_untold && !names_positions;
        let mut topics = Topics { all: Vec::new(), has_gap, is_untold, names_positions, size: 0 };
        // All of them at once.
        let request = |(topic, channel): (SmolStr, Box<JoinedChannel>)| {
            let (reply, packed) = oneshot::channel();
            if channel.mailbox.has_joined() {
                // One that has ended meanwhile drops it.
                let _ = channel.mailbox.send(Command::Pack(PackRequest { ticket, reply }));
            }
            (topic, channel, packed)
        };
        let requests: Vec<_> = channels.into_iter().map(request).collect();
        for (topic, channel, packed) in requests {
            match timeout_at(deadline, packed).await {
                Ok(Ok(packed)) => topics.add(topic, &channel, packed, &pubsub),
                Ok(Err(_)) => leave_behind(&topic, &channel, "ended"),
                Err(_) => leave_behind(&topic, &channel, "late"),
            }
        }
        // Most sessions have no presence, and then nobody need say when they are settled.
        let node = pubsub.node().filter(|_| pubsub.presence().0.lingers(ticket));
        let mut lingering: Vec<_> = node.map(|node| (node, ticket)).into_iter().collect();
        for (topic, arriving, intercepted) in arriving {
            lingering.extend(arriving.settlement.pass_on());
            topics.pass_on(topic, *arriving, &responder, intercepted);
        }
        topics.find_gaps(&pubsub).await;
        if pubsub.has_pending_gaps() {
            let may_miss = |topic: &&mut Topic| topic.position.is_none() || !names_positions;
            topics.all.iter_mut().filter(may_miss).for_each(|topic| topic.has_gap = true);
        }
        lingering.truncate(MAX_LINGERING);
        let handled = handled.map(|ranges| Handled {
            bounds: ranges.into_iter().flat_map(|(first, last)| [first, last]).collect(),
        });
        let packed = Packed {
            version: wire::version(responder.version),
            lingering: wire::numbers(lingering),
            topics: topics.all,
            handled,
            left,
        };
        packed.encode_to_vec().into()
    }
}

/// On how many nodes a client's presence lingers that has joined nothing on its way: those before let it go by themselves.
const MAX_LINGERING: usize = 16;

/// Waits until this node has heard what another one had heard when it prepared. Returns whether nothing is missed in
/// between.
async fn has_heard(pubsub: &PubSub, prepared: Option<Bytes>) -> bool {
    let Some(Ok(prepared)) = prepared.map(Prepared::decode) else { return false };
    let numbers = wire::by_node(&prepared.heard);
    let has_heard = wait_for(pubsub, &numbers, HEARD_WITHIN).await;
    has_heard && !prepared.is_late
}

/// Waits until everything up to these numbers is delivered here, and nothing of it missing. Returns whether it is.
async fn wait_for(pubsub: &PubSub, numbers: &[Origin], time: Duration) -> bool {
    let heard = async {
        while !pubsub.has_heard(numbers) {
            sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(time, heard).await.is_ok()
}

/// Returns a number under which presence lingers on this node.
fn next_ticket() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// Ends a channel that does not go along. Its client joins anew.
fn leave_behind(topic: &SmolStr, channel: &JoinedChannel, reason: &'static str) {
    channel.mailbox.abandon();
    channel.task.abort();
    channel.outbox.end_stream();
    report_left_behind(topic, reason);
}

fn report_left_behind(topic: &SmolStr, reason: &'static str) {
    CHANNELS_LEFT_BEHIND.increment([reason], 1);
    limited!(INFO, ?topic, reason, "channel does not move with its client");
}

/// The topics that go along.
struct Topics {
    all: Vec<Topic>,
    /// Whether broadcasts of any of them may be lost.
    has_gap: bool,
    /// Whether clients have yet to learn that something is missing: then nobody can know better of a history either, unless
    /// the client names positions.
    is_untold: bool,
    /// Whether the client names positions: then it receives nothing of a history behind what is missing there.
    names_positions: bool,
    /// What their channels have packed, in bytes.
    size: usize,
}

impl Topics {
    /// Adds a topic whose channel has ended.
    fn add(
        &mut self,
        topic: SmolStr,
        channel: &JoinedChannel,
        packed: PackedChannel,
        pubsub: &PubSub,
    ) {
        let PackedChannel { packed, heard, position, is_unplaced, follows, news } = packed;
        let is_known = channel.join_acked || channel.outbox.is_known();
        let news = news.filter(|_| !is_known);
        if news == Some(News::New) {
            // It has heard nothing of the channel, and what follows would not begin where it left off.
            channel.outbox.end_stream();
            return report_left_behind(&topic, "unanswered");
        }
        let has_gap = self.may_miss(position) || is_unplaced || news == Some(News::Gap);
        let has_history = || pubsub.histories().is_some_and(|it| it.policy(&topic).is_some());
        if has_gap && self.names_positions && has_history() {
            // It joins after the last message that it has received. What waits for it would come again.
            channel.outbox.end_stream();
            return report_left_behind(&topic, "gap");
        }
        let state = packed.filter(|packed| self.admit(&topic, packed)).as_ref().map(State::from);
        let has_arrived = channel.join_acked || channel.outbox.has_reply_arrived();
        let joined = channel.sent_join_ref.as_json().filter(|_| has_arrived);
        self.all.push(Topic {
            topic: topic.into(),
            stream: channel.outbox.stream_id(),
            state,
            heard: wire::numbers(heard.iter()),
            follows,
            has_gap,
            joined: joined.map(str::to_owned),
            position: position.map(Into::into),
        });
    }

    /// Adds a topic that came from another node and was not joined here: what was kept of it goes ahead in its stream.
    fn pass_on(
        &mut self,
        topic: SmolStr,
        arriving: ArrivingTopic,
        responder: &Responder,
        intercepted: Intercepted,
    ) {
        let ArrivingTopic {
            outbox,
            packed,
            mut has_gap,
            mut heard,
            position,
            follows,
            joined,
            resting,
            ..
        } = arriving;
        has_gap |= self.may_miss(position);
        let stream = outbox.stream_id();
        // What a history has is read where the client joins.
        if let Some(resting) = resting.filter(|_| position.is_none()) {
            has_gap |= resting.missed();
            let unhandled = Arc::new(Unhandled::default());
            let inbox = Arc::clone(&unhandled) as Arc<dyn Inbox>;
            let client = Responder { outbox, resumable: true, ..responder.clone() };
            let subscriber = Subscriber::new(client, inbox, intercepted);
            let before = Before { heard, ..Before::default() };
            heard = resting.wake(subscriber, before, |_| ()).leave();
            has_gap |= unhandled.0.load(Ordering::Relaxed);
        }
        let state = packed.filter(|packed| self.admit(&topic, packed)).as_ref().map(State::from);
        self.all.push(Topic {
            topic: topic.into(),
            stream,
            state,
            heard: wire::numbers(heard.iter()),
            follows,
            has_gap,
            joined: joined.as_ref().and_then(Ref::as_json).map(str::to_owned),
            position: position.map(Into::into),
        });
    }

    /// Returns whether broadcasts of a topic may be lost that has gone on until a position of its history: not if they are
    /// read from there.
    fn may_miss(&self, position: Option<Position>) -> bool {
        if position.is_some() { self.is_untold } else { self.has_gap }
    }

    /// The new node leaves out everything up to the last number that a topic has received here. Looks whether all of
    /// it was.
    async fn find_gaps(&mut self, pubsub: &PubSub) {
        if self.all.iter().all(|topic| topic.has_gap || topic.position.is_some()) {
            return;
        }
        let heard = pubsub.heard();
        let is_known = |(node, _): &Origin| heard.iter().any(|(known, _)| known == node);
        let deadline = Instant::now() + DELIVERED_WITHIN;
        let may_have_gap = |topic: &&mut Topic| !topic.has_gap && topic.position.is_none();
        for topic in self.all.iter_mut().filter(may_have_gap) {
            let numbers = wire::by_node(&topic.heard);
            let numbers: Vec<_> = numbers.into_iter().filter(is_known).collect();
            let time = deadline.saturating_duration_since(Instant::now());
            topic.has_gap = !wait_for(pubsub, &numbers, time).await;
        }
    }

    /// Returns whether what a channel has packed goes along.
    fn admit(&mut self, topic: &SmolStr, packed: &Payload) -> bool {
        let bytes = packed.len();
        let fits = bytes <= LARGEST && self.size + bytes <= LARGEST_SUM;
        if fits {
            self.size += bytes;
        } else {
            PACKED_TOO_LARGE.add(1);
            limited!(WARN, ?topic, bytes, "what a channel has packed is too large to move");
        }
        fits
    }
}

/// Takes the place of a channel that would handle broadcasts itself: whether there were any, or some were missed.
#[derive(Default)]
struct Unhandled(AtomicBool);

impl Inbox for Unhandled {
    fn deliver(&self, _: &Arc<Broadcast>) -> Result<Option<Waker>, Undelivered> {
        self.0.store(true, Ordering::Relaxed);
        Ok(None)
    }

    fn miss(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Arriving {
    /// Returns what the client has not joined, to be packed again, with the events that `intercepted` returns.
    pub(in crate::socket) fn into_packing(
        self,
        intercepted: impl Fn(&str) -> Intercepted,
    ) -> Vec<(SmolStr, Box<ArrivingTopic>, Intercepted)> {
        let with_events = |(topic, arriving): (SmolStr, _)| {
            let intercepted = intercepted(&topic);
            (topic, arriving, intercepted)
        };
        self.into_topics().map(with_events).collect()
    }
}
