//! Channels that hear other topics, reach other sockets and send themselves messages.

use std::time::Duration;

use axum::Router;
use serde_json::{Value, json};
use tower_channels::channel::Result;
use tower_channels::{
    Channel, ConnectInfo, Endpoint, Joined, Payload, PubSub, Rejected, Reply, Socket, Timer,
};

use crate::support::connection::ok;
use crate::support::{Client, Connection, Server, Stage, Transport, Version};

scenarios! {
    everywhere: [
        a_channel_passes_on_what_it_hears_on_other_topics,
        what_is_heard_and_what_is_pushed_by_the_client_keep_their_order,
        an_unsubscribed_topic_is_not_heard,
        a_channel_that_was_left_hears_nothing,
        a_crash_over_a_broadcast_ends_that_channel_alone,
        a_channel_disconnects_the_sockets_of_an_id_on_every_endpoint,
        a_broadcast_from_a_channel_reaches_the_clients_of_every_endpoint,
        a_channel_knows_the_id_and_the_transport_of_its_socket,
        a_timer_ticks_until_it_is_cancelled,
    ]
    v2: [
        a_binary_broadcast_is_heard_as_it_is,
    ]
}

/// Subscribes to what its client names, and passes on what it hears.
#[derive(Default)]
struct Relay {
    timer: Option<Timer>,
}

impl Channel for Relay {
    type Assigns = Option<String>;
    type Info = &'static str;

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self::default().into())
    }

    async fn after_join(&mut self, it: &Socket<Self>) -> Result<()> {
        it.push("joined", json!({}));
        Ok(())
    }

    async fn handle_in(&mut self, event: &str, msg: Payload, it: &Socket<Self>) -> Result<Reply> {
        match event {
            "subscribe" => it.subscribe(&msg.parse::<String>()?)?,
            "unsubscribe" => it.unsubscribe(&msg.parse::<String>()?),
            "tell" => {
                let (topic, payload) = msg.parse::<(String, Value)>()?;
                it.pubsub().broadcast(&topic, "told", payload);
            }
            "tell_binary" => {
                let topic = msg.parse::<String>()?;
                it.pubsub().broadcast(&topic, "told", Payload::binary(vec![7, 0, 255]));
            }
            "disconnect" => it.pubsub().disconnect(&msg.parse::<String>()?),
            "who" => {
                let transport = match it.transport() {
                    tower_channels::Transport::WebSocket => "websocket",
                    tower_channels::Transport::LongPoll => "long poll",
                    _ => "another",
                };
                return Ok(Reply::ok(json!([it.id(), transport])));
            }
            "start" => self.timer = Some(it.send_every(Duration::from_millis(20), "tick")),
            "cancel" => self.timer.iter().for_each(Timer::cancel),
            _ => return Ok(Reply::Ok(msg)),
        }
        Ok(Reply::ack())
    }

    async fn handle_info(&mut self, event: &'static str, it: &Socket<Self>) -> Result<()> {
        it.push(event, json!({}));
        Ok(())
    }

    async fn handle_broadcast(
        &mut self,
        topic: &str,
        _: &str,
        payload: Payload,
        it: &Socket<Self>,
    ) -> Result<()> {
        if payload == json!("crash") {
            return Err("as told".into());
        }
        it.push(topic, payload);
        Ok(())
    }
}

/// Starts two servers, each with an endpoint, that share topics and socket ids.
async fn start() -> [Server; 2] {
    let pubsub = PubSub::new();
    let serve = async || {
        let connect = |info: ConnectInfo| async move {
            Ok::<_, Rejected>(info.param("user_id").map(str::to_owned))
        };
        let endpoint = Endpoint::builder(connect)
            .id(|user| user.as_ref().map(|id| format!("user:{id}")))
            .channel::<Relay>("*")
            .pubsub(pubsub.clone())
            .build();
        let app: Router = Router::new().layer(endpoint.layer("/socket"));
        Server::running(|listener, _| async { axum::serve(listener, app).await }).await
    };
    [serve().await, serve().await]
}

/// Two clients, one of each endpoint, that have joined `relay:a` and `relay:b`.
async fn two(stage: &Stage) -> (Client, Client) {
    let [one, other] = start().await;
    (relay(stage, &one, "a", "").await, relay(stage, &other, "b", "").await)
}

