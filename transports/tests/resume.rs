//! Resumable sessions through the public contract, without a network.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use tower_channels_transports::{
    Acceptor, CheckOrigin, Close, ConnectInfo, Handler, Inbound, Limits, Rejected, Session,
    Transport, outbox,
};

/// What the sessions of a test went through, in order.
type Record = Arc<Mutex<Vec<String>>>;

struct Recorder(Record);

struct Recorded {
    record: Record,
    id: String,
}

impl Handler for Recorder {
    type Session = Recorded;

    async fn connect(&self, info: ConnectInfo, _: outbox::Sender) -> Result<Recorded, Rejected> {
        let id = info.param("user").unwrap_or("ann").to_owned();
        Ok(Recorded { record: Arc::clone(&self.0), id })
    }
}

impl Recorded {
    fn note(&self, event: &str) {
        self.record.lock().unwrap().push(event.to_owned());
    }
}

impl Session for Recorded {
    fn handle_in(&mut self, message: Inbound<'_>) -> Result<(), Close> {
        let Inbound::Text(text) = message else { return Ok(()) };
        self.note(&format!("begin {text}"));
        if text == "slow" {
            std::thread::sleep(SLOW);
        }
        self.note(&format!("end {text}"));
        Ok(())
    }

    fn id(&self) -> Option<&str> {
        Some(&self.id)
    }

    fn attached(&mut self, _: u64, _: Transport) {
        self.note("attached");
    }

    fn detached(&mut self) {
        self.note("detached");
    }

    fn rejoin_deadline(&mut self) {
        self.note("rejoin deadline");
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        self.note("dropped");
    }
}

const SLOW: Duration = Duration::from_millis(500);

fn acceptor() -> (Acceptor<Recorder>, Record) {
    let record = Record::default();
    let handler = Recorder(Arc::clone(&record));
    (Acceptor::new(handler, CheckOrigin::off(), Limits::default()), record)
}

/// A connect with the session id that ends in `tab`.
fn info(tab: u32) -> ConnectInfo {
    let params = Map::from_iter([("session".to_owned(), Value::from(format!("{tab:022}")))]);
    ConnectInfo::in_memory(params)
}

#[tokio::test]
async fn a_handler_that_blocks_delays_no_connect() {
    let (acceptor, record) = acceptor();
    let (mut session, receiver) = acceptor.connect(info(1)).await.unwrap();
    let (began, begins) = mpsc::channel();
    let blocked = std::thread::spawn(move || {
        began.send(()).unwrap();
        let handled = session.handle_in(Inbound::Text("slow"));
        (session, handled)
    });
    begins.recv().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let begun = Instant::now();
    let other = acceptor.connect(info(2)).await.unwrap();
    let elsewhere = begun.elapsed();
    let begun = Instant::now();
    let (mut newer, newer_receiver) = acceptor.connect(info(1)).await.unwrap();
    let here = begun.elapsed();
    assert!(elsewhere < SLOW / 5, "another session's connect took {elsewhere:?}");
    assert!(here < SLOW / 5, "the same session's connect took {here:?}");
    newer.handle_in(Inbound::Text("next")).unwrap();
    let (mut older, handled) = blocked.join().unwrap();
    assert_eq!(handled, Ok(()));
    assert_eq!(older.handle_in(Inbound::Text("stale")), Err(Close::Restart));
    drop((older, receiver, other, newer, newer_receiver));
    println!("{:?}", record.lock().unwrap());
}
