//! Clients that return to a topic with a history: over a store that is slow, forgets and is away, in seeded walks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tower_channels::adapter::{
    Append, BoxFuture, HistoryInbox, HistoryStore, Kept, Page, PublishError, Since, StoreError,
};
use tower_channels::channel::{Error, Result};
use tower_channels::test::{Client, connect};
use tower_channels::{
    Arrival, Channel, Endpoint, History, Joined, Payload, Position, Reply, ResumeConfig, Socket,
};

#[path = "support/dice.rs"]
mod dice;

use dice::Dice;

const TOPIC: &str = "room";

/// A store whose answers take their time, and which hands over what is kept some time later.
#[derive(Clone, Default)]
struct Slow(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    epoch: u64,
    last: u64,
    messages: Vec<Kept>,
    /// The number of the newest message that is forgotten.
    forgotten: u64,
    is_away: bool,
    /// How long a read takes before it looks, and after.
    before: Duration,
    after: Duration,
    /// How much later what is kept is handed over.
    lag: Duration,
    delivery: Option<mpsc::UnboundedSender<(Instant, String, Kept)>>,
}

impl std::fmt::Debug for Slow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slow")
    }
}

impl HistoryStore for Slow {
    fn start(&self, inbox: Arc<dyn HistoryInbox>) {
        let (delivery, mut kept) = mpsc::unbounded_channel();
        self.0.lock().delivery = Some(delivery);
        tokio::spawn(async move {
            while let Some((due, topic, message)) = kept.recv().await {
                sleep_until(due).await;
                inbox.kept(&topic, message);
            }
        });
    }

    fn append(&self, message: Append) -> std::result::Result<(), PublishError> {
        let Append { topic, content, done, .. } = message;
        let mut state = self.0.lock();
        let previous = state.last;
        state.last += 1;
        let position = Position { epoch: state.epoch, number: state.last };
        let kept = Kept { position, previous, content: Bytes::copy_from_slice(&content) };
        state.messages.push(kept.clone());
        done.into_iter().for_each(|done| drop(done.send(Ok(position))));
        let due = Instant::now() + state.lag;
        let delivery = state.delivery.as_ref().expect("started");
        let _ = delivery.send((due, topic.to_string(), kept));
        Ok(())
    }

    fn read<'a>(
        &'a self,
        _: &'a str,
        since: Since,
        limit: usize,
    ) -> BoxFuture<'a, std::result::Result<Page, StoreError>> {
        let (before, after) = {
            let state = self.0.lock();
            (state.before, state.after)
        };
        Box::pin(async move {
            sleep(before).await;
            let page = {
                let state = self.0.lock();
                if state.is_away {
                    return Err(StoreError::new("away"));
                }
                let last = Position { epoch: state.epoch, number: state.last };
                let (start, is_complete) = match since {
                    Since::After(after) => {
                        let is_known = after.epoch == state.epoch && after.number <= state.last;
                        (after.number, is_known && after.number >= state.forgotten)
                    }
                    _ => (u64::MAX, true),
                };
                let behind = state.messages.iter().filter(|kept| kept.position.number > start);
                let messages = behind.take(if is_complete { limit } else { 0 }).cloned().collect();
                Page { messages, is_complete, last }
            };
            sleep(after).await;
            Ok(page)
        })
    }
}

impl Slow {
    /// Forgets all messages; with them what the numbers of this epoch mean, if it begins another one.
    fn forget(&self, begins_epoch: bool) {
        let mut state = self.0.lock();
        if begins_epoch {
            (state.epoch, state.last) = (state.epoch + 1, 0);
        }
        state.forgotten = state.last;
        state.messages.clear();
    }

    /// Whether everything after a position is there.
    fn has(&self, after: Position) -> bool {
        let state = self.0.lock();
        after.epoch == state.epoch && after.number >= state.forgotten
    }
}

/// A channel that says how it was joined. With `INTERCEPTS` it handles every other message itself.
struct Room<const INTERCEPTS: bool>;

impl<const INTERCEPTS: bool> Channel for Room<INTERCEPTS> {
    type Assigns = ();
    type Info = ();

