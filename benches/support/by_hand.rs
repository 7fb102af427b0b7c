//! What one writes without this crate: axum's WebSocket, serde_json, and a broadcast channel for the
//! room. It knows a join, a `ping`, and that everything else is for everyone.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::routing::any;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};
use tokio::sync::broadcast::{self, error::RecvError};

use super::server::Server;

/// One room with a port of its own.
pub(crate) fn room(server: &Server) -> SocketAddr {
    let room = Arc::new(broadcast::channel(256).0);
    let upgrade = move |upgrade: WebSocketUpgrade| {
        let room = Arc::clone(&room);
        async { upgrade.on_upgrade(|socket| serve(socket, room)) }
    };
    let app = Router::new().route("/socket/websocket", any(upgrade));
    let service = TowerToHyperService::new(app);
    server.accept(move |io| {
        let http = http1::Builder::new().serve_connection(TokioIo::new(io), service.clone());
        async { drop(http.with_upgrades().await) }
    })
}

async fn serve(mut socket: WebSocket, room: Arc<broadcast::Sender<Utf8Bytes>>) {
    let mut heard = room.subscribe();
    loop {
        let told = tokio::select! {
            asked = socket.recv() => match asked {
                Some(Ok(Message::Text(text))) => answer(&text, &room),
                Some(Ok(_)) => None,
                Some(Err(_)) | None => return,
            },
            said = heard.recv() => match said {
                Ok(text) => Some(text),
                Err(RecvError::Lagged(_)) => None,
                Err(RecvError::Closed) => return,
            },
        };
        if let Some(text) = told
            && socket.send(Message::Text(text)).await.is_err()
        {
            return;
        }
    }
}

/// What the one who asked is told, if not everyone is.
fn answer(text: &str, room: &broadcast::Sender<Utf8Bytes>) -> Option<Utf8Bytes> {
    type Frame = (Value, Value, String, String, Value);
    let (join_ref, reference, topic, event, payload): Frame = serde_json::from_str(text).ok()?;
    if !matches!(&*event, "ping" | "phx_join") {
        let _ = room.send(json!([null, null, topic, event, payload]).to_string().into());
        return None;
    }
    let reply = json!({"status": "ok", "response": payload});
    Some(json!([join_ref, reference, topic, "phx_reply", reply]).to_string().into())
}
