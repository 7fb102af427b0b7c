//! A slow channel or client delays nobody else. Uses its own channel, since those of the reference
//! application are fast.

use std::future::pending;
use std::time::Duration;

use tower_channels::channel::{Error, Result};
use tower_channels::{Channel, ConnectInfo, Endpoint, Joined, Payload, Reply, Socket};

use crate::support::{Client, Http, Server, Stage, Transport, UPGRADE};

scenarios! {
    everywhere: [
        a_slow_join_does_not_delay_other_joins_or_the_heartbeat,
        a_slow_join_does_not_delay_joined_channels,
        messages_to_a_joining_channel_wait_for_the_join,
        a_join_that_times_out_is_an_error_and_the_topic_is_not_joined,
        a_topic_that_is_still_joining_can_be_joined_again,
        a_slow_handler_does_not_delay_other_channels_or_the_heartbeat,
        a_slow_handler_does_not_delay_other_clients_of_its_topic,
        a_slow_handler_does_not_delay_a_join_of_its_own_topic,
        a_full_mailbox_crashes_only_its_own_channel,
        a_client_that_breaks_while_its_channels_hang_does_not_affect_others,
        a_panic_in_connect_is_answered_with_500_on_a_connection_that_stays_open,
    ]
}

async fn a_slow_join_does_not_delay_other_joins_or_the_heartbeat(stage: Stage) {
    let stage = slow(stage).await;
    let mut client = stage.client("").await;
    client.send(r#"["1","1","slow:a","phx_join","hang"]"#).await;
    client.heartbeat().await;
    join(&mut client, "2", "slow:b").await;
    client.ping("2", "slow:b").await;
}

async fn a_slow_join_does_not_delay_joined_channels(stage: Stage) {
    let stage = slow(stage).await;
    let mut client = stage.client("").await;
    join(&mut client, "1", "slow:a").await;
    client.send(r#"["2","2","slow:b","phx_join","hang"]"#).await;
    client.ping("1", "slow:a").await;
    client.send(r#"["1","3","slow:a","phx_leave",{}]"#).await;
    client.expect(r#"["1","3","slow:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["1","1","slow:a","phx_close",{}]"#).await;
}

async fn messages_to_a_joining_channel_wait_for_the_join(stage: Stage) {
    let stage = slow(stage).await;
    let mut client = stage.client("").await;
    client
        .send_all(&[
            r#"["1","1","slow:a","phx_join","nap"]"#,
            r#"["1","2","slow:a","ping",[2]]"#,
            r#"["1","3","slow:a","ping",[3]]"#,
        ])
        .await;
    client.expect(r#"["1","1","slow:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["1","2","slow:a","phx_reply",{"status":"ok","response":[2]}]"#).await;
    client.expect(r#"["1","3","slow:a","phx_reply",{"status":"ok","response":[3]}]"#).await;
}

async fn a_join_that_times_out_is_an_error_and_the_topic_is_not_joined(stage: Stage) {
    let endpoint = builder().join_timeout(Duration::from_millis(200)).build();
    let stage = Stage { server: serve(endpoint).await, ..stage };
    let mut client = stage.client("").await;
    client.send(r#"["1","1","slow:a","phx_join","hang"]"#).await;
    let reply = client.recv().await;
    assert!(reply.contains(r#""1","slow:a","phx_reply",{"status":"error","#), "{reply}");
    client.send(r#"["1","2","slow:a","ping",{}]"#).await;
    client
        .expect(
            r#"[null,"2","slow:a","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#,
        )
        .await;
    join(&mut client, "3", "slow:a").await;
}

/// The unfinished first join may or may not be reported; the second succeeds.
async fn a_topic_that_is_still_joining_can_be_joined_again(stage: Stage) {
    let stage = slow(stage).await;
    let mut client = stage.client("").await;
    client.send(r#"["1","1","slow:a","phx_join","hang"]"#).await;
    client.send(r#"["2","2","slow:a","phx_join",{}]"#).await;
    client.expect(r#"["2","2","slow:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.send(r#"["2","3","slow:a","ping",{}]"#).await;
    while !client.recv().await.contains(r#""3","slow:a","phx_reply",{"status":"ok""#) {}
    client.ping("2", "slow:a").await;
}

async fn a_slow_handler_does_not_delay_other_channels_or_the_heartbeat(stage: Stage) {
    let stage = slow(stage).await;
    let mut client = stage.client("").await;
    join(&mut client, "1", "slow:a").await;
    join(&mut client, "2", "slow:b").await;
    client.send(r#"["1","3","slow:a","hang",{}]"#).await;
    client.send(r#"["1","4","slow:a","ping",{}]"#).await;
    client.heartbeat().await;
    client.ping("2", "slow:b").await;
    join(&mut client, "5", "slow:c").await;
}

async fn a_slow_handler_does_not_delay_other_clients_of_its_topic(stage: Stage) {
    let stage = slow(stage).await;
    let (mut slow, mut fast) = (stage.client("").await, stage.client("").await);
    join(&mut slow, "1", "slow:a").await;
    join(&mut fast, "1", "slow:a").await;
    slow.send(r#"["1","2","slow:a","hang",{}]"#).await;
    fast.send(r#"["1","2","slow:a","say",{"a":1}]"#).await;
    fast.expect(r#"[null,null,"slow:a","said",{"a":1}]"#).await;
    fast.ping("1", "slow:a").await;
    // Broadcasts that need no handler reach the slow client too.
    slow.expect(r#"[null,null,"slow:a","said",{"a":1}]"#).await;
}

async fn a_slow_handler_does_not_delay_a_join_of_its_own_topic(stage: Stage) {
    let stage = slow(stage).await;
    let mut client = stage.client("").await;
    join(&mut client, "1", "slow:a").await;
    client.send(r#"["1","2","slow:a","hang",{}]"#).await;
    client.send(r#"["3","3","slow:a","phx_join",{}]"#).await;
    client.expect(r#"["3","3","slow:a","phx_reply",{"status":"ok","response":{}}]"#).await;
    client.expect(r#"["1","1","slow:a","phx_close",{}]"#).await;
    client.ping("3", "slow:a").await;
}

async fn a_full_mailbox_crashes_only_its_own_channel(stage: Stage) {
    let stage = slow(stage).await;
    let mut client = stage.client("").await;
    join(&mut client, "1", "slow:a").await;
    join(&mut client, "2", "slow:b").await;
    client.send(r#"["1","3","slow:a","hang",{}]"#).await;
    // The mailbox holds one mebibyte; after the crash, pushes are answered as unmatched.
    let large = format!(r#"["1","4","slow:a","ping","{}"]"#, "x".repeat(64 * 1024));
    for _ in 0..20 {
        client.send(&large).await;
    }
    client.send(r#"["2","5","slow:b","ping",{}]"#).await;
    let (mut crashes, mut replied) = (0, false);
    while crashes == 0 || !replied {
        let message = client.recv().await;
        if message.ends_with(r#""1","slow:a","phx_error",{"reason":"channel_crash"}]"#) {
            crashes += 1;
        } else if message.contains(r#""5","slow:b","phx_reply",{"status":"ok""#) {
            replied = true;
        } else {
            assert_eq!(message, UNMATCHED);
        }
    }
    assert_eq!(crashes, 1);
    client.send(r#"["1","4","slow:a","ping",{}]"#).await;
    client.expect(UNMATCHED).await;
}

async fn a_client_that_breaks_while_its_channels_hang_does_not_affect_others(stage: Stage) {
    let stage = slow(stage).await;
    let mut other = stage.client("").await;
    join(&mut other, "1", "slow:a").await;
    let mut client = stage.client("").await;
    join(&mut client, "1", "slow:a").await;
    client.send(r#"["1","2","slow:a","hang",{}]"#).await;
    client.send(r#"["3","3","slow:b","phx_join","hang"]"#).await;
    client.send_fatal("not json").await;
    other.send(r#"["1","2","slow:a","say",{}]"#).await;
    other.expect(r#"[null,null,"slow:a","said",{}]"#).await;
}

async fn a_panic_in_connect_is_answered_with_500_on_a_connection_that_stays_open(stage: Stage) {
    let endpoint = Endpoint::builder(|info: ConnectInfo| async move {
        assert_eq!(info.param("panic"), None, "requested");
        Ok(())
    });
    let stage = Stage { server: serve(endpoint.channel::<Slow>("slow:*").build()).await, ..stage };
    let mut http = Http::connect(&stage.server).await;
    for _ in 0..2 {
        let query = format!("{}&panic=yes", stage.version.parameter());
        if stage.transport == Transport::WebSocket {
            let target = format!("/socket/websocket?{query}");
            let response = http.request("GET", &target, &UPGRADE, b"").await;
            assert_eq!((response.status, &*response.body), (500, ""));
        } else {
            let response = http.get(&format!("/socket/longpoll?{query}")).await;
            response.expect_body(r#"{"status":500}"#);
        }
    }
    let mut client = stage.client("").await;
    join(&mut client, "1", "slow:a").await;
}

/// A channel that is slow on request, in `join` or in `handle_in`.
struct Slow;

impl Channel for Slow {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, mode: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        match mode.parse::<String>().unwrap_or_default().as_str() {
            "hang" => pending().await,
            "nap" => tokio::time::sleep(Duration::from_millis(200)).await,
            _ => {}
        }
        Ok(Self.into())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        match event {
            "ping" => Ok(Reply::ok(payload)),
            "say" => {
                socket.broadcast("said", payload);
                Ok(Reply::None)
            }
            "hang" => pending().await,
            _ => Err(Error::unmatched(event)),
        }
    }
}

fn builder() -> tower_channels::Builder<()> {
    Endpoint::builder(|_| async { Ok(()) }).channel::<Slow>("slow:*")
}

/// Replaces the server of the stage with the slow application.
async fn slow(stage: Stage) -> Stage {
    Stage { server: serve(builder().build()).await, ..stage }
}

async fn serve(endpoint: Endpoint<()>) -> Server {
    Server::running(|listener, _| async move {
        axum::serve(listener, axum::Router::new().layer(endpoint.layer("/socket"))).await
    })
    .await
}

async fn join(client: &mut Client, join_ref: &str, topic: &str) {
    client.send(&format!(r#"["{join_ref}","{join_ref}","{topic}","phx_join",{{}}]"#)).await;
    client
        .expect(&format!(
            r#"["{join_ref}","{join_ref}","{topic}","phx_reply",{{"status":"ok","response":{{}}}}]"#
        ))
        .await;
}

const UNMATCHED: &str =
    r#"[null,"4","slow:a","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#;
