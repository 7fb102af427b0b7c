//! Presence as seen by clients and by the server, tested with in-memory clients.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tower_channels::channel::{Error, Result};
use tower_channels::test::{Client, connect};
use tower_channels::{
    Channel, Endpoint, Joined, Payload, Presence, PresenceConfig, PresenceError, Reply, Socket,
};

#[path = "support/diff.rs"]
mod diff;

use self::diff::apply;

struct User(String);

/// A channel that tracks its client under its name.
struct Lobby;

impl Channel for Lobby {
    type Assigns = User;
    /// Events to handle as though the client had sent them.
    type Info = Payload;

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        Presence::push_state(socket);
        match Presence::track(socket, &socket.assigns().0, json!({ "n": 0 })) {
            Err(PresenceError::ReservedKey) => Ok(()),
            tracked => Ok(tracked?),
        }
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        let key = &socket.assigns().0;
        let done = match event {
            "track" => {
                let (key, meta): (String, Value) = payload.parse()?;
                Presence::track(socket, &key, meta)
            }
            "set" => Presence::update(socket, key, payload.parse::<Value>()?),
            "count" => Presence::update(socket, key, |meta: &mut Map<String, Value>| {
                let n = meta["n"].as_u64().unwrap_or_default();
                meta.insert("n".into(), (n + 1).into());
            }),
            "list" => {
                let list = socket.presence().list(socket.topic()).await;
                return Ok(Reply::Ok(Payload::json(&list)?));
            }
            "untrack" => {
                Presence::untrack(socket, key);
                Ok(())
            }
            "later" => {
                let handle = socket.handle();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(15)).await;
                    let _ = handle.send(payload);
                });
                Ok(())
            }
            "crash" => return Err(Error::from("requested")),
            _ => return Err(Error::unmatched(event)),
        };
        Ok(done.map_or_else(|error| Reply::reason(&error.to_string()), |()| Reply::ack()))
    }

    async fn handle_info(&mut self, events: Payload, socket: &Socket<Self>) -> Result<()> {
        for (event, payload) in events.parse::<Vec<(String, Value)>>()? {
            assert_eq!(self.handle_in(&event, payload.into(), socket).await?, Reply::ack());
        }
        Ok(())
    }
}

/// A channel that requests the state during its join, which takes a second.
struct Early;

impl Channel for Early {
    type Assigns = User;
    type Info = ();

    async fn join(_: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        Presence::push_state(socket);
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(Self.into())
    }
}

fn endpoint(config: PresenceConfig) -> Endpoint<User> {
    Endpoint::builder(
        |info| async move { Ok(User(info.param("name").unwrap_or("anon").to_owned())) },
    )
    .id(|user| Some(user.0.clone()))
    .channel::<Lobby>("lobby")
    .channel::<Early>("early")
    .presence(config)
    .build()
}

async fn client(endpoint: &Endpoint<User>, name: &str) -> Client<User> {
    connect(endpoint, &[("name", name)]).await.expect("connects")
}

/// Joins the lobby and receives the state and the diff with its own join.
async fn joined(endpoint: &Endpoint<User>, name: &str) -> Client<User> {
    let mut client = client(endpoint, name).await;
    assert_eq!(client.join("lobby", json!({})).await, Reply::ack());
    let (state, _) = client.next_push().await;
    let (diff, _) = client.next_push().await;
    assert_eq!((state.as_str(), diff.as_str()), ("presence_state", "presence_diff"));
    client
}

async fn next(client: &mut Client<User>) -> (String, Value) {
    let (event, payload) = client.next_push().await;
    (event, payload.parse().expect("JSON"))
}

async fn diff(client: &mut Client<User>) -> Value {
    let (event, diff) = next(client).await;
    assert_eq!(event, "presence_diff");
    diff
}

/// Returns the keys of an object.
fn keys(of: &Value) -> Vec<&str> {
    of.as_object().expect("an object").keys().map(String::as_str).collect()
}

