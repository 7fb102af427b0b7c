//! Sessions on topics with a history whose process dies, tested with in-memory clients that say nothing but their session
//! id: the process that follows goes on with their topics.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::ready;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::time::sleep;
use tower_channels::adapter::{
    Append, BoxFuture, HistoryInbox, HistoryStore, Kept, Page, PublishError, Record, Replaced,
    Revision, Since, Store, StoreError,
};
use tower_channels::channel::{Error, Result};
use tower_channels::test::{Client, connect};
use tower_channels::{
    Arrival, Channel, Endpoint, History, Joined, Payload, Position, Reply, ResumeConfig, Socket,
};

const SECOND: Duration = Duration::from_secs(1);

/// A file, as one process after another has it.
#[derive(Clone, Default)]
struct File(Arc<Mutex<Content>>);

#[derive(Default)]
struct Content {
    last: u64,
    topics: BTreeMap<String, Topic>,
    records: BTreeMap<String, Record>,
    writes: u64,
}

#[derive(Default)]
struct Topic {
    messages: VecDeque<Kept>,
    last: u64,
    /// The last that is gone.
    forgotten: u64,
}

/// What one process has of it.
#[derive(Clone, Default)]
struct Process {
    file: File,
    appends: Arc<Mutex<Option<UnboundedSender<Append>>>>,
    is_dead: Arc<AtomicBool>,
    reads: Arc<AtomicUsize>,
}

impl File {
    fn process(&self) -> Process {
        Process { file: self.clone(), ..Process::default() }
    }

    /// Forgets all messages.
    fn forget(&self) {
        for topic in self.0.lock().unwrap().topics.values_mut() {
            topic.forgotten = topic.last;
            topic.messages.clear();
        }
    }

    fn writes(&self) -> u64 {
        self.0.lock().unwrap().writes
    }
}

impl Process {
    /// As `kill -9`: nothing that it does has any effect from now on.
    fn kill(&self) {
        self.is_dead.store(true, Ordering::Relaxed);
    }

    fn lives(&self) -> std::result::Result<(), StoreError> {
        let is_dead = self.is_dead.load(Ordering::Relaxed);
        if is_dead { Err(StoreError::new("dead")) } else { Ok(()) }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Process")
    }
}

impl HistoryStore for Process {
    fn start(&self, inbox: Arc<dyn HistoryInbox>) {
        let (sender, mut appends) = unbounded_channel::<Append>();
        *self.appends.lock().unwrap() = Some(sender);
        let process = self.clone();
        tokio::spawn(async move {
            while let Some(Append { topic, content, done, .. }) = appends.recv().await {
                sleep(Duration::from_millis(1)).await;
                if process.lives().is_err() {
                    continue;
                }
                let kept = {
                    let mut file = process.file.0.lock().unwrap();
                    file.last += 1;
                    let number = file.last;
                    let kept = file.topics.entry(topic.to_string()).or_default();
                    let position = Position { epoch: 7, number };
                    let message = Kept { position, previous: kept.last, content };
                    kept.last = number;
                    kept.messages.push_back(message.clone());
                    message
                };
                done.into_iter().for_each(|done| drop(done.send(Ok(kept.position))));
                inbox.kept(&topic, kept);
            }
        });
    }

    fn append(&self, message: Append) -> std::result::Result<(), PublishError> {
        let appends = self.appends.lock().unwrap();
        let sender = appends.as_ref().expect("started");
        sender.send(message).map_err(|_| PublishError::Overflow)
    }

    fn read<'a>(
        &'a self,
        topic: &'a str,
        since: Since,
        limit: usize,
    ) -> BoxFuture<'a, std::result::Result<Page, StoreError>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        let page = self.lives().map(|()| {
            let file = self.file.0.lock().unwrap();
            let nothing = Topic::default();
            let topic = file.topics.get(topic).unwrap_or(&nothing);
            let last = if topic.last == 0 { file.last } else { topic.last };
            let last = Position { epoch: 7, number: last };
            let messages = topic.messages.iter();
            let (messages, is_complete) = match since {
                Since::After(after) => {
                    let rest = messages.filter(|it| it.position.number > after.number);
                    (rest.take(limit).cloned().collect(), topic.forgotten <= after.number)
                }
                _ => (messages.rev().take(limit).rev().cloned().collect(), true),
            };
            Page { messages, is_complete, last }
        });
        Box::pin(ready(page))
    }

    fn records(&self) -> Option<&dyn Store> {
        Some(self)
    }
}