    const INTERCEPT: &'static [&'static str] = if INTERCEPTS { &["odd"] } else { &[] };

    async fn join(_: &str, payload: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        let payload: HashMap<String, Value> = payload.parse().unwrap_or_default();
        let takes = payload.get("takes").and_then(Value::as_u64).unwrap_or(0);
        sleep(Duration::from_millis(takes)).await;
        if payload.contains_key("refused") {
            return Err(Error::reason("refused"));
        }
        let arrival = match socket.arrival() {
            Arrival::New => "new",
            Arrival::Recovered { has_gap: false } => "recovered",
            Arrival::Recovered { has_gap: true } => "gap",
            _ => "moved",
        };
        Ok(Joined::new(Self).reply(json!(arrival)))
    }

    async fn handle_out(&mut self, event: &str, n: Payload, socket: &Socket<Self>) -> Result<()> {
        tokio::task::yield_now().await;
        socket.push(event, n);
        Ok(())
    }
}

fn endpoint<const INTERCEPTS: bool>(store: &Slow) -> Endpoint<()> {
    Endpoint::builder(|_| async { Ok(()) })
        .id(|()| Some("ann".into()))
        .channel::<Room<INTERCEPTS>>("room*")
        .history("room*", History::last(100_000))
        .store(store.clone())
        .join_timeout(Duration::from_secs(1))
        .resume(ResumeConfig::new().session_ttl(Duration::from_secs(5)))
        .build()
}

/// One client of one topic, and what it has seen.
struct Walk {
    endpoint: Endpoint<()>,
    store: Slow,
    client: Client<()>,
    dice: Dice,
    has_session: bool,
    is_joined: bool,
    sent: u64,
    /// The number of the last message received, and where it stands.
    received: u64,
    position: Option<Position>,
    /// Whether the next message may be any that was not yet sent when the join was answered.
    may_skip_to: Option<u64>,
    recovered: u64,
    gaps: u64,
}

impl Walk {
    async fn new<const INTERCEPTS: bool>(seed: u64) -> Self {
        let store = Slow::default();
        let endpoint = endpoint::<INTERCEPTS>(&store);
        let has_session = seed.is_multiple_of(3);
        let mut params = vec![("positions", "refs")];
        if has_session {
            params.extend([("session", "0123456789abcdefghijkl"), ("received", "0")]);
        }
        let client = connect(&endpoint, &params).await.expect("accepted");
        Self {
            endpoint,
            store,
            client,
            dice: Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            has_session,
            is_joined: false,
            sent: 0,
            received: 0,
            position: None,
            may_skip_to: None,
            recovered: 0,
            gaps: 0,
        }
    }

    fn say(&mut self) {
        self.sent += 1;
        let event = if self.sent.is_multiple_of(2) { "even" } else { "odd" };
        self.endpoint.broadcast(TOPIC, event, json!(self.sent));
    }

    /// Reads until nothing comes for a moment.
    async fn read(&mut self, quiet: Duration) {
        while let Ok(message) = timeout(quiet, self.client.next_message()).await {
            assert!(self.is_joined, "nothing comes before a join has succeeded: {message:?}");
            let event = message.event.as_str();
            if event == "phx_position" {
                self.position = message.position;
                continue;
            }
            assert!(matches!(event, "odd" | "even"), "{message:?}");
            let n: u64 = message.payload.parse().expect("a number");
            match self.may_skip_to.take() {
                Some(latest) => {
                    assert!(n > self.received && n <= latest, "{n} after {}", self.received);
                }
                None => assert_eq!(n, self.received + 1, "each once, and in order"),
            }
            let position = message.position.expect("it is kept");
            self.received = n;
            self.position = Some(position);
        }
    }

