//! The in-memory client of the feature `test-util`: what a test of an application can ask it.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use tower_channels::channel::{Error, Result};
use tower_channels::test::{self, Client, Message, joins, leaves};
use tower_channels::{
    Channel, Close, ConnectInfo, Endpoint, Joined, Payload, Presence, Rejected, Reply, Socket,
};

#[derive(Clone, Debug, PartialEq)]
struct User {
    name: String,
}

struct Room;

async fn connect(info: ConnectInfo) -> Result<User, Rejected> {
    let name = info.param("name").ok_or(Rejected::reason("name is missing"))?;
    Ok(User { name: name.into() })
}

impl Channel for Room {
    type Assigns = User;
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        if socket.topic() == "room:crowd" {
            Presence::track(socket, &socket.assigns().name, json!({}))?;
            Presence::push_state(socket);
        }
        Ok(())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        msg: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        match event {
            "who" => Ok(Reply::ok(json!(socket.assigns().name))),
            "stop" => Err(Error::stop()),
            "silent" => Ok(Reply::None),
            _ => {
                socket.broadcast(event, msg);
                Ok(Reply::ack())
            }
        }
    }
}

async fn joined() -> Client<User> {
    let mut ann = test::connect_as(&endpoint(), User { name: "ann".into() }).await;
    ann.join("room:1", json!({})).await;
    ann
}

fn endpoint() -> Endpoint<User> {
    let builder = Endpoint::builder(connect).id(|user| Some(format!("user:{}", user.name)));
    builder.channel::<Room>("room:*").build()
}

#[tokio::test(start_paused = true)]
async fn an_expected_push_is_found_behind_others_which_stay_unread() {
    let mut ann = test::connect(&endpoint(), &[("name", "ann")]).await.unwrap();
    for topic in ["room:1", "room:2"] {
        ann.join(topic, json!({})).await;
        for (event, payload) in [("one", json!(1)), ("two", json!(2))] {
            ann.push(topic, event, payload).await;
        }
    }
    assert_eq!(ann.expect("two").await, json!(2));
    assert_eq!(ann.expect_on("room:2", "one").await, json!(1));
    let on_one = |message: &Message| message.topic == "room:1";
    assert_eq!(ann.expect(on_one).await, json!(1));
    assert_eq!(ann.next_push().await, ("two".into(), json!(2).into()));
}

#[tokio::test(start_paused = true)]
async fn what_is_refuted_neither_waits_nor_arrives() {
    let mut ann = test::connect(&endpoint(), &[("name", "ann")]).await.unwrap();
    ann.join("room:1", json!({})).await;
    ann.push("room:1", "other", json!(1)).await;
    let start = tokio::time::Instant::now();
    ann.refute("new_msg", Duration::from_secs(60)).await;
    assert_eq!(start.elapsed(), Duration::from_secs(60));
    assert_eq!(ann.expect("other").await, json!(1));
}

#[tokio::test(start_paused = true)]
#[should_panic = r#"expected not to receive the event "new_msg": [null,null,"room:1","new_msg","hi"]"#]
async fn a_refuted_push_that_is_unread_panics() {
    let mut ann = test::connect(&endpoint(), &[("name", "ann")]).await.unwrap();
    ann.join("room:1", json!({})).await;
    ann.push("room:1", "new_msg", json!("hi")).await;
    ann.refute("new_msg", Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_expectation_prints_its_line_and_what_came_instead() {
    let expected = r#"expected the event "new_msg" on "room:1"; unread:
    [null,null,"room:1","other","hi"]
    [null,null,"room:1","file",b"\0\xff"]"#;
    assert_fails(expected, async {
        let endpoint = endpoint();
        let mut ann = test::connect(&endpoint, &[("name", "ann")]).await.unwrap();
        ann.join("room:1", json!({})).await;
        endpoint.broadcast("room:1", "other", "hi");
        endpoint.broadcast("room:1", "file", vec![0, 255]);
        ann.expect_on("room:1", "new_msg").await
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn every_expectation_says_what_it_has_waited_for() {
    let expected = r#"expected the event "new_msg"; nothing is unread"#;
    assert_fails(expected, async { joined().await.expect("new_msg").await }).await;
    let expected = "expected a push that the predicate accepts; nothing is unread";
    assert_fails(expected, async { joined().await.expect(|_: &Message| false).await }).await;
    let expected = r#"expected the reply to "2"; nothing is unread"#;
    assert_fails(expected, async { joined().await.expect_reply("2").await }).await;
    assert_fails(expected, async { joined().await.push("room:1", "silent", json!(0)).await }).await;
    let expected = "expected a push; nothing is unread";
    assert_fails(expected, async { joined().await.next_push().await }).await;
    let expected = "expected a message; nothing is unread";
    assert_fails(expected, async { joined().await.next_message().await }).await;
    let expected = "expected the connection to be closed; nothing is unread";
    assert_fails(expected, async { joined().await.expect_closed().await }).await;
    let expected = r#"`subscribe("a")` must precede `expect_broadcast`"#;
    assert_fails(expected, async { joined().await.expect_broadcast("a", "b").await }).await;
    let expected = r#"expected the broadcast of the event "b" on "a"; nothing is unread"#;
    let test = async { joined().await.subscribe("a").expect_broadcast("a", "b").await };
    assert_fails(expected, test).await;
    let expected = r#"expected the event "b", but there is no connection; nothing is unread"#;
    assert_fails(expected, async {
        let mut ann = joined().await;
        ann.drop_connection();
        ann.expect("b").await
    })
    .await;
}

/// Asserts that a test panics, with its own line and this text.
async fn assert_fails<T: Send + 'static>(
    expected: &str,
    test: impl Future<Output = T> + Send + 'static,
) {
    let failure = failure_of(test).await;
    let (line, failure) = failure.split_once(": ").expect("a line");
    assert_eq!(failure, expected);
    assert!(line.contains("test_client.rs:"), "{line}");
}

/// The text with which a test panics.
async fn failure_of<T: Send + 'static>(test: impl Future<Output = T> + Send + 'static) -> String {
    let failure = tokio::spawn(test).await.err().expect("it panics").into_panic();
    *failure.downcast::<String>().expect("a text")
}

#[tokio::test(start_paused = true)]
async fn an_expectation_fails_after_the_timeout_though_other_messages_keep_coming() {
    let start = Instant::now();
    let failure = failure_of(async {
        let endpoint = endpoint();
        let mut bob = test::connect_as(&endpoint, User { name: "bob".into() }).await;
        bob.join("room:1", json!({})).await;
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                endpoint.broadcast("room:1", "tick", json!({}));
            }
        });
        bob.timeout(Duration::from_millis(3500)).expect("new_msg").await
    });
    assert_eq!(failure.await.matches("tick").count(), 3);
    assert_eq!(start.elapsed(), Duration::from_millis(3500));
}

