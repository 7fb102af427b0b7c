//! A hand-written server without this crate: axum's WebSocket, serde_json, and a broadcast channel
//! per room. It replies to joins and `ping`s, and broadcasts everything else.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::routing::any;
use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use super::server::Server;

/// Starts a room on a separate port.
pub(crate) fn room(server: &Server) -> SocketAddr {
    let room = Arc::new(broadcast::channel(256).0);
    let upgrade = move |upgrade: WebSocketUpgrade| {
        let room = Arc::clone(&room);
        async { upgrade.on_upgrade(|socket| serve(socket, room)) }
    };
    let app = Router::new().route("/socket/websocket", any(upgrade));
    server.http(app)
}

/// Serves a client with a reading and a writing task.
async fn serve(socket: WebSocket, room: Arc<broadcast::Sender<Utf8Bytes>>) {
    let (mut sink, mut stream) = socket.split();
    let (sender, mut replies) = mpsc::channel(64);
    let mut broadcasts = room.subscribe();
    let writer = tokio::spawn(async move {
        loop {
            let text = tokio::select! {
                Some(text) = replies.recv() => text,
                received = broadcasts.recv() => match received {
                    Ok(text) => text,
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                },
            };
            if sink.send(Message::Text(text)).await.is_err() {
                return;
            }
        }
    });
    while let Some(Ok(message)) = stream.next().await {
        if let Message::Text(text) = message
            && let Some(reply) = reply(&text, &room)
            && sender.send(reply).await.is_err()
        {
            break;
        }
    }
    writer.abort();
}

/// Returns the reply to a message, or broadcasts the message.
fn reply(text: &str, room: &broadcast::Sender<Utf8Bytes>) -> Option<Utf8Bytes> {
    type Frame = (Value, Value, String, String, Value);
    let (join_ref, reference, topic, event, payload): Frame = serde_json::from_str(text).ok()?;
    if !matches!(&*event, "ping" | "phx_join") {
        let message = ((), (), topic, event, payload);
        let _ = room.send(serde_json::to_string(&message).ok()?.into());
        return None;
    }
    let reply = Reply { status: "ok", response: payload };
    let message = (join_ref, reference, topic, "phx_reply", reply);
    Some(serde_json::to_string(&message).ok()?.into())
}

#[derive(Serialize)]
struct Reply {
    status: &'static str,
    response: Value,
}
