//! Lists of sessions and topics, read in small parts: each lets other tasks run before the next one.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};
use tower_channels::inspect::{Cursor, Inspect, SessionInfo, SessionState, TopicInfo};

use crate::monitor::Monitor;
use crate::numbers::round;

/// How many rows a list has.
pub(crate) const ROWS: usize = 100;

/// How many parts are read for a list that does not need all of them: the page asks on.
const PARTS: usize = 80;

/// What a page asks for.
#[derive(Debug, Deserialize)]
pub(crate) struct Wanted {
    /// What the socket id, or the topic, contains, in letters of either case.
    #[serde(default)]
    search: String,
    #[serde(default)]
    order: Order,
    /// Where to go on, in a list without an order.
    #[serde(default)]
    from: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// As they come, a page after the other.
    #[default]
    None,
    Queued,
    Channels,
    Newest,
    Oldest,
    Subscribers,
    Rate,
    Name,
}

/// The first rows of what was found.
#[derive(Debug, Serialize)]
pub(crate) struct List<R> {
    pub(crate) rows: Vec<R>,
    /// Where the list goes on; `None` if it has an order, or ends.
    next: Option<u64>,
    /// How many match, of those that were looked at.
    found: usize,
    /// How many there are.
    total: usize,
}

#[derive(Debug, Serialize)]
pub(crate) struct SessionRow {
    place: u64,
    id: Option<String>,
    transport: &'static str,
    age: u64,
    channels: usize,
    queued: usize,
    state: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct TopicRow {
    pub(crate) topic: String,
    subscribers: usize,
    rate: f64,
    present: usize,
}

/// Returns sessions.
pub(crate) async fn sessions(monitor: &Monitor, wanted: &Wanted) -> List<SessionRow> {
    let _reading = monitor.begin_reading().await;
    let inspect = monitor.inspect();
    let search = Search::new(&wanted.search);
    let is_ordered = wanted.order != Order::None;
    let mut top = Top::default();
    let mut from = if is_ordered { Cursor::default() } else { Cursor::from_number(wanted.from) };
    let mut next = None;
    for part in 1.. {
        let page = inspect.sessions(from);
        for session in page.items {
            if !search.matches(session.id.as_deref().unwrap_or_default()) {
                continue;
            }
            if !is_ordered && top.rows.len() == ROWS {
                next = Some(session.place);
                break;
            }
            top.add(wanted.order.of_session(&session), session);
        }
        let Some(cursor) = page.next.filter(|_| next.is_none()) else { break };
        if !is_ordered && part == PARTS {
            next = Some(cursor.number());
            break;
        }
        from = cursor;
        tokio::task::yield_now().await;
    }
    let (found, rows) = top.finish(is_ordered);
    let rows = rows.into_iter().map(SessionRow::new).collect();
    List { rows, next, found, total: inspect.session_count() }
}

/// Returns topics, always in an order.
pub(crate) async fn topics(monitor: &Monitor, wanted: &Wanted) -> List<TopicRow> {
    let _reading = monitor.begin_reading().await;
    let inspect = monitor.inspect();
    let search = Search::new(&wanted.search);
    let mut top = Top::default();
    if wanted.order == Order::Rate {
        for (topic, rate) in monitor.busiest() {
            if search.matches(&topic) {
                // Rates are far below the largest number.
                top.add(Key::Number(Reverse((rate * 1000.0) as u64)), topic);
            }
        }
    } else {
        let mut next = Some(Cursor::default());
        while let Some(cursor) = next {
            let page = inspect.topics(cursor);
            for topic in page.items {
                if search.matches(&topic.name) {
                    top.add(wanted.order.of_topic(&topic), topic.name);
                }
            }
            next = page.next;
            tokio::task::yield_now().await;
        }
    }
    let (found, rows) = top.finish(true);
    let rows = rows.into_iter().map(|topic| topic_row(monitor, topic)).collect();
    List { rows, next: None, found, total: inspect.topic_count().0 }
}

/// Returns one topic.
pub(crate) fn topic_row(monitor: &Monitor, topic: String) -> TopicRow {
    let inspect: &Inspect = monitor.inspect();
    TopicRow {
        subscribers: inspect.pubsub().subscriber_count(&topic),
        rate: round(monitor.rate(&topic)),
        present: inspect.presences(&topic, 0).count,
        topic,
    }
}

impl SessionRow {
    fn new(session: SessionInfo) -> Self {
        Self {
            place: session.place,
            id: session.id,
            transport: session.transport.name(),
            age: session.age.as_secs(),
            channels: session.channels,
            queued: session.queued,
            state: match session.state {
                SessionState::Connected => "connected",
                SessionState::Detached => "away",
                _ => "closing",
            },
        }
    }
}

impl Order {
    fn of_session(self, session: &SessionInfo) -> Key {
        match self {
            Self::Queued => Key::Number(Reverse(session.queued as u64)),
            Self::Channels => Key::Number(Reverse(session.channels as u64)),
            Self::Oldest => Key::Number(Reverse(session.age.as_micros() as u64)),
            Self::Newest => Key::Number(Reverse(u64::MAX - session.age.as_micros() as u64)),
            _ => Key::Number(Reverse(0)),
        }
    }

    fn of_topic(self, topic: &TopicInfo) -> Key {
        match self {
            Self::Name => Key::Name(topic.name.clone()),
            _ => Key::Number(Reverse(topic.subscribers as u64)),
        }
    }
}

/// What a row is ordered by. The largest number comes first, and the first name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(Reverse<u64>),
    Name(String),
}

/// The first rows of an order, of all that are added.
struct Top<R> {
    rows: Vec<(Key, R)>,
    found: usize,
}

impl<R> Default for Top<R> {
    fn default() -> Self {
        Self { rows: Vec::new(), found: 0 }
    }
}

impl<R> Top<R> {
    fn add(&mut self, key: Key, row: R) {
        self.found += 1;
        self.rows.push((key, row));
        if self.rows.len() >= 4 * ROWS {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.rows.sort_by(|(one, _), (other, _)| one.cmp(other));
        self.rows.truncate(ROWS);
    }

    /// Returns how many were added, and the first of them.
    fn finish(mut self, is_ordered: bool) -> (usize, Vec<R>) {
        if is_ordered {
            self.cut();
        }
        (self.found, self.rows.into_iter().map(|(_, row)| row).collect())
    }
}

/// What a name has to contain.
struct Search(String);

impl Search {
    fn new(text: &str) -> Self {
        Self(text.trim().to_lowercase())
    }

    fn matches(&self, name: &str) -> bool {
        self.0.is_empty() || name.to_lowercase().contains(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rows_of_many_are_kept_and_never_many_more() {
        let mut top = Top::default();
        for number in (0..100_000_u64).map(|number| number * 7919 % 100_000) {
            top.add(Key::Number(Reverse(number)), number);
            assert!(top.rows.len() < 4 * ROWS);
        }
        let (found, rows) = top.finish(true);
        assert_eq!(found, 100_000);
        assert_eq!(rows, (0..100_000_u64).rev().take(ROWS).collect::<Vec<_>>());
    }

    #[test]
    fn a_search_ignores_case_and_spaces_around() {
        let search = Search::new("  Room:7 ");
        assert!(search.matches("a room:77") && !search.matches("room:8"));
        assert!(Search::new(" ").matches(""));
    }
}
