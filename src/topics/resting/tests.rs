use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::heard::Origin;
use super::super::registry::WalkList;
use super::super::tests::{Client, broadcast, topics};
use super::*;
use crate::adapter::NodeId;

const SENDERS: usize = 3;

/// The topic on one node, whose broadcasts are interrupted between any two subscribers.
#[derive(Default)]
struct Node {
    list: WalkList<Subscriber>,
    topic: Topic,
    delivery: Option<Arc<Broadcast>>,
    /// The last number of each sender of which the delivery has begun.
    begun: [u64; SENDERS],
    /// Clients that are there all the time.
    others: Vec<Client>,
}

#[derive(Clone, Debug)]
enum Step {
    /// The next broadcast of a sender arrives.
    Begin {
        at_owner: bool,
        sender: usize,
    },
    /// The next subscriber is reached, or the broadcast ends.
    Visit {
        at_owner: bool,
    },
    /// The client's channel becomes dormant at the owner.
    MakeDormant,
    /// The other node keeps what is broadcast from now on.
    Rest,
    /// The channel leaves the owner.
    Leave,
    Wake,
}

fn step() -> impl Strategy<Value = Step> {
    let begin = |(at_owner, sender)| Step::Begin { at_owner, sender };
    prop_oneof![
        12 => (any::<bool>(), 0..SENDERS).prop_map(begin),
        30 => any::<bool>().prop_map(|at_owner| Step::Visit { at_owner }),
        1 => Just(Step::MakeDormant),
        2 => Just(Step::Rest),
        2 => Just(Step::Leave),
        2 => Just(Step::Wake),
    ]
}

impl Node {
    fn with_others(count: usize) -> Self {
        let mut node = Self::default();
        for _ in 0..count {
            let (client, subscriber, _) = Client::new();
            node.list.insert(subscriber);
            node.others.push(client);
        }
        node
    }

    fn begin(&mut self, sender: usize) {
        if self.delivery.is_some() {
            return;
        }
        self.begun[sender] += 1;
        let number = self.begun[sender];
        let broadcast = Arc::new(broadcast(100_000 * sender as u32 + number as u32));
        let origin: Origin = (NodeId(sender as u64), number);
        broadcast.set_origin(origin);
        self.topic.heard.add(origin);
        self.list.begin_walk();
        self.topic.log.begin_delivery(Arc::clone(&broadcast), 1.into(), usize::MAX);
        self.delivery = Some(broadcast);
    }

    fn visit(&mut self) {
        let Some(broadcast) = &self.delivery else { return };
        let mut effects = Effects::default();
        match self.list.next() {
            Some(subscriber) => {
                subscriber.receive(broadcast, None, &mut self.topic.log, &mut effects);
            }
            None => {
                self.topic.log.end_delivery(None);
                self.delivery = None;
            }
        }
        effects.run();
    }

    fn finish(&mut self) {
        while self.delivery.is_some() {
            self.visit();
        }
    }

    fn leave(&mut self, key: u64) -> Heard {
        let mut effects = Effects::default();
        let (subscriber, reached) = self.list.get_mut(key).expect("it is there");
        let heard = subscriber.finish(&mut self.topic, reached, &mut effects);
        self.list.remove(key);
        effects.run();
        heard
    }

    fn wake(&mut self, key: u64, mut subscriber: Subscriber, heard: &Heard) -> u64 {
        let mut effects = Effects::default();
        let mut resting = self.list.remove(key).expect("it rests");
        let rest = resting.rest_mut().expect("it rests");
        assert!(!rest.has_missed(&self.topic.log));
        subscriber.set_ahead(heard.clone(), None);
        rest.replay(&mut subscriber, &self.topic, &mut effects);
        resting.close(&mut self.topic.log);
        let key = self.list.insert(subscriber);
        effects.run();
        key
    }
}

/// A client that moves from one node to another.
struct Move {
    owner: Node,
    other: Node,
    before: Client,
    after: Client,
    /// The subscriber that wakes.
    next: Option<Subscriber>,
    at_owner: Option<u64>,
    resting: Option<u64>,
    awake: Option<u64>,
    /// What the other node had heard when it began to keep broadcasts.
    prepared: [u64; SENDERS],
    heard: Option<Heard>,
}

