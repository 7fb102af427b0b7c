//! Topics with a history that the nodes share.

use serde_json::{Value, json};
use tower_channels::channel::Result;
use tower_channels::test::{Bus, Client, HistoryPath, Place, connect};
use tower_channels::{
    Arrival, Channel, ConnectInfo, Endpoint, History, Joined, Payload, Rejected, Reply, Socket,
};

use crate::support::{moment, numbers, seconds};

/// Says why it was joined.
struct Log;

impl Channel for Log {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, _: Payload, socket: &Socket<Self>) -> Result<Joined<Self>> {
        let arrival = match socket.arrival() {
            Arrival::New => "new",
            Arrival::Recovered { has_gap: false } => "recovered",
            Arrival::Recovered { has_gap: true } => "gap",
            _ => "moved",
        };
        Ok(Joined::new(Self).reply(json!(arrival)))
    }

    async fn resume(&mut self, _: Payload, _: &Socket<Self>) -> Result<Option<Payload>> {
        Ok(Some(json!("resumed").into()))
    }
}

type Node = Endpoint<()>;

/// Nodes, each with its line to the engine.
async fn nodes<const N: usize>(bus: &Bus) -> [(Node, Place); N] {
    let nodes = std::array::from_fn(|_| {
        let adapter = bus.adapter();
        let place = adapter.place();
        let builder = Endpoint::builder(async |_: ConnectInfo| Ok::<_, Rejected>(()));
        let builder = builder.id(|()| Some("ann".into())).channel::<Log>("log:*");
        (builder.history("log:*", History::last(10)).adapter(adapter).build(), place)
    });
    seconds(2).await;
    nodes
}

const SESSION: [(&str, &str); 3] =
    [("session", "ann-0123456789012345678"), ("received", "0"), ("positions", "refs")];

/// Joins behind the last message that the client has received.
async fn join(client: &mut Client<()>, after: &str) -> Reply {
    client.join("log:1", json!({ "after": after })).await
}

fn ok(response: &str) -> Reply {
    Reply::ok(Value::from(response))
}

/// A client that has received the first of two messages, and has joined while the second could not be read.
async fn client_behind_what_could_not_be_read(
    node: &Node,
    place: Place,
    bus: &Bus,
) -> (Client<()>, String) {
    let mut bob = connect(node, &[]).await.expect("accepted");
    assert_eq!(bob.join("log:1", json!({})).await, ok("new"));
    let mut ann = connect(node, &SESSION).await.expect("accepted");
    let first = node.publish("log:1", "n", json!(1)).await.expect("kept").to_string();
    node.publish("log:1", "n", json!(2)).await.expect("kept");
    // What others have read just now is known without the store.
    seconds(10).await;
    bus.set_history(place, HistoryPath { is_away: true, ..HistoryPath::default() });
    assert_eq!(join(&mut ann, &first).await, ok("gap"));
    bus.set_history(place, HistoryPath::default());
    (ann, first)
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_began_somewhere_while_the_store_was_away_begins_anew_where_its_client_goes_on()
 {
    let bus = Bus::new();
    let [(one, place)] = nodes(&bus).await;
    let (mut ann, first) = client_behind_what_could_not_be_read(&one, place, &bus).await;
    ann.drop_connection();
    one.publish("log:1", "n", json!(3)).await.expect("kept");
    ann.reconnect().await.expect("accepted");
    assert_eq!(join(&mut ann, &first).await, ok("recovered"));
    assert_eq!(numbers(&mut ann).await, [2, 3]);
    // From now on it is known where it stands.
    ann.drop_connection();
    ann.reconnect().await.expect("accepted");
    assert_eq!(join(&mut ann, &first).await, ok("resumed"));
}

#[tokio::test(start_paused = true)]
async fn such_a_channel_does_not_move_with_its_client() {
    let bus = Bus::new();
    let [(one, place), (two, _)] = nodes(&bus).await;
    let (mut ann, first) = client_behind_what_could_not_be_read(&one, place, &bus).await;
    moment().await;
    ann.drop_connection();
    one.publish("log:1", "n", json!(3)).await.expect("kept");
    ann.reconnect_to(&two).await.expect("accepted");
    assert_eq!(join(&mut ann, &first).await, ok("recovered"));
    assert_eq!(numbers(&mut ann).await, [2, 3]);
}
