//! What is held for clients that do not read is what the documented limits allow.

use std::time::Duration;

use allocation_counter::measure;
use serde_json::json;
use tower_channels::channel::Result;
use tower_channels::test::{Client, connect};
use tower_channels::{Builder, Channel, Endpoint, Joined, Payload, Presence, Reply, Socket};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Tracks the members of `presence:*` with a large meta.
struct Room;

impl Channel for Room {
    type Assigns = String;
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        if socket.topic().starts_with("presence:") {
            let meta = json!({ "text": "x".repeat(4000) });
            Presence::track(socket, socket.assigns(), meta)?;
            Presence::push_state(socket);
        }
        Ok(())
    }
}

/// Pushes every broadcast to its client itself.
struct Intercepting;

impl Channel for Intercepting {
    type Assigns = String;
    type Info = ();

    const INTERCEPT: &'static [&'static str] = &["event"];

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn handle_out(&mut self, event: &str, msg: Payload, socket: &Socket<Self>) -> Result<()> {
        socket.push(event, msg);
        Ok(())
    }
}

fn builder() -> Builder<String> {
    Endpoint::builder(|info| async move { Ok(info.param("name").unwrap_or_default().to_owned()) })
        .id(|name| Some(name.clone()))
        .channel::<Echo>("echo")
        .channel::<Busy>("busy")
        .channel::<Intercepting>("intercepting")
        .channel::<Room>("*")
}

async fn member(endpoint: &Endpoint<String>, name: &str, topic: &str) -> Client<String> {
    let mut client = connect(endpoint, &[("name", name)]).await.expect("accepted");
    client.join(topic, json!({})).await;
    client
}

/// Runs `setup`, then returns how many bytes more are held during `work` at most.
fn held<T, S, W>(setup: impl FnOnce() -> S, work: impl FnOnce(T) -> W) -> usize
where
    S: Future<Output = T>,
    W: Future<Output = T>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let before = runtime.block_on(setup());
    let mut after = None;
    let info = measure(|| {
        after = Some(runtime.block_on(async {
            let after = work(before).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            after
        }));
    });
    drop(after);
    usize::try_from(info.bytes_max).expect("more than before")
}

#[test]
fn the_members_of_a_crowded_topic_share_its_presence_state() {
    const MEMBERS: usize = 300;
    let bytes = held(
        || async {
            let endpoint = builder().build();
            let mut clients = Vec::new();
            for n in 0..MEMBERS {
                clients.push(member(&endpoint, &n.to_string(), "presence:a").await);
            }
            (endpoint, clients)
        },
        |(endpoint, mut clients)| async move {
            clients.iter_mut().for_each(|client| _ = client.discard());
            // They join again, and read nothing.
            for client in &mut clients {
                client.send("presence:a", "phx_join", json!({}));
            }
            (endpoint, clients)
        },
    );
    // One state of 300 metas in two forms and one diff of as many joins and leaves.
    assert!(bytes < 24 * MIB, "{bytes} bytes are held");
}

/// Each of so many bytes of JSON, from small ones, most of which is their overhead, to large ones.
const SIZES: [usize; 4] = [2, 60, 500, 20 * KIB];

fn payload(size: usize) -> Payload {
    json!("x".repeat(size)).into()
}

async fn detached(endpoint: &Endpoint<String>, name: &str, topic: &str) -> Client<String> {
    let params = [("name", name), ("session", &*format!("{name:0>22}"))];
    let mut client = connect(endpoint, &params).await.expect("accepted");
    client.join(topic, json!({})).await;
    client.discard();
    client.drop_connection();
    tokio::time::sleep(Duration::from_millis(1)).await;
    client
}

#[tokio::test]
async fn channels_count_against_the_memory_of_the_endpoint_until_they_end() {
    let endpoint = builder().memory(MIB).build();
    let mut clients = Vec::new();
    while let Ok(mut client) = connect(&endpoint, &[("name", "ann")]).await {
        for n in 0..100 {
            client.join(&format!("room:{n}"), json!({})).await;
        }
        client.discard();
        clients.push(client);
        assert!(clients.len() < 10, "{} clients with 100 channels each", clients.len());
    }
    assert!(clients.len() > 3, "only {} clients with 100 channels each", clients.len());
    drop(clients);
    tokio::time::sleep(Duration::from_millis(100)).await;
    connect(&endpoint, &[("name", "ann")]).await.expect("there is memory again");
}

