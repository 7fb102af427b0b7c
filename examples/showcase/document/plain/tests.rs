use super::*;
use yrs::StateVector;

/// A textarea and its replica.
struct Area {
    replica: Replica,
    text: String,
    number: u64,
}

impl Area {
    fn open(letter: &Letter) -> Self {
        let mut area = Self { replica: Replica::new(), text: String::new(), number: 0 };
        area.edit(letter, (0, 0, "")).unwrap();
        area
    }

    fn edit(&mut self, letter: &Letter, edit: (u32, u32, &str)) -> Result<(), &'static str> {
        self.number += 1;
        let made = self.replica.edit(&edit_of(self.number, edit), letter).map(drop);
        self.text = self.replica.catch_up(letter).unwrap();
        made
    }
}

fn edit_of(number: u64, (at, delete, insert): (u32, u32, &str)) -> Edit {
    Edit { number, at, delete, insert: insert.to_owned() }
}

fn letter_with(text: &str) -> Letter {
    let letter = Letter::default();
    Area::open(&letter).edit(&letter, (0, 0, text)).unwrap();
    letter
}

#[test]
fn two_textareas_that_edit_at_the_same_time_end_with_the_same_text_and_nothing_is_lost() {
    let letter = letter_with("Dear 🦀 all");
    let (mut ada, mut bob) = (Area::open(&letter), Area::open(&letter));
    // Each edit is made in the text that its page had.
    ada.edit(&letter, (0, 4, "Dearest")).unwrap();
    bob.edit(&letter, (11, 0, ", good bye")).unwrap();
    ada.edit(&letter, (8, 2, "🦞")).unwrap();
    bob.edit(&letter, (8, 0, "blue ")).unwrap();
    ada.edit(&letter, (0, 0, "")).unwrap();
    assert_eq!(ada.text, "Dearest blue 🦞 all, good bye");
    assert_eq!(bob.text, ada.text);
}

#[test]
fn a_textarea_and_a_yjs_page_that_write_at_the_same_time_end_with_the_same_text() {
    let letter = letter_with("Dear 🦀 all");
    let mut ada = Area::open(&letter);
    let bob = new_doc();
    let receive = || {
        let update = Update::decode_v1(&letter.since(&StateVector::default())).unwrap();
        bob.transact_mut().apply_update(update).unwrap();
    };
    receive();
    let text = bob.get_or_insert_text("text");
    let update = {
        let mut change = bob.transact_mut();
        text.insert(&mut change, 0, "Hello. ");
        change.encode_update_v1()
    };
    letter.apply(&update).unwrap();
    ada.edit(&letter, (7, 0, " and")).unwrap();
    receive();
    assert_eq!(ada.text, "Hello. Dear 🦀 and all");
    assert_eq!(text.get_string(&bob.transact()), ada.text);
}

#[test]
fn an_edit_that_is_sent_again_counts_once() {
    let letter = letter_with("");
    let mut replica = Replica::new();
    assert!(replica.edit(&edit_of(1, (0, 0, "once")), &letter).unwrap().is_some());
    assert!(replica.edit(&edit_of(1, (0, 0, "once")), &letter).unwrap().is_none());
    assert_eq!(replica.catch_up(&letter).unwrap(), "once");
    assert_eq!(replica.edit(&edit_of(3, (0, 0, "")), &letter), Err("not the next edit"));
}

#[test]
fn an_edit_that_is_not_one_of_the_text_is_refused() {
    let letter = letter_with("🦀");
    let mut ada = Area::open(&letter);
    for edit in [(3, 0, ""), (1, 0, "in a character"), (0, 1, ""), (0, 3, ""), (2, u32::MAX, "")] {
        assert_eq!(ada.edit(&letter, edit), Err("not an edit"));
    }
    ada.edit(&letter, (2, 0, "!")).unwrap();
    assert_eq!(ada.text, "🦀!");
}

#[test]
fn an_edit_that_the_document_refuses_is_taken_back() {
    let letter = letter_with("Dear all");
    let mut ada = Area::open(&letter);
    let much = "x".repeat(super::super::MAX_UPDATE);
    assert_eq!(ada.edit(&letter, (0, 0, &much)), Err("too much at once"));
    assert_eq!(ada.text, "Dear all");
    ada.edit(&letter, (8, 0, "!")).unwrap();
    assert_eq!(ada.text, "Dear all!");
}
