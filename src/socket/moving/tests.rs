use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde_json::{Value, json};
use tower_channels_transports::{Close, Inbound, Session, Transport, outbox};

use super::wire::{self, At, Handled, Number, Outline, Packed, Prepared, State, Topic};
use super::*;
use crate::channel::arrival::Arrival;
use crate::channel::callbacks::{Channel, Socket};
use crate::channel::error::{Error, Result};
use crate::channel::result::{Joined, Reason};
use crate::cluster::claims::LeftTopic;
use crate::guarded::Guarded;
use crate::history::Position;
use crate::payload::Payload;
use crate::pubsub::PubSub;
use crate::reply::Reply;
use crate::responder::{Positions, Responder};
use crate::router::Router;
use crate::serializer::Version;
use crate::socket::registry::SessionRegistry;
use crate::socket::{ChannelLimits, EndpointContext, SocketSession};
use crate::socket_info::SocketInfo;

/// A channel that takes what it has counted along.
struct Counter {
    count: u64,
    /// How it behaves when it is packed.
    mood: String,
}

impl Channel for Counter {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, mood: Payload, it: &Socket<Self>) -> Result<Joined<Self>> {
        let mood = mood.parse::<String>().unwrap_or_default();
        match mood.as_str() {
            "refused" => return Err(Error::reason("no")),
            "slow" => tokio::time::sleep(Duration::from_secs(5)).await,
            _ => {}
        }
        let (count, response) = match it.arrival() {
            Arrival::New | Arrival::Recovered { .. } => (0, json!("new")),
            Arrival::Moved { packed, has_gap } => {
                let packed = packed.as_ref().and_then(|packed| packed.parse::<Value>().ok());
                let count = packed.as_ref().and_then(Value::as_u64).unwrap_or_default();
                (count, json!({ "packed": packed, "has_gap": has_gap }))
            }
        };
        Ok(Joined::new(Self { count, mood }).reply(response))
    }

    async fn handle_in(&mut self, _: &str, _: Payload, _: &Socket<Self>) -> Result<Reply> {
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.count += 1;
        Ok(Reply::ok(json!(self.count)))
    }

    async fn pack(&mut self, _: &Socket<Self>) -> Option<Payload> {
        match self.mood.as_str() {
            "panics" => panic!("requested"),
            "hangs" => std::future::pending().await,
            "large" => Some(Payload::binary(vec![0; 65_000])),
            "too large" => Some(Payload::binary(vec![0; 66_000])),
            "silent" => None,
            _ => Some(json!(self.count).into()),
        }
    }

    async fn terminate(&mut self, reason: Reason, it: &Socket<Self>) {
        it.push("terminated", reason.to_string());
    }
}

/// A client and its session on one node.
struct Client {
    session: SocketSession<()>,
    receiver: outbox::Receiver,
}

impl Client {
    fn new(version: Version) -> Self {
        let (outbox, receiver) = outbox::channel(1 << 20);
        let pubsub = PubSub::new();
        let mut router = Router::new();
        router.add::<Counter>("count:*");
        let sessions = SessionRegistry::new(10, pubsub.socket_registry().clone());
        let limits =
            ChannelLimits { channels: 10, mailbox: 1000, join_timeout: Duration::from_secs(10) };
        let endpoint =
            Arc::new(EndpointContext { router, refresh: None, pubsub, limits, peers: None });
        let info = SocketInfo::new(None, Transport::InMemory);
        let responder =
            Responder { outbox, version, resumable: false, positions: Positions::Unwanted };
        let assigns = Arc::new(Guarded::new(()));
        let session = SocketSession::new(endpoint, assigns, info, responder, None, sessions, true);
        Self { session, receiver }
    }

    /// A client whose session has come here.
    async fn from(packed: Bytes) -> Self {
        let mut client = Self::new(Version::V2);
        client.session.prepare(outline_of(&["count:1", "count:2"])).await;
        assert!(client.session.unpack(packed));
        client.session.attached(1, Transport::InMemory);
        client
    }

    async fn joined(moods: &[(&str, &str)]) -> Self {
        let mut client = Self::new(Version::V2);
        client.session.attached(1, Transport::InMemory);
        for (topic, mood) in moods {
            client.send("1", topic, "phx_join", mood);
        }
        client.receive().await;
        client
    }

    fn send(&mut self, reference: &str, topic: &str, event: &str, payload: &str) {
        let message = json!(["1", reference, topic, event, payload]).to_string();
        self.session.handle_in(Inbound::Text(&message)).expect("a message");
    }

