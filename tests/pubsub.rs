//! Reaching and hearing other topics, tested with in-memory clients.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tower_channels::channel::{Error, Result};
use tower_channels::test::{Client, connect};
use tower_channels::{
    Builder, Channel, ConnectInfo, Endpoint, Joined, Payload, Presence, PresenceConfig, PubSub,
    PubSubConfig, Rejected, Reply, Socket, SubscribeError,
};

#[derive(Clone, Default)]
struct User {
    id: Option<String>,
    /// Opens the gate at which slow callbacks wait.
    gate: Arc<Notify>,
    sockets: Arc<Mutex<Vec<Socket<Listener>>>>,
}

/// Pushes what it hears as `heard`: the topic, the event and the payload.
struct Listener;

impl Channel for Listener {
    type Assigns = User;
    type Info = ();

    /// Subscribes to the topics in the payload.
    async fn join(topic: &str, payload: Payload, it: &Socket<Self>) -> Result<Joined<Self>> {
        it.assigns().sockets.lock().unwrap().push(it.clone());
        for other in payload.parse::<Vec<String>>().unwrap_or_default() {
            it.subscribe(&other)?;
        }
        if topic.starts_with("slow") {
            it.assigns().gate.notified().await;
        }
        if topic.ends_with("refused") {
            return Err(Error::reason("refused"));
        }
        Ok(Self.into())
    }

    async fn after_join(&mut self, it: &Socket<Self>) -> Result<()> {
        if it.topic().starts_with("slow") {
            it.push("joined", json!({}));
        }
        Ok(())
    }

    async fn handle_in(&mut self, event: &str, msg: Payload, it: &Socket<Self>) -> Result<Reply> {
        match event {
            "subscribe" => {
                let subscribed = it.subscribe(&msg.parse::<String>()?);
                return Ok(
                    subscribed.map_or_else(|it| Reply::reason(&it.to_string()), |()| Reply::ack())
                );
            }
            "unsubscribe" => it.unsubscribe(&msg.parse::<String>()?),
            "unsubscribe_late" => {
                it.assigns().gate.notified().await;
                it.unsubscribe(&msg.parse::<String>()?);
            }
            "tell" => it.pubsub().broadcast("news:eu", "told", msg),
            "tell_others" => it.pubsub().broadcast_from(&it.handle(), "news:eu", "told", msg),
            "say" => it.broadcast("said", msg),
            "who" => {
                let transport = format!("{:?}", it.transport());
                return Ok(Reply::ok(json!({ "id": it.id(), "transport": transport })));
            }
            "track" => Presence::track(it, "ann", json!({}))?,
            _ => panic!("requested"),
        }
        Ok(Reply::ack())
    }

    async fn handle_broadcast(
        &mut self,
        topic: &str,
        event: &str,
        payload: Payload,
        it: &Socket<Self>,
    ) -> Result<()> {
        if event == "crash" {
            return Err("as told".into());
        }
        it.push("heard", json!([topic, event, payload.parse::<Value>()?]));
        Ok(())
    }
}

/// The connect parameter `id` is the socket id.
fn builder(user: &User) -> Builder<User> {
    let user = user.clone();
    let connect = move |info: ConnectInfo| {
        let user = User { id: info.param("id").map(str::to_owned), ..user.clone() };
        async move { Ok::<_, Rejected>(user) }
    };
    Endpoint::builder(connect).id(|user| user.id.clone()).channel::<Listener>("*")
}

fn endpoint() -> Endpoint<User> {
    builder(&User::default()).build()
}

async fn member(endpoint: &Endpoint<User>, topic: &str, others: Value) -> Client<User> {
    let mut client = connect(endpoint, &[]).await.unwrap();
    assert_eq!(client.join(topic, others).await, Reply::ack());
    client
}

/// The payload of the next push, which must be what a listener has heard.
async fn heard(client: &mut Client<User>) -> Value {
    let (event, payload) = client.next_push().await;
    assert_eq!(event, "heard");
    payload.parse().expect("JSON")
}