#[tokio::test(start_paused = true)]
async fn a_new_member_receives_the_state_including_itself_and_then_the_diff() {
    let endpoint = endpoint(PresenceConfig::default());
    let mut ann = client(&endpoint, "ann").await;
    ann.join("lobby", json!({})).await;
    let (event, state) = next(&mut ann).await;
    assert_eq!(event, "presence_state");
    let phx_ref = state["ann"]["metas"][0]["phx_ref"].clone();
    assert_eq!(state, json!({ "ann": { "metas": [{ "n": 0, "phx_ref": phx_ref }] } }));
    assert_eq!(phx_ref.as_str().map(str::len), Some(16));
    assert_eq!(diff(&mut ann).await, json!({ "joins": state, "leaves": {} }));
}

#[tokio::test(start_paused = true)]
async fn a_state_requested_during_a_join_includes_everyone_tracked_meanwhile() {
    let endpoint = endpoint(PresenceConfig::default());
    let presence = endpoint.presence();
    let bob = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(500)).await;
        presence.track_task("early", "bob", json!({}))
    });
    for params in
        [&[("name", "ann")][..], &[("name", "eve"), ("session", "any-22-to-64-characters")]]
    {
        let mut client = connect(&endpoint, params).await.expect("connects");
        assert_eq!(client.join("early", json!({})).await, Reply::ack());
        let mut state = json!({});
        while state.get("bob").is_none() {
            (_, state) = next(&mut client).await;
        }
    }
    drop(bob);
}

#[tokio::test(start_paused = true)]
async fn two_tabs_of_a_user_are_two_metas_oldest_first() {
    let endpoint = endpoint(PresenceConfig::default());
    let mut first = joined(&endpoint, "ann").await;
    first.push("lobby", "set", json!({ "tab": 1 })).await;
    let mut second = client(&endpoint, "ann").await;
    second.join("lobby", json!({})).await;
    let (_, state) = next(&mut second).await;
    assert_eq!(state["ann"]["metas"][0]["tab"], 1);
    assert_eq!(state["ann"]["metas"][1]["n"], 0);
    assert_eq!(endpoint.presence().count("lobby"), 1, "one user");
}

#[tokio::test(start_paused = true)]
async fn an_update_is_a_leave_of_the_old_meta_and_a_join_of_the_new_one() {
    let endpoint = endpoint(PresenceConfig::default());
    let mut ann = joined(&endpoint, "ann").await;
    assert_eq!(ann.push("lobby", "count", json!({})).await, Reply::ack());
    let first = diff(&mut ann).await;
    let old = &first["leaves"]["ann"]["metas"][0];
    let new = &first["joins"]["ann"]["metas"][0];
    assert_eq!((&old["n"], &new["n"]), (&json!(0), &json!(1)));
    assert_eq!(new["phx_ref_prev"], old["phx_ref"]);
    assert!(old.get("phx_ref_prev").is_none());
    ann.push("lobby", "set", json!({ "phx_ref": "mine", "n": 2 })).await;
    let second = diff(&mut ann).await;
    assert_eq!(second["leaves"]["ann"]["metas"][0], *new, "with its own phx_ref_prev");
    assert_ne!(second["joins"]["ann"]["metas"][0]["phx_ref"], "mine");
}

#[tokio::test(start_paused = true)]
async fn untracking_sends_one_diff() {
    let endpoint = endpoint(PresenceConfig::default());
    let mut ann = joined(&endpoint, "ann").await;
    assert_eq!(ann.push("lobby", "untrack", json!({})).await, Reply::ack());
    let gone = diff(&mut ann).await;
    assert_eq!((keys(&gone["joins"]), keys(&gone["leaves"])), (vec![], vec!["ann"]));
    assert_eq!(ann.push("lobby", "untrack", json!({})).await, Reply::ack());
    assert_eq!(
        ann.push("lobby", "count", json!({})).await,
        Reply::reason("the key is not tracked")
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ann.discard(), 0);
    assert_eq!(endpoint.presence().count("lobby"), 0);
}

