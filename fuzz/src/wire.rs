//! A second WebSocket frame reader, which works on the complete input and follows RFC 6455
//! literally.

use tower_channels_transports::internals::Event as Decoded;
use tower_channels_transports::{Close, Inbound};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

impl From<Decoded<'_>> for Event {
    fn from(event: Decoded<'_>) -> Self {
        match event {
            Decoded::Message(Inbound::Text(text)) => Self::Text(text.to_owned()),
            Decoded::Message(Inbound::Binary(bytes)) => Self::Binary(bytes.to_vec()),
            Decoded::Message(_) => unreachable!("there is no other kind"),
            Decoded::Ping(payload) => Self::Ping(payload.to_vec()),
            Decoded::Pong(payload) => Self::Pong(payload.to_vec()),
            Decoded::Close(code) => Self::Close(code),
        }
    }
}

/// The meaning of a client's bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) events: Vec<Event>,
    /// Why the connection must end; `Normal` after a CLOSE.
    pub(crate) end: Option<Close>,
    /// Whether a frame or a message is incomplete.
    pub(crate) is_unfinished: bool,
}

/// Reads the bytes of a client, with messages of up to `limit` bytes and no empty continuations.
pub(crate) fn read_client(mut bytes: &[u8], limit: usize) -> Reading {
    let mut reading = Reading::default();
    let mut message = None;
    while !bytes.is_empty() {
        match read_frame(&mut bytes, limit, &mut message) {
            Ok(Some(event)) => {
                let is_close = matches!(event, Event::Close(_));
                reading.events.push(event);
                if is_close {
                    reading.end = Some(Close::Normal);
                    return reading;
                }
            }
            Ok(None) => {}
            Err(Stop::Cut) => {
                reading.is_unfinished = true;
                return reading;
            }
            Err(Stop::Broken(close)) => {
                reading.end = Some(close);
                return reading;
            }
        }
    }
    reading.is_unfinished = message.is_some();
    reading
}

/// A partial message, and whether it is text.
type Message = Option<(bool, Vec<u8>)>;

enum Stop {
    Cut,
    Broken(Close),
}

fn read_frame(
    bytes: &mut &[u8],
    limit: usize,
    message: &mut Message,
) -> Result<Option<Event>, Stop> {
    let broken = |is_broken, close| if is_broken { Err(Stop::Broken(close)) } else { Ok(()) };
    let first = take(bytes, 1)?[0];
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
    let is_control = opcode >= 8;
    broken(first & 0x70 != 0, Close::Protocol)?;
    broken(!matches!(opcode, 0..=2 | 8..=10), Close::Protocol)?;
    broken(is_control && !fin, Close::Protocol)?;
    let second = take(bytes, 1)?[0];
    broken(second & 0x80 == 0, Close::Protocol)?;
    broken(is_control && second & 0x7f > 125, Close::Protocol)?;
    let length = match second & 0x7f {
        126 => number(take(bytes, 2)?),
        127 => number(take(bytes, 8)?),
        length => length.into(),
    };
    broken(second & 0x7f == 126 && length < 126, Close::Protocol)?;
    broken(second & 0x7f == 127 && length < 1 << 16, Close::Protocol)?;
    broken(length >= 1 << 63, Close::Protocol)?;
    let mask = take(bytes, 4)?;
    if !is_control {
        broken((opcode == 0) != message.is_some(), Close::Protocol)?;
        broken(opcode == 0 && !fin && length == 0, Close::Policy)?;
        let before = message.as_ref().map_or(0, |(_, message)| message.len() as u64);
        broken(before.saturating_add(length) > limit as u64, Close::TooBig)?;
    }
    let here = usize::try_from(length).unwrap_or(usize::MAX).min(bytes.len());
    let masked = take(bytes, here)?;
    let payload: Vec<u8> = masked.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b).collect();
    let is_whole = here as u64 == length;
    if is_control {
        return if is_whole { control(opcode, payload).map(Some) } else { Err(Stop::Cut) };
    }
    let (is_text, message_so_far) = message.get_or_insert((opcode == 1, Vec::new()));
    message_so_far.extend(payload);
    if *is_text {
        // Invalid UTF-8 is rejected at its first byte, an incomplete character at the end of the
        // message.
        let error = str::from_utf8(message_so_far).err();
        let is_wrong = error.is_some_and(|error| error.error_len().is_some() || (fin && is_whole));
        broken(is_wrong, Close::InvalidUtf8)?;
    }
    if !is_whole {
        return Err(Stop::Cut);
    }
    let Some((is_text, whole)) = message.take_if(|_| fin) else { return Ok(None) };
    Ok(Some(if is_text {
        Event::Text(String::from_utf8(whole).expect("checked above"))
    } else {
        Event::Binary(whole)
    }))
}