impl Move {
    fn new(others: usize) -> Self {
        let (mut owner, other) = (Node::with_others(others), Node::with_others(others));
        let (before, subscriber, _) = Client::new();
        let (after, next, _) = Client::new();
        let at_owner = Some(owner.list.insert(subscriber));
        // Some come after it, and so are reached before it.
        for _ in 0..others {
            let (client, subscriber, _) = Client::new();
            owner.list.insert(subscriber);
            owner.others.push(client);
        }
        let (resting, awake, prepared, heard) = Default::default();
        let next = Some(next);
        Self { owner, other, before, after, next, at_owner, resting, awake, prepared, heard }
    }

    fn node(&mut self, is_owner: bool) -> &mut Node {
        if is_owner { &mut self.owner } else { &mut self.other }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Begin { at_owner, sender } => self.node(at_owner).begin(sender),
            Step::Visit { at_owner } => self.node(at_owner).visit(),
            Step::MakeDormant => {
                if let Some(key) = self.at_owner {
                    let (subscriber, reached) = self.owner.list.get_mut(key).expect("a member");
                    subscriber.make_dormant(false, &mut self.owner.topic.log, reached);
                }
            }
            Step::Rest if self.resting.is_none() && self.awake.is_none() => {
                let resting = Subscriber::resting(&mut self.other.topic.log);
                self.resting = Some(self.other.list.insert(resting));
                self.prepared = self.other.begun;
            }
            Step::Leave if self.resting.is_some() => self.leave(),
            Step::Wake => self.wake(),
            Step::Rest | Step::Leave => {}
        }
    }

    fn leave(&mut self) {
        let Some(key) = self.at_owner.take() else { return };
        for sender in 0..SENDERS {
            while self.owner.begun[sender] < self.prepared[sender] {
                self.owner.finish();
                self.owner.begin(sender);
            }
        }
        self.heard = Some(self.owner.leave(key));
    }

    fn wake(&mut self) {
        if let (Some(heard), Some(key), Some(next)) =
            (&self.heard, self.resting, self.next.take_if(|_| self.heard.is_some()))
        {
            self.awake = Some(self.other.wake(key, next, heard));
            self.resting = None;
        }
    }

    /// Moves the client if it has not, lets everything arrive everywhere, and compares what the client has received.
    fn check(mut self) {
        if self.awake.is_none() {
            [Step::Rest, Step::Leave, Step::Wake].iter().for_each(|step| self.step(step));
        }
        for sender in 0..SENDERS {
            let last = self.owner.begun[sender].max(self.other.begun[sender]);
            for node in [&mut self.owner, &mut self.other] {
                while node.begun[sender] < last {
                    node.finish();
                    node.begin(sender);
                }
            }
        }
        for node in [&mut self.owner, &mut self.other] {
            node.finish();
            assert!(node.topic.log.since(0).next().is_none(), "nobody needs the log");
        }
        let mut received = self.before.receive().expect("open");
        received.extend(self.after.receive().expect("open"));
        let mut by_sender: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for number in received {
            by_sender.entry(number / 100_000).or_default().push(number % 100_000);
        }
        for sender in 0..SENDERS {
            let expected: Vec<_> = (1..=self.owner.begun[sender] as u32).collect();
            let received = by_sender.remove(&(sender as u32)).unwrap_or_default();
            assert_eq!(received, expected, "of sender {sender}");
        }
        for client in self.owner.others.iter_mut().chain(&mut self.other.others) {
            let total: u64 = self.owner.begun.iter().sum();
            assert_eq!(client.receive().expect("open").len() as u64, total);
        }
    }
}

proptest! {
    #[test]
    fn a_client_that_moves_receives_every_broadcast_once_and_those_of_each_sender_in_order(
        others in 0..4usize,
        steps in vec(step(), 0..150),
    ) {
        let mut all = Move::new(others);
        steps.iter().for_each(|step| all.step(step));
        all.check();
    }
}

fn before(heard: Heard) -> Before {
    Before { heard, ..Before::default() }
}

fn from(node: u64, number: u64) -> Option<Origin> {
    Some((NodeId(node), number))
}

