//! Presence under concurrent load on several threads: all views converge.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::runtime::Handle;
use tower_channels::channel::{Error, Result};
use tower_channels::test::{Client, Message, connect};
use tower_channels::{
    Channel, Endpoint, Joined, Payload, Presence, PresenceConfig, Reply, ResumeConfig, Socket,
};

#[path = "support/dice.rs"]
mod dice;
#[path = "support/diff.rs"]
mod diff;

use self::dice::Dice;
use self::diff::apply;

/// How long the workers run.
const DURATION: Duration = Duration::from_secs(1);

const TOPICS: [&str; 3] = ["room:a", "room:b", "room:c"];

/// A channel that tracks keys on request.
struct Room;

impl Channel for Room {
    type Assigns = String;
    type Info = ();

    async fn join(_: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        // An entry tracked this early is removed if the join fails.
        let _ = Presence::track(socket, "early", json!({}));
        Ok(Self.into())
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        Presence::push_state(socket);
        Ok(())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        let key = payload.parse::<String>()?;
        // Requests fail if the key already is in the requested state.
        match event {
            "track" => drop(Presence::track(socket, &key, json!({ "n": 0 }))),
            "untrack" => Presence::untrack(socket, &key),
            "update" => drop(Presence::update(socket, &key, |meta: &mut Map<String, Value>| {
                let n = meta.get("n").and_then(Value::as_u64).unwrap_or_default();
                meta.insert("n".into(), (n + 1).into());
            })),
            "list" => drop(socket.presence().list(socket.topic()).await),
            "elsewhere" => {
                let socket = socket.clone();
                tokio::spawn(async move { Presence::track(&socket, &key, json!({})) });
            }
            "state" => Presence::push_state(socket),
            "stop" => return Err(Error::stop()),
            _ => return Err(Error::unmatched(event)),
        }
        Ok(Reply::None)
    }
}

/// A client's view of a topic, built from states and diffs as in phoenix.js.
#[derive(Default)]
struct View {
    /// `None` until the state for the newest join arrives.
    state: Option<Value>,
    pending: Vec<Value>,
}

impl View {
    fn reset(&mut self) {
        *self = Self::default();
    }

    fn receive(&mut self, event: &str, payload: Value) {
        match (event, &mut self.state) {
            ("presence_state", state) => {
                let state = state.insert(payload);
                self.pending.drain(..).for_each(|diff| apply(state, &diff));
            }
            ("presence_diff", Some(state)) => apply(state, &payload),
            ("presence_diff", None) => self.pending.push(payload),
            _ => {}
        }
    }
}

/// Returns the refs of each key.
fn refs(list: &Value) -> HashMap<String, Vec<String>> {
    let refs = |present: &Value| {
        let metas = present["metas"].as_array().expect("metas");
        let mut refs: Vec<_> =
            metas.iter().map(|meta| meta["phx_ref"].as_str().expect("a ref").to_owned()).collect();
        refs.sort_unstable();
        refs
    };
    let list = list.as_object().expect("an object");
    list.iter().map(|(key, present)| (key.clone(), refs(present))).collect()
}

/// A client that follows all topics and loses its connection from time to time.
struct Observer {
    client: Client<String>,
    views: HashMap<String, View>,
}

impl Observer {
    async fn new(endpoint: &Endpoint<String>, name: &str, params: &[(&str, &str)]) -> Self {
        let params: Vec<_> = params.iter().copied().chain([("name", name)]).collect();
        let client = connect(endpoint, &params).await.expect("connects");
        let mut observer = Self { client, views: HashMap::new() };
        observer.join().await;
        observer
    }

    async fn join(&mut self) {
        for topic in TOPICS {
            self.views.entry(topic.to_owned()).or_default().reset();
            assert_eq!(self.client.join(topic, json!({})).await, Reply::ack());
        }
    }

    async fn read(&mut self) {
        let heartbeat = self.client.send("phoenix", "heartbeat", json!({}));
        loop {
            let Message { reference, topic, event, payload, .. } = self.client.next_message().await;
            if reference.as_ref() == Some(&heartbeat) {
                return;
            }
            if event.starts_with("presence_") {
                let view = self.views.entry(topic).or_default();
                view.receive(&event, payload.parse().expect("JSON"));
            }
        }
    }

    async fn agrees(&mut self, presence: &Presence) -> Result<(), String> {
        self.read().await;
        for topic in TOPICS {
            let list = serde_json::to_value(presence.list(topic).await).expect("JSON");
            let Some(view) = &self.views[topic].state else { return Err("no state".into()) };
            if refs(&list) != refs(view) {
                return Err(format!("{topic}: the view {view} differs from {list}"));
            }
        }
        Ok(())
    }
}

const SESSIONS: [&str; 4] = [
    "one-session-of-22-letters",
    "two-session-of-22-letters",
    "three-session-of-22-letter",
    "four-session-of-22-letters",
];

fn endpoint(config: PresenceConfig) -> Endpoint<String> {
    Endpoint::builder(|info| async move { Ok(info.param("name").unwrap_or("anon").to_owned()) })
        .id(|name| Some(name.clone()))
        .channel::<Room>("room:*")
        .resume(ResumeConfig::new().session_ttl(Duration::from_millis(300)))
        .presence(config)
        .build()
}

