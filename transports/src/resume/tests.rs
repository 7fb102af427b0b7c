use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::Instant;

use super::sweeper::{Sweep, Swept};
use super::*;
use crate::connect_info::Transport;
use crate::frame::{Close, Inbound, Message};
use crate::memory::Memory;
use crate::outbox::{self, Loss};
use crate::reentrant;
use crate::rejected::Rejected;
use crate::session::{DetachReason, Session};

/// A session with this socket id.
struct Silent(Option<&'static str>);

impl Session for Silent {
    fn handle_in(&mut self, _: Inbound<'_>) -> Result<(), Close> {
        Ok(())
    }

    fn id(&self) -> Option<&str> {
        self.0
    }
}

type Registry = Arc<ResumeRegistry<Silent>>;

const TTL: Duration = Duration::from_secs(60);

type Attached = (super::Attached<Silent>, outbox::Receiver);

/// Connects to a session, and attaches to it.
fn attach<S: Session>(
    registry: &Arc<ResumeRegistry<S>>,
    id: &str,
    session: S,
    receiver: outbox::Receiver,
) -> Option<(super::Attached<S>, outbox::Receiver)> {
    let accepted =
        Accepted { id: Some(id.into()), received: None, session, receiver, took: Duration::ZERO };
    Connected::new(registry, accepted).expect("admitted").attach(Transport::WebSocket)
}

/// Attaches to a session without a socket id.
fn connect(registry: &Registry, id: &str) -> Option<Attached> {
    attach(registry, id, Silent(None), outbox::channel(100).1)
}

#[tokio::test(start_paused = true)]
async fn a_sweep_visits_only_what_is_due() {
    const SESSIONS: usize = 200_000;
    const DUE: usize = 1000;
    const LIMIT: usize = 256;
    let config = ResumeConfig::new().anonymous(true).session_ttl(TTL).rejoin_grace(2 * TTL);
    let registry = ResumeRegistry::new(config);
    (0..DUE).for_each(|n| drop(connect(&registry, &n.to_string())));
    tokio::time::advance(TTL / 2).await;
    (DUE..SESSIONS).for_each(|n| drop(connect(&registry, &n.to_string())));
    assert_eq!(registry.sweep(Instant::now(), LIMIT), Swept::UpToDate(0));
    assert_eq!(registry.detached(), SESSIONS);

    let now = Instant::now() + TTL / 2;
    for _ in 0..DUE / LIMIT {
        assert_eq!(registry.sweep(now, LIMIT), Swept::Limited);
    }
    assert_eq!(registry.sweep(now, LIMIT), Swept::UpToDate(DUE % LIMIT));
    assert_eq!(registry.sweep(now, LIMIT), Swept::UpToDate(0));
    assert_eq!(registry.detached(), SESSIONS - DUE);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_used_again_and_again_does_not_pile_up_visits() {
    let registry = ResumeRegistry::new(ResumeConfig::new().anonymous(true).session_ttl(TTL));
    for _ in 0..10_000 {
        let attached = connect(&registry, "tab");
        tokio::time::advance(Duration::from_millis(1)).await;
        drop(attached);
    }
    let Swept::UpToDate(visits) = registry.sweep(Instant::now() + TTL / 2, 100) else {
        panic!("the session is not over");
    };
    assert!(visits <= 2, "{visits} visits");
}

#[tokio::test(start_paused = true)]
async fn the_sweeper_ends_with_the_last_session_and_starts_again_with_the_next() {
    let registry = ResumeRegistry::new(ResumeConfig::new().anonymous(true).session_ttl(TTL));
    for _ in 0..2 {
        drop(connect(&registry, "tab"));
        tokio::time::sleep(2 * TTL).await;
        assert!(!registry.knows("tab"));
        assert_eq!(registry.sweep(Instant::now(), 1), Swept::Empty);
    }
}

#[test]
fn sessions_expire_even_if_the_runtime_of_the_first_is_gone() {
    let config = ResumeConfig::new().anonymous(true).session_ttl(Duration::from_millis(40));
    let registry = ResumeRegistry::new(config);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime().expect("a runtime").block_on(async { drop(connect(&registry, "first")) });
    runtime().expect("a runtime").block_on(async {
        drop(connect(&registry, "second"));
        let expired = async {
            while registry.detached() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), expired).await.expect("both expire");
    });
}

#[tokio::test(start_paused = true)]
async fn a_session_that_panics_when_it_is_dropped_keeps_no_other_alive() {
    struct Fragile(bool);
    impl Session for Fragile {
        fn handle_in(&mut self, _: Inbound<'_>) -> Result<(), Close> {
            Ok(())
        }
    }
    impl Drop for Fragile {
        fn drop(&mut self) {
            assert!(!self.0, "as requested");
        }
    }
    let registry = ResumeRegistry::new(ResumeConfig::new().anonymous(true).session_ttl(TTL));
    for (id, panics) in [("first", true), ("second", false)] {
        let receiver = outbox::channel(1000).1;
        drop(attach(&registry, id, Fragile(panics), receiver));
        tokio::time::sleep(2 * TTL).await;
        assert_eq!(registry.detached(), 0, "{id}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_callback_loses_no_event() {
    #[derive(Default)]
    struct Panics(Arc<std::sync::Mutex<Vec<&'static str>>>);
    impl Session for Panics {
        fn handle_in(&mut self, _: Inbound<'_>) -> Result<(), Close> {
            panic!("as requested")
        }

        fn attached(&mut self, _: u64, _: Transport) {
            self.0.lock().unwrap().push("attached");
        }

        fn detached(&mut self, _: DetachReason) {
            self.0.lock().unwrap().push("detached");
        }
    }
    let registry = ResumeRegistry::new(ResumeConfig::new().anonymous(true));
    let events = Arc::default();
    let session = Panics(Arc::clone(&events));
    let attached = attach(&registry, "tab", session, outbox::channel(1000).1);
    let (mut session, receiver) = attached.expect("it is new");
    let handled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        session.handle_in(Inbound::Text("x"))
    }));
    assert!(handled.is_err());
    drop((session, receiver));
    assert_eq!(*events.lock().unwrap(), ["attached", "detached"]);
    assert!(registry.knows("tab"), "a session outlives a panic, as it outlives its connection");
}

/// Runs `work` with a recorder and a subscriber that use the registry and an outbox of `work`. Returns
/// how often they were called.
fn reentrant(
    config: ResumeConfig,
    work: impl FnOnce(&Registry, &dyn Fn(&outbox::Sender)) + Send,
) -> usize {
    let registry = ResumeRegistry::new(config);
    let current = Arc::new(parking_lot::Mutex::new(None::<outbox::Sender>));
    let act = {
        let (registry, current) = (Arc::clone(&registry), Arc::clone(&current));
        move || {
            let outbox = current.lock().clone();
            if let Some(outbox) = outbox {
                outbox.priority().push(Message::text("from the recorder"));
            }
            for id in ["tab", "a tab of eve"] {
                registry.knows(id);
                registry.refuses(id, Transport::WebSocket);
                drop(attach(&registry, id, Silent(Some("eve")), outbox::channel(100).1));
            }
            registry.detached();
        }
    };
    reentrant::run(act, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(async {
            work(&registry, &|outbox| *current.lock() = Some(outbox.clone()));
        });
    })
}

