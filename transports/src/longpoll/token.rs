//! The token that a client carries from one request to the next.
//!
//! It names the session, the node that has it if there may be others, and the last message that an answer carried,
//! which the next poll acknowledges.
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
use crate::peers::NodeId;

/// The id of a session: 128 random bits in base64url. It cannot be guessed, so knowing it authenticates
/// the client.
pub(super) type Id = [u8; 22];

/// A token; its text is [`PREFIX`], the id, the node in base64url between two dots if there is one, and the cursor in
/// decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) id: Id,
    /// The node that has the session; `None` without other nodes.
    pub(super) node: Option<NodeId>,
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
        if let Some(node) = self.node {
            let mut text = [b'.'; NODE + 2];
            // 8 bytes are encoded in exactly 11 characters.
            let _ = URL_SAFE_NO_PAD.encode_slice(node.to_be_bytes(), &mut text[1..=NODE]);
            out.extend_from_slice(&text);
        }
        // Writing into memory cannot fail.
        let _ = write!(out, "{}", self.cursor);
    }

    /// Returns the text of the token.
    pub(super) fn to_text(self) -> String {
        let mut text = Vec::with_capacity(64);
        self.write(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Parses the text of a token. Returns `None` for text that [`write`](Self::write) never produces.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix(PREFIX)?;
        let (id, rest) = (text.as_bytes().first_chunk()?, text.get(size_of::<Id>()..)?);
        let (node, cursor) = match rest.strip_prefix('.') {
            Some(rest) => {
                let (node, cursor) = rest.split_once('.')?;
                (Some(parse_node(node)?), cursor)
            }
            None => (None, rest),
        };
        let canonical = cursor == "0" || matches!(cursor.bytes().next(), Some(b'1'..=b'9'));
        Some(Self { id: *id, node, cursor: cursor.parse().ok().filter(|_| canonical)? })
    }
}

/// How many characters name a node.
const NODE: usize = 11;

/// Parses the name of a node. The decoder rejects what is not canonical.
fn parse_node(text: &str) -> Option<NodeId> {
    // One byte more than a node has, so that the estimate of a decoder fits.
    let mut bytes = [0; 9];
    let size = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    bytes[..size].try_into().ok().map(NodeId::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(token: &Token) -> String {
        let mut text = Vec::new();
        token.write(&mut text);
        String::from_utf8(text).unwrap()
    }

    const NODES: [Option<NodeId>; 5] = [None, Some(0), Some(1), Some(1 << 63), Some(u64::MAX)];

    #[test]
    fn a_token_that_is_written_is_parsed_back() {
        let id = draw_id().unwrap();
        for node in NODES {
            for cursor in [0, 1, 9, 10, 1234567890, u64::MAX] {
                let token = Token { id, node, cursor };
                assert_eq!(Token::parse(&text(&token)), Some(token));
            }
        }
    }

    #[test]
    fn the_text_of_a_token_names_the_node_only_if_there_is_one() {
        let token = Token { id: *b"0123456789abcdefghijkl", node: None, cursor: 7 };
        assert_eq!(text(&token), "phx-lp.0123456789abcdefghijkl7");
        let token = Token { node: Some(0x0123_4567_89ab_cdef), ..token };
        assert_eq!(text(&token), "phx-lp.0123456789abcdefghijkl.ASNFZ4mrze8.7");
    }

    #[test]
    fn each_node_has_one_name() {
        let parse = |node: &str| {
            Token::parse(&format!("phx-lp.0123456789abcdefghijkl{node}7")).map(|token| token.node)
        };
        assert_eq!(parse(".ASNFZ4mrze8."), Some(Some(0x0123_4567_89ab_cdef)));
        for node in [
            ".",
            "..",
            ".ASNFZ4mrze8",
            "ASNFZ4mrze8.",
            ".ASNFZ4mrze9.",
            ".ASNFZ4mrze8=.",
            ".ASNFZ4mrze.",
            ".ASNFZ4mrze8A.",
            ".ASNFZ4mrze8AAAA.",
            ".ASNFZ4mrz+8.",
            ".ASNFZ4mrzé.",
            ".ASNFZ4mrze8..",
            "..ASNFZ4mrze8.",
            ".ASNFZ4mrze8.0",
        ] {
            assert_eq!(parse(node), None, "{node}");
        }
    }

    #[test]
    fn a_token_needs_no_escaping_in_a_query() {
        for node in NODES {
            let text = text(&Token { id: draw_id().unwrap(), node, cursor: u64::MAX });
            let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            assert!(text.bytes().all(is_safe), "{text}");
        }
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
