//! Concurrent load on several threads: invariants that must hold in every interleaving.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tower::ServiceExt;
use tower_channels::channel::{Error, Result};
use tower_channels::test::{Client, Message, connect};
use tower_channels::{
    Channel, Close, Endpoint, Joined, LongPollConfig, LongPollService, Payload, Reply, Socket,
};

#[path = "support/dice.rs"]
mod dice;

use self::dice::Dice;

/// The events of the test channel.
const EVENTS: [&str; 10] =
    ["ping", "say", "whisper", "shout", "later", "nap", "stop", "stop_reply", "crash", "panic"];

/// The number of live channels.
type Alive = Arc<AtomicUsize>;

/// A channel that misbehaves on request and counts its instances.
struct Chaos(Alive);

impl Channel for Chaos {
    type Assigns = Alive;
    type Info = ();

    const INTERCEPT: &'static [&'static str] = &["shouted"];

    async fn join(_: &str, mode: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        match mode.parse::<u64>()? % 8 {
            0 => return Err(Error::reason("not today")),
            1 => panic!("requested"),
            2 => tokio::task::yield_now().await,
            3 => tokio::time::sleep(Duration::from_millis(1)).await,
            _ => {}
        }
        let count = Arc::clone(socket.assigns());
        count.fetch_add(1, Ordering::SeqCst);
        Ok(Self(count).into())
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        socket.push("joined", json!({}));
        Ok(())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        match event {
            "ping" => return Ok(Reply::Ok(payload)),
            "say" => socket.broadcast("said", payload),
            "whisper" => socket.broadcast_from("said", payload),
            "shout" => socket.broadcast("shouted", payload),
            "later" => {
                let (reply_ref, handle, socket) =
                    (socket.reply_ref(), socket.handle(), socket.clone());
                tokio::spawn(async move {
                    tokio::task::yield_now().await;
                    socket.push("late", json!({}));
                    reply_ref.reply(Reply::ack());
                    // Fails if the channel has ended.
                    let _ = handle.send(());
                });
            }
            "nap" => tokio::time::sleep(Duration::from_millis(1)).await,
            "stop" => return Err(Error::stop()),
            "stop_reply" => return Err(Error::stop_with(Reply::Ok(payload))),
            "panic" => panic!("requested"),
            _ => return Err(Error::unmatched(event)),
        }
        Ok(Reply::None)
    }

    async fn handle_info(&mut self, (): (), socket: &Socket<Self>) -> Result<()> {
        socket.push("informed", json!({}));
        Ok(())
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A client and the events that it has received.
struct Worker {
    /// Whether the client may be disconnected at any time.
    may_be_cut: bool,
    client: Client<Alive>,
    dice: Dice,
    /// The number of refs used so far.
    refs: u64,
    joins: HashSet<String>,
    /// A leave is answered with its own join_ref, even if nothing is joined.
    leaves: HashSet<String>,
    received: Vec<Message>,
}

impl Worker {
    fn new(client: Client<Alive>, dice: Dice, may_be_cut: bool) -> Self {
        let (joins, leaves) = Default::default();
        Self { may_be_cut, client, dice, refs: 0, joins, leaves, received: Vec::new() }
    }

    /// Sends a random message without waiting for a reply.
    async fn act(&mut self) {
        let topic = self.dice.pick(&["room:a", "room:b", "room:c"]);
        self.refs += 1;
        match self.dice.roll(10) {
            // Awaiting the join would panic when the connection closes.
            0..3 if self.may_be_cut => drop(self.client.send(topic, "phx_join", json!(2))),
            0..3 => {
                let join = self.client.join(topic, json!(self.dice.roll(1000)));
                // The join is sent at once; its reply is awaited later.
                if tokio::time::timeout(Duration::ZERO, join).await.is_err() {
                    self.joins.insert(self.refs.to_string());
                }
            }
            3 => drop(self.leaves.insert(self.client.send(topic, "phx_leave", json!({})))),
            _ => drop(self.client.send(topic, self.dice.pick(&EVENTS), json!(number()))),
        }
        if self.dice.roll(4) == 0 {
            tokio::task::yield_now().await;
        }
    }

    /// Waits until each join is answered or has ended, and no more messages arrive.
    async fn settle(&mut self) {
        let mut open = self.joins.clone();
        while !open.is_empty() {
            let event = self.client.next_message().await;
            open.retain(|join| !settles(&event, join));
            self.received.push(event);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        let heartbeat = Some(self.client.send("phoenix", "heartbeat", json!({})));
        while self.received.last().is_none_or(|event| event.reference != heartbeat) {
            self.received.push(self.client.next_message().await);
        }
    }

    /// Checks that no push is answered twice, no broadcast is delivered twice, and nothing follows
    /// the end of a channel.
    fn check(&self) {
        let (mut answered, mut ended) = (HashSet::new(), HashSet::new());
        let mut broadcasts = HashSet::new();
        for event in &self.received {
            if let Some(reference) = event.reference.as_ref().filter(|_| !is_end(event)) {
                assert!(answered.insert(reference), "{event:?} is a second reply");
                if self.leaves.contains(reference) {
                    continue;
                }
            }
            if let Some(join_ref) = &event.join_ref {
                let all =
                    self.received.iter().filter(|event| event.join_ref.as_ref() == Some(join_ref));
                assert!(
                    !ended.contains(join_ref),
                    "{event:?} follows the end of its channel: {:#?}",
                    all.collect::<Vec<_>>()
                );
                if is_end(event) {
                    ended.insert(join_ref);
                }
            } else if event.event == "said" {
                let number: u64 = event.payload.parse().expect("a number");
                assert!(broadcasts.insert(number), "{event:?} was delivered twice");
            }
        }
    }
}

fn is_end(event: &Message) -> bool {
    matches!(&*event.event, "phx_close" | "phx_error")
}

fn settles(event: &Message, join: &str) -> bool {
    let reference = if is_end(event) { &event.join_ref } else { &event.reference };
    reference.as_deref() == Some(join)
}

/// Returns a unique number that identifies a broadcast.
fn number() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

fn endpoint(alive: &Alive) -> Endpoint<Alive> {
    let alive = Arc::clone(alive);
    let connect = move |_| {
        let alive = Arc::clone(&alive);
        async move { Ok(alive) }
    };
    Endpoint::builder(connect)
        .id(|_| Some("everyone".to_owned()))
        .channel::<Chaos>("room:*")
        .long_poll(LongPollConfig::new().poll_timeout(Duration::from_secs(60)))
        .build()
}

/// Suppresses the output of requested panics.
fn silence_requested_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref() != Some(&"requested") {
            default(info);
        }
    }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn chaotic_clients_leave_nothing_behind() {
    silence_requested_panics();
    let alive = Alive::default();
    let (steady, cut) = (endpoint(&alive), endpoint(&alive));
    let work = |seed: u64| {
        let (steady, cut) = (steady.clone(), cut.clone());
        async move {
            let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
            for round in 0..20 {
                let may_be_cut = round % 3 == 0;
                let endpoint = if may_be_cut { &cut } else { &steady };
                let client = connect(endpoint, &[]).await.expect("connects");
                let mut worker = Worker::new(client, Dice(dice.roll(u64::MAX) | 1), may_be_cut);
                for _ in 0..dice.roll(60) {
                    worker.act().await;
                    if dice.roll(20) == 0 {
                        endpoint.broadcast("room:a", "said", json!(number()));
                    }
                }
                match dice.roll(3) {
                    // The client vanishes.
                    0 => {}
                    _ if may_be_cut => {
                        cut.disconnect("everyone");
                        assert_eq!(worker.client.expect_closed().await, Close::GoingAway);
                    }
                    _ => {
                        worker.settle().await;
                        worker.check();
                    }
                }
            }
        }
    };
    for worker in (1..=16).map(|seed| tokio::spawn(work(seed))).collect::<Vec<_>>() {
        worker.await.expect("no panic");
    }
    let left = || {
        let tasks = Handle::current().metrics().num_alive_tasks();
        (steady.sessions().total(), cut.sessions().total(), alive.load(Ordering::SeqCst), tasks)
    };
    let nothing_left = async {
        while left() != (0, 0, 0, 0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let nothing_left = tokio::time::timeout(Duration::from_secs(30), nothing_left).await;
    assert!(nothing_left.is_ok(), "left: {:?}", left());
}

/// A long-poll client with its service and newest token.
#[derive(Clone)]
struct Poller {
    service: LongPollService<Alive>,
    token: Arc<Mutex<String>>,
}

impl Poller {
    async fn request(&self, body: Option<String>, token: &str) -> Value {
        let uri = format!("/?vsn=2.0.0&token={token}");
        let request = match body {
            None => Request::get(uri).body(Full::default()),
            Some(body) => Request::post(uri)
                .header("content-type", "application/x-ndjson")
                .body(Full::<bytes::Bytes>::from(body)),
        };
        let Ok(response) = self.service.clone().oneshot(request.expect("a request")).await;
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        serde_json::from_slice(&body).expect("JSON")
    }

    fn token(&self) -> String {
        self.token.lock().expect("not poisoned").clone()
    }

    /// Sends heartbeats in batches.
    async fn send(self, count: u64, mut dice: Dice) {
        let mut sent = 0;
        while sent < count {
            let batch = (1 + dice.roll(5)).min(count - sent);
            let lines = (sent..sent + batch)
                .map(|number| format!("[null,{number},\"phoenix\",\"heartbeat\",{{}}]\n"));
            let response = self.request(Some(lines.collect()), &self.token()).await;
            assert_eq!(response, json!({ "status": 200 }));
            sent += batch;
            if dice.roll(3) == 0 {
                tokio::time::sleep(Duration::from_micros(dice.roll(500))).await;
            }
        }
    }

    /// Polls until all replies have arrived, in order and without a gap. Some polls are aborted,
    /// some replaced by a newer one, and some repeated as though their response had been lost.
    async fn receive(self, count: u64, mut dice: Dice) {
        let mut seen = 0;
        while seen < count {
            let token = self.token();
            let poll = self.request(None, &token);
            let response = match dice.roll(8) {
                0 => {
                    let limit = Duration::from_micros(dice.roll(1000));
                    match tokio::time::timeout(limit, poll).await {
                        Ok(response) => response,
                        Err(_) => continue,
                    }
                }
                1 => {
                    let (older, token) = (self.clone(), token.clone());
                    let older = tokio::spawn(async move { older.request(None, &token).await });
                    let response = poll.await;
                    // The server may have taken this one for the newer poll.
                    older.abort();
                    response
                }
                _ => poll.await,
            };
            if response["status"] == 204 || dice.roll(8) == 0 {
                continue;
            }
            let messages = response["messages"].as_array().expect("messages");
            for message in messages {
                let message: Value =
                    serde_json::from_str(message.as_str().expect("text")).expect("JSON");
                let number = message[1].as_u64().expect("a ref");
                assert!(number <= seen, "{number} arrived before {seen}");
                seen = seen.max(number + 1);
            }
            *self.token.lock().expect("not poisoned") =
                response["token"].as_str().expect("a token").to_owned();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_polls_and_posts_lose_no_message_and_no_wake_up() {
    let endpoint = endpoint(&Alive::default());
    let mut tasks = Vec::new();
    for seed in 1..=8 {
        let poller = Poller { service: endpoint.long_poll(), token: Arc::default() };
        let connected = poller.request(None, "").await;
        assert_eq!(connected["status"], 410);
        *poller.token.lock().expect("not poisoned") =
            connected["token"].as_str().expect("a token").to_owned();
        tasks.push(tokio::spawn(poller.clone().send(1000, Dice(seed))));
        tasks.push(tokio::spawn(poller.receive(1000, Dice(seed + 100))));
    }
    for task in tasks {
        // A poll that misses its wake-up would wait for a minute.
        let done = tokio::time::timeout(Duration::from_secs(30), task).await;
        done.expect("in time").expect("no panic");
    }
    assert_eq!(endpoint.sessions().total(), 8);
}
