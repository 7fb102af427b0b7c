//! The store of the model, with the record of one session.

use bytes::Bytes;

use super::super::claim::Event;
use super::super::record::SessionRecord;
use super::super::records;
use super::node::{Message, Token};
use crate::adapter::{Record, Revision};

#[derive(Default)]
pub(super) struct Store {
    record: Option<Record>,
    last: u64,
    pub(super) faults: Faults,
}

#[derive(Clone, Copy)]
pub(super) struct Faults {
    /// How many milliseconds a request takes to the store, and its answer back.
    pub(super) before: u64,
    pub(super) after: u64,
    /// It returns an error,
    fails: bool,
    /// and does it all the same.
    works: bool,
}

pub(super) struct Request {
    what: What,
    /// What is to be replaced, and by what.
    replace: Option<(Option<Revision>, Option<Bytes>)>,
}

enum What {
    Claim(Token),
    Task(u64),
}

impl Default for Faults {
    fn default() -> Self {
        Self { before: 1, after: 1, fails: false, works: true }
    }
}

impl Faults {
    pub(super) fn new(value: u64) -> Self {
        let delays = [1, 300, 700, 1500];
        let [before, after] = [value, value / 4].map(|it| delays[it as usize % 4]);
        Self { before, after, fails: value & 16 != 0, works: value & 32 == 0 }
    }
}

impl Request {
    pub(super) fn claim(token: Token, seen: Option<Revision>, value: Option<Bytes>) -> Self {
        Self { what: What::Claim(token), replace: Some((seen, value)) }
    }

    pub(super) fn task(number: u64, seen: Option<Revision>, value: Option<Bytes>) -> Self {
        Self { what: What::Task(number), replace: Some((seen, value)) }
    }

    pub(super) fn read(number: u64) -> Self {
        Self { what: What::Task(number), replace: None }
    }
}

impl Store {
    /// Loses everything.
    pub(super) fn forget(&mut self) {
        self.record = None;
    }

    /// Another release writes something.
    pub(super) fn spoil(&mut self) {
        self.write("\x02".into());
    }

    pub(super) fn session(&self) -> Option<SessionRecord> {
        self.record.as_ref().and_then(|record| SessionRecord::decode(record.value.clone()))
    }

    /// Does what is requested, and returns the answer.
    pub(super) fn apply(&mut self, request: Request) -> Message {
        let Faults { fails, works, .. } = self.faults;
        let mut answer = records::Answer::There(self.record.clone());
        if let Some((seen, value)) = request.replace.filter(|_| works || !fails)
            && seen == self.record.as_ref().map(|record| record.revision)
        {
            answer = records::Answer::Replaced(self.replace(value));
        }
        if fails {
            answer = records::Answer::Failed;
        }
        match request.what {
            What::Task(number) => Message::Done(number, answer),
            What::Claim(token) => Message::Claimed(
                token,
                match answer {
                    records::Answer::Replaced(revision) => Event::Replaced(revision),
                    records::Answer::There(there) => Event::Refused(there),
                    records::Answer::Failed => Event::Failed,
                },
            ),
        }
    }

    fn replace(&mut self, value: Option<Bytes>) -> Revision {
        let Some(value) = value else {
            self.record = None;
            return Revision(0);
        };
        let newer = SessionRecord::decode(value.clone()).expect("a record of this release");
        if let Some(older) = self.session() {
            let is_newer = newer.generation > older.generation;
            let is_same = newer.generation == older.generation && newer.owner() == older.owner();
            assert!(is_newer || is_same, "{newer:?} has replaced {older:?}");
        }
        self.write(value)
    }

    fn write(&mut self, value: Bytes) -> Revision {
        self.last += 1;
        let revision = Revision(self.last);
        self.record = Some(Record { value, revision });
        revision
    }
}