async fn relay(stage: &Stage, server: &Server, name: &str, parameters: &str) -> Client {
    let mut client = Client::connect(server, stage.transport, stage.version, parameters).await;
    client.join("1", &format!("relay:{name}")).await;
    client
}

/// Pushes an event, which is replied to.
async fn push(client: &mut Client, name: &str, event: &str, payload: &str) {
    client.send(&format!(r#"["1","p","relay:{name}","{event}",{payload}]"#)).await;
    let reply = r#""phx_reply",{"status":"ok","response":{}}"#;
    client.expect(&format!(r#"["1","p","relay:{name}",{reply}]"#)).await;
}

async fn a_channel_passes_on_what_it_hears_on_other_topics(stage: Stage) {
    let (mut one, mut other) = two(&stage).await;
    push(&mut one, "a", "subscribe", r#""news:eu""#).await;
    push(&mut one, "a", "subscribe", r#""news:us""#).await;
    push(&mut other, "b", "tell", r#"["news:us",1]"#).await;
    one.expect(r#"["1",null,"relay:a","news:us",1]"#).await;
    push(&mut other, "b", "tell", r#"["news:eu",2]"#).await;
    one.expect(r#"["1",null,"relay:a","news:eu",2]"#).await;
    push(&mut one, "a", "tell", r#"["news:as",3]"#).await;
    one.ping("1", "relay:a").await;
    other.ping("1", "relay:b").await;
}

async fn what_is_heard_and_what_is_pushed_by_the_client_keep_their_order(stage: Stage) {
    let (mut one, _other) = two(&stage).await;
    push(&mut one, "a", "subscribe", r#""news""#).await;
    let mut sent = Vec::new();
    for n in 0..20 {
        sent.push(format!(r#"["1","{n}","relay:a","tell",["news",{n}]]"#));
    }
    one.send_all(&sent.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let (mut replies, mut heard) = (0, 0);
    while heard < 20 {
        let text = one.recv().await;
        if text.contains("phx_reply") {
            assert!(text.contains(&format!(r#""{replies}","relay:a""#)), "{text}");
            replies += 1;
        } else {
            assert!(text.ends_with(&format!(r#""relay:a","news",{heard}]"#)), "{text}");
            heard += 1;
        }
        // Each is heard behind the push that told it.
        assert!(heard <= replies, "{text}");
    }
    assert_eq!(replies, 20);
}

async fn an_unsubscribed_topic_is_not_heard(stage: Stage) {
    let (mut one, mut other) = two(&stage).await;
    push(&mut one, "a", "subscribe", r#""news""#).await;
    push(&mut other, "b", "tell", r#"["news",1]"#).await;
    one.expect(r#"["1",null,"relay:a","news",1]"#).await;
    push(&mut one, "a", "unsubscribe", r#""news""#).await;
    push(&mut other, "b", "tell", r#"["news",2]"#).await;
    one.ping("1", "relay:a").await;
    push(&mut one, "a", "subscribe", r#""news""#).await;
    push(&mut other, "b", "tell", r#"["news",3]"#).await;
    one.expect(r#"["1",null,"relay:a","news",3]"#).await;
}

async fn a_channel_that_was_left_hears_nothing(stage: Stage) {
    let (mut one, mut other) = two(&stage).await;
    push(&mut one, "a", "subscribe", r#""news""#).await;
    one.send(r#"["1","2","relay:a","phx_leave",{}]"#).await;
    one.expect(r#"["1","2","relay:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    one.expect(r#"["1","1","relay:a","phx_close",{}]"#).await;
    push(&mut other, "b", "tell", r#"["news",1]"#).await;
    one.join("3", "relay:a").await;
    push(&mut other, "b", "tell", r#"["news",2]"#).await;
    one.heartbeat().await;
}

async fn a_crash_over_a_broadcast_ends_that_channel_alone(stage: Stage) {
    let (mut one, mut other) = two(&stage).await;
    one.join("2", "relay:c").await;
    push(&mut one, "a", "subscribe", r#""news""#).await;
    push(&mut other, "b", "tell", r#"["news","crash"]"#).await;
    one.expect(r#"["1","1","relay:a","phx_error",{"reason":"channel_crash"}]"#).await;
    one.ping("2", "relay:c").await;
}

async fn a_channel_disconnects_the_sockets_of_an_id_on_every_endpoint(stage: Stage) {
    let [one, other] = start().await;
    let mut admin = relay(&stage, &one, "admin", "user_id=admin").await;
    let here = relay(&stage, &one, "a", "user_id=ann").await;
    let there = relay(&stage, &other, "b", "user_id=ann").await;
    push(&mut admin, "admin", "disconnect", r#""user:ann""#).await;
    here.expect_disconnect().await;
    there.expect_disconnect().await;
    let again = relay(&stage, &other, "b", "user_id=ann").await;
    push(&mut admin, "admin", "tell", r#"["user:ann",1]"#).await;
    push(&mut admin, "admin", "disconnect", r#""user:ann""#).await;
    again.expect_disconnect().await;
}

async fn a_broadcast_from_a_channel_reaches_the_clients_of_every_endpoint(stage: Stage) {
    let (mut one, mut other) = two(&stage).await;
    push(&mut one, "a", "tell", r#"["relay:b",{"n":1}]"#).await;
    other.expect(r#"[null,null,"relay:b","told",{"n":1}]"#).await;
    one.ping("1", "relay:a").await;
}

async fn a_channel_knows_the_id_and_the_transport_of_its_socket(stage: Stage) {
    let [server, _] = start().await;
    let mut client = relay(&stage, &server, "a", "user_id=ann").await;
    let transport = match stage.transport {
        Transport::WebSocket => "websocket",
        Transport::LongPoll => "long poll",
    };
    client.send(r#"["1","w","relay:a","who",{}]"#).await;
    let response = format!(r#"{{"status":"ok","response":["user:ann","{transport}"]}}"#);
    client.expect(&format!(r#"["1","w","relay:a","phx_reply",{response}]"#)).await;
}

async fn a_timer_ticks_until_it_is_cancelled(stage: Stage) {
    let [server, _] = start().await;
    let mut client = relay(&stage, &server, "a", "").await;
    push(&mut client, "a", "start", "{}").await;
    for _ in 0..3 {
        client.expect(r#"["1",null,"relay:a","tick",{}]"#).await;
    }
    client.send(r#"["1","c","relay:a","cancel",{}]"#).await;
    while client.recv().await.contains(r#""tick""#) {}
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.ping("1", "relay:a").await;
}

async fn a_binary_broadcast_is_heard_as_it_is(stage: Stage) {
    let (mut one, mut other) = two(&stage).await;
    push(&mut one, "a", "subscribe", r#""news""#).await;
    if stage.transport == Transport::LongPoll {
        // A client without base64 cannot be sent binary messages.
        push(&mut other, "b", "tell_binary", r#""news""#).await;
        return one.ping("1", "relay:a").await;
    }
    push(&mut other, "b", "tell_binary", r#""news""#).await;
    // A push: kind, and the lengths of the join_ref, the topic and the event.
    let head = [&[0, 1, 7, 4][..], b"1relay:anews", &[7, 0, 255]].concat();
    one.expect_binary(&head).await;
}

/// A session that moves from a WebSocket to long polling.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_transport_of_a_resumed_session_is_that_of_its_newest_connection() {
    let [server, _] = start().await;
    let parameters = "user_id=ann&session=0123456789abcdefghijkl";
    for (transport, name) in [
        (Transport::WebSocket, "websocket"),
        (Transport::LongPoll, "long poll"),
        (Transport::WebSocket, "websocket"),
    ] {
        let mut conn = Connection::with_version(Version::V2, &server, transport, parameters).await;
        conn.send(r#"["1","1","relay:a","phx_join",{}]"#).await;
        conn.skip_to(&ok("1", "relay:a")).await;
        conn.send(r#"["1","w","relay:a","who",{}]"#).await;
        let response = format!(r#"{{"status":"ok","response":["user:ann","{name}"]}}"#);
        conn.skip_to(&format!(r#"[null,"w","relay:a","phx_reply",{response}]"#)).await;
        conn.cut().await;
    }
}
