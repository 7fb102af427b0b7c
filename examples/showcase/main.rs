//! Four small programs on one page: live updates, notifications, synchronisation, a shared document.
//!
//! ```text
//! cargo run --example showcase          then open http://127.0.0.1:4000
//! ```
//!
//! `ADDR` sets the address to listen on (default `127.0.0.1:4000`). Everything is in memory. Each part
//! of the page has two devices, with a connection each and a bad network to try; a second tab has two more.
//!
//! `/dashboard` shows the server at work, to this machine alone; with `DASHBOARD_PASSWORD` to everybody who knows that.
//!
//! The document is written in a textarea, or in an editor over Yjs once that is built:
//!
//! ```text
//! cd examples/showcase/web && npm ci && npm run build
//! ```
//!
//! | file | content |
//! | --- | --- |
//! | `device.rs` | who connects |
//! | `live.rs` | `live:*`: values several times a second, of which a slow client gets the newest |
//! | `notifications.rs` | `user:*`: private, from anywhere in the program to all devices of a person |
//! | `board.rs` | `board:*`: tasks that are changed offline, and conflicts |
//! | `document.rs` | `doc:*`: a text in which several people write at the same time |
//! | `page/device.js` | a device: its connection, what it has to say, and the part that it shows |
//! | `page/live.js`, … | each part of the page |
//! | `web` | an editor of the document, over the packages `phoenix`, `tower-channels-client` and `yjs` |
//! | `../shared` | the HTTP server, who may see the dashboard, and the bad network |
//! | `../../dashboard/src/page/client` | a Phoenix client over WebSocket and long poll, with resumable sessions |

#![allow(unreachable_pub, reason = "`pub` marks what a file offers to the others")]

mod board;
#[path = "../shared/dashboard.rs"]
mod dashboard;
mod device;
mod document;
mod live;
mod notifications;
#[path = "../shared/page.rs"]
mod page;
#[path = "../shared/server.rs"]
mod server;

use std::env;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tower_channels::{Endpoint, History};

use board::Board;
use device::{Device, State, connect};
use document::Document;
use live::Live;
use notifications::{Inbox, Shop};
use page::page;

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// The socket id makes sessions resumable: all devices of a user have the same.
fn endpoint(state: State) -> Endpoint<Device> {
    Endpoint::builder(move |info| connect(info, state.clone()))
        .id(|device: &Device| Some(format!("person:{}", device.user)))
        .channel::<Live>("live:*")
        .channel::<Inbox>("user:*")
        .channel::<Shop>("shop:*")
        .channel::<Board>("board:*")
        .channel::<Document>("doc:*")
        .history("board:*", History::last(1000).within(WEEK))
        .build()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let state = State::default();
    let endpoint = endpoint(state.clone());
    let inboxes = (endpoint.pubsub().clone(), state.inboxes);
    let app = page(include_str!("page/index.html"), FILES)
        .route("/letter.js", get(letter))
        .route("/notify", post(notifications::notify_by_http).with_state(inboxes));
    let address = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:4000".into());
    Ok(server::run(TcpListener::bind(address).await?, app, endpoint).await?)
}

/// The files of the page.
const FILES: &[(&str, &str)] = &[
    ("/showcase.css", include_str!("page/showcase.css")),
    ("/showcase.js", include_str!("page/showcase.js")),
    ("/device.js", include_str!("page/device.js")),
    ("/make.js", include_str!("page/make.js")),
    ("/plot.js", include_str!("page/plot.js")),
    ("/live.js", include_str!("page/live.js")),
    ("/notifications.js", include_str!("page/notifications.js")),
    ("/board.js", include_str!("page/board.js")),
    ("/document.js", include_str!("page/document.js")),
    ("/plain.js", include_str!("page/plain.js")),
    ("/sheet.js", include_str!("page/sheet.js")),
    ("/difference.js", include_str!("page/difference.js")),
];

/// The editor over Yjs, where `web` is built.
async fn letter() -> Result<impl IntoResponse, StatusCode> {
    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/showcase/web/dist/letter.js");
    let script = tokio::fs::read(PATH).await.map_err(|_| StatusCode::NOT_FOUND)?;
    Ok(([(CONTENT_TYPE, "text/javascript")], script))
}

#[cfg(test)]
#[test]
fn the_code_in_the_pages_about_the_uses_is_that_of_the_example() {
    let unindented = |code: &str| code.lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let example = unindented(
        &[
            include_str!("board.rs"),
            include_str!("board/tasks.rs"),
            include_str!("document.rs"),
            include_str!("document/plain.rs"),
            include_str!("live.rs"),
            include_str!("notifications.rs"),
            include_str!("notifications/senders.rs"),
        ]
        .concat(),
    );
    for page in [
        include_str!("../../docs/uses/live_updates.md"),
        include_str!("../../docs/uses/notifications.md"),
        include_str!("../../docs/uses/shared_document.md"),
        include_str!("../../docs/uses/synchronisation.md"),
    ] {
        for block in page.split("\n```rust\n").skip(1) {
            let code = block.split("\n```").next().unwrap_or_default();
            assert!(example.contains(&unindented(code)), "not in the example:\n{code}");
        }
    }
}
