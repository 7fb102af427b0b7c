//! [`Broadcast`], encoded once per protocol version however many clients receive it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use smol_str::SmolStr;
use tower_channels_transports::{Account, Cost, Message, Reservation, is_counted};

use super::heard::Origin;
use super::positioned::Positioned;
use crate::history::Position;
use crate::message::Ref;
use crate::payload::{ALLOCATION, Payload, heap_size};
use crate::responder::Responder;
use crate::serializer::{ServerMessage, Version};

/// A message to every subscriber of a topic, as a task receives it through
/// [`PubSub::subscribe`](crate::PubSub::subscribe).
pub struct Broadcast {
    topic: SmolStr,
    event: SmolStr,
    payload: Payload,
    volatile: bool,
    /// Known when its delivery begins, if several nodes hear it.
    origin: OnceLock<Origin>,
    /// Known when its delivery begins, if it is kept.
    kept: OnceLock<Box<Positioned>>,
    /// For a large payload, which many queues share.
    reservation: Option<Reservation>,
    /// By [`Version::index`]; `None` where the version cannot carry it.
    encoded: [OnceLock<Option<Message>>; Version::COUNT],
}

impl Broadcast {
    pub(crate) fn new(topic: SmolStr, event: SmolStr, payload: Payload) -> Self {
        Self {
            topic,
            event,
            payload,
            volatile: false,
            origin: OnceLock::new(),
            kept: OnceLock::new(),
            reservation: None,
            encoded: Default::default(),
        }
    }

    /// Makes it volatile: worthless to a client that was away and is sent its subject anew.
    pub(crate) fn volatile(self) -> Self {
        Self { volatile: true, ..self }
    }

    /// It is kept at this position of its topic, behind the one with the number `previous`.
    pub(crate) fn kept(self, position: Position, previous: u64) -> Self {
        self.set_kept(position, previous);
        self
    }

    /// As [`kept`](Self::kept), when its delivery begins.
    pub(crate) fn set_kept(&self, position: Position, previous: u64) {
        // It is kept once.
        let _ = self.kept.set(Box::new(Positioned::new(position, previous)));
    }

    /// Several nodes hear it.
    pub(super) fn set_origin(&self, origin: Origin) {
        // It is delivered once.
        let _ = self.origin.set(origin);
    }

    /// Where it was sent, if several nodes hear it.
    pub(super) fn origin(&self) -> Option<Origin> {
        self.origin.get().copied()
    }

    /// Reserves what is shared by all that hold it, unless the payload is small.
    pub(crate) fn hold(mut self, account: &Arc<Account>) -> Self {
        if !is_counted(self.payload.len()) {
            return self;
        }
        let mut reservation = Reservation::new(Arc::clone(account));
        reservation.set(self.payload.len());
        self.reservation = Some(reservation);
        self
    }

    /// How many bytes of the payload are reserved.
    pub(crate) fn held(&self) -> usize {
        self.reservation.as_ref().map_or(0, Reservation::held)
    }

    /// The topic that it was sent to.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The name of the message.
    pub fn event(&self) -> &str {
        &self.event
    }

    /// Where it stands in the [history](crate::Builder::history) of its topic. `None` if it is not kept.
    pub fn position(&self) -> Option<Position> {
        self.kept.get().map(|kept| kept.position)
    }

    /// The content of the message.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// The topic, to be kept.
    pub(crate) fn topic_name(&self) -> SmolStr {
        self.topic.clone()
    }

    pub(super) fn is_volatile(&self) -> bool {
        self.volatile
    }

    /// The bytes that it takes to keep, encoded for all of `versions`.
    pub(crate) fn cost(&self, versions: usize) -> Cost {
        let Self { topic, event, payload, .. } = self;
        let own = size_of::<Self>() + heap_size(topic) + heap_size(event) + payload.heap_size();
        let own = own + self.kept.get().map_or(0, |_| size_of::<Positioned>());
        let encoded = topic.len() + event.len() + payload.len() + ENVELOPE;
        let encoded_held = if self.held() > 0 { versions * encoded } else { 0 };
        Cost::with_shared(own + ALLOCATION + versions * encoded, self.held() + encoded_held)
    }

