use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::time::sleep;
use tower_channels_transports::peers::{
    BoxFuture, Found, Handover, Offering, Peers, Relayed, RelayedAnswer, Wanted,
};

use super::record::{SessionRecord, key};
use super::*;
use crate::cluster::questions::{EndpointPeers, LocalEndpoint};
use crate::test::{Bus, Path, Place, StorePath};
use crate::{PubSub, PubSubConfig};

const MS: Duration = Duration::from_millis(1);
const ID: &str = "0123456789abcdefghij";

/// A node with an endpoint that only remembers its sessions.
struct Node {
    cluster: Arc<Cluster>,
    peers: Arc<EndpointPeers>,
    endpoint: Arc<Sessions>,
    place: Place,
    _pubsub: PubSub,
}

#[derive(Clone, Debug, Default)]
struct Sessions {
    here: Arc<Mutex<BTreeSet<String>>>,
    /// Those that are on their way.
    busy: Arc<Mutex<BTreeSet<String>>>,
    /// How long a session takes to be given away, in milliseconds.
    slow: Arc<Mutex<u64>>,
    ended: Arc<Mutex<Vec<String>>>,
}

#[derive(Debug)]
struct Session(Sessions, String);

impl LocalEndpoint for Sessions {
    fn count(&self) -> usize {
        self.here.lock().len()
    }

    fn is_shutting_down(&self) -> bool {
        false
    }

    fn has_shut_down(&self) -> bool {
        false
    }

    fn longest_poll(&self) -> Duration {
        Duration::ZERO
    }

    fn relayed(&self, _: Relayed) -> Option<BoxFuture<RelayedAnswer>> {
        None
    }

    fn offer(&self, wanted: &Wanted) -> Offering {
        if self.busy.lock().contains(&*wanted.id) {
            return Offering::Busy;
        }
        match self.here.lock().get(&*wanted.id) {
            Some(_) if wanted.socket_id.as_deref() == Some("bob") => Offering::Taken,
            Some(id) => Offering::Offered(Box::new(Session(self.clone(), id.clone()))),
            None => Offering::None,
        }
    }

    fn end_moved(&self, id: &str) {
        if self.here.lock().remove(id) {
            self.ended.lock().push(id.to_owned());
        }
    }
}

impl Handover for Session {
    fn outline(&self) -> Bytes {
        "outline".into()
    }

    fn give(self: Box<Self>, _: Option<Bytes>) -> BoxFuture<Option<Bytes>> {
        let is_here = self.0.here.lock().remove(&self.1);
        self.0.busy.lock().insert(self.1.clone());
        let slow = MS * u32::try_from(*self.0.slow.lock()).expect("not so long");
        Box::pin(async move {
            sleep(slow).await;
            self.0.busy.lock().remove(&self.1);
            is_here.then(|| "state".into())
        })
    }
}

fn node_with(adapter: crate::test::BusAdapter) -> Node {
    let place = adapter.place();
    let pubsub = PubSub::with_config(PubSubConfig::new().adapter(adapter)).expect("valid");
    let cluster = Arc::clone(pubsub.cluster().expect("an adapter"));
    let endpoint = Arc::new(Sessions::default());
    let peers = cluster.add_endpoint(Arc::clone(&endpoint) as _);
    Node { cluster, peers, endpoint, place, _pubsub: pubsub }
}

/// Nodes that know each other.
async fn nodes<const N: usize>(bus: &Bus) -> [Node; N] {
    let nodes = [(); N].map(|()| node_with(bus.adapter()));
    sleep(MS * 2000).await;
    nodes
}

/// What a node has found.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    New,
    Here,
    Taken,
    State(Bytes),
}

impl Node {
    /// Finds the session, begins or continues it, and returns how many milliseconds that took.
    async fn connect(&self) -> (Got, u128) {
        let began = Instant::now();
        self.endpoint.busy.lock().insert(ID.to_owned());
        let got = match self.find("ann").await {
            Found::None => Got::New,
            Found::Here if self.has_it() => Got::Here,
            Found::Here => Got::New,
            Found::Taken => Got::Taken,
            Found::Offered(offer) => {
                offer.take("prepared".into()).await.map_or(Got::New, Got::State)
            }
            found => panic!("{found:?}"),
        };
        if got != Got::Taken {
            self.endpoint.here.lock().insert(ID.to_owned());
        }
        self.endpoint.busy.lock().remove(ID);
        (got, began.elapsed().as_millis())
    }