impl Store for Process {
    fn read<'a>(
        &'a self,
        key: &'a str,
    ) -> BoxFuture<'a, std::result::Result<Option<Record>, StoreError>> {
        let file = self.file.0.lock().unwrap();
        Box::pin(ready(self.lives().map(|()| file.records.get(key).cloned())))
    }

    fn replace<'a>(
        &'a self,
        key: &'a str,
        seen: Option<Revision>,
        value: Option<Bytes>,
        _: Duration,
    ) -> BoxFuture<'a, std::result::Result<Replaced, StoreError>> {
        let replaced = self.lives().map(|()| {
            let file = &mut *self.file.0.lock().unwrap();
            let there = file.records.get(key).cloned();
            if there.as_ref().map(|it| it.revision) != seen {
                return Replaced::No(there);
            }
            file.writes += 1;
            let revision = Revision(file.writes);
            match value {
                Some(value) => {
                    file.records.insert(key.to_owned(), Record { value, revision });
                }
                None => drop(file.records.remove(key)),
            }
            Replaced::Yes(revision)
        });
        Box::pin(ready(replaced))
    }
}

struct Log;

impl Channel for Log {
    type Assigns = String;
    type Info = ();

    const INTERCEPT: &'static [&'static str] = &["slow"];

    async fn join(_: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        let arrival = match socket.arrival() {
            Arrival::Recovered { has_gap } => json!({ "recovered": { "has_gap": has_gap } }),
            Arrival::Moved { has_gap, .. } => json!({ "moved": { "has_gap": has_gap } }),
            _ => json!("new"),
        };
        Ok(Joined::new(Self).reply(arrival))
    }

    async fn resume(&mut self, _: Payload, _: &Socket<Self>) -> Result<Option<Payload>> {
        Ok(Some(Payload::json(&"resumed")?))
    }

    async fn handle_in(&mut self, event: &str, msg: Payload, it: &Socket<Self>) -> Result<Reply> {
        match it.publish(event, msg).await {
            Ok(_) => Ok(Reply::ack()),
            Err(error) => Err(Error::reason(&error.to_string())),
        }
    }

    async fn handle_out(&mut self, _: &str, msg: Payload, socket: &Socket<Self>) -> Result<()> {
        sleep(10 * SECOND).await;
        socket.push("msg", msg);
        Ok(())
    }
}

fn endpoint(process: &Process) -> Endpoint<String> {
    Endpoint::builder(|info| async move { Ok(info.param("user").unwrap_or("ann").to_owned()) })
        .id(|user| Some(user.clone()))
        .channel::<Log>("log:*")
        .channel::<Log>("room:*")
        .history("log:*", History::last(1000))
        .store(process.clone())
        .resume(ResumeConfig::new().session_ttl(600 * SECOND))
        .build()
}

/// One process after another, over one file.
struct World {
    file: File,
    process: Process,
    endpoint: Endpoint<String>,
}

impl World {
    fn new() -> Self {
        let file = File::default();
        let process = file.process();
        let endpoint = endpoint(&process);
        Self { file, process, endpoint }
    }

    /// Kills the process, and starts another.
    fn restart(&mut self) {
        self.process.kill();
        self.process = self.file.process();
        self.endpoint = endpoint(&self.process);
    }

    async fn client(&self, session: &str) -> Client<String> {
        connect(&self.endpoint, &[("session", session)]).await.expect("accepted")
    }

    async fn publish(&self, topic: &str, number: u64) {
        self.endpoint.publish(topic, "msg", json!(number)).await.expect("kept");
    }

    /// The client comes to the process that is there, and joins its topics. Returns how each was joined.
    async fn return_to<const N: usize>(
        &self,
        client: &mut Client<String>,
        topics: [&str; N],
    ) -> [Value; N] {
        client.reconnect_to(&self.endpoint).await.expect("accepted");
        let mut arrivals = [const { Value::Null }; N];
        for (arrival, topic) in arrivals.iter_mut().zip(topics) {
            *arrival = join(client, topic).await;
        }
        arrivals
    }
}

const ANN: &str = "session-of-ann-1234567";
const BOB: &str = "session-of-bob-1234567";