#[tokio::test(start_paused = true)]
async fn sessions_that_keep_memory_scarce_make_room_for_others_after_a_while() {
    let endpoint = builder().memory(4 * MIB).build();
    let new = || connect(&endpoint, &[("name", "ann")]);
    let mut hogs = Vec::new();
    while let Ok(mut hog) = new().await {
        hog.join("echo", json!({})).await;
        for _ in 0..8 {
            hog.send("echo", "echo", payload(100 * KIB));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
        hogs.push(hog);
    }
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        new().await.expect_err("memory is scarce");
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    new().await.expect_err("the last one that is refused");
    new().await.expect("there is room");
    drop(hogs);
}

#[test]
fn a_replay_log_holds_what_its_limit_allows() {
    for size in SIZES {
        let bytes = held(
            || async {
                let endpoint = builder().build();
                let away = detached(&endpoint, "a", "room:a").await;
                let here = member(&endpoint, "b", "room:a").await;
                (endpoint, away, here)
            },
            |(endpoint, away, mut here)| async move {
                for _ in 0..40_000_usize.min(8 * MIB / size) {
                    endpoint.broadcast("room:a", "an_event_with_a_long_name", payload(size));
                    here.discard();
                }
                (endpoint, away, here)
            },
        );
        assert!(bytes < 2 * (MIB + MIB / 4), "{bytes} bytes are held in messages of {size}");
    }
}

#[test]
fn a_detached_session_whose_channel_intercepts_holds_what_its_outbox_allows() {
    const SESSIONS: usize = 3;
    for size in SIZES {
        let bytes = held(
            || async {
                let endpoint = builder().build();
                let mut away = Vec::new();
                for n in 0..SESSIONS {
                    away.push(detached(&endpoint, &n.to_string(), "intercepting").await);
                }
                (endpoint, away)
            },
            |(endpoint, away)| async move {
                // Twice what fits.
                for _ in 0..2 * MIB / (size + 120) / 10 + 1 {
                    (0..10)
                        .for_each(|_| endpoint.broadcast("intercepting", "event", payload(size)));
                    tokio::time::sleep(Duration::from_micros(10)).await;
                }
                (endpoint, away)
            },
        );
        let each = bytes / SESSIONS;
        assert!(each < MIB + MIB / 4, "{each} bytes are held in messages of {size}");
    }
}

/// Replies to `large` with so many bytes, and to all else with its payload.
struct Echo;

impl Channel for Echo {
    type Assigns = String;
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn handle_in(&mut self, event: &str, msg: Payload, _: &Socket<Self>) -> Result<Reply> {
        Ok(Reply::Ok(if event == "large" { large() } else { msg }))
    }
}

fn large() -> Payload {
    Payload::binary(vec![0; 40 * KIB])
}

#[test]
fn hundreds_of_clients_that_do_not_read_stay_within_the_memory_and_one_that_does_is_served() {
    const LIMIT: usize = 20_000_000;
    const CLIENTS: usize = 300;
    let bytes = held(
        || async {
            let endpoint = builder().memory(LIMIT).build();
            let mut clients = Vec::new();
            for n in 0..=CLIENTS {
                clients.push(member(&endpoint, &n.to_string(), "echo").await);
            }
            let innocent = clients.pop().expect("the last one");
            (endpoint, clients, innocent)
        },
        |(endpoint, mut clients, mut innocent)| async move {
            for round in 0..10 {
                for (n, client) in clients.iter_mut().enumerate() {
                    // Some more than others.
                    if round % (1 + n % 3) == 0 {
                        client.send("echo", "large", json!({}));
                    }
                    if n % 50 == 0 {
                        endpoint.broadcast("echo", "news", large());
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                assert_eq!(
                    innocent.push("echo", "push", json!(round)).await,
                    Reply::ok(json!(round))
                );
                innocent.discard();
            }
            (endpoint, clients, innocent)
        },
    );
    assert!(bytes < LIMIT + LIMIT / 4, "{bytes} bytes are held");
    assert!(bytes > LIMIT / 2, "only {bytes} bytes are held");
}

/// Subscribes to as many topics, or starts as many timers, as its client asks for.
struct Busy;

impl Channel for Busy {
    type Assigns = String;
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn handle_in(&mut self, event: &str, msg: Payload, it: &Socket<Self>) -> Result<Reply> {
        match event {
            "subscribe" => {
                for n in 0..msg.parse::<u32>()? {
                    it.subscribe(&format!("a topic of {} with number {n}", it.assigns()))?;
                }
            }
            "remind" => {
                for _ in 0..msg.parse::<u32>()? {
                    it.send_after(Duration::from_secs(3600), ());
                }
            }
            "cancel" => {
                for _ in 0..msg.parse::<u32>()? {
                    it.send_after(Duration::from_secs(3600), ()).cancel();
                }
            }
            "repeat" => {
                for _ in 0..msg.parse::<u32>()? {
                    it.send_every(Duration::from_secs(3600), ());
                }
            }
            _ => std::future::pending().await,
        }
        Ok(Reply::None)
    }
}

#[test]
fn subscriptions_and_timers_stay_within_the_memory() {
    const LIMIT: usize = 8 * MIB;
    for event in ["subscribe", "remind", "cancel", "repeat"] {
        let bytes = held(
            || async {
                let endpoint = builder().memory(LIMIT).build();
                let mut clients = Vec::new();
                for n in 0..30 {
                    clients.push(member(&endpoint, &n.to_string(), "busy").await);
                }
                (endpoint, clients)
            },
            |(endpoint, clients)| async move {
                let mut open = Vec::new();
                for mut client in clients {
                    client.send("busy", event, json!(1000));
                    open.push(client);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    for mut client in std::mem::take(&mut open) {
                        let closed = client.expect_closed();
                        if tokio::time::timeout(Duration::from_millis(1), closed).await.is_err() {
                            open.push(client);
                        }
                    }
                }
                (endpoint, open)
            },
        );
        assert!(bytes < LIMIT + LIMIT / 4, "{event}: {bytes} bytes are held");
        assert!(bytes > LIMIT / 2, "{event}: only {bytes} bytes are held");
    }
}

#[test]
fn a_task_that_does_not_read_holds_what_its_subscription_allows() {
    for size in SIZES {
        let bytes = held(
            || async {
                let endpoint = builder().build();
                let here = member(&endpoint, "b", "room:a").await;
                let subscription = endpoint.pubsub().subscribe("room:a");
                (endpoint, here, subscription)
            },
            |(endpoint, mut here, subscription)| async move {
                for _ in 0..40_000_usize.min(8 * MIB / size) {
                    endpoint.broadcast("room:a", "an_event_with_a_long_name", payload(size));
                    here.discard();
                }
                (endpoint, here, subscription)
            },
        );
        assert!(bytes < MIB + MIB / 4, "{bytes} bytes are held in messages of {size}");
        assert!(bytes > MIB / 4, "only {bytes} bytes are held in messages of {size}");
    }
}

#[test]
fn a_busy_channel_holds_of_what_it_hears_what_its_mailbox_allows() {
    for size in SIZES {
        let bytes = held(
            || async {
                let endpoint = builder().build();
                let mut client = member(&endpoint, "b", "busy").await;
                client.send("busy", "subscribe", json!(1));
                client.send("busy", "hang", json!({}));
                tokio::time::sleep(Duration::from_millis(1)).await;
                (endpoint, client)
            },
            |(endpoint, client)| async move {
                for _ in 0..40_000_usize.min(8 * MIB / size) {
                    endpoint.broadcast("a topic of b with number 0", "event", payload(size));
                }
                (endpoint, client)
            },
        );
        assert!(bytes < MIB + MIB / 4, "{bytes} bytes are held in messages of {size}");
        assert!(bytes > MIB / 4, "only {bytes} bytes are held in messages of {size}");
    }
}
