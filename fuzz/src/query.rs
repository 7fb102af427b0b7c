//! The query string of a connect request.

use allocation_counter::measure;
use serde_json::{Map, Value};
use tower_channels_transports::internals::fuzzing::{MAX_PARSED_QUERY, parse_query};

/// Asserts that nesting and memory are bounded and every leaf is a string, and that parsed parameters
/// and any tree of simple names survive a round trip through a query.
pub fn check(data: &[u8]) {
    let mut parsed = None;
    let used = measure(|| parsed = str::from_utf8(data).ok().and_then(|q| parse_query(q).ok()));
    assert!(used.bytes_current <= MAX_PARSED_QUERY as i64, "{} bytes", used.bytes_current);
    if let Some(params) = parsed {
        let params = Value::Object(params);
        assert!(depth(&params) <= MAX_DEPTH, "nested {} deep", depth(&params));
        assert!(leaves_are_strings(&params));
        if names_are_simple(&params) {
            assert_read_back(&params);
        }
    }
    assert_depth_is_bounded(data);
    let tree = Value::Object(Tree { bytes: data, names: 0 }.map(MAX_DEPTH));
    if levels(&tree) <= MAX_LEVELS && leaves(&tree) <= MAX_PARAMS {
        assert_read_back(&tree);
    }
}

/// The most maps and lists, with the parameters themselves, and the most parameters.
const MAX_LEVELS: usize = 65;
const MAX_PARAMS: usize = 256;

fn levels(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(levels).sum::<usize>(),
        Value::Array(items) => 1 + items.iter().map(levels).sum::<usize>(),
        _ => 0,
    }
}

fn leaves(value: &Value) -> usize {
    match value {
        Value::Object(fields) => fields.values().map(leaves).sum(),
        Value::Array(items) => items.iter().map(leaves).sum(),
        _ => 1,
    }
}

/// The maximum depth: the parameters themselves, and 16 levels below a name.
const MAX_DEPTH: usize = 17;

/// Tests a path of up to 31 levels, whose kinds (maps or lists) are given by the other bytes.
fn assert_depth_is_bounded(data: &[u8]) {
    let Some((levels, kinds)) = data.split_first() else { return };
    let levels = usize::from(levels % 32);
    let kinds = kinds.iter().copied().chain(std::iter::repeat(0)).take(levels);
    let path: String = kinds.map(|kind| if kind % 2 == 0 { "[b]" } else { "[]" }).collect();
    let query = format!("a{path}=1");
    assert_eq!(parse_query(&query).is_ok(), levels < MAX_DEPTH, "{query}");
}

fn assert_read_back(params: &Value) {
    let mut query = String::new();
    write(params, "", &mut query);
    assert_eq!(parse_query(&query).map(Value::Object).as_ref(), Ok(params), "{query}");
}

fn write(value: &Value, path: &str, query: &mut String) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = escaped(name);
                let path = if path.is_empty() { name } else { format!("{path}[{name}]") };
                write(value, &path, query);
            }
        }
        Value::Array(items) => {
            for item in items {
                write(item, &format!("{path}[]"), query);
            }
        }
        text => {
            let text = escaped(text.as_str().unwrap_or_default());
            query.push_str(&format!("&{path}={text}"));
        }
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b' ' => escaped.push('+'),
            _ if byte.is_ascii_alphanumeric() => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02x}")),
        }
    }
    escaped
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn leaves_are_strings(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.values().all(leaves_are_strings),
        Value::Array(items) => items.iter().all(leaves_are_strings),
        leaf => leaf.is_string(),
    }
}

/// Returns whether no name has a special meaning: brackets nest, and an empty name is a list item.
fn names_are_simple(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.iter().all(|(name, value)| {
            !name.is_empty() && !name.contains(['[', ']']) && names_are_simple(value)
        }),
        Value::Array(items) => items.iter().all(names_are_simple),
        _ => true,
    }
}

/// Interprets arbitrary bytes as a tree of parameters.
struct Tree<'a> {
    bytes: &'a [u8],
    names: usize,
}

impl Tree<'_> {
    /// Returns a map. Below the root it is not empty, since a query cannot express that.
    fn map(&mut self, room: usize) -> Map<String, Value> {
        let mut map = Map::new();
        let size = self.next() % 4 + usize::from(room < MAX_DEPTH);
        for _ in 0..size {
            let name = self.name();
            let value = self.value(room - 1);
            map.insert(name, value);
        }
        map
    }

    /// Returns a list with at most one nested map or list, since `a[][b]` does not tell the items
    /// apart.
    fn list(&mut self, room: usize) -> Vec<Value> {
        let size = self.next() % 4 + 1;
        let nested = self.next() % 8;
        (0..size)
            .map(|index| if index == nested { self.value(room - 1) } else { self.text() })
            .collect()
    }

    fn value(&mut self, room: usize) -> Value {
        match self.next() % 3 {
            1 if room > 0 => Value::Object(self.map(room)),
            2 if room > 0 => Value::Array(self.list(room)),
            _ => self.text(),
        }
    }

    fn text(&mut self) -> Value {
        let size = (self.next() % 8).min(self.bytes.len());
        let (text, rest) = self.bytes.split_at(size);
        self.bytes = rest;
        Value::String(String::from_utf8_lossy(text).into_owned())
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("{}{}", char::from(b'a' + (self.next() % 26) as u8), self.names)
    }

    /// Returns the next byte, or 0 when no bytes are left.
    fn next(&mut self) -> usize {
        let Some((&byte, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        byte.into()
    }
}
