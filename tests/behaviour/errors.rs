//! What the errors of a callback lead to. Uses its own channel, since those of the reference application
//! crash as Phoenix does.

use serde::Deserialize;
use serde_json::json;
use tower_channels::channel::{Error, OrReply, Result};
use tower_channels::{Channel, Endpoint, Joined, Payload, Reply, Socket};

use crate::support::{Server, Stage};

scenarios! {
    everywhere: [
        an_invalid_payload_is_an_error_reply_and_the_channel_lives,
        what_is_missing_is_an_error_reply,
        an_unknown_event_crashes_the_channel,
        a_stop_replies_and_then_closes_the_channel,
        an_invalid_payload_of_a_join_refuses_it,
    ]
}

async fn an_invalid_payload_is_an_error_reply_and_the_channel_lives(stage: Stage) {
    let mut client = strict(stage).await.member("strict").await;
    client.send(r#"["1","2","strict","new_msg",{"text":"hi"}]"#).await;
    let reply = client.recv().await;
    let expected = r#"{"status":"error","response":{"detail":"missing field `body` at line 1 column 13","reason":"invalid payload"}}"#;
    assert!(reply.contains(expected), "{reply}");
    client.send(r#"["1","3","strict","new_msg",{"body":"hi"}]"#).await;
    client.expect(r#"["1","3","strict","phx_reply",{"status":"ok","response":"hi"}]"#).await;
}

async fn what_is_missing_is_an_error_reply(stage: Stage) {
    let mut client = strict(stage).await.member("strict").await;
    client.send(r#"["1","2","strict","find",{}]"#).await;
    client
        .expect(r#"["1","2","strict","phx_reply",{"status":"error","response":{"reason":"not found"}}]"#)
        .await;
}

async fn an_unknown_event_crashes_the_channel(stage: Stage) {
    let mut client = strict(stage).await.member("strict").await;
    client.send(r#"["1","2","strict","unknown",{}]"#).await;
    client.expect(r#"["1","1","strict","phx_error",{"reason":"channel_crash"}]"#).await;
    client.join("3", "strict").await;
}

async fn a_stop_replies_and_then_closes_the_channel(stage: Stage) {
    let mut client = strict(stage).await.member("strict").await;
    client.send(r#"["1","2","strict","bye",{}]"#).await;
    client.expect(r#"["1","2","strict","phx_reply",{"status":"ok","response":"bye"}]"#).await;
    client.expect(r#"["1","1","strict","phx_close",{}]"#).await;
}

async fn an_invalid_payload_of_a_join_refuses_it(stage: Stage) {
    let mut client = strict(stage).await.client("").await;
    client.send(r#"["1","1","strict","phx_join",[]]"#).await;
    let reply = client.recv().await;
    assert!(reply.contains(r#""status":"error""#) && reply.contains("invalid payload"), "{reply}");
    client.join("2", "strict").await;
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum In {
    NewMsg { body: String },
    Find,
    Bye,
}

struct Strict;

impl Channel for Strict {
    type Assigns = ();
    type Info = ();

    async fn join(_: &str, payload: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        payload.parse::<serde_json::Map<_, _>>()?;
        Ok(Self.into())
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        socket.push("joined", json!({}));
        Ok(())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        payload: Payload,
        _: &Socket<Self>,
    ) -> Result<Reply> {
        match payload.parse_event(event)? {
            In::NewMsg { body } => Ok(Reply::ok(body)),
            In::Find => None.or_reply("not found")?,
            In::Bye => Err(Error::stop_with(Reply::ok(json!("bye")))),
        }
    }
}

/// Replaces the server of the stage with this application.
async fn strict(stage: Stage) -> Stage {
    let builder = Endpoint::builder(|_| async { Ok(()) }).channel::<Strict>("strict");
    let endpoint = builder.build();
    let server = Server::running(|listener, _| async move {
        axum::serve(listener, axum::Router::new().layer(endpoint.layer("/socket"))).await
    });
    Stage { server: server.await, ..stage }
}
