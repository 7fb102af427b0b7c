//! [`Topic`]: what the server answers about the messages of a topic.

use std::sync::atomic::Ordering;

use async_nats::jetstream::stream::LastRawMessageErrorKind;
use async_nats::{Message, StatusCode};
use futures_util::StreamExt;
use tower_channels::adapter::StoreError;

use super::ack::Ack;
use super::link::Link;
use super::message::{self, Stored};

/// A topic of a stream that is there.
pub(crate) struct Topic<'a> {
    pub(crate) link: &'a Link,
    /// Where its messages are kept.
    pub(crate) subject: String,
}

/// Messages that follow each other, and how many follow them.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) messages: Vec<Stored>,
    pub(crate) pending: u64,
}

/// How much one request brings: less than what a subscription has room for.
const BATCH: usize = 1000;
const BATCH_BYTES: usize = 1 << 20;

/// What the server answers in place of a message at the end of a batch.
const END: u16 = 204;

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::new(error.to_string())
}

impl Topic<'_> {
    /// Returns the newest message. It is that of the server which takes new ones.
    pub(crate) async fn newest(&self) -> Result<Option<Stored>, StoreError> {
        if !self.link.found.has_replicas {
            let request = format!(r#"{{"last_by_subj":"{}"}}"#, self.subject);
            let answer = self.link.client.request(self.link.direct.clone(), request.into()).await;
            return self.single(answer.map_err(failed)?);
        }
        let stream = self.link.context.get_stream_no_info(&self.link.name).await.map_err(failed)?;
        match stream.get_last_raw_message_by_subject(&self.subject).await {
            Ok(found) => Ok(Some(Stored {
                number: found.sequence,
                at: found.time.into(),
                keep: message::keep(&found.headers),
                content: found.payload,
            })),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Returns the next message from a number on, and how many follow, itself included.
    pub(crate) async fn next(&self, from: u64) -> Result<Option<(u64, u64)>, StoreError> {
        let batch = self.batch(from, 1).await?;
        Ok(batch.messages.first().map(|first| (first.number, batch.pending.saturating_add(1))))
    }

    /// Returns messages from a number on.
    pub(crate) async fn batch(&self, from: u64, count: usize) -> Result<Batch, StoreError> {
        let client = &self.link.client;
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(failed)?;
        let request = format!(
            r#"{{"seq":{from},"next_by_subj":"{}","batch":{},"max_bytes":{BATCH_BYTES}}}"#,
            self.subject,
            count.clamp(1, BATCH),
        );
        let direct = self.link.direct.clone();
        client.publish_with_reply(direct, inbox, request.into()).await.map_err(failed)?;
        let mut batch = Batch::default();
        while let Some(answer) = answers.next().await {
            self.link.read.fetch_add(answer.length as u64, Ordering::Relaxed);
            if answer.status.is_some_and(|status| status.as_u16() == END) {
                batch.pending = message::pending(&answer).unwrap_or(0);
                return Ok(batch);
            }
            match self.single(answer)? {
                Some(message) => batch.messages.push(message),
                None => return Ok(batch),
            }
        }
        Err(StoreError::new("the connection to NATS has ended"))
    }

    /// Keeps a mark, so that the topic has a number. Returns it; `None` if the topic has one already.
    pub(crate) async fn mark(&self) -> Result<Option<u64>, StoreError> {
        let (subject, headers) = (self.subject.clone(), message::mark_headers());
        let answer = self.link.client.request_with_headers(subject, headers, "".into()).await;
        match Ack::of(&answer.map_err(failed)?) {
            Ack::Kept(number) => Ok(Some(number)),
            Ack::Refused(reason) if reason.contains("wrong last sequence") => Ok(None),
            Ack::Away(reason) | Ack::Refused(reason) => Err(StoreError::new(reason)),
        }
    }

    /// Reads the answer to a request for one message.
    fn single(&self, answer: Message) -> Result<Option<Stored>, StoreError> {
        match answer.status {
            None => {
                let unknown = || StoreError::new("an answer that is not understood");
                message::stored(answer).ok_or_else(unknown).map(Some)
            }
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(StatusCode::NO_RESPONDERS) => Err(StoreError::new("the stream is not there")),
            Some(status) => {
                let words = answer.description.unwrap_or_default();
                Err(StoreError::new(format!("{status} {words}")))
            }
        }
    }
}
