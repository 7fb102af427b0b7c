use super::*;

use std::time::Duration;

use tower_channels::adapter::Keep;
use tower_channels_adapter_tests::folder::Folder;

use crate::config::SqliteConfig;

const DAY: i64 = 24 * 60 * 60 * 1000;

/// Everything, for ten seconds.
const KEEP: Keep =
    Keep { messages: usize::MAX, bytes: usize::MAX, within: Duration::from_secs(10) };

struct File {
    folder: Folder,
    tables: Tables,
}

impl File {
    fn new() -> Self {
        let folder = Folder::new();
        let tables = open(&folder);
        Self { folder, tables }
    }

    fn append(&mut self, topic: &str, content: &str, keep: Keep, now: i64) -> (u64, u64) {
        let content = content.to_owned().into();
        let message = Append { topic: topic.into(), content, keep, done: None };
        let [(position, previous)] = self.tables.append(&[message], now).unwrap()[..] else {
            panic!("one message")
        };
        (position.number, previous)
    }

    fn read(&mut self, topic: &str, since: Since, now: i64) -> (Vec<String>, bool) {
        let page = self.tables.read(topic, since, 1000, now).unwrap();
        let text = |kept: &Kept| String::from_utf8(kept.content.to_vec()).unwrap();
        (page.messages.iter().map(text).collect(), page.is_complete)
    }

    fn after(&mut self, topic: &str, number: u64, now: i64) -> (Vec<String>, bool) {
        let epoch = self.tables.read(topic, Since::Newest, 0, now).unwrap().last.epoch;
        self.read(topic, Since::After(Position { epoch, number }), now)
    }

    /// Looks at all topics once.
    fn forget(&mut self, now: i64) {
        let mut from = Some(0);
        while let Some(topic) = from {
            from = self.tables.forget(topic, now).unwrap();
        }
    }

    fn count(&self, table: &str) -> i64 {
        let count = format!("SELECT count(*) FROM {table}");
        self.tables.0.query_row(&count, [], |row| row.get(0)).unwrap()
    }
}

fn open(folder: &Folder) -> Tables {
    Tables::new(file::open(&SqliteConfig::new(folder.path().join("history"))).unwrap())
}

#[test]
fn topics_draw_their_numbers_from_one_counter() {
    let mut file = File::new();
    assert_eq!(file.append("a", "1", KEEP, 0), (1, 0));
    assert_eq!(file.append("b", "2", KEEP, 0), (2, 0));
    assert_eq!(file.append("a", "3", KEEP, 0), (3, 1));
    assert_eq!(file.append("b", "4", KEEP, 0), (4, 2));
}

#[test]
fn the_newest_messages_are_kept() {
    let mut file = File::new();
    let keep = Keep { messages: 3, ..KEEP };
    for text in ["1", "2", "3", "4", "5"] {
        file.append("t", text, keep, 0);
    }
    assert_eq!(file.read("t", Since::Newest, 0), (vec!["3".into(), "4".into(), "5".into()], true));
    assert_eq!(file.count("messages"), 3);
    assert!(!file.after("t", 1, 0).1);
    assert!(file.after("t", 2, 0).1);
    file.append("t", "6", Keep { messages: 1, ..KEEP }, 0);
    assert_eq!(file.read("t", Since::Newest, 0).0, ["6"]);
}

#[test]
fn the_newest_bytes_are_kept_and_the_newest_message_in_any_case() {
    let mut file = File::new();
    let keep = Keep { bytes: 10, ..KEEP };
    for text in ["aaaa", "bbbb", "cc", "d"] {
        file.append("t", text, keep, 0);
    }
    assert_eq!(file.read("t", Since::Newest, 0).0, ["bbbb", "cc", "d"]);
    file.append("t", "a long one that is over it", keep, 0);
    assert_eq!(file.read("t", Since::Newest, 0).0, ["a long one that is over it"]);
    file.append("t", "x", keep, 0);
    assert_eq!(file.read("t", Since::Newest, 0).0, ["x"]);
}

