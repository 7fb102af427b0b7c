//! Query strings as Plug reads them: `a[b]=c` nests, `a[]=1` makes a list, the last value wins.
//!
//! Where a query contradicts itself, Plug's rules apply:
//! - a text after a map or list replaces it, and later pairs for that map are ignored;
//! - a map or list after a text replaces the text;
//! - of `a[]` and `a[b]` under one name, the kind that came last wins and the other is dropped.
//!
//! Anyone may send a query, so its length, its parameters and its maps and lists are bounded: the parsed
//! form takes at most 160 KiB, ten times the longest text.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use memchr::{memchr2, memrchr};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

/// Error returned for a query string that cannot be read: not UTF-8 when decoded, longer than 16 KiB,
/// with more than 256 parameters or more than 64 maps and lists, or nested deeper than 16 levels. A
/// transport answers it with HTTP 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BadQuery;

impl fmt::Display for BadQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the query string is not UTF-8, too long, nested too deeply, or has too many parameters, \
             maps or lists",
        )
    }
}

impl Error for BadQuery {}

/// Parses a query string.
pub(crate) fn parse(query: &str) -> Result<Map<String, Value>, BadQuery> {
    if is_too_long(query) {
        return Err(BadQuery);
    }
    let (mut root, mut levels) = (Level::default(), MAX_LEVELS);
    for (index, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        if index == MAX_PARAMS {
            return Err(BadQuery);
        }
        let (key, value) = split_pair(pair);
        root.insert(&decode(key)?, decode(value)?.into_owned(), &mut levels)?;
    }
    Ok(root.into_map())
}

/// Returns whether a query is too long to be looked at.
pub(crate) fn is_too_long(query: &str) -> bool {
    query.len() > MAX_LENGTH
}

/// Returns the last value of the plain parameter `name`, without parsing the rest of the query.
/// `None` if there is no such parameter or its value is not UTF-8.
pub(crate) fn last<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    let (_, pair) = find_last(query, name)?;
    decode(split_pair(pair).1).ok()
}

/// Returns the query without the last plain parameter `name`, if `is_removed` accepts its value.
pub(crate) fn without_last(
    query: &str,
    name: &str,
    is_removed: impl Fn(&str) -> bool,
) -> Option<String> {
    let (at, pair) = find_last(query, name)?;
    if !is_removed(&decode(split_pair(pair).1).ok()?) {
        return None;
    }
    let (before, after) = (&query[..at], &query[at + pair.len()..]);
    // One of the separators around it goes as well.
    Some(match after.strip_prefix('&') {
        Some(after) => [before, after].concat(),
        None => before.strip_suffix('&').unwrap_or(before).to_owned(),
    })
}

/// Returns the last pair of the plain parameter `name`, and where it begins.
fn find_last<'a>(query: &'a str, name: &str) -> Option<(usize, &'a str)> {
    let mut rest = query;
    loop {
        let end = memrchr(b'&', rest.as_bytes());
        let at = end.map_or(0, |end| end + 1);
        let (key, _) = split_pair(&rest[at..]);
        if key == name || decode(key).is_ok_and(|key| key == name) {
            return Some((at, &rest[at..]));
        }
        rest = &rest[..end?];
    }
}

fn split_pair(pair: &str) -> (&str, &str) {
    pair.split_once('=').unwrap_or((pair, ""))
}

/// The longest query, in bytes.
const MAX_LENGTH: usize = 16 * 1024;

/// The most parameters.
const MAX_PARAMS: usize = 256;

/// The most maps and lists: a name of one byte costs a map of several hundred.
const MAX_LEVELS: usize = 64;

/// The deepest nesting. A [`Value`] is dropped recursively, so a query must not choose the depth.
const MAX_DEPTH: usize = 16;

/// A map or list under construction.
#[derive(Default)]
struct Level {
    fields: BTreeMap<String, Slot>,
    items: Vec<Slot>,
    /// Index of the item that takes all pairs of the form `a[][b]=…`.
    nested_item: Option<usize>,
    /// Whether the newest entry is an item.
    is_list: bool,
}

enum Slot {
    Text(String),
    Nested(Box<Level>),
    /// A text that replaced a level. Later pairs for that level are ignored.
    Settled(String),
}

