//! What one writes without this crate: axum's WebSocket, serde_json, and a broadcast channel for the
//! room. It knows a join, a `ping`, and that everything else is for everyone.

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

/// One room with a port of its own.
pub(crate) fn room(server: &Server) -> SocketAddr {
    let room = Arc::new(broadcast::channel(256).0);
    let upgrade = move |upgrade: WebSocketUpgrade| {
        let room = Arc::clone(&room);
        async { upgrade.on_upgrade(|socket| serve(socket, room)) }
    };
    let app = Router::new().route("/socket/websocket", any(upgrade));
    server.http(app)
}

/// One task hears the client, another one tells it.
async fn serve(socket: WebSocket, room: Arc<broadcast::Sender<Utf8Bytes>>) {
    let (mut sink, mut stream) = socket.split();
    let (tell, mut told) = mpsc::channel(64);
    let mut heard = room.subscribe();
    let telling = tokio::spawn(async move {
        loop {
            let text = tokio::select! {
                Some(text) = told.recv() => text,
                said = heard.recv() => match said {
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
        if let Message::Text(asked) = message
            && let Some(text) = answer(&asked, &room)
            && tell.send(text).await.is_err()
        {
            break;
        }
    }
    telling.abort();
}

/// What the one who asked is told, if not everyone is.
fn answer(text: &str, room: &broadcast::Sender<Utf8Bytes>) -> Option<Utf8Bytes> {
    type Frame = (Value, Value, String, String, Value);
    let (join_ref, reference, topic, event, payload): Frame = serde_json::from_str(text).ok()?;
    if !matches!(&*event, "ping" | "phx_join") {
        let said = ((), (), topic, event, payload);
        let _ = room.send(serde_json::to_string(&said).ok()?.into());
        return None;
    }
    let reply = Reply { status: "ok", response: payload };
    let told = (join_ref, reference, topic, "phx_reply", reply);
    Some(serde_json::to_string(&told).ok()?.into())
}

#[derive(Serialize)]
struct Reply {
    status: &'static str,
    response: Value,
}
