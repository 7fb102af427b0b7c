use super::*;

#[test]
fn a_number_replaces_the_placeholder() {
    let mut message = Message::with_placeholder("[null,null,1]", 6);
    assert_eq!((message.to_bytes(), message.size()), ("[null,null,1]".into(), 13));
    for number in [1, 9, 10, 99, 100, u64::MAX] {
        message.set_number(number);
        let expected = format!("[null,\"s:{number}\",1]");
        assert_eq!((message.size(), message.to_bytes()), (expected.len(), expected.into()));
    }
}

#[test]
fn a_number_is_taken_in_by_a_position() {
    let shared = Message::with_placeholder("[null,\"p:E.17\",1]", 6).for_many();
    let mut message = shared.clone();
    assert!(message.takes_number());
    assert_eq!(message.to_bytes(), "[null,\"p:E.17\",1]");
    assert_eq!(message.size(), message.to_bytes().len());
    assert!(message.frame().is_some(), "nothing changes it without a number");
    for number in [1, 9, 10, 99, 100, u64::MAX] {
        message.set_number(number);
        let expected = format!("[null,\"s:{number}:E.17\",1]");
        assert_eq!((message.size(), message.to_bytes()), (expected.len(), expected.into()));
        assert!(message.frame().is_none());
    }
    assert_eq!(message.rest().as_ptr(), shared.rest()[9..].as_ptr(), "the rest is shared");
    assert_eq!(message.cost(), shared.cost());
}

#[test]
fn a_shared_frame_holds_the_same_message() {
    for size in [0, 4, 125, 126, 65_535, 65_536] {
        let text = format!("null{}", "x".repeat(size));
        let mut plain = Message::with_placeholder(text, 0);
        let mut many = plain.clone().for_many();
        assert!(many.frame().is_some_and(|frame| frame.ends_with(&plain.to_bytes())));
        for number in [0, 7] {
            plain.set_number(number);
            many.set_number(number);
            assert_eq!((many.to_bytes(), many.size()), (plain.to_bytes(), plain.size()));
        }
        assert_eq!(many.frame(), None, "the number is not part of the shared frame");
    }
}

#[test]
fn a_start_replaces_the_beginning_of_a_shared_text() {
    let shared = Message::with_placeholder("[null,é]", 1).for_many();
    let mut message = shared.clone().with_start("[\"12\"", 5);
    message.set_number(7);
    assert_eq!((message.to_bytes(), message.size()), ("[\"12\",é]".into(), 9));
    assert_eq!(message.rest().as_ptr(), shared.rest()[5..].as_ptr(), "the rest is shared");
    assert!(message.frame().is_none() && !message.takes_number());
    for (text, replaces) in [("é", 1), ("é", 3), ("", 1)] {
        assert_eq!(Message::text(text).with_start("x", replaces).to_bytes(), text);
    }
    assert_eq!(Message::text("é").with_start("x", 2).to_bytes(), "x");
    assert_eq!(Message::binary("ab").with_start("x", 1).to_bytes(), "ab");
}

#[test]
fn without_a_null_or_a_position_there_is_no_placeholder() {
    for text in ["[null,nul", "[\"p:\",\"p", "[\"P:\",null"] {
        for offset in [0, 2, 8, 9, 100, usize::MAX] {
            let mut message = Message::with_placeholder(text, offset);
            message.set_number(7);
            assert_eq!(message.to_bytes(), text);
        }
    }
}

#[test]
fn a_message_has_no_padding() {
    assert_eq!(size_of::<Message>(), size_of::<Bytes>() + 3 * size_of::<u64>());
}
