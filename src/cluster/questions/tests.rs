use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tower_channels_transports::peers::{
    self, BoxFuture, Handover, NotRelayed, Offering, Peers, RelayedAnswer, Wanted,
};

use super::*;
use crate::cluster::wire::Part;
use crate::cluster::wire::questions::{Offered, Poll, Post, Relayed};
use crate::test::{Bus, Path, Place};
use crate::{PubSub, PubSubConfig};

const MS: Duration = Duration::from_millis(1);
const MIB: usize = 1 << 20;

/// A node with an endpoint that does what it is asked for.
struct Node {
    cluster: Arc<Cluster>,
    peers: Arc<EndpointPeers>,
    fake: Arc<Fake>,
    place: Place,
    _pubsub: PubSub,
}

/// What a request asks for is the first word of its token, and a number follows.
#[derive(Default)]
struct Fake {
    /// How many requests were withdrawn, or offers dropped.
    dropped: Arc<AtomicUsize>,
    given: Arc<AtomicUsize>,
    begun: AtomicUsize,
    is_over: AtomicBool,
    ended: Mutex<Vec<String>>,
}

struct CountDrop(Arc<AtomicUsize>);

impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl LocalEndpoint for Fake {
    fn count(&self) -> usize {
        0
    }

    fn is_shutting_down(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn has_shut_down(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn longest_poll(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn relayed(&self, request: peers::Relayed) -> Option<BoxFuture<RelayedAnswer>> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let (peers::Relayed::Poll { token } | peers::Relayed::Post { token, .. }) = request else {
            return None;
        };
        let (what, number) = token.split_once(' ').unwrap_or((&token, "0"));
        let (what, number) = (what.to_owned(), number.parse::<usize>().unwrap());
        assert_ne!(what, "panic", "requested");
        let dropped = Arc::clone(&self.dropped);
        Some(Box::pin(async move {
            let mut body = Bytes::from_static(b"body");
            match &*what {
                "hang" => {
                    let _dropped = CountDrop(dropped);
                    pending::<()>().await;
                }
                "wait" => sleep(MS * number as u32).await,
                "long" => body = vec![7; number].into(),
                "panic-later" => {
                    tokio::task::yield_now().await;
                    panic!("requested");
                }
                _ => {}
            }
            RelayedAnswer { status: 200, retry_after: Some(3), body }
        }))
    }

    fn offer(&self, it: &Wanted) -> Offering {
        assert_eq!(*it, wanted(&it.id));
        match it.id.split_once(' ') {
            Some(("give", bytes)) => Offering::Offered(Box::new(Session {
                bytes: bytes.parse().unwrap(),
                given: Arc::clone(&self.given),
                _dropped: CountDrop(Arc::clone(&self.dropped)),
            })),
            Some(("taken", _)) => Offering::Taken,
            _ => Offering::None,
        }
    }

    fn end_moved(&self, id: &str) {
        self.ended.lock().push(id.to_owned());
    }
}

/// A session that takes half a second to be packed.
#[derive(Debug)]
struct Session {
    bytes: usize,
    given: Arc<AtomicUsize>,
    _dropped: CountDrop,
}

impl std::fmt::Debug for CountDrop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CountDrop")
    }
}

impl Handover for Session {
    fn outline(&self) -> Bytes {
        Bytes::from_static(b"outline")
    }

    fn give(self: Box<Self>, prepared: Option<Bytes>) -> BoxFuture<Option<Bytes>> {
        assert_eq!(prepared.as_deref(), Some(&b"prepared"[..]));
        Box::pin(async move {
            sleep(MS * 500).await;
            self.given.fetch_add(1, Ordering::Relaxed);
            (self.bytes > 0).then(|| vec![7; self.bytes].into())
        })
    }
}

fn node(bus: &Bus, max_frame: usize) -> Node {
    let adapter = bus.adapter().max_frame(max_frame);
    let place = adapter.place();
    let pubsub = PubSub::with_config(PubSubConfig::new().adapter(adapter)).unwrap();
    let cluster = Arc::clone(pubsub.cluster().unwrap());
    let fake = Arc::new(Fake::default());
    let peers = cluster.add_endpoint(fake.clone());
    Node { cluster, peers, fake, place, _pubsub: pubsub }
}

