use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tower_channels_transports::{Close, outbox};

use super::registry::WalkList;
use super::subscriber::Undelivered;
use super::*;
use crate::payload::Payload;
use crate::responder::{Positions, Responder};
use crate::serializer::Version;

/// An inbox for which nothing is intercepted.
#[derive(Default)]
struct Unused(#[allow(dead_code, reason = "gives it an address")] u8);

impl Inbox for Unused {
    fn deliver(&self, _: &Arc<Broadcast>) -> Result<Option<Waker>, Undelivered> {
        Err(Undelivered)
    }
}

/// A client that reads what it has received.
pub(super) struct Client(outbox::Receiver);

impl Client {
    pub(super) fn new() -> (Self, Subscriber, Arc<dyn Inbox>) {
        let (outbox, receiver) = outbox::channel(usize::MAX);
        let client = Responder {
            outbox,
            version: Version::V2,
            resumable: false,
            positions: Positions::Unwanted,
        };
        let inbox: Arc<dyn Inbox> = Arc::new(Unused::default());
        (Self(receiver), Subscriber::new(client, Arc::clone(&inbox), &[]), inbox)
    }

    /// The numbers of the broadcasts that it has received, or why it was closed.
    pub(super) fn receive(&mut self) -> Result<Vec<u32>, Close> {
        let mut batch = VecDeque::new();
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Err(close)) = self.0.poll_take(&mut cx, &mut batch) {
            return Err(close);
        }
        let number = |text: &[u8]| {
            let message: (Option<u8>, Option<u8>, String, String, u32) =
                serde_json::from_slice(text).expect("a message of version 2.0.0");
            message.4
        };
        Ok(batch.iter().map(|message| number(&message.to_bytes())).collect())
    }
}

/// Topics whose logs keep at most this many bytes.
pub(super) fn topics(max_log: usize) -> Topics {
    let topics = Topics::new(&Memory::new(1 << 30));
    topics.allow_outbox(max_log / 2);
    topics
}

pub(super) fn broadcast(number: u32) -> Broadcast {
    Broadcast::new("room".into(), "new_msg".into(), serde_json::json!(number).into())
}

#[derive(Clone, Debug)]
enum Step {
    /// Begins the next broadcast, once the one before has ended.
    Begin {
        volatile: bool,
    },
    /// Reaches the next subscriber, or ends the broadcast.
    Visit,
    Join,
    Leave(Index),
    MakeDormant(Index, bool),
    CatchUp(Index),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => any::<bool>().prop_map(|volatile| Step::Begin { volatile }),
        8 => Just(Step::Visit),
        2 => Just(Step::Join),
        1 => any::<Index>().prop_map(Step::Leave),
        4 => (any::<Index>(), any::<bool>())
            .prop_map(|(which, resends)| Step::MakeDormant(which, resends)),
        3 => any::<Index>().prop_map(Step::CatchUp),
    ]
}

/// A topic whose broadcasts are interrupted between any two subscribers.
#[derive(Default)]
struct Topic {
    list: WalkList<Subscriber>,
    log: Log,
    /// The broadcast under way.
    delivery: Option<Arc<Broadcast>>,
    last_number: u32,
    members: BTreeMap<u64, Member>,
}

struct Member {
    client: Client,
    received: Vec<u32>,
    /// The broadcasts that began while it was subscribed; `false` for those that it may miss.
    expected: Vec<(u32, bool)>,
    /// Whether it missed volatile broadcasts.
    resends_volatile: bool,
}

impl Topic {
    fn step(&mut self, step: &Step) {
        let mut effects = Effects::default();
        match step {
            Step::Begin { volatile } if self.delivery.is_none() => self.begin(*volatile),
            Step::Begin { .. } => {}
            Step::Visit => {
                let Some(broadcast) = &self.delivery else { return };
                match self.list.next() {
                    Some(subscriber) => {
                        subscriber.receive(broadcast, None, &mut self.log, &mut effects);
                    }
                    None => {
                        if !broadcast.is_volatile() {
                            self.log.end_delivery(None);
                        }
                        self.delivery = None;
                    }
                }
            }
            Step::Join => {
                let (client, subscriber, _) = Client::new();
                let (received, expected) = Default::default();
                let member = Member { client, received, expected, resends_volatile: false };
                self.members.insert(self.list.insert(subscriber), member);
            }
            Step::Leave(which) => {
                if let Some(key) = self.key(*which) {
                    self.members.remove(&key);
                    self.list.get_mut(key).expect("a member").0.close(&mut self.log);
                    self.list.remove(key);
                }
            }
            Step::MakeDormant(which, resends_volatile) => {
                if let Some(key) = self.key(*which) {
                    let (subscriber, reached) = self.list.get_mut(key).expect("a member");
                    assert!(subscriber.make_dormant(*resends_volatile, &mut self.log, reached));
                    let member = self.members.get_mut(&key).expect("a member");
                    member.resends_volatile |= resends_volatile;
                }
            }
            Step::CatchUp(which) => {
                if let Some(key) = self.key(*which) {
                    let (subscriber, reached) = self.list.get_mut(key).expect("a member");
                    let end = self.log.end(reached);
                    subscriber.catch_up(&mut self.log, end, &mut effects);
                }
            }
        }
        effects.run();
    }