#[tokio::test(start_paused = true)]
async fn broadcasts_are_expected_on_the_topics_that_the_test_has_subscribed_to() {
    let endpoint = endpoint();
    let mut ann = test::connect_as(&endpoint, User { name: "ann".into() }).await;
    ann.subscribe("room:1").subscribe("audit");
    ann.join("room:1", json!({})).await;
    for (event, payload) in [("one", json!(1)), ("two", json!(2))] {
        ann.push("room:1", event, payload).await;
    }
    endpoint.broadcast("audit", "login", json!("ann"));
    assert_eq!(ann.expect_broadcast("audit", "login").await, json!("ann"));
    assert_eq!(ann.expect_broadcast("room:1", "two").await, json!(2));
    let first = |message: &Message| message.payload == json!(1);
    assert_eq!(ann.expect_broadcast("room:1", first).await, json!(1));
    assert_eq!(ann.expect("one").await, json!(1), "the client has received it as well");
}

#[tokio::test]
async fn the_end_of_a_channel_and_of_a_connection_can_be_expected() {
    let endpoint = endpoint();
    let mut ann = test::connect(&endpoint, &[("name", "ann")]).await.unwrap();
    ann.join("room:1", json!({})).await;
    ann.send("room:1", "stop", json!({}));
    ann.expect_on("room:1", "phx_close").await;
    endpoint.disconnect("user:ann");
    assert_eq!(ann.expect_closed().await, Close::GoingAway);
}

#[tokio::test]
async fn a_refusal_is_the_one_that_connect_returned() {
    let refused = test::connect(&endpoint(), &[]).await.unwrap_err();
    assert_eq!(refused, Rejected::reason("name is missing"));
    assert_ne!(refused, Rejected::reason("another"));
}

#[tokio::test]
async fn assigns_can_be_given_without_connect() {
    let mut ann = test::connect_as(&endpoint(), User { name: "ann".into() }).await;
    ann.join("room:1", json!({})).await;
    assert_eq!(ann.push("room:1", "who", json!({})).await, Reply::ok(json!("ann")));
    ann.reconnect().await.unwrap();
    ann.join("room:1", json!({})).await;
    assert_eq!(ann.push("room:1", "who", json!({})).await, Reply::ok(json!("ann")));
}

#[tokio::test]
async fn a_client_carries_what_a_request_would_carry() {
    #[derive(Clone)]
    struct Tenant(u32);

    let peer = SocketAddr::from(([127, 0, 0, 1], 9));
    let endpoint = Endpoint::builder(move |info: ConnectInfo| async move {
        assert_eq!(info.auth_token(), Some("secret"));
        assert_eq!(info.params()["filter"], json!({ "tags": ["a"] }));
        assert_eq!(info.user_agent(), Some("a test"));
        assert_eq!(info.peer_addr(), Some(peer));
        assert_eq!(info.extensions().get::<Tenant>().map(|tenant| tenant.0), Some(7));
        Ok(User { name: "ann".into() })
    });
    let client = test::client(&endpoint.channel::<Room>("room:*").build())
        .param("filter", json!({ "tags": ["a"] }))
        .auth_token("secret")
        .header("user-agent", "a test")
        .extension(Tenant(7))
        .peer(peer);
    client.connect().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn messages_of_presence_can_be_passed_over_or_awaited() {
    let endpoint = endpoint();
    let mut ann = test::connect_as(&endpoint, User { name: "ann".into() }).await;
    ann.skip_presence().join("room:crowd", json!({})).await;
    let mut bob = test::connect_as(&endpoint, User { name: "bob".into() }).await;
    bob.join("room:crowd", json!({})).await;
    let diff = ann.expect_on("room:crowd", joins("bob")).await;
    assert!(diff.parse::<Value>().unwrap()["joins"]["bob"]["metas"].is_array());
    bob.push("room:crowd", "new_msg", json!("hi")).await;
    assert_eq!(ann.next_push().await, ("new_msg".into(), json!("hi").into()));
    assert!(ann.discard() > 0, "the state is still unread");
    bob.leave("room:crowd").await;
    ann.refute(joins("bob"), Duration::from_secs(5)).await;
    ann.expect(leaves("bob")).await;
    let expected = r#"expected a presence_diff in which "bob" leaves; nothing is unread"#;
    assert_fails(expected, async move { ann.expect(leaves("bob")).await }).await;
}
