//! A complete WebSocket connection over a network that splits, stalls and hangs up according to the
//! input.

mod network;
mod session;

use std::time::Duration;

use tower_channels_transports::internals::Connection;
use tower_channels_transports::{Close, Limits, WebSocketConfig, outbox};

use self::network::Network;
use self::session::{Echo, Expected};
use crate::chunks::Input;
use crate::wire::{self, Event};

/// Asserts that the connection ends and that its output consists of well-formed frames with at most
/// one CLOSE, at the end, with a documented code. The frames must be the answers to the client's
/// frames, in order: all of them and the right CLOSE if the client accepted everything, otherwise a
/// prefix.
pub fn check(data: &[u8]) {
    let input = Input::parse(data);
    let written = serve(input);
    let (mut events, rest) = wire::read_server(&written);

    let close = events.pop_if(|event| matches!(event, Event::Close(_)));
    assert!(
        !events.iter().any(|event| matches!(event, Event::Close(_))),
        "a CLOSE before the last frame"
    );
    assert!(close.is_none() || rest.is_empty(), "bytes after the CLOSE");
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
        // An overflow drops queued messages, whatever the close code.
        let is_overflow = |code| code == Close::Overflow.code();
        assert!(code.is_none_or(|code| is_expected(code) || is_overflow(code)), "{code:?}");
    } else if let Some(code) = code {
        assert!(is_expected(code), "{code}, not of {:?}", expected.ends);
    }
    if network::accepts_everything(input.flags) {
        assert!(rest.is_empty(), "an incomplete frame");
        assert!(code.is_some(), "no CLOSE");
        if !expected.may_overflow {
            assert!(pongs.len() >= expected.sure_pongs, "{pongs:?}, not {:?}", expected.pongs);
            assert_eq!(messages, expected.messages);
        }
    }
}

const MESSAGE: usize = 1024;
const OUTBOX: usize = 64 * 1024;

/// Runs a connection to its end and returns its output.
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
        tokio::time::timeout(hour, connection).await.expect("the connection ends");
        assert!(outbox.is_over(), "the outbox reports the end");
        std::mem::take(&mut *written.lock().expect("no panic"))
    })
}
