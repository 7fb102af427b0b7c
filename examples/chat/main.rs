//! A chat: one page and one server, with rooms, presence, reactions, and a persistent history.
//!
//! ```text
//! cargo run --example chat          then open http://127.0.0.1:4000 in two tabs, one per transport
//! ```
//!
//! `ADDR` sets the address to listen on (default `127.0.0.1:4000`), `CHAT_DB` the SQLite file of
//! the messages (default `chat.sqlite`, in the current folder). A second file, `chat.events.sqlite`, is
//! that of the library: the last 500 events of each room, for pages that return. Kill the server
//! with -9 while people write, and start it again: the pages go on where they were.
//!
//! `/dashboard` shows the server at work, to this machine alone; with `DASHBOARD_PASSWORD` to everybody who knows that.
//!
//! Several servers with one engine, `ENGINE`, and one `CHAT_DB` are one chat; open a tab on each. They
//! keep no events, and a page that returns to another server catches up from the messages:
//!
//! ```text
//! ENGINE=redis://127.0.0.1 ADDR=127.0.0.1:4000 cargo run --example chat
//! ENGINE=redis://127.0.0.1 ADDR=127.0.0.1:4001 cargo run --example chat          or nats://127.0.0.1
//! ```
//!
//! | file | content |
//! | --- | --- |
//! | `main.rs` | the endpoint under `/socket`, the page at `/`, and the dashboard |
//! | `server.rs` | the HTTP server: a time limit for request heads, and a graceful stop on SIGTERM |
//! | `../reference/engine.rs` | the connection to Redis or NATS, or the file of the events |
//! | `room.rs` | the channel `room:*`: its events, their validation, and who receives them |
//! | `presence.rs` | the people in a room, and who is typing or away |
//! | `history.rs` | the stored messages, and catching up on missed ones |
//! | `../../dashboard/src/page/channels.js` | a Phoenix client over WebSocket and long poll, with resumable sessions |
//! | `../shared/presence.js` | the list of people present, built from presence events |
//! | `../shared/network.js` | the status of the connection, and a bad network to try |
//! | `page/people.js` | the row of people in the room, and detection of typing and absence |
//! | `page/chat.js` | the page: what it shows and what it sends |

#![allow(unreachable_pub, reason = "`pub` marks what a file offers to the others")]

#[path = "../reference/engine.rs"]
mod engine;
mod history;
#[path = "../shared/page.rs"]
mod page;
mod presence;
mod room;
mod server;

use std::env;
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use tokio::net::TcpListener;
use tower_channels::{Endpoint, ResumeConfig};
use tower_channels_dashboard::{Access, Dashboard, Parts, has_password, is_local};

use history::{History, Store};
use page::file_of;
use room::{Room, User};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let addr = env::var("ADDR").unwrap_or_else(|_| "127.0.0.1:4000".into());
    let file = env::var("CHAT_DB").unwrap_or_else(|_| "chat.sqlite".into());
    let events = format!("sqlite:{}", Path::new(&file).with_extension("events.sqlite").display());
    let history = Store::new(History::open(file).map_err(|error| error.to_string())?);

    let builder = Endpoint::builder(move |info| room::connect(info, history.clone()))
        .id(User::id)
        .channel::<Room>("room:*")
        .resume(ResumeConfig::default());
    let engine = env::var("ENGINE").unwrap_or(events);
    let recent = ("room:*", tower_channels::History::last(500));
    let endpoint = engine::connect(builder, Some(&engine), "chat", recent).await?.build();

    let password = env::var("DASHBOARD_PASSWORD").ok();
    let is_public = password.is_some();
    let dashboard = Dashboard::new(&endpoint).authorize(move |request| {
        let access = access(&request, password.as_deref());
        async move { access }
    });

    let app = Router::new()
        .route("/", file_of("text/html; charset=utf-8", include_str!("page/index.html")))
        .route("/base.css", file_of("text/css", include_str!("../shared/base.css")))
        .route("/chat.css", file_of("text/css", include_str!("page/chat.css")))
        .route("/chat.js", file_of("text/javascript", include_str!("page/chat.js")))
        .route("/people.js", file_of("text/javascript", include_str!("page/people.js")))
        .route("/presence.js", file_of("text/javascript", include_str!("../shared/presence.js")))
        .route(
            "/channels.js",
            file_of("text/javascript", include_str!("../../dashboard/src/page/channels.js")),
        )
        .route("/network.js", file_of("text/javascript", include_str!("../shared/network.js")))
        .nest_service("/socket", endpoint.service())
        .nest_service("/dashboard", dashboard.clone());

    let listener = TcpListener::bind(addr).await?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}");
    let whom = if is_public { "with DASHBOARD_PASSWORD" } else { "from this machine" };
    println!("its dashboard is at http://{address}/dashboard, {whom}");
    let stop = async {
        server::stopped().await;
        dashboard.shutdown(Duration::ZERO).await;
    };
    server::serve(listener, app, endpoint, stop).await;
    Ok(())
}

/// Who may see the dashboard, and disconnect people: whoever knows the password, or this machine if there is none.
fn access(request: &Parts, password: Option<&str>) -> Access {
    let peer = request.extensions.get::<ConnectInfo<SocketAddr>>();
    match password {
        Some(password) if has_password(request, password) => Access::ALL,
        Some(_) => Access::LOGIN,
        None if peer.is_some_and(|peer| is_local(request, peer.0)) => Access::ALL,
        None => Access::NONE,
    }
}