    async fn find(&self, user: &str) -> Found {
        let wanted = Wanted { id: ID.into(), socket_id: Some(user.into()), received: None };
        self.peers.find(wanted).await
    }

    /// The session ends.
    fn end(&self) {
        self.endpoint.here.lock().remove(ID);
        self.peers.release(&ID.into());
    }

    fn has_it(&self) -> bool {
        self.endpoint.count() == 1
    }

    fn unrecorded(&self) -> usize {
        self.cluster.claims.state.lock().of(0).unrecorded()
    }

    async fn record(&self) -> Option<SessionRecord> {
        let record = self.cluster.read_record(&key(0, ID)).await.expect("the store is there");
        record.and_then(|record| SessionRecord::decode(record.value))
    }

    async fn owner(&self) -> Option<NodeId> {
        self.record().await.map(|record| record.owner())
    }
}

fn state() -> Got {
    Got::State("state".into())
}

#[tokio::test(start_paused = true)]
async fn a_new_id_costs_one_call_of_the_store_and_no_question() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    bus.set_store(a.place, StorePath { delay: MS * 300, ..StorePath::default() });
    assert_eq!(a.connect().await, (Got::New, 300));
    assert_eq!(b.owner().await, Some(a.cluster.node));
}

#[tokio::test(start_paused = true)]
async fn a_session_to_which_its_client_returns_costs_one_call_and_begins_a_generation() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    a.connect().await;
    let before = a.record().await.expect("a record").generation;
    bus.set_store(a.place, StorePath { delay: MS * 300, ..StorePath::default() });
    assert_eq!(a.connect().await, (Got::Here, 300));
    assert!(b.record().await.is_some_and(|it| it.generation > before));
    // Another client's is its own affair.
    let before = b.record().await;
    assert!(matches!(a.find("bob").await, Found::Here));
    assert_eq!(b.record().await, before);
}

#[tokio::test(start_paused = true)]
async fn an_older_session_that_was_never_recorded_does_not_end_the_newest_one() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    a.connect().await;
    bus.cut(b.place);
    assert_eq!(b.connect().await.0, Got::New);
    sleep(MS * 10).await;
    assert_eq!(a.connect().await.0, Got::Here);
    bus.heal(b.place);
    sleep(MS * 10_000).await;
    assert!(a.has_it() && !b.has_it());
    assert_eq!(a.owner().await, Some(a.cluster.node));
}

#[tokio::test(start_paused = true)]
async fn a_session_is_found_within_two_seconds_whatever_fails() {
    let bus = Bus::new();
    let mut longest = 0;
    for delay in [0, 300, 600, 900, 990, 60_000] {
        for fault in 0..4 {
            let [a, b] = nodes(&bus).await;
            a.connect().await;
            match fault {
                0 => {}
                1 => bus.stall(a.place),
                2 => bus.set_path(b.place, a.place, Path { is_cut: true, ..Path::default() }),
                _ => _ = a.endpoint.busy.lock().insert(ID.to_owned()),
            }
            bus.set_store(b.place, StorePath { delay: MS * delay, ..StorePath::default() });
            let began = Instant::now();
            b.find("ann").await;
            let took = began.elapsed().as_millis();
            assert!(took <= 2000, "{took} ms: {delay} {fault}");
            longest = longest.max(took);
            bus.set_store(b.place, StorePath::default());
            bus.heal(a.place);
            [&a, &b].iter().for_each(|node| node.end());
            sleep(MS * 1000).await;
        }
    }
    assert!(longest > 1900, "{longest} ms");
}

