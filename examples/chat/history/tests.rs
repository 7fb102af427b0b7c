use super::*;

/// A history with two authors, Ada (1) and Bob (2).
fn with_people() -> History {
    let mut history = History::in_memory();
    assert_eq!(history.author("ada's secret").unwrap(), 1);
    assert_eq!(history.author("bob's secret").unwrap(), 2);
    history
}

fn say(history: &mut History, body: &str) -> Message {
    history.add("lobby", 1, "Ada", body, None).unwrap().message
}

fn bob() -> Person {
    Person { author: 2, name: "Bob".into() }
}

fn bodies(messages: &[Message]) -> Vec<&str> {
    messages.iter().map(|message| message.body.as_deref().unwrap_or("deleted")).collect()
}

fn rejection<T: std::fmt::Debug>(outcome: Result<T, Error>) -> &'static str {
    match outcome {
        Err(Error::Rejected(why)) => why,
        other => panic!("not rejected: {other:?}"),
    }
}

#[test]
fn a_secret_always_stands_for_the_same_author() {
    let mut history = with_people();
    assert_eq!(history.author("ada's secret").unwrap(), 1);
}

#[test]
fn a_join_returns_everything_after_the_last_seen_id() {
    let mut history = with_people();
    say(&mut history, "one");
    let seen = say(&mut history, "two");
    say(&mut history, "three");
    let missed = history.catch_up("lobby", Some(seen.id)).unwrap();
    assert!(!missed.reset);
    assert_eq!(bodies(&missed.messages), ["three"]);
    assert_eq!(missed.change, 3);
}

#[test]
fn a_join_returns_missed_reactions_and_deletions() {
    let mut history = with_people();
    let one = say(&mut history, "one");
    let two = say(&mut history, "two");
    history.react("lobby", one.id, &bob(), "👍", true).unwrap();
    history.delete("lobby", two.id, 1).unwrap();
    let missed = history.catch_up("lobby", Some(two.change)).unwrap();
    assert_eq!(bodies(&missed.messages), ["one", "deleted"]);
    assert_eq!(missed.messages[0].reactions, [Reaction { emoji: "👍".into(), who: vec![bob()] }]);
}

#[test]
fn a_client_that_has_seen_everything_misses_nothing() {
    let mut history = with_people();
    let one = say(&mut history, "one");
    assert_eq!(history.catch_up("lobby", Some(one.change)).unwrap().messages, []);
}

#[test]
fn a_first_join_gets_the_newest_page() {
    let mut history = with_people();
    (0..=PAGE).for_each(|n| drop(say(&mut history, &n.to_string())));
    let first = history.catch_up("lobby", None).unwrap();
    assert!(first.reset && first.older);
    assert_eq!(first.messages.len(), PAGE);
    assert_eq!(first.messages[0].body.as_deref(), Some("1"));
}

#[test]
fn a_client_that_was_away_for_too_long_starts_with_the_newest_page() {
    let mut history = with_people();
    let seen = say(&mut history, "seen").id;
    (0..=MAX_MISSED).for_each(|n| drop(say(&mut history, &n.to_string())));
    assert!(history.catch_up("lobby", Some(seen)).unwrap().reset);
}

#[test]
fn a_client_that_missed_too_much_starts_with_the_newest_page() {
    let mut history = with_people();
    let long = "x".repeat(MAX_MISSED_BYTES / 50);
    (0..51).for_each(|_| drop(say(&mut history, &long)));
    assert!(history.catch_up("lobby", Some(0)).unwrap().reset);
}

#[test]
fn a_last_seen_id_from_another_history_starts_with_the_newest_page() {
    let mut history = with_people();
    say(&mut history, "one");
    assert!(history.catch_up("lobby", Some(7)).unwrap().reset);
    assert!(history.catch_up("lobby", Some(-1)).unwrap().reset);
}

#[test]
fn older_pages_reach_the_first_message() {
    let mut history = with_people();
    (1..=PAGE + 3).for_each(|n| drop(say(&mut history, &n.to_string())));
    let newest = history.catch_up("lobby", None).unwrap();
    let above = history.older("lobby", newest.messages[0].id).unwrap();
    assert_eq!(bodies(&above.messages), ["1", "2", "3"]);
    assert!(!above.older);
}

