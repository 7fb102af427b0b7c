//! Reads pages of topics.

use redis::{RedisResult, Value, cmd};
use tokio::time::timeout;
use tower_channels::adapter::{Kept, Page, Since, StoreError};
use tower_channels::history::Position;

use super::door::{Access, Door};
use super::keeping::is_passing;
use super::{PATIENCE, Shared, entry, script};
use crate::backoff::random;

/// How many messages are read at once. The server does nothing else meanwhile.
const PAGE: usize = 500;

/// What the server answers to one question.
struct Answer {
    topic: entry::Topic,
    /// Before this number, messages may have been lost.
    since: u64,
    /// Before this number, messages are forgotten although they may be there.
    oldest: u64,
    /// In the order in which they were asked for.
    messages: Vec<Kept>,
    /// Whether an empty page before a position is complete, as no message was ever forgotten.
    is_first: bool,
}

/// Reads what is kept of a topic.
pub(super) async fn read(
    door: &Door,
    shared: &Shared,
    topic: &str,
    since: Since,
    limit: usize,
) -> Result<Page, StoreError> {
    let reading = async {
        let _room = shared.room.acquire().await.expect("it is never closed");
        read_pages(door, shared, topic, since, limit).await
    };
    let late = || Err(StoreError::new("Redis has not answered in time"));
    timeout(PATIENCE, reading).await.unwrap_or_else(|_| late())
}

async fn read_pages(
    door: &Door,
    shared: &Shared,
    topic: &str,
    since: Since,
    limit: usize,
) -> Result<Page, StoreError> {
    let mut page = read_page(door, shared, topic, since, limit.clamp(1, PAGE)).await?;
    let mut next = page.clone();
    while next.messages.len() == PAGE && page.messages.len() < limit {
        let (first, last) = (&page.messages[0], &page.messages[page.messages.len() - 1]);
        let (is_forward, since) = match since {
            Since::After(_) => (true, Since::After(last.position)),
            _ => (false, Since::Before(first.position)),
        };
        let rest = (limit - page.messages.len()).min(PAGE);
        next = read_page(door, shared, topic, since, rest).await?;
        if is_forward {
            if !next.is_complete {
                // What has been read is forgotten by now, and what follows it.
                page.is_complete = false;
                page.messages.clear();
            }
            page.messages.extend_from_slice(&next.messages);
            page.last = next.last;
        } else {
            page.messages.splice(0..0, next.messages.iter().cloned());
        }
    }
    page.messages.truncate(limit);
    Ok(page)
}

async fn read_page(
    door: &Door,
    shared: &Shared,
    topic: &str,
    since: Since,
    limit: usize,
) -> Result<Page, StoreError> {
    let mut accesses = shared.access.subscribe();
    let mut oldest = None;
    loop {
        let access = accesses.wait_for(Option::is_some).await;
        let access = access.map_err(|_| StoreError::new("it has ended"))?.clone();
        let Some(access) = access else { continue };
        match ask(door, &access, topic, since, oldest, limit).await {
            Ok(answer) => {
                let answer = parse(answer).ok_or_else(entry::unexpected)?;
                if !answer.hides_others(since, limit) {
                    return Ok(page(answer, since));
                }
                oldest = Some(answer.oldest);
            }
            Err(error) if is_passing(&error) => {
                // The task that keeps messages opens another connection.
                if !error.is_io_error() {
                    shared.moved.notify_one();
                }
                let _ = accesses.changed().await;
            }
            Err(error) => return Err(StoreError::new(error.to_string())),
        }
    }
}

/// Asks for what is known of a topic and for a page, in one transaction. A page after a position begins with the `oldest`
/// message that was not forgotten, if that is known.
async fn ask(
    door: &Door,
    access: &Access,
    topic: &str,
    since: Since,
    oldest: Option<u64>,
    limit: usize,
) -> RedisResult<Value> {
    let Door { names, scripts, .. } = door;
    let mut read = script::run(&scripts.read, 3, 2 * topic.len());
    read.arg(&names.run)
        .arg(names.topic_key(topic))
        .arg(names.message_key(topic))
        .arg(&*access.run)
        .arg(&random().to_be_bytes())
        .arg(u8::from(matches!(since, Since::Before(_))));
    let beyond = |position: Position| format!("({}", entry::id(position.number));
    let (command, from, to) = match (since, oldest) {
        (Since::After(_), Some(oldest)) => ("XRANGE", entry::id(oldest), "+"),
        (Since::After(after), None) => ("XRANGE", beyond(after), "+"),
        (Since::Before(before), _) => ("XREVRANGE", beyond(before), "-"),
        (Since::Newest, _) => ("XREVRANGE", "+".to_owned(), "-"),
    };
    let mut page = cmd(command);
    page.arg(names.message_key(topic)).arg(from).arg(to).arg("COUNT").arg(limit);
    script::send_together(&mut access.redis.clone(), [read, page]).await
}

fn parse(answer: Value) -> Option<Answer> {
    let Value::Array(answers) = answer else { return None };
    let [Value::Array(known), Value::Array(entries)] = <[_; 2]>::try_from(answers).ok()? else {
        return None;
    };
    let mut parts = known.into_iter();
    let (
        Some(Value::BulkString(run)),
        Some(Value::BulkString(topic)),
        Some(Value::BulkString(oldest)),
        first,
    ) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let topic = entry::Topic::parse(&topic)?;
    let epoch = topic.epoch;
    let messages: Option<_> = entries.into_iter().map(|it| entry::entry(it, epoch)).collect();
    let is_first = match first {
        Some(Value::BulkString(header)) => entry::header(&header)? == 0,
        _ => topic.is_new,
    };
    let oldest = entry::number_at(str::from_utf8(&oldest).ok()?.parse().ok()?);
    Some(Answer { topic, since: entry::run(&run)?, oldest, messages: messages?, is_first })
}

impl Answer {
    /// Whether messages that are forgotten take the place of others.
    fn hides_others(&self, since: Since, limit: usize) -> bool {
        let is_forgotten = |first: &Kept| first.position.number < self.oldest;
        matches!(since, Since::After(_))
            && self.messages.len() >= limit
            && self.messages.first().is_some_and(is_forgotten)
    }
}

fn page(answer: Answer, since: Since) -> Page {
    let Answer { topic, since: begin, oldest, mut messages, is_first } = answer;
    messages.retain(|it| it.position.number >= oldest);
    let last = Position { epoch: topic.epoch, number: topic.last.max(begin) };
    let knows = |it: Position| it.epoch == last.epoch && it.number <= last.number;
    let is_complete = match since {
        // What was forgotten is older than what is there.
        Since::After(after) => {
            let forgotten = messages.first().map_or(topic.last, |first| first.previous);
            let is_new = messages.is_empty() && topic.is_new;
            knows(after) && begin <= after.number && (forgotten <= after.number || is_new)
        }
        Since::Before(before) => {
            messages.reverse();
            let newest = messages.last().map(|newest| newest.position.number);
            let is_cut = newest.is_some_and(|it| it < begin && begin <= before.number);
            knows(before) && !is_cut && (newest.is_some() || is_first)
        }
        Since::Newest => {
            messages.reverse();
            true
        }
    };
    if let Since::After(position) | Since::Before(position) = since
        && !knows(position)
    {
        messages.clear();
    }
    Page { messages, is_complete, last }
}

#[cfg(test)]
mod tests;
