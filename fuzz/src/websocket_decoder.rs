//! The WebSocket decoder, with input split in arbitrary ways.

use allocation_counter::measure;
use tower_channels_transports::Close;
use tower_channels_transports::internals::{Decoder, Event as Decoded};

use crate::chunks::Input;
use crate::wire::{self, Event};

/// Asserts that the bytes decode to the same events in one piece, in the chunks of the input, byte
/// by byte, and in another reader; and that the memory retained between chunks is bounded by the
/// bytes received and by the limit.
pub fn check(data: &[u8]) {
    let input = Input::parse(data);
    let expected = wire::read_client(input.wire, LIMIT);
    let outcome = (expected.events, expected.end);
    assert_eq!(decode([input.wire]), outcome, "whole");
    assert_eq!(decode(input.chunks()), outcome, "in chunks");
    assert_eq!(decode(input.wire.chunks(1)), outcome, "byte by byte");
    assert_eq!(decode_in_turns(input.wire), outcome, "two events at a time");

    let idle = outcome.1.is_none() && !expected.is_unfinished;
    assert_memory([input.wire], idle);
    assert_memory(input.chunks(), idle);
    assert_memory(input.wire.chunks(1), idle);
}

const LIMIT: usize = 1024;

/// The memory of an incomplete message besides its bytes.
const OVERHEAD: usize = 512;

fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Option<Close>) {
    let mut decoder = Decoder::new(LIMIT);
    let mut events = Vec::new();
    let end = chunks.into_iter().find_map(|chunk| {
        let deliver = |event: Decoded<'_>| {
            events.push(event.into());
            end_of(event)
        };
        decoder.decode(&mut chunk.to_vec(), &mut { NO_LIMIT }, deliver).err()
    });
    (events, end)
}

fn decode_in_turns(wire: &[u8]) -> (Vec<Event>, Option<Close>) {
    let mut decoder = Decoder::new(LIMIT);
    let (mut events, mut rest) = (Vec::new(), wire.to_vec());
    loop {
        let before = events.len();
        let (mut turn, mut size) = (2, rest.len());
        let decoded = decoder.decode(&mut rest, &mut turn, |event| {
            events.push(event.into());
            end_of(event)
        });
        match decoded {
            Ok(left) => {
                assert_eq!(turn + events.len() - before, 2, "not every event is counted");
                assert!(left < size || size == 0, "no progress");
                size -= left;
                rest.drain(..size);
            }
            Err(close) => return (events, Some(close)),
        }
        if rest.is_empty() {
            return (events, None);
        }
    }
}

const NO_LIMIT: usize = usize::MAX;

/// Nothing is decoded after a CLOSE.
fn end_of(event: Decoded<'_>) -> Result<(), Close> {
    if matches!(event, Decoded::Close(_)) { Err(Close::Normal) } else { Ok(()) }
}

fn assert_memory<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, ends_idle: bool) {
    let mut decoder = Decoder::new(LIMIT);
    let (mut received, mut retained) = (0, 0);
    for chunk in chunks {
        let mut chunk = chunk.to_vec();
        received += chunk.len();
        let mut result = Ok(());
        let used =
            measure(|| result = decoder.decode(&mut chunk, &mut { NO_LIMIT }, end_of).map(drop));
        // A vector grows by doubling, and both copies exist while it grows.
        let bytes = received.min(LIMIT);
        let peak = retained + i64::try_from(used.bytes_max).expect("fits");
        retained += used.bytes_current;
        assert!(
            retained as usize <= 2 * bytes + OVERHEAD,
            "{retained} bytes retained of {received} received"
        );
        assert!(peak as usize <= 5 * bytes + OVERHEAD, "{peak} bytes used for {received} received");
        if result.is_err() {
            return;
        }
    }
    assert!(!ends_idle || retained == 0, "{retained} bytes retained while idle");
}
