//! The token that a client carries from one request to the next.
//!
//! It names the session and the last message that an answer carried, which the next poll acknowledges.
//!
//! A client sends it in a header or in the query, where an application may have a parameter `token` of its
//! own: phoenix.js appends the transport's behind it, or nothing before the first answer. Old clients
//! append what JavaScript makes of a missing token.

use std::borrow::Cow;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::request::Parts;
use http::{HeaderName, Uri};

use crate::params;

/// The id of a session: 128 random bits in base64url. It cannot be guessed, so knowing it authenticates
/// the client.
pub(super) type Id = [u8; 22];

/// A token; its text is [`PREFIX`], the id, and the cursor in decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) id: Id,
    /// The position behind the last message of the answer that carried this token; 0 before any.
    pub(super) cursor: u64,
}

/// The beginning of every token. It tells a token in a query from the application's parameter, also if its
/// session is gone or was never here.
const PREFIX: &str = "phx-lp.";

const HEADER: HeaderName = HeaderName::from_static("x-phoenix-longpoll-token");
const PARAM: &str = "token";

/// Draws the id of a session.
pub(super) fn draw_id() -> Result<Id, getrandom::Error> {
    let (mut random, mut id) = ([0; 16], Id::default());
    getrandom::fill(&mut random)?;
    // 16 bytes are encoded in exactly 22 characters.
    let _ = URL_SAFE_NO_PAD.encode_slice(random, &mut id);
    Ok(id)
}

/// Returns the text of the token that a request carries. The header takes precedence over the query.
pub(super) fn of(parts: &Parts) -> Option<Cow<'_, str>> {
    match parts.headers.get(HEADER) {
        Some(token) => token.to_str().ok().filter(|text| !is_blank(text)).map(Cow::Borrowed),
        None => params::last(parts.uri.query()?, PARAM).filter(|text| text.starts_with(PREFIX)),
    }
}

/// Removes what stands in place of a token from a request without one.
pub(super) fn remove_blank(parts: &mut Parts) {
    parts.headers.remove(HEADER);
    let query = parts.uri.query().and_then(|query| {
        params::without_last(query, PARAM, |text| is_blank(text) || text.starts_with(PREFIX))
    });
    let Some(query) = query else { return };
    let mut uri = std::mem::take(&mut parts.uri).into_parts();
    if let Some(target) = uri.path_and_query.take() {
        let mark = if query.is_empty() { "" } else { "?" };
        uri.path_and_query = [target.path(), mark, &query].concat().try_into().ok();
    }
    parts.uri = Uri::from_parts(uri).unwrap_or_default();
}

fn is_blank(text: &str) -> bool {
    matches!(text, "" | "null" | "undefined")
}

impl Token {
    /// Appends the text of the token.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(PREFIX.as_bytes());
        out.extend_from_slice(&self.id);
        // Writing into memory cannot fail.
        let _ = write!(out, "{}", self.cursor);
    }

    /// Parses the text of a token. Returns `None` for text that [`write`](Self::write) never produces.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix(PREFIX)?;
        let (id, cursor) = (text.as_bytes().first_chunk()?, text.get(size_of::<Id>()..)?);
        let canonical = cursor == "0" || matches!(cursor.bytes().next(), Some(b'1'..=b'9'));
        Some(Self { id: *id, cursor: cursor.parse().ok().filter(|_| canonical)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(id: Id, cursor: u64) -> String {
        let mut text = Vec::new();
        Token { id, cursor }.write(&mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_token_that_is_written_is_parsed_back() {
        let id = draw_id().unwrap();
        for cursor in [0, 1, 9, 10, 1234567890, u64::MAX] {
            assert_eq!(Token::parse(&text(id, cursor)), Some(Token { id, cursor }));
        }
    }

    #[test]
    fn a_token_needs_no_escaping_in_a_query() {
        let text = text(draw_id().unwrap(), u64::MAX);
        assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)));
    }

    fn parts(query: &str, header: Option<&str>) -> Parts {
        let mut request = http::Request::builder().uri(format!("http://h/lp{query}"));
        if let Some(header) = header {
            request = request.header("X-Phoenix-LongPoll-Token", header);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_parameter_of_the_application_is_no_token() {
        for query in
            ["?token=abc", "?token=SFMyNTY.a.b", "?token=phx-l", "?token=", "?a=phx-lp.b", ""]
        {
            assert_eq!(of(&parts(query, None)), None, "{query}");
        }
        for query in ["?token=phx-lp.b", "?token=jwt&vsn=2.0.0&token=phx-lp.b", "?%74oken=phx-lp.b"]
        {
            assert_eq!(of(&parts(query, None)).as_deref(), Some("phx-lp.b"), "{query}");
        }
    }

    #[test]
    fn a_header_takes_precedence_and_carries_nothing_but_a_token() {
        for (header, token) in [("abc", Some("abc")), ("null", None), ("", None)] {
            assert_eq!(of(&parts("?token=phx-lp.b", Some(header))).as_deref(), token);
        }
    }

    #[test]
    fn what_stands_in_place_of_a_token_is_removed_and_nothing_else() {
        for (query, rest) in [
            ("", "http://h/lp"),
            ("?token=null", "http://h/lp"),
            ("?a=1&token=undefined&b=2", "http://h/lp?a=1&b=2"),
            ("?token=jwt&vsn=2.0.0&token=", "http://h/lp?token=jwt&vsn=2.0.0"),
            ("?token=jwt&vsn=2.0.0&", "http://h/lp?token=jwt&vsn=2.0.0&"),
            ("?token=null&token=jwt", "http://h/lp?token=null&token=jwt"),
        ] {
            let mut parts = parts(query, Some("null"));
            remove_blank(&mut parts);
            assert_eq!((parts.uri.to_string(), parts.headers.len()), (rest.to_owned(), 0));
        }
    }

    #[test]
    fn other_text_is_no_token() {
        let id = "phx-lp.0123456789abcdefghijkl";
        assert!(Token::parse(&format!("{id}9")).is_some());
        for cursor in ["", "+9", "-1", "09", "00", "9 ", "9=", "é", "99999999999999999999"] {
            assert_eq!(Token::parse(&format!("{id}{cursor}")), None, "{cursor}");
        }
        let short = "phx-lp.0123456789abcdefghijké9";
        for text in [
            "",
            "null",
            "undefined",
            "SFMyNTY.x.y",
            "é",
            "phx-lp.",
            short,
            "0123456789abcdefghijkl9",
        ] {
            assert_eq!(Token::parse(text), None, "{text}");
        }
    }
}
