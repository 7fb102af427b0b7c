//! Two of those who notify: a channel and an HTTP handler.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use tower_channels::channel::{Error, Result};
use tower_channels::{Channel, Joined, Payload, PubSub, Reply, Socket};

use super::{Inboxes, Kind};
use crate::device::Device;

/// A shop of Ada's, `shop:*`, in which others order: another channel that notifies her.
pub struct Shop;

#[derive(Deserialize)]
struct Order {
    item: String,
}

impl Channel for Shop {
    type Assigns = Device;
    type Info = ();

    async fn join(_: &str, _: Payload, _: &Socket<Self>) -> Result<Joined<Self>> {
        Ok(Self.into())
    }

    async fn handle_in(
        &mut self,
        event: &str,
        msg: Payload,
        socket: &Socket<Self>,
    ) -> Result<Reply> {
        let Device { user, state } = socket.assigns();
        match event {
            "order" => {
                let text = format!("{user} ordered {}", msg.parse::<Order>()?.item);
                state.inboxes.notify(socket.pubsub(), "ada", Kind::Orders, &text);
                Ok(Reply::ack())
            }
            _ => Err(Error::unmatched(event)),
        }
    }
}

#[derive(Deserialize)]
pub struct Notification {
    pub kind: Kind,
    pub text: String,
}

/// `POST /notify`: a plain handler that notifies Ada.
pub async fn notify_by_http(
    State((pubsub, inboxes)): State<(PubSub, Inboxes)>,
    Json(Notification { kind, text }): Json<Notification>,
) -> StatusCode {
    inboxes.notify(&pubsub, "ada", kind, &text);
    StatusCode::ACCEPTED
}
