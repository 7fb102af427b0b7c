use std::sync::Arc;

use parking_lot::Mutex;

use super::super::super::claim::Held;
use super::super::super::record::SessionRecord;
use super::super::{Answer, Call, Next, Records, Task};
use super::*;
use crate::adapter::{NodeId, Record, Revision};
use crate::history::Position;

/// A session as the look at it finds it.
#[derive(Default)]
struct Client {
    state: Mutex<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// The number up to which the client has everything.
    received: u64,
    is_attached: bool,
    has_topic: bool,
}

impl Recoverable for Client {
    fn topics(&self) -> Vec<LeftTopic> {
        let topic = LeftTopic::new("room:1", Position { epoch: 1, number: 0 });
        if self.state.lock().has_topic { vec![topic] } else { Vec::new() }
    }

    fn look(&self, number: u64, _: u64) -> Look {
        let State { received, is_attached, has_topic } = *self.state.lock();
        Look {
            number: has_topic.then_some(received.min(number)),
            is_behind: !is_attached || received < number,
            is_joining: false,
            has_changed: false,
        }
    }
}

/// The store, and a node with sessions that are followed.
struct World {
    records: Records,
    clients: Vec<(Arc<str>, Arc<Client>)>,
    /// By session.
    stored: Vec<Option<Record>>,
    revision: u64,
    horizon: Option<u64>,
    /// The highest number that it may ever have had.
    highest: u64,
    now: u64,
}

const SOCKET: u64 = 7;

impl World {
    fn new(clients: usize) -> Self {
        let mut world = Self {
            records: Records::new(NodeId(1)),
            clients: Vec::new(),
            stored: vec![None; clients],
            revision: 0,
            horizon: None,
            highest: 0,
            now: 0,
        };
        for index in 0..clients {
            let id: Arc<str> = index.to_string().into();
            world.clients.push((Arc::clone(&id), Arc::default()));
            world.connect(index, false);
        }
        world
    }

    /// A client comes to the node.
    fn connect(&mut self, index: usize, continues: bool) {
        self.revision += 1;
        let held = Held { generation: 1, seen: Some(Revision(self.revision)), is_recorded: true };
        let (id, client) = &self.clients[index];
        let left = self.records.left(id);
        let mut record = SessionRecord::new(NodeId(1), 1, SOCKET);
        record.left = left.clone();
        let revision = Revision(self.revision);
        self.stored[index] = Some(Record { value: record.encode(), revision });
        self.records.own(id, SOCKET, held, self.now);
        self.records.stored(id, left.as_ref());
        if left.is_none() {
            let client: Arc<dyn Recoverable> = Arc::clone(client) as _;
            self.records.follow(id, Arc::downgrade(&client), continues, self.now);
        }
        client.state.lock().is_attached = true;
    }

    fn set(&self, index: usize, set: impl FnOnce(&mut State)) {
        set(&mut self.clients[index].1.state.lock());
    }

    /// A client joins, and begins behind what was delivered until then.
    fn join(&mut self, index: usize, delivered: u64) {
        self.set(index, |state| {
            if !state.has_topic {
                (state.has_topic, state.received) = (true, delivered);
            }
        });
        self.records.change(&self.clients[index].0, self.now);
    }

    fn round(&mut self, number: u64) {
        self.highest = self.highest.max(number);
        for (id, client) in &self.clients {
            let look = client.look(number, self.now);
            self.records.looked(id, look, self.highest, self.now);
        }
    }

    fn write_horizon(&mut self, number: u64) {
        self.horizon = Some(self.records.horizon().unwrap_or(number).min(number));
    }

    /// Carries out a task. `fails` says that the answer is lost, with or without the write.
    fn carry_out(&mut self, task: Task, fails: Option<bool>) {
        let index: usize = task.id.parse().expect("a number");
        let (seen, record) = match &task.call {
            Call::Write { seen, record } => (*seen, record.encode()),
            call => panic!("{call:?}"),
        };
        let there = self.stored[index].clone();
        let mut answer = Answer::Failed;
        if fails != Some(false) {
            answer = if there.as_ref().map(|it| it.revision) == seen {
                self.revision += 1;
                let revision = Revision(self.revision);
                self.stored[index] = Some(Record { value: record, revision });
                Answer::Replaced(revision)
            } else {
                Answer::There(there)
            };
        }
        let answer = if fails.is_some() { Answer::Failed } else { answer };
        if let Next::Again(task) = self.records.done(task, answer, self.now) {
            self.carry_out(task, None);
        }
    }

    /// Carries out all that is due.
    fn settle(&mut self) {
        while let Some(task) = self.records.next(self.now) {
            self.carry_out(task, None);
        }
    }

    /// From where the topic of a session goes on if the node dies now.
    fn after(&self, index: usize) -> Option<u64> {
        let record = SessionRecord::decode(self.stored[index].as_ref()?.value.clone())?;
        let left = record.left?.after(self.horizon);
        left.topics.first().map(|it| it.number)
    }
}

