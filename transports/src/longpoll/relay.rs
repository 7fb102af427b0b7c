//! Requests whose token names another node: how they are passed on, and how that node answers them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::RETRY_AFTER;

use super::token::Token;
use super::{Refused, Server, answer, body};
use crate::error::ConnectError;
use crate::limited;
use crate::memory::Reservation;
use crate::peers::{NodeId, NotRelayed, Peers, Relayed, RelayedAnswer};
use crate::response::{self, Answer};
use crate::session::Handler;
use crate::telemetry::LONGPOLL_RELAYED;

/// The other node that a token names.
pub(super) struct Owner {
    peers: Arc<dyn Peers>,
    node: NodeId,
    token: Token,
}

impl<H: Handler> Server<H> {
    /// Returns the node that has the session of a token, if it is another one that is known.
    pub(super) fn other_node(&self, token: &str) -> Option<Owner> {
        let peers = self.acceptor.peers()?;
        let token = Token::parse(token)?;
        let node = token.node.filter(|node| *node != peers.node() && peers.knows(*node))?;
        Some(Owner { peers: Arc::clone(peers), node, token })
    }

    /// Passes a poll on.
    pub(super) async fn relay_poll(self: Arc<Self>, owner: Owner) -> Answer {
        let request = Relayed::Poll { token: owner.token.to_text() };
        let late = || answer::empty(StatusCode::NO_CONTENT, owner.token);
        self.relay("poll", &owner, request, late).await
    }

    /// Passes the body of a POST on, for which `held` is reserved.
    pub(super) async fn relay_post(
        &self,
        owner: Owner,
        ndjson: bool,
        body: Bytes,
        held: Option<Reservation>,
    ) -> Answer {
        let request = Relayed::Post { token: owner.token.to_text(), ndjson, body };
        let late = || answer::status(StatusCode::INTERNAL_SERVER_ERROR);
        let answer = self.relay("post", &owner, request, late).await;
        drop(held);
        answer
    }

    /// Passes a request on, and returns the answer to the client. A node that is gone has taken its sessions along:
    /// every client connects anew on 500, at once.
    async fn relay(
        &self,
        kind: &'static str,
        owner: &Owner,
        request: Relayed,
        late: impl FnOnce() -> Answer,
    ) -> Answer {
        let relayed = owner.peers.relay(owner.node, request).await;
        let (result, answer) = match relayed.map(|relayed| self.receive_answer(relayed)) {
            Ok(Some(answer)) => ("answered", answer),
            Ok(None) => ("memory", answer::refused(&ConnectError::Busy)),
            Err(NotRelayed::Gone) => ("gone", answer::status(StatusCode::INTERNAL_SERVER_ERROR)),
            Err(NotRelayed::Late) => ("late", late()),
            Err(NotRelayed::Busy) => ("busy", answer::refused(&ConnectError::Busy)),
        };
        LONGPOLL_RELAYED.increment([kind, result], 1);
        match result {
            "answered" => {}
            "memory" | "busy" => limited!(WARN, kind, result, "long-poll request refused: no room"),
            _ => limited!(DEBUG, kind, result, "long-poll request without an answer of its node"),
        }
        answer
    }

    /// Returns the answer of another node, whose body counts against the memory of this one until it is written;
    /// `None` if that is exceeded.
    fn receive_answer(&self, relayed: RelayedAnswer) -> Option<Answer> {
        let memory = self.acceptor.memory();
        let body = match memory.hold(relayed.body) {
            Ok(held) => {
                memory.relieve();
                if memory.is_exceeded() {
                    return None;
                }
                held
            }
            Err(small) => small,
        };
        let mut answer = answer::json(body);
        let status = StatusCode::from_u16(relayed.status).ok();
        *answer.status_mut() = status
            .filter(|status| !status.is_informational())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let after = relayed.retry_after.map(u64::from).map(Duration::from_secs);
        Some(response::retrying(answer, after))
    }

    /// Answers a request that another node passes on.
    ///
    /// Only polls of unknown tokens wait for a pause: POSTs would have the other node hold their bodies meanwhile.
    pub(super) async fn answer_relayed(self: Arc<Self>, request: Relayed) -> RelayedAnswer {
        let answer = match request {
            Relayed::Poll { token } => match self.begin_poll(&token) {
                Ok(answer) => answer.await.unwrap_or_else(|never| match never {}),
                Err(refused) => self.refuse(refused).await,
            },
            Relayed::Post { token, ndjson, body } => {
                let handled = self.handle_relayed(&token, ndjson, body).await;
                handled.unwrap_or_else(Refused::answer)
            }
        };
        to_relayed(answer)
    }

    async fn handle_relayed(
        &self,
        token: &str,
        ndjson: bool,
        body: Bytes,
    ) -> Result<Answer, Refused> {
        let session = self.wait(self.find_for_post(token)?).await?;
        if body.len() > self.largest_body() {
            return Ok(answer::too_large());
        }
        let mut held = session.account().map(Reservation::new);
        if held.as_mut().is_some_and(|held| body::reserve(held, body.len()).is_err()) {
            return Ok(answer::refused(&ConnectError::Busy));
        }
        self.deliver(session, ndjson, body, held, PATIENCE).await
    }
}

/// Encodes an answer for the other node.
fn to_relayed(answer: Answer) -> RelayedAnswer {
    let (head, body) = answer.into_parts();
    let body = body.into_inner().unwrap_or_default();
    let bytes = body.len();
    if bytes > LONGEST {
        LONGPOLL_RELAYED.increment(["poll", "too_large"], 1);
        limited!(WARN, bytes, "a message is too long for a client at another node");
        return to_relayed(answer::status(StatusCode::INTERNAL_SERVER_ERROR));
    }
    let after = head.headers.get(RETRY_AFTER).and_then(|after| after.to_str().ok());
    let retry_after = after.and_then(|after| after.parse().ok());
    RelayedAnswer { status: head.status.as_u16(), retry_after, body }
}

/// The longest body that nodes pass each other: 6 MiB, less some room for what surrounds it.
pub(super) const LONGEST: usize = (6 << 20) - (4 << 10);

/// How long the answer to a relayed POST waits for the rate of its client: a node waits for three seconds.
const PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