impl Level {
    /// Inserts a pair. `users[address][street]` is the path users, address, street; an empty
    /// segment is a list item. A key that does not end with a bracket, or begins with one, is a
    /// plain name. `levels` is how many maps and lists may still be made.
    fn insert(&mut self, key: &str, value: String, levels: &mut usize) -> Result<(), BadQuery> {
        let nested = key.strip_suffix(']').and_then(|key| key.split_once('['));
        let Some((name, path)) = nested.filter(|(name, _)| !name.is_empty()) else {
            self.put(Some(key), value);
            return Ok(());
        };
        let (mut level, mut name) = (self, Some(name));
        for (depth, segment) in path.split("][").enumerate() {
            if depth == MAX_DEPTH {
                return Err(BadQuery);
            }
            let Some(nested) = level.descend(name, levels)? else { return Ok(()) };
            level = nested;
            name = Some(segment).filter(|name| !name.is_empty());
        }
        level.put(name, value);
        Ok(())
    }

    /// Sets a field, or adds an item if there is no name.
    fn put(&mut self, name: Option<&str>, value: String) {
        self.is_list = name.is_none();
        let Some(name) = name else { return self.items.push(Slot::Text(value)) };
        match self.fields.get_mut(name) {
            Some(slot @ Slot::Text(_)) => *slot = Slot::Text(value),
            Some(slot) => *slot = Slot::Settled(value),
            None => {
                self.fields.insert(name.to_owned(), Slot::Text(value));
            }
        }
    }

    /// Returns the level below `name`, created on demand. `None` if a text replaced it.
    fn descend(
        &mut self,
        name: Option<&str>,
        levels: &mut usize,
    ) -> Result<Option<&mut Self>, BadQuery> {
        let slot = match name {
            Some(name) => self.fields.entry(name.to_owned()).or_insert(Slot::Text(String::new())),
            None => {
                let index = *self.nested_item.get_or_insert_with(|| {
                    self.items.push(Slot::Text(String::new()));
                    self.items.len() - 1
                });
                &mut self.items[index]
            }
        };
        if let Slot::Text(_) = slot {
            *levels = levels.checked_sub(1).ok_or(BadQuery)?;
            *slot = Slot::Nested(Box::default());
            self.is_list = name.is_none();
        }
        Ok(match slot {
            Slot::Nested(level) => Some(level),
            Slot::Text(_) | Slot::Settled(_) => None,
        })
    }

    fn into_map(self) -> Map<String, Value> {
        self.fields.into_iter().map(|(name, slot)| (name, slot.into_value())).collect()
    }
}

impl Slot {
    fn into_value(self) -> Value {
        match self {
            Self::Text(text) | Self::Settled(text) => Value::String(text),
            Self::Nested(level) if level.is_list => {
                level.items.into_iter().map(Self::into_value).collect()
            }
            Self::Nested(level) => Value::Object(level.into_map()),
        }
    }
}

