//! A node that shuts down, and the others, which take its sessions.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower::ServiceExt;
use tower_channels::adapter::Adapter;
use tower_channels::channel::Result;
use tower_channels::test::{Bus, Client, StorePath, connect};
use tower_channels::{
    Arrival, Builder, Channel, Close, ConnectInfo, Endpoint, Joined, Payload, Presence, PubSub,
    PubSubConfig, Rejected, Reply, Socket,
};

use crate::support::{moment, numbers, seconds};

/// Says at each join how its client has come.
struct Room;

impl Channel for Room {
    type Assigns = String;
    type Info = ();

    async fn join(_: &str, _: Payload, it: &Socket<Self>) -> Result<Joined<Self>> {
        let arrival = match it.arrival() {
            Arrival::Moved { has_gap: false, .. } => "moved",
            Arrival::Moved { has_gap: true, .. } => "with a gap",
            _ => "new",
        };
        Ok(Joined::new(Self).reply(json!(arrival)))
    }

    async fn after_join(&mut self, it: &Socket<Self>) -> Result<()> {
        Presence::track(it, it.assigns(), json!({}))?;
        Ok(())
    }
}

type Node = Endpoint<String>;

fn builder() -> Builder<String> {
    Endpoint::builder(async |info: ConnectInfo| {
        Ok::<_, Rejected>(info.param("name").expect("a name").to_owned())
    })
    .id(|name| Some(name.clone()))
    .channel::<Room>("room:*")
}

fn node(adapter: impl Adapter) -> Node {
    builder().adapter(adapter).build()
}

/// Nodes that have heard each other. Their places are their indices.
async fn nodes<const N: usize>(bus: &Bus) -> [Node; N] {
    let nodes = std::array::from_fn(|_| node(bus.adapter()));
    seconds(2).await;
    nodes
}

/// A client with a resumable session, in a room.
async fn member(node: &Node, name: &str) -> Client<String> {
    let session = format!("{name}-0123456789012345678");
    let params = [("name", name), ("session", &session), ("received", "0")];
    let mut client = connect(node, &params).await.expect("accepted");
    client.timeout(Duration::from_secs(120));
    assert_eq!(client.join("room:1", json!({})).await, Reply::ok(json!("new")));
    client
}

/// How the client of a session that was on another node arrives at this one.
async fn arrival(client: &mut Client<String>, node: &Node) -> Value {
    client.reconnect_to(node).await.expect("accepted");
    let Reply::Ok(arrival) = client.join("room:1", json!({})).await else { panic!("refused") };
    arrival.parse().expect("a text")
}

/// Shuts down, and yields whether all sessions have ended, and how long it took.
fn shut_down(node: &Node, timeout: Duration) -> JoinHandle<(bool, Duration)> {
    let node = node.clone();
    tokio::spawn(async move {
        let began = Instant::now();
        let has_ended = node.shutdown(timeout).await;
        assert_eq!(node.sessions().total(), 0);
        (has_ended, began.elapsed())
    })
}