fn control(opcode: u8, payload: Vec<u8>) -> Result<Event, Stop> {
    Ok(match (opcode, &*payload) {
        (9, _) => Event::Ping(payload),
        (10, _) => Event::Pong(payload),
        (_, []) => Event::Close(None),
        (_, [high, low, reason @ ..]) if str::from_utf8(reason).is_ok() => {
            match u16::from_be_bytes([*high, *low]) {
                0..1000 | 1004..1007 | 1012..3000 => return Err(Stop::Broken(Close::Protocol)),
                code => Event::Close(Some(code)),
            }
        }
        _ => return Err(Stop::Broken(Close::Protocol)),
    })
}

/// Reads the output of a server, which must consist of well-formed frames, each a message or a
/// control frame. Returns the events and an incomplete frame at the end.
pub(crate) fn read_server(mut bytes: &[u8]) -> (Vec<Event>, &[u8]) {
    let mut events = Vec::new();
    loop {
        let rest = bytes;
        match server_frame(&mut bytes) {
            Ok(event) => events.push(event),
            Err(_) => return (events, rest),
        }
    }
}

fn server_frame(bytes: &mut &[u8]) -> Result<Event, Stop> {
    let first = take(bytes, 1)?[0];
    assert_eq!(first & 0xf0, 0x80, "an unfragmented frame without reserved bits");
    let second = take(bytes, 1)?[0];
    assert_eq!(second & 0x80, 0, "an unmasked frame");
    let length = match second {
        126 => number(take(bytes, 2)?),
        127 => number(take(bytes, 8)?),
        length => length.into(),
    };
    let is_shortest = match second {
        126 => (126..1 << 16).contains(&length),
        127 => (1 << 16..1 << 63).contains(&length),
        _ => true,
    };
    assert!(is_shortest, "a length of {length} encoded with {second}");
    let payload = take(bytes, usize::try_from(length).expect("a length in memory"))?.to_vec();
    assert!(first & 0x08 == 0 || second <= 125, "a long control frame");
    Ok(match first & 0x0f {
        1 => Event::Text(String::from_utf8(payload).expect("UTF-8 in a text frame")),
        2 => Event::Binary(payload),
        8 => {
            let code = <[u8; 2]>::try_from(payload).expect("a CLOSE with a code and no reason");
            Event::Close(Some(u16::from_be_bytes(code)))
        }
        9 => Event::Ping(payload),
        10 => Event::Pong(payload),
        opcode => panic!("opcode {opcode}"),
    })
}

fn take<'a>(bytes: &mut &'a [u8], size: usize) -> Result<&'a [u8], Stop> {
    let (taken, rest) = bytes.split_at_checked(size).ok_or(Stop::Cut)?;
    *bytes = rest;
    Ok(taken)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_read_up_to_its_close() {
        let bytes = b"\x01\x81\0\0\0\0h\x89\x80\0\0\0\0\x80\x81\x01\0\0\0h\x88\x80\0\0\0\0\x81";
        let events = vec![Event::Ping(vec![]), Event::Text("hi".to_owned()), Event::Close(None)];
        let end = Some(Close::Normal);
        assert_eq!(read_client(bytes, 2), Reading { events, end, is_unfinished: false });
        assert_eq!(read_client(bytes, 1).end, Some(Close::TooBig));
    }

    #[test]
    fn a_server_is_read_up_to_an_incomplete_frame() {
        let (events, rest) = read_server(b"\x81\x02hi\x88\x02\x03\xe8\x82\x02a");
        assert_eq!(events, [Event::Text("hi".to_owned()), Event::Close(Some(1000))]);
        assert_eq!(rest, b"\x82\x02a");
    }
}