/// Attaches as `ann`.
fn tab(registry: &Registry, id: &str, limit: usize) -> (outbox::Sender, Option<Attached>) {
    let (outbox, receiver) = outbox::channel(limit);
    (outbox, attach(registry, id, Silent(Some("ann")), receiver))
}

fn is_own(attached: Option<&Attached>) -> bool {
    matches!(attached, Some((super::Attached::Own(..), _)))
}

#[test]
fn recorders_and_subscribers_may_use_the_library_when_a_session_changes_hands() {
    let calls = reentrant(ResumeConfig::new(), |registry, use_outbox| {
        let (outbox, mut current) = tab(registry, "tab", 1 << 20);
        use_outbox(&outbox);
        // Eight takeovers from a client that is still there, and the ninth is refused the session.
        for _ in 0..8 {
            let newer = tab(registry, "tab", 1000).1;
            let (_, receiver) = current.as_ref().expect("it was attached");
            receiver.report_conflict();
            current = newer;
        }
        drop(tab(registry, "tab", 1000));
        assert!(is_own(tab(registry, "tab", 1000).1.as_ref()), "in conflict");
        drop(current);
    });
    assert!(calls > 9, "{calls}");
}

#[test]
fn recorders_and_subscribers_may_use_the_library_when_a_session_expires() {
    let calls = reentrant(ResumeConfig::new(), |registry, use_outbox| {
        let (outbox, attached) = tab(registry, "tab", 1000);
        use_outbox(&outbox);
        drop(attached);
        registry.sweep(Instant::now() + 2 * TTL, 100);
        assert!(outbox.is_closed());
    });
    assert!(calls > 2, "{calls}");
}

