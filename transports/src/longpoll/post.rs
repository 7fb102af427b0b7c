//! POSTs: reads the body, and passes it to the session, or to the node that has it.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::request::Parts;
use http_body::Body;
use tokio::time::Instant;

use super::batch::{self, Batch, BatchError};
use super::body::{self, BodyError};
use super::first_use::Found;
use super::future::{ResponseFuture, ready};
use super::relay::{LONGEST, Owner};
use super::state::Gone;
use super::{Refused, Server, SharedSession, answer, token};
use crate::error::ConnectError;
use crate::frame::Close;
use crate::limited;
use crate::memory::{Account, Reservation};
use crate::response::{self, Answer};
use crate::session::Handler;
use crate::telemetry::LONGPOLL_BODIES_TIMED_OUT;

/// Who handles the messages of a POST.
enum Recipient<H: Handler> {
    Session(Found<H>),
    Owner(Owner),
}

impl<H: Handler> Server<H> {
    /// Receives messages from a client.
    ///
    /// # Errors
    /// Returns the answer if the body is not to be read.
    pub(super) fn post<B>(
        self: &Arc<Self>,
        parts: &Parts,
        body: B,
    ) -> Result<ResponseFuture, ResponseFuture>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Send,
    {
        let recipient = match token::of(parts).map(|token| self.find_recipient(&token)) {
            Some(Ok(recipient)) => recipient,
            Some(Err(refused)) => {
                self.discard_unless_expected(parts, body);
                return Err(ResponseFuture::new(Arc::clone(self).refuse(refused)));
            }
            None => {
                self.discard_unless_expected(parts, body);
                return Err(ready(answer::status(StatusCode::GONE)));
            }
        };
        if body.size_hint().lower() > self.largest_body_of(&recipient) as u64 {
            self.discard_unless_expected(parts, body);
            return Err(ready(answer::too_large()));
        }
        let ndjson = batch::is_ndjson(&parts.headers);
        Ok(ResponseFuture::new(Arc::clone(self).receive(recipient, ndjson, body)))
    }

    fn find_recipient(&self, token: &str) -> Result<Recipient<H>, Refused> {
        match self.other_node(token) {
            Some(owner) => Ok(Recipient::Owner(owner)),
            None => self.find_for_post(token).map(Recipient::Session),
        }
    }

    async fn receive<B>(self: Arc<Self>, recipient: Recipient<H>, ndjson: bool, body: B) -> Answer
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Send,
    {
        let limit = self.largest_body_of(&recipient);
        let found = match recipient {
            Recipient::Session(found) => found,
            Recipient::Owner(owner) => {
                let account = Some(self.acceptor.memory().account());
                return match self.read(body, limit, account).await {
                    Ok((body, held)) => self.relay_post(owner, ndjson, body, held).await,
                    Err(answer) => answer,
                };
            }
        };
        let session = match self.wait(found).await {
            Ok(session) => session,
            Err(refused) => {
                self.spawn_discard(Box::pin(body));
                return self.refuse(refused).await;
            }
        };
        let (body, held) = match self.read(body, limit, session.account()).await {
            Ok(read) => read,
            Err(answer) => return answer,
        };
        match self.deliver(session, ndjson, body, held, Duration::MAX).await {
            Ok(answer) => answer,
            Err(refused) => self.refuse(refused).await,
        }
    }

    /// Reads a body.
    ///
    /// # Errors
    /// Returns the answer if it cannot be read, or not as a whole.
    async fn read<B>(
        &self,
        body: B,
        limit: usize,
        account: Option<Arc<Account>>,
    ) -> Result<(Bytes, Option<Reservation>), Answer>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Send,
    {
        let mut body = Box::pin(body);
        let mut held = account.map(Reservation::new);
        let timeout = self.config.body_timeout;
        match body::read(body.as_mut(), limit, timeout, held.as_mut()).await {
            Ok(bytes) => Ok((bytes, held)),
            Err(BodyError::NoMemory) => {
                self.spawn_discard(body);
                Err(answer::refused(&ConnectError::Busy))
            }
            Err(BodyError::TooLarge) => {
                self.spawn_discard(body);
                Err(answer::too_large())
            }
            Err(BodyError::Broken) => Err(answer::status(StatusCode::BAD_REQUEST)),
            Err(BodyError::TooSlow) => {
                LONGPOLL_BODIES_TIMED_OUT.add(1);
                limited!(DEBUG, "the body of a POST timed out");
                Err(answer::status(StatusCode::REQUEST_TIMEOUT))
            }
        }
    }

    /// Passes the messages of a body to its session. The answer to a client that exceeds its rate waits, for
    /// `patience` at most.
    ///
    /// Cancel safety: all messages are handled, or none.
    pub(super) async fn deliver(
        &self,
        session: SharedSession<H>,
        ndjson: bool,
        body: Bytes,
        held: Option<Reservation>,
        patience: Duration,
    ) -> Result<Answer, Refused> {
        let batch = match Batch::new(body, ndjson, self.acceptor.limits().message) {
            Ok(batch) => batch,
            Err(BatchError::TooLarge) => return Ok(answer::too_large()),
            Err(BatchError::Undecodable) => return Ok(answer::status(StatusCode::BAD_REQUEST)),
        };
        let Ok(waits_until) = session.throttle(self.acceptor.limits().rate, &batch) else {
            return Ok(answer::status(StatusCode::INTERNAL_SERVER_ERROR));
        };
        let handled = Arc::clone(&session).handle_batch(batch).await;
        drop(held);
        if let Some(until) = waits_until {
            let wait = until.saturating_duration_since(Instant::now());
            tokio::time::sleep(wait.min(patience)).await;
        }
        match handled {
            // `Normal` is the end that the client asked for.
            Ok(Ok(()) | Err(Close::Normal)) => Ok(answer::status(StatusCode::OK)),
            Ok(Err(_)) => Ok(answer::status(StatusCode::INTERNAL_SERVER_ERROR)),
            Err(Gone) if session.is_superseded() => Err(Refused::Superseded),
            Err(Gone) => Err(Refused::Unknown),
        }
    }

    /// The size of the largest body that is handled here.
    pub(super) fn largest_body(&self) -> usize {
        Batch::largest_body(self.acceptor.limits().message)
    }

    fn largest_body_of(&self, recipient: &Recipient<H>) -> usize {
        match recipient {
            Recipient::Session(_) => self.largest_body(),
            Recipient::Owner(_) => self.largest_body().min(LONGEST),
        }
    }

    /// Reads a body whose request is answered early, unless its client waits to be asked for it.
    fn discard_unless_expected<B>(&self, parts: &Parts, body: B)
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Send,
    {
        if !response::expects_continue(parts) {
            self.spawn_discard(Box::pin(body));
        }
    }

    /// Reads the rest of a body whose request is answered early. A client that writes everything before
    /// it reads would find the connection reset, and never see the response.
    fn spawn_discard<B>(&self, mut body: Pin<Box<B>>)
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Send,
    {
        if body.is_end_stream() {
            return;
        }
        let limit = self.largest_body().saturating_mul(8);
        let timeout = self.config.body_timeout;
        tokio::spawn(async move { body::discard(body.as_mut(), limit, timeout).await });
    }
}
