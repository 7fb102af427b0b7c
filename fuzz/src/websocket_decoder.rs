//! What a WebSocket client's bytes mean, however they are cut.

use allocation_counter::measure;
use tower_channels_transports::Close;
use tower_channels_transports::internals::{Decoder, Event as Decoded};

use crate::chunks::Input;
use crate::wire::{self, Event};

/// Nothing panics; the bytes mean the same whole, in the chunks of the input, byte by byte, and to
/// another reader; and what is kept between two chunks is bounded by what came and by the limit.
pub fn check(data: &[u8]) {
    let input = Input::parse(data);
    let expected = wire::read_client(input.wire, LIMIT);
    let outcome = (expected.events, expected.end);
    assert_eq!(decode([input.wire]), outcome, "whole");
    assert_eq!(decode(input.chunks()), outcome, "in chunks");
    assert_eq!(decode(input.wire.chunks(1)), outcome, "byte by byte");

    let idle = outcome.1.is_none() && !expected.is_unfinished;
    assert_memory([input.wire], idle);
    assert_memory(input.chunks(), idle);
    assert_memory(input.wire.chunks(1), idle);
}

const LIMIT: usize = 1024;

/// What is unfinished costs this beside its bytes.
const OVERHEAD: usize = 512;

fn decode<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Event>, Option<Close>) {
    let mut decoder = Decoder::new(LIMIT);
    let mut events = Vec::new();
    let end = chunks.into_iter().find_map(|chunk| {
        let deliver = |event: Decoded<'_>| {
            events.push(event.into());
            end_of(event)
        };
        decoder.decode(&mut chunk.to_vec(), deliver).err()
    });
    (events, end)
}

/// After a CLOSE nothing has a meaning.
fn end_of(event: Decoded<'_>) -> Result<(), Close> {
    if matches!(event, Decoded::Close(_)) { Err(Close::Normal) } else { Ok(()) }
}

fn assert_memory<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, ends_idle: bool) {
    let mut decoder = Decoder::new(LIMIT);
    let (mut came, mut kept) = (0, 0);
    for chunk in chunks {
        let mut chunk = chunk.to_vec();
        came += chunk.len();
        let mut result = Ok(());
        let used = measure(|| result = decoder.decode(&mut chunk, end_of));
        // A vector grows by doubling, and while it grows there are two.
        let bytes = came.min(LIMIT);
        let peak = kept + i64::try_from(used.bytes_max).expect("not that much");
        kept += used.bytes_current;
        assert!(kept as usize <= 2 * bytes + OVERHEAD, "{kept} bytes kept of {came}");
        assert!(peak as usize <= 5 * bytes + OVERHEAD, "{peak} bytes used for {came}");
        if result.is_err() {
            return;
        }
    }
    assert!(!ends_idle || kept == 0, "{kept} bytes kept for nothing");
}
