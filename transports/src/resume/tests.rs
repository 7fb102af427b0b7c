use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::sweeper::{Sweep, Swept};
use super::*;
use crate::connect_info::Transport;
use crate::frame::{Close, Inbound, Message};
use crate::outbox;
use crate::reentrant;
use crate::session::Session;

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

/// Connects to a session without a socket id.
fn connect(registry: &Registry, id: &str) -> Connected<Silent> {
    registry.connect(id, None, Silent(None), outbox::channel(100).1)
}

#[tokio::test(start_paused = true)]
async fn a_sweep_visits_only_what_is_due() {
    const SESSIONS: usize = 200_000;
    const DUE: usize = 1000;
    const LIMIT: usize = 256;
    let registry = ResumeRegistry::new(ResumeConfig::new().anonymous(true).session_ttl(TTL));
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
        let attached = connect(&registry, "tab").attach(None, Transport::InMemory);
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
        drop(registry.connect(id, None, Fragile(panics), receiver));
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

        fn detached(&mut self) {
            self.0.lock().unwrap().push("detached");
        }
    }
    let registry = ResumeRegistry::new(ResumeConfig::new().anonymous(true));
    let events = Arc::default();
    let session = Panics(Arc::clone(&events));
    let connected = registry.connect("tab", None, session, outbox::channel(1000).1);
    let (mut session, receiver) = connected.attach(None, Transport::InMemory).expect("it is new");
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
                registry.admits(id, Transport::WebSocket);
                drop(registry.connect(id, None, Silent(Some("eve")), outbox::channel(100).1));
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

/// Connects as `ann`.
fn tab(registry: &Registry, id: &str, limit: usize) -> (outbox::Sender, Connected<Silent>) {
    let (outbox, receiver) = outbox::channel(limit);
    (outbox, registry.connect(id, None, Silent(Some("ann")), receiver))
}

#[test]
fn recorders_and_subscribers_may_use_the_library_when_a_session_changes_hands() {
    let calls = reentrant(ResumeConfig::new(), |registry, use_outbox| {
        let (outbox, connected) = tab(registry, "tab", 1 << 20);
        use_outbox(&outbox);
        let mut current = connected.attach(None, Transport::WebSocket);
        // Eight takeovers from a client that is still there, and the ninth is refused the session.
        for _ in 0..8 {
            let newer = tab(registry, "tab", 1000).1.attach(None, Transport::WebSocket);
            let (_, receiver) = current.as_ref().expect("it was attached");
            receiver.report_conflict();
            current = newer;
        }
        drop(tab(registry, "tab", 1000).1.attach(None, Transport::WebSocket));
        assert!(matches!(tab(registry, "tab", 1000).1, Connected::Own(..)), "in conflict");
        drop(current);
    });
    assert!(calls > 9, "{calls}");
}

#[test]
fn recorders_and_subscribers_may_use_the_library_when_a_session_expires() {
    let calls = reentrant(ResumeConfig::new(), |registry, use_outbox| {
        let (outbox, connected) = tab(registry, "tab", 1000);
        use_outbox(&outbox);
        drop(connected.attach(None, Transport::WebSocket));
        registry.sweep(Instant::now() + 2 * TTL, 100);
        assert!(outbox.is_closed());
    });
    assert!(calls > 2, "{calls}");
}

#[test]
fn recorders_and_subscribers_may_use_the_library_when_a_session_overflows_or_is_replaced() {
    let calls = reentrant(ResumeConfig::new().max_per_id(1), |registry, use_outbox| {
        let (outbox, connected) = tab(registry, "tab", 100);
        use_outbox(&outbox);
        let attached = connected.attach(None, Transport::WebSocket);
        (0..10).for_each(|_| outbox.push(Message::text("x".repeat(100))));
        assert!(outbox.is_closed());
        drop(attached);
        // The session is gone, and another one takes its id, and its place.
        let (outbox, connected) = tab(registry, "tab", 100);
        use_outbox(&outbox);
        drop(connected);
        assert!(matches!(tab(registry, "other tab", 100).1, Connected::Resumable(_)), "evicts");
        assert!(outbox.is_closed());
        let attached = tab(registry, "other tab", 100).1.attach(None, Transport::InMemory);
        assert!(matches!(tab(registry, "tab", 100).1, Connected::Own(..)), "too many");
        drop(attached);
    });
    assert!(calls > 4, "{calls}");
}

/// Connects, resumes the stream and takes everything that waits. Returns `None` if the session is a
/// new one.
fn resume(registry: &Registry, outbox: &outbox::Sender) -> Option<impl Sized + use<>> {
    let new = outbox::channel(1 << 20).1;
    let connected = registry.connect("tab", None, Silent(None), new);
    let (session, mut receiver) = connected.attach(None, Transport::WebSocket)?;
    if outbox.is_closed() {
        return None;
    }
    outbox.resume(receiver.epoch(), Message::text("joined"));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let _ = receiver.poll_take(&mut cx, &mut Default::default());
    Some((session, receiver))
}

/// A session with a stream in which a large message waits.
fn waiting() -> (Registry, outbox::Sender) {
    let registry = ResumeRegistry::new(ResumeConfig::new().anonymous(true));
    let (outbox, receiver) = outbox::channel(1 << 20);
    drop(registry.connect("tab", None, Silent(None), receiver));
    let stream = outbox.stream();
    stream.push(Message::text("x".repeat(50_000)));
    (registry, stream)
}

#[tokio::test(start_paused = true)]
async fn a_message_is_given_up_although_the_client_takes_the_session_over() {
    let (registry, stream) = waiting();
    let mut connections = Vec::new();
    for _ in 0..3 {
        connections.push(resume(&registry, &stream).expect("the session is kept"));
        tokio::time::advance(Duration::from_secs(20)).await;
    }
    assert!(resume(&registry, &stream).is_none());
}