    fn begin(&mut self, volatile: bool) {
        self.last_number += 1;
        let number = self.last_number;
        let broadcast = if volatile { broadcast(number).volatile() } else { broadcast(number) };
        let broadcast = Arc::new(broadcast);
        self.list.begin_walk();
        if !volatile {
            self.log.begin_delivery(Arc::clone(&broadcast), 1.into(), usize::MAX);
        }
        self.delivery = Some(broadcast);
        for member in self.members.values_mut() {
            member.expected.push((number, !volatile));
        }
    }

    fn key(&self, which: Index) -> Option<u64> {
        let keys: Vec<_> = self.members.keys().copied().collect();
        (!keys.is_empty()).then(|| *which.get(&keys))
    }

    /// Ends the delivery, lets everyone catch up, and compares what they have received.
    fn check(mut self) {
        while self.delivery.is_some() {
            self.step(&Step::Visit);
        }
        for (key, member) in &mut self.members {
            let (subscriber, _) = self.list.get_mut(*key).expect("a member");
            let mut effects = Effects::default();
            let end = self.log.end(true);
            subscriber.catch_up(&mut self.log, end, &mut effects);
            effects.run();
            member.received.extend(member.client.receive().expect("open"));
            let required = |(number, is_required): &(u32, bool)| {
                let may_miss = !is_required && member.resends_volatile;
                (!may_miss || member.received.contains(number)).then_some(*number)
            };
            let expected: Vec<_> = member.expected.iter().filter_map(required).collect();
            assert_eq!(member.received, expected);
        }
    }
}

proptest! {
    #[test]
    fn every_subscriber_receives_every_broadcast_once_and_in_order_however_a_walk_is_interrupted(
        joins in 0..6usize,
        steps in vec(step(), 0..120),
    ) {
        let mut topic = Topic::default();
        (0..joins).for_each(|_| topic.step(&Step::Join));
        steps.iter().for_each(|step| topic.step(step));
        topic.check();
    }
}

#[test]
fn subscribers_that_come_and_go_dormant_receive_concurrent_broadcasts_in_one_order() {
    const THREADS: u32 = 3;
    const EACH: u32 = 400;
    const CLIENTS: usize = 100;
    let topics = topics(usize::MAX);
    let mut clients = Vec::new();
    let mut subscriptions = Vec::new();
    for _ in 0..CLIENTS {
        let (client, subscriber, _) = Client::new();
        clients.push(client);
        subscriptions.push(topics.subscribe(&"room".into(), subscriber, |_| ()));
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for subscription in subscriptions.iter().step_by(3) {
                    assert!(subscription.make_dormant(false));
                    thread::yield_now();
                    subscription.catch_up().run();
                }
                drop(topics.subscribe(&"room".into(), Client::new().1, |_| ()));
            }
        });
        let broadcasters: Vec<_> = (0..THREADS)
            .map(|thread| {
                let topics = topics.clone();
                scope.spawn(move || {
                    (0..EACH).for_each(|n| topics.broadcast(broadcast(thread * EACH + n), None));
                })
            })
            .collect();
        broadcasters.into_iter().for_each(|thread| thread.join().expect("no panic"));
        done.store(true, Ordering::Relaxed);
    });
    let received: Vec<_> = clients.iter_mut().map(|it| it.receive().expect("open")).collect();
    assert_eq!(received[0].len() as u32, THREADS * EACH);
    assert!(received.iter().all(|numbers| *numbers == received[0]));
}

