//! Doors to pure code that is otherwise private, for the fuzz targets alone. No part of the API.

#![allow(missing_docs)]

use serde_json::{Map, Value};

use super::batch::{Batch, Unfit};
use super::token::Token;
use crate::frame::{Close, Inbound};
use crate::params::{self, BadQuery};

/// What became of a POST's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    Undecodable,
    TooLarge,
    Handled(Result<(), Close>),
}

/// Looks at a body and hands out its messages.
pub fn read_body(
    body: &[u8],
    ndjson: bool,
    limit: usize,
    handle_in: impl FnMut(Inbound<'_>) -> Result<(), Close>,
) -> Body {
    match Batch::new(body.to_vec().into(), ndjson, limit) {
        Ok(batch) => Body::Handled(batch.deliver(handle_in)),
        Err(Unfit::Undecodable) => Body::Undecodable,
        Err(Unfit::TooLarge) => Body::TooLarge,
    }
}

pub fn write_token(id: [u8; 22], cursor: u64) -> Vec<u8> {
    let mut text = Vec::new();
    Token { id, cursor }.write(&mut text);
    text
}

pub fn read_token(text: &str) -> Option<([u8; 22], u64)> {
    Token::read(text).map(|token| (token.id, token.cursor))
}

pub fn parse_query(query: &str) -> Result<Map<String, Value>, BadQuery> {
    params::parse(query)
}
