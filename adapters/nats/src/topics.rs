//! [`Topics`]: the subscriptions by which a connection hears topics.

use std::pin::Pin;
use std::task::{Context, Poll};

use async_nats::{Client, Message, Subject, Subscriber};
use futures_util::stream::{Stream, StreamExt};

use crate::interest::Selection;
use crate::subjects::Subjects;

/// The subscriptions by which a connection hears topics. The stream ends when nothing is subscribed to.
pub(crate) enum Topics {
    /// One for all, in the order in which the server sends.
    All(Subscriber),
    /// One for each partition. Each keeps its order.
    Some(Partitions),
}

/// Subscriptions to partitions. All are polled when none has anything: 256 at most, some nanoseconds each.
#[derive(Default)]
pub(crate) struct Partitions {
    list: Vec<(u8, Subscriber)>,
    /// Which is polled first.
    at: usize,
    /// How many messages it has yielded in a row.
    streak: usize,
}

/// How many messages a partition yields in a row while others wait.
const MAX_STREAK: usize = 64;

impl Topics {
    pub(crate) async fn subscribe(
        client: &Client,
        subjects: &Subjects,
        selection: Selection,
    ) -> Result<Self, async_nats::Error> {
        if selection.is_all {
            return Ok(Self::All(client.subscribe(subjects.topics()).await?));
        }
        let mut partitions = Partitions::default();
        for partition in selection.partitions() {
            partitions.add(client, partition, subjects.partition(partition)).await?;
        }
        Ok(Self::Some(partitions))
    }

    /// Hears a partition. No effect if all are heard.
    pub(crate) async fn add(
        &mut self,
        client: &Client,
        subjects: &Subjects,
        partition: u8,
    ) -> Result<(), async_nats::Error> {
        match self {
            Self::All(_) => Ok(()),
            Self::Some(partitions) => {
                partitions.add(client, partition, subjects.partition(partition)).await
            }
        }
    }

    /// Does not hear a partition any more, but for what has come already. No effect if all are heard.
    pub(crate) async fn remove(&mut self, partition: u8) -> Result<(), async_nats::Error> {
        match self {
            Self::All(_) => Ok(()),
            Self::Some(partitions) => partitions.remove(partition).await,
        }
    }

    /// Hears nothing any more, but for what has come already: then the stream ends.
    pub(crate) async fn unsubscribe(&mut self) -> Result<(), async_nats::Error> {
        match self {
            Self::All(messages) => messages.unsubscribe().await?,
            Self::Some(partitions) => partitions.unsubscribe().await?,
        }
        Ok(())
    }

    /// Whether nothing is subscribed to.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Some(partitions) if partitions.is_empty())
    }
}

impl Stream for Topics {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        match &mut *self {
            Self::All(messages) => messages.poll_next_unpin(cx),
            Self::Some(partitions) => partitions.poll_next_unpin(cx),
        }
    }
}

impl Partitions {
    /// Hears a partition, on this subject.
    pub(crate) async fn add(
        &mut self,
        client: &Client,
        partition: u8,
        subject: Subject,
    ) -> Result<(), async_nats::Error> {
        let messages = client.subscribe(subject).await?;
        self.list.push((partition, messages));
        Ok(())
    }

    /// Does not hear a partition any more, but for what has come already.
    pub(crate) async fn remove(&mut self, partition: u8) -> Result<(), async_nats::Error> {
        for (_, messages) in self.list.iter_mut().filter(|(it, _)| *it == partition) {
            messages.unsubscribe().await?;
        }
        Ok(())
    }

    async fn unsubscribe(&mut self) -> Result<(), async_nats::Error> {
        for (_, messages) in &mut self.list {
            messages.unsubscribe().await?;
        }
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    fn move_on(&mut self) {
        self.at += 1;
        self.streak = 0;
    }
}

impl Stream for Partitions {
    type Item = Message;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Message>> {
        if self.streak == MAX_STREAK {
            self.move_on();
        }
        for _ in 0..self.list.len() {
            if self.at >= self.list.len() {
                self.at = 0;
            }
            let at = self.at;
            match self.list[at].1.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => {
                    self.streak += 1;
                    return Poll::Ready(Some(message));
                }
                Poll::Ready(None) => drop(self.list.swap_remove(at)),
                Poll::Pending => self.move_on(),
            }
        }
        if self.list.is_empty() { Poll::Ready(None) } else { Poll::Pending }
    }
}