#[test]
fn a_subscriber_that_missed_more_than_is_kept_is_closed_and_receives_nothing_more() {
    let topics = topics(1000);
    let (mut client, subscriber, _) = Client::new();
    let subscription = topics.subscribe(&"room".into(), subscriber, |_| ());
    topics.broadcast(broadcast(0), None);
    assert!(subscription.make_dormant(false));
    (1..20).for_each(|number| topics.broadcast(broadcast(number), None));
    topics.broadcast(broadcast(20), None);
    subscription.catch_up().run();
    assert_eq!(client.receive(), Ok(vec![0]));
    assert_eq!(client.receive(), Err(Close::Overflow));
}

#[test]
fn a_subscriber_that_catches_up_before_a_broadcast_reaches_it_has_no_silent_gap() {
    let (mut client, mut subscriber, _) = Client::new();
    let (mut log, mut effects) = (Log::default(), Effects::default());
    assert!(subscriber.make_dormant(false, &mut log, true));
    for number in 0..2 {
        log.begin_delivery(Arc::new(broadcast(number)), 10.into(), 5);
        log.end_delivery(None);
    }
    // The third evicts the first, and has not reached the subscriber when that catches up.
    log.begin_delivery(Arc::new(broadcast(2)), 10.into(), 5);
    let end = log.end(false);
    subscriber.catch_up(&mut log, end, &mut effects);
    log.end_delivery(None);
    effects.run();
    assert_eq!(client.receive(), Err(Close::Overflow));
}

#[test]
fn a_dormant_subscriber_never_receives_its_own_broadcast_from() {
    let topics = topics(1000);
    let (mut client, subscriber, inbox) = Client::new();
    let subscription = topics.subscribe(&"room".into(), subscriber, |_| ());
    assert!(subscription.make_dormant(false));
    topics.broadcast(broadcast(1), None);
    topics.broadcast(broadcast(2), Some(&inbox));
    topics.broadcast(broadcast(3), None);
    subscription.catch_up().run();
    assert_eq!(client.receive(), Ok(vec![1, 3]));
}

#[test]
fn a_volatile_broadcast_is_kept_for_nobody() {
    let topics = topics(1000);
    let receives = |resends_volatile| {
        let (mut client, subscriber, _) = Client::new();
        let subscription = topics.subscribe(&"room".into(), subscriber, |_| ());
        assert!(subscription.make_dormant(resends_volatile));
        topics.broadcast(broadcast(1), None);
        topics.broadcast(broadcast(2).volatile(), None);
        let at_once = client.receive().expect("open");
        subscription.catch_up().run();
        (at_once, client.receive().expect("open"))
    };
    assert_eq!(receives(false), (vec![1, 2], vec![]), "it catches up at once");
    assert_eq!(receives(true), (vec![], vec![1]), "the channel sends the state instead");
}

#[test]
fn a_dormant_subscriber_keeps_no_inbox_waiting() {
    #[derive(Default)]
    struct Ear(std::sync::Mutex<Vec<String>>);
    impl Inbox for Ear {
        fn deliver(&self, broadcast: &Arc<Broadcast>) -> Result<Option<Waker>, Undelivered> {
            self.0.lock().expect("no panic").push(broadcast.event().to_owned());
            Ok(None)
        }
    }
    let topics = topics(1000);
    let (_client, subscriber, _) = Client::new();
    let dormant = topics.subscribe(&"room".into(), subscriber, |_| ());
    assert!(dormant.make_dormant(false));
    let ear = Arc::new(Ear::default());
    let inbox = Arc::clone(&ear) as Arc<dyn Inbox>;
    let heard = topics.add_inbox(&"room".into(), Arc::clone(&inbox));
    assert!(!heard.make_dormant(false), "only a client is away");
    topics.broadcast(broadcast(1), None);
    topics.broadcast(broadcast(2), Some(&inbox));
    assert_eq!(*ear.0.lock().expect("no panic"), ["new_msg"], "not its own");
    drop(heard);
    topics.broadcast(broadcast(3), None);
    assert_eq!(ear.0.lock().expect("no panic").len(), 1);
}

#[test]
fn what_is_enqueued_first_precedes_every_broadcast() {
    let topics = topics(1000);
    let (mut client, subscriber, _) = Client::new();
    let first = Payload::from(serde_json::json!(7));
    let outbox = subscriber.outbox().clone();
    let subscription = topics.subscribe(&"room".into(), subscriber, |effects| {
        let first = Broadcast::new("room".into(), "first".into(), first);
        let message = first.encode(Version::V2).expect("JSON").clone();
        effects.enqueue(&outbox, message);
    });
    topics.broadcast(broadcast(8), None);
    assert_eq!(client.receive(), Ok(vec![7, 8]));
    drop(subscription);
}
