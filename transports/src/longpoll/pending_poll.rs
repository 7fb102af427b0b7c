//! A poll while it waits.

use std::future::{Future, poll_fn};
use std::sync::Arc;

use http::StatusCode;
use tokio::time::Instant;

use super::answer;
use super::registry::Registry;
use super::session::{Answered, LongPollSession, PollId};
use super::token::Token;
use crate::response::Answer;
use crate::session::Session;

/// A poll that waits for messages. Dropping it, because it was answered or its client went away, starts
/// the session timeout.
pub(super) struct PendingPoll<S: Session> {
    pub(super) registry: Arc<Registry<S>>,
    pub(super) session: Arc<LongPollSession<S>>,
    pub(super) token: Token,
    pub(super) id: PollId,
}

impl<S: Session> PendingPoll<S> {
    /// Waits for the answer.
    #[expect(clippy::manual_async_fn, reason = "its future would have room for `self` twice")]
    pub(super) fn wait(self) -> impl Future<Output = Answer> + Send {
        async move {
            let Self { registry, session, token, id } = &self;
            let answered = poll_fn(|cx| session.poll_answer(*id, *token, cx));
            let answered = tokio::time::timeout(registry.poll_timeout, answered).await;
            match answered.unwrap_or(Answered::Nothing) {
                Answered::Messages(body) => answer::json(body),
                Answered::Nothing => answer::empty(StatusCode::NO_CONTENT, *token),
                Answered::Over => {
                    if !session.is_superseded() {
                        registry.remove(&token.id);
                    }
                    answer::empty(StatusCode::NO_CONTENT, *token)
                }
            }
        }
    }
}

impl<S: Session> Drop for PendingPoll<S> {
    fn drop(&mut self) {
        self.session.end_poll(self.id, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::frame::{Close, Inbound};
    use crate::outbox;
    use crate::resume::Connected;
    use crate::resume::expiry::Timer;
    use crate::telemetry::Handles;

    struct Silent;

    impl Session for Silent {
        fn handle_in(&mut self, _: Inbound<'_>) -> Result<(), Close> {
            Ok(())
        }
    }

    #[test]
    fn a_waiting_poll_is_small() {
        let handles = Arc::new(Handles::new());
        let registry = Registry::new(Duration::MAX, Duration::MAX, Arc::clone(&handles));
        let (_outbox, receiver) = outbox::channel(1000);
        let token = Token { id: [0; 22], node: None, cursor: 0 };
        let timer = Timer::new(Arc::default(), token.id);
        let connected = Connected::own(Silent, receiver);
        let session = LongPollSession::new(connected, false, Duration::MAX, timer, handles);
        let session = Arc::new(session);
        let poll = PendingPoll { registry, session, token, id: 0 };
        let size = size_of_val(&poll.wait());
        assert!(size <= 256, "{size} bytes");
    }
}