async fn is_quiet(client: &mut Client<User>) -> bool {
    tokio::time::sleep(Duration::from_secs(1)).await;
    client.discard() == 0
}

#[tokio::test(start_paused = true)]
async fn a_channel_hears_the_topics_that_it_has_subscribed_to_and_no_other() {
    let endpoint = endpoint();
    let mut client = member(&endpoint, "a", json!(["news:eu"])).await;
    endpoint.broadcast("news:us", "rain", json!(1));
    endpoint.broadcast("news:eu", "rain", json!(2));
    assert_eq!(heard(&mut client).await, json!(["news:eu", "rain", 2]));
    client.push("a", "subscribe", json!("news:us")).await;
    endpoint.broadcast("news:us", "sun", json!(3));
    endpoint.broadcast("news:eu", "sun", json!(4));
    assert_eq!(heard(&mut client).await, json!(["news:us", "sun", 3]));
    assert_eq!(heard(&mut client).await, json!(["news:eu", "sun", 4]));
    assert!(is_quiet(&mut client).await);
}

#[tokio::test(start_paused = true)]
async fn subscribing_twice_is_subscribing_once() {
    let endpoint = endpoint();
    let mut client = member(&endpoint, "a", json!(["news:eu", "news:eu"])).await;
    assert_eq!(client.push("a", "subscribe", json!("news:eu")).await, Reply::ack());
    assert_eq!(endpoint.subscriber_count("news:eu"), 1);
    endpoint.broadcast("news:eu", "rain", json!(1));
    heard(&mut client).await;
    assert!(is_quiet(&mut client).await);
    client.push("a", "unsubscribe", json!("news:eu")).await;
    assert_eq!(endpoint.subscriber_count("news:eu"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_broadcast_during_a_join_is_handled_after_after_join() {
    let user = User::default();
    let endpoint = builder(&user).build();
    let mut client = connect(&endpoint, &[]).await.unwrap();
    let join = client.send("slow", "phx_join", json!(["news:eu"]));
    while endpoint.subscriber_count("news:eu") == 0 {
        tokio::task::yield_now().await;
    }
    endpoint.broadcast("news:eu", "rain", json!(1));
    user.gate.notify_one();
    assert_eq!(client.expect_reply(&join).await, Reply::ack());
    assert_eq!(client.next_push().await.0, "joined");
    assert_eq!(heard(&mut client).await, json!(["news:eu", "rain", 1]));
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_ends_in_any_way_is_unsubscribed() {
    let user = User::default();
    let endpoint = builder(&user).build();
    let mut client = connect(&endpoint, &[]).await.unwrap();
    let others = json!(["news:eu", "news:us"]);
    assert_eq!(client.join("refused", others.clone()).await, Reply::reason("refused"));
    let subscribed = || {
        let socket = user.sockets.lock().unwrap().pop().expect("a socket");
        assert_eq!(socket.subscribe("other"), Err(SubscribeError::Ended));
        endpoint.subscriber_count("news:eu") + endpoint.subscriber_count("news:us")
    };
    assert_eq!(subscribed(), 0, "refused");
    client.join("a", others.clone()).await;
    client.leave("a").await;
    client.expect("phx_close").await;
    assert_eq!(subscribed(), 0, "left");
    client.join("b", others.clone()).await;
    client.send("b", "panic", json!({}));
    client.expect("phx_error").await;
    assert_eq!(subscribed(), 0, "crashed");
    client.join("c", others.clone()).await;
    client.join("c", json!([])).await;
    client.expect("phx_close").await;
    user.sockets.lock().unwrap().pop();
    assert_eq!(subscribed(), 0, "replaced");
    client.join("d", others).await;
    drop(client);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(subscribed(), 0, "gone");
    assert_eq!(endpoint.topics().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_that_waits_is_handled_after_an_unsubscribe() {
    let user = User::default();
    let endpoint = builder(&user).build();
    let mut client = member(&endpoint, "a", json!(["news:eu", "news:us"])).await;
    let unsubscribe = client.send("a", "unsubscribe_late", json!("news:eu"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    endpoint.broadcast("news:eu", "rain", json!(1));
    endpoint.broadcast("news:us", "rain", json!(2));
    user.gate.notify_one();
    assert_eq!(client.expect_reply(&unsubscribe).await, Reply::ack());
    assert_eq!(heard(&mut client).await, json!(["news:us", "rain", 2]));
    assert!(is_quiet(&mut client).await);
}

#[tokio::test(start_paused = true)]
async fn subscriptions_that_make_no_sense_are_refused_by_name() {
    let endpoint = endpoint();
    let mut client = member(&endpoint, "a", json!([])).await;
    let long = "x".repeat(256);
    for (topic, reason) in [
        ("a", "the channel receives its own topic already"),
        (&*long, "the topic is longer than 255 bytes"),
    ] {
        let reply = client.push("a", "subscribe", json!(topic)).await;
        assert_eq!(reply, Reply::reason(reason));
    }
    for number in 0..1000 {
        assert_eq!(client.push("a", "subscribe", json!(number.to_string())).await, Reply::ack());
    }
    let reply = client.push("a", "subscribe", json!("one more")).await;
    assert_eq!(reply, Reply::reason("the channel has subscribed to too many topics"));
    assert_eq!(client.push("a", "subscribe", json!("0")).await, Reply::ack());
    client.push("a", "unsubscribe", json!("0")).await;
    assert_eq!(client.push("a", "subscribe", json!("one more")).await, Reply::ack());
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_from_a_channel_reaches_everyone_but_this_channel() {
    let endpoint = endpoint();
    let mut sender = member(&endpoint, "a", json!(["news:eu"])).await;
    let mut other = member(&endpoint, "a", json!(["news:eu"])).await;
    let mut joined = member(&endpoint, "news:eu", json!([])).await;
    sender.push("a", "tell_others", json!(1)).await;
    assert_eq!(heard(&mut other).await, json!(["news:eu", "told", 1]));
    assert_eq!(joined.next_push().await, ("told".into(), json!(1).into()));
    assert!(is_quiet(&mut sender).await);
    sender.push("a", "tell", json!(2)).await;
    assert_eq!(heard(&mut sender).await, json!(["news:eu", "told", 2]));
    joined.push("news:eu", "tell_others", json!(3)).await;
    assert_eq!(heard(&mut sender).await, json!(["news:eu", "told", 3]));
    assert_eq!(joined.next_push().await, ("told".into(), json!(2).into()));
    assert!(is_quiet(&mut joined).await);
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_drops_what_is_heard_and_the_channel_lives() {
    let user = User::default();
    let endpoint = builder(&user).max_mailbox(2000).build();
    let mut client = member(&endpoint, "a", json!(["news:eu"])).await;
    client.send("a", "unsubscribe_late", json!("other"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    (0..100).for_each(|number| endpoint.broadcast("news:eu", "rain", json!(number)));
    user.gate.notify_one();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let received = client.discard();
    assert!((2..50).contains(&received), "{received}");
    assert_eq!(client.push("a", "say", json!({})).await, Reply::ack());
}

#[tokio::test(start_paused = true)]
async fn an_error_of_handle_broadcast_crashes_that_channel() {
    let endpoint = endpoint();
    let mut client = member(&endpoint, "a", json!(["news:eu"])).await;
    client.join("b", json!([])).await;
    endpoint.broadcast("news:eu", "crash", json!({}));
    client.expect_on("a", "phx_error").await;
    assert_eq!(client.push("b", "say", json!({})).await, Reply::ack());
}

#[tokio::test(start_paused = true)]
async fn what_the_channel_of_a_detached_client_hears_waits_for_it_in_order() {
    let endpoint = endpoint();
    let session = [("id", "ann"), ("session", "0123456789abcdefghijkl")];
    let mut ann = connect(&endpoint, &session).await.unwrap();
    ann.join("a", json!(["news:eu"])).await;
    ann.drop_connection();
    tokio::time::sleep(Duration::from_millis(10)).await;
    endpoint.broadcast("a", "own", json!(1));
    endpoint.broadcast("news:eu", "rain", json!(2));
    tokio::time::sleep(Duration::from_millis(10)).await;
    endpoint.broadcast("a", "own", json!(3));
    endpoint.broadcast("news:eu", "sun", json!(4));
    tokio::time::sleep(Duration::from_millis(10)).await;
    ann.reconnect().await.unwrap();
    ann.join("a", json!({})).await;
    let mut received = Vec::new();
    for _ in 0..4 {
        received.push(ann.next_push().await);
    }
    let expected = [
        ("own", json!(1)),
        ("heard", json!(["news:eu", "rain", 2])),
        ("own", json!(3)),
        ("heard", json!(["news:eu", "sun", 4])),
    ];
    assert_eq!(received, expected.map(|(event, payload)| (event.into(), payload.into())));
    endpoint.broadcast("news:eu", "back", json!(5));
    assert_eq!(heard(&mut ann).await, json!(["news:eu", "back", 5]));
}

#[tokio::test(start_paused = true)]
async fn a_task_hears_what_clients_receive() {
    let endpoint = endpoint();
    let mut news = endpoint.pubsub().subscribe("news:eu");
    let mut client = member(&endpoint, "news:eu", json!([])).await;
    client.push("news:eu", "say", json!(1)).await;
    endpoint.pubsub().local_broadcast("news:eu", "local", json!(2));
    client.push("news:eu", "track", json!({})).await;
    for expected in ["said", "local", "presence_diff"] {
        let broadcast = news.recv().await.expect("nothing is missed");
        assert_eq!((broadcast.topic(), broadcast.event()), ("news:eu", expected));
    }
    endpoint.broadcast("news:eu", "streamed", json!(3));
    let streamed = news.next().await.expect("it never ends").expect("nothing is missed");
    assert_eq!(*streamed.payload(), json!(3));
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_share_a_pubsub_share_topics_presence_and_disconnect() {
    struct Other;
    impl Channel for Other {
        type Assigns = u8;
        type Info = ();
        async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
            Ok(Self.into())
        }
    }
    let pubsub = PubSub::new();
    let users = builder(&User::default()).pubsub(pubsub.clone()).build();
    let staff = Endpoint::builder(|_| async { Ok(7_u8) })
        .id(|_| Some("ann".into()))
        .channel::<Other>("*")
        .pubsub(pubsub.clone())
        .build();
    let alone = endpoint();
    let mut ann = connect(&users, &[("id", "ann")]).await.unwrap();
    ann.join("room", json!([])).await;
    let mut boss = connect(&staff, &[]).await.unwrap();
    boss.join("room", json!([])).await;
    let mut stranger = connect(&alone, &[("id", "ann")]).await.unwrap();
    stranger.join("room", json!([])).await;
    ann.push("room", "say", json!(1)).await;
    assert_eq!(boss.next_push().await, ("said".into(), json!(1).into()));
    ann.push("room", "track", json!({})).await;
    boss.expect("presence_diff").await;
    assert_eq!(staff.presence().count("room"), 1);
    assert_eq!((pubsub.subscriber_count("room"), alone.subscriber_count("room")), (2, 1));
    assert_eq!((users.sockets("ann"), alone.sockets("ann")), (2, 1));
    staff.broadcast("ann", "disconnect", json!({}));
    ann.expect_closed().await;
    boss.expect_closed().await;
    assert!(is_quiet(&mut stranger).await);
    assert!(!users.is_connected("ann") && alone.is_connected("ann"));
}

#[tokio::test(start_paused = true)]
async fn a_shared_pubsub_has_the_memory_and_the_presence_of_its_own_configuration() {
    let shared = || builder(&User::default()).pubsub(PubSub::new());
    for (builder, name) in [
        (shared().memory(1 << 20), "PubSubConfig::memory"),
        (shared().presence(PresenceConfig::default()), "PubSubConfig::presence"),
        (builder(&User::default()).memory(0), "memory"),
    ] {
        let error = builder.try_build().expect_err(name).to_string();
        assert!(error.contains(name), "{error}");
    }
    for (config, name) in [
        (PubSubConfig::new().memory(0), "memory"),
        (PubSubConfig::new().max_subscription(0), "max_subscription"),
        (PubSubConfig::new().presence(PresenceConfig::default().max_meta(0)), "max_meta"),
    ] {
        let error = PubSub::with_config(config).expect_err(name).to_string();
        assert!(error.contains(name), "{error}");
    }
    let config = PubSubConfig::new().memory(100_000);
    let pubsub = PubSub::with_config(config).expect("valid");
    let endpoints = [(); 2].map(|()| builder(&User::default()).pubsub(pubsub.clone()).build());
    let mut clients = Vec::new();
    let refused = loop {
        match connect(&endpoints[clients.len() % 2], &[]).await {
            Ok(client) => clients.push(client),
            Err(_) => break clients.len(),
        }
    };
    assert!((20..40).contains(&refused), "one budget for both: {refused}");
    clients.truncate(refused / 2);
    assert!(connect(&endpoints[1], &[]).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_knows_who_is_connected() {
    let endpoint = endpoint();
    assert!(!endpoint.is_connected("ann"));
    let session = [("id", "ann"), ("session", "0123456789abcdefghijkl")];
    let mut first = connect(&endpoint, &session).await.unwrap();
    let second = connect(&endpoint, &[("id", "ann")]).await.unwrap();
    assert_eq!((endpoint.is_connected("ann"), endpoint.sockets("ann")), (true, 2));
    drop(second);
    assert_eq!((endpoint.is_connected("ann"), endpoint.sockets("ann")), (true, 1));
    first.drop_connection();
    assert_eq!((endpoint.is_connected("ann"), endpoint.sockets("ann")), (false, 1), "detached");
    first.reconnect().await.unwrap();
    assert_eq!((endpoint.is_connected("ann"), endpoint.sockets("ann")), (true, 1));
    endpoint.disconnect("ann");
    assert_eq!((endpoint.is_connected("ann"), endpoint.sockets("ann")), (false, 0));
}

#[tokio::test(start_paused = true)]
async fn a_channel_knows_its_socket() {
    let endpoint = endpoint();
    let mut ann = connect(&endpoint, &[("id", "ann")]).await.unwrap();
    ann.join("a", json!([])).await;
    let reply = ann.push("a", "who", json!({})).await;
    assert_eq!(reply, Reply::ok(json!({ "id": "ann", "transport": "InMemory" })));
    let mut anonymous = member(&endpoint, "a", json!([])).await;
    let reply = anonymous.push("a", "who", json!({})).await;
    assert_eq!(reply, Reply::ok(json!({ "id": null, "transport": "InMemory" })));
}

#[tokio::test(start_paused = true)]
async fn operators_see_the_topics_and_how_many_subscribers_each_has() {
    let endpoint = endpoint();
    let members: Vec<_> = [member(&endpoint, "a", json!(["news"])).await]
        .into_iter()
        .chain([member(&endpoint, "a", json!([])).await, member(&endpoint, "b", json!([])).await])
        .collect();
    let task = endpoint.pubsub().subscribe("news");
    let mut topics: Vec<_> = endpoint.topics().collect();
    topics.sort_unstable();
    assert_eq!(topics, ["a", "b", "news"]);
    let counts = ["a", "b", "news", "c"].map(|topic| endpoint.subscriber_count(topic));
    assert_eq!(counts, [2, 1, 2, 0]);
    // The caller may do as it likes while it has the iterator.
    let mut topics = endpoint.topics();
    topics.next();
    drop((members, task));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(endpoint.topics().count(), 0);
}
