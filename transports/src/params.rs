//! The query string as Plug reads it.

use serde_json::{Map, Value};

/// A query that cannot be read: not UTF-8, or nested too deep. HTTP 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadQuery;

/// Reads a query string.
pub fn parse(query: &str) -> Result<Map<String, Value>, BadQuery> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    Ok(pairs.map(|(key, value)| (key.to_owned(), Value::from(value))).collect())
}