#[test]
fn a_message_that_is_too_old_is_not_read_although_it_is_there() {
    let mut file = File::new();
    file.append("t", "1", KEEP, 0);
    file.append("t", "2", KEEP, 5000);
    assert_eq!(file.read("t", Since::Newest, 10_000).0, ["1", "2"]);
    assert_eq!(file.read("t", Since::Newest, 10_001).0, ["2"]);
    assert_eq!(file.after("t", 0, 10_001), (vec!["2".into()], false));
    assert_eq!(file.after("t", 1, 10_001), (vec!["2".into()], true));
    assert_eq!(file.read("t", Since::Newest, 15_001).0, [""; 0]);
    assert_eq!(file.after("t", 1, 15_001), (vec![], false));
    assert_eq!(file.after("t", 2, 15_001), (vec![], true));
    assert_eq!(file.count("messages"), 2);
}

#[test]
fn what_is_too_old_is_forgotten_by_the_next_message_or_in_a_round() {
    let mut file = File::new();
    file.append("a", "1", KEEP, 0);
    file.append("b", "2", KEEP, 0);
    file.append("a", "3", KEEP, 10_001);
    assert_eq!(file.count("messages"), 2);
    file.forget(10_001);
    assert_eq!(file.count("messages"), 1);
    assert_eq!(file.append("b", "4", KEEP, 10_001), (4, 2));
}

#[test]
fn what_was_kept_for_a_shorter_time_does_not_come_back() {
    let mut file = File::new();
    file.append("t", "1", KEEP, 0);
    file.append("t", "2", Keep { within: Duration::from_secs(3600), ..KEEP }, 10_001);
    assert_eq!(file.read("t", Since::Newest, 10_001).0, ["2"]);
    file.append("t", "3", KEEP, 10_002);
    file.append("t", "4", KEEP, 20_003);
    assert_eq!(file.read("t", Since::Newest, 20_003).0, ["4"]);
}

#[test]
fn a_topic_is_forgotten_a_day_after_its_last_message() {
    let mut file = File::new();
    file.append("a", "1", KEEP, 0);
    file.append("b", "2", KEEP, 5000);
    file.forget(DAY + 10_000);
    assert_eq!(file.count("topics"), 2);
    file.forget(DAY + 10_001);
    assert_eq!(file.count("topics"), 1);
    // The position of a quiet topic goes on for as long as it is remembered.
    assert_eq!(file.after("b", 2, DAY + 10_001), (vec![], true));
    file.forget(DAY + 15_001);
    assert_eq!(file.count("topics"), 0);
    let now = DAY + 20_000;
    for topic in ["a", "b", "c"] {
        assert_eq!(file.after(topic, 1, now), (vec![], false), "{topic}");
        assert_eq!(file.after(topic, 2, now), (vec![], true), "{topic}");
    }
    assert_eq!(file.append("a", "3", KEEP, now), (3, 2));
    assert_eq!(file.after("a", 1, now), (vec!["3".into()], false));
    assert_eq!(file.after("a", 2, now), (vec!["3".into()], true));
}

#[test]
fn a_round_looks_at_every_topic() {
    let mut file = File::new();
    for topic in 0..2 * STEP + 1 {
        file.append(&topic.to_string(), "x", KEEP, 0);
    }
    file.forget(10_001);
    assert_eq!((file.count("messages"), file.count("topics")), (0, 2 * STEP as i64 + 1));
}

#[test]
fn a_clock_that_is_set_back_keeps_messages_for_longer() {
    let mut file = File::new();
    file.append("t", "1", KEEP, 100_000);
    file.append("t", "2", KEEP, 0);
    file.forget(50_000);
    assert_eq!(file.read("t", Since::Newest, 50_000).0, ["1", "2"]);
    file.append("t", "3", KEEP, 110_001);
    assert_eq!(file.read("t", Since::Newest, 110_001).0, ["3"]);
}