/// Nodes that have heard each other.
async fn nodes<const N: usize>(bus: &Bus, max_frame: usize) -> [Node; N] {
    let nodes = std::array::from_fn(|_| node(bus, max_frame));
    sleep(MS * 1000).await;
    nodes
}

async fn two(bus: &Bus) -> [Node; 2] {
    nodes(bus, MIB).await
}

impl Node {
    async fn ask(&self, other: &Self, question: Question) -> Result<Answer, AskError> {
        self.cluster.ask(other.cluster.node, 0, question).await
    }

    async fn take(&self, other: &Self, bytes: usize) -> Result<Answer, AskError> {
        let offered = self.ask(other, offer(&format!("give {bytes}"))).await;
        let Ok(Answer::Offered(Offered { ticket, outline })) = offered else { return offered };
        assert_eq!(outline, "outline");
        self.ask(other, take(ticket)).await
    }

    fn dropped(&self) -> usize {
        self.fake.dropped.load(Ordering::Relaxed)
    }

    fn in_flight(&self) -> usize {
        self.cluster.questions_in_flight()
    }
}

fn poll(token: &str) -> Question {
    Question::Poll(Poll { token: token.into() })
}

fn post(token: &str, bytes: usize) -> Question {
    let body = vec![7; bytes].into();
    Question::Post(Post { token: token.into(), is_ndjson: false, body })
}

fn wanted(id: &str) -> Wanted {
    Wanted { id: id.into(), socket_id: Some("user:1".into()), received: Some(0) }
}

fn offer(id: &str) -> Question {
    Question::offer(&wanted(id))
}

fn take(ticket: u64) -> Question {
    Question::take(ticket, Bytes::from_static(b"prepared"))
}

fn relayed(body: impl Into<Bytes>) -> Result<Answer, AskError> {
    Ok(Answer::Relayed(Relayed { status: 200, retry_after: Some(3), body: body.into() }))
}

/// Runs `future`, and returns after how many milliseconds it was done.
async fn timed<T>(future: impl Future<Output = T>) -> (T, u64) {
    let begun = Instant::now();
    let result = timeout(Duration::from_secs(60), future).await.expect("it never hangs");
    (result, begun.elapsed().as_millis() as u64)
}