    /// What it receives within a moment: `(event, payload)`.
    async fn receive(&mut self) -> Vec<(String, Value)> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut batch = VecDeque::new();
        let mut cx = Context::from_waker(Waker::noop());
        if let Poll::Ready(Err(close)) = self.receiver.poll_take(&mut cx, &mut batch) {
            assert_eq!(close, Close::Normal);
        }
        let decode = |text: &[u8]| {
            let [_, _, _, event, payload]: [Value; 5] = serde_json::from_slice(text).expect("V2");
            (event.as_str().expect("an event").to_owned(), payload)
        };
        batch.iter().map(|message| decode(&message.to_bytes())).collect()
    }

    /// Joins a topic, and returns the response.
    async fn join(&mut self, topic: &str, mood: &str) -> Value {
        self.send("7", topic, "phx_join", mood);
        let received = self.receive().await;
        let (_, reply) = received.last().expect("a reply");
        reply["response"].clone()
    }

    async fn pack(mut self) -> Bytes {
        self.session.pack(Some(Prepared::default().encode_to_vec().into())).await
    }
}

use prost::Message as _;

fn outline_of(topics: &[&str]) -> Bytes {
    let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
    Outline { version: 2, topics }.encode_to_vec().into()
}

fn moved(packed: &Value) -> Value {
    json!({ "packed": packed, "has_gap": false })
}

fn topics(packed: &Bytes) -> Vec<String> {
    let packed = Packed::decode(&**packed).expect("a packed session");
    packed.topics.into_iter().map(|topic| topic.topic).collect()
}

#[test]
fn what_is_packed_is_read_again_and_what_is_unknown_is_ignored() {
    let topic = Topic {
        topic: "t".into(),
        stream: 7,
        state: Some(State::Binary(Bytes::from_static(&[0, 255]))),
        heard: vec![Number { node: u64::MAX, number: 3 }],
        follows: true,
        has_gap: true,
        joined: Some("\"1\"".into()),
        position: Some(At { epoch: u64::MAX, number: 4 }),
    };
    let packed = Packed {
        version: 2,
        lingering: vec![Number { node: 1, number: 2 }],
        topics: vec![topic],
        handled: Some(Handled { bounds: vec![1, 4, 6, 6] }),
        left: vec![LeftTopic::new("u", Position { epoch: 1, number: 2 })],
    };
    let mut bytes = packed.encode_to_vec();
    assert_eq!(Packed::decode(&*bytes), Ok(packed.clone()));
    // Field 99, a number.
    bytes.extend([0x98, 0x06, 0x01]);
    assert_eq!(Packed::decode(&*bytes), Ok(packed));
}