#[tokio::test(start_paused = true)]
async fn the_others_but_not_the_leaver_receive_the_diff_of_a_leave() {
    let endpoint = endpoint(PresenceConfig::default());
    let mut ann = joined(&endpoint, "ann").await;
    let mut bob = joined(&endpoint, "bob").await;
    diff(&mut ann).await;
    assert_eq!(bob.leave("lobby").await, Reply::ack());
    assert_eq!(next(&mut bob).await.0, "phx_close");
    assert_eq!(keys(&diff(&mut ann).await["leaves"]), ["bob"]);
    assert_eq!(bob.discard(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_crash_and_a_disconnect_end_the_presence() {
    let endpoint = endpoint(PresenceConfig::default());
    let mut ann = joined(&endpoint, "ann").await;
    let mut bob = joined(&endpoint, "bob").await;
    let carl = joined(&endpoint, "carl").await;
    ann.discard();
    bob.send("lobby", "crash", json!({}));
    assert_eq!(keys(&diff(&mut ann).await["leaves"]), ["bob"]);
    drop(carl);
    assert_eq!(keys(&diff(&mut ann).await["leaves"]), ["carl"]);
}

#[tokio::test(start_paused = true)]
async fn a_join_that_replaces_another_replaces_its_presence() {
    let endpoint = endpoint(PresenceConfig::default());
    let mut ann = joined(&endpoint, "ann").await;
    ann.join("lobby", json!({})).await;
    let mut state = json!({});
    loop {
        let (event, payload) = next(&mut ann).await;
        match event.as_str() {
            "presence_state" => state = payload,
            "presence_diff" => apply(&mut state, &payload),
            _ => continue,
        }
        if event == "presence_diff" {
            break;
        }
    }
    assert_eq!(state["ann"]["metas"].as_array().map(Vec::len), Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_thousand_simultaneous_joins_are_one_diff() {
    let endpoint = endpoint(PresenceConfig::default());
    let mut watcher = joined(&endpoint, "watcher").await;
    let mut clients = Vec::new();
    for n in 0..1000 {
        clients.push(client(&endpoint, &format!("user-{n}")).await);
    }
    for client in &mut clients {
        client.send("lobby", "phx_join", json!({}));
    }
    let joins = diff(&mut watcher).await;
    assert_eq!(keys(&joins["joins"]).len(), 1000);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(watcher.discard(), 0, "nothing else is sent");
}

#[tokio::test(start_paused = true)]
async fn entries_that_come_and_go_within_an_interval_are_not_announced() {
    let endpoint = endpoint(PresenceConfig::default().interval(Duration::from_millis(100)));
    let mut ann = joined(&endpoint, "ann").await;
    let bot = endpoint.presence().track_task("lobby", "bot", json!({})).expect("tracks");
    drop(bot);
    for _ in 0..50 {
        ann.push("lobby", "count", json!({})).await;
    }
    let all = diff(&mut ann).await;
    assert_eq!((keys(&all["joins"]), keys(&all["leaves"])), (vec!["ann"], vec!["ann"]));
    assert_eq!(all["joins"]["ann"]["metas"].as_array().map(Vec::len), Some(1));
    assert_eq!(all["joins"]["ann"]["metas"][0]["n"], 50);
}

#[tokio::test(start_paused = true)]
async fn an_entry_seen_in_a_list_is_announced_when_it_leaves() {
    let endpoint = endpoint(PresenceConfig::default());
    let mut ann = joined(&endpoint, "ann").await;
    let bot = endpoint.presence().track_task("lobby", "bot", json!({})).expect("tracks");
    let Reply::Ok(list) = ann.push("lobby", "list", json!({})).await else { panic!("not a list") };
    let mut state: Value = list.parse().expect("JSON");
    assert_eq!(keys(&state), ["ann", "bot"]);
    drop(bot);
    let gone = diff(&mut ann).await;
    apply(&mut state, &gone);
    assert_eq!(keys(&state), ["ann"]);
}

#[tokio::test(start_paused = true)]
async fn an_interval_of_zero_announces_at_once() {
    let endpoint = endpoint(PresenceConfig::default().interval(Duration::ZERO));
    let started = tokio::time::Instant::now();
    let mut ann = joined(&endpoint, "ann").await;
    ann.push("lobby", "count", json!({})).await;
    diff(&mut ann).await;
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn reserved_keys_and_invalid_metas_are_errors() {
    let endpoint = endpoint(PresenceConfig::default().max_meta(100));
    let mut ann = joined(&endpoint, "ann").await;
    for (key, meta, error) in [
        ("ann", json!({}), PresenceError::AlreadyTracked),
        (&*"k".repeat(256), json!({}), PresenceError::KeyTooLong),
        ("x", json!(["not an object"]), PresenceError::NotAnObject),
        ("x", json!({ "long": "x".repeat(100) }), PresenceError::MetaTooLong),
    ] {
        let reply = ann.push("lobby", "track", json!([key, meta])).await;
        assert_eq!(reply, Reply::reason(&error.to_string()), "{key}");
    }
    assert_eq!(endpoint.presence().count("lobby"), 1);
    assert_eq!(ann.push("lobby", "track", json!(["x", {}])).await, Reply::ack());
    assert_eq!(endpoint.presence().count("lobby"), 2);
}

#[tokio::test(start_paused = true)]
async fn the_names_that_javascript_objects_inherit_are_no_keys() {
    let endpoint = endpoint(PresenceConfig::default());
    let mut ann = joined(&endpoint, "ann").await;
    // What `Object.getOwnPropertyNames(Object.prototype)` returns, and `prototype`.
    let names = "constructor __defineGetter__ __defineSetter__ hasOwnProperty __lookupGetter__ \
                 __lookupSetter__ isPrototypeOf propertyIsEnumerable toString valueOf __proto__ \
                 toLocaleString prototype";
    for name in names.split_whitespace() {
        let reserved = PresenceError::ReservedKey;
        assert_eq!(
            ann.push("lobby", "track", json!([name, {}])).await,
            Reply::reason(&reserved.to_string()),
            "{name}"
        );
        let task = endpoint.presence().track_task("lobby", name, json!({}));
        assert_eq!(task.err(), Some(reserved), "{name}");
        assert_eq!(Presence::validate_key(name), Err(reserved));
    }
    for name in ["tostring", "toString2", "", "hasOwn"] {
        assert_eq!(Presence::validate_key(name), Ok(()));
    }
    assert_eq!(endpoint.presence().count("lobby"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_fetch_hook_is_called_once_per_list_and_once_per_announcement() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let config = PresenceConfig::default().fetch(move |topic, keys| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            let more = |key: String| {
                let name = format!("{key} of {topic}");
                (key, json!({ "name": name, "metas": "ignored" }))
            };
            keys.into_iter().map(more).collect::<HashMap<_, _>>()
        }
    });
    let endpoint = endpoint(config);
    let mut ann = client(&endpoint, "ann").await;
    ann.join("lobby", json!({})).await;
    let (_, state) = next(&mut ann).await;
    assert_eq!(state["ann"]["name"], "ann of lobby");
    assert!(state["ann"]["metas"].is_array());
    assert_eq!(diff(&mut ann).await["joins"]["ann"]["name"], "ann of lobby");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let list = endpoint.presence().list("lobby").await;
    assert_eq!(list.get("ann").and_then(|ann| ann.fetched("name")), Some(&json!("ann of lobby")));
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    let ann = endpoint.presence().get_by_key("lobby", "ann").await.expect("ann is present");
    assert_eq!(ann.metas().len(), 1);
    assert!(endpoint.presence().get_by_key("lobby", "bob").await.is_none());
    assert_eq!(calls.load(Ordering::Relaxed), 3, "not for an absent key");
}

#[tokio::test(start_paused = true)]
async fn presence_works_without_a_fetch_hook_that_hangs_or_crashes() {
    let config = PresenceConfig::default().fetch_timeout(Duration::from_secs(1)).fetch(
        |_, keys: Vec<String>| async move {
            if keys.contains(&"crash".to_owned()) {
                panic!("the hook crashed");
            }
            std::future::pending().await
        },
    );
    let endpoint = endpoint(config);
    let mut ann = joined(&endpoint, "ann").await;
    let bot = endpoint.presence().track_task("lobby", "crash", json!({})).expect("tracks");
    assert_eq!(keys(&diff(&mut ann).await["joins"]), ["crash"]);
    drop(bot);
}

#[tokio::test(start_paused = true)]
async fn the_fetch_hook_is_not_called_for_an_empty_list() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let config = PresenceConfig::default().fetch(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { HashMap::new() }
    });
    assert!(endpoint(config).presence().list("nowhere").await.is_empty());
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_list_cancels_its_fetch() {
    let running = Arc::new(());
    let held = Arc::clone(&running);
    let config = PresenceConfig::default().fetch(move |_, _| {
        let held = Arc::clone(&held);
        async move {
            let _held = held;
            std::future::pending().await
        }
    });
    let presence = endpoint(config).presence();
    let _ann = presence.track_task("lobby", "ann", json!({}));
    let second = Duration::from_secs(1);
    assert!(tokio::time::timeout(second, presence.list("lobby")).await.is_err());
    // The announcement's fetch times out later.
    tokio::time::sleep(10 * second).await;
    assert_eq!(Arc::strong_count(&running), 2, "only the hook itself is left");
}

#[tokio::test(start_paused = true)]
async fn the_server_receives_changes_as_clients_do() {
    let endpoint = endpoint(PresenceConfig::default());
    let mut changes = endpoint.presence().changes();
    let ann = joined(&endpoint, "ann").await;
    let diff = changes.next().await.expect("the endpoint is alive").expect("no lag");
    assert_eq!(diff.topic, "lobby");
    assert_eq!(diff.joins.keys().collect::<Vec<_>>(), ["ann"]);
    drop(ann);
    let diff = changes.next().await.expect("the endpoint is alive").expect("no lag");
    assert_eq!(diff.leaves.keys().collect::<Vec<_>>(), ["ann"]);
}

#[tokio::test(start_paused = true)]
async fn a_task_is_present_until_it_drops_its_guard() {
    let endpoint = endpoint(PresenceConfig::default());
    let mut ann = joined(&endpoint, "ann").await;
    let bot =
        endpoint.presence().track_task("lobby", "bot", json!({ "mood": "fine" })).expect("tracks");
    assert_eq!(diff(&mut ann).await["joins"]["bot"]["metas"][0]["mood"], "fine");
    bot.update(json!({ "mood": "tired" })).expect("tracks");
    assert_eq!(diff(&mut ann).await["joins"]["bot"]["metas"][0]["mood"], "tired");
    drop(bot);
    assert_eq!(keys(&diff(&mut ann).await["leaves"]), ["bot"]);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_has_ended_cannot_track() {
    let (sender, mut sockets) = tokio::sync::mpsc::unbounded_channel();
    struct Leaks(tokio::sync::mpsc::UnboundedSender<Socket<Self>>);
    impl Channel for Leaks {
        type Assigns = tokio::sync::mpsc::UnboundedSender<Socket<Self>>;
        type Info = ();

        async fn join(_: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
            Ok(Self(socket.assigns().clone()).into())
        }

        async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
            self.0.send(socket.clone())?;
            Ok(())
        }
    }
    let endpoint = Endpoint::builder(move |_| {
        let sender = sender.clone();
        async move { Ok(sender) }
    })
    .channel::<Leaks>("leaks")
    .build();
    let mut client = connect(&endpoint, &[]).await.expect("connects");
    client.join("leaks", json!({})).await;
    let socket = sockets.recv().await.expect("joined");
    Presence::track(&socket, "a", json!({})).expect("tracks");
    client.leave("leaks").await;
    assert_eq!(client.next_push().await.0, "phx_close");
    assert_eq!(Presence::track(&socket, "b", json!({})), Err(PresenceError::Ended));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(endpoint.presence().count("leaks"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_clients_view_equals_the_list_after_a_random_walk() {
    let endpoint = endpoint(PresenceConfig::default().interval(Duration::from_millis(3)));
    let mut watcher = joined(&endpoint, "watcher").await;
    watcher.discard();
    let Reply::Ok(list) = watcher.push("lobby", "list", json!({})).await else {
        panic!("not a list")
    };
    let mut view: Value = list.parse().expect("JSON");
    let mut clients: HashMap<u64, Client<User>> = HashMap::new();
    let mut random = 7u64;
    for step in 0..500 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let (slot, what) = (random >> 33 & 7, random >> 60);
        match clients.get_mut(&slot) {
            None => {
                let mut new = client(&endpoint, &format!("user-{}", slot % 4)).await;
                new.join("lobby", json!({})).await;
                clients.insert(slot, new);
            }
            Some(_) if what < 3 => drop(clients.remove(&slot)),
            Some(client) if what < 5 => {
                client.leave("lobby").await;
                clients.remove(&slot);
            }
            Some(client) if what == 5 => drop(client.join("lobby", json!({})).await),
            Some(client) => drop(client.push("lobby", "count", json!({})).await),
        }
        if step % 7 == 0 {
            tokio::time::sleep(Duration::from_millis(what)).await;
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let Reply::Ok(list) = watcher.push("lobby", "list", json!({})).await else {
        panic!("not a list")
    };
    let list: Value = list.parse().expect("JSON");
    assert!(keys(&list).len() > 1);
    while list != view {
        let (event, payload) = next(&mut watcher).await;
        assert_eq!(event, "presence_diff");
        apply(&mut view, &payload);
    }
    assert_eq!(watcher.discard(), 0);
}

const SESSION: (&str, &str) = ("session", "any-22-to-64-characters");

/// Joins the lobby in a resumable session, and another client that watches it.
async fn watched() -> (Endpoint<User>, Client<User>, Client<User>) {
    let endpoint = endpoint(PresenceConfig::default());
    let params = [("name", "ann"), SESSION];
    let mut ann = connect(&endpoint, &params).await.expect("connects");
    ann.join("lobby", json!({})).await;
    ann.push("lobby", "set", json!({ "device": "phone" })).await;
    let bob = joined(&endpoint, "bob").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    (endpoint, ann, bob)
}

const GRACE: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_its_connection_itself_leaves_after_a_grace_period() {
    let (endpoint, mut ann, mut bob) = watched().await;
    ann.close_connection();
    tokio::time::sleep(GRACE - Duration::from_secs(1)).await;
    assert_eq!((bob.discard(), endpoint.presence().count("lobby")), (0, 2));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let gone = diff(&mut bob).await;
    assert_eq!((keys(&gone["joins"]), keys(&gone["leaves"])), (vec![], vec!["ann"]));
    assert_eq!(endpoint.presence().count("lobby"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_returns_after_the_grace_period_is_tracked_again_with_the_same_meta() {
    let (endpoint, mut ann, mut bob) = watched().await;
    for _ in 0..2 {
        ann.close_connection();
        tokio::time::sleep(2 * GRACE).await;
        assert_eq!(keys(&diff(&mut bob).await["leaves"]), ["ann"]);
        ann.discard();
        ann.reconnect().await.expect("connects");
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(bob.discard(), 0, "it has not joined yet");
        ann.join("lobby", json!({})).await;
        let back = diff(&mut bob).await;
        assert_eq!(back["joins"]["ann"]["metas"][0]["device"], "phone");
        assert_eq!(keys(&back["leaves"]), [""; 0]);
        let (event, state) = next(&mut ann).await;
        assert_eq!((event.as_str(), keys(&state)), ("presence_state", vec!["ann", "bob"]));
        assert_eq!(state["ann"], back["joins"]["ann"]);
        tokio::time::sleep(2 * GRACE).await;
        assert_eq!(endpoint.presence().count("lobby"), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_flickers_if_the_client_returns_in_time_or_was_cut() {
    let (endpoint, mut ann, mut bob) = watched().await;
    for closes in [true, false, true] {
        if closes {
            ann.close_connection();
            tokio::time::sleep(GRACE / 2).await;
        } else {
            ann.drop_connection();
            tokio::time::sleep(5 * GRACE).await;
        }
        ann.reconnect().await.expect("connects");
        ann.join("lobby", json!({})).await;
        tokio::time::sleep(2 * GRACE).await;
        assert_eq!((bob.discard(), endpoint.presence().count("lobby")), (0, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_again_gets_the_whole_grace_period_again() {
    let (_endpoint, mut ann, mut bob) = watched().await;
    for _ in 0..3 {
        ann.close_connection();
        tokio::time::sleep(GRACE - Duration::from_secs(1)).await;
        assert_eq!(bob.discard(), 0);
        ann.reconnect().await.expect("connects");
        ann.join("lobby", json!({})).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_absent_client_is_gone_for_good_when_its_session_ends() {
    let (endpoint, mut ann, mut bob) = watched().await;
    ann.close_connection();
    tokio::time::sleep(2 * GRACE).await;
    assert_eq!(keys(&diff(&mut bob).await["leaves"]), ["ann"]);
    tokio::time::sleep(6 * GRACE).await;
    assert_eq!((bob.discard(), endpoint.sessions().total()), (0, 1));
    ann.reconnect().await.expect("connects");
    ann.join("lobby", json!({})).await;
    let metas = diff(&mut bob).await["joins"]["ann"]["metas"].clone();
    assert_eq!((metas.as_array().map(Vec::len), &metas[0]["n"]), (Some(1), &json!(0)));
}

#[tokio::test(start_paused = true)]
async fn changes_to_the_presence_of_an_absent_client_are_seen_when_it_returns() {
    let (endpoint, mut ann, mut bob) = watched().await;
    let session = [("name", "ann"), SESSION];
    // The channel handles these when the client has been away for long.
    ann.send("lobby", "later", json!([["set", { "device": "watch" }], ["track", ["ann 2", {}]]]));
    ann.close_connection();
    tokio::time::sleep(2 * GRACE).await;
    assert_eq!(keys(&diff(&mut bob).await["leaves"]), ["ann"]);
    assert_eq!((bob.discard(), endpoint.presence().count("lobby")), (0, 1));
    let mut ann = connect(&endpoint, &session).await.expect("connects");
    ann.join("lobby", json!({})).await;
    let back = diff(&mut bob).await;
    assert_eq!(keys(&back["joins"]), ["ann", "ann 2"]);
    assert_eq!(back["joins"]["ann"]["metas"][0]["device"], "watch");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_ends_its_session_leaves_at_once() {
    let (_endpoint, mut ann, mut bob) = watched().await;
    ann.send("phoenix", "end_session", json!({}));
    assert_eq!(keys(&diff(&mut bob).await["leaves"]), ["ann"]);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_added_for_an_absent_client_is_hidden_even_if_it_is_the_first() {
    let (endpoint, mut ann, mut bob) = watched().await;
    ann.push("lobby", "untrack", json!({})).await;
    assert_eq!(keys(&diff(&mut bob).await["leaves"]), ["ann"]);
    ann.send("lobby", "later", json!([["track", ["ann", { "device": "tv" }]]]));
    ann.close_connection();
    tokio::time::sleep(2 * GRACE).await;
    assert_eq!((bob.discard(), endpoint.presence().count("lobby")), (0, 1));
    ann.reconnect().await.expect("connects");
    ann.join("lobby", json!({})).await;
    assert_eq!(diff(&mut bob).await["joins"]["ann"]["metas"][0]["device"], "tv");
}

#[tokio::test(start_paused = true)]
async fn an_absent_client_that_closes_again_before_it_joins_keeps_its_entries() {
    let (_endpoint, mut ann, mut bob) = watched().await;
    for _ in 0..2 {
        ann.close_connection();
        // Within the time in which it has to join again.
        tokio::time::sleep(GRACE + Duration::from_secs(1)).await;
        ann.discard();
        ann.reconnect().await.expect("connects");
    }
    assert_eq!(keys(&diff(&mut bob).await["leaves"]), ["ann"]);
    ann.join("lobby", json!({})).await;
    assert_eq!(diff(&mut bob).await["joins"]["ann"]["metas"][0]["device"], "phone");
}