    async fn join(&mut self) {
        {
            let mut state = self.store.0.lock();
            let mut millis = |most| Duration::from_millis(self.dice.roll(most));
            (state.before, state.after, state.lag) = (millis(30), millis(30), millis(60));
        }
        let mut payload = json!({ "takes": self.dice.roll(40) });
        let after = self.position.filter(|_| self.dice.roll(10) > 0);
        if let Some(after) = after {
            payload["after"] = json!(after.to_string());
        }
        match self.dice.roll(20) {
            0 => payload["refused"] = json!(true),
            1 => payload["takes"] = json!(2000),
            _ => {}
        }
        // Broadcasts come while the store is read, while `join` runs, and around it.
        let pauses: Vec<_> = (0..self.dice.roll(5)).map(|_| self.dice.roll(30)).collect();
        let mut sent = self.sent;
        let endpoint = self.endpoint.clone();
        let writing = async {
            for pause in pauses {
                sleep(Duration::from_millis(pause)).await;
                sent += 1;
                let event = if sent.is_multiple_of(2) { "even" } else { "odd" };
                endpoint.broadcast(TOPIC, event, json!(sent));
            }
        };
        let was_there = after.is_some_and(|after| self.store.has(after));
        let is_away = self.store.0.lock().is_away;
        let (reply, ()) = tokio::join!(self.client.join(TOPIC, payload), writing);
        self.sent = sent;
        let Reply::Ok(arrival) = reply else { return };
        self.is_joined = true;
        let arrival: String = arrival.parse().expect("a name");
        if self.has_session {
            // A channel that is resumed answers as it did when it was joined.
            if arrival != "recovered" {
                self.may_skip_to = Some(self.sent + 1);
            }
            return;
        }
        match (arrival.as_str(), after) {
            ("recovered", Some(_)) => self.recovered += 1,
            ("gap", Some(_)) => {
                assert!(!was_there || is_away, "a gap without a loss");
                self.gaps += 1;
                self.may_skip_to = Some(self.sent + 1);
            }
            ("new", None) => self.may_skip_to = Some(self.sent + 1),
            other => panic!("{other:?}"),
        }
    }

    async fn leave(&mut self) {
        let _ = self.client.leave(TOPIC).await;
        // What was on its way may still have come; `phx_close` has.
        self.read_end().await;
        self.is_joined = false;
    }

    async fn read_end(&mut self) {
        while let Ok(message) = timeout(Duration::from_millis(1), self.client.next_message()).await
        {
            if !matches!(&*message.event, "odd" | "even") {
                continue;
            }
            self.received = message.payload.parse().expect("a number");
            self.position = message.position;
            self.may_skip_to = None;
        }
    }

    async fn away(&mut self) {
        self.client.drop_connection();
        if self.has_session && self.dice.roll(2) == 0 {
            sleep(Duration::from_secs(10)).await;
        }
        for _ in 0..self.dice.roll(4) {
            self.say();
        }
        self.is_joined = false;
    }

    async fn step(&mut self) {
        let pause = Duration::from_millis(self.dice.roll(80) + 1);
        match self.dice.roll(12) {
            0..=3 => self.say(),
            4 | 5 if self.is_joined => {
                // Read first: a client that is gone does not know what was on its way.
                self.read(pause).await;
                self.away().await;
                self.client.reconnect().await.expect("accepted");
            }
            6 if self.is_joined => self.leave().await,
            7 => {
                let begins_epoch = self.dice.roll(2) == 0;
                // What is on its way has come, so that all epochs come in order.
                sleep(Duration::from_millis(100)).await;
                if self.is_joined {
                    self.read(pause).await;
                }
                self.store.forget(begins_epoch);
            }
            8 => {
                let is_away = self.dice.roll(3) == 0;
                self.store.0.lock().is_away = is_away;
            }
            _ if self.is_joined => self.read(pause).await,
            _ => self.join().await,
        }
    }

    async fn run(mut self) -> (u64, u64) {
        for _ in 0..40 {
            self.step().await;
        }
        while !self.is_joined {
            self.join().await;
        }
        sleep(Duration::from_millis(100)).await;
        self.say();
        self.read(Duration::from_secs(1)).await;
        assert_eq!(self.received, self.sent, "the last one has come");
        drop(self.client);
        sleep(Duration::from_secs(20)).await;
        assert_eq!(self.endpoint.pubsub().subscriber_count(TOPIC), 0, "nothing is left behind");
        (self.recovered, self.gaps)
    }
}

fn walk<const INTERCEPTS: bool>(seeds: std::ops::Range<u64>) {
    let (mut recovered, mut gaps) = (0, 0);
    for seed in seeds {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.block_on(async { Walk::new::<INTERCEPTS>(seed).await.run().await })
        }));
        let (some, others) = outcome.unwrap_or_else(|panic| {
            eprintln!("in the walk with seed {seed}");
            std::panic::resume_unwind(panic);
        });
        (recovered, gaps) = (recovered + some, gaps + others);
    }
    assert!(recovered > 200 && gaps > 20, "{recovered} recoveries, {gaps} gaps");
}

#[test]
fn every_message_comes_once_and_in_order_or_the_join_says_so() {
    walk::<false>(0..500);
}

#[test]
fn so_it_does_through_channels_that_handle_some_themselves() {
    walk::<true>(500..1000);
}