/// Decodes `application/x-www-form-urlencoded` text. As in Elixir, an invalid escape is kept
/// literally.
fn decode(text: &str) -> Result<Cow<'_, str>, BadQuery> {
    // The usual case, such as the token of every poll.
    if memchr2(b'+', b'%', text.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8().map_err(|_| BadQuery)?;
    Ok(Cow::Owned(decoded.into_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(query: &str) -> Value {
        Value::Object(parse(query).unwrap())
    }

    #[test]
    fn the_last_of_a_repeated_parameter_wins() {
        assert_eq!(read("a=1&b=2&a=3"), json!({"a": "3", "b": "2"}));
        assert_eq!(read("a[b]=1&a[b]=2"), json!({"a": {"b": "2"}}));
    }

    #[test]
    fn a_parameter_without_a_value_is_an_empty_text() {
        assert_eq!(read("a&b=&=x"), json!({"a": "", "b": "", "": "x"}));
        assert_eq!(read("=&a[]"), json!({"": "", "a": [""]}));
    }

    #[test]
    fn empty_pairs_are_skipped() {
        assert_eq!(read(""), json!({}));
        assert_eq!(read("&x=1&&y=2&"), json!({"x": "1", "y": "2"}));
    }

    #[test]
    fn only_the_first_equals_sign_separates() {
        assert_eq!(read("a=b=c"), json!({"a": "b=c"}));
    }

    #[test]
    fn names_and_values_are_decoded() {
        assert_eq!(read("my+name=q%201%2B%C3%A9"), json!({"my name": "q 1+é"}));
        assert_eq!(read("a%5Bb%5D=1"), json!({"a": {"b": "1"}}));
    }

    #[test]
    fn an_invalid_escape_is_kept_literally() {
        assert_eq!(
            read("a=%zz&b=%4&c=%&d=%%41"),
            json!({"a": "%zz", "b": "%4", "c": "%", "d": "%A"})
        );
    }

    #[test]
    fn invalid_utf8_is_a_bad_query() {
        assert_eq!(parse("a=%ff"), Err(BadQuery));
        assert_eq!(parse("%c3=1"), Err(BadQuery));
    }

    #[test]
    fn looking_up_one_parameter_agrees_with_parsing_all() {
        for query in ["a=1&b=2&a=3", "a=1&", "x=%ff&%61=%2B", "a", "b=a", "", "aa=1&&a=x=y&b[a]=2"]
        {
            let whole = parse(&query.replace("%ff", "")).unwrap();
            assert_eq!(last(query, "a").as_deref(), whole.get("a").and_then(Value::as_str));
        }
        assert_eq!(last("a=%ff", "a"), None);
    }

    #[test]
    fn brackets_nest_maps() {
        assert_eq!(
            read("u[name]=hello&u[age]=17&u[address][street]=x"),
            json!({"u": {"name": "hello", "age": "17", "address": {"street": "x"}}})
        );
    }

    #[test]
    fn empty_brackets_make_lists() {
        assert_eq!(read("a[]=1&b[]=2&a[]=3"), json!({"a": ["1", "3"], "b": ["2"]}));
        assert_eq!(read("x[y][z][]=1&x[y][z][]=2"), json!({"x": {"y": {"z": ["1", "2"]}}}));
        assert_eq!(read("x[][][]=1"), json!({"x": [[["1"]]]}));
    }

    #[test]
    fn maps_in_a_list_are_merged_into_one() {
        assert_eq!(
            read("x[]=0&x[][a]=1&x[]=2&x[][b]=3"),
            json!({"x": ["0", {"a": "1", "b": "3"}, "2"]})
        );
    }

    #[test]
    fn the_last_kind_wins_where_a_query_contradicts_itself() {
        assert_eq!(read("x[]=1&x[y]=1"), json!({"x": {"y": "1"}}));
        assert_eq!(read("x[y]=1&x[]=2"), json!({"x": ["2"]}));
        assert_eq!(read("x=1&x[y]=2"), json!({"x": {"y": "2"}}));
        assert_eq!(read("x[y][][w]=2&x[y]=1"), json!({"x": {"y": "1"}}));
    }

    #[test]
    fn a_text_that_replaced_a_map_stays() {
        assert_eq!(read("x[y]=1&x=2&x[z]=3"), json!({"x": "2"}));
        assert_eq!(read("x[y]=1&x=2&x[z]=3&x=4"), json!({"x": "4"}));
        assert_eq!(read("x[a][b]=1&x[]=2&x[a][c]=3"), json!({"x": ["2"]}));
    }

    #[test]
    fn unbalanced_brackets_are_part_of_the_name() {
        assert_eq!(
            read("[a]=1&b]=2&c[d=3&e[f[g]=4&h[i]j]=5&k[]]=6"),
            json!({
                "[a]": "1", "b]": "2", "c[d": "3", "e": {"f[g": "4"}, "h": {"i]j": "5"},
                "k": {"]": "6"},
            })
        );
    }

    #[test]
    fn a_query_may_have_exactly_the_limits() {
        let long = |size: usize| format!("a={}", "x".repeat(size - 2));
        assert!(parse(&long(MAX_LENGTH)).is_ok());
        assert_eq!(parse(&long(MAX_LENGTH + 1)), Err(BadQuery));
        assert!(parse(&"a&".repeat(MAX_PARAMS)).is_ok());
        assert_eq!(parse(&"a&".repeat(MAX_PARAMS + 1)), Err(BadQuery));
        assert!(parse(&"&".repeat(MAX_LENGTH)).is_ok());
        let nested = |count: usize| {
            (0..count).map(|name| format!("{name}[a]=1&{name}[b]=2&")).collect::<String>()
        };
        assert!(parse(&nested(MAX_LEVELS)).is_ok());
        assert_eq!(parse(&nested(MAX_LEVELS + 1)), Err(BadQuery));
    }

    #[test]
    fn nesting_deeper_than_the_limit_is_a_bad_query() {
        let nested = |depth: usize| format!("a{}=1", "[b]".repeat(depth));
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(parse(&nested(MAX_DEPTH + 1)), Err(BadQuery));
        assert_eq!(parse(&format!("a{}=1", "[]".repeat(20_000))), Err(BadQuery));
    }
}
