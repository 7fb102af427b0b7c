//! Sessions that move from one node to another.

mod polls;
mod untold;

use std::time::Duration;

use serde_json::{Value, json};
use tower_channels::channel::{Error, Result};
use tower_channels::test::{Bus, BusAdapter, Client, Path, connect};
use tower_channels::{
    Arrival, Builder, Channel, Close, ConnectInfo, Endpoint, Joined, Payload, Presence, Reason,
    Rejected, Reply, Socket,
};

use crate::support::{moment, numbers, seconds};

/// A counter that goes along with its client.
struct Counter {
    count: u64,
    mood: String,
}

impl Channel for Counter {
    type Assigns = String;
    type Info = ();
    const INTERCEPT: &'static [&'static str] = &["signed"];

    async fn join(_: &str, payload: Payload, it: &Socket<Self>) -> Result<Joined<Self>> {
        let mood = payload.parse::<String>().unwrap_or_default();
        match mood.as_str() {
            "slow join" => seconds(2).await,
            "refused" => return Err(Error::reason("refused")),
            _ => {}
        }
        let (count, response) = match it.arrival() {
            Arrival::Moved { packed, has_gap } => {
                let count = packed.as_ref().and_then(|packed| packed.parse().ok());
                (count.unwrap_or_default(), json!({ "count": count, "has_gap": has_gap }))
            }
            _ => (0, json!("new")),
        };
        Ok(Joined::new(Self { count, mood }).reply(response))
    }

    async fn after_join(&mut self, it: &Socket<Self>) -> Result<()> {
        Presence::track(it, it.assigns(), json!({}))?;
        if self.mood == "follows" {
            Presence::push_state(it);
        }
        Ok(())
    }

    async fn handle_in(&mut self, event: &str, by: Payload, it: &Socket<Self>) -> Result<Reply> {
        match event {
            "slowly" => seconds(3).await,
            "whisper" => it.broadcast_from("whisper", by.clone()),
            _ => {}
        }
        self.count += 1;
        Ok(Reply::ok(Payload::json(&self.count)?))
    }

    async fn handle_out(&mut self, event: &str, payload: Payload, it: &Socket<Self>) -> Result<()> {
        it.push(event, json!([payload.parse::<Value>()?, it.assigns()]));
        Ok(())
    }

    async fn pack(&mut self, _: &Socket<Self>) -> Option<Payload> {
        if self.mood == "panics" {
            panic!("requested");
        }
        Payload::json(&self.count).ok()
    }

    async fn terminate(&mut self, reason: Reason, it: &Socket<Self>) {
        it.pubsub().local_broadcast("log", "ended", reason.to_string());
    }
}

type Node = Endpoint<String>;

fn builder() -> Builder<String> {
    Endpoint::builder(async |info: ConnectInfo| {
        Ok::<_, Rejected>(info.param("name").unwrap_or("ann").to_owned())
    })
    .id(|name| Some(name.clone()))
    .channel::<Counter>("count:*")
}

async fn nodes<const N: usize>(bus: &Bus) -> [Node; N] {
    let nodes = std::array::from_fn(|_| builder().adapter(bus.adapter()).build());
    seconds(2).await;
    nodes
}

const SESSION: [(&str, &str); 2] = [("session", "ann-0123456789012345678"), ("received", "0")];

async fn member(node: &Node, mood: &str) -> Client<String> {
    let mut client = connect(node, &SESSION).await.expect("accepted");
    assert_eq!(client.join("count:1", mood).await, Reply::ok(json!("new")));
    client.skip_presence();
    client
}

fn moved(count: u64) -> Reply {
    Reply::ok(json!({ "count": count, "has_gap": false }))
}

#[tokio::test(start_paused = true)]
async fn a_channel_learns_why_it_is_joined_and_finds_what_it_has_packed() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut log = one.pubsub().subscribe("log");
    let mut ann = member(&one, "").await;
    assert_eq!(ann.push("count:1", "add", json!({})).await, Reply::ok(json!(1)));
    ann.reconnect_to(&two).await.expect("accepted");
    assert_eq!(*log.recv().await.expect("it ended").payload(), json!("moved"));
    assert_eq!(ann.join("count:1", "").await, moved(1));
    assert_eq!(ann.push("count:1", "add", json!({})).await, Reply::ok(json!(2)));
    assert_eq!((one.sessions().total(), two.sessions().total()), (0, 1));
    assert_eq!(ann.join("count:1", "").await, moved(1), "it lives on, and repeats its response");
}

