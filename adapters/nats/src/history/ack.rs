//! [`Ack`]: what the server says to a message.

use async_nats::{Message, StatusCode};

/// What the server says to a message that is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    /// It is kept, with this number.
    Kept(u64),
    /// It is not, and may be sent again: the stream is not there, or has no leader.
    Away(String),
    /// It is not.
    Refused(String),
}

/// What the server answers with while the stream, or its leader, is not there, or has too much to do.
const UNAVAILABLE: [u64; 2] = [503, 429];

impl Ack {
    pub(crate) fn of(answer: &Message) -> Self {
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            return Self::Away("the stream is not there".to_owned());
        }
        Self::read(&String::from_utf8_lossy(&answer.payload))
    }

    /// Reads `{"stream":"S","seq":1}` or `{"error":{"code":400,"err_code":1,"description":"..."}}`, of which the server
    /// writes each name once.
    fn read(json: &str) -> Self {
        let after = |name: &str| {
            json.split_once(&format!("\"{name}\":")).map(|(_, rest)| rest.trim_start())
        };
        let number = |name: &str| {
            let rest = after(name)?;
            let end = rest.find(|it: char| !it.is_ascii_digit()).unwrap_or(rest.len());
            rest[..end].parse::<u64>().ok()
        };
        if after("error").is_none() {
            return match number("seq") {
                Some(number) if number > 0 => Self::Kept(number),
                _ => Self::Refused("an answer that is not understood".to_owned()),
            };
        }
        let words = after("description").and_then(|rest| rest.strip_prefix('"')?.split('"').next());
        let reason = words.unwrap_or("refused").to_owned();
        if number("code").is_some_and(|code| UNAVAILABLE.contains(&code)) {
            Self::Away(reason)
        } else {
            Self::Refused(reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_read() {
        for json in [
            r#"{"stream":"tc-chat-history","seq":17}"#,
            r#"{"stream":"tc-chat-history", "domain":"hub", "seq": 17,"duplicate": true}"#,
        ] {
            assert_eq!(Ack::read(json), Ack::Kept(17));
        }
    }

    #[test]
    fn a_refusal_is_read() {
        let json = r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 5"},"stream":"s","seq":0}"#;
        assert_eq!(Ack::read(json), Ack::Refused("wrong last sequence: 5".into()));
        let json = r#"{"error":{"code":503,"err_code":10077,"description":"no leader"},"stream":"s","seq":0}"#;
        assert_eq!(Ack::read(json), Ack::Away("no leader".into()));
    }

    #[test]
    fn anything_else_is_a_refusal() {
        for json in [
            "",
            "{}",
            r#"{"seq":0}"#,
            r#"{"seq":-1}"#,
            r#"{"seq":99999999999999999999}"#,
            r#"{"error":"#,
        ] {
            assert!(matches!(Ack::read(json), Ack::Refused(_)), "{json}");
        }
    }
}