#[tokio::test(start_paused = true)]
async fn a_question_is_answered() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    for (asking, asked) in [(&ann, &bob), (&bob, &ann)] {
        assert_eq!(timed(asking.ask(asked, poll("now"))).await, (relayed("body"), 0));
        assert_eq!(timed(asking.ask(asked, post("now", 10))).await, (relayed("body"), 0));
    }
    sleep(MS).await;
    assert_eq!([ann.in_flight(), bob.in_flight()], [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_poll_waits_as_long_as_the_other_node_keeps_it() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    assert_eq!(timed(ann.ask(&bob, poll("wait 10000"))).await, (relayed("body"), 10_000));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_nobody_is_is_gone_at_once() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    let ask = |node| timed(ann.cluster.ask(node, 0, poll("now")));
    assert_eq!(ask(NodeId(4711)).await, (Err(AskError::Gone), 0));
    assert_eq!(ask(ann.cluster.node).await, (Err(AskError::Gone), 0));
    let gone = bob.cluster.node;
    drop(bob);
    sleep(MS).await;
    assert_eq!(ask(gone).await, (Err(AskError::Gone), 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_node_has_accepted_that_is_down_ends_with_it() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    let die = async {
        sleep(MS * 500).await;
        bus.cut(bob.place);
        timed(ann.ask(&bob, poll("now"))).await
    };
    let ((waiting, after), asked) = tokio::join!(timed(ann.ask(&bob, poll("hang"))), die);
    assert_eq!((waiting, asked), (Err(AskError::Gone), (Err(AskError::Gone), 0)));
    // Nobody was there for half a second.
    assert!((1000..=1300).contains(&after), "{after} ms");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_nobody_hears_for_a_moment_answers_what_it_has_accepted() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    let blink = async {
        sleep(MS * 500).await;
        bus.cut(bob.place);
        let asked = ann.ask(&bob, poll("now")).await;
        sleep(MS * 100).await;
        bus.heal(bob.place);
        asked
    };
    let (waiting, asked) = tokio::join!(ann.ask(&bob, poll("wait 2000")), blink);
    assert_eq!((waiting, asked), (relayed("body"), Err(AskError::Gone)));
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_word_is_silent_after_a_second() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    bus.stall(bob.place);
    let (answer, after) = timed(ann.ask(&bob, poll("now"))).await;
    assert_eq!(answer, Err(AskError::Silent));
    assert!((950..=1050).contains(&after), "{after} ms");
    // It is known to be silent by then, and asked no more.
    sleep(MS * 6000).await;
    assert_eq!(timed(ann.ask(&bob, poll("now"))).await, (Err(AskError::Gone), 0));
    bus.heal(bob.place);
    sleep(MS * 2000).await;
    assert_eq!(ann.ask(&bob, poll("now")).await, relayed("body"));
}

#[tokio::test(start_paused = true)]
async fn an_accepted_question_is_late_and_then_withdrawn() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    for (question, patience) in [(post("hang", 0), 3000), (poll("hang"), 12_000)] {
        let before = bob.dropped();
        let (answer, after) = timed(ann.ask(&bob, question)).await;
        assert_eq!(answer, Err(AskError::Late));
        assert!((patience + 250..=patience + 450).contains(&after), "{after} ms");
        sleep(MS).await;
        assert_eq!(bob.dropped(), before + 1);
    }
    assert_eq!([ann.in_flight(), bob.in_flight()], [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_question_that_nobody_waits_for_is_withdrawn_there() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    for (time, begun) in [(5000, 1), (10, 2), (0, 3)] {
        assert!(timeout(MS * time, ann.ask(&bob, poll("hang"))).await.is_err());
        sleep(MS).await;
        assert_eq!([bob.fake.begun.load(Ordering::Relaxed), bob.dropped()], [begun; 2]);
    }
    assert_eq!([ann.in_flight(), bob.in_flight()], [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_asked_too_much_says_so() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    let long = 6 * MIB - 1024;
    let ask = || ann.ask(&bob, post("hang", long));
    let (first, second, (third, _)) = tokio::join!(ask(), ask(), timed(ask()));
    assert_eq!(
        [first, second, third],
        [Err(AskError::Late), Err(AskError::Late), Err(AskError::Busy)]
    );
    sleep(MS).await;
    assert_eq!([ann.in_flight(), bob.in_flight()], [0, 0]);
    assert_eq!(timed(ann.ask(&bob, post("now", 6 * MIB))).await, (Err(AskError::Busy), 0));
    assert_eq!(ann.ask(&bob, post("now", long)).await, relayed("body"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_asks_too_much_is_refused_at_once() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    bus.stall(bob.place);
    let long = 6 * MIB - 1024;
    let ask = || ann.ask(&bob, post("now", long));
    let five = async { tokio::join!(ask(), ask(), ask(), ask(), ask()) };
    let sixth = async {
        sleep(MS).await;
        timed(ask()).await
    };
    let (five, sixth) = tokio::join!(five, sixth);
    assert_eq!(sixth, (Err(AskError::Busy), 0));
    let silent = Err(AskError::Silent);
    assert_eq!(five, (silent.clone(), silent.clone(), silent.clone(), silent.clone(), silent));
}

#[tokio::test(start_paused = true)]
async fn long_questions_and_answers_go_in_parts() {
    let bus = Bus::new();
    let [ann, bob] = nodes(&bus, 16 << 10).await;
    for bytes in [1000, 16 << 10, 100_000, 3 * MIB] {
        assert_eq!(ann.ask(&bob, poll(&format!("long {bytes}"))).await, relayed(vec![7; bytes]));
        assert_eq!(ann.ask(&bob, post("now", bytes)).await, relayed("body"));
    }
}

#[tokio::test(start_paused = true)]
async fn many_long_answers_at_a_time_all_arrive() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    // Slow enough to be on their way at the same time.
    bus.set_path(bob.place, ann.place, Path { delay: MS * 20, ..Path::default() });
    let one = || ann.take(&bob, 5 * MIB);
    let (a, b, c, d, e, f) = tokio::join!(one(), one(), one(), one(), one(), one());
    for answer in [a, b, c, d, e, f] {
        let Ok(Answer::Given(state)) = answer else { panic!("{answer:?}") };
        assert_eq!(state.len(), 5 * MIB);
    }
    assert_eq!([ann.in_flight(), bob.in_flight()], [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn too_long_an_answer_is_none() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    assert_eq!(ann.take(&bob, 6 * MIB).await, Ok(Answer::NotHere(())));
    let long = poll(&format!("long {}", 6 * MIB));
    assert_eq!(ann.ask(&bob, long).await, Ok(Answer::NotHere(())));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_ends_what_it_was_asked() {
    let bus = Bus::new();
    let [ann, bob, eve] = nodes(&bus, MIB).await;
    let leave = async {
        sleep(MS * 700).await;
        bob.cluster.say_goodbye();
    };
    let (gone, answered, ()) =
        tokio::join!(timed(ann.ask(&bob, poll("hang"))), ann.ask(&eve, poll("wait 2000")), leave);
    assert_eq!(gone, (Err(AskError::Gone), 700));
    assert_eq!(answered, relayed("body"));
    assert_eq!(timed(ann.ask(&bob, poll("now"))).await, (Err(AskError::Gone), 0));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_leaves_waits_for_no_answer() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    let leave = async {
        sleep(MS * 700).await;
        ann.fake.is_over.store(true, Ordering::Relaxed);
        ann.cluster.leave().await;
    };
    let (waiting, ()) = tokio::join!(timed(ann.ask(&bob, poll("hang"))), leave);
    assert_eq!(waiting, (Err(AskError::Late), 700));
    assert_eq!(timed(ann.ask(&bob, poll("now"))).await, (Err(AskError::Late), 0));
    sleep(MS).await;
    assert_eq!((bob.dropped(), bob.in_flight(), ann.in_flight()), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_a_node_has_asked_that_dies_is_not_worked_at_any_more() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    let cluster = Arc::clone(&ann.cluster);
    let (node, asked) = (ann.cluster.node, bob.cluster.node);
    let asking = tokio::spawn(async move { cluster.ask(asked, 0, poll("hang")).await });
    sleep(MS * 500).await;
    bus.cut(ann.place);
    sleep(MS * 6000).await;
    assert!(bob.cluster.state.lock().members.is_away(node));
    assert_eq!((bob.dropped(), bob.in_flight()), (1, 0));
    asking.abort();
}

#[tokio::test(start_paused = true)]
async fn nobody_hangs_when_the_line_fails() {
    for (fault, wait) in [(0, 0), (1, 0), (2, 0), (0, 600), (1, 600), (2, 600), (3, 600)] {
        let bus = Bus::new();
        let [ann, bob] = two(&bus).await;
        let fail = async {
            sleep(MS * wait).await;
            match fault {
                0 => bus.cut(ann.place),
                1 => bus.stall(ann.place),
                2 => bus.stop(),
                _ => bus.cut(bob.place),
            }
        };
        let ask = async {
            if wait == 0 {
                sleep(MS).await;
            }
            timed(ann.ask(&bob, poll("wait 700"))).await
        };
        let ((answer, after), ()) = tokio::join!(ask, fail);
        let errors = [AskError::Gone, AskError::Silent, AskError::Late].map(Err);
        assert!(errors.contains(&answer), "{fault}: {answer:?}");
        let bound = if wait == 0 { 2100 } else { 13_000 };
        assert!(after <= bound, "fault {fault} after {wait}: {after} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_answers_nothing_and_harms_nobody() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    for token in ["panic", "panic-later"] {
        assert_eq!(ann.ask(&bob, post(token, 0)).await, Err(AskError::Silent));
        assert_eq!(bob.in_flight(), 0);
    }
    assert_eq!(ann.ask(&bob, post("now", 0)).await, relayed("body"));
}

#[tokio::test(start_paused = true)]
async fn a_question_for_an_endpoint_that_is_not_there_is_answered_so() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    let nowhere = ann.cluster.ask(bob.cluster.node, 1, poll("now")).await;
    assert_eq!(nowhere, Ok(Answer::NotHere(())));
    // The one that was there is dropped.
    let Node { cluster, peers, fake, _pubsub, .. } = bob;
    drop((peers, fake));
    assert_eq!(ann.cluster.ask(cluster.node, 0, poll("now")).await, Ok(Answer::NotHere(())));
}

#[tokio::test(start_paused = true)]
async fn a_session_is_offered_and_taken() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    for (id, answer) in [("none 1", Answer::NotHere(())), ("taken 1", Answer::InUse(()))] {
        assert_eq!(ann.ask(&bob, offer(id)).await, Ok(answer));
    }
    assert_eq!(ann.take(&bob, 3).await, Ok(Answer::Given(vec![7; 3].into())));
    assert_eq!(ann.take(&bob, 0).await, Ok(Answer::NotHere(())));
    assert_eq!(ann.ask(&bob, take(4711)).await, Ok(Answer::NotHere(())));
}

#[tokio::test(start_paused = true)]
async fn an_offer_is_for_one_node_and_for_two_seconds() {
    let bus = Bus::new();
    let [ann, bob, eve] = nodes(&bus, MIB).await;
    let offered = ann.ask(&bob, offer("give 3")).await;
    let Ok(Answer::Offered(Offered { ticket, .. })) = offered else { panic!("{offered:?}") };
    assert_eq!(eve.ask(&bob, take(ticket)).await, Ok(Answer::NotHere(())));
    assert_eq!(bob.dropped(), 0);
    sleep(MS * 2100).await;
    assert_eq!(bob.dropped(), 1);
    assert_eq!(ann.ask(&bob, take(ticket)).await, Ok(Answer::NotHere(())));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_being_given_is_given_to_the_end() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    assert!(timeout(MS * 100, ann.take(&bob, 3)).await.is_err());
    sleep(MS * 500).await;
    assert_eq!(bob.fake.given.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_relayed() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    let relay = |node, token: &str| {
        let token = token.to_owned();
        let body = Bytes::from_static(b"[]");
        ann.peers.relay(node, peers::Relayed::Post { token, ndjson: true, body })
    };
    let body = Bytes::from_static(b"body");
    let answer = Ok(RelayedAnswer { status: 200, retry_after: Some(3), body });
    assert_eq!(relay(bob.peers.node(), "now").await, answer);
    assert_eq!(relay(bob.peers.node(), "hang").await, Err(NotRelayed::Late));
    assert_eq!(relay(4711, "now").await, Err(NotRelayed::Gone));
    bus.stall(bob.place);
    assert_eq!(relay(bob.peers.node(), "now").await, Err(NotRelayed::Gone));
}

#[tokio::test(start_paused = true)]
async fn a_node_learns_that_another_has_its_session() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    let found = bob.peers.find(wanted("session")).await;
    assert!(matches!(found, peers::Found::None), "it is a session of this node");
    let took = Took { endpoint: 0, id: "session".into(), generation: u64::MAX };
    ann.cluster.notify(bob.cluster.node, Notice::Took(took.clone()));
    ann.cluster.notify(bob.cluster.node, Notice::Took(Took { endpoint: 9, ..took }));
    ann.cluster.settle(bob.cluster.node, 1);
    sleep(MS).await;
    assert_eq!(*bob.fake.ended.lock(), ["session"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_that_is_lost_in_part_is_no_gap() {
    let bus = Bus::new();
    let [ann, bob] = two(&bus).await;
    for is_private in [true, false] {
        let bytes = Bytes::from_static(b"one of two");
        let part = Part { id: 1, index: 0, count: 2, bytes, is_private, ..Part::default() };
        bob.cluster.reach(ann.cluster.node, Body::Part(part)).await;
        sleep(MS * 10_200).await;
        assert_eq!(ann.cluster.gaps.is_pending(), !is_private);
    }
}
