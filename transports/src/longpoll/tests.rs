use super::*;
use crate::frame::{Close, Inbound};
use crate::limits::Limits;
use crate::origin::CheckOrigin;
use crate::outbox;
use crate::session::{Rejected, Session};

struct Silent;

impl Handler for Silent {
    type Session = Self;

    async fn connect(&self, _: ConnectInfo, _: outbox::Sender) -> Result<Self, Rejected> {
        Ok(Self)
    }
}

impl Session for Silent {
    fn handle_in(&mut self, _: Inbound<'_>) -> Result<(), Close> {
        Ok(())
    }
}

#[test]
fn a_waiting_poll_is_small() {
    let acceptor = Acceptor::new(Silent, CheckOrigin::off(), Limits::new());
    let LongPoll(server) = LongPoll::new(acceptor, LongPollConfig::new());
    let (_outbox, receiver) = outbox::channel(1000);
    let connected = crate::resume::Connected::Own(Silent, receiver);
    let token = Token { id: [0; 22], cursor: 0 };
    let timer = crate::resume::expiry::Timer::new(Arc::default(), token.id);
    let session = LongPollSession::new(connected, None, false, Duration::MAX, timer);
    let session = Arc::new(session);
    let size = size_of_val(&PendingPoll { server, session, token, id: 0 }.wait());
    assert!(size <= 256, "{size} bytes");
}
