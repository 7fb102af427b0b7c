use std::time::Duration;

use smol_str::SmolStr;
use tower_channels_transports::DetachReason;

use super::*;
use crate::message::Ref;
use crate::payload::Payload;

fn push(size: usize) -> Command {
    let payload = Payload::binary(vec![0; size]);
    Command::Push { reference: Ref::NULL, event: "e".into(), payload }
}

#[tokio::test]
async fn what_waits_is_handled_after_the_socket_is_gone() {
    let (mailbox, mut commands) = channel(1000, None);
    mailbox.send(push(1)).expect("open");
    drop(mailbox);
    assert!(commands.recv().await.is_some());
    assert!(commands.recv().await.is_none());
}

#[tokio::test]
async fn a_full_mailbox_refuses_commands_until_it_is_read() {
    let (mailbox, mut commands) = channel(1000, None);
    mailbox.send(push(2000)).expect("one always fits");
    mailbox.send(push(1000)).expect("and what may wait behind it");
    assert_eq!(mailbox.send(push(1)), Err(SendError::Full));
    commands.recv().await;
    commands.recv().await;
    mailbox.send(push(1)).expect("there is room again");
}

#[tokio::test]
async fn a_full_mailbox_accepts_what_a_timer_sends() {
    let (mailbox, mut commands) = channel(1000, None);
    while mailbox.send(push(1000)).is_ok() {}
    mailbox.send(Command::Tick(Box::new(()))).expect("it counts nothing");
    assert_eq!(mailbox.send(push(1)), Err(SendError::Full));
    while !matches!(commands.recv().await, Some(Command::Tick(_))) {}
    mailbox.send(push(1)).expect("there is room again");
}

#[test]
fn a_full_mailbox_holds_as_much_as_its_limit() {
    const LIMIT: usize = 1 << 20;
    let text = |size| SmolStr::from("x".repeat(size));
    let reference = |text: &str| Ref::from_json(text).expect("a ref");
    let push = |size, ref_text: &str| {
        let payload = Payload::binary(vec![0; size]);
        Command::Push { reference: reference(ref_text), event: text(size), payload }
    };
    let long_ref = "7".repeat(200);
    let commands: [&dyn Fn() -> Command; 8] = [
        &|| push(0, "1"),
        &|| push(200, "1"),
        &|| push(200, &long_ref),
        &|| Command::Leave { reference: reference(&long_ref) },
        &|| Command::Info(Box::new(Some([0_u8; 5000]))),
        &|| Command::Detached(DetachReason::Lost),
        &|| rejoin(),
        &|| {
            let (join_ref, reference) = (reference(&long_ref), reference(&long_ref));
            let (payload, timeout) = (Payload::binary(vec![0; 200]), Duration::ZERO);
            let (after, epoch) = (None, 1);
            let rejoin = Rejoin { join_ref, reference, payload, after, epoch, timeout };
            Command::Rejoin(Box::new(rejoin))
        },
    ];
    for (kind, command) in commands.iter().enumerate() {
        let (mailbox, _commands) = channel(LIMIT, None);
        let held = allocation_counter::measure(|| while mailbox.send(command()).is_ok() {});
        assert!(held.bytes_current <= (LIMIT + LIMIT / 4) as i64, "{kind}: {held:?}");
        assert!(held.bytes_current >= (LIMIT / 2) as i64, "{kind}: {held:?}");
    }
}

#[test]
fn an_ended_channel_accepts_no_commands() {
    let (mailbox, commands) = channel(1000, None);
    drop(commands);
    assert!(mailbox.is_over());
    assert_eq!(mailbox.send(push(1)), Err(SendError::Closed));
    assert!(!mailbox.replace() && !mailbox.abandon());
}

#[test]
fn a_channel_notifies_its_client_of_its_end_unless_its_successor_does() {
    let ended = |act: fn(&Owner)| {
        let (mailbox, mut commands) = channel(1000, None);
        mailbox.send(push(1)).expect("open");
        act(&mailbox);
        let ended = commands.end(Succession::Possible, |ending| ending);
        (ended.waiting.len(), ended.notified)
    };
    assert_eq!(ended(|_| ()), (1, Ending::Own));
    assert_eq!(ended(|mailbox| assert!(mailbox.replace())), (0, Ending::Replaced));
    let replace_and_abandon = |mailbox: &Owner| assert!(mailbox.replace() && mailbox.abandon());
    assert_eq!(ended(replace_and_abandon), (0, Ending::Abandoned));
}