#[test]
fn rooms_number_their_changes_separately() {
    let mut history = with_people();
    say(&mut history, "here");
    let there = history.add("elsewhere", 1, "Ada", "there", None).unwrap().message;
    assert_eq!(there.id, 1);
    assert_eq!(bodies(&history.catch_up("lobby", None).unwrap().messages), ["here"]);
}

#[test]
fn changes_are_numbered_consecutively() {
    let mut history = with_people();
    let one = say(&mut history, "one");
    let reacted = history.react("lobby", one.id, &bob(), "👍", true).unwrap().message;
    let back = history.react("lobby", one.id, &bob(), "👍", false).unwrap().message;
    let deleted = history.delete("lobby", one.id, 1).unwrap().message;
    let two = say(&mut history, "two");
    let changes = [&one, &reacted, &back, &deleted, &two].map(|message| message.change);
    assert_eq!(changes, [1, 2, 3, 4, 5]);
    assert_eq!(two.id, 5);
}

#[test]
fn a_message_sent_again_with_its_key_is_added_once() {
    let mut history = with_people();
    let first = history.add("lobby", 1, "Ada", "hello", Some("k")).unwrap();
    let again = history.add("lobby", 1, "Ada", "hello", Some("k")).unwrap();
    assert!(first.changed && !again.changed);
    assert_eq!(again.message, first.message);
    assert!(
        history.add("lobby", 2, "Bob", "hello", Some("k")).unwrap().changed,
        "keys are per author"
    );
}

#[test]
fn a_reaction_set_twice_counts_once() {
    let mut history = with_people();
    let one = say(&mut history, "one");
    assert!(history.react("lobby", one.id, &bob(), "👍", true).unwrap().changed);
    let again = history.react("lobby", one.id, &bob(), "👍", true).unwrap();
    assert!(!again.changed);
    assert_eq!(again.message.reactions[0].who, [bob()]);
}

#[test]
fn a_reaction_taken_back_is_gone() {
    let mut history = with_people();
    let one = say(&mut history, "one");
    history.react("lobby", one.id, &bob(), "👍", true).unwrap();
    let back = history.react("lobby", one.id, &bob(), "👍", false).unwrap();
    assert!(back.changed);
    assert_eq!(back.message.reactions, []);
}

#[test]
fn the_number_of_reactions_to_a_message_is_limited() {
    let mut history = with_people();
    let one = say(&mut history, "one");
    for n in 0..MAX_REACTIONS {
        history.react("lobby", one.id, &bob(), &n.to_string(), true).unwrap();
    }
    let more = history.react("lobby", one.id, &bob(), "👍", true);
    assert_eq!(rejection(more), "this message has too many reactions");
}

#[test]
fn only_the_author_deletes_a_message() {
    let mut history = with_people();
    let one = say(&mut history, "one");
    let why = rejection(history.delete("lobby", one.id, 2));
    assert_eq!(why, "only the author can delete a message");
    assert_eq!(bodies(&history.catch_up("lobby", None).unwrap().messages), ["one"]);
}

#[test]
fn a_deleted_message_leaves_only_its_number() {
    let mut history = with_people();
    let one = say(&mut history, "one");
    history.react("lobby", one.id, &bob(), "👍", true).unwrap();
    let gone = history.delete("lobby", one.id, 1).unwrap().message;
    assert_eq!((gone.id, gone.body, gone.reactions), (one.id, None, vec![]));
    assert_eq!(history.catch_up("lobby", None).unwrap().messages, []);
    assert!(rejection(history.react("lobby", one.id, &bob(), "👍", true)).contains("no such"));
}

#[test]
fn a_message_of_another_room_cannot_be_changed() {
    let mut history = with_people();
    let one = say(&mut history, "one");
    assert!(rejection(history.delete("elsewhere", one.id, 1)).contains("no such"));
}

#[test]
fn a_restart_loses_nothing() {
    let file = std::env::temp_dir().join(format!("chat-{}.sqlite", std::process::id()));
    let mut before = History::open(&file).unwrap();
    let ada = before.author("ada's secret").unwrap();
    before.add("lobby", ada, "Ada", "still here", None).unwrap();
    drop(before);
    let mut after = History::open(&file).unwrap();
    assert_eq!(after.author("ada's secret").unwrap(), ada);
    assert_eq!(bodies(&after.catch_up("lobby", None).unwrap().messages), ["still here"]);
    drop(after);
    std::fs::remove_file(file).unwrap();
}
