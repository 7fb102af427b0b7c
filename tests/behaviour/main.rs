//! The behaviour of the reference application over real sockets: one file per subject, one test per
//! scenario.
//!
//! Most scenarios run four times, over {WebSocket, long poll} x {1.0.0, 2.0.0}. They are written in
//! the notation of 2.0.0, `[join_ref, ref, topic, event, payload]`; [`support::Client`] translates
//! it for the version and transport under test. If `CORPUS_DIR` is set, all sent messages are also
//! written there, as seeds for fuzzing.

#[macro_use]
mod support;

#[allow(dead_code, missing_docs)]
#[path = "../../examples/reference/main.rs"]
mod reference;

mod binary;
mod broadcasts;
mod connecting;
mod crashes;
mod duplicates;
mod errors;
mod extremes;
mod frames_and_closes;
mod history;
mod http;
mod isolation;
mod joining;
mod leaving;
mod limits;
mod malformed;
mod memory;
mod polling;
mod posting;
mod presence;
mod pushing;
mod rate;
mod resumable_sessions;
mod shutdown;
mod stale_refs;
mod subscribing;
mod upgrade;
