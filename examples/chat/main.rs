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
//! | `main.rs` | the endpoint, and the page at `/` |
//! | `../shared/server.rs` | the HTTP server: a time limit for request heads, and a graceful stop on SIGTERM |
//! | `../shared/dashboard.rs` | who may see the dashboard |
//! | `../reference/engine.rs` | the connection to Redis or NATS, or the file of the events |
//! | `room.rs` | the channel `room:*`: its events, their validation, and who receives them |
//! | `presence.rs` | the people in a room, and who is typing or away |
//! | `history.rs` | the stored messages, and catching up on missed ones |
//! | `../../dashboard/src/page/client` | a Phoenix client over WebSocket and long poll, with resumable sessions |
//! | `../shared/presence.js` | the list of people present, built from presence events |
//! | `../shared/network.js` | the status of the connection, and a bad network to try |
//! | `page/people.js` | the row of people in the room, and detection of typing and absence |
//! | `page/chat.js` | the page: what it shows and what it sends |

#![allow(unreachable_pub, reason = "`pub` marks what a file offers to the others")]

#[path = "../shared/dashboard.rs"]
mod dashboard;
#[path = "../reference/engine.rs"]
mod engine;
mod history;
#[path = "../shared/page.rs"]
mod page;
mod presence;
mod room;
#[path = "../shared/server.rs"]
mod server;

use std::env;
use std::error::Error;
use std::path::Path;

use tokio::net::TcpListener;
use tower_channels::{Endpoint, ResumeConfig};

use history::{History, Store};
use page::page;
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

    let app = page(
        include_str!("page/index.html"),
        &[
            ("/chat.css", include_str!("page/chat.css")),
            ("/chat.js", include_str!("page/chat.js")),
            ("/people.js", include_str!("page/people.js")),
        ],
    );
    Ok(server::run(TcpListener::bind(addr).await?, app, endpoint).await?)
}
