//! The first use of a token whose session may be on another node: requests wait until it was looked for.

use std::mem;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::session::LongPollSession;
use super::state::AttachState;
use super::token::Token;
use super::{Refused, ResponseFuture, Server, SharedSession};
use crate::connect_info::Transport;
use crate::outbox::Receiver;
use crate::panics;
use crate::resume::Attached;
use crate::session::{Handler, Session};

/// The first use of a token, which is under way. Clones wait for the same.
#[derive(Clone, Debug)]
pub(super) struct Claiming(watch::Receiver<()>);

impl Claiming {
    /// Waits until the session is attached, or has ended.
    pub(super) async fn wait(mut self) {
        // The other end is dropped then.
        while self.0.changed().await.is_ok() {}
    }
}

/// The session of a POST, which may not be there yet.
pub(super) struct Found<H: Handler> {
    token: Token,
    session: SharedSession<H>,
    claiming: Option<Claiming>,
}

impl<H: Handler> Server<H> {
    /// See [`LongPollSession::claim`].
    pub(super) fn claim(&self, session: &SharedSession<H>) -> Option<Claiming> {
        if self.acceptor.peers().is_some() { session.claim() } else { None }
    }

    /// Begins the first poll with a token once the session is there.
    pub(super) fn poll_after(
        self: Arc<Self>,
        claiming: Claiming,
        token: Token,
        session: SharedSession<H>,
    ) -> ResponseFuture {
        ResponseFuture::new(async move {
            claiming.wait().await;
            match self.poll(token, session) {
                Ok(answer) => answer.answer().await,
                Err(refused) => self.refuse(refused).await,
            }
        })
    }

    /// Finds the session of a POST, to [wait](Self::wait) for.
    pub(super) fn find_for_post(&self, token: &str) -> Result<Found<H>, Refused> {
        let (token, session) = self.find(token)?;
        let claiming = self.claim(&session);
        if claiming.is_none() {
            self.check(&token, &session)?;
        }
        Ok(Found { token, session, claiming })
    }

    /// Waits for the session of a POST, if this is the first use of its token.
    pub(super) async fn wait(&self, found: Found<H>) -> Result<SharedSession<H>, Refused> {
        let Found { token, session, claiming } = found;
        if let Some(claiming) = claiming {
            claiming.wait().await;
            self.check(&token, &session)?;
        }
        Ok(session)
    }
}

impl<S: Session> LongPollSession<S> {
    /// Looks for the session on the other nodes, in a task of its own, if this is the first use of a token whose session
    /// may be there. Returns what the request has to wait for.
    pub(super) fn claim(self: &Arc<Self>) -> Option<Claiming> {
        let mut state = self.state.lock();
        match &state.attach {
            AttachState::Claiming(claiming) => return Some(claiming.clone()),
            AttachState::Unused(connected) if connected.may_be_elsewhere() => {}
            _ => return None,
        }
        let (done, claiming) = watch::channel(());
        let claiming = Claiming(claiming);
        let attach = AttachState::Claiming(claiming.clone());
        let unused = mem::replace(&mut state.attach, attach);
        drop(state);
        let session = Arc::clone(self);
        if let AttachState::Unused(connected) = unused {
            tokio::spawn(async move {
                let claimed = connected.claim(Transport::LongPoll);
                let attached = panics::catch_async("session", claimed).await.ok().flatten();
                session.end_claim(attached);
                drop(done);
            });
        }
        Some(claiming)
    }

    /// The first use goes on with what was found, unless the session was closed meanwhile. It is idle until a request is
    /// there that has waited for this.
    fn end_claim(&self, attached: Option<(Attached<S>, Receiver)>) {
        let mut turn = self.turn.lock();
        let mut state = self.state.lock();
        let is_waiting = matches!(state.attach, AttachState::Claiming(_));
        let unused = match attached {
            Some((session, receiver)) if is_waiting => {
                let epoch = session.epoch();
                *turn = Some(session);
                state.attach = AttachState::Attached { receiver, epoch };
                self.set_idle(&mut state, Instant::now());
                None
            }
            unused => {
                if is_waiting {
                    state.attach = AttachState::Ended(None);
                }
                unused
            }
        };
        drop(state);
        drop(turn);
        drop(unused);
    }
}