async fn work(endpoint: Endpoint<String>, seed: u64, until: tokio::time::Instant) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
    while tokio::time::Instant::now() < until {
        let name = format!("worker {seed}");
        let session = format!("worker-{seed:020}-{}", dice.roll(2));
        let mut params = vec![("name", name.as_str())];
        if dice.roll(2) == 0 {
            params.push(("session", &session));
        }
        let mut client = connect(&endpoint, &params).await.expect("connects");
        let _ =
            tokio::time::timeout(Duration::ZERO, client.join(dice.pick(&TOPICS), json!({}))).await;
        for _ in 0..dice.roll(60) {
            let topic = dice.pick(&TOPICS);
            match dice.roll(12) {
                0..2 => {
                    let join = client.join(topic, json!({}));
                    let _ = tokio::time::timeout(Duration::ZERO, join).await;
                }
                2 => drop(client.send(topic, "phx_leave", json!({}))),
                3 => client.reconnect().await.expect("connects"),
                _ => {
                    let events = [
                        "track",
                        "track",
                        "track",
                        "untrack",
                        "update",
                        "update",
                        "list",
                        "elsewhere",
                        "state",
                        "stop",
                    ];
                    let key = dice.pick(&["ann", "bob", "eve"]);
                    client.send(topic, dice.pick(&events), json!(key));
                }
            }
            match dice.roll(8) {
                0..4 => tokio::task::yield_now().await,
                4 => tokio::time::sleep(Duration::from_millis(dice.roll(4))).await,
                _ => {}
            }
            client.discard();
        }
    }
}

async fn views_converge(config: PresenceConfig) {
    let endpoint = endpoint(config);
    let presence = endpoint.presence();
    let mut changes = presence.changes();
    let until = tokio::time::Instant::now() + DURATION;
    let workers: Vec<_> =
        (1..=16).map(|seed| tokio::spawn(work(endpoint.clone(), seed, until))).collect();
    let tracker = tokio::spawn({
        let presence = presence.clone();
        async move {
            let mut dice = Dice(77);
            let mut all = Vec::new();
            while tokio::time::Instant::now() < until {
                let tracked = presence.track_task(dice.pick(&TOPICS), "bot", json!({}));
                all.push(tracked.expect("tracks"));
                if all.len() > 5 {
                    drop(all.swap_remove(dice.roll(5) as usize));
                }
                tokio::time::sleep(Duration::from_micros(dice.roll(3000))).await;
            }
        }
    });
    let follow = tokio::spawn(async move {
        let mut views: HashMap<String, Value> = HashMap::new();
        while let Some(change) = changes.next().await {
            let change = change.expect("no lag");
            let view = views.entry(change.topic.clone()).or_insert_with(|| json!({}));
            apply(view, &serde_json::to_value(&*change).expect("JSON"));
        }
        views
    });
    let observers: Vec<_> = SESSIONS
        .iter()
        .enumerate()
        .map(|(index, session)| {
            let (endpoint, presence) = (endpoint.clone(), presence.clone());
            tokio::spawn(async move {
                let name = format!("observer {index}");
                let mut params = Vec::new();
                if index > 0 {
                    params.push(("session", *session));
                }
                if index > 1 {
                    params.push(("received", "0"));
                }
                let mut observer = Observer::new(&endpoint, &name, &params).await;
                let mut dice = Dice(index as u64 + 1);
                while tokio::time::Instant::now() < until {
                    observer.read().await;
                    tokio::time::sleep(Duration::from_millis(dice.roll(10))).await;
                    if dice.roll(5) == 0 {
                        observer.client.drop_connection();
                        tokio::time::sleep(Duration::from_millis(dice.roll(20))).await;
                        observer.client.discard();
                        observer.client.reconnect().await.expect("connects");
                        observer.join().await;
                    }
                }
                for left in (0..1000).rev() {
                    match observer.agrees(&presence).await {
                        Ok(())
                            if endpoint.sessions().total() <= SESSIONS.len()
                                && TOPICS.iter().all(|topic| presence.count(topic) == 1) =>
                        {
                            break;
                        }
                        Err(error) if left == 0 => panic!("{error}"),
                        _ => tokio::time::sleep(Duration::from_millis(10)).await,
                    }
                }
                for topic in TOPICS {
                    assert_eq!(presence.count(topic), 1, "only `early` is left");
                }
                observer
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no panic");
    }
    tracker.await.expect("no panic");
    let mut done = Vec::new();
    for observer in observers {
        done.push(observer.await.expect("no panic"));
    }
    drop(done);
    let empty = async {
        while endpoint.sessions().total() > 0
            || TOPICS.iter().any(|topic| presence.count(topic) > 0)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let left = tokio::time::timeout(Duration::from_secs(30), empty).await;
    assert!(
        left.is_ok(),
        "left: {} {:?}",
        endpoint.sessions().total(),
        TOPICS.map(|topic| presence.count(topic))
    );
    let ended = tokio::time::timeout(Duration::from_secs(30), async {
        while Handle::current().metrics().num_alive_tasks() > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(ended.await.is_ok(), "tasks: {}", Handle::current().metrics().num_alive_tasks());
    drop((presence, endpoint));
    let views = tokio::time::timeout(Duration::from_secs(30), follow).await;
    let views = views.expect("the endpoint is gone").expect("no panic");
    for (topic, view) in views {
        assert_eq!(view, json!({}), "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_views_converge_and_nothing_is_left_behind() {
    views_converge(PresenceConfig::default().interval(Duration::from_millis(2))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn views_converge_when_changes_are_announced_at_once() {
    views_converge(PresenceConfig::default().interval(Duration::ZERO)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_converge_when_announcements_wait_for_a_slow_fetch_hook() {
    let delays = Arc::new(std::sync::Mutex::new(Dice(5)));
    let config =
        PresenceConfig::default().interval(Duration::from_millis(1)).fetch(move |_, keys| {
            let wait = Duration::from_millis(delays.lock().expect("not poisoned").roll(40));
            async move {
                tokio::time::sleep(wait).await;
                keys.into_iter().map(|key| (key.clone(), json!({ "name": key }))).collect()
            }
        });
    views_converge(config).await;
}