    /// The most that it counts in the outbox of a client.
    pub(crate) fn outbox_cost(&self) -> usize {
        let encoded = self.topic.len() + self.event.len() + self.payload.len() + ENVELOPE;
        encoded + POSITION + 2 * size_of::<Message>()
    }

    /// Encodes it for clients of `version`, or returns `None` if the version cannot carry it.
    pub(super) fn encode(&self, version: Version) -> Option<&Message> {
        let encode = || self.encode_for_many(version, None);
        self.encoded[version.index()].get_or_init(encode).as_ref()
    }

    /// Encodes it for a client that wants positions, if it is kept: a message, unless the client's version cannot carry
    /// it, and the position if the message does not carry that. It neither counts nor logs.
    pub(crate) fn encode_with_position(&self, client: &Responder) -> Option<[Option<Message>; 2]> {
        let kept = self.kept.get().filter(|_| client.positions.are_wanted())?;
        let version = client.version;
        let fits = client.positions.fit(&self.payload);
        let message = if fits {
            let encode = || self.encode_for_many(version, Some(kept.position));
            kept.encoded[version.index()].get_or_init(encode).as_ref()
        } else {
            self.encode(version)
        };
        let is_told = fits && message.is_some();
        let position = || client.encode_position(&self.topic, kept.position);
        Some([message.cloned(), if is_told { None } else { position() }])
    }

    fn encode_for_many(&self, version: Version, position: Option<Position>) -> Option<Message> {
        let Self { topic, event, payload, .. } = self;
        let message =
            version.encode(&ServerMessage::Broadcast { topic, event, payload, position })?;
        let mut message = message.for_many();
        if let Some(reservation) = &self.reservation {
            message = message.held_in(reservation.account().memory());
        }
        Some(if self.volatile { message.volatile() } else { message })
    }

    /// Encodes it as a push to a channel of one client. Only the join_ref is the client's own; the
    /// rest is shared by all recipients.
    pub(crate) fn encode_push(&self, version: Version, join_ref: &Ref) -> Option<Message> {
        let shared = self.encode(version)?.clone();
        Some(match join_ref.as_json() {
            Some(text) if version == Version::V2 && !join_ref.is_null() => {
                shared.with_start(["[", text].concat(), "[null".len())
            }
            _ => shared,
        })
    }
}

impl fmt::Debug for Broadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, event, .. } = self;
        f.debug_struct("Broadcast")
            .field("topic", topic)
            .field("event", event)
            .finish_non_exhaustive()
    }
}

/// What an encoded message holds beside its topic, event and payload.
const ENVELOPE: usize = 64;

/// What it holds in addition for a client that wants positions.
const POSITION: usize = 48;

#[cfg(test)]
mod tests {
    use tower_channels_transports::Memory;

    use super::*;

    #[test]
    fn a_broadcast_holds_what_it_costs() {
        for size in [0, 60, 500, 20_000] {
            for versions in [&[Version::V2][..], &[Version::V1, Version::V2]] {
                let event = "x".repeat(size.min(200));
                let mut broadcast = None;
                let held = allocation_counter::measure(|| {
                    let payload = Payload::from_json_text(&format!("\"{}\"", "x".repeat(size)));
                    let new = Broadcast::new("topic".into(), (&*event).into(), payload);
                    versions.iter().for_each(|version| drop(new.encode(*version).cloned()));
                    broadcast = Some(Arc::new(new));
                });
                let cost =
                    broadcast.map_or(0, |broadcast| broadcast.cost(versions.len()).bytes()) as i64;
                let held = held.bytes_current;
                assert!(held <= cost && cost <= held + held / 2, "{size}: {cost} for {held}");
            }
        }
    }

    #[test]
    fn a_small_broadcast_touches_no_account() {
        let account = Memory::new(0).account();
        for (size, clones) in [(1000, 1), (2000, 2)] {
            let payload = Payload::binary(vec![0; size]);
            let _broadcast = Broadcast::new("t".into(), "e".into(), payload).hold(&account);
            assert_eq!(Arc::strong_count(&account), clones, "{size}");
        }
    }
}