#[test]
fn pages_before_a_position_lead_to_the_beginning() {
    let mut file = File::new();
    for number in 1..=7 {
        file.append("t", &number.to_string(), KEEP, 0);
    }
    let epoch = file.tables.read("t", Since::Newest, 0, 0).unwrap().last.epoch;
    let mut page = |number| {
        let before = Since::Before(Position { epoch, number });
        let page = file.tables.read("t", before, 3, 0).unwrap();
        (
            page.messages.iter().map(|kept| kept.position.number).collect::<Vec<_>>(),
            page.is_complete,
        )
    };
    assert_eq!(page(7), (vec![4, 5, 6], true));
    assert_eq!(page(4), (vec![1, 2, 3], true));
    assert_eq!(page(1), (vec![], true));
    assert_eq!(page(8), (vec![], false));
    file.append("t", "8", Keep { messages: 2, ..KEEP }, 0);
    let before = Since::Before(Position { epoch, number: 7 });
    assert_eq!(file.read("t", before, 0), (vec![], false));
}

#[test]
fn positions_of_any_number_and_epoch_are_no_reason_to_fail() {
    let mut file = File::new();
    file.append("t", "1", KEEP, 0);
    let epoch = file.tables.read("t", Since::Newest, 0, 0).unwrap().last.epoch;
    for (epoch, number) in [(epoch, 2), (epoch, u64::MAX), (epoch ^ 1, 0), (u64::MAX, u64::MAX)] {
        let position = Position { epoch, number };
        for since in [Since::After(position), Since::Before(position)] {
            assert_eq!(file.read("t", since, 0), (vec![], false), "{since:?}");
            assert!(!file.read("none", since, 0).1, "{since:?}");
        }
    }
    assert_eq!(file.tables.read("t", Since::Newest, usize::MAX, 0).unwrap().messages.len(), 1);
    assert_eq!(file.tables.read("t", Since::Newest, 0, 0).unwrap().messages.len(), 0);
}

#[test]
fn a_transaction_that_fails_leaves_no_trace() {
    let mut file = File::new();
    file.append("t", "1", KEEP, 0);
    file.tables
        .0
        .execute_batch(
            "CREATE TEMP TRIGGER fails BEFORE INSERT ON main.messages
        WHEN length(new.content) = 3 BEGIN SELECT raise(ABORT, 'no'); END",
        )
        .unwrap();
    let message = |content: &'static str| Append {
        topic: "t".into(),
        content: content.into(),
        keep: Keep { messages: 1, ..KEEP },
        done: None,
    };
    assert!(file.tables.append(&[message("2"), message("bad"), message("4")], 0).is_err());
    assert_eq!(file.read("t", Since::Newest, 0).0, ["1"]);
    assert_eq!(file.append("t", "2", KEEP, 0), (2, 1));
}

#[test]
fn a_file_of_a_closed_store_goes_on_in_its_epoch() {
    let mut file = File::new();
    file.append("t", "1", KEEP, 0);
    let before = file.tables.read("t", Since::Newest, 9, 0).unwrap();
    for close in [true, false] {
        if close {
            file.tables.close().unwrap();
        }
        file.tables = open(&file.folder);
        assert_eq!(file.tables.read("t", Since::Newest, 9, 0).unwrap(), before);
    }
    assert_eq!(file.append("t", "2", KEEP, 0), (2, 1));
}

/// What a store finds that was not closed before the system was started again.
#[test]
fn another_epoch_begins_where_the_last_transactions_may_be_lost() {
    let mut file = File::new();
    file.append("t", "1", KEEP, 0);
    let before = file.tables.read("t", Since::Newest, 9, 0).unwrap().last;
    file.tables.0.execute("UPDATE store SET boot = 'another'", []).unwrap();
    file.tables = open(&file.folder);
    let page = file.tables.read("t", Since::Newest, 9, 0).unwrap();
    assert_eq!(page.messages.len(), 1);
    // Where the system does not tell, no number is given twice.
    let is_told = std::path::Path::new("/proc/sys/kernel/random/boot_id").exists();
    assert_eq!(page.last.epoch != before.epoch, is_told);
    let (number, _) = file.append("t", "2", KEEP, 0);
    assert_eq!(number > 2, !is_told);
    file.tables.close().unwrap();
    file.tables.0.execute("UPDATE store SET boot = NULL", []).unwrap();
    file.tables = open(&file.folder);
    assert_eq!(file.tables.read("t", Since::Newest, 9, 0).unwrap().last.epoch, page.last.epoch);
}
