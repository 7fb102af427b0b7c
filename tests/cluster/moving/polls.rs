//! Long polls of clients whose session moves, in both versions of the protocol.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::ServiceExt;
use tower_channels::test::Bus;

use super::{Node, nodes};
use crate::support::moment;

/// A client that polls.
pub(super) struct Poller {
    node: Node,
    name: &'static str,
    version: &'static str,
    token: String,
    last_ref: u64,
}

/// `(ref, event, payload)`.
pub(super) type Message = (Value, String, Value);

impl Poller {
    pub(super) async fn connect(node: &Node, name: &'static str, version: &'static str) -> Self {
        let (node_of, token) = (node.clone(), String::new());
        let mut poller = Self { node: node_of, name, version, token, last_ref: 1000 };
        poller.reconnect_to(node).await;
        poller
    }

    /// Gets a new token of this node.
    pub(super) async fn reconnect_to(&mut self, node: &Node) {
        (self.node, self.token) = (node.clone(), String::new());
        assert!(self.poll().await.is_empty());
    }

    async fn request(&mut self, method: &str, body: String) -> Value {
        let Self { name, version, token, .. } = self;
        let uri = format!(
            "/socket/longpoll?vsn={version}&name={name}&session={name}-0123456789012345678&token={token}"
        );
        let request = Request::builder().method(method).uri(uri);
        let request = request.header("host", "localhost");
        let request = request.body(Full::new(Bytes::from(body))).expect("a request");
        let Ok(response) = self.node.service().oneshot(request).await;
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        serde_json::from_slice(&body).unwrap_or_else(|_| panic!("{body:?}"))
    }

    pub(super) async fn poll(&mut self) -> Vec<Message> {
        let answer = self.request("GET", String::new()).await;
        if let Some(token) = answer["token"].as_str() {
            self.token = token.to_owned();
        }
        let messages = answer["messages"].as_array().cloned().unwrap_or_default();
        let read = |message: Value| {
            let text = message.as_str().expect("a message").to_owned();
            let message: Value = serde_json::from_str(&text).expect("JSON");
            let part = |index: usize, name: &str| match &message {
                Value::Array(parts) => parts[index].clone(),
                object => object[name].clone(),
            };
            let event = part(3, "event").as_str().expect("an event").to_owned();
            (part(1, "ref"), event, part(4, "payload"))
        };
        messages.into_iter().map(read).collect()
    }

    pub(super) async fn send(&mut self, event: &str, payload: Value) -> Value {
        self.last_ref += 1;
        let reference = self.last_ref.to_string();
        let message = if self.version == "1.0.0" {
            json!({ "topic": "count:1", "event": event, "payload": payload, "ref": reference })
        } else {
            json!([null, reference, "count:1", event, payload])
        };
        let answer = self.request("POST", message.to_string()).await;
        assert_eq!(answer["status"], 200, "{answer}");
        reference.into()
    }

    async fn join(&mut self) -> Value {
        let reference = self.send("phx_join", json!("")).await;
        let received = self.poll().await;
        assert_eq!(received[0].0, reference, "{received:?}");
        received[0].2["response"].clone()
    }
}

const VERSIONS: [&str; 2] = ["1.0.0", "2.0.0"];

#[tokio::test(start_paused = true)]
async fn a_session_moves_when_its_client_polls_another_node_with_a_token_of_that() {
    for version in VERSIONS {
        let bus = Bus::new();
        let [one, two] = nodes(&bus).await;
        let mut bob = Poller::connect(&one, "bob", version).await;
        assert_eq!(bob.join().await, json!("new"));
        // It polls once more, which shows that the reply has come.
        one.broadcast("count:1", "n", json!(0));
        moment().await;
        assert!(!bob.poll().await.is_empty());
        one.broadcast("count:1", "n", json!(1));
        moment().await;
        bob.reconnect_to(&two).await;
        two.broadcast("count:1", "n", json!(2));
        moment().await;
        bob.send("phx_join", json!("")).await;
        moment().await;
        let mut received = bob.poll().await;
        received.retain(|(_, event, _)| event != "presence_diff");
        assert_eq!(received[0].2["response"], json!({ "count": 0, "has_gap": false }));
        let rest: Vec<_> = received[1..].iter().map(|(_, event, n)| (&**event, n)).collect();
        // What was polled before is repeated: without numbers it is not known to have been handled.
        let expected = [0, 1, 2].map(Value::from);
        assert_eq!(rest, expected.each_ref().map(|n| ("n", n)), "{version}");
        assert_eq!((one.sessions().total(), two.sessions().total()), (0, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_moves_to_another_node_and_another_transport_and_back() {
    let bus = Bus::new();
    let [one, two] = nodes(&bus).await;
    let params = [super::SESSION[0]];
    let mut ann = tower_channels::test::connect(&one, &params).await.expect("accepted");
    ann.skip_presence();
    ann.join("count:1", "").await;
    for hop in 0..3 {
        ann.push("count:1", "add", json!({})).await;
        ann.drop_connection();
        one.broadcast("count:1", "n", json!(hop));
        moment().await;
        let mut polling = Poller::connect(&two, "ann", "2.0.0").await;
        polling.send("phx_join", json!("")).await;
        moment().await;
        let mut received = polling.poll().await;
        received.retain(|(_, event, _)| event != "presence_diff");
        assert_eq!(received[0].2["response"], json!({ "count": hop + 1, "has_gap": false }));
        assert_eq!(received[1].2, json!(hop), "{received:?}");
        two.broadcast("count:1", "n", json!(10 + hop));
        moment().await;
        ann.reconnect_to(&one).await.expect("accepted");
        assert_eq!(ann.join("count:1", "").await, super::moved(hop + 1));
        // What was polled before is repeated: without numbers it is not known to have arrived.
        assert_eq!(super::numbers(&mut ann).await, [hop, 10 + hop]);
    }
}