async fn join(client: &mut Client<String>, topic: &str) -> Value {
    match client.join(topic, json!({})).await {
        Reply::Ok(response) => response.parse().expect("JSON"),
        reply => panic!("{reply:?}"),
    }
}

async fn receive(client: &mut Client<String>, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(client.expect("msg").await.parse().expect("a number"));
    }
    numbers
}

/// All that the client receives in the next moment.
async fn rest(client: &mut Client<String>) -> Vec<u64> {
    let mut numbers = Vec::new();
    while let Ok((event, payload)) =
        tokio::time::timeout(Duration::from_millis(50), client.next_push()).await
    {
        assert_eq!(event, "msg");
        numbers.push(payload.parse().expect("a number"));
    }
    numbers
}

fn recovered() -> Value {
    json!({ "recovered": { "has_gap": false } })
}

fn gap() -> Value {
    json!({ "recovered": { "has_gap": true } })
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_while_the_process_was_dead_follows_the_join() {
    let mut world = World::new();
    let mut ann = world.client(ANN).await;
    assert_eq!(join(&mut ann, "log:1").await, "new");
    world.publish("log:1", 1).await;
    assert_eq!(receive(&mut ann, 1).await, [1]);
    sleep(10 * SECOND).await;
    world.restart();
    world.publish("log:1", 2).await;
    world.publish("log:2", 3).await;
    assert_eq!(world.return_to(&mut ann, ["log:1"]).await, [recovered()]);
    assert_eq!(rest(&mut ann).await, [2]);
    world.publish("log:1", 4).await;
    assert_eq!(rest(&mut ann).await, [4]);
}

#[tokio::test(start_paused = true)]
async fn what_has_not_arrived_in_the_last_seconds_comes_and_what_has_may_come_twice() {
    let mut world = World::new();
    let mut ann = world.client(ANN).await;
    let mut bob = connect(&world.endpoint, &[("session", BOB), ("user", "bob")]).await.expect("he");
    join(&mut ann, "log:1").await;
    join(&mut bob, "log:1").await;
    let mut number = 0;
    for _ in 0..200 {
        number += 1;
        world.publish("log:1", number).await;
        sleep(SECOND / 10).await;
        // Bob does not read any more after a while.
        assert_eq!(receive(&mut ann, 1).await, [number]);
        if number <= 30 {
            receive(&mut bob, 1).await;
        }
    }
    world.restart();
    world.publish("log:1", 201).await;
    assert_eq!(world.return_to(&mut ann, ["log:1"]).await, [recovered()]);
    assert_eq!(world.return_to(&mut bob, ["log:1"]).await, [recovered()]);
    let (ann, bob) = (rest(&mut ann).await, rest(&mut bob).await);
    for (received, had) in [(&ann, 200), (&bob, 30)] {
        assert!(received[0] <= had + 1, "{received:?}");
        assert_eq!(received.last(), Some(&201));
        assert!(received.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{received:?}");
        assert!(received[0] + 45 > had, "no more than 4.5 s: {received:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_away_when_the_process_died_has_missed_nothing() {
    let mut world = World::new();
    let mut ann = world.client(ANN).await;
    join(&mut ann, "log:1").await;
    for number in 1..=5 {
        world.publish("log:1", number).await;
        receive(&mut ann, 1).await;
        sleep(SECOND).await;
    }
    sleep(5 * SECOND).await;
    ann.drop_connection();
    for number in 6..=20 {
        world.publish("log:1", number).await;
        sleep(SECOND).await;
    }
    world.restart();
    assert_eq!(world.return_to(&mut ann, ["log:1"]).await, [recovered()]);
    let received = rest(&mut ann).await;
    assert_eq!(received, (6..=20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_had_not_read_the_reply_to_its_join_begins_anew() {
    let mut world = World::new();
    let mut ann = world.client(ANN).await;
    join(&mut ann, "log:1").await;
    sleep(2 * SECOND).await;
    ann.send("log:2", "phx_join", json!({}));
    sleep(2 * SECOND).await;
    world.restart();
    let arrivals = world.return_to(&mut ann, ["log:1", "log:2"]).await;
    assert_eq!(arrivals, [recovered(), json!("new")]);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_was_left_or_has_no_history_begins_anew() {
    let mut world = World::new();
    let mut ann = world.client(ANN).await;
    for topic in ["log:1", "log:2", "room:1"] {
        join(&mut ann, topic).await;
    }
    sleep(2 * SECOND).await;
    ann.leave("log:2").await;
    sleep(2 * SECOND).await;
    world.restart();
    let arrivals = world.return_to(&mut ann, ["log:1", "log:2", "room:1"]).await;
    assert_eq!(arrivals, [recovered(), json!("new"), json!("new")]);
}

#[tokio::test(start_paused = true)]
async fn what_was_forgotten_is_a_gap() {
    let mut world = World::new();
    let mut ann = world.client(ANN).await;
    join(&mut ann, "log:1").await;
    sleep(5 * SECOND).await;
    world.publish("log:1", 1).await;
    world.file.forget();
    world.restart();
    assert_eq!(world.return_to(&mut ann, ["log:1"]).await, [gap()]);
    assert!(rest(&mut ann).await.is_empty());
    world.publish("log:1", 2).await;
    assert_eq!(rest(&mut ann).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn another_client_gets_nothing_of_the_session() {
    let mut world = World::new();
    let mut ann = world.client(ANN).await;
    join(&mut ann, "log:1").await;
    sleep(3 * SECOND).await;
    world.restart();
    let params = [("session", ANN), ("user", "bob")];
    let mut bob = connect(&world.endpoint, &params).await.expect("accepted");
    assert_eq!(join(&mut bob, "log:1").await, "new");
}

#[tokio::test(start_paused = true)]
async fn processes_that_die_one_after_another_lose_nothing() {
    let mut world = World::new();
    let mut ann = world.client(ANN).await;
    let topics = ["log:1", "log:2"];
    for topic in topics {
        join(&mut ann, topic).await;
    }
    sleep(4 * SECOND).await;
    let mut number = 0;
    let mut publish = async |world: &World| {
        for topic in topics {
            number += 1;
            world.publish(topic, number).await;
        }
    };
    publish(&world).await;
    // It comes, and joins nothing before the next one dies.
    for _ in 0..3 {
        world.restart();
        publish(&world).await;
        let [] = world.return_to(&mut ann, []).await;
        sleep(2 * SECOND).await;
    }
    // It has joined the first, and reads nothing more.
    world.restart();
    assert_eq!(world.return_to(&mut ann, ["log:1"]).await, [recovered()]);
    assert_eq!(rest(&mut ann).await, [1, 3, 5, 7]);
    publish(&world).await;
    sleep(3 * SECOND).await;
    world.restart();
    assert_eq!(world.return_to(&mut ann, ["log:1"]).await, [recovered()]);
    let received = rest(&mut ann).await;
    assert!(received.contains(&9) && [1, 3, 5, 7, 9].ends_with(&received), "{received:?}");
    sleep(SECOND).await;
    world.restart();
    assert_eq!(world.return_to(&mut ann, ["log:2", "log:1"]).await, [recovered(), recovered()]);
    let received = rest(&mut ann).await;
    let (odd, even) = received.into_iter().partition::<Vec<_>, _>(|it| it % 2 == 1);
    assert_eq!(even, [2, 4, 6, 8, 10]);
    // These it has had, at the last.
    assert!([1, 3, 5, 7, 9].ends_with(&odd), "{odd:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_channel_is_still_handling_is_not_lost() {
    let mut world = World::new();
    let mut ann = world.client(ANN).await;
    join(&mut ann, "log:1").await;
    sleep(5 * SECOND).await;
    world.endpoint.publish("log:1", "slow", json!(1)).await.expect("kept");
    for number in 2..=9 {
        sleep(SECOND).await;
        world.publish("log:1", number).await;
        receive(&mut ann, 1).await;
    }
    world.restart();
    world.return_to(&mut ann, ["log:1"]).await;
    sleep(11 * SECOND).await;
    let received = rest(&mut ann).await;
    assert!(received.contains(&1), "{received:?}");
}

#[tokio::test(start_paused = true)]
async fn a_session_without_a_message_writes_a_handful_of_records() {
    let world = World::new();
    let mut ann = world.client(ANN).await;
    for topic in ["log:1", "log:2", "log:3"] {
        join(&mut ann, topic).await;
    }
    sleep(60 * SECOND).await;
    let writes = world.file.writes();
    assert!(writes <= 4, "{writes} writes");
    sleep(60 * SECOND).await;
    assert_eq!(world.file.writes(), writes);
    // One number for all, each second at most.
    for number in 0..100 {
        world.publish("log:1", number).await;
        receive(&mut ann, 1).await;
        sleep(SECOND / 10).await;
    }
    let more = world.file.writes() - writes;
    assert!((1..=12).contains(&more), "{more} writes");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_shut_down_leaves_its_sessions_to_the_next_one() {
    let mut world = World::new();
    let mut ann = world.client(ANN).await;
    join(&mut ann, "room:1").await;
    join(&mut ann, "log:1").await;
    world.endpoint.broadcast("room:1", "msg", json!(1));
    world.publish("log:1", 10).await;
    world.publish("log:2", 20).await;
    sleep(SECOND).await;
    ann.drop_connection();
    world.endpoint.broadcast("room:1", "msg", json!(2));
    world.publish("log:1", 11).await;
    let began = tokio::time::Instant::now();
    assert!(world.endpoint.shutdown(8 * SECOND).await);
    assert!(began.elapsed() <= 8 * SECOND);
    world.restart();
    world.publish("log:1", 12).await;
    let arrivals = world.return_to(&mut ann, ["room:1", "log:1"]).await;
    // Of a topic without a history nobody knows what was broadcast meanwhile.
    let moved = |has_gap| json!({ "moved": { "has_gap": has_gap } });
    assert_eq!(arrivals, [moved(true), moved(false)]);
    assert_eq!(rest(&mut ann).await, [1, 2, 10, 11, 12]);
    sleep(3 * SECOND).await;
    world.restart();
    let arrivals = world.return_to(&mut ann, ["room:1", "log:1"]).await;
    assert_eq!(arrivals, [json!("new"), recovered()]);
}

/// Some of the clients read, some do not, and some are away; processes are killed at any time.
#[tokio::test(start_paused = true)]
async fn nothing_is_missing_whenever_the_process_is_killed() {
    for seed in 1..=12_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = move |below: u64| {
            // xorshift
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut world = World::new();
        let topics = ["log:1", "log:2"];
        let mut published: [Vec<u64>; 2] = Default::default();
        let mut clients = Vec::new();
        for index in 0..4 {
            let session = format!("session-of-client-{index}00");
            let mut client = connect(&world.endpoint, &[("session", &*session)]).await.expect("ok");
            for topic in topics {
                join(&mut client, topic).await;
            }
            clients.push((client, Vec::<u64>::new(), true));
        }
        // Until they are known to have joined.
        sleep(2 * SECOND).await;
        for _ in 0..250 {
            sleep(Duration::from_millis(random(200))).await;
            let index = usize::try_from(random(4)).expect("small");
            let (client, received, is_there) = &mut clients[index];
            match random(40) {
                0..12 => {
                    let topic = usize::try_from(random(2)).expect("small");
                    let number = world.file.0.lock().unwrap().last + 1;
                    world.publish(topics[topic], number).await;
                    published[topic].push(number);
                }
                12 if *is_there => {
                    client.drop_connection();
                    *is_there = false;
                }
                13 | 14 if !*is_there => {
                    let arrivals = world.return_to(client, topics).await;
                    assert!(!arrivals.contains(&json!("new")), "seed {seed}: {arrivals:?}");
                    *is_there = true;
                }
                15 => {
                    world.restart();
                    for (client, received, is_there) in &mut clients {
                        // What its network had is read all the same.
                        received.extend(if *is_there { rest(client).await } else { Vec::new() });
                        *is_there = false;
                        client.drop_connection();
                    }
                }
                _ if *is_there => received.extend(rest(client).await),
                _ => {}
            }
        }
        for (index, (client, received, _)) in clients.iter_mut().enumerate() {
            client.drop_connection();
            let arrivals = world.return_to(client, topics).await;
            assert!(!arrivals.contains(&json!("new")), "seed {seed}: {arrivals:?}");
            received.extend(rest(client).await);
            for published in &published {
                let of_topic: Vec<_> =
                    received.iter().filter(|it| published.contains(it)).collect();
                let mut first = Vec::new();
                for number in of_topic {
                    if !first.contains(number) {
                        first.push(*number);
                    }
                }
                assert_eq!(first, *published, "seed {seed}, client {index}: {received:?}");
            }
        }
    }
}
