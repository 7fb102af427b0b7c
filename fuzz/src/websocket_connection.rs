//! A whole WebSocket connection over a network that cuts, stalls and hangs up as the input says.

mod network;
mod session;

use std::time::Duration;

use tower_channels_transports::internals::Connection;
use tower_channels_transports::{Close, Limits, outbox, WebSocketConfig};

use self::network::Network;
use self::session::{Echo, Expected};
use crate::chunks::Input;
use crate::wire::{self, Event};

/// Nothing panics and it comes to an end. All that was written is well-formed frames with at most
/// one CLOSE, the last, of a documented code. What was written are the answers that the client's
/// frames call for, in order: all of them, and the CLOSE with its reason, if the client was there to
/// take them; otherwise the first of them.
pub fn check(data: &[u8]) {
    let input = Input::parse(data);
    let written = serve(input);
    let (mut events, cut) = wire::read_server(&written);

    let close = events.pop_if(|event| matches!(event, Event::Close(_)));
    assert!(!events.iter().any(|event| matches!(event, Event::Close(_))), "a CLOSE is the last");
    assert!(close.is_none() || cut.is_empty(), "more after the CLOSE");
    assert!(!events.iter().any(|event| matches!(event, Event::Ping(_))), "a Ping");

    let expected = Expected::to(&wire::read_client(input.wire, MESSAGE), OUTBOX);
    let (pongs, messages): (Vec<_>, Vec<_>) =
        events.into_iter().partition(|event| matches!(event, Event::Pong(_)));
    assert!(expected.pongs.starts_with(&pongs), "{pongs:?}, of {:?}", expected.pongs);
    assert!(expected.messages.starts_with(&messages), "{messages:?}, of {:?}", expected.messages);

    let code = close.map(|close| match close {
        Event::Close(Some(code)) => code,
        other => panic!("{other:?}"),
    });
    let is_expected = |code| expected.ends.iter().any(|end| end.code() == code);
    if expected.may_overflow {
        // What waits is dropped by an overflow, whatever the end is called then.
        let is_overflow = |code| code == Close::Overflow.code();
        assert!(code.is_none_or(|code| is_expected(code) || is_overflow(code)), "{code:?}");
    } else if let Some(code) = code {
        assert!(is_expected(code), "{code}, not of {:?}", expected.ends);
    }
    if network::is_patient(input.flags) {
        assert!(cut.is_empty(), "a frame is cut");
        assert!(code.is_some(), "no CLOSE");
        if !expected.may_overflow {
            assert!(pongs.len() >= expected.sure_pongs, "{pongs:?}, not {:?}", expected.pongs);
            assert_eq!(messages, expected.messages);
        }
    }
}

const MESSAGE: usize = 1024;
const OUTBOX: usize = 64 * 1024;

/// Everything that a connection writes, from its first moment to its last.
fn serve(input: Input<'_>) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let limits = Limits::new().max_message(MESSAGE).max_outbox(OUTBOX);
        let config = WebSocketConfig::new();
        let (outbox, receiver) = outbox::channel(OUTBOX);
        let (network, written) = Network::new(input);
        let session = Echo::new(outbox.clone());
        let connection = Connection::new(network, session, receiver, &config, &limits);
        let hour = Duration::from_secs(3600);
        tokio::time::timeout(hour, connection).await.expect("it comes to an end");
        assert!(outbox.is_over(), "whoever pushes can know of the end");
        std::mem::take(&mut *written.lock().expect("no panic"))
    })
}
