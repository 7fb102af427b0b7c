//! The response future of the service.

use std::convert::Infallible;
use std::fmt;
use std::future::{self, Future};
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::response::{self, Answer};

/// The response future of [`LongPoll`](crate::LongPoll).
pub struct ResponseFuture {
    answer: Pin<Box<dyn Future<Output = Answer> + Send>>,
    /// Whether the connection closes after the answer, because the body is not read.
    closes: bool,
}

/// Responds at once.
pub(super) fn ready(answer: Answer) -> ResponseFuture {
    ResponseFuture::new(future::ready(answer))
}

impl ResponseFuture {
    pub(super) fn new(answer: impl Future<Output = Answer> + Send + 'static) -> Self {
        Self { answer: Box::pin(answer), closes: false }
    }

    /// Closes the connection after the answer, if `closes`.
    pub(super) fn closing_if(self, closes: bool) -> Self {
        Self { closes, ..self }
    }
}

impl Future for ResponseFuture {
    type Output = Result<Answer, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let closes = self.closes;
        self.answer
            .as_mut()
            .poll(cx)
            .map(|answer| Ok(if closes { response::closing(answer) } else { answer }))
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
