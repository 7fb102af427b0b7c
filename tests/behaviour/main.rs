//! What the reference application answers, over real sockets: a file a topic, a test a scenario.
//!
//! Most scenarios run four times, over {WebSocket, long poll} x {1.0.0, 2.0.0}. They are written in
//! the notation of 2.0.0, `[join_ref, ref, topic, event, payload]`; [`support::Client`] translates
//! for the version and the transport at hand. With `CORPUS_DIR` set, everything that is sent is
//! kept there as well, as seeds for fuzzing.

#[macro_use]
mod support;

#[allow(dead_code, missing_docs, unreachable_pub)]
#[path = "../../examples/reference.rs"]
mod reference;

mod binary;
mod broadcasts;
mod continuity;
mod crashes;
mod duplicates;
mod frames_and_closes;
mod http;
mod isolation;
mod joining;
mod leaving;
mod limits;
mod malformed;
mod polling;
mod posting;
mod presence;
mod pushing;
mod shutdown;
mod stale_refs;
mod upgrade;
