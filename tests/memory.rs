//! What is held for clients that do not read is what the documented limits allow.

use std::time::Duration;

use allocation_counter::measure;
use serde_json::json;
use tower_channels::channel::Result;
use tower_channels::test::{Client, connect};
use tower_channels::{
    Builder, Channel, Endpoint, JoinError, Joined, Payload, Presence, Reply, Socket,
};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Tracks every member with a large meta, and handles nothing before `delay` has passed.
struct Room;

impl Channel for Room {
    type Assigns = String;
    type Info = [u8; 512];

    const INTERCEPT: &'static [&'static str] = &["intercepted"];

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>, JoinError> {
        Ok(Self.into())
    }

    async fn after_join(&mut self, socket: &Socket<Self>) -> Result<()> {
        if socket.topic().starts_with("presence:") {
            let meta = json!({ "text": "x".repeat(4000) });
            Presence::track(socket, socket.assigns(), meta)?;
            Presence::push_state(socket);
        }
        Ok(())
    }

    async fn handle_in(&mut self, event: &str, _: Payload, _: &Socket<Self>) -> Result<Reply> {
        if event == "block" {
            std::future::pending::<()>().await;
        }
        Ok(Reply::None)
    }

    async fn handle_out(
        &mut self,
        event: &str,
        payload: Payload,
        socket: &Socket<Self>,
    ) -> Result<()> {
        socket.push(event, payload);
        Ok(())
    }
}

fn builder() -> Builder<String> {
    Endpoint::builder(|info| async move { Ok(info.param("name").unwrap_or_default().to_owned()) })
        .id(|name| Some(name.clone()))
        .channel::<Room>("*")
}

async fn member(endpoint: &Endpoint<String>, name: &str, topic: &str) -> Client<String> {
    let mut client = connect(endpoint, &[("name", name)]).await.expect("accepted");
    client.join(topic, json!({})).await;
    client
}

/// Runs `setup`, then returns how many bytes more are held after `work`.
fn held<T, S, W>(setup: impl FnOnce() -> S, work: impl FnOnce(T) -> W) -> usize
where
    S: Future<Output = T>,
    W: Future<Output = T>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let before = runtime.block_on(setup());
    let mut after = None;
    let info = measure(|| {
        after = Some(runtime.block_on(async {
            let after = work(before).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            after
        }));
    });
    drop(after);
    usize::try_from(info.bytes_current).expect("more than before")
}

#[test]
fn the_members_of_a_crowded_topic_share_its_presence_state() {
    const MEMBERS: usize = 300;
    let bytes = held(
        || async {
            let endpoint = builder().build();
            let mut clients = Vec::new();
            for n in 0..MEMBERS {
                clients.push(member(&endpoint, &n.to_string(), "presence:a").await);
            }
            (endpoint, clients)
        },
        |(endpoint, mut clients)| async move {
            clients.iter_mut().for_each(|client| _ = client.discard());
            // They join again, and read nothing.
            for client in &mut clients {
                client.send("presence:a", "phx_join", json!({}));
            }
            (endpoint, clients)
        },
    );
    // One state of 300 metas in two forms and one diff of as many joins and leaves.
    assert!(bytes < 16 * MIB, "{bytes} bytes are held");
}
