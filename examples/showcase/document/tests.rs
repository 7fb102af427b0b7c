use super::*;
use crate::device::State;
use crate::endpoint;
use tower_channels::test;
use yrs::{GetString, Text};

/// A page: a client, and the document as it has it.
struct Page(test::Client<Device>, Doc);

impl Page {
    async fn open(endpoint: &tower_channels::Endpoint<Device>, user: &str) -> Self {
        let mut client = test::connect(endpoint, &[("user", user)]).await.unwrap();
        client.join("doc:letter", json!({})).await;
        let mut page = Self(client, Doc::new());
        page.receive("state").await;
        page
    }

    async fn receive(&mut self, event: &str) {
        let update = self.0.expect(event).await;
        let update = Update::decode_v1(update.as_binary().unwrap()).unwrap();
        self.1.transact_mut().apply_update(update).unwrap();
    }

    /// Writes without sending it.
    fn write(&self, at: u32, text: &str) -> Payload {
        let letter = self.1.get_or_insert_text("text");
        let mut change = self.1.transact_mut();
        letter.insert(&mut change, at, text);
        Payload::binary(change.encode_update_v1())
    }

    fn text(&self) -> String {
        let letter = self.1.get_or_insert_text("text");
        letter.get_string(&self.1.transact())
    }
}

#[tokio::test]
async fn two_who_write_at_the_same_time_end_with_the_same_text() {
    let endpoint = endpoint(State::default());
    let (mut ada, mut bob) =
        (Page::open(&endpoint, "ada").await, Page::open(&endpoint, "bob").await);
    let (by_ada, by_bob) = (ada.write(0, "Dear all"), bob.write(0, "Hello"));
    assert_eq!(ada.0.push("doc:letter", "update", by_ada).await, Reply::ack());
    assert_eq!(bob.0.push("doc:letter", "update", by_bob).await, Reply::ack());
    ada.receive("update").await;
    bob.receive("update").await;
    let cat = Page::open(&endpoint, "ada").await;
    assert_eq!(ada.text(), bob.text());
    assert_eq!(cat.text(), bob.text());
    assert_eq!(cat.text().len(), "Dear allHello".len());
}

#[tokio::test]
async fn a_page_without_yjs_writes_in_the_same_text() {
    let endpoint = endpoint(State::default());
    let mut ada = Page::open(&endpoint, "ada").await;
    let mut bob = test::connect(&endpoint, &[("user", "bob")]).await.unwrap();
    bob.join("doc:letter", json!({ "plain": true })).await;
    let edit = |number: u32, at: u32, insert: &str| json!({ "number": number, "at": at, "delete": 0, "insert": insert });
    let text = |text: &str| Reply::ok(json!({ "text": text }));
    let by_ada = ada.write(0, "Dear all");
    ada.0.push("doc:letter", "update", by_ada).await;
    assert_eq!(bob.push("doc:letter", "edit", edit(1, 0, "")).await, text("Dear all"));
    let by_ada = ada.write(8, "!");
    ada.0.push("doc:letter", "update", by_ada).await;
    assert_eq!(bob.push("doc:letter", "edit", edit(2, 4, "est")).await, text("Dearest all!"));
    ada.receive("update").await;
    assert_eq!(ada.text(), "Dearest all!");
    let refused = bob.push("doc:letter", "edit", edit(3, 13, "")).await;
    let why = json!({ "reason": "not an edit", "text": "Dearest all!" });
    assert_eq!(refused, Reply::error(why));
}

#[tokio::test]
async fn what_is_no_update_is_refused() {
    let mut ada = Page::open(&endpoint(State::default()), "ada").await;
    for update in [json!({}).into(), Payload::binary(vec![1, 2, 255])] {
        let reply = ada.0.push("doc:letter", "update", update).await;
        assert_eq!(reply, Reply::reason("not an update"));
    }
}

#[tokio::test]
async fn a_cursor_is_seen_by_others_and_leaves_with_its_page() {
    let endpoint = endpoint(State::default());
    let (mut ada, bob) = (Page::open(&endpoint, "ada").await, Page::open(&endpoint, "bob").await);
    let mut bob = bob.0;
    bob.push("doc:letter", "cursor", json!({ "at": 5 })).await;
    let moves = |message: &test::Message| {
        message.event == "presence_diff" && message.payload.as_json().unwrap().contains("\"at\":5")
    };
    ada.0.expect(moves).await;
    bob.leave("doc:letter").await;
    ada.0.expect(test::leaves("bob")).await;
}