#[test]
fn the_topics_are_written_in_a_tenth_of_a_second_together() {
    let mut world = World::new(2);
    world.join(0, 0);
    world.now = 60;
    world.join(0, 0);
    world.now = 99;
    assert!(world.records.next(world.now).is_none());
    world.now = 100;
    let task = world.records.next(world.now).expect("a write");
    world.carry_out(task, None);
    assert!(world.records.next(world.now).is_none(), "one for all");
    assert_eq!((world.after(0), world.after(1)), (Some(0), None));
}

#[test]
fn one_number_says_what_all_have_received_that_have_a_connection() {
    let mut world = World::new(2);
    (0..2).for_each(|index| world.join(index, 0));
    world.now = 100;
    world.settle();
    (0..2).for_each(|index| world.set(index, |it| it.received = 50));
    world.round(40);
    world.write_horizon(40);
    assert_eq!([world.after(0), world.after(1)], [Some(40); 2]);
    let writes = world.revision;
    world.settle();
    assert_eq!(world.revision, writes, "nothing is written for each");
}

#[test]
fn a_session_that_loses_its_connection_does_not_hold_up_the_others() {
    let mut world = World::new(2);
    (0..2).for_each(|index| world.join(index, 0));
    world.now = 100;
    world.settle();
    (0..2).for_each(|index| world.set(index, |it| it.received = 50));
    world.set(0, |it| it.is_attached = false);
    world.set(1, |it| it.received = 90);
    world.round(80);
    world.write_horizon(80);
    assert_eq!(world.horizon, Some(50), "its record counts on the number");
    world.now = 200;
    world.settle();
    world.write_horizon(80);
    assert_eq!([world.after(0), world.after(1)], [Some(50), Some(80)]);
    // It comes back, and has everything.
    world.connect(0, false);
    world.set(0, |it| it.received = 90);
    world.now = 300;
    world.round(85);
    world.settle();
    assert_eq!(world.after(0), Some(50), "for a while");
    world.now = 200 + HYSTERESIS + 100;
    world.round(88);
    world.now += BATCH;
    world.settle();
    world.write_horizon(88);
    assert_eq!(world.after(0), Some(88));
}

#[test]
fn a_session_that_continues_another_counts_on_no_number_of_this_node() {
    let mut world = World::new(2);
    world.records = Records::new(NodeId(1));
    world.connect(0, true);
    world.connect(1, false);
    (0..2).for_each(|index| world.join(index, 0));
    world.now = 100;
    world.settle();
    world.set(1, |it| it.received = 70);
    world.set(0, |it| it.received = 20);
    world.round(60);
    world.write_horizon(60);
    assert_eq!([world.after(0), world.after(1)], [Some(0), Some(60)]);
}

#[test]
fn a_record_that_was_written_without_an_answer_counts_on_the_number() {
    let mut world = World::new(1);
    world.join(0, 0);
    world.now = 100;
    let task = world.records.next(world.now).expect("a write");
    world.carry_out(task, Some(true));
    world.set(0, |it| (it.received, it.is_attached) = (50, false));
    world.round(80);
    world.write_horizon(80);
    assert_eq!(world.after(0), Some(50));
}

#[test]
fn a_number_of_its_own_is_written_again_when_it_has_grown_for_long() {
    let mut world = World::new(1);
    world.join(0, 0);
    world.now = 100;
    world.settle();
    world.set(0, |it| it.received = 10);
    let mut writes = Vec::new();
    for round in 1..60 {
        world.now = 1000 * round;
        world.set(0, |it| it.received += 1);
        world.round(1000);
        world.now += BATCH;
        let before = world.revision;
        world.settle();
        if world.revision > before {
            writes.push(round);
        }
    }
    assert_eq!(writes, [1, 21, 41]);
}

/// Whenever the node dies, no topic goes on behind what its client has received.
#[test]
fn nothing_is_skipped_however_writes_fail_and_connections_come_and_go() {
    for seed in 1..=500_u64 {
        let mut state = seed;
        let mut random = move |below: u64| {
            // xorshift
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut world = World::new(4);
        let mut delivered = 0_u64;
        let mut under_way: Vec<Task> = Vec::new();
        for step in 0..300 {
            world.now += random(400);
            let index = usize::try_from(random(4)).expect("small");
            let State { is_attached, .. } = *world.clients[index].1.state.lock();
            match random(10) {
                0..3 => delivered += random(20),
                3..5 if is_attached => world.set(index, |it| it.received = delivered),
                5 if is_attached => world.set(index, |it| it.is_attached = false),
                5 => world.connect(index, false),
                6 if is_attached => world.join(index, delivered),
                7 => {
                    let number = delivered.saturating_sub(random(10));
                    world.round(number);
                    // Between the look and the write whatever may happen.
                    if random(2) == 0 {
                        world.write_horizon(number);
                    }
                }
                8 => under_way.extend(world.records.next(world.now)),
                _ => {
                    if let Some(task) = under_way.pop() {
                        let fails = (random(4) == 0).then(|| random(2) == 0);
                        world.carry_out(task, fails);
                    }
                }
            }
            for (index, (_, client)) in world.clients.iter().enumerate() {
                let State { received, .. } = *client.state.lock();
                let after = world.after(index).unwrap_or(0);
                assert!(
                    after <= received,
                    "seed {seed}, step {step}: {index} goes on behind {after}, and has {received}"
                );
            }
        }
    }
}