#[test]
fn a_channel_that_has_ended_or_was_abandoned_sends_nothing_more() {
    let sends = |sender: &Sender| sender.while_alive(|| ()).is_some();
    let (_first, commands) = channel(1000, None);
    let (second, other_commands) = channel(1000, None);
    let (first, abandoned) = (commands.sender(), other_commands.sender());
    assert!(sends(&first) && sends(&abandoned) && !abandoned.is_muted());
    drop(commands);
    assert!(second.abandon() && abandoned.is_muted());
    assert!(!sends(&first) && !sends(&abandoned));
}

fn rejoin() -> Command {
    Command::Rejoin(Box::new(Rejoin {
        join_ref: Ref::NULL,
        reference: Ref::NULL,
        payload: Payload::EMPTY,
        after: None,
        epoch: 1,
        timeout: Duration::ZERO,
    }))
}

#[tokio::test]
async fn the_instance_behind_a_rejoin_receives_what_the_client_sent_behind_it() {
    let (mailbox, mut commands) = channel(1000, None);
    let first = commands.sender();
    mailbox.send(push(1)).expect("open");
    mailbox.send(rejoin()).expect("open");
    first.send(Command::Info(Box::new(()))).expect("open");
    mailbox.send(push(2)).expect("open");
    mailbox.send(rejoin()).expect("open");
    let ended = commands.end(Succession::Possible, |ending| ending);
    assert!(ended.rejoin.is_some() && ended.notified == Ending::Own);
    assert_eq!(ended.waiting.len(), 2, "the push before, and what was sent to the first instance");
    assert_eq!(first.send(Command::Info(Box::new(()))), Err(SendError::Closed));
    assert!(first.while_alive(|| ()).is_none() && commands.sender().while_alive(|| ()).is_some());
    assert!(
        matches!(commands.recv().await, Some(Command::Push { payload, .. }) if payload.len() == 2)
    );
    assert!(matches!(commands.recv().await, Some(Command::Rejoin(_))));
    mailbox.send(push(1000)).expect("nothing counts any more");
}

#[tokio::test]
async fn an_instance_that_ends_for_a_join_leaves_it_what_came_behind() {
    let (mailbox, mut commands) = channel(1000, None);
    let first = commands.sender();
    mailbox.send(rejoin()).expect("open");
    let Some(Command::Rejoin(rejoin)) = commands.recv().await else { panic!("no join") };
    mailbox.send(push(1)).expect("open");
    first.send(Command::Info(Box::new(()))).expect("open");
    let ended = commands.end(Succession::With(rejoin), |ending| ending);
    assert!(ended.rejoin.is_some() && ended.notified == Ending::Own);
    assert_eq!(ended.waiting.len(), 1, "what was sent to the first instance");
    assert!(first.while_alive(|| ()).is_none());
    assert!(matches!(commands.recv().await, Some(Command::Push { .. })));
    mailbox.send(push(1000)).expect("nothing counts any more");
}

#[test]
fn no_instance_follows_a_crash_or_a_client_that_is_gone() {
    for (succession, is_gone) in [(Succession::Impossible, false), (Succession::Possible, true)] {
        let (mailbox, mut commands) = channel(1000, None);
        let sender = commands.sender();
        mailbox.send(rejoin()).expect("open");
        if is_gone {
            drop(mailbox);
        }
        let ended = commands.end(succession, |_| ());
        assert!(ended.rejoin.is_none() && ended.waiting.len() == 1);
        assert!(sender.while_alive(|| ()).is_none());
    }
}

#[test]
fn a_mailbox_whose_channel_is_over_reserves_nothing() {
    let memory = Memory::new(usize::MAX);
    let (mailbox, mut commands) = channel(1 << 20, Some(&memory.account()));
    let sender = commands.sender();
    mailbox.send(push(100_000)).expect("open");
    assert!(memory.reserved() >= 100_000);
    let ended = commands.end(Succession::Impossible, |_| ());
    drop(ended);
    assert_eq!(memory.reserved(), 0);
    drop((mailbox, sender));
}

#[test]
fn the_ends_of_many_instances_cost_no_more_than_what_they_handle() {
    const JOINS: usize = 1000;
    let (mailbox, mut commands) = channel(1 << 20, None);
    (0..JOINS).for_each(|_| mailbox.send(rejoin()).expect("there is room"));
    let ends = allocation_counter::measure(|| {
        for _ in 0..JOINS {
            assert!(commands.end(Succession::Possible, |_| ()).rejoin.is_some());
        }
    });
    assert!(ends.bytes_total < 1 << 16, "{ends:?}");
}
