//! The names of topics in subjects.

use std::fmt::Write;

/// Writes a topic as one token of a subject. `%`, and what has a meaning in subjects or in a JSON text, is written as `%` with
/// two hexadecimal digits, and nothing as `%`.
pub(crate) fn encode(topic: &str) -> String {
    let mut token = String::with_capacity(topic.len());
    for letter in topic.chars() {
        if letter.is_ascii_control() || " .*>%\"\\".contains(letter) {
            // Writing to a string does not fail.
            let _ = write!(token, "%{:02x}", u32::from(letter));
        } else {
            token.push(letter);
        }
    }
    if token.is_empty() { "%".to_owned() } else { token }
}

/// Reads it. `None` for what is not written so.
pub(crate) fn decode(token: &str) -> Option<String> {
    if token == "%" {
        return Some(String::new());
    }
    let mut parts = token.split('%');
    let mut topic = parts.next()?.to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        topic.push(char::from(u8::from_str_radix(digits, 16).ok().filter(u8::is_ascii)?));
        topic.push_str(rest);
    }
    Some(topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_is_one_token_and_comes_back() {
        let longest = ".".repeat(255);
        let topics =
            ["", "%", "a.b", "*", ">", " ", "\0\r\n\t\u{7f}", "\"\\", "ä👋", "%2e", &longest];
        for topic in topics {
            let token = encode(topic);
            assert_eq!(decode(&token).as_deref(), Some(topic));
            let is_plain = |it: char| !it.is_ascii_control() && !" .*>\"\\".contains(it);
            assert!(!token.is_empty() && token.chars().all(is_plain), "{token:?}");
        }
    }

    #[test]
    fn most_topics_can_be_read() {
        assert_eq!(encode("room:1"), "room:1");
        assert_eq!(encode("room.1"), "room%2e1");
    }

    #[test]
    fn what_is_no_topic_is_none() {
        for token in ["%2", "%zz", "a%", "%ff", "%ä"] {
            assert_eq!(decode(token), None, "{token}");
        }
    }
}
