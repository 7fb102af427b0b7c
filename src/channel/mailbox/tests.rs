use super::*;

fn push(size: usize) -> Command {
    let payload = Payload::binary(vec![0; size]);
    Command::Push { reference: Ref::NULL, event: "e".into(), payload }
}

#[tokio::test]
async fn what_waits_is_handled_after_the_socket_is_gone() {
    let (mailbox, mut commands) = channel(1000, None);
    mailbox.sender().send(push(1)).expect("open");
    drop(mailbox);
    assert!(commands.recv().await.is_some());
    assert!(commands.recv().await.is_none());
}

#[tokio::test]
async fn a_full_mailbox_refuses_commands_until_it_is_read() {
    let (mailbox, mut commands) = channel(1000, None);
    mailbox.sender().send(push(2000)).expect("one always fits");
    mailbox.sender().send(push(1000)).expect("and what may wait behind it");
    assert_eq!(mailbox.sender().send(push(1)), Err(SendError::Full));
    commands.recv().await;
    commands.recv().await;
    mailbox.sender().send(push(1)).expect("there is room again");
}

#[test]
fn a_full_mailbox_holds_as_much_as_its_limit() {
    const LIMIT: usize = 1 << 20;
    let text = |size| SmolStr::from("x".repeat(size));
    let push = |size, reference: &str| {
        let reference = Ref::from_json(reference).expect("a ref");
        Command::Push { reference, event: text(size), payload: Payload::binary(vec![0; size]) }
    };
    let long_ref = "7".repeat(200);
    let commands: [&dyn Fn() -> Command; 6] = [
        &|| push(0, "1"),
        &|| push(200, "1"),
        &|| push(200, &long_ref),
        &|| Command::Leave { reference: Ref::from_json(&long_ref).expect("a ref") },
        &|| Command::Info(Box::new(Some([0_u8; 5000]))),
        &|| Command::Detached,
    ];
    for (kind, command) in commands.iter().enumerate() {
        let (mailbox, _commands) = channel(LIMIT, None);
        let held =
            allocation_counter::measure(|| while mailbox.sender().send(command()).is_ok() {});
        assert!(held.bytes_current <= (LIMIT + LIMIT / 4) as i64, "{kind}: {held:?}");
        assert!(held.bytes_current >= (LIMIT / 2) as i64, "{kind}: {held:?}");
    }
}

#[test]
fn an_ended_channel_accepts_no_commands() {
    let (mailbox, commands) = channel(1000, None);
    drop(commands);
    assert!(mailbox.sender().is_over());
    assert_eq!(mailbox.sender().send(push(1)), Err(SendError::Closed));
    assert!(!mailbox.replace() && !mailbox.abandon());
}

#[test]
fn a_channel_notifies_its_client_of_its_end_unless_its_successor_does() {
    let ended = |act: fn(&Owner)| {
        let (mailbox, mut commands) = channel(1000, None);
        mailbox.sender().send(push(1)).expect("open");
        act(&mailbox);
        let (waiting, ending) = commands.end(|ending| ending);
        (waiting.len(), ending)
    };
    assert_eq!(ended(|_| ()), (1, Ending::Own));
    assert_eq!(ended(|mailbox| assert!(mailbox.replace())), (0, Ending::Replaced));
    let replace_and_abandon = |mailbox: &Owner| assert!(mailbox.replace() && mailbox.abandon());
    assert_eq!(ended(replace_and_abandon), (0, Ending::Abandoned));
}

#[test]
fn a_channel_that_has_ended_or_was_abandoned_sends_nothing_more() {
    let sends = |mailbox: &Owner| mailbox.sender().while_alive(|| ()).is_some();
    let (first, commands) = channel(1000, None);
    let (second, _commands) = channel(1000, None);
    assert!(sends(&first) && sends(&second) && !second.sender().is_muted());
    drop(commands);
    assert!(second.abandon() && second.sender().is_muted());
    assert!(!sends(&first) && !sends(&second));
}