const TIMEOUT: Duration = Duration::from_secs(40);
const LAST_QUARTER: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn sessions_move_at_a_pace_and_lose_nothing() {
    let bus = Bus::new();
    let [one, two, three] = nodes(&bus).await;
    let mut clients = Vec::new();
    for index in 0..20 {
        clients.push(member(&one, &format!("u{index:02}")).await);
    }
    let broadcasts = tokio::spawn({
        let three = three.clone();
        async move {
            for n in 0..1000 {
                three.broadcast("room:1", "n", json!(n));
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        }
    });
    moment().await;
    let watching = tokio::spawn({
        let three = three.clone();
        async move {
            loop {
                let present = three.presence().list("room:1").await;
                assert_eq!(present.keys().count(), 20, "nobody leaves");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    });
    let began = Instant::now();
    let shutdown = shut_down(&one, TIMEOUT);
    let moving = clients.into_iter().enumerate().map(|(index, mut client)| {
        let to = [two.clone(), three.clone()][index % 2].clone();
        tokio::spawn(async move {
            assert_eq!(client.expect_closed().await, Close::Restart);
            let closed = began.elapsed();
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert_eq!(arrival(&mut client, &to).await, "moved");
            (client, closed)
        })
    });
    let mut closed = Vec::new();
    let mut moved = Vec::new();
    for client in moving.collect::<Vec<_>>() {
        let (client, at) = client.await.expect("no panic");
        closed.push(at);
        moved.push(client);
    }
    let (has_ended, took) = shutdown.await.expect("no panic");
    assert!(has_ended && took < LAST_QUARTER, "{took:?}");
    closed.sort();
    let at = |index: usize| closed[index].as_secs_f64();
    assert!(at(0) < 0.1 && (0.8..1.2).contains(&at(10)) && at(19) < 2.1, "{closed:?}");
    broadcasts.await.expect("no panic");
    for mut client in moved {
        assert!(numbers(&mut client).await.into_iter().eq(0..1000));
    }
    assert_eq!((two.sessions().total(), three.sessions().total()), (10, 10));
    seconds(10).await;
    assert_eq!(two.nodes().len(), 2, "it has said goodbye");
    assert!(!watching.is_finished(), "somebody was absent: {:?}", watching.await);
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_client_sleeps_is_found_again_with_what_waited_and_knows_of_the_gap() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut sleeper = member(&one, "ann").await;
    sleeper.drop_connection();
    two.broadcast("room:1", "n", json!(1));
    moment().await;
    let (has_ended, took) = shut_down(&one, TIMEOUT).await.expect("no panic");
    assert!(has_ended && (LAST_QUARTER..TIMEOUT).contains(&took), "{took:?}");
    two.broadcast("room:1", "n", json!(2));
    seconds(10).await;
    assert_eq!(arrival(&mut sleeper, &two).await, "with a gap");
    two.broadcast("room:1", "n", json!(3));
    assert_eq!(numbers(&mut sleeper).await, [1, 3]);
}

#[tokio::test(start_paused = true)]
async fn many_sessions_that_sleep_are_left_behind() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut sleepers = Vec::new();
    for index in 0..200 {
        let mut client = member(&one, &format!("u{index:03}")).await;
        client.drop_connection();
        sleepers.push(client);
    }
    assert!(shut_down(&one, TIMEOUT).await.expect("no panic").0);
    for mut client in sleepers {
        assert_eq!(arrival(&mut client, &two).await, "with a gap");
    }
    assert_eq!(two.sessions().total(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_left_behind_ends() {
    for is_failing in [false, true] {
        let bus = Bus::new();
        let [one, two] = nodes(&bus).await;
        let mut sleeper = member(&one, "ann").await;
        sleeper.drop_connection();
        if is_failing {
            bus.set_store(0, StorePath { is_failing, ..StorePath::default() });
        } else {
            two.broadcast("room:1", "long", json!("x".repeat(70_000)));
        }
        moment().await;
        assert!(shut_down(&one, TIMEOUT).await.expect("no panic").0);
        assert_eq!(arrival(&mut sleeper, &two).await, "new");
    }
}

#[tokio::test(start_paused = true)]
async fn clients_are_accepted_until_the_last_quarter_begins() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut sleeper = member(&one, "ann").await;
    sleeper.drop_connection();
    let began = Instant::now();
    let shutdown = shut_down(&one, TIMEOUT);
    seconds(29).await;
    assert!(two.nodes().iter().any(|node| node.is_draining), "{:?}", two.nodes());
    let mut late = member(&one, "bob").await;
    let mut plain = connect(&one, &[("name", "cid")]).await.expect("accepted");
    for client in [&mut late, &mut plain] {
        assert_eq!(client.expect_closed().await, Close::Restart);
        let closed = began.elapsed();
        assert!((LAST_QUARTER..LAST_QUARTER + Duration::from_millis(50)).contains(&closed));
    }
    assert!(connect(&one, &[("name", "dan")]).await.is_err());
    assert!(late.reconnect().await.is_err());
    assert_eq!(arrival(&mut late, &two).await, "moved");
    assert!(shutdown.await.expect("no panic").0);
    assert_eq!(arrival(&mut sleeper, &two).await, "with a gap");
}

#[tokio::test(start_paused = true)]
async fn a_client_may_come_back_to_the_node_that_shuts_down_until_then() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut client = member(&one, "ann").await;
    let shutdown = shut_down(&one, TIMEOUT);
    assert_eq!(client.expect_closed().await, Close::Restart);
    client.reconnect().await.expect("accepted");
    assert_eq!(client.join("room:1", json!({})).await, Reply::ok(json!("new")), "it was resumed");
    two.broadcast("room:1", "n", json!(1));
    assert_eq!(client.expect("n").await, json!(1));
    assert_eq!(client.expect_closed().await, Close::Restart);
    two.broadcast("room:1", "n", json!(2));
    assert_eq!(arrival(&mut client, &two).await, "moved");
    assert_eq!(numbers(&mut client).await, [2]);
    assert!(shutdown.await.expect("no panic").0);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_dies_while_it_shuts_down_takes_the_sessions_along_that_it_still_has() {
    let bus = Bus::new();
    let [one, two, three] = nodes(&bus).await;
    let mut clients = Vec::new();
    for index in 0..20 {
        clients.push(member(&one, &format!("u{index:02}")).await);
    }
    let shutdown = shut_down(&one, TIMEOUT);
    let mut arrivals = Vec::new();
    for (index, client) in clients.iter_mut().enumerate() {
        if index == 10 {
            shutdown.abort();
            bus.cut(0);
        }
        if index < 10 {
            assert_eq!(client.expect_closed().await, Close::Restart);
        } else {
            client.drop_connection();
        }
        let began = Instant::now();
        arrivals.push(arrival(client, [&two, &three][index % 2]).await);
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
    assert!(arrivals[..10].iter().all(|arrival| arrival == "moved"), "{arrivals:?}");
    assert!(arrivals[10..].iter().all(|arrival| arrival == "new"), "{arrivals:?}");
}

#[tokio::test(start_paused = true)]
async fn without_records_or_time_all_sessions_end_as_on_a_single_node() {
    for (has_store, timeout) in [(false, TIMEOUT), (true, Duration::ZERO)] {
        let bus = Bus::new();
        let adapter = || if has_store { bus.adapter() } else { bus.adapter().without_store() };
        let (one, two) = (node(adapter()), node(adapter()));
        seconds(2).await;
        let mut sleeper = member(&one, "ann").await;
        sleeper.drop_connection();
        let mut awake = member(&one, "bob").await;
        let began = Instant::now();
        let shutdown = tokio::spawn(async move { one.shutdown(timeout).await });
        assert_eq!(awake.expect_closed().await, Close::Restart);
        shutdown.await.expect("no panic");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        for client in [&mut sleeper, &mut awake] {
            assert_eq!(arrival(client, &two).await, "new");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_leaves_when_the_last_of_its_endpoints_has_shut_down() {
    let bus = Bus::new();
    let pubsub = || PubSub::with_config(PubSubConfig::new().adapter(bus.adapter())).expect("valid");
    let (here, there) = (pubsub(), pubsub());
    let endpoint = |pubsub: &PubSub| builder().pubsub(pubsub.clone()).build();
    let [one, other] = [endpoint(&here), endpoint(&here)];
    let [first, second] = [endpoint(&there), endpoint(&there)];
    seconds(2).await;
    let mut sleeper = member(&other, "ann").await;
    sleeper.drop_connection();
    let mut awake = member(&one, "bob").await;
    let shutdown = shut_down(&other, TIMEOUT);
    let quick = shut_down(&one, TIMEOUT);
    assert_eq!(awake.expect_closed().await, Close::Restart);
    assert_eq!(arrival(&mut awake, &first).await, "moved");
    assert!(quick.await.expect("no panic").0);
    seconds(5).await;
    assert_eq!(there.nodes().len(), 2);
    assert_eq!(arrival(&mut sleeper, &second).await, "moved", "its node is still there");
    assert!(shutdown.await.expect("no panic").0);
    seconds(2).await;
    assert_eq!(there.nodes().len(), 1);
}

/// A long-poll client.
struct Poller {
    node: Node,
    name: String,
    token: String,
}

impl Poller {
    async fn connect(node: &Node) -> Self {
        Self::connect_as("eve", node).await
    }

    async fn connect_as(name: &str, node: &Node) -> Self {
        let mut poller = Self { node: node.clone(), name: name.to_owned(), token: String::new() };
        assert_eq!(poller.request("GET", "").await["status"], 410);
        poller
    }

    /// Joins, and returns what the reply says.
    async fn join(&mut self) -> Value {
        let join = r#"["1","1","room:1","phx_join",{}]"#;
        assert_eq!(self.request("POST", join).await["status"], 200);
        moment().await;
        let answer = self.request("GET", "").await;
        let reply = answer["messages"][0].as_str().expect("a reply");
        let reply: Value = serde_json::from_str(reply).expect("JSON");
        reply[4]["response"].clone()
    }

    async fn request(&mut self, method: &str, body: &str) -> Value {
        let name = &self.name;
        let query = format!("vsn=2.0.0&name={name}&session={name}-0123456789012345678");
        let uri = format!("/socket/longpoll?{query}&token={}", self.token);
        let request = Request::builder().method(method).uri(uri).header("host", "localhost");
        let request = request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
        let Ok(response) = self.node.service().oneshot(request).await;
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{body:?}"));
        if let Some(token) = body["token"].as_str() {
            self.token = token.to_owned();
        }
        body
    }
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_waits_is_answered_and_its_session_moves() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut eve = Poller::connect(&one).await;
    assert_eq!(eve.join().await, "new");
    // Without messages; it shows that the reply has come.
    eve.request("GET", "").await;
    let shutdown = shut_down(&one, TIMEOUT);
    let began = Instant::now();
    // By way of the other node, as a balancer may have it.
    eve.node = two.clone();
    let mut answer = eve.request("GET", "").await;
    while answer["status"] != 500 {
        answer = eve.request("GET", "").await;
    }
    // It has to connect anew.
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    one.broadcast("room:1", "n", json!(1));
    let mut eve = Poller::connect(&two).await;
    assert_eq!(eve.join().await, "moved");
    let (has_ended, took) = shutdown.await.expect("no panic");
    assert!(has_ended && took < LAST_QUARTER, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn long_poll_clients_between_two_polls_are_sent_away_at_the_pace_of_all() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let coming = (0..20).map(|index| {
        let one = one.clone();
        tokio::spawn(async move {
            let mut poller = Poller::connect_as(&format!("u{index:02}"), &one).await;
            assert_eq!(poller.join().await, "new");
            // It shows that the reply has come.
            poller.request("GET", "").await;
            poller
        })
    });
    let mut pollers = Vec::new();
    for poller in coming.collect::<Vec<_>>() {
        pollers.push(poller.await.expect("no panic"));
    }
    two.broadcast("room:1", "n", json!(1));
    let shutdown = shut_down(&one, TIMEOUT);
    tokio::time::sleep(Duration::from_millis(150)).await;
    let mut sent_away = 0;
    for poller in &mut pollers {
        sent_away += usize::from(poller.request("GET", "").await["status"] == 500);
    }
    assert!((1..4).contains(&sent_away), "{sent_away} of 20");
    for mut poller in pollers {
        while poller.request("GET", "").await["status"] != 500 {}
        let mut poller = Poller::connect_as(&poller.name, &two).await;
        assert_eq!(poller.join().await, "moved");
    }
    assert!(shutdown.await.expect("no panic").0);
}

#[tokio::test(start_paused = true)]
async fn the_session_of_a_client_that_does_not_poll_any_more_is_left_behind() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut eve = Poller::connect(&one).await;
    assert_eq!(eve.join().await, "new");
    // Without messages; it shows that the reply has come.
    eve.request("GET", "").await;
    let (has_ended, took) = shut_down(&one, TIMEOUT).await.expect("no panic");
    assert!(has_ended && (LAST_QUARTER..TIMEOUT).contains(&took), "{took:?}");
    let mut eve = Poller::connect(&two).await;
    assert_eq!(eve.join().await, "with a gap");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_accepted_before_the_last_quarter_and_comes_in_it_is_sent_on() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut eve = Poller::connect(&one).await;
    assert_eq!(eve.join().await, "new");
    let shutdown = shut_down(&one, TIMEOUT);
    seconds(29).await;
    let mut eve = Poller::connect(&one).await;
    assert_eq!(eve.join().await, "new", "it was resumed");
    let mut late = Poller::connect(&one).await;
    seconds(2).await;
    assert_eq!(late.join().await, "new", "it was resumed");
    while late.request("GET", "").await["status"] != 500 {}
    let (has_ended, took) = shutdown.await.expect("no panic");
    assert!(has_ended && (LAST_QUARTER..TIMEOUT).contains(&took), "{took:?}");
    let mut eve = Poller::connect(&two).await;
    assert_eq!(eve.join().await, "with a gap");
}