#[tokio::test(start_paused = true)]
async fn a_session_moves_and_its_record_follows() {
    let bus = Bus::new();
    let [a, b, c] = nodes(&bus).await;
    assert_eq!(a.connect().await, (Got::New, 0));
    assert_eq!(b.connect().await, (state(), 0));
    // The node that gave it away does not remove the record.
    a.end();
    sleep(MS * 200).await;
    assert_eq!(c.owner().await, Some(b.cluster.node));
    assert_eq!(c.connect().await, (state(), 0));
    assert_eq!([&a, &b, &c].map(Node::has_it), [false, false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_being_given_away_is_found_where_it_goes() {
    let bus = Bus::new();
    for back in [false, true] {
        let [a, b, c] = nodes(&bus).await;
        a.connect().await;
        // The endpoint would not let it be found on this node before it is given.
        *a.endpoint.slow.lock() = if back { 501 } else { 1200 };
        let later = async {
            sleep(MS * 500).await;
            let path = StorePath { delay: MS * 200, ..StorePath::default() };
            bus.set_store(b.place, path);
            if back { a.connect().await } else { c.connect().await }
        };
        let (first, (second, took)) = tokio::join!(b.connect(), later);
        assert_eq!((first.0, second), (state(), state()), "{back}");
        assert!(took <= 1300, "{took} ms");
        sleep(MS * 1000).await;
        let last = if back { &a } else { &c };
        assert_eq!(last.owner().await, Some(last.cluster.node));
        assert!([&a, &b, &c].iter().filter(|node| node.has_it()).count() == 1 && last.has_it());
        last.end();
        sleep(MS * 100).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_client_returns_while_it_is_offered_stays() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    a.connect().await;
    let before = a.record().await;
    let Found::Offered(offer) = b.find("ann").await else { panic!("it is offered") };
    // As the endpoint does when its client has come back.
    let session = a.endpoint.here.lock().take(ID);
    assert_eq!(offer.take("prepared".into()).await, None);
    a.endpoint.here.lock().extend(session);
    b.endpoint.here.lock().insert(ID.to_owned());
    sleep(MS * 6000).await;
    assert!(a.has_it());
    assert_eq!(*b.endpoint.ended.lock(), [ID], "what has begun for the old connection");
    assert_eq!(a.record().await, before);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_give_a_session_away_learns_that_it_has_lost_it() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    a.connect().await;
    let Found::Offered(offer) = b.find("ann").await else { panic!("it is offered") };
    bus.stall(a.place);
    assert_eq!(offer.take("prepared".into()).await, None);
    b.endpoint.here.lock().insert(ID.to_owned());
    bus.heal(a.place);
    sleep(MS * 1000).await;
    assert!(!a.has_it() && b.has_it());
    assert_eq!(a.owner().await, Some(b.cluster.node));
}

#[tokio::test(start_paused = true)]
async fn a_node_is_told_until_it_hears_that_it_has_lost_a_session() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    a.connect().await;
    // It does not notice that it hears nothing.
    bus.set_path(b.place, a.place, Path { is_cut: true, ..Path::default() });
    assert_eq!(b.connect().await.0, Got::New);
    sleep(MS * 20_000).await;
    assert!(a.has_it() && b.has_it());
    bus.set_path(b.place, a.place, Path::default());
    sleep(MS * 4000).await;
    assert!(!a.has_it() && b.has_it());
    let mut told = b.cluster.claims.state.lock();
    assert_eq!(told.told.next(u64::MAX / 2), None, "it has heard it");
}

#[tokio::test(start_paused = true)]
async fn an_id_of_another_user_is_taken() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    a.connect().await;
    assert!(matches!(b.find("bob").await, Found::Taken));
    assert!(a.has_it());
    // Unless nobody has it.
    a.endpoint.here.lock().clear();
    assert!(matches!(b.find("bob").await, Found::None));
}

#[tokio::test(start_paused = true)]
async fn the_id_of_a_session_that_has_ended_is_new() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    a.connect().await;
    a.end();
    sleep(MS * 100).await;
    assert_eq!(b.record().await, None);
    assert_eq!(b.connect().await, (Got::New, 0));
}

#[tokio::test(start_paused = true)]
async fn of_two_nodes_that_find_a_session_at_once_one_has_it() {
    let bus = Bus::new();
    let nodes: [_; 3] = nodes(&bus).await;
    for delays in [[0, 0, 0], [5, 0, 0], [0, 5, 5], [200, 300, 100]] {
        for (node, delay) in nodes.iter().zip(delays) {
            let path = StorePath { delay: MS * delay, ..StorePath::default() };
            bus.set_store(node.place, path);
        }
        let [a, b, c] = &nodes;
        let found = tokio::join!(a.connect(), b.connect(), c.connect());
        assert!(found.0.1 <= 2000 && found.1.1 <= 2000 && found.2.1 <= 2000, "{found:?}");
        // At the latest when the records are written again.
        sleep(Duration::from_secs(25 * 60)).await;
        let owners: Vec<_> = nodes.iter().filter(|node| node.has_it()).collect();
        assert_eq!(owners.len(), 1, "{delays:?}");
        assert_eq!(a.owner().await, Some(owners[0].cluster.node));
        owners[0].end();
        sleep(MS * 500).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_session_of_a_dead_node_begins_anew_at_once() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    a.connect().await;
    let before = b.record().await.expect("a record").generation;
    // Its process ends and another begins, which does not know the session.
    drop(a);
    let c = node_with(bus.adapter());
    assert_eq!(b.connect().await, (Got::New, 0));
    let record = b.record().await.expect("a record");
    assert!(record.generation > before);
    assert_eq!(c.connect().await, (state(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_session_that_a_node_had_before_begins_anew() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    a.connect().await;
    // It has ended there, and the store was away.
    a.endpoint.here.lock().clear();
    assert_eq!(a.connect().await, (Got::New, 0));
    a.endpoint.here.lock().clear();
    assert_eq!(b.connect().await, (Got::New, 0));
    assert_eq!(a.owner().await, Some(b.cluster.node));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stalls_is_waited_for_a_second_and_ends_its_own_when_it_goes_on() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    a.connect().await;
    bus.stall(a.place);
    let (got, took) = b.connect().await;
    assert_eq!(got, Got::New);
    assert!((950..=1050).contains(&took), "{took} ms");
    assert!(a.has_it() && b.has_it());
    bus.heal(a.place);
    sleep(MS * 1500).await;
    assert!(!a.has_it() && b.has_it());
    assert_eq!(*a.endpoint.ended.lock(), [ID]);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_cut_off_ends_its_own_when_it_hears_the_others_again() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    a.connect().await;
    bus.cut(a.place);
    assert_eq!(b.connect().await.0, Got::New);
    sleep(MS * 10_000).await;
    assert!(a.has_it() && b.has_it());
    bus.heal(a.place);
    sleep(MS * 500).await;
    assert!(!a.has_it() && b.has_it());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_an_old_session_does_not_resume_it() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    a.connect().await;
    assert_eq!(a.connect().await, (Got::Here, 0));
    // Nothing of what the other node asks and tells arrives.
    bus.set_path(b.place, a.place, Path { is_cut: true, ..Path::default() });
    assert_eq!(b.connect().await.0, Got::New);
    assert!(a.has_it());
    bus.set_path(b.place, a.place, Path::default());
    assert_eq!(a.connect().await, (state(), 0), "of the other node");
    assert_eq!(*a.endpoint.ended.lock(), [ID]);
    assert!(a.has_it() && !b.has_it());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_returns_while_the_store_is_away_keeps_its_session() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    a.connect().await;
    let before = b.record().await.expect("a record").generation;
    for path in [
        StorePath { is_failing: true, ..StorePath::default() },
        StorePath { delay: MS * 60_000, ..StorePath::default() },
    ] {
        bus.set_store(a.place, path);
        let (got, took) = a.connect().await;
        assert!(got == Got::Here && took <= 1000, "{got:?} {took}");
        assert_eq!(a.unrecorded(), 1);
        bus.set_store(a.place, StorePath::default());
        sleep(MS * 10_000).await;
        assert_eq!(a.unrecorded(), 0);
    }
    assert!(b.record().await.expect("a record").generation > before);
    assert_eq!(b.connect().await, (state(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_session_is_begun_without_the_store_and_recorded_when_that_is_back() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    bus.set_store(a.place, StorePath { is_failing: true, ..StorePath::default() });
    assert_eq!(a.connect().await, (Got::New, 0));
    assert_eq!((a.unrecorded(), b.owner().await), (1, None));
    sleep(MS * 30_000).await;
    bus.set_store(a.place, StorePath::default());
    sleep(MS * 64_000).await;
    assert_eq!(a.unrecorded(), 0);
    assert_eq!(b.connect().await, (state(), 0));
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_store_that_does_not_answer() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    bus.set_store(a.place, StorePath { delay: MS * 60_000, ..StorePath::default() });
    assert_eq!(a.connect().await, (Got::New, 1000));
    // It was recorded all the same.
    assert_eq!(b.owner().await, Some(a.cluster.node));
    bus.set_store(a.place, StorePath::default());
    sleep(MS * 10_000).await;
    assert_eq!(a.unrecorded(), 0);
}

#[tokio::test(start_paused = true)]
async fn many_claims_of_a_store_that_does_not_answer_wait_no_longer_than_any_may() {
    let bus = Bus::new();
    let [a] = nodes(&bus).await;
    bus.set_store(a.place, StorePath { delay: MS * 60_000, ..StorePath::default() });
    let began = Instant::now();
    let claims = (0..2000).map(|number| {
        let id = format!("{number:020}").into();
        tokio::spawn(a.peers.find(Wanted { id, socket_id: None, received: None }))
    });
    for claim in claims.collect::<Vec<_>>() {
        assert!(matches!(claim.await, Ok(Found::None)));
    }
    assert!(began.elapsed() <= MS * 2010, "{:?}", began.elapsed());
    assert_eq!(a.unrecorded(), 2000);
    bus.set_store(a.place, StorePath::default());
    sleep(MS * 10_000).await;
    assert_eq!(a.unrecorded(), 0);
}

#[tokio::test(start_paused = true)]
async fn records_that_the_store_has_lost_are_written_again() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    a.connect().await;
    bus.stop();
    bus.forget_records();
    sleep(MS * 100).await;
    bus.restart();
    sleep(MS * 500).await;
    assert_eq!(b.connect().await, (state(), 0));
}

#[tokio::test(start_paused = true)]
async fn of_two_sessions_the_later_one_stays_if_the_store_has_lost_the_record_of_the_other() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    a.connect().await;
    sleep(MS * 10).await;
    bus.forget_records();
    assert_eq!(b.connect().await, (Got::New, 0));
    bus.stop();
    sleep(MS * 100).await;
    bus.restart();
    sleep(MS * 500).await;
    assert!(!a.has_it() && b.has_it());
}

#[tokio::test(start_paused = true)]
async fn a_node_checks_its_records_after_a_pause_of_its_process() {
    let bus = Bus::new();
    let [a] = nodes(&bus).await;
    a.connect().await;
    let (key, ttl) = (key(0, ID), Duration::from_secs(60));
    let read = a.cluster.store().expect("there is one").read(&key).await;
    let seen = read.expect("it answers").map(|record| record.revision);
    let record = SessionRecord::new(NodeId(4711), u64::MAX, 0).encode();
    let deadline = Instant::now() + PATIENCE;
    a.cluster.replace_record(&key, seen, Some(record), ttl, deadline).await.expect("it answers");
    sleep(MS * 3000).await;
    assert!(a.has_it());
    tokio::time::advance(MS * 1100).await;
    sleep(MS * 200).await;
    assert!(!a.has_it());
}

#[tokio::test(start_paused = true)]
async fn a_check_is_paced_and_reaches_every_session() {
    let bus = Bus::new();
    let [a] = nodes(&bus).await;
    for number in 0..1000 {
        let id = format!("{number:020}").into();
        a.peers.find(Wanted { id, socket_id: None, received: None }).await;
    }
    bus.stop();
    bus.forget_records();
    sleep(MS * 100).await;
    bus.restart();
    let count = async || {
        let mut count = 0;
        for number in 0..1000 {
            let key = key(0, &format!("{number:020}"));
            count += usize::from(a.cluster.read_record(&key).await.expect("it answers").is_some());
        }
        count
    };
    sleep(MS * 200).await;
    let soon = count().await;
    assert!((64..=400).contains(&soon), "{soon}");
    sleep(MS * 1000).await;
    assert_eq!(count().await, 1000);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_left_behind_is_taken_from_the_store() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    a.connect().await;
    let ttl = Duration::from_secs(60);
    // Before or after its end is known.
    for is_released in [false, true] {
        a.endpoint.here.lock().clear();
        if is_released {
            a.peers.release(&ID.into());
            sleep(MS * 100).await;
        }
        assert!(a.cluster.deposit(0, ID, Some("ann"), "state".into(), ttl).await);
        a.peers.release(&ID.into());
        sleep(MS * 100).await;
        assert!(matches!(b.find("bob").await, Found::Taken));
        assert_eq!(b.connect().await, (state(), 0));
        assert_eq!(b.record().await.map(|it| it.deposit), Some(None));
        assert_eq!(a.connect().await, (state(), 0), "from the node that has it now");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_left_behind_stays_until_it_is_taken() {
    let bus = Bus::new();
    let [a, b, c] = nodes(&bus).await;
    a.connect().await;
    a.endpoint.here.lock().clear();
    let ttl = Duration::from_secs(60);
    assert!(a.cluster.deposit(0, ID, Some("ann"), "state".into(), ttl).await);
    // The client of that connection has gone.
    assert!(matches!(b.find("ann").await, Found::Offered(_)));
    b.peers.release(&ID.into());
    sleep(MS * 1000).await;
    let Found::Offered(offer) = b.find("ann").await else { panic!("it is offered") };
    let Found::Offered(late) = c.find("ann").await else { panic!("it is offered") };
    // The store does not confirm it at first.
    bus.set_store(b.place, StorePath { delay: MS * 60_000, ..StorePath::default() });
    let mend = async {
        sleep(MS * 500).await;
        bus.set_store(b.place, StorePath::default());
    };
    let (state, ()) = tokio::join!(offer.take(Bytes::new()), mend);
    assert_eq!(state.as_deref(), Some(&b"state"[..]));
    assert_eq!(late.take(Bytes::new()).await, None, "it is taken once");
}

#[tokio::test(start_paused = true)]
async fn a_session_cannot_be_left_behind_that_is_too_large_or_another_nodes() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    let ttl = Duration::from_secs(60);
    a.connect().await;
    let long = vec![0; (64 << 10) + 1];
    assert!(!a.cluster.deposit(0, ID, Some("ann"), long.into(), ttl).await);
    a.connect().await;
    b.connect().await;
    // Before and after the other node has written its record.
    assert!(!a.cluster.deposit(0, ID, Some("ann"), "old".into(), ttl).await);
    sleep(MS * 100).await;
    assert!(!a.cluster.deposit(0, ID, Some("ann"), "old".into(), ttl).await);
    bus.set_store(b.place, StorePath { is_failing: true, ..StorePath::default() });
    assert!(!b.cluster.deposit(0, ID, Some("ann"), "state".into(), ttl).await);
}

#[tokio::test(start_paused = true)]
async fn without_a_store_every_session_is_new() {
    let bus = Bus::new();
    let [a, b] = [(); 2].map(|()| node_with(bus.adapter().without_store()));
    sleep(MS * 2000).await;
    assert_eq!(a.connect().await, (Got::New, 0));
    assert_eq!(b.connect().await, (Got::New, 0));
    a.end();
    assert!(!a.cluster.deposit(0, ID, Some("ann"), "state".into(), MS).await);
    assert_eq!((a.unrecorded(), b.unrecorded()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn endpoints_of_one_node_have_records_of_their_own() {
    let bus = Bus::new();
    let [a, b] = nodes(&bus).await;
    let [other_a, other_b] = [&a, &b].map(|node| {
        let endpoint = Arc::new(Sessions::default());
        let peers = node.cluster.add_endpoint(Arc::clone(&endpoint) as _);
        (peers, endpoint)
    });
    a.connect().await;
    let wanted = || Wanted { id: ID.into(), socket_id: None, received: None };
    assert!(matches!(other_b.0.find(wanted()).await, Found::None));
    other_b.1.here.lock().insert(ID.to_owned());
    assert!(matches!(other_a.0.find(wanted()).await, Found::Offered(_)));
    assert_eq!(b.connect().await, (state(), 0));
}