#[test]
fn nodes_know_the_protocol_versions_by_numbers_that_stay() {
    assert_eq!([Version::V1, Version::V2].map(wire::version), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_channel_takes_along_what_it_has_packed_after_it_has_handled_what_waited() {
    let mut client = Client::joined(&[("count:1", "")]).await;
    for reference in ["2", "3", "4"] {
        client.send(reference, "count:1", "add", "");
    }
    let packed = client.pack().await;
    let mut client = Client::from(packed).await;
    assert_eq!(client.receive().await.len(), 1, "what it has handled");
    assert_eq!(client.join("count:1", "").await, moved(&json!(3)));
    assert_eq!(client.join("count:1", "").await, moved(&json!(3)), "it lives on");
}

#[tokio::test(start_paused = true)]
async fn the_client_is_told_nothing_of_the_end_of_a_channel_that_moves() {
    let mut client = Client::joined(&[("count:1", "")]).await;
    let packing = client.session.pack(Some(Bytes::new()));
    packing.await;
    assert_eq!(client.receive().await, [("terminated".into(), json!("moved"))]);
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_panics_hangs_or_joins_is_left_behind() {
    for mood in ["panics", "hangs", "slow"] {
        let client = Client::joined(&[("count:1", mood), ("count:2", "")]).await;
        let began = tokio::time::Instant::now();
        let packed = client.pack().await;
        assert!(began.elapsed() <= Duration::from_millis(1010), "{mood}");
        assert_eq!(topics(&packed), ["count:2"], "{mood}");
        let mut client = Client::from(packed).await;
        assert_eq!(client.join("count:1", "").await, json!("new"), "{mood}");
        assert_eq!(client.join("count:2", "").await, moved(&json!(0)), "{mood}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_does_not_go_along_and_its_channel_does() {
    let client = Client::joined(&[("count:1", "too large"), ("count:2", "silent")]).await;
    let packed = client.pack().await;
    let mut client = Client::from(packed).await;
    assert_eq!(client.join("count:1", "").await, moved(&Value::Null));
    assert_eq!(client.join("count:2", "").await, moved(&Value::Null));
    let moods = ["1", "2", "3", "4", "5"].map(|n| (format!("count:{n}"), "large"));
    let moods = moods.each_ref().map(|(topic, mood)| (topic.as_str(), *mood));
    let packed = Packed::decode(Client::joined(&moods).await.pack().await).expect("it is packed");
    let with_state = packed.topics.iter().filter(|topic| topic.state.is_some()).count();
    assert_eq!((packed.topics.len(), with_state), (5, 4));
}

#[tokio::test(start_paused = true)]
async fn without_preparation_and_with_a_late_one_there_may_be_a_gap() {
    let late = Prepared { heard: Vec::new(), is_late: true };
    for prepared in [None, Some(Bytes::from(late.encode_to_vec())), Some("garbage".into())] {
        let mut client = Client::joined(&[("count:1", "")]).await;
        let packed = client.session.pack(prepared).await;
        let mut client = Client::from(packed).await;
        assert_eq!(client.join("count:1", "").await, json!({ "packed": 0, "has_gap": true }));
    }
    let packed = Client::joined(&[("count:1", "")]).await.pack().await;
    let mut client = Client::new(Version::V2);
    assert!(client.session.unpack(packed), "it has prepared nothing");
    client.session.attached(1, Transport::InMemory);
    assert_eq!(client.join("count:1", "").await, json!({ "packed": 0, "has_gap": true }));
}

#[tokio::test(start_paused = true)]
async fn a_session_of_another_protocol_version_or_that_cannot_be_read_begins_anew() {
    let packed = Client::joined(&[("count:1", "")]).await.pack().await;
    for (version, packed) in [(Version::V1, packed), (Version::V2, "garbage".into())] {
        let mut client = Client::new(version);
        client.session.prepare(outline_of(&["count:1"])).await;
        assert!(!client.session.unpack(packed));
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_prepares_for_as_many_topics_as_a_client_may_join() {
    let names: Vec<_> = (0..20).map(|n| format!("count:{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut client = Client::new(Version::V2);
    let long = format!("count:{}", "x".repeat(300));
    let outline = outline_of(&[&["phoenix", "unknown", &long], &names[..]].concat());
    client.session.prepare(outline).await;
    let pubsub = client.session.dispatcher.endpoint.pubsub.clone();
    assert_eq!(pubsub.topics().count(), 10);
    drop(client);
    assert_eq!(pubsub.topics().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_topic_that_is_not_joined_in_time_is_joined_anew() {
    let packed = Client::joined(&[("count:1", "")]).await.pack().await;
    let mut client = Client::from(packed).await;
    client.session.rejoin_deadline();
    assert_eq!(client.join("count:1", "").await, json!("new"));
}

#[tokio::test(start_paused = true)]
async fn a_refused_join_lets_go_what_was_packed() {
    let packed = Client::joined(&[("count:1", "")]).await.pack().await;
    let mut client = Client::from(packed).await;
    assert_eq!(client.join("count:1", "refused").await, json!({ "reason": "no" }));
    assert_eq!(client.join("count:1", "").await, json!("new"));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_because_its_join_timed_out_may_still_join() {
    // It has received the reply to its first join.
    let client = Client::joined(&[("count:1", "")]).await;
    let packed = client.pack().await;
    let mut client = Client::from(packed.clone()).await;
    client.send("2", "count:1", "phx_leave", "");
    assert_eq!(client.join("count:1", "").await, json!("new"), "it has left for good");
    let mut unknown = Packed::decode(packed).expect("it is packed");
    unknown.topics[0].joined = None;
    let mut client = Client::from(unknown.encode_to_vec().into()).await;
    client.send("2", "count:1", "phx_leave", "");
    assert_eq!(client.join("count:1", "").await, moved(&json!(0)), "it joins again");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_moves_on_takes_along_what_was_not_joined() {
    let mut client = Client::joined(&[("count:1", ""), ("count:2", "")]).await;
    client.send("2", "count:1", "add", "");
    client.receive().await;
    let mut between = Client::from(client.pack().await).await;
    assert_eq!(between.join("count:2", "").await, moved(&json!(0)));
    let outline = Outline::decode(between.session.outline()).expect("an outline");
    assert_eq!(outline.topics, ["count:2", "count:1"]);
    let mut client = Client::from(between.pack().await).await;
    assert_eq!(client.join("count:1", "").await, moved(&json!(1)));
    assert_eq!(client.join("count:2", "").await, moved(&json!(0)));
}

#[tokio::test(start_paused = true)]
async fn a_push_that_was_handled_is_not_handled_again_on_another_node() {
    let mut client = Client::joined(&[("count:1", "")]).await;
    client.send("2", "count:1", "add", "");
    client.receive().await;
    let mut client = Client::from(client.pack().await).await;
    let report = client.receive().await;
    assert_eq!(report[0].1["response"], json!({ "resumed": true, "refs": [[1, 2]] }));
    assert_eq!(client.join("count:1", "").await, moved(&json!(1)));
    client.send("2", "count:1", "add", "");
    assert!(client.receive().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_push_before_the_topic_is_joined_is_for_no_channel() {
    let packed = Client::joined(&[("count:1", "")]).await.pack().await;
    let mut client = Client::from(packed).await;
    client.receive().await;
    client.send("2", "count:1", "add", "");
    let received = client.receive().await;
    assert_eq!(received[0].1["response"], json!({ "reason": "unmatched topic" }));
}