#[test]
fn recorders_and_subscribers_may_use_the_library_when_a_session_overflows_or_is_replaced() {
    let calls = reentrant(ResumeConfig::new().max_per_id(1), |registry, use_outbox| {
        let (outbox, attached) = tab(registry, "tab", 100);
        use_outbox(&outbox);
        (0..10).for_each(|_| outbox.push(Message::text("x".repeat(100))));
        assert!(outbox.is_closed());
        drop(attached);
        // The session is gone, and another one takes its id, and its place.
        let (outbox, attached) = tab(registry, "tab", 100);
        use_outbox(&outbox);
        drop(attached);
        let attached = tab(registry, "other tab", 100).1;
        assert!(!is_own(attached.as_ref()), "evicts");
        assert!(outbox.is_closed());
        assert!(is_own(tab(registry, "tab", 100).1.as_ref()), "too many");
        drop(attached);
    });
    assert!(calls > 4, "{calls}");
}

/// A session that is admitted while there is room.
struct Limited(Arc<AtomicUsize>, bool);

impl Session for Limited {
    fn handle_in(&mut self, _: Inbound<'_>) -> Result<(), Close> {
        Ok(())
    }

    fn id(&self) -> Option<&str> {
        Some("ann")
    }

    fn admit(&mut self) -> Result<(), Rejected> {
        let taken = self.0.fetch_update(Relaxed, Relaxed, |room| room.checked_sub(1));
        self.1 = taken.is_ok();
        taken.map(drop).map_err(|_| Rejected::reason("no room"))
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        self.0.fetch_add(usize::from(self.1), Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_client_that_resumes_its_session_needs_no_place() {
    let registry = ResumeRegistry::new(ResumeConfig::new());
    let room = Arc::new(AtomicUsize::new(2));
    let connect = |id: &str| {
        let (session, receiver) = (Limited(Arc::clone(&room), false), outbox::channel(100).1);
        let accepted = Accepted {
            id: Some(id.into()),
            received: None,
            session,
            receiver,
            took: Duration::ZERO,
        };
        Connected::new(&registry, accepted)
    };
    let attach = |id: &str| connect(id).map(|connected| connected.attach(Transport::WebSocket));
    drop(attach("tab").expect("there is room"));
    let unused = connect("other tab").expect("there is room");
    for _ in 0..10 {
        drop(attach("tab").expect("it resumes"));
        assert!(attach("third tab").is_err());
        assert!(attach("other tab").is_err(), "it is not there until it is used");
    }
    assert_eq!(registry.detached(), 1, "an unused connect keeps nothing");
    drop(unused.attach(Transport::WebSocket));
    drop(attach("other tab").expect("it resumes"));
    assert_eq!((registry.detached(), room.load(Relaxed)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn only_connections_that_were_cut_count_as_flapping() {
    let registry = ResumeRegistry::new(ResumeConfig::new());
    let (outbox, mut first) = tab(&registry, "tab", 100);
    let mut lose = |how: &str| {
        let attached = first.take().or_else(|| tab(&registry, "tab", 100).1);
        match how {
            "by its client" => attached.as_ref().expect("it is there").1.close(Close::Normal),
            "by the server" => assert!(outbox.end_connection()),
            _ => {}
        }
        drop(attached);
        registry.refuses("tab", Transport::WebSocket)
    };
    for _ in 0..20 {
        assert!(!lose("by its client"));
        assert!(!lose("by the server"));
    }
    for cuts in 1..=8 {
        assert!(!registry.refuses("tab", Transport::LongPoll));
        assert_eq!(lose("cut"), cuts >= 5);
        assert!(!registry.refuses("tab", Transport::WebSocket), "one is refused for each");
        assert!(!lose("by its client"), "a close changes nothing");
        assert!(!lose("by the server"), "nor does that");
    }
}

#[tokio::test(start_paused = true)]
async fn a_websocket_that_comes_much_later_or_after_a_long_lived_one_is_not_refused() {
    let registry = ResumeRegistry::new(ResumeConfig::new());
    let lose = || drop(tab(&registry, "tab", 100).1.expect("it is there"));
    (0..5).for_each(|_| lose());
    tokio::time::advance(Duration::from_secs(10)).await;
    assert!(!registry.refuses("tab", Transport::WebSocket));
    let long_lived = tab(&registry, "tab", 100).1.expect("it is there");
    tokio::time::advance(Duration::from_secs(3)).await;
    drop(long_lived);
    for cuts in 1..=5 {
        lose();
        assert_eq!(registry.refuses("tab", Transport::WebSocket), cuts == 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_learns_how_it_lost_its_connection() {
    struct Detached(Arc<std::sync::Mutex<Vec<DetachReason>>>);
    impl Session for Detached {
        fn handle_in(&mut self, _: Inbound<'_>) -> Result<(), Close> {
            Ok(())
        }

        fn id(&self) -> Option<&str> {
            Some("ann")
        }

        fn detached(&mut self, reason: DetachReason) {
            self.0.lock().unwrap().push(reason);
        }
    }
    let registry = ResumeRegistry::new(ResumeConfig::new());
    let reasons = Arc::default();
    for loss in [Loss::Closed, Loss::Cut, Loss::GivenUp, Loss::Closed] {
        let session = Detached(Arc::clone(&reasons));
        let attached = attach(&registry, "tab", session, outbox::channel(100).1);
        let (session, receiver) = attached.expect("it is there");
        receiver.close_after(Close::Normal, loss);
        drop((session, receiver));
    }
    use DetachReason::{ClientClosed, Lost};
    assert_eq!(*reasons.lock().unwrap(), [ClientClosed, Lost, Lost, ClientClosed]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_expired_holds_nothing_however_long_its_outbox_is_kept() {
    let memory = Memory::new(usize::MAX);
    let registry = ResumeRegistry::new(ResumeConfig::new().anonymous(true).session_ttl(TTL));
    let (outbox, receiver) = outbox::channel_in(1 << 20, &memory);
    drop(attach(&registry, "tab", Silent(None), receiver));
    outbox.push(Message::binary(vec![0; 100_000]));
    assert!(memory.reserved() >= 100_000);
    registry.sweep(Instant::now() + TTL, usize::MAX);
    assert!(outbox.is_closed());
    assert_eq!(memory.reserved(), 0);
}

/// A session that records what it learns of later connects.
struct Learning {
    name: &'static str,
    events: Arc<std::sync::Mutex<Vec<&'static str>>>,
    /// Called by the first message, in the turn of the session.
    in_turn: Option<Box<dyn FnOnce() + Send>>,
}

impl Session for Learning {
    fn handle_in(&mut self, _: Inbound<'_>) -> Result<(), Close> {
        self.in_turn.take().into_iter().for_each(|act| act());
        Ok(())
    }

    fn id(&self) -> Option<&str> {
        Some("ann")
    }

    fn resumed(&mut self, newer: Self) {
        self.events.lock().unwrap().push(newer.name);
    }

    fn attached(&mut self, _: u64, _: Transport) {
        self.events.lock().unwrap().push("attached");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_learns_of_the_connect_that_resumes_it_before_it_is_attached() {
    let registry = ResumeRegistry::new(ResumeConfig::new());
    let events = Arc::new(std::sync::Mutex::default());
    let new = |name| Learning { name, events: Arc::clone(&events), in_turn: None };
    drop(attach(&registry, "tab", new("first"), outbox::channel(100).1));
    let unused = Accepted {
        id: Some("tab".into()),
        received: None,
        session: new("unused"),
        receiver: outbox::channel(100).1,
        took: Duration::ZERO,
    };
    drop(Connected::new(&registry, unused).expect("admitted"));
    drop(attach(&registry, "tab", new("second"), outbox::channel(100).1));
    drop(attach(&registry, "other tab", new("other"), outbox::channel(100).1));
    assert_eq!(*events.lock().unwrap(), ["attached", "second", "attached", "attached"]);
}

#[tokio::test(start_paused = true)]
async fn of_several_connects_in_one_turn_a_session_learns_of_the_newest() {
    let registry = ResumeRegistry::new(ResumeConfig::new());
    let events = Arc::new(std::sync::Mutex::default());
    let in_turn = {
        let (registry, events) = (Arc::clone(&registry), Arc::clone(&events));
        move || {
            for name in ["second", "third"] {
                let new = Learning { name, events: Arc::clone(&events), in_turn: None };
                std::mem::forget(attach(&registry, "tab", new, outbox::channel(100).1));
            }
        }
    };
    let (name, in_turn) = ("first", Some(Box::new(in_turn) as Box<dyn FnOnce() + Send>));
    let first = Learning { name, events: Arc::clone(&events), in_turn };
    let attached = attach(&registry, "tab", first, outbox::channel(100).1);
    let (mut session, _receiver) = attached.expect("it is new");
    let _ = session.handle_in(Inbound::Text("x"));
    assert_eq!(*events.lock().unwrap(), ["attached", "third", "attached", "attached"]);
}

mod moves;
mod nodes;
