//! Reads a part of a topic.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::time::sleep;
use tower_channels::adapter::{Page, Since, StoreError};
use tower_channels::history::Position;

use super::direct::{Batch, Topic};
use super::link::Link;
use super::message::Stored;
use super::run::Run;
use super::search::Search;
use super::shared::Shared;

/// How long a replica has to learn what others know, before it is asked again.
const CATCH_UP: Duration = Duration::from_millis(20);

/// Reads a page.
pub(crate) async fn read(
    shared: &Shared,
    link: &Link,
    topic: &str,
    since: Since,
    limit: usize,
) -> Result<Page, StoreError> {
    let topic = Topic { link, subject: shared.subjects.kept(topic) };
    // Before anything else: what is kept by now is read.
    let newest = newest(&topic).await?;
    shared.saw(newest.number);
    let reading = Reading { shared, topic, newest };
    match since {
        Since::Newest => reading.newest(None, limit).await,
        Since::After(after) if reading.knows(after).await? => {
            reading.after(after.number, limit).await
        }
        Since::Before(before) if reading.knows(before).await? => {
            reading.newest(Some(before.number), limit).await
        }
        Since::After(_) | Since::Before(_) => Ok(reading.page(reading.run(), false)),
    }
}

/// The newest message of a topic; a mark if it has none.
async fn newest(topic: &Topic<'_>) -> Result<Stored, StoreError> {
    loop {
        if let Some(newest) = topic.newest().await? {
            return Ok(newest);
        }
        if let Some(number) = topic.mark().await? {
            return Ok(Stored { number, at: SystemTime::now(), keep: None, content: Bytes::new() });
        }
    }
}

struct Reading<'a> {
    shared: &'a Shared,
    topic: Topic<'a>,
    newest: Stored,
}

impl Reading<'_> {
    fn run(&self) -> Run {
        Run::new(self.newest.keep, SystemTime::now())
    }

    fn page(&self, run: Run, is_complete: bool) -> Page {
        let epoch = self.topic.link.found.epoch;
        // What came meanwhile has been read, too.
        let end = run.messages.back().filter(|_| run.pending == 0).map_or(0, |last| last.number);
        let last = Position { epoch, number: self.newest.number.max(end) };
        Page { messages: run.kept(epoch), is_complete, last }
    }

    /// Whether a position may be one of this stream.
    async fn knows(&self, position: Position) -> Result<bool, StoreError> {
        let link = self.topic.link;
        if position.epoch != link.found.epoch {
            return Ok(false);
        }
        if position.number <= self.shared.seen.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let found = self.shared.look(link).await?;
        Ok(position.epoch == found.epoch && position.number <= found.last)
    }

    /// The oldest messages after a number.
    async fn after(&self, after: u64, limit: usize) -> Result<Page, StoreError> {
        let mut run = self.run();
        if self.newest.number <= after {
            return Ok(self.page(run, true));
        }
        let Batch { mut messages, pending } =
            self.topic.batch(after, limit.saturating_add(1)).await?;
        let is_there = messages.first().is_some_and(|first| first.number == after);
        if is_there {
            messages.remove(0);
        }
        // If one before it is there, whatever follows is, too: the oldest go first.
        let is_complete =
            is_there || self.topic.next(0).await?.is_some_and(|(oldest, _)| oldest <= after);
        let next = if let Some(start) = self.skip(&messages, pending).await? {
            run.is_cut = true;
            start
        } else {
            run.before = is_complete.then_some(after);
            let next = messages.last().map_or(after, |last| last.number).saturating_add(1);
            run.extend(messages, pending);
            next
        };
        self.fill(&mut run, next, None, limit).await?;
        run.truncate(limit);
        let is_complete = is_complete && !run.is_cut;
        Ok(self.page(run, is_complete))
    }

    /// Where to go on, if far more messages follow than the topic keeps.
    async fn skip(&self, messages: &[Stored], pending: u64) -> Result<Option<u64>, StoreError> {
        let (Some(keep), Some(first)) = (self.newest.keep, messages.first()) else {
            return Ok(None);
        };
        let (count, wanted) = (messages.len() as u64, keep.messages as u64);
        // What was read is of use.
        if pending < wanted {
            return Ok(None);
        }
        let oldest = (first.number, pending.saturating_add(count));
        let end = (self.newest.number.saturating_add(1), 0);
        self.search(oldest, end, wanted).await.map(Some)
    }

    async fn search(
        &self,
        oldest: (u64, u64),
        end: (u64, u64),
        wanted: u64,
    ) -> Result<u64, StoreError> {
        let mut search = Search::new(oldest, end, wanted);
        while let Some(asked) = search.next() {
            search.answer(asked, self.topic.next(asked).await?);
        }
        Ok(search.start())
    }

    /// The newest messages, of all or of those before a number.
    async fn newest(&self, before: Option<u64>, limit: usize) -> Result<Page, StoreError> {
        let mut run = self.run();
        let is_empty = self.newest.keep.is_none() && self.newest.content.is_empty();
        if is_empty || limit == 0 {
            return Ok(self.page(run, before.is_none()));
        }
        if before.is_none() && limit == 1 && self.newest.keep.is_some() {
            // It is known already.
            run.extend(vec![self.newest.clone()], 0);
            return Ok(self.page(run, true));
        }
        let oldest = self.topic.next(0).await?.unwrap_or((self.newest.number, 1));
        let following = match before.filter(|before| *before <= self.newest.number) {
            Some(before) => self.topic.next(before).await?.map_or(0, |(_, count)| count),
            None => 0,
        };
        let most = self.newest.keep.map_or(limit, |keep| limit.min(keep.messages)) as u64;
        // One more, so that it is known what is before the first.
        let wanted = most.saturating_add(1).saturating_add(following);
        let end = before.unwrap_or(u64::MAX).min(self.newest.number.saturating_add(1));
        let start = self.search(oldest, (end, following), wanted).await?;
        self.fill(&mut run, start, before, usize::MAX).await?;
        let is_cut = run.is_cut;
        run.keep_last(limit);
        let is_complete = before.is_none() || run.has_messages() || {
            // Nothing is before it: was there ever anything?
            let found = self.shared.look(self.topic.link).await?;
            !is_cut && found.is_whole && oldest.1 <= found.limits.messages
        };
        Ok(self.page(run, is_complete))
    }

    /// Reads on, from a number, up to the end, or `before` another, or until it has more messages than a limit. The end is
    /// not before the newest message, which a replica may not know yet.
    async fn fill(
        &self,
        run: &mut Run,
        mut next: u64,
        before: Option<u64>,
        limit: usize,
    ) -> Result<(), StoreError> {
        loop {
            let has_all = run.pending == 0 && next > self.newest.number;
            if has_all || run.messages.len() > limit || before.is_some_and(|before| next >= before)
            {
                return Ok(());
            }
            let missing = limit.saturating_add(1) - run.messages.len();
            let Batch { mut messages, mut pending } = self.topic.batch(next, missing).await?;
            match messages.last() {
                Some(last) => next = last.number.saturating_add(1),
                None => sleep(CATCH_UP).await,
            }
            if let Some(before) = before {
                let count = messages.partition_point(|message| message.number < before);
                pending = pending.saturating_add((messages.len() - count) as u64);
                messages.truncate(count);
            }
            run.extend(messages, pending);
        }
    }
}
