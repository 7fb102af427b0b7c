//! Access to private parsers for the fuzz targets.

#![allow(missing_docs)]

use serde_json::{Map, Value};

use super::batch::{Batch, BatchError};
use super::token::Token;
use crate::frame::{Close, Inbound};
use crate::params::{self, BadQuery};

/// The result of handling the body of a POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Undecodable,
    TooLarge,
    Handled(Result<(), Close>),
}

/// Validates a body and passes its messages to `handle_in`.
pub fn read_body(
    body: &[u8],
    ndjson: bool,
    limit: usize,
    mut handle_in: impl FnMut(Inbound<'_>) -> Result<(), Close>,
) -> Body {
    let mut batch = match Batch::new(body.to_vec().into(), ndjson, limit) {
        Ok(batch) => batch,
        Err(BatchError::Undecodable) => return Body::Undecodable,
        Err(BatchError::TooLarge) => return Body::TooLarge,
    };
    loop {
        match batch.deliver(3, &mut handle_in) {
            Ok(true) => {}
            handled => return Body::Handled(handled.map(drop)),
        }
    }
}

/// The session, the node and the cursor of a token.
pub type TokenParts = ([u8; 22], Option<u64>, u64);

pub fn write_token((id, node, cursor): TokenParts) -> Vec<u8> {
    let mut text = Vec::new();
    Token { id, node, cursor }.write(&mut text);
    text
}

pub fn read_token(text: &str) -> Option<TokenParts> {
    Token::parse(text).map(|token| (token.id, token.node, token.cursor))
}

pub fn parse_query(query: &str) -> Result<Map<String, Value>, BadQuery> {
    params::parse(query)
}

/// The most memory that parsed parameters take, in bytes.
pub const MAX_PARSED_QUERY: usize = 160 * 1024;