#[test]
fn what_rested_follows_the_answer_without_what_was_heard_elsewhere() {
    let topics = topics(10_000);
    let resting = topics.rest(&"room".into());
    assert_eq!(topics.subscribers("room"), 1);
    for number in 1..=3 {
        topics.broadcast_from_node(broadcast(number), None, || from(7, u64::from(number)));
    }
    topics.broadcast(broadcast(4), None);
    topics.broadcast(broadcast(5).volatile(), None);
    assert!(!resting.missed());
    let (mut client, subscriber, _) = Client::new();
    let outbox = subscriber.outbox().clone();
    let heard = Heard::from_iter([(NodeId(7), 2), (NodeId(8), 100)]);
    let membership = resting.wake(subscriber, before(heard), |effects| {
        let answer = broadcast(0);
        let message = answer.encode(crate::serializer::Version::V2).expect("JSON");
        effects.enqueue(&outbox, message.clone());
    });
    topics.broadcast(broadcast(6), None);
    assert_eq!(client.receive(), Ok(vec![0, 3, 4, 6]));
    drop(membership);
    assert_eq!(topics.subscribers("room"), 0);
}

#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<String>>,
    misses: AtomicUsize,
}

impl Inbox for Ear {
    fn deliver(&self, broadcast: &Arc<Broadcast>) -> Result<Option<Waker>, Undelivered> {
        self.heard.lock().expect("no panic").push(broadcast.payload().as_json().unwrap().into());
        Ok(None)
    }

    fn miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }
}

fn ear() -> (Arc<Ear>, Arc<dyn Inbox>) {
    let ear = Arc::new(Ear::default());
    (Arc::clone(&ear), ear)
}

#[test]
fn what_is_intercepted_goes_to_the_inbox_and_a_channel_does_not_hear_itself() {
    let topics = topics(10_000);
    let resting = topics.rest(&"room".into());
    let ((ear, inbox), (_, other)) = (ear(), ear());
    topics.broadcast(broadcast(1), None);
    topics.broadcast(broadcast(2), Some(&inbox));
    topics.broadcast(broadcast(3), Some(&other));
    let subscriber = Subscriber::inbox(inbox);
    let _membership = resting.wake(subscriber, Before::default(), |_| ());
    topics.broadcast(broadcast(4), None);
    assert_eq!(*ear.heard.lock().unwrap(), ["1", "3", "4"]);
    assert_eq!(ear.misses.load(Ordering::Relaxed), 0);
}

#[test]
fn a_gap_or_an_eviction_is_remembered_and_told_once() {
    let small = || topics(1000);
    let gap: fn(&Topics) = |topics| assert!(topics.miss("room", true).is_empty());
    let evict: fn(&Topics) = |topics| (0..30).for_each(|n| topics.broadcast(broadcast(n), None));
    for miss in [gap, evict] {
        for is_asked in [true, false] {
            let topics = small();
            let resting = topics.rest(&"room".into());
            assert!(!resting.missed());
            miss(&topics);
            if is_asked {
                assert!(resting.missed() && resting.missed());
            }
            let (ear, inbox) = ear();
            let membership = resting.wake(Subscriber::inbox(inbox), Before::default(), |_| ());
            assert_eq!(ear.misses.load(Ordering::Relaxed), usize::from(!is_asked));
            drop(membership);
        }
    }
}

#[test]
fn what_rested_is_released_with_it() {
    let topics = topics(1 << 20);
    let memory = topics.account().memory().clone();
    let resting = topics.rest(&"room".into());
    let payload = crate::Payload::binary(vec![0; 10_000]);
    topics.broadcast(Broadcast::new("room".into(), "new_msg".into(), payload), None);
    assert!(memory.reserved() >= 10_000);
    drop(resting);
    assert_eq!((memory.reserved(), topics.subscribers("room")), (0, 0));
}

#[test]
fn a_subscriber_that_leaves_has_heard_what_was_broadcast_on_its_topic() {
    let topics = topics(10_000);
    let (mut client, subscriber, _) = Client::new();
    let membership = topics.subscribe(&"room".into(), subscriber, |_| ());
    topics.broadcast_from_node(broadcast(1), None, || from(7, 4));
    assert!(membership.make_dormant(false));
    topics.broadcast_from_node(broadcast(2), None, || from(8, 1));
    topics.broadcast_from_node(broadcast(3), None, || from(7, 9));
    topics.broadcast(broadcast(4), None);
    assert_eq!(membership.leave(), Heard::from_iter([(NodeId(8), 1), (NodeId(7), 9)]));
    assert_eq!(client.receive(), Ok(vec![1, 2, 3, 4]));
    topics.broadcast(broadcast(5), None);
    assert_eq!(client.receive(), Ok(vec![]));
}
