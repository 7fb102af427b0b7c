//! The response future of the service.

use std::convert::Infallible;
use std::fmt;
use std::future::{self, Future};
use std::pin::Pin;
use std::task::{Context, Poll};

use super::answer;
use crate::response::{self, Answer};

/// The response future of [`LongPoll`](crate::LongPoll).
pub struct ResponseFuture {
    answer: Pin<Box<dyn Future<Output = Answer> + Send>>,
    /// Whether the connection closes after the answer, because the body is not read.
    closes: bool,
    /// Whether pages of other sites may read the answer.
    cors: bool,
}

/// Responds at once.
pub(super) fn ready(answer: Answer) -> ResponseFuture {
    ResponseFuture::new(future::ready(answer))
}

impl ResponseFuture {
    pub(super) fn new(answer: impl Future<Output = Answer> + Send + 'static) -> Self {
        Self { answer: Box::pin(answer), closes: false, cors: true }
    }

    /// The answer alone, which the caller sends.
    pub(super) fn answer(self) -> impl Future<Output = Answer> + Send {
        self.answer
    }

    /// Closes the connection after the answer, if `closes`.
    pub(super) fn closing_if(self, closes: bool) -> Self {
        Self { closes, ..self }
    }

    /// Lets pages of other sites read the answer, if `cors`.
    pub(super) fn with_cors(self, cors: bool) -> Self {
        Self { cors, ..self }
    }
}

impl Future for ResponseFuture {
    type Output = Result<Answer, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { closes, cors, .. } = *self;
        self.answer.as_mut().poll(cx).map(|answer| {
            let answer = if closes { response::closing(answer) } else { answer };
            Ok(if cors { answer } else { answer::without_cors(answer) })
        })
    }
}

impl fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
