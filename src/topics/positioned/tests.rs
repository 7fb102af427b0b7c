use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use tower_channels_transports::outbox;

use crate::history::Position;
use crate::payload::Payload;
use crate::responder::{Positions, Responder};
use crate::serializer::Version;
use crate::topics::broadcast::Broadcast;
use crate::topics::heard::Heard;
use crate::topics::resting::Before;
use crate::topics::subscriber::{Inbox, Subscriber, Undelivered};
use crate::topics::tests::topics;

/// A client, and the channel that would handle what it intercepts.
struct Client {
    receiver: outbox::Receiver,
    responder: Responder,
    inbox: Arc<Room>,
}

/// An inbox with room for some broadcasts.
struct Room {
    room: AtomicUsize,
    handled: Mutex<Vec<String>>,
    misses: AtomicUsize,
}

impl Inbox for Room {
    fn deliver(&self, broadcast: &Arc<Broadcast>) -> Result<Option<Waker>, Undelivered> {
        let take = |room: usize| room.checked_sub(1);
        self.room
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .map_err(|_| Undelivered)?;
        self.handled.lock().unwrap().push(broadcast.event().to_owned());
        Ok(None)
    }

    fn miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }
}

impl Client {
    fn new(version: Version, positions: Positions) -> Self {
        let (outbox, receiver) = outbox::channel(usize::MAX);
        let responder = Responder { outbox, version, resumable: false, positions };
        let (handled, misses) = Default::default();
        let inbox = Arc::new(Room { room: AtomicUsize::new(3), handled, misses });
        Self { receiver, responder, inbox }
    }

    fn inbox(&self) -> Arc<dyn Inbox> {
        Arc::clone(&self.inbox) as Arc<dyn Inbox>
    }

    fn subscriber(&self, intercept: &'static [&'static str]) -> Subscriber {
        Subscriber::new(self.responder.clone(), self.inbox(), intercept)
    }

    fn receive(&mut self) -> Vec<String> {
        let mut batch = VecDeque::new();
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Err(close)) = self.receiver.poll_take(&mut cx, &mut batch) {
            panic!("closed: {close:?}");
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        batch.iter().map(|message| text(&message.to_bytes())).collect()
    }
}

fn position(number: u64) -> Position {
    Position { epoch: 1, number }
}

fn kept(number: u64, event: &str, payload: Payload) -> Broadcast {
    Broadcast::new("room".into(), event.into(), payload).kept(position(number), number - 1)
}

#[test]
fn a_kept_broadcast_tells_a_client_that_wants_it_where_it_stands() {
    let (json, binary) = (Payload::EMPTY, Payload::binary("b"));
    let at = |number: u64| format!("AAAAAAAAAAE.{number}");
    let pushed = |number| format!("\u{0}\u{f}\u{4}\u{1}p:{}roomeb", at(number));
    let told = |number| format!(r#"[null,"p:{}","room","phx_position",{{}}]"#, at(number));
    let plain = r#"[null,null,"room","e",{}]"#.to_owned();
    let text = |number| format!(r#"[null,"p:{}","room","e",{{}}]"#, at(number));
    let bare = "\u{2}\u{4}\u{1}roomeb".to_owned();
    let v1 = |reference: &str, event: &str| {
        format!(r#"{{"ref":{reference},"event":"{event}","payload":{{}},"topic":"room"}}"#)
    };
    let at = |number| format!("\"p:{}\"", at(number));
    for (version, positions, expected) in [
        (Version::V2, Positions::Unwanted, vec![plain.clone(), bare.clone(), plain.clone()]),
        (Version::V2, Positions::Refs, vec![text(1), bare, told(2), plain.clone(), told(4)]),
        (Version::V2, Positions::All, vec![text(1), pushed(2), plain, told(4)]),
        (Version::V1, Positions::Unwanted, vec![v1("null", "e"), v1("null", "e")]),
        (
            Version::V1,
            Positions::All,
            vec![
                v1(&at(1), "e"),
                v1(&at(2), "phx_position"),
                v1("null", "e"),
                v1(&at(4), "phx_position"),
            ],
        ),
    ] {
        let topics = topics(10_000);
        let mut client = Client::new(version, positions);
        let _membership = topics.subscribe(&"room".into(), client.subscriber(&[]), |_| ());
        topics.broadcast(kept(1, "e", json.clone()), None);
        topics.broadcast(kept(2, "e", binary.clone()), None);
        topics.broadcast(Broadcast::new("room".into(), "e".into(), json.clone()), None);
        // Its own, which it is told to have.
        topics.broadcast(kept(4, "e", json.clone()), Some(&client.inbox()));
        assert_eq!(client.receive(), expected, "{version:?} {positions:?}");
    }
}

#[test]
fn what_was_missed_comes_first_and_nothing_that_stands_there_again() {
    let topics = topics(10_000);
    let mut client = Client::new(Version::V2, Positions::All);
    let resting = topics.rest(&"room".into());
    let event = |number: u64| format!("e{number}");
    let kept = |number| kept(number, &event(number), Payload::EMPTY);
    // Number 3 is in what was read, and so is 4, which has yet to come; 5 is not.
    topics.broadcast(kept(3), None);
    let missed = [2, 3, 4].map(|number| Arc::new(kept(number))).into();
    let before = Before { heard: Heard::default(), missed, until: Some(position(4)) };
    let membership = resting.wake(client.subscriber(&[]), before, |_| ());
    for number in [4, 5, 4, 6] {
        topics.broadcast(kept(number), None);
    }
    let another = Broadcast::new("room".into(), "other".into(), Payload::EMPTY);
    topics.broadcast(another.kept(Position { epoch: 2, number: 1 }, 0), None);
    let received = client.receive();
    let events = received.iter().map(|text| text.split('"').nth(5).unwrap_or_default());
    let expected = ["e2", "e3", "e4", "e5", "e4", "e6", "other"];
    assert_eq!(events.collect::<Vec<_>>(), expected, "a number is left out until it has come");
    drop(membership);
    assert_eq!(topics.subscribers("room"), 0);
}

#[test]
fn a_channel_that_intercepts_passes_everything_on_in_order_or_ends() {
    for (positions, handled, misses) in [
        (Positions::Unwanted, vec!["mine", "mine"], 0),
        (Positions::Refs, vec!["e", "mine", "e"], 1),
    ] {
        let topics = topics(10_000);
        let mut client = Client::new(Version::V2, positions);
        let room = client.subscriber(&["mine"]);
        let _membership = topics.subscribe(&"room".into(), room, |_| ());
        for (number, event) in [(1, "e"), (2, "mine"), (3, "e"), (4, "mine")] {
            topics.broadcast(kept(number, event, Payload::EMPTY), None);
        }
        // There is room again, and what was left out would be missed before it.
        client.inbox.room.store(3, Ordering::Relaxed);
        topics.broadcast(kept(5, "e", Payload::EMPTY), None);
        assert_eq!(*client.inbox.handled.lock().unwrap(), handled);
        assert_eq!(client.inbox.misses.load(Ordering::Relaxed), misses);
        let directly = if positions == Positions::Unwanted { 3 } else { 0 };
        assert_eq!(client.receive().len(), directly);
    }
}
