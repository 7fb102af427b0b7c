//! Fuzz targets: one module each, with a function `check` that panics if an input reveals a defect.
//!
//! libFuzzer calls them through `fuzz_targets/`; `tests/corpus.rs` calls them with the committed
//! seeds and mutations of these, as ordinary tests.

mod base64;
mod chunks;
pub mod claims;
pub mod cluster;
pub mod cluster_frame;
pub mod history;
mod json;
pub mod moved_session;
pub mod ndjson;
pub mod presence_message;
pub mod presence_replicas;
pub mod pushes;
pub mod query;
pub mod session;
pub mod token;
pub mod v1_text;
pub mod v2_binary;
pub mod v2_text;
pub mod websocket_connection;
pub mod websocket_decoder;
mod wire;

/// The name of a target, which is also that of its folder in `corpus/`, and its check.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 17] = [
    ("claims", claims::check),
    ("cluster", cluster::check),
    ("cluster_frame", cluster_frame::check),
    ("history", history::check),
    ("moved_session", moved_session::check),
    ("ndjson", ndjson::check),
    ("presence_message", presence_message::check),
    ("presence_replicas", presence_replicas::check),
    ("pushes", pushes::check),
    ("query", query::check),
    ("session", session::check),
    ("token", token::check),
    ("v1_text", v1_text::check),
    ("v2_binary", v2_binary::check),
    ("v2_text", v2_text::check),
    ("websocket_connection", websocket_connection::check),
    ("websocket_decoder", websocket_decoder::check),
];