#[tokio::test(start_paused = true)]
async fn what_waited_follows_the_reply_to_the_join_in_order() {
    let bus = Bus::new();
    let [one, two, three] = nodes(&bus).await;
    let mut ann = member(&one, "").await;
    one.broadcast("count:1", "n", json!(1));
    moment().await;
    // It is on the way, and not received.
    ann.drop_connection();
    one.broadcast("count:1", "n", json!(2));
    moment().await;
    three.broadcast("count:1", "n", json!(3));
    moment().await;
    ann.reconnect_to(&two).await.expect("accepted");
    two.broadcast("count:1", "n", json!(4));
    moment().await;
    one.broadcast("count:1", "n", json!(5));
    moment().await;
    assert_eq!(ann.discard(), 0, "nothing before the reply");
    assert_eq!(ann.join("count:1", "").await, moved(0));
    two.broadcast("count:1", "n", json!(6));
    assert_eq!(numbers(&mut ann).await, [1, 2, 3, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn broadcasts_of_all_nodes_during_the_move_come_once_each_and_in_order() {
    let bus = Bus::new();
    let all = nodes::<3>(&bus).await;
    let mut ann = member(&all[0], "").await;
    let broadcasts = all.each_ref().map(|node| {
        let node = node.clone();
        tokio::spawn(async move {
            for n in 0..2000 {
                node.broadcast("count:1", "n", json!(n));
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
        })
    });
    let mut received = Vec::new();
    for hop in 1..=20 {
        received.extend(numbers(&mut ann).await);
        ann.drop_connection();
        tokio::time::sleep(Duration::from_millis(hop % 4)).await;
        ann.reconnect_to(&all[hop as usize % 3]).await.expect("accepted");
        assert_eq!(ann.join("count:1", "").await, moved(0), "{hop}");
    }
    for broadcast in broadcasts {
        broadcast.await.expect("no panic");
    }
    received.extend(numbers(&mut ann).await);
    let mut next = vec![0; 2000];
    for n in &received {
        next[*n as usize] += 1;
    }
    assert!(next.iter().all(|count| *count == 3), "{} of 6000", received.len());
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_was_packed_twenty_times_has_lost_nothing() {
    let bus = Bus::new();
    let all = nodes::<2>(&bus).await;
    let mut ann = member(&all[0], "").await;
    for hop in 1..=20_usize {
        let count = ann.push("count:1", "add", json!({})).await;
        assert_eq!(count, Reply::ok(json!(hop)));
        all[hop % 2].broadcast("count:1", "n", json!(hop));
        ann.reconnect_to(&all[hop % 2]).await.expect("accepted");
        assert_eq!(ann.join("count:1", "").await, moved(hop as u64));
    }
    assert_eq!(numbers(&mut ann).await, (1..=20).collect::<Vec<_>>());
    assert_eq!(all[0].sessions().total(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_is_handled_before_the_channel_moves_and_its_reply_follows() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = member(&one, "").await;
    let references = ["add", "add", "add"].map(|event| ann.send("count:1", event, json!({})));
    ann.reconnect_to(&two).await.expect("accepted");
    assert_eq!(ann.join("count:1", "").await, moved(3));
    for (reference, count) in references.iter().zip(1..) {
        assert_eq!(ann.expect_reply(reference).await, Reply::ok(json!(count)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_takes_too_long_or_panics_is_joined_anew() {
    for (mood, event) in [("", "slowly"), ("panics", "add")] {
        let bus = Bus::new();
        let [one, two] = nodes(&bus).await;
        let mut ann = member(&one, mood).await;
        assert_eq!(ann.join("count:2", "").await, Reply::ok(json!("new")));
        ann.send("count:1", event, json!({}));
        moment().await;
        let began = tokio::time::Instant::now();
        ann.reconnect_to(&two).await.expect("accepted");
        assert!(began.elapsed() < Duration::from_millis(1500), "{:?}", began.elapsed());
        assert_eq!(ann.join("count:1", "").await, Reply::ok(json!("new")));
        assert_eq!(ann.join("count:2", "").await, moved(0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_presence_of_a_client_that_moves_never_leaves() {
    let bus = Bus::new();
    let all = nodes::<3>(&bus).await;
    let mut ann = member(&all[0], "").await;
    seconds(1).await;
    let mut changes = all[2].presence().changes();
    for hop in 1..=5_usize {
        ann.reconnect_to(&all[hop % 2]).await.expect("accepted");
        moment().await;
        assert_eq!(ann.join("count:1", "").await, moved(0));
        seconds(3).await;
        for node in &all {
            let metas = node.presence().get_by_key("count:1", "ann").await;
            assert_eq!(metas.map(|metas| metas.metas().len()), Some(1), "hop {hop}");
        }
    }
    drop(ann);
    let mut present = 1_i64;
    while let Ok(Some(diff)) = tokio::time::timeout(Duration::from_secs(1), changes.next()).await {
        let diff = diff.expect("none is dropped");
        let count = |presences: &tower_channels::Presences| {
            presences.get("ann").map_or(0, |present| present.metas().len() as i64)
        };
        present += count(&diff.joins) - count(&diff.leaves);
        assert!(present > 0, "the key has left");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_follows_presence_receives_the_list_anew() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = member(&one, "follows").await;
    ann.expect("presence_state").await;
    ann.reconnect_to(&two).await.expect("accepted");
    assert_eq!(ann.join("count:1", "").await, moved(0));
    ann.expect("presence_state").await;
}

#[tokio::test(start_paused = true)]
async fn a_broadcast_that_the_channel_handles_itself_is_handled_on_one_of_the_nodes() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = member(&one, "").await;
    ann.drop_connection();
    for (n, node) in [&one, &two].into_iter().cycle().take(20).enumerate() {
        node.broadcast("count:1", "signed", json!(n));
    }
    ann.reconnect_to(&two).await.expect("accepted");
    one.broadcast("count:1", "signed", json!(20));
    assert_eq!(ann.join("count:1", "").await, moved(0));
    let mut signed = Vec::new();
    for _ in 0..=20 {
        let (n, by): (u64, String) = ann.expect("signed").await.parse().expect("signed");
        assert_eq!(by, "ann");
        signed.push(n);
    }
    signed.sort_unstable();
    assert_eq!(signed, (0..=20).collect::<Vec<_>>());
    moment().await;
    ann.refute("signed", Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_moves_on_before_it_was_joined_loses_nothing() {
    let bus = Bus::new();
    let all = nodes::<3>(&bus).await;
    let mut ann = member(&all[0], "").await;
    ann.push("count:1", "add", json!({})).await;
    for hop in 1..=6_u64 {
        all[hop as usize % 3].broadcast("count:1", "n", json!(hop));
        ann.reconnect_to(&all[hop as usize % 3]).await.expect("accepted");
        all[(hop as usize + 1) % 3].broadcast("count:1", "n", json!(100 + hop));
        moment().await;
    }
    assert_eq!(ann.join("count:1", "").await, moved(1));
    let mut received = numbers(&mut ann).await;
    received.sort_unstable();
    assert_eq!(received, [1, 2, 3, 4, 5, 6, 101, 102, 103, 104, 105, 106]);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_not_joined_in_time_is_given_up() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = member(&one, "").await;
    ann.reconnect_to(&two).await.expect("accepted");
    moment().await;
    assert_eq!(two.subscriber_count("count:1"), 1);
    seconds(40).await;
    assert_eq!(two.subscriber_count("count:1"), 0);
    assert!(one.presence().get_by_key("count:1", "ann").await.is_none());
    assert_eq!(ann.join("count:1", "").await, Reply::ok(json!("new")));
}

#[tokio::test(start_paused = true)]
async fn a_push_is_handled_once_over_all_nodes() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let params = [SESSION[0], SESSION[1], ("pushes", "once")];
    let mut ann = connect(&one, &params).await.expect("accepted");
    let report = ann.expect_reply("handled").await;
    assert_eq!(report, Reply::ok(json!({ "resumed": false, "refs": [] })));
    ann.join("count:1", "").await;
    let first: Vec<String> = (0..5).map(|_| ann.send("count:1", "add", json!({}))).collect();
    ann.reconnect_to(&two).await.expect("accepted");
    let report = ann.expect_reply("handled").await;
    assert_eq!(report, Reply::ok(json!({ "resumed": true, "refs": [[1, 6]] })));
    assert_eq!(ann.join("count:1", "").await, moved(5));
    for (reference, count) in first.iter().zip(1..) {
        assert_eq!(ann.expect_reply(reference).await, Reply::ok(json!(count)));
    }
    assert_eq!(ann.push("count:1", "add", json!({})).await, Reply::ok(json!(6)));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_dies_leaves_a_session_that_begins_anew() {
    let bus = Bus::new();
    let adapter = bus.adapter();
    let place = adapter.place();
    let one = builder().adapter(adapter).build();
    let [two] = nodes(&bus).await;
    let mut ann = member(&one, "").await;
    seconds(1).await;
    bus.cut(place);
    let began = tokio::time::Instant::now();
    ann.reconnect_to(&two).await.expect("accepted");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(ann.join("count:1", "").await, Reply::ok(json!("new")));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_lags_behind_is_waited_for_or_there_may_be_a_gap() {
    for (lag, expected) in [(200, [1].as_slice()), (2000, &[])] {
        let bus = Bus::new();
        let adapters = [bus.adapter(), bus.adapter(), bus.adapter()];
        let [from, _, to] = adapters.each_ref().map(BusAdapter::place);
        let [three, two, one] = adapters.map(|adapter| builder().adapter(adapter).build());
        seconds(2).await;
        let mut ann = member(&one, "").await;
        let delay = Duration::from_millis(lag);
        bus.set_path(from, to, Path { delay, ..Path::default() });
        ann.drop_connection();
        three.broadcast("count:1", "n", json!(1));
        tokio::time::sleep(Duration::from_millis(50)).await;
        ann.reconnect_to(&two).await.expect("accepted");
        let has_gap = expected.is_empty();
        let reply = json!({ "count": 0, "has_gap": has_gap });
        assert_eq!(ann.join("count:1", "").await, Reply::ok(reply));
        assert_eq!(numbers(&mut ann).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_connection_to_the_old_node_ends() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut old = member(&one, "").await;
    let mut new = connect(&two, &SESSION).await.expect("accepted");
    assert_eq!(old.expect_closed().await, Close::Restart);
    assert_eq!(new.join("count:1", "").await, moved(0));
}

#[tokio::test(start_paused = true)]
async fn what_a_channel_has_sent_to_all_others_does_not_come_back_to_it() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = member(&one, "").await;
    ann.send("count:1", "whisper", json!({}));
    ann.reconnect_to(&two).await.expect("accepted");
    assert_eq!(ann.join("count:1", "").await, moved(1));
    ann.push("count:1", "whisper", json!({})).await;
    ann.refute("whisper", Duration::from_secs(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_join_that_is_refused_on_the_new_node_drops_what_waited() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = member(&one, "").await;
    ann.drop_connection();
    one.broadcast("count:1", "n", json!(1));
    ann.reconnect_to(&two).await.expect("accepted");
    assert_eq!(ann.join("count:1", "refused").await, Reply::reason("refused"));
    assert_eq!(ann.join("count:1", "").await, Reply::ok(json!("new")));
    assert!(numbers(&mut ann).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_slow_join_on_the_new_node_misses_nothing() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let mut ann = member(&one, "").await;
    ann.drop_connection();
    one.broadcast("count:1", "n", json!(1));
    ann.reconnect_to(&two).await.expect("accepted");
    let joined = ann.send("count:1", "phx_join", "slow join");
    moment().await;
    one.broadcast("count:1", "n", json!(2));
    two.broadcast("count:1", "n", json!(3));
    assert_eq!(ann.expect_reply(&joined).await, moved(0));
    let mut numbers = numbers(&mut ann).await;
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2, 3]);
}
